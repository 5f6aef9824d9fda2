"""Operators that run in PyTorch: what the engine does not know is computed where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from convoxel.files.values import Options
from convoxel.fork import forks_wait
from convoxel.graph.ir.size import Size


@dataclass(frozen=True)
class Slot:
    """Stands for the operand at ``index`` among an operator's arguments."""

    index: int


@dataclass(frozen=True)
class TorchCall:
    """Calls one PyTorch operator on arrays; ``args`` and ``kwargs`` hold slots, sizes and constants."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Options
    mutates: bool

    def __call__(self, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        """Return the operator's results as arrays (None where a result is no tensor)."""

        def fill(leaf: Any) -> Any:
            if isinstance(leaf, Slot):
                # An operator that writes to its operand must not write to the caller's array.
                array = np.array(arrays[leaf.index]) if self.mutates else _writable(arrays[leaf.index])
                return torch.from_numpy(array)
            return leaf.number(sizes) if isinstance(leaf, Size) else leaf

        with forks_wait(), torch.no_grad():
            result = self.target(*map_nested(fill, self.args), **map_nested(fill, dict(self.kwargs)))
            results = result if isinstance(result, list | tuple) else [result]
            return [r.detach().numpy() if isinstance(r, torch.Tensor) else None for r in results]


def _writable(array: Any) -> Any:
    """PyTorch warns of read-only memory, though it is only read here; so such arrays are copied."""
    return array if array.flags.writeable else np.array(array)


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    """Return ``value`` with ``function`` applied to everything in its lists, tuples and dictionaries."""
    if isinstance(value, tuple):
        return tuple(map_nested(function, element) for element in value)
    if isinstance(value, list):
        return [map_nested(function, element) for element in value]
    if isinstance(value, dict):
        return {key: map_nested(function, element) for key, element in value.items()}
    return function(value)
