"""Memory: what is alive against the plan of a compiled program, what training keeps against PyTorch's own account."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoxel as cx
from convoxel import models
from convoxel.inspect.memory import MemoryPlan, saved_bytes
from convoxel.inspect.record import open_source

PLANNED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("resnet18", (1, 3, 96, 96), {"width": 0.25}),
    ("mobilenet_v2", (1, 3, 64, 64), {"width": 0.5, "depth": 0.5}),
    ("efficientnet_b0", (1, 3, 64, 64), {"width": 0.5, "depth": 0.4}),
    ("vgg11", (1, 3, 64, 64), {"width": 0.125}),
    ("unet", (1, 1, 32, 32, 32), {"levels": 2, "width": 8}),
    ("unet", (1, 1, 128), {"levels": 3, "width": 8, "norm": "none", "up": "resize"}),
    ("alexnet", (1, 3, 96), {"width": 0.25}),
    ("densenet121", (1, 3, 64), {"width": 0.25, "depth": 0.1}),
    ("mobilenet_v1", (1, 3, 64, 64), {"width": 0.5}),
    ("resnet50", (1, 3, 64, 64), {"width": 0.25, "depth": 0.3}),
    ("unet_ronneberger", (1, 1, 60), {"width": 8, "levels": 2}),
    ("inception_v3", (1, 3, 96, 96), {"width": 0.25}),
]


@pytest.mark.parametrize("name, shape, options", PLANNED)
def test_peak_is_what_the_engine_plans(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    net = models.build(name, dims=len(shape) - 2, in_channels=shape[1], **options).eval()
    arena = cx.compile(net, torch.zeros(shape)).memory(np.zeros(shape, np.float32)).arena_bytes
    assert cx.describe(net, shape).peak_bytes == pytest.approx(arena, rel=0.1)


@pytest.mark.parametrize("dtype, size", [("half", 0.5), ("bfloat16", 0.5), ("double", 2)])
def test_bytes_follow_the_type_of_the_parameters(dtype: str, size: float) -> None:
    net, shape = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)), (1, 3, 32, 32)
    single, other = cx.describe(net, shape), cx.describe(getattr(net, dtype)(), shape)
    assert single.peak_bytes == 41088
    assert (other.peak_bytes, other.activation_bytes) == (size * single.peak_bytes, size * single.activation_bytes)
    assert (other.params, other.macs, other.field) == (single.params, single.macs, single.field)


def test_a_constant_factor_keeps_no_activation() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)
            self.register_buffer("scale", torch.rand(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale

    shape = (1, 2, 8, 8)
    assert cx.describe(Scaled(), shape).saved_bytes == cx.describe(nn.Conv2d(2, 4, 3), shape).saved_bytes


def measured(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the bytes that autograd keeps of activations, each storage counted once."""
    own = {t.untyped_storage()._cdata for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net.train()(torch.empty(shape, device="meta"))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


SAVED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("resnet18", (2, 3, 64, 64), {}),
    ("vgg11", (2, 3, 64, 64), {}),
    ("mobilenet_v2", (2, 3, 64, 64), {}),
    ("efficientnet_b0", (2, 3, 64, 64), {}),
    ("unet", (1, 1, 32, 32, 32), {"levels": 2}),
    ("unet", (1, 1, 64, 64), {"norm": "none", "up": "resize"}),
]


@pytest.mark.parametrize("name, shape, options", SAVED)
def test_training_keeps_what_autograd_keeps(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with torch.device("meta"):
        net = models.build(name, dims=len(shape) - 2, in_channels=shape[1], **options)
    # Dropout keeps a mask of one or four bytes an element, by device: that is the 1 %.
    assert saved_bytes(open_source(net).record([shape])) == pytest.approx(measured(net, shape), rel=0.01)


@pytest.mark.parametrize("layers", [
    [nn.Conv1d(1, 2, 3), nn.Sigmoid()],
    [nn.Conv1d(1, 2, 3), nn.SiLU(inplace=True)],
    [nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.ReLU6(inplace=True), nn.MaxPool1d(2)],
    [nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(-1)],
    [nn.ConvTranspose1d(1, 2, 2, 2), nn.LeakyReLU(), nn.AvgPool1d(2), nn.Hardswish()],
])  # fmt: skip
def test_training_of_layers(layers: list[nn.Module]) -> None:
    net = nn.Sequential(*layers).to("meta")
    assert saved_bytes(open_source(net).record([(1, 1, 10)])) == measured(net, (1, 1, 10))


def test_training_bytes_by_hand() -> None:
    """conv 1 → 2, kernel 3: 8 parameters, four float32 each; kept is the image."""
    summary = cx.describe(nn.Conv1d(1, 2, 3), (1, 1, 10))
    assert (summary.saved_bytes, summary.training_bytes) == (40, 40 + 8 * 16)


def test_parts_lie_in_the_whole() -> None:
    class Dense(nn.Module):
        """Two concatenations, the first within the second."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 1), nn.Conv1d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            return torch.cat([a, b, self.c(torch.cat([a, b], 1))], 1)

    plan = MemoryPlan(open_source(Dense()).record([(1, 1, 10)]))
    one = 40
    # image until b is made; the whole of three channels from a on
    assert [(span.size_bytes, span.is_input) for span in plan.spans] == [(one, True), (3 * one, False)]
    assert list(plan.live_bytes) == [4 * one, 4 * one, 3 * one, 3 * one, 3 * one]


def test_a_value_that_is_read_again_is_not_overwritten() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.sigmoid(y) - y

    assert [row.live_bytes for row in cx.describe(Twice(), (1, 1, 10)).rows] == [80, 80, 120]
