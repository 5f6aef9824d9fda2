"""The rates of this machine for the cost model: plausible, rounded, kept, and never a reason for a call to fail."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convoxel import native
from convoxel.native import Convolution, Plan, View, _core, calibration
from convoxel.native.calibration import CALIBRATION_FILE, Rates, calibrate, measure_rates


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Make each test calibrate anew, and restore the engine's rates afterwards."""
    calibrate.cache_clear()
    yield
    calibrate.cache_clear()
    _core.set_rates(1.0, 1.0)


def test_rates_are_powers_of_two() -> None:
    for rate in measure_rates():
        assert 0.25 <= rate <= 4
        assert math.log2(rate) == round(math.log2(rate))


def test_a_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure_rates", lambda: Rates(2.0, 0.5))
    assert calibrate() == Rates(2.0, 0.5) == Rates(*_core.rates())
    assert list(json.loads((tmp_path / CALIBRATION_FILE).read_text()).values()) == [{"cache": 2.0, "memory": 0.5}]

    calibrate.cache_clear()
    monkeypatch.setattr(calibration, "measure_rates", lambda: pytest.fail("measured again"))
    assert calibrate() == Rates(2.0, 0.5)


def test_without_a_cache_every_process_chooses_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", "")
    monkeypatch.setattr(calibration, "measure_rates", lambda: pytest.fail("measured for nothing"))
    assert calibrate() == Rates(1.0, 1.0)


def test_a_cache_that_cannot_be_written_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "measure_rates", lambda: Rates(2.0, 2.0))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert calibrate() == Rates(1.0, 1.0)


@pytest.mark.parametrize(
    "entry", [None, [], {}, {"cache": 1.0}, {"cache": "1", "memory": 1.0}, {"cache": 99.0, "memory": 1.0}]
)
def test_a_spoilt_entry_is_measured_again(entry: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure_rates", lambda: Rates(1.0, 1.0))
    calibrate()
    calibrate.cache_clear()
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), entry)))
    monkeypatch.setattr(calibration, "measure_rates", lambda: Rates(4.0, 4.0))
    assert calibrate() == Rates(4.0, 4.0)


def test_rates_change_neither_costs_nor_choices() -> None:
    """A calibration decides how work is divided, never which algorithm runs: results do not depend on it."""
    calibrate()  # which the first plan would do, and set this machine's
    layer = Convolution(np.ones((256, 256, 1, 3, 3), np.float32), padding_low=(0, 1, 1))
    src = View.dense(1, 0, (1, 1, 14, 14, 256))
    x, found = np.random.default_rng(0).standard_normal((14, 14, 256), np.float32), []
    for rates in ((0.25, 0.25), (4.0, 4.0)):
        _core.set_rates(*rates)
        plan, y = Plan(0, 2), np.empty_like(x)
        plan.convolve(layer, src, src._replace(buffer=2), algorithm="winograd(4)")
        plan.run([x, y])
        found.append((plan.candidates(layer, src, src._replace(buffer=2)), plan.workspace_bytes, y.tobytes()))
    (costs, workspace, bits), (other_costs, other_workspace, other_bits) = found
    assert costs == other_costs and bits == other_bits
    assert workspace != other_workspace, "the rates divide the work otherwise"


def test_every_instruction_set_has_a_reference_machine() -> None:
    rows = {row["instruction_set"]: row for row in _core.reference_machines()}
    assert set(rows) >= set(native.instruction_sets()) | {"amx", "avx512", "avx2", "portable"}
    assert all(0.2 <= row[rate] <= 4 for row in rows.values() for rate in ("cache", "memory"))
