"""The most recently used values by key: plans by input sizes, programs by the values that decide sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from convoxel.fork import renewed_lock

T = TypeVar("T")


class LruCache(Generic[T]):
    """The ``capacity`` most recently used values; any number of threads may ask.

    A value takes long to make, so no lock is held meanwhile: threads that want one new value at once may each make it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = renewed_lock()

    def keys(self) -> list[Hashable]:
        """Return the keys of all values that are kept, the most recently used one last."""
        with self._lock:
            return list(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of ``key``, made by ``make`` unless it is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value
