"""The growth of the receptive field through the layers, along one axis of the image.

Each row is a result of the network. Its bar covers the inputs that its middle position sees, and the dots are the
centres of the neighbouring positions. A short chain of layers is drawn with all its positions instead, each joined to
the positions that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from convoxel.arithmetic import Field, parse_chain
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure, beside
from convoxel.draw.letter import fit, text_width
from convoxel.draw.scene import Box, Disc, Line, Look, Shape, Words
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw.network_outline import Model

_ROW, _BAR, _PLOT, _WIDEST = 27.0, 13.0, 470.0, 220.0
_MOST_UNITS = 160
_BEYOND = 0.6  # share of the input by which bars may reach out of it
_IMAGE = Look(fill="grid")
_SIDE = Look(stroke="faint", weight=1)
_CONE = Look(fill="c2", opacity=0.16)
_INSIDE = Look(fill="c7")
_OUTSIDE = Look(fill="c7", opacity=0.35)
_NEXT = Look(fill="card", stroke="c7", weight=0.75)
_UNIT = Look(fill="rule")
_SEEN = Look(fill="c7")
_LINK = Look(stroke="rule", weight=0.75)
_READS = Look(stroke="c7", weight=1.4)


class _Stage(NamedTuple):
    """A result: its name, its size along the axis, and its receptive field."""

    name: str
    size: int
    field: Field

    def middle(self, size: int) -> tuple[int, tuple[int, int]] | None:
        """Return the position that is centred on the middle of the input, and the inputs that it sees."""
        seen = [(position, ends) for position in range(self.size) if (ends := self.field.at(position))]
        return min(seen, key=lambda entry: abs(entry[1][0] + entry[1][1] + 1 - size), default=None)


def funnel(model: Model, shape: Sequence[int] | None = None, *, axis: int = -1, depth: int | None = None) -> Figure:
    """Return the receptive fields through the depth of a network, along one axis of the image.

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a program.
        shape: (n, channels, *spatial) of the input (default: a usual one, for networks of the zoo).
        axis: number of the image's axis (default: the last).
        depth: number of parts of a module's path that make a row, as in :func:`network`.

    Raises:
        ConfigError: the model, the shape, the axis or the depth is wrong.

    >>> funnel("resnet18", (1, 3, 64, 64), depth=1).title
    'resnet18: receptive fields along the width of 64'
    """
    from convoxel.draw.network_outline import outline, subject

    of = subject(model, shape)
    count = len(of.size)
    if not -count <= axis < count:
        raise ConfigError(f"axis: got {axis}; the image has {count}, numbered from 0 (or from the last, −1).")
    axis %= count
    stages = []
    for node in outline(of, depth).nodes:
        spatial = node.shape[2:]
        if node.fields and len(spatial) == count and not node.joins:
            stages.append(_Stage(node.name, spatial[axis], node.fields[axis]))
    name = ("depth", "height", "width")[3 - count :][axis] if count > 1 else "length"
    return _bars(f"{of.name}: receptive fields along the {name} of {of.size[axis]}", stages, of.size[axis])


def funnel_of_chain(chain: str, size: int) -> Figure:
    """Return the receptive fields through a chain of layers over an input of ``size``.

    A chain with few positions is drawn with all of them, and those that the middle output reads are marked, layer by
    layer. A longer chain is drawn as by :func:`funnel`.

    Args:
        chain: words such as ``k3s2p1 k3 pool2``, as ``arithmetic.parse_chain`` takes them.
        size: size of the input.

    Raises:
        ConfigError: a word is not understood, or the size is below 1.
        ShapeError: a layer does not take its size.

    >>> funnel_of_chain("k3 k3", 9).title
    'k3 k3 on 9 inputs'
    """
    if size < 1:
        raise ConfigError(f"size: got {size}; expected at least 1.")
    graph = parse_chain(chain)
    sizes, fields = graph.sizes(size), graph.fields(size)
    names = ["input", *map(str, graph.nodes)]
    title = f"{' '.join(names[1:])} on {size} inputs"
    stages = [_Stage(*entry) for entry in zip(names, sizes, fields, strict=True)]
    if max(sizes) > 40 or sum(sizes) > _MOST_UNITS:
        return _bars(title, stages, size)
    reads = []
    for node, i, o in zip(graph.nodes, sizes[:-1], sizes[1:], strict=True):
        (taps,) = node.layer.taps(i)
        reads.append([[p for p in taps.at(q) if 0 <= p < i] if taps else [] for q in range(o)])
    return _units(title, stages, reads)


def connections(size: int = 9, kernel: int = 3, stride: int = 2) -> Figure:
    """Return a fully connected layer, a convolution and one with strides side by side: who is joined to whom.

    Args:
        size: number of inputs (default 9).
        kernel: kernel size of the convolutions (default 3).
        stride: stride of the last one (default 2).

    Raises:
        ConfigError: a number is below 1, or there are more inputs than are drawn.
        ShapeError: the kernel does not fit.

    >>> connections(5).text.split(". ")[0]
    'Fully connected: Each of the 3 outputs sees 5 of 5 inputs; 15 weights'
    """
    if not 1 <= size <= 40 or min(kernel, stride) < 1:
        raise ConfigError(f"size, kernel, stride: got {size}, {kernel}, {stride}; expected at least 1, and at most 40.")
    figures = []
    plain, strided = (parse_chain(f"k{kernel}s{step}") for step in (1, stride))
    outputs = plain.size(size)
    for title, graph in (("Fully connected", None), ("Convolution", plain), (f"Convolution, stride {stride}", strided)):
        if graph is None:
            reads = [list(range(size))] * outputs
            weights, says = size * outputs, f"Each of the {outputs} outputs sees {size} of {size} inputs"
        else:
            count = graph.size(size)
            (taps,) = graph.nodes[0].layer.taps(size)
            assert taps is not None
            reads = [list(taps.at(q)) for q in range(count)]
            weights, says = kernel, f"Each of the {count} outputs sees {kernel} of {size} inputs"
        figures.append(_joined(title, f"{says}; {weights} weights.", size, reads))
    return beside(figures, f"{size} inputs, three ways to join them", gap=26)


def _joined(title: str, text: str, size: int, reads: Sequence[Sequence[int]]) -> Figure:
    """Draw a layer as dots and lines; the lines of the middle output are marked."""
    shapes, width, top = heading(title, [text])
    gap, deep = 26.0, 96.0
    low, high = top + 26 + deep, top + 26
    wide = (size - 1) * gap
    inputs = [(EDGE + 8 + place * gap, low) for place in range(size)]
    # An output stands over the middle of what it reads, or all are spread evenly where each reads everything.
    even = all(len(read) == size for read in reads)
    step = wide / max(len(reads), 1)
    outputs = [
        (EDGE + 8 + ((place + 0.5) * step if even else (read[0] + read[-1]) / 2 * gap), high)
        for place, read in enumerate(reads)
    ]
    middle = len(reads) // 2
    for strong in (False, True):
        for place, read in enumerate(reads):
            if strong == (place == middle):
                shapes += [Line((outputs[place], inputs[i]), look=_READS if strong else _LINK) for i in read]
    shapes += [
        Disc(x, y, 7, look=_SEEN if place in reads[middle] else _UNIT, data={"input": str(place)})
        for place, (x, y) in enumerate(inputs)
    ]
    shapes += [
        Disc(x, y, 7, look=_SEEN if place == middle else _UNIT, data={"output": str(place)})
        for place, (x, y) in enumerate(outputs)
    ]
    return Figure(title, text, max(width, wide + 2 * EDGE + 16), low + 24, tuple(shapes))


def _bars(title: str, stages: Sequence[_Stage], size: int) -> Figure:
    """Draw a row for each result."""
    found = [(stage, middle) for stage in stages if (middle := stage.middle(size))]
    if not found:
        raise ConfigError("funnel: no receptive field is known. Describe the network to see where it is lost.")
    low = max(min(0, *(ends[0] for _, (_, ends) in found)), -_BEYOND * size)
    high = min(max(size, *(ends[1] + 1 for _, (_, ends) in found)), (1 + _BEYOND) * size)
    scale = _PLOT / (high - low)
    last = found[-1][0].field
    lines = [
        f"The last layer sees {last.size} of {size} inputs."
        if last.size <= size
        else f"The receptive field of the last layer, {last.size}, is wider than the input, {size}."
    ]
    shapes, width, top = heading(title, lines)
    top += 8
    names = [fit(stage.name, _WIDEST, 12) for stage, _ in found]
    left = EDGE + max(text_width(name, 12) for name in names) + 14
    numbers = [_said(stage.field) for stage, _ in found]
    right = left + _PLOT + 14 + max(text_width(text, 11) for text in numbers)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) * scale

    bottom = top + len(found) * _ROW + 6
    shapes.append(Box(x(0), top, size * scale, bottom - top, look=_IMAGE))
    rows = [top + 6 + index * _ROW for index in range(len(found))]
    for (y, (_, (_, a))), (below, (_, (_, b))) in pairwise(zip(rows, found, strict=True)):
        cone = ((x(a[0]), y + _BAR), (x(a[1] + 1), y + _BAR), (x(b[1] + 1), below), (x(b[0]), below))
        shapes.append(Line(cone, closed=True, look=_CONE))
    for edge in (0, size):
        shapes.append(Line(((x(edge), top), (x(edge), bottom)), look=_SIDE))
    dots: list[Shape] = []
    for y, name, text, (stage, (position, ends)) in zip(rows, names, numbers, found, strict=True):
        shapes.append(Words(left - 14, y + _BAR - 2, name, look=Look(fill="ink", size=12, align="end")))
        # The part in the padding is paler.
        inside = max(ends[0], 0), min(ends[1] + 1, size)
        note = f"{stage.name}: position {position} sees {ends[0]} to {ends[1]}"
        fact = {"row": stage.name, "ends": f"{ends[0]},{ends[1]}"}
        wide = max(x(ends[1] + 1) - x(ends[0]), 1.5)
        shapes.append(Box(x(ends[0]), y, wide, _BAR, 2, look=_OUTSIDE, note=note, data=fact))
        shapes.append(Box(x(inside[0]), y, max(x(inside[1]) - x(inside[0]), 1.5), _BAR, 2, look=_INSIDE))
        dots += _neighbours(stage, position, ends, x, y + _BAR / 2, scale)
        shapes.append(Words(left + _PLOT + 12, y + _BAR - 2, text, look=Look(fill="soft", size=11)))
    entries = [(_INSIDE, "inputs that the middle position sees"), (_IMAGE, "the input")]
    if any(ends[0] < 0 or ends[1] >= size for _, (_, ends) in found):
        entries.insert(1, (_OUTSIDE, "in the padding"))
    if dots:
        entries.append((_NEXT, "centres of neighbouring positions"))
    shapes += dots
    told, least, end = legend(entries, bottom + 14, max(width, right + EDGE))
    text = " ".join(f"{stage.name}: {said}." for (stage, _), said in zip(found, numbers, strict=True))
    return Figure(title, text, max(width, right + EDGE, least), end + EDGE - 8, (*shapes, *told))


def _neighbours(
    stage: _Stage, position: int, ends: tuple[int, int], x: Callable[[float], float], y: float, scale: float
) -> list[Shape]:
    """Return dots at the centres of the positions around the middle one, where they lie within its field."""
    if float(stage.field.stride) * scale < 9:
        return []
    dots: list[Shape] = []
    for other in range(max(0, position - 12), min(stage.size, position + 13)):
        seen = stage.field.at(other)
        centre = (seen[0] + seen[1] + 1) / 2 if seen else None
        if centre is not None and ends[0] < centre < ends[1] + 1:
            dots.append(Disc(x(centre), y, 2.3, look=_NEXT))
    return dots


def _said(field: Field) -> str:
    stride = f", stride {field.stride}" if field.stride != 1 else ""
    return f"{field.size}{stride}"


def _units(title: str, stages: Sequence[_Stage], reads: Sequence[Sequence[Sequence[int]]]) -> Figure:
    """Draw every position of every layer, and mark those that the middle output reads."""
    last = stages[-1]
    lines = [f"Each of the {last.size} outputs sees {last.field.size} of {stages[0].size} inputs."]
    shapes, width, top = heading(title, lines)
    size = stages[0].size
    names = max(text_width(f"{stage.name} → {stage.size}", 12) for stage in stages) + 22
    gap = min(34.0, 760.0 / size)
    radius = min(7.0, 0.34 * gap)
    deep = 62.0
    left, low = EDGE + names, top + 20 + (len(stages) - 1) * deep
    places = []
    for row, stage in enumerate(stages):
        centres = []
        for position in range(stage.size):
            ends = stage.field.at(position)
            centres.append((ends[0] + ends[1]) / 2 if ends else float(position))
        places.append([(left + (c + 0.5) * gap, low - row * deep) for c in centres])
    reach = min(0.0, *(x - left for row in places for x, _ in row))
    if reach < 0:  # some positions lie over the padding
        places = [[(x - reach + radius, y) for x, y in row] for row in places]
    middle = last.middle(size)
    chosen = [{middle[0]} if middle else set()]
    for read in reversed(reads):
        chosen.insert(0, {p for q in chosen[0] for p in read[q]})
    for row, read in enumerate(reads):
        for strong in (False, True):
            for q, sources in enumerate(read):
                if strong == (q in chosen[row + 1]):
                    look = _READS if strong else _LINK
                    shapes += [Line((places[row + 1][q], places[row][p]), look=look) for p in sources]
    for row, stage in enumerate(stages):
        word = stage.name if row == 0 else f"{stage.name} → {stage.size}"
        shapes.append(Words(EDGE, low - row * deep + 4, word, look=Look(fill="ink", size=12)))
        for position, (x, y) in enumerate(places[row]):
            look = _SEEN if position in chosen[row] else _UNIT
            fact = {"unit": f"{row},{position}", **({"seen": "yes"} if position in chosen[row] else {})}
            shapes.append(Disc(x, y, radius, look=look, data=fact))
    right = max(x for row in places for x, _ in row) + radius + EDGE
    entries = [(_SEEN, "what the middle output reads, layer by layer"), (_UNIT, "other positions")]
    told, least, end = legend(entries, low + 26, max(width, right))
    text = " ".join(f"{stage.name}: {stage.size} positions, field {_said(stage.field)}." for stage in stages)
    return Figure(title, text, max(width, right, least), end + EDGE - 8, (*shapes, *told))
