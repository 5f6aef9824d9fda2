"""Metrics beside independent references, on drawn label maps and drawn scores.

Run by hand::

    .venv/bin/python -m tools.metric_references              500 pairs of label maps, 500 sets of scores
    .venv/bin/python -m tools.metric_references --pairs 50   fewer

Label maps are drawn in one to three axes with anisotropic spacing: blobs, noise, single voxels, masks that touch the
image's edge or fill it, equal masks, and masks where one or both are empty. The references are plain loops (this file),
SimpleITK, MONAI and surface-distance; of scores scikit-learn and loops. A table shows for each metric and reference how
often both were compared and the largest relative difference; the exit code is 1 if one is beyond what floats explain.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.predict.classification_metric import BINS, SCORE_METRICS, ClassScores
from convoxel.predict.metrics import confusion
from convoxel.predict.segmentation_metric import ClassOverlap, find_overlap_metric, overlaps

Mask = NDArray[np.bool_]
Compared = Iterator[tuple[str, str, float, float]]  # metric, reference, ours, theirs

_KINDS = ("blobs", "blobs", "blobs", "noise", "one voxel", "edge", "equal", "full", "no truth", "none found", "neither")
# Binary fractions: a tolerance that equals a distance is then met by all references alike.
_SPACINGS = (0.5, 0.75, 1.0, 1.25, 3.0)
_TOLERANCES = (0.6, 1.0, 2.7)
#: MONAI computes in float32, and the areas of surface elements, which ours takes from it, are float32.
LIMITS = {"MONAI": 3e-6, "surface-distance": 1e-7}
LIMIT = 1e-9


def draw_pair(rng: np.random.Generator, most: int = 12) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Return two masks of one grid, and its spacing."""
    dims = int(rng.choice([1, 2, 3, 3]))
    shape = tuple(rng.integers(1, most, dims))
    kind = rng.choice(_KINDS)
    truth, found = _draw_mask(rng, shape, kind), _draw_mask(rng, shape, kind)
    if kind == "equal":
        found = truth.copy()
    if kind in ("no truth", "neither"):
        truth[...] = False
    if kind in ("none found", "neither"):
        found[...] = False
    return truth, found, tuple(float(step) for step in rng.choice(_SPACINGS, dims))


def _draw_mask(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Mask:
    from scipy.ndimage import gaussian_filter

    mask = np.zeros(shape, bool)
    if kind == "one voxel":
        mask[tuple(int(rng.integers(size)) for size in shape)] = True
    elif kind == "full":
        mask[...] = True
    elif kind == "noise":
        mask[...] = rng.random(shape) < rng.uniform(0.05, 0.95)
    elif kind == "edge":
        axis = int(rng.integers(len(shape)))
        mask[(slice(None),) * axis + (slice(0, int(rng.integers(1, shape[axis] + 1))),)] = True
    else:
        mask[...] = gaussian_filter(rng.normal(size=shape), 1.2) > rng.uniform(-0.1, 0.2)
    return mask


def compare_overlaps(truth: Mask, found: Mask, spacing: tuple[float, ...]) -> Compared:
    """Yield every metric of a pair of masks beside every reference that has it."""
    label, prediction = truth.astype(np.uint8), found.astype(np.uint8)
    counts = confusion(label, prediction, 2)
    (ours,) = overlaps(label, prediction, counts, spacing, [1])
    references = [_loops(truth, found, spacing), _simple_itk(truth, found, spacing)]
    if truth.any() and found.any() and truth.ndim > 1:
        references += [_monai(truth, found, spacing), _surface_distance(truth, found, spacing)]
    for source, values in references:
        for name, theirs in values.items():
            yield name, source, _measure(name, ours), theirs


def _measure(name: str, overlap: ClassOverlap) -> float:
    metric = find_overlap_metric(name)
    assert metric is not None, name
    return metric.of(overlap)


def _loops(truth: Mask, found: Mask, spacing: tuple[float, ...]) -> tuple[str, dict[str, float]]:
    both = sum(bool(t and f) for t, f in zip(truth.flat, found.flat, strict=True))
    true, given, total = int(truth.sum()), int(found.sum()), truth.size
    unit = math.prod(spacing) / (1000 if truth.ndim == 3 else 1)
    values = {
        "dice": _share(2 * both, true + given), "iou": _share(both, true + given - both),
        "sensitivity": _share(both, true), "precision": _share(both, given),
        "specificity": _share(total - true - given + both, total - true),
        "volume": given * unit, "true_volume": true * unit, "volume_error": (given - true) * unit,
        "volume_similarity": 1 - _share(abs(given - true), given + true),
    }  # fmt: skip
    names = ("hd", "hd95", "assd")
    if not true or not given:
        diagonal = math.sqrt(sum(((n - 1) * step) ** 2 for n, step in zip(truth.shape, spacing, strict=True)))
        empty = not true and not given
        values |= dict.fromkeys(names, math.nan if empty else diagonal)
        values |= {f"nsd@{tolerance:g}mm": math.nan if empty else 0.0 for tolerance in _TOLERANCES}
        return "loops", values
    sides = [border(truth), border(found)]
    far = [[min(_far(p, q, spacing) for q in there) for p in here] for here, there in (sides, sides[::-1])]
    values |= {
        "hd": max(map(max, far)),
        "hd95": max(_quantile(sorted(side), 0.95) for side in far),
        "assd": sum(map(sum, far)) / sum(map(len, far)),
    }
    if truth.ndim == 1:  # a signal's surface are the two ends of each run
        ends = [[i for i in range(len(m) + 1) if (i > 0 and m[i - 1]) != (i < len(m) and m[i])] for m in (truth, found)]
        gaps = [min(abs(p - q) for q in there) * spacing[0] for here, there in (ends, ends[::-1]) for p in here]
        values |= {f"nsd@{t:g}mm": sum(gap <= t for gap in gaps) / len(gaps) for t in _TOLERANCES}
    return "loops", values


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def border(mask: Mask) -> list[tuple[int, ...]]:
    """Return the voxels of a mask that have a neighbour across a face that is not in it."""

    def inside(place: tuple[int, ...]) -> bool:
        return all(0 <= at < size for at, size in zip(place, mask.shape, strict=True)) and bool(mask[place])

    steps = [
        tuple(sign * (axis == other) for other in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)
    ]
    return [
        place
        for place in itertools.product(*map(range, mask.shape))
        if mask[place] and not all(inside(tuple(map(sum, zip(place, step, strict=True)))) for step in steps)
    ]


def _far(p: tuple[int, ...], q: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    return math.sqrt(sum(((a - b) * step) ** 2 for a, b, step in zip(p, q, spacing, strict=True)))


def _quantile(values: list[float], share: float) -> float:
    place = share * (len(values) - 1)
    low = math.floor(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def _simple_itk(truth: Mask, found: Mask, spacing: tuple[float, ...]) -> tuple[str, dict[str, float]]:
    import SimpleITK as sitk

    if truth.ndim == 1:  # SimpleITK begins at two axes
        truth, found, spacing = truth[None], found[None], (1.0, *spacing)

    def image(mask: Mask) -> Any:
        made = sitk.GetImageFromArray(mask.astype(np.uint8))
        made.SetSpacing(spacing[::-1])
        return made

    values: dict[str, float] = {}
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(image(found), image(truth))
    if truth.any() and found.any():
        values |= {
            "dice": measures.GetDiceCoefficient(1), "iou": measures.GetJaccardCoefficient(1),
            "volume_similarity": 1 - abs(measures.GetVolumeSimilarity(1)) / 2,
            "sensitivity": 1 - measures.GetFalseNegativeError(1),
            "precision": 1 - measures.GetFalseDiscoveryRate(1),
        }  # fmt: skip
    if (
        truth.any() and found.any() and min(truth.shape) > 1
    ):  # its distances are wrong along an axis beside one of size 1
        borders = []
        for mask in (truth, found):
            edge = np.zeros(mask.shape, bool)
            edge[tuple(np.array(border(mask)).T)] = True
            borders.append(image(edge))
        distance = sitk.HausdorffDistanceImageFilter()  # of sets of voxels: of the borders here
        distance.Execute(*borders)
        values["hd"] = distance.GetHausdorffDistance()
    return "SimpleITK", values


def _monai(truth: Mask, found: Mask, spacing: tuple[float, ...]) -> tuple[str, dict[str, float]]:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (found, truth)]
    common: dict[str, Any] = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI's own calls
        values = {
            "hd": compute_hausdorff_distance(*pair, **common).item(),
            "hd95": compute_hausdorff_distance(*pair, percentile=95, **common).item(),
            "assd": compute_average_surface_distance(*pair, symmetric=True, **common).item(),
        }
        for tolerance in _TOLERANCES:
            near = compute_surface_dice(*pair, [tolerance], use_subvoxels=True, **common)
            values[f"nsd@{tolerance:g}mm"] = near.item()
    return "MONAI", values


def _surface_distance(truth: Mask, found: Mask, spacing: tuple[float, ...]) -> tuple[str, dict[str, float]]:
    import surface_distance

    with _older_names():
        sides = surface_distance.compute_surface_distances(truth, found, spacing)
    share = surface_distance.compute_surface_dice_at_tolerance
    return "surface-distance", {f"nsd@{tolerance:g}mm": float(share(sides, tolerance)) for tolerance in _TOLERANCES}


@contextlib.contextmanager
def _older_names() -> Iterator[None]:
    """Give SciPy's modules the names that surface-distance was written for."""
    from scipy import ndimage

    names = ("filters", "morphology")
    kept = {name: vars(ndimage).get(name) for name in names}
    for name in names:
        setattr(ndimage, name, ndimage)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                delattr(ndimage, name)
            else:
                setattr(ndimage, name, value)


def draw_scores(rng: np.random.Generator) -> tuple[ClassScores, NDArray[np.float64]]:
    """Return scores of some images, with ties, and how often each image counts."""
    count, classes = int(rng.integers(2, 60)), int(rng.choice([2, 2, 3, 5]))
    truth = rng.integers(0, classes if rng.random() < 0.8 else 1, count)
    logits = rng.normal(size=(count, classes)) + rng.uniform(0, 3) * np.eye(classes)[truth]
    if rng.random() < 0.5:
        logits = logits.round()  # ties
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = rng.integers(0, 4, count).astype(float) if rng.random() < 0.5 else np.ones(count)
    return ClassScores(truth, shares / shares.sum(axis=1, keepdims=True)), np.maximum(weights, np.arange(count) == 0)


def compare_scores(scores: ClassScores, weights: NDArray[np.float64]) -> Compared:
    """Yield every metric of classified images beside scikit-learn's of the same images, each as often as it counts."""
    from convoxel.predict.case_statistics import mean_known

    times = weights.astype(int)
    truth, found, shares = (np.repeat(values, times, axis=0) for values in (scores.truth, scores.found, scores.shares))
    theirs = _scikit_learn(truth, found, shares) | {"ece": _calibration(truth, found, shares)}
    # A second row of other weights: each row is computed for itself.
    rows = np.stack([np.ones(len(weights)), weights])
    for metric in SCORE_METRICS:
        ours = float(mean_known(metric.of(scores, rows))[1, 0])
        yield metric.name, "loops" if metric.name == "ece" else "scikit-learn", ours, theirs[metric.name]


def _scikit_learn(truth: NDArray[Any], found: NDArray[Any], shares: NDArray[Any]) -> dict[str, float]:
    from sklearn import metrics

    numbers = list(range(shares.shape[1]))
    one_hot = truth[:, None] == np.array(numbers)
    there = [k for k in numbers if 0 < one_hot[:, k].sum() < len(truth)]
    single = {"labels": numbers, "average": None, "zero_division": np.nan}
    mixed = len(set(truth)) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not there: its answers then are NaN, as asked for
        negative = [metrics.recall_score(~one_hot[:, k], found != k, zero_division=np.nan) for k in numbers]
        recall = metrics.recall_score(truth, found, **single)
        kappa = metrics.cohen_kappa_score(truth, found) if len({*truth, *found}) > 1 else math.nan
        return {
            "accuracy": metrics.accuracy_score(truth, found),
            "balanced_accuracy": float(np.nanmean(recall)),
            "sensitivity": float(np.nanmean(recall)),
            "specificity": float(np.nanmean(negative)) if not np.isnan(negative).all() else math.nan,
            "precision": float(np.nanmean(metrics.precision_score(truth, found, **single))),
            "f1": float(np.nanmean(metrics.f1_score(truth, found, **single))),
            "kappa": float(kappa),
            "mcc": metrics.matthews_corrcoef(truth, found) if mixed and len(set(found)) > 1 else math.nan,
            "auc": float(np.mean([metrics.roc_auc_score(one_hot[:, k], shares[:, k]) for k in there]))
            if there else math.nan,
            "ap": float(np.mean([metrics.average_precision_score(one_hot[:, k], shares[:, k])
                                 for k in numbers if one_hot[:, k].any()])),
            "brier": metrics.brier_score_loss(truth, shares if len(numbers) > 2 else shares[:, 1], labels=numbers),
            "nll": metrics.log_loss(truth, shares, labels=numbers),
        }  # fmt: skip


def _calibration(truth: NDArray[Any], found: NDArray[Any], shares: NDArray[Any]) -> float:
    error = 0.0
    for number in range(BINS):
        rows = [i for i in range(len(truth)) if number < shares[i].max() * BINS <= number + 1]
        if rows:
            right = sum(truth[i] == found[i] for i in rows) / len(rows)
            error += len(rows) / len(truth) * abs(right - sum(shares[i].max() for i in rows) / len(rows))
    return error


def difference(ours: float, theirs: float) -> float:
    """Return the relative difference; 0 where both are undefined, infinity where one is."""
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs) / max(1.0, abs(theirs))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    worst: dict[tuple[str, str], tuple[int, float]] = {}
    for number in range(given.pairs):
        rng = np.random.default_rng([given.seed, number])
        for compared in (compare_overlaps(*draw_pair(rng)), compare_scores(*draw_scores(rng))):
            for name, source, ours, theirs in compared:
                count, far = worst.get((name, source), (0, 0.0))
                worst[name, source] = count + 1, max(far, difference(ours, theirs))
                if difference(ours, theirs) > LIMITS.get(source, LIMIT):
                    print(f"seed {given.seed} pair {number}: {name} {ours!r}, {source} {theirs!r}")
    for (name, source), (count, far) in sorted(worst.items()):
        print(f"{name:20} {source:18} {count:5} compared, largest relative difference {far:.1e}")
    return int(any(far > LIMITS.get(source, LIMIT) for (_, source), (_, far) in worst.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
