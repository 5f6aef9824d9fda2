"""Many networks measured one after another, with a file of lines from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoxel import native
from convoxel.bench.clock import describe_machine
from convoxel.bench.engine import choose_engines
from convoxel.bench.machine_info import package_versions
from convoxel.bench.network_bench import ROUNDS, TURN_S, Measurement, NetworkResult, compare, measure_engines
from convoxel.bench.network_files import NetworkFiles
from convoxel.bench.network_list import Network
from convoxel.bench.peer import lacking
from convoxel.files.atomic import write_text
from convoxel.files.fault import fault
from convoxel.files.values import JsonObject
from convoxel.native import _core

_LINES = "measurements.jsonl"
# A convolution through OpenVINO, which tells oneDNN's version to those who ask for its notes.
_TINY = """
import numpy, openvino
from openvino import opset13
x = opset13.parameter([1, 16, 8, 8], numpy.float32)
w = opset13.constant(numpy.ones((16, 16, 1, 1), numpy.float32))
y = opset13.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1])
openvino.Core().compile_model(openvino.Model([y], [x]), "CPU")(numpy.ones((1, 16, 8, 8), numpy.float32))
"""


@dataclass(frozen=True)
class Plan:
    """The networks, engines and settings of a run.

    Attributes:
        networks: the networks.
        batches, threads: numbers of images and of CPU threads.
        precisions: precisions of ours.
        peers: names of peers (default: the usual ones).
        rounds, turn_s, tune, algorithm: as of :func:`convoxel.bench.network_bench.measure_network`.
    """

    networks: Sequence[Network]
    batches: Sequence[int] = (1,)
    threads: Sequence[int] = (1,)
    precisions: Sequence[str] = ("float32",)
    peers: Sequence[str] | None = None
    rounds: int = ROUNDS
    turn_s: float = TURN_S
    tune: bool = False
    algorithm: str = "auto"

    @property
    def engines(self) -> list[str]:
        """Names of all engines that are to take part."""
        return choose_engines(self.precisions, self.peers)

    @property
    def settings(self) -> JsonObject:
        """Settings without which figures are not comparable; the engine's own code is among them."""
        core = hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:12]
        build = native.build_info()
        return {
            "rounds": self.rounds, "turn_s": self.turn_s, "tune": self.tune, "algorithm": self.algorithm, "core": core,
            "processor": build["processor"], "instruction_set": build["instruction_set"], **package_versions(),
        }  # fmt: skip


@dataclass
class _Lines:
    """The file of measurements: one line for each engine on each network."""

    path: Path | None
    settings: JsonObject
    known: dict[tuple[str, int, int], dict[str, Measurement]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        self.text = self.path.read_text(encoding="utf-8")
        for number, line in enumerate(self.text.splitlines(), 1):
            try:
                words = json.loads(line)
                if words["settings"] == self.settings:
                    self._remember(Measurement.from_dict(words["measurement"]))
            except (ValueError, TypeError, KeyError):
                raise fault(
                    self.path, f"line {number} is no measurement", "lines that the bench wrote", "Name another folder"
                ) from None

    def of(self, network: Network, batch: int, threads: int) -> dict[str, Measurement]:
        """Return what is known of a network, by engine."""
        return self.known.get((network.name, batch, threads), {})

    def _remember(self, found: Measurement) -> None:
        self.known.setdefault((found.network, found.batch, found.threads), {})[found.engine] = found

    def add(self, found: Sequence[Measurement]) -> None:
        """Remember measurements and append their lines."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        for each in found:
            self._remember(each)
        if self.path is not None:
            lines = [{"time": now, "measurement": each.to_dict(), "settings": self.settings} for each in found]
            self.text += "".join(f"{json.dumps(line)}\n" for line in lines)
            write_text(self.path, self.text)


def measure_networks(
    plan: Plan, work: Path | None = None, on_step: Callable[[int, int, str], None] = lambda done, total, text: None
) -> Iterator[list[NetworkResult]]:
    """Measure the networks and yield, for each network, batch and number of threads, the results of our precisions.

    Args:
        plan: networks and settings.
        work: folder for the files of peers and one line for each measurement; what it holds of the same plan, engine
            and machine is not measured again (default: nothing is kept).
        on_step: called with (networks done, all networks, what comes next).
    """
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    lines = _Lines(work and work / _LINES, plan.settings)
    cases = [(n, batch, threads) for threads in plan.threads for batch in plan.batches for n in plan.networks]
    with contextlib.ExitStack() as stack:
        root = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="convoxel-")))
        for done, (network, batch, threads) in enumerate(cases):

            def tell(step: str, done: int = done, what: str = f"{network.name}, batch {batch}") -> None:
                on_step(done, len(cases), f"{what}: {step}")

            known = lines.of(network, batch, threads)
            missing = [name for name in plan.engines if name not in known]
            if missing:
                files = NetworkFiles(network, batch, threads, root)
                lines.add(
                    measure_engines(
                        files, missing, plan.rounds, plan.turn_s, tell, tune=plan.tune, algorithm=plan.algorithm
                    )
                )
            found = [each for name, each in lines.of(network, batch, threads).items() if name in plan.engines]
            yield compare(network, found, plan.precisions)


def describe_run(threads: int) -> JsonObject:
    """Return the machine with its limits on ``threads``, and the versions of all engines, oneDNN inside them too."""
    return {
        **describe_machine(),
        "bandwidth_bytes_per_s": native.measure_bandwidth(threads),
        "versions": {**package_versions(), "oneDNN": {"torch": _onednn_of_torch(), "openvino": _onednn_of_openvino()}},
    }


def _onednn_of_torch() -> str | None:
    if lacking(("torch",)):
        return None
    import torch

    found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return found and found[1]


def _onednn_of_openvino() -> str | None:
    if lacking(("openvino",)):
        return None
    environment = {"ONEDNN_VERBOSE": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _TINY], capture_output=True, text=True, env=environment, check=False)
    found = re.search(r"oneDNN v([\d.]+)", done.stdout + done.stderr)
    return found and found[1]
