"""Inputs of a call: checked against the values that a graph declares, and measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import numpy as np

from convoxel.errors import ShapeError, UnsupportedError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size, evaluate, evaluate_shape, measure

_AXIS_NAMES = {2: "(n, c)", 3: "(n, c, w)", 4: "(n, c, h, w)", 5: "(n, c, d, h, w)"}


def check_inputs(inputs: Sequence[object], values: Sequence[Value]) -> list[Array]:
    """Return ``inputs`` as contiguous arrays of the right type and number of axes."""
    return [np.asarray(_as_array(x, value), order="C") for x, value in _paired(inputs, values)]


def check_sources(inputs: Sequence[object], values: Sequence[Value]) -> list[Array]:
    """Return ``inputs`` as what parts can be read of: arrays as they are, or what has a shape, a type and slices."""
    return [_as_source(x, value) for x, value in _paired(inputs, values)]


def _paired(inputs: Sequence[object], values: Sequence[Value]) -> list[tuple[object, Value]]:
    if len(inputs) != len(values):
        names = ", ".join(value.name for value in values)
        raise ShapeError(f"program: {len(inputs)} inputs came, expected {len(values)} ({names})")
    return list(zip(inputs, values, strict=True))


def _as_source(x: object, value: Value) -> Array:
    if isinstance(x, np.ndarray) or is_tensor(x) or not all(hasattr(x, name) for name in ("shape", "__getitem__")):
        return _as_array(x, value)
    source = cast(Array, x)
    if np.dtype(source.dtype) != value.dtype or len(source.shape) != len(value.shape):
        _refuse(source, value)
    return source


def is_empty(arrays: Sequence[Array], values: Sequence[Value]) -> bool:
    """Return whether a batch has no images, so that nothing is planned and nothing runs."""
    if all(0 not in array.shape for array in arrays):
        return False
    pairs = zip(arrays, values, strict=True)
    return any(array.shape[:1] == (0,) and isinstance(value.shape[0], Size) for array, value in pairs)


def measure_inputs(arrays: Sequence[Array], values: Sequence[Value]) -> dict[str, int]:
    """Return the numbers of all open sizes; raises ``ShapeError`` if the arrays do not fit them."""
    sizes = measure([value.shape for value in values], [array.shape for array in arrays])
    for array, value in zip(arrays, values, strict=True):
        for axis, (extent, length) in enumerate(zip(value.shape, array.shape, strict=True)):
            expected = evaluate(extent, sizes)
            if length == expected:
                continue
            came = f"program: {value.name} has shape {array.shape}, expected {_expected(value)}"
            if axis == 1:
                raise ShapeError(f"{came}: {length} channels came, the network takes {expected}")
            raise ShapeError(
                f"{came}: axis {axis} is {length}, but must be {expected}; if the network takes other "
                "sizes, compile again with an example of the size that you need"
            )
    return sizes


def empty_result(value: Value, sizes: Mapping[str, int]) -> Array:
    """Return the result for a batch of no images."""
    shape = evaluate_shape(value.shape, sizes)
    if 0 not in shape:
        raise ShapeError(f"program: an empty batch leaves nothing to compute {value.name} {shape} from; give an image")
    return np.empty(shape, value.dtype)


def is_tensor(x: Any) -> bool:
    """Return whether ``x`` is a PyTorch tensor; if PyTorch was never imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _as_array(x: object, value: Value) -> Array:
    """Return an input as an array, or raise if its type or number of axes is wrong."""
    array = x if isinstance(x, np.ndarray) else _tensor_array(x, value)
    shape = array.shape
    if array.dtype != value.dtype or len(shape) != len(value.shape):
        _refuse(array, value)
    if 0 in shape and any(n == 0 != m for n, m in zip(shape[1:], value.shape[1:], strict=True)):
        _refuse(array, value)
    return array


def _tensor_array(x: Any, value: Value) -> Array:
    """Return the memory of a PyTorch tensor as an array."""
    if not is_tensor(x):
        raise ShapeError(f"program: {value.name} is a {type(x).__name__}, expected a NumPy array or a PyTorch tensor")
    if x.device.type != "cpu":
        raise UnsupportedError(f"program: {value.name} is on {x.device}; Convoxel runs on the CPU: pass x.cpu()")
    if str(x.dtype) != f"torch.{value.dtype}":
        how = "x.float()" if value.dtype == "float32" else f"x.to(torch.{value.dtype})"
        raise ShapeError(f"program: {value.name} is {x.dtype}, expected torch.{value.dtype}; convert it ({how})")
    try:
        # Without a need, nothing that PyTorch computes: at exit, a daemon thread that comes back from it aborts.
        array: Array = (x.detach() if x.requires_grad else x).numpy()
    except TypeError:  # sparse, or of a library that encrypts or distributes it
        raise UnsupportedError(
            f"program: {value.name} has the layout {x.layout}; Convoxel takes dense tensors: pass x.to_dense()"
        ) from None
    return array


def _refuse(array: Array, value: Value) -> NoReturn:
    where, expected = f"program: {value.name}", _expected(value)
    if array.dtype != value.dtype:
        raise ShapeError(f"{where} is {array.dtype}, expected {value.dtype}; convert it (x.astype(np.{value.dtype}))")
    if array.ndim != len(value.shape):
        axes = _AXIS_NAMES.get(len(value.shape), f"{len(value.shape)} axes")
        hint = " Add the batch axis: x[None]." if array.ndim == len(value.shape) - 1 else ""
        raise ShapeError(
            f"{where} has {array.ndim} axes {array.shape}, expected {len(value.shape)}: {axes}, here {expected}.{hint}"
        )
    raise ShapeError(f"{where} has shape {array.shape}, expected {expected} with every size at least 1")


def _expected(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"
