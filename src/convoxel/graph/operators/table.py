"""What every operator means: one row each.

To add an operator, add a row to ``ROWS``, its shape rule to ``rules``, its lowering to ``lowering``, and a
rule that makes it to ``from_torch`` and ``from_onnx``. An operator without native steps is a row of
``arrays.table``: a function of ``arrays`` and a shape rule of ``arrays.shapes``; its name begins with ``array.``.
No other file knows operators by name, save the passes that rewrite them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoxel.errors import ConfigError, GraphError, ShapeError
from convoxel.graph.ir.graph import CHANNELS_FIRST, Graph, Node, Value, verify_structure
from convoxel.graph.ir.size import Shape, evaluate_shape
from convoxel.graph.operators import lowering, rules
from convoxel.graph.operators import view as view
from convoxel.graph.operators.arrays import shapes
from convoxel.graph.operators.arrays.table import ARRAY_ROWS
from convoxel.graph.operators.operator import REQUIRED, Operand, Operator, Window

__all__ = ["OPERATORS", "REQUIRED", "Operand", "Operator", "Window", "infer_shapes", "make_node", "verify"]

X = Operand("x")
WEIGHT = Operand("weight", constant=True)
OPTIONAL_WEIGHT = Operand("weight", constant=True, optional=True)
BIAS = Operand("bias", constant=True, optional=True)
RESIDUAL = Operand("residual", optional=True)
GATE = Operand("gate", optional=True)  # what x is multiplied by: one factor for each image and channel
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
        (X, WEIGHT, BIAS, RESIDUAL, GATE),
        rules.convolution,
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1, **EPILOGUE},
        macs=rules.convolution_macs,
        window=_convolution_window,
        lower=lowering.convolution,
    ),
    # A depthwise convolution with a 1x1 convolution in front of it, behind it, or both: what lies between them has no
    # place in memory. `activation` is the last one's.
    Operator(
        "depthwise_block",
        (
            X,
            WEIGHT,
            BIAS,
            RESIDUAL,
            Operand("expand_weight", constant=True, optional=True),
            Operand("expand_bias", constant=True, optional=True),
            Operand("project_weight", constant=True, optional=True),
            Operand("project_bias", constant=True, optional=True),
        ),
        rules.depthwise_block,
        {
            "stride": REQUIRED,
            "padding": REQUIRED,
            "dilation": REQUIRED,
            "groups": 1,
            "expand_activation": "none",
            "expand_slope": 0.0,
            "depthwise_activation": "none",
            "depthwise_slope": 0.0,
            **EPILOGUE,
        },
        macs=rules.depthwise_block_macs,
        lower=lowering.depthwise_block,
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
        "batch_normalise",
        (X, OPTIONAL_WEIGHT, BIAS),
        rules.same,
        {"epsilon": REQUIRED, **EPILOGUE},
        lower=lowering.batch_normalise,
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
            "dilation": REQUIRED,
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
    Operator(
        "interpolate",
        (X,),
        rules.interpolate,
        {
            "size": REQUIRED,
            "scale": REQUIRED,
            "mode": REQUIRED,
            "coordinate": "half_pixel",
            "rounding": "round_prefer_floor",
            "cubic": -0.75,
            "exclude_outside": False,
            "antialias": False,
        },
        lower=lowering.interpolate,
    ),
    Operator(
        "channel_norm",
        (X, OPTIONAL_WEIGHT, BIAS),
        rules.same,
        {"epsilon": REQUIRED, **EPILOGUE},
        lower=lowering.channel_norm,
    ),
    *(
        Operator(name, (X,), shape, {"block": REQUIRED, "channels_outside": REQUIRED}, lower=lower)
        for name, shape, lower in (
            ("depth_to_space", shapes.depth_to_space, lowering.depth_to_space),
            ("space_to_depth", shapes.space_to_depth, lowering.space_to_depth),
        )
    ),
    Operator("shuffle", (X,), rules.same, {"groups": REQUIRED}, lower=lowering.shuffle),
    Operator("pick_channels", (X, Operand("index", constant=True)), rules.pick_channels, lower=lowering.pick_channels),
    Operator("reduce", (X,), rules.reduce, {"function": REQUIRED, "axes": REQUIRED}, lower=lowering.reduce),
    Operator("softmax", (X,), rules.same, {"log": False}, lower=lowering.softmax),
    Operator("prelu", (X, Operand("slope", constant=True)), rules.same, lower=lowering.prelu),
    Operator(
        "local_response_norm",
        (X,),
        rules.same,
        {"size": REQUIRED, "alpha": REQUIRED, "beta": REQUIRED, "bias": REQUIRED},
        lower=lowering.response_norm,
    ),
    Operator("pad", (X,), rules.pad, {"padding": REQUIRED, "mode": "zero"}, lower=lowering.pad),
    Operator(
        "concat",
        (Operand("parts", variadic=True),),
        rules.concat,
        {"axis": REQUIRED},
        lower=lowering.no_lowering,  # the plan gives every part its place, or copies it there
    ),
    *(
        Operator(name, (X, Operand("y")), rules.broadcast, dict(EPILOGUE), lower=lowering.combine)
        for name in ("add", "divide", "maximum", "minimum", "multiply", "subtract")
    ),
    Operator(
        "narrow",
        (X,),
        rules.narrow,
        {"axis": REQUIRED, "start": 0, "stop": None, "step": 1},
        alias=view.alias_narrow,
    ),
    Operator("lay", (X,), rules.reshape, {"shape": REQUIRED}, lower=lowering.lay),
    Operator("expand", (X,), rules.expand, {"shape": REQUIRED}, lower=lowering.expand),
    Operator("tile", (X,), shapes.tile, {"repeats": REQUIRED}, lower=lowering.tile),
    Operator("blank", (X,), rules.blank, {"channels": REQUIRED}, lower=lowering.blank),
    Operator("squeeze", (X,), rules.reshape, {"shape": REQUIRED}, alias=view.alias_squeeze),
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


OPERATORS: Mapping[str, Operator] = {row.name: row for row in (*ROWS, *ARRAY_ROWS)}


def make_node(operator: str, name: str, inputs: Sequence[str], outputs: Sequence[Value], **attributes: Any) -> Node:
    """Return a node with absent operands and usual attributes filled in."""
    row = OPERATORS[operator]
    operands = tuple(inputs)
    if not row.variadic:
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
        if len(node.inputs) != len(row.operands) and not row.variadic:
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
    found: dict[str, Shape] = {name: tuple(array.shape) for name, array in graph.constants.items()}
    found.update((value.name, evaluate_shape(value.shape, sizes)) for value in graph.inputs)
    for node in graph.nodes:
        operands = [found[name] if name else None for name in node.inputs]
        try:
            results = OPERATORS[node.operator].shape(node.resolved(sizes), operands)
        except (ConfigError, ShapeError) as error:
            raise type(error)(f"{node.operator} {node.name}: {error}") from None
        for value, shape in zip(node.outputs, results, strict=False):  # a row may have results that nothing reads
            found[value.name] = shape
    _check_recorded(graph, found, sizes)
    return found


def _check_recorded(graph: Graph, found: Mapping[str, Shape], sizes: Mapping[str, int]) -> None:
    """Raise if the sizes that the reader recorded are not the true ones, and something was computed from
    them.

    A framework may have recorded its sizes under a condition ("an odd input") that these inputs do not meet.
    """
    if not graph.computes_sizes:
        return
    for value in graph.values.values():
        recorded = evaluate_shape(value.shape, sizes)
        if recorded != found[value.name]:
            raise ShapeError(
                f"{value.name} is {found[value.name]} for this input, but was recorded as {recorded}; "
                "compile again with an example of this size"
            )
