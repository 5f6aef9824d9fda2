"""Checkpoints that survive a crash at any instant: tensors in safetensors, everything else in JSON.

A checkpoint is a pair, ``NAME.safetensors`` and ``NAME.json``. The JSON holds the SHA-256 of the tensor file and of its
own content, so a pair is either proven whole or not used. A new pair is written beside the old ones, read back and
proven, and only then are the names passed on: next → last → previous. A crash may interrupt the renaming half way; the
reader therefore matches files by their hashes, not by their names.

This file knows no models, optimisers or data. It stores named tensors and one JSON object.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from convoxel.errors import CheckpointError, ConvoxelError, DataError
from convoxel.files.atomic import remove_unfinished, sync_folder, write_bytes
from convoxel.files.stream import file_size, read_bytes
from convoxel.files.values import JsonObject, Options

__all__ = ["Checkpoint", "Store"]

_FORMAT = 1
_MOST_MANIFEST_BYTES = 256 * 2**20  # a validation adds about a kilobyte
_SUFFIXES = (".safetensors", ".json")
# A pair is written under the first name of its row; each save passes every pair on to the following name.
_GENERATIONS = ("next", "last", "previous")
_BEST = ("best-next", "best")


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint: named tensors and one JSON object, which has at least ``step``."""

    tensors: dict[str, torch.Tensor]
    body: JsonObject


@dataclass(frozen=True)
class _Pair:
    """A manifest and the tensor file whose hash it holds, with the names of the two files."""

    body: JsonObject
    data: bytes
    manifest: str
    file: str

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(load_tensors(self.data), self.body)


class Store:
    """The checkpoints of one run folder: the last two generations and the best one."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def save(self, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        """Add a generation and remove the one before the last.

        Raises:
            CheckpointError: it could not be written (no space, no permission) or what was read back
                differs. The generations that were there are intact.
        """
        self._save(_GENERATIONS, tensors, body)

    def save_best(self, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        """Replace the best checkpoint. Raises CheckpointError as :meth:`save` does."""
        self._save(_BEST, tensors, body)

    def load(self) -> Checkpoint:
        """Return the newest whole generation; a warning tells if a newer one is damaged.

        Raises:
            CheckpointError: there is none.
        """
        return self._newest().checkpoint()

    def load_best(self) -> Checkpoint:
        """Return the best checkpoint. Raises CheckpointError if there is none or it is damaged."""
        return self._search(_BEST, []).checkpoint()

    def settle(self) -> None:
        """Give the newest generation the name "last" and remove what an interrupted save has left.

        Call it with the lock held before training goes on: the next save begins by writing "next".

        Raises:
            CheckpointError: no generation is whole, or the folder cannot be written.
        """
        found = self._newest()
        try:
            if (found.manifest, found.file) != ("last", "last"):
                # Copied, not renamed: until both files are in place the pair is whole where it was.
                write_bytes(self.folder / "last.safetensors", found.data)
                write_bytes(self.folder / "last.json", _encode(found.body))
            self._drop(_GENERATIONS)
            remove_unfinished(self.folder)
        except (OSError, ConvoxelError) as error:
            raise CheckpointError(self._explain(error)) from error

    def _save(self, names: tuple[str, ...], tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(names[0], tensors, body)
            # Between the renames of a pair its names do not match; the reader then finds it by its hashes.
            for old, new in reversed(list(pairwise(names))):
                for suffix in _SUFFIXES:
                    source = self.folder / (old + suffix)
                    if source.exists():
                        source.replace(self.folder / (new + suffix))
            sync_folder(self.folder)
        except (OSError, ConvoxelError) as error:
            self._drop(names)
            raise CheckpointError(self._explain(error)) from error

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor], body: Options) -> None:
        data = save_tensors({key: value.detach().contiguous() for key, value in tensors.items()})
        manifest = {
            **body,
            "format": _FORMAT,
            "file": {"sha256": _digest(data), "size_bytes": len(data)},
            "tensors": {key: _digest(content) for key, content in _contents(data)},
        }
        text = _encode(manifest)
        write_bytes(self.folder / f"{name}.safetensors", data)
        write_bytes(self.folder / f"{name}.json", text)
        for suffix, wanted in ((".safetensors", data), (".json", text)):
            if read_bytes(self.folder / (name + suffix)) != wanted:
                raise CheckpointError(f"{name}{suffix} reads back differently from what was written.")

    def _newest(self) -> _Pair:
        problems: list[str] = []
        found = self._search(_GENERATIONS, problems)
        # However a save is interrupted, a whole pair is called "next" or "last": this one replaces a damaged one.
        if found.manifest == "previous":
            warnings.warn(
                f"checkpoint: in {self.folder}, {'; '.join(problems) or 'the last one is missing'}; "
                f"the one before it, of step {found.body['step']}, is used instead.",
                RuntimeWarning,
                stacklevel=3,
            )
        return found

    def _search(self, names: tuple[str, ...], problems: list[str]) -> _Pair:
        """Return the newest pair of these names whose hashes agree; add to ``problems`` what is wrong with others."""
        newest: _Pair | None = None
        for name in names:
            body = self._read_manifest(name, problems)
            if body is None or (newest is not None and body["step"] <= newest.body["step"]):
                continue
            newest = self._match(body, name, names, problems) or newest
        if newest is None:
            found = "; ".join(problems) or "no checkpoint is there"
            raise CheckpointError(
                f"checkpoint: {self.folder} holds no whole checkpoint ({found}). Start anew with another --output."
            )
        return newest

    def _read_manifest(self, name: str, problems: list[str]) -> JsonObject | None:
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            body = _decode(read_bytes(path, _MOST_MANIFEST_BYTES))
        except DataError as error:
            problems.append(f"{path.name} is damaged or unreadable ({str(error).rstrip('.')})")
            return None
        if body is None:
            problems.append(f"{path.name} is damaged")
        elif body.get("format") != _FORMAT:
            problems.append(f"{path.name} has format {body.get('format')}, this version reads {_FORMAT}")
            return None
        return body

    def _match(self, body: JsonObject, name: str, names: tuple[str, ...], problems: list[str]) -> _Pair | None:
        """Return the pair of a manifest and its tensor file, which may have any of the names."""
        for other in (name, *(n for n in names if n != name)):
            path = self.folder / f"{other}.safetensors"
            with contextlib.suppress(DataError):
                if file_size(path) == body["file"]["size_bytes"]:
                    data = read_bytes(path)
                    if _digest(data) == body["file"]["sha256"]:
                        return _Pair(body, data, name, other)
        problems.append(f"{name}.safetensors is damaged or missing{self._blame(name, body)}")
        return None

    def _blame(self, name: str, body: JsonObject) -> str:
        """Return in words which tensors of a damaged file differ; empty if that cannot be told."""
        try:
            contents = dict(_contents(read_bytes(self.folder / f"{name}.safetensors")))
        except (DataError, ValueError, KeyError, TypeError, struct.error):
            return ""
        wrong = [key for key, digest in body["tensors"].items() if _digest(contents.get(key, b"")) != digest]
        if not wrong:
            return ""
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return f" (tensor {wrong[0]}{more})"

    def _drop(self, names: tuple[str, ...]) -> None:
        """Remove the pair of the first name if it is incomplete, or if that of the second is whole.

        Where neither holds, its renaming had begun, and it is still needed.
        """
        with contextlib.suppress(OSError):
            if self._is_whole(names[1], names[1:2]) or not self._is_whole(names[0], names):
                for suffix in reversed(_SUFFIXES):
                    (self.folder / (names[0] + suffix)).unlink(missing_ok=True)

    def _is_whole(self, name: str, names: tuple[str, ...]) -> bool:
        """Return whether the manifest ``name`` has its tensor file under one of ``names``."""
        body = self._read_manifest(name, [])
        return body is not None and self._match(body, name, names, []) is not None

    def _explain(self, error: Exception) -> str:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        reason = " ".join(text.split()).rstrip(".") + "."
        try:
            step = self._search(_GENERATIONS, []).body["step"]
            kept = f"The checkpoint of step {step} is intact: mend this and use --resume."
        except (ConvoxelError, OSError):
            kept = "No earlier checkpoint exists."
        return f"checkpoint: cannot save in {self.folder}: {reason} {kept}"


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _contents(data: bytes) -> list[tuple[str, memoryview]]:
    """Return the bytes of each tensor in a safetensors file: 8 bytes of header length, JSON header, data."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    view = memoryview(data)[8 + length :]
    return [
        (key, view[entry["data_offsets"][0] : entry["data_offsets"][1]])
        for key, entry in header.items()
        if key != "__metadata__"
    ]


def _encode(body: Options) -> bytes:
    inner = _canonical(body)
    return b'{"sha256":"%s","body":%s}\n' % (_digest(inner).encode("ascii"), inner)


def _decode(content: bytes) -> JsonObject | None:
    """Return the body of a manifest, or None unless every byte is as :func:`_encode` wrote it."""
    try:
        outer = json.loads(content)
        body, digest = outer["body"], outer["sha256"]
        inner = _canonical(body)
        whole = isinstance(body, dict) and _digest(inner) == digest and _encode(body) == content
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return body if whole else None


def _canonical(body: Options) -> bytes:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")
