"""Functions of a model: operators that the file, or ONNX itself, defines by other operators.

They are expanded once, after counting what that would make: definitions of definitions grow exponentially, and ones
that use themselves never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import onnx.inliner

from convoxel.errors import GraphError
from convoxel.graph.read.onnx.call import RULES
from convoxel.graph.read.onnx.file import DOMAINS, first_line

MAX_NODES = 200_000
_DEEPEST = 64  # functions of functions of functions; more is an attack, not a network
_ROUNDS = 8  # the same for ONNX's own definitions

_Key = tuple[str, str, str]


def expanded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without functions of its own, and with operators that lack a rule replaced by their definition.

    Raises ``GraphError`` if a function uses itself, or if the whole has more than ``MAX_NODES`` nodes.
    """
    count = _Counts(model.functions).of(model.graph.node, ())
    if count > MAX_NODES:
        raise GraphError(f"load: the model has {count} nodes; at most {MAX_NODES} are read.")
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as reason:  # the inliner is C++ and raises kinds of its own
        raise GraphError(f"load: the model's functions cannot be expanded: {first_line(reason)}") from None
    for _ in range(_ROUNDS):
        wanted = sorted({n.op_type for n in _nodes(model.graph.node) if n.domain in DOMAINS} - RULES.keys())
        known = [("", name) for name in wanted if _has_definition(name)]
        if not known:
            break
        try:
            model = onnx.inliner.inline_selected_functions(_typed(model), known, inline_schema_functions=True)
        except Exception:  # a definition that the inliner cannot expand; the walk lists its operator
            break
    return model


class _Counts:
    """Return the number of nodes that functions expand to; each is counted once."""

    def __init__(self, functions: Iterable[onnx.FunctionProto]) -> None:
        self._functions = {(f.domain, f.name, f.overload): f for f in functions}
        self._known: dict[_Key, int] = {}

    def of(self, nodes: Iterable[onnx.NodeProto], above: tuple[_Key, ...]) -> int:
        """Return the count for ``nodes``, which lie inside the functions ``above``."""
        return sum(self._one((n.domain, n.op_type, n.overload), above) for n in _nodes(nodes))

    def _one(self, key: _Key, above: tuple[_Key, ...]) -> int:
        function = self._functions.get(key)
        if function is None:
            return 1
        if key in above or len(above) == _DEEPEST:
            chain = " → ".join(name for _, name, _ in (*above[-3:], key))
            raise GraphError(f"load: function {key[1]!r} uses itself, or functions nest too deeply ({chain}).")
        if key not in self._known:
            self._known[key] = self.of(function.node, (*above, key))
        return self._known[key]


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(graph.node)


def _has_definition(operator: str) -> bool:
    try:
        schema: Any = onnx.defs.get_schema(operator)  # not all of its attributes are typed
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types of its initialisers said, which definitions may ask for."""
    known = {info.name for info in (*model.graph.input, *model.graph.value_info)}
    infos = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.name not in known
    ]
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    typed.graph.value_info.extend(infos)
    return typed
