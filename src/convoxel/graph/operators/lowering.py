"""How each operator becomes native steps: one function for each row of ``opset``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import UnsupportedError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators import index_tables as taps
from convoxel.graph.operators.view import (
    channels_as_positions,
    full_axis,
    joined_batch,
    narrow_view,
    row_views,
    spatial,
)
from convoxel.native import View

__all__ = ["Kernels", "Step", "copy"]


class Kernels:
    """The packed weights of a program, made on first use and shared by the plans for all input sizes."""

    def __init__(self) -> None:
        self._made: dict[Hashable, native.Convolution] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], native.Convolution]) -> native.Convolution:
        """Return the kernel called ``key``, made by ``make`` the first time."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


@dataclass(frozen=True)
class Step:
    """What a lowering sees of one node: numbers instead of sizes, views instead of names."""

    node: Node
    inputs: Sequence[View | None]
    outputs: Sequence[View]
    shapes: Sequence[Shape | None]
    constants: Sequence[NDArray[Any] | None]
    plan: native.Plan
    kernels: Kernels
    algorithm: str

    @property
    def x(self) -> View:
        """The first operand."""
        return self.view(0)

    @property
    def out(self) -> View:
        """The only result."""
        (view,) = self.outputs
        return view

    def view(self, index: int) -> View:
        """Return the view of an operand that must be there."""
        view = self.inputs[index]
        assert view is not None
        return view

    def vector(self, index: int, length: int, default: float) -> NDArray[np.float32]:
        """Return a constant operand of one number per channel, or ``default`` everywhere."""
        array = self.constants[index]
        if array is None:
            return np.full(length, default, np.float32)
        return np.ascontiguousarray(array.reshape(-1), np.float32)

    @property
    def epilogue(self) -> Mapping[str, Any]:
        """The arguments of a fused activation."""
        return {"activation": self.node["activation"], "slope": self.node["slope"]}


# ---- native steps ----------------------------------------------------------------------------------------


def convolution(step: Step) -> None:
    """Convolution with its bias, residual and activation."""
    _convolve(step, _convolution_kernel(step, transposed=False), residual=step.inputs[3], gate=step.inputs[4])


def transposed_convolution(step: Step) -> None:
    """Transposed convolution with its bias, residual and activation."""
    _convolve(step, _convolution_kernel(step, transposed=True), residual=step.inputs[3])


def depthwise_block(step: Step) -> None:
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
    step.plan.convolve_block(
        [kernel for kernel, _ in chain if kernel is not None],
        0 if expand is None else 1,
        step.x,
        step.out,
        residual=step.inputs[3],
        activations=[activation for kernel, activation in chain if kernel is not None],
        algorithm=step.algorithm,
        name=node.name,
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
    padding = spatial([low for low, _ in node["padding"]], 0)

    def make() -> native.Convolution:
        return native.Convolution(
            np.ascontiguousarray(weight.reshape(*weight.shape[:2], *spatial(weight.shape[2:], 1)), np.float32),
            _bias(step),
            stride=spatial(node["stride"], 1),
            padding_low=padding,
            dilation=spatial(node["dilation"], 1),
            groups=node["groups"],
            transposed=transposed,
        )

    # "Same" with a stride pads each input size in its own way, and a kernel knows its padding.
    return step.kernels.get((node.name, padding), make)


def _bias(step: Step) -> NDArray[np.float32] | None:
    bias = step.constants[2]
    return None if bias is None else np.ascontiguousarray(bias, np.float32)


def _convolve(step: Step, kernel: native.Convolution, residual: View | None, gate: View | None = None) -> None:
    step.plan.convolve(
        kernel,
        step.x,
        step.out,
        residual=residual,
        gate=gate,
        algorithm=step.algorithm,
        name=step.node.name,
        **step.epilogue,
    )


def dense(step: Step) -> None:
    """A linear layer is a convolution whose kernel is as large as its input, whatever was flattened before
    it.

    The weights' columns run over (c, d, h, w), which is the order of a convolution's weights too.
    """
    weight = step.constants[1]
    assert weight is not None
    _, d, h, w, c = step.x.shape

    def make() -> native.Convolution:
        return native.Convolution(np.ascontiguousarray(weight.reshape(-1, c, d, h, w), np.float32), _bias(step))

    _convolve(step, step.kernels.get((step.node.name, (d, h, w)), make), residual=step.inputs[3])


def activation(step: Step) -> None:
    """An activation that nothing could take in."""
    _affine(step, None, None)


def affine(step: Step) -> None:
    """Per channel x · scale + shift."""
    channels = step.out.shape[4]
    _affine(step, step.vector(1, channels, 1.0), step.vector(2, channels, 0.0))


def _affine(step: Step, scale: NDArray[np.float32] | None, shift: NDArray[np.float32] | None) -> None:
    channels = step.out.shape[4]
    scale = np.ones(channels, np.float32) if scale is None else np.broadcast_to(scale, channels).copy()
    shift = np.zeros(channels, np.float32) if shift is None else np.broadcast_to(shift, channels).copy()
    step.plan.affine(step.x, step.out, scale, shift, name=step.node.name, **step.epilogue)


def copy(plan: native.Plan, source: View, target: View, name: str) -> None:
    """Add a step that copies one view to another."""
    channels = source.shape[4]
    plan.affine(source, target, np.ones(channels, np.float32), np.zeros(channels, np.float32), name=name)


def normalise(step: Step) -> None:
    """Instance, group and layer normalisation with statistics of the input."""
    channels = step.out.shape[4]
    step.plan.normalise(
        step.x,
        step.out,
        step.node["groups"] or channels,
        step.vector(1, channels, 1.0),
        step.vector(2, channels, 0.0),
        float(step.node["epsilon"]),
        name=step.node.name,
        **step.epilogue,
    )


def batch_normalise(step: Step) -> None:
    """Normalisation by the statistics of the whole batch: its images one behind the other are one long image."""
    channels, name = step.out.shape[4], step.node.name
    joined = joined_batch(step.x, step.out)
    if joined is None:  # a crop
        copy(step.plan, step.x, step.out, f"{name}.copy")
        joined = joined_batch(step.out, step.out)
    if joined is None:
        raise UnsupportedError("a batch cannot be normalised into a crop of a larger tensor")
    source, target = joined
    weight, bias = step.vector(1, channels, 1.0), step.vector(2, channels, 0.0)
    epsilon = float(step.node["epsilon"])
    step.plan.normalise(source, target, channels, weight, bias, epsilon, name=name, **step.epilogue)


def max_pool(step: Step) -> None:
    """Maximum over windows; the result's size says how far they go."""
    node = step.node
    step.plan.max_pool(
        step.x,
        step.out,
        spatial(node["kernel"], 1),
        spatial(node["stride"], 1),
        spatial(node["dilation"], 1),
        spatial([low for low, _ in node["padding"]], 0),
        name=node.name,
    )


def reduce(step: Step) -> None:
    """Mean, maximum or sum over the axes along which the result has size 1."""
    step.plan.reduce(step.node["function"], step.x, step.out, name=step.node.name)


def global_max_pool(step: Step) -> None:
    """Maximum over all positions."""
    step.plan.reduce("max", step.x, step.out, name=step.node.name)


def average_pool(step: Step) -> None:
    """Mean over windows; the divisor is a product over axes, so each axis has its own table."""
    node, divisor = step.node, step.node["divisor"]
    axes = [
        taps.average(size, out, k, s, low, high, node["count_padding"], divided=not divisor, dilation=d)
        for size, out, k, s, d, (low, high) in zip(
            step.x.shape[1:4],
            step.out.shape[1:4],
            spatial(node["kernel"], 1),
            spatial(node["stride"], 1),
            spatial(node["dilation"], 1),
            spatial(node["padding"], (0, 0)),
            strict=True,
        )
    ]
    if divisor:
        axes[2] = taps.Taps(axes[2].source, axes[2].weight / np.float32(divisor))
    _resample(step, axes)


def adaptive_average_pool(step: Step) -> None:
    """Mean over windows of nearly equal length: the whole axis where one is left."""
    sizes = list(zip(step.x.shape[1:4], step.out.shape[1:4], strict=True))
    if all(out in (1, size) for size, out in sizes):
        step.plan.reduce("mean", step.x, step.out, name=step.node.name)
    else:
        _resample(step, [taps.adaptive_average(size, out) for size, out in sizes])


def resize(step: Step) -> None:
    """Nearest, linear or cubic resizing."""
    node = step.node
    scales = spatial(node["scale"] or (None,) * (len(step.shapes[0] or ()) - 2), None)
    _resample(
        step,
        [
            # An absent axis has size 1 and keeps it, in every mode.
            taps.resize(size, out, node["mode"], node["align_corners"], scale)
            for size, out, scale in zip(step.x.shape[1:4], step.out.shape[1:4], scales, strict=True)
        ],
    )


def interpolate(step: Step) -> None:
    """Resizing in any of ONNX's coordinate modes."""
    how = {key: value for key, value in step.node.attributes.items() if key not in ("size", "scale")}
    # An absent axis has size 1 and keeps it.
    scales: tuple[float | None, ...] = spatial(step.node["scale"], None)
    sizes = zip(step.x.shape[1:4], step.out.shape[1:4], scales, strict=True)
    _resample(step, [taps.axis(size, out, scale, **how) for size, out, scale in sizes])


def channel_norm(step: Step) -> None:
    """Layer normalisation over the channels of each position: every position is a sample of its own."""
    channels = step.out.shape[4]
    weight, bias = step.vector(1, channels, 1.0), step.vector(2, channels, 0.0)
    for source, target in row_views(step.x, step.out):
        step.plan.normalise(
            source, target, 1, weight, bias, float(step.node["epsilon"]), name=step.node.name, **step.epilogue
        )


def shuffle(step: Step) -> None:
    """Channel (g, i) goes to (i, g)."""
    channels = np.arange(step.x.shape[4]).reshape(step.node["groups"], -1)
    step.plan.permute_channels(step.x, step.out, channels.T.reshape(-1).tolist(), name=step.node.name)


def pick_channels(step: Step) -> None:
    """The channels that an index names."""
    index = step.constants[1]
    assert index is not None
    step.plan.permute_channels(step.x, step.out, index.reshape(-1).tolist(), name=step.node.name)


def softmax(step: Step) -> None:
    """Softmax over the channels, or its logarithm."""
    step.plan.softmax(step.x, step.out, step.node["log"], name=step.node.name)


def prelu(step: Step) -> None:
    """A leaky ReLU with a slope for each channel."""
    step.plan.prelu(step.x, step.out, step.vector(1, step.out.shape[4], 0.0), name=step.node.name)


def response_norm(step: Step) -> None:
    """Each number over a power of the mean square of its neighbouring channels."""
    how = {key: float(step.node[key]) for key in ("alpha", "beta", "bias")}
    step.plan.local_response_norm(step.x, step.out, step.node["size"], name=step.node.name, **how)


def depth_to_space(step: Step) -> None:
    """Each position of a block is one strided copy, of a run of channels for each pixel."""
    for fine, coarse in _blocks(step, step.out, step.x):
        copy(step.plan, coarse, fine, step.node.name)


def space_to_depth(step: Step) -> None:
    """The inverse of ``depth_to_space``."""
    for fine, coarse in _blocks(step, step.x, step.out):
        copy(step.plan, fine, coarse, step.node.name)


def _blocks(step: Step, fine: View, coarse: View) -> Iterator[tuple[View, View]]:
    """Yield, for each position of a block, the pixels there and the channels that hold them."""
    if step.node["channels_outside"]:
        no_lowering(step)  # order_blocks leaves none
    dims, block = len(step.shapes[0] or ()) - 2, step.node["block"]
    blocks = (1,) * (3 - dims) + (block,) * dims
    channels = fine.shape[4]
    shape = (*coarse.shape[:4], channels)
    n, d, h, w = (stride * size for stride, size in zip(fine.strides, (1, *blocks), strict=True))
    for number, place in enumerate(np.ndindex(*blocks)):
        start = fine.offset + sum(p * s for p, s in zip(place, fine.strides[1:], strict=True))
        yield (
            View(fine.buffer, start, shape, (n, d, h, w)),
            View(coarse.buffer, coarse.offset + number * channels, shape, coarse.strides),
        )


def pad(step: Step) -> None:
    """Padding that no convolution could take in."""
    padding = spatial(step.node["padding"], (0, 0))
    _resample(
        step,
        [
            taps.pad(size, low, high, step.node["mode"])
            for size, (low, high) in zip(step.x.shape[1:4], padding, strict=True)
        ],
    )


def _resample(step: Step, axes: Sequence[taps.Taps]) -> None:
    for axis, out in zip(axes, step.out.shape[1:4], strict=True):
        assert len(axis.source) == out
    step.plan.resample(step.x, step.out, tuple(axes), name=step.node.name)


def lay(step: Step) -> None:
    """Channels of one position become positions of one channel, or the other way round."""
    copy(step.plan, channels_as_positions(step.x), channels_as_positions(step.out), step.node.name)


def expand(step: Step) -> None:
    """Repeated along axes of size 1: the larger of each number and itself."""
    step.plan.combine("maximum", step.x, step.x, step.out, name=step.node.name)


def tile(step: Step) -> None:
    """Each repetition is a copy to its place in the result."""
    rank, repeats = len(step.node["repeats"]), step.node["repeats"]
    for place in np.ndindex(*repeats):
        target = step.out
        for axis, number in enumerate(place):
            whole = full_axis(axis, rank)
            length = step.x.shape[whole]
            target = narrow_view(target, whole, number * length, length)
        copy(step.plan, step.x, target, step.node.name)


def blank(step: Step) -> None:
    """Zeros, whatever the operand holds: sums of no taps. As many channels at a time as it has."""
    none = [taps.Taps(np.full((size, 1), -1, np.int32), np.ones((size, 1), np.float32)) for size in step.out.shape[1:4]]
    channels, at_once = step.out.shape[4], step.x.shape[4]
    for start in range(0, channels, at_once):
        count = min(at_once, channels - start)
        source, target = narrow_view(step.x, 4, 0, count), narrow_view(step.out, 4, start, count)
        step.plan.resample(source, target, tuple(none), name=step.node.name)


def combine(step: Step) -> None:
    """Two tensors, element by element, both stretched along their axes of size 1."""
    step.plan.combine(step.node.operator, step.x, step.view(1), step.out, name=step.node.name, **step.epilogue)


def no_lowering(step: Step) -> None:
    """Refuse: a pass should have removed the operator."""
    raise UnsupportedError(f"{step.node.operator} has no native step (node {step.node.name})")


# ---- arrays, channels first ------------------------------------------------------------------------------


def host_foreign(node: Node, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
    """Call the framework that the network came from."""
    return list(node["call"](arrays, sizes))
