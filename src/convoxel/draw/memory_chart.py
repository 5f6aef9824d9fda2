"""The memory of a network over its steps: a block for each value, as wide as its lifetime and as tall as its size.

Blocks are placed as a program places them (``graph.run.arena``): those that are alive at the same time lie above each
other. The values of the compiled program and their lifetimes come from ``inspect``.
"""

from __future__ import annotations

from collections.abc import Sequence

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.chart import Axis, Plot, ticks
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.network_outline import Model, Subject, subject
from convoxel.draw.quantity import sizes
from convoxel.draw.scene import Box, Line, Look, Words
from convoxel.graph.run.arena import Block, place_blocks
from convoxel.inspect.memory import MemoryPlan, Span
from convoxel.inspect.table import bytes_text

_WIDE, _TALL = 720.0, 300.0
_UNITS = (("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30))  # those of tables
_BLOCK = Look(fill="c2", stroke="card", weight=0.75, opacity=0.75)
_PEAK = Look(fill="c1", stroke="card", weight=0.75, opacity=0.85)
_MOMENT = Look(stroke="ink", weight=1.2, dash=(4, 3))


def memory(model: Model, shape: Sequence[int] | None = None) -> Figure:
    """Return the memory of a network's values over its steps, with the step at which most is alive.

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a program.
        shape: (n, channels, *spatial) of the input (default: a usual one, for networks of the zoo).

    Raises:
        ConfigError: the model or the shape is wrong.

    >>> memory("resnet18", (1, 3, 64, 64)).title
    'resnet18 on 1 × 3 × 64 × 64: memory over time'
    """
    of = subject(model, shape)
    return _Chart(of, MemoryPlan(of.record)).figure()


def _spoken(size: float) -> str:
    return bytes_text(round(size)) or "0 B"


class _Chart:
    """Steps to the right, bytes upwards."""

    def __init__(self, of: Subject, plan: MemoryPlan) -> None:
        self.of, self.alive, self.spans = of, plan.alive, plan.spans
        self.names = [node.name for node in plan.graph.nodes]
        blocks = {str(n): Block(-(-s.size_bytes // 4), s.first, s.last) for n, s in enumerate(self.spans)}
        offsets, arena = place_blocks(blocks)
        self.offsets = [4 * offsets[str(n)] for n in range(len(self.spans))]
        self.arena = 4 * arena
        self.moment = max(range(len(plan.alive)), key=plan.alive.__getitem__, default=0)

    def figure(self) -> Figure:
        """Return the picture."""
        of, peak, name = self.of, self.alive[self.moment], self.names[self.moment]
        title = f"{of.name} on {sizes(of.record.inputs[0])}: memory over time"
        text = f"At most {_spoken(peak)} are alive, in {name}; placed, they take {_spoken(self.arena)}."
        shapes, width, top = heading(title, [text])
        plot = Plot(EDGE + 66.0, top + 30, _WIDE, _TALL, *self._axes())
        shapes += plot.axes(f"step (1 to {len(self.alive)})")
        for number, (span, offset) in enumerate(zip(self.spans, self.offsets, strict=True)):
            shapes.append(self._block(number, span, offset, plot))
        x, _ = plot.at(self.moment + 1, 0)
        shapes.append(Line(((x, plot.top - 8), (x, plot.base)), look=_MOMENT))
        says = fit(f"peak: {name}", 300, 11, bold=True)
        right = plot.left + _WIDE
        align = "end" if x + text_width(says, 11, bold=True) > right else "start"
        shapes.append(Words(x, plot.top - 13, says, look=Look(fill="ink", size=11, bold=True, align=align)))
        entries = [
            (_BLOCK, "a value, from the step that writes it to the last that reads it"),
            (_PEAK, "alive at the peak"),
        ]
        told, least, end = legend(entries, plot.base + 52, max(width, right + EDGE))
        return Figure(title, text, max(width, right + EDGE, least), end + EDGE - 8, (*shapes, *told))

    def _axes(self) -> tuple[Axis, Axis]:
        """Return steps, numbered from 1, from before the first, where the input is, to behind the last; and bytes."""
        steps = len(self.alive)
        unit, scale = next((u, s) for u, s in reversed(_UNITS) if self.arena >= s)
        levels = tuple(value * scale for value in ticks(0, self.arena / scale, 5) if value * scale <= self.arena)
        numbers = tuple(value for value in ticks(0, steps, 8) if 0 < value <= steps and value == int(value))
        return (
            Axis(-0.5, steps + 1.5, numbers),
            Axis(0.0, self.arena, levels, lambda size: f"{size / scale:g} {unit}"),
        )

    def _block(self, number: int, span: Span, offset: int, plot: Plot) -> Box:
        maker = "input" if span.is_input else self.names[span.first]
        x, y = plot.at(span.first + 0.5, offset + span.size_bytes)
        end, below = plot.at(span.last + 1.5, offset)
        note = f"{maker}: {_spoken(span.size_bytes)}, steps {span.first + 1} to {span.last + 1}"
        look = _PEAK if span.first <= self.moment <= span.last else _BLOCK
        fact = {"block": str(number), "bytes": str(span.size_bytes)}
        return Box(x, y, end - x, max(below - y, 0.6), 1, look=look, note=note, data=fact)
