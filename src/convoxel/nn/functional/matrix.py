"""Linear layers as matrices: ``matrix @ x.ravel()`` is the output of the layer for x."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from convoxel.annotation import fits
from convoxel.arithmetic.argument import whole
from convoxel.arithmetic.window import Pair, conv_size, span, transposed_size
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief
from convoxel.nn.functional.arguments import axes_of, check_sizes
from convoxel.nn.functional.border import border_index, check_mode
from convoxel.nn.functional.correlation import Padding, Sizes, correlate
from convoxel.nn.functional.resize import axis_taps, check_options, resize
from convoxel.nn.torch_layers import check_dims, padding_pairs

FORMS = ("scipy", "torch", "dense", "operator")
ORDERS = ("row", "column")

Array = NDArray[Any]
Weights = Array | Tensor
# The matrix in one of ``FORMS``. SciPy, which holds two of them, has no types.
Matrix = Any

_MOST_ENTRIES = 2**30  # of a dense matrix: 8 GB in float64


def check_matrix(name: str, matrix: Matrix) -> None:
    """Raise ConfigError unless ``matrix`` is a tensor, a matrix of SciPy's or becomes an array of numbers.

    Every entry of a dense one is looked at, so there is a bound.
    """
    known = isinstance(matrix, Tensor) or hasattr(matrix, "toarray") or fits(matrix, ArrayLike)
    if not known or (matrix.ndim if hasattr(matrix, "ndim") else np.ndim(matrix)) != 2:
        raise ConfigError(f"{name}: matrix is {brief(matrix)}, but it must be a 2-D tensor, array or SciPy matrix.")
    dense = matrix.layout == torch.strided if isinstance(matrix, Tensor) else not hasattr(matrix, "toarray")
    if dense and math.prod(np.shape(matrix)) > _MOST_ENTRIES:
        raise ConfigError(
            f"{name}: matrix is {tuple(matrix.shape)}, which is too large; give it sparse, or a part of it."
        )


@dataclass(frozen=True)
class Pattern:
    """The places of the weights of one kernel in its rows of the matrix, for one group of channels.

    Row p (an output position) holds in ``columns[start[p] : start[p + 1]]`` the inputs that it reads, ascending where
    nothing repeats, and in ``taps`` the index of the weight there, counted through channels and kernel.
    """

    start: Array
    columns: Array
    taps: Array
    output: tuple[int, ...]


def find_pattern(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pairs: Sequence[Pair],
    dilation: Sequence[int],
    padding_mode: str,
    channels: int,
) -> Pattern:
    """Return the pattern of a convolution; nothing in it depends on the weights."""
    dims, elements, taps = len(size), math.prod(size), math.prod(kernel)
    index, inside = np.zeros((1,) * (2 * dims), np.int64), np.ones((1,) * (2 * dims), bool)
    output = tuple(conv_size(*window) for window in zip(size, kernel, stride, pairs, dilation, strict=True))
    for axis, (o, k) in enumerate(zip(output, kernel, strict=True)):
        places = np.arange(o)[:, None] * stride[axis] + np.arange(k) * dilation[axis]
        source = border_index(size[axis], pairs[axis], padding_mode)[places]
        shape = [o if a == axis else k if a == dims + axis else 1 for a in range(2 * dims)]
        index, inside = index * size[axis] + source.reshape(shape), inside & (source >= 0).reshape(shape)
    narrow = np.int32 if channels * elements < 2**31 else np.int64
    index, inside = index.reshape(-1, 1, taps).astype(narrow), inside.reshape(-1, 1, taps)
    columns = index + (np.arange(channels, dtype=narrow) * narrow(elements))[:, None]
    weights = np.broadcast_to(np.arange(channels * taps, dtype=np.int32).reshape(channels, taps), columns.shape)
    start = np.concatenate([[0], np.cumsum(inside.sum(axis=(1, 2)) * channels)])
    if inside.all():
        return Pattern(start, columns.reshape(-1), weights.reshape(-1), output)
    kept = np.broadcast_to(inside, columns.shape)
    return Pattern(start, columns[kept], weights[kept], output)


def convolution_matrix(
    w: Weights,
    size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    form: str = "scipy",
    order: str = "row",
) -> Matrix:
    """Return the matrix M of a correlation: ``M @ x.ravel() == correlate(x, w, …).ravel()`` for x without a batch.

    M[(o, p), (c, q)] = Σ of w[o, c, m] over all m with s p + d m − p_before = q (Goodfellow et al. 2016, §9.1).

    Args:
        w: ``(o, c / groups, *kernel)``, a tensor or an array; for ``form="dense"`` of symbols too (dtype object).
        size: spatial size of x, one for each axis (an int only for 1-D).
        padding_mode: as for :func:`correlate`, without ``"constant"``, which no matrix expresses.
        form: ``"scipy"`` (``csr_array``), ``"torch"`` (sparse COO) or ``"dense"`` (a tensor), both with gradients to w,
            or ``"operator"``: a ``scipy.sparse.linalg.LinearOperator`` that convolves and builds nothing.
        order: ``"row"`` (the last axis fastest) or ``"column"`` (as ``x.ravel(order="F")``, for x and the result).

    Returns:
        ``(o · ∏output, c · ∏size)`` in the form asked for.

    Raises:
        ShapeError: the kernel does not fit. ConfigError: an unknown word, or a padding that is not linear.

    >>> convolution_matrix(np.array([[[1, 2]]]), 4).toarray()
    array([[1, 2, 0, 0],
           [0, 1, 2, 0],
           [0, 0, 1, 2]])
    """
    name = "convolution_matrix"
    _check(name, form, order, padding_mode)
    dims = w.ndim - 2
    if dims not in (1, 2, 3) or whole(f"{name}: groups", groups, 1) > w.shape[0] or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: w is {tuple(w.shape)} with groups={groups}; expected (o, c / groups, *kernel), o a multiple."
        )
    sizes, kernel = check_sizes(name, "size", size, dims), tuple(w.shape[2:])
    strides, dilations = (check_sizes(name, "stride", stride, dims), check_sizes(name, "dilation", dilation, dims))
    pairs = padding_pairs(padding, kernel, strides, dilations, sizes)
    into, out = (w.shape[1] * groups, *sizes), w.shape[0]
    if form == "operator":
        weights = torch.as_tensor(w).detach()
        layer = partial(
            correlate, w=weights, stride=strides, padding=pairs, dilation=dilations, groups=groups,
            padding_mode=padding_mode,
        )  # fmt: skip
        return _operator(layer, into, weights, order)
    pattern = find_pattern(sizes, kernel, strides, pairs, dilations, padding_mode, w.shape[1])
    shapes = (out, *pattern.output), into
    if form == "scipy":
        return _csr(w, pattern, groups, shapes, order, padding_mode)
    count = len(pattern.taps)
    rows = np.repeat(np.arange(len(pattern.start) - 1), np.diff(pattern.start))
    first = np.arange(out)[:, None]
    triplets = (
        (first * math.prod(pattern.output) + rows).reshape(-1),
        (first // (out // groups) * w.shape[1] * math.prod(sizes) + pattern.columns).reshape(-1),
        (first * math.prod(w.shape[1:]) + pattern.taps).reshape(-1),
    )
    assert len(triplets[2]) == out * count
    return _assemble(w, triplets, shapes, form, order)


def transposed_matrix(
    w: Weights,
    size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    output_padding: Sizes = 0,
    output_size: Sizes | None = None,
    dilation: Sizes = 1,
    groups: int = 1,
    form: str = "scipy",
    order: str = "row",
) -> Matrix:
    """Return the matrix of a transposed convolution: exactly the transpose of the convolution's (DV §4).

    ``M @ x.ravel() == conv_transpose(x, w, …).ravel()`` for x without a batch.

    Args:
        w: ``(c, o / groups, *kernel)``, the weights of the convolution that is transposed.
        size: spatial size of x, one for each axis (an int only for 1-D).
        stride, padding, output_padding, output_size, dilation, groups: as for :func:`conv_transpose`.
        form, order: as for :func:`convolution_matrix`.

    Returns:
        ``(o · ∏output, c · ∏size)``.

    Raises:
        ShapeError: sizes do not fit. ConfigError: an unknown word.

    >>> transposed_matrix(np.array([[[1, 2]]]), 2, stride=2).toarray()
    array([[1, 0],
           [2, 0],
           [0, 1],
           [0, 2]])
    """
    name = "transposed_matrix"
    dims = w.ndim - 2
    sizes, kernel = check_sizes(name, "size", size, dims), tuple(w.shape[2:])
    strides, dilations = (check_sizes(name, "stride", stride, dims), check_sizes(name, "dilation", dilation, dims))
    extra = check_sizes(name, "output_padding", output_padding, dims, least=0)
    wanted = None if output_size is None else check_sizes(name, "output_size", output_size, dims)
    pairs = padding_pairs(padding, kernel, strides, dilations, wanted)
    window = list(zip(sizes, kernel, strides, pairs, dilations, strict=True))
    outputs = wanted or tuple(
        transposed_size(i, k, s, p, d, a) for (i, k, s, p, d), a in zip(window, extra, strict=True)
    )
    for o, (i, k, s, p, d) in zip(outputs, window, strict=True):
        if wanted is not None and conv_size(o, k, s, p, d) != i:
            raise ShapeError(
                f"{name}: output_size is {wanted}, but a convolution makes {conv_size(o, k, s, p, d)} of {o}, not {i}."
            )
    # The convolution that reads just as far as x goes, so that its outputs are the elements of x.
    ends = [(p[0], (i - 1) * s + span(k, d) - o - p[0]) for o, (i, k, s, p, d) in zip(outputs, window, strict=True)]
    matrix = convolution_matrix(
        w, outputs, stride=strides, padding=ends, dilation=dilations, groups=groups, form=form, order=order
    )
    if form == "torch":
        return matrix.t().coalesce()
    return matrix.T.tocsr() if form == "scipy" else matrix.T


def resize_matrix(
    size: Sizes,
    output_size: Sizes,
    *,
    mode: str = "linear",
    order_of_spline: int = 3,
    align_corners: bool = False,
    antialias: bool = False,
    form: str = "scipy",
    order: str = "row",
    dims: int | None = None,
) -> Matrix:
    """Return the matrix of a resize of one channel: ``M @ x.ravel() == resize(x, output_size, …).ravel()``.

    An interpolation is linear in the values, and along each axis for itself: M is the Kronecker product of its axes.

    Args:
        size: spatial size of x, one for each axis (an int for 1-D, or with ``dims``).
        output_size: wanted size, likewise.
        mode, align_corners, antialias: as for :func:`resize`; ``order_of_spline`` is its ``order``.
        form, order: as for :func:`convolution_matrix`.
        dims: number of spatial axes, where both sizes are an int.

    Returns:
        ``(∏output_size, ∏size)``, float64.

    Raises:
        ConfigError: an argument is unknown.

    >>> resize_matrix(2, 4).toarray().tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    from scipy import sparse

    name = "resize_matrix"
    _check(name, form, order, "zeros")
    order_of_spline, align_corners, antialias = check_options(mode, order_of_spline, align_corners, antialias)
    axes = axes_of(name, "size", size) if dims is None else check_dims(dims)
    sizes, outputs = check_sizes(name, "size", size, axes), check_sizes(name, "output_size", output_size, axes)
    if form == "operator":
        plain = partial(
            resize, size=outputs, mode=mode, order=order_of_spline, align_corners=align_corners, antialias=antialias
        )
        # The one channel that resize keeps.
        return _operator(lambda x: plain(x[:, None])[:, 0], sizes, torch.zeros((), dtype=torch.float64), order)
    factors = []
    for i, o in zip(sizes, outputs, strict=True):
        place, weight = axis_taps(i, o, mode, order_of_spline, align_corners, antialias)
        rows = np.repeat(np.arange(o), place.shape[1])
        factor = sparse.coo_array((weight.reshape(-1), (rows, place.reshape(-1))), shape=(o, i)).tocsr()
        factor.eliminate_zeros()
        factors.append(factor)
    # In column-major order the first axis is the fastest.
    matrix = reduce(lambda a, b: sparse.kron(a, b, format="csr"), factors if order == "row" else factors[::-1])
    if form == "scipy":
        return matrix
    found = matrix.tocoo()
    where = torch.from_numpy(np.stack([found.row, found.col]).astype(np.int64))
    tensor = torch.sparse_coo_tensor(
        where, torch.from_numpy(found.data), found.shape, check_invariants=False
    ).coalesce()
    return tensor if form == "torch" else tensor.to_dense()


def _check(name: str, form: str, order: str, padding_mode: str) -> None:
    check_mode(padding_mode)
    if form not in FORMS or order not in ORDERS:
        raise ConfigError(
            f"{name}: form is {form!r} and order {order!r}, but they can be {', '.join(map(repr, FORMS))} and "
            f"{', '.join(map(repr, ORDERS))}."
        )
    if padding_mode == "constant":
        raise ConfigError(
            f"{name}: padding_mode 'constant' adds a value whatever x is, which is not linear. Use 'zeros' and add "
            "what the layer makes of zeros."
        )


def _csr(
    w: Weights,
    pattern: Pattern,
    groups: int,
    shapes: tuple[Sequence[int], Sequence[int]],
    order: str,
    padding_mode: str,
) -> Matrix:
    from scipy import sparse

    values = w.detach().cpu().numpy() if isinstance(w, Tensor) else np.asarray(w)
    (out, *output), into = shapes
    count, per_group = len(pattern.taps), math.prod(into) // groups
    wide = np.int64 if max(out * count, math.prod(into)) >= 2**31 else np.int32
    columns, data = np.empty((out, count), wide), np.empty((out, count), values.dtype)
    for kernel, taken in enumerate(values.reshape(out, -1)):
        np.add(pattern.columns, wide(kernel // (out // groups) * per_group), out=columns[kernel])
        np.take(taken, pattern.taps, out=data[kernel], mode="clip")  # "clip" spares NumPy a copy of the result
    starts = np.concatenate([[0], (pattern.start[1:] + np.arange(out)[:, None] * count).reshape(-1)]).astype(wide)
    shape = out * math.prod(output), math.prod(into)
    matrix = sparse.csr_array((data.reshape(-1), columns.reshape(-1), starts), shape=shape)
    if padding_mode != "zeros":
        matrix.sum_duplicates()  # what lies outside repeats inputs, out of order
    if order == "column":
        rows, places = (np.arange(math.prod(shape)).reshape(shape).ravel("F") for shape in shapes)
        matrix = matrix[rows][:, places]
        matrix.sort_indices()
    return matrix


def _assemble(
    w: Weights, triplets: tuple[Array, Array, Array], shapes: tuple[Sequence[int], Sequence[int]], form: str, order: str
) -> Matrix:
    """Return a tensor whose element (row, column) is the sum of the weights that belong there."""
    rows, columns, taps = triplets
    if order == "column":  # element k of the row-major order comes at place moved[k]
        moved = [np.argsort(np.arange(math.prod(shape)).reshape(shape).ravel("F")) for shape in shapes]
        rows, columns = moved[0][rows], moved[1][columns]
    shape = math.prod(shapes[0]), math.prod(shapes[1])
    if not isinstance(w, Tensor) and np.asarray(w).dtype == object:
        symbolic = np.zeros(shape, object)
        np.add.at(symbolic, (rows, columns), np.asarray(w).reshape(-1)[taps])
        return symbolic
    weights = torch.as_tensor(w)
    place = [torch.from_numpy(np.asarray(part, np.int64)).to(weights.device) for part in (rows, columns, taps)]
    values = weights.reshape(-1)[place[2]]
    if form == "torch":
        return torch.sparse_coo_tensor(torch.stack(place[:2]), values, shape, check_invariants=False).coalesce()
    flat = torch.zeros(shape[0] * shape[1], dtype=weights.dtype, device=weights.device)
    return flat.index_add(0, place[0] * shape[1] + place[1], values).reshape(shape)


def _operator(layer: Callable[[Tensor], Tensor], into: Sequence[int], like: Tensor, order: str) -> Matrix:
    """Return a linear function of ``(n, *into)`` as an operator, whose adjoint is the function's gradient."""
    from scipy.sparse.linalg import LinearOperator

    flag = "C" if order == "row" else "F"
    empty = torch.zeros((1, *into), dtype=like.dtype, device=like.device)
    output = tuple(layer(empty).shape[1:])

    def unravel(columns: Array, shape: Sequence[int]) -> Tensor:
        each = [column.reshape(shape, order=flag) for column in np.asarray(columns).T]
        return torch.tensor(np.stack(each), dtype=like.dtype, device=like.device)

    def ravel(results: Tensor) -> Array:
        return np.stack([result.ravel(order=flag) for result in results.detach().cpu().numpy()], axis=1)

    def forward(columns: Array) -> Array:
        return ravel(layer(unravel(columns, into)))

    def adjoint(columns: Array) -> Array:
        seeds = unravel(columns, output)
        with torch.enable_grad():
            x = empty.expand(len(seeds), *into).clone().requires_grad_()
            (found,) = torch.autograd.grad(layer(x), x, seeds)
        return ravel(found)

    return LinearOperator(
        (math.prod(output), math.prod(into)),
        matvec=lambda v: forward(v.reshape(-1, 1))[:, 0],
        rmatvec=lambda v: adjoint(v.reshape(-1, 1))[:, 0],
        matmat=forward,
        rmatmat=adjoint,
        dtype=empty.cpu().numpy().dtype,
    )
