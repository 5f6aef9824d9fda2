"""A sweep: numbered cases, each of which says what went wrong, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.faults.scene import Scene


@dataclass(frozen=True)
class Sweep:
    """Cases of one kind.

    Attributes:
        name: word for the table.
        promise: the sentence that every case must keep.
        count: returns how many cases a scene has, of a sample or of the whole.
        check: runs a case by its number in a scene and returns what is wrong, empty if nothing is.
    """

    name: str
    promise: str
    count: Callable[[Scene], int]
    check: Callable[[Scene, int], str]
