"""A summary of many measured layers: geometric means by net and by kind, and the layers where a peer was faster."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from convoxel.bench.comparison import Comparison
from convoxel.bench.layer_bench import LayerResult
from convoxel.bench.layer_list import KINDS


@dataclass(frozen=True)
class Mean:
    """The geometric mean of our speed by the best peer's, over some comparisons."""

    name: str
    ratio: float
    smallest: float
    count: int


@dataclass(frozen=True)
class Summary:
    """Means of layers that had a peer, and those in which a peer was faster, the worst first."""

    nets: tuple[Mean, ...]
    kinds: tuple[Mean, ...]
    slower: tuple[LayerResult, ...]
    ceiling: float
    largest_error: float
    largest_workspace_share: float

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""

        def rows(means: tuple[Mean, ...]) -> dict[str, object]:
            return {m.name: {"ratio": m.ratio, "smallest": m.smallest, "layers": m.count} for m in means}

        return {
            "nets": rows(self.nets),
            "kinds": rows(self.kinds),
            "slower": [{"layer": str(result.layer), "ratio": result.ratio} for result in self.slower],
            "ceiling_gflops": self.ceiling / 1e9,
            "largest_l2_error": self.largest_error,
            "largest_workspace_share": self.largest_workspace_share,
        }


def geometric_means(comparisons: Sequence[tuple[str, Comparison]]) -> tuple[Mean, ...]:
    """Return the mean of each name's comparisons, in the names' order; those without a peer are left out."""
    ratios: dict[str, list[float]] = {}
    for name, comparison in comparisons:
        if comparison.ratio is not None:
            ratios.setdefault(name, []).append(comparison.ratio)
    return tuple(Mean(name, statistics.geometric_mean(r), min(r), len(r)) for name, r in ratios.items())


def summarise(results: Sequence[LayerResult]) -> Summary:
    """Return the summary of at least one result."""
    kinds = sorted(results, key=lambda result: list(KINDS).index(result.layer.kind))
    slower = [(result.ratio, index) for index, result in enumerate(results) if result.ratio is not None]
    return Summary(
        nets=geometric_means([(result.group, result) for result in results]),
        kinds=geometric_means([(result.layer.kind, result) for result in kinds]),
        slower=tuple(results[index] for ratio, index in sorted(slower) if ratio < 1),
        ceiling=max(result.ceiling for result in results),
        largest_error=max(result.l2_error for result in results),
        largest_workspace_share=max(result.workspace_share for result in results),
    )
