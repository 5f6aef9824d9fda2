"""Algorithms with smaller packed weights: what is chosen, what it saves, and that it computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.arithmetic.winograd import tiles_of
from convoxel.native import Convolution, Plan, Problem, View, choose_smaller_weights

WINDOW = ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, False)


def problem(channels: int, size: tuple[int, int, int], images: int = 1, element: str = "float32") -> Problem:
    shape = (images, *size, channels)
    return Problem(*WINDOW, shape, shape, in_element=element, out_element=element)


def packed_bytes(asked: Problem, algorithm: str) -> tuple[int, str]:
    """Return the bytes that a layer's weights take once they are packed, and the algorithm that ran."""
    channels = asked.in_shape[4]
    layer = Convolution(np.ones((channels, channels, 3, 3, 3), np.float32), padding_low=(1, 1, 1))
    plan = Plan(0, 2)
    plan.convolve(layer, View.dense(1, 0, asked.in_shape), View.dense(2, 0, asked.out_shape), algorithm=algorithm)
    plan.run([np.ones(asked.in_shape, np.float32), np.empty(asked.out_shape, np.float32)])
    return layer.packed_bytes, plan.steps[0]["algorithm"]


def test_the_choice_packs_fewer_bytes_than_the_cheapest_algorithm() -> None:
    asked = problem(256, (5, 7, 5))
    chosen = choose_smaller_weights([asked, asked])
    assert list(chosen) == [str(asked)]
    (name,) = chosen.values()
    most, cheapest = packed_bytes(asked, "auto")
    least, _ = packed_bytes(asked, name)
    assert tiles_of(cheapest) and least < most, (cheapest, name)


def test_small_layers_and_images_of_a_batch() -> None:
    small, large = problem(16, (8, 8, 8)), problem(256, (5, 7, 5), images=3)
    assert choose_smaller_weights([small]) == {}
    assert choose_smaller_weights([large]) == choose_smaller_weights([problem(256, (5, 7, 5))])


@pytest.mark.parametrize("precision", ["float32", "high", "bfloat16"])
def test_a_compacted_program_computes_the_same(precision: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 128, 3, padding=1), nn.ReLU(), nn.Conv3d(128, 128, 3, padding=1)).eval()
    x = torch.randn(1, 1, 5, 7, 5)
    program = cx.compile(net, x, precision=precision)
    compact = program.compacted(x)
    expected = net(x).detach().numpy()
    tolerance = {"float32": 1e-5, "high": 2e-4, "bfloat16": 2e-2}[precision]
    for each in (program, compact):
        np.testing.assert_allclose(each(x).numpy(), expected, atol=tolerance * np.abs(expected).max())
    assert compact.chosen.keys() == program.chosen.keys()
    assert program.replace(algorithm="direct").compacted(x).chosen == {}
