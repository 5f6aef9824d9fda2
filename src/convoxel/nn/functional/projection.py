"""The convolution nearest to a matrix: the prior of convolutional layers as a projection."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convoxel.errors import ShapeError
from convoxel.nn.functional.arguments import axes_of, check_sizes
from convoxel.nn.functional.correlation import Padding, Sizes
from convoxel.nn.functional.matrix import Matrix, check_matrix, find_pattern
from convoxel.nn.torch_layers import padding_pairs


class Projection(NamedTuple):
    """A convolution and its distance from the matrix that it approximates."""

    weight: Tensor
    """``(o, c, *kernel)``: the kernel of the nearest convolution."""
    distance: Tensor
    """‖M − matrix of ``weight``‖, Frobenius."""


def project_to_convolution(
    matrix: Matrix,
    size: Sizes,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    padding_mode: str = "zeros",
) -> Projection:
    """Return the convolution whose matrix is nearest to ``matrix``: min_w ‖M − A(w)‖_F.

    A convolution is a fully-connected layer with an infinitely strong prior (Goodfellow et al. 2016, §9.4): its
    weights are zero outside a window and equal along diagonals. Where each element of A(w) is one weight, the nearest
    w is the mean of M over the places of that weight; where borders add several, it solves the normal equations.

    Args:
        matrix: ``(o · ∏output, c · ∏size)``, dense or sparse; rows and columns as for :func:`convolution_matrix`.
        size: spatial size of the input, one for each axis (an int for 1-D).
        padding_mode: as for :func:`convolution_matrix`.

    Returns:
        The kernel and its distance. A weight that stands nowhere in the matrix (only ever on padding) is 0.

    Raises:
        ShapeError: the matrix is not made of blocks of these sizes. ConfigError: an argument is unknown.

    >>> found = project_to_convolution(torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 2.0]]), 3, 2)
    >>> found.weight.tolist(), round(float(found.distance), 4)
    ([[[2.0, 2.0]]], 1.4142)
    """
    name = "project_to_convolution"
    check_matrix(name, matrix)
    if not isinstance(matrix, Tensor):
        matrix = torch.as_tensor(matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix))
    dense = matrix.to_dense() if matrix.layout != torch.strided else matrix
    dims = axes_of(name, "size", size)
    sizes, kernel = check_sizes(name, "size", size, dims), check_sizes(name, "kernel_size", kernel_size, dims)
    strides, dilations = (check_sizes(name, "stride", stride, dims), check_sizes(name, "dilation", dilation, dims))
    pairs = padding_pairs(padding, kernel, strides, dilations, sizes)
    pattern = find_pattern(sizes, kernel, strides, pairs, dilations, padding_mode, channels=1)
    elements, positions, taps = math.prod(sizes), math.prod(pattern.output), math.prod(kernel)
    if dense.dim() != 2 or dense.shape[0] % positions or dense.shape[1] % elements or not dense.numel():
        raise ShapeError(
            f"{name}: the matrix is {tuple(dense.shape)}; expected (o · {positions}, c · {elements}) for inputs of "
            f"{sizes}, which this kernel maps to {pattern.output}."
        )
    rows = np.repeat(np.arange(positions), np.diff(pattern.start))
    places = torch.from_numpy(rows * elements + pattern.columns).to(dense.device)
    which = torch.from_numpy(pattern.taps.astype(np.int64)).to(dense.device)
    # One column for each weight: the matrix that it alone makes.
    alone = torch.zeros(positions * elements, taps, dtype=dense.dtype, device=dense.device)
    alone.index_put_((places, which), torch.ones_like(places, dtype=dense.dtype), accumulate=True)
    blocks = dense.reshape(-1, positions, dense.shape[1] // elements, elements).transpose(1, 2).flatten(2)
    inverse = torch.linalg.pinv(alone.T @ alone, hermitian=True)
    weight = blocks @ alone @ inverse
    distance = torch.linalg.vector_norm(blocks - weight @ alone.T)
    return Projection(weight.reshape(*blocks.shape[:2], *kernel), distance)
