"""Quality against scale: over parameters and over multiply–adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.draw.figure import Figure, beside
from convoxel.draw.pareto_chart import Entry, pareto

if TYPE_CHECKING:
    from convoxel.train.scaling_study import ScalingStudy


def scaling(study: ScalingStudy) -> Figure:
    """Return quality over parameters and, beside it, over multiply–adds.

    Args:
        study: of :func:`convoxel.train.scaling_study.study_scaling`.

    >>> from convoxel.train.scaling_study import Scaled, ScalingStudy
    >>> row = Scaled("width=1", {"width": 1}, (1, 1, 8, 8), 10, 99, 0.9, 1.0, 5, "accuracy")
    >>> scaling(ScalingStudy((row,), "resnet18", "digits", "accuracy")).title
    'resnet18 on digits: accuracy against scale'
    """
    panels = [
        pareto([Entry(row.name, getattr(row, figure), row.quality) for row in study.rows], x=word, y=study.metric_name)
        for figure, word in (("params", "parameters"), ("macs", "multiply–adds"))
    ]
    return beside(panels, f"{study.network} on {study.data}: {study.metric_name} against scale", gap=12)
