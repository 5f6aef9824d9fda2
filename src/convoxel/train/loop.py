"""The training loop: step, validate, save, stop when asked to; resumes where a run was cut off.

What a step computes follows from the configuration, the data and the step's number. The loop adds only
time: when to save, and in runs limited by minutes how far the schedule has come.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoxel.errors import ConvoxelError
from convoxel.train.batch import Batch, Batches
from convoxel.train.config import TrainConfig
from convoxel.train.constraint import add_penalty, hold_constraints
from convoxel.train.evaluation import score_samples
from convoxel.train.inference import build_predictor
from convoxel.train.interrupt import Interrupt
from convoxel.train.loss import build_loss, measure_loss
from convoxel.train.network import arrange_images
from convoxel.train.norm import set_mode
from convoxel.train.precision import autocast
from convoxel.train.progress import Progress
from convoxel.train.run import Run, finish_run, open_run, resume_run
from convoxel.train.schedule import learning_rate, measure_fraction, steps_total

__all__ = ["RunResult", "fit"]

OnProgress = Callable[[Progress], None]

# A validation may take a tenth of the time, and a run of minutes is drawn with at most about 60 points.
_VALIDATION_SHARE = 0.1
_POINTS = 60
_VALIDATION_OVERLAP = 0.25


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        path: the run folder.
        metrics: figures of the best checkpoint on the validation part, as
            :func:`convoxel.train.evaluate` returns them; of an interrupted run the last validation's
            row, empty before the first.
        best_metric: best mean validation metric seen; None before the first validation.
        seconds: training time of all resumptions together, validation included.
        steps: optimiser steps taken.
        interrupted: whether a signal ended it; ``resume=True`` goes on.
        signal: that signal's number, else None.
    """

    path: Path
    metrics: dict[str, Any]
    best_metric: float | None
    seconds: float
    steps: int
    interrupted: bool
    signal: int | None = None


def fit(
    config: TrainConfig, *, resume: bool = False, force: bool = False, on_progress: OnProgress | None = None
) -> RunResult:
    """Train a network as configured and return how it went; everything else is in ``config.output``.

    The folder receives ``config.yaml`` (with every decision), ``metrics.jsonl``, ``tensorboard/``,
    ``checkpoints/``, ``evaluation.json``, ``examples.npz`` and ``describe.json``. Runs with equal
    configuration, data, threads and ``epochs`` are bit-equal, also when cut off and resumed; ``minutes``
    ties the schedule to the clock. SIGINT and SIGTERM save a checkpoint and end the run.

    Args:
        config: what to train; unset entries are chosen from the data.
        resume: go on with the run in ``config.output``. Entries stated anew must equal the run's.
        force: resume even if configuration or data differ.
        on_progress: called with a :class:`Progress` after every step.

    Raises:
        ConfigError: the output folder exists, or an entry does not fit the data.
        DataError: a sample is broken.
        CheckpointError: nothing to resume, another configuration or data, another trainer in the same
            folder, or a checkpoint that cannot be written. Earlier checkpoints stay intact.
        ConvoxelError: the loss became NaN or infinite; names the step and its samples.
    """
    folder = Path(config.output)
    tell = on_progress or (lambda progress: None)
    tell(Progress(0, 0, None, 0.0, None, None, None, None, "prepare"))
    with _machine(config), contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        if resume:
            run = resume_run(config, force, stack)
        else:
            run = open_run(config, stack)
        torch.set_num_threads(run.config.threads or torch.get_num_threads())
        clock = Clock(run, tell)
        batches = stack.enter_context(contextlib.closing(_batches(run).iterate(run.state.step)))
        _train(run, batches, clock, interrupt)
        row = run.state.history[-1] if run.state.history else {}
        if interrupt.received is not None:
            return _result(run, folder, row, interrupt.received)
        clock.tell("evaluate")
        metrics = finish_run(run)
        clock.tell("done")
        return _result(run, folder, metrics, None)


def _result(run: Run, folder: Path, metrics: dict[str, Any], signal: int | None) -> RunResult:
    state = run.state
    return RunResult(
        path=folder,
        metrics=metrics,
        best_metric=state.best_metric,
        seconds=state.elapsed_s,
        steps=state.step,
        interrupted=signal is not None,
        signal=signal,
    )


@contextlib.contextmanager
def _machine(config: TrainConfig) -> Iterator[None]:
    """Leave the caller's thread count and generator as they were."""
    threads = torch.get_num_threads()
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _batches(run: Run) -> Batches:
    dataset = run.dataset
    return Batches(dataset.train, run.config, run.intensity, len(dataset.classes), dataset.spacing_mm)


@dataclass
class Clock:
    """Time and speed of a run, and the reports made of them."""

    run: Run
    on_progress: OnProgress
    begun: float = field(default_factory=time.perf_counter)
    offset_s: float = 0.0
    saved: float = field(default_factory=time.perf_counter)
    validation_s: float = 0.0
    validated_s: float = -math.inf
    epoch_begun: float = field(default_factory=time.perf_counter)
    epoch_samples: int = 0

    def __post_init__(self) -> None:
        self.offset_s = self.run.state.elapsed_s

    def advance(self) -> None:
        """Bring the state's elapsed time and fraction up to now; the fraction never falls."""
        state = self.run.state
        state.elapsed_s = self.offset_s + time.perf_counter() - self.begun
        reserve_s = 1.2 * self.validation_s
        fraction = measure_fraction(self.run.config, state.step, state.elapsed_s, reserve_s)
        state.fraction = max(state.fraction, fraction)

    def begin_epoch(self) -> None:
        self.epoch_begun, self.epoch_samples = time.perf_counter(), 0

    def tell(self, phase: str) -> None:
        """Report where the run is."""
        config, state = self.run.config, self.run.state
        total = steps_total(config)
        if total is None and state.fraction > 0:
            total = max(state.step, round(state.step / state.fraction))
        left_s = None
        if config.minutes is not None:
            left_s = max(0.0, 60.0 * config.minutes - state.elapsed_s)
        elif state.fraction > 0:
            left_s = state.elapsed_s / state.fraction * (1.0 - state.fraction)
        spent = time.perf_counter() - self.epoch_begun
        self.on_progress(
            Progress(
                epoch=-(-state.step // (config.steps_per_epoch or 1)),
                step=state.step,
                steps_total=total,
                fraction=state.fraction,
                loss=state.loss_sum / state.loss_count if state.loss_count else None,
                metric=state.history[-1]["metric"] if state.history else None,
                samples_per_s=self.epoch_samples / spent if self.epoch_samples and spent > 0 else None,
                time_left_s=0.0 if phase in ("evaluate", "done") else left_s,
                phase=phase,
            )
        )


class _Stopped(Exception):
    """A signal arrived during validation."""


def _train(run: Run, batches: Iterator[Batch], clock: Clock, interrupt: Interrupt) -> None:
    """Train until the run is complete or a signal arrives; either way the last step is saved."""
    config, state = run.config, run.state
    criterion = build_loss(config.task)
    clock.advance()
    while interrupt.received is None:
        done = state.fraction >= 1.0
        if _validation_due(run, clock, done):
            with contextlib.suppress(_Stopped):
                _validate(run, clock, interrupt)
        elif done:
            return
        else:
            _step(run, next(batches), criterion)
            clock.epoch_samples += config.batch_size or 1
            clock.advance()
            clock.tell("train")
            if time.perf_counter() - clock.saved >= config.checkpoint_seconds:
                _save(run, clock)
    clock.advance()
    _save(run, clock)


def _step(run: Run, batch: Batch, criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """One update of the weights, with the learning rate of the run's fraction."""
    config, state = run.config, run.state
    # Dropout and the like draw from this; seeding every step makes it a function of the step's number.
    words = np.random.SeedSequence([config.seed, 3, state.step]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))
    set_mode(run.model, state.fraction)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, state.fraction)
    images = arrange_images(batch.images)
    with autocast(config.precision):
        found = run.model(images)
    loss = measure_loss(criterion, found, batch.targets)
    value = loss.item()
    state.optimiser.zero_grad(set_to_none=True)
    if math.isfinite(value):
        add_penalty(config, run.model, loss).backward()
        limit = config.clip if config.clip is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), limit).item()
        if math.isfinite(norm):
            state.optimiser.step()
            hold_constraints(config, run.model)
            state.step += 1
            state.loss_sum += value
            state.loss_count += 1
            return
    what = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
    rate = learning_rate(config, state.fraction)
    raise ConvoxelError(
        f"train: {what} at step {state.step + 1} (samples: {', '.join(dict.fromkeys(batch.names))}). "
        f"Lower learning_rate (it was {rate:.3g}) and start anew; "
        f"the last checkpoint in {run.folder} is intact."
    )


def _validation_due(run: Run, clock: Clock, done: bool) -> bool:
    """At the end, and at the end of those epochs that the configuration or the clock allows."""
    config, state = run.config, run.state
    if state.history and state.history[-1]["step"] == state.step:
        return False
    if done:
        return True
    if state.step == 0 or state.step % (config.steps_per_epoch or 1):
        return False
    if config.validate_every is not None:
        return (state.step // (config.steps_per_epoch or 1)) % config.validate_every == 0
    wait_s = max(clock.validation_s / _VALIDATION_SHARE, 60.0 * (config.minutes or 1.0) / _POINTS)
    return state.elapsed_s - clock.validated_s >= wait_s


def _validate(run: Run, clock: Clock, interrupt: Interrupt) -> None:
    """Measure the validation part, write the row, keep the best weights and a checkpoint."""
    config, state = run.config, run.state
    clock.tell("validate")
    start = time.perf_counter()
    spent = start - clock.epoch_begun
    speed = clock.epoch_samples / spent if spent > 0 else 0.0

    def check() -> None:
        if interrupt.received is not None:
            raise _Stopped

    overlap = min(config.overlap, _VALIDATION_OVERLAP)
    run.model.eval()
    predictor = build_predictor(run.model, config, run.meta, precision=config.precision, overlap=overlap)
    figures = score_samples(predictor, run.dataset.validation, on_tick=check).figures()
    clock.validation_s = time.perf_counter() - start
    clock.advance()
    clock.validated_s = state.elapsed_s
    state.history.append(
        {
            "step": state.step,
            "epoch": -(-state.step // (config.steps_per_epoch or 1)),
            "time_s": round(state.elapsed_s, 3),
            "train_loss": state.loss_sum / state.loss_count if state.loss_count else None,
            "validation_loss": figures["loss"],
            "metric": figures["metric"],
            "per_class": figures["per_class"],
            "learning_rate": learning_rate(config, state.fraction),
            "samples_per_s": round(speed, 3),
        }
    )
    state.loss_sum, state.loss_count = 0.0, 0
    if state.best_metric is None or figures["metric"] > state.best_metric:
        state.best_metric = figures["metric"]
        run.store.save_best(state.model_tensors(), state.body(config, run.meta))
    _save(run, clock)
    run.record.write_metrics(state.history)
    clock.begin_epoch()
    clock.tell("train")


def _save(run: Run, clock: Clock) -> None:
    run.store.save(run.state.tensors(), run.state.body(run.config, run.meta))
    clock.saved = time.perf_counter()
