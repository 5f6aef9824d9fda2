"""A chain of layers as text, one word for each layer: ``k7s2p3 pool3s2p1 k3x4 t2s2``.

A word is a kind with its number, then letters with theirs: s stride, p padding (``p1``, ``p1:2`` before and after,
``p-1`` crops, or a word of ``PADDING_WORDS`` such as ``psame``), d dilation, a positions added by a
transposed convolution, c rounding up; ``x4`` at the end repeats the layer. A number may differ by axis:
``k3,3,1s2,2,1``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.axis import Graph, Node
from convoxel.arithmetic.layer import Adaptive, Exact, Layer, Pad, Resize, Transposed, Unpool, Window
from convoxel.arithmetic.taps import RESIZE_MODES
from convoxel.arithmetic.window import PADDING_WORDS, Pair
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.fault import brief

_NUMBER = r"\d+"
_PADS = rf"-?\d+(?::-?\d+)?|{'|'.join(PADDING_WORDS)}"
_RATIO = r"\d+(?:\.\d+|/\d+)?"


@dataclass(frozen=True)
class Kind:
    """One kind of layer in the notation: the pattern of its number, the letters that may follow, its layer.

    Attributes:
        summary: description for people.
        number: pattern of the number after the kind.
        letters: name of each letter → pattern of its value; an empty pattern means that it has none.
        build: function from the number and the letters, as text, to the layer along one axis.
    """

    summary: str
    number: str
    letters: dict[str, str]
    build: Callable[[str, dict[str, str]], Layer]


def _window(pooling: bool) -> Callable[[str, dict[str, str]], Layer]:
    def build(number: str, given: dict[str, str]) -> Layer:
        k = int(number)
        stride = int(given.get("s", k if pooling else 1))
        return Window(k, stride, _padding(given.get("p", "0")), int(given.get("d", 1)), "c" in given)

    return build


def _transposed(number: str, given: dict[str, str]) -> Layer:
    options = (int(given.get(letter, default)) for letter, default in (("d", 1), ("a", 0)))
    return Transposed(int(number), int(given.get("s", 1)), _padding(given.get("p", "0")), *options)


def _unpool(number: str, given: dict[str, str]) -> Layer:
    k = int(number)
    place = given.get("@")
    return Unpool(k, int(given.get("s", k)), int(given.get("p", 0)), None if place is None else int(place))


def _pad(number: str, given: dict[str, str]) -> Layer:
    before, _, after = number.partition(":")
    mode = next((word for word in ("reflect", "circular") if f":{word}" in given), "zeros")
    return Pad(int(before), int(after or before), mode)


def _resize(down: bool) -> Callable[[str, dict[str, str]], Layer]:
    def build(number: str, given: dict[str, str]) -> Layer:
        factor = Fraction(number)
        mode = next((word for word in RESIZE_MODES if f":{word}" in given), "nearest")
        return Resize(1 / factor if down else factor, mode)

    return build


def _padding(text: str) -> int | Pair | str:
    if text in PADDING_WORDS:
        return text
    before, colon, after = text.partition(":")
    return (int(before), int(after)) if colon else int(before)


_SLIDING = {"s": _NUMBER, "p": _PADS, "d": _NUMBER}
_MODES = {f":{mode}": "" for mode in RESIZE_MODES}

KINDS: dict[str, Kind] = {
    "k": Kind("convolution with a kernel of 3", _NUMBER, _SLIDING, _window(False)),
    "pool": Kind("pooling; stride as kernel unless given; c rounds up", _NUMBER, {**_SLIDING, "c": ""}, _window(True)),
    "t": Kind("transposed convolution; a adds positions", _NUMBER, {**_SLIDING, "a": _NUMBER}, _transposed),
    "unpool": Kind(
        "un-pooling to remembered places, or to place @0", _NUMBER, {"s": _NUMBER, "p": _NUMBER, "@": _NUMBER}, _unpool
    ),
    "up": Kind("resize to 2 (3/2, 1.5) times the size", _RATIO, _MODES, _resize(False)),
    "down": Kind("resize to a half", _RATIO, _MODES, _resize(True)),
    "pad": Kind("padding by itself; negative crops", r"-?\d+(?::-?\d+)?", {":reflect": "", ":circular": ""}, _pad),
    "adaptive": Kind("adaptive pooling to this size", _NUMBER, {}, lambda number, _: Adaptive(int(number))),
    "exact": Kind("takes this size only", _NUMBER, {}, lambda number, _: Exact(int(number))),
}
_ALIASES = {"conv": "k", "max": "pool", "avg": "pool"}
_REPEAT = re.compile(r"x(\d+)$")
# Beyond what networks have, and small enough to be computed at once.
_MOST_AXES = 64  # of a NumPy array
_MOST_REPEATS = 1024
_LARGEST = 1 << 16


def parse_chain(text: str) -> Graph:
    """Return the chain that ``text`` describes, for one axis.

    Raises:
        ConfigError: a word is not understood; the message marks where.

    >>> chain = parse_chain("k7s2p3 pool3s2p1 k3x4")
    >>> chain.size(224), chain.field(224).size
    (48, 43)
    """
    (graph,) = parse_chains(text.split(), 1)
    return graph


def parse_chains(words: Sequence[str], axes: int) -> tuple[Graph, ...]:
    """Return the chain of every axis; a number without commas is that of all axes.

    Raises:
        ConfigError: a word is not understood, or has numbers for another count of axes; or ``axes`` is none that an
            array can have.

    >>> [graph.size(16) for graph in parse_chains(["k3,3,1p1,1,0", "pool2,2,1"], 3)]
    [8, 8, 16]
    """
    if not 1 <= axes <= _MOST_AXES:
        raise ConfigError(f"axes is {brief(axes)}; expected 1 to {_MOST_AXES}.")
    nodes: list[list[Node]] = [[] for _ in range(axes)]
    for place, word in enumerate(words):

        def fail(start: int, stop: int, expected: str, place: int = place, word: str = word) -> ConfigError:
            marked = f"{word[:start]}»{word[start:stop]}«{word[stop:]}"
            line = " ".join((*words[:place], marked, *words[place + 1 :]))
            return ConfigError(f"layer {place + 1} is not understood at the mark: {line}. Expected {expected}.")

        repeat = _REPEAT.search(word)
        body = word[: repeat.start()] if repeat else word
        if repeat and not 1 <= int(repeat[1]) <= _MOST_REPEATS:
            raise fail(repeat.start(), len(word), f"a repetition of x1 to x{_MOST_REPEATS}")
        large = next((found for found in re.finditer(r"\d+", body) if int(found[0]) > _LARGEST), None)
        if large:
            raise fail(*large.span(), f"a number of at most {_LARGEST}")
        kind, number, letters = _read(body, fail)
        for axis in range(axes):
            try:
                chosen = {name: _of_axis(value, axis, axes) for name, value in letters.items()}
                layer = KINDS[kind].build(_of_axis(number, axis, axes), chosen)
                layer.taps(1 << 10)  # raises where a number is out of range
            except _Miscount as count:
                several = f", or {axes} of them, for {axes} axes" if axes > 1 else " for the one axis"
                raise fail(0, len(word), f"one number{several}; got {count}") from None
            except (ConvoxelError, ZeroDivisionError) as error:
                reason = str(error) if isinstance(error, ConvoxelError) else "a factor above 0"
                raise fail(0, len(word), f"other numbers: {reason.rstrip('.')}") from None
            for _ in range(int(repeat[1]) if repeat else 1):
                nodes[axis].append(Node(layer, (len(nodes[axis]),), body))
    return tuple(Graph(tuple(each)) for each in nodes)


class _Miscount(Exception):
    pass


def _of_axis(text: str, axis: int, axes: int) -> str:
    parts = text.split(",")
    if len(parts) not in (1, axes):
        raise _Miscount(len(parts))
    return parts[axis if len(parts) > 1 else 0]


def _read(word: str, fail: Callable[[int, int, str], ConfigError]) -> tuple[str, str, dict[str, str]]:
    """Take a word apart: its kind, the kind's number, and the letters with what follows each."""
    names = sorted((*KINDS, *_ALIASES), key=len, reverse=True)
    name = next((name for name in names if word.startswith(name)), None)
    if name is None:
        # The mark covers the letters that begin no kind.
        start = re.match(r"\D*", word)
        raise fail(0, max(start.end() if start else 0, 1), f"a kind of layer: {', '.join(KINDS)} (as in k3s2p1)")
    kind = _ALIASES.get(name, name)
    row = KINDS[kind]
    found = _match(row.number, word, len(name))
    if found is None:
        raise fail(len(name), len(word), f"a number after {name!r}, such as {name}2")
    end = found.end()
    given: dict[str, str] = {}
    for letter, value, begin, stop in _letters(word, end, row.letters):
        if value is None or letter in given:
            known = ", ".join(f"{each!r}" for each in row.letters if each not in given) or "nothing more"
            wanted = f"a number after {letter!r}" if letter and letter not in given else f"one of {known}"
            raise fail(begin, stop, wanted if row.letters else "nothing more")
        given[letter] = value
    return kind, found[0], given


def _letters(word: str, end: int, letters: dict[str, str]) -> Iterator[tuple[str, str | None, int, int]]:
    """Yield (letter, value, start, stop); the value is None where the text fits nothing."""
    names = sorted(letters, key=len, reverse=True)
    while end < len(word):
        letter = next((name for name in names if word.startswith(name, end)), "")
        found = _match(letters[letter], word, end + len(letter)) if letter else None
        if found is None:
            unknown = re.compile(r"[^\d\-,]?[\d\-:,]*").match(word, end)
            yield letter, None, end, len(word) if letter or unknown is None else unknown.end()
            return
        yield letter, found[0], end, found.end()
        end = found.end()


def _match(pattern: str, word: str, start: int) -> re.Match[str] | None:
    """Match one value, or one for each axis with commas between them."""
    return re.compile(rf"(?:{pattern})(?:,(?:{pattern}))*" if pattern else "").match(word, start)
