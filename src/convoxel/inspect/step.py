"""One step of a network as data, whatever it was read from. Knows no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Step", "Trace", "Value"]


@dataclass(frozen=True)
class Value:
    """A tensor that some step writes; ``storage`` tells which values share memory.

    ``key`` is the tensor's place in ``Trace.values``.
    """

    key: int
    shape: tuple[int, ...]
    storage: int
    size_bytes: int


@dataclass(frozen=True)
class Step:
    """One operator: it reads values and writes values.

    ``operator`` is a word of ``vocabulary``; ``attributes`` hold what the rules need to know (kernel, stride,
    …, every one an entry an axis). Operands that do not depend on the input of the network are not among
    ``inputs``. ``params`` counts the parameters that no earlier step has used, ``weights`` all numbers that are
    read beside the inputs.
    """

    name: str
    operator: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    params: int = 0
    weights: int = 0


@dataclass(frozen=True)
class Trace:
    """A network's steps in running order, for given input shapes."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    steps: tuple[Step, ...]
    params: int
