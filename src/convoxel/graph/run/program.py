"""A compiled network: what ``compile`` and ``load`` return and users call. Knows neither PyTorch nor graphs' origins.

Invariant: a program never changes. Its settings are fields of a frozen record, and ``replace`` makes another program.
Plans for new input sizes and packed weights are caches behind locks, so any number of threads may call one program.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from convoxel import native
from convoxel.errors import ConfigError, ConvoxelError, GraphError, ShapeError, UnsupportedError
from convoxel.files.source import Content, Target, write_target
from convoxel.files.values import Array
from convoxel.fork import forks_wait
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.pytree import Structure, assemble
from convoxel.graph.ir.shape_only import outline
from convoxel.graph.ir.size import Shape, Size, measure
from convoxel.graph.operators.step import PackedWeights
from convoxel.graph.operators.table import infer_shapes
from convoxel.graph.passes import optimise
from convoxel.graph.run.accuracy import Verification
from convoxel.graph.run.execution import CONTRADICTIONS, Execution, Memory, plan_execution
from convoxel.graph.run.input_check import (
    check_inputs,
    check_sources,
    empty_result,
    is_empty,
    is_tensor,
    measure_inputs,
)
from convoxel.graph.run.lru_cache import LruCache
from convoxel.graph.run.native_plan import native_plans
from convoxel.graph.run.size_check import broken_condition, say_nearest_sizes
from convoxel.graph.run.step_table import ProfileRow, draw_steps, step_rows
from convoxel.graph.run.tiling import Settings, TilePlan, plan_tiling
from convoxel.graph.store.cvx import program_bytes, read_program, write_program
from convoxel.graph.store.record import NativePlans, Origin, ProgramRecord, check_settings

T = TypeVar("T")

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

        Plans and packed weights are shared where only ``verification``, ``origin`` or ``notes`` change. The
        verification is dropped where the results may differ, and ``choices`` where others are allowed than they were
        made among. Raises ``ConfigError`` where there is no such field, or it cannot be so.
        """
        known = [field.name for field in dataclasses.fields(self) if field.init]
        if unknown := sorted(changes.keys() - set(known)):
            raise ConfigError(f"replace: there is no field {unknown[0]!r}; expected one of {', '.join(known)}")
        if any(changes.get(name, getattr(self, name)) != getattr(self, name) for name in ("algorithm", "precision")):
            changes.setdefault("choices", {})
        if changes.keys() & {"graph", "algorithm", "precision", "choices"}:
            changes.setdefault("verification", None)
        changed = dataclasses.replace(self, **changes)
        if changes.keys() <= {"verification", "origin", "notes"}:
            changed._share_plans(self)
        return changed

    def _share_plans(self, other: Program) -> None:
        object.__setattr__(self, "_packed_weights", other._packed_weights)
        object.__setattr__(self, "_plans", other._plans)

    @property
    def _settings(self) -> Settings:
        return Settings(self.threads, self.algorithm, self.precision, self.chosen)

    # ---- copies ------------------------------------------------------------------------------------------

    def __copy__(self) -> Program:
        return self.replace()  # which shares plans and packed weights

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        """Return a program that shares no memory and no file with this one."""
        self._check_file()
        constants = {name: np.array(array) for name, array in self.graph.constants.items()}
        for array in constants.values():
            array.setflags(write=False)
        graph = self.graph.replace(constants=constants)
        return self.replace(
            graph=graph,
            choices={name: dict(choices) for name, choices in self.choices.items()},
            file=None,
            verification=self.verification,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the bytes of the ``.cvx`` file, and what the file does not hold.

        A pickle can run code of whoever made it, as every pickle can; the bytes within cannot. Results that the network
        returns in types of its own come from the copy in named tuples, as they do from a file. Raises
        ``UnsupportedError`` naming the operators that run in PyTorch.
        """
        return _of_bytes, (self.to_bytes(), self.threads, self.verification)

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
            if not (execution.is_native and execution.has_run):  # which read constants where they lie
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

    def planned(self, *inputs: object) -> Execution:
        """Return the plan for inputs of these sizes, which runs on contiguous arrays and returns a list of results."""
        return self._execution(check_inputs(inputs, self.graph.inputs))

    def _execution(self, arrays: Sequence[Array]) -> Execution:
        return self._plans.get(tuple(array.shape for array in arrays), lambda: self._plan(arrays))

    def _plan(self, arrays: Sequence[Array]) -> Execution:
        return self._explained(arrays, lambda sizes: plan_execution(
            self.graph, sizes, self._packed_weights, **self._settings._asdict()
        ))  # fmt: skip

    def _explained(self, arrays: Sequence[Array], plan: Callable[[dict[str, int]], T]) -> T:
        """Return what ``plan`` makes of the sizes of the inputs; its errors name them, and sizes that fit."""
        sizes = measure_inputs(arrays, self.graph.inputs)
        self._check_file()
        try:
            broken = broken_condition(self.graph, sizes)
            if broken is not None:
                if broken not in self.graph.guards:
                    infer_shapes(self.graph, sizes)  # which names the node, if it is one that does not fit
                raise ShapeError(f"it was compiled for {broken}, but {_listed(broken, sizes)}; {_ANOTHER_EXAMPLE}")
            return plan(sizes)
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

    def save(self, path: Target, sizes: Sequence[Mapping[str, int]] | None = None) -> None:
        """Write the program to a ``.cvx`` file, from which ``convoxel.load`` makes it again without PyTorch.

        Programs in C and C++ run the file by libconvoxel (``convoxel.h``). For them it holds the network's steps for
        all sizes at once. Where steps need tables that depend on the sizes, as interpolation does, it holds them for
        stated sizes.

        Args:
            path: a name that ends in .cvx, or a file that is open for writing in binary mode.
            sizes: the sizes that programs in C and C++ shall run it with, by the names that ``print(program)`` shows,
                such as ``[{"h": 224, "w": 224}]``; what one leaves out, as the batch here, stays open. By default all
                sizes; where that cannot be, those of the examples of ``compile``, with any batch.

        Raises:
            UnsupportedError: operators run in PyTorch; or ``sizes`` is given, and some steps cannot run without Python.
                The message names them.
            ConfigError: ``sizes`` names one that the network does not have, or is none.
            GraphError: the file cannot be written.
        """
        self._check_file()
        write_program(path, self, lambda: self._native_plans(sizes))

    def to_bytes(self, sizes: Sequence[Mapping[str, int]] | None = None) -> bytes:
        """Return the bytes of the ``.cvx`` file that ``save`` writes, which ``convoxel.load`` takes.

        ``sizes`` and errors are as of ``save``.
        """
        self._check_file()
        return program_bytes(self, lambda: self._native_plans(sizes))

    def _native_plans(self, sizes: Sequence[Mapping[str, int]] | None) -> NativePlans:
        how = (self.graph, self._packed_weights, self.algorithm, self.precision, self.choices)
        return native_plans(*how, sizes, self.sizes)

    def to_onnx(self, path: Target, metadata: Mapping[str, str] | None = None) -> None:
        """Write the program as an ONNX model, which other engines run.

        Open sizes stay open. Weights are those after folding, float32 whatever ``precision`` says; layers of whole
        numbers lie between ``QuantizeLinear`` and ``DequantizeLinear``. Inputs keep their names; outputs are named by
        the keys of the results, or ``output``, ``output_0``, …. ``notes`` become entries of ``metadata_props``.

        Args:
            path: ``.onnx`` file, or a file that is open for writing in binary mode.
            metadata: more texts by name for ``metadata_props`` (default none).

        Raises:
            UnsupportedError: nodes have no counterpart in ONNX, and the message lists all of them; the weights take
                more than 2 GiB; or onnx is not installed.
            GraphError: the file cannot be written. ConfigError: its name does not end in .onnx.
        """
        try:
            with forks_wait():
                from convoxel.graph.write.onnx import build_model
        except ImportError as reason:
            raise UnsupportedError(
                f"to_onnx: writing ONNX needs onnx ({reason}): pip install 'convoxel[onnx]'."
            ) from None
        self._check_file()
        texts = {**self.notes, **(metadata or {})}
        make = lambda: [build_model(self.graph, self.structure, texts).SerializeToString()]  # noqa: E731
        write_target("to_onnx", path, ".onnx", make, GraphError)

    def _check_file(self) -> None:
        """Raise if the file that holds the constants has changed since it was loaded."""
        if self.file is not None:
            self.file.check()

    # ---- tiles -------------------------------------------------------------------------------------------

    def tiled(
        self,
        *inputs: object,
        tile: int | Sequence[int] | None = None,
        exact: bool = True,
        out: Array | Sequence[Array] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return the results of ``program(*inputs)``, computed tile by tile: bit for bit the same numbers.

        A tile takes along the positions that its part of the results reads, layer by layer (its halo), runs the
        algorithms of the whole image, and is padded only where the image ends. So memory is that of a tile and of the
        results. Networks that see the whole image (global pooling, instance normalisation, attention) are refused.

        Args:
            inputs: as of a call; also anything with ``shape``, ``dtype`` and slices, such as a memory-mapped array or a
                data set of an HDF5 file, of which only a tile at a time is read.
            tile: the most positions of a tile along every axis, or along each, its halo included (default: what takes
                about a gigabyte).
            exact: False lets every tile choose its algorithms: equal up to rounding, with a narrower halo.
            out: arrays to write the results into, one for each in order; memory-mapped ones need no memory (default:
                new ones).
            on_progress: called with the number of tiles done and of all tiles.

        Raises:
            UnsupportedError: a step sees the whole image, or runs in PyTorch; the message names it.
            ShapeError: as of a call. ConfigError: ``tile`` is too small; the message names the least.

        >>> import numpy as np, convoxel as cx
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
        >>> x = np.random.default_rng(0).standard_normal((1, 1, 50, 70), np.float32)
        >>> program = cx.compile(net, x)
        >>> bool((program.tiled(x, tile=32) == program(x)).all())
        True
        """
        sources = check_sources(inputs, self.graph.inputs)
        if is_empty(sources, self.graph.inputs):
            return self(*inputs)
        tiling = self.tiling(*inputs, tile=tile, exact=exact)
        values = [self.graph.values[name] for name in self.graph.outputs]
        outputs = _result_arrays(values, tiling.shapes, out)
        named = {value.name: source for value, source in zip(self.graph.inputs, sources, strict=True)}
        tiling.run(lambda name, place: np.asarray(named[name][place]), outputs, on_progress)
        if any(map(is_tensor, inputs)):
            torch = sys.modules["torch"]
            outputs = [torch.from_numpy(array) for array in outputs]
        return assemble(self.structure, outputs, measure_inputs(sources, self.graph.inputs))

    def tiling(self, *inputs: object, tile: int | Sequence[int] | None = None, exact: bool = True) -> TilePlan:
        """Return the tiles in which ``tiled`` would run; ``print`` says their halo, and why the result is exact."""
        sources = check_sources(inputs, self.graph.inputs)
        return self._explained(sources, lambda sizes: plan_tiling(
            self.graph, sizes, self._packed_weights, self._settings, tile, exact
        ))  # fmt: skip

    # ---- looking inside ----------------------------------------------------------------------------------

    def profile(self, *inputs: object) -> list[ProfileRow]:
        """Return one row per step: name, operator, algorithm, type, output shape, bytes, macs, time_s, gflops.

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
        not measured again; see ``native.tune``, also for ``on_progress``. The winners become part of the program, and
        hold for any number of threads and images. Where other input sizes make convolutions that nobody measured, the
        rule decides, as in programs that were not tuned.
        """
        execution = self._execution(check_inputs(inputs, self.graph.inputs))
        plan = execution.plan
        winners = native.tune(
            plan.problems, self.threads, algorithm=self.algorithm, precision=self.precision, on_progress=on_progress
        )
        found = {str(problem.of_one_image): winners[str(problem)] for problem in plan.problems}
        return self.replace(choices=self._with_chosen({**plan.choices, **found}), sizes=execution.sizes)

    def settled(self, *inputs: object) -> Program:
        """Return the program with the algorithms for inputs of these sizes written down, as ``compile`` does.

        They are what would be chosen anyway. So they stay the same in a file that a later version reads.
        """
        arrays = check_inputs(inputs, self.graph.inputs)
        if is_empty(arrays, self.graph.inputs):
            return self
        execution = self._execution(arrays)
        settled = self.replace(choices=self._with_chosen(execution.plan.choices), sizes=execution.sizes)
        settled._share_plans(self)
        return settled

    def compacted(self, *inputs: object) -> Program:
        """Return the program with algorithms whose packed weights are smaller, for inputs of these sizes.

        They are chosen for layers with large weights, among those that are expected to take at most a fifth longer (see
        ``native.choose_smaller_weights``). Packed weights are most of the memory of deep networks; measured, they were
        halved and the time stayed as it was. A program with another ``algorithm`` than "auto" stays as it is.
        """
        arrays = check_inputs(inputs, self.graph.inputs)
        if self.algorithm != "auto" or is_empty(arrays, self.graph.inputs):
            return self
        plan = self._execution(arrays).plan
        found = native.choose_smaller_weights(plan.problems, precision=self.precision)
        return self.replace(choices=self._with_chosen({**plan.choices, **found}))

    def _with_chosen(self, found: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
        return {**self.choices, native.instruction_set(): {**self.chosen, **found}}


def _of_bytes(data: bytes, threads: int | None, verification: Verification | None) -> Program:
    """Return the program that was pickled."""
    record = read_program(Content(data, "the pickled program"))
    return Program(**vars(record), threads=threads, verification=verification)


def _shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _result_arrays(
    values: Sequence[Value], shapes: Sequence[Shape], out: Array | Sequence[Array] | None
) -> list[Array]:
    """Return the arrays that results are written into: those given, checked, or new ones."""
    if out is None:
        return [np.empty(shape, value.dtype) for value, shape in zip(values, shapes, strict=True)]
    given = [out] if isinstance(out, np.ndarray) else list(out)
    if len(given) != len(values):
        raise ConfigError(
            f"tiled: out has {len(given)} arrays, but the network has {len(values)} results; give one each"
        )
    for array, value, shape in zip(given, values, shapes, strict=True):
        if tuple(array.shape) != shape or array.dtype != value.dtype:
            raise ConfigError(
                f"tiled: out has an array of shape {tuple(array.shape)} and type {array.dtype}, but the result is "
                f"{shape} and {value.dtype}; give numpy.empty({shape}, {value.dtype!r})"
            )
    return given


def _listed(guard: Size, sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {sizes[name]}" for name in sorted(guard.names()))
