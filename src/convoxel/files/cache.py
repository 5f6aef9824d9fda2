"""Small JSON files that Convoxel keeps between runs and can always do without.

``CONVOXEL_CACHE`` names their folder (empty: keep nothing); otherwise it is ``convoxel`` in the user's cache folder.
A file that is missing, broken or from elsewhere reads as empty, and a file that cannot be written is skipped; one
warning reports either, and nothing fails. There is no lock: a file is replaced as a whole, and of two writers the last
one wins.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from convoxel.errors import DataError
from convoxel.files.atomic import write_json
from convoxel.files.values import JsonObject

_LARGEST_BYTES = 8 * 2**20  # far above what is ever written: a larger file is not ours
_complained: set[Path] = set()


def cache_folder() -> Path | None:
    """The folder of Convoxel's cache files, or None if they are switched off; it need not exist.

    ``$CONVOXEL_CACHE``, else ``$XDG_CACHE_HOME/convoxel``, else ``~/.cache/convoxel`` (XDG Base Directory
    Specification 0.8, which says to ignore relative paths).
    """
    wanted = os.environ.get("CONVOXEL_CACHE")
    if wanted is not None:
        return Path(wanted).expanduser() if wanted else None
    general = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if general.is_absolute():
        return general / "convoxel"
    try:
        return Path.home() / ".cache" / "convoxel"
    except RuntimeError:  # a user without a home
        return None


def read_cache(name: str) -> JsonObject:
    """Return the object in the cache file ``name``; empty if there is none, or none that can be used."""
    folder = cache_folder()
    if folder is None:
        return {}
    path = folder / name
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"it has more than {_LARGEST_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _complain(folder, f"{path} cannot be read ({_reason(error)}); it counts as empty")
        return {}


def write_cache(name: str, content: JsonObject) -> bool:
    """Replace the cache file ``name`` in one step and return whether that worked."""
    folder = cache_folder()
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, content)
        return True
    except (OSError, DataError) as error:
        _complain(folder, f"{folder / name} cannot be written ({_reason(error)}); measurements will not be remembered")
        return False


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error  # a DataError's message would name the file a second time
    return str(cause.strerror if isinstance(cause, OSError) and cause.strerror else cause)


def _complain(folder: Path, what: str) -> None:
    """Warn once per folder and process: a fault of one file is mostly one of the whole folder."""
    if folder not in _complained:
        _complained.add(folder)
        warnings.warn(
            f"cache: {what}. Set CONVOXEL_CACHE to another folder, or to nothing to keep none.",
            UserWarning,
            stacklevel=3,
        )
