"""Bounded reading: bytes of a regular file, plain or gzip, never more than the caller allows.

No format is known here beyond gzip's framing. Everything is counted before it is kept: a reader says how
many bytes it can use, and a file that inflates to more than that is cut off there.
"""

from __future__ import annotations

import contextlib
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from convoxel.files.fault import fault

# Deflate codes at best 258 bytes in 2 bits, so no honest stream inflates by more than 1032 : 1.
MOST_DEFLATE_RATIO = 1032
# Below this many bytes any ratio that deflate can reach is accepted: an empty label volume inflates 1000 : 1.
FREE_BYTES = 256 * 2**20
# Above it, this ratio: CT and MR images inflate 2…6 : 1, sparse label volumes 50…200 : 1.
MOST_RATIO = 200
# zlib's numbers for what stands around a deflated stream.
GZIP_WRAPPER, ZLIB_WRAPPER = 31, 15
_CHUNK = 256 * 2**10
_SMALLEST_CHUNK = 1024
_MOST_EMPTY = 1024  # members without content; block-wise compressors end a file with one


def file_size(path: Path) -> int:
    """Return the size in bytes of the regular file ``path``; DataError if it is missing or something else."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise fault(path, f"cannot be opened ({reason})", "a readable file", "Check the path and its rights") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file (pipe, socket or device)"
        raise fault(path, f"this is {kind}", "a regular file", "Name the file itself, or remove this entry")
    if status.st_size == 0:
        raise fault(path, "the file is empty (0 bytes)", "an image or array", "Copy it again from its source")
    return status.st_size


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Return the first ``count`` bytes of a regular file (all of them by default)."""
    file_size(path)
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        came = f"cannot be read ({error.strerror or error})"
        raise fault(path, came, "a readable file", "Check its rights and the disk") from None


def read_text(path: Path, most: int = 2**20) -> str:
    """Return the text of a regular UTF-8 file; DataError if it has more than ``most`` bytes (default 1 MiB)."""
    content = read_bytes(path, most + 1)
    if len(content) > most:
        raise fault(path, f"more than {most} bytes of text", "a short text", "Check that this is the right file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fault(path, "the text is not UTF-8", "UTF-8", "Save it as UTF-8") from None


def check_inflation(path: object, packed: int, declared: int) -> None:
    """Raise DataError where ``packed`` compressed bytes cannot, or should not, become ``declared`` bytes."""
    if declared > packed * MOST_DEFLATE_RATIO + 1024:
        raise fault(
            path,
            f"{packed} compressed bytes claim to hold {declared}",
            f"at most {MOST_DEFLATE_RATIO} times the compressed size",
            "The file is truncated or its header is false: copy it again from its source",
        )
    check_ratio(path, packed, declared)


def check_ratio(path: object, packed: int, decoded: int) -> None:
    """Raise DataError where ``packed`` bytes, compressed by whatever method, should not become ``decoded`` bytes."""
    if decoded > FREE_BYTES and decoded > packed * MOST_RATIO:
        raise fault(
            path,
            f"it would inflate {decoded // packed}-fold to {decoded / 2**20:.0f} MiB",
            f"at most {MOST_RATIO}-fold above {FREE_BYTES // 2**20} MiB, against decompression bombs",
            "If you trust the file, unpack it yourself and give the uncompressed one",
        )


def inflate(
    path: Path, count: int, *, whole: bool, file: BinaryIO | None = None, wrapper: int = GZIP_WRAPPER
) -> bytearray:
    """Return ``count`` bytes inflated from a gzip file.

    Args:
        path: name of the file.
        count: bytes that the caller can use.
        whole: the stream should end there (its checksum is then verified, and more than 64 KiB beyond ``count`` is a
            fault); otherwise reading stops as soon as ``count`` bytes have come, and fewer are returned if the file
            holds fewer.
        file: the same file, open where the stream begins (default None: at its first byte).
        wrapper: ``GZIP_WRAPPER``, or ``ZLIB_WRAPPER`` for a stream of zlib's own (default gzip).
    """
    result = bytearray()
    for piece in inflated_pieces(path, count, whole=whole, file=file, wrapper=wrapper):
        result += piece
    return result


def inflated_pieces(
    path: Path, count: int, *, whole: bool, file: BinaryIO | None = None, wrapper: int = GZIP_WRAPPER
) -> Iterator[bytes]:
    """Yield the bytes that ``inflate`` returns, as they come; arguments as there."""
    bound = count + 64 * 2**10 if whole else count
    done = 0
    try:
        with contextlib.nullcontext(file) if file else path.open("rb") as opened:
            for piece in _members(opened, bound, wrapper):
                if done < count:
                    yield piece[: count - done]
                done += len(piece)
    except _ExcessError:
        if whole:
            raise fault(
                path,
                f"it inflates to more than the {count} bytes its header declares",
                "as many bytes as declared",
                "The header is false: write the file again from its source",
            ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise fault(path, f"cannot be read ({reason})", "a readable file", "Check its rights and the disk") from None
    except (zlib.error, EOFError) as error:
        if whole or done < count:
            raise fault(
                path,
                f"the {'gzip' if wrapper == GZIP_WRAPPER else 'zlib'} stream is damaged or truncated ({error})",
                f"{count} bytes of image",
                "Copy the file again from its source",
            ) from None
    if whole and done < count:
        raise fault(
            path,
            f"it is truncated: it inflates to {done} bytes",
            f"the {count} bytes its header declares",
            "Copy the file again from its source",
        )


def inflate_chunk(content: bytes, most: int, wrapper: int = ZLIB_WRAPPER) -> bytes:
    """Return what a whole deflated stream holds, at most ``most`` bytes; zlib.error or EOFError where it is damaged.

    The checksum at its end is verified, unless there are more bytes than ``most``.
    """
    unpacker = zlib.decompressobj(wrapper)
    unpacked = unpacker.decompress(content, most)
    if not unpacker.eof and len(unpacked) < most:
        raise EOFError("the stream ends too early")
    return unpacked


class _ExcessError(Exception):
    """More bytes than the bound: internal signal between _members and inflate."""


def _members(file: BinaryIO, bound: int, wrapper: int) -> Iterator[bytes]:
    """Yield inflated pieces; _ExcessError after ``bound`` bytes, EOFError where the stream has no end."""
    total = empty = begun = 0
    unpacker = zlib.decompressobj(wrapper)
    fresh = True  # nothing of the current member has been read yet
    # What a member leaves over is copied; small members are read in small pieces, so that time grows with the bytes.
    step = _SMALLEST_CHUNK
    while packed := file.read(_CHUNK):
        at = 0
        while at < len(packed):
            fed = packed[at : at + step]
            if fresh:
                stripped = fed.lstrip(b"\0")  # padding between or after members is allowed
                at += len(fed) - len(stripped)
                if not stripped:
                    continue
                fed, fresh, begun = stripped, False, total
            piece = unpacker.decompress(fed, min(bound - total + 1, 4 * 2**20))
            total += len(piece)
            if piece:
                yield piece
            if total > bound:
                raise _ExcessError
            if unpacker.eof:
                at += len(fed) - len(unpacker.unused_data)
                empty += total == begun
                if empty > _MOST_EMPTY:
                    raise zlib.error(f"more than {_MOST_EMPTY} members without content")
                unpacker, fresh, step = zlib.decompressobj(wrapper), True, _SMALLEST_CHUNK
            else:
                at += len(fed) - len(unpacker.unconsumed_tail)
                step = min(2 * step, _CHUNK)
    if not fresh:
        raise EOFError("the stream ends too early")
