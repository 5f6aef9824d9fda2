"""The scratch memory of each layer stays below three times the largest of its input, output and packed weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convoxel.bench.layer_list import Layer, read_layers
from convoxel.native import Convolution, Plan, View
from tools.conformance import INSTRUCTION_SETS

# The layers of the benchmark's networks, without fully connected ones, which depend on their weights alone.
LAYERS = [layer for layer in read_layers() if layer.quick and not layer.fully_connected]


def triple(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    d, h, w = (*(fill,) * (3 - len(values)), *values)
    return d, h, w


def shares(layer: Layer, threads: int, isa: str) -> tuple[int, int]:
    """Return the bytes of scratch memory, and of the layer's largest tensor."""
    made = Convolution(
        np.zeros((*layer.weight_shape[:2], *triple(layer.kernel, 1)), np.float32),
        stride=triple(layer.stride, 1),
        padding_low=triple(layer.padding, 0),
        dilation=triple(layer.dilation, 1),
        groups=layer.groups,
        transposed=layer.transposed,
    )
    src, dst = (
        View.dense(number, 0, (1, *triple(size, 1), channels))
        for number, size, channels in ((1, layer.size, layer.in_channels), (2, layer.out_size, layer.out_channels))
    )
    plan = Plan(0, 2, threads, isa=isa)
    plan.convolve(made, src, dst)
    return plan.workspace_bytes, max(4 * math.prod(src.shape), 4 * math.prod(dst.shape), made.packed_bytes)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_scratch_memory_is_bounded(layer: Layer) -> None:
    for threads in (1, 2):
        used, largest = shares(layer, threads, INSTRUCTION_SETS[0])
        assert used <= 3 * largest, f"{used} bytes for {threads} threads; the largest tensor has {largest}"


def test_the_list_holds_every_kind() -> None:
    assert len(LAYERS) >= 50
    assert {layer.kind for layer in LAYERS} >= {"3x3 s1", "3x3x3", "1x1", "depthwise 2-D", "transposed", "first layers"}
