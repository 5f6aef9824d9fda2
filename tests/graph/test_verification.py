"""``compile(..., verify=True)``: right programs pass, wrong ones are caught, and the tolerance is derived."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.arithmetic.winograd import error_factor, winograd
from convoxel.errors import AccuracyError
from convoxel.graph import verification
from convoxel.graph.read.torch.call import RULES, Call
from convoxel.graph.run import accuracy
from convoxel.graph.run.accuracy import error_growth
from convoxel.graph.run.step_table import StepRow
from convoxel.graph.verification import verify_program


def network(dims: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return models.unet(dims, 1, 3, levels=2, width=8)


@pytest.mark.smoke
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_right_program_passes(dims: int) -> None:
    model = network(dims).train()
    program = cx.compile(model, torch.zeros(1, 1, *(16,) * dims), verify=True)
    found = program.verification
    assert found is not None and found.passed and found.reference == "float64"
    assert 0 < found.source_error < 1e-5 and 0 < found.l2_error < found.tolerance < 1e-2
    assert all(module.training for module in model.modules()), "the model is left as it was"
    assert next(model.parameters()).dtype == torch.float32
    assert "float64 reference" in str(found)


def test_without_verify_there_are_no_figures() -> None:
    assert cx.compile(nn.ReLU(), torch.zeros(1, 2, 4)).verification is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda call: call.add("activation", call.tensor("self").name, activation="leaky_relu", slope=0.01),
        lambda call: call.add(
            "relu", call.add("add", call.tensor("self").name, call.reader.constant(np.array(1e-3), "shift")).name
        ),
    ],
    ids=["a slope of 0.01", "a shift of 0.001"],
)
def test_a_wrong_program_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(call: Call) -> Any:
        return wrong(call)

    monkeypatch.setitem(RULES, "aten.relu.default", rule)
    monkeypatch.setitem(RULES, "aten.relu_.default", rule)
    cx.compile(network(), torch.zeros(1, 1, 16, 16))  # nobody notices
    with pytest.raises(AccuracyError, match=r"differ on random input of shape \(1, 1, 16, 16\): relative L2 error \d"):
        cx.compile(network(), torch.zeros(1, 1, 16, 16), verify=True)


def test_tuned_programs_are_verified_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    program = cx.compile(nn.Conv2d(8, 8, 3), torch.zeros(1, 8, 12, 12), tune=True, verify=True, threads=1)
    assert program.verification is not None


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"scores": x.relu(), "labels": x.argmax(1), "logarithm": x.log()}


def test_labels_and_results_that_are_not_finite() -> None:
    program = cx.compile(Several(), torch.zeros(1, 3, 5, 5), verify=True)
    assert program.verification is not None and program.verification.max_error < 1e-6
    x = np.ones((1, 2, 3), np.float32)
    assert accuracy._distance(x, x) == (0, 0)
    assert accuracy._distance(x[:, :1], x) == (math.inf, math.inf)
    broken = x.copy()
    broken[0, 0, 0] = np.nan
    assert accuracy._distance(broken, x) == (math.inf, math.inf)
    assert accuracy._distance(broken, broken) == (0, 0)
    labels = np.arange(8)
    assert accuracy._distance(labels[::-1], labels) == (1, 1)
    assert accuracy._distance(np.where(labels == 3, 9, labels), labels) == (1, 1 / 8)


class Insisting(nn.Module):
    """Adds a constant of its own type, which PyTorch does not convert."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(self.conv(x.float()), torch.ones(4, 4, 1, 1))


def test_a_model_that_insists_on_float32_is_its_own_reference() -> None:
    program = cx.compile(Insisting(), torch.zeros(1, 2, 8, 8), verify=True)
    found = program.verification
    assert found is not None and found.reference == "float32" and found.passed
    assert 2.0**-24 * math.sqrt(18) <= found.source_error * 1.001 <= 2.0**-24 * math.sqrt(18 + 4) * 1.01


def test_a_large_network_is_compared_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_MOST_MACS", 1)
    found = verify_program(cx.compile(network(), torch.zeros(1, 1, 16, 16)), network(), [torch.zeros(2, 1, 8, 8)])
    assert found.reference == "float32" and found.passed


def test_the_growth_of_errors_is_that_of_the_algorithms() -> None:
    def growth(algorithm: str, kernel: tuple[int, ...], kind: str = "float32") -> float:
        rows = [
            StepRow(
                name=name,
                operator="conv",
                algorithm=chosen,
                type=kind,
                stored="float32",
                shape=(1, 1, *kernel),
                macs=1,
                bytes=4,
            )
            for name, chosen in (("a", algorithm), ("b", "indirect"))
        ]
        return error_growth(rows, {"w": np.zeros((1, 1, *kernel))}, {"a": ("x", "w")})

    four, six = error_factor(winograd(4, 3)), error_factor(winograd(6, 3))
    assert growth("indirect", (3, 3)) == 1
    assert growth("winograd(4)", (3,)) == four
    assert growth("winograd(4)", (3, 3, 3)) == pytest.approx(four**3)
    assert growth("winograd(1x6x6)", (3, 3, 3)) == pytest.approx(six**2)
    assert growth("winograd(4)", (1, 3)) == four
    assert growth("fft", (7, 7)) == 4
    assert growth("winograd_bf16(4)", (3, 3), "bfloat16") == pytest.approx(2**15 * four**2)
    assert growth("bf16x3", (3, 3), "high") == 2**6 and growth("bf16", (3, 3), "bfloat16") == 2**15
