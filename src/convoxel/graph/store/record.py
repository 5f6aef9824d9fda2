"""All that makes up a compiled network, as one frozen record: what ``Program`` runs and a ``.cvx`` file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError
from convoxel.files.fault import brief
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.pytree import Structure
from convoxel.native.machine import check_threads

if TYPE_CHECKING:
    from convoxel.graph.store.tensor_file import TensorFile

PRECISIONS = ("float32", "high")


class Origin:
    """A graph that is made when somebody asks for it, which few do: the one that a program was compiled from."""

    def __init__(self, make: Callable[[], Graph]) -> None:
        self._make = make

    @cached_property
    def graph(self) -> Graph:
        """The graph, made once."""
        return self._make()


@dataclass(frozen=True, eq=False)
class ProgramRecord:
    """A compiled network and the choices it was compiled with.

    Attributes:
        graph: the graph that runs, after all passes.
        structure: nesting of the results.
        origin: the graph as it was read, before all passes, its weights as shapes alone (``outline``); None where it
            is not known, as in files of format version 1.
        algorithm: ``"auto"``, or what every convolution is to run with.
        precision: ``"float32"``, or ``"high"``, which lets ``"auto"`` multiply numbers of 16 binary digits.
        winners: the measured algorithm by the text of a convolution's problem; ``algorithm`` must allow it.
        file: the file in which large constants lie, None if all are in memory.
    """

    graph: Graph
    structure: Structure
    origin: Origin | None = None
    algorithm: str = "auto"
    precision: str = "float32"
    winners: Mapping[str, str] = field(default_factory=dict)
    file: TensorFile | None = None

    @property
    def recorded(self) -> Graph | None:
        """The graph of ``origin``, if there is one."""
        return None if self.origin is None else self.origin.graph

    @property
    def family(self) -> str:
        """The algorithms that may run, by the engine's name: ``algorithm``, or ``"fast"`` for ``"auto"`` with
        precision ``"high"``."""
        return "fast" if self.algorithm == "auto" and self.precision == "high" else self.algorithm


def check_settings(where: str, threads: object = None, precision: object = None, algorithm: object = "auto") -> None:
    """Raise ``ConfigError`` unless ``threads`` is None or a number of threads, there is such a ``precision``, and
    ``algorithm`` is a name, and none that stands for a precision."""
    check_threads(threads, f"{where}: ")
    if precision is not None and not (isinstance(precision, str) and precision in PRECISIONS):
        raise ConfigError(f"{where}: precision is {brief(precision)}, expected one of {', '.join(PRECISIONS)}")
    if not isinstance(algorithm, str):
        raise ConfigError(f'{where}: algorithm is {brief(algorithm)}, expected a name such as "auto"')
    if algorithm == "fast":
        raise ConfigError(
            f'{where}: algorithm is {algorithm!r}, expected "auto"; give precision="high" for products of 16 digits'
        )
