"""Metrics by hand, normalisation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from convoxel.data import Sample
from convoxel.predict.metric_table import overlap_metrics
from convoxel.predict.metrics import Tally, confusion, dice
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts

pytestmark = pytest.mark.smoke


def test_normalisation_ignores_padding_and_survives_constants() -> None:
    image = np.zeros((2, 4, 5), np.float32)
    image[0, 1:3] = np.array([1, 3, 1, 3, 1], np.float32)
    found = Normalisation("sample").statistics(image)
    assert found.mean.tolist() == pytest.approx([1.8, 0.0]) and found.floor.tolist() == [0, 0]
    assert found.std[0] == pytest.approx(np.std([1, 3, 1, 3, 1])) and found.std[1] == 1
    normal = found.normalise(image)
    assert normal.dtype == np.float32 and np.isfinite(normal).all()
    assert np.isfinite(Normalisation("dataset", (1.0,), (0.0,)).statistics(image[:1]).normalise(image[:1])).all()


def test_dice_by_hand() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    counts = confusion(truth, predicted, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    found = dice(counts)
    assert found[:3].tolist() == pytest.approx([0.5, 0.8, 0.0]) and np.isnan(found[3])


def test_tally_of_volumes_skips_absent_classes() -> None:
    tally = Tally("segment", ("air", "a", "b"))
    for name, truth, predicted, loss in (
        ("one", [0] * 5 + [1] * 4, [0] * 5 + [1] * 4, 0.5),
        ("two", [0] * 5 + [1] * 4 + [2] * 3, [0] * 7 + [1] * 2 + [2] * 3, 1.5),
    ):
        label = np.array(truth, np.uint8)
        tally.add_volume(
            Sample(name, label[None].astype(np.float32), label), label, np.array(predicted, np.uint8), loss
        )
    found = tally.metrics()
    assert found["per_class"] == pytest.approx({"a": (1 + 4 / 6) / 2, "b": 1.0})
    assert found["metric"] == pytest.approx(((1 + 4 / 6) / 2 + 1) / 2) and found["loss"] == 1.0
    assert found["samples"][0] == {
        "name": "one", "subject": "one", "dice": {"air": 1.0, "a": 1.0, "b": None}, "metric": 1.0,
        "voxels": {"a": (4, 4), "b": (0, 0)}, "values": {}, "confusion": [[5, 0, 0], [0, 4, 0], [0, 0, 0]],
    }  # fmt: skip


def test_nothing_found_where_nothing_is_counts_neither_for_nor_against() -> None:
    empty = np.zeros((4, 4), np.uint8)
    one = empty.copy()
    one[1, 1] = 1
    tally = Tally("segment", ("air", "a"), overlap_metrics(["dice", "hd95"]))
    tally.add_volume(Sample("nothing", empty[None].astype(np.float32), empty), empty, empty, 0.0)
    assert tally.metrics()["metric"] is None and tally.metrics()["per_class"] == {"a": None}
    tally.add_volume(Sample("right", empty[None].astype(np.float32), one), one, one, 0.0)
    assert tally.metrics()["metric"] == 1.0
    tally.add_volume(Sample("missed", empty[None].astype(np.float32), one), one, empty, 0.0)
    assert tally.metrics()["metric"] == 0.5
    values = tally.values()
    assert np.isnan(values[0]).all() and values[1].tolist() == [[1.0], [0.0]]
    assert values[2].tolist() == [[0.0], [np.hypot(3, 3)]]  # a missed class is as far as the image is wide


def test_tally_of_classes() -> None:
    tally = Tally("classify", ("cat", "dog", "owl"))
    for truth, predicted in ((0, 0), (0, 1), (1, 1)):
        log_p = np.log(np.where(np.arange(3) == predicted, 0.8, 0.1))
        row = tally.add_class(Sample("x", np.zeros((1, 2, 2), np.float32), truth), truth, log_p)
        assert (row["predicted"], row["probability"]) == (tally.classes[predicted], 0.8)
    found = tally.metrics()
    assert found["metric"] == pytest.approx(2 / 3)
    assert found["per_class"] == {"cat": 0.5, "dog": 1.0, "owl": None}


def test_facts_of_earlier_versions_are_read() -> None:
    facts = DataFacts(("a", "b"), 2, 1, Normalisation("dataset", (1.0,), (2.0,)), None, "0", "set")
    entries = asdict(facts)
    entries["intensity"] = entries.pop("normalisation")
    assert DataFacts.from_dict(entries) == facts
