"""Colours that people with any kind of colour vision can tell apart.

The class colours are the eight of Okabe and Ito ("Color universal design", 2008), ordered so that the
first ones also stand out from a grey image. The difference colours are kept apart from them: they speak
of errors, not of classes. No other module of Convoxel names a colour for data.
"""

from __future__ import annotations

from convoxel.errors import ConfigError

__all__ = ["CLASS_COLOURS", "ERROR_COLOURS", "RGB", "class_colour", "hexadecimal"]

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
