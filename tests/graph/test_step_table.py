"""The text of ``Program.explain`` for two small networks: the graph before and after, the steps, the memory."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

import convoxel as cx
from convoxel.graph.compile import compile
from convoxel.graph.run.step_table import binary, draw_table

ALGORITHM = re.compile(r"\b(" + "|".join(map(re.escape, (str(row["name"]) for row in cx.algorithms()))) + r")( *)")


def normal(text: str) -> str:
    """The text without what depends on the machine: which algorithm is chosen, and how wide its column is."""
    steps = [ALGORITHM.sub("*  ", line) if "=" not in line else line for line in text.splitlines()]
    return "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line) for line in steps)


class Residual(nn.Module):
    """A strided convolution, a residual block, squeeze-and-excite, a head: what most networks consist of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Hardsigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.block(x) + x)
        x = x * self.gate(x)
        return self.head(x.mean((2, 3))).softmax(1)


class Joined(nn.Module):
    """Two branches joined without a copy, on a signal of one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 5, 1)
        self.norm = nn.InstanceNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))


def explained(model: nn.Module, *shape: int) -> tuple[str, str]:
    torch.manual_seed(0)
    program = compile(model.eval(), torch.zeros(shape), threads=1)
    return program.explain(), program.explain(np.zeros(shape, np.float32))


RESIDUAL = """\
Residual: 8 steps, 0.000 GMAC
activations 4.1 KiB instead of 8.1 KiB, weights 892 B
  stem.0  conv  *  float32  (2, 4, 8, 8)  2.0 KiB
  block.0  conv  *  float32  (2, 4, 8, 8)  2.0 KiB
  gate.0  mean  float32  (2, 4, 1, 1)  32 B
  gate.1  conv  *  float32  (2, 4, 1, 1)  32 B
  mul  multiply  float32  (2, 4, 8, 8)  2.0 KiB
  mean.reduce  mean  float32  (2, 4, 1, 1)  32 B
  head  conv  *  float32  (2, 3)  24 B
  softmax  softmax  float32  (2, 3)  24 B"""

JOINED_READ = """\
before:
graph Joined(x: float32[n, 2, w])
  a: float32[n, 3, w] = convolution(x, a.weight[3, 2, 3], a.bias[3], stride=(1,), padding=((1, 1),), \
dilation=(1,), groups=1)
  b: float32[n, 5, w] = convolution(x, b.weight[5, 2, 1], b.bias[5], stride=(1,), padding=((0, 0),), \
dilation=(1,), groups=1)
  cat: float32[n, 8, w] = concat(a, b, axis=1)
  norm: float32[n, 8, w] = normalise(cat, groups=0, epsilon=1e-05)
  gelu: float32[n, 8, w] = gelu(norm)
  return gelu
after:
"""
JOINED = """\
graph Joined(x: float32[n, 2, w])
  x:last: float32[n, 2, w] last = channels_last(x)
  a: float32[n, 3, w] last = convolution(x:last, a.weight[3, 2, 3], a.bias[3], stride=(1,), padding=((1, 1),), \
dilation=(1,), groups=1)
  b: float32[n, 5, w] last = convolution(x:last, b.weight[5, 2, 1], b.bias[5], stride=(1,), padding=((0, 0),), \
dilation=(1,), groups=1)
  cat: float32[n, 8, w] last = concat(a, b, axis=1)
  gelu: float32[n, 8, w] last = normalise(cat, groups=0, epsilon=1e-05, activation=gelu)
  gelu:first: float32[n, 8, w] = channels_first(gelu)
  return gelu:first"""
JOINED_STEPS = """\
Joined: 5 steps, 0.000 GMAC
activations 2.0 KiB instead of 3.2 KiB, weights 144 B
  x:last  import  float32  (1, 2, 32)  256 B
  a  conv  *  float32  (1, 3, 32)  384 B
  b  conv  *  float32  (1, 5, 32)  640 B
  norm  normalise  float32  (1, 8, 32)  1.0 KiB
  gelu:first  export  float32  (1, 8, 32)  1.0 KiB"""


def test_a_residual_network() -> None:
    """Normalisations, the addition and all activations are gone into four convolutions; the softmax is native."""
    read, steps = explained(Residual(), 2, 1, 16, 16)
    assert normal(steps).endswith(f"\nafter:\n{RESIDUAL}")
    before, after = read.split("\nafter:\n")
    assert before.count("\n") == 16 and "batch_norm(" in before and "softmax(" in before
    assert [line.split(" = ")[1].split("(")[0] for line in after.splitlines()[1:-1]] == [
        "channels_last", "convolution", "convolution", "adaptive_average_pool", "convolution", "multiply",
        "reduce", "linear", "softmax", "channels_first",
    ]  # fmt: skip
    assert "activation=hard_sigmoid" in after


def test_two_branches_joined() -> None:
    read, steps = explained(Joined(), 1, 2, 32)
    assert read == JOINED_READ + JOINED
    assert normal(steps) == JOINED_READ + JOINED_STEPS


def test_a_program_from_a_file_tells_what_runs(tmp_path: Path) -> None:
    """The graph as it was read is kept, too."""
    torch.manual_seed(0)
    compile(Joined().eval(), torch.zeros(1, 2, 32), threads=1).save(tmp_path / "net.cvx")
    program = cx.load(tmp_path / "net.cvx", threads=1)
    assert program.explain() == JOINED_READ + JOINED
    assert normal(program.explain(np.zeros((1, 2, 32), np.float32))) == JOINED_READ + JOINED_STEPS


def test_operators_on_arrays_are_steps_too() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softmax(3))
    text = explained(net.eval(), 1, 1, 4, 4)[1]
    assert re.search(r"\n  1 +numpy +softmax +float32 +\(1, 2, 4, 4\) +128 B$", text)


def test_columns_and_units() -> None:
    assert draw_table([("a", "b", "1 B"), ("long", "", "10 B")]) == ["  a     b   1 B", "  long     10 B"]
    assert [binary(size) for size in (0, 1023, 1024, 123_456_789, 5 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "117.7 MiB", "5120.0 GiB",
    ]  # fmt: skip
