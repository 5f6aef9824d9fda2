"""Kernels of convolutions as products of smaller ones: along space, along channels, or channel by channel.

A scheme turns weights (out, in, *kernel) and a permitted relative error ε = ‖W − Ŵ‖ / ‖W‖ into a row of smaller
convolutions whose composition has the kernel Ŵ. The schemes are rows of ``SCHEMES``:

- ``spatial``: one axis after the other, k×1 then 1×k, through R channels. W is a tensor train over its axes
  (Jaderberg, Vedaldi & Zisserman 2014, arXiv 1405.3866, scheme 2; Oseledets 2011, SIAM J. Sci. Comput. 33, TT-SVD);
  in 2-D a single singular value decomposition, hence the best for its rank.
- ``planar``: in 3-D 1×k×k then k×1×1, the 2.5-D kernel.
- ``channel``: 1×1 to fewer channels, the kernel there, 1×1 back (Tucker-2; Kim et al. 2016, arXiv 1511.06530). For a
  kernel of one position: two linear maps.
- ``channel_spatial``: the same with the kernel between them cut along space.
- ``depthwise``: a few kernels for each input channel, then 1×1 (Guo et al. 2018, arXiv 1808.05517).

Nothing here trains or measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Ranks are rounded up to what a kernel of the engine computes at once: fewer channels would cost as much.
_BLOCK = 8


@dataclass(frozen=True)
class Factor:
    """One of the smaller convolutions.

    Attributes:
        weight: (out, in / groups, *kernel), float64.
        axes: spatial axes whose stride, padding and dilation it has; along the others its kernel has size 1.
        groups: number of groups of channels (default 1).
    """

    weight: Tensor
    axes: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class Factorisation:
    """A kernel as smaller convolutions, the first applied first.

    Attributes:
        scheme: a key of ``SCHEMES``.
        ranks: channels between the factors; of ``depthwise`` the kernels for each input channel.
        factors: the convolutions.
        error: ‖W − Ŵ‖ / ‖W‖ (Frobenius).
    """

    scheme: str
    ranks: tuple[int, ...]
    factors: tuple[Factor, ...]
    error: float

    @property
    def params(self) -> int:
        """Weights of all factors."""
        return sum(factor.weight.numel() for factor in self.factors)


def factorise(weight: Tensor, scheme: str, error: float) -> Factorisation | None:
    """Return the cheapest factorisation of ``weight`` by ``scheme`` within a relative ``error``.

    Args:
        weight: (out, in, *kernel) of a convolution without groups.
        scheme: a key of ``SCHEMES``.
        error: permitted ‖W − Ŵ‖ / ‖W‖.

    Returns:
        None where the scheme does not apply (a kernel with one axis is not separable along axes).

    >>> u, v = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, -1.0])
    >>> found = factorise(torch.outer(u, v)[None, None], "spatial", 1e-6)
    >>> found.ranks, [tuple(factor.weight.shape) for factor in found.factors], round(found.error, 6)
    ((1,), [(1, 1, 3, 1), (1, 1, 1, 3)], 0.0)
    """
    return SCHEMES[scheme](weight.detach().double(), error)


# ---- along space -----------------------------------------------------------------------------------------


def _spatial(weight: Tensor, error: float) -> Factorisation | None:
    """Factorise into one convolution for each axis of more than one position."""
    wide = [axis for axis, size in enumerate(weight.shape[2:]) if size > 1]
    return None if len(wide) < 2 else _train("spatial", weight, [(axis,) for axis in wide], error)


def _planar(weight: Tensor, error: float) -> Factorisation | None:
    """Factorise into one convolution along height and width, then one along depth."""
    if weight.ndim != 5 or min(weight.shape[2:]) == 1:
        return None
    return _train("planar", weight, [(1, 2), (0,)], error)


def _train(scheme: str, weight: Tensor, parts: Sequence[tuple[int, ...]], error: float) -> Factorisation:
    """Return the tensor train whose cores hold the axes of ``parts``, from the inputs to the outputs."""
    outputs, inputs, *kernel = weight.shape
    idle = [axis for axis in range(len(kernel)) if not any(axis in part for part in parts)]
    order = [axis for part in parts for axis in part]
    rest = weight.squeeze(tuple(2 + axis for axis in idle)) if idle else weight
    places = {axis: 2 + place for place, axis in enumerate(sorted(order))}
    rest = rest.permute(1, *(places[axis] for axis in order), 0)
    lengths = [math.prod(kernel[axis] for axis in part) for part in parts]
    # n cores lose their shares in n - 1 cuts, whose squares add up.
    share = error * float(weight.norm()) / math.sqrt(len(parts) - 1)
    factors: list[Factor] = []
    before = inputs
    for place, part in enumerate(parts):
        owned = (*part, *idle) if place == 0 else part
        size = [kernel[axis] if axis in part else 1 for axis in range(len(kernel))]
        if place == len(parts) - 1:
            core = rest.reshape(before, lengths[place], outputs)
            after = outputs
        else:
            matrix = rest.reshape(before * lengths[place], -1)
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            after = _rank(values, share)
            # Half of each singular value on both sides: factors of equal size train evenly.
            root = values[:after].sqrt()
            core = (left[:, :after] * root).reshape(before, lengths[place], after)
            rest = root[:, None] * right[:after]
        made = core.permute(2, 0, 1).reshape(after, before, *(kernel[axis] for axis in part))
        factors.append(Factor(made.reshape(after, before, *size), owned))
        before = after
    ranks = tuple(factor.weight.shape[0] for factor in factors[:-1])
    return Factorisation(scheme, ranks, tuple(factors), _distance(weight, _compose_train(factors, parts, kernel)))


def _compose_train(factors: Sequence[Factor], parts: Sequence[tuple[int, ...]], kernel: Sequence[int]) -> Tensor:
    """Return the kernel (out, in, *kernel) of the composition of ``factors``."""
    total = factors[0].weight
    for factor in factors[1:]:
        # Their kernels lie along different axes, so positions multiply as they broadcast.
        total = torch.einsum("ba...,ac...->bc...", factor.weight, total)
    return total.expand(*total.shape[:2], *kernel)


# ---- along channels --------------------------------------------------------------------------------------


def _channel(weight: Tensor, error: float) -> Factorisation | None:
    """Factorise through fewer channels on both sides of the kernel (Tucker-2)."""
    outputs, inputs, *kernel = weight.shape
    axes = tuple(range(len(kernel)))
    point = (1,) * len(kernel)
    if math.prod(kernel) == 1:
        left, values, right = torch.linalg.svd(weight.reshape(outputs, inputs), full_matrices=False)
        rank = _rank(values, error * float(weight.norm()))
        root = values[:rank].sqrt()
        first, last = root[:, None] * right[:rank], left[:, :rank] * root
        pair = (Factor(first.reshape(rank, inputs, *point), axes), Factor(last.reshape(outputs, rank, *point), ()))
        return Factorisation("channel", (rank,), pair, _distance(weight.flatten(1), last @ first))
    share = error * float(weight.norm()) / math.sqrt(2)
    cube = weight.flatten(2)
    ranks = [_rank(_values(cube.movedim(mode, 0).flatten(1), share), share) for mode in (0, 1)]
    core, (into, out_of) = _channels_of(cube, ranks[0], ranks[1])
    total = torch.einsum("oa,abk,ib->oik", into, core, out_of)
    factors = (
        Factor(out_of.T.reshape(ranks[1], inputs, *point), ()),
        Factor(core.reshape(ranks[0], ranks[1], *kernel), axes),
        Factor(into.reshape(outputs, ranks[0], *point), ()),
    )
    return Factorisation("channel", (ranks[1], ranks[0]), factors, _distance(cube, total))


def _channels_of(cube: Tensor, outputs: int, inputs: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return core and bases of the best Tucker-2 approximation of (out, in, positions) that alternation finds."""
    left, right = _leading(cube.flatten(1), outputs), _leading(cube.movedim(1, 0).flatten(1), inputs)
    for _ in range(_TURNS):
        left = _leading(torch.einsum("oik,ib->okb", cube, right).flatten(1), outputs)
        right = _leading(torch.einsum("oik,oa->ika", cube, left).flatten(1), inputs)
    return torch.einsum("oik,oa,ib->abk", cube, left, right), (left, right)


# Higher-order orthogonal iteration starts within √modes of the best (De Lathauwer et al. 2000, SIAM J. Matrix Anal.
# 21) and has settled after a few turns.
_TURNS = 3


def _leading(matrix: Tensor, count: int) -> Tensor:
    """Return the first left singular vectors; a wide matrix M takes those of the small M Mᵀ, thirty times as fast.

    Singular values are squared there, so those below 1e-8 of the largest are noise; :func:`_values` counts ranks.
    """
    if matrix.shape[0] > matrix.shape[1]:
        basis: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0]
    else:
        basis = torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)
    return basis[:, :count]


def _values(matrix: Tensor, share: float) -> Tensor:
    """Return singular values, of a wide M by M Mᵀ if a ``share`` of 1e-6, far above the noise there, may be lost."""
    if matrix.shape[0] > matrix.shape[1] or share < 1e-6 * float(matrix.norm()):
        values: Tensor = torch.linalg.svdvals(matrix)
    else:
        values = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0).clamp_min(0.0).sqrt()
    return values


# ---- channel by channel ------------------------------------------------------------------------------------


def _depthwise(weight: Tensor, error: float) -> Factorisation | None:
    """Factorise into a few kernels for each input channel, then a 1×1 convolution."""
    outputs, inputs, *kernel = weight.shape
    if math.prod(kernel) == 1:
        return None
    left, values, right = torch.linalg.svd(weight.flatten(2).transpose(0, 1), full_matrices=False)  # (in, out, kernel)
    lost = values.square().sum(0).flip(0).cumsum(0).flip(0)  # of keeping 0, 1, … kernels for each channel
    within = (lost <= (error * float(weight.norm())) ** 2).nonzero()
    count = max(1, int(within[0])) if len(within) else values.shape[1]
    root = values[:, :count].sqrt()
    each = root[:, :, None] * right[:, :count]
    mix = (left[:, :, :count] * root[:, None]).permute(1, 0, 2)
    factors = (
        Factor(each.reshape(inputs * count, 1, *kernel), tuple(range(len(kernel))), inputs),
        Factor(mix.reshape(outputs, inputs * count, *(1,) * len(kernel)), ()),
    )
    total = torch.einsum("oir,irk->oik", mix, each)
    return Factorisation("depthwise", (count,), factors, _distance(weight.flatten(2), total))


# ---- along channels and space ------------------------------------------------------------------------------


def _channel_spatial(weight: Tensor, error: float) -> Factorisation | None:
    """Factorise along channels, and the kernel that is left in the middle into one convolution for each axis.

    The middle is an orthogonal projection of the kernel, so the squares of both errors add up.
    """
    wide = [(axis,) for axis, size in enumerate(weight.shape[2:]) if size > 1]
    if len(wide) < 2:
        return None
    outer = _channel(weight, error / math.sqrt(2))
    assert outer is not None  # it applies to every kernel
    first, core, last = outer.factors
    share = float(core.weight.norm()) / (float(weight.norm()) or 1.0)
    left = math.sqrt(max(error**2 - outer.error**2, 0.0)) / (share or 1.0)
    inner = _train("spatial", core.weight, wide, left)
    ranks = (outer.ranks[0], *inner.ranks, outer.ranks[1])
    total = math.hypot(outer.error, inner.error * share)
    return Factorisation("channel_spatial", ranks, (first, *inner.factors, last), total)


SCHEMES: dict[str, Callable[[Tensor, float], Factorisation | None]] = {
    "spatial": _spatial,
    "planar": _planar,
    "channel": _channel,
    "channel_spatial": _channel_spatial,
    "depthwise": _depthwise,
}


# ---- single kernels --------------------------------------------------------------------------------------


def tucker(kernel: Tensor, ranks: Sequence[int]) -> Tensor:
    """Return the nearest kernel whose unfoldings have ``ranks`` that higher-order orthogonal iteration finds.

    >>> cube = torch.ones(3, 3, 3)
    >>> torch.allclose(tucker(cube, (1, 1, 1)), cube.double())
    True
    """
    cube = kernel.detach().double()
    bases = [_leading(cube.movedim(mode, 0).flatten(1), rank) for mode, rank in enumerate(ranks)]
    for _ in range(_TURNS * len(bases)):
        for mode, rank in enumerate(ranks):
            seen = cube
            for other, basis in enumerate(bases):
                if other != mode:
                    seen = _along(seen, basis.T, other)
            bases[mode] = _leading(seen.movedim(mode, 0).flatten(1), rank)
    for mode, basis in enumerate(bases):
        cube = _along(cube, basis @ basis.T, mode)
    return cube


def _along(cube: Tensor, matrix: Tensor, mode: int) -> Tensor:
    product: Tensor = torch.tensordot(matrix, cube, dims=([1], [mode]))
    return product.movedim(0, mode)


def canonical(kernel: Tensor, rank: int, turns: int = 200) -> Tensor:
    """Return a sum of ``rank`` outer products near ``kernel``, by alternating least squares (CP).

    One product is the best there is (up to a local minimum); several are a result of the iteration (Kolda & Bader 2009,
    SIAM Review 51, §3.4). Starts are drawn with a fixed seed, so results repeat.

    >>> u = torch.tensor([1.0, 2.0, 1.0])
    >>> cube = torch.einsum("i,j,k->ijk", u, u, u)
    >>> torch.allclose(canonical(cube, 1), cube.double())
    True
    """
    cube = kernel.detach().double()
    if rank == 1:
        return tucker(cube, (1,) * cube.ndim)
    draw = torch.Generator().manual_seed(0)
    factors = [torch.randn(size, rank, generator=draw, dtype=torch.float64) for size in cube.shape]
    modes = "ijk"[: cube.ndim]
    for _ in range(turns):
        for mode in range(cube.ndim):
            others = [place for place in range(cube.ndim) if place != mode]
            gram = torch.ones(rank, rank, dtype=torch.float64)
            for other in others:
                gram = gram * (factors[other].T @ factors[other])
            terms = ",".join(f"{modes[other]}r" for other in others)
            seen = torch.einsum(f"{modes},{terms}->{modes[mode]}r", cube, *(factors[other] for other in others))
            factors[mode] = seen @ torch.linalg.pinv(gram)
    return torch.einsum(f"{','.join(f'{mode}r' for mode in modes)}->{modes}", *factors)


def _rank(values: Tensor, limit: float) -> int:
    """Return the smallest number of singular values, in whole blocks, whose remainder is at most ``limit``."""
    lost = values.square().flip(0).cumsum(0).flip(0).sqrt()
    within = (lost <= limit).nonzero()
    rank = max(1, int(within[0])) if len(within) else len(values)
    return rank if rank < _BLOCK else min(-(-rank // _BLOCK) * _BLOCK, len(values))


def _distance(weight: Tensor, found: Tensor) -> float:
    size = float(weight.norm())
    return float((weight - found.reshape(weight.shape)).norm()) / size if size else 0.0
