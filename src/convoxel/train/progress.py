"""What training tells its caller while it runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """One moment of a training run, handed to ``on_progress`` after every step.

    Attributes:
        epoch: epochs begun, from 1.
        step: steps taken since the start of the run (of all its resumptions together).
        steps_total: planned steps; None when the run is limited by time.
        fraction: how much of the run is done, 0 … 1.
        loss: mean training loss of this epoch so far; None before the first step.
        metric: last mean validation metric (Dice or accuracy, 0 … 1); None before the first validation.
        samples_per_s: samples (or patches) trained per second, averaged over this epoch.
        time_left_s: estimated seconds until training ends; None before it can be estimated.
        phase: ``"prepare"``, ``"train"``, ``"validate"``, ``"evaluate"`` or ``"done"``; of predictions
            ``"predict"``, where a step is an image.
    """

    epoch: int
    step: int
    steps_total: int | None
    fraction: float
    loss: float | None
    metric: float | None
    samples_per_s: float | None
    time_left_s: float | None
    phase: str
