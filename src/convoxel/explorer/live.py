"""Python within exported pages: answers to what was not asked when a page was written.

Where a site comes from a server, its pages start Pyodide, which is Python for browsers, and ask ``answer``. The modules
of sizes, matrices and fields need the standard library alone, and so do the pictures that show them; ``write_bundle``
puts these modules into an archive. What needs NumPy or PyTorch stays as it was kept.
"""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from convoxel.errors import ConvoxelError
from convoxel.explorer import layer_view, lecture_view
from convoxel.explorer.view import Query, plain

_VIEWS = {view.name: view for view in (layer_view.VIEW, lecture_view.VIEW)}
# Packages whose names come with much that these pages do not need are without their faces in the archive.
_BARE = ("cli", "explorer")
_PARTS = ("*.py", "arithmetic/*.py", "cli/parsing.py", "draw/*.py", "draw/fonts/*", "explorer/*.py", "files/*.py")
_NAMES = '''"""Names of pictures, each loaded when it is asked for."""

from importlib import import_module

_HOMES = {homes}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(_HOMES[name]), name)
'''


class _Page:
    """A session of one page, which keeps nothing."""

    def keep(self, key: Hashable, make: Callable[[], Any], *more: Any) -> Any:
        """Return what ``make`` returns."""
        return make()


def answer(name: str, pairs: str) -> str:
    """Return the answer to a question, or an error, as JSON.

    Args:
        name: "VIEW/FUNCTION".
        pairs: words of the question with their texts, as JSON.

    >>> json.loads(answer("layer/describe", '[["size", "5"], ["kernel", "3"]]'))["output"]
    [3]
    """
    of, _, function = name.partition("/")
    session: Any = _Page()
    try:
        found: Any = _VIEWS[of].answers[function](
            session, Query(tuple((key, value) for key, value in json.loads(pairs)))
        )
        if of == "lecture" and function == "step":
            found = {**found, "link": ""}  # leads to where the explorer runs
        return json.dumps(plain(found), ensure_ascii=False)
    except ConvoxelError as error:
        return json.dumps({"error": str(error)})
    except ModuleNotFoundError as error:
        return json.dumps({"error": f"This picture needs {error.name}, which is not here. Run: convoxel explore"})


def write_bundle() -> bytes:
    """Return an archive of the modules that ``answer`` needs."""
    root = Path(__file__).parents[1]
    imports = ast.parse((root / "draw" / "__init__.py").read_text()).body
    homes = {alias.name: each.module for each in imports if isinstance(each, ast.ImportFrom) for alias in each.names}
    replaced = {f"{package}/__init__.py": "" for package in _BARE}
    replaced["draw/__init__.py"] = _NAMES.format(homes=homes)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted({file for part in _PARTS for file in root.glob(part)}):
            name = file.relative_to(root).as_posix()
            # The same bytes whenever they are written.
            entry = zipfile.ZipInfo(f"convoxel/{name}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, replaced[name] if name in replaced else file.read_bytes())
    return stream.getvalue()
