"""A figure by which the boxes of a network's graph are coloured: costs that are known, or what was measured.

A picture shows what it is given: times and errors are measured elsewhere, and come as a value for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.draw.network_outline import Node, Subject
from convoxel.draw.quantity import count, percent
from convoxel.errors import check_choice
from convoxel.inspect.table import bytes_text

#: Figures that are known without a run.
KNOWN = ("params", "macs", "bytes")


@dataclass(frozen=True)
class Heat:
    """A figure of a network's parts.

    Attributes:
        title: the figure in words, for the key.
        values: the figure of each step, by its name; steps without one count nothing.
        shown: writes it.
        adds: whether the figure of a part is the sum of its steps' (default), or that of its last one, as of an error.
    """

    title: str
    values: Mapping[str, float]
    shown: Callable[[Any], str]
    adds: bool = True

    def of(self, node: Node) -> float:
        """Return the figure of a part."""
        found = [self.values[step.name] for step in node.steps if step.name in self.values]
        return (sum(found) if self.adds else found[-1]) if found else 0.0

    def shares(self, nodes: Sequence[Node]) -> list[tuple[float, str]]:
        """Return for each part its share of the largest figure, and the figure in words; "" where it is 0."""
        values = [self.of(node) for node in nodes]
        most, total = max(values, default=0) or 1, sum(values) or 1
        of_all = [f" ({percent(value / total)})" if self.adds else "" for value in values]
        return [
            (value / most, f"{self.shown(value)}{text}" if value else "")
            for value, text in zip(values, of_all, strict=True)
        ]


def known_heat(name: str, of: Subject) -> Heat:
    """Return a figure of ``KNOWN``: trained parameters, multiply-accumulates, or bytes of activations."""
    check_choice("heat", name, KNOWN)
    steps = of.record.steps
    if name == "bytes":
        fresh = {
            step.name: sum(of.record.bytes_of(v.name) for v in step.outputs if of.record.storage[v.name] == v.name)
            for step in steps
        }
        return Heat("memory of activations", fresh, bytes_text)
    title = {"params": "parameters", "macs": "multiply-accumulates"}[name]
    return Heat(title, {step.name: getattr(step, name) for step in steps}, count)


def time_heat(times: Mapping[str, float], of: Subject) -> Heat:
    """Return measured seconds by the names of a program's steps, which may join several steps of the network."""
    known = {step.name for step in of.record.steps}
    values: dict[str, float] = {}
    for name, seconds in times.items():
        path = name.partition(":")[0]
        place = next((each for each in (name, path) if each in known), None)
        if place is not None:
            values[place] = values.get(place, 0.0) + seconds
    return Heat("time on this machine", values, lambda value: f"{1e3 * value:.3g} ms")


def error_heat(errors: Mapping[str, float]) -> Heat:
    """Return the relative errors of layers, as ``inspect.layer_error`` measures them."""
    return Heat("relative error of a layer's result in float32", errors, lambda value: f"{value:.2g}", adds=False)
