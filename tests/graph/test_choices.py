"""Results that do not depend on choices: a sample of tools/choices.py, and what programs write down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel import native
from convoxel.graph.compile import compile
from convoxel.graph.store.cvx import _read_choices
from tools.choices import CALIBRATIONS, differences, digest, elsewhere, forge, model_and_images, results


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the engine with the rates of the machine that the costs were fitted on."""
    yield
    forge((1.0, 1.0))


@pytest.mark.parametrize("name", ["separable", "grouped", "attending"])
def test_results_depend_on_no_choice(name: str) -> None:
    assert list(differences(name, "float32", (2, 7), CALIBRATIONS[:2])) == []


def test_nor_with_fewer_digits() -> None:
    assert list(differences("separable", "bfloat16", (2,), CALIBRATIONS[:2])) == []


def test_nor_on_the_process(tmp_path: Path) -> None:
    model, x = model_and_images("grouped")
    forge(CALIBRATIONS[1])
    program = compile(model, x[:1], threads=1)
    program.save(tmp_path / "net.cvx")
    found = elsewhere("grouped", "float32", tmp_path / "net.cvx", 0)
    assert found == [digest(results(program, x))] * 2


def test_the_check_notices_another_algorithm() -> None:
    model, x = model_and_images("separable")
    program = compile(model, x)
    other = program.replace(algorithm="direct")
    assert digest(results(program, x)) != digest(results(other, x))


# ---- what a program writes down ---------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(), nn.Conv2d(32, 8, 1),
        nn.Conv2d(8, 16, 3, padding=1),
    ).eval()  # fmt: skip


X = np.random.default_rng(0).standard_normal((3, 8, 24, 24), np.float32)


def test_algorithms_are_part_of_the_program(tmp_path: Path) -> None:
    program = compile(network(), X)
    ((isa, choices),) = program.choices.items()
    assert isa == native.instruction_set()
    assert len(choices) == 4, "three of the block, and the last"
    assert sum("in a block" in problem for problem in choices) == 3
    assert all(" 1x1x24x24x" in problem for problem in choices), "of one image"
    program.save(tmp_path / "net.cvx")
    loaded = cx.load(tmp_path / "net.cvx")
    assert isinstance(loaded, cx.Program) and loaded.choices == program.choices


def test_what_is_written_down_runs() -> None:
    """Whatever the rule says: a later version may say otherwise."""
    program = compile(network(), X)
    isa, choices = next(iter(program.choices.items()))
    (last,) = (problem for problem in choices if "in a block" not in problem)
    for name in ("winograd(2)", "indirect"):
        for batch in (1, 3):
            changed = program.replace(choices={isa: {**choices, last: name}})
            assert name in {row["algorithm"] for row in changed.profile(X[:batch])}
    elsewhere = program.replace(choices={"another set": {last: "winograd(2)"}})
    assert elsewhere(X).tobytes() == program(X).tobytes(), "of an instruction set that is not in use"


def test_blocks_keep_their_parts() -> None:
    program = compile(network(), X, threads=2)
    isa, choices = next(iter(program.choices.items()))
    parts = {problem: "indirect" for problem in choices if "in a block" in problem and "conv 1x1x1" in problem}
    changed = program.replace(choices={isa: {**choices, **parts}})
    (used,) = [row for row in changed._execution([X]).plan.steps if row["parts"]]
    assert used["parts"] == ["indirect", "depthwise", "indirect"] and used["algorithm"] == "staged"


def test_measured_winners_hold_for_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(native.tuning, "time_candidates", lambda *_, **more: {"winograd(2)": 1.0, "indirect": 2.0})
    program = compile(network(), X, tune=True)
    for batch in (1, 2, 3):
        (used,) = [row["algorithm"] for row in program.profile(X[:batch]) if row["operator"] == "conv"]
        assert used == "winograd(2)"


def test_winners_of_older_files_are_of_one_image() -> None:
    old = "conv 1x3x3 s1x1x1 p0x1x1 d1x1x1 g1 16x1x56x56x64 -> 16x1x56x56x64 relu residual"
    read = _read_choices({"winners": {old: "winograd(4)"}}, 3)
    assert read == {
        native.instruction_set(): {
            "conv 1x3x3 s1x1x1 p0x1x1 d1x1x1 g1 1x1x56x56x64 -> 1x1x56x56x64 relu residual": "winograd(4)"
        }
    }
