"""Which input sizes a network accepts, near those that it has refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from convoxel.errors import ConvoxelError
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import infer_shapes

__all__ = ["advise", "broken_condition", "nearest_sizes"]

Sizes = Mapping[str, int]

_FARTHEST = 64  # U-Nets need sizes that differ by a power of 2, one factor for each level
_MOST_NODES = 4000  # of all shapes inferred in one direction, so that a refusal takes no longer than a plan
_MULTIPLES = (16, 32, 64, 128)


def broken_condition(graph: Graph, sizes: Sizes) -> Size | None:
    """Return the first condition of the graph that ``sizes`` do not meet."""
    assumptions = graph.assumptions if graph.computes_sizes else ()
    return next((condition for condition in (*graph.guards, *assumptions) if not condition.value(sizes)), None)


def advise(graph: Graph, sizes: Sizes, known: Sequence[Sizes] = ()) -> str:
    """Return a sentence that names the nearest sizes that fit, "" if none was found; ``known`` are sizes that do."""

    def fits(trial: Sizes) -> bool:
        try:
            if broken_condition(graph, trial) is not None:
                return False
            infer_shapes(graph, trial)
        except ConvoxelError:
            return False
        return True

    spatial = [name for name in sizes if name[0] in "dhw"]
    farthest = max(8, min(_FARTHEST, _MOST_NODES // max(1, len(graph.nodes))))
    found = nearest_sizes(fits, sizes, spatial, farthest, known)
    if not found:
        return ""
    listed = "; or ".join(", ".join(f"{name} = {trial[name]}" for name in spatial) for trial in found)
    return f". The nearest sizes that fit: {listed}. Pad, crop or resize x"


def nearest_sizes(
    fits: Callable[[Sizes], bool], sizes: Sizes, axes: Sequence[str], farthest: int, known: Sequence[Sizes] = ()
) -> list[dict[str, int]]:
    """Return up to two sets of sizes that ``fits`` accepts, the nearest first.

    Tried are other lengths of one axis, and for each axis the nearest of the lengths that fit where all axes have the
    same; then multiples of a power of 2; then what is ``known`` to fit.

    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 16}, "hw", 20)
    [{'h': 24, 'w': 16}, {'h': 16, 'w': 16}]
    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 11}, "hw", 20)
    [{'h': 24, 'w': 8}]
    """
    if not axes:
        return []
    found: list[dict[str, int]] = []
    for axis in axes:
        for sign in (1, -1):
            trials = ({**sizes, axis: sizes[axis] + sign * step} for step in range(1, farthest + 1))
            found += _first(fits, trials)
    lengths = sorted({sizes[axis] + step for axis in axes for step in range(-farthest, farthest + 1)})
    square = [length for length in lengths if length > 0 and fits({**sizes, **dict.fromkeys(axes, length)})]
    if square:
        # Of two as near, the longer: padding loses nothing.
        near = {axis: min(square, key=lambda s, axis=axis: (abs(s - sizes[axis]), -s)) for axis in axes}  # type: ignore[misc]
        found += [trial for trial in _first(fits, [{**sizes, **near}]) if trial not in found]
    if not found:
        rounded = ({**sizes, **{axis: -(-sizes[axis] // m) * m for axis in axes}} for m in _MULTIPLES)
        found += _first(fits, rounded)
    if not found:
        found += _first(fits, ({**sizes, **{axis: other.get(axis, 0) for axis in axes}} for other in known))
    found.sort(key=lambda trial: sum(abs(trial[axis] - sizes[axis]) for axis in axes))
    return found[:2]


def _first(fits: Callable[[Sizes], bool], trials: Iterator[dict[str, int]] | Sequence[dict[str, int]]
           ) -> list[dict[str, int]]:  # fmt: skip
    """Return the first of ``trials`` that fits, as a list of at most one."""
    return next(([trial] for trial in trials if min(trial.values()) > 0 and fits(trial)), [])
