"""Checks against ONNX's schema of an operator before its rule runs: operands, attributes, types that must agree.

The rules rely on it: behind this check a required attribute is there and has its type, and operands that must share a
type do. The text is that of the operator set which the model names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx

from convoxel.errors import GraphError
from convoxel.graph.read.onnx.file import dtype_name
from convoxel.graph.read.reader import NotNative

SIZES = "sizes"
"""Stands for the type of operands that are open sizes: they are whole numbers of any type."""

_Option = onnx.defs.OpSchema.FormalParameterOption


def check_node(node: onnx.NodeProto, version: int, dtypes: Sequence[str | None]) -> None:
    """Raise unless a node is what its operator's definition asks for; ``dtypes`` are its operands' types.

    Raises ``NotNative`` if the operator set has no such operator, ``GraphError`` with the fact otherwise.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        raise NotNative(f"not in operator set {version}") from None
    _check_attributes(node, schema)
    given = len(node.input)
    if not schema.min_input <= given <= schema.max_input:
        raise GraphError(f"{given} operands came, expected {schema.min_input} to {schema.max_input}")
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise GraphError(f"{len(node.output)} results are named, expected {schema.min_output} to {schema.max_output}")
    _check_types(schema, dtypes)


def _check_attributes(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    known = schema.attributes
    given = [attribute.name for attribute in node.attribute]
    if len(set(given)) != len(given):
        raise GraphError(f"an attribute is given twice, among {', '.join(given)}")
    for attribute in node.attribute:
        if attribute.name not in known:
            raise GraphError(f"there is no attribute {attribute.name!r}; expected {', '.join(sorted(known)) or 'none'}")
        expected: Any = known[attribute.name].type  # an enumeration, which onnx leaves untyped
        if attribute.ref_attr_name or attribute.type != expected.value:
            kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
            raise GraphError(f"attribute {attribute.name!r} is {kind}; expected {expected.name}")
    missing = [name for name, attribute in known.items() if attribute.required and name not in given]
    if missing:
        raise GraphError(f"attribute {missing[0]!r} is missing")


def _check_types(schema: onnx.defs.OpSchema, dtypes: Sequence[str | None]) -> None:
    """Raise unless operands have permitted types, the same where the definition names them alike."""
    formal, bound = list(schema.inputs), dict[str, str]()
    for index, dtype in enumerate(dtypes):
        parameter = formal[min(index, len(formal) - 1)]
        if dtype is None:
            if parameter.option == _Option.Single:
                raise GraphError(f"operand {parameter.name} is missing")
            continue
        if dtype == SIZES:
            continue
        kind = _kind(dtype)
        if kind not in parameter.types:
            raise GraphError(f"operand {parameter.name} is {dtype}; expected {', '.join(sorted(parameter.types))}")
        if parameter.is_homogeneous and bound.setdefault(parameter.type_str, dtype) != dtype:
            raise GraphError(
                f"operand {parameter.name} is {dtype}, but others of type {parameter.type_str} are "
                f"{bound[parameter.type_str]}; expected one type"
            )


@lru_cache(maxsize=64)
def _kind(dtype: str) -> str:
    """Return a type's name in definitions: ``tensor(float)`` for float32."""
    for number, name in _ELEMENTS.items():
        if name == dtype:
            return f"tensor({onnx.TensorProto.DataType.Name(number).lower()})"
    raise AssertionError(f"no element type {np.dtype(dtype)}")


_ELEMENTS = {
    number: dtype_name(number)
    for name, number in onnx.TensorProto.DataType.items()
    if name not in ("UNDEFINED", "STRING")
}
