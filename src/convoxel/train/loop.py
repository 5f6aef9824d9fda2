"""The training loop: step, validate, save, stop on a signal; resumes where a run was interrupted.

The result of a step follows from the configuration, the data and the step's number. The loop adds only time: when to
save, and in runs limited by minutes how far the schedule has come.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from convoxel.errors import ConvoxelError
from convoxel.files.values import Options
from convoxel.predict.device import choose_device
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import build_predictor
from convoxel.predict.metrics import metric_name
from convoxel.predict.run_progress import OnProgress, Progress
from convoxel.train.batch_norm import set_mode
from convoxel.train.config import TrainConfig
from convoxel.train.interrupt import Interrupt
from convoxel.train.loss import Loss
from convoxel.train.optimisation import (
    add_penalty,
    hold_constraints,
    learning_rate,
    measure_fraction,
    set_rates,
    steps_total,
)
from convoxel.train.pace import VALIDATION_OVERLAP, now
from convoxel.train.process_group import Processes, open_processes, raise_faults
from convoxel.train.training_batch import Batch, Batches
from convoxel.train.training_run import OnPlan, TrainingRun, finish_run, join_run, open_run, resume_run
from convoxel.train.training_state import ValidationRow
from convoxel.train.training_step import build_step_loss, compile_forward, compute_loss, plan_step, watch_memory
from convoxel.train.watch import LossWatch, watch_classes

# Validations may take a tenth of the time, and the curve of a run limited by minutes has at most about 60 points.
_VALIDATION_SHARE = 0.1
_POINTS = 60
# What closes a run is kept free with a tenth to spare.
_SLACK = 1.1
_SAVES = 3  # checkpoints that close a run: the best one, the validated one, the last one


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        path: the run folder.
        metrics: metrics of the best checkpoint on the validation part, as
            :func:`convoxel.train.evaluate` returns them; of an interrupted run the last validation's
            row, empty before the first.
        best_metric: best mean validation metric seen; None before the first validation.
        seconds: time of the whole run before and after resuming: reading, training, validations, closing evaluation.
        steps: optimiser steps taken.
        metric_name: name of that metric, "mean Dice", "accuracy" or "mean AUC".
        interrupted: True if a signal ended it; ``resume=True`` goes on.
        early: True if it ended before its time, since ``patience`` validations were no better.
        signal: number of that signal, else None.
        warnings: sentences about what went wrong in training; they were also given as ``RuntimeWarning``.
        first: False in further processes of a run that several train together; the first one writes everything.
    """

    path: Path
    metrics: Options
    best_metric: float | None
    seconds: float
    steps: int
    interrupted: bool
    metric_name: str
    signal: int | None = None
    early: bool = False
    warnings: tuple[str, ...] = ()
    first: bool = True


def fit(
    config: TrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
    on_plan: OnPlan | None = None,
) -> RunResult:
    """Train a network as configured and return the result; everything else is in ``config.output``.

    The folder receives ``config.yaml`` (with every decision), ``plan.json`` (the same in words, with reasons),
    ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``, ``evaluation.json``, ``examples.npz`` and
    ``describe.json``. Runs with equal
    configuration, data, threads and ``epochs`` are bit-equal on the CPU, also when interrupted and resumed; on a GPU
    they are with ``deterministic``, save for operators that PyTorch then warns of, and differ by rounding without.
    ``minutes`` ties the schedule to the clock and covers the whole run, its closing evaluation included. SIGINT and
    SIGTERM save a checkpoint and end the run. A run may be resumed on another device.

    Args:
        config: configuration of the run; unset entries are chosen from the data.
        resume: go on with the run in ``config.output``, whose entries those of ``config`` must equal (default False).
        force: resume even if configuration or data differ (default False).
        on_progress: called with a :class:`Progress` after every step.
        on_plan: called with the :class:`RunPlan` before the first step; ``print`` shows it (default None).

    Raises:
        ConfigError: the output folder exists, an entry does not fit the data, the device is not here, or ``minutes``
            has no room for a step.
        DataError: a sample is broken.
        CheckpointError: nothing to resume, another configuration or data, another trainer in the same
            folder, or a checkpoint that cannot be written. Earlier checkpoints stay intact.
        ConvoxelError: the loss became NaN or infinite; names the step and its samples. Or a step needs more memory
            than the device has; names batch and patch.
    """
    if config.device is not None:
        choose_device(config.device)  # refused before the data are read
    begun_s = now()
    with keep_machine(config), contextlib.ExitStack() as stack:
        processes = stack.enter_context(open_processes(config))
        tell = on_progress if on_progress is not None and processes.first else lambda progress: None
        tell(Progress(phase="prepare"))
        interrupt = stack.enter_context(Interrupt())

        def begin() -> TrainingRun:
            rest = stack, begun_s, on_plan or (lambda plan: None), processes
            return resume_run(config, force, *rest) if resume else open_run(config, *rest)

        run = begin() if not processes.several else _begin_together(processes, begin, stack)
        torch.set_num_threads(run.config.threads or torch.get_num_threads())
        run.state.prepared_s += now() - begun_s
        forward = processes.wrap(run.config, run.model)
        run.forward = compile_forward(forward) if run.config.compile else forward
        clock = Clock(run, tell)
        batches = Batches(run.dataset.train, run.config, run.facts, plan_step(run.config), processes)
        first = run.state.step * run.config.accumulate
        _train(run, stack.enter_context(contextlib.closing(batches.iterate(first))), clock, interrupt)
        early = interrupt.received is None and run.state.fraction < 1.0
        metrics: Options = run.state.history[-1] if run.state.history else {}
        if interrupt.received is None and processes.first:
            clock.tell("evaluate")
            metrics = finish_run(run)
            if run.record is not None:
                run.record.whole = True
            clock.advance()
            clock.tell("done")
        state, signal = run.state, interrupt.received
        figures = (state.best_metric, state.prepared_s + state.elapsed_s, state.step)
        told = signal, early, tuple(state.warnings.values())
        return RunResult(run.folder, metrics, *figures, signal is not None, clock.metric_name, *told, processes.first)


def _begin_together(processes: Processes, begin: Callable[[], TrainingRun], stack: contextlib.ExitStack) -> TrainingRun:
    """Return the run that the first process begins and the others join, or raise in all of them."""
    fault: ConvoxelError | None = None
    run: TrainingRun | None = None
    if processes.first:
        try:
            run = begin()
        except BaseException as error:
            processes.tell({"fault": str(error)})
            raise
        processes.tell({"folder": str(run.folder.absolute()), "config": run.config.to_dict()})
    else:
        told = processes.tell()
        if "fault" in told:
            raise ConvoxelError(f"train: the first process could not begin: {told['fault']}")
        try:
            config = TrainConfig.build(**told["config"])
            run = join_run(processes, config, Path(told["folder"]), stack)
        except ConvoxelError as error:
            fault = error
    raise_faults(processes.exchange(None if fault is None else str(fault)))
    assert run is not None  # else there was a fault
    run.processes = processes
    return run


@contextlib.contextmanager
def keep_machine(config: TrainConfig) -> Iterator[None]:
    """Leave the caller's thread count and generator as they were."""
    threads = torch.get_num_threads()
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Clock:
    """Time and speed of a run, and the reports made of them."""

    run: TrainingRun
    on_progress: OnProgress
    begun: float = field(default_factory=lambda: now())
    offset_s: float = 0.0
    saved: float = field(default_factory=lambda: now())
    validation_s: float = 0.0
    step_s: float = 0.0
    validated_s: float = 0.0
    epoch_begun: float = field(default_factory=lambda: now())
    epoch_samples: int = 0
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        history = self.run.state.history
        self.offset_s = self.run.state.elapsed_s
        self.validated_s = history[-1]["time_s"] if history else 0.0
        self.validation_s, self.step_s = self.run.pace.validation_s, self.run.pace.step_s

    @property
    def metric_name(self) -> str:
        """Name of the validation metric."""
        return metric_name(self.run.config.task, self.run.facts.multi_label)

    def reserve_s(self) -> float:
        """Return the time of the run that training leaves free: what went before it, and what closes the run."""
        pace = self.run.pace
        closing_s = pace.evaluation_s
        if pace.validation_s > 0:  # validations were measured since, and the closing evaluation is like them
            closing_s *= self.validation_s / pace.validation_s
        return self.run.state.prepared_s + _SLACK * (self.validation_s + closing_s) + self.step_s + _SAVES * pace.save_s

    def advance(self) -> None:
        """Bring the state's elapsed time and fraction up to now; the fraction never falls."""
        state = self.run.state
        state.elapsed_s = self.offset_s + now() - self.begun
        fraction = measure_fraction(self.run.config, state.step, state.elapsed_s, self.reserve_s())
        state.fraction = max(state.fraction, fraction)

    def begin_epoch(self) -> None:
        self.epoch_begun, self.epoch_samples, self.waited_s = now(), 0, 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and count the time for which the network waits for each."""
        while True:
            begun_s = time.perf_counter()  # it limits nothing, unlike ``now``
            batch = next(batches)
            self.waited_s += time.perf_counter() - begun_s
            yield batch

    def speed(self) -> float:
        """Return the samples per second since the epoch began."""
        return self.epoch_samples / max(now() - self.epoch_begun, 1e-9)

    def tell(self, phase: str) -> None:
        """Report the progress of the run."""
        config, state = self.run.config, self.run.state
        total = steps_total(config)
        if total is None and state.fraction > 0:
            total = max(state.step, round(state.step / state.fraction))
        left_s = None
        if config.minutes is not None:
            left_s = max(0.0, 60.0 * config.minutes - state.prepared_s - state.elapsed_s)
        elif state.fraction > 0:
            left_s = state.elapsed_s / state.fraction * (1.0 - state.fraction)
        speed = self.speed() if self.epoch_samples else None
        self.on_progress(
            Progress(
                epoch=-(-state.step // (config.steps_per_epoch or 1)),
                step=state.step,
                steps_total=total,
                fraction=state.fraction,
                loss=state.mean_loss,
                metric=state.metric,
                metric_name=self.metric_name.replace("mean Dice", "Dice"),
                samples_per_s=speed,
                waiting=None if speed is None else min(1.0, self.waited_s * speed / self.epoch_samples),
                time_left_s=0.0 if phase in ("evaluate", "done") else left_s,
                phase=phase,
            )
        )


class _Stopped(Exception):
    """A signal arrived during validation."""


def _train(run: TrainingRun, batches: Iterator[Batch], clock: Clock, interrupt: Interrupt) -> None:
    """Train until the run is complete or a signal arrives; either way the last step is saved."""
    config, state = run.config, run.state
    criterion, losses = build_step_loss(config, run.facts), LossWatch()
    clock.advance()
    batches = clock.timed(batches)
    while True:
        done, due = _decide(run, clock, interrupt)
        if interrupt.received is not None:
            break
        if due:
            with contextlib.suppress(_Stopped):
                _validate(run, clock, interrupt)
        elif done:
            return
        else:
            begun_s = now()
            with watch_memory(run.processes.share(config)):
                loss = _step(run, batches, criterion)
            if run.processes.first:
                rate = learning_rate(config, state.fraction)
                losses.add(state, loss, rate)
                if run.record is not None:
                    run.record.add_step(state.step, loss, rate)
            clock.epoch_samples += config.accumulate * (config.batch_size or 1)
            clock.advance()
            clock.tell("train")
            if now() - clock.saved >= config.checkpoint_seconds:
                _save(run, clock)
            # The first compiled step waits for the compiler, which no later one does.
            clock.step_s = now() - begun_s if config.compile else max(clock.step_s, now() - begun_s)
    clock.advance()
    _save(run, clock)


def _decide(run: TrainingRun, clock: Clock, interrupt: Interrupt) -> tuple[bool, bool]:
    """Return whether the run is done, and whether it validates now; the clock of the first process decides for all.

    A signal that one process has received counts for all.
    """
    config, state, processes = run.config, run.state, run.processes
    # A limit that has room for a step, by what was measured before, gives that step.
    done = (state.fraction >= 1.0 and state.step > 0) or _is_out_of_patience(config, state.history)
    due = _validation_due(run, clock, done)
    if not processes.several:
        return done, due
    own = (state.fraction, float(done), float(due)) if processes.first else (0.0, 0.0, 0.0)
    signal, state.fraction, *flags = processes.highest(interrupt.received or 0, *own)
    interrupt.received = int(signal) or None
    return bool(flags[0]), bool(flags[1])


def _is_out_of_patience(config: TrainConfig, history: Sequence[ValidationRow]) -> bool:
    """Return whether the last ``patience`` validations were no better than the best before them."""
    if config.patience is None:
        return False
    metrics = [-math.inf if row["metric"] is None else row["metric"] for row in history]
    return len(metrics) > config.patience and max(metrics[-config.patience :]) <= max(metrics[: -config.patience])


def _step(run: TrainingRun, batches: Iterator[Batch], criterion: Loss) -> float:
    """Update the weights once, with the learning rate of the run's fraction, and return the batches' mean loss."""
    config, state = run.config, run.state
    # Dropout and the like draw from this generator; seeding it here makes them functions of the step's number.
    numbers = [config.seed, 3, state.step, *([run.processes.rank] if run.processes.rank else [])]
    words = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))
    set_mode(run.model, state.fraction)
    set_rates(config, state.optimiser, state.fraction)
    state.optimiser.zero_grad(set_to_none=True)
    losses: list[torch.Tensor] = []
    names: list[str] = []
    for number, batch in enumerate(itertools.islice(batches, config.accumulate), 1):
        with run.processes.holding_back(run.forward, number < config.accumulate):
            loss = compute_loss(run.forward, batch, criterion, plan_step(config), run.processes)
            state.scaler.scale(add_penalty(config, run.model, loss) / config.accumulate).backward()
        losses.append(loss.detach())
        names += batch.names
    state.scaler.unscale_(state.optimiser)
    limit = config.clip if config.clip is not None else math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    value, length = map(float, torch.stack([torch.stack(losses).mean(), norm]).tolist())  # a GPU is waited for once
    if run.processes.several:  # no process goes on where another stops
        odd_value, odd_length = run.processes.highest(not math.isfinite(value), not math.isfinite(length))
        value, length = (math.nan if odd else each for odd, each in ((odd_value, value), (odd_length, length)))
    finite = math.isfinite(value) and math.isfinite(length)
    if finite or (math.isfinite(value) and state.scaler.get_scale() > 1.0):
        state.scaler.step(state.optimiser)  # leaves out an update whose scaled gradient overflows
        state.scaler.update()  # and scales the next loss less
        hold_constraints(config, run.model)
        state.step += 1
        if state.mean is not None:
            state.mean.update(run.model, state.step)
        state.loss_sum += value
        state.loss_count += 1
        return value
    came = f"the loss is {value}" if not math.isfinite(value) else "the gradient is not finite"
    rate = learning_rate(config, state.fraction)
    wider = ", or use precision=bfloat16, whose numbers reach further," if state.scaler.is_enabled() else ""
    raise ConvoxelError(
        f"train: {came} at step {state.step + 1} (samples: {', '.join(dict.fromkeys(names))}). "
        f"Lower learning_rate (it was {rate:.3g}){wider} and start anew; "
        f"the last checkpoint in {run.folder} is intact."
    )


def _validation_due(run: TrainingRun, clock: Clock, done: bool) -> bool:
    """Return True at the end, and after those epochs that the configuration or the clock allows."""
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


def _validate(run: TrainingRun, clock: Clock, interrupt: Interrupt) -> None:
    """Measure the validation part, write the row, keep the best weights and a checkpoint."""
    config, state = run.config, run.state
    clock.tell("validate")
    start, speed = now(), clock.speed()

    def check() -> None:
        if interrupt.received is not None and not run.processes.several:  # others would wait for this one
            raise _Stopped

    overlap = min(config.overlap, VALIDATION_OVERLAP)
    predictor = build_predictor(run.trained(), computation=plan_step(config), overlap=overlap)
    tally = evaluate_samples(predictor, run.processes.cases(run.dataset.validation), on_tick=check)
    if run.processes.several:
        tally = tally.dealt(run.processes.exchange(tally.to_dict()))
    found = tally.metrics()
    clock.validation_s = now() - start
    clock.advance()
    clock.validated_s = state.elapsed_s
    state.history.append(
        {
            "step": state.step,
            "epoch": -(-state.step // (config.steps_per_epoch or 1)),
            "time_s": round(state.elapsed_s, 3),
            "train_loss": state.mean_loss,
            "validation_loss": found["loss"],
            "metric": found["metric"],
            "per_class": found["per_class"],
            "learning_rate": learning_rate(config, state.fraction),
            "samples_per_s": round(speed, 3),
        }
    )
    state.loss_sum, state.loss_count = 0.0, 0
    if run.processes.first:
        watch_classes(state, found, run.facts.classes)
    metric = found["metric"]  # None: nothing was there, and nothing was found
    if state.best_metric is None or (metric is not None and metric > state.best_metric):
        state.best_metric = metric
        if run.processes.first:
            run.save_best()
    _save(run, clock)
    if run.record is not None:
        run.record.write_metrics(state.history)
    clock.begin_epoch()
    clock.tell("train")


def _save(run: TrainingRun, clock: Clock) -> None:
    if run.processes.first:
        run.save()
    clock.saved = now()
