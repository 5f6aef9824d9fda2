"""PyTorch's own samples of its operators through our functions; all of them by ``python -m tools.operator_info``."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tools import operator_info
from tools.operator_info import FEW, OPERATORS, run_samples

pytest.importorskip("expecttest", reason="PyTorch's samples import it")

# Reason → the most samples that may be left out for it, among the first few of each variant.
LEFT_OUT = {"circular and cropped: PyTorch repeats what a crop leaves, we show more of the endless signal": 3}


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_of_pytorch(name: str) -> None:
    tally = run_samples(name, FEW)
    assert tally.passed >= 3
    assert not tally.skipped - Counter(LEFT_OUT), tally.skipped


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (lambda x, *args, **kwargs: x, lambda *args, **kwargs: OPERATORS_AS_THEY_ARE(*args, **kwargs) + 1e-9):
        monkeypatch.setitem(OPERATORS, "conv2d", wrong)
        with pytest.raises(AssertionError, match="conv2d"):
            run_samples("conv2d", 2)

    def detached(*args: object, **kwargs: object) -> torch.Tensor:
        y = OPERATORS_AS_THEY_ARE(*args, **kwargs)
        return y.detach() + 0 * y

    monkeypatch.setitem(OPERATORS, "conv2d", detached)
    with pytest.raises(AssertionError, match="conv2d"):
        run_samples("conv2d", 2)
    with pytest.raises(AssertionError, match="no samples of it"):
        monkeypatch.setitem(OPERATORS, "conv9d", wrong)
        run_samples("conv9d")


OPERATORS_AS_THEY_ARE = operator_info.conv
