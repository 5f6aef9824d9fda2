"""Progress of a command: a bar in a terminal, a plain line from time to time elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from convoxel.cli.screen import Screen, duration, number

if TYPE_CHECKING:
    from convoxel.train import Progress as Moment

# Seconds between plain lines; those of a training come sooner at first, so that a log shows life.
_LINE_S, _FIRST_S, _LATER_S = 15.0, 5.0, 20.0
# Reading small data, or refusing wrong data, takes less and needs no announcement.
_PATIENCE_S = 2.0
# Less of the time waiting for samples is no news.
_WAITS = 0.05
# Narrower screens keep what matters: bar, loss, metric, speed and time left.
_WIDE = 110
_WORDS = {"prepare": "reading data", "train": "training", "validate": "validating", "evaluate": "evaluating",
          "check": "checking", "predict": "predicting", "done": "done"}  # fmt: skip

_Self = TypeVar("_Self", bound="_Display")


class _Display(AbstractContextManager["_Display"]):
    """A context that shows a bar on a terminal and lines elsewhere."""

    def __init__(self, screen: Console, *columns: ProgressColumn) -> None:
        self._screen = screen
        self._begun_s = self._printed_s = time.monotonic()
        self._bar = Progress(*columns, console=screen, transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("", total=None, figures="")

    def __enter__(self: _Self) -> _Self:
        if self._screen.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen.is_terminal:
            self._bar.stop()

    def _print(self, line: str) -> None:
        self._printed_s = time.monotonic()
        self._screen.print(Text(line), soft_wrap=True)


class Counter(_Display):
    """Shows on stderr (word, done, total, what comes next); called before each piece and at the end.

    Args:
        word: what is going on, such as "measuring", unless a call says it.
    """

    def __init__(self, word: str = "") -> None:
        columns = TextColumn("{task.fields[figures]}"), BarColumn(bar_width=24), MofNCompleteColumn()
        super().__init__(
            Console(file=sys.stderr, highlight=False), *columns, TimeRemainingColumn(), TextColumn("{task.description}")
        )
        self._word = word

    def __call__(self, done: int, total: int, what: str, word: str = "") -> None:
        """Show that ``done`` of ``total`` are done and ``what`` is next."""
        now = time.monotonic()
        if word and word != self._word:
            self._word, self._begun_s, self._printed_s = word, now, now
        if self._screen.is_terminal:
            shown = what[:60].replace("[", "(")
            self._bar.update(self._task, completed=done, total=total, description=shown, figures=self._word)
        elif done and done < total and now - self._printed_s >= _LINE_S:
            left_s = (now - self._begun_s) / done * (total - done)
            self._print(f"{self._word} {done} of {total}, about {duration(left_s)} left: {what}")


class Meter(_Display):
    """Shows the moments of a training or a prediction; handed over as ``on_progress``.

    Args:
        screen: where to draw.
    """

    def __init__(self, screen: Screen) -> None:
        super().__init__(
            screen, TextColumn("{task.description:<12}"), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        self._bar.update(self._task, description=_WORDS["prepare"], total=1.0)
        # Who shows the lines in a page of its own wants them more often.
        self._wait_s = float(os.environ.get("CONVOXEL_PROGRESS_S") or 0)
        self._announcement: threading.Timer | None = None
        self._shown: float | None = None
        self._phase = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._withdraw()
        super().__exit__(kind, error, trace)

    def __call__(self, moment: Moment) -> None:
        """Show one moment."""
        self._withdraw()
        if self._screen.is_terminal:
            word, figures = _WORDS.get(moment.phase, moment.phase), "  ".join(self._figures(moment))
            self._bar.update(self._task, description=word, completed=moment.fraction, figures=figures)
            return
        if moment.phase == "prepare":
            self._announcement = threading.Timer(_PATIENCE_S, self._report, (moment,))
            self._announcement.daemon = True
            self._announcement.start()
            return
        now = time.monotonic()
        if moment.phase in ("check", "predict") and moment.phase != self._phase:  # one that is short needs no line
            self._phase, self._printed_s = moment.phase, now
        wait_s = self._wait_s or (_FIRST_S if now - self._begun_s < 3 * _FIRST_S else _LATER_S)
        news = moment.metric != self._shown  # a new validation is always worth a line
        if moment.phase != "done" and (news or now - self._printed_s >= wait_s):
            self._shown = moment.metric
            self._report(moment)

    def pause(self) -> None:
        """Let others print: take back an announcement that waits to be made."""
        self._withdraw()

    def _withdraw(self) -> None:
        """Take back an announcement that has become old before it was made."""
        if self._announcement is not None:
            self._announcement.cancel()
            self._announcement.join()
            self._announcement = None

    def _report(self, moment: Moment) -> None:
        word = _WORDS.get(moment.phase, moment.phase)
        self._print("  ".join([f"{word:<12}", f"{100 * moment.fraction:3.0f} %", *self._figures(moment)]))

    def _figures(self, moment: Moment) -> list[str]:
        found = []
        if moment.phase in ("check", "predict"):
            found.append(f"image {moment.step} of {moment.steps_total}")
        elif moment.step and self._screen.width >= _WIDE:
            found.append(f"epoch {moment.epoch}, step {moment.step}")
        if moment.loss is not None:
            found.append(f"loss {number(moment.loss, 3)}")
        if moment.metric is not None:
            found.append(f"{moment.metric_name} {number(moment.metric, 3)}")
        if moment.samples_per_s is not None:
            found.append(f"{moment.samples_per_s:.1f} samples/s")
        if moment.waiting is not None and moment.waiting >= _WAITS:
            found.append(f"{moment.waiting:.0%} of it waiting for data")
        if moment.time_left_s is not None and moment.phase in ("train", "validate", "predict"):
            found.append(f"{duration(moment.time_left_s)} left")
        return found
