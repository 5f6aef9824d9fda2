"""Convolutions, transposed or not, and the blocks that passes make of several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from convoxel import native
from convoxel.arithmetic import Transposed, Window, transposed_size, window
from convoxel.errors import ShapeError
from convoxel.files.values import Options
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Ints, Pairs, behind_channels, windows
from convoxel.graph.operators.operator import EPILOGUE, Shapes, row
from convoxel.graph.operators.reads import Along, Applied, Reads, Unknown, pair, unknown
from convoxel.graph.operators.region import Request, Restricted, Span, need_engine, part_of_window
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import check_channels, conv_length, length, operand, positive, with_residual
from convoxel.graph.operators.step import Padding, Step, bias, convolve, own_padding, padded_layer
from convoxel.graph.operators.view import spatial
from convoxel.native.integer import convolve_whole

# ---- shapes and costs


def convolution_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (k, c/groups, …) → (n, k, …)."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    if len(x) != len(w):
        raise ShapeError(f"x {x} has {len(x)} axes but the weights {w} expect {len(w)} (batch and channels included)")
    check_channels(x, w[1] * node["groups"])
    gate = shapes[4]
    if gate is not None and gate != (*x[:2], *(1,) * len(x[2:])):
        raise ShapeError(f"the gate {gate} does not hold one factor for each image and channel of x {x}")
    return [with_residual(_convolved(node, x, w), shapes)]


def _depthwise_block_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (e, c, 1, …)?, (e, 1, …) and (k, e, 1, …)? → (n, k, …); e is c, k is e without them."""
    x, w, expand, project = operand(shapes, 0), operand(shapes, 1), shapes[4], shapes[6]
    check_channels(x, w[1] * node["groups"] if expand is None else expand[1])
    n, channels, *spatial = _convolved(node, x, w)
    return [with_residual((n, channels if project is None else project[0], *spatial), shapes)]


def _convolved(node: Node, x: Shape, w: Shape) -> Shape:
    spatial = tuple(
        length(conv_length, *axis)
        for axis in zip(x[2:], w[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    return positive((x[0], w[0], *spatial), f"{x}")


def transposed_convolution_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) with weights (c, k/groups, …) → (n, k, …)."""
    x, w = operand(shapes, 0), operand(shapes, 1)
    if len(x) != len(w):
        raise ShapeError(f"x {x} has {len(x)} axes but the weights {w} expect {len(w)} (batch and channels included)")
    check_channels(x, w[0])
    window.check_output_padding(node["output_padding"], node["stride"], node["dilation"])
    spatial = tuple(
        length(window.transposed_size, *axis)
        for axis in zip(
            x[2:], w[2:], node["stride"], node["padding"], node["dilation"], node["output_padding"], strict=True
        )
    )
    return [with_residual(positive((x[0], w[1] * node["groups"], *spatial), f"{x}"), shapes)]


def _columns_to_image_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c · kernel, windows) → (n, c, *shape)."""
    x = operand(shapes, 0)
    return [(x[0], x[1] // math.prod(node["kernel"]), *node["shape"])]


def convolution_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Outputs × (c/groups) × kernel."""
    return math.prod(out[0]) * math.prod(operand(shapes, 1)[1:])


def depthwise_block_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Inputs' pixels × expansion + outputs' pixels × (kernels + projection)."""
    expand, kernels, project = (math.prod(w) if (w := shapes[i]) is not None else 0 for i in (4, 1, 6))
    x, y = operand(shapes, 0), out[0]
    return x[0] * math.prod(x[2:]) * expand + y[0] * math.prod(y[2:]) * (kernels + project)


def transposed_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Inputs × (k/groups) × kernel: every input reaches the whole kernel."""
    return math.prod(operand(shapes, 0)) * math.prod(operand(shapes, 1)[1:])


# ---- native steps


def _lower_convolution(step: Step) -> None:
    """Convolution with its bias, residual and activation."""
    convolve(step, _convolution_kernel(step, transposed=False), residual=step.inputs[3], gate=step.inputs[4])


def _lower_transposed_convolution(step: Step) -> None:
    """Transposed convolution with its bias, residual and activation."""
    convolve(step, _convolution_kernel(step, transposed=True), residual=step.inputs[3])


def _lower_depthwise_block(step: Step) -> None:
    """A depthwise convolution and the 1×1 convolutions in front of it and behind it."""
    node = step.node
    expand, project = (_pointwise_kernel(step, index) for index in (4, 6))
    last = (node["activation"], node["slope"])
    middle = last if project is None else (node["depthwise_activation"], node["depthwise_slope"])
    chain = (
        (expand, (node["expand_activation"], node["expand_slope"])),
        (_convolution_kernel(step, transposed=False), middle),
        (project, last),
    )
    pinned: Options = {}
    if step.choice:
        pinned = {"padding_low": own_padding(node), "parts": list(step.choice.parts)}
    step.plan.convolve_block(
        [kernel for kernel, _ in chain if kernel is not None],
        0 if expand is None else 1,
        step.x,
        step.out,
        residual=step.inputs[3],
        activations=[activation for kernel, activation in chain if kernel is not None],
        algorithm=step.algorithm,
        name=node.name,
        **pinned,
    )


def _pointwise_kernel(step: Step, index: int) -> native.Convolution | None:
    weight, bias = step.constants[index : index + 2]
    if weight is None:
        return None

    def make() -> native.Convolution:
        return native.Convolution(
            np.ascontiguousarray(weight.reshape(*weight.shape[:2], 1, 1, 1), np.float32),
            None if bias is None else np.ascontiguousarray(bias, np.float32),
        )

    return step.kernels.get((step.node.name, "expand" if index == 4 else "project"), make)


def _convolution_kernel(step: Step, transposed: bool) -> native.Convolution:
    node, weight = step.node, step.constants[1]
    assert weight is not None

    def make(padding: Padding) -> native.Convolution:
        return native.Convolution(
            np.ascontiguousarray(weight.reshape(*weight.shape[:2], *spatial(weight.shape[2:], 1)), np.float32),
            bias(step),
            stride=spatial(node["stride"], 1),
            padding_low=padding,
            dilation=spatial(node["dilation"], 1),
            groups=node["groups"],
            transposed=transposed,
        )

    return padded_layer(step.kernels, node.name, _padding_low(step), make)


def _padding_low(step: Step) -> tuple[int, int, int]:
    """Return the padding in front of each axis; that of the whole image where the step makes a part of it."""
    return step.choice.padding if step.choice else own_padding(step.node)


# ---- on arrays


def _convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    *fused: None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    **epilogue: object,
) -> Array:
    """Return the convolution of (n, c, …) with (k, c/groups, …), whole numbers summed as int32."""
    dims = x.ndim - 2
    if x.dtype.kind in "iu":
        exact = _convolution_of_bytes(x, weight, stride, padding, dilation, groups) if bias is None else None
        if exact is not None:
            return exact
        x, weight = x.astype(np.int32), weight.astype(np.int32)
    elif x.dtype.itemsize < 4:
        x, weight = x.astype(np.float32), weight.astype(np.float32)
    seen_by = windows(x, weight.shape[2:], stride, dilation, padding, 0, False)
    over = list(range(2 + dims, 2 + 2 * dims))
    parts = []
    for seen, rows in zip(np.split(seen_by, groups, axis=1), np.split(weight, groups), strict=True):
        product = np.tensordot(seen, rows, axes=([1, *over], list(range(1, 2 + dims))))
        parts.append(np.moveaxis(product, -1, 1))
    result = np.concatenate(parts, axis=1)
    return result if bias is None else result + bias.reshape(-1, *(1,) * dims)


def _convolution_of_bytes(
    x: Array, weight: Array, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Array | None:
    """Return the convolution of numbers of 8 bits by the engine; None where they are larger."""
    dims = x.ndim - 2
    if not 1 <= dims <= 3:
        return None
    kernel = weight.shape[2:]
    sizes = [
        conv_length(size, *axis) for size, *axis in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    result = convolve_whole(
        np.moveaxis(x, 1, -1).reshape(x.shape[0], *spatial(x.shape[2:], 1), x.shape[1]),
        weight.reshape(*weight.shape[:2], *spatial(kernel, 1)),
        spatial(sizes, 1),
        stride=spatial(stride, 1),
        padding_low=spatial([low for low, _ in padding], 0),
        dilation=spatial(dilation, 1),
        groups=groups,
    )
    if result is None:
        return None
    return np.moveaxis(result.reshape(x.shape[0], *sizes, weight.shape[0]), -1, 1)


def _transposed_convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    *fused: None,
    stride: Ints,
    padding: Pairs,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
    **epilogue: object,
) -> Array:
    """Return the transposed convolution of (n, c, …) with (c, k/groups, …)."""
    dims, kernel = x.ndim - 2, weight.shape[2:]
    spans = [
        (size - 1) * s + (k - 1) * d + 1 + extra
        for size, s, k, d, extra in zip(x.shape[2:], stride, kernel, dilation, output_padding, strict=True)
    ]
    columns = weight.shape[1]
    canvas = np.zeros((x.shape[0], groups * columns, *(max(s, 1) for s in spans)), np.result_type(x, np.float32))
    for g, (part, rows) in enumerate(zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True)):
        target = canvas[:, g * columns : (g + 1) * columns]
        for offset in itertools.product(*map(range, kernel)):
            spread = np.moveaxis(np.tensordot(part, rows[behind_channels(*offset)], axes=(1, 0)), -1, 1)
            target[_reached(offset, dilation, stride, x.shape[2:])] += spread
    # Negative padding adds rows of zeros.
    result = np.pad(canvas, [(0, 0), (0, 0), *((max(-low, 0), max(-high, 0)) for low, high in padding)])
    crop = tuple(
        slice(max(low, 0), size - max(high, 0)) for (low, high), size in zip(padding, result.shape[2:], strict=True)
    )
    result = result[behind_channels(*crop)]
    return result if bias is None else result + bias.reshape(-1, *(1,) * dims)


def _reached(offset: Ints, dilation: Ints, stride: Ints, counts: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of the positions that one tap of a kernel reaches from ``counts`` positions."""
    axes = zip(offset, dilation, stride, counts, strict=True)
    return behind_channels(*(slice(o * d, o * d + (count - 1) * s + 1, s) for o, d, s, count in axes))


def _columns_to_image(x: Array, shape: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Array:
    """Return (n, c, *shape): the windows in the columns of (n, c · kernel, windows), added where they overlap."""
    n, channels = x.shape[0], x.shape[1] // math.prod(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padded = [size + low + high for size, (low, high) in zip(shape, padding, strict=True)]
    counts = [(size - span) // s + 1 for size, span, s in zip(padded, spans, stride, strict=True)]
    parts = x.reshape(n, channels, *kernel, *counts)
    canvas = np.zeros((n, channels, *padded), x.dtype)
    for offset in itertools.product(*map(range, kernel)):
        canvas[_reached(offset, dilation, stride, counts)] += parts[behind_channels(*offset)]
    crop = [slice(low, low + size) for (low, _), size in zip(padding, shape, strict=True)]
    return canvas[behind_channels(*crop)]


_PLACES = "stride, padding, dilation, groups=1"

# ---- what is read


def _windowed(applied: Applied) -> Reads:
    """A window of every image axis, transposed or not."""
    node, weight = applied.node, applied.inputs[1]
    assert weight is not None
    if any(shape is not None for shape in applied.inputs[3:]):
        return Unknown("steps that were fused")
    columns = zip(weight[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    if "output_padding" not in node.attributes:
        return Along({axis: Window(k, s, pair(p), d) for axis, (k, s, p, d) in enumerate(columns, start=2)})
    layers = {}
    for axis, (k, s, p, d) in enumerate(columns, start=2):
        added = applied.outputs[0][axis] - transposed_size(applied.x[axis], k, s, p, d)
        layers[axis] = Transposed(k, s, pair(p), d, added)
    return Along(layers)


# ---- parts of the result


def part_of_convolution(request: Request) -> Restricted:
    """The same windows; residual and gate lie beside them."""
    need_engine(request)
    node, x, weight = request.applied.node, request.applied.x, request.applied.inputs[1]
    assert weight is not None
    columns = zip(weight[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    axes = [
        part_of_window(span, size, out, k, s, low, d, grain)
        for span, size, out, (k, s, (low, _), d), grain in zip(
            request.box[2:], x[2:], request.out[2:], columns, request.grains(len(x) - 2), strict=True
        )
    ]
    box = (request.box[0], Span(0, request.out[1]), *(axis.made for axis in axes))
    read = (request.box[0], Span(0, x[1]), *(axis.read for axis in axes))
    beside = [box if shape == request.out else None for shape in request.applied.inputs[1:]]
    return Restricted(box, (read, *beside), {"padding": tuple(axis.padding for axis in axes)})


def part_of_transposed(request: Request) -> Restricted:
    """The inputs that reach the outputs, which begin at a multiple of the stride: so phases stay where they are."""
    need_engine(request)
    node, x, weight = request.applied.node, request.applied.x, request.applied.inputs[1]
    assert weight is not None
    made, read, padding = [], [], []
    columns = zip(weight[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    for span, size, (k, s, (low, _), d) in zip(request.box[2:], x[2:], columns, strict=True):
        begin = span.first // s * s
        reach = (k - 1) * d + 1
        # Input j reaches the outputs s·j − low … s·j − low + reach − 1.
        first = min(max(-(-(begin + low - reach + 1) // s), 0), size - 1)
        stop = max(first + 1, min((span.stop - 1 + low) // s + 1, size))
        if span.reader:
            first, stop = 0, size
        before = low + begin - s * first
        made.append(Span(begin, span.stop, span.reader))
        read.append(Span(first, stop, span.reader))
        padding.append((before, (stop - first - 1) * s + reach - before - made[-1].length))
    box = (request.box[0], Span(0, request.out[1]), *made)
    beside = [box if shape == request.out else None for shape in request.applied.inputs[1:]]
    changes = {"padding": tuple(padding), "output_padding": (0,) * len(padding)}
    return Restricted(box, ((request.box[0], Span(0, x[1]), *read), *beside), changes)


ROWS = (
    row(
        f"convolution(x, weight!, bias?!, residual?, gate?; {_PLACES}, {EPILOGUE})",
        convolution_shape,
        _convolution,
        _lower_convolution,
        macs=convolution_macs,
        fits=Rewriter.has_space,
        reads=_windowed,
        restrict=part_of_convolution,
        stored="each",
        float32=(4,),
    ),
    # A depthwise convolution with a 1x1 convolution in front of it, behind it, or both: what lies between them has no
    # place in memory. `activation` is the last one's.
    row(
        "depthwise_block(x, weight!, bias?!, residual?, expand_weight?!, expand_bias?!, project_weight?!, "
        f"project_bias?!; {_PLACES}, expand_activation='none', expand_slope=0.0, depthwise_activation='none', "
        f"depthwise_slope=0.0, {EPILOGUE})",
        _depthwise_block_shape,
        lower=_lower_depthwise_block,
        macs=depthwise_block_macs,
        reads=unknown("steps that were fused"),
        restrict=part_of_convolution,
        stored="each",
    ),
    row(
        f"transposed_convolution(x, weight!, bias?!, residual?; {_PLACES}, output_padding, {EPILOGUE})",
        transposed_convolution_shape,
        _transposed_convolution,
        _lower_transposed_convolution,
        macs=transposed_macs,
        fits=Rewriter.has_space,
        reads=_windowed,
        restrict=part_of_transposed,
        stored="each",
    ),
    row("columns_to_image(x; shape, kernel, stride, padding, dilation)", _columns_to_image_shape, _columns_to_image),
)
