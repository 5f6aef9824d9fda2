"""Gzip written piece by piece, by several threads, with the same bytes for any number of them.

Blocks of the content are deflated independently and flushed to whole bytes, so that their outputs, one after the other,
are one stream of one member, which every reader takes (pigz does the same).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_BLOCK = 2**20  # bytes; a reader's window is 32 KiB, so little is lost where a block cannot look back
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, unknown system
_MOST_THREADS = 4
_LEVEL = 4  # label maps: 2.6 to 3.7 times as fast as 6, in files that are 11 to 14 % larger


def gzip_pieces(content: Iterable[bytes], level: int = _LEVEL) -> Iterator[bytes]:
    """Yield the gzip file of ``content`` in pieces; the same content gives the same bytes, however it is cut.

    >>> import gzip
    >>> gzip.decompress(b"".join(gzip_pieces([b"a" * 5, b"b"])))
    b'aaaaab'
    """
    check = length = 0
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[bytes]] = deque()
    yield _HEAD
    with ThreadPoolExecutor(threads, "gzip") as pool:
        for block in _blocks(content):
            check, length = zlib.crc32(block, check), length + len(block)
            waiting.append(pool.submit(_deflate, block, level))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    yield zlib.compressobj(level, zlib.DEFLATED, -15).flush()  # an empty block ends the stream
    yield struct.pack("<II", check, length & 0xFFFFFFFF)


def _blocks(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content in blocks of equal length, the last one shorter."""
    rest = b""
    for piece in content:
        rest += piece
        whole = len(rest) - len(rest) % _BLOCK
        for first in range(0, whole, _BLOCK):
            yield rest[first : first + _BLOCK]
        rest = rest[whole:]
    if rest:
        yield rest


def _deflate(block: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
