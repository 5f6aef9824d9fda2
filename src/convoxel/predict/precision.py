"""Precision of the numbers that a network computes with while it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["autocast"]


@contextlib.contextmanager
def autocast(precision: str | None) -> Iterator[None]:
    """Run a network with products in bfloat16 if ``precision`` is "bfloat16"; weights stay float32."""
    if precision != "bfloat16":
        yield
        return
    with torch.autocast("cpu", dtype=torch.bfloat16), _SmallMaps():
        yield


class _SmallMaps(TorchFunctionMode):
    """Convolutions whose window is longer than the map run in float32.

    For them PyTorch 2.13 computes part of the weights' gradient in bfloat16 from memory that nothing has written: with
    a 3×3 kernel of stride 2 on a map one pixel wide the result is arbitrary, and usually not even finite.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func in _CONVOLUTIONS and _is_small(*args, **given):
            with torch.autocast("cpu", enabled=False):
                return func(*map(_as_float, args), **{name: _as_float(value) for name, value in given.items()})
        return func(*args, **given)


_CONVOLUTIONS: tuple[Callable[..., object], ...] = (
    torch.conv1d, torch.conv2d, torch.conv3d,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
)  # fmt: skip


def _is_small(input: object, weight: object, *more: object, **named: object) -> bool:
    assert isinstance(input, torch.Tensor) and isinstance(weight, torch.Tensor)
    return any(size < taps for size, taps in zip(input.shape[2:], weight.shape[2:], strict=True))


def _as_float(value: object) -> object:
    return value.float() if isinstance(value, torch.Tensor) else value
