"""One network measured: ours in turn with the peers, every engine in its own process."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.bench.clock import interleave, measure_ceilings
from convoxel.bench.comparison import OURS, Comparison, Times
from convoxel.bench.engine import ENGINES, Task, first_output
from convoxel.bench.network_list import Network
from convoxel.bench.peer import lacking
from convoxel.bench.worker import Worker, WorkerFailed
from convoxel.files.atomic import open_atomic
from convoxel.native.plan import Floats


@dataclass(frozen=True, kw_only=True)
class NetworkResult(Comparison):
    """One network, measured.

    Attributes:
        network: the network.
        batch: images in the input.
        threads: number of CPU threads of every engine.
        macs: multiply-accumulates of one run by direct convolution.
        times: median_s, min_s and max_s of all contenders.
        failed: reasons why other engines did not run, by name.
        compile_s: seconds of our engine from the PyTorch module to a program.
        ready_s: seconds from a file (PyTorch: from the network's code) to the first result, by name, without imports.
        peak_bytes: peak memory of each process, beyond that of the imported engine.
        l2_errors: ‖y − y₀‖ / ‖y₀‖, where y₀ is PyTorch's result; of several arrays, the first.
        ceiling: operations per second that registers allow on these threads, the largest of several measurements.
    """

    network: Network
    batch: int
    threads: int
    macs: int
    times: Times
    failed: Mapping[str, str]
    compile_s: float
    ready_s: Mapping[str, float]
    peak_bytes: Mapping[str, int]
    l2_errors: Mapping[str, float]
    ceiling: float

    @property
    def peers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other engines that ran."""
        return tuple(name for name in self.times if name != OURS)

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of one run by direct convolution."""
        return 2e-9 * self.macs

    @property
    def group(self) -> str:
        """Batch and threads."""
        return f"batch {self.batch}, {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def label(self) -> str:
        """The network and its input."""
        return str(self.network)

    @property
    def own_peak_bytes(self) -> int:
        """The most memory of our process."""
        return self.peak_bytes[OURS]

    @property
    def least_peak_bytes(self) -> int:
        """The most memory of the peer that needed least; 0 without peers."""
        return min((self.peak_bytes[name] for name in self.peers), default=0)

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return {
            "network": self.network.name,
            "shape": self.network.shape(self.batch),
            "batch": self.batch,
            "threads": self.threads,
            **self.timing(),
            "failed": dict(self.failed),
            "compile_s": self.compile_s,
            "ready_s": dict(self.ready_s),
            "peak_bytes": dict(self.peak_bytes),
            "l2_errors": dict(self.l2_errors),
        }


def missing_engines() -> list[str]:
    """Return the packages whose absence keeps an engine from taking part."""
    needs = (name for engine in ENGINES.values() for name in lacking(engine.needs))
    return list(dict.fromkeys([*needs, *lacking(("onnx",))]))


def measure_network(
    network: Network,
    batch: int,
    threads: int,
    rounds: int = 7,
    tune: bool = False,
    algorithm: str = "auto",
    precision: str = "float32",
    engines: Sequence[str] = tuple(ENGINES),
    on_step: Callable[[str], None] = lambda text: None,
) -> NetworkResult:
    """Measure a network on random weights and data.

    Args:
        network: the network.
        batch: number of images in the input.
        threads: number of CPU threads of every engine.
        rounds: timed runs of each engine (default 7).
        tune: whether ours measures its algorithms first.
        algorithm, precision: settings of ours, as in ``convoxel.compile``.
        engines: engines to run, of those that are installed and support so many axes (default: all).
        on_step: called with the next step.
    """
    chosen = [e for e in engines if not lacking(ENGINES[e].needs) and network.dims in ENGINES[e].dims]
    with tempfile.TemporaryDirectory(prefix="convoxel-") as folder, contextlib.ExitStack() as open_workers:
        task = Task(network, Path(folder), threads)
        on_step("compiling and exporting")
        failed: dict[str, str] = {}
        compile_s, macs, exact = _write_files(task, batch, failed, tune=tune, algorithm=algorithm, precision=precision)
        workers: dict[str, Worker] = {}
        errors: dict[str, float] = {}
        for name in chosen:
            on_step(f"preparing {name}")
            try:
                worker = Worker(name, task)
                open_workers.callback(worker.close)
                errors[name] = _distance(np.load(task.folder / f"{name}.npy"), exact)
                if not errors[name] <= network.tolerance:
                    raise WorkerFailed(f"its result is off by {errors[name]:.1e}")
                workers[name] = worker
            except WorkerFailed as reason:
                failed.setdefault(name, str(reason))
        on_step("measuring")
        ceilings = measure_ceilings(threads)
        times, lost = _take_turns(workers, rounds)
        failed.update(lost)
        return NetworkResult(
            network=network,
            batch=batch,
            threads=threads,
            macs=macs,
            times=times,
            failed=failed,
            compile_s=compile_s,
            ready_s={name: workers[name].ready_s for name in times},
            peak_bytes={name: workers[name].peak_bytes() for name in times},
            l2_errors=errors,
            ceiling=max(ceilings + measure_ceilings(threads)),
        )


def _take_turns(workers: Mapping[str, Worker], rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return the times of those that ran to the end, and why others did not."""
    lost: dict[str, str] = {}

    def sample(name: str, worker: Worker) -> float:
        try:
            return worker() if name not in lost else float("nan")
        except WorkerFailed as reason:
            lost[name] = str(reason)
            return float("nan")

    contenders = {name: functools.partial(sample, name, worker) for name, worker in workers.items()}
    times = interleave(contenders, rounds, sample=lambda contender: contender())
    return {name: time for name, time in times.items() if name not in lost}, lost


def _write_files(task: Task, batch: int, failed: dict[str, str], **settings: Any) -> tuple[float, int, Floats]:
    """Write input, program and ONNX model; return our compile time, the multiply-accumulates, PyTorch's result."""
    import torch

    from convoxel.graph.compile import compile as compile_model

    x = np.random.default_rng(0).standard_normal(task.network.shape(batch), np.float32)
    with open_atomic(task.folder / "x.npy") as file:
        np.save(file, x)
    torch.set_num_threads(task.threads)
    model, tensor = task.network.build(), torch.from_numpy(x)
    with torch.inference_mode():
        exact = np.asarray(first_output(model(tensor)), np.float32)
    begun = time.perf_counter()
    program = compile_model(model, tensor, threads=task.threads, **settings)
    compile_s = time.perf_counter() - begun
    program.save(task.folder / "net.cvx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (tensor,), task.folder / "net.onnx", dynamo=False, opset_version=17)
    except Exception as error:  # PyTorch's exporter raises many kinds
        reason = f"torch.onnx.export: {' '.join(str(error).split())}"[:200]
        failed.update(dict.fromkeys(("onnxruntime", "openvino"), reason))
    return compile_s, sum(row["macs"] for row in program.profile(x)), exact


def _distance(y: Floats, exact: Floats) -> float:
    """Return ‖y − exact‖ / ‖exact‖, infinite if the shapes differ."""
    if y.shape != exact.shape:
        return float("inf")
    return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
