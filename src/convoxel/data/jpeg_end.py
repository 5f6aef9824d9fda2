"""JPEG streams that were cut and closed again, which decoders fill up without a word.

A decoder takes bits until the last pixel has its value, and looks at nothing behind them. So bytes that are put in
before the end of a whole stream change no pixel, while those at the end of a cut one become pixels that were missing.
This holds for any decoder and any kind of JPEG, at the price of decoding twice; a progressive one must also come to its
last scan. What is lost in the middle of a stream stays unseen.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # in a scan: neither a stuffed byte nor a restart
_MORE = np.random.default_rng(0).integers(1, 255, 256).astype(np.uint8).tobytes()  # no byte begins a marker
_PROGRESSIVE = 0xC2


def ends_early(stream: bytes) -> bool:
    """Return whether a JPEG stream is known to hold fewer pixels than it claims; False of kinds that are not decoded.

    libjpeg-turbo decodes it twice, in an eighth of the time that the decoders of DICOM take.
    """
    import imagecodecs

    longer = lengthen(stream)
    if longer is None:
        return True
    try:
        # One after the other, so that only one of them is in memory.
        first, second = (zlib.crc32(imagecodecs.jpeg8_decode(each).data) for each in (stream, longer))
        return first != second
    except (imagecodecs.Jpeg8Error, ValueError):  # of a kind, or damaged in a way, that the caller's decoder knows
        return False


def lengthen(stream: bytes) -> bytes | None:
    """Return a JPEG stream whose last scan has more bytes; None where it has no end, or lacks scans.

    >>> whole = b"\\xff\\xd8" + b"\\xff\\xda\\x00\\x02" + b"scan" + b"\\xff\\xd9"
    >>> lengthen(whole) == whole[:-2] + _MORE + b"\\xff\\xd9", lengthen(whole[:-1])
    (True, None)
    """
    place, rest = 2, np.zeros((0, 64), np.int64)  # of a progressive image: the bits that a coefficient lacks
    rows: dict[int, int] = {}
    while len(stream) >= place + 2 and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            stuffing = b"\0" if stream[place - 1] == 0xFF else b""  # a last 255 of a cut stream belongs to a pixel
            return None if rest.any() else b"".join([stream[:place], stuffing, _MORE, stream[place:]])
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        fields, place = stream[place + 4 : end], end
        if marker == _PROGRESSIVE and len(fields) > 5:
            rows = {number: row for row, number in enumerate(fields[6 : 6 + 3 * fields[5] : 3])}
            rest = np.ones((len(rows), 64), np.int64)
        if marker == 0xDA:
            count = fields[0] if fields else 0
            scanned = [rows[number] for number in fields[1 : 1 + 2 * count : 2] if number in rows]
            if len(rest) and len(fields) >= 2 * count + 4:
                first, last, bits = fields[2 * count + 1 : 2 * count + 4]
                rest[scanned, first : last + 1] = bits & 15
            found = _MARKER.search(stream, place)
            if found is None:
                return None
            place = found.start()
    return None
