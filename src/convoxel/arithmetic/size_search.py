"""Input sizes near those that were refused, found by asking a predicate.

``solve`` finds all valid sizes of a network whose layers are known; here nothing is known but what the network accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["nearest_sizes"]

Sizes = Mapping[str, int]

_MULTIPLES = (16, 32, 64, 128)


def nearest_sizes(
    fits: Callable[[Sizes], bool], sizes: Sizes, axes: Sequence[str], farthest: int, known: Sequence[Sizes] = ()
) -> list[dict[str, int]]:
    """Return up to two sets of valid sizes, the nearest first.

    The search tries other lengths of one axis, and for each axis the nearest of the lengths that fit where all axes
    have the same; then multiples of a power of 2; then the ``known`` sizes.

    Args:
        fits: whether sizes are valid.
        sizes: the refused sizes by name.
        axes: names of the sizes that may change.
        farthest: largest change of one size.
        known: sizes that are valid, but may be far away.

    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 16}, "hw", 20)
    [{'h': 24, 'w': 16}, {'h': 16, 'w': 16}]
    >>> nearest_sizes(lambda s: s["h"] % 8 == 0 and s["w"] % 8 == 0, {"h": 21, "w": 11}, "hw", 20)
    [{'h': 24, 'w': 8}]
    """
    if not axes:
        return []
    found: list[dict[str, int]] = []
    for axis in axes:
        for sign in (1, -1):
            trials = ({**sizes, axis: sizes[axis] + sign * step} for step in range(1, farthest + 1))
            found += _first(fits, trials)
    lengths = sorted({sizes[axis] + step for axis in axes for step in range(-farthest, farthest + 1)})
    square = [length for length in lengths if length > 0 and fits({**sizes, **dict.fromkeys(axes, length)})]
    if square:
        # Of two that are equally near, take the longer: padding loses nothing.
        near = {axis: min(square, key=lambda s, axis=axis: (abs(s - sizes[axis]), -s)) for axis in axes}  # type: ignore[misc]
        found += [trial for trial in _first(fits, [{**sizes, **near}]) if trial not in found]
    if not found:
        rounded = ({**sizes, **{axis: -(-sizes[axis] // m) * m for axis in axes}} for m in _MULTIPLES)
        found += _first(fits, rounded)
    if not found:
        found += _first(fits, ({**sizes, **{axis: other.get(axis, 0) for axis in axes}} for other in known))
    found.sort(key=lambda trial: sum(abs(trial[axis] - sizes[axis]) for axis in axes))
    return found[:2]


def _first(fits: Callable[[Sizes], bool], trials: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    """Return the first of ``trials`` that fits, as a list of at most one."""
    return next(([trial] for trial in trials if min(trial.values()) > 0 and fits(trial)), [])
