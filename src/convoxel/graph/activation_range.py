"""The numbers that flow into a network's layers, observed on samples, and the levels that hold them best.

A range that holds every number wastes levels on rare ones. ``percentile`` leaves out the rarest of them; ``mse`` takes
the range whose levels err least in the mean square, of what lies inside and what is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.pytree import Branch, Leaf
from convoxel.graph.operators.table import make_node
from convoxel.graph.run.program import Program
from convoxel.native.integer import Levels

METHODS = ("minmax", "percentile", "mse")
_BINS = 2048
_RARE = 1e-4  # of all numbers, that a percentile leaves out at each end
_STEPS = 255  # between the lowest and the highest level
_RATIOS = np.linspace(0.3, 1.0, 36)  # of the whole range, that the least error is looked for among
_MOST_VALUES = 2**26  # numbers that one run hands out

Samples = Sequence[Sequence[Array]]


@dataclass(frozen=True)
class Observation:
    """The numbers of one tensor that were seen.

    Attributes:
        low, high: the least and the largest number, and 0.
        counts: how many numbers lie in each of equal parts of that range.
        means: the mean of each channel.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    means: NDArray[np.float64]

    def levels(self, method: str) -> Levels:
        """Return the levels that hold the tensor, by one of ``METHODS``."""
        low, high = {"minmax": self._whole, "percentile": self._common, "mse": self._least_error}[method]()
        return _levels_of(low, high)

    def _whole(self) -> tuple[float, float]:
        return self.low, self.high

    def _common(self) -> tuple[float, float]:
        edges = np.linspace(self.low, self.high, _BINS + 1)
        shares = np.cumsum(self.counts) / max(self.counts.sum(), 1)
        first, last = (int(place) for place in np.searchsorted(shares, (_RARE, 1 - _RARE)))
        return min(float(edges[min(first, _BINS - 1)]), 0.0), max(float(edges[min(last + 1, _BINS)]), 0.0)

    def _least_error(self) -> tuple[float, float]:
        width = (self.high - self.low) / _BINS
        centres = self.low + width * (np.arange(_BINS) + 0.5)
        best, error = (self.low, self.high), np.inf
        for ratio in _RATIOS:
            low, high = self.low * ratio, self.high * ratio
            step = max(high - low, 1e-12) / _STEPS
            beyond = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
            found = float(((beyond**2 + np.where(beyond > 0, 0, step**2 / 12)) * self.counts).sum())
            if found < error:
                best, error = (low, high), found
        return best


def observe(
    program: Program, names: Iterable[str], samples: Samples, on_sample: Callable[[], None] = lambda: None
) -> dict[str, Observation]:
    """Return what is seen of the values ``names`` of a program's graph while it runs on samples.

    The samples run twice: for the ranges, and for what lies within them.
    """
    found: dict[str, Observation] = {}
    for part in _parts(program.graph, list(dict.fromkeys(names)), samples):
        watched = _watched(program, part)
        ends = dict.fromkeys(part, (0.0, 0.0))
        for sample in samples:
            for name, array in zip(part, watched(*sample), strict=True):
                low, high = ends[name]
                known = array[np.isfinite(array)]
                ends[name] = min(low, float(known.min(initial=0))), max(high, float(known.max(initial=0)))
            on_sample()
        counts = {name: np.zeros(_BINS, np.int64) for name in part}
        sums: dict[str, list[Array]] = {name: [] for name in part}
        for sample in samples:
            for name, array in zip(part, watched(*sample), strict=True):
                low, high = ends[name]
                counts[name] += np.histogram(array, _BINS, (low, max(high, low + 1e-12)))[0]
                sums[name].append(array.mean(axis=(0, *range(2, array.ndim)), dtype=np.float64))
            on_sample()
        found.update({name: Observation(*ends[name], counts[name], np.mean(sums[name], axis=0)) for name in part})
    return found


def _watched(program: Program, names: Sequence[str]) -> Callable[..., tuple[Array, ...]]:
    """Return the program that returns the values ``names`` of its graph."""
    graph = program.graph
    seen = [f"{name}:seen" for name in names]
    nodes: list[Node] = list(graph.nodes)
    for name, result in zip(names, seen, strict=True):
        value = graph.values[name]
        nodes.append(make_node("channels_first", result, (name,), (Value(result, value.shape, value.dtype),)))
    structure = Branch("tuple", tuple(map(Leaf, range(len(seen)))))
    watching = graph.replace(nodes=tuple(nodes), outputs=tuple(seen))
    return program.replace(graph=watching, structure=structure)


def _parts(graph: Graph, names: Sequence[str], samples: Samples) -> list[list[str]]:
    """Return the names in groups whose values fit into memory together."""
    from convoxel.graph.operators.table import infer_shapes
    from convoxel.graph.run.input_check import measure_inputs

    shapes = infer_shapes(graph, measure_inputs(list(samples[0]), graph.inputs))
    parts: list[list[str]] = [[]]
    held = 0
    for name in names:
        size = int(np.prod(shapes[name]))
        if parts[-1] and held + size > _MOST_VALUES:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    return parts


def layer_levels(observed: Mapping[str, Observation], method: str, tied: Iterable[set[str]]) -> dict[str, Levels]:
    """Return the levels of each value that was observed; those of a group of ``tied`` ones hold all of them."""
    found = {name: observation.levels(method) for name, observation in observed.items()}
    for group in tied:
        low = min(-found[name].zero * found[name].scale for name in group)
        high = max((_STEPS - found[name].zero) * found[name].scale for name in group)
        found.update(dict.fromkeys(group, _levels_of(low, high)))
    return found


def _levels_of(low: float, high: float) -> Levels:
    scale = max(high - low, 1e-12) / _STEPS
    return Levels(float(np.float32(scale)), int(np.clip(np.rint(-low / scale), 0, _STEPS)))
