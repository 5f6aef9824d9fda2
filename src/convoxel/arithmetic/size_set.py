"""Periodic affine functions of a size, and the sets of sizes at which they take given values.

The size that a layer makes is periodic up to a slope: ⌊(i + 2p − e) / s⌋ + 1 is one more whenever i is s more. Sums and
compositions of such functions are such functions, so the size of every tensor of a network is one, as a function of the
input's. The sizes that meet a condition on such functions are therefore a finite set of exceptions and a finite number
of endless progressions start + step · n, which ``SizeSet`` holds: a complete answer for all sizes.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from convoxel.errors import ConfigError, UnsupportedError

# The zoo's longest pattern is 64; at this one a layer still takes a tenth of a second.
_LONGEST = 1 << 16


@dataclass(frozen=True)
class PeriodicAffine:
    """The function f with f(q · period + r) = ``values[r]`` + q · ``slope``, for every integer.

    >>> halve = PeriodicAffine((0, 0), 1)  # ⌊i / 2⌋
    >>> [halve.at(i) for i in (0, 5, 64)]
    [0, 2, 32]
    """

    values: tuple[int, ...]
    slope: int

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("PeriodicAffine: values is empty, but a function has at least one for its period.")

    @classmethod
    def identity(cls) -> PeriodicAffine:
        """Return f(i) = i."""
        return cls((0,), 1)

    @classmethod
    def sample(cls, function: Callable[[int], int], period: int, slope: int) -> PeriodicAffine:
        """Return the function that ``function`` is for large arguments.

        >>> PeriodicAffine.sample(lambda i: (i - 3) // 2 + 1, 2, 1)  # negative results for arguments too small
        PeriodicAffine(values=(-1, 0), slope=1)
        """
        far = 1 << 40
        return cls(tuple(function(far * period + r) - far * slope for r in range(period)), slope)

    @property
    def period(self) -> int:
        """The distance of arguments after which the steps repeat."""
        return len(self.values)

    def at(self, i: int) -> int:
        """Return f(i)."""
        turn, rest = divmod(i, len(self.values))
        return self.values[rest] + turn * self.slope

    def after(self, inner: PeriodicAffine) -> PeriodicAffine:
        """Return i ↦ f(inner(i)).

        >>> PeriodicAffine((0, 0), 1).after(PeriodicAffine((0, 0), 1))  # halve twice
        PeriodicAffine(values=(0, 0, 0, 0), slope=1)
        """
        turns = self.period // math.gcd(inner.slope, self.period)
        check_period(turns * inner.period)
        reached = (inner.at(i) for i in range(turns * inner.period))
        return _reduced([self.at(value) for value in reached], turns * inner.slope // self.period * self.slope)

    def minus(self, other: PeriodicAffine) -> PeriodicAffine:
        """Return i ↦ f(i) − other(i)."""
        period = math.lcm(self.period, other.period)
        check_period(period)
        slope = self.slope * (period // self.period) - other.slope * (period // other.period)
        return _reduced([self.at(i) - other.at(i) for i in range(period)], slope)

    def plus(self, amount: int) -> PeriodicAffine:
        """Return i ↦ f(i) + amount."""
        return PeriodicAffine(tuple(value + amount for value in self.values), self.slope)


@dataclass(frozen=True)
class SizeSet:
    """A set of sizes: single ``exceptions``, and start + step · n for every n ≥ 0 and each of ``starts``.

    >>> valid = SizeSet(step=16, starts=(188,))
    >>> print(valid), 572 in valid, 573 in valid, valid.nearest(573)
    188 + 16 n (n ≥ 0)
    (None, True, False, (572, 588))
    """

    exceptions: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ConfigError(f"SizeSet: step is {self.step}, but it must be at least 1.")

    @property
    def smallest(self) -> int | None:
        """The smallest size, or None where there is none."""
        return min((*self.exceptions, *self.starts), default=None)

    @property
    def endless(self) -> bool:
        """True if there are infinitely many sizes."""
        return bool(self.starts)

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and (
            size in self.exceptions or any(size >= start and (size - start) % self.step == 0 for start in self.starts)
        )

    def __iter__(self) -> Iterator[int]:
        """Yield the sizes in ascending order; endlessly where there are infinitely many.

        >>> import itertools
        >>> list(itertools.islice(SizeSet(step=16, starts=(188,)), 3))
        [188, 204, 220]
        """
        rows = [itertools.count(start, self.step) for start in self.starts]
        for size, _ in itertools.groupby(heapq.merge(sorted(self.exceptions), *rows)):
            yield size

    def __bool__(self) -> bool:
        return bool(self.exceptions or self.starts)

    def nearest(self, size: int) -> tuple[int, ...]:
        """Return ``size`` if it is in the set, else the next smaller and the next larger one, as far as they exist."""
        if size in self:
            return (size,)
        below = [single for single in self.exceptions if single < size]
        below += [size - (size - start) % self.step for start in self.starts if start < size]
        above = [single for single in self.exceptions if single > size]
        above += [max(start, size + (start - size) % self.step) for start in self.starts]
        return (*([max(below)] if below else []), *([min(above)] if above else []))

    def beginning(self, least: int) -> SizeSet:
        """Return the sizes of this set from ``least`` on.

        >>> print(SizeSet(starts=(7, 8), step=8).beginning(9))
        {15, 16} + 8 n (n ≥ 0)
        """
        starts = [start + max(0, -(-(least - start) // self.step)) * self.step for start in self.starts]
        return _merged([size for size in self.exceptions if size >= least], starts, self.step)

    def where(self, level: PeriodicAffine) -> SizeSet:
        """Return the sizes of this set at which ``level`` is 0.

        >>> print(SizeSet(starts=(188,), step=16).where(PeriodicAffine((-184 - 388,), 1)))  # i − 184 = 388
        572
        """
        exceptions = [size for size in self.exceptions if level.at(size) == 0]
        starts: list[int] = []
        period = math.lcm(self.step, level.period)
        check_period(period)
        slope = level.slope * (period // level.period)
        for size in (start + turn * self.step for start in self.starts for turn in range(period // self.step)):
            value = level.at(size)
            if slope == 0 and value == 0:
                starts.append(size)
            elif slope != 0 and value % slope == 0 and value // slope <= 0:
                exceptions.append(size - value // slope * period)
        return _merged(exceptions, starts, period)

    def __str__(self) -> str:
        """Return for instance ``188 + 16 n (n ≥ 0)``, ``221 … 224``, ``every size from 63`` or ``no size``."""
        parts = []
        if self.exceptions:
            run = len(self.exceptions) > 2 and self.exceptions[-1] - self.exceptions[0] == len(self.exceptions) - 1
            parts.append(
                f"{self.exceptions[0]} … {self.exceptions[-1]}" if run else ", ".join(map(str, self.exceptions))
            )
        if self.starts and self.step == 1:
            parts.append(f"every size from {self.starts[0]}")
        elif self.starts:
            starts = str(self.starts[0]) if len(self.starts) == 1 else f"{{{', '.join(map(str, self.starts))}}}"
            parts.append(f"{starts} + {self.step} n (n ≥ 0)")
        return " and ".join(parts) or "no size"


def solve_conditions(positive: Sequence[PeriodicAffine], zero: Sequence[PeriodicAffine]) -> SizeSet:
    """Return every i ≥ 1 at which all of ``positive`` are at least 1 and all of ``zero`` are 0.

    On one residue class r + P · q, with P a common period, each condition is linear in q: values[r] + q · slope.
    It holds from some q on, up to some q, at one q, always or never.

    >>> even = PeriodicAffine((0, 1), 0)  # i mod 2
    >>> print(solve_conditions([PeriodicAffine.identity().plus(-6)], [even]))
    8 + 2 n (n ≥ 0)
    """
    positive, zero = list(dict.fromkeys(positive)), list(dict.fromkeys(zero))
    period = math.lcm(*(each.period for each in (*positive, *zero)))
    check_period(period)
    exceptions: list[int] = []
    starts: list[int] = []
    for rest in range(1, period + 1):  # sizes of at least 1
        low, high = 0, None
        for conditions, least, most in ((positive, 1, None), (zero, 0, 0)):
            for condition in conditions:
                value, slope = condition.at(rest), condition.slope * (period // condition.period)
                low, high = _narrowed(low, high, value - least, slope)
                if most is not None:
                    low, high = _narrowed(low, high, most - value, -slope)
        if high is None:
            starts.append(rest + low * period)
        else:
            exceptions += [rest + turn * period for turn in range(low, high + 1)]
    return _merged(exceptions, starts, period)


def check_period(period: int) -> None:
    """Raise UnsupportedError if a pattern is too long to be followed, as after sixteen layers of stride 7."""
    if period > _LONGEST:
        raise UnsupportedError(
            f"the layers' strides repeat only after {period} positions, and patterns are followed up to {_LONGEST}. "
            "Use fewer strides, or look at a part of the layers."
        )


def _narrowed(low: int, high: int | None, value: int, slope: int) -> tuple[int, int | None]:
    """Return the range of q, within low … high, in which value + q · slope ≥ 0."""
    if slope > 0:
        return max(low, -(value // slope)), high
    if slope == 0:
        return (low, high) if value >= 0 else (low, low - 1)
    last = value // -slope
    return low, last if high is None else min(high, last)


def _merged(exceptions: Sequence[int], starts: Sequence[int], period: int) -> SizeSet:
    """Return the equal set with the shortest step."""
    for step in range(1, period):
        if period % step or not starts:
            continue
        classes: dict[int, list[int]] = {}
        for start in starts:
            classes.setdefault(start % step, []).append(start)
        if any(len(found) != period // step for found in classes.values()):
            continue
        single = list(exceptions)
        begins = []
        for found in classes.values():
            # From the largest start less a period on, every step is met; below, only some are.
            begin = max(found) - period + step
            begins.append(begin)
            single += [size for start in found for size in range(start, begin, period)]
        return _trimmed(single, begins, step)
    return _trimmed(exceptions, starts, period)


def _trimmed(exceptions: Sequence[int], starts: Sequence[int], step: int) -> SizeSet:
    """Return the equal set whose progressions begin as early as its exceptions allow."""
    left, begins = set(exceptions), []
    for start in starts:
        while start - step in left:
            start -= step
            left.remove(start)
        begins.append(start)
    return SizeSet(tuple(sorted(left)), tuple(sorted(begins)), step if begins else 1)


def _reduced(values: Sequence[int], slope: int) -> PeriodicAffine:
    full = PeriodicAffine(tuple(values), slope)
    for period in range(1, full.period):
        if full.period % period or slope * period % full.period:
            continue
        short = PeriodicAffine(full.values[:period], slope * period // full.period)
        if all(short.at(i) == value for i, value in enumerate(full.values)):
            return short
    return full
