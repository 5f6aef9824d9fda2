"""The inputs that each output of a convolution reads, and the weights through which it reads them, as indices.

All kinds of layers become one picture: a window of k slots, d cells apart, slides over a *canvas*. For a convolution
the canvas is the input, and the window moves s cells a step. For a transposed convolution the canvas is the input with
s − 1 empty cells between its elements, and the window moves one cell a step (Dumoulin & Visin 2016, arXiv 1603.07285,
section 4: p' = d (k − 1) − p). Cells before and behind the canvas are padding. A negative padding cuts cells off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from convoxel.arithmetic import conv_size, resolve_padding, resolve_transposed, transposed_padding, transposed_size
from convoxel.arithmetic.window import Pair
from convoxel.draw.quantity import sizes
from convoxel.errors import ConfigError, ConvoxelError, ShapeError, check_choice

Numbers: TypeAlias = "Mapping[Position, Any]"
KINDS = ("correlation", "convolution", "transposed")
# Content of the padding, in PyTorch's words: nothing, or copies of inputs.
BORDERS = ("zeros", "reflect", "replicate", "circular")

Position = tuple[int, ...]


@dataclass(frozen=True)
class Track:
    """One axis of a scan.

    Attributes:
        i: input size.
        k: kernel size.
        s: stride.
        p: padding before and after, of the convolution that a transposed one turns round.
        d: dilation.
        a: outputs that a transposed convolution adds at the end.
        transposed: whether it is one.
        flipped: whether the kernel is read backwards, as a convolution in the mathematical sense does.
        border: content of the padding, a word of ``BORDERS``.

    >>> Track(5, 3, 2, (1, 1)).reads(0)  # (weight, input): the first slot lies on the padding
    [(1, 0), (2, 1)]
    >>> Track(2, 3, 2, (0, 0), transposed=True).reads(2)
    [(2, 0), (0, 1)]
    >>> Track(5, 3, 2, (1, 1), border="reflect").reads(0)
    [(0, 1), (1, 0), (2, 1)]
    """

    i: int
    k: int
    s: int = 1
    p: Pair = (0, 0)
    d: int = 1
    a: int = 0
    transposed: bool = False
    flipped: bool = False
    border: str = "zeros"

    @property
    def o(self) -> int:
        """Output size."""
        size = transposed_size(self.i, self.k, self.s, self.p, self.d, self.a) if self.transposed else None
        return conv_size(self.i, self.k, self.s, self.p, self.d) if size is None else size

    @property
    def stretch(self) -> int:
        """Cells of the canvas from one input to the next."""
        return self.s if self.transposed else 1

    @property
    def step(self) -> int:
        """Cells of the canvas from one window to the next."""
        return 1 if self.transposed else self.s

    @property
    def length(self) -> int:
        """Cells of the canvas, without padding."""
        return (self.i - 1) * self.stretch + 1

    @property
    def around(self) -> Pair:
        """Cells of padding before and behind the canvas."""
        if not self.transposed:
            return self.p
        before, after = transposed_padding(self.k, self.p, self.d)
        return before, after + self.a

    def start(self, output: int) -> int:
        """Return the cell of the canvas that the window's first slot lies on; negative: in the padding."""
        return output * self.step - self.around[0]

    def weight(self, slot: int) -> int:
        """Return which weight the window's slot holds; a transposed convolution turns the kernel round."""
        return self.k - 1 - slot if self.transposed != self.flipped else slot

    def source(self, cell: int) -> int | None:
        """Return the input that lies on a cell of the canvas, itself or as a copy, or None."""
        if not -self.around[0] <= cell < self.length + self.around[1]:
            return None
        if not 0 <= cell < self.length:
            return _COPIES[self.border](cell, self.i)
        return cell // self.stretch if cell % self.stretch == 0 else None

    def reads(self, output: int) -> list[Pair]:
        """Return (weight, input) of every slot that lies on an input, from the first slot to the last."""
        start = self.start(output)
        found = ((self.weight(slot), self.source(start + self.d * slot)) for slot in range(self.k))
        return [(weight, source) for weight, source in found if source is not None]

    def equation(self) -> str:
        """Return the size's equation with its numbers."""
        p = f"{self.p[0]} + {self.p[1]}" if self.p[0] != self.p[1] else f"2·{self.p[0]}"
        e = f"{self.d * (self.k - 1) + 1}"
        if self.transposed:
            plus = f" + {self.a}" if self.a else ""
            return f"{self.s}·({self.i} − 1) + {e} − {p}{plus} = {self.o}"
        room = f"{self.i} + {p} − {e}"
        return f"⌊({room}) / {self.s}⌋ + 1 = {self.o}" if self.s > 1 else f"{room} + 1 = {self.o}"


# The input that a cell of the padding repeats, where there are i inputs.
_COPIES: Mapping[str, Callable[[int, int], int | None]] = {
    "zeros": lambda cell, i: None,
    "reflect": lambda cell, i: -cell if cell < 0 else 2 * (i - 1) - cell,
    "replicate": lambda cell, i: 0 if cell < 0 else i - 1,
    "circular": lambda cell, i: cell % i,
}


@dataclass(frozen=True)
class Scan:
    """The reads of a layer along all its axes; positions run row by row."""

    tracks: tuple[Track, ...]
    kind: str

    @classmethod
    def of(
        cls,
        size: int | Sequence[int],
        kernel: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] | Sequence[Pair] = "none",
        dilation: int | Sequence[int] = 1,
        *,
        kind: str = "correlation",
        output_padding: int | Sequence[int] = 0,
        border: str = "zeros",
    ) -> Scan:
        """Return the scan of a layer over an input of ``size``; arguments as of :func:`convoxel.draw.conv`.

        Raises:
            ConfigError: a number of axes, a kind or a word that is not known.
            ShapeError: the kernel does not fit, or the border repeats more than there is.
        """
        lengths = (size,) if isinstance(size, int) else tuple(size)
        if not 1 <= len(lengths) <= 3 or min(lengths) < 1:
            raise ConfigError(f"size: got {lengths}; expected 1 to 3 sizes of at least 1, such as (5, 5).")
        check_choice("kind", kind, KINDS)
        axes = len(lengths)
        k, s, d, a = (
            each_axis(name, value, axes, least)
            for name, value, least in (
                ("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1),
                ("output_padding", output_padding, 0),
            )
        )  # fmt: skip
        if any(a) and kind != "transposed":
            raise ConfigError(f"output_padding: got {output_padding}; only kind='transposed' has it.")
        check_choice("border", border, BORDERS)
        if border != "zeros" and kind == "transposed":
            raise ConfigError(f"border: got {border!r}; a transposed convolution has a border of zeros alone.")
        if kind == "transposed":
            pairs, added = resolve_transposed(padding, k, s, d)
            a = tuple(map(sum, zip(a, added, strict=True)))
        else:
            pairs = resolve_padding(padding, k, s, d, lengths)
        if padding == "same" and kind == "convolution":
            # The kernel is read backwards, so the odd cell lies before the input, as nn.functional.convolve has it.
            pairs = tuple((after, before) for before, after in pairs)
        tracks = tuple(
            Track(i, wide, step, pair, apart, more, kind == "transposed", kind == "convolution", border)
            for i, wide, step, pair, apart, more in zip(lengths, k, s, pairs, d, a, strict=True)
        )
        scan = cls(tracks, kind)
        for axis, track in enumerate(tracks):
            try:
                _ = track.o
                most = {"reflect": track.i - 1, "circular": track.i}.get(border, max(track.p))
                if max(track.p) > most:
                    raise ShapeError(
                        f"a border of {max(track.p)} is more than {border} padding makes of {track.i} inputs: at "
                        f"most {most}. Use a larger size or less padding."
                    )
            except ConvoxelError as error:
                raise type(error)(f"axis {axis} of {axes}: {error}") from None
        return scan

    @property
    def size(self) -> Position:
        """Input size of every axis."""
        return tuple(track.i for track in self.tracks)

    @property
    def output(self) -> Position:
        """Output size of every axis."""
        return tuple(track.o for track in self.tracks)

    @property
    def kernel(self) -> Position:
        """Kernel size of every axis."""
        return tuple(track.k for track in self.tracks)

    def outputs(self) -> Iterator[Position]:
        """Yield every output, row by row."""
        return itertools.product(*(range(track.o) for track in self.tracks))

    def reads(self, output: Position) -> list[tuple[Position, Position]]:
        """Return (weight, input) of all inputs that ``output`` reads."""
        found = [track.reads(o) for track, o in zip(self.tracks, output, strict=True)]
        return [tuple(zip(*entry, strict=True)) for entry in itertools.product(*found)]  # type: ignore[misc]

    def steps(self) -> int:
        """Return the number of outputs."""
        return math.prod(self.output)

    def sentence(self) -> str:
        """Return the layer in one line.

        >>> Scan.of((5, 5), 3, 2, "same").sentence()
        'correlation, kernel 3 × 3, stride 2, padding 1'
        """
        parts = [f"{self.kind}{' convolution' * (self.kind == 'transposed')}, kernel {sizes(self.kernel)}"]
        parts.append(f"stride {sizes([track.s for track in self.tracks], short=True)}")
        pads = [str(t.p[0]) if t.p[0] == t.p[1] else f"({t.p[0]}, {t.p[1]})" for t in self.tracks]
        parts.append("no padding" if set(pads) == {"0"} else f"padding {sizes(pads, short=True)}")
        if self.tracks[0].border != "zeros" and any(max(track.p) > 0 for track in self.tracks):
            parts[-1] += f" ({self.tracks[0].border})"
        if any(track.d > 1 for track in self.tracks):
            parts.append(f"dilation {sizes([track.d for track in self.tracks], short=True)}")
        if any(track.a for track in self.tracks):
            parts.append(f"output padding {sizes([track.a for track in self.tracks], short=True)}")
        return ", ".join(parts)


def each_axis(name: str, value: int | Sequence[int], axes: int, least: int = 1) -> Position:
    """Return a number for each axis of one for all axes, or of one each.

    Raises:
        ConfigError: there are other numbers of them, or a number is below ``least``.

    >>> each_axis("kernel", 3, 2), each_axis("kernel", (3, 5), 2)
    ((3, 3), (3, 5))
    """
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= axes
    if len(values) != axes or min(values) < least:
        raise ConfigError(f"{name}: got {values}; expected one number for all axes, or {axes}, each at least {least}.")
    return values


def correlate(scan: Scan, x: Numbers, w: Numbers) -> dict[Position, Any]:
    """Return the outputs of a layer by their positions: the sums of the products that they read."""
    return {output: sum(x[source] * w[weight] for weight, source in scan.reads(output)) for output in scan.outputs()}


def pooled(
    scan: Scan, given: Sequence[Pair], x: Numbers, kind: str, count_include_pad: bool = True
) -> dict[Position, float]:
    """Return the largest values or the means of the windows; a mean counts the padding ``given`` if asked for."""
    result = {}
    for output in scan.outputs():
        read = [x[source] for _, source in scan.reads(output)]
        if kind == "max":
            result[output] = max(read, default=-math.inf)
            continue
        count = len(read)
        if count_include_pad:  # zeros of the padding count, but not what rounding up adds
            count = math.prod(
                sum(t.start(o) + t.d * slot < t.i + after for slot in range(t.k))
                for t, o, (_, after) in zip(scan.tracks, output, given, strict=True)
            )
        result[output] = sum(read) / count if count else math.nan
    return result
