"""Meaning of the axes of NumPy arrays, which their files do not state: channels, space, and samples of a set.

Axes are words of letters, one an axis: N for samples, C for channels, and space as W, HW or DHW. Nothing is guessed
where two meanings are likely: the error then names the words to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convoxel.errors import ConfigError
from convoxel.files.fault import fault
from convoxel.files.values import Array

_SPACE = ("W", "HW", "DHW")
_FEW = 4  # an axis of at most so many values may hold channels: grey, complex, RGB, RGB and alpha


def check_axes(axes: str | None) -> None:
    """Raise ConfigError for a word that names no axes.

    >>> check_axes("NHWC"), check_axes("DHW"), check_axes(None)
    (None, None, None)
    """
    if axes is None:
        return
    space = axes.replace("N", "", 1).replace("C", "", 1) if isinstance(axes, str) else ""
    if space not in _SPACE or "N" in axes[1:]:
        raise ConfigError(
            f"axes is {axes!r}; expected W, HW or DHW with C for channels before or after, and N before all for the "
            "samples of a set. Write one letter for each axis, such as HWC, CHW, DHW or NHWC."
        )


def find_axes(
    where: object,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    axes: str | None = None,
    dims: int | None = None,
    channels: int | None = None,
    grid: tuple[int, ...] | None = None,
    channels_last: bool = False,
) -> str:
    """Return the meaning of an image's axes, such as "HWC".

    What is known decides: the option ``axes``, the sizes of the label, the number of spatial axes and of channels. Else
    an axis of size 1 that comes first or last holds channels; so does a last one of 3 or 4 uint8 values (pictures),
    and, where there must be channels, one of at most 4 values that is shorter than all others. Where no axis looks so,
    one is a signal, two are a picture and three a volume.

    Args:
        where: file, for the message.
        shape: sizes of the array without its samples axis.
        dtype: type of its values.
        axes: the meaning, if it was stated; N does not count here (default None).
        dims: number of spatial axes, if it is known (default None).
        channels: number of channels, if it is known (default None).
        grid: spatial sizes, if a label tells them (default None).
        channels_last: a last axis of 3 or 4 holds channels whatever the type, as a layout may say (default False).

    Raises:
        DataError: the array does not fit what is stated, or two meanings are likely.
    """
    if axes is not None:
        return _stated(where, shape, axes)
    count = len(shape)
    words = [space for space in _SPACE if len(space) == count]
    words += [word for space in _SPACE if len(space) == count - 1 for word in ("C" + space, space + "C")]
    if not words:
        expected = "(*spatial) or (channels, *spatial), at most 4 axes"
        raise fault(where, f"an array of {count} axes {tuple(shape)}", expected, "Save one image a file")

    def size(word: str) -> int:
        return shape[word.index("C")] if "C" in word else 1

    for known, fitting in (
        (grid, [word for word in words if space_sizes(word, shape) == grid]),
        (dims, [word for word in words if len(word.replace("C", "")) == dims]),
        (channels, [word for word in words if size(word) == channels]),
    ):
        both = [word for word in words if word in fitting]
        words = both if known is not None and both else words  # what fits nowhere is reported by who knows it
    plain, last = [word for word in words if "C" not in word], [word for word in words if word[-1] == "C"]
    single = [word for word in words if "C" in word and size(word) == 1]
    few = [w for w in words if "C" in w and size(w) <= _FEW and size(w) < min(space_sizes(w, shape))]
    if len(single) == 1:
        return single[0]
    if last and few == last and size(last[0]) >= 3 and (channels_last or dtype == np.uint8):
        return last[0]
    likely = plain + few if plain else few or words
    if len(likely) == 1:
        return likely[0]
    came = f"the axes of an array of shape {tuple(shape)} may mean {' or '.join(likely)}"
    mend = f"State them: axes={likely[0]!r} in Python, --axes {likely[0]} on the command line"
    raise fault(where, came, "a meaning that is stated where the sizes do not tell it", mend)


def _stated(where: object, shape: Sequence[int], axes: str) -> str:
    check_axes(axes)
    word = axes.removeprefix("N")
    if len(word) == len(shape):
        return word
    came = f"an array of {len(shape)} axes {tuple(shape)}"
    raise fault(where, came, f"{len(word)} axes, as axes={axes!r} states", "State other axes, or save the array anew")


def space_sizes(axes: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the spatial sizes of an array.

    >>> space_sizes("HWC", (5, 6, 3))
    (5, 6)
    """
    return tuple(size for letter, size in zip(axes, shape, strict=True) if letter != "C")


def arrange(array: Array, axes: str) -> Array:
    """Return an array as a view (channels, *spatial)."""
    return np.moveaxis(array, axes.index("C"), 0) if "C" in axes else array[None]
