"""Runs measured on labelled images: their own, or others of the same kind."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convoxel import data
from convoxel.errors import ConfigError
from convoxel.files.fault import few
from convoxel.predict.case_prediction import MapOptions
from convoxel.predict.case_statistics import REPLICATES
from convoxel.predict.clean_up import CleanUp
from convoxel.predict.evaluation import OnSample, Request, RunEvaluation, evaluate_split
from convoxel.predict.inference import check_engine
from convoxel.predict.label_threshold import Threshold
from convoxel.predict.member import check_members
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train.config import TrainConfig
from convoxel.train.run_folder import build_ensemble, find_thresholds, load_data, load_members, load_source
from convoxel.train.run_list import Runs, find_seen, list_runs

_SPLITS = ("validation", "train", "test", "all")


def evaluate(
    run_dir: Runs,
    source: str | Path | None = None,
    *,
    engine: str = "convoxel",
    precision: str | None = None,
    split: str | None = None,
    which: str = "best",
    metrics: Sequence[str] | None = None,
    replicates: int = REPLICATES,
    device: str = "auto",
    mirror: str | Sequence[int] | None = None,
    keep_largest: str | Sequence[str] | None = None,
    min_volume: str | float | None = None,
    fill_holes: bool = False,
    threshold: Threshold = None,
    resample_labels: bool = False,
    ignore_label: int | None = None,
    on_begin: Callable[[int, DataFacts], None] = lambda count, facts: None,
    on_sample: OnSample | None = None,
) -> RunEvaluation:
    """Return the metrics of a run's network on labelled images, or of an ensemble of several.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote, several of them, or a folder with the runs of all folds.
            All members of an ensemble predict each image; a warning says which of them were trained on it.
        source: data set as for training (default: the run's own).
        engine: "convoxel" or "torch" (default "convoxel").
        precision: digits of the products of the engine "convoxel", as of :func:`convoxel.compile` (default: PyTorch's
            setting, "float32" unless somebody lowered it).
        split: "validation", "train", "test" or "all" (default: "validation" of the run's own data, wherever they lie,
            and all of other data, since the network has seen none of them). Other data without such parts are split by
            the run's rule.
        which: checkpoint, "best" or "last" (default "best").
        metrics: names of metrics, such as ``["dice", "hd95", "nsd@1mm"]`` (default: those of the task that cost nothing
            beside the prediction); ``convoxel evaluate --metrics list`` prints all.
        replicates: resamples of the intervals' bootstrap over subjects; 0 leaves intervals out (default 2000).
        device: where PyTorch computes: "auto", "cpu", "cuda", "cuda:1" … or "mps" (default "auto", a GPU where there
            is one); the engine "convoxel" computes on the CPU.
        mirror: axes along which images are mirrored, as of :func:`predict` (default: what the run says, usually none).
        keep_largest, min_volume, fill_holes: clean-up of label maps before they are measured, as of :func:`predict`.
        threshold: least probability at which a class is there, where an image may have several, as of :func:`predict`.
        resample_labels: bring labels of another grid onto that of their image instead of refusing them (default False:
            as in training).
        ignore_label: value in label files of voxels that belong to no known class (default None: as in training, or as
            ``dataset.json`` says).
        on_begin: called with the number of samples and the facts of the run's data before the first sample.
        on_sample: called with (index, sample, prediction, its metrics) after each sample.

    Returns:
        ``metric_name``, ``metric`` (mean Dice without background, or accuracy; None where no image has a class that is
        there or predicted), ``per_class``, ``confusion`` (rows: true classes), ``loss``, ``samples`` (one dict each),
        ``figures`` (of each metric the value, unit, interval, and figures of each class), ``resampling`` and
        ``empty_rule`` (how intervals came about, and what counts where a class is not there), ``curves`` (of a
        classification), ``thresholds`` (of images that may have several classes: the one used, and that of the largest
        F1), ``count``, ``seconds``, ``engine``, ``split``, ``step``, ``data``; ``members``
        (name, step and mirrored axes of each run) and ``seen`` (the images that each member was trained on).

    Raises:
        CheckpointError: the folder is no run.
        DataError: the data do not fit the run, or have no such split.
        ConfigError: ``split``, ``engine``, ``device`` or a metric is unknown, or no such device is here.
    """
    if split is not None and split not in _SPLITS:
        raise ConfigError(f"split: got {split!r}; expected one of {', '.join(_SPLITS)}.")
    check_engine(engine, precision)
    folders, members = list_runs(run_dir), load_members(run_dir, which)
    run = next(iter(members.values()))
    request = Request(metrics, replicates)
    request.check(run.config.task, run.data.multi_label)
    if resample_labels or ignore_label is not None:
        stated: dict[str, Any] = {"resample_labels": resample_labels or run.config.resample_labels}
        if ignore_label is not None:
            stated["ignore_label"] = ignore_label
        run = replace(run, config=TrainConfig.build(**{**run.config.to_dict(), **stated}))
    check_members(members)
    dataset, split = load_part(run, next(iter(folders.values())), source, split)
    samples = dataset.split(split)  # a missing one is reported before the network is compiled
    for rule in {member.data.rule for member in members.values()}:
        rule.warn_of_unknown((entry.name, entry.affine, entry.spacing_mm) for entry in samples.entries)
    clean_up = CleanUp.build(keep_largest, min_volume, fill_holes)
    levels = find_thresholds(threshold, folders, members)
    predictor = replace(build_ensemble(members, engine, device, precision=precision, mirror=mirror), thresholds=levels)
    MapOptions(clean_up=clean_up).check(predictor)
    own = {name: folders[name] for name, each in members.items() if each.data.fingerprint == dataset.fingerprint}
    seen = find_seen(own, samples.names)
    if len(members) > 1 and seen:
        _warn_of_seen(seen, len(samples))
    on_begin(len(samples), run.data)
    begun = time.perf_counter()
    found = evaluate_split(predictor, dataset, split, on_sample, request, clean_up)
    told = [member.facts for member in predictor.members]
    return {**found, "seconds": time.perf_counter() - begun, "members": told, "seen": seen}


def _warn_of_seen(seen: Mapping[str, Sequence[str]], count: int) -> None:
    told = {name for names in seen.values() for name in names}
    warnings.warn(
        f"run: {len(told)} of {count} images were in the training part of a member ({few(list(seen))}), so the figures "
        "are better than those of new images. Evaluate the ensemble on other data, or each run on what it held out.",
        RuntimeWarning,
        stacklevel=3,
    )


def load_part(
    run: TrainedRun[TrainConfig], run_dir: str | Path, source: str | Path | None, split: str | None
) -> tuple[data.DataSet, str]:
    """Return the data to measure a run on, checked to be of its kind, and the part of them."""
    if source is not None:
        dataset = _load_other(run, source)
        run.data.check(dataset)
        if dataset.fingerprint != run.data.fingerprint:
            if split in ("train", "validation") and not dataset.validation:
                dataset = load_data(run.config, source)
            return dataset, split or "all"
    # The run's own data, wherever they lie now: only what was held out is new to the network.
    config = run.config if source is None else run.config.model_copy(update={"data": str(source)})
    dataset = load_data(config, run=run_dir)
    run.data.check(dataset)
    return dataset, split or "validation"


def _load_other(run: TrainedRun[TrainConfig], source: str | Path) -> data.DataSet:
    """Return other data for a trained network: its classes, nothing held out, subjects where the pattern finds them."""
    stated: dict[str, Any] = {"whole": True, "classes": run.data.classes, "regions": run.data.regions}
    if run.config.subject_pattern is not None:
        with contextlib.suppress(ConfigError):  # other data may be named otherwise
            return load_source(run.config, source, subject_pattern=run.config.subject_pattern, **stated)
    return load_source(run.config, source, **stated)
