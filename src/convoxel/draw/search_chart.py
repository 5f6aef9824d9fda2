"""Networks of a search: quality where it is known, else parameters, over multiply-accumulates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.draw.pareto_chart import Entry, pareto

if TYPE_CHECKING:
    from convoxel.draw.figure import Figure
    from convoxel.search import Findings


def search_front(found: Findings) -> Figure:
    """Return the networks inside the budgets as points, those that no other one beats with their names."""
    shown = [each for each in found.inside if each.quality is not None] or found.inside
    # Options that all of them share say nothing about a point.
    alike = [name for name in found.space.vary if len({str(each.options[name]) for each in shown}) == 1]
    entries = []
    for index, each in enumerate(shown):
        name = " ".join(f"{key}={value}" for key, value in each.options.items() if key not in alike) or each.name
        height = each.params if each.quality is None else each.quality
        entries.append(Entry(name, each.macs, height, quiet=index >= len(found.front)))
    title = f"{len(shown)} networks inside the budgets: {found.space.network}"
    return pareto(entries, x="multiply–adds", y="quality" if found.trained else "parameters", title=title)
