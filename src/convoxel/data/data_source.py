"""``load`` and ``check``: the data set of a folder, file or name, or everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from convoxel.data.bundled import BUNDLED, open_digits, open_mni152
from convoxel.data.classification import open_classes
from convoxel.data.data_set import DataSet, Split
from convoxel.data.npz_set import open_npz_set
from convoxel.data.segmentation import open_segmentation
from convoxel.data.split import SplitRule, Validation
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import ErrorCollector, Problem, fault, shown

TASKS = ("segment", "classify")
Source = str | os.PathLike[str]


def load(
    source: Source, task: str, *, validation: Validation = None, gap: int = 0, seed: int = 0, bad: str = "stop"
) -> DataSet:
    """Return the data set of a folder, a .npz file or a name, split into training and validation.

    Folders to segment hold images/ and labels/ with equal names, folders to classify one folder a class; both
    may be under train/ and validation/ or test/, which are then honoured: a test part is never used to validate.
    Headers, pairs, ranks, channels and label values are checked now; pixels when a sample is read (``check`` reads all
    of them).

    Args:
        source: a folder, a .npz file, "mni152" (segment) or "digits" (classify).
        task: "segment" or "classify".
        validation: size of the validation part, a count (int) or a fraction (float) (default 20 %). To segment, the
            last samples by name validate; to classify, the same proportion of every class, drawn by ``seed``.
        gap: voxels left unused between the two parts of "mni152" (default 0, as for every other source).
        seed: random seed of that drawing (default 0).
        bad: "stop" at the first broken sample, or "skip" all of them (reads everything once; see ``skipped``)
            (default "stop").

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
    errors = ErrorCollector(strict=bad == "stop")
    found = _open(source, task, SplitRule(validation, seed), gap, errors)
    return found if bad == "stop" else _without_broken(found, errors)


def guess_task(source: Source) -> str:
    """Return "segment" where there are images/ and labels/ or a bundled set says so, else "classify"."""
    if source in BUNDLED:
        return BUNDLED[str(source)]
    folders = [Path(source), *(Path(source) / name for name in ("train", "training"))]
    paired = any((folder / "images").is_dir() or (folder / "labels").is_dir() for folder in folders)
    return "segment" if paired else "classify"


def check(source: Source, task: str) -> list[Problem]:
    """Return everything that is wrong with a source, reading every sample once; an empty list if nothing is.

    Raises ConfigError for a wrong task or a source that does not fit it.
    """
    errors = ErrorCollector(strict=False)
    try:
        found = _open(source, task, SplitRule(), 0, errors)
    except DataError as error:
        return [*errors.problems, Problem(shown(source), str(error))]
    return [*errors.problems, *found.problems()]


def _open(source: Source, task: str, rule: SplitRule, gap: int, errors: ErrorCollector) -> DataSet:
    if task not in TASKS:
        near = difflib.get_close_matches(str(task), TASKS, 1, 0.3)
        raise ConfigError(
            f"task is {task!r}; expected 'segment' or 'classify'." + (f" Did you mean {near[0]!r}?" if near else "")
        )
    if source in BUNDLED:
        if BUNDLED[str(source)] != task:
            raise ConfigError(
                f"task is {task!r} but the data {str(source)!r} serve the task {BUNDLED[str(source)]!r}. "
                "Change one of the two."
            )
        if source == "mni152":
            return open_mni152(rule.cut, gap)
    elif not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"source is {source!r}; expected a folder, a .npz file, or one of {', '.join(BUNDLED)}.")
    if gap != 0:
        raise ConfigError(f"gap is {gap}; expected 0 for this source: only mni152 is one volume that is cut in two.")
    if source == "digits":
        return open_digits(rule)
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        is_folder = is_file = False
    if is_folder:
        return (open_segmentation if task == "segment" else open_classes)(path, rule, errors)
    if is_file and path.name.lower().endswith(".npz"):
        return open_npz_set(path, task, rule, errors)
    came = "this is a file, not a data set" if is_file else "there is no such folder or file"
    near = difflib.get_close_matches(str(source), BUNDLED, 1)
    mend = f"Did you mean {near[0]!r}?" if near else "Check the path"
    raise fault(path, came, f"a folder, a .npz file, or one of {', '.join(BUNDLED)}", mend)


def _without_broken(found: DataSet, errors: ErrorCollector) -> DataSet:
    """Return the data set without the samples that cannot be read; DataError if a part is empty then."""
    problems = [*errors.problems, *found.problems()]
    broken = {problem.name for problem in problems}

    def sound(part: Split) -> Split:
        kept = tuple(entry for entry in part.entries if shown(entry.name) not in broken)
        if not kept:
            raise DataError(
                f"{found.name}: all {len(part)} samples of a part are broken; expected at least one whole. "
                f"The first: {problems[0]}"
            )
        return Split(kept, part.cache)

    train, validation, test = sound(found.train), sound(found.validation), sound(found.test) if found.test else None
    return replace(found, train=train, validation=validation, test=test, skipped=tuple(problems))
