"""Small random modules in 1-D, 2-D and 3-D: windows, branches, concatenations, slices, resizing, norms.

A seed decides everything. Every module takes (n, 2, …) with ``SIZE`` elements along each axis, and larger inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SIZE", "DrawnNetwork", "Function"]

SIZE = 24
_CHANNELS = (2, 4, 6)
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    functional.relu,
    functional.silu,
    functional.gelu,
    torch.sigmoid,
    lambda x: functional.leaky_relu(x, 0.1),
    lambda x: x.clamp(0.1, 2.0),
    lambda x: 2 * x + 1,
)


class Function(nn.Module):
    """A function of one tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of ``x``."""
        return self.function(x)


class _Branches(nn.Module):
    """Two ways from one tensor, cut to the smaller size and joined by a sum, a product, or along the channels."""

    def __init__(self, left: nn.Module, right: nn.Module, joint: str) -> None:
        super().__init__()
        self.left, self.right, self.joint = left, right, joint

    def forward(self, x: Tensor) -> Tensor:
        """Return what the two ways make together."""
        left, right = self.left(x), self.right(x)
        if self.joint == "concat":
            return torch.cat((left, right), 1)
        if self.joint == "stack":
            return torch.stack((left, right), 1).sum(1)
        return left + right if self.joint == "add" else left * right


class DrawnNetwork(nn.Module):
    """A module of up to ``layers`` random layers for inputs of ``dims`` axes, decided by ``seed``."""

    def __init__(self, seed: int, dims: int = 2, layers: int = 6) -> None:
        super().__init__()
        self._random, self.dims = random.Random(seed), dims
        self.channels, self.size = 2, SIZE
        self.body = nn.Sequential(*(self._layer() for _ in range(self._random.randint(2, layers))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of all layers."""
        y: Tensor = self.body(x)
        return y

    def _layer(self) -> nn.Module:
        """Return a layer that takes the ``channels`` and ``size`` of now, and note what it makes of them."""
        drawn = [self._convolution, self._pool, self._norm, self._function, self._branches, self._slice, self._squeeze]
        if self.size < SIZE:
            drawn += [self._resize, self._transposed]
        return self._random.choice(drawn)()

    def _of(self, kind: str) -> Callable[..., nn.Module]:
        found: Callable[..., nn.Module] = getattr(nn, f"{kind}{self.dims}d")
        return found

    def _convolution(self) -> nn.Module:
        choose = self._random.choice
        kernel, dilation = choose((1, 2, 3, 5)), choose((1, 1, 2))
        reach = (kernel - 1) * dilation
        padding = choose((0, reach // 2)) if self.size - reach > 3 else (reach + 1) // 2
        stride = choose((1, 1, 2, 3)) if self.size > 6 else 1
        groups, channels = choose((1, 1, 2)), choose(_CHANNELS)
        made = self._of("Conv")(
            self.channels, channels, kernel, stride, padding, dilation, groups, bool(choose((0, 1)))
        )
        self.channels, self.size = channels, (self.size + 2 * padding - reach - 1) // stride + 1
        return made

    def _transposed(self) -> nn.Module:
        kernel, channels = self._random.choice((2, 3, 4)), self._random.choice(_CHANNELS)
        padding = self._random.choice((0, 1))
        made = self._of("ConvTranspose")(self.channels, channels, kernel, 2, padding)
        self.channels, self.size = channels, 2 * (self.size - 1) + kernel - 2 * padding
        return made

    def _pool(self) -> nn.Module:
        kernel = self._random.choice((2, 3))
        if self.size < 2 * kernel:
            return nn.Identity()
        stride, padding = self._random.choice((1, 2)), self._random.choice((0, kernel // 2))
        self.size = (self.size + 2 * padding - kernel) // stride + 1
        return self._of(self._random.choice(("MaxPool", "AvgPool")))(kernel, stride, padding)

    def _norm(self) -> nn.Module:
        if self._random.random() < 0.5:
            return self._of("BatchNorm")(self.channels)
        # PyTorch refuses to normalise a single number, which files and programs do: two channels a group at least.
        return nn.GroupNorm(self._random.choice((1, self.channels // 2)), self.channels)

    def _function(self) -> nn.Module:
        return Function(self._random.choice(_FUNCTIONS))

    def _squeeze(self) -> nn.Module:
        axes = tuple(range(2, 2 + self.dims))
        return Function(lambda x: x * x.mean(axes, keepdim=True).sigmoid())

    def _slice(self) -> nn.Module:
        if self._random.random() < 0.5 and self.channels >= 4:
            self.channels -= 2
            channels = self._random.choice((slice(2, None), slice(-2)))
            return Function(lambda x: x[:, channels])
        if self.size < 6:
            return nn.Identity()
        self.size -= 2
        inside = (slice(None), slice(None), *(slice(1, -1),) * self.dims)
        return Function(lambda x: x[inside])

    def _resize(self) -> nn.Module:
        mode = self._random.choice(("nearest", _MODES[self.dims]))
        self.size *= 2
        return nn.Upsample(scale_factor=2, mode=mode)

    def _branches(self) -> nn.Module:
        joint, channels = self._random.choice(("add", "multiply", "concat", "stack")), self._random.choice(_CHANNELS)
        kernel, dilation = self._random.choice((1, 3)), self._random.choice((1, 2))
        left = self._of("Conv")(self.channels, channels, 3, padding=1)
        right = self._of("Conv")(
            self.channels, channels, kernel, padding=(kernel - 1) * dilation // 2, dilation=dilation
        )
        self.channels = 2 * channels if joint == "concat" else channels
        return _Branches(left, nn.Sequential(right, self._function()), joint)
