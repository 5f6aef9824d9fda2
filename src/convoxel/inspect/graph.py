"""A graph of ours (an ONNX file, a saved program) becomes steps, by the shape rules of its operators.

A fused node is taken apart again: a convolution with an addition and an activation becomes three steps, so that
receptive fields, memory and costs are reckoned as they are for modules. Needs no PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoxel.errors import ConvoxelError, ShapeError
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.ir.size import Size, evaluate_shape, measure
from convoxel.graph.operators.table import OPERATORS, infer_shapes
from convoxel.inspect.step import Step, Trace, Value

__all__ = ["GraphSource"]

Shape = tuple[int, ...]


class GraphSource:
    """A graph that is described: what its steps are for some shapes, and whether it accepts others."""

    def __init__(self, graph: Graph, name: str = "") -> None:
        self.name = name or graph.name
        self._graph = graph

    @property
    def signature(self) -> str:
        """The inputs and their shapes, with names for open sizes."""
        return ", ".join(f"{value.name} ({', '.join(map(str, value.shape))})" for value in self._graph.inputs)

    def usual(self) -> tuple[Shape, ...]:
        """Return the shapes of the inputs, the batch 1 where it is open; () where another axis is open."""
        shapes = []
        for value in self._graph.inputs:
            batch, *rest = value.shape or (1,)
            if any(isinstance(extent, Size) for extent in rest):
                return ()
            shapes.append(tuple([1 if isinstance(batch, Size) else batch, *map(_whole, rest)][: len(value.shape)]))
        return tuple(shapes)

    def trace(self, shapes: Sequence[Shape]) -> Trace:
        """Return the steps for inputs of ``shapes``.

        Raises:
            ShapeError: the graph does not accept them.
        """
        sizes = self._measure(shapes)
        try:
            found = infer_shapes(self._graph, sizes)
        except ShapeError as reason:
            came = ", ".join(map(str, shapes))
            raise ShapeError(f"describe: {self.name} does not accept {came}: {reason}. Give other sizes.") from None
        return _Walk(self._graph, sizes, found).trace()

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """Return the shapes of what comes out for inputs of ``shapes``, or None where the graph refuses them."""
        try:
            found = infer_shapes(self._graph, self._measure(shapes))
        except ConvoxelError:
            return None
        return tuple(found[name] for name in self._graph.outputs)

    def _measure(self, shapes: Sequence[Shape]) -> dict[str, int]:
        inputs = self._graph.inputs
        came = ", ".join(map(str, shapes))
        if len(shapes) != len(inputs) or any(len(s) != len(v.shape) for s, v in zip(shapes, inputs, strict=True)):
            raise ShapeError(
                f"describe: shape {came} came, but {self.name} takes {self.signature}. Give one shape an input."
            )
        sizes = measure([value.shape for value in inputs], shapes)
        for shape, value in zip(shapes, inputs, strict=True):
            if evaluate_shape(value.shape, sizes) != tuple(shape):
                raise ShapeError(
                    f"describe: shape {came} came, but {self.name} takes {self.signature}. Keep its fixed sizes."
                )
        if any(not guard.value(sizes) for guard in self._graph.guards):
            raise ShapeError(f"describe: {self.name} was recorded for other sizes than {came}. Give sizes like those.")
        return sizes


def _whole(extent: Any) -> int:
    return int(extent)


@dataclass(frozen=True)
class _Part:
    """One step of a node: operator, attributes, names of what it reads, name of what it writes."""

    operator: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str
    shape: Shape


class _Walk:
    """From node to node; ``values`` holds what each name became."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], shapes: Mapping[str, Shape]) -> None:
        self._graph, self._sizes, self._shapes = graph, sizes, shapes
        self._values: dict[str, Value] = {}
        self._counted: set[str] = set()
        self._inputs = tuple(self._make(value.name, shapes[value.name], value.dtype) for value in graph.inputs)

    def trace(self) -> Trace:
        steps = tuple(step for node in self._graph.nodes for step in self._steps(node.resolved(self._sizes)))
        outputs = tuple(self._values[name] for name in self._graph.outputs if name in self._values)
        return Trace(self._graph.name, self._inputs, outputs, steps, sum(step.params for step in steps))

    def _make(self, name: str, shape: Shape, dtype: str = "float32", storage: int | None = None) -> Value:
        key = len(self._values) + 1
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._values[name] = Value(key, tuple(shape), key if storage is None else storage, size)
        return self._values[name]

    def _steps(self, node: Node) -> Iterator[Step]:
        shapes = [self._shapes[name] if name else () for name in node.inputs]
        parts = list(_parts(node, shapes, [self._shapes[value.name] for value in node.outputs]))
        weights, params = self._weights(node)
        for part in parts:
            inputs = tuple(self._values[name] for name in part.inputs if name in self._values)
            if not inputs:  # made of constants alone
                continue
            last = part is parts[-1]
            outputs = []
            for name, shape, dtype in (
                [(value.name, self._shapes[value.name], value.dtype) for value in node.outputs]
                if last
                else [(part.output, part.shape, node.outputs[0].dtype)]
            ):
                view = part.operator in ("reshape", "narrow", "identity")
                outputs.append(self._make(name, shape, dtype, inputs[0].storage if view else None))
            name = node.name if len(parts) == 1 or part is parts[0] else f"{node.name}.{part.operator}"
            yield Step(name, part.operator, inputs, tuple(outputs), part.attributes, params, weights)
            params = weights = 0

    def _weights(self, node: Node) -> tuple[int, int]:
        """Return the numbers that the node reads beside its inputs, and those of them not counted before."""
        weights = params = 0
        for index, name in enumerate(node.inputs):
            array = self._graph.constants.get(name)
            if array is None or not np.issubdtype(array.dtype, np.floating):
                continue
            weights += array.size
            statistic = OPERATORS[node.operator].operand(index).name in ("mean", "variance")  # not trained
            params += 0 if statistic or name in self._counted else array.size
            self._counted.add(name)
        return weights, params


Described = tuple[str, dict[str, Any]]


def _parts(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Iterator[_Part]:
    """Take a node apart: flatten, scale by a gate, compute, add a residual, activate."""
    operator, attributes = _describe(node, shapes, results)
    name, result = node.outputs[0].name, results[0]
    operands = dict(zip((o.name for o in OPERATORS[node.operator].operands), node.inputs, strict=False))
    inputs = tuple(filter(None, node.inputs))
    if operator == "dense" and node.attributes.get("flatten") and len(shapes[0]) > 2:
        flat = (shapes[0][0], math.prod(shapes[0][1:]))
        yield _Part("reshape", {"function": "flatten"}, inputs[:1], f"{name}:flat", flat)
        inputs = (f"{name}:flat", *inputs[1:])
    if node.operator == "depthwise_block":
        *before, _ = _chain(node, shapes, result)
        inputs = inputs[:1]
        for number, (told, activation, shape) in enumerate(before):
            part = f"{name}:between{number}"
            written = part if activation == "none" else f"{part}:0"
            yield _Part("convolution", told, inputs, written, shape)
            if activation != "none":
                yield _Part("activation", {"function": activation}, (written,), part, shape)
            inputs = (part,)
    gate, residual = operands.get("gate", ""), operands.get("residual", "")
    if gate:
        yield _Part("multiply", {"function": "gate"}, (inputs[0], gate), f"{name}:gated", shapes[0])
        inputs = (f"{name}:gated", *inputs[1:])
    inputs = tuple(operand for operand in inputs if operand not in (gate, residual) or operand == inputs[0])
    behind: list[tuple[str, dict[str, Any], tuple[str, ...]]] = []
    if residual:
        behind.append(("add", {"function": "add"}, (residual,)))
    activation = node.attributes.get("activation", "none")
    if OPERATORS[node.operator].epilogue and activation != "none":
        behind.append(("activation", {"function": activation}, ()))
    written = name if not behind else f"{name}:0"
    yield _Part(operator, attributes, inputs, written, result)
    for number, (word, told, more) in enumerate(behind, start=1):
        read, written = written, name if number == len(behind) else f"{name}:{number}"
        yield _Part(word, told, (read, *more), written, result)


def _chain(node: Node, shapes: Sequence[Shape], result: Shape) -> list[tuple[Mapping[str, Any], str, Shape]]:
    """The convolutions of a depthwise block: attributes, activation before the next one, shape."""
    x, weight = shapes[0], shapes[1]
    expand, project = (bool(node.inputs[i]) for i in (4, 6))
    ones = (1,) * len(x[2:])
    pointwise = {"kernel": ones, "stride": ones, "padding": ((0, 0),) * len(ones), "dilation": ones, "groups": 1}
    pointwise["function"] = "convolution"
    _, middle = _window(node, shapes, [result])
    parts: list[tuple[Mapping[str, Any], str, Shape]] = []
    if expand:
        parts.append((pointwise, node["expand_activation"], (x[0], weight[0], *x[2:])))
    between = (x[0], weight[0], *result[2:])
    parts.append(({**middle, "function": "convolution"}, node["depthwise_activation"], between))
    if project:
        parts.append((pointwise, node["activation"], result))
    return parts


def _describe(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    bare = node.operator
    rule = _RULES.get(bare)
    if rule is None and OPERATORS[node.operator].window is not None:
        rule = _window
    if rule is None:
        macs = OPERATORS[node.operator].macs(node, shapes, results)
        return "unknown", {"function": bare, "macs": macs}
    operator, attributes = rule(node, shapes, results)
    return operator, {"function": bare, **attributes}


Rule = Callable[[Node, Sequence[Shape], Sequence[Shape]], Described]


def _plain(operator: str) -> Rule:
    return lambda node, shapes, results: (operator, {})


def _window(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    attributes = dict(node.attributes)
    word = node.operator
    kernel = tuple(attributes.get("kernel") or shapes[1][2:])
    return {"lp_pool": "average_pool"}.get(word, word), {
        "kernel": kernel,
        "stride": tuple(attributes["stride"]),
        "padding": tuple(attributes["padding"]),
        "dilation": tuple(attributes.get("dilation", (1,) * len(kernel))),
        "groups": attributes.get("groups", 1),
        "ceil": attributes.get("ceil", False),
        "output_padding": tuple(attributes.get("output_padding", ())),
    }


def _last_of_block(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    return "convolution", dict(_chain(node, shapes, results[0])[-1][0])


def _activation(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    return "activation", {"function": node.attributes.get("activation", node.operator)}


def _normalise(first: int | None) -> Rule:
    """Over the axes from ``first`` on, or from the node's ``axis`` on."""

    def rule(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
        rank = len(results[0])
        begin = node["axis"] % rank if first is None else first
        return "normalise", {"axes": tuple(range(begin, rank))}

    return rule


def _over(operator: str) -> Rule:
    """Over the axes that the node names."""

    def rule(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
        rank = len(shapes[0])
        axes = node.attributes.get("axes", node.attributes.get("axis"))
        axes = range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes
        return operator, {"axes": tuple(axis % rank for axis in axes), "keep": bool(node.attributes.get("keep", True))}

    return rule


def _adaptive(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    return "adaptive_pool", {"axes": len(node["size"])}


def _resize(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    scale = node["scale"] or (None,) * (len(shapes[0]) - 2)
    mode = str(node["mode"]).replace("_", "-")
    return "resize", {"mode": mode, "align_corners": node["align_corners"], "scale": tuple(scale)}


def _interpolate(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    """Say ONNX's words for coordinates in PyTorch's, where PyTorch has them."""
    sizes = zip(shapes[0][2:], results[0][2:], strict=True)
    # A kept axis is copied whatever the words; upsampling by a whole factor puts no position half-way.
    whole = all(new % old == 0 for old, new in sizes)
    how = (node["mode"], node["coordinate"])
    known = {
        ("linear", "half_pixel"): ("linear", False),
        ("linear", "pytorch_half_pixel"): ("linear", False),
        ("linear", "align_corners"): ("linear", True),
        ("cubic", "half_pixel"): ("cubic", False),
        ("cubic", "pytorch_half_pixel"): ("cubic", False),
        ("cubic", "align_corners"): ("cubic", True),
    }
    if how == ("nearest", "asymmetric") and node["rounding"] == "floor":
        known[how] = ("nearest", False)
    if how[0] == "nearest" and "half_pixel" in how[1] and (whole or node["rounding"] == "round_prefer_ceil"):
        known[how] = ("nearest-exact", False)
    if how not in known or node["antialias"] or node["exclude_outside"]:
        return "unknown", {"function": f"{how[0]} interpolation with {how[1]} coordinates"}
    mode, align = known[how]
    return "resize", {"mode": mode, "align_corners": align, "scale": tuple(node["scale"][2:])}


def _pad(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    pairs = tuple(node["padding"])
    return "pad", {"padding": ((0, 0),) * (len(shapes[0]) - len(pairs)) + pairs}


def _concat(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    return "concat", {"axis": node["axis"] % len(results[0])}


def _slice(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    slices = {}
    for axis, bounds in enumerate(zip(node["starts"], node["stops"], node["steps"], strict=True)):
        start, _, step = slice(*bounds).indices(shapes[0][axis])
        slices[axis] = (start, step)
    return "narrow", {"slices": slices}


def _matmul(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    if len(shapes[0]) > 1 and len(shapes[1]) == 2:
        return "dense", {}
    return "matmul", {"inner": shapes[0][-1]}


def _transpose(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
    return "permute", {"order": tuple(node["axes"])}


def _blocks(operator: str) -> Rule:
    """Positions to channels, or back, in blocks."""

    def rule(node: Node, shapes: Sequence[Shape], results: Sequence[Shape]) -> Described:
        return operator, {"block": (node["block"],) * (len(shapes[0]) - 2)}

    return rule


_ELEMENTWISE = (
    "abs ceil celu clip cos dequantise elu erf exp floor gelu hard_sigmoid hard_swish leaky_relu log mish negate not "
    "prelu quantise reciprocal relu round selu shrink sigmoid sign sin softplus softsign sqrt swish tan tanh "
    "thresholded_relu"
)
_COMBINES = (
    "divide maximum minimum modulo power remainder subtract and equal greater greater_or_equal less less_or_equal "
    "or xor select expand"
)

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*_ELEMENTWISE.split(), "activation"), _activation),
    **{name: _plain("combine") for name in _COMBINES.split()},
    **{name: _plain("identity") for name in ("cast", "channels_last", "channels_first", "shuffle")},
    **{name: _plain("batch_norm") for name in ("batch_norm", "affine")},
    "reduce": _over("reduce"),
    "linear": _plain("dense"),
    "add": _plain("add"),
    "multiply": _plain("multiply"),
    "normalise": _normalise(2),
    "channel_norm": _normalise(1),
    "layer_norm": _normalise(None),
    "rms_norm": _normalise(None),
    "local_response_norm": lambda node, shapes, results: ("normalise", {"axes": (1,)}),
    "mean_variance_normalise": _over("normalise"),
    "lp_normalise": _over("normalise"),
    "softmax": _over("softmax"),
    "hardmax": _over("softmax"),
    "arg_extreme": _over("reduce"),
    "convolution": _window,
    "depthwise_block": _last_of_block,
    "transposed_convolution": _window,
    "max_pool": _window,
    "lp_pool": _window,
    "adaptive_average_pool": _adaptive,
    "adaptive_max_pool": _adaptive,
    "resize": _resize,
    "interpolate": _interpolate,
    "pad": _pad,
    "concat": _concat,
    "slice": _slice,
    "matmul": _matmul,
    "transpose": _transpose,
    "reshape": _plain("reshape"),
    "depth_to_space": _blocks("depth_to_space"),
    "space_to_depth": _blocks("space_to_depth"),
}
