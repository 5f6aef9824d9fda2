"""Max pooling in 1-D with an open size: PyTorch's own operator fixes the length when it is exported.

During an export ``torch.max_pool1d`` is replaced by an operator of ours that computes the same through 2-D
pooling, whose output size PyTorch knows as an expression.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def _pool(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> torch.Tensor:
    pooled = torch.max_pool2d(
        x.unsqueeze(-2), (1, *kernel_size), (1, *stride), (0, *padding), (1, *dilation), ceil_mode
    )
    return pooled.squeeze(-2)


@functools.cache
def _operator() -> Any:
    """Return PyTorch's face of ``_pool``; registering it takes a tenth of a second, so it waits for an export."""

    @torch.library.custom_op("convoxel::max_pool1d", mutates_args=())
    def operator(
        self: torch.Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
    ) -> torch.Tensor:
        return _pool(self, kernel_size, stride, padding, dilation, ceil_mode)

    operator.register_fake(_pool)
    return operator


def _max_pool1d(
    input: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> torch.Tensor:
    kernel = _listed(kernel_size)
    return _operator()(input, kernel, _listed(stride) or kernel, _listed(padding), _listed(dilation), ceil_mode)


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())


@contextmanager
def open_max_pool1d() -> Iterator[None]:
    """Replace ``torch.max_pool1d``; whoever calls it meanwhile gets the same numbers."""
    original = torch.max_pool1d
    torch.max_pool1d = _max_pool1d
    try:
        yield
    finally:
        torch.max_pool1d = original
