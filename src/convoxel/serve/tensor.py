"""Tensors of the Open Inference Protocol: names of their types, and their numbers as bytes and in JSON.

What comes is measured against its claimed shape before an array is made of it. Bytes are little-endian and row by row.
``BF16`` are the upper halves of float32 numbers; NumPy has no such type, so they become float32 at once. Absent on
purpose: texts (``BYTES``) as inputs, since no network takes them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from convoxel.files.fault import brief
from convoxel.files.values import Array
from convoxel.web.request import Refusal

#: NumPy's type by the name of the protocol; of BF16 the type that it becomes.
TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": np.dtype(np.float32),
}
_NAMES = {kind: name for name, kind in TYPES.items() if name != "BF16"}
_MOST_AXES = 32  # of NumPy's arrays
_MOST_IN_JSON = 2**20  # numbers of an output: to write more would hold up all other requests


def datatype(dtype: str) -> str:
    """Return the protocol's name of a type of NumPy.

    >>> datatype("float32"), datatype("uint8")
    ('FP32', 'UINT8')
    """
    return _NAMES[np.dtype(dtype)]


def itemsize(name: str) -> int:
    """Return the bytes of a number of a type, by the protocol's name."""
    return 2 if name == "BF16" else TYPES[name].itemsize


def widens(given: str, wanted: str) -> bool:
    """Return True if every number of one type is a number of the other.

    >>> widens("UINT8", "FP32"), widens("BF16", "FP32"), widens("INT32", "FP32"), widens("FP32", "UINT8")
    (True, True, False, False)
    """
    if given == "BF16":
        return wanted in ("BF16", "FP32", "FP64")
    return np.can_cast(TYPES[given], TYPES[wanted], "safe")


def widened(array: Array, wanted: str) -> Array:
    """Return an array of the type of that name, contiguous and aligned."""
    return np.require(array, TYPES[wanted], ("C", "A"))


def check_shape(name: str, shape: object) -> tuple[int, ...]:
    """Return the shape that a request states for an input.

    Raises:
        Refusal: it is no list of whole numbers from 0 on.
    """
    good = isinstance(shape, list) and len(shape) <= _MOST_AXES
    if not good or not all(type(size) is int and 0 <= size < 2**63 for size in shape):  # type: ignore[attr-defined]
        raise Refusal(
            400, f"input {name!r}: shape is {brief(shape)}; expected a list of sizes, such as [1, 3, 224, 224]."
        )
    return tuple(shape)  # type: ignore[arg-type]


def from_bytes(name: str, kind: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return the tensor whose numbers ``data`` holds; it may be a view of them.

    Raises:
        Refusal: the bytes are not as many as the shape says.
    """
    needed = math.prod(shape) * itemsize(kind)
    if len(data) != needed:
        raise Refusal(
            400,
            f"input {name!r}: {len(data)} bytes came; expected {needed} for {kind} of shape {list(shape)}: "
            "parameters.binary_data_size is the size of the tensor in bytes.",
        )
    if kind == "BF16":
        numbers: Array = np.empty(shape, np.float32)
        numbers.view(np.uint32)[...] = np.frombuffer(data, "<u2").astype(np.uint32).reshape(shape) << np.uint32(16)
        return numbers
    if kind == "BOOL":
        truths: Array = np.frombuffer(data, np.uint8).reshape(shape) != 0
        return truths
    found: Array = np.frombuffer(data, TYPES[kind].newbyteorder("<")).reshape(shape)
    return found if sys.byteorder == "little" else found.astype(TYPES[kind])


def from_json(name: str, kind: str, shape: Sequence[int], data: object) -> Array:
    """Return the tensor whose numbers are a list, flat or nested as its shape is.

    Raises:
        Refusal: it is no such list, or holds what is no number of the type.
    """
    if not isinstance(data, list):
        raise Refusal(400, f"input {name!r}: data is {brief(data)}; expected a list of numbers.")
    sizes, flat = [len(data)], data
    while flat and set(map(type, flat)) == {list}:
        lengths = set(map(len, flat))
        if len(lengths) > 1:
            raise Refusal(
                400, f"input {name!r}: lists of data have {sorted(lengths)[:2]} entries; expected equal ones."
            )
        sizes.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(shape) or (len(sizes) > 1 and tuple(sizes) != tuple(shape)):
        came = f"{len(flat)} numbers" if len(sizes) == 1 else f"lists of shape {sizes}"
        raise Refusal(
            400,
            f"input {name!r}: data holds {came}; expected {math.prod(shape)} for the shape {list(shape)}, in a flat "
            "list or in lists nested like it.",
        )
    return _typed(name, kind, flat).reshape(shape)


def _typed(name: str, kind: str, flat: list[Any]) -> Array:
    """Return numbers as an array of one axis."""
    target, found = TYPES[kind], set(map(type, flat))
    kinds: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = kinds.get(target.kind, {int})
    if not found <= allowed:
        wrong = next(each for each in flat if type(each) not in allowed)
        words = {"b": "true and false", "f": "numbers"}.get(target.kind, "whole numbers")
        raise Refusal(400, f"input {name!r}: data holds {brief(wrong)}; expected {words} for {kind}.")
    if target.kind in "ui" and flat and not (np.iinfo(target).min <= min(flat) and max(flat) <= np.iinfo(target).max):
        limits = np.iinfo(target)
        raise Refusal(400, f"input {name!r}: data holds numbers beyond {kind}; expected {limits.min} to {limits.max}.")
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(flat, target)
    except OverflowError:
        array = np.full(1, np.nan)
    if target.kind == "f" and not np.isfinite(array).all():
        raise Refusal(
            400, f"input {name!r}: data holds numbers beyond {kind}; expected finite ones. Binary data may hold others."
        )
    if kind == "BF16":  # rounded to the nearest, ties to even
        bits = array.view(np.uint32)
        array = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return array


def to_bytes(array: Array) -> bytes:
    """Return an array's numbers as bytes."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def to_json(name: str, array: Array) -> list[Any]:
    """Return an array's numbers as a flat list.

    Raises:
        Refusal: JSON has no number for some of them, or they are too many.
    """
    if array.size > _MOST_IN_JSON:
        raise Refusal(
            413,
            f"output {name!r} has {array.size} numbers; expected at most {_MOST_IN_JSON} in JSON. Ask for it as binary "
            'data: "parameters": {"binary_data": true}.',
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(
            422,
            f"output {name!r} holds NaN or infinity, which JSON cannot say; ask for it as binary data: "
            '"parameters": {"binary_data": true}.',
        )
    found: list[Any] = array.ravel().tolist()
    return found
