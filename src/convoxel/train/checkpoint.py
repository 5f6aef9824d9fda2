"""Checkpoints that survive a crash at any instant: tensors in safetensors, everything else in JSON.

A checkpoint is a pair, ``NAME.safetensors`` and ``NAME.json``. The JSON holds the SHA-256 of the tensor file and of its
own content, so a pair is either proven whole or not used. A new pair is written beside the old ones, read back and
proven, and only then are the names passed on: next → last → previous. A crash may interrupt the renaming half way; the
reader therefore matches files by their hashes, not by their names.

This file knows no models, optimisers or data. It stores named tensors and one JSON object.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.errors import CheckpointError, ConvoxelError
from convoxel.files.atomic import remove_unfinished, sync_folder, write_bytes
from convoxel.files.manifest import (
    BEST,
    GENERATIONS,
    SUFFIXES,
    Pair,
    encode,
    find_pair,
    match_file,
    read_manifest,
    seal,
)
from convoxel.files.stream import read_bytes
from convoxel.files.values import JsonObject, Options

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint: named tensors and one JSON object, which has at least ``step``."""

    tensors: dict[str, torch.Tensor]
    body: JsonObject


class Store:
    """The checkpoints of one run folder: the last two generations and the best one."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def is_empty(self) -> bool:
        """Return whether no checkpoint was ever complete here: nothing but a manifest makes one."""
        return not any((self.folder / f"{name}.json").exists() for name in (*GENERATIONS, *BEST))

    def save(self, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        """Add a generation and remove the one before the last.

        Raises:
            CheckpointError: it could not be written (no space, no permission) or what was read back
                differs. The generations that were there are intact.
        """
        self._save(GENERATIONS, tensors, body)

    def save_best(self, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        """Replace the best checkpoint. Raises CheckpointError as :meth:`save` does."""
        self._save(BEST, tensors, body)

    def load(self) -> Checkpoint:
        """Return the newest whole generation; a warning tells if a newer one is damaged.

        Raises:
            CheckpointError: there is none.
        """
        return _opened(self.newest())

    def load_best(self) -> Checkpoint:
        """Return the best checkpoint. Raises CheckpointError if there is none or it is damaged."""
        return _opened(self.best())

    def newest(self) -> Pair:
        """Return the newest whole generation as files. Warns and raises as :meth:`load` does."""
        problems: list[str] = []
        found = self._search(GENERATIONS, problems)
        # However a save is interrupted, a whole pair is called "next" or "last": this one replaces a damaged one.
        if found.manifest == "previous":
            warnings.warn(
                f"checkpoint: in {self.folder}, {'; '.join(problems) or 'the last one is missing'}; "
                f"the one before it, of step {found.body['step']}, is used instead.",
                RuntimeWarning,
                stacklevel=3,
            )
        return found

    def best(self) -> Pair:
        """Return the best checkpoint as files. Raises CheckpointError as :meth:`load_best` does."""
        return self._search(BEST, [])

    def reload(self, body: JsonObject) -> Checkpoint:
        """Return the checkpoint of a manifest that was read before, whatever name its tensor file has now.

        Raises:
            CheckpointError: the file is gone, as after further steps of training.
        """
        for names in (BEST, GENERATIONS):
            found = match_file(self.folder, body, names[-1], names, [])
            if found is not None:
                return _opened(found)
        raise CheckpointError(
            f"checkpoint: the one of step {body['step']} in {self.folder} was replaced while it was read. "
            "Load the run again."
        )

    def settle(self) -> None:
        """Give the newest generation the name "last" and remove what an interrupted save has left.

        Call it with the lock held before training goes on: the next save begins by writing "next".

        Raises:
            CheckpointError: no generation is whole, or the folder cannot be written.
        """
        found = self.newest()
        try:
            if (found.manifest, found.file) != ("last", "last"):
                # Copied, not renamed: until both files are in place the pair is whole where it was.
                write_bytes(self.folder / "last.safetensors", found.data)
                write_bytes(self.folder / "last.json", encode(found.body))
            self._drop(GENERATIONS)
            remove_unfinished(self.folder)
        except (OSError, ConvoxelError) as error:
            raise CheckpointError(self._explain(error)) from error

    def _save(self, names: tuple[str, ...], tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(names[0], tensors, body)
            # Between the renames of a pair its names do not match; the reader then finds it by its hashes.
            for old, new in reversed(list(pairwise(names))):
                for suffix in SUFFIXES:
                    source = self.folder / (old + suffix)
                    if source.exists():
                        source.replace(self.folder / (new + suffix))
            sync_folder(self.folder)
        except (OSError, ConvoxelError) as error:
            self._drop(names)
            raise CheckpointError(self._explain(error)) from error

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        from safetensors.torch import save

        data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        text = encode(seal(data, body))
        write_bytes(self.folder / f"{name}.safetensors", data)
        write_bytes(self.folder / f"{name}.json", text)
        for suffix, wanted in ((".safetensors", data), (".json", text)):
            if read_bytes(self.folder / (name + suffix)) != wanted:
                raise CheckpointError(f"{name}{suffix} reads back differently from what was written.")

    def _search(self, names: tuple[str, ...], problems: list[str]) -> Pair:
        """Return the newest pair of these names whose hashes agree; add to ``problems`` what is wrong with others."""
        newest = find_pair(self.folder, names, problems)
        if newest is None:
            found = "; ".join(problems) or "no checkpoint is there"
            raise CheckpointError(
                f"checkpoint: {self.folder} holds no whole checkpoint ({found}). Start anew with another --output."
            )
        return newest

    def _drop(self, names: tuple[str, ...]) -> None:
        """Remove the pair of the first name if it is incomplete, or if that of the second is whole.

        Where neither holds, its renaming had begun, and it is still needed.
        """
        with contextlib.suppress(OSError):
            if self._is_whole(names[1], names[1:2]) or not self._is_whole(names[0], names):
                for suffix in reversed(SUFFIXES):
                    (self.folder / (names[0] + suffix)).unlink(missing_ok=True)

    def _is_whole(self, name: str, names: tuple[str, ...]) -> bool:
        """Return whether the manifest ``name`` has its tensor file under one of ``names``."""
        body = read_manifest(self.folder, name, [])
        return body is not None and match_file(self.folder, body, name, names, []) is not None

    def _explain(self, error: Exception) -> str:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        reason = " ".join(text.split()).rstrip(".") + "."
        try:
            step = self._search(GENERATIONS, []).body["step"]
            kept = f"The checkpoint of step {step} is intact: mend this and use --resume."
        except (ConvoxelError, OSError):
            kept = "No earlier checkpoint exists."
        return f"checkpoint: cannot save in {self.folder}: {reason} {kept}"


def _opened(pair: Pair) -> Checkpoint:
    from safetensors.torch import load

    try:
        return Checkpoint(load(pair.data), pair.body)
    except Exception as error:  # of a file with a right hash that is none of ours; safetensors raises a kind of its own
        raise CheckpointError(f"checkpoint: {pair.file}.safetensors holds no tensors ({error}). Start anew.") from None
