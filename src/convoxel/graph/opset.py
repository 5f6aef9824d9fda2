"""What every operator means: one row each.

To add an operator, add a row to ``ROWS``, its shape rule to ``rules``, its lowering to ``lowering``, and a
rule that makes it to ``from_torch.layers`` or ``from_torch.tensors``. No other file knows operators by name,
save the passes that rewrite them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from convoxel.errors import GraphError, ShapeError
from convoxel.graph import lowering, rules
from convoxel.graph.ir import CHANNELS_FIRST, CHANNELS_LAST, Graph, Node, Value, verify_structure
from convoxel.graph.lowering import Step
from convoxel.graph.size import Shape, evaluate_shape
from convoxel.native import View

__all__ = ["OPERATORS", "REQUIRED", "Operand", "Operator", "Window", "infer_shapes", "make_node", "verify"]

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""The default of an attribute that has none."""


class Operand(NamedTuple):
    """A declared operand: a tensor of the graph, or (``constant``) an array known when the graph is made."""

    name: str
    constant: bool = False
    optional: bool = False
    variadic: bool = False


class Window(NamedTuple):
    """The window of an operator along each spatial axis: all that the receptive field needs to know."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Operator:
    """One row.

    ``layout`` is where operands and results lie: ``"last"`` for native steps, ``"first"`` for operators that
    work on arrays, ``"any"`` for those that convert. A native operator has ``lower`` (adds steps to the plan)
    or ``alias`` (its result is a view of its first operand); the others have ``host``.
    ``epilogue`` operators take a fused activation and, if they have the operand, a residual.
    """

    name: str
    operands: tuple[Operand, ...]
    shape: rules.ShapeRule
    attributes: Mapping[str, Any] = field(default_factory=dict)
    macs: rules.Macs = rules.no_macs
    window: Callable[[Node, Shape], Window] | None = None
    layout: str = CHANNELS_LAST
    lower: Callable[[Step], None] | None = None
    alias: Callable[[Node, Shape, View], View] | None = None
    host: Callable[[Node, Sequence[Any], Mapping[str, int]], list[Any]] | None = None

    @property
    def epilogue(self) -> bool:
        """Whether the operator can apply an activation to its result."""
        return "activation" in self.attributes and self.name != "activation"

    def operand(self, index: int) -> Operand:
        """Return the declaration of the operand at ``index``."""
        return self.operands[min(index, len(self.operands) - 1)]


X = Operand("x")
WEIGHT = Operand("weight", constant=True)
OPTIONAL_WEIGHT = Operand("weight", constant=True, optional=True)
BIAS = Operand("bias", constant=True, optional=True)
RESIDUAL = Operand("residual", optional=True)
EPILOGUE = {"activation": "none", "slope": 0.0}


def _convolution_window(node: Node, weight: Shape) -> Window:
    transposed = node.operator == "transposed_convolution"
    return Window(weight[2:], node["stride"], node["padding"], node["dilation"], transposed)


def _pool_window(node: Node, weight: Shape) -> Window:
    dilation = node.attributes.get("dilation", (1,) * len(node["kernel"]))
    return Window(node["kernel"], node["stride"], node["padding"], dilation)


ROWS = (
    Operator(
        "convolution",
        (X, WEIGHT, BIAS, RESIDUAL),
        rules.convolution,
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1, **EPILOGUE},
        macs=rules.convolution_macs,
        window=_convolution_window,
        lower=lowering.convolution,
    ),
    Operator(
        "transposed_convolution",
        (X, WEIGHT, BIAS, RESIDUAL),
        rules.transposed_convolution,
        {
            "stride": REQUIRED,
            "padding": REQUIRED,
            "output_padding": REQUIRED,
            "dilation": REQUIRED,
            "groups": 1,
            **EPILOGUE,
        },
        macs=rules.transposed_macs,
        window=_convolution_window,
        lower=lowering.transposed_convolution,
    ),
    Operator(
        "dense",
        (X, WEIGHT, BIAS, RESIDUAL),
        rules.dense,
        dict(EPILOGUE),
        macs=rules.dense_macs,
        lower=lowering.dense,
    ),
    Operator(
        "activation",
        (X,),
        rules.same,
        {"activation": REQUIRED, "slope": 0.0},
        lower=lowering.activation,
    ),
    Operator(
        "affine",
        (X, Operand("scale", constant=True), Operand("shift", constant=True)),
        rules.same,
        dict(EPILOGUE),
        lower=lowering.affine,
    ),
    Operator(
        "batch_norm",
        (X, OPTIONAL_WEIGHT, BIAS, Operand("mean", constant=True), Operand("variance", constant=True)),
        rules.same,
        {"epsilon": REQUIRED},
        lower=lowering.no_lowering,  # fold_batch_norm leaves none
    ),
    Operator(
        "normalise",
        (X, OPTIONAL_WEIGHT, BIAS),
        rules.same,
        {"groups": REQUIRED, "epsilon": REQUIRED, **EPILOGUE},
        lower=lowering.normalise,
    ),
    Operator(
        "max_pool",
        (X,),
        rules.max_pool,
        {"kernel": REQUIRED, "stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "ceil": False},
        window=_pool_window,
        lower=lowering.max_pool,
    ),
    Operator(
        "average_pool",
        (X,),
        rules.average_pool,
        {
            "kernel": REQUIRED,
            "stride": REQUIRED,
            "padding": REQUIRED,
            "ceil": False,
            "count_padding": True,
            "divisor": 0,
        },
        window=_pool_window,
        lower=lowering.average_pool,
    ),
    Operator(
        "adaptive_average_pool",
        (X,),
        rules.adaptive_pool,
        {"size": REQUIRED},
        lower=lowering.adaptive_average_pool,
    ),
    Operator(
        "global_max_pool",
        (X,),
        rules.adaptive_pool,
        {"size": REQUIRED},
        lower=lowering.global_max_pool,
    ),
    Operator(
        "resize",
        (X,),
        rules.resize,
        {"size": (), "scale": (), "mode": REQUIRED, "align_corners": False},
        lower=lowering.resize,
    ),
    Operator("pad", (X,), rules.pad, {"padding": REQUIRED, "mode": "zero"}, lower=lowering.pad),
    Operator(
        "concat",
        (Operand("parts", variadic=True),),
        rules.concat,
        {"axis": REQUIRED},
        lower=lowering.no_lowering,  # the plan gives every part its place, or copies it there
    ),
    Operator("add", (X, Operand("y")), rules.broadcast, dict(EPILOGUE), lower=lowering.combine),
    Operator("multiply", (X, Operand("y")), rules.broadcast, dict(EPILOGUE), lower=lowering.combine),
    Operator(
        "narrow",
        (X,),
        rules.narrow,
        {"axis": REQUIRED, "start": 0, "stop": None, "step": 1},
        alias=lowering.alias_narrow,
    ),
    Operator("squeeze", (X,), rules.reshape, {"shape": REQUIRED}, alias=lowering.alias_squeeze),
    Operator(
        "reshape",
        (X,),
        rules.reshape,
        {"shape": REQUIRED},
        layout=CHANNELS_FIRST,
        host=lowering.host_reshape,
    ),
    Operator(
        "foreign",
        (Operand("operands", variadic=True, optional=True),),
        rules.foreign,
        {"label": REQUIRED, "call": REQUIRED, "shapes": REQUIRED, "sizes": ()},
        layout=CHANNELS_FIRST,
        host=lowering.host_foreign,
    ),
    # The two conversions; the plan adds their steps, or finds that none is needed.
    Operator("channels_last", (X,), rules.same, layout="any"),
    Operator("channels_first", (X,), rules.same, layout="any"),
)

OPERATORS: Mapping[str, Operator] = {row.name: row for row in ROWS}


def make_node(operator: str, name: str, inputs: Sequence[str], outputs: Sequence[Value], **attributes: Any) -> Node:
    """Return a node with absent operands and usual attributes filled in."""
    row = OPERATORS[operator]
    operands = tuple(inputs)
    if not row.operands[-1].variadic:
        operands += ("",) * (len(row.operands) - len(operands))
    return Node(operator, name, operands, tuple(outputs), {**row.attributes, **attributes})


def verify(graph: Graph) -> None:
    """Raise ``GraphError`` unless the graph is well formed and every node is what its row says."""
    verify_structure(graph)
    for node in graph.nodes:
        row = OPERATORS.get(node.operator)
        if row is None:
            raise GraphError(f"node {node.name}: there is no operator {node.operator!r}")
        if set(node.attributes) != set(row.attributes):
            odd = sorted(set(node.attributes) ^ set(row.attributes))
            raise GraphError(f"node {node.name}: {node.operator} lacks or does not know {', '.join(odd)}")
        missing = [key for key, value in node.attributes.items() if value is REQUIRED]
        if missing:
            raise GraphError(f"node {node.name}: {node.operator} needs {', '.join(missing)}")
        if len(node.inputs) != len(row.operands) and not row.operands[-1].variadic:
            raise GraphError(f"node {node.name}: {len(node.inputs)} operands, not {len(row.operands)}")
        for index, name in enumerate(node.inputs):
            operand = row.operand(index)
            if not name and not operand.optional:
                raise GraphError(f"node {node.name}: {node.operator} needs its operand {operand.name}")
            if name and operand.constant and name not in graph.constants:
                raise GraphError(f"node {node.name}: operand {operand.name} ({name}) must be a constant")


def infer_shapes(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """Return the shape of every value and constant for the given input sizes.

    Raises ``ShapeError`` naming the node whose operands do not fit.
    """
    shapes: dict[str, Shape] = {name: tuple(array.shape) for name, array in graph.constants.items()}
    shapes.update((value.name, evaluate_shape(value.shape, sizes)) for value in graph.inputs)
    for node in graph.nodes:
        operands = [shapes[name] if name else None for name in node.inputs]
        try:
            results = OPERATORS[node.operator].shape(node.resolved(sizes), operands)
        except ShapeError as error:
            raise ShapeError(f"{node.operator} {node.name}: {error}") from None
        for value, shape in zip(node.outputs, results, strict=True):
            shapes[value.name] = shape
    _check_recorded(graph, shapes, sizes)
    return shapes


def _check_recorded(graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> None:
    """Raise if the sizes that the reader recorded are not the true ones, and something was computed from
    them.

    A framework may have recorded its sizes under a condition ("an odd input") that these inputs do not meet.
    """
    if not graph.computes_sizes:
        return
    for value in graph.values.values():
        recorded = evaluate_shape(value.shape, sizes)
        if recorded != shapes[value.name]:
            raise ShapeError(
                f"{value.name} is {shapes[value.name]} for this input, but was recorded as {recorded}; "
                "compile again with an example of this size"
            )
