"""The measured fastest algorithm of a convolution, kept on disk.

A winner belongs to one machine (processor, caches, instruction set, number of threads, build of the engine) and one
``Problem``. A problem has sizes but no weights, so the layers of all networks share what was measured for any of them.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.files.cache import read_cache, write_cache
from convoxel.native import _core
from convoxel.native.machine import algorithms, caches, processor, resolve_isa, resolve_threads
from convoxel.native.plan import Convolution, Floats, Plan, Problem, View

TUNING_FILE = "tuning.json"
_CANDIDATES = 3  # the fastest is rarely beyond the third place of the cost model
_MOST_WINNERS = 8192  # of all machines together: about a megabyte
_LEAST_ROUNDS, _MOST_ROUNDS, _ENOUGH_S = 3, 40, 0.05
_HOPELESS = 2.0  # a candidate that takes so many times the best one's time in the first round leaves
_RANDOM_WEIGHTS = 2**16  # repeated where a layer has more: a hundred million take a second to draw

Progress = Callable[[int, int, str], None]


def time_candidates(
    problem: Problem,
    threads: int | None = None,
    isa: str | None = None,
    count: int = _CANDIDATES,
    algorithm: str = "auto",
    precision: str = "float32",
) -> dict[str, float]:
    """Measure the seconds that the ``count`` algorithms of least expected cost take for one run of a problem.

    The time is the smallest of several rounds, in which the candidates take turns, on random data in dense tensors.
    A single candidate is not measured: its time is 0.

    Args:
        problem: what to run.
        threads, isa, precision: as in ``Plan``.
        count: the most candidates (default 3).
        algorithm: the family that they are of, as in ``Plan.candidates``.

    >>> problem = Problem((1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), 1, False, (1, 1, 4, 4, 8), (1, 1, 4, 4, 8))
    >>> "pointwise" in time_candidates(problem, threads=1)
    True
    """
    layer = _random_convolution(problem)
    gates = (problem.in_shape[0], 1, 1, 1, problem.in_shape[4])
    tensors = (
        (problem.in_shape, problem.in_element),
        (problem.out_shape, problem.out_element),
        (problem.out_shape, problem.out_element),
        (gates, "float32"),
    )
    views = [View.dense(i, 0, shape, element) for i, (shape, element) in enumerate(tensors, start=1)]
    src, dst, residual, gate = views
    ranked = Plan(0, 4, threads, isa=isa, precision=precision).candidates(layer, src, dst, algorithm, problem.gated)
    names = [name for name, cost in ranked if math.isfinite(cost)][:count]
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    rng = np.random.default_rng(0)
    buffers = [_random_numbers(view, rng) for view in views]
    plans = {name: Plan(0, 4, threads, isa=isa, precision=precision) for name in names}
    for name, plan in plans.items():
        plan.convolve(
            layer, src, dst, residual if problem.residual else None, problem.activation, 0.01, algorithm=name,
            gate=gate if problem.gated else None,
        )  # fmt: skip
        plan.run(buffers)
    return _take_turns(plans, buffers)


def _take_turns(plans: Mapping[str, Plan], buffers: Sequence[Floats]) -> dict[str, float]:
    """Return the smallest of the seconds that each plan's only step took, over several rounds."""

    def run(name: str) -> float:
        return float(plans[name].profile(buffers)[0]["time_s"])

    best = {name: run(name) for name in plans}
    remaining = [name for name in plans if best[name] <= _HOPELESS * min(best.values())]
    begun = time.perf_counter()
    for done in range(1, _MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() - begun > _ENOUGH_S:
            break
        for name in remaining:
            best[name] = min(best[name], run(name))
    return best


def _random_numbers(view: View, rng: np.random.Generator) -> Floats:
    """Return a buffer that holds random numbers of the view's type."""
    numbers = rng.standard_normal(view.shape, np.float32)
    if view.element == "float32":
        return numbers
    halves = (numbers.view(np.uint32) >> 16).astype(np.uint16).ravel()
    return np.append(halves, np.zeros(len(halves) % 2, np.uint16)).view(np.float32)


def _random_convolution(problem: Problem) -> Convolution:
    """Return a layer with random weights. The copies that candidates pack are freed with it."""
    ends = (problem.in_shape[4], problem.out_shape[4])
    first, second = ends if problem.transposed else ends[::-1]
    some = np.random.default_rng(0).standard_normal(_RANDOM_WEIGHTS, np.float32)
    return Convolution(
        np.resize(some, (first, second // problem.groups, *problem.kernel)),
        np.zeros(problem.out_shape[4], np.float32),
        stride=problem.stride,
        padding_low=problem.padding_low,
        dilation=problem.dilation,
        groups=problem.groups,
        transposed=problem.transposed,
    )


def tune(
    problems: Iterable[Problem],
    threads: int | None = None,
    isa: str | None = None,
    on_progress: Progress | None = None,
    algorithm: str = "auto",
    precision: str = "float32",
) -> dict[str, str]:
    """Return the fastest algorithm of each problem on this machine, by the problem's text; which has the
    batch that was measured.

    Only problems that the cache does not hold are measured. Their winners are kept even if the rest is interrupted. The
    result holds all winners of this machine, including those of other problems.

    Args:
        problems: repeated ones are measured once.
        threads, isa: as in ``Plan``; they belong to the key.
        on_progress: called with (problems done, problems to measure, the next one) before each and at the end.
        algorithm, precision: what to choose from, as in ``Plan``; each has winners of its own.
    """
    known = known_winners(threads, isa, algorithm, precision)
    missing = [problem for problem in dict.fromkeys(problems) if str(problem) not in known]
    found: dict[str, str] = {}
    report = on_progress or (lambda done, total, problem: None)
    try:
        for done, problem in enumerate(missing):
            report(done, len(missing), str(problem))
            times = time_candidates(problem, threads, isa, algorithm=algorithm, precision=precision)
            found[str(problem)] = min(times, key=times.__getitem__)
    finally:
        if found:
            _remember(_machine(threads, isa, algorithm, precision), found)
    if missing:
        report(len(missing), len(missing), "")
    return {**known, **found}


def known_winners(
    threads: int | None = None, isa: str | None = None, algorithm: str = "auto", precision: str = "float32"
) -> dict[str, str]:
    """Return the known winners of this machine for these settings: {text of a problem: algorithm}."""
    return _read().get(_machine(threads, isa, algorithm, precision), {})


def remembered_count() -> int:
    """Return the number of winners in the cache, of all machines together."""
    return sum(len(winners) for winners in _read().values())


def _read() -> dict[str, dict[str, str]]:
    """Return the usable entries of the cache: without algorithms that no longer exist, for example."""
    names = {row["name"] for row in algorithms()}
    machines: Any = read_cache(TUNING_FILE).get("winners")
    if not isinstance(machines, dict):
        return {}
    return {
        machine: {problem: name for problem, name in winners.items() if isinstance(name, str) and name in names}
        for machine, winners in machines.items()
        if isinstance(winners, dict)
    }


def _remember(machine: str, found: Mapping[str, str]) -> None:
    """Add winners to the file as it is now, since another process may have written to it."""
    machines = _read()
    merged = {**machines.pop(machine, {}), **found}
    machines[machine] = merged  # last: the machines tuned longest ago are dropped first
    excess = sum(map(len, machines.values())) - _MOST_WINNERS
    for name in list(machines):
        if excess <= 0:
            break
        kept = list(machines[name].items())[excess:]
        excess -= len(machines[name]) - len(kept)
        machines[name] = dict(kept)
    write_cache(TUNING_FILE, {"winners": {name: winners for name, winners in machines.items() if winners}})


def _machine(threads: int | None, isa: str | None, algorithm: str, precision: str) -> str:
    """Return the key under which winners are kept: everything that makes the same algorithm faster or slower."""
    from convoxel import __version__

    held = " ".join(f"{cache['name']} {cache['size_bytes']}" for cache in caches())
    set_ = resolve_isa(isa)
    family = ("" if algorithm == "auto" else f"; of {algorithm}") + ("" if precision == "float32" else f"; {precision}")
    return f"{processor()}, {held}; {set_}; threads {resolve_threads(threads)}; engine {__version__}-{_build()}{family}"


@functools.cache
def _build() -> str:
    """Return a digest of the engine's machine code, since other microkernels have other winners."""
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:12]
