"""NaN, infinity, zeros, denormal and huge numbers: each goes where PyTorch lets it go, in every instruction set."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convoxel import build_info
from convoxel.graph.compile import compile

Function = Callable[[Tensor], Any]

SPECIALS = (math.nan, math.inf, -math.inf, -0.0, 1e-40, -1e-40, 1e38, -1e38, 200.0, -200.0)
SLOPES = torch.tensor([0.1, -0.2, 0.3, 1.5])
ACTIVATIONS: dict[str, Function] = {
    **{
        name: getattr(F, name)
        for name in (
            *("relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardswish"),
            *("hardsigmoid", "hardtanh", "leaky_relu", "logsigmoid", "tanhshrink", "hardshrink", "softshrink"),
        )
    },
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "steep softplus": lambda x: F.softplus(x, 2.0, 20.0),
    "short elu": lambda x: F.elu(x, 0.5),
    "short celu": lambda x: F.celu(x, 0.5),
    "threshold": lambda x: F.threshold(x, 0.1, 0.1),
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp below": lambda x: x.clamp(min=0.5),
    "prelu": lambda x: F.prelu(x, SLOPES),
    "glu": lambda x: F.glu(x, 1),
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: x.log_softmax(1),
    "absolute": torch.abs,
    "reciprocal": lambda x: 1 / x**2,  # of which zero has one sign
    "times zero": lambda x: x * 0,
    "by a sum that is nearly zero": lambda x: x / (x.abs() + 1e-12),
    "logarithm of shares": lambda x: (x / 6 + 0.5).clamp(1e-8, 1).log(),
    "step": lambda x: torch.heaviside(x, torch.tensor(0.5)),
    "rrelu": F.rrelu,
    "larger": lambda x: torch.maximum(x * 1.5, x.roll(1, 3)),
    "smaller": lambda x: torch.minimum(x.roll(1, 3), x),
}
# Where PyTorch's variance of huge numbers overflows, ours, in double precision, does not.
NORMS: dict[str, nn.Module] = {
    "batch norm": nn.BatchNorm2d(4),
    "batch norm of the batch": nn.BatchNorm2d(4, track_running_stats=False),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "group norm": nn.GroupNorm(2, 4),
    "layer norm": nn.LayerNorm((4, 8, 8)),
    "local response norm": nn.LocalResponseNorm(3),
}
WINDOWS: dict[str, Function] = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max of wide windows": lambda x: F.max_pool2d(x, 2, 1, 1, 2),
    "largest": lambda x: F.adaptive_max_pool2d(x, 1),
    "largest of axes": lambda x: (x.amax((2, 3)), x.amin((2, 3)), x.max(1).values),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average of all": lambda x: (F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, 3), x.sum((2, 3))),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "linear": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
    "cubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "mirrored": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
}


class Each(nn.Module):
    """Functions of one input: as they are, behind a convolution that changes nothing, and modules likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(4, 4, 1, groups=4, bias=False)
        nn.init.ones_(self.same.weight)
        self.norms = nn.ModuleList(NORMS.values())
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleDict()
        for name, options in {"wide": {}, "strided": {"stride": 2}, "depthwise": {"groups": 4}}.items():
            layer = nn.Conv2d(4, 4, 3, padding=1, **options)
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator).sign()
            self.layers[name] = layer

    def forward(self, x: Tensor) -> Mapping[str, Any]:
        y = self.same(x)
        return {
            **{f"{name}, alone": function(F.relu(x) - F.relu(-x)) for name, function in ACTIVATIONS.items()},
            **{f"{name}, fused": function(self.same(x)) for name, function in ACTIVATIONS.items()},
            **{name: norm(y) for name, norm in zip(NORMS, self.norms, strict=True)},
            **{name: function(y) for name, function in WINDOWS.items()},
            **{name: layer(x) for name, layer in self.layers.items()},
        }


def check() -> None:
    """Compare with PyTorch, a special value at a time among usual ones, direct sums throughout."""
    net = Each().eval()
    usual = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    program = compile(net, usual, algorithm="direct")
    for special in SPECIALS:
        x = usual.clone()
        x[0, 1, 3, 4] = special
        if abs(special) != 1e38:  # sums of several overflow in one and not in the other
            x[1, :, 2] = special
        expected, got = net(x), program(x)
        for name, value in expected.items():
            if name.startswith("gelu,") and special == math.inf:
                continue  # infinity, its limit; PyTorch makes NaN of it in some vector code
            pairs = zip(*((each if isinstance(each, tuple) else (each,)) for each in (got[name], value)), strict=True)
            for ours, theirs in pairs:
                same = torch.isclose(ours, theirs, rtol=2e-4, atol=2e-5, equal_nan=True)
                assert same.all(), f"{name} of {special}: {ours[~same][:3]}, not {theirs[~same][:3]}"


@pytest.mark.parametrize("isa", [each["name"] for each in build_info()["instruction_sets"]])
def test_special_values_go_where_pytorch_lets_them_go(isa: str) -> None:
    if isa == build_info()["instruction_set"]:
        return check()
    command = [sys.executable, "-c", "from tests.graph.test_special_values import check; check()"]
    subprocess.run(command, check=True, env={**os.environ, "CONVOXEL_ISA": isa}, timeout=600)
