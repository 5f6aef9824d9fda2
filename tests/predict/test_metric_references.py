"""Metrics beside loops, SimpleITK, MONAI, surface-distance and scikit-learn, on a few dozen drawn pairs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from convoxel.errors import ConfigError
from convoxel.predict import surface_distance
from convoxel.predict.classification_metric import SCORE_METRICS
from convoxel.predict.metric_table import list_metrics, overlap_metrics, score_metrics
from convoxel.predict.metrics import confusion
from convoxel.predict.segmentation_metric import OVERLAP_METRICS, ClassOverlap, find_overlap_metric, overlaps
from convoxel.predict.surface_distance import border_distances, surface_elements
from tools.metric_references import LIMIT, LIMITS, compare_overlaps, compare_scores, difference, draw_pair, draw_scores


def test_metrics_equal_their_references() -> None:
    compared: Counter[str] = Counter()
    for number in range(40):
        rng = np.random.default_rng([1, number])
        for name, source, ours, theirs in (*compare_overlaps(*draw_pair(rng, 8)), *compare_scores(*draw_scores(rng))):
            assert difference(ours, theirs) <= LIMITS.get(source, LIMIT), (number, name, source, ours, theirs)
            compared[source] += 1
            compared[name] += 1
    assert all(compared[source] > 30 for source in ("loops", "SimpleITK", "MONAI", "surface-distance", "scikit-learn"))
    assert {metric.name for metric in (*OVERLAP_METRICS, *SCORE_METRICS)} <= compared.keys()


def overlap(truth: np.ndarray, found: np.ndarray, spacing: tuple[float, ...] | None = None) -> ClassOverlap:
    label, prediction = truth.astype(np.uint8), found.astype(np.uint8)
    return next(overlaps(label, prediction, confusion(label, prediction, 2), spacing, [1]))


def measure(name: str, of: ClassOverlap) -> float:
    metric = find_overlap_metric(name)
    assert metric is not None
    return metric.of(of)


def test_shifted_boxes_by_hand() -> None:
    """A box of 4 × 4 × 2 voxels of 1 × 1 × 3 mm, and the same two voxels further along axis 0."""
    truth = np.zeros((12, 9, 8), bool)
    truth[2:6, 3:7, 2:4] = True
    pair = overlap(truth, np.roll(truth, 2, axis=0), (1.0, 1.0, 3.0))
    assert measure("dice", pair) == 0.5 and measure("iou", pair) == pytest.approx(1 / 3)
    assert measure("hd", pair) == 2.0 and measure("volume", pair) == pytest.approx(32 * 3 / 1000)
    # All 32 voxels of a box two layers thick are border: 8 are off by 2 mm, 8 by 1 mm, 16 are on the other's border.
    assert measure("assd", pair) == pytest.approx((8 * 2 + 8 * 1) / 32)
    assert measure("hd95", pair) == 2.0 and measure("hd50", pair) == pytest.approx(0.5)
    assert measure("nsd@2mm", pair) == 1.0 and 0 < measure("nsd@1.9mm", pair) < 1
    assert measure("nsd@2voxels", pair) == 1.0
    assert measure("specificity", pair) == pytest.approx(1 - 16 / (truth.size - 32))


def test_distances_count_voxels_where_no_spacing_is_known() -> None:
    truth = np.zeros((6, 6), bool)
    truth[1, 1] = True
    pair = overlap(truth, np.roll(truth, 3, axis=1))
    assert measure("hd", pair) == 3.0 and measure("volume", pair) == 1.0 and pair.diagonal == math.hypot(5, 5)


def test_a_tolerance_met_exactly_is_met_however_floats_round() -> None:
    truth = np.zeros(12, bool)
    truth[4] = True
    pair = overlap(truth, np.roll(truth, 3), (0.1,))  # 3 × 0.1 is above 0.3 in floats
    assert measure("nsd@0.3mm", pair) == 1.0 and measure("nsd@0.29mm", pair) < 1.0


@pytest.mark.parametrize("sparse", [True, False])
def test_both_ways_to_the_nearest_voxel_agree(monkeypatch: pytest.MonkeyPatch, sparse: bool) -> None:
    """A tree over few points and a distance transform of the box give the same distances."""
    rng = np.random.default_rng(3)
    truth, found = (rng.random((9, 8, 7)) < 0.2 for _ in range(2))
    expected = [border_distances(truth, found, (1.0, 0.5, 2.0)), surface_elements(truth, found, (1.0, 0.5, 2.0))]
    monkeypatch.setattr(surface_distance, "_TREE_VOXELS", 0 if sparse else 10**6)
    again = [border_distances(truth, found, (1.0, 0.5, 2.0)), surface_elements(truth, found, (1.0, 0.5, 2.0))]
    for one, other in zip(np.concatenate(expected[0]), np.concatenate(again[0]), strict=True):
        assert one == pytest.approx(other, abs=1e-12)
    for one_side, other_side in zip(expected[1], again[1], strict=True):
        np.testing.assert_allclose(one_side[0], other_side[0], atol=1e-12)
        np.testing.assert_array_equal(one_side[1], other_side[1])


def test_memory_follows_the_box_around_the_masks() -> None:
    """Two small masks in a large image: what a distance allocates beside the box search is small."""
    import tracemalloc

    truth = np.zeros((160, 160, 160), np.uint8)
    truth[80:90, 80:90, 80:90] = 1
    found = np.roll(truth, 2, axis=0)
    counts = confusion(truth, found, 2)
    tracemalloc.start()
    try:
        (pair,) = overlaps(truth, found, counts, (1.0, 1.0, 1.0), [1])
        assert measure("hd95", pair) > 0
        assert tracemalloc.get_traced_memory()[1] < 3 * truth.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("task", "name", "words"), [
    ("segment", "dise", "Did you mean 'dice'"),
    ("segment", "auc", "one of the task 'classify'"),
    ("classify", "hd95", "one of the task 'segment'"),
    ("segment", "nsd", "expected a tolerance above 0 with its unit"),
    ("segment", "nsd@0mm", "expected a tolerance above 0"),
    ("segment", "nsd@1", "such as nsd@1mm"),
    ("segment", "hd0", "a percentage above 0 and up to 100"),
    ("segment", "hd101", "a percentage above 0 and up to 100"),
    ("classify", "", "names with commas between them"),
])  # fmt: skip
def test_unknown_metrics_are_refused(task: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^metrics: got .*expected") as caught:
        (overlap_metrics if task == "segment" else score_metrics)([name])
    assert words in str(caught.value)


def test_names_may_come_twice_or_in_capitals() -> None:
    assert [metric.name for metric in overlap_metrics(["Dice", " HD95", "dice", "hd100", "hd"])] == [
        "dice",
        "hd95",
        "hd",
    ]
    assert {row.task for row in list_metrics()} == {"segment", "classify", "classify, several classes", "regress"}
