"""A compiled network: what ``compile`` and ``load`` return and users call. Knows neither PyTorch nor graphs' origins.

Invariant: a program never changes. Its settings are fields of a frozen record, and ``replace`` makes another program.
Plans for new input sizes and packed weights are caches behind locks, so any number of threads may call one program.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from convoxel import native
from convoxel.errors import ConvoxelError, GraphError, ShapeError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.pytree import Structure, assemble
from convoxel.graph.ir.shape_only import outline
from convoxel.graph.ir.size import Shape, Size, measure
from convoxel.graph.operators.step import PackedWeights
from convoxel.graph.operators.table import infer_shapes
from convoxel.graph.passes import optimise
from convoxel.graph.run.accuracy import Verification
from convoxel.graph.run.execution import CONTRADICTIONS, Execution, Memory, plan_execution
from convoxel.graph.run.input_check import check_inputs, empty_result, is_empty, is_tensor, measure_inputs
from convoxel.graph.run.lru_cache import LruCache
from convoxel.graph.run.size_check import broken_condition, say_nearest_sizes
from convoxel.graph.run.step_table import ProfileRow, draw_steps, step_rows
from convoxel.graph.store.cvx import write_program
from convoxel.graph.store.record import Origin, ProgramRecord, check_settings

__all__ = ["Program"]

_MAX_PLANS = 16  # input sizes kept planned; a plan is small, its arena may be hundreds of megabytes
_ANOTHER_EXAMPLE = "compile again with an example of this size"


@dataclass(frozen=True, eq=False, repr=False)
class Program(ProgramRecord):
    """A network as native steps. Call it with arrays, or with tensors to get tensors back.

    It takes any batch and spatial size that the network accepts; the steps for a new size are planned when it first
    comes. Results are float32 arrays of their own, channels first, nested as the model's.

    Attributes:
        threads: how many threads a call uses; None for all that the process may use.
        verification: how far the program is from its source, if ``compile(..., verify=True)`` compared them. A program
            that computes otherwise (another algorithm, another machine) has none.
    """

    threads: int | None = None
    verification: Verification | None = None
    _packed_weights: PackedWeights = field(default_factory=PackedWeights, init=False)
    _plans: LruCache[Execution] = field(default_factory=lambda: LruCache(_MAX_PLANS), init=False)

    def __post_init__(self) -> None:
        check_settings("program", self.threads, self.precision, self.algorithm)

    @classmethod
    def from_graph(
        cls,
        recorded: Graph,
        structure: Structure,
        *,
        threads: int | None = None,
        algorithm: str = "auto",
        precision: str = "float32",
    ) -> Program:
        """Return the program of a graph as a reader made it."""
        shapes = outline(recorded)
        return cls(optimise(recorded), structure, Origin(lambda: shapes), algorithm, precision, threads=threads)

    def replace(self, **changes: Any) -> Program:
        """Return the program with some fields changed and all others kept.

        Plans and packed weights are shared where only ``verification`` or ``origin`` changes. The verification is
        dropped where the results may differ.
        """
        if changes.keys() & {"graph", "algorithm", "precision", "winners"}:
            changes.setdefault("verification", None)
        changed = dataclasses.replace(self, **changes)
        if changes.keys() <= {"verification", "origin"}:
            object.__setattr__(changed, "_packed_weights", self._packed_weights)
            object.__setattr__(changed, "_plans", self._plans)
        return changed

    def __repr__(self) -> str:
        return f"Program({self.graph.name}: {', '.join(map(str, self.graph.inputs))})"

    # ---- calling -----------------------------------------------------------------------------------------

    def __call__(self, *inputs: object) -> Any:
        """Return the network's results for ``inputs``.

        Args:
            inputs: float32, (n, c, …), arrays or PyTorch tensors on the CPU; in the number of axes, the channels and
                the fixed sizes of the examples that the network was compiled with. A batch may be empty.

        Returns:
            Results nested as the model's; PyTorch tensors if the first input is one.

        Raises:
            ShapeError: wrong number of inputs or axes, wrong channels or data type, or sizes that the network
                does not accept.
        """
        arrays = check_inputs(inputs, self.graph.inputs)
        if is_empty(arrays, self.graph.inputs):
            sizes = measure_inputs(arrays, self.graph.inputs)
            outputs = [empty_result(self.graph.values[name], sizes) for name in self.graph.outputs]
        else:
            execution = self._execution(arrays)
            if not execution.is_native:  # operators on arrays read constants where they lie
                self._check_file()
            sizes, outputs = dict(execution.sizes), execution.run(arrays)
        if any(map(is_tensor, inputs)):
            torch = sys.modules["torch"]
            outputs = [torch.from_numpy(array) for array in outputs]
        return assemble(self.structure, outputs, sizes)

    def prepare(self, *inputs: object) -> None:
        """Plan the steps for inputs of these sizes ahead of the first call."""
        arrays = check_inputs(inputs, self.graph.inputs)
        if not is_empty(arrays, self.graph.inputs):
            self._execution(arrays)

    def _execution(self, arrays: Sequence[Array]) -> Execution:
        return self._plans.get(tuple(array.shape for array in arrays), lambda: self._plan(arrays))

    def _plan(self, arrays: Sequence[Array]) -> Execution:
        sizes = measure_inputs(arrays, self.graph.inputs)
        self._check_file()
        try:
            broken = broken_condition(self.graph, sizes)
            if broken is not None:
                if broken not in self.graph.guards:
                    infer_shapes(self.graph, sizes)  # which names the node, if it is one that does not fit
                raise ShapeError(f"it was compiled for {broken}, but {_listed(broken, sizes)}; {_ANOTHER_EXAMPLE}")
            return plan_execution(
                self.graph,
                sizes,
                self._packed_weights,
                threads=self.threads,
                algorithm=self.family,
                winners=self.winners,
            )
        except ConvoxelError as error:
            advice = say_nearest_sizes(self.graph, sizes, self._known()) if isinstance(error, ShapeError) else ""
            raise type(error)(f"program: inputs {_shapes(arrays)}: {error}{advice}") from None
        except CONTRADICTIONS as reason:
            raise GraphError(
                f"program: inputs {_shapes(arrays)}: the network contradicts itself: {type(reason).__name__}: {reason}"
            ) from reason

    def _known(self) -> list[dict[str, int]]:
        """Return the sizes that are planned, the most recent ones first."""
        extents = [value.shape for value in self.graph.inputs]
        return [measure(extents, cast(tuple[Shape, ...], shapes)) for shapes in reversed(self._plans.keys())]

    def save(self, path: str | Path) -> None:
        """Write the program to a ``.cvx`` file, from which ``convoxel.load`` makes it again without PyTorch.

        Raises ``UnsupportedError`` naming the operators that run in PyTorch, ``GraphError`` if it cannot be written.
        """
        self._check_file()
        write_program(path, self)

    def _check_file(self) -> None:
        """Raise if the file that holds the constants has changed since it was loaded."""
        if self.file is not None:
            self.file.check()

    # ---- looking inside ----------------------------------------------------------------------------------

    def profile(self, *inputs: object) -> list[ProfileRow]:
        """Return one row per step: name, operator, algorithm, output shape, bytes, macs, time_s, gflops.

        ``gflops`` is the effective rate: two operations per multiply–accumulate of the direct algorithm, even where
        the chosen algorithm does fewer or more.
        """
        arrays = check_inputs(inputs, self.graph.inputs)
        execution = self._execution(arrays)
        execution.run(arrays)  # touches new memory and packs weights
        times: dict[str, float] = {}
        execution.run(arrays, times)
        return [
            {**row, "time_s": times[key], "gflops": 2e-9 * row["macs"] / max(times[key], 1e-9)}
            for key, row in step_rows(execution)
        ]

    def explain(self, *inputs: object) -> str:
        """Return what runs, and why, as text: the steps for these inputs, their algorithms, the memory.

        The graph as it was read comes first, where it is known. Then follow, without inputs, the graph after all
        passes; with inputs, the steps for them and the bytes of each result.
        """
        before = f"before:\n{self.recorded}\nafter:\n" if self.recorded is not None else ""
        if not inputs:
            return f"{before}{self.graph}"
        return before + draw_steps(self._execution(check_inputs(inputs, self.graph.inputs)))

    def memory(self, *inputs: object) -> Memory:
        """Return the bytes that a call with these inputs needs."""
        return self._execution(check_inputs(inputs, self.graph.inputs)).memory

    # ---- choosing algorithms -----------------------------------------------------------------------------

    def tuned(self, *inputs: object, on_progress: Callable[[int, int, str], None] | None = None) -> Program:
        """Return the program with the algorithms that are measured to be fastest here for these inputs.

        Only algorithms that ``algorithm`` and ``precision`` allow are measured, and what the tuning cache remembers is
        not measured again; see ``native.tune``, also for ``on_progress``. Where other input sizes make convolutions
        that nobody measured, their expected cost decides.
        """
        problems = self._execution(check_inputs(inputs, self.graph.inputs)).plan.problems
        winners = native.tune(problems, self.threads, algorithm=self.family, on_progress=on_progress)
        return self.replace(winners=winners)


def _shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _listed(guard: Size, sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {sizes[name]}" for name in sorted(guard.names()))
