"""Samples of a space that is too large to be measured whole, by evolution: what fits better has more descendants.

Selection is by constraint domination (Deb et al. 2002, "NSGA-II"): a network inside the budgets goes before one that
breaks them; of two that break them, the one that does so less; of two inside, the one on the earlier front. No network
is measured twice, so a search ends when its number of measurements is spent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from convoxel.search.budget import Budget
from convoxel.search.candidate import Candidate
from convoxel.search.pareto_front import rank_fronts, values
from convoxel.search.space import Space

_POPULATION, _PARENTS = 24, 8  # drawn at first; who has descendants
_TRIES = 64  # children that are known already, before a stranger is taken instead


def evolve(
    space: Space,
    look: Callable[[int], Candidate | None],
    count: int,
    budget: Budget,
    goals: Mapping[str, str],
    seed: int,
) -> None:
    """Call ``look`` with ``count`` different combinations of ``space``; each choice follows from what came before.

    Args:
        space: the networks to choose from, more than ``count``.
        look: measures a combination; returns None where it is no network.
        count: number of measurements.
        budget: limits of what a network may cost.
        goals: figures that should be low or high.
        seed: random seed; two searches with the same seed measure the same networks.
    """
    chance = random.Random(seed)
    known: dict[int, Candidate | None] = {}
    for number in chance.sample(range(len(space)), min(_POPULATION, count)):
        known[number] = look(number)
    while len(known) < count:
        parents = _select(known, budget, goals)
        number = _child(space, parents, known, chance)
        known[number] = look(number)


def _select(known: Mapping[int, Candidate | None], budget: Budget, goals: Mapping[str, str]) -> list[int]:
    """Return the combinations that have descendants, the best first."""
    networks = [(number, candidate) for number, candidate in known.items() if candidate is not None]
    ranks = rank_fronts([values(candidate, goals) for _, candidate in networks])
    order = sorted(
        (sum(budget.excess(candidate).values()), rank, number)
        for (number, candidate), rank in zip(networks, ranks, strict=True)
    )
    return [number for _, _, number in order[:_PARENTS]] or list(known)


def _child(space: Space, parents: list[int], known: Mapping[int, Candidate | None], chance: random.Random) -> int:
    """Return a combination that is not known: two parents mixed, and about one option moved."""
    for _ in range(_TRIES):
        # Two drawn, the better taken: parents are sorted.
        mother, father = (space.places(parents[min(chance.choices(range(len(parents)), k=2))]) for _ in range(2))
        places = [chance.choice(pair) for pair in zip(mother, father, strict=True)]
        for axis, options in enumerate(space.vary.values()):
            if chance.random() < 1 / len(places):
                step = chance.choice((-1, 1)) if chance.random() < 0.7 else chance.randrange(len(options))
                places[axis] = min(max(places[axis] + step, 0), len(options) - 1)
        number = space.number(places)
        if number not in known:
            return number
    number = chance.randrange(len(space))
    while number in known:
        number = (number + 1) % len(space)
    return number
