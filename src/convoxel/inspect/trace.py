"""A PyTorch module becomes steps: it runs once on the ``meta`` device, where tensors hold no data.

The module is copied with its parameters replaced, so the caller's module is neither changed nor moved, and a
network of any size costs neither memory nor arithmetic. Every PyTorch function that the module calls is seen
(layers are named by the module that called them); control flow that looks at values cannot run without data.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convoxel.errors import ConvoxelError, GraphError
from convoxel.inspect.step import Step, Trace, Value
from convoxel.inspect.vocabulary import classify

__all__ = ["trace_module"]


def trace_module(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Trace:
    """Return the steps of ``module`` in eval mode for inputs of ``shapes`` in the type of its parameters.

    Raises:
        GraphError: the module needs values to run, or rejects the shapes.
        ShapeError: the module itself says that a shape does not fit.
    """
    parameters = list(module.parameters())
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    inputs = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
    try:
        shadow = _without_data(module).eval()
        recorder = _Recorder(shadow, inputs)
        for name, child in shadow.named_modules():
            recorder.follow(name, child)
        with torch.no_grad(), recorder:
            result = shadow(*inputs)
    except ConvoxelError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(
            f"{type(module).__name__} does not run without data on inputs of shape "
            f"{', '.join(map(str, shapes))}: {reason}. "
            "Give shapes that the network accepts; control flow that looks at values cannot be described."
        ) from error
    outputs = tuple(recorder.values[id(t)] for t in _tensors(result) if id(t) in recorder.values)
    steps = tuple(call.step() for call in recorder.calls)
    return Trace(type(module).__name__, recorder.inputs, outputs, steps, sum(p.numel() for p in parameters))


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

    def step(self) -> Step:
        """Return the call in the words of ``vocabulary``."""
        operator, attributes = classify(self.function, self.arguments, self.options, self.result)
        return Step(self.name, operator, self.inputs, self.outputs, attributes, self.params)


class _Recorder(TorchFunctionMode):
    """Sees every PyTorch function while it is active, and keeps those that depend on the inputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.values: dict[int, Value] = {}
        self.uncounted = {id(p): p.numel() for p in module.parameters()}
        self.path: list[tuple[str, bool]] = []
        self.names: Counter[str] = Counter()
        self.alive: list[Tensor] = []  # an id stays taken only as long as its tensor lives
        self.inputs = tuple(self.record(tensor) for tensor in inputs)

    def follow(self, name: str, module: nn.Module) -> None:
        """Let ``path`` tell when ``module`` runs, and whether it is a layer (a module without children)."""
        layer = bool(name) and not any(True for _ in module.children())

        def enter(*_: Any) -> None:
            self.path.append((name, layer))

        def leave(*_: Any) -> None:
            self.path.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

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
        read = [*_tensors(args), *_tensors(options)]
        sources = tuple(self.values[id(t)] for t in read if id(t) in self.values)
        result = func(*args, **options)
        name = getattr(func, "__name__", str(func))
        made = [args[0]] if name == "__setitem__" else _tensors(result)
        if sources and made:
            params = sum(self.uncounted.pop(id(tensor), 0) for tensor in read)
            outputs = tuple(self.record(tensor) for tensor in made)
            self.calls.append(_Call(self.name(name), func, args, options, result, sources, outputs, params))
        return result

    def name(self, function: str) -> str:
        """Return a name that no step has yet: the module's path, and the function unless it is a layer."""
        path, layer = self.path[-1]
        name = path if layer else ".".join(filter(None, (path, function.strip("_"))))
        self.names[name] += 1
        count = self.names[name]
        return name if count == 1 else f"{name}:{count}"


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for element in value for tensor in _tensors(element)]
    return []
