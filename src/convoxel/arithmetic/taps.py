"""The positions of its input that a layer reads, along one axis, as one kind of data for every layer.

Output o = q · n + phase reads the input positions ``phases[phase]``, each moved by q · ``step``. A convolution
with stride s has one phase and moves by s; a transposed convolution has s phases and moves by 1; a resize by a
fraction has as many phases as its denominator. Receptive fields, the parts of a tile that are right, and the
non-zeros of a layer's matrix all follow from taps. Nothing here knows sizes that go in or out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.window import Pair, span
from convoxel.errors import ConfigError, ShapeError, check_choice

_MOST = 1 << 24  # positions of a layer's taps, which take up to 1 GiB
RESIZE_MODES = ("nearest", "nearest-exact", "linear", "cubic", "area")


@dataclass(frozen=True)
class Taps:
    """The positions that every output of a layer reads.

    >>> Taps(((-1, 0, 1),), 2).at(3)  # a 3-wide kernel, stride 2, half padding
    (5, 6, 7)
    """

    phases: tuple[tuple[int, ...], ...]
    step: int

    def at(self, position: int) -> tuple[int, ...]:
        """Return the input positions that output ``position`` reads, ascending."""
        turn, phase = divmod(position, len(self.phases))
        return tuple(tap + turn * self.step for tap in self.phases[phase])

    def inside(self, first: int, stop: int) -> tuple[int, int]:
        """Return the range (first, stop) of outputs that read nothing outside the inputs ``first`` … ``stop`` − 1.

        The range around which no output reads outside; phases that read nothing are inside everywhere.

        >>> Taps(((-1, 0, 1),), 2).inside(0, 8)
        (1, 4)
        """
        n = len(self.phases)
        spans = [(phase, taps[0], taps[-1]) for phase, taps in enumerate(self.phases) if taps]
        # The last output of a phase that begins before `first`, and the first one that ends at `stop` or behind.
        begins = [(-(-(first - low) // self.step) - 1) * n + phase for phase, low, _ in spans]
        ends = [-(-(stop - high) // self.step) * n + phase for phase, _, high in spans]
        return max(begins, default=-1) + 1, min(ends, default=stop * n)


def conv_taps(k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Taps:
    """Return the taps of a convolution or pooling: output o reads s·o − p_before + d·m, 0 ≤ m < k.

    Raises:
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> conv_taps(3, s=2, p=1, d=2).at(0)
    (-1, 1, 3)
    """
    check_stride(s)
    start = -(p if isinstance(p, int) else p[0])
    reach = span(k, d)
    _check_count(k)
    return Taps((tuple(range(start, start + reach, d)),), s)


def transposed_taps(k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Taps:
    """Return the taps of a transposed convolution: output o reads every j with s·j + d·m − p_before = o.

    Raises:
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> [transposed_taps(3, s=2, p=1).at(o) for o in range(3)]
    [(0,), (0, 1), (1,)]
    """
    check_stride(s)
    span(k, d)
    _check_count(k * s)
    before = p if isinstance(p, int) else p[0]
    places = [[phase + before - d * m for m in reversed(range(k))] for phase in range(s)]
    return Taps(tuple(tuple(place // s for place in row if place % s == 0) for row in places), 1)


def unpool_taps(k: int, s: int | None = None, p: int | Pair = 0, position: int | None = None) -> Taps:
    """Return the taps of un-pooling: each input goes back to a place in the window that it came from.

    To a remembered place (max un-pooling) an output may take the value of every window that covers it; to a
    fixed ``position`` in the window ("bed of nails") only where it is that position, zero elsewhere.

    Args:
        k: kernel size of the pooling.
        s: its stride; the kernel size unless given.
        p: its padding.
        position: the fixed place, 0 … k − 1; unless given, the place is remembered.

    Raises:
        ConfigError: ``position`` lies outside the window.

    >>> [unpool_taps(2).at(o) for o in range(4)], [unpool_taps(2, position=0).at(o) for o in range(4)]
    ([(0,), (0,), (1,), (1,)], [(0,), (), (1,), ()])
    """
    stride = k if s is None else s
    if position is None:
        return transposed_taps(k, stride, p)
    if not 0 <= position < k:
        raise ConfigError(f"position is {position}, but a window of {k} has the positions 0 to {k - 1}.")
    return transposed_taps(1, stride, (p if isinstance(p, int) else p[0]) - position)


def resize_taps(
    i: int, o: int, mode: str = "linear", align_corners: bool = False, scale: float | Fraction | None = None
) -> Taps:
    """Return the taps of a resize from ``i`` to ``o`` positions, away from the borders.

    With the step c = i / o (or 1 / ``scale``) output o′ lies at x = (o′ + ½) c − ½ of the input, or at o′ c
    with c = (i − 1) / (o − 1) for ``align_corners``; positions with weight 0 are not read.

    Args:
        i: input size.
        o: output size.
        mode: ``"nearest"`` (⌊o′ c⌋), ``"nearest-exact"`` (⌊(o′ + ½) c⌋), ``"linear"``, ``"cubic"`` or ``"area"``.
        align_corners: whether the outermost positions coincide.
        scale: the factor that was asked for, where it defines the step instead of the sizes.

    Raises:
        ConfigError: ``mode`` is not known, or ``scale`` is not above 0.
        ShapeError: a size is below 1.

    >>> [resize_taps(8, 16).at(o) for o in (4, 5)]  # at 1.75 and 2.25 of the input
    [(1, 2), (2, 3)]
    """
    check_choice("mode", mode, RESIZE_MODES)
    if i < 1 or o < 1:
        raise ShapeError(f"a resize needs sizes of at least 1, but came from {i} to {o}.")
    if mode == "area":
        return adaptive_taps(i, o)
    half = Fraction(1, 2)
    if align_corners and mode in ("linear", "cubic"):
        step, shift = Fraction(i - 1, o - 1) if o > 1 else Fraction(0), Fraction(0)
    else:
        # A user's factor such as 1.5 is exact in binary; 1/3 is meant where 0.333… came.
        factor = Fraction(o, i) if scale is None else Fraction(scale).limit_denominator(1 << 16)
        if factor <= 0:
            raise ConfigError(f"scale is {scale}, but it must be a number above 0, of at least 1 / 65536.")
        step = 1 / factor
        shift = {"nearest": Fraction(0), "nearest-exact": half * step}.get(mode, half * step - half)
    reach = {"linear": (0, 1), "cubic": (-1, 0, 1, 2)}.get(mode, (0,))
    _check_count(step.denominator)
    phases = []
    for phase in range(step.denominator):
        position = phase * step + shift
        first = math.floor(position)
        # On a position of the input the other weights are 0.
        phases.append(tuple(first + m for m in ((0,) if position == first else reach)))
    return Taps(tuple(phases), step.numerator)


def adaptive_taps(i: int, o: int) -> Taps:
    """Return the taps of adaptive pooling: output o′ covers ⌊o′ i / o⌋ … ⌈(o′ + 1) i / o⌉ − 1.

    Raises:
        ShapeError: a size is below 1.

    >>> adaptive_taps(5, 2).at(1)
    (2, 3, 4)
    """
    if i < 1 or o < 1:
        raise ShapeError(f"adaptive pooling needs sizes of at least 1, but came from {i} to {o}.")
    common = math.gcd(i, o)
    i, o = i // common, o // common
    _check_count(i + o)
    return Taps(tuple(tuple(range(phase * i // o, -(-(phase + 1) * i // o))) for phase in range(o)), i)


def slice_taps(start: int, step: int = 1) -> Taps:
    """Return the taps of ``axis[start::step]``; a negative ``start`` is padding before the axis.

    >>> slice_taps(4, 2).at(1)
    (6,)
    """
    check_stride(step)
    return Taps(((start,),), step)


def _check_count(count: int) -> None:
    """Raise ShapeError for more positions than can be listed."""
    if count > _MOST:
        raise ShapeError(f"a layer that reads {count} positions before it repeats is too large; give smaller numbers.")


def check_stride(s: int) -> None:
    """Raise ConfigError unless ``s`` is at least 1."""
    if s < 1:
        raise ConfigError(f"stride s is {s}, but it must be at least 1.")
