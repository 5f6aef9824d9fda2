"""Networks with sizes among their inputs: ``Reshape`` to a shape that the caller gives, ``Resize`` to sizes.

Such a network is a different graph for every value of those inputs. One program for each value is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from convoxel.errors import ShapeError, UnsupportedError
from convoxel.files.values import Array
from convoxel.graph.read.reader import NeedsValue
from convoxel.graph.run.execution import Memory
from convoxel.graph.run.lru_cache import LruCache
from convoxel.graph.run.program import Program
from convoxel.graph.run.step_table import ProfileRow

_MAX_PROGRAMS = 16
_LARGEST = 4096  # elements of an input that decides sizes; a longer one is data


class Specialised:
    """A program for each value of the inputs ``decisive``; called as ``Program`` is, with all ``inputs`` in order."""

    def __init__(
        self, inputs: Sequence[str], decisive: frozenset[str], make: Callable[[Mapping[str, Array]], Program]
    ) -> None:
        self._inputs = tuple(inputs)
        self._decisive = decisive
        self._make = make
        self._programs: LruCache[Program] = LruCache(_MAX_PROGRAMS)

    def __repr__(self) -> str:
        return f"Specialised({', '.join(self._inputs)}; sizes depend on {', '.join(sorted(self._decisive))})"

    def __call__(self, *inputs: object) -> Any:
        """Return the network's results; see ``Program``."""
        program, rest = self._chosen(inputs)
        return program(*rest)

    def prepare(self, *inputs: object) -> None:
        """Make and plan the program for these values and sizes."""
        program, rest = self._chosen(inputs)
        program.prepare(*rest)

    def profile(self, *inputs: object) -> list[ProfileRow]:
        """Return one row per step; see ``Program``."""
        program, rest = self._chosen(inputs)
        return program.profile(*rest)

    def explain(self, *inputs: object) -> str:
        """Return as text what runs for these inputs; see ``Program``."""
        program, rest = self._chosen(inputs)
        return program.explain(*rest)

    def memory(self, *inputs: object) -> Memory:
        """Return the bytes that a call with these inputs needs."""
        program, rest = self._chosen(inputs)
        return program.memory(*rest)

    def __copy__(self) -> Specialised:
        return Specialised(self._inputs, self._decisive, self._make)

    def __deepcopy__(self, memo: dict[int, Any]) -> Specialised:
        return self.__copy__()  # what it is made from never changes

    def __reduce__(self) -> NoReturn:
        self._refuse("pickle")

    def save(self, path: str | Path) -> None:
        """Refuse: each value of the inputs makes another program."""
        self._refuse("save")

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedError(
            f"{what}: the sizes of this network depend on the values of {', '.join(sorted(self._decisive))}; "
            "only a network whose sizes follow from its inputs' sizes can be saved. Export it with those values fixed."
        )

    def _chosen(self, inputs: Sequence[object]) -> tuple[Program, list[object]]:
        """Return the program for the values among ``inputs``, and the other inputs."""
        if len(inputs) != len(self._inputs):
            raise ShapeError(
                f"program: {len(inputs)} inputs came, expected {len(self._inputs)} ({', '.join(self._inputs)})"
            )
        named = dict(zip(self._inputs, inputs, strict=True))
        while True:
            try:
                program = self._program(named)
            except NeedsValue as reason:  # sizes behind those that are now known depend on more inputs
                self._decisive |= reason.names
            else:
                return program, [x for name, x in named.items() if name not in self._decisive]

    def _program(self, named: Mapping[str, object]) -> Program:
        values = {name: np.array(named[name]) for name in self._inputs if name in self._decisive}
        for name, value in values.items():
            if value.size > _LARGEST:
                raise ShapeError(
                    f"program: {name} has {value.size} elements, but sizes depend on its values; "
                    f"expected at most {_LARGEST}"
                )
        key = tuple((name, str(value.dtype), value.shape, value.tobytes()) for name, value in values.items())
        return self._programs.get(key, lambda: self._make(values))
