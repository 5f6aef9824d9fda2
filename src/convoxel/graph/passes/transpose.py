"""The pass that pushes transposes past operators that commute with them, until opposite ones cancel.

Networks that put channels last by themselves (ConvNeXt; models that were born in TensorFlow) transpose, work on the
last axis, and transpose back. The engine's tensors are channels last anyway: a linear layer over the last axis of a
transposed tensor is a 1×1 convolution of the tensor as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from convoxel.errors import GraphError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.elementwise import COMBINATIONS, UNARY
from convoxel.graph.operators.table import make_node

_NATIVE_RANKS = range(3, 6)
_POINTWISE = {*UNARY, "clip", "power"}


class _Turned(NamedTuple):
    """A value that equals ``source`` with its axes in another order."""

    source: Value
    axes: tuple[int, ...]

    @property
    def channels_last(self) -> bool:
        """True if the value's last axis is the source's channels, and native steps can take the source."""
        native = self.source.dtype == "float32" and len(self.source.shape) in _NATIVE_RANKS
        return native and self.axes[-1] == 1


class _Sinking:
    """One pass over a graph; ``turned`` holds the values whose transposes are postponed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values = dict(graph.values)
        self.constants = dict(graph.constants)
        self.nodes: list[Node] = []
        self._names: set[str] = set()
        self.turned: dict[str, _Turned] = {}
        self.renamed: dict[str, str] = {}
        self._made: set[str] = set()

    def run(self) -> Graph:
        for node in self.graph.nodes:
            inputs = tuple(self.renamed.get(name, name) for name in node.inputs)
            node = dataclasses.replace(node, inputs=inputs)
            if node.operator == "transpose":
                self._turn(node)
            elif not any(name in self.turned for name in inputs) or not self._sunk(node):
                self._keep(node)
        outputs = tuple(self.renamed.get(name, name) for name in self.graph.outputs)
        for name in outputs:
            self._make(name)
        return self.graph.replace(nodes=tuple(self.nodes), outputs=outputs, constants=self.constants)

    def _turn(self, node: Node) -> None:
        name, axes = node.inputs[0], tuple(node["axes"])
        before = self.turned.get(name)
        if before is not None:
            axes = tuple(before.axes[axis] for axis in axes)
        source = before.source if before is not None else self.values.get(name)
        if source is None:  # a constant
            self._keep(node)
        elif axes == tuple(range(len(axes))):
            self.renamed[node.output.name] = source.name
        else:
            self.turned[node.output.name] = _Turned(source, axes)

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        self._names.add(node.name)

    def _keep(self, node: Node) -> None:
        for name in node.inputs:
            self._make(name)
        self._append(node)

    def _make(self, name: str) -> None:
        """Add a postponed transpose, because an operator needs its result."""
        if name in self.turned and name not in self._made:
            self._made.add(name)
            source, axes = self.turned[name]
            node = f"{name}.transpose" if name in self._names else name
            self._append(make_node("transpose", node, (source.name,), (self.values[name],), axes=axes))

    # ---- operators that commute with transposes --------------------------------------------------------------

    def _sunk(self, node: Node) -> bool:
        rule: Callable[[Node, _Turned], bool] | None = {
            "linear": self._linear,
            "matmul": self._linear,
            "layer_norm": self._layer_norm,
            "reduce": self._mean,
            "reshape": self._shuffle,
            "concat": self._concat,
            "slice": self._slice,
        }.get(node.operator)
        if node.operator in _POINTWISE:
            rule = self._pointwise
        elif node.operator in COMBINATIONS:
            return self._combined(node)
        first = self.turned.get(node.inputs[0])
        return rule is not None and first is not None and rule(node, first)

    def _emit(
        self,
        node: Node,
        operator: str,
        inputs: tuple[str, ...],
        shape: Extents,
        axes: tuple[int, ...],
        **attributes: Any,
    ) -> None:
        """Add a node on sources whose result, with its axes turned, is ``node``'s."""
        name = f"{node.output.name}.turned"
        value = Value(name, shape, node.output.dtype)
        self.values[name] = value
        self._append(make_node(operator, node.name, inputs, (value,), **attributes))
        self.turned[node.output.name] = _Turned(value, axes)

    def _constant(self, array: Array, name: str) -> str:
        while name in self.constants or name in self.values:
            name += "'"
        self.constants[name] = array
        return name

    def _pointwise(self, node: Node, x: _Turned) -> bool:
        if any(name and (name not in self.constants or self.constants[name].size != 1) for name in node.inputs[1:]):
            return False
        self._emit(node, node.operator, (x.source.name, *node.inputs[1:]), x.source.shape, x.axes, **node.attributes)
        return True

    def _linear(self, node: Node, x: _Turned) -> bool:
        weight = self.constants.get(node.inputs[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or not x.channels_last:
            return False
        ones = (1,) * (len(x.source.shape) - 2)
        rows, bias = (weight.T, "") if node.operator == "matmul" else (weight, node.inputs[2])
        if (bias and bias not in self.constants) or node.attributes.get("flatten"):
            return False
        name = self._constant(np.ascontiguousarray(rows).reshape(*rows.shape, *ones), f"{node.name}.kernel")
        n, _, *space = x.source.shape
        window = {"stride": ones, "padding": ((0, 0),) * len(ones), "dilation": ones}
        self._emit(node, "convolution", (x.source.name, name, bias), (n, rows.shape[0], *space), x.axes, **window)
        return True

    def _layer_norm(self, node: Node, x: _Turned) -> bool:
        last = len(x.axes) - 1
        if node["axis"] % len(x.axes) != last or not x.channels_last or len(node.outputs) != 1:
            return False
        inputs = (x.source.name, *node.inputs[1:])
        self._emit(node, "channel_norm", inputs, x.source.shape, x.axes, epsilon=node["epsilon"])
        return True

    def _mean(self, node: Node, x: _Turned) -> bool:
        reduced = {x.axes[axis] for axis in node["axes"]}
        shape = x.source.shape
        native = x.source.dtype == "float32" and len(shape) in _NATIVE_RANKS
        if not native or node["function"] != "mean" or reduced != set(range(2, len(shape))):
            return False
        ones = (1,) * (len(shape) - 2)
        self._emit(node, "adaptive_average_pool", (x.source.name,), (*shape[:2], *ones), x.axes, size=ones)
        if node["keep"]:
            return True
        pooled = self.turned.pop(node.output.name).source
        left = tuple(axis for axis in x.axes if axis not in reduced)
        flat = Value(f"{node.output.name}.flat", shape[:2])
        self.values[flat.name] = flat
        self._append(make_node("reshape", flat.name, (pooled.name,), (flat,), shape=flat.shape))
        if left == (0, 1):
            self.renamed[node.output.name] = flat.name
        else:
            self.turned[node.output.name] = _Turned(flat, left)
        return True

    def _shuffle(self, node: Node, x: _Turned) -> bool:
        """Recognise (n, g, c/g, …) → (n, c/g, g, …) → (n, c, …) as a channel shuffle."""
        parts = self.graph.producers.get(x.source.name)
        if parts is None or parts.operator != "reshape" or x.axes != (0, 2, 1, *range(3, len(x.axes))):
            return False
        whole = self.values.get(parts.inputs[0])
        if whole is None or whole.shape != node.output.shape or len(whole.shape) + 1 != len(x.axes):
            return False
        groups = x.source.shape[1]
        fits = x.source.shape[3:] == whole.shape[2:] and isinstance(groups, int) and len(whole.shape) in _NATIVE_RANKS
        if not fits or whole.dtype != "float32" or parts.inputs[0] in self.turned:
            return False
        self._append(make_node("shuffle", node.name, (whole.name,), node.outputs, groups=groups))
        return True

    def _slice(self, node: Node, x: _Turned) -> bool:
        """Slice the same axes of the source."""
        if x.source.dtype != "float32" or len(x.source.shape) not in _NATIVE_RANKS:
            return False
        where = [x.axes.index(axis) for axis in range(len(x.axes))]
        bounds = {key: tuple(node[key][axis] for axis in where) for key in ("starts", "stops", "steps")}
        shape = tuple(node.output.shape[axis] for axis in where)
        self._emit(node, "slice", (x.source.name,), shape, x.axes, **bounds)
        return True

    def _concat(self, node: Node, x: _Turned) -> bool:
        parts = [self.turned.get(name) for name in node.inputs]
        known = [part for part in parts if part is not None and part.axes == x.axes]
        native = all(p.source.dtype == "float32" and len(p.source.shape) in _NATIVE_RANKS for p in known)
        if len(known) != len(parts) or not native:
            return False
        axes, output = x.axes, node.output.shape
        shape = tuple(output[axes.index(axis)] for axis in range(len(axes)))
        self._emit(
            node, "concat", tuple(p.source.name for p in known), shape, axes, axis=axes[node["axis"] % len(axes)]
        )
        return True

    def _combined(self, node: Node) -> bool:
        """Combine two tensors transposed alike, or one with a number for all or for each channel."""
        a, b = (self.turned.get(name) for name in node.inputs)
        if a is not None and b is not None:
            native = a.source.dtype == b.source.dtype == "float32" and 2 <= len(a.axes) <= 5
            if a.axes != b.axes or a.source.shape != b.source.shape or not native:
                return False
            self._emit(node, node.operator, (a.source.name, b.source.name), a.source.shape, a.axes)
            return True
        turned, other = (a, node.inputs[1]) if a is not None else (b, node.inputs[0])
        number = self.constants.get(other)
        if turned is None or number is None or not turned.channels_last or number.ndim > len(turned.axes):
            return False
        channels = turned.source.shape[1]
        if number.size != 1 and (number.ndim == 0 or number.shape[-1] != number.size or number.size != channels):
            return False
        ones = (1,) * (len(turned.axes) - 2)
        name = self._constant(number.reshape(1, -1, *ones), f"{node.name}.number")
        inputs = (turned.source.name, name) if a is not None else (name, turned.source.name)
        self._emit(node, node.operator, inputs, turned.source.shape, turned.axes)
        return True


def sink_transposes(graph: Graph) -> Graph:
    """Return the graph with transposes moved down and opposite ones cancelled; a channel shuffle becomes one node."""
    if not any(node.operator == "transpose" for node in graph.nodes):
        return graph
    return _Sinking(graph).run()


def check_no_opposites(graph: Graph) -> None:
    """Raise if a transpose reads a transpose."""
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.operator == "transpose" else None
        if maker is not None and maker.operator == "transpose":
            raise GraphError(f"{node.name} turns what {maker.name} has turned")
