"""One convolution of NumPy arrays: a plan of one step between two changes of layout.

For whole networks use ``convoxel.compile``, which keeps channels last from the first layer to the last.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.arithmetic.argument import per_axis, whole
from convoxel.arithmetic.window import check_output_padding, conv_size, resolve_padding, transposed_size
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief
from convoxel.native.machine import installed_bytes
from convoxel.native.plan import Convolution, Floats, Plan, Triple, View
from convoxel.native.precision import check_precision

Ints = int | Sequence[int]
_LARGEST = 2**31 - 1  # of a stride, a padding, a dilation: products with sizes stay far within 64 bits
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


def conv(
    x: Floats,
    w: Floats,
    bias: Floats | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str = "auto",
    threads: int | None = None,
    *,
    precision: str = "float32",
    isa: str | None = None,
) -> Floats:
    """Compute the cross-correlation of CNN layers, in 1-D, 2-D or 3-D.

    y[n, k, o] = bias[k] + Σ_c Σ_t x[n, c, o·stride + t·dilation − padding] · w[k, c, t], where o and t have an index
    for each spatial axis, and c runs over the channels of k's group (Dumoulin & Visin 2016, relationship 15).

    Args:
        x: ``(batch, in_channels, *spatial)`` with one to three spatial axes; converted to float32.
        w: ``(out_channels, in_channels/groups, *kernel)``.
        bias: ``(out_channels,)`` or None.
        stride, dilation: an int for all axes or one per axis (default 1).
        padding: an int, one per axis, ``(low, high)`` per axis (a negative one crops), or "none", "half", "full",
            "same", "causal" (default 0).
        groups: number of channel groups (default 1).
        algorithm: "auto" (default); "direct" (no more rounding than a direct sum) or "winograd", the cheapest of that
            family; or a name from ``algorithms()``, such as "indirect" (NaN and infinity reach only the outputs that
            read them), "winograd(4)" or "winograd(4,3)".
        threads: number of threads (default: all that the process may use). The result does not depend on it.
        precision: "float32" (default); "high" or "bfloat16", which let ``algorithm`` multiply numbers of 16 or 8 binary
            digits where that is faster (see ``compile``).
        isa: instruction set (default: the best one, see ``build_info()``).

    Returns:
        ``(batch, out_channels, *out)``, float32.

    Raises:
        ShapeError: ranks, channels or sizes that do not fit, an operand without real numbers, or more memory than
            there is.
        ConfigError: an argument that is no whole number, or out of range; or a precision that does not exist.
        UnsupportedError: ``algorithm`` cannot run this problem; the message says why.

    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> conv(x, np.ones((1, 1, 2, 2), np.float32), stride=2)[0, 0]
    array([[10., 18.],
           [42., 50.]], dtype=float32)
    """
    x, w, bias = _arrays("conv", x, w, bias)
    dims = x.ndim - 2
    kernel = w.shape[2:]
    stride_ = _whole("stride", stride, dims)
    dilation_ = _whole("dilation", dilation, dims)
    pads = _padding(padding, kernel, stride_, dilation_, x.shape[2:])
    groups = whole("groups", groups, 1, _LARGEST)
    if w.shape[0] % groups or x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"conv: x has {x.shape[1]} channels but w expects {w.shape[1] * groups} "
            f"(in_channels/groups x groups = {w.shape[1]} x {groups}).\n"
            f"  x {x.shape}, w {w.shape}, groups={groups}\n"
            f"  Give x {w.shape[1] * groups} channels, and groups that divide out_channels = {w.shape[0]}."
        )
    out = tuple(
        conv_size(i, k, s, p, d) for i, k, s, p, d in zip(x.shape[2:], kernel, stride_, pads, dilation_, strict=True)
    )
    how = (algorithm, threads, precision, isa)
    return _run("conv", x, w, bias, stride_, pads, dilation_, groups, False, w.shape[0], out, *how)


def conv_transpose(
    x: Floats,
    w: Floats,
    bias: Floats | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str = "auto",
    threads: int | None = None,
    *,
    precision: str = "float32",
    isa: str | None = None,
) -> Floats:
    """Compute the transposed (fractionally strided) convolution: the adjoint of ``conv`` with the same weights.

    ⟨conv(x, w), y⟩ = ⟨x, conv_transpose(y, w)⟩ for every x whose size gives y's (Dumoulin & Visin 2016, chapter 4).

    Args:
        x: ``(batch, in_channels, *spatial)``.
        w: ``(in_channels, out_channels/groups, *kernel)``.
        output_padding: extra outputs at the high end of each axis. They select one of the sizes that the
            convolution maps to the size of x (default 0).
        bias, stride, padding, dilation, groups, algorithm, threads, precision, isa: as in ``conv``. Padding is that of
            the convolution, so it makes the output smaller.

    Returns:
        ``(batch, out_channels, *out)``, float32.

    Raises:
        ShapeError: ranks, channels or sizes that do not fit.
        UnsupportedError: ``algorithm`` cannot run this problem.

    >>> x = np.ones((1, 1, 2), np.float32)
    >>> conv_transpose(x, np.ones((1, 1, 3), np.float32), stride=2)[0, 0]
    array([1., 1., 2., 1., 1.], dtype=float32)
    """
    x, w, bias = _arrays("conv_transpose", x, w, bias)
    dims = x.ndim - 2
    kernel = w.shape[2:]
    stride_ = _whole("stride", stride, dims)
    dilation_ = _whole("dilation", dilation, dims)
    extra = _whole("output_padding", output_padding, dims, least=0)
    check_output_padding(extra, stride_, dilation_)
    pads = _padding(padding, kernel, stride_, dilation_, None)
    groups = whole("groups", groups, 1, _LARGEST)
    if x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ShapeError(
            f"conv_transpose: x has {x.shape[1]} channels but w expects {w.shape[0]} in {groups} groups.\n"
            f"  x {x.shape}, w {w.shape} (in_channels, out_channels/groups, *kernel), groups={groups}\n"
            f"  Give x {w.shape[0]} channels, and groups that divide them."
        )
    out = tuple(
        transposed_size(i, k, s, p, d, e)
        for i, k, s, p, d, e in zip(x.shape[2:], kernel, stride_, pads, dilation_, extra, strict=True)
    )
    channels = w.shape[1] * groups
    how = (algorithm, threads, precision, isa)
    return _run("conv_transpose", x, w, bias, stride_, pads, dilation_, groups, True, channels, out, *how)


def _arrays(call: str, x: Any, w: Any, bias: Any) -> tuple[Floats, Floats, Floats | None]:
    """Return the operands as float32. Nothing is copied before types, axes and memory are checked."""
    x, w = _numbers(call, "x", x), _numbers(call, "w", w)
    if not 3 <= x.ndim <= 5 or w.ndim != x.ndim:
        raise ShapeError(
            f"{call}: x has shape {x.shape} and w {w.shape}; expected (batch, channels, *spatial) and "
            "(out_channels, in_channels/groups, *kernel) with the same one to three spatial axes."
        )
    if 0 in w.shape or 0 in x.shape[1:]:
        raise ShapeError(f"{call}: x {x.shape} or w {w.shape} has an axis of size 0.")
    if bias is not None:
        bias = _numbers(call, "bias", bias)
        if bias.ndim != 1:
            raise ShapeError(f"{call}: bias has shape {bias.shape}; expected (out_channels,).")
    return x, w, bias


def _numbers(call: str, name: str, given: Any) -> NDArray[Any]:
    """Return an operand as an array of real numbers, in the caller's memory where it is an array."""
    try:
        array = np.asarray(given)
    except Exception as reason:  # whatever the object's conversion raises, such as that of a tensor on a GPU
        raise ShapeError(
            f"{call}: {name} is a {type(given).__name__} that NumPy cannot read ({reason}); expected an array."
        ) from None
    if array.dtype.kind not in "biuf":
        raise ShapeError(f"{call}: {name} is {array.dtype}; expected real numbers (they become float32).")
    masked = sys.modules.get("numpy.ma")  # which NumPy imports on first use; without it, nothing is masked
    if isinstance(given, getattr(masked, "MaskedArray", ())):
        raise ShapeError(f"{call}: {name} is a masked array; expected one without a mask. Give {name}.filled(0).")
    return array


def _check_memory(call: str, **floats: int) -> None:
    """Raise unless the arrays of so many floats fit this machine's memory together."""
    needed, installed = 4 * sum(floats.values()), installed_bytes()
    if needed > installed:
        largest = max(floats, key=floats.__getitem__)
        raise ShapeError(
            f"{call}: the call needs {needed / 2**30:.0f} GiB, {4 * floats[largest] / 2**30:.0f} of them for "
            f"{largest}; this machine has {installed / 2**30:.0f}. Give smaller arrays, or less padding."
        )


def _whole(name: str, value: Ints, dims: int, least: int = 1) -> tuple[int, ...]:
    return per_axis(name, value, dims, least, _LARGEST)


def _triple(values: Sequence[int], fill: int) -> Triple:
    """Return the numbers of the axes (d, h, w); absent axes come first and get ``fill``."""
    d, h, w = (fill,) * (3 - len(values)) + tuple(values)
    return d, h, w


def _padding(
    padding: Padding, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], size: Sequence[int] | None
) -> tuple[tuple[int, int], ...]:
    pads = resolve_padding(padding, kernel, stride, dilation, size)
    for pair in pads:
        per_axis("padding", pair, 2, -_LARGEST, _LARGEST)
    return pads


def _run(
    call: str,
    x: Floats,
    w: Floats,
    bias: Floats | None,
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
    out_channels: int,
    out: tuple[int, ...],
    algorithm: str,
    threads: int | None,
    precision: str,
    isa: str | None,
) -> Floats:
    if bias is not None and len(bias) != out_channels:
        raise ShapeError(
            f"{call}: bias has shape {bias.shape}; expected ({out_channels},), one for each output channel."
        )
    src_floats = -(-x.size // 16) * 16  # dst begins on a cache line
    dst_floats = x.shape[0] * out_channels * math.prod(out)
    _check_memory(call, x=2 * src_floats, w=2 * w.size, the_result=2 * dst_floats)
    if not isinstance(algorithm, str):
        raise ConfigError(f'{call}: algorithm is {brief(algorithm)}, expected a name such as "auto".')
    check_precision(precision, f"{call}: ")
    # Along an axis with one position the stride leads nowhere; the engine's tables grow with it.
    positions = x.shape[2:] if transposed else out
    stride = [1 if n == 1 else s for n, s in zip(positions, stride, strict=True)]
    x, w = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(w, np.float32)
    layer = Convolution(
        w.reshape(*w.shape[:2], *_triple(w.shape[2:], 1)),
        bias,
        stride=_triple(stride, 1),
        padding_low=_triple([low for low, _ in pads], 0),
        dilation=_triple(dilation, 1),
        groups=groups,
        transposed=transposed,
    )
    src_shape = (x.shape[0], *_triple(x.shape[2:], 1), x.shape[1])
    dst_shape = (x.shape[0], *_triple(out, 1), out_channels)
    y = np.empty((x.shape[0], out_channels, *out), np.float32)
    plan = Plan(src_floats + y.size, 2, threads, isa=isa, precision=precision)
    src, dst = View.dense(0, 0, src_shape), View.dense(0, src_floats, dst_shape)
    plan.import_channels_first(1, src)
    plan.convolve(layer, src, dst, algorithm=algorithm)
    plan.export_channels_first(dst, 2)
    plan.run([x, y])
    return y
