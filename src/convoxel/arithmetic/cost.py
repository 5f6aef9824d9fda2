"""The cost of layers as exact integers: parameters, multiply-accumulates and bytes, also of the layer as a matrix.

1 MAC (multiply-accumulate) = 2 FLOPs. MACs are counted for layers with weights, at every position of the
window, padding included; bias, normalisation, activation, pooling and resizing count no MACs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.taps import Taps, conv_taps
from convoxel.arithmetic.window import Pair, conv_sizes, resolve_padding
from convoxel.errors import ConfigError, check_choice

# Numbers that an optimiser keeps for each parameter, beside the parameter and its gradient.
OPTIMISERS = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}


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
    _check_counts(in_channels=in_channels, out_channels=out_channels, kernel=min(kernel, default=0))
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
        batch: number of samples (default 1).

    Raises:
        ConfigError: ``groups`` does not divide the channels.

    >>> conv_macs((112, 112), 3, 64, (7, 7))
    118013952
    """
    _check_groups(in_channels, out_channels, groups)
    _check_counts(in_channels=in_channels, out_channels=out_channels, batch=batch)
    _check_counts(output_size=min(output_size, default=0), kernel=min(kernel, default=0))
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
    _check_counts(in_channels=in_channels, out_channels=out_channels, batch=batch)
    _check_counts(input_size=min(input_size, default=0), kernel=min(kernel, default=0))
    return batch * math.prod(input_size) * in_channels * (out_channels // groups) * math.prod(kernel)


def linear_params(in_features: int, out_features: int, bias: bool = True) -> int:
    """Return the parameters of a fully-connected layer.

    >>> linear_params(512, 1000)
    513000
    """
    _check_counts(in_features=in_features, out_features=out_features)
    return in_features * out_features + (out_features if bias else 0)


def linear_macs(in_features: int, out_features: int, rows: int = 1) -> int:
    """Return the MACs of a fully-connected layer applied to ``rows`` vectors.

    >>> linear_macs(512, 1000, rows=2)
    1024000
    """
    _check_counts(in_features=in_features, out_features=out_features, rows=rows)
    return rows * in_features * out_features


def norm_params(channels: int, affine: bool = True) -> int:
    """Return the trained parameters of a normalisation: a scale and a shift a channel.

    >>> norm_params(64)
    128
    """
    _check_counts(channels=channels)
    return 2 * channels if affine else 0


def flops(macs: int) -> int:
    """Return FLOPs: a multiply-accumulate is two operations.

    >>> flops(48)
    96
    """
    _check_counts(macs=macs)
    return 2 * macs


def size_bytes(shape: Sequence[int], item: int = 4) -> int:
    """Return the bytes of a dense tensor; ``item`` is 4 for float32.

    >>> size_bytes((1, 64, 112, 112))
    3211264
    """
    _check_counts(item=item, shape=min(shape, default=0))
    return math.prod(shape) * item


def peak_bytes(values: Iterable[tuple[int, int, int]]) -> int:
    """Return the largest number of bytes alive at the same time: max over steps t of Σ size of the values alive at t.

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


def training_bytes(params: int, activation_bytes: int, optimiser: str = "adam", item: int = 4) -> int:
    """Return the bytes that a training step holds: (2 + m) · parameters · item + all activations.

    A parameter, its gradient and the m numbers that the optimiser keeps of it; and the results of all layers, which
    wait for the backward pass. Scratch memory of kernels and the input's copies are left out.

    Args:
        params: trained parameters.
        activation_bytes: sum over all layers, for the whole batch.
        optimiser: a name of ``OPTIMISERS``.
        item: bytes of a number, 4 for float32.

    Raises:
        ConfigError: the optimiser is not known.

    >>> training_bytes(11_689_512, 0) == 4 * 4 * 11_689_512
    True
    """
    check_choice("optimiser", optimiser, OPTIMISERS)
    _check_counts(params=params, activation_bytes=activation_bytes, item=item)
    return (2 + OPTIMISERS[optimiser]) * params * item + activation_bytes


def intensity(macs: int, *sizes_bytes: int) -> Fraction:
    """Return the arithmetic intensity: multiply-accumulates for each byte that must be moved at least once.

    macs / Σ bytes of input, weights and output (the roofline of Williams, Waterman & Patterson 2009). Below the
    machine's own ratio of MACs to bytes a second, a layer waits for memory and fewer MACs do not make it faster.

    Args:
        macs: multiply-accumulates of the layer.
        *sizes_bytes: bytes of each tensor that it reads or writes.

    Raises:
        ConfigError: nothing is moved.

    >>> x = size_bytes((1, 64, 56, 56))
    >>> round(intensity(conv_macs((56, 56), 64, 64, (3, 3)), x, x, size_bytes((64, 64, 3, 3))))
    66
    """
    total = sum(sizes_bytes)
    if total < 1:
        raise ConfigError(
            "sizes_bytes are 0, but an intensity needs the bytes that are moved. Give those of input and output."
        )
    return Fraction(macs, total)


@dataclass(frozen=True)
class MatrixCounts:
    """Counts of the matrix that a layer is, from its input to its output, without building it.

    Attributes:
        rows: outputs, channels included.
        columns: inputs, channels included.
        nonzeros: entries that are not zero, windows that hang over the border cut off: the parameters of a locally
            connected layer, and the multiplications of the sparse matrix.
        shared: different values among them: the parameters of the convolution.

    >>> counts = conv_matrix((3, 3), 1, 1, (2, 2))  # a 3 × 3 image and a 2 × 2 kernel
    >>> counts.shared, counts.nonzeros, counts.dense
    (4, 16, 36)
    """

    rows: int
    columns: int
    nonzeros: int
    shared: int

    @property
    def dense(self) -> int:
        """Entries: the parameters and multiplications of a fully-connected layer."""
        return self.rows * self.columns

    @property
    def density(self) -> Fraction:
        """The share of entries that are not zero."""
        return Fraction(self.nonzeros, self.dense)

    def dense_bytes(self, item: int = 4) -> int:
        """Return the bytes of the dense matrix."""
        return self.dense * item

    def sparse_bytes(self, item: int = 4, index: int = 4) -> int:
        """Return the bytes of the matrix by compressed rows: value and column of each entry, offset of each row."""
        return self.nonzeros * (item + index) + (self.rows + 1) * index

    def shared_bytes(self, item: int = 4) -> int:
        """Return the bytes of the kernel."""
        return self.shared * item

    def __str__(self) -> str:
        return (
            f"{self.rows} × {self.columns}: {self.shared} parameters as a convolution, "
            f"{self.nonzeros} locally connected, {self.dense} fully connected"
        )


def conv_matrix(
    size: Sequence[int],
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[Pair] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> MatrixCounts:
    """Return the counts of the matrix of a convolution, and of its transpose's: a transposed convolution's.

    Along one axis the matrix has an entry wherever a tap falls on an input, s·o − p + d·m in 0 … i − 1; those of
    several axes multiply (the matrix is a Kronecker product of patterns), as do C · K / g for channels.

    Args:
        size: spatial size of the input.
        in_channels: C.
        out_channels: K.
        kernel: kernel size of every axis.
        stride: stride; it, padding and dilation as for :func:`conv_sizes`. Padding is with zeros.
        padding: padding.
        dilation: dilation.
        groups: g.

    Raises:
        ShapeError: the padded input is smaller than the kernel's span.
        ConfigError: ``groups`` does not divide the channels, or a number is out of range.

    >>> print(conv_matrix((3, 3), 1, 1, (2, 2)))
    4 × 9: 4 parameters as a convolution, 16 locally connected, 36 fully connected
    """
    _check_groups(in_channels, out_channels, groups)
    outputs = conv_sizes(size, kernel, stride, padding, dilation)
    axes = len(size)
    strides = (stride,) * axes if isinstance(stride, int) else stride
    dilations = (dilation,) * axes if isinstance(dilation, int) else dilation
    pairs = resolve_padding(padding, kernel, strides, dilations, size)
    along = zip(size, outputs, map(conv_taps, kernel, strides, pairs, dilations), strict=True)
    met = math.prod(_met(i, o, taps) for i, o, taps in along)
    pairs_of_channels = in_channels // groups * out_channels
    return MatrixCounts(
        rows=out_channels * math.prod(outputs),
        columns=in_channels * math.prod(size),
        nonzeros=pairs_of_channels * met,
        shared=pairs_of_channels * math.prod(kernel),
    )


def _met(i: int, o: int, taps: Taps) -> int:
    """Return the number of pairs of an output and a tap of a convolution that fall on one of ``i`` inputs."""
    count = 0
    for tap in taps.phases[0]:
        first = max(0, -(tap // taps.step))  # the first output that reads at 0 or behind
        last = min(o - 1, (i - 1 - tap) // taps.step)
        count += max(0, last - first + 1)
    return count


def _check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ConfigError(
            f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}. "
            f"Use a divisor of {math.gcd(in_channels, out_channels)}."
        )


def _check_counts(**counts: int) -> None:
    """Raise ConfigError for the first number that counts nothing: one below 0."""
    for name, count in counts.items():
        if count < 0:
            raise ConfigError(f"{name} is {count}, but it must be at least 0.")
