"""``load`` and ``check``: the data set of a folder, file or name, or everything that is wrong with it."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convoxel.arithmetic.argument import whole
from convoxel.data.bundled import BUNDLED, open_digits, open_mni152
from convoxel.data.collection import Collection
from convoxel.data.data_set import DataSet, Split
from convoxel.data.layout import TASKS, expected_sources, find_tasks, open_layout
from convoxel.data.opening import Opening
from convoxel.data.regions import Regions, plan_regions
from convoxel.data.set_survey import SetSurvey
from convoxel.data.split import SplitRule, Validation
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import Problem, fault, shown

Source = str | os.PathLike[str]


def load(
    source: Source,
    task: str,
    *,
    validation: Validation = None,
    gap: int = 0,
    seed: int = 0,
    bad: str = "stop",
    folds: int | None = None,
    fold: int = 0,
    split: str | os.PathLike[str] | None = None,
    subject_pattern: str | None = None,
    resample_labels: bool = False,
    whole: bool = False,
    classes: Sequence[str] = (),
    axes: str | None = None,
    rate: float | None = None,
    ignore_label: int | None = None,
    regions: Mapping[str, object] | Regions | None = None,
) -> DataSet:
    """Return the data set of a folder, a .npz file or a name, split into training and validation.

    Folders to segment hold images/ and labels/ with equal names, folders to classify one folder a class; both
    may be under train/ and validation/ or test/, which are then honoured: a test part is never used to validate.
    Headers, pairs, ranks, channels and label values are checked now; pixels when a sample is read (``check`` reads all
    of them).

    Args:
        source: a folder, a .npz file, "mni152" (segment) or "digits" (classify).
        task: "segment", "classify" or "regress".
        validation: size of the validation part, a count (int) or a fraction (float) (default 20 %), of subjects where
            they are known. To segment, the last samples by name validate; to classify, the same proportion of every
            class, drawn by ``seed``.
        gap: voxels left unused between the two parts of "mni152" (default 0, as for every other source).
        seed: random seed of that drawing (default 0).
        bad: "stop" at the first broken sample, or "skip" all of them (reads everything once; see ``skipped``)
            (default "stop").
        folds: number of parts of a cross-validation, drawn by ``seed``, of which one validates (default None).
        fold: the part that validates, 0 … folds − 1 (default 0).
        split: file that lists the samples of every part, as a run's ``split.json`` or nnU-Net's ``splits_final.json``,
            of which ``fold`` chooses one (default None).
        subject_pattern: regular expression that finds the subject in a sample's name, as its first group or whole match
            (default None: as the source says). Samples of a subject are never split.
        resample_labels: bring labels of another grid onto that of their image instead of refusing them (default False).
        whole: hold nothing out, to measure a network on all samples: ``validation``, ``folds`` and ``split`` do not
            count, and a source may have one part alone (default False).
        classes: names of the classes of a network that the samples are for, the background first to segment. Labels
            need not hold all of them, and may hold no others (default: those that the source has).
        axes: what the axes of NumPy arrays mean, one letter each: W, HW or DHW with C before or after, such as "HWC" or
            "NCHW", N for the samples of a set (default None: as labels and sizes tell, and refused where they do not).
        rate: rate in Hz to which recordings (EDF, BDF) are resampled, each channel without the frequencies that the
            rate cannot hold (default None: as stored; channels of unequal rates are refused).
        ignore_label: value in label files of voxels that belong to no known class; label maps of samples then hold 255
            (default None: as ``dataset.json`` says).
        regions: label value or values of each region, by name, where classes overlap, such as
            ``{"tumour": [1, 2], "core": 2}`` (default None: as ``dataset.json`` says); with ``classes``, the network's.

    Raises:
        DataError: for a source that is missing or broken, saying where, what, and how to mend it.
        ConfigError: for a wrong argument.

    >>> digits = load("digits", "classify", validation=0.25, seed=1)
    >>> digits.dims, digits.channels, len(digits.classes), len(digits.train), len(digits.validation)
    (2, 1, 10, 1348, 449)
    >>> digits.train[0].image.shape
    (1, 8, 8)
    """
    if bad not in ("stop", "skip"):
        raise ConfigError(f"bad is {bad!r}; expected 'stop' or 'skip'.")
    rule = SplitRule(validation, seed, folds, fold, None if split is None else Path(split))
    if whole:
        rule = SplitRule(whole=True)
    errors = _opening(regions, strict=bad == "stop", classes=tuple(classes), axes=axes, ignored=ignore_label)
    errors.resample_labels = resample_labels
    errors.rate = rate
    _check_task(source, task)
    if source == "mni152":
        _check_ignored(ignore_label, None)
        _check_regions(regions, None)
        return _open_template(rule, gap)
    _check_no_gap(gap)
    found = _open(source, task, errors).with_subjects(subject_pattern)
    if not classes:  # labels that are measured with a network are checked against its classes
        _check_ignored(ignore_label, found.ignored)
        _check_regions(regions, found.regions)
    if bad == "stop":
        return found.split(rule)
    sound, skipped = found.without_broken(errors.problems)
    return replace(sound.split(rule), skipped=skipped)


def guess_task(source: Source) -> str:
    """Return the task that a source serves, the likelier of two; "classify" where none is known."""
    if source in BUNDLED:
        return BUNDLED[str(source)]
    with contextlib.suppress(OSError, ValueError):  # a name too long, or with a NUL; DataError, which opening it raises
        return next(iter(find_tasks(Path(source))), "classify")
    return "classify"


def check(
    source: Source,
    task: str,
    *,
    validation: Validation = None,
    seed: int = 0,
    split: str | os.PathLike[str] | None = None,
    subject_pattern: str | None = None,
    axes: str | None = None,
    rate: float | None = None,
    ignore_label: int | None = None,
    regions: Mapping[str, object] | None = None,
) -> list[Problem]:
    """Return everything that is wrong with a source, reading every sample once; an empty list if nothing is.

    Beside broken samples these are identical images, subjects in two parts, classes that training lacks, and parts
    without foreground. Arguments as of ``load``.

    Raises ConfigError for a wrong argument, or a source that does not fit the task.
    """
    rule = SplitRule(validation, seed, file=None if split is None else Path(split))
    errors = _opening(regions, strict=False, axes=axes, ignored=ignore_label)
    errors.rate = rate
    _check_task(source, task)
    try:
        if source == "mni152":
            _check_ignored(ignore_label, None)
            _check_regions(regions, None)
            return _open_template(rule, 0).problems()
        found = _open(source, task, errors).with_subjects(subject_pattern)
        _check_ignored(ignore_label, found.ignored)
        _check_regions(regions, found.regions)
    except DataError as error:
        return [*errors.problems, Problem(shown(source), str(error))]
    try:
        dataset = found.split(rule)
    except DataError as error:  # no split: the samples are read all the same, since each may be wrong as well
        everything = Split(tuple(e for entries in found.parts.values() for e in entries), found.cache)
        return [*errors.problems, *everything.problems(), Problem(shown(source), str(error))]
    survey = SetSurvey(dataset)
    return [*errors.problems, *dataset.problems(survey.add), *survey.problems()]


def _check_task(source: Source, task: str) -> None:
    if task not in TASKS:
        near = difflib.get_close_matches(str(task), TASKS, 1, 0.3)
        raise ConfigError(
            f"task is {task!r}; expected 'segment', 'classify' or 'regress'."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    if source in BUNDLED:
        if BUNDLED[str(source)] != task:
            raise ConfigError(
                f"task is {task!r} but the data {str(source)!r} serve the task {BUNDLED[str(source)]!r}. "
                "Change one of the two."
            )
    elif not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"source is {source!r}; expected a folder, a file, or one of {', '.join(BUNDLED)}.")


def _open_template(rule: SplitRule, gap: int) -> DataSet:
    if rule.folds is not None or rule.file is not None:
        name = "folds" if rule.file is None else "split"
        raise ConfigError(f"{name}: mni152 is one volume that is cut in two; expected no {name}. Leave it out.")
    return open_mni152(rule.cut, gap)


def _check_ignored(stated: int | None, used: int | None) -> None:
    if stated is not None and used is None:
        raise ConfigError(
            f"ignore_label: got {stated}; expected none for this source: only label maps of images have values to "
            "ignore. Leave it out, or give images with label maps."
        )


def _opening(regions: Mapping[str, object] | Regions | None, ignored: int | None, **facts: Any) -> Opening:
    """Return how a source is opened; regions that are stated get their names."""
    facts["ignored"] = None if ignored is None else whole("ignore_label", ignored)
    if regions is None or isinstance(regions, Regions):
        return Opening(**facts, regions=regions)
    names, planned = plan_regions(regions)
    return Opening(**facts, regions=planned, region_names=tuple(names))


def _check_regions(stated: object, used: Regions | None) -> None:
    if stated is not None and used is None:
        raise ConfigError(
            "regions: given for a source without label maps; expected none: only label maps of images have regions. "
            "Leave them out, or give images with label maps."
        )


def _check_no_gap(gap: int) -> None:
    if gap != 0:
        raise ConfigError(f"gap is {gap}; expected 0 for this source: only mni152 is one volume that is cut in two.")


def _open(source: Source, task: str, errors: Opening) -> Collection:
    if source == "digits":
        return open_digits()
    path = Path(source)
    try:
        there = path.is_dir() or path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        there = False
    if there:
        return open_layout(path, task, errors)
    near = difflib.get_close_matches(str(source), BUNDLED, 1)
    mend = f"Did you mean {near[0]!r}?" if near else "Check the path"
    raise fault(path, "there is no such folder or file", f"{expected_sources()}, or one of {', '.join(BUNDLED)}", mend)
