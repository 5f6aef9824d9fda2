"""The time that each stage of a prediction takes, each second counted once: a stage within another takes its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

#: The stages of a case, in the order in which they are told. "waiting" is the time in which the network stood still
#: until another thread had read the case or written the one before; it is no work of its own.
STAGES = ("read", "prepare", "network", "blend", "clean-up", "write", WAITING := "waiting")


class StageClock:
    """Seconds of each stage since the clock was started."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._stack: list[str] = []
        self._since = time.perf_counter()

    def enter(self, name: str | None) -> None:
        """Begin a stage, or with None go back to the one around it."""
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
        if name is None:
            self._stack.pop()
        else:
            self._stack.append(name)


_clock: ContextVar[StageClock | None] = ContextVar("stage_clock", default=None)


@contextlib.contextmanager
def measure_stages() -> Iterator[StageClock]:
    """Yield a clock that the stages of this thread run on within the block."""
    clock = StageClock()
    token = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(token)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the block's time to a stage, where somebody measures.

    >>> with measure_stages() as clock, stage("blend"):
    ...     with stage("network"):
    ...         time.sleep(0.01)
    >>> clock.seconds["network"] >= 0.01 > clock.seconds["blend"]
    True
    """
    clock = _clock.get()
    if clock is None:
        yield
        return
    clock.enter(name)
    try:
        yield
    finally:
        clock.enter(None)


def staged(name: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; the time that each takes to come is counted to a stage."""
    iterator = iter(items)
    while True:
        with stage(name):
            found = next(iterator, None)
        if found is None:
            return
        yield found
