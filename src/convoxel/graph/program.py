"""A compiled network: what ``compile`` returns and users call. Knows neither PyTorch nor graphs' origins.

Invariant: a program never changes. Plans for new input sizes, packed weights and arenas are caches behind
locks, so that any number of threads may call one program.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel import native
from convoxel.errors import ConvoxelError, ShapeError, UnsupportedError
from convoxel.graph.ir import Graph, Value
from convoxel.graph.lowering import Kernels
from convoxel.graph.opset import OPERATORS, infer_shapes
from convoxel.graph.plan import Execution, HostCall, Memory, NativeRun, plan_execution
from convoxel.graph.size import Size, evaluate, measure
from convoxel.graph.structure import Structure, assemble

__all__ = ["Program"]

_MAX_PLANS = 16  # input sizes kept planned; a plan is small, its arena may be hundreds of megabytes
_AXIS_NAMES = {2: "(n, c)", 3: "(n, c, w)", 4: "(n, c, h, w)", 5: "(n, c, d, h, w)"}
_TUNING_RUNS = 3
_MULTIPLES = (2, 4, 8, 16, 32, 64)  # U-Nets need sizes that are a power of 2, one factor per level


class Program:
    """A network as native steps. Call it with arrays, or with tensors to get tensors back.

    Takes any batch and spatial size that the network accepts; the steps for a new size are planned when it
    first comes. Results are float32 arrays of their own, channels first, nested as the model's.
    """

    def __init__(
        self,
        graph: Graph,
        structure: Structure,
        *,
        threads: int | None = None,
        algorithm: str = "auto",
        algorithms: Mapping[str, str] | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self._graph = graph
        self._structure = structure
        self._threads = threads
        self._algorithm = algorithm
        self._algorithms = dict(algorithms or {})
        self._kernels = kernels or Kernels()
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], Execution] = OrderedDict()
        self._lock = threading.Lock()

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
            inputs: float32, (n, c, …), arrays or PyTorch tensors on the CPU; in the number of axes, the
            channels and
                the fixed sizes of the examples that the network was compiled with.

        Returns:
            Results nested as the model's; PyTorch tensors if the first input is one.

        Raises:
            ShapeError: wrong number of inputs or axes, wrong channels or data type, or sizes that the network
                does not accept.
        """
        arrays = self._check(inputs)
        execution = self._execution(arrays)
        outputs = self._run(execution, arrays)
        if any(_is_tensor(x) for x in inputs):
            torch = sys.modules["torch"]
            outputs = [torch.from_numpy(array) for array in outputs]
        return assemble(self._structure, outputs, execution.sizes)

    def prepare(self, *inputs: Any) -> None:
        """Plan the steps for inputs of these sizes, so that the first call with them need not."""
        self._execution(self._check(inputs))

    def _check(self, inputs: Sequence[Any]) -> list[NDArray[Any]]:
        """Return ``inputs`` as contiguous arrays of the right type and number of axes."""
        values = self._graph.inputs
        if len(inputs) != len(values):
            names = ", ".join(value.name for value in values)
            raise ShapeError(f"program: {len(inputs)} inputs came, expected {len(values)} ({names})")
        return [_as_array(x, value) for x, value in zip(inputs, values, strict=True)]

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
        assumptions = self._graph.assumptions if self._graph.computes_sizes else ()
        for guard in (*self._graph.guards, *assumptions):
            if not guard.value(sizes):
                raise ShapeError(
                    f"program: the network as compiled does not accept {_shapes(arrays)}: it needs "
                    f"{guard}, and {_listed(guard, sizes)}; compile again with an example of this size"
                )
        return sizes

    def _execution(self, arrays: Sequence[NDArray[Any]]) -> Execution:
        key = tuple(array.shape for array in arrays)
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
        execution = self._plan(arrays)
        with self._lock:
            self._plans[key] = execution
            while len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        return execution

    def _plan(self, arrays: Sequence[NDArray[Any]], algorithm: str | None = None, lenient: bool = False) -> Execution:
        sizes = self._sizes(arrays)
        try:
            return plan_execution(
                self._graph,
                sizes,
                self._kernels,
                threads=self._threads,
                algorithm=algorithm or self._algorithm,
                algorithms=self._algorithms,
                lenient=lenient,
            )
        except ConvoxelError as error:
            advice = self._advice(sizes) if isinstance(error, ShapeError) else ""
            raise type(error)(f"program: inputs {_shapes(arrays)}: {error}{advice}") from None

    def _advice(self, sizes: Mapping[str, int]) -> str:
        """Return which sizes would fit, if multiples of a power of 2 do."""
        spatial = [name for name in sizes if name[0] in "dhw"]
        for multiple in _MULTIPLES:
            nearest = {name: -(-sizes[name] // multiple) * multiple for name in spatial}
            try:
                infer_shapes(self._graph, {**sizes, **nearest})
            except ConvoxelError:
                continue
            listed = ", ".join(f"{name} = {size}" for name, size in nearest.items())
            return f". Multiples of {multiple} fit: pad or crop x to {listed}, for example"
        return ""

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

    # ---- looking inside ----------------------------------------------------------------------------------

    def profile(self, *inputs: Any) -> list[dict[str, Any]]:
        """Return one row per step: name, operator, algorithm, output shape, time_s, macs, gflops.

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
            for key, row in self._rows(execution)
        ]

    def explain(self, *inputs: Any) -> str:
        """Return as text what runs and why: the steps for these inputs, the memory, what PyTorch computes."""
        execution = self._execution(self._check(inputs))
        rows = [row for _, row in self._rows(execution)]
        memory = execution.memory
        lines = [
            f"{self._graph.name}: {len(rows)} steps, {sum(row['macs'] for row in rows) / 1e9:.3f} GMAC",
            f"memory: arena {_mebibytes(memory.arena_bytes)} for {_mebibytes(memory.activation_bytes)} of "
            f"activations, weights {_mebibytes(memory.weight_bytes)}",
        ]
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            kind = f"{row['operator']:<24}{row['algorithm']:<14}"
            lines.append(f"  {row['name']:<{width}}  {kind}{row['shape']}")
        return "\n".join(lines)

    def memory(self, *inputs: Any) -> Memory:
        """Return the bytes that a call with these inputs needs."""
        return self._execution(self._check(inputs)).memory

    def _rows(self, execution: Execution) -> list[tuple[str, dict[str, Any]]]:
        """Return (key into times, description) of every native step and foreign call, in running order."""
        nodes = {node.name: node for node in self._graph.nodes}
        rows: list[tuple[str, dict[str, Any]]] = []
        steps = execution.plan.steps
        for part in execution.parts:
            if isinstance(part, HostCall):
                node = part.node
                label = node.attributes.get("label", node.operator)
                shape = execution.shapes[node.outputs[0].name]
                rows.append(
                    (
                        node.name,
                        _row(node.name, "pytorch" if "label" in node.attributes else "numpy", label, shape, 0),
                    )
                )
                continue
            for index in range(part.first, part.last):
                step = steps[index]
                found = nodes.get(step["name"])
                shape = execution.shapes[found.outputs[0].name] if found else ()
                macs = execution.macs.get(step["name"], 0)
                rows.append((str(index), _row(step["name"], step["operator"], step["algorithm"], shape, macs)))
        return rows

    # ---- choosing algorithms -----------------------------------------------------------------------------

    def tuned(self, *inputs: Any) -> Program:
        """Return a program whose convolutions use what is fastest here for these inputs, by measurement."""
        arrays = self._check(inputs)
        best: dict[str, tuple[float, str]] = {}
        for algorithm in ("auto", *(row["name"] for row in native.algorithms())):
            execution = self._plan(arrays, algorithm=algorithm, lenient=True)
            self._run(execution, arrays)
            for _ in range(_TUNING_RUNS):
                times: dict[str, float] = {}
                self._run(execution, arrays, times)
                for key, row in self._rows(execution):
                    found = (times[key], row["algorithm"])
                    if row["macs"]:
                        best[row["name"]] = min(best.get(row["name"], found), found)
        return Program(
            self._graph,
            self._structure,
            threads=self._threads,
            algorithms={name: algorithm for name, (_, algorithm) in best.items()},
            kernels=self._kernels,
        )


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
    results = host(node, [values[name] for name in node.inputs], execution.sizes)
    for value, result in zip(node.outputs, results, strict=True):
        expected = execution.shapes[value.name]
        if result is not None and tuple(result.shape) != expected:
            raise ShapeError(
                f"program: {node.name} returned {tuple(result.shape)}, but {expected} was planned; "
                "compile again with an example of this size"
            )
    return [(value.name, result) for value, result in zip(node.outputs, results, strict=True)]


def _own(array: NDArray[Any], given: set[int]) -> NDArray[Any]:
    """Return an array that nobody else writes to: a copy of what came from the caller or from the network."""
    fresh = id(array) not in given and array.flags.owndata and array.flags.writeable
    return np.ascontiguousarray(array) if fresh else np.array(array)


def _row(name: str, operator: str, algorithm: str, shape: Sequence[int], macs: int) -> dict[str, Any]:
    return {"name": name, "operator": operator, "algorithm": algorithm, "shape": tuple(shape), "macs": macs}


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
            raise ShapeError(f"{where} is {x.dtype}, expected torch.{value.dtype}; convert it (x.float())")
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
    if 0 in array.shape:
        raise ShapeError(f"{where} has shape {array.shape}, expected {_expected(value)} with every size at least 1")
    return np.ascontiguousarray(array)


def _expected(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"


def _shapes(arrays: Sequence[NDArray[Any]]) -> str:
    return ", ".join(str(array.shape) for array in arrays)


def _listed(guard: Size, sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {sizes[name]}" for name in sorted(guard.names()))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
