"""Candidates that no other one beats: fronts of several goals at once (Deb et al. 2002, "NSGA-II")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convoxel.errors import ConfigError
from convoxel.search.candidate import Candidate

# Figure → whether it should be low or high. Without training, parameters and field stand for what a network can learn.
GOALS: Mapping[str, str] = {"macs": "low", "params": "high", "field": "high"}

_FIGURES = ("params", "macs", "memory", "field")


def check_goals(goals: Mapping[str, str]) -> None:
    """Raise ConfigError unless goals name figures that are counted, each "low" or "high"."""
    if not goals or not set(goals) <= set(_FIGURES) or not set(goals.values()) <= {"low", "high"}:
        raise ConfigError(
            f"goals: got {dict(goals)}; expected at least one of {', '.join(_FIGURES)}, each 'low' or 'high'."
        )


def values(candidate: Candidate, goals: Mapping[str, str]) -> tuple[float, ...]:
    """Return a candidate's figures so that small is good."""
    known = {"params": candidate.params, "macs": candidate.macs, "memory": candidate.memory_bytes,
             "field": candidate.reach, "quality": candidate.quality or 0.0}  # fmt: skip
    return tuple(known[name] if way == "low" else -known[name] for name, way in goals.items())


def front(candidates: Sequence[Candidate], goals: Mapping[str, str] = GOALS) -> list[Candidate]:
    """Return the candidates that no other one beats: as good in every goal and better in one.

    Of networks that cost the same in all that is counted, the first stands for all.

    >>> from convoxel.search.candidate import measure
    >>> nets = [measure("unet", (1, 1, 32, 32), {"levels": levels, "width": 8}) for levels in (1, 2)]
    >>> len(front(nets)), len(front(nets, {"field": "high"}))
    (2, 1)
    """
    kept: dict[tuple[float, ...], Candidate] = {}
    seen = set()
    # In this order nothing that comes later beats what is kept.
    for candidate in sorted(candidates, key=lambda each: values(each, goals)):
        own = values(candidate, goals)
        if candidate.costs in seen or any(_beats(other, own) for other in kept):
            continue
        seen.add(candidate.costs)
        kept.setdefault(own, candidate)
    return list(kept.values())


def rank_fronts(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the number of fronts before each point; 0 for points that no other one beats.

    >>> rank_fronts([(1, 2), (2, 1), (2, 2), (3, 3)])
    [0, 0, 1, 2]
    """
    ranks = [-1] * len(points)
    left, rank = set(range(len(points))), 0
    while left:
        best = {one for one in left if not any(_beats(points[other], points[one]) for other in left)}
        for one in best:
            ranks[one] = rank
        left -= best
        rank += 1
    return ranks


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
