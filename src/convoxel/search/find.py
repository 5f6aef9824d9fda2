"""The search: every network of a space, or a sample of it, measured; those inside the budgets; the front of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.inspect import time_engine
from convoxel.models import info
from convoxel.search.budget import Budget
from convoxel.search.candidate import Candidate, measure
from convoxel.search.evolution import evolve
from convoxel.search.pareto_front import GOALS, check_goals, front
from convoxel.search.space import Choices, Options, Space, usual_options
from convoxel.search.study import StudyResult

OnProgress = Callable[[str, int, int, str], None]

# Networks that are measured at most by default: 30 ms each on shapes alone.
_MOST = 256


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The networks that :func:`find` found.

    Attributes:
        space: the networks that were searched.
        budget: limits of what a network may cost.
        goals: figure → "low" or "high", whichever is good.
        seed: random seed of the sample, where the space was too large to be measured whole.
        measured: number of networks that were measured.
        refused: number of combinations of options that make no network.
        inside: the networks inside every budget, the front first.
        front: those that no other one beats. Each is timed if time has a budget.
        study: state of the study that trained them; None where none did.
    """

    space: Space
    budget: Budget
    goals: Mapping[str, str]
    seed: int
    measured: int
    refused: int
    inside: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    study: StudyResult | None = None

    @property
    def complete(self) -> bool:
        """True if every network of the space was measured."""
        return self.measured + self.refused == len(self.space)

    @property
    def trained(self) -> bool:
        """True if the quality of the front is known."""
        return any(each.quality is not None for each in self.front)

    @property
    def front_options(self) -> list[Options]:
        """All options of each network on the front."""
        return [{**each.fixed, **each.options} for each in self.front]

    def with_quality(self, qualities: Sequence[float]) -> Findings:
        """Return the findings with the quality of each network on the front, in its order."""
        front = tuple(
            dataclasses.replace(each, quality=quality) for each, quality in zip(self.front, qualities, strict=True)
        )
        return dataclasses.replace(self, front=front, inside=(*front, *self.inside[len(front) :]))

    @property
    def best(self) -> Candidate:
        """The best of the front: by quality where it is known, else the one with the most parameters."""
        return max(self.front, key=lambda each: (each.quality or 0.0, each.params))

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return {
            "network": self.space.network,
            "shape": list(self.space.shape),
            "vary": {name: list(values) for name, values in self.space.vary.items()},
            "fixed": dict(self.space.fixed),
            "budget": dataclasses.asdict(self.budget),
            "goals": dict(self.goals),
            "seed": self.seed,
            "combinations": len(self.space),
            "measured": self.measured,
            "refused": self.refused,
            "complete": self.complete,
            "best": self.best.to_dict(),
            "front": [candidate.to_dict() for candidate in self.front],
            "inside": [candidate.to_dict() for candidate in self.inside],
            "study": None if self.study is None else dataclasses.asdict(self.study),
        }


def find(
    network: str,
    shape: Sequence[int] | None = None,
    *,
    vary: Choices | None = None,
    fixed: Options | None = None,
    budget: Budget | None = None,
    goals: Mapping[str, str] = GOALS,
    most: int = _MOST,
    seed: int = 0,
    timed: bool = False,
    on_progress: OnProgress | None = None,
) -> Findings:
    """Return the networks of a family that lie inside every budget, and those of them that no other one beats.

    Networks are counted on shapes alone. A space of up to ``most`` combinations is measured whole, of a larger one as
    many are sampled by evolution. Only networks on the front are timed: one that is too slow leaves, and those
    that it alone had beaten take its place, until the whole front is inside.

    Args:
        network: a name of ``convoxel.models.names()``.
        shape: input (n, channels, *spatial) (default: a usual one).
        vary: option → values; ``size`` is the image's size (default: ``usual_options(network)``).
        fixed: options of all networks.
        budget: limits of what a network may cost (default: none).
        goals: figures ("params", "macs", "memory", "field"), each "low" or "high", whichever is good.
        most: largest number of networks to measure (default 256).
        seed: random seed of the sample (default 0).
        timed: whether to time the front where time has no budget.
        on_progress: called with the activity ("counting", "timing"), how many are done, of how many, and the next.

    Raises:
        ConfigError: no network lies inside every budget (the message names the nearest, and what it breaks), or an
            argument is malformed.

    >>> found = find("resnet18", (1, 3, 64, 64), budget=Budget(max_params=1e6, max_macs=2e7))
    >>> found.best.name, found.best.params, found.complete
    ('width=0.25 depth=0.75', 831096, True)
    """
    check_goals(goals)
    if most < 1:
        raise ConfigError(f"most: got {most}; expected at least 1 network to measure.")
    space = plan_space(network, shape, vary, fixed)
    budget, tell = budget or Budget(), on_progress or (lambda word, done, total, what: None)
    known, refused = _count(space, budget, goals, most, seed, tell)
    inside = [candidate for candidate in known if not budget.excess(candidate)]
    if not inside:
        raise ConfigError(_refuse(known, budget))
    best = front(inside, goals)
    if timed or budget.max_time_s is not None:
        best, slow = _time(inside, budget, goals, tell)
        if not best:
            raise ConfigError(_refuse(slow, budget))
        # Whoever was not timed may be too slow.
        inside = best if budget.max_time_s is not None else [*best, *inside]
    names = {candidate.name for candidate in best}
    ordered = [*best, *(candidate for candidate in inside if candidate.name not in names)]
    return Findings(
        space=space, budget=budget, goals=dict(goals), seed=seed, measured=len(known), refused=refused,
        inside=tuple(ordered), front=tuple(best),
    )  # fmt: skip


def plan_space(
    network: str, shape: Sequence[int] | None = None, vary: Choices | None = None, fixed: Options | None = None
) -> Space:
    """Return the networks to choose from, with the usual input and options where none are given."""
    own = dict(fixed or {})
    usual = {name: values for name, values in usual_options(network).items() if name not in own}
    sizes = tuple(shape or (1, *info(network).shape))
    return Space(network=network, shape=sizes, vary=dict(vary) if vary else usual, fixed=own)


def _count(
    space: Space, budget: Budget, goals: Mapping[str, str], most: int, seed: int, tell: OnProgress
) -> tuple[list[Candidate], int]:
    """Return what the networks cost that are measured, and how many combinations are none."""
    known: list[Candidate] = []
    faults: list[ConvoxelError] = []
    total = min(most, len(space))

    def look(number: int) -> Candidate | None:
        options = space.options(number)
        tell("counting", len(known) + len(faults), total, " ".join(f"{key}={value}" for key, value in options.items()))
        try:
            known.append(measure(space.network, space.shape, options, space.fixed))
        except ConvoxelError as fault:  # options that exclude each other, or more levels than the image has
            faults.append(fault)
            return None
        return known[-1]

    if len(space) <= most:
        for number in range(len(space)):
            look(number)
    else:
        evolve(space, look, most, budget, goals, seed)
    if not known:
        raise ConfigError(f"none of {len(faults)} combinations is a network; the first: {faults[0]}")
    return known, len(faults)


def _time(
    inside: Sequence[Candidate], budget: Budget, goals: Mapping[str, str], tell: OnProgress
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the front of those that are fast enough, timed, and those that are not."""
    left: list[Candidate] = list(inside)
    slow: list[Candidate] = []
    timed: dict[str, Candidate] = {}
    while True:
        best = front(left, goals)
        for candidate in best:
            if candidate.name not in timed:
                tell("timing", len(timed), len(left) + len(slow), candidate.name)
                taken = time_engine(candidate.build(), candidate.shape)
                timed[candidate.name] = dataclasses.replace(candidate, time_s=taken)
        best = [timed[candidate.name] for candidate in best]
        late = [candidate for candidate in best if budget.excess(candidate)]
        if not late:
            return best, slow
        slow += late
        names = {candidate.name for candidate in late}
        left = [candidate for candidate in left if candidate.name not in names]


def _refuse(known: Sequence[Candidate], budget: Budget) -> str:
    """Say that none fits, which is nearest, and what it breaks."""
    nearest = min(known, key=lambda each: sum(budget.excess(each).values()))
    return (
        f"budget: none of {len(known)} networks lies inside {budget.text()}. The nearest, {nearest.network} "
        f"{nearest.name}, breaks {budget.explain(nearest)}. Allow more, or vary other options."
    )
