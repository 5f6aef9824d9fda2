"""Begins, resumes and closes a run: everything around the loop that touches data, folder and checkpoint."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convoxel import models
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.files.fault import plural
from convoxel.files.lock import hold_lock
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.constraint import hold_constraints
from convoxel.train.defaults import plan_run
from convoxel.train.evaluation import load_data, score_samples
from convoxel.train.examples import Examples
from convoxel.train.inference import build_predictor
from convoxel.train.intensity import Intensity
from convoxel.train.network import arrange, build_network, check_model, load_model
from convoxel.train.norm import slow_statistics
from convoxel.train.record import Record
from convoxel.train.state import State, build_optimiser

__all__ = ["Run", "finish_run", "open_run", "resume_run"]


@dataclass
class Run:
    """A run that is being trained.

    Attributes:
        folder: where it is written.
        config: planned configuration.
        dataset: what it trains on.
        intensity: normalisation of its images.
        meta: what the checkpoint tells about the data.
        state: everything that changes.
        store: its checkpoints.
        record: its readable files.
    """

    folder: Path
    config: TrainConfig
    dataset: Any
    intensity: Intensity
    meta: dict[str, Any]
    state: State
    store: Store
    record: Record

    @property
    def model(self) -> nn.Module:
        return self.state.model


def open_run(config: TrainConfig, stack: contextlib.ExitStack) -> Run:
    """Begin a run: check everything first, then make its folder with a checkpoint of step 0.

    Raises:
        ConfigError: the folder exists and is not empty, or the configuration does not fit the data.
        DataError, CheckpointError: the file of weights cannot be used, or does not fit the network.
    """
    folder = Path(config.output)
    _check_free(folder)
    check_model(config)
    dataset = _load(config)
    config = plan_run(config, dims=dataset.dims, channels=dataset.channels, sizes=dataset.train.shapes)
    intensity = _plan_intensity(config, dataset)
    state = _build_state(config, dataset)
    taken = None if config.weights is None else models.load_weights(state.model, config.weights)
    hold_constraints(config, state.model)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output: cannot make the folder {folder} ({error.strerror or error}). Give another --output."
        ) from None
    try:
        stack.enter_context(hold_lock(folder))
        run = _assemble(folder, config, dataset, intensity, state, stack)
        if taken is not None:
            run.record.write_json("weights.json", {**taken.to_dict(), "summary": str(taken)})
        run.store.save(state.tensors(), state.body(config, run.meta))
    except BaseException:
        # Nothing was trained yet, so a folder without a checkpoint must not stay in the way of a new try.
        stack.close()
        _empty(folder, existed)
        raise
    return run


def resume_run(config: TrainConfig, force: bool, stack: contextlib.ExitStack) -> Run:
    """Go on with the run in ``config.output``.

    Raises:
        CheckpointError: there is no run, no checkpoint is whole, or configuration or data differ and
            ``force`` is not given; the message lists the differences.
    """
    folder = Path(config.output)
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"resume: {folder} holds no run. Leave --resume out to start one there.")
    stack.enter_context(hold_lock(folder))
    store = Store(folder)
    store.settle()
    checkpoint = store.load()
    stored = TrainConfig.build(**checkpoint.body["config"])
    changes = config.difference(stored)
    dataset = _load(config.merged(stored))
    if dataset.fingerprint != checkpoint.body["data"]["fingerprint"]:
        changes.append(f"data: {checkpoint.body['data']['data_name']} → {dataset.name} (its files differ)")
    if changes and not force:
        raise CheckpointError(
            f"resume: the run in {folder} was made otherwise: {'; '.join(changes)}. "
            "Leave these out to go on with it, give another --output, or --force to change it on the way."
        )
    config = config.merged(stored)
    intensity = Intensity.from_dict(checkpoint.body["data"]["intensity"])
    state = _build_state(config, dataset)
    state.restore(checkpoint, folder)
    if (config.minutes, config.epochs) != (stored.minutes, stored.epochs):
        state.fraction = 0.0  # measured anew against the new length
    return _assemble(folder, config, dataset, intensity, state, stack)


def finish_run(run: Run) -> dict[str, Any]:
    """Measure the best weights on the validation part and write the closing files; return the figures."""
    model, config, meta = load_model(run.folder, "best")
    predictor = build_predictor(model, config, meta, engine="torch")
    examples = Examples(len(run.dataset.validation))
    tally = score_samples(predictor, run.dataset.validation, examples.offer)
    figures = {**tally.figures(), "engine": "torch", "split": "validation", "step": meta["step"],
               "count": len(run.dataset.validation), "data": run.dataset.name}  # fmt: skip
    run.record.write_json("evaluation.json", figures)
    run.record.write_arrays("examples.npz", examples.arrays())
    run.record.write_json("describe.json", _describe(model, config, meta))
    return figures


def _describe(model: nn.Module, config: TrainConfig, meta: dict[str, Any]) -> dict[str, Any]:
    from convoxel.inspect import describe

    summary: dict[str, Any] = describe(model, (1, int(meta["channels"]), *(config.patch or ()))).to_dict()
    return summary


def _check_free(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ConfigError(
            f"output: cannot look into {folder} ({error.strerror or error}). Give another --output."
        ) from None
    if taken:
        mend = "Give another --output"
        if (folder / "checkpoints").is_dir():
            mend += ", or --resume to go on with the run there"
        raise ConfigError(f"output: {folder} exists and is not empty. {mend}.")


def _load(config: TrainConfig) -> Any:
    """The data, every sample of which has been read once and found whole."""
    dataset = load_data(config)
    problems = dataset.problems()
    if problems:
        listed = " ".join(problem.message for problem in problems[:3])
        more = f" … and {len(problems) - 3} more." if len(problems) > 3 else ""
        raise DataError(
            f"data: {plural(len(problems), 'sample')} cannot be used: {listed}{more} `convoxel data check` "
            "lists all; --set on_bad_sample=skip leaves them out."
        )
    if len(dataset.train) == 0:
        raise DataError(f"data: {dataset.name} has no training samples left; hold out fewer for validation.")
    return dataset


def _plan_intensity(config: TrainConfig, dataset: Any) -> Intensity:
    if config.normalise == "sample":
        return Intensity("sample")
    if dataset.dims == 3:
        # Of each volume's body, as for single volumes: with the air counted in, tissues would lie close together.
        measures = [Intensity("sample").statistics(sample.image) for sample in dataset.train]
        mean, std = (np.mean([getattr(m, name) for m in measures], axis=0) for name in ("mean", "std"))
        return Intensity("dataset", tuple(map(float, mean)), tuple(map(float, std)))
    measured = dataset.intensity
    return Intensity("dataset", tuple(measured.mean), tuple(measured.std))


def _build_state(config: TrainConfig, dataset: Any) -> State:
    torch.manual_seed(config.seed)
    model = build_network(config, dataset.dims, dataset.channels, len(dataset.classes))
    slow_statistics(model)
    model = arrange(model, dataset.dims)
    return State(model, build_optimiser(config, model))


def _assemble(
    folder: Path,
    config: TrainConfig,
    dataset: Any,
    intensity: Intensity,
    state: State,
    stack: contextlib.ExitStack,
) -> Run:
    spacing = dataset.spacing_mm
    meta = {
        "classes": list(dataset.classes),
        "dims": dataset.dims,
        "channels": dataset.channels,
        "intensity": intensity.to_dict(),
        "spacing_mm": None if spacing is None else [float(value) for value in spacing],
        "fingerprint": dataset.fingerprint,
        "data_name": dataset.name,
    }
    record = Record(folder, tensorboard=config.tensorboard, step=state.step)
    stack.callback(record.close)
    record.write_config(config)
    record.write_metrics(state.history)
    return Run(folder, config, dataset, intensity, meta, state, Store(folder), record)


def _empty(folder: Path, existed: bool) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    if not existed:
        with contextlib.suppress(OSError):
            folder.rmdir()
