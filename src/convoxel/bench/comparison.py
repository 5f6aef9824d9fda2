"""How we stand against the peers: what every comparison derives from the contenders' times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OURS", "Comparison"]

OURS = "convoxel"


class Comparison:
    """A measured comparison.

    Attributes:
        times: median_s, min_s and max_s of all contenders: OURS, variants of ours, peers.
        peers: the names among ``times`` that are not ours.
        gflop: billions of multiplications and additions of one run by direct convolution.
        group, label: what means are taken over, and what tells the comparison from others of its group.
    """

    times: Mapping[str, Mapping[str, float]]
    peers: tuple[str, ...]

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of one run by direct convolution."""
        raise NotImplementedError

    @property
    def group(self) -> str:
        """What means are taken over."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What tells the comparison from others of its group."""
        raise NotImplementedError

    @property
    def time_s(self) -> float:
        """Our median time."""
        return self.times[OURS]["median_s"]

    @property
    def flops(self) -> float:
        """Effective operations per second: those of the direct algorithm, however many were done."""
        return 1e9 * self.gflop / self.time_s

    @property
    def best_peer(self) -> str | None:
        """The fastest peer, if there is any."""
        return min(self.peers, key=lambda name: self.times[name]["median_s"], default=None)

    @property
    def ratio(self) -> float | None:
        """Our speed by the best peer's; None without a peer, or without us."""
        best = self.best_peer
        return self.times[best]["median_s"] / self.time_s if best and OURS in self.times else None

    def timing(self) -> dict[str, Any]:
        """Return the times and what follows from them as JSON knows it."""
        return {
            "ms": {name: 1e3 * time["median_s"] for name, time in self.times.items()},
            "times": {name: dict(time) for name, time in self.times.items()},
            "gflop": self.gflop,
            "gflops": self.flops / 1e9 if OURS in self.times else None,
            "best_peer": self.best_peer,
            "ratio": self.ratio,
        }
