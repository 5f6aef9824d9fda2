"""A compiled network: what ``compile`` returns and users call. Knows neither PyTorch nor graphs' origins.

Invariant: a program never changes. Plans for new input sizes, packed weights and arenas are caches behind
locks, so that any number of threads may call one program.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import ConvoxelError, GraphError, ShapeError, UnsupportedError
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.pytree import Structure, assemble
from convoxel.graph.ir.size import Shape, Size, evaluate, evaluate_shape, measure
from convoxel.graph.operators.step import PackedWeights
from convoxel.graph.operators.table import OPERATORS, infer_shapes
from convoxel.graph.run.execution import Execution, HostCall, Memory, NativeRun, plan_execution
from convoxel.graph.run.explanation import draw_steps, step_rows
from convoxel.graph.run.nearest_sizes import advise, broken_condition
from convoxel.graph.run.recent import Recent

if TYPE_CHECKING:
    from convoxel.graph.run.verification import Verification
    from convoxel.graph.store.tensor_file import TensorFile

__all__ = ["Program"]

_MAX_PLANS = 16  # input sizes kept planned; a plan is small, its arena may be hundreds of megabytes
_AXIS_NAMES = {2: "(n, c)", 3: "(n, c, w)", 4: "(n, c, h, w)", 5: "(n, c, d, h, w)"}
# What NumPy and the engine raise where the graph of a file asks for what makes no sense.
_CONTRADICTIONS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
_ANOTHER_EXAMPLE = "compile again with an example of this size"


class Program:
    """A network as native steps. Call it with arrays, or with tensors to get tensors back.

    Takes any batch and spatial size that the network accepts; the steps for a new size are planned when it
    first comes. Results are float32 arrays of their own, channels first, nested as the model's.

    ``verification`` says how far it is from its source, if ``compile(..., verify=True)`` compared them.
    """

    verification: Verification | None = None

    def __init__(
        self,
        graph: Graph,
        structure: Structure,
        *,
        threads: int | None = None,
        algorithm: str = "auto",
        winners: Mapping[str, str] | None = None,
        source: str = "",
        file: TensorFile | None = None,
    ) -> None:
        self._graph = graph
        self._source = source
        self._file = file
        self._structure = structure
        self._threads = threads
        self._algorithm = algorithm
        self._winners = dict(winners or {})
        self._kernels = PackedWeights()
        self._plans: Recent[Execution] = Recent(_MAX_PLANS)

    @property
    def graph(self) -> Graph:
        """The graph that runs, after all passes."""
        return self._graph

    def __repr__(self) -> str:
        return f"Program({self._graph.name}: {', '.join(map(str, self._graph.inputs))})"

    # ---- calling -----------------------------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
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
        arrays = self._check(inputs)
        if self._is_empty(arrays):
            sizes = self._sizes(arrays)
            outputs = [_nothing(self._graph.values[name], sizes) for name in self._graph.outputs]
        else:
            execution = self._execution(arrays)
            sizes, outputs = dict(execution.sizes), self._run(execution, arrays)
        if any(_is_tensor(x) for x in inputs):
            torch = sys.modules["torch"]
            outputs = [torch.from_numpy(array) for array in outputs]
        return assemble(self._structure, outputs, sizes)

    def prepare(self, *inputs: Any) -> None:
        """Plan the steps for inputs of these sizes, so that the first call with them need not."""
        arrays = self._check(inputs)
        if not self._is_empty(arrays):
            self._execution(arrays)

    def _check(self, inputs: Sequence[Any]) -> list[NDArray[Any]]:
        """Return ``inputs`` as contiguous arrays of the right type and number of axes."""
        values = self._graph.inputs
        if len(inputs) != len(values):
            names = ", ".join(value.name for value in values)
            raise ShapeError(f"program: {len(inputs)} inputs came, expected {len(values)} ({names})")
        return [_as_array(x, value) for x, value in zip(inputs, values, strict=True)]

    def _is_empty(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Whether a batch has no images, so that nothing is planned and nothing runs."""
        pairs = zip(arrays, self._graph.inputs, strict=True)
        return any(array.shape[:1] == (0,) and isinstance(value.shape[0], Size) for array, value in pairs)

    def _sizes(self, arrays: Sequence[NDArray[Any]]) -> dict[str, int]:
        """Return the numbers of all open sizes, or raise if the arrays do not fit them."""
        sizes = measure([value.shape for value in self._graph.inputs], [array.shape for array in arrays])
        for array, value in zip(arrays, self._graph.inputs, strict=True):
            for axis, (extent, length) in enumerate(zip(value.shape, array.shape, strict=True)):
                expected = evaluate(extent, sizes)
                if length == expected:
                    continue
                came = f"program: {value.name} has shape {array.shape}, expected {_expected(value)}"
                if axis == 1:
                    raise ShapeError(f"{came}: {length} channels came, the network takes {expected}")
                raise ShapeError(
                    f"{came}: axis {axis} is {length}, but must be {expected}; if the network takes other "
                    "sizes, compile again with an example of the size that you need"
                )
        return sizes

    def _execution(self, arrays: Sequence[NDArray[Any]]) -> Execution:
        return self._plans.get(tuple(array.shape for array in arrays), lambda: self._plan(arrays))

    def _plan(self, arrays: Sequence[NDArray[Any]]) -> Execution:
        sizes = self._sizes(arrays)
        self._check_file()
        try:
            broken = broken_condition(self._graph, sizes)
            if broken is not None:
                if broken not in self._graph.guards:
                    infer_shapes(self._graph, sizes)  # which names the node, if it is one that does not fit
                raise ShapeError(f"it was compiled for {broken}, but {_listed(broken, sizes)}; {_ANOTHER_EXAMPLE}")
            return plan_execution(
                self._graph,
                sizes,
                self._kernels,
                threads=self._threads,
                algorithm=self._algorithm,
                winners=self._winners,
            )
        except ConvoxelError as error:
            advice = advise(self._graph, sizes, self._known()) if isinstance(error, ShapeError) else ""
            raise type(error)(f"program: inputs {_shapes(arrays)}: {error}{advice}") from None
        except _CONTRADICTIONS as reason:
            raise GraphError(
                f"program: inputs {_shapes(arrays)}: the network contradicts itself: {type(reason).__name__}: {reason}"
            ) from reason

    def _known(self) -> list[dict[str, int]]:
        """Return the sizes that are planned, the last one first."""
        extents = [value.shape for value in self._graph.inputs]
        return [measure(extents, cast(tuple[Shape, ...], shapes)) for shapes in reversed(self._plans.keys())]

    def _run(
        self, execution: Execution, arrays: Sequence[NDArray[Any]], times: dict[str, float] | None = None
    ) -> list[NDArray[Any]]:
        """Return the outputs; with ``times``, add to it the seconds of every native step and foreign call."""
        values = self._arrays(execution, arrays)
        buffers = [execution.packed[n] if n in execution.packed else values[n] for n in execution.buffers]
        index = {name: number - 1 for name, number in execution.buffers.items()}
        arena = None if _is_native(execution) else execution.plan.new_arena()
        for part in execution.parts:
            if isinstance(part, NativeRun):
                _run_steps(execution.plan, buffers, part, arena, times)
                continue
            begun = time.perf_counter()
            for name, array in _call_host(part, values, execution):
                values[name] = array
                if name in index:
                    buffers[index[name]] = np.ascontiguousarray(array)
            if times is not None:
                times[part.node.name] = time.perf_counter() - begun
        given = {id(array) for array in (*arrays, *self._graph.constants.values())}
        return [_own(values[name], given) for name in self._graph.outputs]

    def _arrays(self, execution: Execution, arrays: Sequence[NDArray[Any]]) -> dict[str, Any]:
        """Return the arrays that are known before the first step: inputs, constants, and room for results."""
        values: dict[str, Any] = dict(self._graph.constants)
        for value, array in zip(self._graph.inputs, arrays, strict=True):
            values[value.name] = array
        for name in execution.buffers:
            if name not in values:
                values[name] = _room(execution.shapes[name])
        return values

    def save(self, path: str | Path) -> None:
        """Write the program to a ``.cvx`` file, from which ``convoxel.load`` makes it again without PyTorch.

        Raises ``UnsupportedError`` naming the operators that run in PyTorch, ``GraphError`` if it cannot be written.
        """
        from convoxel.graph.store.cvx import write_program

        self._check_file()
        write_program(path, self._graph, self._structure, self._algorithm, self._winners)

    def _check_file(self) -> None:
        """Raise if the constants are no longer what was loaded."""
        if self._file is not None:
            self._file.check()

    # ---- looking inside ----------------------------------------------------------------------------------

    def profile(self, *inputs: Any) -> list[dict[str, Any]]:
        """Return one row per step: name, operator, algorithm, output shape, bytes, macs, time_s, gflops.

        ``gflops`` is the effective rate: two operations per multiply–accumulate of the direct algorithm,
        however many the chosen algorithm does.
        """
        arrays = self._check(inputs)
        execution = self._execution(arrays)
        self._run(execution, arrays)  # touches new memory and packs weights
        times: dict[str, float] = {}
        self._run(execution, arrays, times)
        return [
            {**row, "time_s": times[key], "gflops": 2e-9 * row["macs"] / max(times[key], 1e-9)}
            for key, row in step_rows(self._graph, execution)
        ]

    def explain(self, *inputs: Any) -> str:
        """Return as text what runs and why: the steps for these inputs, their algorithms, the memory.

        First comes the graph as it was read, where that is still known. Then, without inputs, the graph as it is
        after all passes; with inputs the steps for them, and the bytes of each result.
        """
        before = f"before:\n{self._source}\nafter:\n" if self._source else ""
        if not inputs:
            return f"{before}{self._graph}"
        return before + draw_steps(self._graph, self._execution(self._check(inputs)))

    def memory(self, *inputs: Any) -> Memory:
        """Return the bytes that a call with these inputs needs."""
        return self._execution(self._check(inputs)).memory

    # ---- choosing algorithms -----------------------------------------------------------------------------

    def tuned(self, *inputs: Any, on_progress: Callable[[int, int, str], None] | None = None) -> Program:
        """Return a program whose convolutions use what is fastest here for these inputs, by measurement.

        What the tuning cache remembers is not measured again; see ``native.tune``, also for ``on_progress``.
        Where other input sizes make convolutions that nobody measured, their expected cost decides.
        """
        problems = self._execution(self._check(inputs)).plan.problems
        winners = native.tune(problems, self._threads, on_progress=on_progress)
        # PackedWeights of its own: those of this program hold weights packed for algorithms that lost.
        return Program(self._graph, self._structure, threads=self._threads, winners=winners, source=self._source)


def _room(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return memory for a result that native steps will write."""
    return np.empty(shape, np.float32)


def _is_native(execution: Execution) -> bool:
    """Whether one run of native steps is all there is, so that nothing must survive in the arena between
    runs."""
    return len(execution.parts) == 1 and isinstance(execution.parts[0], NativeRun)


def _run_steps(
    plan: native.Plan,
    buffers: list[NDArray[Any]],
    part: NativeRun,
    arena: NDArray[np.float32] | None,
    times: dict[str, float] | None,
) -> None:
    if times is None:
        plan.run(buffers, part.first, part.last, arena=arena)
    elif arena is None:
        times.update((str(i), row["time_s"]) for i, row in enumerate(plan.profile(buffers)))
    else:
        for index in range(part.first, part.last):
            begun = time.perf_counter()
            plan.run(buffers, index, index + 1, arena=arena)
            times[str(index)] = time.perf_counter() - begun


def _call_host(part: HostCall, values: Mapping[str, Any], execution: Execution) -> Sequence[tuple[str, NDArray[Any]]]:
    """Run an operator on arrays and return its results by name."""
    node, host = part.node, OPERATORS[part.node.operator].host
    assert host is not None
    try:
        results = host(node, [values[name] if name else None for name in node.inputs], execution.sizes)
    except _CONTRADICTIONS as reason:  # an index that the network computes, say, lies outside
        raise ShapeError(f"program: {node.operator} {node.name} cannot run on these values: {reason}") from reason
    for value, result in zip(node.outputs, results, strict=True):
        expected = execution.shapes[value.name]
        if result is not None and tuple(result.shape) != expected:
            raise ShapeError(
                f"program: {node.name} returned {tuple(result.shape)}, but {expected} was planned; "
                "compile again with an example of this size"
            )
    return [(value.name, result) for value, result in zip(node.outputs, results, strict=True)]


def _nothing(value: Value, sizes: Mapping[str, int]) -> NDArray[Any]:
    """Return the result for a batch of no images."""
    shape = evaluate_shape(value.shape, sizes)
    if 0 not in shape:
        raise ShapeError(f"program: an empty batch leaves nothing to compute {value.name} {shape} from; give an image")
    return np.empty(shape, value.dtype)


def _own(array: NDArray[Any], given: set[int]) -> NDArray[Any]:
    """Return an array that nobody else writes to: a copy of what came from the caller or from the network."""
    fresh = id(array) not in given and array.flags.owndata and array.flags.writeable
    return np.asarray(array, order="C") if fresh else np.array(array, order="C")


def _is_tensor(x: Any) -> bool:
    """Whether ``x`` is a PyTorch tensor; if PyTorch was never imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _as_array(x: Any, value: Value) -> NDArray[Any]:
    """Return an input as a contiguous array, or raise if its type or number of axes is wrong."""
    where = f"program: {value.name}"
    if _is_tensor(x):
        if x.device.type != "cpu":
            raise UnsupportedError(f"{where} is on {x.device}; Convoxel runs on the CPU: pass x.cpu()")
        if str(x.dtype) != f"torch.{value.dtype}":
            how = "x.float()" if value.dtype == "float32" else f"x.to(torch.{value.dtype})"
            raise ShapeError(f"{where} is {x.dtype}, expected torch.{value.dtype}; convert it ({how})")
        array = x.detach().numpy()
    elif isinstance(x, np.ndarray):
        array = x
    else:
        raise ShapeError(f"{where} is a {type(x).__name__}, expected a NumPy array or a PyTorch tensor")
    if array.dtype != value.dtype:
        raise ShapeError(f"{where} is {array.dtype}, expected {value.dtype}; convert it (x.astype(np.{value.dtype}))")
    if array.ndim != len(value.shape):
        axes = _AXIS_NAMES.get(len(value.shape), f"{len(value.shape)} axes")
        hint = " Add the batch axis: x[None]." if array.ndim == len(value.shape) - 1 else ""
        raise ShapeError(
            f"{where} has {array.ndim} axes {array.shape}, expected {len(value.shape)}: {axes}, "
            f"here {_expected(value)}.{hint}"
        )
    if any(length == 0 != extent for length, extent in zip(array.shape[1:], value.shape[1:], strict=True)):
        raise ShapeError(f"{where} has shape {array.shape}, expected {_expected(value)} with every size at least 1")
    return np.asarray(array, order="C")


def _expected(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"


def _shapes(arrays: Sequence[NDArray[Any]]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _listed(guard: Size, sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {sizes[name]}" for name in sorted(guard.names()))
