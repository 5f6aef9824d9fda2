"""How each operator becomes native steps, and which operators are mere views of their operand.

The native side always has three spatial axes: (n, c, h, w) is run as (n, 1, h, w, c). ``full`` and
``spatial`` make that step; nothing else needs to know how many axes a network has.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import UnsupportedError
from convoxel.graph import taps
from convoxel.graph.ir import Node
from convoxel.graph.size import Shape
from convoxel.native import View

__all__ = ["Kernels", "Step", "full", "narrow_view", "spatial"]

T = TypeVar("T")
Full = tuple[int, int, int, int, int]


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
        return {"activation": self.node["activation"], "slope": float(self.node["slope"])}


def full(shape: Shape) -> Full:
    """Return (n, d, h, w, c) of a channels-first shape; absent axes are 1."""
    n, c, *rest = shape if len(shape) > 1 else (*shape, 1)
    d, h, w = (1,) * (3 - len(rest)) + tuple(rest)
    return (n, d, h, w, c)


def spatial(values: Sequence[T], fill: T) -> tuple[T, T, T]:
    """Return one value for each of the three spatial axes; absent ones, in front, get ``fill``."""
    one, two, three = (fill,) * (3 - len(values)) + tuple(values)
    return one, two, three


def narrow_view(view: View, axis: int, start: int, length: int, step: int = 1) -> View:
    """Return the part ``start, start + step, …`` of ``view`` along axis 0…4 of (n, d, h, w, c)."""
    assert axis < 4 or step == 1, "channels stay contiguous"
    start_offset = view.offset + start * (*view.strides, 1)[axis]
    n, d, h, w, c = (length if i == axis else size for i, size in enumerate(view.shape))
    sn, sd, sh, sw = (stride * step if i == axis else stride for i, stride in enumerate(view.strides))
    return View(view.buffer, start_offset, (n, d, h, w, c), (sn, sd, sh, sw))


def full_axis(axis: int, rank: int) -> int:
    """Return the axis of (n, d, h, w, c) that is ``axis`` of a channels-first tensor of ``rank`` axes."""
    return (0, 4)[axis] if axis < 2 else axis + 4 - rank


# ---- views -----------------------------------------------------------------------------------------------


def alias_narrow(node: Node, shape: Shape, source: View) -> View:
    """A range of the operand is a view of it."""
    axis = node["axis"]
    start, stop, step = slice(node["start"], node["stop"], node["step"]).indices(shape[axis])
    return narrow_view(source, full_axis(axis, len(shape)), start, len(range(start, stop, step)), step)


def alias_squeeze(node: Node, shape: Shape, source: View) -> View:
    """Axes of size 1 come and go without moving a number."""
    assert full(shape) == full(tuple(node["shape"]))
    return source


# ---- native steps ----------------------------------------------------------------------------------------


def convolution(step: Step) -> None:
    """Convolution with its bias, residual and activation."""
    _convolve(step, _convolution_kernel(step, transposed=False), residual=step.inputs[3], gate=step.inputs[4])


def transposed_convolution(step: Step) -> None:
    """Transposed convolution with its bias, residual and activation."""
    _convolve(step, _convolution_kernel(step, transposed=True), residual=step.inputs[3])


def _convolution_kernel(step: Step, transposed: bool) -> native.Convolution:
    node, weight = step.node, step.constants[1]
    assert weight is not None

    def make() -> native.Convolution:
        return native.Convolution(
            np.ascontiguousarray(weight.reshape(*weight.shape[:2], *spatial(weight.shape[2:], 1)), np.float32),
            _bias(step),
            stride=spatial(node["stride"], 1),
            padding_low=spatial([low for low, _ in node["padding"]], 0),
            dilation=spatial(node["dilation"], 1),
            groups=node["groups"],
            transposed=transposed,
        )

    return step.kernels.get(node.name, make)


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


def global_max_pool(step: Step) -> None:
    """Maximum over all positions."""
    kernel = step.x.shape[1:4]
    step.plan.max_pool(step.x, step.out, kernel, kernel, (1, 1, 1), (0, 0, 0), name=step.node.name)


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
    """Mean over windows of nearly equal length."""
    sizes = zip(step.x.shape[1:4], step.out.shape[1:4], strict=True)
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
    for source, target in _rows(step.x, step.out):
        step.plan.normalise(
            source, target, 1, weight, bias, float(step.node["epsilon"]), name=step.node.name, **step.epilogue
        )


def _rows(source: View, target: View) -> Iterator[tuple[View, View]]:
    """Yield both views as (rows, 1, 1, 1, c): in one piece if the rows of each follow each other at one distance.

    Those of a crop do not; then each line of the image is a piece.
    """
    n, d, h, w = source.shape[:4]
    if _is_even(source) and _is_even(target):
        yield _row_view(source, source.offset, n * d * h * w), _row_view(target, target.offset, n * d * h * w)
        return
    for place in np.ndindex(n, d, h):
        starts = [v.offset + sum(i * s for i, s in zip(place, v.strides, strict=False)) for v in (source, target)]
        yield _row_view(source, starts[0], w), _row_view(target, starts[1], w)


def _is_even(view: View) -> bool:
    rows, distance = 1, view.strides[3]
    for size, stride in zip(reversed(view.shape[:4]), reversed(view.strides), strict=True):
        if size > 1 and stride != rows * distance:
            return False
        rows *= size
    return True


def _row_view(view: View, offset: int, rows: int) -> View:
    distance = view.strides[3]
    return View(view.buffer, offset, (rows, 1, 1, 1, view.shape[4]), (distance, distance, distance, distance))


def shuffle(step: Step) -> None:
    """Channel (g, i) goes to (i, g): one strided copy, channels as an axis of the view."""
    groups = step.node["groups"]
    per = step.x.shape[4] // groups
    for source, target in _rows(step.x, step.out):
        rows = source.shape[0]
        copy(
            step.plan,
            View(source.buffer, source.offset, (rows, 1, groups, per, 1), (source.strides[0], 0, per, 1)),
            View(target.buffer, target.offset, (rows, 1, groups, per, 1), (target.strides[0], 0, 1, groups)),
            step.node.name,
        )


def depth_to_space(step: Step) -> None:
    """Each position of a block, in each image, is one strided copy with the channels as an axis of the view."""
    block, outside = step.node["block"], step.node["channels_outside"]
    dims = len(step.shapes[0] or ()) - 2
    n, d, h, w, _ = step.x.shape
    channels = step.out.shape[4]
    volume = block**dims
    between, apart = (volume, 1) if outside else (1, channels)
    blocks = (1,) * (3 - dims) + (block,) * dims
    for image, place in itertools.product(range(n), np.ndindex(*blocks)):
        number = int(np.ravel_multi_index(place, blocks)) * apart
        start = image * step.out.strides[0] + sum(p * s for p, s in zip(place, step.out.strides[1:], strict=True))
        sd, sh, sw = (s * b for s, b in zip(step.out.strides[1:], blocks, strict=True))
        source_offset = step.x.offset + image * step.x.strides[0] + number
        copy(
            step.plan,
            View(step.x.buffer, source_offset, (d, h, w, channels, 1), (*step.x.strides[1:], between)),
            View(step.out.buffer, step.out.offset + start, (d, h, w, channels, 1), (sd, sh, sw, 1)),
            step.node.name,
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


def combine(step: Step) -> None:
    """Sum or product of two tensors, the second stretched."""
    step.plan.combine(step.node.operator, step.x, step.view(1), step.out, name=step.node.name, **step.epilogue)


def no_lowering(step: Step) -> None:
    """Refuse: a pass should have removed the operator."""
    raise UnsupportedError(f"{step.node.operator} has no native step (node {step.node.name})")


# ---- arrays, channels first ------------------------------------------------------------------------------


def host_foreign(node: Node, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
    """Call the framework that the network came from."""
    return list(node["call"](arrays, sizes))
