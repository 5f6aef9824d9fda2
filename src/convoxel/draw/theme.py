"""Colours that people with any kind of colour vision can tell apart, and the roles that name them.

The class colours are the eight of Okabe and Ito ("Color universal design", 2008), ordered so that the first ones also
stand out from a grey image. The colours of errors are kept apart from them.

A picture names roles ("ink", "c1", "ramp:0.4"), never colours; a role has one colour on light pages and one on dark
ones. Series colours are the hues of the classes, darkened on light pages until they stand out from white by a contrast
of at least 3 : 1. Text keeps at least 4.5 : 1 everywhere. The ramp rises evenly in lightness from violet to yellow, so
that people who see no red or green, and readers of a print, see its order too.
"""

from __future__ import annotations

from functools import cache

from convoxel.errors import ConfigError

RGB = tuple[int, int, int]

# Orange and sky blue first: both are far from grey and from each other in every kind of colour vision.
CLASS_COLOURS: tuple[RGB, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
)

ERROR_COLOURS: dict[str, RGB] = {
    "missed": (255, 64, 160),  # labelled, but predicted as background
    "extra": (250, 236, 80),  # predicted, but labelled as background
    "confused": (245, 245, 245),  # one class taken for another
}


def class_colour(index: int) -> RGB:
    """Return the colour of foreground class ``index`` (1, 2, …); colours repeat after seven classes.

    >>> class_colour(1)
    (230, 159, 0)
    """
    if index < 1:
        raise ConfigError(f"class_colour: index is {index}; foreground classes count from 1 (0 is the background).")
    return CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]


def hexadecimal(colour: RGB) -> str:
    """Return ``colour`` as CSS writes it.

    >>> hexadecimal((230, 159, 0))
    '#e69f00'
    """
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


_LIGHT_SERIES = ("#b26a00", "#1f83bd", "#00805d", "#8a7d00", "#c04f00", "#a8528a", "#00639b")
_DARK_SERIES = tuple(hexadecimal(colour) for colour in (*CLASS_COLOURS[:6], (74, 163, 223)))
# Colours over images; they are the same on light and dark pages.
OVER = {f"class{index}": shade for index, shade in enumerate(CLASS_COLOURS, 1)} | ERROR_COLOURS


def _table(text: str, series: tuple[str, ...]) -> dict[str, str]:
    words = dict(word.split(":") for word in text.split())
    over = {name: hexadecimal(shade) for name, shade in OVER.items()}
    return {**words, **{f"c{index}": shade for index, shade in enumerate(series, 1)}, **over}


LIGHT = _table(
    "page:#fbfbfa card:#ffffff ink:#1a1d21 soft:#50575f faint:#656c75 rule:#dfe2e6 grid:#e9ebee accent:#00639b "
    "good:#00704f bad:#b04400 note:#fdf3dc note-rule:#c98a00 code:#f2f3f5",
    _LIGHT_SERIES,
)
DARK = _table(
    "page:#111418 card:#181c21 ink:#e8eaed soft:#b3bac3 faint:#959da7 rule:#2d333b grid:#262c33 accent:#6bb8ee "
    "good:#4fc79d bad:#f28c46 note:#2c2613 note-rule:#c98a00 code:#20262d",
    _DARK_SERIES,
)

# Violet, blue, green and yellow of rising lightness. On a light page the ramp ends before yellow is as pale as
# the page, on a dark one it begins after violet is as deep as the page.
_RAMP: tuple[RGB, ...] = ((58, 24, 96), (58, 78, 140), (36, 122, 142), (42, 162, 122), (122, 198, 78), (236, 222, 48))
_ENDS = {False: (0.0, 0.93), True: (0.22, 1.0)}


@cache
def colour(role: str, dark: bool = False) -> RGB:
    """Return the colour of a role on a light page, or on a dark one.

    Args:
        role: a name of the tables; ``ramp:SHARE`` for a place between 0 and 1 of the ramp; ``on:ROLE`` for text
            over that role.
        dark: which page.

    Raises:
        ConfigError: there is no such role.

    >>> colour("c7"), colour("card", dark=True), colour("on:c7")
    ((0, 99, 155), (24, 28, 33), (255, 255, 255))
    """
    kind, _, rest = role.partition(":")
    if kind == "ramp" and rest:
        first, last = _ENDS[dark]
        return _blend(first + min(max(float(rest), 0.0), 1.0) * (last - first))
    if kind == "on" and rest:
        ground = colour(rest, dark)
        return max(((255, 255, 255), (20, 22, 26)), key=lambda text: contrast(text, ground))
    table = DARK if dark else LIGHT
    if role not in table:
        raise ConfigError(f"colour: there is no role {role!r}; roles are {', '.join(table)}, ramp:SHARE and on:ROLE.")
    digits = table[role].lstrip("#")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def contrast(one: RGB, other: RGB) -> float:
    """Return the contrast of two colours, from 1 (equal) to 21 (WCAG 2.1, 1.4.3).

    >>> round(contrast((0, 0, 0), (255, 255, 255)))
    21
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(shade: RGB) -> float:
    parts = [value / 255 for value in shade]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _blend(share: float) -> RGB:
    place = share * (len(_RAMP) - 1)
    index = min(int(place), len(_RAMP) - 2)
    rest = place - index
    red, green, blue = (round(a + rest * (b - a)) for a, b in zip(_RAMP[index], _RAMP[index + 1], strict=True))
    return red, green, blue
