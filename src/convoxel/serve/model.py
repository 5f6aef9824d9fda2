"""A network that is served: its inputs and outputs by name, and the function that computes them.

The queue and the addresses know nothing else of it, so another engine can stand behind the same server
(``tools/serve_load.py`` puts one there).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from convoxel.files.values import Array
from convoxel.serve.tensor import datatype, widens
from convoxel.web.request import Refusal

ANY = -1
"""Stands for an open size in shapes of the protocol."""

Compute = Callable[[Sequence[Array], frozenset[str]], Mapping[str, Array]]


@dataclass(frozen=True)
class TensorFacts:
    """An input or output.

    Attributes:
        name: its name.
        datatype: the protocol's name of its type.
        shape: its sizes; an open one is -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, dtype: str, shape: Sequence[object]) -> TensorFacts:
        """Return the facts of a tensor of NumPy's type ``dtype``; sizes that are no whole number are open."""
        return cls(name, datatype(dtype), tuple(size if isinstance(size, int) else ANY for size in shape))

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"

    def to_dict(self) -> dict[str, object]:
        """Return the facts as the protocol has them."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def check(self, kind: str, shape: Sequence[int]) -> None:
        """Raise ``Refusal`` unless a tensor of that type and shape can be this input."""
        if not widens(kind, self.datatype):
            raise Refusal(
                400,
                f"input {self.name!r}: datatype is {kind}; expected {self.datatype}, or one whose numbers it holds.",
            )
        pairs = zip(shape, self.shape, strict=False)
        if len(shape) != len(self.shape) or any(own not in (ANY, size) for size, own in pairs):
            raise Refusal(
                400, f"input {self.name!r}: shape is {list(shape)}; expected {list(self.shape)}, where -1 is any size."
            )


@dataclass(frozen=True)
class ServedModel:
    """A network under a name.

    Attributes:
        name: name in addresses.
        inputs, outputs: its tensors, in order.
        compute: the function from arrays of the inputs to the outputs of some names.
        platform: words for the engine.
        precision: words for the numbers it computes with.
        joins: whether the first axis of all inputs and outputs counts images, so that requests may be joined.
        apart: asked before a batch of these arrays is computed: whether each image's results depend on it alone.
        labels: names of the classes of an output, by its name.
        notes: further words about inputs and outputs by name, for people.
    """

    name: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    compute: Compute
    platform: str = "convoxel"
    precision: str = "float32"
    joins: bool = False
    apart: Callable[[Sequence[Array]], bool] = lambda arrays: True
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, each)) for each in (self.inputs, self.outputs))
        return f"{inputs} → {outputs}; {self.precision}"

    def input(self, name: str) -> TensorFacts:
        """Return the input of that name; raises ``Refusal`` if there is none."""
        return _named("input", self.name, self.inputs, name)

    def output(self, name: str) -> TensorFacts:
        """Return the output of that name; raises ``Refusal`` if there is none."""
        return _named("output", self.name, self.outputs, name)


def _named(kind: str, model: str, tensors: Sequence[TensorFacts], name: str) -> TensorFacts:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    known = ", ".join(tensor.name for tensor in tensors)
    raise Refusal(400, f"{kind}: model {model!r} has no {kind} {name[:100]!r}; expected {known}.")
