"""The mode in which a module runs while it is read: PyTorch's functions become nodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from convoxel.errors import ConvoxelError
from convoxel.files.values import JsonObject, Options
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.shape import stretch
from convoxel.graph.read.functions import (
    QUESTIONS,
    Argument,
    Operator,
    bind,
    operator_of,
    run_without_data,
    tensors_in,
    unguarded,
)
from convoxel.graph.read.reader import NotNative, Reader
from convoxel.graph.read.torch.call import RULES, STRETCHING, Call, Recorded, dtype_name
from convoxel.graph.read.torch.torch_call import map_nested


def _whole(extents: Sequence[Argument]) -> Shape:
    return tuple(map(int, extents))


class Paths:
    """The module that is running, and names for the functions that it calls."""

    def __init__(self) -> None:
        self._path: list[tuple[str, bool]] = []
        self._names: Counter[str] = Counter()

    @contextmanager
    def of(self, module: nn.Module) -> Iterator[None]:
        """Follow ``module`` and its children while they run."""
        # Two hooks for all modules that run, also in other threads, cost less than two for each of these.
        entries = {id(child): (name, bool(name) and not child._modules) for name, child in module.named_modules()}

        def enter(child: nn.Module, *_: Argument) -> None:
            if id(child) in entries:
                self._path.append(entries[id(child)])

        def leave(child: nn.Module, *_: Argument) -> None:
            if id(child) in entries:
                self._path.pop()

        handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._path.clear()

    def name(self, function: str) -> str:
        """Return a name that no call has yet: the module's path, and the function unless it is a layer."""
        path, layer = self._path[-1] if self._path else ("", False)
        name = path if layer else ".".join(filter(None, (path, function.strip("_"))))
        self._names[name] += 1
        count = self._names[name]
        return name if count == 1 else f"{name}:{count}"


class Used(Exception):
    """A further result of the call ``number`` is read, which its rule was told that nobody reads."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Asked:
    """Results that PyTorch is asked for when a rule wants to know their shapes or types."""

    recorded = False

    def __init__(self, run: Callable[[], Argument], count: int) -> None:
        self._run = run
        self.count = count
        self.is_asked = False

    @cached_property
    def result(self) -> Argument:
        """Return the results that PyTorch gives on tensors without data."""
        self.is_asked = True
        return self._run()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the tensors that come out."""
        return tuple(tuple(tensor.shape) for tensor in tensors_in(self.result))

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The types of the tensors that come out."""
        return tuple(dtype_name(tensor.dtype) for tensor in tensors_in(self.result))


class Recorder(TorchFunctionMode):
    """Sees every PyTorch function while it is active, and adds nodes for those that depend on the inputs."""

    def __init__(self, parameters: Iterable[Tensor], name: str, used: Container[int]) -> None:
        super().__init__()
        self.reader = Reader(name)
        self.paths = Paths()
        for parameter in parameters:
            self.reader.train(parameter, parameter.numel())
        self._values: dict[
            int, Value | int | None
        ] = {}  # the number of a call stands for a result that it did not make
        self._stretched: dict[int, Call] = {}  # tensors that are stretched once something reads them as they are
        self.in_place: set[str] = set()
        self.calls: dict[str, tuple[str, str]] = {}
        self.dropped: list[str] = []
        self._alive: list[Tensor] = []  # an id stays taken only as long as its tensor lives
        self._functions: list[Argument] = []  # Python's functions that are running, from the outermost
        self._calls = 0
        self._used = used

    def input(self, tensor: Tensor) -> Tensor:
        """Note that ``tensor`` is the next input of the network."""
        value = Value(self.reader.unique("x"), tuple(tensor.shape), dtype_name(tensor.dtype))
        self.reader.add_input(value)
        return self._holds(tensor, value)

    def value(self, tensor: Tensor) -> Value | None:
        """Return the value that ``tensor`` holds; None if it does not depend on the inputs."""
        value = self._values.get(id(tensor))
        if isinstance(value, int):
            raise Used(value)
        if id(tensor) in self._stretched:
            call = self._stretched.pop(id(tensor))
            value = call.add("expand", call["self"].name, shape=call.shape)
            self._holds(tensor, value)
        return value

    def _holds(self, tensor: Tensor, value: Value | int | None) -> Tensor:
        self._alive.append(tensor)
        self._values[id(tensor)] = value
        return tensor

    def __torch_function__(
        self, func: Callable[..., Argument], types: Argument, args: Argument = (), kwargs: Argument = None
    ) -> Argument:
        """Run ``func``, and record it if it makes tensors from tensors that depend on the inputs."""
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name not in _PROPERTIES:
                return func(*args, **options)
        elif name in QUESTIONS:
            return func(*args, **options)
        read = tensors_in((args, options))
        if not any(id(tensor) in self._values for tensor in read):
            result = run_without_data(func, args, options)
            for tensor in tensors_in(result):
                self.reader.derive(tensor, read)
                self._alive.append(tensor)
            return result
        if isinstance(func, FunctionType) and func.__module__.startswith("torch.") and func not in self._functions:
            self._functions.append(func)
            try:
                with self:
                    return unguarded(func)(*args, **options)
            finally:
                self._functions.pop()
        if name in _PROPERTIES:
            target, arguments = _PROPERTIES[name](args[0])
            return self._call(func, args, options, operator_of(target), arguments)
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, func, args, options)
        operator, arguments = bind(name, args, options)
        return self._call(func, args, options, operator, arguments)

    def apply(self, func: Argument, target: str, *args: Argument) -> Argument:
        """Record PyTorch's operator ``target``, which ``func`` computes, called with all of its arguments in order."""
        operator = operator_of(target)
        return self._call(
            func,
            args,
            {},
            operator,
            {name: value for (name, *_), value in zip(operator.parameters, args, strict=False)},
        )

    def _call(
        self, func: Argument, args: Argument, options: Argument, operator: Operator | None, arguments: Options
    ) -> Argument:
        """Add the nodes of one operator and return tensors that hold its results."""
        results = _Asked(lambda: run_without_data(func, args, options), operator.count if operator else 1)
        target = operator.target if operator else f"torch.{getattr(func, '__name__', 'function')}"
        self._calls += 1
        shown = getattr(self._functions[0] if self._functions else func, "__name__", "function").strip("_")
        first = len(self.reader.nodes)
        name, used = self.paths.name(shown), frozenset({0, 1, 2} if self._calls in self._used else ())
        given = map_nested(self._operand(target, arguments), dict(arguments))
        call = Call(self.reader, target, name, given, results, used)
        try:
            call = dataclasses.replace(call, results=_plain_results(target, given) or results)
            if target not in RULES:
                raise NotNative("no rule")
            if target in _EXPANDING and _is_stretched(call):
                tensor = self._holds(results.result, given["self"])
                self._stretched[id(tensor)] = call
                return tensor
            made = RULES[target](call)
        except NotNative:
            made = self._call_torch(args, options, call, results)
        except ConvoxelError as error:
            raise RuntimeError(str(error)) from error
        if "dropout" in target and isinstance(made, Value):
            self.dropped.append(made.name)
        self.calls.update((node.name, (call.name, shown)) for node in self.reader.nodes[first:])
        mutates = operator is not None and operator.mutates
        return self._hold(made, args[0] if mutates or _writes(func) else None, args, results)

    def _operand(self, target: str, arguments: Options) -> Callable[[Argument], Argument]:
        """Return the function that gives a rule the values for the tensors among its arguments."""
        stretching = bool(self._stretched) and target in STRETCHING
        shapes = [tuple(t.shape) for t in tensors_in(list(arguments.values()))] if stretching else []

        def operand(leaf: Argument) -> Argument:
            if not isinstance(leaf, Tensor):
                return leaf
            if stretching and id(leaf) in self._stretched and shapes == [tuple(leaf.shape)] * 2:
                return self._stretched[id(leaf)]["self"]
            value = self.value(leaf)
            return leaf if value is None else value

        return operand

    def _call_torch(self, args: Argument, options: Argument, call: Call, results: _Asked) -> Argument:
        """Add a node that calls PyTorch."""
        read = [v.name for t in tensors_in([args, options]) if (v := self.value(t)) is not None]
        return call.call_torch(read, None)

    def _hold(self, made: Argument, written: Tensor | None, args: Argument, results: _Asked) -> Argument:
        """Return the tensors that hold what a rule ``made``, in the structure in which PyTorch returns them."""
        values = list(made) if isinstance(made, list | tuple) else [made]
        if written is not None:
            self._stretched.pop(id(written), None)
            self._holds(written, values[0])
            if isinstance(values[0], Value):
                self.in_place.add(values[0].name)
            return written
        if len(values) == 1 and not results.is_asked and isinstance(values[0], Value):
            like = tensors_in(args)[0]
            kind = like.dtype if values[0].dtype == dtype_name(like.dtype) else getattr(torch, values[0].dtype)
            # torch.empty_like would spend its time on strides.
            return self._holds(torch.empty(_whole(values[0].shape), dtype=kind, device="meta"), values[0])
        result = results.result
        for tensor, value in zip(tensors_in(result), values, strict=False):
            if isinstance(value, Tensor):
                self._alive.append(tensor)
                continue
            self._holds(tensor, self._calls if value is None else value)
        return result


def _is_stretched(call: Call) -> bool:
    """True if a call stretches a value to a shape of as many axes, which arithmetic behind it would do by itself."""
    x = call["self"]
    return isinstance(x, Value) and len(x.shape) == len(call.shape) and x.dtype == "float32"


def _writes(func: Argument) -> bool:
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.startswith("__")


def _plain_results(target: str, arguments: Options) -> Recorded | None:
    """Return the results of arithmetic with tensors of one type, without asking PyTorch."""
    if target not in _ARITHMETIC:
        return None
    terms = [arguments["self"], arguments["other"]]
    tensors = [term for term in terms if isinstance(term, Value | Tensor)]
    shapes = [tuple(term.shape) for term in tensors]
    types = {term.dtype if isinstance(term, Value) else dtype_name(term.dtype) for term in tensors}
    if types != {"float32"}:
        return None
    return Recorded((stretch([_whole(shape) for shape in shapes]),), ("float32",))


_ARITHMETIC = STRETCHING | {target.replace("Tensor", "Scalar") for target in STRETCHING}
_EXPANDING = frozenset({"aten.expand.default", "aten.expand_as.default"})


# ---- what is spelt otherwise in Python ---------------------------------------------------------------------


def _turned(x: Tensor) -> tuple[str, JsonObject]:
    return "aten.permute.default", {"self": x, "dims": list(reversed(range(x.dim())))}


def _swapped(x: Tensor) -> tuple[str, JsonObject]:
    return "aten.transpose.int", {"self": x, "dim0": -2, "dim1": -1}


_PROPERTIES: Mapping[str, Callable[[Tensor], tuple[str, JsonObject]]] = {
    "T": _turned,
    "mT": _swapped,
    "data": lambda x: ("aten.alias.default", {"self": x}),
}
"""Attributes of a tensor that are tensors."""


def _convert(recorder: Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
    """Record another type; all devices are one."""
    name, like = func.__name__, [*args[1:], *options.values()]
    to = next((t.dtype if isinstance(t, Tensor) else t for t in like if isinstance(t, Tensor | torch.dtype)), None)
    to = to or getattr(torch, name, None) if name not in ("to", "cpu", "cuda", "type") else to
    to = to if isinstance(to, torch.dtype) else args[0].dtype
    kept = {"dtype": to}
    return recorder._call(Tensor.to, (args[0],), kept, operator_of("aten.to.dtype"), {"self": args[0], "dtype": to})


def _item(recorder: Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
    """Record indexing as PyTorch does: one operator for each part of the index."""
    x, index = args
    given = index if isinstance(index, tuple) else (index,)
    parts = [torch.tensor(part) if isinstance(part, list) and part else part for part in given]
    plain = all(part is None or part is Ellipsis or isinstance(part, int | slice | Tensor) for part in parts)
    if not plain or any(isinstance(part, bool) for part in parts):
        return recorder._call(func, args, options, None, {})
    count = sum(isinstance(part, int | slice | Tensor) for part in parts)
    if Ellipsis in [part for part in parts if not isinstance(part, Tensor)]:
        place = next(n for n, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (x.dim() - count)
    axis = 0
    taken: list[Tensor | None] = []
    for part in parts:
        if isinstance(part, int):
            x = recorder.apply(torch.select, "aten.select.int", x, axis, part)
            continue
        if part is None:
            x = recorder.apply(torch.unsqueeze, "aten.unsqueeze.default", x, axis)
        elif isinstance(part, slice) and part != slice(None):
            start, stop, step = part.indices(x.shape[axis])
            x = recorder.apply(_sliced, "aten.slice.Tensor", x, axis, start, stop, step)
        elif isinstance(part, Tensor):
            taken += [None] * (axis - len(taken)) + [part]
        axis += 1
    if taken:
        return recorder.apply(torch.ops.aten.index.Tensor, "aten.index.Tensor", x, taken)
    if x is args[0]:
        return recorder.apply(torch.alias_copy, "aten.alias.default", x)
    return x


def _sliced(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    index: list[slice] = [slice(None)] * x.dim()
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _write(recorder: Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
    """Record the writing of a part: a range of one axis, else by PyTorch."""
    x, index, source = args
    parts = list(index) if isinstance(index, tuple) else [index]
    ranged = all(isinstance(part, slice) for part in parts)
    ranges = [n for n, part in enumerate(parts) if part != slice(None)] if ranged else []
    if len(ranges) == 1 and isinstance(source, Tensor) and source.dim() == x.dim():
        start, stop, step = parts[ranges[0]].indices(x.shape[ranges[0]])
        operands = (x, source, ranges[0], start, stop, step)
        made = recorder.apply(lambda x, *_: x.clone(), "aten.slice_scatter.default", *operands)
    else:
        made = recorder._call(lambda x, *_: x.clone(), args, options, None, {})
    value = recorder.value(made)
    if value is not None:
        recorder._holds(x, value)
    return None


_SPECIAL: Mapping[str, Callable[[Recorder, Argument, Argument, Argument], Argument]] = {
    **dict.fromkeys(["to", "float", "half", "double", "bfloat16", "type", "type_as", "cpu", "cuda"], _convert),
    "__getitem__": _item,
    "__setitem__": _write,
}
