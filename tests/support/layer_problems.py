"""Random convolution layers of 1 to 3 axes: any channels, groups, stride, dilation, padding and border."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st

from convoxel.errors import ShapeError
from convoxel.nn.functional import correlate

__all__ = ["LayerProblem", "layer_problems"]


class LayerProblem(NamedTuple):
    x: torch.Tensor  # (c, *size), small integers in float64: every sum is exact
    w: torch.Tensor
    options: dict[str, Any]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])


@st.composite
def layer_problems(draw: st.DrawFn, borders: tuple[str, ...] = ("zeros",)) -> LayerProblem:
    dims = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims)))

    groups = draw(st.integers(1, 2))
    channels, out = draw(st.integers(1, 2)) * groups, draw(st.integers(1, 2)) * groups
    size, kernel = each(1, 8 - dims), each(1, 3)
    numbers = st.tuples(st.integers(-1, 3), st.integers(-1, 3))
    padding = draw(
        st.sampled_from(["none", "half", "full", "same", "causal"])
        | st.lists(numbers, min_size=dims, max_size=dims).map(tuple)
    )
    options = {
        "stride": each(1, 3),
        "dilation": each(1, 2),
        "padding": padding,
        "groups": groups,
        "padding_mode": draw(st.sampled_from(borders)),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = torch.from_numpy(rng.integers(-4, 5, (channels, *size)).astype(float))
    w = torch.from_numpy(rng.integers(-4, 5, (out, channels // groups, *kernel)).astype(float))
    try:
        correlate(x, w, **options)
    except ShapeError:  # the kernel does not fit
        assume(False)
    return LayerProblem(x, w, options)
