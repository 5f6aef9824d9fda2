"""A separated network: quality over time of the network as it was and of every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.draw.pareto_chart import Entry, pareto

if TYPE_CHECKING:
    from convoxel.draw.figure import Figure
    from convoxel.nn.separation import Separation


def separation(found: Separation, engine: str) -> Figure:
    """Return the trained network and each trial as points of milliseconds on ``engine`` and validation score."""
    entries = [Entry("trained", 1e3 * found.time_s[0], found.score[0])] if found.score else []
    entries += [
        Entry(f"≤ {trial.max_error:g}, {trial.layers} layers", 1e3 * trial.time_s, trial.score)
        for trial in found.trials
    ]
    title = "Separated networks, by output error and layers replaced"
    return pareto(entries, x=f"ms on {engine}", y="validation score", title=title)
