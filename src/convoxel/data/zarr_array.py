"""Zarr arrays (formats 2 and 3) in folders: metadata and every chunk are checked before they are unpacked.

Chunks are unpacked here, each into the room that its array declares, by blosc, gzip, zlib, Zstandard, LZ4, bzip2 or
LZMA; shards are read, too. Whatever else could run code or read another place is refused: object types, filters,
links that lead out of the folder, stores within archives and on the network. Values come as stored.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from convoxel.errors import UnsupportedError
from convoxel.files.fault import brief, fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_ratio, inflate_chunk, read_bytes, read_text
from convoxel.files.values import Array
from convoxel.fork import cached_property

Region = tuple[slice, ...]

_MOST_TEXT = 16 * 2**20
_MOST_CHUNKS = 2**18
_MOST_AXES = 16
_SLACK = 1024  # bytes by which a stored chunk may exceed what it unpacks to
_COPY = "Copy the folder again from its source"
_AGAIN = "Write the array again with zarr from numbers"
_WHOLE = {f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)}
_TYPES = {"bool": "b1", **_WHOLE, "float16": "f2", "float32": "f4", "float64": "f8"}
_CODECS = ("blosc", "gzip", "zlib", "zstd", "lz4", "bz2", "lzma")

# What a chunk goes through when it is unpacked: (name, parameters), in the order of packing.
Codecs = tuple[tuple[str, dict[str, Any]], ...]


def _imagecodecs() -> ModuleType:
    try:
        import imagecodecs
    except ImportError as error:
        raise UnsupportedError("Zarr arrays need imagecodecs: pip install 'convoxel[formats]'.") from error
    module: ModuleType = imagecodecs
    return module


def is_zarr(path: Path) -> bool:
    """Return True for a folder that is a Zarr array or group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs"))


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr array or group, which may hold anything; {} where there are none."""
    if (path / "zarr.json").exists():
        found = _read_json(path / "zarr.json").get("attributes", {})
    else:
        found = _read_json(path / ".zattrs") if (path / ".zattrs").exists() else {}
    return found if isinstance(found, dict) else {}


def is_array(path: Path) -> bool:
    """Return True for the folder of an array, False for a group."""
    if (path / "zarr.json").exists():
        return _read_json(path / "zarr.json").get("node_type") == "array"
    return (path / ".zarray").exists()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, _MOST_TEXT))
    except (ValueError, RecursionError) as error:
        raise fault(path, f"this is not JSON ({error})", "the metadata of a Zarr array", _COPY) from None
    if not isinstance(content, dict):
        raise fault(path, f"the metadata are {brief(content)}", "names and values", _COPY)
    return content


@dataclass(frozen=True)
class ZarrArray:
    """An array whose metadata were checked.

    Attributes:
        path: its folder.
        shape, dtype: of the array.
        chunk: shape of the chunks, which are files.
        codecs: what a chunk went through when it was written.
        fill: value of what was never written.
        order: "C" or "F", the order of values in a chunk.
        key: position of a chunk → its path within the folder.
        names: names of the axes; "" where the metadata have none.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    codecs: Codecs
    fill: Any
    order: str
    key: Callable[[tuple[int, ...]], str]
    names: tuple[str, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def read(self, region: Region | None = None) -> Array:
        """Return a part of the array (default: all), one slice of step 1 an axis.

        Raises:
            DataError: a chunk is damaged, or larger than it may be, or a link leads out of the folder.
        """
        region = region or tuple(slice(0, size) for size in self.shape)
        spans = [span.indices(size)[:2] for span, size in zip(region, self.shape, strict=True)]
        sizes = [max(stop - start, 0) for start, stop in spans]
        chunk_bytes = math.prod(self.chunk) * self.dtype.itemsize
        grid = [range(start // step, -(-stop // step)) for (start, stop), step in zip(spans, self.chunk, strict=True)]
        count = math.prod(map(len, grid))
        if count > _MOST_CHUNKS:
            raise fault(self.path, f"{count} chunks", f"at most {_MOST_CHUNKS}", "Write it again in larger chunks")
        check_ratio(self.path, max(self.stored_bytes, 1), max(math.prod(sizes) * self.dtype.itemsize, chunk_bytes))
        check_memory(self.path, math.prod(sizes) * (self.dtype.itemsize + 4) + 2 * chunk_bytes)
        result: Array = np.full(sizes, self.fill, self.dtype)
        for position in product(*grid) if result.size else ():
            block = self._read_chunk(position)
            if block is not None:
                begins = [p * step for p, step in zip(position, self.chunk, strict=True)]
                _place(block, begins, result, [start for start, _ in spans])
        return result

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of all files in the folder; links are not followed."""
        return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(self.path) for name in names)

    @property
    def note(self) -> str:
        """In words, that chunks were never written, or were lost, which files do not tell apart; else ""."""
        count = math.prod(-(-size // step) for size, step in zip(self.shape, self.chunk, strict=True))
        # Listing folders is a call for each of them, where asking for chunks is one for each chunk.
        stored = (name for _, _, names in os.walk(self.path) for name in names)
        lacking = count - sum(not name.startswith(".") and name != "zarr.json" for name in stored)
        fill = np.asarray(self.fill).item()
        return f"chunks that are not there are taken for the fill value {fill:g}" if lacking > 0 else ""

    def _read_chunk(self, position: tuple[int, ...]) -> Array | None:
        path = self.path / self.key(position)
        try:
            if not path.is_file():
                return None
            root = os.path.realpath(self.path) + os.sep
            if not os.path.realpath(path).startswith(root):
                raise fault(path, "a link that leads out of the folder", "chunks in the folder itself", _COPY)
        except OSError as error:
            raise fault(path, f"cannot be opened ({error.strerror})", "a readable chunk", "Check its rights") from None
        return _unpack(path, read_bytes(path), self.codecs, self.chunk, self.dtype, self.fill, self.order)


def _place(block: Array, begins: list[int], result: Array, origin: list[int]) -> None:
    """Copy the part of a chunk at ``begins`` that lies in ``result``, whose first value has the place ``origin``."""
    here, there = [], []
    for begin, start, size, length in zip(begins, origin, block.shape, result.shape, strict=True):
        low, high = max(begin, start), min(begin + size, start + length)
        here.append(slice(low - begin, high - begin))
        there.append(slice(low - start, high - start))
    result[tuple(there)] = block[tuple(here)]


# ---- chunks ------------------------------------------------------------------------------------------------


def _unpack(
    path: Path,
    content: bytes,
    codecs: Codecs,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Any,
    order: str = "C",
) -> Array:
    """Return a chunk from its bytes; each step back is bounded by what the array declares."""
    axes = tuple(range(len(shape)))
    for name, parameters in codecs:  # the order of axes and of bytes in which the chunk was stored
        if name == "transpose":
            axes = tuple(axes[i] for i in parameters["order"])
        if name == "bytes":
            dtype = dtype.newbyteorder(">" if parameters.get("endian") == "big" else "<")
    stored = tuple(shape[axis] for axis in axes)
    most = math.prod(shape) * dtype.itemsize
    name, parameters = codecs[-1] if codecs else ("", {})
    if name == "sharding_indexed":
        shard = _unpack_shard(path, content, parameters, stored, dtype, fill)
        return np.transpose(shard, np.argsort(axes))
    for name, _ in reversed(codecs):
        if name in ("transpose", "bytes"):
            continue
        if len(content) > most + most // 8 + _SLACK:
            came = f"a chunk of {len(content)} bytes that holds {most}"
            raise fault(path, came, "chunks no larger than what they hold", _AGAIN)
        content = _undo(path, name, content, most + (4 if name == "crc32c" else 0))
    if len(content) != most:
        raise fault(path, f"the chunk unpacks to {len(content)} bytes", f"{most}, as its array declares", _COPY)
    block: Array = np.frombuffer(content, dtype).reshape(stored, order="F" if order == "F" else "C")
    return np.transpose(block, np.argsort(axes))


def _undo(path: Path, name: str, content: bytes, most: int) -> bytes:
    if name == "crc32c":
        if len(content) < 4 or _crc32c(content[:-4]) != int.from_bytes(content[-4:], "little"):
            raise fault(path, "the checksum of a chunk does not match its content", "whole chunks", _COPY)
        return content[:-4]
    try:
        if name in ("gzip", "zlib"):
            return inflate_chunk(content, most + _SLACK, 31 if name == "gzip" else 15)
        if name == "blosc" and (len(content) < 16 or struct.unpack_from("<I", content, 4)[0] > most + _SLACK):
            raise ValueError("the block claims another size")
        if name == "lz4":
            if struct.unpack_from("<I", content)[0] > most + _SLACK:
                raise ValueError("the block claims another size")
            return bytes(_imagecodecs().lz4_decode(content[4:], out=most + _SLACK))
        return bytes(getattr(_imagecodecs(), f"{name}_decode")(content, out=most + _SLACK))
    except Exception as error:  # zlib.error, and imagecodecs' own kinds
        raise fault(path, f"the chunk cannot be unpacked by {name} ({error})", "a whole chunk", _COPY) from None


def _unpack_shard(
    path: Path, content: bytes, parameters: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any], fill: Any
) -> Array:
    """Return a shard: chunks in one file, behind or before an index of their places."""
    chunk, codecs, checked, first = (parameters[key] for key in ("chunk", "codecs", "checked", "first"))
    grid = [size // step for size, step in zip(shape, chunk, strict=True)]
    length = 16 * math.prod(grid) + 4 * checked
    index = content[:length] if first else content[-length:]
    if len(index) != length:
        raise fault(path, f"a shard of {len(content)} bytes", f"an index of {length} bytes in it", _COPY)
    if checked:
        index = _undo(path, "crc32c", index, length)
    places = np.frombuffer(index, "<u8").reshape(-1, 2)
    result: Array = np.full(shape, fill, dtype)
    check_ratio(path, len(content), result.nbytes)
    for position, (offset, size) in zip(product(*map(range, grid)), places.tolist(), strict=True):
        if offset == size == 2**64 - 1:  # a chunk that was never written
            continue
        if offset + size > len(content):
            raise fault(path, "a chunk beyond the end of its shard", "places within the file", _COPY)
        block = _unpack(path, content[offset : offset + size], codecs, chunk, dtype, fill)
        begins = [p * step for p, step in zip(position, chunk, strict=True)]
        result[tuple(slice(b, b + n) for b, n in zip(begins, chunk, strict=True))] = block
    return result


def _crc_table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_CRC = tuple(_crc_table())


def _crc32c(content: bytes) -> int:
    """Return Castagnoli's checksum of 32 bits."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


# ---- metadata ----------------------------------------------------------------------------------------------


def open_array(path: Path) -> ZarrArray:
    """Return the array in a folder after its metadata were checked; no chunk is read.

    Raises:
        DataError: it is no array, or one of a kind that is refused.
    """
    if (path / "zarr.json").exists():
        return _open_third(path, _read_json(path / "zarr.json"))
    if (path / ".zarray").exists():
        return _open_second(path, _read_json(path / ".zarray"))
    raise fault(path, "this folder holds no Zarr array", "a file zarr.json or .zarray in it", "Name an array")


def _sizes(path: Path, value: object, noun: str, axes: int | None = None) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
    if not isinstance(value, list) or not whole or not 1 <= len(value) <= _MOST_AXES or axes not in (None, len(value)):
        expected = "1 to 16 sizes of at least 1" if axes is None else f"{axes} sizes of at least 1"
        raise fault(path, f"{noun} is {brief(value)}", expected, _AGAIN)
    return tuple(value)


def _open_second(path: Path, fields: dict[str, Any]) -> ZarrArray:
    shape = _sizes(path, fields.get("shape"), "shape")
    chunk = _sizes(path, fields.get("chunks"), "chunks", len(shape))
    try:
        dtype = np.dtype(fields["dtype"] if isinstance(fields["dtype"], str) else "V")
    except (KeyError, TypeError, ValueError, SyntaxError):
        dtype = np.dtype("V")
    _check_type(path, dtype, fields.get("dtype"))
    if fields.get("filters"):
        raise fault(path, f"the filters {brief(fields['filters'])}", "none", "Write it again without filters")
    packer = fields.get("compressor")
    codecs: Codecs = ()
    if packer is not None:
        name = packer.get("id") if isinstance(packer, dict) else packer
        codecs = ((_known_codec(path, name), {}),)
    separator = fields.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise fault(path, f"dimension_separator is {brief(separator)}", "'.' or '/'", _AGAIN)
    order = fields.get("order", "C")
    if order not in ("C", "F"):
        raise fault(path, f"order is {brief(order)}", "'C' or 'F'", _AGAIN)
    fill = _fill_value(path, fields.get("fill_value"), dtype)
    names = read_attributes(path).get("_ARRAY_DIMENSIONS")
    return ZarrArray(
        path, shape, dtype, chunk, codecs, fill, order, lambda at: separator.join(map(str, at)), _names(names, shape)
    )


def _open_third(path: Path, fields: dict[str, Any]) -> ZarrArray:
    if fields.get("node_type") != "array" or fields.get("zarr_format") != 3:
        raise fault(path, "this folder holds no Zarr array", "node_type 'array' in format 3", "Name an array")
    if fields.get("storage_transformers"):
        raise fault(path, f"storage transformers {brief(fields['storage_transformers'])}", "none", _AGAIN)
    shape = _sizes(path, fields.get("shape"), "shape")
    grid, encoding = _named(path, fields.get("chunk_grid")), _named(path, fields.get("chunk_key_encoding"))
    chunk = _sizes(path, grid[1].get("chunk_shape"), "chunk_shape", len(shape))
    name = fields.get("data_type")
    dtype = np.dtype(_TYPES.get(name, "V") if isinstance(name, str) else "V")
    _check_type(path, dtype, name)
    separator = str(encoding[1].get("separator", "/" if encoding[0] == "default" else "."))
    if grid[0] != "regular" or encoding[0] not in ("default", "v2") or separator not in (".", "/"):
        came = f"the chunk grid {brief(grid[0])}, keys {brief(encoding)}"
        raise fault(path, came, "a regular grid, with keys 'default' or 'v2'", _AGAIN)
    prefix = f"c{separator}" if encoding[0] == "default" else ""
    codecs = _read_codecs(path, fields.get("codecs"), chunk)
    fill = _fill_value(path, fields.get("fill_value"), dtype)

    def key(at: tuple[int, ...]) -> str:
        return prefix + separator.join(map(str, at))

    return ZarrArray(path, shape, dtype, chunk, codecs, fill, "C", key, _names(fields.get("dimension_names"), shape))


def _check_type(path: Path, dtype: np.dtype[Any], named: object) -> None:
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise fault(path, f"values of type {brief(named)}", "whole or real numbers of at most 64 bits", _AGAIN)


def _known_codec(path: Path, name: object) -> str:
    plain = name.removeprefix("numcodecs.") if isinstance(name, str) else ""
    if plain not in _CODECS:
        mend = "Write it again with one of these"
        raise fault(path, f"the codec {shown(brief(name))}", f"one of {', '.join(_CODECS)}", mend)
    return plain


def _named(path: Path, value: object) -> tuple[str, dict[str, Any]]:
    name = value.get("name") if isinstance(value, dict) else None
    settings = value.get("configuration", {}) if isinstance(value, dict) else None
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise fault(path, f"an entry of the metadata is {brief(value)}", "a name and its configuration", _COPY)
    return name, settings


def _read_codecs(path: Path, values: object, shape: tuple[int, ...], depth: int = 0) -> Codecs:
    """Return the codecs of chunks of this shape; a shard may not hold shards."""
    found: list[tuple[str, dict[str, Any]]] = []
    for value in values if isinstance(values, list) else [values]:
        name, settings = _named(path, value)
        if name in (before for before, _ in found):
            raise fault(path, f"the codec {shown(name)} twice", "every codec once", _AGAIN)
        if name == "transpose":
            order = settings.get("order")
            if not isinstance(order, list) or sorted(map(repr, order)) != sorted(map(repr, range(len(shape)))):
                raise fault(path, f"transpose by {brief(order)}", f"the numbers 0 to {len(shape) - 1}", _AGAIN)
            shape = tuple(shape[axis] for axis in order)
        elif name == "sharding_indexed":
            inner = _sizes(path, settings.get("chunk_shape"), "chunk_shape", len(shape))
            plain = settings.get("index_location", "end")
            index = [_named(path, codec) for codec in settings.get("index_codecs", ())]
            regular = all(size % step == 0 for size, step in zip(shape, inner, strict=True))
            known = [codec for codec, _ in index] in (["bytes"], ["bytes", "crc32c"])
            if depth or not regular or plain not in ("start", "end") or not known or index[0][1].get("endian") == "big":
                came = f"shards of chunks {inner} in {shape} with the index {brief(settings.get('index_codecs'))}"
                raise fault(path, came, "whole chunks and a plain index", _AGAIN)
            codecs = _read_codecs(path, settings.get("codecs"), inner, depth + 1)
            settings = {"chunk": inner, "codecs": codecs, "checked": len(index) == 2, "first": plain == "start"}
        elif name not in ("bytes", "crc32c"):
            name = _known_codec(path, name)
        found.append((name, settings))
    names = [name for name, _ in found]
    middle = "sharding_indexed" if "sharding_indexed" in names else "bytes"
    at = names.index(middle) if middle in names else -1
    sound = at >= 0 and names[:at] in ([], ["transpose"]) and "transpose" not in names[at:]
    if not sound or (middle == "sharding_indexed" and at != len(names) - 1):
        raise fault(path, f"the codecs {brief(names)}", "bytes (or shards), and after it compression", _AGAIN)
    return tuple(found)


def _fill_value(path: Path, value: object, dtype: np.dtype[Any]) -> Any:
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    try:
        if value is None:
            return np.zeros((), dtype)
        if dtype.kind == "f" and isinstance(value, str):
            if value.startswith("0x"):
                return np.array(int(value, 16), f"u{dtype.itemsize}").view(f"f{dtype.itemsize}")
            return np.array(special[value], dtype)
        if isinstance(value, (bool, int, float)):
            return np.array(value, dtype)
    except (KeyError, ValueError, OverflowError):
        pass
    raise fault(path, f"fill_value is {brief(value)}", f"a number of type {dtype}", _AGAIN)


def _names(value: object, shape: tuple[int, ...]) -> tuple[str, ...]:
    named = isinstance(value, list) and len(value) == len(shape) and all(isinstance(v, str) for v in value)
    return tuple(value) if named and isinstance(value, list) else ("",) * len(shape)
