"""``torch.compile(model, backend="convoxel")``: each piece that PyTorch records becomes a program.

PyTorch calls ``convoxel_backend`` for every piece between graph breaks, and again when sizes or modes change.
AOTAutograd, which stands behind PyTorch's own backends too, splits a piece into a graph without side effects and what
happens around it: inputs that the piece writes to are written after the graph has run, results that are views of inputs
are made as views. The graph becomes a program. Where it cannot, or the program fails, PyTorch computes the graph, and
one warning says why. Pieces that record gradients run in PyTorch as they are.

A program keeps its own copy of the weights, so it must know when they change. PyTorch counts some writes, but none by
``.data``, fused optimisers or NumPy. So the bytes of all weights are read at every call (``native.checksum``); a
program whose weights have changed is made again. While they change at every call, PyTorch computes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import TorchDynamoException
from torch._guards import TracingContext

from convoxel import native
from convoxel.annotation import is_truth
from convoxel.errors import ConfigError, GraphError, UnsupportedError
from convoxel.files.fault import brief
from convoxel.files.values import Array
from convoxel.fork import renewed_lock
from convoxel.graph.compile import matmul_precision
from convoxel.graph.ir.size import Extents, Size, evaluate_shape
from convoxel.graph.read.torch import Imported, read, read_again
from convoxel.graph.read.torch.export import Exported
from convoxel.graph.run.program import Program
from convoxel.graph.store.record import check_settings

_OPTIONS = ("threads", "frozen")
# The engine computes in float32. What a network does in another type, it does for a reason.
_OTHER_TYPES = (torch.bfloat16, torch.float16, torch.float64, torch.complex32, torch.complex64, torch.complex128)

Compiled = Callable[..., Any]


class _Axis(NamedTuple):
    """The length of an axis of one of the tensors."""

    tensor: int
    axis: int


_Slot = torch.Tensor | int | _Axis
"""The source of an input's value: a weight, the number of a tensor, or an axis of one."""


class _Result(NamedTuple):
    """A result of a graph, from the results of its program.

    Attributes:
        result: the number of the program's result.
        order: the axes of the program's result from the largest stride to the smallest; None for their own order.
        view: shape, strides and offset of the part of it that is the result; None for all of it.
    """

    result: int
    order: tuple[int, ...] | None = None
    view: tuple[Extents, Extents, Extents] | None = None


def convoxel_backend(piece: torch.fx.GraphModule, examples: Sequence[object], **options: Any) -> Compiled:
    """Return a function that runs ``piece``, for ``torch.compile``; found by its entry point ``convoxel``.

    Args:
        piece: what PyTorch recorded; its inputs are weights, tensors and sizes.
        examples: one value for each input.
        options: from ``torch.compile(…, options={"threads": 2, "frozen": True})``. ``threads``: as in
            ``convoxel.compile``. ``frozen``: the weights will not change, so that calls need not read them (default
            False); a change then goes unnoticed.

    Returns:
        A function of the same inputs that returns a tuple of tensors.

    Raises:
        ConfigError: an option is unknown or of another type, or ``threads`` is below 1.
    """
    settings = _Settings.of(options.get("options") or {})
    tensors = [x for x in examples if isinstance(x, torch.Tensor)]
    weights = [_is_weight(node, x) for node, x in zip(_placeholders(piece), examples, strict=True)]
    computed = [x for x, weight in zip(examples, weights, strict=True) if isinstance(x, torch.Tensor) and not weight]
    if _records_gradients(piece, tensors) or not computed or any(x.numel() == 0 for x in computed):
        return piece.forward
    try:
        for x in tensors:
            _check_kind(x)
        compiler = _Compiler(piece, weights, settings)
        return aot_autograd(fw_compiler=_in_pytorch, inference_compiler=compiler)(piece, examples)
    except TorchDynamoException:
        raise  # PyTorch's own, to record the piece anew
    except Exception as reason:
        _say(reason)
        return piece.forward


class _Settings(NamedTuple):
    """The options of ``torch.compile(…, options=…)``."""

    threads: int | None = None
    frozen: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Settings:
        """Return checked options."""
        unknown = sorted(map(str, given.keys() - set(_OPTIONS)))
        if unknown:
            raise ConfigError(f"convoxel_backend: options {unknown} are unknown; expected {' or '.join(_OPTIONS)}")
        settings = cls(**given)
        check_settings("convoxel_backend", settings.threads)
        if not is_truth(settings.frozen):
            raise ConfigError(f"convoxel_backend: frozen is {brief(settings.frozen)}; expected True or False")
        return settings


_said: set[str] = set()


def _say(reason: Exception) -> None:
    """Warn that PyTorch computes a piece, once for each reason until ``torch._dynamo.reset``."""
    first = str(reason).strip().partition("\n")[0]
    text = first if isinstance(reason, GraphError | UnsupportedError) else f"{type(reason).__name__}: {first}"
    if text not in _said:
        _said.add(text)
        warnings.warn(f"torch.compile: a piece of the model runs in PyTorch: {text}", UserWarning, stacklevel=3)


convoxel_backend.reset = _said.clear  # type: ignore[attr-defined]  # torch._dynamo.reset calls it


# ---- pieces ----------------------------------------------------------------------------------------------


def _placeholders(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def _output(module: torch.fx.GraphModule) -> torch.fx.Node:
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    return output


def _listed(module: torch.fx.GraphModule) -> list[Any]:
    """Return what the output node lists."""
    listed = _output(module).args[0]
    return list(listed) if isinstance(listed, list | tuple) else [listed]


def _is_weight(node: torch.fx.Node, example: object) -> bool:
    """Return whether an input probably stays from call to call: it becomes a constant of the program.

    A wrong guess costs time alone: the contents of all weights are compared at every call.
    """
    if isinstance(example, torch.nn.Parameter):
        return True
    users = [user.args for user in node.users if "conv" in str(user.target)]
    if users and all(node in args[1:3] for args in users):
        return True
    return bool(node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def _records_gradients(piece: torch.fx.GraphModule, tensors: Sequence[torch.Tensor]) -> bool:
    """Return whether PyTorch must be able to go backwards through the piece."""
    if not any(x.requires_grad for x in tensors):
        return False
    switches = any("set_grad_enabled" in str(node.target) and node.args[0] is True for node in piece.graph.nodes)
    return torch.is_grad_enabled() or switches


def _check_kind(x: torch.Tensor) -> None:
    """Raise unless ``x`` is a plain tensor on the CPU."""
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or x.layout is not torch.strided:
        raise UnsupportedError(
            f"an input is a {type(x).__name__} with layout {x.layout}; the engine takes torch.Tensor"
        )
    if x.device.type != "cpu":
        raise UnsupportedError(f"an input is on {x.device}; the engine runs on the CPU")


def _check_random(module: torch.fx.GraphModule) -> None:
    """Raise if the graph draws random numbers."""
    for node in module.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UnsupportedError(f"{node.target} draws random numbers")


def _other_type(module: torch.fx.GraphModule) -> UnsupportedError | None:
    """Return what speaks against the graph if it computes in a type that the engine does not compute in."""
    for node in module.graph.nodes:
        found = node.meta.get("val", node.meta.get("example_value"))
        for x in found if isinstance(found, list | tuple) else (found,):
            if isinstance(x, torch.Tensor) and x.dtype in _OTHER_TYPES:
                return UnsupportedError(f"{node.name} is {x.dtype}; the engine computes in float32")
    return None


def _in_pytorch(module: torch.fx.GraphModule, _: Sequence[object]) -> Compiled:
    return module.forward


class _Compiler:
    """Compiles the graph that AOTAutograd makes of a piece, where no gradients are recorded."""

    def __init__(self, piece: torch.fx.GraphModule, weights: Sequence[bool], settings: _Settings) -> None:
        self._piece, self._weights, self._settings = piece, weights, settings

    def __call__(self, module: torch.fx.GraphModule, _: Sequence[object]) -> Compiled:
        _check_random(module)
        inputs = [node.meta["val"] for node in _placeholders(module)]
        context = TracingContext.try_get()
        known = None if context is None else context.fw_metadata
        if known is None or len(inputs) != len(self._weights):
            raise UnsupportedError("inputs of the piece share memory")
        written = [info.mutates_data or info.mutates_metadata for info in known.input_info]
        # A weight that the piece itself writes changes at every call; so it is an input like others.
        weights = [weight and not changes for weight, changes in zip(self._weights, written, strict=True)]
        computed, results = _without_views(module)
        plain = all(info.output_type.name in ("non_alias", "unsafe_view_alias") for info in known.output_info)
        same = plain and not any(written) and len(_listed(computed)) == len(_listed(self._piece))
        # The piece says more than the graph, in which a resize is a sum of gathered numbers.
        sources = [self._piece, computed] if same and computed is module else [computed]
        reasons = [_other_type(source) for source in sources]
        if reasons[0] is not None:
            raise reasons[0]
        sources = [source for source, reason in zip(sources, reasons, strict=True) if reason is None]
        axes = _axes(weights, inputs)
        types = [str(x.dtype).removeprefix("torch.") for x in map(_tensor, _listed(computed)) if x is not None]
        return _Runner(module, sources, types, _slots(weights, inputs, axes), axes, results, self._settings)


def _without_views(module: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[_Result]]:
    """Return a graph whose results share no memory, and how the results of ``module`` are made of them.

    A program's results have memory of their own. Where results are parts of one tensor and overlap, whoever writes to
    one changes the others; so the program computes that tensor.
    """
    listed = _listed(module)
    groups: dict[object, list[Any]] = {}
    for node in dict.fromkeys(node for node in listed if _tensor(node) is not None):
        groups.setdefault(_memory(node), []).append(node)
    shared = {
        memory
        for memory, group in groups.items()
        if any(not _are_apart(_tensor(a), _tensor(b)) for a, b in combinations(group, 2))
    }
    owners: dict[object, Any] = {}
    for node in module.graph.nodes:
        if _memory(node) in shared:
            owners.setdefault(_memory(node), node)
    roots = [owners.get(_memory(node), node) for node in listed]
    unique = list(dict.fromkeys(roots)) if owners else roots
    results: list[_Result] = []
    for node, root in zip(listed, roots, strict=True):
        tensor = _tensor(root)
        order = None if tensor is None else _axis_order(tensor)
        view = None if node is root else _part(_tensor(node), tensor)
        results.append(_Result(unique.index(root) if owners else len(results), order, view))
    if not owners:
        return module, results
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(module.graph, copies)
    graph.output(tuple(copies.get(root, root) for root in unique))
    return torch.fx.GraphModule(module, graph), results


def _tensor(node: object) -> torch.Tensor | None:
    found = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return found if isinstance(found, torch.Tensor) else None


def _memory(node: object) -> object:
    """Return what tells the memory of a node's tensor from others; None if it has no tensor."""
    tensor = _tensor(node)
    return None if tensor is None else tensor.untyped_storage()._cdata


def _are_apart(a: Any, b: Any) -> bool:
    """Return whether two parts of a tensor are disjoint ranges of an axis, as those of ``chunk`` are."""
    if _number(a.storage_offset()) > _number(b.storage_offset()):
        a, b = b, a
    if list(map(str, a.stride())) != list(map(str, b.stride())):
        return False
    between = b.storage_offset() - a.storage_offset()
    for axis, (length, stride) in enumerate(zip(a.shape, a.stride(), strict=True)):
        steps = _number(between) // max(_number(stride), 1)
        # A longer range would reach beyond the axis.
        inside = (steps + _number(b.shape[axis])) * _number(stride) <= min(
            (_number(s) for s in a.stride() if _number(s) > _number(stride)), default=math.inf
        )
        rest = between - steps * stride
        exact = rest == 0 if isinstance(rest, int) else rest.node.expr == 0
        if isinstance(length, int) and exact and inside and steps >= length:
            return True
    return False


def _part(part: Any, whole: Any) -> tuple[Extents, Extents, Extents]:
    """Return shape, strides and offset of ``part`` within ``whole``."""
    order = _axis_order(whole) or range(whole.ndim)
    expected = 1
    for axis in reversed(order):
        if _number(whole.shape[axis]) > 1 and _number(whole.stride()[axis]) != expected:
            raise UnsupportedError("several results are parts of a tensor with gaps in its memory")
        expected *= _number(whole.shape[axis])
    if part.dtype != whole.dtype or whole.storage_offset() != 0:
        raise UnsupportedError("several results show one memory in different ways")

    def extents(sizes: Sequence[Any]) -> Extents:
        return tuple(size if isinstance(size, int) else Size(str(size)) for size in sizes)

    return extents(part.shape), extents(part.stride()), extents([part.storage_offset()])


def _axes(weights: Sequence[bool], examples: Sequence[object]) -> dict[str, _Axis]:
    """Return, for every open size that an axis of a tensor has, that axis."""
    tensors = [x for x, weight in zip(examples, weights, strict=True) if isinstance(x, torch.Tensor) and not weight]
    return {
        str(size): _Axis(number, axis)
        for number, tensor in reversed(list(enumerate(tensors)))
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, torch.SymInt)
    }


def _slots(weights: Sequence[bool], examples: Sequence[object], axes: Mapping[str, _Axis]) -> list[int | _Axis | None]:
    """Return the slot of every input, None for weights."""
    slots: list[int | _Axis | None] = []
    count = 0
    for x, weight in zip(examples, weights, strict=True):
        if weight:
            slots.append(None)
        elif isinstance(x, torch.Tensor):
            slots.append(count)
            count += 1
        elif str(x) in axes:
            slots.append(axes[str(x)])
        else:
            raise UnsupportedError(f"the input {x} is no tensor, and no tensor's size")
    return slots


def _named(slots: Sequence[_Slot]) -> dict[str, torch.Tensor]:
    """Return the weights among the slots by names."""
    weights = {f"weight_{i}": slot.detach() for i, slot in enumerate(slots) if isinstance(slot, torch.Tensor)}
    return {name: x.clone() if x.is_inference() else x for name, x in weights.items()}


def _forms(slots: Sequence[_Slot]) -> list[Any]:
    """Return types, shapes and strides of the weights among the slots."""
    return [(x.dtype, x.shape, x.stride()) for x in slots if isinstance(x, torch.Tensor)]


class _Frozen(torch.nn.Module):
    """A graph with its weights inside, whose only inputs are tensors."""

    def __init__(self, graph: torch.fx.GraphModule, slots: Sequence[_Slot]) -> None:
        super().__init__()
        self.graph = graph
        self.slots = slots
        for name, weight in _named(slots).items():
            self.register_buffer(name, weight)

    def forward(self, *tensors: torch.Tensor) -> Any:
        arguments: list[object] = []
        for number, slot in enumerate(self.slots):
            if isinstance(slot, torch.Tensor):
                arguments.append(getattr(self, f"weight_{number}"))
            elif isinstance(slot, _Axis):
                arguments.append(tensors[slot.tensor].shape[slot.axis])
            else:
                arguments.append(tensors[slot])
        return self.graph(*arguments)


# ---- calls -----------------------------------------------------------------------------------------------


class _Runner:
    """Runs a graph as a program, made at the first call and again once its weights have changed."""

    _boxed_call = True  # PyTorch hands its inputs over in one list

    def __init__(
        self,
        module: torch.fx.GraphModule,
        sources: Sequence[torch.fx.GraphModule],
        types: Sequence[str],
        slots: Sequence[int | _Axis | None],
        axes: Mapping[str, _Axis],
        results: Sequence[_Result],
        settings: _Settings,
    ) -> None:
        self._module, self._sources, self._slots, self._settings = module, sources, slots, settings
        self._types = types
        self._results = results
        needed = any(result.view is not None for result in results)
        self._axes = {name: axis for name, axis in axes.items() if name.isidentifier()} if needed else {}
        self._lock = renewed_lock()
        self._contents = _Contents()
        self._program: Program | None = None
        self._exported: Exported | None = None
        self._forms: list[Any] = []  # of the weights that it was exported with
        self._weights: object = None  # what the program's weights were
        self._last: object = None  # what they were at the last call
        self._calls = 0  # of the program
        self._failed = False

    def __call__(self, inputs: list[Any]) -> Any:
        values = list(inputs)
        inputs.clear()
        if self._failed:
            return self._module(*values)
        pairs = list(zip(values, self._slots, strict=True))
        tensors = [x for x, slot in pairs if isinstance(x, torch.Tensor) and slot is not None]
        try:
            program = self._ready([x if slot is None else slot for x, slot in pairs], tensors)
            if program is not None:
                return self._arranged([torch.from_numpy(y) for y in program(*map(_array, tensors))], tensors)
        except Exception as reason:
            result = self._module(*values)  # which may raise what the model itself raises on these inputs
            self._failed = True
            _say(reason)
            return result
        return self._module(*values)

    def _ready(self, slots: Sequence[_Slot], tensors: Sequence[torch.Tensor]) -> Program | None:
        """Return the program for the present weights among ``slots``, None while they change at every call."""
        weights = [slot.detach() for slot in slots if isinstance(slot, torch.Tensor)]
        with self._lock:
            found = None if self._settings.frozen else self._contents.of(weights, self._settings.threads)
            if self._program is None or found != self._weights:
                last, self._last = self._last, found
                if self._calls == 1 and found != last:
                    return None
                self._program, self._calls = self._make(slots, tensors), 0
                self._weights = found
            self._calls += 1
            return self._program

    def _make(self, slots: Sequence[_Slot], tensors: Sequence[torch.Tensor]) -> Program:
        """Return the program for the present weights among ``slots``."""
        with torch.inference_mode(False), torch.no_grad():
            if self._exported is None or _forms(slots) != self._forms:
                imported = self._read(slots, tensors)
                self._exported, self._forms = imported.exported, _forms(slots)
                # Weights are given anew at every reading; older ones would take memory.
                self._exported.program.state_dict.clear()
            else:
                imported = read_again(self._exported, _Frozen.__name__, _named(slots))
        graph, structure = imported.graph, imported.structure
        return Program.from_graph(graph, structure, threads=self._settings.threads, precision=matmul_precision())

    def _read(self, slots: Sequence[_Slot], tensors: Sequence[torch.Tensor]) -> Imported:
        """Return the first source that can be read as a graph."""
        reasons: list[Exception] = []
        examples = [torch.empty(x.shape, dtype=x.dtype, device="cpu") for x in tensors]
        for source in self._sources:
            try:
                imported = read(_Frozen(source, slots), examples)
                graph, known = imported.graph, imported.graph.constants
                types = [str((known[x] if x in known else graph.values[x]).dtype) for x in graph.outputs]
                if types == self._types:
                    return imported
                reasons.append(GraphError(f"results are {', '.join(types)}, not {', '.join(self._types)}"))
            except Exception as reason:
                reasons.append(reason)
        raise reasons[-1]

    def _arranged(self, found: Sequence[Any], tensors: Sequence[torch.Tensor]) -> list[Any]:
        """Return the graph's results, laid out as PyTorch lays them out."""
        ordered = list(found)
        for result in self._results:
            if result.order is not None and ordered[result.result] is found[result.result]:
                x = found[result.result]
                laid = torch.empty_permuted(x.shape, result.order, dtype=x.dtype, device="cpu")
                ordered[result.result] = laid.copy_(x)
        sizes = {name: tensors[place.tensor].shape[place.axis] for name, place in self._axes.items()}
        return [
            ordered[index] if view is None else _viewed(ordered[index], view, sizes) for index, _, view in self._results
        ]


def _viewed(whole: torch.Tensor, view: Sequence[Extents], sizes: Mapping[str, int]) -> torch.Tensor:
    shape, strides, (offset,) = (evaluate_shape(extents, sizes) for extents in view)
    return whole.as_strided(shape, strides, offset)


def _number(size: Any) -> int:
    """Return an axis length or a stride as it is in the example."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _axis_order(x: torch.Tensor) -> tuple[int, ...] | None:
    """Return the axes from the largest stride to the smallest; None where that is their own order."""
    # An axis of length 1 may have any stride; it stays before the axis that follows it.
    strides = [_number(stride) for stride in x.stride()]
    for axis in reversed(range(x.ndim - 1)):
        if _number(x.shape[axis]) == 1:
            strides[axis] = max(strides[axis], strides[axis + 1])
    order = tuple(sorted(range(x.ndim), key=lambda axis: -strides[axis]))
    return None if order == tuple(range(x.ndim)) else order


class _Contents:
    """The contents of weights, as something that differs when they do."""

    def __init__(self) -> None:
        self._places: list[object] = []
        self._bytes: list[Array] = []

    def of(self, weights: Sequence[torch.Tensor], threads: int | None) -> object:
        """Return the present contents and forms of ``weights``."""
        forms = _forms(weights)
        places: list[object] = [(x.data_ptr(), *form) for x, form in zip(weights, forms, strict=True)]
        if places != self._places:
            self._bytes, self._places = [_bytes_of(x) for x in weights], places  # they keep the memory alive
        return forms, native.checksum(self._bytes, threads)


def _bytes_of(x: torch.Tensor) -> Array:
    """Return the memory from the tensor's first number to its last, which it shares."""
    last = sum((length - 1) * stride for length, stride in zip(x.shape, x.stride(), strict=True))
    count = (last + 1) * x.element_size() if x.numel() else 0
    if x.storage_offset() * x.element_size() + count > x.untyped_storage().nbytes():
        raise UnsupportedError("the memory of a weight has been given away")
    return np.asarray(_Memory(x, np.dtype(np.uint8), (count,), (1,)))


def _array(x: torch.Tensor) -> Array:
    """Return a tensor as an array that shares its memory."""
    if x.is_neg() or not x.numel() or x.untyped_storage().nbytes() == 0:
        return x.numpy()  # which refuses what has no numbers, or others than its memory
    strides = tuple(stride * x.element_size() for stride in x.stride())
    return np.asarray(_Memory(x, np.dtype(str(x.dtype).removeprefix("torch.")), tuple(x.shape), strides))


class _Memory:
    """The memory of a tensor as NumPy asks for it. After PyTorch's ``numpy`` it could never change its size."""

    def __init__(self, x: torch.Tensor, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self._owner = x  # lives as long as the array
        self.__array_interface__ = {
            "version": 3, "data": (x.data_ptr(), True), "typestr": dtype.str, "shape": shape, "strides": strides,
        }  # fmt: skip
