"""The fastest algorithm of a convolution by measurement, and its memory on disk.

A winner is remembered for one machine (processor, caches, instruction set, number of threads, build of the engine)
and one ``Problem``, which knows sizes and no weights: the layers of all networks share what any of them learned.
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
from convoxel.native.machine import algorithms, caches, instruction_set, processor, resolve_threads
from convoxel.native.plan import Convolution, Floats, Plan, Problem, View

__all__ = ["TUNING_FILE", "known_winners", "remembered_count", "time_candidates", "tune"]

TUNING_FILE = "tuning.json"
_CANDIDATES = 3  # the cost model's order is rarely wrong by more than two places
_MOST_WINNERS = 8192  # of all machines together: about a megabyte
_LEAST_ROUNDS, _MOST_ROUNDS, _ENOUGH_S = 3, 40, 0.05
_HOPELESS = 2.0  # a candidate that takes this many times the best in its first round is not tried again
_RANDOM_WEIGHTS = 2**16  # repeated where a layer has more: a hundred million take a second to draw

Progress = Callable[[int, int, str], None]


def time_candidates(
    problem: Problem,
    threads: int | None = None,
    isa: str | None = None,
    count: int = _CANDIDATES,
    algorithm: str = "auto",
) -> dict[str, float]:
    """Seconds that the ``count`` algorithms of least expected cost take for one run of a problem.

    The smallest of several rounds, in which the candidates take turns, on random data in dense tensors. Nothing
    is measured where there is one candidate only: its time is then 0.

    Args:
        problem: what to run.
        threads, isa: as in ``Plan``.
        count: at most how many candidates.
        algorithm: the family that they are of, as in ``Plan.candidates``.

    >>> problem = Problem((1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), 1, False, (1, 1, 4, 4, 8), (1, 1, 4, 4, 8))
    >>> "pointwise" in time_candidates(problem, threads=1)
    True
    """
    layer = _random_convolution(problem)
    gates = (problem.in_shape[0], 1, 1, 1, problem.in_shape[4])
    shapes = (problem.in_shape, problem.out_shape, problem.out_shape, gates)
    views = [View.dense(i, 0, shape) for i, shape in enumerate(shapes, start=1)]
    src, dst, residual, gate = views
    ranked = Plan(0, 4, threads, isa=isa).candidates(layer, src, dst, algorithm, problem.gated)
    names = [name for name, cost in ranked if math.isfinite(cost)][:count]
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    rng = np.random.default_rng(0)
    buffers = [rng.standard_normal(view.shape, np.float32) for view in views]
    plans = {name: Plan(0, 4, threads, isa=isa) for name in names}
    for name, plan in plans.items():
        plan.convolve(
            layer, src, dst, residual if problem.residual else None, problem.activation, 0.01, algorithm=name,
            gate=gate if problem.gated else None,
        )  # fmt: skip
        plan.run(buffers)
    return _take_turns(plans, buffers)


def _take_turns(plans: Mapping[str, Plan], buffers: Sequence[Floats]) -> dict[str, float]:
    """Return the smallest of the seconds that each plan's only step took, over enough rounds to be believed."""

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


def _random_convolution(problem: Problem) -> Convolution:
    """A layer with weights of no meaning: its copies packed for the candidates go when it goes."""
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
) -> dict[str, str]:
    """The fastest algorithm of each problem on this machine, by the problem's text; for ``Plan(winners=…)``.

    Only problems that the cache does not know are measured; what is found is remembered, also if the rest is
    interrupted. The result holds all winners of this machine, also those of other problems.

    Args:
        problems: repeated ones are measured once.
        threads, isa: as in ``Plan``; they belong to the key.
        on_progress: called with (problems done, problems to measure, the next one) before each and at the end.
        algorithm: the family to choose from, as in ``Plan.candidates``; each has winners of its own.
    """
    known = known_winners(threads, isa, algorithm)
    missing = [problem for problem in dict.fromkeys(problems) if str(problem) not in known]
    found: dict[str, str] = {}
    report = on_progress or (lambda done, total, problem: None)
    try:
        for done, problem in enumerate(missing):
            report(done, len(missing), str(problem))
            times = time_candidates(problem, threads, isa, algorithm=algorithm)
            found[str(problem)] = min(times, key=times.__getitem__)
    finally:
        if found:
            _remember(_machine(threads, isa, algorithm), found)
    if missing:
        report(len(missing), len(missing), "")
    return {**known, **found}


def known_winners(threads: int | None = None, isa: str | None = None, algorithm: str = "auto") -> dict[str, str]:
    """The remembered winners of this machine for this number of threads and family: problem as text → algorithm."""
    return _read().get(_machine(threads, isa, algorithm), {})


def remembered_count() -> int:
    """How many winners the cache holds, of all machines together."""
    return sum(len(winners) for winners in _read().values())


def _read() -> dict[str, dict[str, str]]:
    """The cache without what cannot be used, such as algorithms that have gone since."""
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
    """Add winners to the file as it is now, which another process may have written meanwhile."""
    machines = _read()
    merged = {**machines.pop(machine, {}), **found}
    machines[machine] = merged  # last: the machines that were not tuned for longest are forgotten first
    excess = sum(map(len, machines.values())) - _MOST_WINNERS
    for name in list(machines):
        if excess <= 0:
            break
        kept = list(machines[name].items())[excess:]
        excess -= len(machines[name]) - len(kept)
        machines[name] = dict(kept)
    write_cache(TUNING_FILE, {"winners": {name: winners for name, winners in machines.items() if winners}})


def _machine(threads: int | None, isa: str | None, algorithm: str) -> str:
    """The text under which winners are kept: all that makes the same algorithm faster or slower."""
    from convoxel import __version__

    held = " ".join(f"{cache['name']} {cache['size_bytes']}" for cache in caches())
    set_ = isa or instruction_set()
    family = "" if algorithm == "auto" else f"; of {algorithm}"
    return f"{processor()}, {held}; {set_}; threads {resolve_threads(threads)}; engine {__version__}-{_build()}{family}"


@functools.cache
def _build() -> str:
    """A digest of the engine's machine code: other kernels have other winners."""
    return hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()[:12]
