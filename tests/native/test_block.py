"""A depthwise convolution and its 1×1 neighbours as one step, against the convolutions one after another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from convoxel import ConfigError, ShapeError, UnsupportedError, reference
from convoxel.native import Convolution, Plan, View
from tools.conformance import INSTRUCTION_SETS

ONE = ((1, 1, 1), [(0, 0)] * 3, (1, 1, 1))  # stride, padding, dilation
RNG = np.random.default_rng(7)
Size = tuple[int, int, int]


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


def last(x: np.ndarray) -> np.ndarray:
    """(n, c, d, h, w) → (n, d, h, w, c)"""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


class Block:
    """A block with small integers, whose sums are equal in any order.

    channels: in front of the expansion, in the middle, behind the projection; None without the convolution.
    """

    def __init__(
        self,
        channels: tuple[int | None, int, int | None],
        kernel: Size,
        stride: int = 1,
        batch: int = 2,
        size: Size = (3, 9, 11),
        dilation: int = 1,
    ):
        first, middle, columns = channels
        self.x = integers(batch, first or middle, *size)
        padding = [(k // 2, k // 2) for k in kernel]
        strides, dilations = tuple(1 if k == 1 else stride for k in kernel), (1, dilation, dilation)
        y, self.convolutions, self.activations = self.x, [], []
        if first is not None:
            w, bias = integers(middle, first, 1, 1, 1), integers(middle)
            y = reference.conv(y, w, bias, *ONE).clip(0)
            self.convolutions.append(Convolution(w, bias))
            self.activations.append(("relu", 0.0))
        w, bias = integers(middle, 1, *kernel), integers(middle)
        y = reference.conv(y, w, bias, strides, padding, dilations, middle)
        self.depthwise = len(self.convolutions)
        low = tuple(k // 2 for k in kernel)
        self.convolutions.append(
            Convolution(w, bias, stride=strides, padding_low=low, dilation=dilations, groups=middle)
        )
        self.activations.append(("relu", 0.0))
        if columns is not None:
            w, bias = integers(columns, middle, 1, 1, 1), integers(columns)
            y = reference.conv(y.clip(0), w, bias, *ONE)
            self.convolutions.append(Convolution(w, bias))
            self.activations.append(("relu", 0.0))
        self.residual = integers(*y.shape)
        self.y = (y + self.residual).clip(0)

    def run(self, algorithm: str, isa: str, threads: int = 2, gap: int = 0) -> np.ndarray:
        """Return what the block computes. gap: floats between the pixels of the input (default 0)."""
        wide = np.full((*last(self.x).shape[:-1], self.x.shape[1] + gap), np.nan, np.float32)
        wide[..., : self.x.shape[1]] = last(self.x)
        dst, residual = np.full(last(self.y).shape, np.nan, np.float32), last(self.residual)
        plan = Plan(0, 3, threads, isa=isa)
        views = [View.dense(i, 0, a.shape) for i, a in enumerate((wide, dst, residual), start=1)]
        views[0] = views[0]._replace(shape=(*views[0].shape[:-1], self.x.shape[1]))
        plan.convolve_block(
            self.convolutions, self.depthwise, *views[:2], views[2], activations=self.activations, algorithm=algorithm
        )
        plan.run([wide, dst, residual])
        return dst


KINDS = {  # channels of blocks with these convolutions
    "expanded": ((3, 16, None), (37, 40, None), (1, 20, None)),
    "projected": ((None, 1, 37), (None, 16, 3), (None, 37, 1)),
    "both": ((2, 12, 5), (17, 37, 16)),
}
ALGORITHMS = {
    "expanded": ("auto", "banded", "staged", "direct", "indirect"),
    "projected": ("auto", "blocked", "staged", "direct", "indirect"),
    "both": ("auto", "banded", "blocked", "staged", "direct", "indirect"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_equals_one_after_the_other_exactly(isa: str, kind: str) -> None:
    kernels = ((1, 3, 3), (3, 3, 3), (1, 1, 5), (1, 7, 1))
    for channels, kernel, stride in itertools.product(KINDS[kind], kernels, (1, 2)):
        for size in ((3, 9, 11), (1, 14, 6)):
            block = Block(channels, kernel, stride, size=size)
            for algorithm in ALGORITHMS[kind]:
                result = block.run(algorithm, isa, gap=3 * (stride - 1))
                assert np.array_equal(result, last(block.y)), (algorithm, channels, kernel, stride, size)


@pytest.mark.parametrize(("dilation", "stride", "kernel"), [(2, 1, (1, 3, 3)), (3, 2, (1, 5, 3)), (1, 3, (1, 2, 2))])
def test_bands_read_what_their_outputs_need(dilation: int, stride: int, kernel: Size) -> None:
    for height in (1, 2, 7, 16):
        block = Block((2, 8, 3), kernel, stride, size=(1, height, 9), dilation=dilation)
        assert np.array_equal(block.run("banded", INSTRUCTION_SETS[0], threads=1), last(block.y))


def test_large_maps_are_expanded_by_bands() -> None:
    """Expanded images that do not stay in the cache are computed by lines or by slices."""
    for size, kernel in (((1, 160, 160), (1, 3, 3)), ((96, 10, 10), (3, 3, 3))):
        block = Block((8, 96, 8), kernel, batch=1, size=size)
        views = [View.dense(i, 0, last(a).shape) for i, a in enumerate((block.x, block.y, block.residual), start=1)]
        plan = Plan(0, 3, 2)
        plan.convolve_block(block.convolutions, 1, *views, activations=block.activations)
        assert plan.steps[0]["algorithm"] == "banded"
        assert np.array_equal(block.run("auto", INSTRUCTION_SETS[0]), last(block.y))


@pytest.mark.parametrize("algorithm", ["banded", "blocked", "staged"])
def test_any_number_of_threads_gives_the_same_bits(algorithm: str) -> None:
    block = Block((5, 37, 20), (3, 3, 3), batch=1)
    block.x[...] = RNG.standard_normal(block.x.shape)
    results = [block.run(algorithm, INSTRUCTION_SETS[0], threads).tobytes() for threads in (1, 2, 3, 7)]
    assert len(set(results)) == 1


def test_lines_longer_than_a_run() -> None:
    block = Block((3, 4, 3), (1, 1, 3), batch=1, size=(1, 1, 700))
    for algorithm in ("banded", "blocked", "staged"):
        assert np.array_equal(block.run(algorithm, INSTRUCTION_SETS[0], threads=1), last(block.y))


def test_what_is_no_block_is_refused() -> None:
    depthwise, pointwise = Convolution(integers(4, 1, 1, 1, 3), groups=4), Convolution(integers(3, 4, 1, 1, 1))
    src, dst = View.dense(1, 0, (1, 1, 1, 8, 4)), View.dense(2, 0, (1, 1, 1, 6, 3))
    plan = Plan(0, 2, 1)

    def refused(convolutions: Sequence[Convolution], message: str, algorithm: str = "auto", depthwise: int = 0) -> None:
        with pytest.raises((ShapeError, UnsupportedError, ConfigError), match=message):
            plan.convolve_block(convolutions, depthwise, src, dst, algorithm=algorithm)

    refused([Convolution(integers(4, 4, 1, 1, 3)), pointwise], "not depthwise")
    refused([depthwise, Convolution(integers(3, 4, 1, 1, 3))], "1x1")
    refused([depthwise, Convolution(integers(3, 4, 1, 1, 1), stride=(1, 1, 2))], "1x1")
    refused([depthwise, Convolution(integers(3, 5, 1, 1, 1))], "5 to 3 channels")
    refused([depthwise, pointwise, pointwise], "in front and behind")
    refused([depthwise, pointwise], "'fastest'", algorithm="fastest")
    refused([depthwise, pointwise], "banded: .*in front", algorithm="banded")
    dst = View.dense(2, 0, (1, 1, 1, 6, 4))
    refused([depthwise], "neighbour")
    front = Convolution(integers(4, 4, 1, 1, 1))
    refused([front, depthwise], "blocked: .*behind", algorithm="blocked", depthwise=1)
