"""Multiply-accumulates of attention, recurrent layers and products of tensors: counted as PyTorch counts, or named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from convoxel import compile, describe


class Call(nn.Module):
    """A function of a module and inputs."""

    def __init__(self, function: Callable[..., Any], module: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.module = function, module

    def forward(self, *x: Tensor) -> Any:
        return self.function(*x) if self.module is None else self.function(self.module, *x)


def attention(**options: int) -> nn.Module:
    return nn.MultiheadAttention(8, 2, batch_first=True, **options)  # type: ignore[arg-type]


T, Q = (2, 7, 8), (2, 2, 6, 8)
COUNTED: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "self-attention": (Call(lambda m, x: m(x, x, x)[0], attention()), (T,)),
    "cross-attention": (Call(lambda m, x, y: m(x, y, y)[0], attention(kdim=4, vdim=4)), (T, (2, 5, 4))),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (T,)),
    "decoder": (Call(lambda m, x, y: m(x, y), nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)), (T, (2, 5, 8))),
    "scaled products": (Call(F.scaled_dot_product_attention), (Q, Q, Q)),
    "causal": (Call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)), (Q, Q, Q)),
    "masked": (Call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones(6, 6).tril() > 0)), (Q, Q, Q)),
    "bmm": (Call(torch.bmm), ((2, 5, 8), (2, 8, 6))),
    "baddbmm": (Call(lambda a, b: torch.baddbmm(torch.ones(2, 5, 6), a, b, beta=0.5)), ((2, 5, 8), (2, 8, 6))),
    "addmm": (Call(lambda a, b: torch.addmm(torch.ones(6), a, b, alpha=2)), ((5, 8), (8, 6))),
    "matmul": (Call(torch.matmul), ((2, 3, 5, 8), (8, 6))),
    "einsum": (Call(lambda a, b: torch.einsum("bij,bjk->bik", a, b)), ((2, 5, 8), (2, 8, 6))),
    "outer einsum": (Call(lambda a, b: torch.einsum("bi,bj->bij", a, b)), ((2, 5), (2, 8))),
    "tensordot": (Call(lambda a, b: torch.tensordot(a, b, dims=([2], [1]))), ((2, 5, 8), (3, 8, 6))),
    "inner": (Call(torch.inner), ((5, 8), (6, 8))),
    "linear, weights computed": (Call(F.linear), ((5, 8), (3, 8))),
    "gru": (nn.GRU(8, 6), (T,)),
    "rnn": (nn.RNN(8, 6, nonlinearity="relu"), (T,)),
    "lstm cell": (nn.LSTMCell(8, 6), ((5, 8),)),
    "gru cell": (nn.GRUCell(8, 6), ((5, 8),)),
    "grouped convolution": (nn.Conv2d(4, 8, 3, 2, 1, groups=2), ((1, 4, 9, 9),)),
    "transposed convolution": (nn.ConvTranspose2d(4, 8, 3, 2), ((1, 4, 9, 9),)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_as_many_as_pytorch_counts(name: str) -> None:
    net, shapes = COUNTED[name]
    inputs = [torch.randn(shape) for shape in shapes]
    torch.backends.mha.set_fastpath_enabled(False)  # whose products the counter does not see
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            net.eval()(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    summary = describe(net, *shapes)
    assert (summary.macs, summary.uncounted) == (counter.get_total_flops() // 2, ())


@pytest.mark.parametrize("net, shapes, macs", [
    (nn.LSTM(8, 6, batch_first=True), (T,), 2 * 7 * 4 * 6 * (8 + 6)),
    (nn.LSTM(8, 6, 2, bidirectional=True), (T,), 2 * 7 * 2 * (4 * 6 * (8 + 6) + 4 * 6 * (12 + 6))),
    (nn.LSTM(8, 6, proj_size=3), (T,), 2 * 7 * (4 * 6 * (8 + 3) + 6 * 3)),
    (Call(lambda m, x, y: m(x, y), nn.Bilinear(8, 6, 3)), ((5, 8), (5, 6)), 5 * 8 * 6 * 3),
    (Call(lambda a, b: torch.addbmm(torch.ones(5, 6), a, b)), ((2, 5, 8), (2, 8, 6)), 2 * 5 * 8 * 6),
    (Call(lambda a: torch.mv(a, torch.ones(8))), ((5, 8),), 5 * 8),
    (Call(lambda a: torch.outer(a[0], a[0])), ((1, 8),), 0),
])  # fmt: skip
def test_what_the_counter_leaves_out(net: nn.Module, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    """Products that PyTorch computes as one function, or for which its counter has no rule."""
    program = compile(net.eval(), *(np.zeros(shape, np.float32) for shape in shapes))
    for network in (net, program):
        summary = describe(network, *shapes)
        assert (summary.macs, summary.uncounted) == (macs, ())


def test_what_is_not_counted_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), Call(lambda x: torch.fft.fft2(x).abs()), nn.Conv2d(2, 1, 1))
    summary = describe(net, (1, 1, 8, 8))
    assert summary.macs == 36 * 18 + 36 * 2 and summary.uncounted == ("fft fft2",)
    assert "not counted: fft fft2" in str(summary) and "not counted: fft fft2" in summary._repr_html_()
    assert summary.to_dict()["total"]["macs_not_counted"] == ["fft fft2"]
    assert [row["counted"] for row in summary.to_dict()["rows"]] == [True, False, True, True]
    assert [line.split(",")[6] for line in summary.to_csv().splitlines()] == ["macs", "648", "", "0", "72"]
    assert [cells[-1] for cells in summary.view(columns=["layer", "macs"]).lines()] == ["648", "?", "72"]
    assert "not counted" not in str(describe(nn.Conv2d(1, 2, 3), (1, 1, 8, 8)))
