"""Exact receptive fields along one axis: the input positions that an output position sees.

For layers that keep or reduce the size, output o sees inputs among s·o + p₀ … s·o + p₀ + r − 1 with one size r,
stride s and offset p₀ (Araujo, Norris & Sim 2019, "Computing receptive fields", ANS). After a transposed
convolution or a resize that no longer holds: the inputs that are seen depend on the phase of o as well (in a
U-Net, on o mod 2^levels). A ``Field`` therefore keeps the inputs of every phase of one period, each of them: the
holes that dilation leaves are known too. Nothing is rounded.

Positions below 0 or beyond the input are padding. Nothing here knows networks; ``join`` and ``through`` (with the
layer's taps, or in the words of ``compose``) are all that a walk over a network's graph needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.size_set import check_period
from convoxel.arithmetic.taps import Taps, adaptive_taps, conv_taps, resize_taps, slice_taps, transposed_taps
from convoxel.arithmetic.window import Pair
from convoxel.errors import ConfigError, ShapeError
from convoxel.fork import cached_property

Interval = tuple[int, int] | None
# Inputs (start, bits): start + m is seen where bit m of bits is set. Bit 0 is set, or nothing is: (0, 0).
Seen = tuple[int, int]
_NOTHING: Seen = (0, 0)
_LONGEST = 1 << 28  # positions of a field: 32 MiB of bits, and more than any axis has


@dataclass(frozen=True)
class Field:
    """The receptive field of every position of an axis.

    Position o = q · period + phase sees the inputs ``seen[phase]``, moved by q · ``advance``: a start, and bits of
    which the m-th tells whether start + m is seen. No bits: a position that sees no input, as between the elements
    that a transposed convolution spreads.

    >>> Field.window(size=3, stride=2, offset=-1).at(10)
    (19, 21)
    >>> Field.window().at(7)  # the input sees itself
    (7, 7)
    """

    seen: tuple[Seen, ...]
    advance: int

    @classmethod
    def window(cls, size: int = 1, stride: int = 1, offset: int = 0) -> Field:
        """Return the field in which position o sees stride·o + offset … stride·o + offset + size − 1."""
        if size < 0:
            raise ConfigError(f"Field.window: size is {size}, but it must be at least 0.")
        return cls(((offset, _shifted(1, size) - 1),), stride)

    @property
    def period(self) -> int:
        """The number of positions after which the pattern repeats."""
        return len(self.seen)

    @cached_property
    def phases(self) -> tuple[Interval, ...]:
        """The first and the last input that each phase sees, or None."""
        return tuple(map(_ends, self.seen))

    @cached_property
    def size(self) -> int:
        """The number of inputs, first to last, that a position sees; the largest where positions differ."""
        return max(bits.bit_length() for _, bits in self.seen)

    @property
    def holes(self) -> int:
        """The number of inputs between the first and the last that are not seen; the largest where positions differ.

        >>> gridded = compose(compose(Field.window(), 3, d=2), 3, d=2)  # the gridding of equal dilations
        >>> gridded.size, gridded.holes
        (9, 4)
        """
        return max(bits.bit_length() - bits.bit_count() for _, bits in self.seen)

    @cached_property
    def stride(self) -> int | Fraction:
        """The inputs by which the field moves from one position to the next, on average; a fraction on a finer axis."""
        return _whole(Fraction(self.advance, self.period))

    @cached_property
    def offset(self) -> int | Fraction:
        """The smallest p₀ with: position o sees nothing before stride·o + p₀. Minus the effective padding."""
        starts = [seen[0] - self.stride * phase for phase, seen in enumerate(self.phases) if seen]
        return _whole(Fraction(min(starts, default=0)))

    @cached_property
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
        return _ends(self._moved(position))

    def inputs(self, position: int) -> tuple[int, ...]:
        """Return every input that ``position`` sees, ascending.

        >>> compose(Field.window(), 3, p=2, d=2).inputs(5)
        (3, 5, 7)
        """
        start, bits = self._moved(position)
        return tuple(start + m for m, bit in enumerate(bin(bits)[:1:-1]) if bit == "1")

    def _moved(self, position: int) -> Seen:
        turn, phase = divmod(position, self.period)
        start, bits = self.seen[phase]
        return start + turn * self.advance, bits

    def __str__(self) -> str:
        return f"{self.size}" if self.stride == 1 else f"{self.size}/{self.stride}"


def through(field: Field, taps: Taps) -> Field:
    """Return the field after a layer that reads ``taps`` of an axis with ``field``.

    Output o sees what the positions that it reads see. With the layer's n phases and step, the pattern repeats
    after lcm(period, step) positions of the axis.

    Raises:
        UnsupportedError: that pattern is too long to be written down.

    >>> from convoxel.arithmetic.taps import unpool_taps
    >>> back = through(compose(Field.window(), 2, 2), unpool_taps(2))
    >>> [back.at(o) for o in range(4)]
    [(0, 1), (0, 1), (2, 3), (2, 3)]
    """
    turns = field.period // math.gcd(field.period, taps.step)
    check_period(turns * len(taps.phases))
    phases = [
        _united(field._moved(tap + turn * taps.step) for tap in positions)
        for turn in range(turns)
        for positions in taps.phases
    ]
    return _reduced(phases, turns * taps.step // field.period * field.advance)


def compose(field: Field, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Field:
    """Return the field after a convolution or pooling over an axis with ``field``.

    Output o reads the positions s·o − p_before + d·m, 0 ≤ m < k, hence size r + (e − 1) · S for an incoming
    field of size r and stride S, and stride s · S (ANS, eq. 2).

    Args:
        field: field of the layer's input.
        k: kernel size.
        s: stride.
        p: padding on both sides, or (before, after); only the padding before matters.
        d: dilation.

    Raises:
        ConfigError: ``k``, ``s`` or ``d`` is below 1.

    >>> two = compose(compose(Field.window(), 3, p=1), 3, p=1)  # two 3-wide kernels see as much as one 5-wide
    >>> two.size, two.offset
    (5, -2)
    >>> compose(two, 2, s=2).stride
    2
    """
    return through(field, conv_taps(k, s, p, d))


def compose_transposed(field: Field, k: int, s: int = 1, p: int | Pair = 0, d: int = 1) -> Field:
    """Return the field after a transposed convolution: output o reads every j with s·j + d·m − p_before = o.

    >>> up = compose_transposed(Field.window(), 2, s=2)
    >>> [up.at(o) for o in range(4)], up.stride
    ([(0, 0), (0, 0), (1, 1), (1, 1)], Fraction(1, 2))
    >>> compose_transposed(Field.window(), 1, s=2).at(1) is None  # between two inputs: nothing
    True
    """
    return through(field, transposed_taps(k, s, p, d))


def compose_resize(
    field: Field,
    i: int,
    o: int,
    mode: str = "linear",
    align_corners: bool = False,
    scale: float | Fraction | None = None,
) -> Field:
    """Return the field after a resize of an axis from ``i`` to ``o`` positions, away from the borders.

    The arguments are those of :func:`resize_taps`.

    Raises:
        ConfigError: ``mode`` is not known.
        ShapeError: a size is below 1.

    >>> up = compose_resize(Field.window(), 8, 16)
    >>> [up.at(o) for o in (4, 5)]  # at 1.75 and 2.25 of the input
    [(1, 2), (2, 3)]
    """
    return through(field, resize_taps(i, o, mode, align_corners, scale))


def compose_adaptive(field: Field, i: int, o: int) -> Field:
    """Return the field after adaptive pooling: output o′ covers ⌊o′ i / o⌋ … ⌈(o′ + 1) i / o⌉ − 1.

    >>> compose_adaptive(Field.window(), 6, 1).size
    6
    """
    return through(field, adaptive_taps(i, o))


def compose_slice(field: Field, start: int, step: int = 1) -> Field:
    """Return the field of ``axis[start::step]``; a negative ``start`` is padding before the axis.

    >>> compose_slice(Field.window(3), 4).at(0)
    (4, 6)
    """
    return through(field, slice_taps(start, step))


def join(*fields: Field, size: int | None = None) -> Field:
    """Return the field of a sum or concatenation: the union of ``fields``, position by position.

    Args:
        *fields: fields of the branches.
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
        phases = [_united(field._moved(position) for field in fields) for position in range(size)]
        return Field(tuple(phases), round(fields[0].stride * size))
    if len(strides) != 1:
        raise ShapeError(
            f"branches with different strides {', '.join(map(str, sorted(strides)))} cannot be aligned. "
            "Join only axes that were reduced by the same factor."
        )
    period = math.lcm(*(field.period for field in fields))
    advance = fields[0].advance * (period // fields[0].period)
    return _reduced([_united(field._moved(position) for field in fields) for position in range(period)], advance)


def misalignment(*fields: Field) -> Fraction | None:
    """Return the distance, in inputs, of the centres of branches that are added or concatenated.

    It is 0 where they look at the same place, and None where their strides differ: such branches drift apart along the
    axis.

    >>> misalignment(compose(Field.window(), 3, p=1), compose(Field.window(), 2, p=(1, 0)))
    Fraction(1, 2)
    """
    if len({field.stride for field in fields}) > 1:
        return None
    centres = [field.centre for field in fields]
    return max(centres, default=Fraction(0)) - min(centres, default=Fraction(0))


def _united(sets: Iterable[Seen]) -> Seen:
    some = [seen for seen in sets if seen[1]]
    if not some:
        return _NOTHING
    start = min(first for first, _ in some)
    bits = 0
    for first, more in some:
        bits |= _shifted(more, first - start)
    return start, bits


def _shifted(bits: int, by: int) -> int:
    """Return ``bits << by``, which takes a bit of memory for each position."""
    if by > _LONGEST:
        raise ShapeError(f"a receptive field of more than {_LONGEST} positions is too long; give smaller numbers.")
    return bits << by


def _ends(seen: Seen) -> Interval:
    start, bits = seen
    return (start, start + bits.bit_length() - 1) if bits else None


def _reduced(phases: Sequence[Seen], advance: int) -> Field:
    """Return the equal field with the shortest period."""
    full = Field(tuple(phases), advance)
    for period in range(1, full.period):
        if full.period % period or advance * period % full.period:
            continue
        short = Field(full.seen[:period], advance * period // full.period)
        if all(_same(short._moved(position), seen) for position, seen in enumerate(full.seen)):
            return short
    return full


def _same(left: Seen, right: Seen) -> bool:
    return left == right or not (left[1] or right[1])


def _whole(value: int | Fraction) -> int | Fraction:
    return int(value) if value == int(value) else value
