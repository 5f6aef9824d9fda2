"""Products of matrices: linear layers, and products of any type and number of axes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from convoxel import native
from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, differ
from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import EPILOGUE, Shapes, row
from convoxel.graph.operators.reads import Aligned, Applied, Reads, Unknown
from convoxel.graph.operators.region import Request, Restricted, full_box, need_engine, refuse_part
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import operand, stretch, with_residual
from convoxel.graph.operators.step import Step, bias, convolve
from convoxel.native.integer import convolve_whole


def linear_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(…, c) with weights (k, c) → (…, k), or (n, c, …) with weights (k, c·…) → (n, k) where x is flattened."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    features = math.prod(x[1:]) if node["flatten"] else x[-1]
    if differ(features, w[1]):
        raise ShapeError(
            f"x {x} has {features} features but the linear layer expects {w[1]}; "
            "the input's spatial size must be the one that the network was made for"
        )
    return [with_residual((*(x[:1] if node["flatten"] else x[:-1]), w[0]), shapes)]


def linear_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Results × inputs of each."""
    return math.prod(out[0]) * operand(shapes, 1)[1]


def _lower_linear(step: Step) -> None:
    """A linear layer is a convolution whose kernel is as large as its input, whatever was flattened before it.

    The weights' columns run over (c, d, h, w), which is the order of a convolution's weights too.
    """
    weight = step.constants[1]
    assert weight is not None
    _, d, h, w, c = step.x.shape

    def make() -> native.Convolution:
        return native.Convolution(np.ascontiguousarray(weight.reshape(-1, c, d, h, w), np.float32), bias(step))

    convolve(step, step.kernels.get((step.node.name, (d, h, w)), make), residual=step.inputs[3])


def _matmul_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """NumPy's rule: an operand of one axis is a row on the left and a column on the right."""
    a, b = operand(shapes, 0), operand(shapes, 1)
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    if differ(left[-1], right[-2]):
        raise ShapeError(f"cannot multiply {a} with {b}: {left[-1]} columns meet {right[-2]} rows")
    batch = stretch([left[:-2], right[:-2]]) if len(left) > 2 or len(right) > 2 else ()
    rows = () if len(a) == 1 else (left[-2],)
    return [(*batch, *rows, *(() if len(b) == 1 else (right[-1],)))]


def _einsum_shape(node: Node, shapes: Shapes) -> list[Shape]:
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


def _wide(x: Array) -> Array:
    return x if (x.dtype.kind != "f" and x.dtype.kind in "iub") or x.dtype.itemsize >= 4 else x.astype(np.float32)


def _matmul(a: Array, b: Array) -> Array:
    """Return the matrix product over the last two axes; the others are stretched."""
    if a.dtype == b.dtype == np.int32 and b.ndim == 2 and a.ndim > 1 and a.size and b.size:
        rows = a.reshape(1, 1, 1, -1, a.shape[-1])
        where: dict[str, Any] = {"stride": (1, 1, 1), "padding_low": (0, 0, 0), "dilation": (1, 1, 1), "groups": 1}
        exact = convolve_whole(rows, b.T[:, :, None, None, None], (1, 1, rows.shape[3]), **where)
        if exact is not None:
            return exact.reshape(*a.shape[:-1], b.shape[1])
    return np.matmul(_wide(a), _wide(b))


def _einsum(*operands: Array, equation: str) -> Array:
    """Return the sum of products that the equation spells (Einstein's convention)."""
    return np.einsum(equation, *map(_wide, operands))


def _linear(x: Array, weight: Array, bias: Array | None, residual: None, flatten: bool, **epilogue: object) -> Array:
    """Return x · weightᵀ + bias over the last axis, or over all but the first."""
    product = _matmul(x.reshape(len(x), -1) if flatten else x, weight.T)
    return product if bias is None else product + bias


def _has_rows(site: Rewriter) -> bool:
    return len(site.x.shape) == 2 or site.node["flatten"]


def _native_product(site: Rewriter) -> bool:
    """A product with known weights is a linear layer."""
    weight = site.constant(1)
    if weight is None or weight.ndim != 2 or len(site.x.shape) != 2 or weight.dtype != np.float32:
        return False
    return site.last("linear", site.x.name, site.add(np.ascontiguousarray(weight.T), "weight"))


# ---- costs, what is read


def _matmul_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Results × columns of the left operand."""
    return math.prod(out[0]) * operand(shapes, 0)[-1]


def _einsum_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """The product of all letters' sizes, where operands are multiplied and some letter is summed over."""
    labels = _einsum_labels(node, shapes, out)
    sizes: dict[Hashable, int] = {}
    for letters, shape in zip(labels.operands, shapes, strict=True):
        for letter, size in zip(letters, shape or (), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    sums = len(labels.operands) > 1 and not sizes.keys() <= set(labels.result)
    return math.prod(sizes.values()) if sums else 0


def _einsum_labels(node: Node, shapes: Shapes, out: Sequence[Shape]) -> Aligned:
    """Return the labels of the axes: letters, and places from the last one on where dots stand for them."""
    terms, arrow, result = node["equation"].replace(" ", "").partition("->")
    if not arrow:
        letters = sorted(set(terms) - set(",."))
        result = ("..." if "..." in terms else "") + "".join(letter for letter in letters if terms.count(letter) == 1)

    def labels(term: str, rank: int) -> list[Hashable]:
        front, dots, back = term.partition("...")
        between = rank - len(front) - len(back) if dots else 0
        return [*front, *range(-between, 0), *back]

    ranks = [len(shape or ()) for shape in shapes]
    given = [labels(term, rank) for term, rank in zip(terms.split(","), ranks, strict=True)]
    return Aligned(given, labels(result, len(out[0])))


def _einsum_reads(applied: Applied) -> Reads:
    """As the equation says."""
    return _einsum_labels(applied.node, applied.inputs, applied.outputs)


def _matmul_reads(applied: Applied) -> Reads:
    """Rows of the left operand and columns of the right one."""
    a, b = (len(shape or ()) for shape in applied.inputs[:2])
    left: list[Hashable] = [*range(-max(a, 2), -2), *(["row"] if a > 1 else []), "inner"]
    right: list[Hashable] = [*range(-max(b, 2), -2), "inner", *(["column"] if b > 1 else [])]
    batch: Sequence[Hashable] = range(-max(a, b, 2), -2)
    return Aligned([left, right], [*batch, *(["row"] if a > 1 else []), *(["column"] if b > 1 else [])])


def _linear_reads(applied: Applied) -> Reads:
    """All features of the last axis, or of an image."""
    if applied.inputs[3] is not None:
        return Unknown("steps that were fused")
    axes = range(len(applied.x))
    kept = axes[:1] if applied.node["flatten"] else axes[:-1]
    return Aligned([axes, ["out", len(kept)]], [*kept, "out"])


def part_of_linear(request: Request) -> Restricted:
    """All features of an image; what is flattened is read as a whole."""
    need_engine(request)
    x, node = request.applied.x, request.applied.node
    read = (*request.box[:1], *full_box(x[1:], node.name if node["flatten"] else ""))
    beside = [request.box if shape == request.out else None for shape in request.applied.inputs[1:]]
    return Restricted(request.box, (read, *beside))


_by_library = refuse_part("multiplies matrices in NumPy, whose order of sums depends on their size")

ROWS = (
    row(
        f"linear(x, weight!, bias?!, residual?; flatten=False, {EPILOGUE})",
        linear_shape,
        _linear,
        _lower_linear,
        macs=linear_macs,
        fits=_has_rows,
        reads=_linear_reads,
        restrict=part_of_linear,
        stored="each",
    ),
    row(
        "einsum(terms*; equation)", _einsum_shape, _einsum, reads=_einsum_reads, macs=_einsum_macs, restrict=_by_library
    ),
    row(
        "matmul(a, b)",
        _matmul_shape,
        _matmul,
        to_native=_native_product,
        reads=_matmul_reads,
        macs=_matmul_macs,
        restrict=_by_library,
    ),
)
