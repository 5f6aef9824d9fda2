"""Progress on the screen: a bar where there is a terminal, a plain line from time to time elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from convoxel.cli.screen import duration, number, say

if TYPE_CHECKING:
    from convoxel.train import Progress as Moment

__all__ = ["Meter"]

# Seconds between plain lines: the first ones soon, so that a log shows life, then fewer.
_FIRST_S, _LATER_S = 5.0, 20.0
# Reading small data, or refusing wrong data, takes less and needs no announcement.
_PATIENCE_S = 2.0
# Narrower screens keep what matters: bar, loss, metric, speed and time left.
_WIDE = 110
_WORDS = {"prepare": "reading data", "train": "training", "validate": "validating", "evaluate": "evaluating",
          "predict": "predicting", "done": "done"}  # fmt: skip


class Meter:
    """Shows the moments of a run; used as a context and handed over as ``on_progress``.

    Args:
        screen: where to draw.
        metric: name of the validation metric, "Dice" or "accuracy".
    """

    def __init__(self, screen: Console, metric: str = "metric") -> None:
        self._screen = screen
        self._metric = metric
        self._bar: Progress | None = None
        self._announcement: threading.Timer | None = None
        self._task: Any = None
        self._shown: float | None = None
        self._printed_s = self._begun_s = time.monotonic()
        if screen.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[figures]}"),
                console=screen,
                transient=True,
                refresh_per_second=4,
            )

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(_WORDS["prepare"], total=1.0, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._withdraw()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, moment: Moment) -> None:
        """Show one moment."""
        self._withdraw()
        word = _WORDS.get(moment.phase, moment.phase)
        if self._bar is not None:
            figures = "  ".join(self.figures(moment))
            self._bar.update(self._task, description=word, completed=moment.fraction, figures=figures)
            return
        if moment.phase == "prepare":
            self._announcement = threading.Timer(_PATIENCE_S, self._print, (word, moment))
            self._announcement.daemon = True
            self._announcement.start()
            return
        now = time.monotonic()
        wait_s = _FIRST_S if now - self._begun_s < 3 * _FIRST_S else _LATER_S
        news = moment.metric != self._shown  # a new validation is always worth a line
        if moment.phase == "done" or not (news or now - self._printed_s >= wait_s):
            return
        self._shown, self._printed_s = moment.metric, now
        self._print(word, moment)

    def _withdraw(self) -> None:
        """Take back an announcement that has become old before it was made."""
        if self._announcement is not None:
            self._announcement.cancel()
            self._announcement.join()
            self._announcement = None

    def _print(self, word: str, moment: Moment) -> None:
        say(self._screen, "  ".join([f"{word:<12}", f"{100 * moment.fraction:3.0f} %", *self.figures(moment)]))

    def figures(self, moment: Moment) -> list[str]:
        """Return what there is to say about a moment."""
        found = []
        if moment.phase == "predict":
            found.append(f"image {moment.step} of {moment.steps_total}")
        elif moment.step and self._screen.width >= _WIDE:
            found.append(f"epoch {moment.epoch}, step {moment.step}")
        if moment.loss is not None:
            found.append(f"loss {number(moment.loss, 3)}")
        if moment.metric is not None:
            found.append(f"{self._metric} {number(moment.metric, 3)}")
        if moment.samples_per_s is not None:
            found.append(f"{moment.samples_per_s:.1f} samples/s")
        if moment.time_left_s is not None and moment.phase in ("train", "validate"):
            found.append(f"{duration(moment.time_left_s)} left")
        return found
