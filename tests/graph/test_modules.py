"""A sample of PyTorch's own tests of modules and operators; ``module_info`` as a program runs all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tools import module_info


def test_the_judge_rejects_wrong_results() -> None:
    right = torch.tensor([1.0, -2.0, float("nan")])
    assert module_info.differs(right, right.clone()) == ""
    for wrong in (right * 1.01, right[:2], right.double(), right.nan_to_num()):
        assert module_info.differs(wrong, right)
    assert module_info.differs(torch.tensor([1]), torch.tensor([2])) == "other whole numbers"


def test_a_wrong_module_is_wrong_and_an_odd_one_is_named() -> None:
    x = torch.ones(1, 3, 8, 8)

    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if torch.compiler.is_exporting() else x * 3

    assert module_info.judge(module_info.Sample("double", Double(), (x,)))[0] == "wrong"
    assert module_info.judge(module_info.Sample("sum", torch.nn.Conv2d(3, 2, 3).eval(), (x,)))[0] == "right"
    kind, detail = module_info.judge(module_info.Sample("text", torch.nn.Identity(), (x.double(),)))
    assert kind == "refused" and "expected float32" in detail


@pytest.mark.parametrize("options", [["--every", "80"], ["--operators", "--every", "12", "conv2d", "group_norm"]])
def test_samples_of_pytorch(options: list[str]) -> None:
    """In a process of its own: importing PyTorch's tests changes settings of PyTorch."""
    pytest.importorskip("expecttest", reason="PyTorch's samples need it")
    command = [sys.executable, "-m", "tools.module_info", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts = done.stdout.split("\nall ")[1].splitlines()[0].split()
    assert int(counts[0]) >= 4 and int(counts[1]) >= 0.9 * int(counts[0]), counts
