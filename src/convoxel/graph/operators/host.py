"""Operators on arrays: what their NumPy implementations share.

Such a function takes its operands as arrays (None where absent) and its attributes by name, and returns one array or a
tuple of them. Tensors are channels first, of any number of axes and any type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Node

Array = NDArray[Any]
Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
Host = Callable[[Node, Sequence[Array | None], Mapping[str, int]], list[Array]]
"""An implementation on arrays: a resolved node, its operands, the input's sizes; the results in order."""


def host(function: Callable[..., Array | tuple[Array, ...]]) -> Host:
    """Return the implementation of a node by a function of its operands and, by name, its attributes."""

    def computed(node: Node, arrays: Sequence[Array | None], sizes: Mapping[str, int]) -> list[Array]:
        with np.errstate(all="ignore"):  # NaN and infinity are results, as in the native steps
            result = function(*arrays, **node.attributes)
        results = result if isinstance(result, tuple) else (result,)
        return [np.asarray(r, value.dtype) for r, value in zip(results, node.outputs, strict=False)]

    return computed


def behind_channels(*places: Any) -> tuple[Any, ...]:
    """Return an index of (n, c, …) that takes all images and channels, and ``places`` of the other axes."""
    return (slice(None), slice(None), *places)


def windows(x: Array, kernel: Ints, stride: Ints, dilation: Ints, padding: Pairs, fill: Any, ceil: bool) -> Array:
    """Return (n, c, *out, *kernel): what each window sees, ``fill`` outside."""
    dims = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pairs, counts = [], []
    for size, span, s, (low, high) in zip(x.shape[2:], spans, stride, padding, strict=True):
        room = size + low + high - span
        count = (-(-room // s) if ceil else room // s) + 1
        if ceil and count > 1 and (count - 1) * s >= size + low:
            count -= 1  # a last window that would begin behind the input is dropped
        counts.append(count)
        pairs.append((low, max(high, (count - 1) * s + span - size - low)))
    inner = tuple(
        slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(pairs, x.shape[2:], strict=True)
    )
    wide = np.pad(
        x[behind_channels(*inner)],
        [(0, 0), (0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs)],
        constant_values=fill,
    )
    seen = np.lib.stride_tricks.sliding_window_view(wide, spans, axis=tuple(range(2, 2 + dims)))
    steps = [slice(0, (count - 1) * s + 1, s) for count, s in zip(counts, stride, strict=True)]
    return seen[behind_channels(*steps, *(slice(None, None, d) for d in dilation))]


def wide(x: Array) -> Array:
    """Sum floats of few bits in float32, small whole numbers in int64."""
    if x.dtype.kind in "iub":
        return x.astype(np.int64) if x.dtype != np.uint64 else x
    return x if x.dtype.itemsize >= 4 else x.astype(np.float32)
