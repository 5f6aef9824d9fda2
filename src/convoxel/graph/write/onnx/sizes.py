"""Open sizes as ONNX tensors: expressions over the axes of the inputs, computed by the model when an input comes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto

from convoxel.files.values import Array
from convoxel.graph.ir.expression import CONDITION, WHOLE, kind, limits
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Scalar, Size


class NotExpressible(Exception):
    """Raised where ONNX cannot say what our graph says, with the reason."""


class _Add(Protocol):
    def __call__(
        self, operator: str, inputs: Sequence[str], name: str, results: int = 1, **attributes: Any
    ) -> list[str]: ...


_COMPARE: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Eq: ("Equal", False),
    ast.NotEq: ("Equal", True),
    ast.Lt: ("Less", False),
    ast.LtE: ("Greater", True),
    ast.Gt: ("Greater", False),
    ast.GtE: ("Less", True),
}
"""The operator of a comparison, and whether its answer is turned round."""

_ROUNDINGS = {"floor": "Floor", "FloorToInt": "Floor", "ceiling": "Ceil", "CeilToInt": "Ceil", "RoundToInt": "Round"}


class SizeTensors:
    """Tensors of sizes, each made once: int64, or double where a network computes with a size as a fraction."""

    def __init__(self, add: _Add, constant: Callable[[Array, str], str], inputs: Sequence[Value]) -> None:
        self._add, self._constant = add, constant
        self._axes = {
            extent.text: (value.name, axis)
            for value in reversed(inputs)
            for axis, extent in enumerate(value.shape)
            if isinstance(extent, Size) and extent.is_axis
        }
        self._made: dict[str, str] = {}

    def vector(self, values: Sequence[Scalar], name: str) -> str:
        """Return the name of a vector of whole numbers and open sizes."""
        if not any(isinstance(value, Size) for value in values):
            return self._constant(np.array(values, np.int64), f"{name}/ints")
        parts: list[str] = []
        numbers: list[Scalar] = []
        for value in (*values, None):
            if value is not None and not isinstance(value, Size):
                numbers.append(value)
                continue
            if numbers:
                parts.append(self._constant(np.array(numbers, np.int64), f"{name}/ints"))
                numbers = []
            if isinstance(value, Size):
                parts.append(self.scalar(value))
        return parts[0] if len(parts) == 1 else self._new("Concat", *parts, axis=0)

    def scalar(self, size: Size) -> str:
        """Return the name of a vector of one element: int64, or double if the size is a fraction."""
        return self._tensor(size.tree)

    # ---- expressions -----------------------------------------------------------------------------------------

    def _tensor(self, node: ast.expr) -> str:
        text = ast.unparse(node)
        if text not in self._made:
            self._made[text] = self._write(node)
        return self._made[text]

    def _new(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self._add(operator, inputs, "size", **attributes)[0]

    def _write(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int | float)
            return self._number(node.value)
        if isinstance(node, ast.Name):
            if node.id not in self._axes:
                raise NotExpressible(f"the size {node.id} is no axis of an input")
            value, axis = self._axes[node.id]
            return self._new("Shape", value, start=axis, end=axis + 1)
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.UnaryOp):
            operand = self._tensor(node.operand)
            return (
                self._new("Sub", self._number(1), operand) if isinstance(node.op, ast.Not) else self._negative(operand)
            )
        if isinstance(node, ast.Compare):
            return self._compared(node)
        if isinstance(node, ast.BoolOp):
            operator = "Min" if isinstance(node.op, ast.And) else "Max"
            return self._new(operator, *map(self._tensor, node.values))
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return self._called(node.func.id, node.args)

    def _number(self, value: float) -> str:
        return self._constant(np.array([value], np.float64 if isinstance(value, float) else np.int64), "size/number")

    def _negative(self, operand: str) -> str:
        return self._new("Neg", operand)

    def _alike(self, nodes: Sequence[ast.expr]) -> list[str]:
        """Return the tensors of expressions in one type."""
        if all(kind(node) in (WHOLE, CONDITION) for node in nodes):
            return [self._tensor(node) for node in nodes]
        return [self._double(node) for node in nodes]

    def _double(self, node: ast.expr) -> str:
        tensor = self._tensor(node)
        if kind(node) in (WHOLE, CONDITION):
            return self._new("Cast", tensor, to=TensorProto.DOUBLE)
        return tensor

    def _binary(self, node: ast.BinOp) -> str:
        if isinstance(node.op, ast.Pow):
            assert isinstance(node.right, ast.Constant) and isinstance(node.right.value, int)
            result, base = self._number(1), self._tensor(node.left)
            for _ in range(node.right.value):
                result = self._new("Mul", result, base)
            return result
        if isinstance(node.op, ast.FloorDiv):
            return self._floor_divided(node.left, node.right)
        left, right = self._alike([node.left, node.right])
        if isinstance(node.op, ast.BitAnd | ast.BitOr):
            return self._new("Min" if isinstance(node.op, ast.BitAnd) else "Max", left, right)
        if isinstance(node.op, ast.Div) and kind(node) == WHOLE:  # whole in the end, perhaps not here
            raise NotExpressible(f"the size {ast.unparse(node)} is a quotient that is not rounded")
        operators = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Mod: "Mod"}
        return self._new(operators[type(node.op)], left, right)

    def _floor_divided(self, a: ast.expr, b: ast.expr) -> str:
        """⌊a / b⌋; ONNX cuts off towards zero."""
        left, right = self._alike([a, b])
        if kind(a) != WHOLE or kind(b) != WHOLE:
            return self._new("Cast", self._new("Floor", self._new("Div", left, right)), to=TensorProto.INT64)
        if limits(a)[0] < 0 or limits(b)[0] <= 0:
            left = self._new("Sub", left, self._new("Mod", left, right))
        return self._new("Div", left, right)

    def _compared(self, node: ast.Compare) -> str:
        terms = [node.left, *node.comparators]
        answers = []
        for operator, pair in zip(node.ops, pairwise(terms), strict=True):
            name, turned = _COMPARE[type(operator)]
            answer = self._new("Cast", self._new(name, *self._alike(pair)), to=TensorProto.INT64)
            answers.append(self._new("Sub", self._number(1), answer) if turned else answer)
        return answers[0] if len(answers) == 1 else self._new("Min", *answers)

    def _called(self, function: str, operands: Sequence[ast.expr]) -> str:
        if function in ("Max", "max", "Min", "min"):
            return self._new(function.capitalize(), *self._alike(operands))
        if function in ("FloorDiv", "CleanDiv"):
            return self._floor_divided(*operands)
        if function == "CeilDiv":
            return self._negative(self._floor_divided(ast.UnaryOp(ast.USub(), operands[0]), operands[1]))
        if function == "TruncDiv" and kind(operands[0]) == kind(operands[1]) == WHOLE:
            return self._new("Div", *map(self._tensor, operands))
        if function in ("Mod", "PythonMod"):
            return self._new("Mod", *self._alike(operands))
        if function in ("IntTrueDiv", "FloatTrueDiv"):
            return self._new("Div", *map(self._double, operands))
        if function == "FloatPow":
            return self._new("Pow", *map(self._double, operands))
        if function == "Where":
            condition = self._new("Cast", self._tensor(operands[0]), to=TensorProto.BOOL)
            return self._new("Where", condition, *self._alike(operands[1:]))
        (operand,) = operands
        if function == "Identity":
            return self._tensor(operand)
        if function == "ToFloat":
            return self._double(operand)
        if function == "Float32":
            single = self._new("Cast", self._double(operand), to=TensorProto.FLOAT)
            return self._new("Cast", single, to=TensorProto.DOUBLE)
        if function in ("OpaqueUnaryFn_sqrt", "sqrt"):
            return self._new("Sqrt", self._double(operand))
        if function in _ROUNDINGS:
            if kind(operand) == WHOLE:
                return self._tensor(operand)
            return self._new("Cast", self._new(_ROUNDINGS[function], self._double(operand)), to=TensorProto.INT64)
        if function in ("TruncToInt", "TruncToFloat"):
            whole = self._new("Cast", self._double(operand), to=TensorProto.INT64)
            return whole if function == "TruncToInt" else self._new("Cast", whole, to=TensorProto.DOUBLE)
        raise NotExpressible(f"the size function {function}")
