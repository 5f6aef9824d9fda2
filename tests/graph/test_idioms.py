"""Idioms of other packages: each is compiled without PyTorch and gives PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.errors import UnsupportedError


class Gate(nn.Module):
    """Channel attention by a 1-D convolution over channels, stretched by hand (timm's ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.conv(x.mean((2, 3)).view(x.shape[0], 1, -1)).view(x.shape[0], -1, 1, 1).sigmoid()
        return x * gate.expand_as(x)


class WrittenSlice(nn.Module):
    """An addition in place to some channels of a concatenation, or to all (GhostNet)."""

    def __init__(self, channels: slice) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.skip = nn.Conv2d(4, len(range(*channels.indices(12))), 1)
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = torch.cat([y, self.second(y)], 1)
        part = y[:, self.channels]
        part += self.skip(x)
        return torch.cat([y, part], 1)


class Function(nn.Module):
    """A function as a module, on the output of a convolution so that nothing is known beforehand."""

    def __init__(self, function: Callable[..., Any], channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, channels, 1)
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, channels).reshape(-1, 1, 1))
        self.bias = nn.Parameter(torch.linspace(-0.5, 0.5, channels).reshape(-1, 1, 1))
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, self.conv(x))


def response_norm(net: Any, x: torch.Tensor) -> torch.Tensor:
    """Global response normalisation (ConvNeXt V2), channels last."""
    x = x.permute(0, 2, 3, 1)
    norm = x.norm(p=2, dim=(1, 2), keepdim=True)
    scaled = x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))
    return (x + torch.addcmul(net.bias.view(-1), net.weight.view(-1), scaled)).permute(0, 3, 1, 2)


def blocks_to_channels(net: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
    return x.view(n, c * 4, h // 2, w // 2)


def attention(net: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = x[:, :6].flatten(2).reshape(x.shape[0], 3, 2, -1).transpose(2, 3).unbind(1)
    return nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])


def without_autocast(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        y = x.float().sigmoid() + 1
    with torch.no_grad():
        return y * 2


def selective(net: Any, x: torch.Tensor) -> torch.Tensor:
    """Branches stacked, weighed for each channel, and summed (selective kernels)."""
    stacked = torch.stack([x, x.relu(), x.sigmoid()], dim=1)
    weights = stacked.sum(1).mean((2, 3)).reshape(-1, 1, 8, 1, 1) * torch.linspace(0, 1, 3).reshape(1, 3, 1, 1, 1)
    return torch.sum(stacked * torch.softmax(weights, dim=1), dim=1)


def split_attention(net: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    split = x.reshape(n, 2, c // 2, h, w)
    weights = split.sum(dim=1).mean((2, 3), keepdim=True).sigmoid().reshape(n, 1, c // 2, 1, 1)
    return (split * torch.cat([weights, 1 - weights], 1)).sum(dim=1)


IDIOMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "expand_as": (Gate, (1, 8, 6, 7)),
    "slice written": (lambda: WrittenSlice(slice(2, 9)), (1, 4, 6, 7)),
    "slice written at the end": (lambda: WrittenSlice(slice(-3, None)), (1, 4, 6, 7)),
    "global response norm": (lambda: Function(response_norm), (1, 4, 6, 7)),
    "addcmul": (lambda: Function(lambda net, x: torch.addcmul(net.bias, x, net.weight)), (1, 4, 6, 7)),
    "blocks to channels": (lambda: Function(blocks_to_channels), (1, 4, 6, 8)),
    "attention": (lambda: Function(attention), (1, 4, 6, 7)),
    "autocast off": (lambda: Function(without_autocast), (1, 4, 6, 7)),
    "a chosen order": (lambda: Function(lambda net, x: x[:, [3, 1, 0, 6]]), (1, 4, 6, 7)),
    "weighted": (
        lambda: Function(lambda net, x: torch.sub(x, x.sigmoid(), alpha=2).sub(net.bias, alpha=3)),
        (1, 4, 6, 7),
    ),
    "selective kernels": (lambda: Function(selective), (1, 4, 6, 7)),
    "split attention": (lambda: Function(split_attention), (1, 4, 6, 7)),
    "summed list": (lambda: Function(lambda net, x: torch.stack([x, x.relu(), x.tanh()]).sum(0)), (1, 4, 6, 7)),
    "dropout in place": (
        lambda: Function(lambda net, x: nn.functional.dropout2d(x, 0.5, net.training, True)),
        (1, 4, 6, 7),
    ),
    "norms": (lambda: Function(lambda net, x: x / x.norm(p=1, dim=1, keepdim=True)), (1, 4, 6, 7)),
    "labels reshaped": (lambda: Function(lambda net, x: x.argmax(1).view(x.shape[0], 1, -1)), (1, 4, 6, 7)),
    "whole slice written": (lambda: WrittenSlice(slice(0, 12)), (1, 4, 6, 7)),
}


@pytest.mark.parametrize("name", IDIOMS)
def test_idiom(name: str, recwarn: pytest.WarningsRecorder) -> None:
    make, shape = IDIOMS[name]
    torch.manual_seed(0)
    model: Any = make()
    program = cx.compile(model, torch.zeros(shape), verify=True)
    kinds = {node.operator for node in program.graph.nodes}
    assert "torch_call" not in kinds and len(recwarn) == 0
    larger = torch.randn(2, shape[1], *(size + 4 for size in shape[2:]))
    with torch.no_grad():
        torch.testing.assert_close(program(larger), model.eval()(larger), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["selective kernels", "split attention", "summed list"])
def test_sums_of_parts_stay_native(name: str) -> None:
    """No tensor as large as the branches is summed or stacked in NumPy."""
    make, shape = IDIOMS[name]
    program = cx.compile(make(), torch.zeros(shape))
    assert not [node for node in program.graph.nodes if not node.native and node.operator in ("reduce", "multiply")]
    assert not [
        n for n in program.graph.nodes if n.operator == "concat" and not n.native and n.outputs[0].shape[-1] != 1
    ]


def test_a_constant_map_is_subtracted_twice() -> None:
    model = Function(lambda net, x: torch.sub(x, torch.linspace(0, 1, 6)[:, None], alpha=2))
    program = cx.compile(model, torch.zeros(1, 4, 6, 7), verify=True)
    assert not [node for node in program.graph.nodes if node.operator == "torch_call"]


def test_autocast_is_refused_by_name() -> None:
    class Lower(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return x @ x.mT

    with pytest.raises(UnsupportedError, match=r"switches to bfloat16 \(torch.autocast\) in .*leave that out"):
        cx.compile(Lower(), torch.zeros(1, 2, 4, 4))
