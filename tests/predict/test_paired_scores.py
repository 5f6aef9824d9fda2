"""Differences of two runs in metrics of all images together: against scikit-learn, and what cannot be paired."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from convoxel.predict.paired_scores import compare_scores

NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(4)
COUNT = 40
HELD = RNG.random((COUNT, 3)) < 0.5
CLASS = RNG.integers(3, size=COUNT)
VALUES = RNG.normal(size=(COUNT, 3))


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


@pytest.mark.parametrize(("task", "several", "metric", "of"), [
    ("classify", True, "auc", lambda p: sklearn.roc_auc_score(HELD, p)),
    ("classify", True, "f1", lambda p: sklearn.f1_score(HELD, p >= [0.5, 0.3, 0.5], average="macro")),
    ("classify", False, "auc", lambda p: sklearn.roc_auc_score(CLASS, p, multi_class="ovr")),
    ("classify", False, "accuracy", lambda p: np.mean(p.argmax(axis=1) == CLASS)),
    ("regress", False, "r2", lambda p: sklearn.r2_score(VALUES, p)),
])  # fmt: skip
def test_differences_are_those_of_the_same_images(
    task: str, several: bool, metric: str, of: Callable[[np.ndarray], float]
) -> None:
    shares = [RNG.dirichlet(np.ones(3), COUNT) for _ in range(2)]
    if task == "regress":
        shares = [VALUES + RNG.normal(size=VALUES.shape) * scale for scale in (0.1, 0.5)]
    levels = {"thresholds": {name: {"threshold": 0.3 if name == "b" else 0.5} for name in NAMES} if several else None}
    ours, theirs = (evaluation(task, several, each, **levels) for each in shares)
    theirs["samples"] = [*theirs["samples"][::-1], {"name": "new"}]
    found = compare_scores(metric, ours, theirs, NAMES, task, several)
    assert found is not None and found.images == COUNT and found.p_value is None
    assert found.mean == pytest.approx(of(shares[0]) - of(shares[1]))
    assert found.interval is not None and found.interval.low < found.mean < found.interval.high
    back = compare_scores(metric, theirs, ours, NAMES, task, several)
    assert back is not None and back.mean == pytest.approx(-found.mean)
    same = compare_scores(metric, ours, ours, NAMES, task, several)
    assert same is not None and same.mean == 0 and same.interval in (None, (0.0, 0.0))


def test_what_cannot_be_paired_has_no_difference() -> None:
    whole = evaluation("classify", True, RNG.random((COUNT, 3)))
    assert compare_scores("auc", whole, {"samples": [{"name": "other"}]}, NAMES, "classify", True) is None
    assert compare_scores("auc", whole, whole, ["a", "b", "none"], "classify", True) is None
    assert compare_scores("nonsense", whole, whole, NAMES, "classify", True) is None
    for changed in ({"probabilities": {}}, {"probabilities": 3}, {"label": "a; z"}):
        damaged = {"samples": [{**row, **changed} for row in whole["samples"]]}
        assert compare_scores("auc", whole, damaged, NAMES, "classify", True) is None
