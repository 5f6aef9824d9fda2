"""Which memory a network holds at which step: a block for each value, as wide as it lives, as tall as it is large.

Blocks are placed as a program places them (``graph.memory``): those that live at the same time lie above each
other. What the values are and how long they live was found by ``inspect``.
"""

from __future__ import annotations

from collections.abc import Sequence

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.network_outline import Model, Subject, subject
from convoxel.draw.shape import Box, Line, Look, Shape, Words
from convoxel.draw.tick import ticks
from convoxel.graph.run.arena import Block, place_blocks
from convoxel.inspect.memory import Span, live_bytes, spans

__all__ = ["memory"]

_WIDE, _TALL = 720.0, 300.0
_UNITS = (("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9))
_BLOCK = Look(fill="c2", stroke="card", weight=0.75, opacity=0.75)
_PEAK = Look(fill="c1", stroke="card", weight=0.75, opacity=0.85)
_MOMENT = Look(stroke="ink", weight=1.2, dash=(4, 3))
_GRID = Look(stroke="grid", weight=1)


def memory(model: Model, shape: Sequence[int] | None = None) -> Figure:
    """Return the memory of a network's values over its steps, with the step at which most is alive.

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a program.
        shape: (n, channels, *spatial); a network of the zoo shows a usual one unless told.

    Raises:
        ConfigError: the model or the shape is wrong.

    >>> memory("resnet18", (1, 3, 64, 64)).title
    'resnet18 on 1 × 3 × 64 × 64: memory over time'
    """
    of = subject(model, shape)
    return _Chart(of, spans(of.trace), live_bytes(of.trace)).figure()


def _spoken(size: float) -> str:
    unit, scale = next(((u, s) for u, s in reversed(_UNITS) if size >= s), _UNITS[0])
    return f"{size / scale:.3g} {unit}"


class _Chart:
    """Steps to the right, bytes upwards."""

    def __init__(self, of: Subject, stretches: Sequence[Span], alive: Sequence[int]) -> None:
        self.of, self.alive = of, alive
        self.spans = [span for span in stretches if span.size_bytes]
        blocks = {str(n): Block(-(-s.size_bytes // 4), s.first, s.last) for n, s in enumerate(self.spans)}
        offsets, arena = place_blocks(blocks)
        self.offsets = [4 * offsets[str(n)] for n in range(len(self.spans))]
        self.arena = 4 * arena
        self.moment = max(range(len(alive)), key=alive.__getitem__, default=0)
        self.left = EDGE + 66.0

    def figure(self) -> Figure:
        """Return the picture."""
        steps, of = len(self.of.trace.steps), self.of
        spoken = " × ".join(map(str, of.trace.inputs[0].shape))
        title = f"{of.name} on {spoken}: memory over time"
        peak, name = self.alive[self.moment], of.trace.steps[self.moment].name
        text = f"At most {_spoken(peak)} are alive, in {name}; placed, they take {_spoken(self.arena)}."
        shapes, width, top = heading(title, [text])
        top += 30
        base = top + _TALL
        # From before the first step, where the input is, to behind the last.
        across, up = _WIDE / (steps + 2), _TALL / self.arena
        unit, scale = next((u, s) for u, s in reversed(_UNITS) if self.arena >= s)
        for value in ticks(0, self.arena / scale, 5):
            y = base - value * scale * up
            if y >= top - 1:
                shapes.append(Line(((self.left, y), (self.left + _WIDE, y)), look=_GRID))
                look = Look(fill="soft", size=11, align="end")
                shapes.append(Words(self.left - 8, y + 4, f"{value:g} {unit}", look=look))
        for number, (span, offset) in enumerate(zip(self.spans, self.offsets, strict=True)):
            shapes.append(self._block(number, span, offset, base, across, up))
        x = self.left + (self.moment + 1.5) * across
        shapes.append(Line(((x, top - 8), (x, base)), look=_MOMENT))
        says = fit(f"peak: {name}", 300, 11, bold=True)
        room = text_width(says, 11, bold=True)
        align = "end" if x + room > self.left + _WIDE else "start"
        shapes.append(Words(x, top - 13, says, look=Look(fill="ink", size=11, bold=True, align=align)))
        shapes += self._steps(base, across)
        entries = [
            (_BLOCK, "a value, from the step that writes it to the last that reads it"),
            (_PEAK, "alive at the peak"),
        ]
        right = self.left + _WIDE + EDGE
        told, least, end = legend(entries, base + 52, max(width, right))
        return Figure(title, text, max(width, right, least), end + EDGE - 8, (*shapes, *told))

    def _block(self, number: int, span: Span, offset: int, base: float, across: float, up: float) -> Box:
        at_peak = span.first <= self.moment <= span.last
        maker = "input" if span.first < 0 else self.of.trace.steps[span.first].name
        last = min(span.last, len(self.of.trace.steps))
        x = self.left + (span.first + 1) * across
        y = base - (offset + span.size_bytes) * up
        note = f"{maker}: {_spoken(span.size_bytes)}, steps {span.first + 1} to {last + 1}"
        wide, tall = (last - span.first + 1) * across, span.size_bytes * up
        fact = {"block": str(number), "bytes": str(span.size_bytes)}
        return Box(x, y, wide, max(tall, 0.6), 1, look=_PEAK if at_peak else _BLOCK, note=note, data=fact)

    def _steps(self, base: float, across: float) -> list[Shape]:
        """Return the axis of steps."""
        steps = len(self.of.trace.steps)
        shapes: list[Shape] = [Line(((self.left, base), (self.left + _WIDE, base)), look=Look(stroke="faint"))]
        for value in ticks(0, steps, 8):
            if 0 < value <= steps and value == int(value):
                x = self.left + (value + 0.5) * across
                shapes.append(Words(x, base + 16, f"{value:g}", look=Look(fill="soft", size=11, align="middle")))
        middle = Look(fill="soft", size=12, align="middle")
        shapes.append(Words(self.left + _WIDE / 2, base + 36, f"step (1 to {steps})", look=middle))
        return shapes
