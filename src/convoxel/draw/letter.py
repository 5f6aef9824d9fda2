"""The font of pictures, and the width of a text in it: pictures leave room by it and cut what would not fit.

The font is DejaVu Sans, in ``fonts``: its Latin, Greek and Cyrillic letters and its signs, cut out by ``pyftsubset
--unicodes=U+20-52F,U+2000-2300,U+2308-230B,U+2500-25FF,U+2713,U+2717,U+FB00-FB06 --layout-features= --no-hinting``.
Pictures made of pixels are painted with it. Web pages prefer narrower fonts, so a text that fits here fits there too.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from functools import cache
from pathlib import Path

FONT_FILES = tuple(str(Path(__file__).with_name("fonts") / f"DejaVuSans{kind}.ttf") for kind in ("", "-Bold"))
_FINE = 1000  # size at which widths are measured: units of a thousandth of the letter's size
_FOREIGN = re.compile("[^\x00-\u052f\u2000-\u25ff]")
_EM = 1.0  # width of a letter that the font lacks, such as a Chinese one, as a share of the size


@cache
def _widths(bold: bool) -> defaultdict[int, int]:
    """Return the width of each letter of a font, by its number in Unicode, in thousandths of its size.

    They are in the tables ``hmtx``, by glyph, and ``cmap``, of which format 12 lists runs of letters whose glyphs
    follow one another (OpenType 1.9). They are whole, as the renderer of fonts makes them; the font has no kerning.
    """
    data = Path(FONT_FILES[bold]).read_bytes()

    def numbers(form: str, place: int) -> tuple[int, ...]:
        return struct.unpack_from(f">{form}", data, place)

    rows = range(12, 12 + 16 * numbers("H", 4)[0], 16)
    tables = {data[row : row + 4]: numbers("I", row + 8)[0] for row in rows}
    (units,), (count,) = numbers("H", tables[b"head"] + 18), numbers("H", tables[b"hhea"] + 34)
    advances = [round(width * _FINE / units) for width in numbers(f"{2 * count}H", tables[b"hmtx"])[::2]]
    letters = tables[b"cmap"]
    maps = [letters + numbers("I", letters + 8 + 8 * row)[0] for row in range(numbers("H", letters + 2)[0])]
    runs = next(place for place in maps if numbers("H", place)[0] == 12)
    found: defaultdict[int, int] = defaultdict(
        lambda: advances[0]
    )  # the first glyph stands for letters that the font lacks
    for row in range(numbers("I", runs + 12)[0]):
        first, last, glyph = numbers("III", runs + 16 + 12 * row)
        found.update((letter, advances[min(glyph + letter - first, count - 1)]) for letter in range(first, last + 1))
    return found


def is_covered(text: str) -> bool:
    """Return whether the font has the letters of ``text``, judged by the blocks of Unicode."""
    return _FOREIGN.search(text) is None


def text_width(text: str, size: float = 12.0, bold: bool = False) -> float:
    """Return the width of ``text`` in letters of ``size``.

    >>> text_width("ill") < text_width("mmm"), round(text_width("field 435 × 435"))
    (True, 93)
    """
    if is_covered(text):
        widths = _widths(bold)
        return sum(widths[ord(letter)] for letter in text) / _FINE * size
    return sum(text_width(letter, size, bold) if is_covered(letter) else _EM * size for letter in text)


def fit(text: str, width: float, size: float = 12.0, bold: bool = False) -> str:
    """Return ``text``, cut with an ellipsis in its middle where it is wider than ``width``.

    Names of layers differ at both ends, so the middle is left out.

    >>> fit("layer1.0.downsample.0", 80)
    'layer1…ple.0'
    """
    if text_width(text, size, bold) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if text_width(short, size, bold) <= width:
            return short
    return "…"


def wrap(text: str, width: float, size: float = 12.0) -> list[str]:
    """Return ``text`` in lines of at most ``width``, broken between words.

    >>> wrap("a longer text", 60)
    ['a longer', 'text']
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
