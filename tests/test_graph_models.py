"""Whole networks: no operator left to PyTorch, the same numbers, few steps, little memory."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from convoxel import models
from convoxel.graph.compile import compile
from convoxel.graph.program import Program

TOLERANCE = 1e-4  # of the root mean square of the logits


def trained(model: nn.Module) -> nn.Module:
    """Return the model with statistics and scales as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or ("weight" in name and tensor.ndim == 1):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif "running_mean" in name or ("bias" in name and tensor.ndim == 1):
            tensor.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def agreeing(model: nn.Module, *shapes: tuple[int, ...]) -> Program:
    """Compile for the first shape and compare on all; a warning about foreign operators is an error here."""
    program = compile(trained(model), torch.zeros(shapes[0]), threads=2)
    for shape in shapes:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model(x)
        actual = program(x)
        assert actual.shape == expected.shape
        worst = (actual - expected).abs().max() / expected.pow(2).mean().sqrt()
        assert worst <= TOLERANCE, (shape, float(worst))
    return program


def operators(program: Program) -> Counter[str]:
    return Counter(node.operator for node in program.graph.nodes)


@pytest.mark.parametrize(
    ("dims", "up", "norm", "activation"),
    [
        (1, "transposed", "instance", "leaky_relu"),
        (2, "transposed", "batch", "relu"),
        (2, "resize", "instance", "relu"),
        (3, "transposed", "batch", "relu"),
        (3, "resize", "instance", "leaky_relu"),
    ],
)
def test_unet(dims: int, up: str, norm: str, activation: str) -> None:
    model = models.unet(dims, 1, 3, levels=2, width=8, up=up, norm=norm, activation=activation)
    sizes = (8, 12, 16)[:dims]
    program = agreeing(model, (1, 1, *sizes), (2, 1, *(16,) * dims), (3, 1, *sizes[::-1]))
    count = operators(program)
    assert not {"foreign", "batch_norm", "affine", "activation"} & count.keys()
    assert count["concat"] == 2
    x = torch.zeros(1, 1, *sizes)
    steps = program.profile(x)
    assert not [row for row in steps if "copy" in row["name"]]
    memory = program.memory(x)
    assert memory.arena_bytes < 0.4 * memory.activation_bytes


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_vgg(dims: int) -> None:
    program = agreeing(models.course_vgg(dims, 3, 10, width=0.125), (1, 3, *(16,) * dims), (3, 3, *(18, 20, 16)[:dims]))
    count = operators(program)
    assert count["convolution"] == 10 and count["dense"] == 1
    assert count.keys() <= {
        "convolution",
        "dense",
        "max_pool",
        "adaptive_average_pool",
        "channels_last",
        "channels_first",
        "squeeze",
    }


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_resnet18(dims: int) -> None:
    shapes = [(1, 3, *(16,) * dims), (2, 3, *(17, 24, 16)[:dims])]
    program = agreeing(models.resnet18(dims, 3, 10, width=0.125), *shapes)
    count = operators(program)
    assert count["convolution"] == 20 and not {"add", "activation", "affine"} & count.keys()
    assert sum(bool(n.inputs[3]) for n in program.graph.nodes if n.operator == "convolution") == 8


def test_more_than_one_channel_in_and_one_out() -> None:
    """One class goes straight into the caller's array: no conversion."""
    model = nn.Sequential(models.unet(2, 3, 1, levels=2, width=8), nn.Sigmoid())
    program = agreeing(model, (1, 3, 16, 24), (2, 3, 8, 8))
    names = [row["name"] for row in program.profile(torch.zeros(1, 3, 16, 24))]
    assert names[0] == "input:last" and not [name for name in names if name.endswith(":first")]
