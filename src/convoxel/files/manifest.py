"""Pairs of a safetensors file and a manifest that proves it: JSON with the SHA-256 of the file and of its own content.

A crash may interrupt the renaming of a pair half way, so that files are matched by their hashes, not by their names.
Nothing of a manifest is parsed, and nothing of its file used, before its hash has been found right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from convoxel.errors import DataError
from convoxel.files.stream import file_size, read_bytes
from convoxel.files.values import JsonObject, Options

FORMAT = 1
SUFFIXES = (".safetensors", ".json")
# A pair is written under the first name of its row; each save passes every pair on to the following name.
GENERATIONS = ("next", "last", "previous")
BEST = ("best-next", "best")
_MOST_BYTES = 256 * 2**20  # of a manifest; a validation adds about a kilobyte
_OUTER = re.compile(rb'\{"sha256":"([0-9a-f]{64})","body":(\{.*\})\}\n', re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """A manifest and the tensor file whose hash it holds, with the names of the two files."""

    body: JsonObject
    data: bytes
    manifest: str
    file: str


def seal(data: bytes, body: Options) -> JsonObject:
    """Return ``body`` with the hashes of a tensor file and of each tensor in it."""
    return {
        **body,
        "format": FORMAT,
        "file": {"sha256": _digest(data), "size_bytes": len(data)},
        "tensors": {key: _digest(content) for key, content in _contents(data)},
    }


def encode(body: Options) -> bytes:
    """Return the bytes of a manifest."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    inner = text.encode("ascii")
    return b'{"sha256":"%s","body":%s}\n' % (_digest(inner).encode("ascii"), inner)


def _digest(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def find_pair(folder: Path, names: tuple[str, ...], problems: list[str]) -> Pair | None:
    """Return the newest pair of these names whose hashes agree; add to ``problems`` what is wrong with others."""
    newest: Pair | None = None
    for name in names:
        body = read_manifest(folder, name, problems)
        if body is None or (newest is not None and body["step"] <= newest.body["step"]):
            continue
        newest = match_file(folder, body, name, names, problems) or newest
    return newest


def read_manifest(folder: Path, name: str, problems: list[str]) -> JsonObject | None:
    """Return the content of a whole manifest, or None; add to ``problems`` what is wrong with it."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        body = _decode(read_bytes(path, _MOST_BYTES))
    except DataError as error:
        problems.append(f"{path.name} is damaged or unreadable ({str(error).rstrip('.')})")
        return None
    if body is None:
        problems.append(f"{path.name} is damaged")
    elif body.get("format") != FORMAT:
        problems.append(f"{path.name} has format {body.get('format')}, this version reads {FORMAT}")
        return None
    elif not _is_complete(body):
        problems.append(f"{path.name} lacks entries that every checkpoint has")
        return None
    return body


def match_file(folder: Path, body: JsonObject, name: str, names: tuple[str, ...], problems: list[str]) -> Pair | None:
    """Return the pair of a manifest and its tensor file, which may have any of the names."""
    for other in (name, *(n for n in names if n != name)):
        path = folder / f"{other}.safetensors"
        with contextlib.suppress(DataError):
            if file_size(path) == body["file"]["size_bytes"]:
                data = read_bytes(path)
                if _digest(data) == body["file"]["sha256"]:
                    return Pair(body, data, name, other)
    problems.append(f"{name}.safetensors is damaged or missing{_blame(folder, name, body)}")
    return None


def _blame(folder: Path, name: str, body: JsonObject) -> str:
    """Return in words which tensors of a damaged file differ; empty if that cannot be told."""
    try:
        contents = dict(_contents(read_bytes(folder / f"{name}.safetensors")))
    except (DataError, ValueError, KeyError, TypeError, struct.error):
        return ""
    wrong = [key for key, wanted in body["tensors"].items() if _digest(contents.get(key, b"")) != wanted]
    if not wrong:
        return ""
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f" (tensor {wrong[0]}{more})"


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


def _decode(content: bytes) -> JsonObject | None:
    """Return the body of a manifest, or None unless every byte is as :func:`encode` wrote it."""
    found = _OUTER.fullmatch(content)
    if found is None or _digest(found[2]).encode("ascii") != found[1]:
        return None
    try:
        body: JsonObject = json.loads(found[2])
        return body if encode(body) == content else None
    except (ValueError, RecursionError):
        return None


def _is_complete(body: JsonObject) -> bool:
    """Return whether the entries that this file reads have the types that it writes; the hash can be anybody's."""
    file, tensors = body.get("file"), body.get("tensors")
    return (
        isinstance(file, dict)
        and isinstance(file.get("sha256"), str)
        and type(file.get("size_bytes")) is int
        and isinstance(tensors, dict)
        and type(body.get("step")) is int
    )
