"""Networks of a family, scaled by rule or searched for under budgets; only ``trained_search`` trains any.

Read the files in this order: ``space`` (the networks to choose from) → ``candidate`` (one network and its costs) →
``budget`` (limits of costs) → ``pareto_front`` (networks that no other one beats) → ``evolution`` (samples of a large
space) → ``find`` (the search); ``study`` (trials that machines share) → ``trained_search`` (networks that are trained
to be compared); and ``scaling`` (width, depth and resolution by rule).

>>> found = find("unet", (1, 1, 64, 64), vary={"levels": (2, 3), "width": (8, 16)}, budget=Budget(min_field=64))
>>> [candidate.options for candidate in found.front]
[{'levels': 3, 'width': 8}, {'levels': 3, 'width': 16}]
"""

from __future__ import annotations

from convoxel.face import open_face
from convoxel.search.budget import Budget
from convoxel.search.candidate import Candidate, measure
from convoxel.search.find import Findings, find
from convoxel.search.scaling import Scale, compound, scales
from convoxel.search.space import Space, usual_options

__all__ = [
    "Budget",
    "Candidate",
    "Findings",
    "Scale",
    "Space",
    "compound",
    "find",
    "measure",
    "scales",
    "usual_options",
]

open_face(__name__, early=True)
