"""Models that ``torch.export`` recorded, given to ``compile``."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, ExportedProgram, export

import convoxel as cx
from convoxel.errors import ShapeError, UnsupportedError
from convoxel.graph.compile import compile

# PyTorch's own, while it copies descriptions of results.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Pair = namedtuple("Pair", "logits features")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.body(x)
        return Pair(self.head(F.adaptive_avg_pool2d(y, 1).flatten(1)), F.interpolate(y, scale_factor=2))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


def agree(program: Any, model: Any, *inputs: torch.Tensor) -> None:
    for ours, theirs in zip(program(*inputs), model(*inputs), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decomposed", [False, True])
def test_sizes_are_those_that_were_left_open(net: nn.Module, decomposed: bool, tmp_path: Path) -> None:
    batch, height = Dim("batch", max=64), Dim("height", min=8, max=40)
    recorded = export(net, (image(2, 3, 20, 10),), dynamic_shapes=({0: batch, 2: 2 * height},))
    if decomposed:
        recorded = recorded.run_decompositions()
    program = compile(recorded, verify=True)
    for shape in ((2, 3, 16, 10), (1, 3, 80, 10), (5, 3, 32, 10)):
        agree(program, net, image(*shape))
    with pytest.raises(ShapeError, match=r"axis 3 is 12, but must be 10"):
        program(image(2, 3, 16, 12))
    for refused in ((65, 3, 16, 10), (2, 3, 82, 10), (2, 3, 14, 10)):
        with pytest.raises(ShapeError, match="it was compiled for"):
            program(image(*refused))
    program.save(tmp_path / "net.cvx")
    agree(cx.load(tmp_path / "net.cvx"), net, image(3, 3, 20, 10))


def test_fixed_sizes(net: nn.Module) -> None:
    program = compile(export(net, (image(1, 3, 12, 10),)))
    agree(program, net, image(1, 3, 12, 10))
    assert type(program(image(1, 3, 12, 10))) is Pair
    with pytest.raises(ShapeError, match="must be 1"):
        program(image(2, 3, 12, 10))


def test_what_a_module_would_say_of_itself_agrees(net: nn.Module) -> None:
    from convoxel.graph.passes import optimise
    from convoxel.graph.read.torch import read

    open_sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    recorded = read(export(net, (image(2, 3, 12, 10),), dynamic_shapes=open_sizes), [image(2, 3, 12, 10)])
    own = read(net, [image(2, 3, 12, 10)])
    kinds = [[node.operator for node in optimise(found.graph).nodes] for found in (recorded, own)]
    assert kinds[0] == kinds[1] and all(node.native for node in optimise(recorded.graph).nodes)


def test_arguments_by_name_nested_and_constant() -> None:
    class Nested(nn.Module):
        def forward(self, x: dict[str, torch.Tensor], factor: int, pair: Any, *, scale: torch.Tensor, none: Any) -> Any:
            return x["a"] * factor + pair[0], x["b"] * scale + pair[1]

    args = ({"a": image(2, 3), "b": image(2, 3)}, 3, (image(2, 3), image(2, 3)))
    kwargs = {"scale": image(2, 3), "none": None}
    recorded = export(Nested(), args, kwargs)
    program = compile(recorded, verify=True)
    tensors = [args[0]["a"], args[0]["b"], *args[2], kwargs["scale"]]
    for ours, theirs in zip(program(*tensors), Nested()(*args, **kwargs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_examples_may_differ_from_those_of_the_export(net: nn.Module) -> None:
    recorded = export(net, (image(2, 3, 12, 10),), dynamic_shapes=({0: Dim.AUTO},))
    agree(compile(recorded, image(4, 3, 12, 10).numpy()), net, image(3, 3, 12, 10))
    with pytest.raises(ShapeError):
        compile(recorded, image(4, 3, 12, 12))


def test_training_mode_is_refused_by_what_it_writes(net: nn.Module) -> None:
    for recorded in (
        export(net.train(), (image(2, 3, 12, 10),)),
        export(net, (image(2, 3, 12, 10),)).run_decompositions(),
    ):
        assert isinstance(recorded, ExportedProgram)
        with pytest.raises(UnsupportedError, match=r"body\.1\.running_mean"):
            compile(recorded)


def test_the_export_stays_as_it_is(net: nn.Module) -> None:
    recorded = export(net, (image(2, 3, 12, 10),))
    text = str(recorded)
    program = compile(recorded)
    assert str(recorded) == text
    x = image(2, 3, 12, 10)
    before = [y.clone() for y in program(x)]
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    assert all(map(torch.equal, program(x), before))
    np.testing.assert_array_equal(program(x.numpy())[0], before[0].numpy())
