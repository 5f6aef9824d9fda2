"""From a network of floats to one on whole numbers of 8 bits, where that is faster and loses little.

Weights become whole numbers, each output channel's in units of its own; tensors become levels of ranges that samples
were seen to fill; what rounded weights shift in the mean goes into the bias. Then layers return to floats: those that
whole numbers were not measured to make faster on this machine, and those that cost most of the task, until the loss is
as small as asked for. The choice is part of the program, so its results are a function of its file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from convoxel.errors import AccuracyError, ConfigError, GraphError, UnsupportedError, check_choice
from convoxel.files.fault import brief
from convoxel.files.values import Array
from convoxel.graph.activation_range import METHODS, Observation, Samples, layer_levels, observe
from convoxel.graph.ir.graph import Graph
from convoxel.graph.passes.block import join_depthwise, split_blocks
from convoxel.graph.passes.levels import QUANTISED
from convoxel.graph.quantised_graph import list_layers, quantised_graph, tied_values
from convoxel.graph.run.input_check import check_inputs
from convoxel.graph.run.program import Program
from convoxel.native.machine import instruction_set

if TYPE_CHECKING:
    from torch import nn

NOTE = "quantisation"  # the program's note that tells what was measured
_ROUNDS, _ENOUGH_S, _LEAST_TURNS, _MOST_TURNS = 4, 2.0, 3, 25
_AGREEMENT = "agreement with float32"

Measure = Callable[[Program], float]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Quantisation:
    """Measurements that were taken as a network was quantised.

    Attributes:
        metric: name of the figure that is to be kept, larger is better.
        before, after: the figure in float32 and of the quantised network.
        method: how the ranges of tensors were chosen, one of ``METHODS``.
        layers: names of the layers on whole numbers.
        slow: names of those that whole numbers would not make faster on this machine.
        lossy: names of those that returned to floats because they lost too much.
        count: the number of all layers that could be quantised.
        float_s, int8_s: seconds of a run on the first sample.
        instruction_set: what the times were measured with.
    """

    metric: str
    before: float
    after: float
    method: str
    layers: tuple[str, ...]
    slow: tuple[str, ...]
    lossy: tuple[str, ...]
    count: int
    float_s: float
    int8_s: float
    instruction_set: str

    @property
    def loss(self) -> float:
        """By how much the figure became smaller."""
        return self.before - self.after

    @property
    def text(self) -> str:
        """The record as the program's note holds it."""
        return json.dumps(vars(self))

    @classmethod
    def of(cls, program: Program) -> Quantisation | None:
        """Return what a program's note tells; None if it was not quantised here."""
        text = program.notes.get(NOTE)
        if text is None:
            return None
        entries: dict[str, Any] = json.loads(text)
        for name in ("layers", "slow", "lossy"):
            entries[name] = tuple(entries[name])
        return cls(**entries)

    def __str__(self) -> str:
        return (
            f"{len(self.layers)} of {self.count} layers in int8, {self.metric} {self.before:.4f} -> {self.after:.4f}, "
            f"{1e3 * self.float_s:.2f} -> {1e3 * self.int8_s:.2f} ms"
        )


def quantise(
    network: Program | nn.Module,
    samples: Iterable[Any],
    *,
    measure: Measure | None = None,
    metric: str = "",
    max_loss: float = 0.005,
    method: str = "auto",
    only_faster: bool = True,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Program:
    """Return the network with layers on whole numbers of 8 bits, where that is measured to be faster and loses little.

    Levels and whole weights follow Jacob et al. 2018 (weights symmetric per output channel, tensors with a zero point);
    the bias takes up the mean error of rounded weights, as in Nagel et al. 2019. All sums are exact.

    Args:
        network: a program in float32, or a PyTorch module, which is compiled with the first sample.
        samples: a few inputs such as the network will see: arrays, or tuples of them if it takes several inputs.
        measure: returns the figure of the task that a program reaches, larger is better, such as the mean Dice of
            validation images (default: the share of results whose largest channel is that of float32; of results with
            one channel, 1 − ‖y − y₀‖ / ‖y₀‖).
        metric: name of that figure for the record (default: that of ``measure``).
        max_loss: the most that the figure may become smaller (default 0.005). Layers return to floats until it holds.
        method: how the ranges of tensors are chosen: "minmax", "percentile" (99.99 %) or "mse" (default "auto": the one
            whose results err least on the samples).
        only_faster: leave a layer in float32 unless whole numbers are measured to make it faster on this machine
            (default True).
        threads: as of ``compile``, of a module.
        on_progress: called with (steps done, all steps, what comes next).

    Returns:
        A program; ``Quantisation.of(program)`` tells what was measured, and its file holds it.

    Raises:
        ConfigError: there are no samples, one is empty or holds NaN, or an argument is out of range.
        ShapeError: the samples do not fit the network.
        UnsupportedError: parts of the network run in PyTorch, or it is quantised already.
        AccuracyError: the loss stays above ``max_loss`` even with all layers but one in float32.

    >>> import numpy as np, convoxel as cx
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()
    >>> x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    >>> program = quantise(net, [x], only_faster=False, max_loss=0.1)
    >>> sorted({row["type"] for row in program.profile(x) if row["operator"] == "conv"})
    ['int8']
    """
    check_choice("method", method, ("auto", *METHODS))
    if not (isinstance(max_loss, int | float) and 0 <= max_loss <= 1):
        raise ConfigError(f"quantise: max_loss is {brief(max_loss)}, expected a number from 0 to 1")
    given = [tuple(sample) if isinstance(sample, tuple | list) else (sample,) for sample in samples]
    if not given:
        raise ConfigError("quantise: there are no samples; give a few inputs such as the network will see")
    program = network if isinstance(network, Program) else _compiled(network, given[0], threads)
    if any(node.operator in QUANTISED for node in program.graph.nodes):
        raise UnsupportedError("quantise: the network is quantised already; give the one in float32")
    if any(node.operator == "torch_call" for node in program.graph.nodes):
        raise UnsupportedError(
            "quantise: parts of the network run in PyTorch; give one that compiles without a warning"
        )
    examples = [check_inputs(sample, program.graph.inputs) for sample in given]
    for place, arrays in enumerate(examples):
        if any(array.size == 0 or not np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
            raise ConfigError(f"quantise: samples[{place}] is empty or holds NaN or infinity; leave it out")
    judge = measure or _Agreement(program, examples)
    name = metric or (getattr(measure, "__name__", "metric") if measure else _AGREEMENT)
    return _Search(program, examples, _checked(judge), max_loss, on_progress or (lambda done, total, what: None)).run(
        name, METHODS if method == "auto" else (method,), only_faster
    )


def _compiled(model: nn.Module, sample: Sequence[Any], threads: int | None) -> Program:
    from convoxel.graph.compile import compile as compile_model

    if isinstance(model, str) or not callable(model):
        raise GraphError(f"quantise: network is a {type(model).__name__}, expected a Program or a torch.nn.Module")
    return compile_model(model, *sample, threads=threads, precision="float32")


def _checked(measure: Measure) -> Measure:
    """Return the function that refuses figures that are no numbers."""

    def checked(program: Program) -> float:
        figure = measure(program)
        if not isinstance(figure, int | float | np.number) or not np.isfinite(figure):
            raise ConfigError(f"quantise: measure returned {brief(figure)}, expected a number")
        return float(figure)

    return checked


class _Agreement:
    """The share in which a program decides as another one does."""

    def __init__(self, program: Program, samples: Samples) -> None:
        self._samples = samples
        self._wanted = [_arrays(program, sample) for sample in samples]

    def __call__(self, program: Program) -> float:
        shares = []
        for sample, wanted in zip(self._samples, self._wanted, strict=True):
            shares += [_agreement(y, y0) for y, y0 in zip(_arrays(program, sample), wanted, strict=True)]
        return float(np.mean(shares))


def _agreement(result: Array, wanted: Array) -> float:
    if wanted.dtype.kind != "f":
        return float((result == wanted).mean())
    if wanted.ndim > 1 and wanted.shape[1] > 1:
        return float((result.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    return 1 - _distance(result, wanted)


def _distance(result: Array, wanted: Array) -> float:
    return float(np.linalg.norm(result - wanted) / max(float(np.linalg.norm(wanted)), 1e-12))


def _arrays(program: Program, sample: Sequence[Array]) -> list[Array]:
    """Return the results one after another, however they are nested."""
    execution = program.planned(*sample)
    return execution.run(list(sample))


@dataclass
class _Search:
    """The search for the layers that stay on whole numbers."""

    program: Program
    samples: Samples
    measure: Measure
    max_loss: float
    report: Progress
    apart: Graph = field(init=False)  # without blocks, whose layers may each compute on whole numbers
    blocks: dict[str, tuple[str, ...]] = field(init=False)  # the layers of each step in floats, by its name
    observed: dict[str, Observation] = field(default_factory=dict)
    levels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.apart = split_blocks(self.program.graph)
        self.blocks = {}
        names = iter([node.name for node in self.apart.nodes])
        for node in self.program.graph.nodes:
            parts = [next(names)]
            while parts[-1] != node.name:
                parts.append(next(names))
            self.blocks[node.name] = tuple(parts)

    def run(self, metric: str, methods: Sequence[str], only_faster: bool) -> Program:
        """Return the quantised program with its record."""
        nodes = list_layers(self.apart)
        names, operands = [node.name for node in nodes], [node.inputs[0] for node in nodes]
        self.report(0, 4, "ranges")
        self.observed = observe(self.program.replace(graph=self.apart), operands, self.samples)
        method = self._choose_method(methods, names)
        self.report(1, 4, "times")
        layers, slow = (names, []) if not only_faster else self._faster(names)
        self.report(2, 4, "loss")
        before = self.measure(self.program)
        layers, lossy, after = self._bounded(layers, before)
        self.report(3, 4, "times")
        if only_faster and lossy:  # what lies beside a layer that returned may be no gain any more
            layers, more = self._faster(layers)
            slow += more
            after = self.measure(self._with(layers)) if more and layers else before if not layers else after
        chosen = self._with(layers) if layers else self.program
        times = self._times([self.program, chosen] if layers else [self.program])
        times = times if layers else times * 2
        if only_faster and layers and times[1] >= times[0]:
            slow, layers, chosen, after, times = [*slow, *layers], [], self.program, before, [times[0], times[0]]
        self.report(4, 4, "")
        record = Quantisation(
            metric, before, after, method, tuple(layers), tuple(slow), tuple(lossy), len(names),
            times[0], times[1], instruction_set(),
        )  # fmt: skip
        return chosen.replace(notes={**chosen.notes, NOTE: record.text})

    def _with(self, layers: Sequence[str]) -> Program:
        graph = quantised_graph(self.apart, layers, self.observed, self.levels)
        return self.program.replace(graph=join_depthwise(graph))

    def _choose_method(self, methods: Sequence[str], names: Sequence[str]) -> str:
        """Take the method whose results, with all layers quantised, err least on the samples."""
        wanted = [_arrays(self.program, sample) for sample in self.samples]
        tied = tied_values(self.apart, self.observed)
        errors = {}
        for method in methods:
            self.levels = layer_levels(self.observed, method, tied)
            errors[method] = self._error(self._with(names), wanted) if len(methods) > 1 and names else 0.0
        best = min(errors, key=errors.__getitem__)
        self.levels = layer_levels(self.observed, best, tied)
        return best

    def _error(self, program: Program, wanted: Sequence[Sequence[Array]]) -> float:
        errors = []
        for sample, results in zip(self.samples, wanted, strict=True):
            errors += [_distance(y, y0) for y, y0 in zip(_arrays(program, sample), results, strict=True)]
        return float(np.mean(errors))

    # ---- speed -------------------------------------------------------------------------------------------

    def _faster(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the layers that are faster on whole numbers, changes to levels included, and the others.

        Where a layer returns to floats, its neighbours pay for changes that it paid before; so this is repeated. The
        layers of a block are one step in floats, so they are compared and return together.
        """
        layers, slow = list(names), list[str]()
        floats = self._step_times(self.program)
        for _ in range(_ROUNDS):
            if not layers:
                break
            program = self._with(layers)
            whole = self._step_times(program)
            costs = {**whole, **_costs(program, whole)}
            lost = [
                name
                for step, parts in self.blocks.items()
                if sum(costs.get(part, 0.0) for part in parts) >= floats.get(step, np.inf)
                for name in parts
                if name in layers
            ]
            if not lost:
                break
            slow += lost
            layers = [name for name in layers if name not in lost]
        return layers, slow

    def _step_times(self, program: Program) -> dict[str, float]:
        """Return the least seconds of each step over several runs, by the name of its node."""
        sample = self.samples[0]
        best: dict[str, float] = {}
        begun = time.perf_counter()
        for turn in range(_MOST_TURNS):
            for row in program.profile(*sample):
                best[row["name"]] = min(best.get(row["name"], np.inf), row["time_s"])
            if turn + 1 >= _LEAST_TURNS and time.perf_counter() - begun > _ENOUGH_S:
                break
        return best

    def _times(self, programs: Sequence[Program]) -> list[float]:
        """Return the least seconds of a run of each program, which take turns."""
        best = [np.inf] * len(programs)
        begun = time.perf_counter()
        for turn in range(2 * _MOST_TURNS):
            for place, program in enumerate(programs):
                start = time.perf_counter()
                program(*self.samples[0])
                best[place] = min(best[place], time.perf_counter() - start)
            if turn + 1 >= _LEAST_TURNS and time.perf_counter() - begun > _ENOUGH_S:
                break
        return best

    # ---- loss --------------------------------------------------------------------------------------------

    def _bounded(self, names: Sequence[str], before: float) -> tuple[list[str], list[str], float]:
        """Return the layers with which the loss is small enough, those that returned to floats, and the figure."""
        if not names:
            return [], [], before
        after = self.measure(self._with(names))
        if before - after <= self.max_loss:
            return list(names), [], after
        ranked = self._by_sensitivity(names)
        kept, figure = 0, before  # the number of least sensitive layers that is known to do
        low, high = 1, len(names) - 1
        while low <= high:
            middle = (low + high) // 2
            found = self.measure(self._with(ranked[:middle]))
            if before - found <= self.max_loss:
                kept, figure, low = middle, found, middle + 1
            else:
                high = middle - 1
        if kept == 0:
            raise AccuracyError(
                f"quantise: the figure falls from {before:.4f} to {after:.4f}, and by more than {self.max_loss:g} even "
                f"with one layer in int8 alone. Allow a larger max_loss, or stay with float32."
            )
        return ranked[:kept], ranked[kept:], figure

    def _by_sensitivity(self, names: Sequence[str]) -> list[str]:
        """Return the layers in the order of the error that each alone makes, the least first."""
        wanted = [_arrays(self.program, sample) for sample in self.samples]
        return sorted(names, key=lambda name: self._error(self._with([name]), wanted))


def _costs(program: Program, times: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of each layer of levels, with its share of making the levels that it reads."""
    makers = {node.output.name: node for node in program.graph.nodes if node.operator == "to_levels"}
    costs = {}
    for node in program.graph.nodes:
        if node.operator not in QUANTISED:
            continue
        costs[node.name] = times.get(node.name, 0.0)
        for name in {node.inputs[0], node.inputs[3]} & makers.keys():
            readers = len(program.graph.users[name])
            costs[node.name] += times.get(makers[name].name, 0.0) / readers
    return costs
