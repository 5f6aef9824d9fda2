"""The mode in which a module runs where its shapes alone are wanted, as often as sizes are tried."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Shape
from convoxel.graph.read.functions import ATOMS, QUESTIONS, Argument, tensors_in
from convoxel.graph.read.recorder import Recorder

_FEW = 16  # numbers of a constant that are compared
_COMPARED = frozenset({torch.dtype, torch.memory_format, torch.device, type(Ellipsis)})


@dataclass(frozen=True)
class Outcome:
    """The results of a function, and the arguments that it changed.

    Attributes:
        made: for each tensor that came out, its shape, its type and whether it depends on the inputs; or the place of
            the argument that it is.
        is_list: whether a list of tensors came out, not one or none.
        written: places of the arguments that depend on the inputs from then on.
    """

    made: tuple[tuple[Shape, torch.dtype, bool] | int, ...]
    is_list: bool
    written: tuple[int, ...]


class _EveryCall(Container[int]):
    """The numbers of all calls: all of their results are read."""

    def __contains__(self, number: object) -> bool:
        return True


class _NoKey(Exception):
    """An argument has something that cannot be compared."""


class ShapeFollower(Recorder):
    """Runs a module on shapes: each function is recorded once for arguments of equal shapes and options.

    What was recorded is forgotten save the ``Outcome``: each call is a graph of its own, with its operands as inputs.
    """

    def __init__(self, name: str, known: dict[Hashable, Outcome]) -> None:
        super().__init__((), name, _EveryCall())
        self._known = known

    def depends(self, tensor: Tensor) -> bool:
        """Return True if ``tensor`` depends on the inputs of the module."""
        return id(tensor) in self._values

    def value(self, tensor: Tensor) -> Value | None:
        """Return the value that ``tensor`` holds: another input, if its call was not recorded."""
        if self.depends(tensor) and self._values[id(tensor)] is None:
            self.input(tensor)
        return super().value(tensor)

    def __torch_function__(
        self, func: Callable[..., Argument], types: Argument, args: Argument = (), kwargs: Argument = None
    ) -> Argument:
        """Return what ``func`` returned for such arguments, or record it."""
        if func.__name__ in QUESTIONS or func.__name__ == "__get__":
            return super().__torch_function__(func, types, args, kwargs)
        read = tensors_in((args, kwargs))
        if not any(map(self.depends, read)):
            return super().__torch_function__(func, types, args, kwargs)
        parts: list[Argument] = [func]
        try:
            self._add_key(parts, (args, kwargs))
            key = tuple(parts)
            outcome = self._known.get(key)
        except (_NoKey, TypeError):  # such as a function that has no hash
            return super().__torch_function__(func, types, args, kwargs)
        if outcome is not None:
            return self._repeat(outcome, read)
        free = [place for place, tensor in enumerate(read) if not self.depends(tensor)]
        result = super().__torch_function__(func, types, args, kwargs)
        made, is_list = tensors_in(result), type(result) in (list, tuple)
        plain = result is None or isinstance(result, Tensor) or (is_list and len(made) == len(result))
        if plain and all(tensor.is_meta or self.depends(tensor) for tensor in made):
            places = {id(tensor): place for place, tensor in enumerate(read)}
            self._known[key] = Outcome(
                tuple(places.get(id(x), (tuple(x.shape), x.dtype, self.depends(x))) for x in made),
                is_list,
                tuple(place for place in free if self.depends(read[place])),
            )
        return result

    def _add_key(self, key: list[Argument], values: Iterable[Argument]) -> None:
        """Add to ``key`` what values of equal outcome have in common."""
        for value in values:
            kind = type(value)
            if kind in ATOMS or kind in _COMPARED:
                key += kind, value  # 1, 1.0 and True are equal, but not alike
            elif isinstance(value, Tensor):
                depends = id(value) in self._values
                key += depends, value.dtype, value.shape
                if not depends and not value.is_meta:
                    if value.numel() > _FEW:
                        raise _NoKey
                    self._add_key(key, value.flatten().tolist())
            elif kind in (list, tuple):
                key += kind, len(value)
                self._add_key(key, value)
            elif kind is dict:
                key += kind, len(value), *value
                self._add_key(key, value.values())
            elif kind is slice:
                key.append(kind)
                self._add_key(key, (value.start, value.stop, value.step))
            else:
                raise _NoKey

    def _repeat(self, outcome: Outcome, read: list[Tensor]) -> Argument:
        for place in outcome.written:
            self._holds(read[place], None)
        made = [read[each] if isinstance(each, int) else self._made(*each) for each in outcome.made]
        return made if outcome.is_list else made[0] if made else None

    def _made(self, shape: Shape, dtype: torch.dtype, depends: bool) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device="meta")
        if depends:
            self._holds(tensor, None)
        else:
            self._alive.append(tensor)
        return tensor
