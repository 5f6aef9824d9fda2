"""What every operator means: one row each.

To add an operator, add a row to ``ROWS``, its shape rule to ``rules``, its lowering to ``lowering``, and a
rule that makes it to ``from_torch`` and ``from_onnx``. An operator without native steps is a row of
``ARRAY_ROWS``: a function of ``arrays`` and a shape rule of ``arrays.shapes``; its name begins with ``array.``.
No other file knows operators by name, save the passes that rewrite them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convoxel.errors import GraphError, ShapeError
from convoxel.graph import lowering, rules
from convoxel.graph.arrays import movement, neighbourhood, pointwise, product, quantisation, reduction, sampling, shapes
from convoxel.graph.ir import CHANNELS_FIRST, Graph, Node, Value, verify_structure
from convoxel.graph.operator import REQUIRED, Operand, Operator, Window
from convoxel.graph.size import Shape, evaluate_shape

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
    Operator(
        "depth_to_space",
        (X,),
        shapes.depth_to_space,
        {"block": REQUIRED, "channels_outside": REQUIRED},
        lower=lowering.depth_to_space,
    ),
    Operator("shuffle", (X,), rules.same, {"groups": REQUIRED}, lower=lowering.shuffle),
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


def _array(
    name: str,
    function: Callable[..., Any],
    shape: rules.ShapeRule = rules.same,
    operands: str = "x",
    /,
    **attributes: Any,
) -> Operator:
    """Return the row of a function of ``arrays``; ``operands`` names its operands, ``?`` optional, ``*`` many."""
    declared = tuple(
        Operand(word.strip("?*"), optional=word.endswith("?"), variadic=word.endswith("*")) for word in operands.split()
    )

    def host(node: Node, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        with np.errstate(all="ignore"):  # NaN and infinity are results, as in the native steps
            result = function(*arrays, **node.attributes)
        results = result if isinstance(result, tuple) else (result,)
        return [np.asarray(r, value.dtype) for r, value in zip(results, node.outputs, strict=False)]

    return Operator(f"array.{name}", declared, shape, attributes, layout=CHANNELS_FIRST, host=host)


_WINDOW = {"kernel": REQUIRED, "stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "ceil": False}

ARRAY_ROWS = (
    *(_array(name, function, **usual) for name, (function, usual) in pointwise.UNARY.items()),
    *(_array(name, f, shapes.stretched, "x y") for name, f in pointwise.BINARY.items()),
    *(_array(name, f, shapes.stretched, "x y") for name, f in pointwise.COMPARISONS.items()),
    *(
        _array(f"reduce_{name}", f, shapes.reduced, axes=REQUIRED, keep=REQUIRED)
        for name, f in reduction.REDUCTIONS.items()
    ),
    _array("accumulate", movement.accumulate, axis=REQUIRED, exclusive=False, reverse=False),
    _array("affine_grid", sampling.affine_grid, shapes.affine_grid, "theta", size=REQUIRED, align_corners=False),
    _array(
        "arg_extreme",
        reduction.arg_extreme,
        shapes.arg_reduced,
        axis=REQUIRED,
        keep=REQUIRED,
        last=False,
        largest=True,
    ),
    _array(
        "batch_norm",
        reduction.batch_norm,
        shapes.batch_norm,
        "x weight bias mean variance",
        epsilon=REQUIRED,
        momentum=REQUIRED,
    ),
    _array("cast", pointwise.cast, to=REQUIRED),
    _array("clip", pointwise.clip, shapes.onto, "x low? high?"),
    _array(
        "columns_to_image",
        neighbourhood.columns_to_image,
        shapes.columns_to_image,
        shape=REQUIRED,
        kernel=REQUIRED,
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
    ),
    _array("concat", movement.concat, rules.concat, "parts*", axis=REQUIRED),
    _array(
        "convolution",
        neighbourhood.convolution,
        shapes.convolution,
        "x weight bias?",
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
    ),
    _array(
        "deformable_convolution",
        neighbourhood.deformable_convolution,
        shapes.deformable,
        "x weight offset bias? mask?",
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
        offset_groups=1,
    ),
    _array(
        "depth_to_space",
        movement.depth_to_space,
        shapes.depth_to_space,
        block=REQUIRED,
        channels_outside=REQUIRED,
    ),
    _array("dequantise", quantisation.dequantise, rules.same, "x scale zero?", axis=1, block=0),
    _array("einsum", product.einsum, shapes.einsum, "terms*", equation=REQUIRED),
    _array("expand", movement.expand, shapes.expand, shape=REQUIRED),
    _array("fill", movement.fill, shapes.given, "value", shape=REQUIRED),
    _array("gather", movement.gather, shapes.gather, "x index", axis=REQUIRED),
    _array(
        "grid_sample",
        sampling.grid_sample,
        shapes.grid_sample,
        "x grid",
        mode=REQUIRED,
        padding=REQUIRED,
        align_corners=REQUIRED,
    ),
    _array("hardmax", reduction.hardmax, axes=REQUIRED),
    _array(
        "layer_norm",
        reduction.layer_norm,
        shapes.layer_norm,
        "x weight? bias?",
        axis=REQUIRED,
        epsilon=REQUIRED,
    ),
    _array(
        "local_response_norm",
        reduction.local_response_norm,
        size=REQUIRED,
        alpha=REQUIRED,
        beta=REQUIRED,
        bias=REQUIRED,
    ),
    _array("lp_normalise", reduction.lp_normalise, axis=REQUIRED, p=REQUIRED),
    _array("lp_pool", neighbourhood.lp_pool, shapes.pool, **_WINDOW, p=2),
    _array("matmul", product.matmul, shapes.matmul, "a b"),
    _array("max_pool", neighbourhood.max_pool, shapes.pool_with_places, **_WINDOW, order="channel"),
    _array("max_unpool", neighbourhood.max_unpool, shapes.given, "x index", shape=REQUIRED, order="channel"),
    _array("mean_variance_normalise", reduction.mean_variance_normalise, axes=REQUIRED, epsilon=1e-9),
    _array("pad", movement.pad, shapes.pad, "x value?", padding=REQUIRED, mode="constant"),
    _array("prelu", pointwise.prelu, shapes.onto, "x slope"),
    _array(
        "quantise",
        quantisation.quantise,
        rules.same,
        "x scale zero?",
        axis=1,
        block=0,
        to=REQUIRED,
        saturate=True,
    ),
    _array(
        "region_align",
        sampling.region_align,
        shapes.region_align,
        "x regions batch",
        size=REQUIRED,
        ratio=0,
        scale=1.0,
        mode="average",
        half_pixel=True,
    ),
    _array(
        "resample",
        sampling.resample,
        shapes.resample,
        size=REQUIRED,
        scale=REQUIRED,
        region=REQUIRED,
        mode=REQUIRED,
        coordinate="half_pixel",
        rounding="round_prefer_floor",
        cubic=-0.75,
        exclude_outside=False,
        antialias=False,
        extrapolation=0.0,
    ),
    _array("reshape", movement.reshape, rules.reshape, shape=REQUIRED),
    _array("rms_norm", reduction.rms_norm, rules.same, "x weight?", axis=REQUIRED, epsilon=REQUIRED),
    _array("scatter", movement.scatter, rules.same, "x index update", axis=REQUIRED),
    _array("select", pointwise.select, shapes.stretched, "condition x y"),
    _array("sizes", movement.sizes, shapes.given, "", values=REQUIRED, shape=REQUIRED),
    _array("slice", movement.slice_axes, shapes.slice_axes, starts=REQUIRED, stops=REQUIRED, steps=REQUIRED),
    _array("softmax", reduction.softmax, axes=REQUIRED, log=False),
    _array(
        "space_to_depth",
        movement.space_to_depth,
        shapes.space_to_depth,
        block=REQUIRED,
        channels_outside=REQUIRED,
    ),
    _array("take_along", movement.take_along, shapes.indexed, "x index", axis=REQUIRED),
    _array("tile", movement.tile, shapes.tile, repeats=REQUIRED),
    _array("top", movement.top, shapes.top, count=REQUIRED, axis=REQUIRED, largest=True),
    _array("transpose", movement.transpose, shapes.transpose, axes=REQUIRED),
    _array(
        "transposed_convolution",
        neighbourhood.transposed_convolution,
        shapes.transposed_convolution,
        "x weight bias?",
        stride=REQUIRED,
        padding=REQUIRED,
        output_padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
    ),
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
        except ShapeError as error:
            raise ShapeError(f"{node.operator} {node.name}: {error}") from None
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
