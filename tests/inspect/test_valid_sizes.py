"""Which input sizes work: against published figures, and against trying every size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import convoxel as cx
from convoxel import models
from convoxel.arithmetic import PeriodicAffine, SizeSet, solve_inputs
from convoxel.errors import ShapeError
from convoxel.inspect import ValidSizes
from convoxel.inspect.axis_graph import follow_axes
from convoxel.inspect.record import open_source
from convoxel.inspect.valid_sizes import find_sizes


@pytest.mark.parametrize("name, smallest", [("alexnet", 63), ("googlenet", 15), ("inception_v3", 75)])
def test_published_minima(name: str, smallest: int) -> None:
    sizes = cx.describe(name).sizes
    assert sizes is not None and (sizes.smallest, sizes.step) == ((smallest, smallest), (1, 1))


def test_valid_unets() -> None:
    sizes = cx.describe("unet_ronneberger").sizes
    assert (sizes.smallest, sizes.step) == ((188, 188), (16, 16))
    assert str(sizes) == "188, 204, 220, … (188 + 16 n)"
    assert [str(found.giving(388)) for found in sizes.inputs] == ["572: o = i − 184"] * 2
    assert sizes.admits((572, 188)) and not sizes.admits((570, 188)) and not sizes.admits((172, 188))
    cicek = cx.describe("unet_cicek", (1, 3, 132, 132, 116)).sizes
    assert (cicek.smallest, cicek.step) == ((92, 92, 92), (8, 8, 8)) and cicek.admits((132, 132, 116))
    assert [found.giving(28).smallest for found in cicek.inputs] == [116] * 3


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
    sizes = cx.describe(net, (1, 1, 32, 32)).sizes
    assert (sizes.smallest, sizes.step) == ((4, 5), (1, 1)) and str(sizes) == "4 and more × 5 and more"
    assert [str(found.giving(15)) for found in sizes.inputs] == ["32, 33: o = ⌊(i − 2) / 2⌋", "19: o = i − 4"]


def test_one_size_alone() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(60, 2))
    sizes = cx.describe(net, (1, 1, 32)).sizes
    assert (sizes.smallest, sizes.step) == ((32,), (0,)) and str(sizes) == "32 alone"
    assert sizes.admits((32,)) and not sizes.admits((33,)) and not sizes.admits((32, 32))


def test_inputs_change_together() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x, y], 1)

    sizes = cx.describe(Both(), (1, 1, 20), (1, 2, 20)).sizes
    assert str(sizes) == "any" and sizes.outputs == (PeriodicAffine.identity(),)


def test_several_sizes_of_one_result() -> None:
    """Strides round: of a stride of 3, three sizes give what the linear layer takes."""
    net = nn.Sequential(nn.Conv1d(1, 1, 3, 3), nn.Flatten(), nn.Linear(8, 2))
    sizes = cx.describe(net, (1, 1, 24)).sizes
    assert sizes.sizes == (SizeSet((24, 25, 26)),) and str(sizes) == "24 … 26" and sizes.step == (0,)
    assert sizes.to_dict()["axes"] == [{"exceptions": [24, 25, 26], "starts": [], "text": "24 … 26", "equation": None}]


class Padding(nn.Module):
    """Pads to an even size, halves and doubles, and cuts back: what it does depends on the size."""

    def __init__(self, least: int = 1) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < self.least:
            raise ValueError("too small")
        odd = x.shape[2] % 2
        y = functional.max_pool1d(functional.pad(x, (0, 1)) if odd else x, 2)
        y = functional.interpolate(y, scale_factor=2.0)
        return y[..., :-1] if odd else y


def test_networks_that_choose_by_the_size_are_asked() -> None:
    """The route of one run says: even sizes; the network takes all, and that is what is found."""
    source = open_source(Padding(3))
    (route,) = follow_axes(source.record([(1, 1, 20)]))
    assert str(solve_inputs(route.graph)) == "every size from 2: o = 2 ⌊i / 2⌋"
    sizes = cx.describe(Padding(3), (1, 1, 20)).sizes
    assert str(sizes) == "3 and more" and sizes.outputs == (PeriodicAffine.identity(),)
    assert str(sizes.inputs[0].giving(31)) == "31: o = i"


class Normed(nn.Module):
    """Two strides, a norm of the whole map, and a skip that needs an even size."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv1d(1, 2, 3, 2, 1), nn.Conv1d(2, 2, 3, 2, 1)
        self.norm, self.up = nn.InstanceNorm1d(2), nn.ConvTranspose1d(2, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of skip and deeper map."""
        y = self.down(x)
        return y + self.up(self.norm(self.deep(y)))


def test_the_smallest_sizes_may_be_refused() -> None:
    net = Normed().eval()
    found = cx.describe(net, (1, 1, 32)).sizes
    assert found is not None and found.sizes == (SizeSet(starts=(7, 8), step=4),)
    for size in range(1, 25):
        try:
            net(torch.zeros(1, 1, size))
        except (RuntimeError, ValueError):
            assert not found.admits((size,))
        else:
            assert found.admits((size,))


class Pooled(nn.Module):
    """The mean of a map beside the map itself, brought to its size: PyTorch records it for more than one position."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv1d(1, 2, 3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map and its mean."""
        y = self.down(x)
        mean = functional.interpolate(y.mean(2, keepdim=True), size=y.shape[2:], mode="linear", align_corners=True)
        return torch.cat([y, mean], 1)


def test_a_program_tells_the_sizes_that_it_was_compiled_for() -> None:
    program = cx.compile(Pooled().eval(), torch.zeros(1, 1, 32))
    found = cx.describe(program, (1, 1, 32)).sizes
    assert found is not None and str(found) == "5 and more"
    for size in range(1, 12):
        if found.admits((size,)):
            program(torch.zeros(1, 1, size))
        else:
            with pytest.raises(ShapeError):
                program(torch.zeros(1, 1, size))


def test_outputs_that_follow_no_line_are_not_claimed() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., ::2] if x.shape[2] > 24 else x

    sizes = cx.describe(Odd(), (1, 1, 20)).sizes
    assert str(sizes) == "any" and sizes.outputs == (None,) and sizes.inputs is None


def test_steps_of_three_and_what_is_not_asked() -> None:
    threes = find_sizes(lambda shapes: tuple(shapes) if shapes[0][2] % 3 == 2 else None, [(1, 1, 20)])
    assert threes == ValidSizes((SizeSet(starts=(2,), step=3),), (PeriodicAffine((0, 1, 2), 3),))
    assert find_sizes(lambda shapes: tuple(shapes), [(1, 8)]) is None
    assert find_sizes(lambda shapes: None, [(1, 1, 8)]) is None
    assert cx.describe(nn.Linear(8, 2), (1, 8)).sizes is None


@pytest.mark.parametrize("sizes, text", [
    ([SizeSet(starts=(1,))] * 2, "any"), ([SizeSet(starts=(32,), step=32)], "multiples of 32"),
    ([SizeSet(starts=(4,)), SizeSet(starts=(16,), step=16)], "4 and more × multiples of 16"),
    ([SizeSet((3,), (8, 9), 4)], "3 and {8, 9} + 4 n (n ≥ 0)"),
])  # fmt: skip
def test_words(sizes: list[SizeSet], text: str) -> None:
    assert str(ValidSizes(tuple(sizes), (None,) * len(sizes))) == text
