"""A view of the explorer: a page, and the functions that answer its questions in JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject


@dataclass(frozen=True)
class Query:
    """The words that a page sends along, as an address holds them: pairs of a name and a text.

    >>> query = Query((("set", "levels=2"), ("set", "width=0.5"), ("size", "5x5")))
    >>> query.text("size", "7"), query.text("kernel", "3"), query.texts("set")
    ('5x5', '3', ['levels=2', 'width=0.5'])
    """

    pairs: tuple[tuple[str, str], ...]

    def text(self, name: str, default: str = "") -> str:
        """Return the text of ``name``; ``default`` where there is none, or an empty one."""
        return next((value for key, value in self.pairs if key == name and value), default)

    def texts(self, name: str) -> list[str]:
        """Return all texts of ``name``."""
        return [value for key, value in self.pairs if key == name and value]

    def flag(self, name: str) -> bool:
        """Return True for "1"."""
        return self.text(name) == "1"

    def number(self, name: str, default: int, least: int = 1, most: int = 1 << 16) -> int:
        """Return a whole number from ``least`` to ``most``.

        Raises:
            ConfigError: it is none.
        """
        text = self.text(name, str(default)).strip()
        # No number has more digits, and int() takes long over many.
        value = int(text) if len(text) < 12 and text.lstrip("-").isdecimal() else None
        if value is None or not least <= value <= most:
            raise ConfigError(f"{name}: got {text[:40]!r}; expected a whole number from {least} to {most}.")
        return value

    def under(self, prefix: str) -> Query:
        """Return the pairs whose names begin with ``prefix``, without it."""
        return Query(tuple((key[len(prefix) :], value) for key, value in self.pairs if key.startswith(prefix)))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over the pairs."""
        return iter(self.pairs)


@dataclass(frozen=True)
class Picture:
    """An answer that is a picture.

    Attributes:
        content: bytes of a PNG file.
    """

    content: bytes


_PLAIN = {int, str, bool, type(None)}
Answer = Callable[["Session", Query], "JsonObject | Picture"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class KeptPage:
    """A page as a file, with the questions whose answers it keeps.

    Attributes:
        name: name of its file, without the ending.
        title: its name in lists.
        state: what its address would say, such as ``net=resnet18&depth=2``.
        questions: name ("VIEW/FUNCTION") and words of each question that the page may ask.
        answers: functions that answer questions of some names in another way than the view does (default: none).
    """

    name: str
    title: str
    state: str
    questions: Sequence[tuple[str, Sequence[Pair]]]
    answers: Mapping[str, Callable[[Query], JsonObject]] = field(default_factory=dict)


def page_name(*words: str) -> str:
    """Return a name for the file of a page.

    >>> page_name("network", "/nets/My net.onnx")
    'network-my-net.onnx'
    """
    return "-".join(
        re.sub(r"[^a-z0-9._]+", "-", word.rpartition("/")[2].lower()).strip("-.") or "page" for word in words
    )


def vary(base: Sequence[Pair], words: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[Pair, ...]]:
    """Yield every combination of values of some words, beside a base; "" leaves a word out.

    >>> [dict(pairs) for pairs in vary([("size", "5")], [("kernel", ["", "2"])])]
    [{'size': '5'}, {'size': '5', 'kernel': '2'}]
    """
    if not words:
        yield tuple(base)
        return
    (name, values), *rest = words
    for value in values:
        yield from vary([*base, (name, value)] if value else base, rest)


@dataclass(frozen=True)
class View:
    """One page.

    Attributes:
        name: its address, and the name of its template and its ES module.
        title: its name in the navigation.
        summary: its purpose in one line.
        answers: functions that only compute, at ``/api/VIEW/NAME``; they are asked by GET.
        actions: functions that change, start or measure something; they are asked by POST, and not with ``--readonly``.
        kept: returns the pages that can be written as files (default: none).
    """

    name: str
    title: str
    summary: str
    answers: Mapping[str, Answer] = field(default_factory=dict)
    actions: Mapping[str, Answer] = field(default_factory=dict)
    kept: Callable[[Session], Iterable[KeptPage]] | None = None


def plain(value: object) -> object:
    """Return ``value`` as JSON knows it: fractions and large whole numbers keep what a page can show.

    >>> plain({"stride": Fraction(1, 2), "whole": Fraction(4), "lost": float("nan")})
    {'stride': 0.5, 'whole': 4, 'lost': None}
    """
    if type(value) in _PLAIN:  # nearly all that a large answer holds
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
