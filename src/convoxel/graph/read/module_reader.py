"""From a PyTorch module to a graph without exporting it: the module runs once on tensors without data.

Every PyTorch function that the module calls is bound to the operator that it stands for, and the rule of
``graph.read.torch`` adds the nodes: so the graph has the operators that a compiled program is read with. Shapes follow
from the operators' own rules; PyTorch is asked only where no rule says (its shape functions take up to 2 ms, and the
first convolution among them imports 800 modules). Weights are shapes alone (``ShapeOnly``), so a network of any size
costs neither memory nor arithmetic. Sizes are numbers, those of the inputs; control flow that looks at values fails.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from convoxel.arithmetic.size_search import explain_refusal
from convoxel.errors import ConvoxelError, GraphError, ShapeError
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.size import Shape
from convoxel.graph.read.functions import ATOMS, Argument, tensors_in
from convoxel.graph.read.recorder import Recorder, Used
from convoxel.graph.read.shape_follower import Outcome, ShapeFollower

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
        self._known: dict[Hashable, Outcome] = {}
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
        follower = ShapeFollower(self.name, self._known)
        inputs = [follower.input(tensor) for tensor in self._inputs(shapes)]
        try:
            with torch.no_grad(), follower:
                result = self._module(*inputs)
        except Exception:  # modules refuse by exceptions of every kind
            return None
        return tuple(tuple(tensor.shape) for tensor in tensors_in(result) if follower.depends(tensor))

    def _inputs(self, shapes: Sequence[Shape]) -> list[Tensor]:
        return [torch.empty(shape, dtype=self._dtype, device="meta") for shape in shapes]

    def _read(self, shapes: Sequence[Shape]) -> Graph:
        used: set[int] = set()
        while True:
            recorder = Recorder(self._module.parameters(), self.name, used)
            inputs = [recorder.input(tensor) for tensor in self._inputs(shapes)]
            try:
                with torch.no_grad(), recorder.paths.of(self._module), recorder:
                    result = self._module(*inputs)
                outputs = [recorder.value(tensor) for tensor in tensors_in(result)]
            except Used as call:
                used.add(call.number)
                continue
            self.in_place, self.calls = frozenset(recorder.in_place), recorder.calls
            self.dropped = recorder.dropped
            return recorder.reader.graph([value.name for value in outputs if value is not None])


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
_TABLES = frozenset({dict, set, OrderedDict})


def _copied_as(name: str, kind: type) -> bool:
    """Return True if modules of a kind are copied as PyTorch's modules are."""
    return getattr(kind, name, None) is getattr(nn.Module, name, None)


def _copied(value: Argument, replaced: dict[int, Argument]) -> Argument:
    if type(value) in ATOMS:
        return value
    if type(value) in _TABLES and not value:
        return type(value)()
    return copy.deepcopy(value, replaced)
