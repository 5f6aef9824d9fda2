"""What a layer costs: parameters, multiply-accumulates and bytes, as exact integers.

1 MAC (multiply-accumulate) = 2 FLOPs. MACs are counted for layers with weights, at every position of the
window, padding included; bias, normalisation, activation, pooling and resizing count no MACs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from convoxel.errors import ConfigError

__all__ = [
    "conv_macs",
    "conv_params",
    "flops",
    "linear_macs",
    "linear_params",
    "norm_params",
    "peak_bytes",
    "size_bytes",
    "transposed_macs",
]


def conv_params(in_channels: int, out_channels: int, kernel: Sequence[int], groups: int = 1, bias: bool = True) -> int:
    """Return the parameters of a convolution or transposed convolution: C/g · K · ∏k, and K more with a bias.

    Raises:
        ConfigError: ``groups`` does not divide the channels.

    >>> conv_params(3, 5, (3, 3), bias=False)
    135
    >>> depthwise, pointwise = conv_params(3, 3, (3, 3), 3, bias=False), conv_params(3, 5, (1, 1), bias=False)
    >>> depthwise + pointwise
    42
    """
    _check_groups(in_channels, out_channels, groups)
    return in_channels // groups * out_channels * math.prod(kernel) + (out_channels if bias else 0)


def conv_macs(
    output_size: Sequence[int],
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    groups: int = 1,
    batch: int = 1,
) -> int:
    """Return the MACs of a convolution: every output value is a sum of C/g · ∏k products.

    Args:
        output_size: spatial size of the output.
        in_channels: C.
        out_channels: K.
        kernel: kernel size of every axis.
        groups: g.
        batch: samples.

    Raises:
        ConfigError: ``groups`` does not divide the channels.

    >>> conv_macs((112, 112), 3, 64, (7, 7))
    118013952
    """
    _check_groups(in_channels, out_channels, groups)
    return batch * math.prod(output_size) * out_channels * (in_channels // groups) * math.prod(kernel)


def transposed_macs(
    input_size: Sequence[int],
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    groups: int = 1,
    batch: int = 1,
) -> int:
    """Return the MACs of a transposed convolution: every input value is spread by K/g · ∏k products.

    Counting on the output grid instead, as for a convolution, would give ∏s times too many.

    Raises:
        ConfigError: ``groups`` does not divide the channels.

    >>> transposed_macs((16, 16, 16), 64, 32, (2, 2, 2))
    67108864
    >>> transposed_macs((16, 16), 32, 32, (3, 3), groups=32)
    73728
    """
    _check_groups(in_channels, out_channels, groups)
    return batch * math.prod(input_size) * in_channels * (out_channels // groups) * math.prod(kernel)


def linear_params(in_features: int, out_features: int, bias: bool = True) -> int:
    """Return the parameters of a fully-connected layer.

    >>> linear_params(512, 1000)
    513000
    """
    return in_features * out_features + (out_features if bias else 0)


def linear_macs(in_features: int, out_features: int, rows: int = 1) -> int:
    """Return the MACs of a fully-connected layer applied to ``rows`` vectors.

    >>> linear_macs(512, 1000, rows=2)
    1024000
    """
    return rows * in_features * out_features


def norm_params(channels: int, affine: bool = True) -> int:
    """Return the trained parameters of a normalisation: a scale and a shift a channel.

    >>> norm_params(64)
    128
    """
    return 2 * channels if affine else 0


def flops(macs: int) -> int:
    """Return FLOPs: a multiply-accumulate is two operations.

    >>> flops(48)
    96
    """
    return 2 * macs


def size_bytes(shape: Sequence[int], item: int = 4) -> int:
    """Return the bytes of a dense tensor; ``item`` is 4 for float32.

    >>> size_bytes((1, 64, 112, 112))
    3211264
    """
    return math.prod(shape) * item


def peak_bytes(values: Iterable[tuple[int, int, int]]) -> int:
    """Return the most bytes that live at the same time: max over steps t of Σ size of the values alive at t.

    Args:
        values: (size, first, last) of every value: it is written in step ``first`` and read for the last time
            in step ``last``, and is alive in both and between.

    >>> peak_bytes([(100, 0, 1), (50, 1, 2), (10, 2, 3), (100, 3, 3)])
    150
    """
    change: dict[int, int] = {}
    for size, first, last in values:
        change[first] = change.get(first, 0) + size
        change[last + 1] = change.get(last + 1, 0) - size
    alive = peak = 0
    for step in sorted(change):
        alive += change[step]
        peak = max(peak, alive)
    return peak


def _check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ConfigError(
            f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}. "
            f"Use a divisor of {math.gcd(in_channels, out_channels)}."
        )
