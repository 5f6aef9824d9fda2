"""Receptive fields along one axis, exact: which input positions an output position can see.

For layers that keep or reduce the size, output o sees the inputs s·o + p₀ … s·o + p₀ + r − 1 with one size r,
stride s and offset p₀ (Araujo, Norris & Sim 2019, "Computing receptive fields"). Behind a transposed
convolution or a resize that no longer holds: which inputs are seen depends on the phase of o as well (in a
U-Net, on o mod 2^levels). A ``Field`` therefore keeps the interval of every phase of one period; nothing is
rounded.

The interval is the hull: a dilated kernel may leave holes inside. Positions below 0 or beyond the input are
padding. Nothing here knows networks; ``join`` and the ``compose`` functions are what a walk over a network's
graph needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.window import span
from convoxel.errors import ConfigError, ShapeError

__all__ = [
    "Field",
    "compose",
    "compose_adaptive",
    "compose_resize",
    "compose_slice",
    "compose_transposed",
    "join",
]

Pair = tuple[int, int]
Interval = tuple[int, int] | None


@dataclass(frozen=True)
class Field:
    """The receptive field of every position of an axis.

    Position o = q · period + phase sees the input interval ``phases[phase]`` (first, last) moved by q ·
    ``advance``; None is a position that sees no input, as between the elements that a transposed convolution
    spreads.

    >>> Field.window(size=3, stride=2, offset=-1).at(10)
    (19, 21)
    >>> Field.window().at(7)  # the input sees itself
    (7, 7)
    """

    phases: tuple[Interval, ...]
    advance: int

    @classmethod
    def window(cls, size: int = 1, stride: int = 1, offset: int = 0) -> Field:
        """Return the field in which position o sees stride·o + offset … stride·o + offset + size − 1."""
        return cls(((offset, offset + size - 1),), stride)

    @property
    def period(self) -> int:
        """After how many positions the pattern repeats."""
        return len(self.phases)

    @property
    def size(self) -> int:
        """The number of inputs, first to last, that a position sees; the largest where positions differ."""
        return max((seen[1] - seen[0] + 1 for seen in self.phases if seen), default=0)

    @property
    def stride(self) -> int | Fraction:
        """How far the field moves a position, on average; a fraction where the axis is finer."""
        return _whole(Fraction(self.advance, self.period))

    @property
    def offset(self) -> int | Fraction:
        """The smallest p₀ with: position o sees nothing before stride·o + p₀. Minus the effective padding."""
        starts = [seen[0] - self.stride * phase for phase, seen in enumerate(self.phases) if seen]
        return _whole(Fraction(min(starts, default=0)))

    @property
    def centre(self) -> Fraction:
        """The mean, over the positions, of the field's centre less stride·o.

        Two axes of equal stride that are added or concatenated look at the same place if their centres agree.
        """
        centres = [
            Fraction(seen[0] + seen[1], 2) - self.stride * phase for phase, seen in enumerate(self.phases) if seen
        ]
        return sum(centres, Fraction(0)) / max(len(centres), 1)

    def at(self, position: int) -> Interval:
        """Return the (first, last) input that ``position`` sees, or None."""
        turn, phase = divmod(position, self.period)
        seen = self.phases[phase]
        return None if seen is None else (seen[0] + turn * self.advance, seen[1] + turn * self.advance)

    def __str__(self) -> str:
        """Return the size, with the stride where it is not 1."""
        return f"{self.size}" if self.stride == 1 else f"{self.size}/{self.stride}"


def compose(field: Field, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Field:
    """Return the field behind a convolution or pooling over an axis with ``field``.

    Output o reads the positions s·o − p_before + d·m, 0 ≤ m < k, hence size r + (e − 1) · S for an incoming
    field of size r and stride S, and stride s · S (ANS, eq. 2).

    Args:
        field: of the layer's input.
        k: kernel size.
        s: stride.
        p: padding on both sides, or (before, after); only what comes before matters.
        d: dilation.

    Raises:
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> two = compose(compose(Field.window(), 3, p=1), 3, p=1)  # two 3-wide kernels see as much as one 5-wide
    >>> two.size, two.offset
    (5, -2)
    >>> compose(two, 2, s=2).stride
    2
    """
    _check_stride(s)
    last = span(k, d) - 1
    start = -_before(p)
    return _through(field, [range(start, start + last + 1, d)], s)


def compose_transposed(field: Field, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Field:
    """Return the field behind a transposed convolution: output o reads every j with s·j + d·m − p_before = o.

    >>> up = compose_transposed(Field.window(), 2, s=2)
    >>> [up.at(o) for o in range(4)], up.stride
    ([(0, 0), (0, 0), (1, 1), (1, 1)], Fraction(1, 2))
    >>> compose_transposed(Field.window(), 1, s=2).at(1) is None  # between two inputs: nothing
    True
    """
    _check_stride(s)
    span(k, d)
    before = _before(p)
    taps = [
        [(phase + before - d * m) // s for m in reversed(range(k)) if (phase + before - d * m) % s == 0]
        for phase in range(s)
    ]
    return _through(field, taps, 1)


def compose_resize(
    field: Field,
    i: int,
    o: int,
    mode: str = "linear",
    align_corners: bool = False,
    scale: float | Fraction | None = None,
) -> Field:
    """Return the field behind a resize of an axis from ``i`` to ``o`` positions, away from the borders.

    With the step c = i / o (or 1 / ``scale``) output o′ lies at x = (o′ + ½) c − ½ of the input, or at o′ c
    with c = (i − 1) / (o − 1) for ``align_corners``; positions with weight 0 are not seen.

    Args:
        field: of the input.
        i: input size.
        o: output size.
        mode: ``"nearest"`` (⌊o′ c⌋), ``"nearest-exact"`` (⌊(o′ + ½) c⌋), ``"linear"``, ``"cubic"`` or
            ``"area"``.
        align_corners: whether the outermost positions coincide.
        scale: the factor that was asked for, where it defines the step instead of the sizes.

    Raises:
        ConfigError: ``mode`` is not known.
        ShapeError: a size is below 1.

    >>> up = compose_resize(Field.window(), 8, 16)
    >>> [up.at(o) for o in (4, 5)]  # at 1.75 and 2.25 of the input
    [(1, 2), (2, 3)]
    """
    if i < 1 or o < 1:
        raise ShapeError(f"a resize needs sizes of at least 1, but came from {i} to {o}.")
    if mode == "area":
        return compose_adaptive(field, i, o)
    half = Fraction(1, 2)
    if align_corners and mode in ("linear", "cubic"):
        step, shift = Fraction(i - 1, o - 1) if o > 1 else Fraction(0), Fraction(0)
    else:
        # A user's factor such as 1.5 is exact in binary; 1/3 is meant where 0.333… came.
        step = 1 / Fraction(scale).limit_denominator(1 << 16) if scale else Fraction(i, o)
        shift = {"nearest": Fraction(0), "nearest-exact": half * step}.get(mode, half * step - half)
    taps = []
    for phase in range(step.denominator):
        position = phase * step + shift
        first = math.floor(position)
        if mode in ("nearest", "nearest-exact") or (position == first and mode in ("linear", "cubic")):
            taps.append([first])
        elif mode == "linear":
            taps.append([first, first + 1])
        elif mode == "cubic":
            taps.append([first - 1, first, first + 1, first + 2])
        else:
            raise ConfigError(
                f"mode is {mode!r}, but it can be 'nearest', 'nearest-exact', 'linear', 'cubic' or 'area'."
            )
    return _through(field, taps, step.numerator)


def compose_adaptive(field: Field, i: int, o: int) -> Field:
    """Return the field behind adaptive pooling: output o′ covers ⌊o′ i / o⌋ … ⌈(o′ + 1) i / o⌉ − 1.

    >>> compose_adaptive(Field.window(), 6, 1).size
    6
    """
    if i < 1 or o < 1:
        raise ShapeError(f"adaptive pooling needs sizes of at least 1, but came from {i} to {o}.")
    common = math.gcd(i, o)
    i, o = i // common, o // common
    return _through(field, [range(phase * i // o, -(-(phase + 1) * i // o)) for phase in range(o)], i)


def compose_slice(field: Field, start: int, step: int = 1) -> Field:
    """Return the field of ``axis[start::step]``; a negative ``start`` is padding before the axis.

    >>> compose_slice(Field.window(3), 4).at(0)
    (4, 6)
    """
    _check_stride(step)
    return _through(field, [[start]], step)


def join(*fields: Field, size: int | None = None) -> Field:
    """Return the field of a sum or concatenation: what any of ``fields`` sees, position by position.

    Args:
        *fields: of the branches.
        size: length of the axis. With it, branches of different strides are united too; the result is then
            right for the positions 0 … size − 1 and repeats no further.

    Raises:
        ShapeError: no field was given, or the strides differ and ``size`` is not given.

    >>> join(Field.window(3, offset=-1), Field.window()).size
    3
    """
    strides = {field.stride for field in fields}
    if not fields:
        raise ShapeError("join needs at least one field. Give the fields of the branches.")
    if len(strides) != 1 and size is not None:
        phases = [_hull(field.at(position) for field in fields) for position in range(size)]
        return Field(tuple(phases), round(fields[0].stride * size))
    if len(strides) != 1:
        raise ShapeError(
            f"branches with different strides {', '.join(map(str, sorted(strides)))} cannot be aligned. "
            "Join only axes that were reduced by the same factor."
        )
    period = math.lcm(*(field.period for field in fields))
    advance = fields[0].advance * (period // fields[0].period)
    return _reduced([_hull(field.at(position) for field in fields) for position in range(period)], advance)


def _through(field: Field, taps: Sequence[Sequence[int]], step: int) -> Field:
    """Compose: output q · len(taps) + phase reads the positions taps[phase] + q · step."""
    turns = field.period // math.gcd(field.period, step)
    phases = [_hull(field.at(tap + turn * step) for tap in positions) for turn in range(turns) for positions in taps]
    return _reduced(phases, turns * step // field.period * field.advance)


def _hull(intervals: Iterable[Interval]) -> Interval:
    seen = [interval for interval in intervals if interval is not None]
    return (min(first for first, _ in seen), max(last for _, last in seen)) if seen else None


def _reduced(phases: Sequence[Interval], advance: int) -> Field:
    """Return the field with the shortest period that says the same."""
    full = Field(tuple(phases), advance)
    for period in range(1, full.period):
        if full.period % period or advance * period % full.period:
            continue
        short = Field(full.phases[:period], advance * period // full.period)
        if all(short.at(position) == seen for position, seen in enumerate(full.phases)):
            return short
    return full


def _before(p: int | Pair) -> int:
    return p if isinstance(p, int) else p[0]


def _whole(value: int | Fraction) -> int | Fraction:
    return int(value) if value == int(value) else value


def _check_stride(s: int) -> None:
    if s < 1:
        raise ConfigError(f"stride s is {s}, but it must be at least 1.")
