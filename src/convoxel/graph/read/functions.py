"""PyTorch's functions as operators: which one a call of Python's stands for, with its arguments by name."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from convoxel.files.values import JsonObject, Options
from convoxel.graph.read.torch.call import RULES
from convoxel.graph.read.torch.torch_call import map_nested

# An argument or a result of a PyTorch function: a tensor, number, text, type, function, None, or these in a nest.
Argument = Any

ATOMS = frozenset({bool, int, float, str, type(None)})


def tensors_in(value: Argument) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries."""
    found: list[Tensor] = []
    _collect((value,), found)
    return found


def _collect(values: Iterable[Argument], found: list[Tensor]) -> None:
    for value in values:
        if type(value) in ATOMS:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)


QUESTIONS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "is_contiguous", "is_complex"),
    *("is_floating_point", "element_size", "get_device", "has_names", "__len__", "data_ptr"),
}
"""Functions that make no tensor."""

_FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "fill_", "zero_", "copy_"})
_COUNTS = frozenset({"arange", "linspace", "tensor"})
_NUMERIC = ("add", "sub", "mul", "div")


def run_without_data(func: Callable[..., Argument], args: Argument, options: Options) -> Argument:
    """Return ``func(*args, **options)`` where some tensors have no data: then none takes part with its data.

    Filling such tensors is left out: PyTorch's first random number imports 800 modules. Ranges keep their numbers.
    """
    name = getattr(func, "__name__", "")
    if name == "__get__" or name in QUESTIONS:
        return func(*args, **options)
    read = tensors_in((args, options))
    if any(tensor.is_meta for tensor in read):
        if name in _FILLS and read[0].is_meta:
            return read[0]

        def bare(leaf: Argument) -> Argument:
            return leaf.to("meta") if isinstance(leaf, Tensor) and leaf.dim() and not leaf.is_meta else leaf

        if not all(tensor.is_meta for tensor in read):
            args, options = map_nested(bare, args), map_nested(bare, dict(options))
    elif name in _COUNTS and "meta" in str(options.get("device")):
        options = {**options, "device": "cpu"}
    return func(*args, **options)


class _Filling(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Argument], types: Argument, args: Argument = (), kwargs: Argument = None
    ) -> Argument:
        return run_without_data(func, args, kwargs or {})


@contextmanager
def shapes_only() -> Iterator[None]:
    """Let networks be built on the meta device at once."""
    with torch.no_grad(), _Filling():
        yield


_GUARDS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@functools.cache
def unguarded(func: FunctionType) -> FunctionType:
    """Return one of PyTorch's Python functions without the question whether someone overrides it.

    Its body then calls the functions that do the work, which are seen one by one.
    """

    def cell(content: Argument) -> CellType:
        inner = isinstance(content, FunctionType) and content.__module__.startswith("torch.") and content is not func
        return CellType(unguarded(content) if inner else content)

    cells = tuple(cell(each.cell_contents) for each in func.__closure__ or ())
    names = _namespace(func.__globals__["__name__"])
    bare = FunctionType(func.__code__, names, func.__name__, func.__defaults__, cells)
    bare.__kwdefaults__ = func.__kwdefaults__
    return bare


@functools.cache
def _namespace(module: str) -> JsonObject:
    return {**vars(sys.modules[module]), **dict.fromkeys(_GUARDS, lambda *_: False)}


_SYNONYMS = {"axis": "dim", "input": "self", "keepdims": "keepdim", "x": "self"}


class Operator:
    """One of PyTorch's operators: what its schema says, which PyTorch makes anew each time that it is asked."""

    def __init__(self, overload: Argument) -> None:
        schema = overload._schema
        self.target = str(overload)
        self.parameters = tuple(
            (each.name, each.default_value if each.has_default_value() else None, "List[" in str(each.type))
            for each in schema.arguments
        )
        self.count = len(schema.returns)
        self.mutates = bool(schema.is_mutable)


def bind(name: str, args: Sequence[Argument], options: Options) -> tuple[Operator | None, JsonObject]:
    """Return the operator that a function calls and its arguments by name; (None, {}) if that is not clear."""
    kinds = tuple(map(_kind, args))
    operator, packed = _choose(name, kinds, tuple((key, _kind(value)) for key, value in options.items()))
    if operator is None:
        return None, {}
    given = [args[0], list(args[1:])] if packed else list(args)
    arguments = {}
    named = {_SYNONYMS.get(key, key): value for key, value in options.items()} | dict(options)
    for index, (key, default, is_list) in enumerate(operator.parameters):
        value = given[index] if index < len(given) else named.get(key, default)
        arguments[key] = [value] if is_list and isinstance(value, int) else value
    return operator, arguments


@functools.lru_cache(maxsize=4096)
def _choose(name: str, kinds: tuple[str, ...], options: tuple[tuple[str, str], ...]) -> tuple[Operator | None, bool]:
    """Return the operator that takes arguments of these kinds, and whether it takes all but the first as a list."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or not hasattr(packet, "overloads"):
        return None, False
    overloads = [getattr(packet, key) for key in packet.overloads()]
    overloads.sort(key=lambda each: not str(each).endswith(".vec"))
    ways = [(kinds, False)]
    if len(kinds) > 1 and set(kinds[1:]) == {"int"}:
        ways.append(((kinds[0], "ints"), True))
    # Arithmetic with a number in place has a rule as arithmetic with a tensor, which takes numbers too.
    loosely = (False, True) if name.strip("_") in _NUMERIC else (False,)
    for ruled, loose, (given, packed) in itertools.product((True, False), loosely, ways):
        for overload in overloads:
            if (str(overload) in RULES) == ruled and _fits(overload._schema, given, dict(options), loose):
                return operator_of(str(overload)), packed
    return None, False


def _fits(schema: Argument, kinds: Sequence[str], options: Mapping[str, str], loose: bool) -> bool:
    names = [argument.name for argument in schema.arguments]
    named = {key if key in names else _SYNONYMS.get(key, key): kind for key, kind in options.items()}
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    if len(kinds) > len(positional) or not named.keys() <= set(names[len(kinds) :]):
        return False
    for index, argument in enumerate(schema.arguments):
        kind = kinds[index] if index < len(kinds) else named.get(argument.name)
        declared = str(argument.type)
        if argument.is_out or "Dimname" in declared:
            return False
        if kind is None:
            if not argument.has_default_value():
                return False
        elif not _takes(declared, kind, loose):
            return False
    return True


def _takes(declared: str, kind: str, loose: bool) -> bool:
    """Return True if an argument of a declared type takes a value of some kind."""
    if kind == "none":
        return declared.startswith("Optional")
    bare = declared.removeprefix("Optional[").removesuffix("]") if declared.startswith("Optional") else declared
    allowed = {
        "tensor": ("Tensor",),
        "tensors": ("List[Tensor]", "List[Optional[Tensor]]"),
        "bool": ("bool", "number"),
        "int": ("int", "number", "float", "List[int]", *(("Tensor",) if loose else ())),
        "float": ("float", "number", *(("Tensor", "List[float]") if loose else ())),
        "ints": ("List[int]", "List[float]"),
        "floats": ("List[float]",),
        "empty": ("List[int]", "List[float]", "List[Tensor]"),
        "bools": ("List[bool]",),
        "str": ("str",),
        "dtype": ("int",),
        "device": ("Device",),
    }
    return bare in allowed.get(kind, ())


def _kind(value: Argument) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    if value is None:
        return "none"
    if type(value) in ATOMS:
        return type(value).__name__
    if isinstance(value, list | tuple):
        kinds = {_kind(element) for element in value}
        if not kinds:
            return "empty"
        kind = "float" if kinds == {"int", "float"} else next(iter(kinds)) if len(kinds) == 1 else "mixed"
        return f"{kind}s"
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return "dtype"
    return type(value).__name__


@functools.cache
def operator_of(target: str) -> Operator:
    _, name, overload = target.split(".")
    return Operator(getattr(getattr(torch.ops.aten, name), overload))
