"""SIGINT and SIGTERM as a request that the training loop fulfils at its next step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, FrameType | None], object] | int | None


class Interrupt:
    """A context in which the first SIGINT or SIGTERM is only recorded; a second SIGINT acts as usual.

    ``received`` is the number of the signal or None. Outside the main thread, where Python allows no handlers, signals
    act as usual.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, _Handler] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        # Pressing Ctrl-C twice ends the process at once; the checkpoint on disk stays whole anyway.
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
