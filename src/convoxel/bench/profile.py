"""A network compiled and run once: its steps with their algorithms and times, and its memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoxel.errors import ConfigError, GraphError, check_choice
from convoxel.graph.run.program import Program
from convoxel.graph.run.step_table import ProfileRow
from convoxel.lookup import find_network, is_file

_USUAL_SIZE = 224  # of a spatial axis that an ONNX file leaves open


@dataclass(frozen=True)
class Profile:
    """The profile of one network.

    Attributes:
        name: the network.
        shape: shape of the input.
        program: the compiled network.
        compile_s: seconds to compile, tuning included.
        steps: a row for each step; see :meth:`Program.profile`.
        memory: bytes of the arena, the activations in it and the weights.
    """

    name: str
    shape: tuple[int, ...]
    program: Program
    compile_s: float
    steps: list[ProfileRow]
    memory: dict[str, int]

    @property
    def time_s(self) -> float:
        """Seconds of all steps."""
        return float(sum(step["time_s"] for step in self.steps))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all steps by direct convolution."""
        return int(sum(step["macs"] for step in self.steps))

    @property
    def flops(self) -> float:
        """Effective operations per second."""
        return 2 * self.macs / self.time_s

    def to_dict(self) -> dict[str, object]:
        """Return everything but the program."""
        verification = self.program.verification
        return {
            "name": self.name,
            "shape": self.shape,
            "compile_s": self.compile_s,
            "memory": self.memory,
            "verification": dataclasses.asdict(verification) if verification else None,
            "steps": self.steps,
        }


def profile_network(
    word: str,
    shape: tuple[int, ...] | None = None,
    options: Mapping[str, object] | None = None,
    *,
    weights: str | Path | None = None,
    output: Path | None = None,
    threads: int | None = None,
    algorithm: str = "auto",
    precision: str | None = None,
    tune: bool = False,
    verify: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Profile:
    """Compile a network, run it on random input and return its profile.

    Args:
        word: name, run folder or file, as of :func:`convoxel.lookup.find_network`.
        shape: shape of the input (default: a usual one).
        options: options of a network of the zoo.
        weights: file of weights for a network of the zoo (default none: those that training starts from).
        output: ``.cvx`` file to save the program in.
        threads, algorithm, precision, tune, verify, on_progress: as of :func:`convoxel.compile`; files are neither
            tuned nor verified.

    Raises:
        ConfigError: an option does not fit the network, or the algorithm is not known.
    """
    from convoxel.files.source import check_target
    from convoxel.native import algorithms

    # An unknown name is refused before the network is built, which may take a while.
    check_choice("algorithm", algorithm, ["auto", "direct", "winograd", *(row["name"] for row in algorithms())])
    if output is not None:
        check_target("save", output, ".cvx", GraphError)
    begun = time.perf_counter()
    if is_file(word):
        if options or tune or verify or weights is not None:
            raise ConfigError(
                f"set, tune, verify, weights: they do not go with {Path(word).suffix} files. Leave them out."
            )
        name, sizes, program = _from_file(Path(word), shape, threads, algorithm, precision)
    else:
        import torch

        from convoxel.graph.compile import compile as compile_model

        found = find_network(word, () if shape is None else [shape], options, weights=True, weights_from=weights)
        name, sizes = found.name, found.shape
        program = compile_model(
            found.module, torch.empty(sizes), threads=threads, tune=tune, algorithm=algorithm, precision=precision,
            verify=verify, on_progress=on_progress,
        )  # fmt: skip
    compile_s = time.perf_counter() - begun
    if output is not None:
        program.save(output)
    x = np.random.default_rng(0).standard_normal(sizes, np.float32)
    steps = program.profile(x)
    return Profile(name, sizes, program, compile_s, steps, dataclasses.asdict(program.memory(x)))


def _from_file(
    path: Path, shape: tuple[int, ...] | None, threads: int | None, algorithm: str, precision: str | None
) -> tuple[str, tuple[int, ...], Program]:
    from convoxel.graph.load import load

    program = load(path, threads, algorithm, precision)
    if not isinstance(program, Program) or len(program.graph.inputs) != 1:
        raise ConfigError(f"network: {path} takes several inputs; expected one. Use convoxel.load in Python.")
    if shape is not None:
        return path.name, shape, program
    (value,) = program.graph.inputs
    fixed = ((1, _USUAL_SIZE)[axis > 0] if not isinstance(size, int) else size for axis, size in enumerate(value.shape))
    return path.name, tuple(fixed), program
