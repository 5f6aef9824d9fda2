"""What every network of the zoo has in common: its attributes and the check of what comes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError
from convoxel.nn import check_dims

__all__ = ["Network", "check_count", "scale_channels"]


class Network(nn.Module):
    """A network over ``dims`` spatial axes that checks its input and says what would fit.

    Subclasses define ``compute(x)``, the network proper. The check reads sizes only, and is skipped while the
    network is traced or exported: there sizes may be symbols, and a comparison would bake them into the
    graph.

    Attributes:
        dims: number of spatial axes.
        in_channels: channels of the input.
        num_classes: channels of the output (logits).
        input_multiple: every spatial size must be a multiple of this (1: any size).
        input_minimum: the smallest spatial size that gives an output.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        num_classes: int,
        *,
        input_multiple: int = 1,
        input_minimum: int = 1,
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        self.in_channels = check_count("in_channels", in_channels)
        self.num_classes = check_count("num_classes", num_classes)
        self.input_multiple = input_multiple
        self.input_minimum = input_minimum

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for ``x`` ``(n, in_channels, *spatial)``; ShapeError if it does not fit."""
        if isinstance(x, Tensor) and not torch.compiler.is_compiling():
            self.check_input(tuple(x.shape))
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """Return logits for an input that has been checked."""
        raise NotImplementedError

    def nearest_sizes(self, size: int) -> tuple[int, ...]:
        """Return the valid sizes of an axis nearest to ``size``: itself, or those below and above."""
        below = size // self.input_multiple * self.input_multiple
        if size >= self.input_minimum and below == size:
            return (size,)
        above = max(-(-size // self.input_multiple) * self.input_multiple, self.input_minimum)
        return (below, above) if below >= self.input_minimum else (above,)

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless the network accepts inputs of ``shape`` (n, in_channels, *spatial)."""
        name = type(self).__name__
        layout = ("n", "in_channels", *("depth", "height", "width")[3 - self.dims :])
        if len(shape) != self.dims + 2:
            raise ShapeError(
                f"{name}: x has {len(shape)} axes {shape}, but dims={self.dims} needs {self.dims + 2}: "
                f"({', '.join(layout)}). "
                "Add the missing axes (for one sample: x[None]), or build with another dims."
            )
        if shape[1] != self.in_channels:
            raise ShapeError(
                f"{name}: x has {shape[1]} channels, but in_channels={self.in_channels}. "
                f"x is {shape}, read as ({', '.join(layout)}). "
                f"Give {self.in_channels} channels, or build with in_channels={shape[1]}."
            )
        wanted = [self.nearest_sizes(size) for size in shape[2:]]
        if all(size in fits for size, fits in zip(shape[2:], wanted, strict=True)):
            return
        text = "; ".join(
            f"{axis} {size} → {' or '.join(map(str, fits))}"
            for axis, size, fits in zip(layout[2:], shape[2:], wanted, strict=True)
            if size not in fits
        )
        raise ShapeError(
            f"{name}: x has spatial size {shape[2:]}, but {self.size_rule()}. "
            f"Pad or crop x to the nearest valid sizes: {text}."
        )

    def size_rule(self) -> str:
        """Return in words which spatial sizes are valid."""
        if self.input_multiple == 1:
            return f"every size must be at least {self.input_minimum}"
        return f"every size must be a multiple of {self.input_multiple}"


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``; else ConfigError names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}, but it must be a whole number of at least {least}.")
    return value


def scale_channels(channels: int, width: float) -> int:
    """Return ``channels × width`` rounded to a multiple of 8, at least 8 and never more than 10 % below.

    The rule of the MobileNet family: kernels work on blocks of 8 channels, so odd counts cost as much as the
    next multiple. ``width`` 1.0 leaves the published counts alone.

    >>> [scale_channels(64, width) for width in (1.0, 0.25, 0.1, 0.3)]
    [64, 16, 8, 24]
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < float("inf"):
        raise ConfigError(f"width is {width!r}, but this network takes a factor above 0 (1.0: as published).")
    if width == 1:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
