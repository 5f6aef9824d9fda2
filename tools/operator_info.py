"""PyTorch's own samples of its operators (OpInfo) through the functions of ``convoxel.nn.functional``.

``python -m tools.operator_info`` runs all of them, ``--fast`` the first few of each operator, as
``tests/nn/test_operators.py`` does. A sample that our function does not accept is skipped and counted with its reason.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convoxel.nn import functional as cf

__all__ = ["OPERATORS", "Skip", "Tally", "run_samples"]

FEW = 6  # samples of each operator in the suite


class Skip(Exception):
    """Our function does not accept this sample, for an intended reason."""


class Tally(NamedTuple):
    """The outcome of an operator's samples: the number that passed, and the numbers skipped for each reason."""

    passed: int
    skipped: Counter[str]


Call = Callable[..., Any]


def conv(x: Tensor, w: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
         groups: int = 1) -> Tensor:  # fmt: skip
    words = {"valid": "none", "same": "same"}
    padding = words[padding] if isinstance(padding, str) else padding
    return cf.correlate(x, w, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def conv_transpose(x: Tensor, w: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                   groups: int = 1, dilation: Any = 1) -> Tensor:  # fmt: skip
    return cf.conv_transpose(x, w, bias, stride=stride, padding=padding, output_padding=output_padding, groups=groups,
                             dilation=dilation)  # fmt: skip


def each(value: Any) -> Any:
    """Return the number that a tuple of one number stands for."""
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


def max_pool(dims: int) -> Call:
    def call(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
        return cf.max_pool(x, kernel_size, stride=stride or None, padding=padding, dilation=dilation, ceil=ceil_mode,
                           return_indices=return_indices, dims=dims)  # fmt: skip

    return call


def average_pool(dims: int) -> Call:
    def call(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
             count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:  # fmt: skip
        return cf.average_pool(x, kernel_size, stride=stride or None, padding=each(padding), ceil=ceil_mode,
                               count_include_pad=count_include_pad, divisor=divisor_override, dims=dims)  # fmt: skip

    return call


def adaptive(function: Call, dims: int) -> Call:
    def call(x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        sizes = (output_size,) * dims if isinstance(output_size, int) else tuple(output_size)
        kept = [size if own is None else own for size, own in zip(x.shape[-dims:], sizes, strict=True)]
        more = {"return_indices": True} if return_indices else {}
        return function(x, kept, dims=dims, **more)

    return call


def interpolate(x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:  # fmt: skip
    if recompute_scale_factor:  # the wanted size alone counts, rounded down
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * (x.dim() - 2)
        size = tuple(math.floor(i * factor) for i, factor in zip(x.shape[2:], factors, strict=True))
    word = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    sizes = {"size": size} if size is not None else {"scale": scale_factor}
    return cf.resize(x, mode=word, align_corners=bool(align_corners), antialias=antialias, **sizes)


def upsample(mode: str) -> Call:
    def call(x: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
        return interpolate(x, size, scale_factor, mode, mode == "bilinear")

    return call


def unpool(dims: int) -> Call:
    def call(x: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
             output_size: Any = None) -> Tensor:  # fmt: skip
        wanted = None if output_size is None else tuple(output_size)[-dims:]
        return cf.unpool(x, kernel_size, mode="indices", indices=indices, stride=stride or None, padding=padding,
                         output_size=wanted, dims=dims)  # fmt: skip

    return call


def pad(x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if mode == "circular" and any(min(pair) < 0 < max(pair) for pair in pairs):
        raise Skip("circular and cropped: PyTorch repeats what a crop leaves, we show more of the endless signal")
    return cf.pad(x, pairs, mode, value or 0.0)


def shuffle(function: Call) -> Call:
    def call(x: Tensor, **factor: int) -> Tensor:
        return function(x, *factor.values(), dims=2)

    return call


OPERATORS: dict[str, Call] = {
    **{f"conv{dims}d": conv for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": conv_transpose for dims in (1, 2, 3)},
    **{f"max_pool{dims}d": max_pool(dims) for dims in (1, 2, 3)},
    **{f"avg_pool{dims}d": average_pool(dims) for dims in (1, 2, 3)},
    **{f"adaptive_avg_pool{dims}d": adaptive(cf.adaptive_average_pool, dims) for dims in (1, 2, 3)},
    **{f"adaptive_max_pool{dims}d": adaptive(cf.adaptive_max_pool, dims) for dims in (1, 2, 3)},
    **{f"max_unpool{dims}d": unpool(dims) for dims in (1, 2, 3)},
    "interpolate": interpolate,
    "upsample_nearest": upsample("nearest"),
    "upsample_bilinear": upsample("bilinear"),
    "pixel_shuffle": shuffle(cf.pixel_shuffle),
    "pixel_unshuffle": shuffle(cf.pixel_unshuffle),
    "pad": pad,
}


def infos(name: str) -> list[Any]:
    """Return PyTorch's entries of an operator: its variants."""
    from torch.testing._internal.common_methods_invocations import op_db

    return [info for info in op_db if info.name == f"nn.functional.{name}"]


def samples(info: Any, few: int | None) -> Iterator[Any]:
    torch.manual_seed(0)
    for number, sample in enumerate(info.sample_inputs("cpu", torch.float64, requires_grad=True)):
        if few is not None and number >= few:
            return
        yield sample


def compare(info: Any, ours: Call, sample: Any) -> None:
    """Compare values and first gradients of one sample.

    Raises:
        Skip: our function does not accept it. AssertionError: they differ.
    """
    expected = info.op(sample.input, *sample.args, **sample.kwargs)
    found = ours(sample.input, *sample.args, **sample.kwargs)
    pairs = [(found, expected)] if isinstance(expected, Tensor) else list(zip(found, expected, strict=True))
    for one, other in pairs:
        # The largest sums here have 1 000 products of numbers below 10.
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    first, reference = pairs[0]
    leaves = [leaf for leaf in (sample.input, *sample.args) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if reference.requires_grad and reference.numel():
        seed = torch.randn_like(reference)
        theirs = torch.autograd.grad(reference, leaves, seed, allow_unused=True)
        back = torch.autograd.grad(first, leaves, seed, allow_unused=True)
        for one, other in zip(back, theirs, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def run_samples(name: str, few: int | None = None) -> Tally:
    """Compare the samples of an operator, or the first ``few`` of each variant, and count them.

    Raises:
        AssertionError: one differs, or the operator has no samples.
    """
    passed, skipped = 0, Counter[str]()
    for info in infos(name):
        for sample in samples(info, few):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PyTorch's own, of deprecated operators
                    compare(info, OPERATORS[name], sample)
                passed += 1
            except Skip as reason:
                skipped[str(reason)] += 1
            except Exception as fault:
                shape = tuple(sample.input.shape)
                raise AssertionError(
                    f"{info.full_name}: {shape}, {sample.args}, {sample.kwargs}: {type(fault).__name__}: {fault}"
                ) from fault
    assert passed, f"{name}: PyTorch has no samples of it, or all were skipped"
    return Tally(passed, skipped)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help=f"the first {FEW} of each variant")
    parser.add_argument("names", nargs="*", default=list(OPERATORS))
    given = parser.parse_args()
    wrong, passed, skipped = 0, 0, Counter[str]()
    for name in given.names:
        try:
            tally = run_samples(name, FEW if given.fast else None)
        except AssertionError as fault:
            wrong += 1
            print(f"{name}: FAILED: {fault}")
            continue
        passed, skipped = passed + tally.passed, skipped + tally.skipped
        print(f"{name}: {tally.passed} passed", *(f"{count} skipped: {why}" for why, count in tally.skipped.items()),
              sep="; ")  # fmt: skip
    print(f"{passed} samples of {len(given.names)} operators passed, {sum(skipped.values())} skipped, {wrong} failed")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
