"""The rates of this machine for the cost model: plausible, rounded, kept, and never a reason for a call to fail."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from convoxel.native import _core, calibration
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


def test_rates_change_what_is_expected_to_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow reading raises the cost of an algorithm with large weights more than that of others."""
    import numpy as np

    from convoxel.native import Convolution, Plan, View

    layer = Convolution(np.ones((256, 256, 1, 3, 3), np.float32), padding_low=(0, 1, 1))
    view = View.dense(1, 0, (1, 1, 14, 14, 256))
    plan = Plan(0, 2)
    before = dict(plan.candidates(layer, view, view._replace(buffer=2)))
    _core.set_rates(4.0, 4.0)
    after = dict(plan.candidates(layer, view, view._replace(buffer=2)))
    assert after["winograd(4)"] > 1.5 * before["winograd(4)"]
    assert after["winograd(4)"] / before["winograd(4)"] > after["indirect"] / before["indirect"]
