"""Algorithms whose packed weights take less memory, for hardly more time.

Winograd's algorithms multiply the weights of a layer by up to eight where they pack them, and a deep layer with few
pixels is bound by the time that these take from memory. There several algorithms take about the same time, and their
weights differ by factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from convoxel.arithmetic.winograd import tiles_of
from convoxel.native.machine import algorithms
from convoxel.native.plan import Convolution, Plan, Problem, View

_SLOWER = 1.2  # times the least expected cost: measured, whole networks are no slower at all
_WORTH_BYTES = 2**22  # packed weights of a layer that are worth a choice


def choose_smaller_weights(
    problems: Iterable[Problem], isa: str | None = None, precision: str = "float32"
) -> dict[str, str]:
    """Return algorithms for layers with large weights, by the text of a problem for one image.

    They are those whose packed weights are smallest, among those of at most 1.2 times the least expected cost. Layers
    whose packed weights take less than 4 MiB are left out.

    Args:
        problems: convolutions; repeated ones are looked at once.
        isa, precision: as in ``Plan``.

    >>> window = ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, False)
    >>> sorted(choose_smaller_weights([Problem(*window, (1, 4, 4, 4, 8), (1, 4, 4, 4, 8))]))
    []
    """
    halves = {row["name"] for row in algorithms() if row["precision"] == "bfloat16"}
    found: dict[str, str] = {}
    for problem in {problem.of_one_image: None for problem in problems}:
        weights = 4 * math.prod(problem.kernel) * problem.in_shape[4] * problem.out_shape[4] // problem.groups
        sizes: dict[str, float] = {}
        costs = {name: cost for name, cost in _candidates(problem, isa, precision) if name != "fft"}
        least = min(costs.values(), default=math.inf)
        for name, cost in costs.items():
            if cost <= _SLOWER * least:
                sizes[name] = weights * _growth(name, problem) / (2 if name in halves else 1)
        if max(sizes.values(), default=0) >= _WORTH_BYTES:
            found[str(problem)] = min(sizes, key=lambda name: (sizes[name], costs[name]))
    return found


def _growth(algorithm: str, problem: Problem) -> float:
    """Return by how much an algorithm multiplies the numbers of the weights: (m + r - 1) / r on each axis."""
    tiles = tiles_of(algorithm) or (1, 1, 1)
    return math.prod((m + r - 1) / r for m, r in zip(tiles, problem.kernel, strict=True) if r > 1)


def _candidates(problem: Problem, isa: str | None, precision: str) -> list[tuple[str, float]]:
    """Return the algorithms that a problem has, and their expected costs, cheapest first."""
    ends = (problem.in_shape[4], problem.out_shape[4])
    first, second = ends if problem.transposed else ends[::-1]
    weight = np.zeros((first, second // problem.groups, *problem.kernel), np.float32)
    weight.setflags(write=False)  # it is kept and not copied: nobody ever touches its pages
    layer = Convolution(
        weight,
        stride=problem.stride,
        padding_low=problem.padding_low,
        dilation=problem.dilation,
        groups=problem.groups,
        transposed=problem.transposed,
    )
    src = View.dense(1, 0, problem.in_shape, problem.in_element)
    dst = View.dense(2, 0, problem.out_shape, problem.out_element)
    return Plan(0, 2, isa=isa, precision=precision).candidates(layer, src, dst, "auto", problem.gated)
