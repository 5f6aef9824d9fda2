"""The budget of a step on this machine: its memory, by arithmetic, and the number of steps in the minutes of a run.

The usual width, patch and batch (:mod:`convoxel.train.defaults`) stay where they fit. Less is taken where memory or
minutes have no room for them, more where measured steps are so short that a larger network still gets enough of them.
Only entries that nobody stated change, and only runs that minutes limit are measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from convoxel.data import DataSet
from convoxel.errors import ConvoxelError
from convoxel.files.fault import plural
from convoxel.files.memory import free_memory
from convoxel.inspect import Summary, describe
from convoxel.predict.device import is_out_of_memory, synchronise
from convoxel.train.config import TrainConfig
from convoxel.train.defaults import PlannedRun, Scale
from convoxel.train.pace import now
from convoxel.train.process_group import Processes
from convoxel.train.run_network import build_network
from convoxel.train.training_step import plan_step

Draft = Callable[[Scale], PlannedRun]

# Gradients of activations come and go beside what arithmetic counts, and data need memory, too.
_MEMORY_SHARE = 0.5
# What is left of a run's minutes when reading, validations and the closing evaluation are done.
_TIME_SHARE = 0.8
# Fewer steps than _FEW leave a network untrained; with fewer than _AMPLE a larger one learns less in the same time.
_FEW, _AMPLE = 50, 10_000
_LONG_S = 2.0  # of measuring, which the run's minutes pay for
# Of what a step works on: first the batch, then patches, then channels become fewer.
_SMALLER = tuple(Scale(width, patch, patch * batch) for width, patch, batch in (
    (1, 1, 0.5), (1, 1, 0.1), (1, 0.5, 0.1), (1, 0.25, 0.1), (0.5, 0.25, 0.1), (0.5, 0.125, 0.1),
))  # fmt: skip
# nnU-Net's 32 channels; then patches of 64³ and 100³ voxels, at least two at once.
_LARGER = (Scale(2, 1, 1), Scale(2, 4, 4), Scale(2, 16, 8))


@dataclass(frozen=True)
class _Cost:
    """A planned run, what its network costs for one sample, and the samples that a process sees at once."""

    run: PlannedRun
    summary: Summary
    samples: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward passes of a step."""
        return self.summary.macs * self.samples * self.run.config.accumulate

    @property
    def needed_bytes(self) -> int:
        """Bytes that a step keeps: activations of its samples, weights, gradients, moments."""
        saved = self.summary.saved_bytes
        return saved * self.samples + self.summary.training_bytes - saved


def fit_budget(draft: Draft, dataset: DataSet, processes: Processes | None = None) -> PlannedRun:
    """Return the run of the scale that memory and minutes allow, with the numbers as reasons.

    Args:
        draft: plans the run with other factors of the usual sizes.
        dataset: its data.
        processes: the processes that share every batch (default: one process).

    Raises:
        ConfigError: as of :func:`convoxel.train.defaults.plan_run`.
    """
    group = processes or Processes()
    found = _measure(draft(Scale()), dataset, group)
    free = _free_bytes(found.run.config)
    segment = found.run.config.task == "segment"
    smaller = iter(_SMALLER if segment else ())
    while free is not None and found.needed_bytes > _MEMORY_SHARE * free and (scale := next(smaller, None)) is not None:
        found = _measure(draft(scale), dataset, group)
    told = ""
    if found.run.config.minutes is not None and segment:
        found, told = _fit_minutes(draft, dataset, found, free, group)
    reasons = {**found.run.reasons, "memory": _tell_memory(found, free)}
    return PlannedRun(found.run.config, {**reasons, "minutes": told} if told else reasons)


def _fit_minutes(draft: Draft, dataset: DataSet, usual: _Cost, free: int | None, group: Processes) -> tuple[_Cost, str]:
    """Return the run whose steps fit its minutes, and what was measured, in words."""
    config = usual.run.config
    if draft(Scale(0.5, 0.125, 0.01)).config == draft(Scale(2, 16, 8)).config == config:
        return usual, ""  # everything is stated, or follows from what is
    step_s = measure_step(group.share(config), dataset)
    count = _steps(config, step_s)
    told = f"a step takes {step_s:.2g} s here, so about {plural(count, 'step')} fit"
    if count < _FEW:
        for scale in _SMALLER:
            smaller = _measure(draft(scale), dataset, group)
            if smaller.macs < usual.macs:
                usual, count = smaller, round(count * usual.macs / smaller.macs)
            if count >= _FEW:
                break
        return (
            usual,
            f"{told}; made smaller for about {plural(count, 'step')}, since fewer than {_FEW} leave it untrained",
        )
    best, why = usual, f"a larger network gets too few of them: less than {_AMPLE:,}"
    for scale in _LARGER:
        larger = _measure(draft(scale), dataset, group)
        if larger.run.config == best.run.config:
            continue
        if count * usual.macs < _AMPLE * larger.macs:
            break
        if free is not None and larger.needed_bytes > _MEMORY_SHARE * free:
            why = "a larger network would not fit into the memory"
            break
        larger_s = measure_step(group.share(larger.run.config), dataset)
        if _steps(config, larger_s) < _AMPLE:
            break
        best = larger
        told = f"a step takes {larger_s:.2g} s here, so about {_steps(config, larger_s):,} steps fit"
    return best, f"{told}; {why}"


def measure_step(config: TrainConfig, dataset: DataSet) -> float:
    """Return the seconds of a step of a planned run: forward and backward of its network, on noise.

    On the CPU they are those of its threads and not of the clock, so that what else runs at this moment chooses no
    network. A step that takes more memory than the device has takes infinitely long.
    """
    threads = torch.get_num_threads()

    def clock_s() -> float:
        return time.process_time() / threads if computation.device.type == "cpu" else now()

    computation, best, spent_s = plan_step(config), math.inf, 0.0
    try:
        model = build_network(config, dataset.dims, dataset.channels, len(dataset.outputs))
        model = computation.arrange(model, dataset.dims).train()
        generator = torch.Generator().manual_seed(0)
        shape = (config.batch_size or 1, dataset.channels, *(config.patch or ()))
        images = computation.move(torch.randn(shape, generator=generator))
        for _ in range(3):  # the first loads what the others find
            begun_s = clock_s()
            with computation.autocast():
                found = model(images)
            heads = [found] if isinstance(found, torch.Tensor) else list(found)
            torch.stack([head.float().square().mean() for head in heads]).sum().backward()
            synchronise(computation.device)
            taken_s = clock_s() - begun_s
            best, spent_s = min(best, taken_s), spent_s + taken_s
            if spent_s > _LONG_S:
                break
    except (RuntimeError, MemoryError, ConvoxelError) as error:
        if not is_out_of_memory(error):
            raise
    return best * config.accumulate


def _measure(run: PlannedRun, dataset: DataSet, group: Processes) -> _Cost:
    config = group.share(run.config)
    with torch.device("meta"):  # sizes alone, no memory
        network = build_network(config, dataset.dims, dataset.channels, len(dataset.outputs))
    return _Cost(run, describe(network, (1, dataset.channels, *(config.patch or ()))), config.batch_size or 1)


def _free_bytes(config: TrainConfig) -> int | None:
    device = plan_step(config).device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def _steps(config: TrainConfig, step_s: float) -> int:
    """Return the steps that fit into the run's minutes."""
    return int(_TIME_SHARE * 60.0 * (config.minutes or 0.0) / step_s) if step_s > 0 else 0


def _tell_memory(found: _Cost, free: int | None) -> str:
    mebi = 2**20
    saved, rest = found.summary.saved_bytes / mebi, (found.summary.training_bytes - found.summary.saved_bytes) / mebi
    words = (
        f"a step keeps {found.needed_bytes / mebi:.0f} MiB: {found.samples} × {saved:.1f} MiB of activations and "
        f"{rest:.1f} MiB of weights, gradients and moments"
    )
    return (
        words if free is None else f"{words}; {free / mebi:.0f} MiB are free, of which it may take {_MEMORY_SHARE:.0%}"
    )
