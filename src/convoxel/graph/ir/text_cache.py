"""Caches of functions of texts that may come from outside: many short texts, few long ones, so memory stays bounded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_SHORT = 256  # characters, more than sizes of networks take; trees of syntax take a hundred bytes a character
_MANY, _FEW = 4096, 64


def kept_by_length(function: Callable[[str], T]) -> Callable[[str], T]:
    """Return a function of a text that keeps its latest results."""
    short, long = (functools.lru_cache(maxsize=count)(function) for count in (_MANY, _FEW))

    @functools.wraps(function)
    def kept(text: str) -> T:
        return (short if len(text) <= _SHORT else long)(text)

    return kept
