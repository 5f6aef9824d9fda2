"""``torch.compile(model, backend="convoxel")``: each piece that PyTorch records becomes a program.

PyTorch calls ``convoxel_backend`` for every piece between graph breaks, and again when sizes or modes change. A piece
that records gradients or changes its own state (training) runs in PyTorch. A program keeps its own copy of the weights
and is made again when the weights have changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from convoxel.errors import ConvoxelError
from convoxel.fork import renewed_lock
from convoxel.graph.compile import matmul_precision
from convoxel.graph.read.torch import read
from convoxel.graph.run.program import Program

__all__ = ["convoxel_backend"]


class _Axis(NamedTuple):
    """The length of an axis of one of the tensors."""

    tensor: int
    axis: int


_Slot = torch.Tensor | int | _Axis
"""The source of an input's value: a weight, the number of a tensor, or an axis of one."""

_SHORT = 65536  # elements of a buffer that is compared by its contents


def convoxel_backend(piece: torch.fx.GraphModule, examples: Sequence[object], **options: Any) -> Callable[..., Any]:
    """Return a function that runs ``piece``, for ``torch.compile``; found by its entry point ``convoxel``.

    Args:
        piece: what PyTorch recorded; its inputs are weights, tensors and sizes.
        examples: one value for each input.
        options: ``threads``, as in ``convoxel.compile``, from ``torch.compile(…, options={"threads": 2})``.

    Returns:
        A function of the same inputs that returns a tuple of tensors.
    """
    given = options.get("options") or {}
    unknown = set(given) - {"threads"}
    if unknown:
        raise ValueError(f"convoxel_backend: options {sorted(unknown)} are unknown; expected threads")
    placeholders = [node for node in piece.graph.nodes if node.op == "placeholder"]
    tensors = [x for x in examples if isinstance(x, torch.Tensor)]
    runs_here = all(x.device.type == "cpu" for x in tensors) and not _changes_state(piece)
    if torch.is_grad_enabled() or not tensors or not runs_here:
        return piece.forward
    weights = [_is_weight(node, x) for node, x in zip(placeholders, examples, strict=True)]
    if all(weight for weight, x in zip(weights, examples, strict=True) if isinstance(x, torch.Tensor)):
        return piece.forward
    # What the placeholders stand for has symbols as sizes; the examples have this call's numbers.
    symbolic = [node.meta.get("example_value", x) for node, x in zip(placeholders, examples, strict=True)]
    slots = _slots(weights, symbolic)
    return piece.forward if slots is None else _Piece(piece, slots, given.get("threads"))


def _is_weight(node: torch.fx.Node, example: object) -> bool:
    """Return whether an input is a parameter or buffer, which stays from call to call."""
    if isinstance(example, torch.nn.Parameter):
        return True
    return bool(node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def _changes_state(piece: torch.fx.GraphModule) -> bool:
    """Return whether the piece draws random numbers or updates statistics: calls with ``training=True``."""
    for node in piece.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "__name__", "")
        if name in ("batch_norm", "instance_norm") or "dropout" in name:
            place = {"batch_norm": 5, "instance_norm": 5}.get(name, 2)
            training = node.kwargs.get("training", node.kwargs.get("use_input_stats"))
            if training is None and len(node.args) > place:
                training = node.args[place]
            running = len(node.args) > 1 and node.args[1] is not None
            if training and (name != "instance_norm" or running):
                return True
    return False


class _Frozen(torch.nn.Module):
    """A piece with its weights inside, whose only inputs are tensors."""

    def __init__(self, piece: torch.fx.GraphModule, slots: Sequence[_Slot]) -> None:
        super().__init__()
        self.piece = piece
        self.slots = slots
        for number, slot in enumerate(slots):
            if isinstance(slot, torch.Tensor):
                self.register_buffer(f"weight_{number}", slot.detach())

    def forward(self, *tensors: torch.Tensor) -> Any:
        arguments: list[object] = []
        for number, slot in enumerate(self.slots):
            if isinstance(slot, torch.Tensor):
                arguments.append(getattr(self, f"weight_{number}"))
            elif isinstance(slot, _Axis):
                arguments.append(tensors[slot.tensor].shape[slot.axis])
            else:
                arguments.append(tensors[slot])
        return self.piece(*arguments)


class _Piece:
    """Runs a piece as a program, made at the first call and whenever its weights have changed."""

    def __init__(self, piece: torch.fx.GraphModule, slots: Sequence[int | _Axis | None], threads: int | None) -> None:
        self._piece, self._slots, self._threads = piece, slots, threads  # a weight's slot is None
        self._lock = renewed_lock()
        self._program: Program | None = None
        self._stamp: tuple[object, ...] = ()
        self._fallen = False

    def __call__(self, *inputs: torch.Tensor | int) -> Any:
        if self._fallen:
            return self._piece.forward(*inputs)
        pairs = list(zip(inputs, self._slots, strict=True))
        tensors = [x for x, slot in pairs if isinstance(x, torch.Tensor) and slot is not None]
        try:
            return self._ready([x if slot is None else slot for x, slot in pairs], tensors)(*tensors)
        except ConvoxelError as reason:
            self._fallen = True
            warnings.warn(f"torch.compile: a piece of the model runs in PyTorch: {reason}", UserWarning, stacklevel=2)
            return self._piece.forward(*inputs)

    def _ready(self, slots: Sequence[_Slot], tensors: list[torch.Tensor]) -> Program:
        """Return the program for the present weights among ``slots``."""
        stamp = tuple(_state(slot) for slot in slots if isinstance(slot, torch.Tensor))
        with self._lock:
            if self._program is None or stamp != self._stamp:
                imported = read(_Frozen(self._piece, slots), [x.detach() for x in tensors])
                self._program = Program.from_graph(
                    imported.graph, imported.structure, threads=self._threads, precision=matmul_precision()
                )
                self._stamp = stamp
            return self._program


def _state(weight: torch.Tensor) -> tuple[object, ...]:
    """Return a value that differs once a weight has changed.

    Training updates running statistics without counting it as a write, so buffers, which are short, are compared.
    """
    known = (id(weight), weight._version, weight.data_ptr())
    if isinstance(weight, torch.nn.Parameter) or weight.numel() > _SHORT:
        return known
    return (*known, hash(weight.detach().contiguous().numpy().tobytes()))


def _slots(weights: Sequence[bool], examples: Sequence[object]) -> list[int | _Axis | None] | None:
    """Return the slot of every input, None for weights; None altogether if a size is no tensor's axis."""
    tensors = [x for x, weight in zip(examples, weights, strict=True) if isinstance(x, torch.Tensor) and not weight]
    places = {
        str(size): _Axis(number, axis)
        for number, tensor in reversed(list(enumerate(tensors)))
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, torch.SymInt)
    }
    slots: list[int | _Axis | None] = []
    count = 0
    for x, weight in zip(examples, weights, strict=True):
        if weight:
            slots.append(None)
        elif isinstance(x, torch.Tensor):
            slots.append(count)
            count += 1
        elif str(x) in places:
            slots.append(places[str(x)])
        else:
            return None
    return slots
