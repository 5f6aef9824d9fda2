"""Layers along one axis, as small records.

A layer states its output size for an input size (``size``) and as a function of the network's input size
(``size_function``), the positions that it reads (``taps``), and the conditions on its input sizes beside being at least
1 (``conditions``). An N-D layer is one record for each axis. Channels, weights and values do not occur. Nothing here
knows how layers are connected: that is ``axis``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from convoxel.arithmetic.size_set import PeriodicAffine
from convoxel.arithmetic.taps import (
    Taps,
    adaptive_taps,
    conv_taps,
    resize_taps,
    slice_taps,
    transposed_taps,
    unpool_taps,
)
from convoxel.arithmetic.window import Pair, conv_size, pool_size, resolve_padding, resolve_transposed, transposed_size
from convoxel.errors import ConfigError, ShapeError

_HERE = slice_taps(0)


@dataclass(frozen=True)
class Layer:
    """One layer along one axis; ``sizes`` are those of its inputs, of which most layers have one.

    ``str(layer)`` is its word in the notation of ``convoxel size``.
    """

    def size(self, *sizes: int) -> int:
        """Return the output size.

        Raises:
            ShapeError: the layer does not take these sizes.
        """
        raise NotImplementedError

    def period(self) -> tuple[int, int]:
        """Return (P, c): an input longer by P makes an output longer by c."""
        return 1, 1

    def size_function(self, *sizes: PeriodicAffine) -> PeriodicAffine:
        """Return the output size as a function of the network's input size."""
        return PeriodicAffine.sample(self.size, *self.period()).after(sizes[0])

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return the functions that must be at least 1, and those that must be 0, for the layer to take its inputs."""
        return [], []

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return the taps of each input; None where an output reads nothing of it, or all of it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Window(Layer):
    """A convolution or pooling: kernel k, stride s, padding p (numbers or a word), dilation d; ``ceil`` rounds up.

    >>> str(Window(7, 2, 3)), Window(7, 2, 3).size(224), Window(3, 2, "same").size(7)
    ('k7s2p3', 112, 4)
    """

    k: int
    s: int = 1
    p: int | Pair | str = 0
    d: int = 1
    ceil: bool = False

    def padding(self, i: int) -> Pair:
        """Return the padding (before, after) for the input size ``i``."""
        if isinstance(self.p, str):
            return resolve_padding(self.p, (self.k,), self.s, self.d, (i,))[0]
        return (self.p, self.p) if isinstance(self.p, int) else self.p

    def size(self, *sizes: int) -> int:
        """Return ⌊(i + p − e) / s⌋ + 1, or of a pooling rounded up what :func:`pool_size` returns."""
        (i,) = sizes
        if self.p == "same" and i < 1:
            raise ShapeError(f"{self} needs an input size of at least 1, but i is {i}.")
        p = self.padding(i)
        return pool_size(i, self.k, self.s, p, self.d, True) if self.ceil else conv_size(i, self.k, self.s, p, self.d)

    def period(self) -> tuple[int, int]:
        """Return (s, 1)."""
        return self.s, 1

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return s·o − p_before + d·m."""
        return (conv_taps(self.k, self.s, self.padding(sizes[0]), self.d),)

    def __str__(self) -> str:
        return f"{'pool' if self.ceil else 'k'}{self.k}{_suffix(self)}{'c' if self.ceil else ''}"


@dataclass(frozen=True)
class Transposed(Layer):
    """A transposed convolution; a: positions added after the end. "same" gives s times as many outputs as inputs.

    >>> str(Transposed(3, 2, 1, a=1)), Transposed(3, 2, 1, a=1).size(112), Transposed(3, 2, "same").size(112)
    ('t3s2p1a1', 224, 224)
    """

    k: int
    s: int = 1
    p: int | Pair | str = 0
    d: int = 1
    a: int = 0

    def padding(self) -> tuple[Pair, int]:
        """Return the padding (before, after) of the transposed convolution, and the positions that it adds."""
        given = self.p if isinstance(self.p, int | str) else (self.p,)
        (pair,), (missing,) = resolve_transposed(given, (self.k,), self.s, self.d)
        return pair, self.a + missing

    def size(self, *sizes: int) -> int:
        """Return s (i − 1) + e + a − p."""
        p, a = self.padding()
        return transposed_size(sizes[0], self.k, self.s, p, self.d, a)

    def period(self) -> tuple[int, int]:
        """Return (1, s)."""
        return 1, self.s

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return every j with s·j + d·m − p_before = o."""
        return (transposed_taps(self.k, self.s, self.padding()[0], self.d),)

    def __str__(self) -> str:
        return f"t{self.k}{_suffix(self)}{f'a{self.a}' if self.a else ''}"


@dataclass(frozen=True)
class Unpool(Layer):
    """Un-pooling of windows of k every s, to a remembered place or to a fixed ``position`` of the window.

    >>> str(Unpool(2)), Unpool(2).size(5), Unpool(3, 2).size(5)
    ('unpool2', 10, 11)
    """

    k: int
    s: int | None = None
    p: int = 0
    position: int | None = None

    def size(self, *sizes: int) -> int:
        """Return s (i − 1) + k − 2p, as PyTorch does."""
        return transposed_size(sizes[0], self.k, self.s or self.k, self.p)

    def period(self) -> tuple[int, int]:
        """Return (1, s)."""
        return 1, self.s or self.k

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return the windows that cover o, or whose ``position`` it is."""
        return (unpool_taps(self.k, self.s, self.p, self.position),)

    def __str__(self) -> str:
        stride = "" if self.s in (None, self.k) else f"s{self.s}"
        at = "" if self.position is None else f"@{self.position}"
        return f"unpool{self.k}{stride}{f'p{self.p}' if self.p else ''}{at}"


@dataclass(frozen=True)
class Pad(Layer):
    """Positions added before and after, filled by ``mode``; negative numbers crop.

    "reflect" needs an input longer than the padding, "circular" one at least as long.

    >>> str(Pad(1, -2)), Pad(1, -2).size(8)
    ('pad1:-2', 7)
    """

    before: int
    after: int
    mode: str = "zeros"

    def size(self, *sizes: int) -> int:
        """Return i + before + after."""
        (i,) = sizes
        if i < self._least():
            raise ShapeError(
                f"{self} takes sizes from {self._least()}, but i is {i}. Use a larger input or other padding."
            )
        return i + self.before + self.after

    def _least(self) -> int:
        widest = max(self.before, self.after)
        mode = {"reflect": widest + 1, "circular": widest}.get(self.mode, 1)
        # There must be as many positions as are cropped, and at least one position must remain.
        return max(mode, -min(self.before, 0) - min(self.after, 0), 1 - self.before - self.after, 1)

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return i − (the smallest size that the mode takes) + 1 ≥ 1."""
        return [sizes[0].plus(1 - self._least())], []

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return o − before."""
        return (slice_taps(-self.before),)

    def __str__(self) -> str:
        after = "" if self.before == self.after else f":{self.after}"
        return f"pad{self.before}{after}{'' if self.mode == 'zeros' else f':{self.mode}'}"


@dataclass(frozen=True)
class Resize(Layer):
    """A resize by ``factor``: o = ⌊i · factor⌋.

    >>> str(Resize(2)), Resize(2).size(7), Resize(Fraction(1, 2), "linear").size(7)
    ('up2', 14, 3)
    """

    factor: int | Fraction
    mode: str = "nearest"
    align_corners: bool = False

    def size(self, *sizes: int) -> int:
        """Return ⌊i · factor⌋."""
        if self.factor <= 0:
            raise ConfigError(f"the factor of a resize is {self.factor}, but it must be above 0.")
        o = int(sizes[0] * Fraction(self.factor))
        if o < 1:
            raise ShapeError(f"{self} would leave nothing of an input of size {sizes[0]}. Use a larger input.")
        return o

    def period(self) -> tuple[int, int]:
        """Return (denominator, numerator)."""
        factor = Fraction(self.factor)
        return factor.denominator, factor.numerator

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return the positions with weight."""
        i = sizes[0]
        return (resize_taps(i, self.size(i), self.mode, self.align_corners, Fraction(self.factor)),)

    def __str__(self) -> str:
        factor = Fraction(self.factor)
        text = f"up{factor}" if factor >= 1 else f"down{1 / factor}"
        return text if self.mode == "nearest" else f"{text}:{self.mode}"


@dataclass(frozen=True)
class Adaptive(Layer):
    """Adaptive pooling to o positions; with o = 1, global pooling.

    >>> str(Adaptive(7)), Adaptive(7).size(12)
    ('adaptive7', 7)
    """

    o: int

    def size(self, *sizes: int) -> int:
        """Return o."""
        return self.o

    def size_function(self, *sizes: PeriodicAffine) -> PeriodicAffine:
        """Return o."""
        return PeriodicAffine((self.o,), 0)

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return ⌊o′ i / o⌋ … ⌈(o′ + 1) i / o⌉ − 1."""
        return (adaptive_taps(sizes[0], self.o),)

    def __str__(self) -> str:
        return f"adaptive{self.o}"


@dataclass(frozen=True)
class _Follower(Layer):
    """A layer whose output is as long as one of its inputs, which ``follows`` counts from 0."""

    follows: ClassVar[int] = 0

    def size_function(self, *sizes: PeriodicAffine) -> PeriodicAffine:
        """Return the function of that input."""
        return sizes[self.follows]


@dataclass(frozen=True)
class Exact(_Follower):
    """A layer that takes one size and no other, such as a fully connected layer after a flattening.

    >>> print(Exact(5))
    exact5
    """

    i: int

    def size(self, *sizes: int) -> int:
        """Return i."""
        if sizes[0] != self.i:
            raise ShapeError(f"{self} takes the size {self.i} only, but got {sizes[0]}.")
        return self.i

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return i − (the size that it takes) = 0."""
        return [], [sizes[0].plus(-self.i)]

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return o: the field stays the local one."""
        return (_HERE,)

    def __str__(self) -> str:
        return f"exact{self.i}"


@dataclass(frozen=True)
class Join(_Follower):
    """A sum, product or concatenation of channels: all sizes are equal.

    >>> Join().size(28, 28)
    28
    """

    def size(self, *sizes: int) -> int:
        """Return the common size."""
        if len(set(sizes)) != 1:
            raise ShapeError(
                f"branches of sizes {', '.join(map(str, sizes))} cannot be joined. Pad or crop them to one size."
            )
        return sizes[0]

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return the differences of the branches' sizes = 0."""
        return [], [size.minus(sizes[0]) for size in sizes[1:] if size != sizes[0]]

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return o of each branch."""
        return (_HERE,) * len(sizes)

    def __str__(self) -> str:
        return "join"


@dataclass(frozen=True)
class Repeat(_Follower):
    """The first input, of size 1, repeated along the second, as the gate of a squeeze-and-excitation is.

    The gate sees the whole axis; the field is the local one, that of the second input.

    >>> Repeat().size(1, 28)
    28
    """

    follows: ClassVar[int] = 1

    def size(self, *sizes: int) -> int:
        """Return the size of the second input."""
        if sizes[0] != 1:
            raise ShapeError(f"a size of {sizes[0]} cannot be repeated, only 1. Pool the branch to one position.")
        return sizes[1]

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return (the first size) − 1 = 0."""
        return [], [sizes[0].plus(-1)]

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return o of the second input."""
        return None, _HERE

    def __str__(self) -> str:
        return "repeat"


@dataclass(frozen=True)
class Crop(_Follower):
    """The middle of the first input, as long as the second: ⌊(i − o) / 2⌋ positions before it are dropped.

    >>> Crop().size(64, 56)
    56
    """

    follows: ClassVar[int] = 1

    def size(self, *sizes: int) -> int:
        """Return the size of the second input."""
        i, o = sizes
        if i < o:
            raise ShapeError(f"{o} positions cannot be cropped out of {i}. Use the longer branch as the first input.")
        return o

    def conditions(self, *sizes: PeriodicAffine) -> tuple[list[PeriodicAffine], list[PeriodicAffine]]:
        """Return i − o + 1 ≥ 1."""
        return [sizes[0].minus(sizes[1]).plus(1)], []

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return o + ⌊(i − o) / 2⌋ of the first input."""
        return slice_taps((sizes[0] - sizes[1]) // 2), None

    def __str__(self) -> str:
        return "crop"


@dataclass(frozen=True)
class ResizeLike(_Follower):
    """A resize of the first input to the size of the second, as many decoders do it.

    >>> ResizeLike("linear").size(7, 15)
    15
    """

    follows: ClassVar[int] = 1

    mode: str = "nearest"
    align_corners: bool = False

    def size(self, *sizes: int) -> int:
        """Return the size of the second input."""
        return sizes[1]

    def taps(self, *sizes: int) -> tuple[Taps | None, ...]:
        """Return the positions with weight."""
        return resize_taps(sizes[0], sizes[1], self.mode, self.align_corners), None

    def __str__(self) -> str:
        return f"resize:{self.mode}"


def _suffix(layer: Window | Transposed) -> str:
    p = layer.p if isinstance(layer.p, int | str) or layer.p[0] != layer.p[1] else layer.p[0]
    padding = "" if p == 0 else f"p{p}" if isinstance(p, int | str) else f"p{p[0]}:{p[1]}"
    stride = f"s{layer.s}" if layer.s != 1 or (isinstance(layer, Window) and layer.ceil) else ""
    return f"{stride}{padding}{f'd{layer.d}' if layer.d != 1 else ''}"
