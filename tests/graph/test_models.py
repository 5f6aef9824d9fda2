"""Whole networks: no operator left to PyTorch, the same numbers, few steps, little memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from convoxel import models
from convoxel.graph.run.program import Program
from tools.zoo import agreeing


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
    torch.manual_seed(0)
    model = models.unet(dims, 1, 3, levels=2, width=8, up=up, norm=norm, activation=activation)
    # Statistics over the two numbers that 8 leaves at the bottom would blow up the rounding of either side.
    sizes = (32, 12, 16)[:dims]
    program = agreeing(model, (1, 1, *sizes), (2, 1, *(24,) * dims), (3, 1, *sizes[::-1]))
    count = operators(program)
    assert not {"torch_call", "batch_norm", "affine", "activation"} & count.keys()
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
    assert count["convolution"] == 10 and count["linear"] == 1
    assert count.keys() <= {
        "convolution",
        "linear",
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


@pytest.mark.parametrize(
    ("name", "dims", "size", "options"),
    [
        ("googlenet", 1, 128, {}),
        ("mobilenet_v3_small", 2, 64, {"depth": 0.5}),
        ("efficientnet_b0", 3, 32, {"depth": 0.3}),
    ],
)
def test_branches_gates_and_curves_run_natively(name: str, dims: int, size: int, options: dict[str, Any]) -> None:
    """Inception's branches, squeeze-and-excite, hard swish and SiLU: no operator is left to NumPy or PyTorch."""
    model = models.build(name, dims=dims, in_channels=1, num_classes=5, width=0.25, **options)
    program = agreeing(model, (1, 1, *(size,) * dims), (2, 1, *(size,) * dims))
    assert not [operator for operator in operators(program) if operator == "torch_call"]
    assert not {"batch_norm", "activation"} & operators(program).keys()


def test_more_than_one_channel_in_and_one_out() -> None:
    """One class goes straight into the caller's array: no conversion."""
    model = nn.Sequential(models.unet(2, 3, 1, levels=2, width=8), nn.Sigmoid())
    program = agreeing(model, (1, 3, 16, 24), (2, 3, 8, 8))
    names = [row["name"] for row in program.profile(torch.zeros(1, 3, 16, 24))]
    assert names[0] == "input:last" and not [name for name in names if name.endswith(":first")]
