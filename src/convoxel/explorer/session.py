"""Networks that the explorer was started with, and the only files and folders that it may read.

A path that comes from the page counts only if it lies in one of these folders *after* links are followed, and if no
part of it is hidden. Everything else does not exist for the page, whatever its rights.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from convoxel.errors import ConfigError, DataError
from convoxel.explorer.jobs import Jobs
from convoxel.files.fault import shown
from convoxel.files.values import JsonObject
from convoxel.lookup import is_file, is_run

_MOST_ENTRIES = 2000  # of a folder's list
_MOST_KEPT = 16  # results of a kind
_T = TypeVar("_T")


class ForbiddenPath(DataError):
    """A path outside of the folders that the explorer was started with."""


@dataclass(frozen=True)
class Session:
    """Networks and folders of one explorer.

    Attributes:
        networks: names of the zoo, runs and files that were named at the start, in order.
        roots: files and folders that may be read; absolute, without links.
        readonly: True if nothing is started, measured or written.
        kept: results that several questions share, by kind; see :meth:`keep`.
        lock: guards ``kept``.
        times: what was measured, by the words of a network.
        progress: share of each image that is being decoded.
        measuring: held while something is measured, so that measurements do not disturb each other.
        jobs: trainings and predictions that were started.
    """

    networks: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    readonly: bool = False
    kept: dict[str, OrderedDict[object, Future[Any]]] = field(default_factory=dict, repr=False, compare=False)
    lock: Lock = field(default_factory=Lock, repr=False, compare=False)
    times: dict[object, JsonObject] = field(default_factory=dict, repr=False, compare=False)
    progress: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    measuring: Lock = field(default_factory=Lock, repr=False, compare=False)
    jobs: Jobs = field(default_factory=Jobs, repr=False, compare=False)

    @classmethod
    def of(cls, words: Sequence[str], readonly: bool = False) -> Session:
        """Return the session of the words after ``convoxel explore``.

        Raises:
            ConfigError: a word is neither a network of the zoo nor a file or folder.
        """
        if not words:
            return cls(readonly=readonly)
        from convoxel import models  # brings PyTorch
        from convoxel.lookup import is_name

        networks: list[str] = []
        roots: list[Path] = []
        for word in words:
            if is_name(word):
                networks.append(word)
                continue
            path = Path(word)
            if not path.exists():
                if is_file(word) or os.sep in word:
                    raise ConfigError(
                        f"explore: {shown(word)} does not exist. Give a network, a run, a file or a folder."
                    )
                models.entry(word)  # raises with the nearest name
            real = path.resolve()
            roots.append(real)
            if is_file(str(real)) or is_run(real):
                networks.append(str(real))
        return cls(tuple(dict.fromkeys(networks)), tuple(dict.fromkeys(roots)), readonly)

    def keep(self, key: Hashable, make: Callable[[], _T], kind: str = "", most: int = _MOST_KEPT) -> _T:
        """Return what ``make`` returned for ``key``; who asks while it is being made waits for it.

        The results of a ``kind`` that were asked for last are kept, up to ``most``; one that failed is made again.
        """
        with self.lock:
            kept = self.kept.setdefault(kind, OrderedDict())
            found: Future[_T] | None = kept.get(key)
            mine = found is None
            future: Future[_T] = found or Future()
            kept[key] = future
            kept.move_to_end(key)
            while len(kept) > most:
                kept.popitem(last=False)
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self.lock:
                    kept.pop(key, None)
                future.set_exception(error)
        return future.result()

    def path(self, text: str) -> Path:
        """Return the file or folder that ``text`` names, if it may be read.

        Raises:
            ForbiddenPath: it lies elsewhere, also by a link, or is hidden, or does not exist.
        """
        if text and "\x00" not in text:
            given = Path(text)
            for root in self.roots:
                real = Path(os.path.realpath(given if given.is_absolute() else root / given))
                inside = real == root or real.is_relative_to(root)
                if inside and real.exists() and not _is_hidden(real, root):
                    return real
        raise ForbiddenPath(
            f"path: {shown(text)} is not in a folder that the explorer was started with. "
            "Start it with that folder: convoxel explore FOLDER."
        )

    def entries(self, text: str = "") -> list[dict[str, str]]:
        """Return what a folder holds, or the roots; each entry has its path, its name and its kind.

        Raises:
            ForbiddenPath: it is not a folder that may be read.
        """
        if not text:
            return [_entry(root) for root in self.roots]
        folder = self.path(text)
        if not folder.is_dir():
            raise ForbiddenPath(f"path: {shown(text)} is not a folder. Give a folder.")
        return list(self._visible(folder))

    def _visible(self, folder: Path) -> Iterator[dict[str, str]]:
        with os.scandir(folder) as found:
            names = sorted(entry.name for _, entry in zip(range(_MOST_ENTRIES), found, strict=False))
        for name in names:
            try:
                self.path(str(folder / name))
            except ForbiddenPath:
                continue
            yield _entry(folder / name)

    def network(self, word: str) -> str:
        """Return ``word`` if it is a network of the zoo, else the path of a run or file that may be read.

        Raises:
            ForbiddenPath: it is a path elsewhere.
        """
        from convoxel.lookup import is_name

        return word if is_name(word) else str(self.path(word))


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _entry(path: Path) -> dict[str, str]:
    kind = "run" if is_run(path) else "network" if is_file(str(path)) else "folder" if path.is_dir() else "file"
    return {"path": str(path), "name": path.name, "kind": kind}
