"""Signs that a training goes wrong although it runs: a loss that diverges, a network that knows one class only.

Each is told once as a ``RuntimeWarning``, and kept in the run for its report.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from convoxel.predict.metrics import Metrics
from convoxel.train.training_state import TrainingState

# Of the running mean of the loss: it follows about the last 20 steps, and is judged from 40 on.
_FOLLOWS, _JUDGED = 20, 40
# A loss so many times the first one is not a wave: an untrained network knows nothing, and pretrained ones begin low.
_GROWN, _LEAST_FIRST, _IN_A_ROW = 10.0, 0.1, 3


class LossWatch:
    """Notices a training loss that rises again, by its running mean.

    It diverges when it has lost more than half of what it had gained and is above twice its lowest, or
    when three steps in a row are above ten times the first. A loss that falls, stays or wavers does neither.
    """

    def __init__(self) -> None:
        self._count, self._mean, self._first, self._lowest = 0, 0.0, 0.0, math.inf
        self._begun, self._recent = 0.0, [0.0] * _IN_A_ROW

    def add(self, state: TrainingState, loss: float, rate: float) -> None:
        """Take the loss of a step into account; ``rate`` is the learning rate that its warning names."""
        self._count += 1
        self._mean += (loss - self._mean) / min(self._count, _FOLLOWS)
        if self._count == 1:
            self._begun = max(loss, _LEAST_FIRST)
        self._recent = [*self._recent[1:], loss]
        if min(self._recent) > _GROWN * self._begun:
            self._tell(state, rate, f"it began at {self._begun:.3g} and is {loss:.3g}")
        if self._count == _FOLLOWS:
            self._first = self._mean
        if self._count < _FOLLOWS:
            return
        self._lowest = min(self._lowest, self._mean)
        limit = max(2 * self._lowest, (self._first + self._lowest) / 2)
        if self._count >= _JUDGED and self._mean > limit:
            fell = f"its mean of {_FOLLOWS} steps fell to {self._lowest:.3g} and is {self._mean:.3g}"
            self._tell(state, rate, fell)

    def _tell(self, state: TrainingState, rate: float, fact: str) -> None:
        advice = f"Lower learning_rate (it is {rate:.3g}) or set clip."
        tell(state, "loss", f"train: the loss diverges: {fact} at step {state.step}. {advice}")


def watch_classes(state: TrainingState, found: Metrics, classes: Sequence[str], done: bool = False) -> None:
    """Warn of a network that gives one class to everything, from half of the run on.

    Args:
        state: state of the run.
        found: metrics of a validation.
        classes: names of the classes.
        done: the run is over, and these are its closing metrics (default False).
    """
    if not found["confusion"]:  # an image may have several classes, or none
        return
    counts = np.asarray(found["confusion"])
    predicted, true = np.flatnonzero(counts.sum(axis=0)), np.flatnonzero(counts.sum(axis=1))
    if len(predicted) != 1 or len(true) < 2:
        state.warnings.pop("classes", None)  # it was so once, and is no more
    elif done or state.fraction >= 0.5:
        name = classes[int(predicted[0])]
        tell(
            state,
            "classes",
            f"train: the network predicts {name!r} for everything that validates, at step {state.step}. Train longer, "
            "change learning_rate, or look whether the labels are right.",
        )


def tell(state: TrainingState, kind: str, text: str) -> None:
    """Warn once of each kind of trouble, and keep the sentence."""
    if kind not in state.warnings:
        state.warnings[kind] = text
        warnings.warn(text, RuntimeWarning, stacklevel=4)
