"""Gradients of every public function in 1, 2 and 3 dimensions, first and second, against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from convoxel.nn import functional as cf

# What gives no tensor that depends on a tensor: words, records, a matrix of sizes alone, a check.
WITHOUT = {
    "PADDING_MODES", "RESIZE_MODES", "UNPOOL_MODES", "Projection", "ToeplitzStructure", "resize_matrix",
    "toeplitz_structure",
}  # fmt: skip


class Case(NamedTuple):
    """A call of a public function on leaves for a number of axes; PyTorch's sparse tensors are differentiable once."""

    function: str
    call: Callable[..., object]
    leaves: Callable[[int], list[Tensor]]
    twice: bool = True


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def distinct(*shape: int) -> Tensor:
    """Values of which no two are near each other: a maximum there has a gradient."""
    order = torch.randperm(math.prod(shape), generator=torch.manual_seed(0))
    return order.to(torch.float64).reshape(shape) / 7


def image(dims: int) -> list[Tensor]:
    return [distinct(1, 1, *[3] * dims)]


def layer(dims: int) -> list[Tensor]:
    return [normal(1, 2, *[3] * dims), normal(2, 1, *[2] * dims, seed=1), normal(2, seed=2)]


def strided(dims: int) -> dict[str, object]:
    return {"stride": 2, "padding": [(1, 0)] * dims, "groups": 2}


def moving(dims: int) -> list[Tensor]:
    offset = 0.2 + 0.3 * torch.rand(1, dims * 2**dims, *[2] * dims, dtype=torch.float64)
    mask = normal(1, 2**dims, *[2] * dims, seed=3)
    return [normal(1, 1, *[3] * dims), offset, normal(1, 1, *[2] * dims, seed=1), mask]


def unpooled(x: Tensor) -> Tensor:
    _, index = cf.max_pool(distinct(*x.shape[:2], *(2 * size for size in x.shape[2:])), 2, return_indices=True)
    return cf.unpool(x, 2, mode="indices", indices=index)


def axes(x: Tensor) -> int:
    return x.dim() - 2


CASES = {
    "correlate": Case("correlate", lambda x, w, b: cf.correlate(x, w, b, **strided(axes(x)), padding_mode="circular"),
                      layer),
    "convolve": Case("convolve", lambda x, w, b: cf.convolve(x, w, b, **strided(axes(x)), padding_mode="reflect"),
                     layer),
    "conv_transpose": Case("conv_transpose", lambda x, w, b: cf.conv_transpose(x, w, b, **strided(axes(x))), layer),
    "matrix": Case("convolution_matrix", lambda w: cf.convolution_matrix(w, (2,) * axes(w), padding=1, form="dense"),
                   lambda dims: [normal(1, 1, *[2] * dims)]),
    "sparse matrix": Case("convolution_matrix",
                          lambda w: cf.convolution_matrix(w, (2,) * axes(w), form="torch").to_dense(),
                          lambda dims: [normal(1, 1, *[2] * dims)], twice=False),
    "transposed matrix": Case("transposed_matrix", lambda w: cf.transposed_matrix(w, (2,) * axes(w), form="dense"),
                              lambda dims: [normal(1, 1, *[2] * dims)]),
    "projection": Case("project_to_convolution",
                       lambda m: cf.project_to_convolution(m, (2,) * {4: 2, 8: 3}.get(m.shape[1], 1), 1),
                       lambda dims: [normal(2**dims, 2**dims)]),
    "deform": Case("deform_conv", lambda x, offset, w, mask: cf.deform_conv(x, offset, w, mask=mask), moving),
    "dynamic": Case("dynamic_conv", cf.dynamic_conv,
                    lambda dims: [normal(2, 1, *[3] * dims), normal(2, 1, 1, *[2] * dims), normal(2, 1)]),
    "dynamic, each position": Case("dynamic_conv", lambda x, w: cf.dynamic_conv(x, w, padding_mode="replicate"),
                                   lambda dims: [normal(1, 2, *[3] * dims), normal(1, 1, 2, *[2] * dims, *[2] * dims)]),
    "separable": Case("separable", lambda x, *kernels: cf.separable(x, kernels),
                      lambda dims: [normal(1, 2, *[3] * dims), *(normal(2, seed=axis) for axis in range(dims))]),
    "depthwise separable": Case("depthwise_separable", cf.depthwise_separable,
                                lambda dims: [normal(1, 2, *[3] * dims), normal(2, 1, *[2] * dims), normal(3, 2)]),
    "average": Case("average_pool", lambda x: cf.average_pool(x, 2, stride=1, dilation=2, padding=1,
                                                              count_include_pad=False), image),
    "average as PyTorch": Case("average_pool", lambda x: cf.average_pool(x, 2), image),
    "adaptive average": Case("adaptive_average_pool", lambda x: cf.adaptive_average_pool(x, 2), image),
    "global average": Case("global_average_pool", cf.global_average_pool, image),
    "max": Case("max_pool", lambda x: cf.max_pool(x, 2, stride=1, padding=[(1, 0)] * axes(x)), image),
    "adaptive max": Case("adaptive_max_pool", lambda x: cf.adaptive_max_pool(x, 2), image),
    "global max": Case("global_max_pool", cf.global_max_pool, image),
    "blur": Case("blur_pool", cf.blur_pool, image),
    "linear": Case("resize", lambda x: cf.resize(x, 4), image),
    "cubic": Case("resize", lambda x: cf.resize(x, 4, mode="cubic"), image),
    "nearest": Case("resize", lambda x: cf.resize(x, 4, mode="nearest"), image),
    "area": Case("resize", lambda x: cf.resize(x, 2, mode="area"), image),
    "spline": Case("resize", lambda x: cf.resize(x, 4, mode="spline"), image),
    "antialias": Case("resize", lambda x: cf.resize(x, 2, mode="cubic", antialias=True), image),
    "fixed": Case("unpool", lambda x: cf.unpool(x, 2, mode="fixed"), image),
    "unpool average": Case("unpool", lambda x: cf.unpool(x, 2, mode="average"), image),
    "unpool overlapping": Case("unpool", lambda x: cf.unpool(x, 3, mode="average", stride=2), image),
    "unpool nearest": Case("unpool", lambda x: cf.unpool(x, 2), image),
    "unpool to indices": Case("unpool", unpooled, image),
    "shuffle": Case("pixel_shuffle", lambda x: cf.pixel_shuffle(x, 2), lambda dims: [normal(1, 2**dims, *[2] * dims)]),
    "unshuffle": Case("pixel_unshuffle", lambda x: cf.pixel_unshuffle(x, 3), image),
    **{f"pad {mode}": Case("pad", lambda x, mode=mode: cf.pad(x, [(4, -1)] * axes(x), mode), image)
       for mode in cf.PADDING_MODES},
    **{f"pad {mode} as PyTorch": Case("pad", lambda x, mode=mode: cf.pad(x, [(1, 2)] * axes(x), mode), image)
       for mode in cf.PADDING_MODES},
}  # fmt: skip


KERNELS = ("deform", "dynamic", "dynamic, each position")


def check(name: str, dims: int) -> None:
    case = CASES[name]
    leaves = [leaf.requires_grad_() for leaf in case.leaves(dims)]

    def squares(*leaves: Tensor) -> object:
        """So that the second derivative of a linear function is not 0."""
        found = case.call(*leaves)
        return tuple(part.square() for part in found) if isinstance(found, tuple) else found.square()

    assert gradcheck(squares, leaves, fast_mode=True), name
    assert not case.twice or gradgradcheck(squares, leaves, fast_mode=True), name


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].function not in ("deform_conv", "dynamic_conv")]
)
def test_gradients(name: str, dims: int) -> None:
    check(name, dims)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_D6_gradients(name: str, dims: int) -> None:
    check(name, dims)


def test_no_public_function_is_left_out() -> None:
    covered = {case.function for case in CASES.values()}
    assert covered | WITHOUT == set(cf.__all__), sorted(set(cf.__all__) - covered - WITHOUT)
    assert not covered & WITHOUT
    assert {case.function for case in CASES.values() if case.twice} == covered
    assert all(getattr(cf, name).__doc__ for name in covered)


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "wrong", Case("pad", lambda x: x * x.detach(), image))
    with pytest.raises(RuntimeError, match="Jacobian"):
        check("wrong", 1)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D6_fused_gradients_are_the_written_out_ones(dims: int) -> None:
    """With many places that read the same row, and rows that none reads."""
    x, w = normal(2, 4, *[5] * dims), normal(3, 4, *[3] * dims, seed=1)
    offset = 4 * normal(2, 2 * dims * 3**dims, *[5] * dims, seed=2)
    leaves = [x.requires_grad_(), offset.requires_grad_(), w.requires_grad_()]
    y = cf.deform_conv(*leaves, padding=1)
    seed = normal(*y.shape, seed=3)
    fused = torch.autograd.grad(y, leaves, seed, retain_graph=True)
    written = torch.autograd.grad(y, leaves, seed, create_graph=True)
    for one, other in zip(fused, written, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-10, atol=1e-10)
    (alone,) = torch.autograd.grad(cf.deform_conv(x, offset.detach(), w.detach(), padding=1), x, seed)
    assert torch.equal(alone, fused[0]), "what is not asked for changes nothing"
