"""The font of pictures, and the width of a text in it: pictures leave room by it and cut what would not fit.

The font is DejaVu Sans (Latin, Greek, Cyrillic and signs), which lies beside this file. Pictures made of pixels are
painted with it. Web pages prefer narrower fonts, so a text that fits here fits there as well.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont

__all__ = ["FONT_FILES", "fit", "is_covered", "text_width"]

FONT_FILES = tuple(str(Path(__file__).with_name("fonts") / f"DejaVuSans{kind}.ttf") for kind in ("", "-Bold"))
_FINE = 1000  # size at which widths are measured: units of a thousandth of the letter's size
_EM = 1.0  # of the size: width of a letter that the font lacks, such as a Chinese one


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT_FILES[bold], _FINE, layout_engine=ImageFont.Layout.BASIC)


def is_covered(text: str) -> bool:
    """Return whether the font has the letters of ``text``, as far as their blocks tell."""
    return all(letter < "\u0530" or "\u2000" <= letter < "\u2600" for letter in text)


def text_width(text: str, size: float = 12.0, bold: bool = False) -> float:
    """Return the width of ``text`` in letters of ``size``.

    >>> text_width("ill") < text_width("mmm"), round(text_width("field 435 × 435"))
    (True, 94)
    """
    if is_covered(text):
        return _font(bold).getlength(text) / _FINE * size
    return sum(text_width(letter, size, bold) if is_covered(letter) else _EM * size for letter in text)


def fit(text: str, width: float, size: float = 12.0, bold: bool = False) -> str:
    """Return ``text``, cut with an ellipsis in its middle where it is wider than ``width``.

    Names of layers differ at both ends, so the middle is left out.

    >>> fit("layer1.0.downsample.0", 80)
    'layer…ple.0'
    """
    if text_width(text, size, bold) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if text_width(short, size, bold) <= width:
            return short
    return "…"
