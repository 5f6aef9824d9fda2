"""The progress of training and prediction, as callbacks receive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One moment of a run, handed to ``on_progress`` after every step.

    Attributes:
        phase: ``"prepare"``, ``"train"``, ``"validate"``, ``"evaluate"``, ``"done"``, or ``"check"`` and ``"predict"``,
            where a step is an image.
        step: steps taken since the start of the run, those before it was resumed included (default 0).
        steps_total: planned steps; None when the run is limited by time.
        fraction: share of the run that is done, 0 … 1 (default 0).
        epoch: epochs begun, from 1; 0 before the first (default 0).
        loss: mean training loss of this epoch so far; None before the first step.
        metric: last mean validation metric (Dice or accuracy, 0 … 1); None before the first validation.
        metric_name: its name in short, "Dice", "accuracy" or "mean AUC"; "metric" before the data are known.
        samples_per_s: samples (or patches) trained per second, averaged over this epoch.
        waiting: share of the time of training, 0 … 1, in which the network waited for samples, over this epoch.
        time_left_s: estimated seconds until training, or the prediction of all images, ends; None before it can be
            estimated.
    """

    phase: str
    step: int = 0
    steps_total: int | None = None
    fraction: float = 0.0
    epoch: int = 0
    loss: float | None = None
    metric: float | None = None
    metric_name: str = "metric"
    samples_per_s: float | None = None
    waiting: float | None = None
    time_left_s: float | None = None


OnProgress = Callable[[Progress], None]
