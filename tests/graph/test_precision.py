"""Digits of the products of a program: all of float32's, unless the caller allows fewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convoxel import native
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.load import load
from convoxel.graph.run.program import Program
from convoxel.native import instruction_set
from tools.conformance import BFLOAT16, MATRIX_UNIT

HAS_UNIT = instruction_set() in MATRIX_UNIT
HAS_BFLOAT16 = instruction_set() in BFLOAT16


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


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor multiplies no bfloat16")
def test_three_parts_are_about_as_exact_as_direct_sums() -> None:
    """Those are summed in shorter chains, which costs a matrix unit nothing and vectors a factor of two."""
    x = np.asarray(image())
    exact = compile(network(), image(), algorithm="indirect")
    unit = compile(network(), image(), algorithm="bf16x6")
    assert used(unit) & {"bf16x6"}
    assert distance(unit) <= (1.5 if HAS_UNIT else 3) * distance(exact)
    assert unit(x).shape == exact(x).shape


# ---- eight digits -----------------------------------------------------------------------------------------


def types(program: Program) -> set[str]:
    return {row["type"] for row in program.profile(image()) if row["macs"]}


def test_bfloat16_takes_eight_digits_where_the_processor_has_them() -> None:
    program = compile(network(), image(), precision="bfloat16", verify=True)
    assert ("bfloat16" in types(program)) == HAS_BFLOAT16
    assert distance(program) < 5e-3
    assert (distance(program) > 1e-4) == HAS_BFLOAT16
    assert program.verification is not None and program.verification.passed


def test_products_of_few_digits_and_sums_of_all() -> None:
    """Weights and inputs are rounded once: sums of rounded numbers are exact to float32's last digits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 96, 12, 12), np.float32)
    w = rng.standard_normal((40, 96, 3, 3), np.float32)
    rounded = [torch.from_numpy(each).bfloat16().float().numpy() for each in (x, w)]
    exact = native.conv(*rounded, algorithm="indirect")
    if HAS_BFLOAT16:
        found = native.conv(x, w, algorithm="bf16", precision="bfloat16")
        assert np.linalg.norm(found - exact) < 1e-6 * np.linalg.norm(exact)
    else:
        with pytest.raises(UnsupportedError, match="multiplies no bfloat16"):
            native.conv(x, w, algorithm="bf16", precision="bfloat16")


@pytest.mark.parametrize("settings", [{"algorithm": "direct"}, {"tune": True}, {"threads": 1}, {"verify": True}])
@pytest.mark.parametrize("precision", ["high", "bfloat16"])
def test_precision_goes_with_every_setting(
    settings: dict[str, Any], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    program = compile(network(), image(), precision=precision, **settings)
    assert program.precision == precision
    assert distance(program) < {"high": 2e-5, "bfloat16": 5e-3}[precision]
    kept = {row["algorithm"] for row in program.profile(image())}
    assert settings != {"algorithm": "direct"} or not any("winograd" in name for name in kept)


@pytest.mark.parametrize(("word", "precision"), [("highest", "float32"), ("high", "high"), ("medium", "bfloat16")])
def test_pytorchs_words(word: str, precision: str) -> None:
    torch.set_float32_matmul_precision(word)
    try:
        assert compile(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)).precision == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_algorithm_of_fewer_digits_needs_the_precision() -> None:
    x, w = np.ones((1, 32, 4, 4), np.float32), np.ones((8, 32, 1, 1), np.float32)
    for name, digits in (("bf16x3", 16), ("bf16", 8)):
        with pytest.raises(UnsupportedError, match=f"'{name}'.*{digits} binary digits.*24"):
            native.conv(x, w, algorithm=name)
    with pytest.raises(ConfigError, match="precision is 'int8', expected one of float32, high, bfloat16"):
        native.conv(x, w, precision="int8")
    with pytest.raises(ConfigError, match="precision is 'int8', expected one of float32, high, bfloat16"):
        compile(network(), image(), precision="int8")


def test_steps_say_their_type() -> None:
    program = compile(network(), image(), precision="bfloat16", algorithm="direct")
    kinds = {row["type"] for row in program.profile(image())}
    assert kinds == ({"float32", "bfloat16"} if HAS_BFLOAT16 else {"float32"})
    assert all(f"  {kind}  " in program.explain(image()) for kind in kinds)


# ---- infinity ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor multiplies no bfloat16")
@pytest.mark.parametrize(("algorithm", "precision"), [("bf16x6", "float32"), ("bf16x3", "high"), ("bf16", "bfloat16")])
def test_infinity_stays_infinity(algorithm: str, precision: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 64, 9, 9)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((24, 64, 3, 3)).astype(np.float32)
    x[0, 5, 4, 4], x[0, 6, 0, 0], x[0, 7, 8, 8] = np.inf, -np.inf, np.nan
    w[3, 1, 1, 1] = np.inf
    w[4, 5, 1, 1] = 1.0  # a weight of one part
    expected = native.conv(x, w, padding=1, algorithm="indirect")
    found = native.conv(x, w, padding=1, algorithm=algorithm, precision=precision)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor multiplies no bfloat16")
@pytest.mark.parametrize(("algorithm", "precision"), [("bf16x6", "float32"), ("bf16x3", "high")])
def test_the_largest_numbers_stay_finite(algorithm: str, precision: str) -> None:
    largest = np.finfo(np.float32).max
    x, w = np.full((1, 32, 2, 2), largest, np.float32), np.zeros((1, 32, 1, 1), np.float32)
    w[0, 3] = 0.5
    found = native.conv(x, w, algorithm=algorithm, precision=precision)
    np.testing.assert_allclose(found, largest / 2, rtol=1e-5)
    other = native.conv(
        np.full_like(x, 0.5), np.full_like(w, largest) * (w > 0), algorithm=algorithm, precision=precision
    )
    np.testing.assert_allclose(other, largest / 2, rtol=1e-5)


# ---- tensors between steps --------------------------------------------------------------------------------


class Joined(nn.Module):
    """A network with sums, concatenations, pooling, resizing, a gate and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.deep, self.squeeze, self.back = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 32, 1)
        self.head = nn.Conv2d(64, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.wide(x))
        y = nn.functional.silu(self.deep(nn.functional.max_pool2d(x, 2)))
        y = self.back(y * torch.sigmoid(self.squeeze(nn.functional.adaptive_avg_pool2d(y, 1))))
        y = nn.functional.interpolate(y, scale_factor=2, mode="bilinear")
        return torch.sigmoid(self.head(torch.cat([y, x], 1)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def joined() -> tuple[Program, Program]:
    torch.manual_seed(0)
    program = compile(Joined(), torch.randn(2, 1, 24, 20))
    return program, program.replace(precision="bfloat16")


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor multiplies no bfloat16")
def test_tensors_between_steps_are_bfloat16(joined: tuple[Program, Program]) -> None:
    exact, program = joined
    x = torch.randn(2, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    rows = program.profile(x)
    stored = {row["name"]: row["stored"] for row in rows if row["operator"] not in ("import", "export")}
    assert {name for name, kind in stored.items() if kind == "float32"} == {"squeeze", "head"}  # the gate, the result
    memory = [p._execution([x.numpy()]).memory for p in (exact, program)]
    assert memory[1].arena_bytes < 0.6 * memory[0].arena_bytes
    difference = program(x) - exact(x)
    assert 1e-5 < float(difference.norm() / exact(x).norm()) < 5e-3


def test_rounding_depends_on_no_thread_slice_or_tile(joined: tuple[Program, Program]) -> None:
    program = joined[1]
    x = np.random.default_rng(1).standard_normal((3, 1, 96, 70)).astype(np.float32)
    y = program(x)
    assert all(np.array_equal(y, program.replace(threads=n)(x)) for n in (1, 3))
    assert np.array_equal(program(x[1:2]), y[1:2])
    layers = nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 3, 1)
    flat = compile(nn.Sequential(*layers), torch.zeros(1, 1, 96, 70), precision="bfloat16")
    assert np.array_equal(flat.tiled(x[:1], tile=48), flat(x[:1]))
