"""How wide a text will be, before there is a font: pictures leave room by it and cut what would not fit.

The widths are those of DejaVu Sans in thousandths of the letter's size, rounded up; the fonts that pages
prefer are narrower. A text that fits here therefore fits everywhere.
"""

from __future__ import annotations

__all__ = ["fit", "text_width"]

_NARROW = {
    " ": 318, "'": 275, "i": 278, "l": 278, "j": 278, "I": 295, "J": 295, ".": 318, ",": 318, ":": 337, ";": 337,
    "|": 337, "!": 401, "f": 352, "t": 393, "r": 412, "-": 361, "(": 391, ")": 391, "[": 391, "]": 391, "/": 337,
    "·": 318, "⌊": 391, "⌋": 391, "⌈": 391, "⌉": 391, "\u00a0": 318, "\u202f": 200, "–": 500, "_": 500, "s": 521,
    "z": 525, "c": 550, "k": 579, "v": 592, "x": 592, "y": 592, "²": 401, "³": 401, "°": 500, '"': 460,
}  # fmt: skip
_WIDE = {"m": 975, "w": 818, "M": 906, "W": 989, "×": 838, "→": 838, "=": 838, "+": 838, "−": 838, "<": 838,
         ">": 838, "≤": 838, "≥": 838, "…": 1000, "%": 951, "@": 1000, "Q": 788, "O": 788, "G": 775,
         "D": 771, "#": 838, "&": 780}  # fmt: skip
_WIDTHS = {**_NARROW, **_WIDE}
_BOLD = 0.09  # of the size: how much wider a bold letter is, at most


def text_width(text: str, size: float = 12.0, bold: bool = False) -> float:
    """Return at most how wide ``text`` is in letters of ``size``.

    >>> text_width("ill") < text_width("mmm"), round(text_width("field 435 × 435"))
    (True, 94)
    """
    units = sum(_WIDTHS.get(letter, 752 if letter.isupper() else 637) for letter in text)
    return (units / 1000 + (_BOLD * len(text) if bold else 0.0)) * size


def fit(text: str, width: float, size: float = 12.0, bold: bool = False) -> str:
    """Return ``text``, cut with an ellipsis in its middle where it is wider than ``width``.

    Names of layers differ at both ends, so the middle is what can be spared.

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
