"""Pages as files: the views that can keep their answers, written into a folder that needs no Python and no server.

Each page is one file with its style, its scripts and the answers to the questions that it may ask; it opens from a
disk or from any server of files, and asks no other machine for anything. What was not asked when it was written is said
to be missing, with the command that shows it live; or, with ``live``, computed by Python in the page (``live``) where a
server hands out the site.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment

from convoxel import __version__
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.explorer.live import write_bundle
from convoxel.explorer.pages import VIEWS, page_templates, static_files
from convoxel.explorer.session import Session
from convoxel.explorer.view import KeptPage, Query, View, plain
from convoxel.files.atomic import write_bytes, write_text
from convoxel.files.folder import whole_folder
from convoxel.files.values import JsonObject

_IMPORT = re.compile(r'(from\s+)"(?:\./)(?:library/)?(\w+)\.js"')
_LIVE = "convoxel explore"
_NPM = Path(__file__).with_name("npm")
# What a page needs of Pyodide; the rest is for other programs.
_PYODIDE = (
    "pyodide.mjs",
    "pyodide.asm.js",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
    "package.json",
)


def export(
    folder: str | Path,
    *networks: str,
    views: Sequence[View] = VIEWS,
    live: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> list[Path]:
    """Write pages as files, and return them; the first is the list of all.

    Args:
        folder: new folder.
        *networks: networks of the zoo, runs, ``.onnx`` and ``.cvx`` files whose pages are wanted, as of ``explore``.
        views: views to take pages from (default: all).
        live: whether pages compute sizes, matrices and fields that they did not keep, where a server hands them out:
            Python for browsers (Pyodide, 12 MiB, downloaded by npm and checked by its hash) then lies beside them
            (default False).
        say: called with the title of each page before it is made.

    Raises:
        ConfigError: the folder is there and not empty, a network does not exist, or npm is needed and not there.
    """
    session = Session.of(networks, readonly=True)
    pages = [(view, page) for view in views if view.kept is not None for page in view.kept(session)]
    names = [page.name for _, page in pages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"export: two pages are called {twice}. Name each network once.")
    templates, every = page_templates(), [page for _, page in pages]
    style = static_files(templates)["style.css"][0].decode()
    with whole_folder(Path(folder)) as place:
        if live:
            say(f"Python for browsers: {_write_python(place / 'live') / 2**20:.1f} MiB")
        for view, page in pages:
            say(page.title)
            text = render_alone(templates, session, view, page, every, python="live/worker.js" if live else "")
            write_text(place / f"{page.name}.html", text)
        listed = templates.get_template("index.html.jinja").render(pages=every, version=__version__, style=style)
        write_text(place / "index.html", listed)
    return [Path(folder) / name for name in ("index.html", *(f"{name}.html" for name in names))]


def render_alone(
    templates: Environment,
    session: Session,
    view: View,
    page: KeptPage,
    pages: Sequence[KeptPage],
    caller: str = "kept",
    python: str = "",
) -> str:
    """Return a page as one text: style and modules lie within it, and ``library/CALLER.js`` answers what it asks.

    ``python`` is the address of the script that computes what was not kept; "" where there is none.
    """
    files = static_files(templates)
    modules = {
        Path(name).stem: content.decode() for name, (content, _) in files.items()
        if name.endswith(".js") and (name.startswith("library/") or name == f"{view.name}.js")
    }  # fmt: skip
    modules["call"] = modules.pop(caller)
    addresses = {
        name: "data:text/javascript;base64," + base64.b64encode(_linked(text).encode()).decode()
        for name, text in modules.items()
    }
    kept = {
        "page": page, "pages": pages, "state": page.state, "style": files["style.css"][0].decode(),
        "theme": files["theme.js"][0].decode(), "start": view.name, "icon": files["icon.svg"][0].decode(),
        "modules": _in_page({"imports": addresses}), "answers": _in_page(_gather(session, view, page)),
        "live": f"{_LIVE} {shlex.join(session.networks)}".strip() if caller == "kept" else "",
        "python": python,
    }  # fmt: skip
    return templates.get_template(f"{view.name}.html.jinja").render(
        view=view, views=(), version=__version__, readonly=True, networks=session.networks, kept=kept
    )


def _write_python(place: Path) -> int:
    """Write Pyodide, our modules and the script that joins them into a folder, and return their bytes.

    Raises:
        ConfigError: npm is not there, or could not get the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError("live: npm, which gets Pyodide, is not installed. Install Node.js, or leave --live out.")
    with tempfile.TemporaryDirectory() as around:
        shutil.copytree(_NPM, around, dirs_exist_ok=True)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=around, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(
                f"live: npm could not get Pyodide ({last[:200]}). Look at the network, or leave --live out."
            )
        package = Path(around) / "node_modules" / "pyodide"
        (place / "pyodide").mkdir(parents=True)
        for name in _PYODIDE:
            write_bytes(place / "pyodide" / name, (package / name).read_bytes())
    write_bytes(place / "convoxel.zip", write_bundle())
    write_bytes(place / "worker.js", (Path(__file__).parent / "static" / "live" / "worker.js").read_bytes())
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def _linked(module: str) -> str:
    """Return a module that imports others by their bare names, which the page says where to find."""
    return _IMPORT.sub(r'\1"\2"', module)


def _in_page(value: object) -> str:
    """Return JSON that no text within ends a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _gather(session: Session, view: View, page: KeptPage) -> JsonObject:
    """Return the answers to a page's questions, equal ones once."""
    values: list[object] = []
    known: dict[str, int] = {}
    indices: dict[str, int] = {}
    for name, pairs in page.questions:
        function = name.partition("/")[2]
        answer = page.answers.get(name) or partial(view.answers[function], session)
        try:
            found: object = plain(answer(Query(tuple(pairs))))
        except ConvoxelError as error:
            found = {"error": str(error)}
        text = json.dumps(found, ensure_ascii=False)
        if text not in known:
            known[text] = len(values)
            values.append(found)
        words = sorted(f"{key}={value}" for key, value in pairs)
        indices[json.dumps([name, *words], ensure_ascii=False, separators=(",", ":"))] = known[text]
    return {"values": values, "indices": indices}
