"""A program's settings: each survives every operation that does not change it, and nothing changes in place."""

from __future__ import annotations

import base64
import dataclasses
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import native
from convoxel.errors import ConfigError, GraphError
from convoxel.graph.compile import compile
from convoxel.graph.ir.pytree import Leaf
from convoxel.graph.ir.shape_only import ShapeOnly
from convoxel.graph.run.program import Program
from convoxel.graph.store.cvx import _unpacked
from convoxel.graph.verification import check_program
from convoxel.native.plan import Problem

SETTINGS = (
    "algorithm",
    "precision",
    "threads",
    "choices",
    "file",
    "origin",
    "verification",
    "structure",
    "graph",
    "notes",
    "sizes",
)


def network() -> nn.Module:
    torch.manual_seed(0)
    # More than 64 KiB of weights in one layer, which a loaded program leaves in its file.
    return nn.Sequential(nn.Conv2d(16, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 16, 1)).eval()


X = np.random.default_rng(0).standard_normal((1, 16, 10, 12), np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A program with a setting of its own in every field: from a file, forced, with threads, choices and figures."""
    compile(network(), X).save(tmp_path / "first.cvx")
    loaded = cx.load(tmp_path / "first.cvx", threads=1, algorithm="direct", precision="high")
    assert isinstance(loaded, Program)
    found = loaded.replace(choices={"avx9": {"a problem": "indirect"}}, notes={"patch": "16"})
    return found.replace(verification=check_program(found, network(), [torch.from_numpy(X)]))


def saved_and_loaded(program: Program) -> Program:
    assert program.file is not None
    path = Path(program.file._path).with_name("second.cvx")
    program.save(path)
    loaded = cx.load(path, threads=program.threads)
    assert isinstance(loaded, Program)
    return loaded


def verified(program: Program) -> Program:
    return program.replace(verification=check_program(program, network(), [torch.from_numpy(X)]))


# What each operation changes; every other setting must stay.
OPERATIONS: dict[str, tuple[Callable[[Program], Program], set[str]]] = {
    "tuned": (lambda p: p.tuned(X), {"choices", "verification"}),
    "verified": (verified, {"verification"}),
    "saved and loaded": (saved_and_loaded, {"file", "graph", "origin", "structure", "verification"}),
    "algorithm": (lambda p: p.replace(algorithm="auto"), {"algorithm", "choices", "verification"}),
    "precision": (lambda p: p.replace(precision="float32"), {"precision", "choices", "verification"}),
    "threads": (lambda p: p.replace(threads=2), {"threads"}),
    "settled": (lambda p: p.settled(X), {"choices", "verification"}),
    "compacted": (lambda p: p.replace(algorithm="auto").compacted(X), {"algorithm", "choices", "verification"}),
    "choices": (lambda p: p.replace(choices={}), {"choices", "verification"}),
    "file": (lambda p: p.replace(file=None), {"file"}),
    "origin": (lambda p: p.replace(origin=None), {"origin"}),
    "verification": (lambda p: p.replace(verification=None), {"verification"}),
    "structure": (lambda p: p.replace(structure=Leaf(0)), {"structure"}),
    "graph": (lambda p: p.replace(graph=p.graph.replace(name="other")), {"graph", "verification"}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_every_other_setting(program: Program, name: str) -> None:
    operation, changed = OPERATIONS[name]
    before = {setting: getattr(program, setting) for setting in SETTINGS}
    after = operation(program)
    assert after is not program and type(after) is Program
    for setting in SETTINGS:
        assert getattr(program, setting) is before[setting], f"{setting} of the program itself changed"
        if setting not in changed:
            assert getattr(after, setting) is before[setting] or getattr(after, setting) == before[setting], setting
    np.testing.assert_array_equal(after(X).shape, program(X).shape)


def test_fields_are_the_settings() -> None:
    assert {field.name for field in dataclasses.fields(Program) if field.init} == set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_is_assigned(program: Program, setting: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(program, setting, None)


# ---- tuning ----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int | None]]:
    """The families, precisions and numbers of threads that were measured."""
    found: list[tuple[str, str, int | None]] = []
    measure = native.tuning.time_candidates

    def noted(problem: Problem, threads: int | None, isa: str | None, **more: Any) -> Mapping[str, float]:
        found.append((more["algorithm"], more["precision"], threads))
        return measure(problem, threads, isa, **more)

    monkeypatch.setattr(native.tuning, "time_candidates", noted)
    return found


@pytest.mark.parametrize(
    ("settings", "family"),
    [
        ({}, "auto"),
        ({"precision": "high"}, "auto"),
        ({"algorithm": "direct"}, "direct"),
        ({"algorithm": "direct", "precision": "high"}, "direct"),
        ({"algorithm": "indirect"}, "indirect"),
    ],
)
def test_tuning_measures_what_the_settings_allow(
    asked: list[tuple[str, str, int | None]], settings: dict[str, str], family: str
) -> None:
    tuned = compile(network(), X, threads=1, **settings).tuned(X)  # type: ignore[arg-type]
    assert set(asked) == {(family, settings.get("precision", "float32"), 1)}
    exact = {row["name"] for row in native.algorithms() if row["exact"] or row["precision"] != "float32"}
    used = {row["algorithm"] for row in tuned.profile(X) if row["macs"]}
    assert used == set(tuned.choices[native.instruction_set()].values())
    if family == "direct":
        assert used <= exact
    if family == "indirect":
        assert used == {"indirect"}


def test_each_precision_has_winners_of_its_own(asked: list[tuple[str, str, int | None]]) -> None:
    program = compile(network(), X, threads=1)
    for _ in range(2):
        program.tuned(X)
        program.replace(precision="high").tuned(X)
    assert [precision for _, precision, _ in asked] == ["float32", "float32", "high", "high"], (
        "two convolutions, each remembered"
    )


def test_pytorchs_setting_is_kept_by_tuning(asked: list[tuple[str, str, int | None]]) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        tuned = compile(network(), X, threads=1, tune=True)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert tuned.precision == "high" and {precision for _, precision, _ in asked} == {"high"}


def test_a_choice_that_the_settings_forbid_is_not_used() -> None:
    program = compile(network(), X, threads=1)
    problems = program._execution([X]).plan.problems
    choices = {native.instruction_set(): {str(problem): "winograd(2)" for problem in problems}}
    assert "winograd(2)" in {row["algorithm"] for row in program.replace(choices=choices).profile(X)}
    direct = program.replace(algorithm="direct", choices=choices)
    assert {row["algorithm"] for row in direct.profile(X)} == {
        row["algorithm"] for row in compile(network(), X, threads=1, algorithm="direct").profile(X)
    }


# ---- verification and the file ----------------------------------------------------------------------------


def test_a_verified_program_keeps_its_plans(program: Program) -> None:
    again = verified(program)
    assert again._plans is program._plans and again._packed_weights is program._packed_weights
    for changed in (program.replace(threads=2), program.tuned(X), program.replace(algorithm="auto")):
        assert changed._plans is not program._plans and changed._packed_weights is not program._packed_weights


@pytest.mark.parametrize("name", ["tuned", "verified", "algorithm", "precision", "threads", "choices", "origin"])
def test_the_changed_file_is_noticed_after_every_operation(program: Program, name: str) -> None:
    after = OPERATIONS[name][0](program)
    assert after.file is not None
    with Path(after.file._path).open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(GraphError, match="was overwritten while a program of it was in use"):
        after(np.concatenate([X, X]))
    with pytest.raises(GraphError, match="was overwritten while a program of it was in use"):
        after.save(Path(after.file._path).with_name("third.cvx"))


# ---- the graph as read -------------------------------------------------------------------------------------


def test_the_recorded_graph_takes_no_second_copy_of_the_weights(program: Program) -> None:
    fresh = compile(network(), X)
    for recorded in (fresh.recorded, program.recorded):
        assert recorded is not None
        assert [node.operator for node in recorded.nodes].count("batch_norm") == 1
        large = [array for array in recorded.constants.values() if array.size > 16]
        assert large and all(isinstance(array, ShapeOnly) for array in large)
        assert recorded.parameters == {
            "0.weight": 128 * 16 * 9, "0.bias": 128, "1.weight": 128, "1.bias": 128, "3.weight": 16 * 128, "3.bias": 16,
        }  # fmt: skip
    assert str(fresh.recorded) == str(program.recorded)


class Tables(nn.Module):
    """Constants whose numbers count: a table of indices that passes keep, and a factor that they fold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.register_buffer("scale", torch.tensor([0.5, 2.0, 1.0, 4.0]).reshape(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv(x) * self.scale)[:, :, self.order]


def test_numbers_that_count_are_kept_and_saved(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 6), np.float32)
    program = compile(Tables().eval(), x)
    program.save(tmp_path / "net.cvx")
    loaded = cx.load(tmp_path / "net.cvx")
    assert isinstance(loaded, Program) and loaded.recorded is not None and program.recorded is not None
    kept = program.recorded.constants
    assert sum(not isinstance(array, ShapeOnly) for array in kept.values()) >= 2
    assert set(loaded.recorded.constants) == set(kept) and set(loaded.graph.constants) == set(program.graph.constants)
    for name, array in kept.items():
        found = loaded.recorded.constants[name]
        assert isinstance(found, ShapeOnly) == isinstance(array, ShapeOnly) and found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(loaded(x), program(x))


def test_the_file_hardly_grows(tmp_path: Path) -> None:
    program = compile(
        cx.models.build("resnet18", dims=2, in_channels=3, num_classes=10), np.zeros((1, 3, 32, 32), "f4")
    )
    program.save(tmp_path / "with.cvx")
    program.replace(origin=None).save(tmp_path / "without.cvx")
    assert cx.load(tmp_path / "without.cvx").recorded is None  # type: ignore[union-attr]
    assert (tmp_path / "with.cvx").stat().st_size < 1.01 * (tmp_path / "without.cvx").stat().st_size


def test_settings_that_make_no_sense() -> None:
    program = compile(nn.Conv2d(1, 1, 1), np.zeros((1, 1, 2, 2), np.float32))
    for change, said in (
        ({"threads": 0}, "threads is 0"),
        ({"precision": "double"}, "precision is 'double'"),
        ({"algorithm": 3}, "algorithm is 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            program.replace(**change)
        with pytest.raises(ConfigError, match=f"compile: {said}"):
            compile(nn.Conv2d(1, 1, 1), np.zeros((1, 1, 2, 2), np.float32), **change)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"load: {said}"):
            cx.load("net.onnx", **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (base64.b85encode(zlib.compress(b" " * (65 << 20))).decode(), "more than"),
        (base64.b85encode(zlib.compress(b'{"nodes": 3}')).decode(), "constants"),
        (base64.b85encode(b"no stream").decode(), "incorrect header"),
        ("", "cut off"),
    ],
)
def test_a_recorded_graph_that_makes_no_sense_is_refused(packed: str, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        _unpacked(packed, {})
