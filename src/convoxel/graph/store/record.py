"""All that makes up a compiled network, as one frozen record: what ``Program`` runs and a ``.cvx`` file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError
from convoxel.files.fault import brief
from convoxel.files.values import Array, JsonObject
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.pytree import Structure
from convoxel.native.machine import check_threads, instruction_set
from convoxel.native.precision import check_precision

if TYPE_CHECKING:
    from convoxel.graph.store.tensor_file import TensorFile


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
        precision: one of ``native.PRECISIONS``: the fewest digits of the numbers that convolutions multiply.
        choices: by the instruction set, the algorithm of each convolution, by the text of its problem for one image
            (``native.Plan.choices``). They were made for the sizes that the program was compiled with, by the rule or
            by measuring, and are used where ``algorithm`` and ``precision`` allow them.
        file: the file in which large constants lie, None if all are in memory.
        sizes: the sizes by name that the program was compiled with, if any.
        notes: texts by name that whoever saved the program wants to read again.
    """

    graph: Graph
    structure: Structure
    origin: Origin | None = None
    algorithm: str = "auto"
    precision: str = "float32"
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    file: TensorFile | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] | None = None

    @property
    def recorded(self) -> Graph | None:
        """The graph of ``origin``, if there is one."""
        return None if self.origin is None else self.origin.graph

    @property
    def chosen(self) -> Mapping[str, str]:
        """``choices`` for the instruction set in use."""
        return self.choices.get(instruction_set(), {})


@dataclass(frozen=True)
class NativePlans:
    """The steps of a program that a file holds for programs without Python.

    Attributes:
        content: becomes a JSON text.
        tensors: arrays that ``content`` names and that are no constants of the graph.
    """

    content: JsonObject
    tensors: Mapping[str, Array] = field(default_factory=dict)


def check_settings(where: str, threads: object = None, precision: object = None, algorithm: object = "auto") -> None:
    """Raise ``ConfigError`` unless ``threads`` is None or a number of threads, ``precision`` is None or one that
    exists, and ``algorithm`` is a name."""
    check_threads(threads, f"{where}: ")
    if precision is not None:
        check_precision(precision, f"{where}: ")
    if not isinstance(algorithm, str):
        raise ConfigError(f'{where}: algorithm is {brief(algorithm)}, expected a name such as "auto"')
