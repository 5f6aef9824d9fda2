"""Whole numbers of 8 bits: tensors of levels, layers with whole weights, and products whose sums are exact.

A level q in 0 … 255 stands for (q − zero) · scale. In the engine a tensor of levels is a tensor of floats with a
quarter of the channels: each float's 32 bits hold four levels, and the last float of a position holds what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array
from convoxel.native import _core
from convoxel.native.machine import resolve_isa
from convoxel.native.plan import Floats, Plan, Triple, View, engine_numbers

_WORD = 4  # levels of a float


class Levels(NamedTuple):
    """The meaning of levels: q is (q − zero) · scale."""

    scale: float
    zero: int


class QuantisedConvolution(_core.QuantisedConvolution):
    """A convolution of levels with whole weights: Σ (q − zero) · w, times ``scale``, plus ``bias``.

    Args:
        weight: as of ``Convolution``, whole numbers from −255 to 255.
        scale: one for each output channel, that of the levels times that of the weights; None: results are the sums
            themselves, int32 in the memory of the result's floats.
        bias: one for each output channel, or None.
        zero: the level of zero at the input, which padding reads.
        stride, padding_low, dilation, groups, transposed: as of ``Convolution``.
    """

    def __init__(
        self,
        weight: Array,
        scale: Floats | None = None,
        bias: Floats | None = None,
        *,
        zero: int,
        stride: Triple = (1, 1, 1),
        padding_low: Triple = (0, 0, 0),
        dilation: Triple = (1, 1, 1),
        groups: int = 1,
        transposed: bool = False,
    ) -> None:
        scales = np.zeros(0, np.float32) if scale is None else np.ascontiguousarray(scale, np.float32)
        added = None if bias is None else np.ascontiguousarray(bias, np.float32)
        whole = np.ascontiguousarray(weight, np.int16)
        window = (engine_numbers("stride", stride), engine_numbers("padding_low", padding_low))
        dilated = engine_numbers("dilation", dilation)
        super().__init__(whole, scales, added, int(zero), *window, dilated, groups, transposed)
        self.arrays = {"weight": weight, "scale": scales, "bias": added}  # the weight, as it was given
        self.zero = int(zero)


def integer_units(isa: str | None = None) -> list[dict[str, str]]:
    """Return name and summary of what multiplies whole numbers beside an instruction set, best first.

    All compute the same sums.

    >>> integer_units()[-1]["name"]
    'portable'
    """
    return list(_core.integer_units(resolve_isa(isa)))


def word_count(channels: int) -> int:
    """Return how many floats hold the levels of so many channels.

    >>> word_count(8), word_count(9)
    (2, 3)
    """
    return -(-channels // _WORD)


def fits_integers(products: int) -> bool:
    """Return whether a sum of so many products of levels and whole weights stays within 32 bits."""
    return products <= int(_core.most_integer_products())


def pack_levels(levels: Array) -> Floats:
    """Return uint8 levels, channels last, as the floats that hold them.

    >>> pack_levels(np.zeros((1, 1, 2, 2, 5), np.uint8)).shape
    (1, 1, 2, 2, 2)
    """
    rest = -levels.shape[-1] % _WORD
    padded = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, rest)]) if rest else np.ascontiguousarray(levels)
    return padded.view(np.float32)


def unpack_levels(words: Floats, channels: int) -> NDArray[np.uint8]:
    """Return the levels that floats hold, as ``pack_levels`` takes them."""
    return np.ascontiguousarray(words).view(np.uint8)[..., :channels]


def convolve_whole(
    x: Array, weight: Array, out_size: Triple, *, stride: Triple, padding_low: Triple, dilation: Triple, groups: int
) -> NDArray[np.int32] | None:
    """Return the convolution of whole numbers, (n, d, h, w, c) with (k, c/groups, d, h, w), its sums exact.

    None where x spans more than 255, a weight is beyond ±255, or a sum may leave 32 bits.
    """
    low, high = min(int(x.min(initial=0)), 0), int(x.max(initial=0))
    if high - low > 255 or not fits_integers(int(np.prod(weight.shape[1:]))) or 0 in x.shape:
        return None
    if int(weight.min(initial=0)) < -255 or int(weight.max(initial=0)) > 255:
        return None
    layer = QuantisedConvolution(
        weight, zero=-low, stride=stride, padding_low=padding_low, dilation=dilation, groups=groups
    )
    words = pack_levels((x.astype(np.int32) - low).astype(np.uint8))
    result = np.empty((x.shape[0], *out_size, weight.shape[0]), np.float32)
    plan = Plan(0, 2)
    plan.convolve_quantised(layer, View.dense(1, 0, _five(words.shape)), View.dense(2, 0, _five(result.shape)))
    plan.run([words, result])
    return result.view(np.int32)


def _five(shape: Sequence[int]) -> tuple[int, int, int, int, int]:
    n, d, h, w, c = shape
    return n, d, h, w, c
