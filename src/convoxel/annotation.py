"""Annotations of public functions: the types they name, whether a value is of them, and their words in messages."""

from __future__ import annotations

import ast
import collections.abc
import functools
import importlib
import inspect
import numbers
import operator
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

from convoxel.errors import ConfigError

__all__ = ["argument_types", "expected", "first_entries", "fits", "is_expression", "is_plain", "is_truth", "settled"]

_LOOKED_AT = 100  # entries of a sequence: one may have as many as it likes
_SETTLED = 1 << 20  # entries of a sequence; views of one number have more than any memory
_UNIONS = (typing.Union, types.UnionType)
_ITERABLES = (
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Set,
    collections.abc.Iterator,
    list,
    tuple,
    set,
    frozenset,
)
_WORDS: dict[Any, str] = {
    type(None): "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    collections.abc.Callable: "a function",
    os.PathLike: "a path",
}
_SCALARS = (bool, int, float, complex, str, bytes)
_MANY: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts", bool: "truth values"}


@functools.lru_cache(maxsize=1024)
def argument_types(function: Callable[..., Any], module: str) -> dict[str, Any]:
    """Return the types of the parameters of a function of ``module``; those that cannot be found are left out."""
    own = getattr(inspect.unwrap(function), "__globals__", {})  # also of a module that was loaded anew meanwhile
    own = own if own.get("__name__") == module else vars(sys.modules[module])  # a named tuple's is made elsewhere
    owner = own.get(function.__qualname__.partition(".")[0])
    names: dict[str, Any] = {}
    for base in getattr(owner, "__mro__", ())[:0:-1]:  # a record has fields of those that it extends
        if base.__module__.startswith("convoxel.") and base.__module__ in sys.modules:
            names |= {**_names_for_types(base.__module__), **vars(sys.modules[base.__module__])}
    names |= {**_names_for_types(module), **own}
    types_ = {name: _resolved(text, names) for name, text in inspect.get_annotations(function).items()}
    return {name: one for name, one in types_.items() if one is not None}


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """Return the type that an annotation means among ``names``, None if only a type checker can tell."""
    alone = types.SimpleNamespace(__annotations__={"it": annotation})
    for _ in range(_LOOKED_AT):
        try:
            return typing.get_type_hints(alone, names)["it"]
        except NameError as error:  # of another module's alias; whatever it is, a value may be of it
            names = {**names, str(error.name): _Unknown}
        except Exception:
            break
    return None


class _UnknownType(type):
    def __getattr__(cls, name: str) -> Any:
        return Any

    def __getitem__(cls, key: object) -> Any:
        return Any


class _Unknown(metaclass=_UnknownType):
    """A type that is not known."""


@functools.lru_cache(maxsize=256)
def _names_for_types(module: str) -> dict[str, Any]:
    """Return what a module imports and defines for type checkers alone."""
    names: dict[str, Any] = {}
    with suppress(OSError, TypeError, KeyError):  # no source
        for statement in ast.parse(inspect.getsource(sys.modules[module])).body:
            if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
                for node in statement.body:
                    names.update(_defined(node, {**vars(sys.modules[module]), **names}))
    return names


def _defined(node: ast.stmt, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            with suppress(ImportError, AttributeError):
                yield alias.asname or alias.name, _member(node.module, alias.name)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            with suppress(ImportError):
                root = alias.name.partition(".")[0]
                yield alias.asname or root, importlib.import_module(alias.name if alias.asname else root)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Constant):
        yield node.target.id, _resolved(node.value.value, names)


def _member(module: str, name: str) -> Any:
    home = importlib.import_module(module)
    if hasattr(home, name):
        return getattr(home, name)
    found = _names_for_types(module)
    return found[name] if name in found else importlib.import_module(f"{module}.{name}")


def fits(value: object, hint: Any) -> bool:
    """Return True if a value is of the type ``hint``, or cannot be judged.

    >>> fits(2, int), fits(True, int), fits((1, "a"), tuple[int, ...]), fits([2], int | list[int])
    (True, False, False, True)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        if any(getattr(one, "__name__", "") == "_SupportsArray" for one in inner):  # NumPy's ArrayLike
            others = [one for one in inner if isinstance(one, type) and not issubclass(one, _SCALARS)]
            inner = (_ArrayLike, *others)
        return any(fits(value, one) for one in inner)
    if hint is _ArrayLike:
        return _becomes_array(value)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is type:
        return isinstance(value, type)
    kind = origin or hint
    if kind is _Unknown:
        return True
    if kind is None or kind is type(None):
        return value is None
    if kind is bool:
        return is_truth(value)
    if kind is int:
        return _is_whole(value)
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is collections.abc.Callable:
        return callable(value)
    if not isinstance(kind, type):
        return True
    if kind.__module__ in ("numpy", "torch"):
        return _is_array(value, kind)
    if isinstance(kind, type) and issubclass(kind, collections.abc.Mapping):
        return isinstance(value, kind) and all(
            fits(key, inner[0]) and fits(entry, inner[1]) for key, entry in islice(value.items(), _LOOKED_AT) if inner
        )
    if kind in _ITERABLES:
        return _holds(value, kind, inner)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol without checks at run time
        return True


def settled(value: Any, hint: Any) -> Any:
    """Return a value that fits with its numbers as Python's own: those of NumPy overflow without a word.

    Truth values become True and False: PyTorch takes neither NumPy's nor 0 and 1. Raises ConfigError for a sequence of
    more entries than anybody has in mind, such as the view of one number.

    >>> import numpy as np
    >>> settled(np.int8(3), int), settled(np.array([2, 3]), collections.abc.Sequence[int]), settled((1, "a"), tuple)
    (3, (2, 3), (1, 'a'))
    """
    if type(value) in (str, bool, float, type(None)) or (type(value) is int and hint is int):
        return value
    options = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    if type(value) is int:
        return bool(value) if bool in options and int not in options and is_truth(value) else value
    if int in options and hasattr(type(value), "__index__") and fits(value, int) and not is_expression(value):
        return operator.index(value)
    if float in options and fits(value, float) and not isinstance(value, int):
        return value if Fraction in options and isinstance(value, Fraction) else float(value)
    if bool in options and fits(value, bool):
        return bool(value)
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        sized = hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__")
        if sized and origin in _ITERABLES and inner and _holds(value, origin, inner):
            if len(value) > _SETTLED:
                raise ConfigError(f"there are {len(value):,} entries, but at most {_SETTLED:,} can be taken.")
            kinds = inner if Ellipsis not in inner and origin is tuple else (inner[0],) * len(value)
            entries = tuple(map(settled, value, kinds))
            return value if all(map(operator.is_, entries, value)) else entries
    return value


def _is_whole(value: Any) -> bool:
    if is_expression(value):
        return True
    try:
        return not isinstance(value, bool) and operator.index(value) is not None
    except Exception:  # whatever an object's conversion raises, such as that of an array
        return False


def is_truth(value: object) -> bool:
    """Return True for True and False, those of NumPy and of recordings too, and for the numbers 0 and 1.

    >>> is_truth(True), is_truth(0), is_truth(2), is_truth(1.0)
    (True, True, False, False)
    """
    return type(value).__name__ in ("bool", "bool_", "SymBool") or (type(value) is int and value in (0, 1))


def is_expression(value: object) -> bool:
    """Return True for a size that is still open, and can name the sizes that it depends on (``graph.ir.size.Size``)."""
    return callable(getattr(value, "names", None))


def _is_array(value: Any, kind: type) -> bool:
    if kind.__name__ not in ("ndarray", "Tensor"):
        return isinstance(value, kind)
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return False
    home = type(value).__module__.partition(".")[0]
    if home == "numpy":
        return kind.__module__ == "numpy" and value.dtype.kind in "biufc" and isinstance(value, kind)
    return home != "torch" or kind.__module__ == "torch"  # others stand for tensors in a recording


class _ArrayLike:
    """NumPy's ``ArrayLike``: what becomes an array of numbers."""


def _becomes_array(value: object) -> bool:
    import numpy as np

    try:
        return bool(np.asarray(value).dtype.kind in "biufc")
    except Exception:  # whatever the object's conversion raises
        return False


def is_plain(value: object, depth: int = 3) -> bool:
    """Return False for what Python has and no other language: integers beyond 64 bits, texts that are no Unicode."""
    if isinstance(value, int):
        return value.bit_length() < 64
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, (tuple, list)) and depth:
        return all(is_plain(entry, depth - 1) for entry in value[:_LOOKED_AT])
    return True


def _holds(value: Any, kind: type, inner: tuple[Any, ...]) -> bool:
    """Return True if ``value`` is a sequence of such entries; a text and bytes are none."""
    if isinstance(value, (str, bytes, bytearray, collections.abc.Mapping)) or not hasattr(type(value), "__iter__"):
        return False
    if kind is tuple and not isinstance(value, tuple):
        return False
    if not hasattr(type(value), "__len__") or not hasattr(type(value), "__getitem__"):
        return not issubclass(kind, collections.abc.Sequence)  # what can be read once is left alone
    try:
        entries = first_entries(value, _LOOKED_AT)
    except Exception:  # a tensor without axes
        return False
    if not inner or inner == ((),):
        return True
    if kind is tuple and Ellipsis not in inner:
        return len(entries) == len(inner) and all(map(fits, entries, inner))
    return all(fits(entry, inner[0]) for entry in entries)


def first_entries(value: Any, most: int) -> tuple[Any, ...]:
    """Return the first ``most`` entries: an iterator may have no end, and a tensor makes all of its entries at once.

    >>> import itertools
    >>> first_entries(itertools.count(), 3)
    (0, 1, 2)
    """
    return tuple(islice(value[:most] if hasattr(value, "shape") else value, most))


def expected(hint: Any) -> str:
    """Return a type in words.

    >>> expected(int | None), expected(collections.abc.Sequence[int] | int)
    ('a whole number or None', 'a sequence of whole numbers or a whole number')
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        if any(getattr(one, "__name__", "") == "_SupportsArray" for one in inner):
            return "an array or nested sequences of numbers"
        *first, last = dict.fromkeys(expected(one) for one in inner)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    kind = origin or hint
    if kind in _WORDS:
        return _WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, collections.abc.Mapping):
        return "a mapping"
    if kind is tuple and inner and Ellipsis not in inner:
        return f"a tuple of {len(inner)}: " + ", ".join(map(expected, inner))
    if kind in _ITERABLES:
        words = "a tuple" if kind is tuple else "a sequence"
        return f"{words} of {_MANY.get(inner[0]) or 'entries, each ' + expected(inner[0])}" if inner else words
    name = getattr(kind, "__name__", str(kind))
    return {"ndarray": "an array of numbers", "Tensor": "a tensor", "Module": "a torch.nn.Module"}.get(
        name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
    )
