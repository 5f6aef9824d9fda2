"""A PyTorch module becomes steps: it runs once on the ``meta`` device, where tensors hold no data.

The module is copied with its parameters replaced, so the caller's module is neither changed nor moved, and a
network of any size costs neither memory nor arithmetic. Every PyTorch function that the module calls is seen
(layers are named by the module that called them); control flow that looks at values cannot run without data.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convoxel.errors import ConvoxelError, GraphError
from convoxel.inspect.meta import run_function, shapes_only
from convoxel.inspect.step import Step, Trace, Value
from convoxel.inspect.vocabulary import classify

__all__ = ["ModuleSource", "Paths", "tensors_in", "trace_module"]

Shape = tuple[int, ...]


class ModuleSource:
    """A module that is described: what its steps are for some shapes, and whether it accepts others."""

    def __init__(self, module: nn.Module, own: bool = False) -> None:
        """Take ``module`` as it is if it is ``own`` and has no data, else a copy without data."""
        self.name = type(module).__name__
        self._parameters = sum(p.numel() for p in module.parameters())
        floating = (p.dtype for p in module.parameters() if p.is_floating_point())
        self._dtype = next(floating, torch.float32)
        try:
            self._shadow = (module if own else _without_data(module)).eval()
        except Exception as error:
            raise GraphError(
                f"{self.name} cannot be copied without its data: {_reason(error)}. "
                "Describe the part of it that is a plain module."
            ) from error

    def trace(self, shapes: Sequence[Shape]) -> Trace:
        """Return the steps in eval mode for inputs of ``shapes`` in the type of the parameters.

        Raises:
            GraphError: the module needs values to run, or rejects the shapes.
            ShapeError: the module itself says that a shape does not fit.
        """
        inputs = self._inputs(shapes)
        recorder = _Recorder(self._shadow, inputs)
        try:
            with torch.no_grad(), recorder.paths.of(self._shadow), recorder:
                result = self._shadow(*inputs)
        except ConvoxelError:
            raise
        except Exception as error:
            raise GraphError(
                f"{self.name} does not run without data on inputs of shape "
                f"{', '.join(map(str, shapes))}: {_reason(error)}. "
                "Give shapes that the network accepts; control flow that looks at values cannot be described."
            ) from error
        outputs = tuple(recorder.values[id(t)] for t in tensors_in(result) if id(t) in recorder.values)
        steps = tuple(call.step() for call in recorder.calls)
        return Trace(self.name, recorder.inputs, outputs, steps, self._parameters)

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """Return the shapes of what comes out for inputs of ``shapes``, or None where the module refuses them."""
        try:
            with shapes_only():
                result = self._shadow(*self._inputs(shapes))
        except Exception:  # modules refuse by exceptions of every kind
            return None
        return tuple(tuple(tensor.shape) for tensor in tensors_in(result))

    def _inputs(self, shapes: Sequence[Shape]) -> list[Tensor]:
        return [torch.empty(shape, dtype=self._dtype, device="meta") for shape in shapes]


def trace_module(module: nn.Module, shapes: Sequence[Shape]) -> Trace:
    """Return the steps of ``module``; see ``ModuleSource.trace``."""
    return ModuleSource(module).trace(shapes)


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _without_data(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` with its tensors on the meta device; no data is copied or touched."""
    replaced: dict[int, Any] = {}
    for child in module.modules():
        own = [*child._parameters.values(), *child._buffers.values(), *vars(child).values()]
        for tensor in own:
            if isinstance(tensor, nn.Parameter):
                replaced[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
            elif isinstance(tensor, Tensor):
                replaced[id(tensor)] = tensor.detach().to("meta")
    return copy.deepcopy(module, replaced)


class _Call(NamedTuple):
    """A call as seen; it is put in words after the run, where a mistake cannot be taken for the module's."""

    name: str
    function: Callable[..., Any]
    arguments: Sequence[Any]
    options: Mapping[str, Any]
    result: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: int
    weights: int

    def step(self) -> Step:
        """Return the call in the words of ``vocabulary``."""
        operator, attributes = classify(self.function, self.arguments, self.options, self.result)
        return Step(self.name, operator, self.inputs, self.outputs, attributes, self.params, self.weights)


class Paths:
    """Which module is running, and names for the functions that it calls."""

    def __init__(self) -> None:
        self._path: list[tuple[str, bool]] = []
        self._names: Counter[str] = Counter()

    @contextmanager
    def of(self, module: nn.Module) -> Iterator[None]:
        """Follow ``module`` and its children while they run."""
        handles = []
        for name, child in module.named_modules():
            layer = bool(name) and not child._modules

            def enter(*_: Any, entry: tuple[str, bool] = (name, layer)) -> None:
                self._path.append(entry)

            def leave(*_: Any) -> None:
                self._path.pop()

            handles += [child.register_forward_pre_hook(enter), child.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._path.clear()

    def name(self, function: str) -> str:
        """Return a name that no step has yet: the module's path, and the function unless it is a layer."""
        path, layer = self._path[-1] if self._path else ("", False)
        name = path if layer else ".".join(filter(None, (path, function.strip("_"))))
        self._names[name] += 1
        count = self._names[name]
        return name if count == 1 else f"{name}:{count}"


class _Recorder(TorchFunctionMode):
    """Sees every PyTorch function while it is active, and keeps those that depend on the inputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.paths = Paths()
        self.calls: list[_Call] = []
        self.values: dict[int, Value] = {}
        self.uncounted = {id(p): p.numel() for p in module.parameters()}
        self.alive: list[Tensor] = []  # an id stays taken only as long as its tensor lives
        self.inputs = tuple(self.record(tensor) for tensor in inputs)

    def record(self, tensor: Tensor) -> Value:
        """Return the value that ``tensor`` holds from now on; an operation in place makes it hold another."""
        self.alive.append(tensor)
        storage = tensor.untyped_storage()
        value = Value(len(self.alive), tuple(tensor.shape), storage._cdata, storage.nbytes())
        self.values[id(tensor)] = value
        return value

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and record it if it makes tensors from tensors that depend on the inputs."""
        options = kwargs or {}
        read = [*tensors_in(args), *tensors_in(options)]
        sources = tuple(self.values[id(t)] for t in read if id(t) in self.values)
        result = run_function(func, args, options)
        name = getattr(func, "__name__", str(func))
        made = [args[0]] if name == "__setitem__" else tensors_in(result)
        if sources and made:
            params = sum(self.uncounted.pop(id(tensor), 0) for tensor in read)
            weights = sum(tensor.numel() for tensor in read if id(tensor) not in self.values)
            outputs = tuple(self.record(tensor) for tensor in made)
            step = _Call(self.paths.name(name), func, args, options, result, sources, outputs, params, weights)
            self.calls.append(step)
        return result


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for element in value for tensor in tensors_in(element)]
    return []
