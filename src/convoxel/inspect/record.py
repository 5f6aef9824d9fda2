"""The one record that is described: a graph as it was read, with the shapes that it has for given inputs.

A PyTorch module is read on shapes alone (``graph.read.module_reader``), an ONNX file as it is written, and a program
keeps what it was read from. Nothing runs and no weights are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from convoxel.arithmetic import Transposed, Window
from convoxel.arithmetic.size_search import explain_refusal
from convoxel.errors import ConfigError, ConvoxelError, ShapeError, UnsupportedError
from convoxel.files.fault import brief
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.shape_only import outline
from convoxel.graph.ir.size import Shape, Size, evaluate_shape, measure
from convoxel.graph.operators.reads import Aligned, Along, Applied, Blocks, Reads, Regrouped, Steps
from convoxel.graph.operators.table import OPERATORS, infer_shapes
from convoxel.graph.read.reader import NeedsValue, guess_parameters
from convoxel.graph.run.size_check import broken_condition

if TYPE_CHECKING:
    from torch import nn

    from convoxel.graph.run.program import Program
    from convoxel.graph.specialised import Specialised

    Model: TypeAlias = "nn.Module | str | Path | Graph | Program | Specialised"

_SHAPED_NODES, _FEWEST_TRIALS = 20_000, 60  # whose shapes are inferred in search of sizes that work: a second


@dataclass(frozen=True)
class Step:
    """One operator of a record.

    Attributes:
        applied: the node, every size a number, with the shapes of its operands and results.
        inputs: names of the operands that depend on the network's inputs.
        reads: which positions of its operands it reads.
        params: trained parameters that no earlier step uses.
        weights: numbers that are read beside the inputs.
    """

    applied: Applied
    inputs: tuple[str, ...]
    reads: Reads
    params: int
    weights: int

    @property
    def node(self) -> Node:
        """The node."""
        return self.applied.node

    @property
    def name(self) -> str:
        """The node's name: the layer's path in the module, or the path and the function."""
        return self.applied.node.name

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.applied.node.operator

    @cached_property
    def function(self) -> str:
        """The word that says most: which activation, which function of PyTorch, or the operator."""
        node = self.applied.node
        if "label" in node.attributes:
            return str(node["label"]).split(".")[1].strip("_")
        if isinstance(self.reads, Regrouped):
            return "reshape"
        return str(node["activation"]) if self.operator == "activation" else self.operator

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values that it makes."""
        return self.applied.node.outputs

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.applied.outputs[0]

    @cached_property
    def windows(self) -> tuple[Window | Transposed, ...]:
        """The window along each image axis; () of an operator without one."""
        layers = self.reads.layers.values() if isinstance(self.reads, Along) else ()
        return tuple(
            layer
            for layer in layers
            if isinstance(layer, Window | Transposed) and not isinstance(layer, Blocks | Steps)
        )

    @property
    def kernel(self) -> tuple[int, ...] | None:
        """The size of the window, or None."""
        return tuple(window.k for window in self.windows) or None

    @cached_property
    def stays(self) -> bool:
        """True if it changes values where they are: norms, activations, scalings."""
        return isinstance(self.reads, Along) and not self.reads.layers and len(self.inputs) == 1 and not self.macs

    @cached_property
    def is_view(self) -> bool:
        """True if it only shows its operand in another way: reshaped, cropped, its axes in another order."""
        reads = self.reads
        if isinstance(reads, Along):
            lost = [size < old for size, old in zip(self.shape, self.applied.x, strict=True)]
            return bool(reads.layers) and not self.windows and not reads.whole and not self.macs and any(lost)
        if isinstance(reads, Aligned):
            alone = len(reads.operands) == 1 and reads.mixed is None
            return alone and set(reads.operands[0]) <= set(reads.result)
        return isinstance(reads, Regrouped)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the direct algorithm; 0 where they are not ``counted``."""
        applied, rule = self.applied, OPERATORS[self.operator].macs
        return 0 if rule is None else rule(applied.node, applied.inputs, applied.outputs)

    @property
    def counted(self) -> bool:
        """True if it is known how many there are: not of what PyTorch computes."""
        return OPERATORS[self.operator].macs is not None


@dataclass(frozen=True)
class Record:
    """A graph as read, for given input sizes.

    Attributes:
        name: the network's name.
        graph: the graph.
        shapes: the shape of every value and constant.
        sizes: the number of every open size.
        in_place: names of nodes that write where their first operand lies.
        calls: for each node, the name of the call of a function that it belongs to, and the function's; may be empty.
        dropped: values that training drops out from.
        all_params: trained parameters of the network, those that no step uses included; None: those of the steps.
        number_bytes: bytes of a number that the graph calls float32: a module's may be half or double.
        rewritten: whether passes have run on the graph already: a program that does not keep what it was read from.
    """

    name: str
    graph: Graph
    shapes: Mapping[str, Shape]
    sizes: Mapping[str, int] = field(default_factory=dict)
    in_place: frozenset[str] = frozenset()
    calls: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    dropped: Sequence[str] = ()
    all_params: int | None = None
    number_bytes: int = 4
    rewritten: bool = False

    @property
    def inputs(self) -> tuple[Shape, ...]:
        """The shapes of the inputs."""
        return tuple(self.shapes[value.name] for value in self.graph.inputs)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that depend on the inputs."""
        return tuple(name for name in self.graph.outputs if name in self.graph.values)

    @property
    def params(self) -> int:
        """Trained parameters, each counted once."""
        return sum(step.params for step in self.steps) if self.all_params is None else self.all_params

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The nodes that depend on the inputs, in running order."""
        return tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        graph, shapes = self.graph, self.shapes
        known = {value.name for value in graph.inputs}
        counted: set[str] = set()
        made_of: dict[str, tuple[str, ...]] = {}  # the constants of what constants alone make
        for open_node in graph.nodes:
            inputs = tuple(name for name in open_node.inputs if name in known)
            held = tuple(each for name in open_node.inputs for each in made_of.get(name, (name,)))
            if not inputs:
                made_of.update(dict.fromkeys((value.name for value in open_node.outputs), held))
                continue
            node = open_node.resolved(self.sizes)
            operands = [shapes[name] if name else None for name in node.inputs]
            applied = Applied(node, operands, [shapes[value.name] for value in node.outputs])
            params, weights = self._weights(node, held, counted)
            yield Step(applied, inputs, OPERATORS[node.operator].reads(applied), params, weights)
            known.update(value.name for value in node.outputs)

    def _weights(self, node: Node, held: Sequence[str], counted: set[str]) -> tuple[int, int]:
        """Return the parameters that no earlier node uses, and how many numbers the node reads beside its inputs."""
        params = self._parameters.get(node.name, 0)
        weights = 0
        for name in held:
            array = self.graph.constants.get(name)
            if array is None or (array.dtype.kind != "f" and name not in self._parameters):
                continue
            weights += array.size
            if name not in counted:
                counted.add(name)
                params += self._parameters.get(name, 0)
        return params, weights

    @cached_property
    def _parameters(self) -> Mapping[str, int]:
        if self.graph.parameters is not None:
            return self.graph.parameters
        return guess_parameters(self.graph.nodes, self.graph.constants)

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a value."""
        return math.prod(self.shapes[name]) * self.item_bytes(self.graph.values[name])

    def item_bytes(self, value: Value) -> int:
        """Return the bytes of one number of a value."""
        return self.number_bytes if value.dtype == "float32" else np.dtype(value.dtype).itemsize

    @cached_property
    def storage(self) -> Mapping[str, str]:
        """For each value, the value whose memory it shows or overwrites; itself where it has its own."""
        storage = {value.name: value.name for value in self.graph.inputs}
        for step in self.steps:
            shared = step.is_view or step.name in self.in_place
            for value in step.outputs:
                storage[value.name] = storage[step.inputs[0]] if shared else value.name
        return storage


class Source(Protocol):
    """A network that can be recorded for given shapes."""

    name: str
    signature: str

    def record(self, shapes: Sequence[Shape]) -> Record:
        """Return the network for inputs of ``shapes``."""
        ...

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """Return the shapes of the outputs for inputs of ``shapes``, or None where the network refuses them."""
        ...

    def usual(self) -> tuple[Shape, ...]:
        """Return the shapes of inputs that the network itself fixes; () if it does not."""
        ...


class _ModuleSource:
    """A PyTorch module."""

    signature = "(n, channels, *spatial)"

    def __init__(self, module: nn.Module, own: bool) -> None:
        from convoxel.graph.read.module_reader import ModuleReader

        self._reader = ModuleReader(module, own)
        self.name = self._reader.name
        self.accepts = self._reader.accepts

    def record(self, shapes: Sequence[Shape]) -> Record:
        """Return the module for inputs of ``shapes``, in evaluation mode."""
        graph = self._reader.read(shapes)
        found = {name: tuple(array.shape) for name, array in graph.constants.items()}
        found.update((name, evaluate_shape(value.shape, {})) for name, value in graph.values.items())
        reader = self._reader
        return Record(
            self.name,
            graph,
            found,
            in_place=reader.in_place,
            calls=reader.calls,
            dropped=reader.dropped,
            all_params=reader.parameters,
            number_bytes=reader.number_bytes,
        )

    def usual(self) -> tuple[Shape, ...]:
        """Return (): a module takes what it takes."""
        return ()


class _GraphSource:
    """A graph of a file, or that a program was read from; ``running`` is the program's own."""

    def __init__(self, graph: Graph, name: str, running: Graph | None = None) -> None:
        self.name = name or graph.name
        self._graph, self._rewritten = outline(graph), running is graph
        self._running = running or self._graph
        self._mirrored = [node for node in graph.nodes if node.attributes.get("mode") in ("reflect", "circular")]
        self.signature = ", ".join(f"{value.name} ({', '.join(map(str, value.shape))})" for value in graph.inputs)

    def usual(self) -> tuple[Shape, ...]:
        """Return the shapes of the inputs, the batch 1 where it is open; () where another axis is open."""
        shapes = []
        for value in self._graph.inputs:
            batch, *rest = value.shape or (1,)
            if any(isinstance(extent, Size) for extent in rest):
                return ()
            whole = [extent for extent in rest if isinstance(extent, int)]
            shapes.append(tuple([1 if isinstance(batch, Size) else batch, *whole][: len(value.shape)]))
        return tuple(shapes)

    def record(self, shapes: Sequence[Shape]) -> Record:
        """Return the graph for inputs of ``shapes``.

        Raises:
            ShapeError: the graph does not accept them.
        """
        sizes = self._measure(shapes)
        try:
            found = self._shapes(sizes)
        except ShapeError as reason:
            came = ", ".join(map(str, shapes))
            most = max(_FEWEST_TRIALS, _SHAPED_NODES // max(1, len(self._graph.nodes)))
            advice = explain_refusal(lambda trial: self.accepts(trial) is not None, shapes, most) or "Give other sizes."
            raise ShapeError(f"describe: {self.name} does not accept {came}: {reason}. {advice}") from None
        return Record(self.name, self._graph, found, sizes, rewritten=self._rewritten)

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """Return the shapes of the outputs for inputs of ``shapes``, or None where the graph refuses them."""
        try:
            found = self._shapes(self._measure(shapes))
        except ConvoxelError:
            return None
        return tuple(found[name] for name in self._graph.outputs)

    def _shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape]:
        """Return the shapes of all values; an image too small to be mirrored is refused, as compiled programs do."""
        found = infer_shapes(self._graph, sizes)
        for node in self._mirrored:
            x, result = found[node.inputs[0]], found[node.outputs[0].name]
            reads = OPERATORS[node.operator].reads(Applied(node.resolved(sizes), [x], [result]))
            for axis, layer in reads.layers.items() if isinstance(reads, Along) else ():
                layer.size(x[axis])
        return found

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
        if broken_condition(self._running, sizes) is not None:
            raise ShapeError(f"describe: {self.name} was recorded for other sizes than {came}. Give sizes like those.")
        return sizes


def open_source(model: Model, own: bool = False) -> Source:
    """Return the network that ``model`` stands for.

    Args:
        model: a PyTorch module, an ``.onnx`` or ``.cvx`` file, a program, or a graph.
        own: whether a module without data may be used itself, not a copy (default no).

    Raises:
        ConfigError: it is none of these.
        GraphError: a module cannot be copied, or a file cannot be read.
        UnsupportedError: a file has operators that Convoxel does not know, or sizes that depend on values.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix == ".onnx":
            return _GraphSource(_read_onnx(path), path.name)
        if path.suffix == ".cvx":
            from convoxel.graph.load import load

            return _of_program(load(path), path.name)
        raise ConfigError(f"describe: {model} is no network; expected a module, a program, or an .onnx or .cvx file.")
    if isinstance(model, Graph):
        return _GraphSource(model, model.name)
    if isinstance(getattr(model, "graph", None), Graph):
        return _of_program(model, "")
    if not hasattr(model, "parameters"):
        raise ConfigError(f"describe: model is {brief(model)}; expected a module, a program, or a file of one.")
    return _ModuleSource(model, own)  # type: ignore[arg-type]


def _of_program(program: object, name: str) -> Source:
    recorded: Graph | None = getattr(program, "recorded", None)
    graph: Graph = program.graph  # type: ignore[attr-defined]
    return _GraphSource(recorded or graph, name, graph)


def _read_onnx(path: Path) -> Graph:
    """Return the graph of an ONNX file as it is written, before any pass."""
    from convoxel.graph.read.onnx import open_model, read

    try:
        return read(open_model(path))[0]
    except NeedsValue as reason:
        raise UnsupportedError(
            f"describe: sizes in {path.name} depend on the values of {', '.join(sorted(reason.names))}. "
            "Export the network with those values fixed."
        ) from None
