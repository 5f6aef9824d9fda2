"""Passes over whole patterns: transposes that vanish, branches that are merged; and the text that explains a graph."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convoxel.errors import GraphError
from convoxel.graph.compile import compile
from convoxel.graph.ir import polynomial
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.size import Size, differ, larger, smaller
from convoxel.graph.operators.table import make_node
from convoxel.graph.passes import run_pass
from convoxel.graph.passes.transpose import check_no_opposites
from convoxel.graph.run.program import Program


def checked(net: nn.Module, *shapes: tuple[int, ...]) -> Program:
    """The program of a network, with the same numbers as the network for all shapes."""
    net = net.eval()
    program = compile(net, torch.randn(shapes[0]))
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)
    return program


def operators(program: Program) -> Counter[str]:
    return Counter(node.operator for node in program.graph.nodes)


class ConvNeXt(nn.Module):
    """A block of Liu et al. 2022, "A ConvNet for the 2020s", with its linear layers over the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.scale * self.narrow(F.gelu(self.wide(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


def test_a_block_with_channels_last_becomes_convolutions() -> None:
    program = checked(ConvNeXt(8), (2, 8, 9, 12), (1, 8, 7, 7))
    assert operators(program) == {"channels_last": 1, "convolution": 3, "channel_norm": 1, "channels_first": 1}
    nodes = [node for node in program.graph.nodes if node.operator == "convolution"]
    assert nodes[1]["activation"] == "gelu" and nodes[2].inputs[3] == "x:last"


class Last(nn.Module):
    """Whatever works on a tensor with its channels last."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.body = nn.Conv2d(3, 6, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.body(x).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda y: y.permute(0, 3, 1, 2), 0),
        (lambda y: y.permute(0, 2, 1, 3).permute(0, 3, 2, 1), 0),
        (lambda y: y.relu().mul(2).permute(0, 3, 1, 2), 0),
        (lambda y: y.mean((1, 2)), 0),
        (lambda y: y.mean((1, 2), keepdim=True).permute(0, 3, 1, 2), 0),
        (lambda y: torch.cat([y, y.tanh()], -1).permute(0, 3, 1, 2), 0),
        (lambda y: (y + y.sigmoid()).permute(0, 3, 1, 2), 0),
        (lambda y: torch.mul(*y.split(3, -1)).permute(0, 3, 1, 2), 0),
        (lambda y: y[:, 1:, ::2].permute(0, 3, 1, 2), 0),
        (lambda y: y[..., 1::2].permute(0, 3, 1, 2), 0),
        (lambda y: (y + torch.arange(6.0)).permute(0, 3, 1, 2), 0),
        (lambda y: y, 1),
        (lambda y: y.relu(), 1),
        (lambda y: y.permute(0, 2, 1, 3), 1),
        (lambda y: y + y.permute(0, 2, 1, 3)[:, :5, :5].sum(), 2),
        (lambda y: y.mean((1, 3)), 1),
        (lambda y: torch.matmul(y, torch.ones(6, 2)).softmax(-1), 1),
        (lambda y: y * torch.arange(120.0).reshape(1, 4, 5, 6), 1),
    ],
)
def test_transposes_sink_and_keep_values(function: Any, left: int) -> None:
    program = checked(Last(function), (1, 3, 4, 5))
    assert operators(program)["transpose"] <= left
    check_no_opposites(program.graph)


def test_opposite_transposes_are_found() -> None:
    axes = {"axes": (0, 2, 1)}
    one, two = Value("one", (1, 3, 2)), Value("two", (1, 2, 3))
    nodes = (make_node("transpose", "one", ("x",), (one,), **axes),
             make_node("transpose", "two", ("one",), (two,), **axes))  # fmt: skip
    graph = Graph("g", (Value("x", (1, 2, 3)),), ("two",), nodes)
    with pytest.raises(GraphError, match="two turns what one has turned"):
        check_no_opposites(graph)


class Inception(nn.Module):
    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.direct, self.a, self.b = (nn.Conv2d(8, n, kernel, padding=kernel // 2) for n in (3, 4, 5))
        self.c, self.d = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(5, 7, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.direct(x).relu(), self.c(self.a(x).relu()), self.d(self.b(x).relu())], 1)


def test_branches_that_read_one_input_are_merged() -> None:
    program = checked(Inception(), (2, 8, 9, 7))
    names = [node.name for node in program.graph.nodes if node.name.endswith(".merged")]
    assert names == ["a.merged"]
    assert operators(program)["convolution"] == 4 and operators(program)["slice"] == 2
    # The branch that a concatenation reads is written where it belongs.
    assert not [step for step in program.profile(np.zeros((1, 8, 9, 7), np.float32)) if step["name"].endswith("copy")]
    assert operators(checked(Inception(3), (1, 8, 9, 7)))["convolution"] == 5


def test_explain_shows_the_graph_before_and_after() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    program = checked(net, (1, 2, 4, 4))
    window = "stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1"
    assert program.explain() == (
        "before:\n"
        "graph Sequential(input: float32[n, 2, h, w])\n"
        f"  0: float32[n, 4, h, w] = convolution(input, 0.weight[4, 2, 3, 3], {window})\n"
        "  1: float32[n, 4, h, w] = batch_norm(0, 1.weight[4], 1.bias[4], 1.running_mean[4], 1.running_var[4], "
        "epsilon=1e-05)\n"
        "  2: float32[n, 4, h, w] = relu(1)\n"
        "  return 2\n"
        "after:\n"
        "graph Sequential(input: float32[n, 2, h, w])\n"
        "  input:last: float32[n, 2, h, w] last = channels_last(input)\n"
        f"  2: float32[n, 4, h, w] last = convolution(input:last, 0.weight'[4, 2, 3, 3], 0.bias[4], {window}, "
        "activation=relu)\n"
        "  2:first: float32[n, 4, h, w] = channels_first(2)\n"
        "  return 2:first"
    )


def test_every_pass_may_run_on_its_own_result() -> None:
    from convoxel.graph.passes import PASSES

    graph = compile(ConvNeXt(4).eval(), torch.randn(1, 4, 8, 8)).graph
    for step in PASSES[:-1]:
        assert len(run_pass(step, graph).nodes) == len(graph.nodes)


# ---- sizes -----------------------------------------------------------------------------------------------


def test_arithmetic_on_sizes_is_exact() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        number = int(rng.integers(1, 60))
        size: Any = Size("h")
        exact = number
        for _ in range(5):
            operand = int(rng.integers(1, 6))
            operator = rng.choice(["+", "-", "*", "//", "rsub", "neg", "%"])
            apply = {
                "+": lambda x, k: x + k,
                "-": lambda x, k: x - k,
                "*": lambda x, k: x * k,
                "//": lambda x, k: x // k,
                "rsub": lambda x, k: k - x,
                "neg": lambda x, k: -x,
                "%": lambda x, k: x % k,
            }[str(operator)]
            size, exact = apply(size, operand), apply(exact, operand)
        found = size.value({"h": number}) if isinstance(size, Size) else size
        assert found == exact, size


def test_equal_sizes_have_equal_texts() -> None:
    h, n = Size("h"), Size("n")
    assert h + 2 - 2 == h and (2 * h) // 2 == h and (h * 3 + 1) // 3 == h
    assert ((h + 1) // 2 + 1) // 2 == (h + 3) // 4 and (n * h * 8) // (n * 8) == h
    assert h - h == 0 and (h + n) - n == h
    assert polynomial.multiply("h + 1", "h - 1") == polynomial.add(polynomial.multiply("h", "h"), 1, -1)
    assert str(7 // h) == "7 // h"


def test_comparisons_with_sizes() -> None:
    h = Size("h")
    assert not h < 1 and h > 10**9 and h >= 3 and not h <= 3 and h <= h and not h > Size("w")
    assert not differ(h, 3) and differ(2, 3)
    assert larger(h, 3).value({"h": 2}) == 3 and smaller(h, 3).value({"h": 2}) == 2  # type: ignore[union-attr]
    assert larger(2, 3) == 3 and smaller(2, 3) == 2
