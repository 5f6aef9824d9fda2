"""Networks that are trained to be compared: a space under budgets, or given scales, in a study that machines share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from convoxel.errors import CheckpointError, ConvoxelError
from convoxel.files.values import JsonObject, Options
from convoxel.inspect import time_engine
from convoxel.predict.run_progress import Progress
from convoxel.search.budget import Budget
from convoxel.search.candidate import Candidate, measure
from convoxel.search.find import Findings
from convoxel.search.pareto_front import check_goals, front, values
from convoxel.search.space import Space
from convoxel.search.study import OnStudy, StudyResult, Train, Watch, run_study
from convoxel.train.scaling_study import Scaled, ScalingStudy, name_variants, train_variant, trial_settings


def search_trained(
    space: Space,
    data: str | Path,
    *,
    budget: Budget | None = None,
    goals: Mapping[str, str],
    epochs: int = 10,
    threads: int | None = None,
    settings: Options | None = None,
    study: str | None = None,
    storage: str | None = None,
    sampler: str = "tpe",
    trials: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    output: str | Path | None = None,
    seed: int = 0,
    on_progress: OnStudy | None = None,
) -> Findings:
    """Return the trained networks of a space, the best first, and those of them that no other one beats.

    A network outside the budgets is counted and never trained; trainings whose curves are below the median of the
    others are stopped. Machines that give the same arguments and storage share the trials.

    Args:
        space: networks to choose from.
        data: source that ``convoxel.data.load`` takes.
        budget: limits of what a network may cost (default: none).
        goals: figures; those that should be "low" stand beside the quality.
        epochs: epochs of each training (default 10).
        threads: number of CPU threads (default: all).
        settings: more entries of ``TrainConfig``.
        study: name of the study (default: made of all that decides its results).
        storage, sampler, trials, minutes, resume, on_progress: as of :func:`convoxel.search.study.run_study`.
        output: folder for the runs, in which an interrupted one goes on (default: a temporary one).
        seed: random seed of the sampler and of training (default 0).

    Raises:
        ConfigError: an argument is out of range, or no network lies inside every budget. DataError: the data cannot be
            read. UnsupportedError: Optuna is not installed.
    """
    check_goals(goals)
    limits = budget or Budget()
    shared = {"validate_every": 1, **(settings or {})}
    base = trial_settings(data, space.network, epochs=epochs, seed=seed, threads=threads, settings=shared)
    low = [name for name, way in goals.items() if way == "low"]
    all_options = [{**space.fixed, **space.options(0)}]
    name_variants(space.network, all_options)  # refuses options that cannot be trained

    def look(number: int) -> Candidate | None:
        try:
            found = measure(space.network, space.shape, space.options(number), space.fixed)
        except ConvoxelError:  # options that exclude each other, or more levels than the image has
            return None
        if limits.max_time_s is not None and not limits.excess(found):
            return dataclasses.replace(found, time_s=time_engine(found.build(), found.shape))
        return found

    decided = [space.network, space.shape, dict(space.vary), dict(space.fixed), dataclasses.asdict(limits), sampler,
               low, {**base, "data": Path(data).name, "threads": None}]  # fmt: skip
    with _folder(output) as folder:
        result = run_study(
            space.vary,
            look,
            _training(base, folder, lambda number: {**space.fixed, **space.options(number)}),
            name=study or _name(space.network, decided),
            budget=limits,
            storage=storage,
            sampler=sampler,
            low=[lambda each, name=name: values(each, {name: "low"})[0] for name in low],  # type: ignore[misc]
            trials=trials,
            minutes=minutes,
            resume=resume,
            seed=seed,
            on_progress=on_progress,
        )
    known = [
        dataclasses.replace(candidate, quality=row.quality)
        for row in result.trained
        if (candidate := look(row.number)) is not None
    ]
    known.sort(key=lambda each: -(each.quality or 0.0))
    best = front(known, {"quality": "high", **dict.fromkeys(low, "low")})
    names = {candidate.name for candidate in best}
    return Findings(
        space=space, budget=limits, goals={"quality": "high", **dict.fromkeys(low, "low")}, seed=seed,
        measured=len(known) + result.outside, refused=0,
        inside=(*best, *(each for each in known if each.name not in names)), front=tuple(best), study=result,
    )  # fmt: skip


def share_scales(
    data: str | Path,
    network: str,
    variants: Sequence[Options],
    *,
    storage: str,
    study: str | None = None,
    epochs: int = 10,
    threads: int | None = None,
    settings: Options | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    on_progress: OnStudy | None = None,
) -> tuple[ScalingStudy, StudyResult]:
    """Return a network at several scales, each trained once by one of the machines that share the storage.

    Arguments and errors as of :func:`search_trained` and :func:`convoxel.train.scaling_study.study_scaling`. A machine
    returns when all scales are trained, or others are being trained by machines that are alive.
    """
    names = name_variants(network, variants)
    base = trial_settings(data, network, epochs=epochs, seed=seed, threads=threads, settings=settings)

    def look(number: int) -> Candidate:
        return Candidate(network=network, options=variants[number], fixed={}, shape=(), params=0, macs=0,
                         memory_bytes=0, field=())  # fmt: skip

    decided = [network, [dict(each) for each in variants], {**base, "data": Path(data).name, "threads": None}]
    with _folder(output) as folder:
        result = run_study(
            {"scale": names}, look, _training(base, folder, lambda number: variants[number]),
            name=study or _name(network, decided), storage=storage, prune=False, seed=seed, on_progress=on_progress,
        )  # fmt: skip
    rows = sorted(result.trained, key=lambda row: row.number)
    scaled = tuple(
        Scaled(names[row.number], dict(variants[row.number]), tuple(row.figures["shape"]), quality=row.quality,
               **{name: row.figures[name] for name in ("params", "macs", "train_s", "steps", "metric_name")})
        for row in rows
    )  # fmt: skip
    return ScalingStudy(scaled, network, str(data), scaled[-1].metric_name if scaled else "metric"), result


def _name(network: str, decided: Sequence[object]) -> str:
    """Return a name that is the same where all that decides the results is."""
    text = json.dumps(decided, sort_keys=True, default=str)
    return f"{network}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@contextlib.contextmanager
def _folder(output: str | Path | None) -> Iterator[Path]:
    if output is not None:
        yield Path(output)
        return
    with tempfile.TemporaryDirectory(prefix="convoxel-") as folder:
        yield Path(folder)


def _training(base: Options, folder: Path, options: Callable[[int], Options]) -> Train:
    """Return the function that trains a combination in a folder of its own, and tells the study every validation."""

    def train(number: int, candidate: Candidate, watch: Watch) -> tuple[float, JsonObject]:
        validating = False

        def tell(progress: Progress) -> None:
            nonlocal validating
            if progress.phase == "validate":
                validating = True
            elif validating and progress.metric is not None:
                validating = False
                watch.report(progress.epoch, progress.metric)

        place = folder / watch.key
        try:
            row = train_variant(base, options(number), place, candidate.name, tell)
        except CheckpointError:
            if not watch.retried:
                raise
            # The worker that was taken for dead still holds the folder.
            place = folder / f"{watch.key}-{os.getpid()}"
            row = train_variant(base, options(number), place, candidate.name, tell)
        found = dataclasses.asdict(row)
        return row.quality, {
            name: found[name] for name in ("shape", "params", "macs", "train_s", "steps", "metric_name")
        }

    return train
