"""Shape rules of the operators on arrays; see ``rules`` for what a shape rule is."""

from __future__ import annotations

import math
from typing import Any

from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, Size, differ
from convoxel.graph.operators import rules
from convoxel.graph.operators.rules import Shapes, operand, stretch


def stretched(node: Node, shapes: Shapes) -> list[Shape]:
    """All operands are stretched to one shape."""
    return [stretch([shape for shape in shapes if shape is not None])]


def onto(node: Node, shapes: Shapes) -> list[Shape]:
    """The others are stretched to the first operand, which keeps its shape."""
    x = operand(shapes, 0)
    if len(stretch([shape for shape in shapes if shape is not None])) != len(x):
        raise ShapeError(f"cannot stretch {' and '.join(map(str, shapes[1:]))} to {x}")
    return [x]


def reduced(node: Node, shapes: Shapes) -> list[Shape]:
    """The axes go, or stay with size 1."""
    x, axes = operand(shapes, 0), node["axes"]
    if node["keep"]:
        return [tuple(1 if axis in axes else size for axis, size in enumerate(x))]
    return [tuple(size for axis, size in enumerate(x) if axis not in axes)]


def arg_reduced(node: Node, shapes: Shapes) -> list[Shape]:
    """One axis goes, or stays with size 1."""
    x, one = operand(shapes, 0), node["axis"]
    return [tuple(1 if i == one else s for i, s in enumerate(x) if node["keep"] or i != one)]


def layer_norm(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and the mean and deviation with the normalised axes at size 1."""
    x = operand(shapes, 0)
    axis = node["axis"] % len(x)
    small = (*x[:axis], *(1,) * (len(x) - axis))
    return [x, small, small]


def batch_norm(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and one mean and variance for each channel."""
    return [operand(shapes, 0), operand(shapes, 3), operand(shapes, 4)]


def transpose(node: Node, shapes: Shapes) -> list[Shape]:
    """Axis i of the result is axis axes[i] of the operand."""
    x = operand(shapes, 0)
    if sorted(node["axes"]) != list(range(len(x))):
        raise ShapeError(f"cannot order the axes of {x} as {node['axes']}")
    return [tuple(x[axis] for axis in node["axes"])]


def slice_axes(node: Node, shapes: Shapes) -> list[Shape]:
    """A range of every axis."""
    x = operand(shapes, 0)
    return [
        tuple(
            rules.range_length(*bounds) for bounds in zip(x, node["starts"], node["stops"], node["steps"], strict=True)
        )
    ]


def gather(node: Node, shapes: Shapes) -> list[Shape]:
    """The index's axes take the place of one axis."""
    x, index, axis = operand(shapes, 0), operand(shapes, 1), node["axis"]
    return [(*x[:axis], *index, *x[axis + 1 :])]


def indexed(node: Node, shapes: Shapes) -> list[Shape]:
    """The result has the shape of the index."""
    return [operand(shapes, 1)]


def expand(node: Node, shapes: Shapes) -> list[Shape]:
    """Stretched with the shape asked for."""
    return [stretch([operand(shapes, 0), tuple(node["shape"])])]


def given(node: Node, shapes: Shapes) -> list[Shape]:
    """The shape is an attribute."""
    return [tuple(node["shape"])]


def tile(node: Node, shapes: Shapes) -> list[Shape]:
    """Every axis repeated."""
    return [tuple(size * count for size, count in zip(operand(shapes, 0), node["repeats"], strict=True))]


def pad(node: Node, shapes: Shapes) -> list[Shape]:
    """Every axis longer by its padding."""
    x = operand(shapes, 0)
    return [tuple(size + low + high for size, (low, high) in zip(x, node["padding"], strict=True))]


def depth_to_space(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c / block^dims, … · block)."""
    n, c, *space = operand(shapes, 0)
    volume = node["block"] ** len(space)
    if c % volume:
        raise ShapeError(f"{c} channels cannot be spread over blocks of {volume}: expected a multiple")
    return [(n, c // volume, *(size * node["block"] for size in space))]


def space_to_depth(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c · block^dims, … / block)."""
    n, c, *space = operand(shapes, 0)
    block = node["block"]
    for size in space:
        if not isinstance(size, Size) and size % block:
            raise ShapeError(f"an axis of {size} cannot be cut into blocks of {block}: expected a multiple")
    return [(n, c * block ** len(space), *(size // block for size in space))]


def top(node: Node, shapes: Shapes) -> list[Shape]:
    """Values and indices with ``count`` along one axis."""
    shape = tuple(node["count"] if i == node["axis"] else size for i, size in enumerate(operand(shapes, 0)))
    return [shape, shape]


def matmul(node: Node, shapes: Shapes) -> list[Shape]:
    """NumPy's rule: an operand of one axis is a row on the left and a column on the right."""
    a, b = operand(shapes, 0), operand(shapes, 1)
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    if differ(left[-1], right[-2]):
        raise ShapeError(f"cannot multiply {a} with {b}: {left[-1]} columns meet {right[-2]} rows")
    batch = stretch([left[:-2], right[:-2]]) if len(left) > 2 or len(right) > 2 else ()
    rows = () if len(a) == 1 else (left[-2],)
    return [(*batch, *rows, *(() if len(b) == 1 else (right[-1],)))]


def einsum(node: Node, shapes: Shapes) -> list[Shape]:
    """The axes of the equation's right-hand side; an ellipsis is stretched."""
    terms, _, result = node["equation"].replace(" ", "").partition("->")
    names: dict[str, int] = {}
    rest: list[Shape] = []
    for term, shape in zip(terms.split(","), shapes, strict=True):
        assert shape is not None
        front, dots, back = term.partition("...")
        names.update(zip(front, shape, strict=False))
        names.update(zip(back, shape[len(shape) - len(back) :], strict=True) if back else ())
        if dots:
            rest.append(shape[len(front) : len(shape) - len(back)])
    if "->" not in node["equation"]:
        letters = sorted(set(terms) - set(",."))
        result = ("..." if rest else "") + "".join(letter for letter in letters if terms.count(letter) == 1)
    front, dots, back = result.partition("...")
    middle = stretch(rest) if dots and rest else ()
    return [(*(names[letter] for letter in front), *middle, *(names[letter] for letter in back))]


def _pooled(node: Node, x: Shape) -> Shape:
    spatial = tuple(
        rules.pool_length(*axis, node["ceil"])
        for axis in zip(x[2:], node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    return (*x[:2], *spatial)


def pool(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …)."""
    return [_pooled(node, operand(shapes, 0))]


def adaptive_pool_with_places(node: Node, shapes: Shapes) -> list[Shape]:
    """The maxima and where they are; a size of 0 keeps the axis."""
    return rules.adaptive_pool(node, shapes) * 2


def fractional_pool(node: Node, shapes: Shapes) -> list[Shape]:
    """The maxima and where they are: (n, c, *size)."""
    x = operand(shapes, 0)
    if any(old < new + k - 1 for old, new, k in zip(x[2:], node["size"], node["kernel"], strict=True)):
        raise ShapeError(f"x {x} is too small for {node['size']} windows of {node['kernel']}")
    return [(*x[:2], *node["size"])] * 2


def pool_with_places(node: Node, shapes: Shapes) -> list[Shape]:
    """The maxima and where they are."""
    return [_pooled(node, operand(shapes, 0))] * 2


def columns_to_image(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c · kernel, windows) → (n, c, *shape)."""
    x = operand(shapes, 0)
    return [(x[0], x[1] // math.prod(node["kernel"]), *node["shape"])]


def deformable(node: Node, shapes: Shapes) -> list[Shape]:
    """As a convolution; the offsets must lie on its result's grid."""
    x, w, offset = operand(shapes, 0), operand(shapes, 1), operand(shapes, 2)
    spatial = tuple(
        rules.conv_length(*axis)
        for axis in zip(x[2:], w[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    if any(map(differ, offset[2:], spatial)):
        raise ShapeError(f"the offsets {offset} do not lie on the result's grid {spatial}")
    return [(x[0], w[0], *spatial)]


def convolution(node: Node, shapes: Shapes) -> list[Shape]:
    """As the native operator, without a residual."""
    return rules.convolution(node, [*shapes[:3], None, None])


def transposed_convolution(node: Node, shapes: Shapes) -> list[Shape]:
    """As the native operator, without a residual."""
    return rules.transposed_convolution(node, [*shapes[:3], None])


def grid_sample(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) at (n, *out, dims) → (n, c, *out)."""
    x, grid = operand(shapes, 0), operand(shapes, 1)
    if differ(grid[-1], len(x) - 2):
        raise ShapeError(f"the grid {grid} has points of {grid[-1]} coordinates, x {x} has {len(x) - 2} spatial axes")
    return [(*x[:2], *grid[1:-1])]


def affine_grid(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, dims, dims + 1) → (n, *space, dims)."""
    size: Any = tuple(node["size"])
    return [(size[0], *size[2:], len(size) - 2)]


def resample(node: Node, shapes: Shapes) -> list[Shape]:
    """Axes with a length of 0 in ``size`` stay."""
    return [tuple(new or old for new, old in zip(node["size"], operand(shapes, 0), strict=True))]


def region_align(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, h, w) with (regions, 4) → (regions, c, *size)."""
    return [(operand(shapes, 1)[0], operand(shapes, 0)[1], *node["size"])]
