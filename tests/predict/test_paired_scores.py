"""Differences of two runs in metrics of all images together: against scikit-learn, and what cannot be paired."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from convoxel.predict.paired_scores import compare_scores

NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(4)
COUNT = 40
HELD = RNG.random((COUNT, 3)) < 0.5
CLASS = RNG.integers(3, size=COUNT)
VALUES = RNG.normal(size=(COUNT, 3))
ALL = np.ones(COUNT, bool)


def evaluation(task: str, several: bool, found: np.ndarray, **more: Any) -> dict[str, Any]:
    """An evaluation as JSON holds it, with further images that the other one lacks."""
    rows = []
    for i, row in enumerate(found):
        told = dict(zip(NAMES, row.tolist(), strict=True))
        held = "; ".join(name for name, own in zip(NAMES, HELD[i], strict=True) if own) or "none"
        label = held if several else NAMES[CLASS[i]]
        truth = dict(zip(NAMES, VALUES[i].tolist(), strict=True))
        values = {"truth": truth, "predicted": told} if task == "regress" else {"label": label, "probabilities": told}
        rows.append({"name": f"{i:02d}", "subject": f"s{i // 2}", **values})
    return json.loads(json.dumps({"samples": rows, **more}))  # type: ignore[no-any-return]


def of_part(of: Callable[..., float], shares: list[np.ndarray], subject: int) -> tuple[float, float]:
    """The metric of our predictions, and less that of theirs, without the images of a subject."""
    kept = np.arange(COUNT) // 2 != subject
    return of(shares[0][kept], kept), -of(shares[1][kept], kept)


@pytest.mark.parametrize(("task", "several", "metric", "of"), [
    ("classify", True, "auc", lambda p, k=ALL: sklearn.roc_auc_score(HELD[k], p)),
    ("classify", True, "f1", lambda p, k=ALL: sklearn.f1_score(HELD[k], p >= [0.5, 0.3, 0.5], average="macro")),
    ("classify", False, "auc", lambda p, k=ALL: sklearn.roc_auc_score(CLASS[k], p / p.sum(axis=1, keepdims=True),
                                                                        multi_class="ovr")),
    ("classify", False, "accuracy", lambda p, k=ALL: np.mean(p.argmax(axis=1) == CLASS[k])),
    ("regress", False, "r2", lambda p, k=ALL: sklearn.r2_score(VALUES[k], p)),
])  # fmt: skip
def test_differences_are_those_of_the_same_images(
    task: str, several: bool, metric: str, of: Callable[..., float]
) -> None:
    shares = [RNG.dirichlet(np.ones(3), COUNT) for _ in range(2)]
    if task == "regress":
        shares = [VALUES + RNG.normal(size=VALUES.shape) * scale for scale in (0.1, 0.5)]
    levels = {"thresholds": {name: {"threshold": 0.3 if name == "b" else 0.5} for name in NAMES} if several else None}
    ours, theirs = (evaluation(task, several, each, **levels) for each in shares)
    theirs["samples"] = [*theirs["samples"][::-1], {"name": "new"}]
    found = compare_scores(metric, ours, theirs, NAMES, task, several)
    assert found is not None and found.images == COUNT and found.test == "bootstrap"
    assert found.mean == pytest.approx(of(shares[0]) - of(shares[1]))
    assert found.interval is not None and found.interval.low < found.mean < found.interval.high
    back = compare_scores(metric, theirs, ours, NAMES, task, several)
    assert back is not None and back.mean == pytest.approx(-found.mean) and back.effect == pytest.approx(-found.effect)
    without = [sum(of_part(of, shares, subject)) for subject in range(COUNT // 2)]
    error2 = (COUNT // 2 - 1) * np.var(without)
    wanted = found.mean / np.sqrt(found.mean**2 + (COUNT // 2 - 1) * error2)
    assert found.effect == pytest.approx(wanted) and abs(wanted) < 1
    same = compare_scores(metric, ours, ours, NAMES, task, several)
    assert same is not None and same.mean == 0 and same.interval in (None, (0.0, 0.0))
    assert (same.effect, same.p_value, same.test) == (None, None, "")


def delong(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The p-value of a difference of two AUC by DeLong's test (1988), from loops over pairs of images."""
    here, there = np.flatnonzero(truth), np.flatnonzero(~truth)
    wins = np.array([[[(s[i] > s[j]) + (s[i] == s[j]) / 2 for j in there] for i in here] for s in (ours, theirs)])
    gap = wins[0] - wins[1]
    variance = np.var(gap.mean(axis=1), ddof=1) / len(here) + np.var(gap.mean(axis=0), ddof=1) / len(there)
    return float(2 * stats.norm.sf(abs(gap.mean()) / np.sqrt(variance)))


def test_the_p_value_agrees_with_delongs_test_and_with_the_interval() -> None:
    rng, pairs, outside = np.random.default_rng(7), [], 0
    for _ in range(25):
        count, rise = int(rng.integers(90, 160)), rng.uniform(0, 1.2)
        truth = rng.random(count) < 0.4
        shared = 0.9 * truth + rng.normal(size=count)
        ours, theirs = (1 / (1 + np.exp(-shared - extra * truth - rng.normal(size=count))) for extra in (rise, 0.0))
        rows = [
            [{"name": str(i), "label": "ab"[int(t)], "probabilities": {"a": 1 - s, "b": s}}
             for i, (t, s) in enumerate(zip(truth, side.tolist(), strict=True))]
            for side in (ours, theirs)
        ]  # fmt: skip
        found = compare_scores("auc", {"samples": rows[0]}, {"samples": rows[1]}, ["a", "b"], "classify", False)
        assert found is not None and found.interval is not None and found.p_value is not None
        assert (found.p_value < 0.05) == (found.interval.low > 0 or found.interval.high < 0)
        pairs.append((found.p_value, delong(truth, ours, theirs)))
        outside += found.p_value < 0.05
    assert 5 < outside < 20
    for ours_p, theirs_p in pairs:
        assert abs(stats.norm.isf(max(ours_p, 1e-3) / 2) - stats.norm.isf(max(theirs_p, 1e-3) / 2)) < 0.35, pairs


def test_what_cannot_be_paired_has_no_difference() -> None:
    whole = evaluation("classify", True, RNG.random((COUNT, 3)))
    assert compare_scores("auc", whole, {"samples": [{"name": "other"}]}, NAMES, "classify", True) is None
    assert compare_scores("auc", whole, whole, ["a", "b", "none"], "classify", True) is None
    assert compare_scores("nonsense", whole, whole, NAMES, "classify", True) is None
    for changed in ({"probabilities": {}}, {"probabilities": 3}, {"label": "a; z"}):
        damaged = {"samples": [{**row, **changed} for row in whole["samples"]]}
        assert compare_scores("auc", whole, damaged, NAMES, "classify", True) is None
