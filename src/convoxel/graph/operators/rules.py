"""Shape and cost rules, used by the rows of ``opset``.

A shape rule takes a node whose sizes are numbers and the shapes of its operands (None where absent) and
returns the shapes of its results; it raises ``ShapeError`` with the bare fact, the caller adds which node.
A cost rule returns multiply–accumulates of the direct algorithm.

Shapes may hold open sizes too, when a reader infers shapes before any input is known: ``Size`` does arithmetic, and
what only an input can decide is taken to fit (``differ``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from convoxel.arithmetic import window
from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, Size, differ, larger, smaller

__all__ = ["Macs", "Shapes"]

Shapes = Sequence[Shape | None]
ShapeRule = Callable[[Node, Shapes], list[Shape]]
Macs = Callable[[Node, Shapes, Sequence[Shape]], int]


def operand(shapes: Shapes, index: int) -> Shape:
    """Return the shape of an operand that must be there."""
    shape = shapes[index]
    assert shape is not None
    return shape


def _positive(shape: Shape, what: str) -> Shape:
    if any(size < 1 for size in shape):
        raise ShapeError(f"the output would be {shape}: the input {what} is too small for the window")
    return shape


def _channels(x: Shape, expected: int) -> None:
    if len(x) < 2 or differ(x[1], expected):
        came = x[1] if len(x) > 1 else "none"
        raise ShapeError(f"x {x} has {came} channels but the weights expect {expected}")


def same(node: Node, shapes: Shapes) -> list[Shape]:
    """The result has the shape of the first operand."""
    return [operand(shapes, 0)]


def convolution(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (k, c/groups, …) → (n, k, …)."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    if len(x) != len(w):
        raise ShapeError(f"x {x} has {len(x)} axes but the weights {w} expect {len(w)} (batch and channels included)")
    _channels(x, w[1] * node["groups"])
    gate = shapes[4]
    if gate is not None and gate != (*x[:2], *(1,) * len(x[2:])):
        raise ShapeError(f"the gate {gate} does not hold one factor for each image and channel of x {x}")
    return [_with_residual(_convolved(node, x, w), shapes)]


def depthwise_block(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (e, c, 1, …)?, (e, 1, …) and (k, e, 1, …)? → (n, k, …); e is c, k is e without them."""
    x, w, expand, project = operand(shapes, 0), operand(shapes, 1), shapes[4], shapes[6]
    _channels(x, w[1] * node["groups"] if expand is None else expand[1])
    n, channels, *spatial = _convolved(node, x, w)
    return [_with_residual((n, channels if project is None else project[0], *spatial), shapes)]


def _convolved(node: Node, x: Shape, w: Shape) -> Shape:
    spatial = tuple(
        _size(conv_length, *axis)
        for axis in zip(x[2:], w[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    return _positive((x[0], w[0], *spatial), f"{x}")


def conv_length(i: int, k: int, s: int, p: tuple[int, int], d: int) -> int:
    """Return the length of an axis after a convolution; the axis, or its padding, may be open."""
    if any(isinstance(size, Size) for size in (i, *p)):
        return window.conv_size(i + p[0] + p[1], k, s, 0, d)
    return window.conv_size(i, k, s, p, d)


def _size(rule: Callable[..., int], *axis: Any) -> int:
    """Return the length by ``rule``; a window that does not fit gives 0, reported with the whole shape."""
    try:
        return rule(*axis)
    except ShapeError:
        return 0


def _unequal(a: Shape, b: Shape) -> bool:
    return len(a) != len(b) or any(map(differ, a, b))


def _with_residual(shape: Shape, shapes: Shapes) -> Shape:
    if shapes[3] is not None and _unequal(shapes[3], shape):
        raise ShapeError(f"cannot add {shapes[3]} to the convolution's {shape}: axes must be equal")
    return shape


def transposed_convolution(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (c, k/groups, …) → (n, k, …)."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    if len(x) != len(w):
        raise ShapeError(f"x {x} has {len(x)} axes but the weights {w} expect {len(w)} (batch and channels included)")
    _channels(x, w[0])
    spatial = tuple(
        _size(window.transposed_size, *axis)
        for axis in zip(
            x[2:],
            w[2:],
            node["stride"],
            node["padding"],
            node["dilation"],
            node["output_padding"],
            strict=True,
        )
    )
    return [_with_residual(_positive((x[0], w[1] * node["groups"], *spatial), f"{x}"), shapes)]


def dense(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (k, c·…) → (n, k)."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    features = math.prod(x[1:])
    if differ(features, w[1]):
        raise ShapeError(
            f"x {x} has {features} features but the linear layer expects {w[1]}; "
            "the input's spatial size must be the one that the network was made for"
        )
    return [_with_residual((x[0], w[0]), shapes)]


def max_pool(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …) with windows that may be dilated."""
    return [_pooled(node, operand(shapes, 0), node["dilation"])]


def average_pool(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …)."""
    return [_pooled(node, operand(shapes, 0), node["dilation"])]


def _pooled(node: Node, x: Shape, dilation: Sequence[int]) -> Shape:
    spatial = tuple(
        _size(pool_length, *axis, node["ceil"])
        for axis in zip(x[2:], node["kernel"], node["stride"], node["padding"], dilation, strict=True)
    )
    return _positive((*x[:2], *spatial), f"{x}")


def pool_length(i: int, k: int, s: int, p: tuple[int, int], d: int, ceil: bool) -> int:
    """Return the length of an axis after pooling; the axis may be open.

    Rounded up, there are ⌈(i + p₀ + p₁ − span) / s⌉ + 1 windows, or one less if the last of them begins behind x, at
    i + p₀ or later. That is ⌈(i + p₀ − max(span − p₁, s)) / s⌉ + 1 as long as p₁ ≤ span.
    """
    if not ceil:
        return conv_length(i, k, s, p, d)
    if not isinstance(i, Size):
        return window.pool_size(i, k, s, p, d, ceil)
    span = window.span(k, d)
    if not isinstance(p[1], Size) and p[1] <= span:
        return -(-(i + p[0] - max(span - p[1], s)) // s) + 1
    last = -(-(i + p[0] + p[1] - span) // s)
    dropped: Any = Size(f"({last} > 0) & ({last * s} >= {i + p[0]})")
    return last + 1 - dropped


def adaptive_pool(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, *size); a size of 0 keeps the axis."""
    x = operand(shapes, 0)
    spatial = tuple(new or old for new, old in zip(node["size"], x[2:], strict=True))
    return [(*x[:2], *spatial)]


def resize(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, *size), or scaled where no size is given."""
    x = operand(shapes, 0)
    if node["size"]:
        spatial = tuple(node["size"])
    else:
        spatial = tuple(_scaled(old, scale) for old, scale in zip(x[2:], node["scale"], strict=True))
    return [_positive((*x[:2], *spatial), f"{x}")]


def interpolate(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, *size)."""
    x = operand(shapes, 0)
    return [_positive((*x[:2], *node["size"]), f"{x}")]


def _scaled(old: int, scale: float) -> int:
    if isinstance(old, Size):
        whole: Any = old * int(scale) if float(scale).is_integer() else Size(f"floor({old} * {scale})")
        return whole
    return math.floor(old * scale)


def pad(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …) longer by the padding."""
    x, mode = operand(shapes, 0), node["mode"]
    for size, (low, high) in zip(x[2:], node["padding"], strict=True):
        limit = {"reflect": size - 1, "circular": size}.get(mode)
        if limit is not None and max(low, high) > limit:
            raise ShapeError(f"{mode} padding of {max(low, high)} needs an axis longer than the {size} of x {x}")
    spatial = tuple(size + low + high for size, (low, high) in zip(x[2:], node["padding"], strict=True))
    return [_positive((*x[:2], *spatial), f"{x}")]


def concat(node: Node, shapes: Shapes) -> list[Shape]:
    """Joined along one axis; the others must agree."""
    first, axis = operand(shapes, 0), node["axis"]
    parts = [operand(shapes, i) for i in range(len(shapes))]
    for part in parts:
        if len(part) != len(first) or any(differ(a, b) for i, (a, b) in enumerate(zip(part, first)) if i != axis):  # noqa: B905
            raise ShapeError(f"cannot join {' and '.join(map(str, parts))} along axis {axis}: the other axes differ")
    return [tuple(sum(p[i] for p in parts) if i == axis else size for i, size in enumerate(first))]


def stretch(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that stretching axes of size 1, and adding axes in front, brings all to.

    >>> stretch([(2, 1, 4), (3, 1)])
    (2, 3, 4)
    """
    rank = max(map(len, shapes))
    result: list[int] = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, start=rank - len(shape)):
            if size == 1:
                continue
            if result[axis] != 1 and differ(result[axis], size):
                raise ShapeError(f"cannot combine {' and '.join(map(str, shapes))}: axes must be equal or 1")
            if result[axis] == 1 or isinstance(result[axis], Size):
                result[axis] = size
    return tuple(result)


def broadcast(node: Node, shapes: Shapes) -> list[Shape]:
    """Both operands are stretched along their axes of size 1."""
    a, b = operand(shapes, 0), operand(shapes, 1)
    if len(a) != len(b):
        raise ShapeError(f"cannot combine {a} and {b}: they must have the same number of axes")
    return [stretch([a, b])]


def reduce(node: Node, shapes: Shapes) -> list[Shape]:
    """The axes stay with size 1."""
    return [tuple(1 if axis in node["axes"] else size for axis, size in enumerate(operand(shapes, 0)))]


def expand(node: Node, shapes: Shapes) -> list[Shape]:
    """Repeated along axes of size 1."""
    return [stretch([operand(shapes, 0), tuple(node["shape"])])]


def blank(node: Node, shapes: Shapes) -> list[Shape]:
    """Other channels at the same positions."""
    x = operand(shapes, 0)
    return [(x[0], node["channels"], *x[2:])]


def pick_channels(node: Node, shapes: Shapes) -> list[Shape]:
    """One channel for each number of the index."""
    x, (count,) = operand(shapes, 0), operand(shapes, 1)
    return [(x[0], count, *x[2:])]


def narrow(node: Node, shapes: Shapes) -> list[Shape]:
    """A range along one axis, with a step; bounds are cut off as Python's slices are."""
    x = operand(shapes, 0)
    length = range_length(x[node["axis"]], node["start"], node["stop"], node["step"])
    return [_positive(tuple(length if i == node["axis"] else s for i, s in enumerate(x)), f"{x}")]


def range_length(size: Any, start: Any, stop: Any, step: int) -> Any:
    """Return how many positions the slice start:stop:step has on an axis of ``size``, which may be open."""
    known = not any(isinstance(value, Size) for value in (size, start, stop))
    if known:
        return len(range(*slice(start, stop, step).indices(size)))
    begin = _bound(size, start, 0 if step > 0 else size - 1, step)
    end = _bound(size, size if stop is None and step > 0 else stop, -1, step)
    return larger((end - begin + step - (1 if step > 0 else -1)) // step, 0) if step != 1 else _gap(begin, end, size)


def _gap(begin: Any, end: Any, size: Any) -> Any:
    return end - begin if end == size and not isinstance(begin, Size) else larger(end - begin, 0)


def _bound(size: Any, position: Any, default: Any, step: int) -> Any:
    """Return where Python's slices cut ``position`` off."""
    if position is None:
        return default
    low, high = (0, size) if step > 0 else (-1, size - 1)
    if not isinstance(position, Size) and position < 0:
        return size + position if isinstance(size, Size) else larger(size + position, low)
    return position if position == high or position == 0 else smaller(position, high)


def reshape(node: Node, shapes: Shapes) -> list[Shape]:
    """The same number of elements in another shape."""
    x, shape = operand(shapes, 0), tuple(node["shape"])
    if differ(math.prod(x), math.prod(shape)):
        raise ShapeError(f"cannot reshape {x} to {shape}")
    return [shape]


def foreign(node: Node, shapes: Shapes) -> list[Shape]:
    """The shapes that were recorded when the network was read."""
    return list(node["shapes"])


def no_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Nothing is multiplied and accumulated."""
    return 0


def convolution_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Outputs × (c/groups) × kernel."""
    return math.prod(out[0]) * math.prod(operand(shapes, 1)[1:])


def depthwise_block_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Inputs' pixels × expansion + outputs' pixels × (kernels + projection)."""
    expand, kernels, project = (math.prod(w) if (w := shapes[i]) is not None else 0 for i in (4, 1, 6))
    x, y = operand(shapes, 0), out[0]
    return x[0] * math.prod(x[2:]) * expand + y[0] * math.prod(y[2:]) * (kernels + project)


def transposed_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Inputs × (k/groups) × kernel: every input reaches the whole kernel."""
    return math.prod(operand(shapes, 0)) * math.prod(operand(shapes, 1)[1:])


def dense_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Batch × inputs × outputs."""
    return out[0][0] * math.prod(operand(shapes, 1))
