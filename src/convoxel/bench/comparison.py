"""Our engine beside its peers: figures that follow from the times of all contenders."""

from __future__ import annotations

from collections.abc import Mapping

OURS = "convoxel"

# By contender: median_s, min_s and max_s.
Times = Mapping[str, Mapping[str, float]]


class Comparison:
    """A measured comparison.

    Attributes:
        times: times of all contenders: OURS, variants of ours, peers.
        peers: the names among ``times`` that are not ours.
        gflop: billions of multiplications and additions of one run by direct convolution.
        ceiling: operations per second that registers allow on these threads, the largest of several measurements.
        group: the group whose mean it enters.
        label: name within its group.
    """

    times: Times
    peers: tuple[str, ...]
    ceiling: float

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of one run by direct convolution."""
        raise NotImplementedError

    @property
    def group(self) -> str:
        """The group whose mean it enters."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """Name within its group."""
        raise NotImplementedError

    @property
    def ran(self) -> bool:
        """True if our engine ran."""
        return OURS in self.times

    @property
    def time_s(self) -> float:
        """Our median time."""
        return self.times[OURS]["median_s"]

    @property
    def flops(self) -> float:
        """Effective operations per second: those of the direct algorithm, however many were done."""
        return 1e9 * self.gflop / self.time_s

    @property
    def ceiling_share(self) -> float:
        """Effective operations per second by the ceiling."""
        return self.flops / self.ceiling

    @property
    def best_peer(self) -> str | None:
        """The fastest peer, if there is any."""
        return min(self.peers, key=lambda name: self.times[name]["median_s"], default=None)

    @property
    def ratio(self) -> float | None:
        """Our speed by the best peer's; None without a peer, or without us."""
        best = self.best_peer
        return self.times[best]["median_s"] / self.time_s if best and self.ran else None

    def timing(self) -> dict[str, object]:
        """Return the times and what follows from them as JSON knows it."""
        return {
            "ms": {name: 1e3 * time["median_s"] for name, time in self.times.items()},
            "times": {name: dict(time) for name, time in self.times.items()},
            "gflop": self.gflop,
            "gflops": self.flops / 1e9 if self.ran else None,
            "best_peer": self.best_peer,
            "ratio": self.ratio,
            "ceiling_gflops": self.ceiling / 1e9,
            "ceiling_share": self.ceiling_share if self.ran else None,
        }
