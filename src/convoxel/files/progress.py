"""The progress of long readings: a reader tells how much is done, and whoever waits may listen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[int, int], object]

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(hear: Listener) -> Iterator[None]:
    """Call ``hear`` with what is done, and of how much, as often as a reader of this thread tells it in the block."""
    token = _LISTENER.set(hear)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell_progress(done: int, total: int) -> None:
    """Tell whoever listens that ``done`` of ``total`` is done."""
    hear = _LISTENER.get()
    if hear is not None:
        hear(done, total)
