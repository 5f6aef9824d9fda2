"""From a PyTorch module to a graph without exporting it: the module runs once on tensors without data.

Every PyTorch function that the module calls is bound to the operator that it stands for, and the rule of
``graph.read.torch`` adds the nodes: so the graph has the operators that a compiled program is read with. Shapes follow
from the operators' own rules; PyTorch is asked only where no rule says (its shape functions take up to 2 ms, and the
first convolution among them imports 800 modules). Weights are shapes alone (``ShapeOnly``), so a network of any size
costs neither memory nor arithmetic. Sizes are numbers, those of the inputs; control flow that looks at values fails.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from convoxel.arithmetic.size_search import explain_refusal
from convoxel.errors import ConvoxelError, GraphError, ShapeError
from convoxel.files.values import JsonObject, Options
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.shape import stretch
from convoxel.graph.read.reader import NotNative, Reader
from convoxel.graph.read.torch.call import RULES, STRETCHING, Call, Recorded, dtype_name
from convoxel.graph.read.torch.torch_call import map_nested

__all__ = ["ModuleReader", "Paths", "shapes_only", "tensors_in"]

# An argument or a result of a PyTorch function: a tensor, number, text, type, function, None, or these in a nest.
Argument = Any

_FEW = 16  # numbers of a buffer that are kept: factors, limits and the like, which rules may look at
_COUNTED_CHANNELS = ("in_channels", "in_features", "num_features")  # of layers, which tell what a network may take
_READ_MODULES, _FEWEST_TRIALS = 20_000, 60  # read in search of sizes that work: a few seconds


class ModuleReader:
    """A module that is read on shapes alone, again and again; the caller's module stays as it is."""

    def __init__(self, module: nn.Module, own: bool = False) -> None:
        """Take ``module`` as it is if it is ``own`` and has no data, else a copy without data.

        Of what was read last, ``in_place`` names the nodes that write where their first operand lies, ``calls``
        tells for each node the name of the call that it belongs to and the function's, and ``dropped`` lists the values
        that training drops out from. ``number_bytes`` are those of a parameter's number.

        Raises:
            GraphError: the module cannot be copied.
        """
        self.name = type(module).__name__
        self.parameters = sum(p.numel() for p in module.parameters())
        self.in_place: frozenset[str] = frozenset()
        self.calls: Mapping[str, tuple[str, str]] = {}
        self.dropped: Sequence[str] = ()
        floating = (p.dtype for p in module.parameters() if p.is_floating_point())
        self._dtype = next(floating, torch.float32)
        self.number_bytes = self._dtype.itemsize
        try:
            self._module = (module if own else _without_data(module)).eval()
        except Exception as error:
            raise GraphError(
                f"{self.name} cannot be copied without its data: {_reason(error)}. "
                "Describe the part of it that is a plain module."
            ) from error

    def read(self, shapes: Sequence[Shape]) -> Graph:
        """Return the graph in evaluation mode for inputs of ``shapes`` in the type of the parameters.

        Raises:
            GraphError: the module needs values to run, or rejects the shapes and all that are near to them.
            ShapeError: the module rejects the shapes; the message names near ones that work, or is the module's own.
        """
        try:
            return self._read(shapes)
        except ConvoxelError:
            raise
        except Exception as error:
            told = (
                f"{self.name} does not run without data on inputs of shape "
                f"{', '.join(map(str, shapes))}: {_reason(error)}."
            )
            advice = self.explain(shapes)
            if advice:
                raise ShapeError(f"{told} {advice}") from error
            raise GraphError(
                f"{told} Give shapes that the network accepts; control flow that looks at values cannot be described."
            ) from error

    def explain(self, shapes: Sequence[Shape]) -> str:
        """Return a sentence that names shapes near to refused ones that the module accepts; "" if none was found."""
        children = list(self._module.modules())
        counts = (getattr(child, name, None) for child in children for name in _COUNTED_CHANNELS)
        channels = dict.fromkeys(count for count in counts if isinstance(count, int))
        most = max(_FEWEST_TRIALS, _READ_MODULES // len(children))
        return explain_refusal(lambda trial: self.accepts(trial) is not None, shapes, most, [*channels][:_FEW])

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """Return the shapes of the outputs for inputs of ``shapes``, or None where the module refuses them."""
        try:
            graph = self._read(shapes)
        except Exception:  # modules refuse by exceptions of every kind
            return None
        return tuple(_whole(graph.values[name].shape) for name in graph.outputs)

    def _read(self, shapes: Sequence[Shape]) -> Graph:
        used: set[int] = set()
        while True:
            recorder = _Recorder(self._module, self.name, used)
            inputs = [recorder.input(torch.empty(shape, dtype=self._dtype, device="meta")) for shape in shapes]
            try:
                with torch.no_grad(), recorder.paths.of(self._module), recorder:
                    result = self._module(*inputs)
                outputs = [recorder.value(tensor) for tensor in tensors_in(result)]
            except _Used as call:
                used.add(call.number)
                continue
            self.in_place, self.calls = frozenset(recorder.in_place), recorder.calls
            self.dropped = recorder.dropped
            return recorder.reader.graph([value.name for value in outputs if value is not None])


def _whole(extents: Sequence[Argument]) -> Shape:
    return tuple(map(int, extents))


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _without_data(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` with its tensors on the meta device; no data is copied or touched.

    Whole numbers stay, and buffers of a few numbers: indices, factors and limits.
    """
    replaced: dict[int, Argument] = {}
    plain = [child for child in module.modules() if all(_copied_as(name, type(child)) for name in _COPYING)]
    for child in plain:
        replaced[id(child)] = child.__new__(type(child))
    for child in module.modules():
        for tensor in [*child._parameters.values(), *child._buffers.values(), *vars(child).values()]:
            if not isinstance(tensor, Tensor):
                continue
            if isinstance(tensor, nn.Parameter):
                replaced[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
            elif tensor.is_floating_point() and tensor.numel() > _FEW:
                replaced[id(tensor)] = tensor.detach().to("meta")
            else:
                replaced[id(tensor)] = tensor.detach()
    # By their protocol, the twelve tables of hooks that a module has would take longer than all the rest.
    for child in plain:
        replaced[id(child)].__dict__.update((name, _copied(value, replaced)) for name, value in vars(child).items())
    return copy.deepcopy(module, replaced)


_COPYING = ("__copy__", "__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__new__")
_ATOMS = frozenset({bool, int, float, str, type(None)})
_TABLES = frozenset({dict, set, OrderedDict})


def _copied_as(name: str, kind: type) -> bool:
    """Return True if modules of a kind are copied as PyTorch's modules are."""
    return getattr(kind, name, None) is getattr(nn.Module, name, None)


def _copied(value: Argument, replaced: dict[int, Argument]) -> Argument:
    if type(value) in _ATOMS:
        return value
    if type(value) in _TABLES and not value:
        return type(value)()
    return copy.deepcopy(value, replaced)


def tensors_in(value: Argument) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if type(value) in _ATOMS:
        return []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for element in value for tensor in tensors_in(element)]
    return []


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


class _Used(Exception):
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


class _Recorder(TorchFunctionMode):
    """Sees every PyTorch function while it is active, and adds nodes for those that depend on the inputs."""

    def __init__(self, module: nn.Module, name: str, used: set[int]) -> None:
        super().__init__()
        self.reader = Reader(name)
        self.paths = Paths()
        for parameter in module.parameters():
            self.reader.train(parameter, parameter.numel())
        self._values: dict[int, Value | int] = {}  # the number of a call stands for a result that it did not make
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
            raise _Used(value)
        if id(tensor) in self._stretched:
            call = self._stretched.pop(id(tensor))
            value = call.add("expand", call["self"].name, shape=call.shape)
            self._holds(tensor, value)
        return value

    def _holds(self, tensor: Tensor, value: Value | int) -> Tensor:
        self._alive.append(tensor)
        self._values[id(tensor)] = value
        return tensor

    def __torch_function__(
        self, func: Callable[..., Argument], types: Argument, args: Argument = (), kwargs: Argument = None
    ) -> Argument:
        """Run ``func``, and record it if it makes tensors from tensors that depend on the inputs."""
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _QUESTIONS:
            return func(*args, **options)
        read = [*tensors_in(args), *tensors_in(options)]
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
                    return _unguarded(func)(*args, **options)
            finally:
                self._functions.pop()
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name not in _PROPERTIES:
                return func(*args, **options)
            target, arguments = _PROPERTIES[name](args[0])
            return self._call(func, args, options, _operator(target), arguments)
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, func, args, options)
        operator, arguments = _bind(name, args, options)
        return self._call(func, args, options, operator, arguments)

    def apply(self, func: Argument, target: str, *args: Argument) -> Argument:
        """Record PyTorch's operator ``target``, which ``func`` computes, called with all of its arguments in order."""
        operator = _operator(target)
        return self._call(
            func,
            args,
            {},
            operator,
            {name: value for (name, *_), value in zip(operator.parameters, args, strict=False)},
        )

    def _call(
        self, func: Argument, args: Argument, options: Argument, operator: _Operator | None, arguments: Options
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


# ---- functions, arguments, operators ---------------------------------------------------------------------

_QUESTIONS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "is_contiguous", "is_complex"),
    *("is_floating_point", "element_size", "get_device", "has_names", "__len__", "data_ptr"),
}
"""Functions that make no tensor; most calls are of these."""

_FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "fill_", "zero_", "copy_"})
_COUNTS = frozenset({"arange", "linspace", "tensor"})
_NUMERIC = ("add", "sub", "mul", "div")
_ARITHMETIC = STRETCHING | {target.replace("Tensor", "Scalar") for target in STRETCHING}
_EXPANDING = frozenset({"aten.expand.default", "aten.expand_as.default"})


def run_without_data(func: Callable[..., Argument], args: Argument, options: Options) -> Argument:
    """Return ``func(*args, **options)`` where some tensors have no data: then none takes part with its data.

    Filling such tensors is left out: PyTorch's first random number imports 800 modules. Ranges keep their numbers.
    """
    name = getattr(func, "__name__", "")
    read = [*tensors_in(args), *tensors_in(options)]
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
def _unguarded(func: FunctionType) -> FunctionType:
    """Return one of PyTorch's Python functions without the question whether someone overrides it.

    Its body then calls the functions that do the work, which are seen one by one.
    """

    def cell(content: Argument) -> CellType:
        inner = isinstance(content, FunctionType) and content.__module__.startswith("torch.") and content is not func
        return CellType(_unguarded(content) if inner else content)

    cells = tuple(cell(each.cell_contents) for each in func.__closure__ or ())
    names = _namespace(func.__globals__["__name__"])
    bare = FunctionType(func.__code__, names, func.__name__, func.__defaults__, cells)
    bare.__kwdefaults__ = func.__kwdefaults__
    return bare


@functools.cache
def _namespace(module: str) -> JsonObject:
    return {**vars(sys.modules[module]), **dict.fromkeys(_GUARDS, lambda *_: False)}


_SYNONYMS = {"axis": "dim", "input": "self", "keepdims": "keepdim", "x": "self"}


class _Operator:
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


def _bind(name: str, args: Sequence[Argument], options: Options) -> tuple[_Operator | None, JsonObject]:
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
def _choose(name: str, kinds: tuple[str, ...], options: tuple[tuple[str, str], ...]) -> tuple[_Operator | None, bool]:
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
                return _operator(str(overload)), packed
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
    if type(value) in _ATOMS:
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
def _operator(target: str) -> _Operator:
    _, name, overload = target.split(".")
    return _Operator(getattr(getattr(torch.ops.aten, name), overload))


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


def _convert(recorder: _Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
    """Record another type; all devices are one."""
    name, like = func.__name__, [*args[1:], *options.values()]
    to = next((t.dtype if isinstance(t, Tensor) else t for t in like if isinstance(t, Tensor | torch.dtype)), None)
    to = to or getattr(torch, name, None) if name not in ("to", "cpu", "cuda", "type") else to
    to = to if isinstance(to, torch.dtype) else args[0].dtype
    kept = {"dtype": to}
    return recorder._call(Tensor.to, (args[0],), kept, _operator("aten.to.dtype"), {"self": args[0], "dtype": to})


def _item(recorder: _Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
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


def _write(recorder: _Recorder, func: Argument, args: Argument, options: Argument) -> Argument:
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


_SPECIAL: Mapping[str, Callable[[_Recorder, Argument, Argument, Argument], Argument]] = {
    **dict.fromkeys(["to", "float", "half", "double", "bfloat16", "type", "type_as", "cpu", "cuda"], _convert),
    "__getitem__": _item,
    "__setitem__": _write,
}
