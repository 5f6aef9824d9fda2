"""The conditions that a graph puts on its input sizes, and the nearest valid sizes where they are not met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convoxel.arithmetic.size_search import nearest_sizes
from convoxel.errors import ConvoxelError
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import infer_shapes

Sizes = Mapping[str, int]

_FARTHEST = 64  # U-Nets need sizes that differ by a power of 2, one factor for each level
_MOST_NODES = 4000  # of all shapes inferred in one direction, so that a refusal takes no longer than a plan


def broken_condition(graph: Graph, sizes: Sizes) -> Size | None:
    """Return the first condition of the graph that ``sizes`` do not meet."""
    assumptions = graph.assumptions if graph.computes_sizes else ()
    return next((condition for condition in (*graph.guards, *assumptions) if not condition.value(sizes)), None)


def say_nearest_sizes(graph: Graph, sizes: Sizes, known: Sequence[Sizes] = ()) -> str:
    """Return a sentence that names the nearest valid sizes, "" if none was found; ``known`` are valid sizes."""

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
