"""What many measured layers say together: geometric means by net and by kind, and where a peer was faster."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.bench.contest import Result
from convoxel.bench.layer import KINDS

__all__ = ["Mean", "Verdict", "judge"]


@dataclass(frozen=True)
class Mean:
    """The geometric mean of our speed by the best peer's, over some layers."""

    name: str
    ratio: float
    smallest: float
    count: int


@dataclass(frozen=True)
class Verdict:
    """Means of layers that had a peer, and those in which a peer was faster, the worst first."""

    nets: tuple[Mean, ...]
    kinds: tuple[Mean, ...]
    slower: tuple[Result, ...]
    ceiling: float
    largest_error: float
    largest_workspace_share: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""

        def rows(means: tuple[Mean, ...]) -> dict[str, Any]:
            return {m.name: {"ratio": m.ratio, "smallest": m.smallest, "layers": m.count} for m in means}

        return {
            "nets": rows(self.nets),
            "kinds": rows(self.kinds),
            "slower": [{"layer": str(result.layer), "ratio": result.ratio} for result in self.slower],
            "ceiling_gflops": self.ceiling / 1e9,
            "largest_l2_error": self.largest_error,
            "largest_workspace_share": self.largest_workspace_share,
        }


def judge(results: Sequence[Result]) -> Verdict:
    """Return what the results say together; at least one is needed."""
    ratios = [(result, result.ratio) for result in results if result.ratio is not None]
    nets = dict.fromkeys(result.layer.net for result in results)

    def means(names: Sequence[str], of: str) -> tuple[Mean, ...]:
        found = ((name, [ratio for result, ratio in ratios if getattr(result.layer, of) == name]) for name in names)
        return tuple(Mean(name, statistics.geometric_mean(r), min(r), len(r)) for name, r in found if r)

    slower = sorted((ratio, index) for index, (_, ratio) in enumerate(ratios) if ratio < 1)
    return Verdict(
        nets=means(list(nets), "net"),
        kinds=means(list(KINDS), "kind"),
        slower=tuple(ratios[index][0] for _, index in slower),
        ceiling=max(result.ceiling for result in results),
        largest_error=max(result.l2_error for result in results),
        largest_workspace_share=max(result.workspace_bytes / result.largest_bytes for result in results),
    )
