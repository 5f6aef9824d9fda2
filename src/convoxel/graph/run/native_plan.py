"""The native steps of a graph as texts: what ``.cvx`` files hold for programs without Python (``csrc/capi``).

The planner runs with open sizes: shape rules, places and lowerings are those of every call, a recorder stands in the
place of the engine's plan, and each number that a step is given becomes a number or an expression of the input's sizes.
The library computes the expressions, places the buffers, and adds the steps. Where a lowering must know a size, the
steps are written for stated sizes.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import ConfigError, ConvoxelError, UnsupportedError
from convoxel.files.fault import brief
from convoxel.files.values import Array, JsonObject
from convoxel.graph.ir.graph import CHANNELS_LAST, Graph
from convoxel.graph.ir.size import Extent, OpenSizes, Shape, Size, compare, evaluate_shape
from convoxel.graph.operators.step import PackedWeights, PaddedLayer
from convoxel.graph.operators.table import infer_shapes
from convoxel.graph.operators.view import full
from convoxel.graph.run.arena import Block
from convoxel.graph.run.execution import CONTRADICTIONS, add_steps, pack_constants
from convoxel.graph.run.placement import Places, place
from convoxel.graph.run.storage import choose_elements
from convoxel.graph.store.record import NativePlans
from convoxel.native import View
from convoxel.native.index_table import AxisTable, TableRule
from convoxel.native.plan import step_parameters
from convoxel.native.precision import DIGITS

NativeSizes = Sequence[Mapping[str, int]]
"""The sizes for which plans are written, each by its name; sizes that one leaves out stay open."""


def native_plans(
    graph: Graph,
    packed: PackedWeights,
    algorithm: str,
    precision: str,
    choices: Mapping[str, Mapping[str, str]],
    sizes: NativeSizes | None,
    known: Mapping[str, int] | None = None,
) -> NativePlans:
    """Return the native plans of a program.

    Args:
        graph: a graph whose layouts are assigned.
        packed, algorithm, precision, choices: the program's.
        sizes: one plan is written for each; by default one for all sizes, and where there is no such plan one for the
            sizes ``known`` and any batch.

    Raises:
        ConfigError: ``sizes`` names one that the network does not have.
        UnsupportedError: ``sizes`` is given, and some step has no native form.
    """
    book = _Book(graph)
    names = _axes(graph)

    def plans(wanted: NativeSizes) -> list[JsonObject]:
        return [plan for bound in wanted for plan in _plans(graph, book, dict(bound), packed, algorithm, precision)]

    if sizes is not None:
        _check_names(sizes, names)
        try:
            found = plans(sizes)
        except UnsupportedError as reason:
            raise UnsupportedError(f"save: {reason}") from None
    else:
        try:
            found = plans([{}])
        except UnsupportedError as reason:
            batch = str(graph.inputs[0].shape[0])
            try:
                if known is None:
                    raise reason
                found = plans([{name: size for name, size in known.items() if name != batch}])
            except UnsupportedError as error:
                return NativePlans({"refused": str(error)})
    content = {
        "inputs": [[v.name, [_told(extent) for extent in v.shape]] for v in graph.inputs],
        "results": [
            # The pass that lays results out for the caller adds a suffix to their names.
            [name.removesuffix(":first"), [_told(extent) for extent in graph.values[name].shape]]
            for name in graph.outputs
        ],
        "digits": DIGITS[precision],
        "choices": {name: dict(choices) for name, choices in choices.items()},
        "layers": book.layers,
        "plans": found,
    }
    return NativePlans(content, book.added)


def _told(extent: Extent) -> object:
    return extent.text if isinstance(extent, Size) else extent


def _axes(graph: Graph) -> dict[str, tuple[int, int]]:
    """Return the input and the axis by which every open size is measured."""
    axes: dict[str, tuple[int, int]] = {}
    for index, value in enumerate(graph.inputs):
        for axis, extent in enumerate(value.shape):
            if isinstance(extent, Size) and extent.is_axis:
                axes.setdefault(extent.text, (index, axis))
    return axes


def _check_names(sizes: object, names: Iterable[str]) -> None:
    listed = ", ".join(names) or "none"
    if not isinstance(sizes, list | tuple) or not all(isinstance(each, Mapping) for each in sizes) or not sizes:
        raise ConfigError(f"save: sizes is {brief(sizes)}; expected a list of sizes by name, such as [{{'h': 224}}]")
    for each in sizes:
        for name, size in each.items():
            if name not in names:
                raise ConfigError(f"save: sizes names {brief(name)}; this network's open sizes are {listed}")
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < 2**31:
                raise ConfigError(f"save: sizes has {name} = {brief(size)}; expected a whole number from 1 on")


def _plans(
    graph: Graph, book: _Book, bound: Mapping[str, int], packed: PackedWeights, algorithm: str, precision: str
) -> list[JsonObject]:
    """Return the plan for sizes of which some are bound; two where some processors store values as bfloat16."""
    elements = choose_elements(graph, precision, bfloat16=True)
    if not elements:
        return [{"bfloat16": None, **_plan(graph, book, bound, packed, algorithm, {})}]
    return [
        {"bfloat16": stored, **_plan(graph, book, bound, packed, algorithm, elements if stored else {})}
        for stored in (True, False)
    ]


def _plan(
    graph: Graph,
    book: _Book,
    bound: Mapping[str, int],
    packed: PackedWeights,
    algorithm: str,
    elements: Mapping[str, str],
) -> JsonObject:
    axes = _axes(graph)
    sizes = OpenSizes({name: bound.get(name, Size(name)) for name in axes})
    _check_types(graph)
    shapes = infer_shapes(graph, sizes)
    numbers = _Expressions()
    blocks: dict[str, Block] = {}

    def arrange(found: Mapping[str, Block]) -> tuple[dict[str, int], int]:
        blocks.update(found)
        places = {name: cast(int, Size(f"arena_{index}")) for index, name in enumerate(found)}
        return places, 0

    with _for_all_sizes("the places of tensors", axes, bound):
        places = place(graph, shapes, sizes, elements, arrange)
        conditions = _conditions(graph, shapes, sizes, places)
    placed = [
        [f"arena_{index}", numbers.of(size), first, last] for index, (size, first, last) in enumerate(blocks.values())
    ]
    inputs = [[numbers.of(extent) for extent in evaluate_shape(value.shape, sizes)] for value in graph.inputs]
    results = [[numbers.of(extent) for extent in shapes[name]] for name in graph.outputs]
    judged = [[numbers.of(condition), condition.text] for condition in conditions]
    recorder = _Recorder(book, numbers)
    for node in graph.nodes:
        with _for_all_sizes(f"the steps of {node.operator} {node.name}", axes, bound):
            add_steps(graph, places, cast(native.Plan, recorder), node.resolved(sizes), packed, algorithm, None)
    buffers, sources = _buffers(graph, places, book)
    return {
        "text": _text(axes, bound),
        "fixed": dict(bound),
        "axes": [[name, *where] for name, where in axes.items()],
        "expressions": numbers.listed,
        "conditions": judged,
        "inputs": inputs,
        "results": results,
        "blocks": placed,
        "buffers": buffers,
        "sources": sources,
        "steps": recorder.steps,
    }


@contextmanager
def _for_all_sizes(what: str, axes: Iterable[str], bound: Mapping[str, int]) -> Iterator[None]:
    """Raise ``UnsupportedError`` where what is planned must know the sizes that are still open."""
    try:
        yield
    except UnsupportedError:
        raise
    except (*CONTRADICTIONS, AssertionError, ConvoxelError) as reason:
        told = f" ({reason})" if isinstance(reason, ConvoxelError) else ""
        named = ", ".join(f"'{name}': {bound.get(name, '…')}" for name in axes)
        raise UnsupportedError(
            f"{what} cannot be written for all sizes of {', '.join(name for name in axes if name not in bound)}{told}; "
            f"save the program with sizes=[{{{named}}}], the sizes that it is to run with"
        ) from None


def _text(axes: Iterable[str], bound: Mapping[str, int]) -> str:
    told = [f"{name} = {bound[name]}" for name in axes if name in bound]
    still = [name for name in axes if name not in bound]
    return ", ".join([*told, *([f"any {', '.join(still)}"] if still else [])]) or "the sizes of the inputs"


def _check_types(graph: Graph) -> None:
    """Raise unless all that comes and goes is float32, and the engine has steps for every node."""
    foreign = [f"{node.operator} ({node.name})" for node in graph.nodes if not node.native]
    if foreign:
        more = f", and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise UnsupportedError(f"some steps run in NumPy: {', '.join(foreign[:5])}{more}")
    for value in (*graph.inputs, *(graph.values[name] for name in graph.outputs if name in graph.values)):
        if value.dtype != "float32":
            raise UnsupportedError(f"{value.name} is {value.dtype}; programs without Python take and return float32")
    constant = [name for name in graph.outputs if name in graph.constants]
    if constant:
        raise UnsupportedError(f"the result {constant[0]} is a constant")


def _conditions(graph: Graph, shapes: Mapping[str, Shape], sizes: OpenSizes, places: Places) -> list[Size]:
    """Return what must hold for the steps to be right: what shape rules took to fit, because sizes were open."""
    found: dict[str, Size] = {}

    def require(condition: object) -> None:
        if isinstance(condition, Size):
            found[condition.text] = condition
        elif not condition:
            raise UnsupportedError("the network accepts no inputs of these sizes")

    for guard in (*graph.guards, *(graph.assumptions if graph.computes_sizes else ())):
        require(sizes.of(guard))
    for value in graph.values.values():
        if graph.computes_sizes:
            for recorded, true in zip(evaluate_shape(value.shape, sizes), shapes[value.name], strict=True):
                require(compare("==", recorded, true))
        if value.layout == CHANNELS_LAST:
            for there, needed in zip(places.view(value.name).shape, full(places.shapes[value.name]), strict=True):
                require(there == needed or compare("==", there, needed))
    for node in graph.nodes:
        if node.operator == "space_to_depth":
            for size in shapes[node.inputs[0]][2:]:
                if isinstance(size, Size):
                    require(compare("==", size % node["block"], 0))
    return list(found.values())


def _buffers(graph: Graph, places: Places, book: _Book) -> tuple[list[list[object]], list[int]]:
    """Return what each buffer of the steps is, and the buffer of every result."""
    inputs = [value.name for value in graph.inputs]
    constants = pack_constants(graph, places)
    buffers: list[list[object]] = []
    numbers = dict(places.buffers)
    for name in places.buffers:
        if name in inputs:
            buffers.append(["input", inputs.index(name)])
        elif name in constants:
            buffers.append(["constant", book.tensor(constants[name])])
        else:
            buffers.append(["result", graph.outputs.index(name)])
    for name in graph.outputs:
        if name not in numbers:  # an input that comes back
            buffers.append(["input", inputs.index(name)])
            numbers[name] = len(buffers)
    return buffers, [numbers[name] for name in graph.outputs]


# ---- numbers -----------------------------------------------------------------------------------------------------

_BINARY: Mapping[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.BitAnd: "and", ast.BitOr: "or",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.And: "and",
    ast.Or: "or", ast.Div: "/",
}  # fmt: skip
_CALLS = {
    "Max": "max", "max": "max", "Min": "min", "min": "min", "FloorDiv": "//", "CleanDiv": "//", "CeilDiv": "ceil",
    "TruncDiv": "truncate", "Mod": "%", "PythonMod": "%", "Where": "where", "ToFloat": "float64", "Float32": "float32",
    "floor": "floor", "FloorToInt": "floor", "ceiling": "ceiling", "CeilToInt": "ceiling", "TruncToInt": "trunc",
    "RoundToInt": "round", "sqrt": "sqrt", "OpaqueUnaryFn_sqrt": "sqrt",
}  # fmt: skip

Operand = int | str | list[int]
"""A number, the name of a size, or ``[k]``: the value of expression k."""


class _Expressions:
    """Expressions as a file holds them (``csrc/capi/open_sizes.h``): each one once."""

    def __init__(self) -> None:
        self.listed: list[list[object]] = []
        self._known: dict[str, Operand] = {}

    def of(self, extent: Extent) -> Operand:
        """Return what stands for a size."""
        if not isinstance(extent, Size):
            return int(extent)
        if extent.text not in self._known:
            self._known[extent.text] = self._written(extent.tree, extent.text)
        return self._known[extent.text]

    def _add(self, operation: str, *operands: Operand) -> Operand:
        key = f"{operation} {operands}"
        if key not in self._known:
            self.listed.append([operation, *operands])
            self._known[key] = [len(self.listed) - 1]
        return self._known[key]

    def _written(self, node: ast.expr, text: str) -> Operand:
        again = functools.partial(self._written, text=text)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Constant) and type(node.value) is float:
            return self._add("fraction", *struct.unpack(">II", struct.pack(">d", node.value)))
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
            return self._fold("*", [again(node.left)] * cast(int, node.right.value)) if node.right.value else 1
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._add(_BINARY[type(node.op)], again(node.left), again(node.right))
        if isinstance(node, ast.UnaryOp):
            inner = again(node.operand)
            return self._add("-", 0, inner) if isinstance(node.op, ast.USub) else self._add("==", inner, 0)
        if isinstance(node, ast.Compare):
            terms = [again(term) for term in (node.left, *node.comparators)]
            pairs = zip(node.ops, terms, terms[1:], strict=False)
            return self._fold("and", [self._add(_BINARY[type(op)], a, b) for op, a, b in pairs])
        if isinstance(node, ast.BoolOp):
            return self._fold(_BINARY[type(node.op)], [again(value) for value in node.values])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            operands = [again(argument) for argument in node.args]
            if node.func.id in ("Max", "max", "Min", "min"):
                return self._fold(_CALLS[node.func.id], operands)
            if node.func.id == "Identity":
                return operands[0]
            if node.func.id in ("IntTrueDiv", "FloatTrueDiv"):
                return self._add("/", *(self._add("float64", operand) for operand in operands))
            if node.func.id == "TruncToFloat":
                return self._add("float64", self._add("trunc", operands[0]))
            if node.func.id in _CALLS:
                return self._add(_CALLS[node.func.id], *operands)
        raise UnsupportedError(f"the size {text} is computed with powers; save the program with sizes=[…]")

    def _fold(self, operation: str, operands: Sequence[Operand]) -> Operand:
        return functools.reduce(lambda a, b: self._add(operation, a, b), operands)


# ---- steps -------------------------------------------------------------------------------------------------------


class _Book:
    """The arrays and layers that the plans of a file share."""

    def __init__(self, graph: Graph) -> None:
        self.layers: list[JsonObject] = []
        self.added: dict[str, Array] = {}
        self._constants = graph.constants
        self._alike: dict[tuple[str, int], list[str]] = {}  # constants of one type and number of bytes
        for name, array in graph.constants.items():
            self._alike.setdefault((array.dtype.name, array.nbytes), []).append(name)
        self._contents: dict[tuple[object, ...], str] = {}
        self._layers: dict[int, int] = {}

    def tensor(self, array: Array) -> str:
        """Return the name of a tensor of the file with these numbers, in order: a constant, or one that is added."""
        array = np.ascontiguousarray(array)
        for name in self._alike.get((array.dtype.name, array.nbytes), ()):
            constant = self._constants[name]
            if constant.ctypes.data == array.ctypes.data or np.array_equal(_bytes(constant), _bytes(array)):
                return name
        key = (array.dtype.name, array.shape, hashlib.sha256(_bytes(array).data).digest())
        if key not in self._contents:
            names = (f"native/{index}" for index in count(len(self.added)))
            self._contents[key] = new = next(name for name in names if name not in self._constants)
            self.added[new] = array
        return self._contents[key]

    def layer(self, convolution: Any) -> int:
        """Return the number of a convolution."""
        if id(convolution) not in self._layers:
            self._layers[id(convolution)] = len(self.layers)
            self.layers.append(self._described(convolution))
        return self._layers[id(convolution)]

    def _described(self, convolution: Any) -> JsonObject:
        _, stride, dilation, padding_low, groups, transposed = convolution.window
        arrays = dict(convolution.arrays)
        described: JsonObject = {
            "shape": list(arrays["weight"].shape), "stride": list(stride), "dilation": list(dilation),
            "padding_low": list(padding_low), "groups": groups, "transposed": transposed,
        }  # fmt: skip
        if "scale" in arrays:
            described["zero"] = convolution.zero
            arrays["weight"] = np.ascontiguousarray(arrays["weight"], np.int16)
        return described | {name: None if array is None else self.tensor(array) for name, array in arrays.items()}


def _bytes(array: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class _Recorder:
    """Stands in the place of the engine's plan, and writes down the steps that it is given."""

    def __init__(self, book: _Book, numbers: _Expressions) -> None:
        self.steps: list[list[object]] = []
        self._book, self._numbers = book, numbers
        self._parameters = step_parameters()

    def __getattr__(self, step: str) -> Callable[..., None]:
        if step not in self._parameters:
            raise AttributeError(step)
        return functools.partial(self._add, step)

    def _add(self, step: str, *given: object, name: str = "", **named: object) -> None:
        parameters = self._parameters[step]
        values = dict(zip((parameter[0] for parameter in parameters), given, strict=False)) | named
        written = [
            self._written(kind, values[key] if key in values else default[0]) for key, kind, *default in parameters
        ]
        self.steps.append([step, name, written])

    def _written(self, kind: Any, value: Any) -> object:
        if isinstance(kind, tuple):
            outer, *inner = kind
            if outer == "optional":
                return None if value is None else self._written(inner[0], value)
            kinds = inner * len(value) if outer == "list" else inner
            return [self._written(each, element) for each, element in zip(kinds, value, strict=True)]
        return _WRITERS[kind](self._book, self._numbers, value)


def _bits(value: Any) -> int:
    """Return the bits of a float32 as a whole number."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def _view(numbers: _Expressions, view: View) -> list[object]:
    shape, strides = ([numbers.of(number) for number in each] for each in (view.shape, view.strides))
    return [view.buffer, numbers.of(view.offset), shape, strides, view.element]


def _layer(book: _Book, numbers: _Expressions, layer: Any) -> object:
    if isinstance(layer, PaddedLayer):
        return [book.layer(layer.layer), [numbers.of(low) for low in layer.padding_low]]
    return book.layer(layer)


def _table(book: _Book, numbers: _Expressions, table: AxisTable) -> object:
    if isinstance(table, TableRule):
        bits = [int(struct.unpack("<q", struct.pack("<d", fraction))[0]) for fraction in table.fractions]
        return [list(table.words), [numbers.of(number) for number in table.numbers], bits]
    return [book.tensor(table.source), book.tensor(table.weight)]


def _slope(value: Any) -> list[int]:
    return [_bits(number) for number in (value if isinstance(value, tuple | list) else (value, 0.0))]


_WRITERS: Mapping[str, Callable[[_Book, _Expressions, Any], object]] = {
    "view": lambda book, numbers, value: _view(numbers, value),
    "layer": lambda book, numbers, value: _layer(book, numbers, value),
    "text": lambda book, numbers, value: str(value),
    "bool": lambda book, numbers, value: bool(value),
    "int": lambda book, numbers, value: numbers.of(value),
    "float": lambda book, numbers, value: _bits(value),
    "axes": lambda book, numbers, value: [numbers.of(number) for number in value],
    "slope": lambda book, numbers, value: _slope(value),
    "levels": lambda book, numbers, value: [_bits(value[0]), int(value[1])],
    "table": lambda book, numbers, value: _table(book, numbers, value),
    "floats": lambda book, numbers, value: book.tensor(np.ascontiguousarray(value, np.float32)),
    "int32s": lambda book, numbers, value: book.tensor(np.ascontiguousarray(value, np.int32)),
}  # fmt: skip
"""The form in which a file holds a value of each type of ``native.plan.step_parameters``."""
