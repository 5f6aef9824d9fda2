"""A program on tiles: an image cut so that the joined results have the bits of the whole image's.

A tile is the part of the image that a part of the results needs (``region``), so memory is that of a tile and of the
results. Every convolution runs by the algorithm that the whole image would take; Winograd's tiles lie where they would
lie there. What sees the whole image is refused by name.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from convoxel.arithmetic.winograd import tiles_of
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.region import Box, Span, full_box
from convoxel.graph.operators.step import Choice, PackedWeights, own_padding
from convoxel.graph.operators.view import spatial
from convoxel.graph.run.execution import Execution, plan_execution
from convoxel.graph.run.lru_cache import LruCache
from convoxel.graph.run.region import Region, WholeGraph
from convoxel.graph.run.storage import choose_elements

# Positions of a tile by default, its halo included: a tile of a 3-D U-Net of 32 channels takes about a gigabyte.
TILE_POSITIONS = {1: 1 << 20, 2: 1024 * 1024, 3: 128 * 128 * 128}
_MOST_TILES = 20_000  # along an axis: each is looked at before the first one runs
_MOST_PLANS = 4  # kept, each with scratch memory of its own; the arena is shared
_PROBES = 24  # tiles that are looked at to choose a size; the tiles of Winograd's algorithms repeat sooner
_AXES = {1: ("w",), 2: ("h", "w"), 3: ("d", "h", "w")}

Read = Callable[[str, tuple[slice, ...]], Array]
OnProgress = Callable[[int, int], None]


class Settings(NamedTuple):
    """Choices of a program's convolutions, and its threads: arguments of ``plan_execution``."""

    threads: int | None
    algorithm: str
    precision: str
    chosen: Mapping[str, str]


class Arena:
    """Memory for what the steps of a tile compute. Nothing in it outlives the tile, so programs share it in turn."""

    def __init__(self) -> None:
        self._array: NDArray[np.float32] = np.empty(0, np.float32)

    @property
    def size_bytes(self) -> int:
        """Bytes that are held now."""
        return self._array.nbytes

    def of(self, execution: Execution) -> NDArray[np.float32]:
        """Return memory that is large enough for an execution."""
        if execution.plan.arena_size > self._array.size:
            self._array = np.empty(0, np.float32)  # the smaller one goes before the larger one comes
            self._array = execution.plan.new_arena()
        return self._array


@dataclass(frozen=True)
class TilePlan:
    """An image cut into tiles. ``str(tiling)`` says how, and why the result is the whole image's.

    Attributes:
        image: spatial size of the first input.
        tile: the most positions of a tile along each axis, its halo included.
        core: positions that a tile's results stand for; tiles begin so far apart.
        counts: number of tiles along each axis.
        halo: for each axis the most positions before and after the core that a tile reads as well.
        algorithms: number of convolutions by the algorithm that runs them.
        algorithm: what every convolution of the whole image must run with to give the same bits; "" for no demand.
        direct: the step that the whole image would run by an algorithm that cannot be tiled, so that all run directly.
        exact: whether the results have the bits of the whole image's.
    """

    image: Shape
    tile: Shape
    core: Shape
    counts: Shape
    halo: tuple[tuple[int, int], ...]
    algorithms: Mapping[str, int]
    algorithm: str = ""
    direct: str = ""
    exact: bool = True
    _plan: _Plan | None = field(default=None, repr=False, compare=False)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(self.counts)

    def __str__(self) -> str:
        halo = ", ".join(f"{b}+{a}" for b, a in self.halo)
        tiles = f"{self.count} tile{'s' if self.count > 1 else ''} of at most {_times(self.tile)}"
        cut = f"{tiles} in {_times(self.image)}, {_times(self.core)} apart, halo before+after {halo}"
        if not self.exact:
            return f"{cut}; every tile chooses its algorithms: equal to the whole image up to rounding"
        named = ", ".join(f"{name} in {number}" for name, number in self.algorithms.items()) or "no convolution"
        asked = f" with algorithm={self.algorithm!r}" if self.algorithm else ""
        if self.direct:
            how = (
                f"direct convolutions ({named}), since step '{self.direct}' would run by Fourier transforms of parts "
                "that depend on the image's size"
            )
        else:
            grain = (
                " and begin where its Winograd tiles do" if any("winograd" in name for name in self.algorithms) else ""
            )
            how = f"steps run the whole image's algorithms ({named}){grain}"
        return f"{cut}; {how}: equal bit for bit to the whole image{asked}"

    def run(self, read: Read, outputs: Sequence[Array], on_progress: OnProgress | None = None) -> None:
        """Compute every tile and write its results into ``outputs``.

        Args:
            read: returns the part of an input, by its name.
            outputs: arrays for the results, in order.
            on_progress: called with the number of tiles done and of all tiles.
        """
        assert self._plan is not None
        self._plan.run(read, outputs, on_progress)

    def parts(self, read: Read, arena: Arena | None = None) -> Iterator[list[tuple[tuple[slice, ...], Array]]]:
        """Yield the results of each tile, with their place: for consumers that keep less than the results.

        Args:
            read: as of :meth:`run`.
            arena: memory that programs use in turn, a tile each (default: some of its own).
        """
        assert self._plan is not None
        return self._plan.parts(read, arena or Arena())

    @property
    def shapes(self) -> list[Shape]:
        """Shapes of the results."""
        assert self._plan is not None
        return [self._plan.whole.shapes[name] for name in self._plan.whole.graph.outputs]


def plan_tiling(
    graph: Graph,
    sizes: Mapping[str, int],
    packed: PackedWeights,
    settings: Settings,
    tile: int | Sequence[int] | None = None,
    exact: bool = True,
) -> TilePlan:
    """Return the tiles of an image.

    Args:
        graph: the graph that runs, layouts assigned.
        sizes: the sizes of the whole image.
        packed: packed weights of the program.
        settings: how convolutions are chosen.
        tile: the most positions of a tile along each axis, its halo included (default: what takes about a gigabyte).
        exact: whether every convolution runs by the whole image's algorithm (default True).

    Raises:
        UnsupportedError: a step sees the whole image along an axis that is cut, or cannot make a part of its result.
        ConfigError: ``tile`` is smaller than what one position of the result needs (the message names the least), or no
            size at all.
    """
    whole = WholeGraph(graph, sizes)
    plan, direct = _plan_whole(whole, sizes, packed, settings, exact)
    wanted = plan.default() if tile is None else plan.checked(tile)
    least = plan.choose_cores(wanted)
    if least is not None:
        needs = f"one position of the result and its halo need {_times(least)}"
        if any(max(grain) > 1 for grain in plan.grains.values()):
            narrow, _ = _plan_whole(whole, sizes, packed, settings._replace(algorithm="direct", chosen={}), exact)
            needs += f" where Winograd's tiles stay in place, and {_times(narrow.least())} with algorithm='direct'"
        raise ConfigError(
            f"tile is {_times(wanted)} ({', '.join(plan.axes)}), but {needs}; give tiles of at least that"
        )
    if max(plan.counts) > _MOST_TILES:
        raise ConfigError(f"tile is {_times(wanted)}, which makes {_times(plan.counts)} tiles; give larger ones")
    spans = plan.spans(range(max(plan.counts)))
    most = tuple(max(read.length for _, read in axis) for axis in spans)
    halo = tuple(
        (
            max(0, *(core.first - read.first for core, read in axis)),
            max(0, *(read.stop - core.stop for core, read in axis)),
        )
        for axis in spans
    )
    used: Counter[str] = Counter()
    for choice in plan.choices.values():
        used.update(choice.parts or (choice.algorithm,))
    named = dict(sorted(used.items())) if exact else {}
    asked = "" if plan.settings.algorithm == "auto" else plan.settings.algorithm
    return TilePlan(plan.image, most, plan.cores, plan.counts, halo, named, asked, direct, exact, plan)


def _plan_whole(
    whole: WholeGraph, sizes: Mapping[str, int], packed: PackedWeights, settings: Settings, exact: bool
) -> tuple[_Plan, str]:
    """Return the plan of a whole image in one tile, and the step for whose sake all convolutions run directly."""
    graph = whole.graph
    choices = _choose(graph, sizes, packed, settings)
    direct = next((name for name, choice in choices.items() if "fft" in (choice.algorithm, *choice.parts)), "")
    if exact and direct:
        settings = settings._replace(algorithm="direct", chosen={})
        choices = _choose(graph, sizes, packed, settings)
    if not exact:
        choices = {name: Choice(settings.algorithm, (), choice.padding) for name, choice in choices.items()}
    grains = {node.name: _grain(graph, node, choices[node.name]) for node in graph.nodes if node.name in choices}
    return _Plan(whole, packed, settings, choices, grains), direct if exact else ""


def _choose(graph: Graph, sizes: Mapping[str, int], packed: PackedWeights, settings: Settings) -> dict[str, Choice]:
    """Return what a run of the whole image would choose for each convolution, by the node's name."""
    rows = plan_execution(graph, sizes, packed, bounded=False, **settings._asdict()).plan.steps
    nodes = {node.name: node for node in graph.nodes}
    return {
        row["name"]: Choice(row["algorithm"], tuple(row["parts"]), own_padding(nodes[row["name"]].resolved(sizes)))
        for row in rows
        if row["algorithm"]
    }


def _grain(graph: Graph, node: Node, choice: Choice) -> tuple[int, ...]:
    """Return how many outputs along (d, h, w) an algorithm computes together: Winograd's m where there is a kernel."""
    m = tiles_of(choice.algorithm)
    if m is None:
        return (1, 1, 1)
    kernel = spatial(graph.constants[node.inputs[1]].shape[2:], 1)
    return tuple(each if k > 1 else 1 for each, k in zip(m, kernel, strict=True))


class _Plan:
    """Tiles of an image: ``cores[axis]`` positions of it after another, and of each result the same share."""

    def __init__(
        self,
        whole: WholeGraph,
        packed: PackedWeights,
        settings: Settings,
        choices: Mapping[str, Choice],
        grains: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.whole, self.packed, self.settings, self.choices, self.grains = whole, packed, settings, choices, grains
        self.elements = choose_elements(whole.graph, settings.precision)
        self.input = whole.graph.inputs[0].name
        self.image = whole.shapes[self.input][2:]
        self.axes = _AXES.get(len(self.image), ())
        if not self.image:
            raise UnsupportedError(f"the input {self.input} has no axes of space that could be cut into tiles")
        self.places = {name: self._find_axes(name) for name in whole.graph.outputs}
        self.cores: Shape = self.image
        self.unit = tuple(map(self._find_unit, range(len(self.image))))

    @property
    def counts(self) -> Shape:
        """The number of tiles along each axis."""
        return tuple(-(-size // core) for size, core in zip(self.image, self.cores, strict=True))

    # ---- which part is which

    def _find_axes(self, name: str) -> dict[int, int]:
        """Return, for each axis of a result that follows an axis of the image, that axis: fewer positions read less."""
        found: dict[int, int] = {}
        shape = self.whole.shapes[name]
        every = self.whole.region({name: full_box(shape)}, {}).inputs[self.input][2:]
        for axis, size in enumerate(shape):
            if axis == 0 or size == 1:
                continue
            box = list(full_box(shape))
            box[axis] = Span(size // 2, size // 2 + 1)
            read = self.whole.region({name: tuple(box)}, {}).inputs[self.input][2:]
            for place, (span, whole) in enumerate(zip(read, every, strict=True)):
                if span.length < whole.length and place not in found.values():
                    found[axis] = place
                    break
        return found

    def _find_unit(self, axis: int) -> int:
        """Return how many positions of the image one position of the coarsest result stands for."""
        lengths = [
            self.whole.shapes[name][at] for name, places in self.places.items() for at, place in places.items()
            if place == axis
        ]  # fmt: skip
        return max((-(-self.image[axis] // length) for length in lengths), default=1)

    def boxes(self, index: Sequence[int]) -> dict[str, Box]:
        """Return the part of each result that tile ``index`` makes."""
        boxes = {}
        for name, places in self.places.items():
            box = list(full_box(self.whole.shapes[name]))
            for axis, place in places.items():
                size, core, number = self.image[place], self.cores[place], index[place]
                ends = (number * core, min(size, (number + 1) * core))
                first, stop = (end * box[axis].length // size for end in ends)
                box[axis] = Span(first, stop)
            boxes[name] = tuple(box)
        return boxes

    def region(self, index: Sequence[int]) -> Region:
        """Return what tile ``index`` needs."""
        return self.whole.region(self.boxes(index), self.grains)

    def spans(self, numbers: Sequence[int]) -> list[list[tuple[Span, Span]]]:
        """Return, for each axis, the core and the part that is read of the tiles of these numbers along it."""
        counts = self.counts
        rows: list[dict[int, tuple[Span, Span]]] = [{} for _ in counts]
        for number in numbers:
            index = tuple(min(number, count - 1) for count in counts)
            read = self.region(index).inputs[self.input][2:]
            for row, place, span, core, size in zip(rows, index, read, self.cores, self.image, strict=True):
                row[place] = (Span(place * core, min(size, (place + 1) * core)), span)
        return [list(row.values()) for row in rows]

    # ---- the size of tiles

    def choose_cores(self, wanted: Shape) -> Shape | None:
        """Set ``cores`` to the largest whose tiles are not larger than ``wanted``, of equal size if that is possible.

        Returns:
            The least tile, where ``wanted`` is too small for any result.

        Raises:
            UnsupportedError: a step sees the whole image along an axis that would be cut.
        """
        limits = tuple(min(want, size) for want, size in zip(wanted, self.image, strict=True))
        failed = self._shrink(limits)
        if failed is None:
            return None
        least = list(limits)
        while failed is not None:
            least[failed] = min(self.image[failed], max(self.least()[failed], least[failed] + 1))
            failed = self._shrink(tuple(least))
        return tuple(least)

    def checked(self, tile: int | Sequence[int]) -> Shape:
        """Return the size of tiles that a user gave, for each axis."""
        given: tuple[object, ...] = tuple(tile) if isinstance(tile, (tuple, list)) else (tile,) * len(self.image)
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in given)
        if len(given) != len(self.image) or not whole:
            raise ConfigError(
                f"tile is {tile!r}; give a whole number of at least 1, or one for each of the {len(self.image)} axes"
            )
        return cast(Shape, given)

    def default(self) -> Shape:
        """Return a cube, or more where the halo would be most of it."""
        side = int(TILE_POSITIONS[len(self.image)] ** (1 / len(self.image)))
        least = self.least() if any(size > side for size in self.image) else self.image
        return tuple(max(side, 2 * need) for need in least)

    def least(self) -> Shape:
        """Return the most positions that one position of the result needs, along each axis."""
        before, self.cores = self.cores, self.unit
        least = tuple(max(read.length for _, read in axis) for axis in self.spans(self._probes()))
        self.cores = before
        return least

    def _probes(self) -> list[int]:
        """Return numbers of tiles: along each axis the first, the last, and a row of neighbours in the middle."""
        numbers = {0, 1}
        for count in self.counts:
            middle = count // 2
            numbers.update(range(max(0, middle - _PROBES // 2), min(count, middle + _PROBES // 2)), (count - 1,))
            numbers.add(max(0, count - 2))
        return sorted(numbers)

    def _shrink(self, limits: Shape) -> int | None:
        """Set ``cores`` to fit ``limits``; return the axis along which nothing fits, if there is one."""
        cores = list(limits)
        while True:
            self.cores = tuple(
                max(unit, _even(core, size)) for unit, core, size in zip(self.unit, cores, self.image, strict=True)
            )
            counts = self.counts
            over = []
            for axis, (row, limit) in enumerate(zip(self.spans(self._probes()), limits, strict=True)):
                reader = next((read.reader for _, read in row if read.reader), "")
                if counts[axis] > 1 and reader:
                    raise self._sees_all(reader, axis)
                over.append(max(read.length for _, read in row) - limit if counts[axis] > 1 else 0)
            if max(over) <= 0:
                return None
            for axis, excess in enumerate(over):
                if excess > 0:
                    if self.cores[axis] == self.unit[axis]:
                        return axis
                    cores[axis] = max(self.unit[axis], self.cores[axis] - excess)

    def _sees_all(self, reader: str, axis: int) -> UnsupportedError:
        number, node = next((i, node) for i, node in enumerate(self.whole.nodes, 1) if node.name == reader)
        name = self.axes[axis]
        return UnsupportedError(
            f"step {number} '{reader}' ({node.operator}) sees the whole image along {name}, so the network cannot run "
            f"on tiles that cut {name}; give a tile as long as the image there ({self.image[axis]}), or run the "
            "program on the whole image"
        )

    # ---- running

    def parts(self, read: Read, arena: Arena) -> Iterator[list[tuple[tuple[slice, ...], Array]]]:
        """Yield, tile by tile, the place of each result's part and its numbers."""
        plans: LruCache[Execution] = LruCache(_MOST_PLANS)
        for index in itertools.product(*map(range, self.counts)):
            boxes = self.boxes(index)
            region = self.whole.region(boxes, self.grains)
            plan = plans.get(region.key, lambda region=region: self._planned(region))  # type: ignore[misc]
            arrays = [np.ascontiguousarray(read(name, _slices(box))) for name, box in region.inputs.items()]
            results = dict(zip(plan.graph.outputs, plan.run(arrays, arena=arena.of(plan)), strict=True))
            found = []
            for name in self.whole.graph.outputs:
                places = [
                    slice(span.first - made.first, span.stop - made.first)
                    for span, made in zip(boxes[name], region.outputs[name], strict=True)
                ]
                found.append((_slices(boxes[name]), results[name][tuple(places)]))
            yield found

    def run(self, read: Read, outputs: Sequence[Array], on_progress: OnProgress | None) -> None:
        """Write the results of all tiles."""
        total = math.prod(self.counts)
        for done, found in enumerate(self.parts(read, Arena()), start=1):
            for output, (place, numbers) in zip(outputs, found, strict=True):
                output[place] = numbers
            if on_progress is not None:
                on_progress(done, total)

    def _planned(self, region: Region) -> Execution:
        return plan_execution(
            region.graph(), {}, self.packed, whole=self.choices, elements=self.elements, **self.settings._asdict()
        )


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(span.first, span.stop) for span in box)


def _even(core: int, size: int) -> int:
    """Return a core of at most ``core``, such that parts are nearly equal and begin at multiples of a power of two.

    Where strides are powers of two, most tiles then have one plan.

    >>> _even(100, 180), _even(70, 1000), _even(3, 10), _even(20, 20)
    (96, 64, 3, 20)
    """
    if core >= size:
        return size
    grain = 1
    while grain < 64 and 8 * grain <= core:
        grain *= 2
    core = core // grain * grain
    equal = -(-size // -(-size // core))
    return min(core, -(-equal // grain) * grain)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
