"""Plain values from a pickle, decoded as data: numbers, texts, lists, dictionaries and NumPy's arrays.

A pickle is a program for a small machine with a stack, which may call any function there is. This reader goes through
its instructions and follows those that build plain values. It knows by name the few functions that stand for NumPy's
numbers and arrays and for ordered dictionaries, and builds what they would have built; every other one is refused.
Nothing is imported or called. Instructions, bytes and values are counted, so that no file takes long.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.files.fault import brief, fault
from convoxel.files.stream import file_size, read_bytes

_MOST_BYTES = 32 * 2**20
_MOST_STEPS = 2**20  # instructions; a second each million
_MOST_VALUES = 2**20
_MOST_DEPTH = 32
_MOST_BITS = 64
_LITERAL = re.compile(r"(?:SHORT_)?(?:BIN)?(?:INT|STRING|BYTES|UNICODE|FLOAT)[128]?|LONG[14]?|BYTEARRAY8")
_LITERALS = frozenset(each.name for each in pickletools.opcodes if _LITERAL.fullmatch(each.name))
_NUMBER = re.compile(r"[|<>=]?([biuf][1248])")


def read_pickled(path: Path) -> object:
    """Return the value that a pickle holds, of numbers, texts, bytes, None, lists and dictionaries.

    Tuples and arrays are lists, and keys of dictionaries are numbers, texts or tuples of these.

    Raises:
        DataError: the file is missing, broken or too large, or holds other objects.
    """
    mend = "Copy it again from where it was written"
    size = file_size(path)
    if size > _MOST_BYTES:
        raise fault(path, f"it has {size / 2**20:.0f} MiB", f"a pickle of at most {_MOST_BYTES // 2**20} MiB", mend)
    try:
        return _Count().plain(_Machine().run(read_bytes(path)))
    except _RefusedError as error:
        expected = "numbers, texts, lists, dictionaries and arrays alone"
        raise fault(
            path, str(error), expected, "Look at where the file comes from: such objects can run code"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        came = f"this is not a whole pickle ({brief(str(error))})"
        raise fault(path, came, "a file as Python's pickle writes it", mend) from None


class _RefusedError(Exception):
    """The reason for which a pickle is refused."""


class _Type:
    """A NumPy type of numbers: its letter and size, and the order of its bytes."""

    def __init__(self, code: object, *_: object) -> None:
        found = _NUMBER.fullmatch(code) if isinstance(code, str) else None
        if found is None:
            raise _RefusedError(f"it holds values of NumPy's type {brief(code, 20)}")
        self.name = found[1]

    def build(self, state: object) -> None:
        _, order, *rest = _tuple(state)
        if any(entry is not None for entry in rest[:3]):
            raise _RefusedError("it holds values of a NumPy type with fields")
        self.name = f"{'>' if order == '>' else '<'}{self.name.lstrip('<>')}"

    def read(self, raw: object, shape: object, order: str = "C") -> Any:
        """Return the array of some bytes, once they are as many as its shape says."""
        sizes = _tuple(shape)
        whole = all(type(size) is int and size >= 0 for size in sizes) and len(sizes) <= _MOST_DEPTH
        if (
            not whole
            or math.prod(max(1, size) for size in sizes) > _MOST_VALUES
            or not isinstance(raw, (bytes, bytearray))
        ):
            raise _RefusedError(f"it holds an array of the shape {brief(sizes, 40)}")
        return np.frombuffer(raw, self.name).reshape(sizes, order="F" if order == "F" else "C")


class _Array:
    """An array, which comes after its place on the stack."""

    values: Any = None

    def build(self, state: object) -> None:
        _, shape, kind, fortran, raw = _tuple(state)
        self.values = _type(kind).read(raw, shape, "F" if fortran else "C")


class _Function:
    """A function that a pickle names, and what stands for it here."""

    def __init__(self, name: str, make: Callable[..., object]) -> None:
        self.name, self.make = name, make


def _tuple(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"a tuple is missing, there is {type(value).__name__}")
    return value


def _type(value: object) -> _Type:
    if not isinstance(value, _Type):
        raise ValueError(f"a type is missing, there is {type(value).__name__}")
    return value


def _key(value: object) -> Any:
    """Return the key of a dictionary; its hash is that of few values."""
    parts = value if type(value) is tuple and len(value) <= _MOST_DEPTH else (value,)
    if not all(isinstance(part, (str, int, float, bytes, type(None))) for part in parts):
        raise _RefusedError(f"it holds a dictionary with a {type(value).__name__} as key")
    return value


def _array(kind: object, *_: object) -> _Array:
    return _Array()


def _filled(raw: object, kind: object, shape: object, order: str = "C") -> _Array:
    found = _Array()
    found.values = _type(kind).read(raw, shape, order)
    return found


def _number(kind: object, raw: object) -> int | float | bool:
    found: int | float | bool = _type(kind).read(raw, ()).item()
    return found


_CORE: list[tuple[str, Callable[..., object]]] = [
    ("multiarray._reconstruct", _array), ("multiarray.scalar", _number), ("numeric._frombuffer", _filled),
]  # fmt: skip
_MAKERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": dict, "numpy.dtype": _Type, "numpy.ndarray": _array,
    **{f"numpy.{core}.{name}": make for core in ("core", "_core") for name, make in _CORE},
}  # fmt: skip
_FUNCTIONS = {name: _Function(name, make) for name, make in _MAKERS.items()}


class _Machine:
    """The stack, its marks and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> object:
        """Return the value that the instructions leave."""
        for done, (instruction, given, _) in enumerate(pickletools.genops(content)):
            name = instruction.name
            if done == _MOST_STEPS:
                raise _RefusedError(f"it has more than {_MOST_STEPS} instructions")
            if name in _LITERALS:
                if type(given) is int and given.bit_length() > _MOST_BITS:
                    raise _RefusedError(f"it holds a number of {given.bit_length()} bits")
                self.stack.append(given)
            elif name in _FRESH:
                self.stack.append(_FRESH[name]())
            elif name in _STEPS:
                _STEPS[name](self, given)
            else:
                raise _RefusedError(f"it has the instruction {name}")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """Take what lies above the last mark from the stack."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def some(self, count: int) -> tuple[Any, ...]:
        """Take some values from the stack."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise IndexError("the stack is empty")
        found = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return found

    def extend(self, values: list[Any]) -> None:
        """Add values to the list on the stack."""
        if type(self.stack[-1]) is not list:
            raise ValueError("a list is missing")
        self.stack[-1].extend(values)

    def enter(self, values: Any) -> None:
        """Add keys with values to the dictionary on the stack."""
        if type(self.stack[-1]) is not dict:
            raise ValueError("a dictionary is missing")
        self.stack[-1].update((_key(name), value) for name, value in zip(values[::2], values[1::2], strict=True))

    def name(self, module: object, name: object) -> None:
        """Put a function on the stack."""
        found = _FUNCTIONS.get(f"{module}.{name}")
        if found is None:
            raise _RefusedError(f"it holds {brief(f'{module}.{name}')}, which only running code could rebuild")
        self.stack.append(found)

    def call(self) -> None:
        """Put what a function makes of a tuple on the stack."""
        function, given = self.some(2)
        if not isinstance(function, _Function):
            raise ValueError("a function is missing")
        self.stack.append(function.make(*_tuple(given)))

    def build(self) -> None:
        """Give the array or type on the stack its values."""
        (state,) = self.some(1)
        if not isinstance(self.stack[-1], (_Array, _Type)):
            raise _RefusedError(f"it gives a {type(self.stack[-1]).__name__} attributes")
        self.stack[-1].build(state)

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


_FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict,
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, given: None,
    "FRAME": lambda m, given: None,
    "STOP": lambda m, given: None,
    "MARK": lambda m, given: m.marks.append(len(m.stack)),
    "POP": lambda m, given: m.some(1),
    "POP_MARK": lambda m, given: m.marked(),
    "DUP": lambda m, given: m.stack.append(m.stack[-1]),
    "LIST": lambda m, given: m.stack.append(m.marked()),
    "TUPLE": lambda m, given: m.stack.append(tuple(m.marked())),
    "TUPLE1": lambda m, given: m.stack.append(m.some(1)),
    "TUPLE2": lambda m, given: m.stack.append(m.some(2)),
    "TUPLE3": lambda m, given: m.stack.append(m.some(3)),
    "APPEND": lambda m, given: m.extend(list(m.some(1))),
    "APPENDS": lambda m, given: m.extend(m.marked()),
    "SETITEM": lambda m, given: m.enter(m.some(2)),
    "SETITEMS": lambda m, given: m.enter(m.marked()),
    "PUT": lambda m, given: m.put(int(given)),
    "BINPUT": lambda m, given: m.put(given),
    "LONG_BINPUT": lambda m, given: m.put(given),
    "MEMOIZE": lambda m, given: m.put(len(m.memo)),
    "GET": lambda m, given: m.stack.append(m.memo[int(given)]),
    "BINGET": lambda m, given: m.stack.append(m.memo[given]),
    "LONG_BINGET": lambda m, given: m.stack.append(m.memo[given]),
    "GLOBAL": lambda m, given: m.name(*given.split(" ", 1)),
    "STACK_GLOBAL": lambda m, given: m.name(*m.some(2)),
    "REDUCE": lambda m, given: m.call(),
    "NEWOBJ": lambda m, given: m.call(),
    "BUILD": lambda m, given: m.build(),
}


def _extent(value: object) -> int:
    """Return how many numbers, or parts of text, a value has in itself, keys of a dictionary included."""
    if isinstance(value, (str, bytes)):
        return len(value) // 32
    if isinstance(value, dict):
        return sum(_extent(part) for name in value for part in (name if type(name) is tuple else (name,)))
    return int(np.size(value.values)) if isinstance(value, _Array) else 0


class _Count:
    """The values that are left to be counted: one that is held in several places counts in each."""

    def __init__(self) -> None:
        self.left = _MOST_VALUES

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return a value with lists for tuples and arrays."""
        self.left -= 1 + _extent(value)
        if self.left < 0 or depth > _MOST_DEPTH:
            most = f"{_MOST_VALUES} values" if self.left < 0 else f"{_MOST_DEPTH} lists within each other"
            raise _RefusedError(f"it holds more than {most}")
        if isinstance(value, dict):
            return {name: self.plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each, depth + 1) for each in value]
        if isinstance(value, _Array):
            return value.values.tolist()
        if isinstance(value, (_Type, _Function)):
            raise _RefusedError(f"it holds {value.name} in place of a value")
        return value
