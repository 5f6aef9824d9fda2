"""Which input sizes work: against published figures, and against trying every size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ShapeError
from convoxel.inspect import Admission
from convoxel.inspect.admission import find_sizes


@pytest.mark.parametrize("name, smallest", [("alexnet", 63), ("googlenet", 15), ("inception_v3", 75)])
def test_published_minima(name: str, smallest: int) -> None:
    assert cx.describe(name).sizes == Admission((smallest, smallest), (1, 1))


def test_valid_unets() -> None:
    sizes = cx.describe("unet_ronneberger").sizes
    assert sizes == Admission((188, 188), (16, 16))
    assert str(sizes) == "188, 204, 220, … (188 + 16 n)"
    assert sizes.admits((572, 188)) and not sizes.admits((570, 188)) and not sizes.admits((172, 188))
    cicek = cx.describe("unet_cicek", (1, 3, 132, 132, 116)).sizes
    assert cicek == Admission((92, 92, 92), (8, 8, 8)) and cicek.admits((132, 132, 116))


@pytest.mark.parametrize("dims, options", [
    (1, {"levels": 3}), (2, {"levels": 2, "up": "resize"}), (2, {"levels": 2, "strides": [(1, 2), 2]}),
    (1, {"levels": 1, "padding": "none", "norm": "none"}),
])  # fmt: skip
def test_every_size_tried(dims: int, options: dict[str, Any]) -> None:
    net = models.unet(dims, 1, 1, width=1, **options).eval()
    given = (1, 1, *(64,) * dims) if "padding" not in options else (1, 1, 44)
    sizes = cx.describe(net, given).sizes
    assert sizes is not None
    for axis in range(dims):
        for size in range(1, 70):
            spatial = [*given[2:]]
            spatial[axis] = size
            try:
                with torch.no_grad():
                    net(torch.zeros(1, 1, *spatial))
                works = True
            except (ShapeError, RuntimeError, ValueError):
                works = False
            assert works == sizes.admits(spatial), (axis, size)


def test_axes_of_their_own() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, (3, 5)), nn.MaxPool2d((2, 1)))
    assert cx.describe(net, (1, 1, 32, 32)).sizes == Admission((4, 5), (1, 1))


def test_one_size_alone() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(60, 2))
    sizes = cx.describe(net, (1, 1, 32)).sizes
    assert sizes == Admission((32,), (0,)) and str(sizes) == "32 alone"
    assert sizes.admits((32,)) and not sizes.admits((33,)) and not sizes.admits((32, 32))


def test_inputs_change_together() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x, y], 1)

    assert cx.describe(Both(), (1, 1, 20), (1, 2, 20)).sizes == Admission((1,), (1,))


def test_steps_of_three_and_what_is_not_asked() -> None:
    assert find_sizes(lambda shapes: tuple(shapes) if shapes[0][2] % 3 == 2 else None, [(1, 1, 20)]) == Admission(
        (2,), (3,)
    )
    assert find_sizes(lambda shapes: tuple(shapes), [(1, 8)]) is None
    assert find_sizes(lambda shapes: None, [(1, 1, 8)]) is None
    assert cx.describe(nn.Linear(8, 2), (1, 8)).sizes is None


@pytest.mark.parametrize("sizes, text", [
    (Admission((1, 1), (1, 1)), "any"), (Admission((32,), (32,)), "multiples of 32"),
    (Admission((4, 16), (1, 16)), "4 and more × multiples of 16"),
])  # fmt: skip
def test_words(sizes: Admission, text: str) -> None:
    assert str(sizes) == text
