"""Intervals and comparisons beside SciPy's, and how often an interval holds the true mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from convoxel.predict.case_statistics import (
    Case,
    accuracy_interval,
    bootstrap,
    column_means,
    compare_cases,
    mean_interval,
    read_cases,
    share_interval,
)


def cases(values: np.ndarray, subjects: list[str] | None = None) -> list[Case]:
    names = subjects or [str(index) for index in range(len(values))]
    return [Case(float(value), name) for value, name in zip(values, names, strict=True)]


@pytest.mark.parametrize("count", [6, 15, 40])
def test_the_interval_is_scipys_bca_at_the_level_for_few_images(count: int) -> None:
    values = np.random.default_rng(count).beta(8, 1.5, count)
    wide = np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", vectorized=True,
                                confidence_level=2 * ndtr(wide) - 1, rng=np.random.default_rng(1))  # fmt: skip
    found = mean_interval(cases(values))
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert found == pytest.approx(tuple(reference.confidence_interval), abs=0.08 * width)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    """Of 300 draws of 12 Dice values; without the correction for few it would be in 90 of 100."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        found = bootstrap(column_means(rng.beta(8, 1.5, (12, 1))), range(12), replicates=500)[0]
        assert found is not None
        held += found.low <= 8 / 9.5 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_images_of_one_subject_are_drawn_together() -> None:
    """Ten equal images each of four subjects are worth four images, not forty."""
    values = np.array([0.5, 0.6, 0.8, 0.9])
    subjects = [f"subject {index // 10}" for index in range(40)]
    clustered, single = mean_interval(cases(values.repeat(10), subjects)), mean_interval(cases(values))
    assert clustered is not None and single is not None and clustered == pytest.approx(single, abs=0.03)
    apart = mean_interval(cases(values.repeat(10)))
    assert apart is not None and apart.high - apart.low < 0.6 * (clustered.high - clustered.low)
    assert mean_interval(cases(values, ["one"] * 4)) is None and mean_interval([]) is None


def test_intervals_stay_in_range_and_repeat() -> None:
    values = np.array([1.0, 1.0, 0.98, 0.2, 1.0])
    found = mean_interval(cases(values))
    assert found == mean_interval(cases(values)) and found is not None and 0.2 <= found.low < found.high <= 1.0
    assert mean_interval(cases(values), seed=1) != found
    assert mean_interval(cases(np.ones(5))) == (1.0, 1.0)


def test_undefined_values_are_left_out() -> None:
    table = np.array([[0.5, np.nan], [0.7, 0.4], [np.nan, np.nan]])
    assert column_means(table)(np.ones((1, 3)))[0] == pytest.approx([0.5, 0.6, 0.4])
    mean, first, second = bootstrap(column_means(table), range(3))
    assert first is not None and 0.5 <= first.low <= first.high <= 0.7 and mean is not None
    assert second is None  # one image alone has a value
    assert bootstrap(column_means(np.full((4, 1), np.nan)), range(4)) == [None, None]
    assert bootstrap(column_means(table), range(3), replicates=0) == [None] * 3


def test_many_images_are_left_out_in_blocks() -> None:
    """The skewness of 1000 images needs no thousand means without one of them."""
    values = np.random.default_rng(2).lognormal(0, 1, (1000, 1))
    seen: list[int] = []

    def counted(weights: np.ndarray) -> np.ndarray:
        seen.append(len(weights))
        return column_means(values)(weights)

    found = bootstrap(counted, range(1000), replicates=400)[1]
    low, high = stats.t.interval(0.95, 999, values.mean(), stats.sem(values[:, 0]))
    assert sum(seen) == 1 + 400 + 200 and found == pytest.approx((low, high), abs=0.2 * (high - low))


def test_a_perfect_share_has_an_interval_with_a_width() -> None:
    assert share_interval(0, 0) is None
    found = accuracy_interval(cases(np.ones(20)))
    wilson = stats.binomtest(20, 20).proportion_ci(method="wilson")
    assert found == pytest.approx((wilson.low, wilson.high))
    clustered = accuracy_interval(cases(np.array([1.0, 1, 0, 0]), ["a", "a", "b", "b"]))
    assert clustered is not None and clustered == (0.0, 1.0)


def test_paired_comparison_beside_scipy() -> None:
    rng = np.random.default_rng(5)
    ours, theirs = rng.beta(8, 2, 14), rng.beta(7, 2, 14)
    found = compare_cases(dict(enumerate(cases(ours))), dict(enumerate(cases(theirs))))  # type: ignore[arg-type]
    assert found is not None and found.mean == pytest.approx((ours - theirs).mean()) and found.images == 14
    assert found.p_value == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    signed = stats.rankdata(abs(ours - theirs)) * np.sign(ours - theirs)
    assert found.effect == pytest.approx(signed.sum() / abs(signed).sum())
    assert found.interval == mean_interval(cases(ours - theirs))


def test_right_and_wrong_answers_are_compared_by_mcnemar() -> None:
    ours = {str(i): Case(float(i < 9), str(i)) for i in range(12)}
    theirs = {str(i): Case(float(i >= 7), str(i)) for i in range(12)}
    found = compare_cases(ours, theirs)
    assert found is not None and found.p_value == pytest.approx(stats.binomtest(7, 10).pvalue)
    assert found.effect == pytest.approx((7 - 3) / 10)
    same = compare_cases(ours, ours)
    assert same is not None and same.mean == 0 and same.effect is None and same.p_value is None
    assert compare_cases(ours, {"other": Case(1.0, "other")}) is None


def test_a_subject_counts_once_in_the_test() -> None:
    """Twenty images of two subjects tell as much about other subjects as two images."""
    ours = {str(i): Case(0.8 + i / 1000, f"subject {i % 2}") for i in range(20)}
    theirs = {name: Case(case.value - 0.1 - 0.001 * int(name), case.subject) for name, case in ours.items()}
    found = compare_cases(ours, theirs)
    assert found is not None and found.p_value == pytest.approx(0.5) and found.effect == 1.0


def test_cases_of_older_evaluations_are_read() -> None:
    found = read_cases(
        [
            {"name": "a", "metric": 0.5},
            {"name": "b", "metric": None},
            {"name": "c", "correct": True},
            {"name": "d", "metric": float("nan")},
            {"name": "e", "metric": 1.0, "subject": "x"},
        ]
    )
    assert found == {"a": Case(0.5, "a"), "c": Case(1.0, "c"), "e": Case(1.0, "x")}


def test_cases_of_a_further_metric() -> None:
    """Its mean over the classes where it is defined; of what JSON may hold else, none."""
    samples: list[dict[str, object]] = [
        {"name": "a", "values": {"hd95": {"x": 2.0, "y": None}}},
        {"name": "b", "values": {"hd95": {"x": 2.0, "y": 4.0}}, "subject": "s"},
        {"name": "c", "values": {"hd95": {"x": None}}},
        {"name": "d", "values": [1]},
        {"name": "e", "values": {"hd95": 3}},
    ]
    assert read_cases(samples, "hd95") == {"a": Case(2.0, "a"), "b": Case(3.0, "s")}
