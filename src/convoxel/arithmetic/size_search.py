"""Input sizes near those that were refused, found by asking a predicate.

``solve`` finds all valid sizes of a network whose layers are known; here nothing is known but what the network accepts.
``nearest_sizes`` searches among sizes by name, ``explain_refusal`` among the shapes of a network's inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Sizes = Mapping[str, int]
Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]

_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)
_USUAL = (28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 227, 240, 256, 299, 320, 384, 448, 512)
_CHANNELS = (1, 3, 4, 2)
_BATCHES = (1, 2, 4, 8, 16, 32)


def nearest_sizes(
    fits: Callable[[Sizes], bool], sizes: Sizes, axes: Sequence[str], farthest: int, known: Sequence[Sizes] = ()
) -> list[dict[str, int]]:
    """Return up to two sets of valid sizes, the nearest first: one with no size smaller, one with no size larger.

    The search begins with sizes that many networks take: multiples of a power of 2, all axes longer by the same, all
    axes of one length, the ``known`` sizes. From those that fit, each axis comes as near as it can.

    Args:
        fits: whether sizes are valid.
        sizes: the refused sizes by name.
        axes: names of the sizes that may change.
        farthest: largest change of one size by steps of 1.
        known: sizes that are valid, but may be far away.

    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 16}, "hw", 20)
    [{'h': 24, 'w': 16}, {'h': 16, 'w': 16}]
    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 11}, "hw", 20)
    [{'h': 24, 'w': 16}, {'h': 16, 'w': 8}]
    """
    found: list[dict[str, int]] = []
    for sign in (1, -1) if axes else ():
        for start in _first(fits, _starts(sizes, axes, sign, farthest)):
            end = _approached(fits, sizes, axes, start, farthest)
            found += [] if end in found else [end]
    if not found and axes:
        far = ({**sizes, **{axis: other.get(axis, 0) for axis in axes}} for other in (*known, *_usual(axes)))
        found += _first(fits, itertools.chain(_around(sizes, axes), far))
    return sorted(found, key=lambda trial: sum(abs(trial[axis] - sizes[axis]) for axis in axes))


def _starts(sizes: Sizes, axes: Sequence[str], sign: int, farthest: int) -> Iterator[dict[str, int]]:
    """Yield sizes that are larger than the refused ones (or smaller, for ``sign`` −1) along some axes."""

    def changed(length: Callable[[int], int]) -> dict[str, int]:
        return {**sizes, **{axis: length(sizes[axis]) for axis in axes}}

    yield from (changed(lambda size, m=m: -(-size * sign // m) * m * sign) for m in _MULTIPLES)  # type: ignore[misc]
    for axis, step in itertools.product(axes if len(axes) > 1 else (), range(1, farthest + 1)):
        yield {**sizes, axis: sizes[axis] + sign * step}
    yield from (changed(lambda size, step=step: size + sign * step) for step in range(1, farthest + 1))  # type: ignore[misc]
    extreme = (max if sign > 0 else min)(sizes[axis] for axis in axes)
    yield from (changed(lambda _, step=step: extreme + sign * step) for step in range(farthest + 1))  # type: ignore[misc]
    for coarse in (16, 32):  # axes of different length
        ends = [-(-sizes[axis] * sign // coarse) * coarse * sign for axis in axes]
        for steps in itertools.product(range(4), repeat=len(axes)):
            places = [end + sign * coarse * step for end, step in zip(ends, steps, strict=True)]
            yield {**sizes, **dict(zip(axes, places, strict=True))}


def _around(sizes: Sizes, axes: Sequence[str]) -> Iterator[dict[str, int]]:
    """Yield multiples of 32 and of 16 on all sides of the refused sizes."""
    for coarse in (32, 16):
        ends = [sizes[axis] // coarse for axis in axes]
        for steps in itertools.product((0, 1, -1, 2), repeat=len(axes)):
            yield {**sizes, **{axis: coarse * (end + step) for axis, end, step in zip(axes, ends, steps, strict=True)}}


def _usual(axes: Sequence[str]) -> Iterator[Sizes]:
    """Yield the sizes that images usually have."""
    return (dict.fromkeys(axes, length) for length in _USUAL)


def _approached(
    fits: Callable[[Sizes], bool], sizes: Sizes, axes: Sequence[str], start: dict[str, int], farthest: int
) -> dict[str, int]:
    """Return sizes that fit: one axis after the other as near to its refused size as it can, beginning at ``start``."""
    found = start
    for axis in axes:
        sign = 1 if found[axis] > sizes[axis] else -1
        between = range(sizes[axis], found[axis], sign)[: farthest + 1]
        found = next(iter(_first(fits, ({**found, axis: size} for size in between))), found)
    return found


def _first(fits: Callable[[Sizes], bool], trials: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    """Return the first of ``trials`` that fits, as a list of at most one."""
    return next(([trial] for trial in trials if min(trial.values()) > 0 and fits(trial)), [])


def explain_refusal(
    works: Callable[[Shapes], bool], shapes: Sequence[Shape], most: int, channels: Iterable[int] = ()
) -> str:
    """Return a sentence that names shapes near to the refused ones that work; "" if none was found.

    Tried are one thing at a time: a batch axis, other channels, another batch, other sizes of the axes behind the
    channels; then other channels and sizes together.

    Args:
        works: whether a network takes inputs of these shapes.
        shapes: the refused shapes, (n, c, *spatial) each; inputs as long as the first change with it.
        most: how often the network is asked at the most.
        channels: numbers of channels that the network may take.

    >>> explain_refusal(lambda shapes: shapes[0][1] == 3 and shapes[0][2] % 4 == 0, [(1, 3, 18)], 100)
    'The nearest shapes that work: (1, 3, 20); or (1, 3, 16).'
    >>> explain_refusal(lambda shapes: shapes[0][1] == 3 and shapes[0][2] % 4 == 0, [(1, 1, 16)], 100)
    'It takes 3 channels: (1, 3, 16) works.'
    """
    asked: dict[Shapes, bool] = {}

    def fits(trial: Shapes) -> bool:
        if trial not in asked:
            if len(asked) >= most:
                return False
            asked[trial] = works(trial)
        return asked[trial]

    def near(start: Shapes) -> list[Shapes]:
        axes = {str(axis): axis for axis in range(2, len(start[0]))}

        def shaped(sizes: Sizes) -> Shapes:
            return _changed(start, {axis: sizes[name] for name, axis in axes.items()})

        sizes, farthest = {name: start[0][axis] for name, axis in axes.items()}, max(8, min(64, most // 8))
        return [shaped(found) for found in nearest_sizes(lambda s: fits(shaped(s)), sizes, [*axes], farthest)]

    given = tuple(tuple(shape) for shape in shapes)
    lifted = tuple((1, *shape) for shape in given)
    if fits(lifted):
        return f"Its first axis is the batch: {_listed(lifted)} works."
    others = [_changed(given, {1: count}) for count in dict.fromkeys((*channels, *_CHANNELS)) if len(given[0]) > 1]
    for trial in filter(fits, others):
        count = trial[0][1]
        return f"It takes {count} channel{'s' if count > 1 else ''}: {_listed(trial)} works."
    for trial in filter(fits, (_changed(given, {0: count}) for count in _BATCHES)):
        return f"It takes batches of {trial[0][0]}: {_listed(trial)} works."
    for start in (given, *others):
        found = near(start)
        if found:
            what = "" if start is given else f", with {start[0][1]} channels"
            return f"The nearest shapes that work{what}: {'; or '.join(map(_listed, found))}."
    return ""


def _changed(shapes: Shapes, sizes: Mapping[int, int]) -> Shapes:
    """Return the shapes with other sizes of some axes, those of the other inputs too where they are as long."""
    first = shapes[0]
    return tuple(
        tuple(
            sizes[axis] if axis in sizes and len(shape) == len(first) and size == first[axis] else size
            for axis, size in enumerate(shape)
        )
        for shape in shapes
    )


def _listed(shapes: Shapes) -> str:
    return ", ".join(map(str, shapes))
