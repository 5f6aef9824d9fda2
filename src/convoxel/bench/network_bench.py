"""One network measured: ours at each precision in turn with the peers, every engine in its own process."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.bench.clock import measure_ceilings
from convoxel.bench.comparison import OURS, Comparison, Times
from convoxel.bench.engine import ENGINES, Floats, choose_engines, ours, peer_class
from convoxel.bench.network_files import NetworkFiles, Program
from convoxel.bench.network_list import Network
from convoxel.bench.peer import lacking
from convoxel.bench.worker import Worker, WorkerFailed
from convoxel.errors import ConvoxelError
from convoxel.files.values import JsonObject

ROUNDS, TURN_S = 5, 0.4
_PAUSE_S = 0.03  # for the threads of the engine before to fall asleep
# ‖y − y₀‖ / ‖y₀‖ beyond which an engine does not compute in the class that it is compared in; of float32 and high the
# network's own tolerance. Networks of 10 to 120 layers with random weights make 1e-2 to 2e-1 of 8 binary digits.
_TOLERANCE = {"bfloat16": 0.5, "int8": 1.0}
_FLOAT32 = 1e-4  # an engine that picks its precision itself and errs less than this has picked float32


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One engine on one network.

    Attributes:
        network, batch, threads, engine: name of the network, images in the input, CPU threads, and name of the engine.
        precision: class of precision in which the engine is compared.
        turns_s: seconds of one input in each turn; none if the engine failed.
        l2_error: ‖y − y₀‖ / ‖y₀‖, where y₀ is the result in float64; of several arrays, the first.
        failed: reason why the engine did not run or does not count, "" if it counts.
        ready_s: seconds from a file (PyTorch: from the network's code) to the first result, without imports.
        peak_bytes: peak memory of the process, beyond that of the imported engine.
        compile_s: seconds from the PyTorch module to our program; None of peers.
        macs: multiply-accumulates of one run by direct convolution.
        ceiling: operations per second that registers allow on these threads, the largest of several measurements.
        load: load averages of one minute before and after the turns.
    """

    network: str
    batch: int
    threads: int
    engine: str
    precision: str
    turns_s: tuple[float, ...] = ()
    l2_error: float | None = None
    failed: str = ""
    ready_s: float = 0.0
    peak_bytes: int = 0
    compile_s: float | None = None
    macs: int = 0
    ceiling: float = 0.0
    load: tuple[float, ...] = ()

    @property
    def time(self) -> Mapping[str, float]:
        """Median, least and largest time of the turns."""
        turns = self.turns_s
        return {"median_s": statistics.median(turns), "min_s": min(turns), "max_s": max(turns)}

    @property
    def spread(self) -> float:
        """Largest less least time of a turn, by the median."""
        return (max(self.turns_s) - min(self.turns_s)) / statistics.median(self.turns_s)

    def to_dict(self) -> JsonObject:
        """Return everything as JSON knows it."""
        return {**asdict(self), "turns_s": list(self.turns_s), "load": list(self.load)}

    @classmethod
    def from_dict(cls, words: JsonObject) -> Measurement:
        """Return the measurement that ``to_dict`` told."""
        return cls(**{**words, "turns_s": tuple(words["turns_s"]), "load": tuple(words["load"])})


@dataclass(frozen=True, kw_only=True)
class NetworkResult(Comparison):
    """A network at one precision of ours beside its peers.

    Attributes:
        network: the network.
        batch: images in the input.
        threads: number of CPU threads of every engine.
        precision: precision of ours.
        measured: all measurements of the network, by engine.
    """

    network: Network
    batch: int
    threads: int
    precision: str = "float32"
    measured: Mapping[str, Measurement] = field(default_factory=dict)

    @property
    def own(self) -> Measurement:
        """The measurement of ours."""
        return self.measured[ours(self.precision)]

    @property
    def times(self) -> Times:  # type: ignore[override]
        """Times of ours and of the peers of the same class."""
        found = {} if self.own.failed else {OURS: self.own.time}
        return {**found, **{name: self.measured[name].time for name in self._peers(peer_class(self.precision))}}

    def _peers(self, precision: str = "", installed: bool = False) -> list[str]:
        """Return the peers that count, of a class of precision, or only those that users get by default."""
        return [
            name
            for name, each in self.measured.items()
            if not name.startswith(OURS) and not each.failed and precision in ("", each.precision)
            and (ENGINES[name].installed or not installed)
        ]  # fmt: skip

    @property
    def peers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The engines of the same class that ran."""
        return tuple(name for name in self.times if name != OURS)

    @property
    def ceiling(self) -> float:  # type: ignore[override]
        """Operations per second that registers allow on these threads."""
        return self.own.ceiling

    @property
    def default_ratio(self) -> float | None:
        """Our speed by that of the fastest engine as users get it, whatever it computes in."""
        times = [self.measured[name].time["median_s"] for name in self._peers(installed=True)]
        return min(times) / self.time_s if times and self.ran else None

    @property
    def failed(self) -> Mapping[str, str]:
        """Reasons why engines did not run or do not count, by name."""
        return {name: each.failed for name, each in self.measured.items() if each.failed}

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of one run by direct convolution."""
        return 2e-9 * self.own.macs

    @property
    def group(self) -> str:
        """Precision, batch and threads."""
        return f"{self.precision}, batch {self.batch}, {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def label(self) -> str:
        """The network and its input."""
        return str(self.network)

    @property
    def own_peak_bytes(self) -> int:
        """The most memory of our process."""
        return self.own.peak_bytes

    @property
    def least_peak_bytes(self) -> int:
        """The most memory of the peer of the same class that needed least; 0 without peers."""
        return min((self.measured[name].peak_bytes for name in self.peers), default=0)

    def to_dict(self) -> JsonObject:
        """Return everything as JSON knows it."""
        counted = {name: each for name, each in self.measured.items() if not each.failed}
        return {
            "network": self.network.name,
            "shape": self.network.shape(self.batch),
            "batch": self.batch,
            "threads": self.threads,
            "precision": self.precision,
            **self.timing(),
            "default_ratio": self.default_ratio,
            "failed": dict(self.failed),
            "compile_s": self.own.compile_s,
            "ready_s": {name: each.ready_s for name, each in counted.items()},
            "peak_bytes": {name: each.peak_bytes for name, each in counted.items()},
            "l2_errors": {name: each.l2_error for name, each in self.measured.items() if each.l2_error is not None},
        }


def missing_engines(engines: Collection[str] = tuple(ENGINES)) -> list[str]:
    """Return the packages whose absence keeps some of the engines from taking part."""
    needs = [name for engine in engines for name in lacking(_needs(engine))]
    return list(dict.fromkeys(needs))


def _needs(engine: str) -> tuple[str, ...]:
    """Return the packages that an engine needs, those that write its files included."""
    chosen = ENGINES[engine]
    writers = {"net-int8.xml": ("onnx", "nncf")}.get(chosen.file, ("onnx",) if chosen.file.startswith("net") else ())
    return (*chosen.needs, *writers)


def measure_network(
    network: Network,
    batch: int,
    threads: int,
    *,
    precisions: Sequence[str] = ("float32",),
    engines: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    turn_s: float = TURN_S,
    tune: bool = False,
    algorithm: str = "auto",
    work: Path | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> list[NetworkResult]:
    """Measure a network on random weights and data, and return a result for each precision of ours.

    Args:
        network: the network.
        batch: number of images in the input.
        threads: number of CPU threads of every engine.
        precisions: precisions of ours, as in ``convoxel.compile``, and "int8", which is quantised with samples.
        engines: names of ours and of peers to run, of those that are installed (default: the usual peers).
        rounds: timed turns of each engine (default 5).
        turn_s: seconds of back-to-back calls in a turn (default 0.4).
        tune: whether ours measures its algorithms first.
        algorithm: algorithm of ours, as in ``convoxel.compile``.
        work: folder that keeps the files of peers for the next time (default: none does).
        on_step: called with the next step.
    """
    names = engines if engines is not None else choose_engines(precisions)
    with contextlib.ExitStack() as stack:
        root = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convoxel-")))
        measured = measure_engines(
            NetworkFiles(network, batch, threads, root), names, rounds, turn_s, on_step,
            tune=tune, algorithm=algorithm,
        )  # fmt: skip
    return compare(network, measured, precisions)


def compare(network: Network, measured: Sequence[Measurement], precisions: Sequence[str]) -> list[NetworkResult]:
    """Return the result of each precision of ours that was measured; the measurements are of one batch and threads."""
    by_engine = {each.engine: each for each in measured}
    return [
        NetworkResult(
            network=network,
            batch=measured[0].batch,
            threads=measured[0].threads,
            precision=precision,
            measured=by_engine,
        )
        for precision in precisions
        if ours(precision) in by_engine
    ]


def measure_engines(
    files: NetworkFiles,
    engines: Sequence[str],
    rounds: int,
    turn_s: float,
    on_step: Callable[[str], None],
    **settings: Any,
) -> list[Measurement]:
    """Measure some engines in turn; of those that are not installed, or not for so many axes, nothing is returned."""
    network, threads = files.task.network, files.task.threads
    chosen = [e for e in engines if not lacking(_needs(e)) and network.dims in ENGINES[e].dims]
    on_step("computing the exact result")
    exact = files.prepare()
    failed: dict[str, str] = {}
    programs: dict[str, Program] = {}
    errors: dict[str, float] = {}
    with contextlib.ExitStack() as open_workers:
        workers: dict[str, Worker] = {}
        for name in chosen:
            on_step(f"preparing {name}")
            engine = ENGINES[name]
            try:
                if name.startswith(OURS):
                    programs[name] = files.compile(engine.precision, **settings)
                elif engine.file:
                    _write(files, engine.file)
                worker = Worker(name, files.task)
                open_workers.callback(worker.close)
                errors[name] = _distance(np.load(files.folder / f"{name}.npy"), exact)
                if not errors[name] <= _TOLERANCE.get(engine.precision, network.tolerance):
                    raise WorkerFailed(f"its result is off by {errors[name]:.1e}")
                workers[name] = worker
            except (WorkerFailed, ConvoxelError) as reason:
                failed[name] = " ".join(str(reason).split())[:200]
        on_step("measuring")
        load, ceilings = [_load()], measure_ceilings(threads)
        turns, lost = _take_turns(workers, rounds, turn_s)
        failed.update(lost)
        ceiling = max(ceilings + measure_ceilings(threads))
        load.append(_load())
        peaks = {name: worker.peak_bytes() for name, worker in workers.items() if name not in lost}
        ready = {name: worker.ready_s for name, worker in workers.items()}
    macs = max((program.macs for program in programs.values()), default=0)
    return [
        Measurement(
            network=network.name,
            batch=files.batch,
            threads=threads,
            engine=name,
            precision=_taken_precision(name, errors.get(name)),
            turns_s=() if name in failed else tuple(turns[name]),
            l2_error=errors.get(name),
            failed=failed.get(name, ""),
            ready_s=ready.get(name, 0.0),
            peak_bytes=peaks.get(name, 0),
            compile_s=programs[name].compile_s if name in programs else None,
            macs=macs,
            ceiling=ceiling,
            load=tuple(load),
        )
        for name in chosen
    ]


def _write(files: NetworkFiles, file: str) -> None:
    try:
        files.write(file)
    except Exception as error:  # exporters raise many kinds
        raise WorkerFailed(f"{file}: {' '.join(str(error).split())}"[:200]) from error


def _taken_precision(name: str, error: float | None) -> str:
    """Return the class of an engine; of one that picks its precision itself, the one that its error tells."""
    engine = ENGINES[name]
    picks = engine.installed and engine.precision == "bfloat16"
    return "float32" if picks and error is not None and error < _FLOAT32 else engine.precision


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def _take_turns(
    workers: Mapping[str, Worker], rounds: int, turn_s: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return the times of one input in each turn, and why engines were lost; the order changes from round to round."""
    order = random.Random(0)
    turns: dict[str, list[float]] = {name: [] for name in workers}
    lost: dict[str, str] = {}
    for _ in range(rounds):
        for name in order.sample(sorted(workers), len(workers)):
            if name in lost:
                continue
            time.sleep(_PAUSE_S)
            try:
                turns[name].append(workers[name](turn_s))
            except WorkerFailed as reason:
                lost[name] = str(reason)
    return turns, lost


def _distance(y: Floats, exact: Floats) -> float:
    """Return ‖y − exact‖ / ‖exact‖, infinite if the shapes differ."""
    if y.shape != exact.shape:
        return float("inf")
    return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))
