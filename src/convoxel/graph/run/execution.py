"""A graph planned for given input sizes: native steps in runs, and the operators on arrays between them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import ConvoxelError, ShapeError
from convoxel.files.values import Array
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import CHANNELS_LAST, Graph, Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.step import Choice, PackedWeights, Step, copy
from convoxel.graph.operators.table import OPERATORS, infer_shapes
from convoxel.graph.operators.view import full, full_axis, narrow_view
from convoxel.graph.run.placement import WORD_BYTES, Places, converts_freely, place
from convoxel.graph.run.storage import choose_elements, element_of, follow_parts
from convoxel.native.machine import installed_bytes
from convoxel.native.plan import ELEMENT_BYTES

# What NumPy and the engine raise where the graph of a file asks for the impossible.
CONTRADICTIONS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


@dataclass(frozen=True)
class Memory:
    """The memory of one run, in bytes.

    ``arena_bytes`` is planned; ``activation_bytes`` is what the results of all native steps would take if each had a
    place of its own; ``weight_bytes`` are the constants.
    """

    arena_bytes: int
    activation_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class NativeRun:
    """The native steps ``first`` to ``last`` (excluded)."""

    first: int
    last: int


@dataclass(frozen=True)
class HostCall:
    """An operator on arrays."""

    node: Node


@dataclass(frozen=True)
class Execution:
    """A graph planned for one set of input sizes: all that a run needs."""

    graph: Graph
    sizes: Mapping[str, int]
    shapes: Mapping[str, Shape]
    plan: native.Plan
    parts: tuple[NativeRun | HostCall, ...]
    buffers: Mapping[str, int]
    packed: Mapping[str, NDArray[np.float32]]
    memory: Memory
    macs: Mapping[str, int]
    elements: Mapping[str, str]
    has_run = False  # then native steps have packed their weights

    @cached_property
    def is_native(self) -> bool:
        """True if one run of native steps is everything, so that nothing must survive in the arena between runs."""
        return len(self.parts) == 1 and isinstance(self.parts[0], NativeRun)

    def run(
        self, arrays: Sequence[Array], times: dict[str, float] | None = None, arena: NDArray[np.float32] | None = None
    ) -> list[Array]:
        """Return the outputs for contiguous inputs; ``times`` takes the seconds of every native step and host call.

        Give an ``arena`` that is large enough to use one for several plans.
        """
        values = self._known_arrays(arrays)
        buffers = [self.packed[n] if n in self.packed else values[n] for n in self.buffers]
        if arena is None and not self.is_native:
            arena = self.plan.new_arena()
        for part in self.parts:
            if isinstance(part, NativeRun):
                _run_steps(self.plan, buffers, part, arena, times)
                continue
            begun = time.perf_counter()
            for name, array in _call_host(part.node, values, self):
                values[name] = array
                if name in self.buffers:
                    buffers[self.buffers[name] - 1] = np.ascontiguousarray(array)
            if times is not None:
                times[part.node.name] = time.perf_counter() - begun
        self.__dict__["has_run"] = True
        return [self._own(values[name], arrays) for name in self.graph.outputs]

    def _known_arrays(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Return the arrays that exist before the first step: inputs, constants, and memory for results."""
        values = dict(self._constants)
        for value, array in zip(self.graph.inputs, arrays, strict=True):
            values[value.name] = array
        for name in self.buffers:
            if name not in values:
                values[name] = _allocate(self.shapes[name])
        return values

    def _own(self, array: Array, given: Sequence[Array]) -> Array:
        """Return an array that nobody else writes to: a copy of what came from the caller or from the network."""
        foreign = id(array) in self._constant_ids or any(array is other for other in given)
        fresh = not foreign and array.flags.owndata and array.flags.writeable
        return np.asarray(array, order="C") if fresh else np.array(array, order="C")

    @cached_property
    def _constants(self) -> dict[str, Array]:
        return dict(self.graph.constants)

    @cached_property
    def _constant_ids(self) -> frozenset[int]:
        return frozenset(map(id, self._constants.values()))


def _allocate(shape: Shape) -> NDArray[np.float32]:
    """Return memory for a result that native steps will write."""
    return np.empty(shape, np.float32)


def _run_steps(
    plan: native.Plan,
    buffers: list[Array],
    part: NativeRun,
    arena: NDArray[np.float32] | None,
    times: dict[str, float] | None,
) -> None:
    if times is None:
        plan.run(buffers, part.first, part.last, arena=arena)
    elif arena is None:
        times.update((str(i), row["time_s"]) for i, row in enumerate(plan.profile(buffers)))
    else:
        for index in range(part.first, part.last):
            begun = time.perf_counter()
            plan.run(buffers, index, index + 1, arena=arena)
            times[str(index)] = time.perf_counter() - begun


def _call_host(node: Node, values: Mapping[str, Array], execution: Execution) -> Sequence[tuple[str, Array]]:
    """Run an operator on arrays and return its results by name."""
    host = OPERATORS[node.operator].host
    assert host is not None
    try:
        results = host(node, [values[name] if name else None for name in node.inputs], execution.sizes)
    except CONTRADICTIONS as reason:  # such as an index, computed by the network, that lies outside
        raise ShapeError(f"program: {node.operator} {node.name} cannot run on these values: {reason}") from reason
    for value, result in zip(node.outputs, results, strict=True):
        expected = execution.shapes[value.name]
        if result is not None and tuple(result.shape) != expected:
            raise ShapeError(
                f"program: {node.name} returned {tuple(result.shape)}, but {expected} was planned; "
                "compile again with an example of this size"
            )
    return [(value.name, result) for value, result in zip(node.outputs, results, strict=True)]


def plan_execution(
    graph: Graph,
    sizes: Mapping[str, int],
    packed_weights: PackedWeights,
    *,
    threads: int | None = None,
    algorithm: str = "auto",
    precision: str = "float32",
    chosen: Mapping[str, str] | None = None,
    whole: Mapping[str, Choice] | None = None,
    elements: Mapping[str, str] | None = None,
    bounded: bool = True,
) -> Execution:
    """Return the plan of a graph whose layouts are assigned.

    ``algorithm`` is the algorithm or family of every convolution; ``precision`` and ``chosen`` are as in
    ``native.Plan``. Where the graph makes a part of an image, ``whole`` are the choices of the whole image, by a node's
    name, and ``elements`` the types in which its values are stored, where they are not float32.
    A plan that is not ``bounded`` may need more memory than there is, and must not run.
    """
    shapes = infer_shapes(graph, sizes)
    installed = installed_bytes()
    if bounded:
        _check_memory(graph, shapes, installed)
    if elements is None:
        elements = choose_elements(graph, precision)
    else:
        elements = follow_parts(graph, elements)
    places = place(graph, shapes, sizes, elements)
    if bounded and 4 * places.arena_size > installed:
        raise ShapeError(
            f"its results need {places.arena_size / 2**28:.0f} GiB, this machine has {installed / 2**30:.0f}"
        )
    plan = native.Plan(places.arena_size, len(places.buffers), threads, precision=precision, chosen=chosen)
    parts: list[NativeRun | HostCall] = []
    begun = 0
    for node in graph.nodes:
        if not node.native:
            if len(plan) > begun:
                parts.append(NativeRun(begun, len(plan)))
                begun = len(plan)
            parts.append(HostCall(node.resolved(sizes)))
            continue
        try:
            choice = whole.get(node.name) if whole else None
            add_steps(graph, places, plan, node.resolved(sizes), packed_weights, algorithm, choice)
        except ConvoxelError as error:
            raise type(error)(f"{node.operator} {node.name}: {error}") from None
    if len(plan) > begun:
        parts.append(NativeRun(begun, len(plan)))
    return Execution(
        graph=graph,
        sizes=dict(sizes),
        shapes=shapes,
        plan=plan,
        parts=tuple(parts),
        buffers=places.buffers,
        packed=pack_constants(graph, places),
        memory=_memory(graph, places),
        macs=_macs(graph, sizes, shapes),
        elements=elements,
    )


def _check_memory(graph: Graph, shapes: Mapping[str, Shape], installed: int) -> None:
    """Raise if one result alone is larger than this machine's memory, before any of it is asked for."""
    for node in graph.nodes:
        for value in node.outputs:
            size = 4 * math.prod(shapes.get(value.name, ()))
            if size > installed:
                raise ShapeError(
                    f"{node.operator} {node.name}: a result of shape {shapes[value.name]} takes "
                    f"{size / 2**30:.0f} GiB, this machine has {installed / 2**30:.0f}"
                )


def add_steps(
    graph: Graph,
    places: Places,
    plan: native.Plan,
    node: Node,
    packed_weights: PackedWeights,
    algorithm: str,
    choice: Choice | None,
) -> None:
    row = OPERATORS[node.operator]
    source = node.inputs[0]
    if row.alias is not None:
        return
    if node.operator == "channels_last":
        if not converts_freely(places.shapes[source]):
            plan.import_channels_first(places.buffers[source], places.view(node.output.name), name=node.name)
    elif node.operator == "channels_first":
        target = node.output.name
        if not places.fills(source, target):
            plan.export_channels_first(places.view(source), places.buffers[target], name=node.name)
    elif node.operator == "concat":
        _copy_parts(places, plan, node)
    else:
        assert row.lower is not None
        constant = [bool(name) and row.operand(i).constant for i, name in enumerate(node.inputs)]
        row.lower(
            Step(
                node=node,
                inputs=[places.view(name) if name and not constant[i] else None for i, name in enumerate(node.inputs)],
                outputs=[places.view(value.name) for value in node.outputs],
                shapes=[places.shapes[name] if name else None for name in node.inputs],
                constants=[graph.constants[n] if constant[i] else None for i, n in enumerate(node.inputs)],
                plan=plan,
                kernels=packed_weights,
                algorithm=algorithm,
                choice=choice,
            )
        )


def _copy_parts(places: Places, plan: native.Plan, node: Node) -> None:
    """Copy the parts of a concatenation that could not be written in place."""
    whole = places.view(node.output.name)
    rank = len(places.shapes[node.output.name])
    axis, start = full_axis(node["axis"] % rank, rank), 0
    for name in node.inputs:
        part = places.view(name)
        length = part.shape[axis]
        target = narrow_view(whole, axis, start, length)
        if part != target and node.output.dtype == "uint8":  # levels, whose bits are no floats
            plan.copy(part, target, name=f"{node.name}.copy")
        elif part != target:
            copy(plan, part, target, f"{node.name}.copy")
        start += length


def pack_constants(graph: Graph, places: Places) -> dict[str, NDArray[np.float32]]:
    """Return the constants that steps read as tensors, channels last."""
    packed = {}
    for name in places.buffers:
        if name in graph.constants:
            array = graph.constants[name]
            n, d, h, w, c = full(array.shape)
            last = array.reshape(n, c, d, h, w).transpose(0, 2, 3, 4, 1)
            packed[name] = np.array(last, np.float32, order="C")  # a copy: it is read in every run, a file may change
    return packed


def _memory(graph: Graph, places: Places) -> Memory:
    values = [v.name for v in graph.values.values() if v.layout == CHANNELS_LAST]
    size = sum(math.prod(places.shapes[name]) * ELEMENT_BYTES[element_of(places.elements, name)] for name in values)
    weights = sum(array.nbytes for array in graph.constants.values())
    return Memory(WORD_BYTES * places.arena_size, size, weights)


def _macs(graph: Graph, sizes: Mapping[str, int], shapes: Mapping[str, Shape]) -> dict[str, int]:
    macs = {}
    for node in graph.nodes:
        operands = [shapes[name] if name else None for name in node.inputs]
        results = [shapes[value.name] for value in node.outputs]
        rule = OPERATORS[node.operator].macs
        macs[node.name] = 0 if rule is None else rule(node.resolved(sizes), operands, results)
    return macs
