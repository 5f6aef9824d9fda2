"""Digits of the products of a program: all of float32's, unless the caller allows fewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convoxel.graph.compile import compile
from convoxel.graph.load import load
from convoxel.graph.run.program import Program
from convoxel.native import instruction_set
from tools.conformance import MATRIX_UNIT

HAS_UNIT = instruction_set() in MATRIX_UNIT


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(64, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64),
        nn.ReLU6(),
        nn.Conv2d(64, 96, 1),
        nn.Conv2d(96, 64, 3, stride=2, padding=1),
    )


def image() -> torch.Tensor:
    return torch.randn(1, 64, 56, 56, generator=torch.Generator().manual_seed(1))


def used(program: Program) -> set[str]:
    return {row["algorithm"] for row in program.profile(image())}


def distance(program: Program) -> float:
    with torch.no_grad():
        truth = network().double()(image().double())
    return float((program(image()) - truth).norm() / truth.norm())


@pytest.fixture
def high() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def test_auto_keeps_all_digits() -> None:
    program = compile(network(), image())
    assert "bf16x3" not in used(program) and distance(program) < 1e-6


def test_high_precision_takes_sixteen_where_there_is_a_unit() -> None:
    program = compile(network(), image(), precision="high", verify=True)
    assert ("bf16x3" in used(program)) == HAS_UNIT
    assert distance(program) < 2e-5
    assert (distance(program) > 1e-6) == HAS_UNIT


@pytest.mark.usefixtures("high")
def test_pytorchs_setting_is_followed() -> None:
    with torch.no_grad():
        piece = torch.compile(network(), backend="convoxel")(image())
    assert torch.equal(piece, compile(network(), image())(image()))
    assert ("bf16x3" in used(compile(network(), image()))) == HAS_UNIT
    assert ("bf16x3" in used(compile(network(), image(), algorithm="direct"))) == HAS_UNIT
    assert "bf16x3" not in used(compile(network(), image(), algorithm="indirect"))


def test_files_keep_the_choice_unless_told_otherwise(tmp_path: Path) -> None:
    compile(network(), image(), precision="high").save(tmp_path / "net.cvx")
    assert ("bf16x3" in used(load(tmp_path / "net.cvx"))) == HAS_UNIT  # type: ignore[arg-type]
    for other in (load(tmp_path / "net.cvx", algorithm="indirect"), load(tmp_path / "net.cvx", precision="float32")):
        assert isinstance(other, Program) and "bf16x3" not in used(other) and distance(other) < 1e-6


@pytest.mark.skipif(not HAS_UNIT, reason="this processor has no matrix unit")
def test_three_parts_are_as_exact_as_direct_sums() -> None:
    x = np.asarray(image())
    exact = compile(network(), image(), algorithm="indirect")
    unit = compile(network(), image(), algorithm="bf16x6")
    assert used(unit) & {"bf16x6"}
    assert distance(unit) <= 1.5 * distance(exact)
    assert unit(x).shape == exact(x).shape
