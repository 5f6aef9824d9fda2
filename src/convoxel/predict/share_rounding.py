"""Shares of classes as the numbers that files hold: rounded so that sums and the largest class stay as they are.

Rounded one by one, the shares of a place would not sum to 1, and two classes could come out equal. Whole numbers get
the largest remainders instead (Hamilton's method of apportionment): each is less than one unit off, and they sum to the
scale exactly. Where the class of the label map would not come out as the first of the largest, it takes units from
those before it: one as a rule.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array

ShareKind = Literal["uint8", "uint16", "float16", "float32"]
#: Types of stored shares.
SHARE_KINDS: tuple[str, ...] = get_args(ShareKind)


def share_scale(kind: str) -> int:
    """Return the stored number that stands for a share of 1.

    >>> share_scale("uint8"), share_scale("float16")
    (255, 1)
    """
    dtype = np.dtype(kind)
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else 1


def round_shares(shares: NDArray[np.float32], label: NDArray[np.uint8] | None, kind: str) -> Array:
    """Return shares (classes, *any) as stored numbers.

    Args:
        shares: share of each class, 0 … 1.
        label: the class of each place (*any), which has one of the largest shares; the first of the largest stored
            numbers is then its own. None where places may have several classes: each share is then rounded to the
            nearest number, so that 0.5 and above are stored as half the scale and above.
        kind: type of the stored numbers; whole numbers of a place sum to :func:`share_scale`.

    >>> round_shares(np.array([[0.4985], [0.5], [0.0015]], np.float32), np.array([1], np.uint8), "uint8").ravel()
    array([127, 128,   0], dtype=uint8)
    """
    dtype, scale = np.dtype(kind), share_scale(kind)
    if dtype.kind == "f":
        stored: Array = shares.astype(dtype)
        return stored if label is None else _hold_floats(stored, label)
    if label is None:
        nearest: Array = np.rint(np.nan_to_num(shares) * np.float32(scale)).astype(dtype)
        return nearest
    scaled = np.nan_to_num(shares).astype(np.float64) * scale  # networks may give NaN, which has no whole number
    whole = np.floor(scaled)
    rest, lacking = scaled - whole, scale - whole.sum(axis=0)
    while (short := lacking > 0).any():
        best = rest.argmax(axis=0)[None]
        np.put_along_axis(whole, best, np.take_along_axis(whole, best, 0) + short, 0)
        np.put_along_axis(rest, best, -1.0, 0)
        lacking -= short
    return _hold_units(whole, label).astype(dtype)


def _hold_units(whole: NDArray[Any], label: NDArray[np.uint8]) -> NDArray[Any]:
    """Move units to the class of each place from those that would precede it."""
    flat, wanted = whole.reshape(len(whole), -1), label.reshape(-1).astype(np.intp)
    left = np.flatnonzero(flat.argmax(axis=0) != wanted)
    while left.size:
        first = flat[:, left].argmax(axis=0)
        left, first = left[first != wanted[left]], first[first != wanted[left]]
        flat[first, left] -= 1
        flat[wanted[left], left] += 1
    return whole


def _hold_floats(stored: Array, label: NDArray[np.uint8]) -> Array:
    """Raise the class of each place above those that would precede it, by one step of the type."""
    flat, wanted = stored.reshape(len(stored), -1), label.reshape(-1).astype(np.intp)
    first = flat.argmax(axis=0)
    left = np.flatnonzero(first != wanted)
    flat[wanted[left], left] = np.nextafter(flat[first[left], left], np.array(2, stored.dtype))
    return stored
