"""Small JSON files that Convoxel keeps between runs and can always do without.

``CONVOXEL_CACHE`` names their folder (empty: keep nothing); otherwise it is ``convoxel`` in the user's cache folder.
A file that is missing, broken or from elsewhere reads as empty; one that cannot be written is not. Both are told in
one warning and nothing fails. No lock: a file is replaced as a whole, and of two writers the last one wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import warnings
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "read_cache", "write_cache"]

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


def read_cache(name: str) -> dict[str, Any]:
    """The object in the cache file ``name``; empty if there is none, or none that can be used."""
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


def write_cache(name: str, content: dict[str, Any]) -> bool:
    """Replace the cache file ``name`` in one step; whether that worked."""
    folder = cache_folder()
    if folder is None:
        return False
    part = folder / f".{name}-{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(folder / name)
        return True
    except OSError as error:
        _complain(folder, f"{folder / name} cannot be written ({_reason(error)}); measurements will not be remembered")
        return False
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _reason(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _complain(folder: Path, what: str) -> None:
    """Warn, once per folder and process: what is true of one file is mostly true of the next."""
    if folder not in _complained:
        _complained.add(folder)
        warnings.warn(
            f"cache: {what}. Set CONVOXEL_CACHE to another folder, or to nothing to keep none.",
            UserWarning,
            stacklevel=3,
        )
