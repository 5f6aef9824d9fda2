"""From a PyTorch module to a graph.

``export`` records the module, ``call`` holds the table of rules; ``layers``, ``normalisation``, ``numeric`` and
``tensors`` fill it, ``torch_call`` calls back what has no rule. This file walks PyTorch's graph from node to node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from convoxel.errors import GraphError, UnsupportedError
from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.pytree import Fixed, Leaf, Structure
from convoxel.graph.ir.size import Size, measure
from convoxel.graph.read.reader import NotNative, Reader
from convoxel.graph.read.torch import indexing, layers, normalisation, numeric, recurrent, tensors
from convoxel.graph.read.torch.call import RULES, STRETCHING, Call, Recorded, array_of
from convoxel.graph.read.torch.decomposition import decompose
from convoxel.graph.read.torch.export import Exported, NotOpen, exported_by, exports, names_of_memory
from convoxel.graph.read.torch.results import structure_of
from convoxel.graph.read.torch.torch_call import Slot, TorchCall, map_nested

__all__ = ["Imported", "indexing", "layers", "normalisation", "numeric", "read", "read_again", "recurrent", "tensors"]

_WRAPPERS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
_PLAIN_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


@dataclass(frozen=True)
class Imported:
    """A graph, how its results are nested, the operators that have no rule with the reason, and the export that it was
    read from."""

    graph: Graph
    structure: Structure
    without_rule: dict[str, str]
    exported: Exported


def read(model: torch.nn.Module | torch.export.ExportedProgram, examples: Sequence[torch.Tensor]) -> Imported:
    """Return the graph of ``model``, which must run on ``examples``; or of what ``torch.export`` recorded.

    Raises ``GraphError`` if PyTorch cannot export the model, ``ShapeError`` for examples without a batch
    axis, ``UnsupportedError`` if a result's size depends on values or the model writes its own state.
    """
    shapes = [tuple(example.shape) for example in examples]
    found: Iterable[Exported] = exports(model, examples) if isinstance(model, torch.nn.Module) else [exported_by(model)]
    name = type(model).__name__
    for exported in found:
        _check_state(exported)
        try:
            imported = _Walk(exported, name).imported()
        except NotOpen:
            continue
        graph = imported.graph
        sizes = measure([value.shape for value in graph.inputs], shapes)
        if not graph.computes_sizes or all(assumption.value(sizes) for assumption in graph.assumptions):
            return imported
    raise GraphError("compile: the model computes with sizes in a way that holds for other examples only")


def read_again(exported: Exported, name: str, state: Mapping[str, torch.Tensor]) -> Imported:
    """Return what an export is with other parameters and buffers of the same shapes and types, without a new export.

    Args:
        exported: from what ``read`` returned.
        name: the graph's name.
        state: parameters and buffers by name; the export's own stand for those that are missing.
    """
    return _Walk(exported, name, state).imported()


def _check_state(exported: Exported) -> None:
    """Raise if the model writes its buffers or parameters: a program is the same at every call."""
    if exported.written:
        names = ", ".join(sorted(exported.written))
        raise UnsupportedError(
            f"compile: the model writes its own {names} at every call, but a program keeps no state. Make it an "
            "argument and a result of the model, evaluate the model where it does not write, or use "
            'torch.compile(model, backend="convoxel"), which keeps the write.'
        )


class _Walk:
    """One pass over PyTorch's graph; ``_results`` holds what each of its nodes became."""

    def __init__(self, exported: Exported, name: str, state: Mapping[str, torch.Tensor] = MappingProxyType({})) -> None:
        self._program = exported.program
        self._symbols = exported.symbols
        self._exported = exported
        self._state = state
        self._reader = Reader(name)
        self._results: dict[torch.fx.Node, Any] = {}
        self._without_rule: dict[str, str] = {}

    def imported(self) -> Imported:
        """Return the whole graph."""
        constants = _constants_by_placeholder(self._program, self._state)
        for placeholder in self._program.graph_signature.inputs_to_parameters:
            self._reader.train(constants[placeholder], constants[placeholder].numel())
        wanted = set(self._program.graph_signature.user_inputs)
        given = {
            node: self._input(node) if node.name in wanted else constants.get(node.name, node.meta.get("val"))
            for node in self._program.graph.nodes
            if node.op == "placeholder"
        }
        return self._output(self._run(self._program.graph_module, given))

    def _run(self, module: torch.fx.GraphModule, given: Mapping[torch.fx.Node, Any]) -> torch.fx.Node:
        """Read the nodes of a graph whose placeholders are ``given``, and return its output node."""
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self._results[node] = given[node]
            elif node.op == "get_attr":
                self._results[node] = getattr(module, node.target)
            elif node.op == "call_function" and str(node.target) in _WRAPPERS:
                self._results[node] = self._inline(node)
            elif node.op == "call_function":
                self._results[node] = self._call(node)
            elif node.op == "output":
                return node
            else:
                raise GraphError(f"compile: cannot read {node.op} {node.name} of PyTorch's graph")
        raise AssertionError("PyTorch's graph has no output")

    def _inline(self, node: Any) -> Any:
        """Read a part that PyTorch runs with other settings: without gradients, or with other types."""
        at = next(index for index, argument in enumerate(node.args) if hasattr(argument, "op"))
        if "autocast" in str(node.target) and node.args[2]:
            raise UnsupportedError(
                f"compile: the model switches to {_dtype_name(node.args[1])} (torch.autocast) in {node.name}; the "
                "engine computes in float32: leave that out of the model that is compiled"
            )
        part = self._results[node.args[at]]
        inner = [each for each in part.graph.nodes if each.op == "placeholder"]
        output = self._run(part, dict(zip(inner, self._operands(node.args[at + 1 :]), strict=True)))
        results = self._operands(output.args[0])
        return list(results) if isinstance(results, list | tuple) else results

    def _input(self, node: torch.fx.Node) -> Any:
        tensor = node.meta.get("val")
        if not isinstance(tensor, torch.Tensor):
            return tensor
        value = Value(self._reader.unique(node.name), self._symbols.extents(tensor.shape), _dtype_name(tensor.dtype))
        self._reader.add_input(value)
        return value

    def _output(self, node: Any) -> Imported:
        names: list[str] = []
        spec = self._program.call_spec.out_spec
        leaves = [self._leaf(argument, names) for argument in node.args[0][-spec.num_leaves or len(node.args[0]) :]]
        structure = structure_of(spec, iter(leaves))
        graph = self._reader.graph(names, self._exported.guards, self._exported.assumptions)
        return Imported(graph, structure, self._without_rule, self._exported)

    def _leaf(self, argument: Any, names: list[str]) -> Structure:
        result = self._results[argument] if isinstance(argument, torch.fx.Node) else argument
        if isinstance(result, torch.Tensor):
            result_name = self._reader.constant(array_of(result), str(argument))
        elif isinstance(result, Value):
            result_name = result.name
        else:
            return Fixed(result)
        names.append(result_name)
        return Leaf(len(names) - 1)

    def _call(self, node: Any) -> Any:
        """Return what one operator becomes: a value, a list of values, a constant, a size."""
        meta = node.meta.get("val")
        if isinstance(meta, int | float | bool):
            return meta
        if isinstance(meta, torch.SymInt | torch.SymFloat | torch.SymBool):
            return self._symbols.extent(meta)
        target, args, kwargs = str(node.target), self._operands(node.args), self._operands(node.kwargs)
        if "getitem" in target and isinstance(args[0], list | tuple):
            return args[0][args[1]]
        if isinstance(meta, list | tuple) and meta and all(isinstance(each, int | torch.SymInt) for each in meta):
            return list(self._symbols.extents(meta))
        if meta is None:
            return None  # assertions about sizes; ours are made when a program is called
        leaves: list[Any] = []
        map_nested(leaves.append, [args, kwargs])
        dynamic = any(isinstance(leaf, Value | Size) for leaf in leaves)
        seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and "dropout" not in target
        mutates = node.target._schema.is_mutable
        if not dynamic and not seeded:  # all of it is known: weight normalisation and the like
            result = _compute(node.target, args, kwargs, mutates)
            for tensor in result if isinstance(result, list | tuple) else (result,):
                self._reader.derive(tensor, leaves)
        else:
            call = self._describe(node, args, kwargs, meta)
            try:
                if target not in RULES:
                    raise NotNative("no rule")
                if any("complex" in str(getattr(each, "dtype", each)) for each in (*leaves, *call.dtypes)):
                    raise NotNative("complex numbers")
                result = RULES[target](call)
            except NotNative as reason:
                result = self._decomposed(node)
                if result is None:
                    self._without_rule.setdefault(target, str(reason))
                    result = self._call_torch(node, args, kwargs, call, isinstance(meta, list | tuple))
        if mutates and isinstance(node.args[0], torch.fx.Node):
            self._rebind(node.args[0], result)
        return result

    def _decomposed(self, node: torch.fx.Node) -> Any:
        """Read what PyTorch says that an operator consists of; None if it does not say it in operators with rules."""
        found = decompose(node)
        if found is None:
            return None
        part, read = found
        inner = [each for each in part.graph.nodes if each.op == "placeholder"]
        output = self._run(part, dict(zip(inner, self._operands(read), strict=True)))
        results = self._operands(output.args[0])
        return list(results) if isinstance(results, list | tuple) else results

    def _rebind(self, written: torch.fx.Node, result: Any) -> None:
        """Whoever reads the memory that was written, by whatever name, reads the new contents.

        A copy is another memory, though it had the same contents and may be the same value of the graph until then.
        """
        for node in names_of_memory(written):
            if node in self._results:
                self._results[node] = result

    def _operands(self, arguments: Any) -> Any:
        def look(leaf: Any) -> Any:
            return self._results[leaf] if isinstance(leaf, torch.fx.Node) else leaf

        return map_nested(look, arguments)

    def _describe(self, node: Any, args: Any, kwargs: Any, meta: Any) -> Call:
        metas = meta if isinstance(meta, list | tuple) else [meta]
        tensors_only = [m for m in metas if isinstance(m, torch.Tensor)]
        arguments = {}
        for index, argument in enumerate(node.target._schema.arguments):
            default = argument.default_value if argument.has_default_value() else None
            arguments[argument.name] = args[index] if index < len(args) else kwargs.get(argument.name, default)
        shapes = tuple(self._symbols.extents(m.shape) for m in tensors_only)
        results = Recorded(shapes, tuple(_dtype_name(m.dtype) for m in tensors_only))
        used = frozenset(u.args[1] for u in node.users if "getitem" in str(u.target) and u.users)
        name, later = _readable_name(node), _stretches_later(node)
        return Call(self._reader, str(node.target), name, arguments, results, used, later)

    def _call_torch(self, node: Any, args: Any, kwargs: Any, call: Call, several: bool) -> Any:
        """Add a node that calls PyTorch."""
        known = set().union(*(s.names() for v in self._reader.inputs for s in v.shape if isinstance(s, Size)))
        if "bfloat16" in call.dtypes:
            raise UnsupportedError(
                f"compile: {call.target} {call.name} makes bfloat16, which NumPy does not have. "
                "Convert the model with model.float(), and leave such conversions out of it."
            )
        for shape in call.shapes:
            if any(isinstance(extent, Size) and not extent.names() <= known for extent in shape):
                raise UnsupportedError(
                    f"compile: the size of {call.target} {call.name} depends on values, not only on "
                    "input sizes. "
                    "Leave such operators out of the model that is compiled."
                )
        inputs: list[str] = []
        sizes: list[Size] = []

        def slot(leaf: Any) -> Any:
            if isinstance(leaf, Size):
                sizes.append(leaf)
            if isinstance(leaf, Value):
                inputs.append(leaf.name)
                return Slot(len(inputs) - 1)
            return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf

        target = TorchCall(
            node.target, map_nested(slot, tuple(args)), map_nested(slot, dict(kwargs)), node.target._schema.is_mutable
        )
        values = call.call_torch(inputs, target, sizes)
        return values if several else values[0]


def _compute(target: Any, args: Any, kwargs: Any, mutates: bool) -> Any:
    """Return an operator's result on constants, which are the model's own and must not change."""

    def own(leaf: Any) -> Any:
        return leaf.clone() if mutates and isinstance(leaf, torch.Tensor) else leaf

    with torch.no_grad():
        return target(*map_nested(own, args), **map_nested(own, kwargs))


def _constants_by_placeholder(program: torch.export.ExportedProgram, changed: Mapping[str, torch.Tensor]) -> JsonObject:
    """Return the parameters, buffers and literal tensors by the names under which the graph reads them."""
    signature, constants = program.graph_signature, {}
    state = {**program.constants, **program.state_dict, **changed}
    tables = (signature.inputs_to_parameters, signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants)
    for table in tables:
        for placeholder, target in table.items():
            constants[placeholder] = state[target].detach()
    return constants


def _stretches_later(node: torch.fx.Node) -> bool:
    """Return True if everything that reads the node combines it with a tensor of its shape."""

    def shape(other: torch.fx.Node) -> list[str]:
        return [str(size) for size in getattr(other.meta.get("val"), "shape", ())]

    def stretches(user: torch.fx.Node) -> bool:
        others = [operand for operand in user.args[:2] if operand is not node]
        return (
            str(user.target) in STRETCHING
            and len(others) == 1
            and isinstance(others[0], torch.fx.Node)
            and shape(others[0]) == shape(node)
        )

    return bool(node.users) and all(map(stretches, node.users))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _readable_name(node: torch.fx.Node) -> str:
    """Return the path of the layer that the operator came from, or its own name outside of layers.

    A layer's own operator has the layer's path; an operator that a larger module calls directly has that
    module's path and PyTorch's name for it.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    for path, kind in reversed(stack):
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if not path:
            break
        if kind.startswith("torch.nn.modules.") and kind.rsplit(".", 1)[-1] not in _PLAIN_CONTAINERS:
            return str(path)
        return f"{path}.{str(node.target).split('.')[1].strip('_')}"
    return str(node.name)
