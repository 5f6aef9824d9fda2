"""Convolution problems, and checks that an algorithm solves them exactly, or within a bound.

The engine's own tables list algorithms and instruction sets, so that a new algorithm is tested here without an edit. As
a program this solves a whole file of problems:

    python -m tools.conformance FILE [--sample N] [--isa NAME …]
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoxel import UnsupportedError, reference
from convoxel.arithmetic.winograd import error_factor, tiles_of, winograd
from convoxel.native import _core, algorithms, conv, conv_transpose, instruction_set

SHARED_PROBLEMS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "conv_problems.txt"
ALGORITHMS = {row["name"]: row["exact"] for row in algorithms()}  # name: exact on integers
PRECISION = {row["name"]: row["precision"] for row in algorithms()}
BFLOAT16 = {row["name"] for row in _core.instruction_sets() if row["bfloat16"]}  # sets that multiply it
# Those whose microkernels differ: a set with bfloat16 has avx512's, and rounds to bfloat16 by its own instruction.
INSTRUCTION_SETS = [row["name"] for row in _core.instruction_sets() if not BFLOAT16 or row["name"] != "avx512"]
MATRIX_UNIT = {row["name"] for row in _core.instruction_sets() if row["matrix_unit"]}


def algorithms_of(isa: str) -> list[str]:
    """Return the algorithms that an instruction set can run."""
    return [row["name"] for row in algorithms() if isa in BFLOAT16 or not row["bfloat16"]]


# The relative error that algorithms may have that are not exact, by the precision that allows them.
L2_BOUNDS = {"float32": 2e-5, "high": 2e-5, "bfloat16": 6e-3}


@dataclass(frozen=True)
class Problem:
    """One convolution: sizes per axis, padding (low, high) per axis; output_padding only when transposed."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...] | None = None
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def seed(self) -> int:
        return abs(hash((self.size, self.kernel, self.stride, self.pads, self.in_channels, self.out_channels))) % 2**32


def parse(line: str) -> Problem:
    """Parse a line such as ``2d n1 g1 ic3 oc8 i5,5 o5,5 k3,3 s1,1 pl1,1 pr1,1 d1,1 # where it is from``."""
    fields = dict(re.findall(r"\b([a-z]+)(-?\d[-\d,]*)", line.split("#")[0].split(" ", 1)[1]))
    axes = {name: tuple(int(v) for v in value.split(",")) for name, value in fields.items()}
    return Problem(
        batch=axes["n"][0],
        groups=axes["g"][0],
        in_channels=axes["ic"][0],
        out_channels=axes["oc"][0],
        size=axes["i"],
        out=axes["o"],
        kernel=axes["k"],
        stride=axes["s"],
        pads=tuple(zip(axes["pl"], axes["pr"], strict=True)),
        dilation=axes["d"],
    )


def read_problems(path: Path) -> list[Problem]:
    return [parse(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw small integers: every product and sum of a problem is below 2**24, so float32 rounds nothing."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def arguments(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(problem.seed)
    first, second = problem.out_channels, problem.in_channels
    if problem.transposed:
        first, second = second, first
    x = integers(rng, (problem.batch, problem.in_channels, *problem.size))
    w = integers(rng, (first, second // problem.groups, *problem.kernel))
    return x, w, integers(rng, (problem.out_channels,))


def expected(problem: Problem, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    if problem.transposed:
        return reference.conv_transpose(
            x, w, bias, problem.stride, problem.pads, problem.output_padding, problem.dilation, problem.groups
        )
    return reference.conv(x, w, bias, problem.stride, problem.pads, problem.dilation, problem.groups)


def solve(
    problem: Problem,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    algorithm: str,
    isa: str,
    threads: int | None = None,
) -> np.ndarray | None:
    """Return the engine's result, or None if the algorithm does not support the problem."""
    shared = {
        "groups": problem.groups,
        "algorithm": algorithm,
        "isa": isa,
        "threads": threads,
        "precision": PRECISION[algorithm],
    }
    stride, dilation, pads = problem.stride, problem.dilation, problem.pads
    try:
        if problem.transposed:
            return conv_transpose(
                x, w, bias, stride, pads, output_padding=problem.output_padding, dilation=dilation, **shared
            )
        return conv(x, w, bias, stride, pads, dilation, **shared)
    except UnsupportedError:
        return None


def bound_of(algorithm: str, kernel: tuple[int, ...]) -> float:
    """Return the relative error that an algorithm may have.

    Transforms in float32 stay within the bound; where points are rounded to bfloat16, they multiply that error.
    """
    bound, tiles = L2_BOUNDS[PRECISION[algorithm]], tiles_of(algorithm)
    if tiles is None or PRECISION[algorithm] == "float32":
        return bound
    pairs = [(m, k) for m, k in zip(tiles[3 - len(kernel) :], kernel, strict=True) if k > 1]
    return bound * math.prod(error_factor(winograd(m, k)) / math.sqrt(k) for m, k in pairs)


def check_exact(result: np.ndarray, truth: np.ndarray) -> None:
    """Raise AssertionError unless all elements are equal; NaN equals nothing."""
    assert result.shape == truth.shape, f"shape {result.shape}, expected {truth.shape}"
    wrong = ~(result == truth)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements differ; first at {where}: "
            f"{result[where]} instead of {truth[where]}"
        )


def check_close(result: np.ndarray, truth: np.ndarray, bound: float = L2_BOUNDS["float32"]) -> None:
    """Raise AssertionError unless the relative L2 error is at most the bound; NaN and infinity never pass."""
    assert result.shape == truth.shape, f"shape {result.shape}, expected {truth.shape}"
    assert np.isfinite(result).all(), "an element is not finite"
    size = float(np.sqrt((truth**2).sum()))
    error = float(np.sqrt(((result - truth) ** 2).sum()))
    assert error <= bound * size, f"relative L2 error {error / size if size else error:.1e}"


def check_problem(problem: Problem, isas: list[str]) -> Iterator[tuple[str, str]]:
    """Run every algorithm on every instruction set; yield each pair that was run and found right."""
    x, w, bias = arguments(problem)
    truth = expected(problem, x, w, bias)
    if problem.out is not None:
        assert truth.shape[2:] == problem.out, f"size {truth.shape[2:]}, the problem says {problem.out}"
    assert np.abs(truth).max(initial=0) < 2**24
    ran = 0
    for isa in isas:
        for algorithm, exact in ALGORITHMS.items():
            result = solve(problem, x, w, bias, algorithm, isa)
            if result is not None:
                if exact:
                    check_exact(result, truth)
                else:
                    check_close(result, truth, bound_of(algorithm, problem.kernel))
                ran += 1
                yield algorithm, isa
    assert ran > 0, "no algorithm supports this problem"


def main() -> int:
    parser = argparse.ArgumentParser(description="Solve convolution problems with every algorithm that supports them.")
    parser.add_argument("file", type=Path, nargs="?", default=SHARED_PROBLEMS)
    parser.add_argument(
        "--sample", type=int, help="number of problems, chosen at random with a fixed seed (default: all)"
    )
    parser.add_argument("--isa", nargs="+", default=[instruction_set()], choices=[*INSTRUCTION_SETS, "all"])
    options = parser.parse_args()
    if not options.file.exists():
        print(f"There is no {options.file}: nothing was run. Give a file of problems.", file=sys.stderr)
        return 2
    problems = read_problems(options.file)
    if options.sample:
        problems = random.Random(0).sample(problems, options.sample)
    isas = INSTRUCTION_SETS if "all" in options.isa else options.isa
    counts: Counter[tuple[str, str]] = Counter()
    failures = 0
    start = time.perf_counter()
    for number, problem in enumerate(problems, start=1):
        try:
            counts.update(check_problem(problem, isas))
        except AssertionError as error:
            failures += 1
            print(f"FAILED {problem}: {error}")
        if number % 2000 == 0 or number == len(problems):
            print(f"{number} of {len(problems)} problems, {failures} failed, {time.perf_counter() - start:.0f} s")
    for (algorithm, isa), count in sorted(counts.items()):
        held = "exact" if ALGORITHMS[algorithm] else f"within {L2_BOUNDS[PRECISION[algorithm]]:.0e}"
        print(f"{algorithm:12s} {isa:11s} {count:6d} {held}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
