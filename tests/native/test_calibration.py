"""The rates of this machine: plausible, kept where it is quiet, and never a reason for a result to differ."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convoxel import native
from convoxel.native import Convolution, Plan, View, _core, calibration
from convoxel.native.calibration import (
    CALIBRATION_FILE,
    Calibration,
    Rates,
    calibrate,
    known_calibration,
    measure_calibration,
    recalibrate,
    shipped_rates,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Make each test calibrate anew, and restore the engine's rates afterwards."""
    calibrate.cache_clear()
    yield
    calibrate.cache_clear()
    _core.set_rates(1.0, 1.0)


def quiet(cache: float, memory: float, busy: bool = False) -> Calibration:
    return Calibration(Rates(cache, memory), Rates(0.05, 0.1), 1000.0, busy)


def test_rates_and_spreads_are_plausible() -> None:
    found = measure_calibration()
    assert all(0.1 <= rate <= 10 for rate in found.rates) and all(spread >= 0 for spread in found.spread)
    assert found.busy or max(found.spread) <= 0.25


def speeds(monkeypatch: pytest.MonkeyPatch, ceiling: list[float], reading: list[float], share: float = 1.0) -> None:
    """Make the engine measure these speeds, with this share of the processors' time."""
    clock = itertools.count()
    monkeypatch.setattr(calibration, "measure_ceiling", lambda *_, **__: ceiling[next(clock) % len(ceiling)])
    monkeypatch.setattr(_core, "measure_reading", lambda *_: reading)
    passed = itertools.count(0.0, 1.0)
    now = {"wall": -1.0}

    def wall() -> float:
        now["wall"] = next(passed)
        return now["wall"]

    monkeypatch.setattr(calibration.time, "perf_counter", wall)
    monkeypatch.setattr(
        calibration.time, "process_time", lambda: share * calibration.default_threads() * (now["wall"] + 1.0)
    )


def test_the_fastest_trial_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, [770e9, 700e9, 7e9, 700e9], [90e9, 100e9, 92e9])
    found = measure_calibration()
    assert found.rates.cache == pytest.approx(1.0) and found.rates.memory == pytest.approx(7.7 / 14.3)
    assert found.spread.cache == pytest.approx(0.1) and not found.busy


@pytest.mark.parametrize(
    ("reading", "share"), [([100e9, 60e9, 60e9], 1.0), ([100e9], 0.6)], ids=["slow trials", "taken processors"]
)
def test_a_busy_machine_is_recognised(reading: list[float], share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, [770e9], reading, share)
    assert measure_calibration().busy


def test_a_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(2.0, 0.5))
    assert calibrate() == Rates(2.0, 0.5) == Rates(*_core.rates())
    (entry,) = json.loads((tmp_path / CALIBRATION_FILE).read_text()).values()
    assert entry == {"rates": [2.0, 0.5], "spread": [0.05, 0.1], "measured_s": 1000}

    calibrate.cache_clear()
    monkeypatch.setattr(calibration, "measure_calibration", lambda: pytest.fail("measured again"))
    assert calibrate() == Rates(2.0, 0.5)
    assert known_calibration() == quiet(2.0, 0.5)


def test_what_a_busy_machine_measures_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(9.0, 9.0, busy=True))
    assert calibrate() == shipped_rates() and known_calibration() is None
    calibrate.cache_clear()
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(2.0, 0.5))
    assert calibrate() == Rates(2.0, 0.5)
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(9.0, 9.0, busy=True))
    assert recalibrate().busy and known_calibration() == quiet(2.0, 0.5), "the earlier one stays"


def test_a_busy_machine_is_measured_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    measured: list[int] = []

    def measure() -> Calibration:
        measured.append(1)
        return quiet(9.0, 9.0, busy=True)

    monkeypatch.setattr(calibration, "measure_calibration", measure)
    for now, count in ((1000.0, 1), (1001.0, 1), (1599.0, 1), (1601.0, 2), (900.0, 3)):  # a clock may be set back
        monkeypatch.setattr(calibration.time, "time", lambda now=now: now)
        calibrate.cache_clear()
        assert calibrate() == shipped_rates() and len(measured) == count and known_calibration() is None


def test_without_a_cache_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", "")
    monkeypatch.setattr(calibration, "measure_calibration", lambda: pytest.fail("measured for nothing"))
    assert calibrate() == shipped_rates()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(2.0, 2.0))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert calibrate() == Rates(2.0, 2.0)


GOOD = {"rates": [1.0, 1.0], "spread": [0.1, 0.1], "measured_s": 5}


@pytest.mark.parametrize(
    "entry",
    [
        None, [], {}, {"cache": 1.0, "memory": 1.0}, {**GOOD, "rates": [1.0]}, {**GOOD, "rates": ["1", 1.0]},
        {**GOOD, "rates": [99.0, 1.0]}, {**GOOD, "spread": [0.1, 0.9]}, {**GOOD, "measured_s": "today"},
    ],
)  # fmt: skip
def test_a_spoilt_entry_is_measured_again(entry: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(1.0, 1.0))
    calibrate()
    calibrate.cache_clear()
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), entry)))
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet(4.0, 4.0))
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
