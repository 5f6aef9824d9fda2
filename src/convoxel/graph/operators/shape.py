"""Shape rules that several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convoxel.arithmetic import window
from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, Size, both, choose, compare, differ, larger, smaller
from convoxel.graph.operators.operator import Shapes


def operand(shapes: Shapes, index: int) -> Shape:
    """Return the shape of an operand that must be there."""
    shape = shapes[index]
    assert shape is not None
    return shape


def positive(shape: Shape, what: str) -> Shape:
    if any(size < 1 for size in shape):
        raise ShapeError(f"the output would be {shape}: the input {what} is too small for the window")
    return shape


def check_channels(x: Shape, expected: int) -> None:
    if len(x) < 2 or differ(x[1], expected):
        came = x[1] if len(x) > 1 else "none"
        raise ShapeError(f"x {x} has {came} channels but the weights expect {expected}")


def length(rule: Callable[..., int], *axis: Any) -> int:
    """Return the length by ``rule``; a window that does not fit gives 0, reported with the whole shape."""
    try:
        return rule(*axis)
    except ShapeError:
        return 0


def unequal(a: Shape, b: Shape) -> bool:
    return len(a) != len(b) or any(map(differ, a, b))


def with_residual(shape: Shape, shapes: Shapes) -> Shape:
    if shapes[3] is not None and unequal(shapes[3], shape):
        raise ShapeError(f"cannot add {shapes[3]} to the convolution's {shape}: axes must be equal")
    return shape


def same(node: Node, shapes: Shapes) -> list[Shape]:
    """The result has the shape of the first operand."""
    return [operand(shapes, 0)]


def given(node: Node, shapes: Shapes) -> list[Shape]:
    """The shape is an attribute."""
    return [tuple(node["shape"])]


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


def stretched(node: Node, shapes: Shapes) -> list[Shape]:
    """All operands are stretched to one shape."""
    return [stretch([shape for shape in shapes if shape is not None])]


def onto(node: Node, shapes: Shapes) -> list[Shape]:
    """The others are stretched to the first operand, which keeps its shape."""
    x = operand(shapes, 0)
    if len(stretch([shape for shape in shapes if shape is not None])) != len(x):
        raise ShapeError(f"cannot stretch {' and '.join(map(str, shapes[1:]))} to {x}")
    return [x]


def conv_length(i: int, k: int, s: int, p: tuple[int, int], d: int) -> int:
    """Return the length of an axis after a convolution; the axis, or its padding, may be open."""
    if any(isinstance(size, Size) for size in (i, *p)):
        return window.conv_size(i + p[0] + p[1], k, s, 0, d)
    return window.conv_size(i, k, s, p, d)


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
    dropped = both(compare(">", last, 0), compare(">=", last * s, i + p[0]))
    return choose(dropped, last, last + 1)


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
    if isinstance(size, Size) and not isinstance(position, Size) and position < 0:
        return size + position  # an axis that is shorter leaves nothing, which is refused
    return choose(compare("<", position, 0), larger(size + position, low), smaller(position, high))
