"""Training in bfloat16: right gradients where PyTorch's own are garbage."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convoxel.predict.computation import Computation

CASES = {
    "depthwise": (lambda: nn.Conv2d(96, 96, 3, 2, 1, groups=96), (32, 96, 2, 1)),
    "dense": (lambda: nn.Conv2d(24, 40, 3, 2, 1), (32, 24, 2, 1)),
    "grouped": (lambda: nn.Conv2d(48, 48, 3, 2, 1, groups=12), (32, 48, 4, 1)),
    "volume": (lambda: nn.Conv3d(40, 40, 3, 2, 1, groups=40), (32, 40, 1, 1, 1)),
    "signal": (lambda: nn.Conv1d(8, 16, 7, 2, 3), (32, 8, 1)),
    "transposed": (lambda: nn.ConvTranspose2d(96, 96, 3, 2, 1, groups=96), (32, 96, 2, 1)),
}


def gradients(layer: nn.Module, x: torch.Tensor, precision: str | None) -> list[torch.Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    with Computation(precision=precision).autocast():
        y = layer(x)
    y.float().square().sum().backward()
    return [x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize("name", CASES)
def test_gradients_on_maps_smaller_than_the_window(name: str) -> None:
    """PyTorch's are not finite in most of ten trials, if memory that it reads unwritten held such numbers."""
    make, shape = CASES[name]
    torch.manual_seed(0)
    layout = {3: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)]
    layer, x = make().to(memory_format=layout), torch.randn(shape).to(memory_format=layout)
    expected = gradients(layer, x, None)
    for _ in range(10):
        unwritten = [torch.full((1 << 18,), float("nan")) for _ in range(4)]
        del unwritten
        for ours, theirs in zip(gradients(layer, x, "bfloat16"), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * float(theirs.abs().max()))


def test_other_convolutions_run_in_bfloat16() -> None:
    """Where the map has room for the window, and outside of the context, nothing changes."""
    layer, x = nn.Conv2d(3, 8, 3, padding=1), torch.randn(2, 3, 5, 5)
    with Computation(precision="bfloat16").autocast():
        assert layer(x).dtype == torch.bfloat16
        assert layer(x[:, :, :2]).dtype == torch.float32
        assert nn.functional.conv2d(input=x[:, :, :2], weight=layer.weight, padding=1).dtype == torch.float32
    with Computation(precision="float32").autocast():
        assert layer(x).dtype == torch.float32
    assert layer(x[:, :, :2]).dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
