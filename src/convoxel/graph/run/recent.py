"""What was made last, by key: plans by input sizes, programs by the values that decide sizes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """The ``most`` values that were asked for last; any number of threads may ask.

    Making takes long, so it holds no lock: threads that want one new value at once may each make it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self) -> list[Hashable]:
        """Return the keys of what is kept, the last one asked for at the end."""
        with self._lock:
            return list(self._made)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value called ``key``, made by ``make`` unless it is kept."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        value = make()
        with self._lock:
            self._made[key] = value
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return value
