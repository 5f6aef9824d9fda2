"""Folders for results: made when needed, and removed again when their content does not come to be."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from convoxel.errors import ConfigError
from convoxel.files.atomic import sync_folder, temporary_folder
from convoxel.files.fault import brief

_MEND = "Give another --output"


def as_path(function: str, path: object, expected: str = "a str or a pathlib.Path") -> Path:
    """Return ``path`` as a Path.

    Raises:
        ConfigError: it is no path; the message begins with ``function``.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or "\0" in text:
        raise ConfigError(f"{function}: path is {brief(path)}, expected {expected}")
    return Path(text)


def check_new_folder(folder: Path, mend: str = _MEND) -> None:
    """Raise ConfigError, which ends with ``mend``, unless ``folder`` is missing or empty."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"output: cannot look into {folder} ({error.strerror or error}). {_MEND}.") from None
    if taken:
        raise ConfigError(f"output: {folder} exists and is not empty. {mend}.")


@contextlib.contextmanager
def make_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; if the block fails, remove those of them that were made and are still empty.

    Raises:
        ConfigError: the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output: cannot make the folder {folder} ({error.strerror or error}). {_MEND}.") from None
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # not empty: what was written is whole and stays
                path.rmdir()
        raise


@contextlib.contextmanager
def new_folder(folder: Path, mend: str = _MEND) -> Iterator[None]:
    """Make a folder that is missing or empty; if the block fails, remove everything that it wrote there.

    Raises:
        ConfigError: the folder is not empty or cannot be made.
    """
    check_new_folder(folder, mend)
    with make_folder(folder):
        try:
            yield
        except BaseException:
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        path.unlink()
            raise


@contextlib.contextmanager
def whole_folder(folder: Path, mend: str = _MEND) -> Iterator[Path]:
    """Yield a folder to write into, which takes the name ``folder`` at the end: it appears whole or not at all.

    Raises:
        ConfigError: there is a folder of this name that is not empty, or none can be made.
    """
    check_new_folder(folder, mend)
    with make_folder(folder.parent):
        try:
            with temporary_folder(folder.parent) as part:
                yield part
                sync_folder(part)
                part.replace(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise ConfigError(
                f"output: cannot make the folder {folder} ({error.strerror or error}). {_MEND}."
            ) from None
