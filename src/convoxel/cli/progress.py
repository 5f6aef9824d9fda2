"""How far a list of measurements is, on stderr: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convoxel.cli.screen import duration, say

__all__ = ["Counter"]

_LINE_S = 15.0


class Counter:
    """Shows (done, total, what comes next); used as a context and called before each piece and at the end.

    Args:
        word: what is going on, such as "measuring".
    """

    def __init__(self, word: str) -> None:
        self._screen = Console(stderr=True, highlight=False)
        self._word = word
        self._begun_s = self._printed_s = time.monotonic()
        self._task: Any = None
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(word), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.description}"), console=self._screen, transient=True,
            )  # fmt: skip

    def __enter__(self) -> Counter:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show that ``done`` of ``total`` are done and ``what`` is next."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=what[:60].replace("[", "("))
            return
        now = time.monotonic()
        if done and done < total and now - self._printed_s >= _LINE_S:
            self._printed_s = now
            left_s = (now - self._begun_s) / done * (total - done)
            say(self._screen, f"{self._word} {done} of {total}, about {duration(left_s)} left: {what}")
