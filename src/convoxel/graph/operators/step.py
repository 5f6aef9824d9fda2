"""Native steps: what a lowering sees of one node, and what several families add to a plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import UnsupportedError
from convoxel.files.values import Array, JsonObject, Options
from convoxel.fork import renewed_lock
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Extent, Shape, Size
from convoxel.graph.operators.view import spatial
from convoxel.native import View

Layer = TypeVar("Layer")


class PackedWeights:
    """The packed weights of a program, made on first use and shared by the plans for all input sizes."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._lock = renewed_lock()

    def get(self, key: Hashable, make: Callable[[], Layer]) -> Layer:
        """Return the weights called ``key``, made by ``make`` the first time."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            found: Layer = self._made[key]
            return found


class PaddedLayer(NamedTuple):
    """A convolution that knows no padding, and the padding that open sizes give it (d, h, w)."""

    layer: Any
    padding_low: tuple[Extent, Extent, Extent]


Padding = tuple[int, int, int]


def padded_layer(kernels: PackedWeights, key: Hashable, padding: Padding, make: Callable[[Padding], Layer]) -> Layer:
    """Return the convolution called ``key`` with a padding, packed once for each.

    "Same" with a stride pads each input size in its own way, and a convolution knows its padding.
    """
    if any(isinstance(low, Size) for low in padding):
        layer = kernels.get((key, None), lambda: make((0, 0, 0)))
        return cast(Layer, PaddedLayer(layer, padding))
    return kernels.get((key, padding), lambda: make(padding))


@dataclass(frozen=True)
class Choice:
    """The choices that were made for a convolution of a whole image, by which a part of it has the same bits.

    Attributes:
        algorithm: what runs it; that of a block of convolutions does not matter.
        parts: what runs each convolution of a block.
        padding: padding in front of each axis of the whole image (d, h, w).
    """

    algorithm: str
    parts: tuple[str, ...]
    padding: tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """One node as a lowering sees it: numbers instead of sizes, views instead of names."""

    node: Node
    inputs: Sequence[View | None]
    outputs: Sequence[View]
    shapes: Sequence[Shape | None]
    constants: Sequence[Array | None]
    plan: native.Plan
    kernels: PackedWeights
    algorithm: str
    choice: Choice | None = None

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
    def epilogue(self) -> Options:
        """The arguments of a fused activation."""
        return {"activation": self.node["activation"], "slope": self.node["slope"]}


def bias(step: Step) -> NDArray[np.float32] | None:
    bias = step.constants[2]
    return None if bias is None else np.ascontiguousarray(bias, np.float32)


def convolve(step: Step, kernel: native.Convolution, residual: View | None, gate: View | None = None) -> None:
    how: JsonObject = {"algorithm": step.algorithm, "name": step.node.name, **step.epilogue}
    if step.choice:
        how |= {"algorithm": step.choice.algorithm, "padding_low": own_padding(step.node)}
    step.plan.convolve(kernel, step.x, step.out, residual=residual, gate=gate, **how)


def own_padding(node: Node) -> tuple[int, int, int]:
    """Return the padding in front of each axis (d, h, w) that a node names; none without such an attribute."""
    return spatial([low for low, _ in node.attributes.get("padding", ())], 0)


def copy(plan: native.Plan, source: View, target: View, name: str) -> None:
    """Add a step that copies one view to another."""
    if source.element != target.element:
        plan.convert(source, target, name=name)
        return
    channels = source.shape[4]
    plan.affine(source, target, np.ones(channels, np.float32), np.zeros(channels, np.float32), name=name)


def refuse(step: Step) -> None:
    """Refuse: a pass should have removed the operator."""
    raise UnsupportedError(f"{step.node.operator} has no native step (node {step.node.name})")
