"""Inverse convolution arithmetic: input sizes, layers, padding and depth that give what is wanted.

Every answer is complete (all solutions, not one), exact, and holds the equation by which it was found. Sizes are solved
with periodic affine functions, so an answer covers all of the infinitely many sizes; the other answers are finite
because their domain is, which each function states. Tiles are in ``tile``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction

from convoxel.arithmetic.axis import Graph
from convoxel.arithmetic.field import Field, misalignment, through
from convoxel.arithmetic.layer import Pad, Window
from convoxel.arithmetic.size_set import PeriodicAffine, SizeSet, solve_conditions
from convoxel.arithmetic.taps import Taps, conv_taps
from convoxel.arithmetic.window import Pair, resolve_padding, span
from convoxel.errors import ConfigError, ShapeError, UnsupportedError

# A size at which no window depends on where the input ends.
_FAR = 1 << 20
# Repetitions after which a search for a field is given up.
_MOST = 1 << 16
# Kernels times strides that are tried, which takes some seconds.
_MOST_WINDOWS = 1 << 21


@dataclass(frozen=True)
class Inputs:
    """The input sizes that a network takes, and the output size of each.

    Attributes:
        sizes: all input sizes.
        output: the output size as a function of the input size, right for ``sizes``.
        equation: the same in words.
    """

    sizes: SizeSet
    output: PeriodicAffine
    equation: str

    @property
    def smallest(self) -> int | None:
        """The smallest input size, or None where there is none."""
        return self.sizes.smallest

    def output_size(self, i: int) -> int:
        """Return the output size for the input size ``i``.

        Raises:
            ShapeError: the network does not take it; the message names the nearest that it takes.
        """
        if i not in self.sizes:
            near = " or ".join(map(str, self.sizes.nearest(i))) or "none"
            raise ShapeError(f"the input size {i} is not one of: {self.sizes}. The nearest: {near}.")
        return self.output.at(i)

    def giving(self, output: int) -> Inputs:
        """Return the input sizes that give the size ``output``."""
        return Inputs(self.sizes.where(self.output.plus(-output)), self.output, self.equation)

    def to_dict(self) -> dict[str, object]:
        """Return single sizes and progressions, the smallest, and both as text."""
        smallest, text = self.sizes.smallest, str(self.sizes)
        return {**asdict(self.sizes), "smallest": smallest, "text": text, "equation": self.equation}

    def __str__(self) -> str:
        return f"{self.sizes}: {self.equation}" if self.sizes else str(self.sizes)


def solve_inputs(graph: Graph, output: int | None = None) -> Inputs:
    """Return every input size that ``graph`` takes, with its output size; with ``output``, only those that give it.

    A layer's output size is a periodic affine function of its input size (DV 6: o = ⌊(i + 2p − e) / s⌋ + 1 grows by 1
    every s), hence so is the size of every tensor as a function of the network's input size. Each must be at least 1,
    and equal where branches meet: both are linear in n on every residue class i = r + P n, with P the period of the
    whole network.

    Args:
        graph: network along one axis.
        output: wanted output size (default: any).

    >>> from convoxel.arithmetic.notation import parse_chain
    >>> print(solve_inputs(parse_chain("k7s2p3 pool3s2p1"), output=56))
    221 … 224: o = ⌊(i + 3) / 4⌋
    >>> print(solve_inputs(parse_chain("k11s4p2 pool3s2 k5p2 pool3s2 k3p1x3 pool3s2")))  # AlexNet
    every size from 63: o = ⌊(i − 31) / 32⌋
    """
    functions, positive, zero = graph.size_functions()
    if output is not None:
        zero = [*zero, functions[-1].plus(-output)]
    sizes = solve_conditions(positive, zero)
    return Inputs(sizes, functions[-1], output_equation(functions[-1], sizes))


def output_equation(output: PeriodicAffine, sizes: SizeSet) -> str:
    """Return ``output`` as an equation that holds for ``sizes``.

    >>> output_equation(PeriodicAffine((0, 0), 1), SizeSet(starts=(2,)))
    'o = ⌊i / 2⌋'
    """
    period, slope = output.period, output.slope
    if slope == 0 and period == 1:
        return f"o = {output.values[0]}"
    straight = len(sizes.starts) == 1 and not sizes.exceptions and sizes.step % period == 0 and slope % period == 0
    if straight or period == 1:
        at = sizes.starts[0] if straight else 0
        rate = slope // period
        return f"o = {'' if rate == 1 else f'{rate} '}i{_signed(output.at(at) - rate * at)}"
    # ⌊(c i + b) / P⌋ has the value v at r if and only if P v − c r ≤ b ≤ P v − c r + P − 1.
    bounds = [period * value - slope * rest for rest, value in enumerate(output.values)]
    if max(bounds) <= min(bounds) + period - 1:
        return f"o = {_floor(max(bounds), period, slope)}"
    low = output.values[0]
    jump = next(rest for rest, value in enumerate((*output.values, low + slope)) if value != low)
    if output.values == (low,) * jump + (low + slope,) * (period - jump):  # one jump a period
        return f"o = {'' if slope == 1 else f'{slope} '}{_floor(period - jump, period)}{_signed(low)}"
    start = sizes.smallest or 0
    return f"o grows by {slope} whenever i does by {period}, from o({start}) = {output.at(start)}"


def _floor(shift: int, period: int, factor: int = 1) -> str:
    top = f"{'' if factor == 1 else f'{factor} '}i{_signed(shift)}"
    return f"⌊{f'({top})' if shift else top} / {period}⌋"


def _signed(number: int) -> str:
    return "" if number == 0 else f" + {number}" if number > 0 else f" − {-number}"


@dataclass(frozen=True)
class Windows:
    """All windows of a domain that map one size to another.

    Attributes:
        found: windows, sorted by kernel, stride, dilation and padding.
        domain: the windows that were tried, in words.
        equation: the condition that they fulfil.
    """

    found: tuple[Window, ...]
    domain: str
    equation: str

    def __iter__(self) -> Iterator[Window]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.found)) or "no window"
        return f"{listed}: {self.equation} ({self.domain})"


Choice = int | Iterable[int] | None


def solve_windows(
    i: int,
    o: int,
    kernel: Choice = None,
    stride: Choice = None,
    padding: Choice | str | Pair = None,
    dilation: Choice = 1,
    field: int | None = None,
    before: Field | None = None,
) -> Windows:
    """Return every window (kernel, stride, padding, dilation) that maps the size ``i`` to ``o``.

    DV 6 and 15 hold if and only if s (o − 1) + e − i ≤ p_before + p_after ≤ s (o − 1) + e − i + s − 1, with the
    kernel's span e = d (k − 1) + 1; the field after the window is r + (e − 1) S (ANS, eq. 2). An argument that is
    not given runs over all values that a layer would have: 1 ≤ e ≤ i, no gaps between windows (s ≤ e), the same padding
    on both sides, and at most half of the window in it (p ≤ ⌊e / 2⌋).

    Args:
        i: input size.
        o: output size.
        kernel: one k, several, or None for all.
        stride: one s, several, or None for all.
        padding: one p on both sides, several, a pair (before, after), a word, or None for all.
        dilation: one d, several, or None for all.
        field: wanted receptive field after the window (default: any).
        before: field of the window's input (default: the network's input).

    Raises:
        ShapeError: a size is below 1.
        ConfigError: a number is out of range, or the word is not known.
        UnsupportedError: there are millions of windows to try; give the kernel or the stride.

    >>> print(solve_windows(224, 112, kernel=range(1, 8), stride=2, field=7))
    k7s2p3: 111 s + e − 224 ≤ p + p′ ≤ 112 s + e − 225 (k 1 … 7, s 2, p 0 … ⌊e / 2⌋, d 1, field 7)
    >>> [str(w) for w in solve_windows(28, 28, stride=1, dilation=None, field=9)]
    ['k2p4d8', 'k3p4d4', 'k5p4d2', 'k9p4']
    """
    if i < 1 or o < 1:
        raise ShapeError(f"sizes must be at least 1, but i is {i} and o is {o}.")
    start = before or Field.window()
    kernels = _choices("kernel", kernel, range(1, i + 1))
    if stride is None and len(kernels) * min(i, i // max(o - 1, 1) + 1) > _MOST_WINDOWS:
        raise UnsupportedError(
            f"from {i} to {o} there are too many kernels and strides to try. Give the kernel or the stride."
        )
    dilations = _choices("dilation", dilation, range(1, i + 1))
    found = []
    for k in kernels:
        for d in dilations if k > 1 else dilations[:1]:
            e = span(k, d)
            if e > i and (kernel is None or dilation is None):
                break  # the dilations ascend
            if field is not None and _seen(start, k, d) != field:
                continue
            # Beyond it not even a whole window of padding would give so many outputs.
            widest = min(e, (i + e) // max(o - 1, 1))
            for s in _choices("stride", stride, range(1, widest + 1)):
                found += [Window(k, s, p, d) for p in _paddings(i, o, k, s, d, padding)]
    found.sort(key=lambda window: (window.k, window.s, window.d))
    said = (("k", kernels), ("s", stride or "1 … e"), ("p", "0 … ⌊e / 2⌋" if padding is None else padding))
    domain = ", ".join(f"{name} {_told(values)}" for name, values in (*said, ("d", dilations)))
    if field is not None:
        domain += f", field {field}"
    bounds = f"{_times(o - 1)}e{_signed(-i)} ≤ p + p′ ≤ {_times(o)}e{_signed(-i - 1)}"
    return Windows(tuple(found), domain, bounds)


def _paddings(i: int, o: int, k: int, s: int, d: int, padding: Choice | str | Pair) -> Iterator[int | Pair | str]:
    """Yield those of the given paddings with which a window maps ``i`` to ``o``."""
    e = span(k, d)
    least = s * (o - 1) + e - i
    most = least + s - 1
    if isinstance(padding, str):
        (pair,) = resolve_padding(padding, (k,), s, d, (i,))
        if least <= sum(pair) <= most:
            yield padding
    elif isinstance(padding, tuple):
        if len(padding) != 2:
            raise ConfigError(f"padding is {padding}, but a tuple must be (before, after). Give several as a list.")
        if least <= sum(padding) <= most:
            yield padding
    else:
        for p in range(e // 2 + 1) if padding is None else [padding] if isinstance(padding, int) else padding:
            if least <= 2 * p <= most:
                yield p


def _choices(name: str, choice: Choice, every: range) -> list[int]:
    found = list(every) if choice is None else [choice] if isinstance(choice, int) else sorted(set(choice))
    if found and found[0] < 1:
        raise ConfigError(f"{name} is {found[0]}, but it must be at least 1.")
    return found


def _seen(before: Field, k: int, d: int) -> int:
    return through(before, conv_taps(k, d=d)).size


def _told(values: object) -> str:
    if isinstance(values, list | range) and len(values) > 1:
        run = values[-1] - values[0] == len(values) - 1
        return f"{values[0]} … {values[-1]}" if run else ", ".join(map(str, values))
    return str(values[0] if isinstance(values, list | range) and values else values)


def _times(factor: int) -> str:
    return "" if factor == 0 else f"{'' if factor == 1 else f'{factor} '}s + "


@dataclass(frozen=True)
class Depth:
    """The number of layers (or blocks, or levels) that a receptive field needs.

    Attributes:
        count: smallest number of layers.
        field: receptive field of that many layers.
        equation: growth of the field.
    """

    count: int
    field: Field
    equation: str

    def __str__(self) -> str:
        return f"{self.count} (field {self.field}): {self.equation}"


def solve_depth(target: int, block: Graph | Callable[[int], Graph], before: Field | None = None) -> Depth:
    """Return the number of repetitions of ``block`` with which the receptive field has at least ``target`` inputs.

    A block that adds g inputs at stride 1 reaches r + n g; one that strides by S adds S times as much each time:
    r + g (Sⁿ − 1) / (S − 1) (ANS, eq. 2, summed).

    Args:
        target: inputs to be seen, first to last.
        block: layers to be repeated; or a function from n to the whole network, such as a U-Net of n levels.
        before: field of the first block's input (default: the network's input).

    Raises:
        ConfigError: the field does not reach ``target`` with any number.

    >>> from convoxel.arithmetic.notation import parse_chain
    >>> print(solve_depth(224, parse_chain("k3p1")))
    112 (field 225): r = 1 + 2 n ≥ 224
    >>> print(solve_depth(224, parse_chain("k3p1x2 pool2")))
    6 (field 316/64): r = 1 + 5 (2ⁿ − 1) ≥ 224
    """
    start = before or Field.window()
    if not isinstance(block, Graph):
        return _depth_of_family(target, block)
    if target <= start.size:
        return Depth(0, start, f"r = {start.size} ≥ {target}")
    field, count = start, 0
    grown: list[int] = []
    while field.size < target:
        more = _after(block, field)
        grown.append(more.size - field.size)
        if grown[-1] <= 0 or count >= _MOST:
            raise ConfigError(
                f"target is {target}, but the field stays at {field.size} inputs with any number of {block}. Use "
                "kernels above 1, strides or dilation."
            )
        field, count = more, count + 1
    return Depth(count, field, f"r = {start.size} {_growth(grown, field, start)} ≥ {target}")


def _growth(grown: list[int], field: Field, start: Field) -> str:
    """Return in words how a field grows by ``grown``: by equal steps, by a factor, or as listed."""
    if len(set(grown)) == 1 and field.stride == start.stride:
        return f"+ {grown[0]} n"
    factor = Fraction(grown[-1], grown[-2]) if len(grown) > 1 else Fraction(0)
    if factor > 1 and factor.denominator == 1 and all(b == a * factor for a, b in itertools.pairwise(grown)):
        scale = "" if factor == 2 else f" / {factor - 1}"
        return f"+ {grown[0]} ({factor}ⁿ − 1){scale}"
    return " ".join(f"+ {step}" for step in grown)


def _depth_of_family(target: int, build: Callable[[int], Graph]) -> Depth:
    for count in range(65):
        field = _after(build(count), Field.window())
        if field.size >= target:
            return Depth(count, field, f"r({count}) = {field.size} ≥ {target}, the first of r(0), r(1), …")
    raise ConfigError(f"the field does not reach {target} inputs with 64 levels; it has {field.size}.")


def _after(graph: Graph, field: Field) -> Field:
    """Return the field after ``graph`` on an axis with ``field``, far from the ends of the axis."""
    own = _far_field(graph)
    reading = Taps(tuple(own.inputs(phase) for phase in range(own.period)), own.advance)
    return through(field, reading)


@dataclass(frozen=True)
class Alignment:
    """The padding that makes one branch fit another, or the nearest one.

    Attributes:
        paddings: every padding (before, after) after which sizes and centres agree for all input sizes; negative
            numbers crop. Empty where there is none.
        nearest: the padding that brings sizes and centres nearest, if the sizes can be made equal at all.
        apart: distance of the centres with ``nearest``, in inputs; None where the strides differ.
        equation: the equation from which they follow.
    """

    paddings: tuple[Pair, ...]
    nearest: Pair | None
    apart: Fraction | None
    equation: str

    def __bool__(self) -> bool:
        return bool(self.paddings)

    def to_dict(self) -> dict[str, object]:
        """Return every attribute by name."""
        return asdict(self)

    def __str__(self) -> str:
        if self.paddings:
            return f"padding {' or '.join(f'({a}, {b})' for a, b in self.paddings)}: {self.equation}"
        near = f"; ({self.nearest[0]}, {self.nearest[1]}) leaves them {self.apart} apart" if self.nearest else ""
        return f"no padding aligns them{near}: {self.equation}"


def solve_alignment(first: Graph, second: Graph, layer: int = 0) -> Alignment:
    """Return the padding in front of a layer of ``second`` that makes it fit ``first``, where both are joined.

    One position of padding before the layer moves every later centre by S inputs, with S the stride in front of it, so
    before = (centre of second − centre of first) / S; padding after then makes the sizes equal. Where the
    layer is a window, its own padding may be increased instead.

    Args:
        first: one branch.
        second: the other branch of the same input, a chain of layers.
        layer: index of the layer of ``second`` that is padded (default 0); the number of layers pads the output.

    Raises:
        ConfigError: ``second`` has no such layer.

    >>> from convoxel.arithmetic.notation import parse_chain
    >>> print(solve_alignment(parse_chain("k1"), parse_chain("k3d2")))
    padding (2, 2): before = (2 − 0) / 1
    >>> print(solve_alignment(parse_chain("k1"), parse_chain("k2")))
    no padding aligns them; (0, 1) leaves them 1/2 apart: before = (1/2 − 0) / 1
    """
    if not 0 <= layer <= len(second.nodes):
        raise ConfigError(f"layer is {layer}, but the second branch has {len(second.nodes)} layers. Count from 0.")
    fields = [_far_field(graph) for graph in (first, second)]
    if misalignment(*fields) is None:
        strides = " and ".join(str(field.stride) for field in fields)
        return Alignment((), None, None, f"the strides are {strides}; such branches drift apart")
    stride = Fraction(_far_field(Graph(second.nodes[:layer])).stride)
    shift = (fields[1].centre - fields[0].centre) / stride
    equation = f"before = ({fields[1].centre} − {fields[0].centre}) / {stride}"
    before = math.ceil(shift - Fraction(1, 2))  # the nearest; of two, the smaller
    fits = [(before, after) for after in _afters(first, second, layer, before)]
    if not fits:
        return Alignment((), None, None, f"{equation}; no padding after makes the sizes equal")
    apart = misalignment(fields[0], _far_field(_padded(second, layer, *fits[0])))
    return Alignment(tuple(fits) if apart == 0 else (), fits[0], apart, equation)


def _far_field(graph: Graph) -> Field:
    """Return the field after ``graph``, far from the ends of the axis."""
    near = solve_inputs(graph).sizes.nearest(_FAR)
    if not near:
        raise ShapeError(f"{graph} takes no input size. Call solve_inputs for its first layers to find the cause.")
    return graph.field(near[-1])


def _padded(graph: Graph, layer: int, before: int, after: int) -> Graph:
    """Return the chain ``graph`` with padding in front of ``layer``."""
    head, tail = graph.nodes[:layer], graph.nodes[layer:]
    pad = Graph.chain(Pad(before, after))
    return Graph(head).then(pad, Graph.chain(*(node.layer for node in tail)))


def _afters(first: Graph, second: Graph, layer: int, before: int) -> list[int]:
    """Return every padding after with which both branches have equal sizes for every input size that both take.

    The size grows with the padding after; candidates are those with equal sizes for a large input.
    """
    functions, *needs = first.size_functions()
    far = solve_inputs(first).sizes.nearest(_FAR)[-1]
    wanted = functions[-1].at(far)

    def size(after: int) -> int:
        return _padded(second, layer, before, after).size_functions()[0][-1].at(far)

    low, high = -1, 1
    while size(low) >= wanted:
        low *= 2
    while size(high) <= wanted:
        high *= 2
    found = []
    for after in range(low, high + 1):
        if size(after) == wanted:
            more, *conditions = _padded(second, layer, before, after).size_functions()
            positive, zero = (ours + theirs for ours, theirs in zip(needs, conditions, strict=True))
            if solve_conditions(positive, zero) == solve_conditions(positive, [*zero, more[-1].minus(functions[-1])]):
                found.append(after)
    return found
