"""Questions about all axes of an image at once: every answer has an entry for each axis, and tells equal ones once.

Each axis is solved by itself (``solve``, ``tile``); the records here put the answers together. ``to_dict`` is for
programs, ``str`` for people; fractions stay exact in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from convoxel.arithmetic.axis import Graph
from convoxel.arithmetic.field import Field
from convoxel.arithmetic.layer import Window
from convoxel.arithmetic.solve import Depth, Inputs, Windows, solve_depth, solve_inputs, solve_windows
from convoxel.arithmetic.tile import Part, Tile, solve_tile
from convoxel.arithmetic.window import Pair, span
from convoxel.errors import ConfigError

# How far from an output that no input gives the nearest ones are looked for.
_NEAR = 64


def join_axes(values: Iterable[object], full: bool = False) -> str:
    """Return the entries joined by ×; one entry where all are alike, unless ``full``.

    >>> join_axes((3, 3)), join_axes((3, 3), full=True), join_axes((3, 5))
    ('3', '3×3', '3×5')
    """
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 and not full else "×".join(texts)


def broadcast_sizes(name: str, sizes: Sequence[int], axes: int) -> tuple[int, ...]:
    """Return one size for each axis; a single one is that of all axes.

    Raises:
        ConfigError: the number of sizes is neither 1 nor ``axes``; the message begins with ``name``.
    """
    if len(sizes) not in (1, axes):
        raise ConfigError(f"{name}: got {len(sizes)} sizes, but there are {axes} axes. Give one size for each axis.")
    return tuple(sizes) * axes if len(sizes) == 1 else tuple(sizes)


@dataclass(frozen=True)
class LayerSizes:
    """The image behind one layer of a chain.

    Attributes:
        layer: the layer in the notation of chains; "input" for the image itself.
        size: size along each axis.
        fields: receptive field of a position along each axis.
    """

    layer: str
    size: tuple[int, ...]
    fields: tuple[Field, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the numbers, an entry an axis."""
        return {"layer": self.layer, "size": self.size, **_field_dict(self.fields)}


@dataclass(frozen=True)
class ChainSizes:
    """Sizes and receptive fields behind every layer of a chain.

    Attributes:
        rows: the input and then every layer.
        accepted: the input sizes that the chain takes, along each axis.
    """

    rows: tuple[LayerSizes, ...]
    accepted: tuple[Inputs, ...]

    @property
    def holes(self) -> int:
        """Inputs inside the last layer's field that it skips, along the axis where they are most."""
        return max(field.holes for field in self.rows[-1].fields)

    def to_dict(self) -> dict[str, object]:
        """Return the numbers of every layer and of the whole chain."""
        return {
            "input": self.rows[0].size,
            "layers": [row.to_dict() for row in self.rows],
            "output": self.rows[-1].size,
            **_field_dict(self.rows[-1].fields),
            "accepted": [each.to_dict() for each in self.accepted],
        }


def trace_chain(graphs: Sequence[Graph], sizes: Sequence[int]) -> ChainSizes:
    """Return the size and the receptive field behind every layer of a chain.

    Args:
        graphs: the chain along each axis, as :func:`parse_chains` returns it.
        sizes: input size along each axis.

    >>> from convoxel.arithmetic.notation import parse_chains
    >>> [row.size for row in trace_chain(parse_chains(["k3", "pool2"], 2), (8, 12)).rows]
    [(8, 12), (6, 10), (3, 5)]
    """
    names = ["input", *map(str, graphs[0].nodes)]
    along = [graph.sizes(size) for graph, size in zip(graphs, sizes, strict=True)]
    fields = [graph.fields(size) for graph, size in zip(graphs, sizes, strict=True)]
    rows = map(LayerSizes, names, zip(*along, strict=True), zip(*fields, strict=True))
    return ChainSizes(tuple(rows), tuple(map(solve_inputs, graphs)))


@dataclass(frozen=True)
class ImageInputs:
    """The input sizes that fit, all or those that give one output.

    Attributes:
        inputs: the sizes along each axis.
        output: the wanted output size along each axis; None for all sizes.
        nearest: where no input gives the output along some axis, the outputs near it that some input gives.
    """

    inputs: tuple[Inputs, ...]
    output: tuple[int, ...] | None = None
    nearest: tuple[int, ...] = ()

    @property
    def solvable(self) -> bool:
        """True if there are sizes along every axis."""
        return all(each.sizes for each in self.inputs)

    def to_dict(self) -> dict[str, object]:
        """Return single sizes, and progressions ``start + step · n``, an entry an axis."""
        wanted = {} if self.output is None else {"output": self.output}
        return {"accepted": [each.to_dict() for each in self.inputs], **wanted}

    def __str__(self) -> str:
        """Return the sizes and the equations, or the nearest outputs."""
        if self.output is not None and not self.solvable:
            found = " and ".join(map(str, self.nearest)) or "none"
            wanted = join_axes(self.output, full=True)
            return f"No input size gives {wanted}. Outputs near it that some input gives: {found}."
        return f"Input sizes: {describe_sizes(self.inputs)}"


def solve_image_inputs(known: Sequence[Inputs], output: Sequence[int] | None = None) -> ImageInputs:
    """Return the sizes of ``known``, or those of them that give ``output``.

    Args:
        known: all sizes along each axis, as :func:`solve_inputs` returns them.
        output: wanted output size along each axis; one is that of all axes.
    """
    if output is None:
        return ImageInputs(tuple(known))
    wanted = broadcast_sizes("output", output, len(known))
    found = tuple(each.giving(size) for each, size in zip(known, wanted, strict=True))
    failing = next((axis for axis, each in enumerate(found) if not each.sizes), None)
    if failing is None:
        return ImageInputs(found, wanted)
    size = wanted[failing]
    near = [o for o in range(max(1, size - _NEAR), size + _NEAR + 1) if known[failing].giving(o).sizes]
    below, above = [o for o in near if o < size], [o for o in near if o > size]
    return ImageInputs(found, wanted, (*below[-1:], *above[:1]))


@dataclass(frozen=True)
class Depths:
    """The number of repetitions of layers that is needed along each axis."""

    found: tuple[Depth, ...]
    field: int

    def to_dict(self) -> dict[str, object]:
        """Return the numbers of repetitions and the fields that they reach."""
        return {"repeats": [each.count for each in self.found], **_field_dict([each.field for each in self.found])}

    def __str__(self) -> str:
        """Return a line for each axis, or one where all are alike."""
        return _lines(f"Repetitions for a field of {self.field}", self.found)


def solve_depths(graphs: Sequence[Graph], field: int) -> Depths:
    """Return how often the layers must be repeated for a receptive field of ``field`` along every axis."""
    return Depths(tuple(solve_depth(field, graph) for graph in graphs), field)


@dataclass(frozen=True)
class Tiles:
    """Exact tiles along each axis.

    Attributes:
        found: the tiles.
        size: size of the whole image along each axis; empty if none was asked about.
        parts: the tiles that cover it, along each axis.
    """

    found: tuple[Tile, ...]
    size: tuple[int, ...] = ()
    parts: tuple[tuple[Part, ...], ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return halos, and the ranges of each part."""
        names = ("size", "multiple", "advance", "halo", "inside")
        tiles = [{name: getattr(each, name) for name in names} for each in self.found]
        parts = {"parts": [list(map(asdict, cover)) for cover in self.parts]} if self.size else {}
        return {"tiles": tiles, **parts}

    def __str__(self) -> str:
        """Return the halos, and the parts of the image."""
        covers = (
            f"{i} in {len(cover)}: {'; '.join(map(str, cover))}" for i, cover in zip(self.size, self.parts, strict=True)
        )
        halos = _lines("Tiles", [str(each).removeprefix("tiles ") for each in self.found])
        return "\n".join([halos, *dict.fromkeys(covers)])


def solve_tiles(graphs: Sequence[Graph], tile: int, size: Sequence[int] = ()) -> Tiles:
    """Return the tiles of size ``tile`` that give exactly the whole, and how they cover an image of size ``size``."""
    found = tuple(solve_tile(graph, tile) for graph in graphs)
    sizes = broadcast_sizes("size", size, len(found)) if size else ()
    return Tiles(found, sizes, tuple(each.cover(i) for each, i in zip(found, sizes, strict=False)))


PaddingChoice = str | Pair | list[int] | None


@dataclass(frozen=True)
class WindowOptions:
    """The windows (kernel, stride, padding, dilation) that a search for layers looks at; None: all usual ones.

    Attributes:
        kernel: kernel sizes.
        stride: strides (default: up to the kernel's span).
        paddings: words, pairs (before, after) or lists of numbers (default: up to half of the kernel's span).
        dilation: dilations.
    """

    kernel: Sequence[int] | None = None
    stride: Sequence[int] | None = None
    paddings: Sequence[PaddingChoice] = (None,)
    dilation: Sequence[int] = (1,)

    def windows(self) -> list[Window]:
        """Return every window; kernels must be given.

        Raises:
            ConfigError: there is no kernel.
        """
        if not self.kernel:
            raise ConfigError("kernel: got none; expected the kernels to try, since all have endless answers.")
        found = []
        for k in self.kernel:
            for d in self.dilation:
                e = span(k, d)
                found += [Window(k, s, p, d) for s in self.stride or range(1, e + 1) for p in self._paddings(e)]
        return found

    def _paddings(self, e: int) -> list[int | Pair | str]:
        if list(self.paddings) == [None]:
            return list(range(e // 2 + 1))
        found: list[int | Pair | str] = []
        for each in self.paddings:
            found += each if isinstance(each, list) else [] if each is None else [each]
        return found


@dataclass(frozen=True)
class LayersBetween:
    """Every layer that makes one size of another, along one axis."""

    input: int
    output: int
    windows: tuple[Window, ...]
    equation: str
    domain: str

    def to_dict(self) -> dict[str, object]:
        """Return the layers with their numbers and the padding (before, after)."""
        rows = [
            {
                "layer": str(w), "kernel": w.k, "stride": w.s, "padding": w.p, "dilation": w.d,
                "padded": w.padding(self.input),
            }
            for w in self.windows
        ]  # fmt: skip
        return {"input": self.input, "output": self.output, "solutions": rows, "equation": self.equation}


def solve_layers(
    sizes: Sequence[int], output: Sequence[int], options: WindowOptions, field: int | None = None
) -> tuple[LayersBetween, ...]:
    """Return every layer that makes ``output`` of ``sizes``, an entry for each different pair of sizes.

    Args:
        sizes: input size along each axis.
        output: output size along each axis; one is that of all axes.
        options: the windows to look at.
        field: receptive field that the layer must have.

    >>> (found,) = solve_layers((224,), (112,), WindowOptions(kernel=(3, 7), stride=(2,)))
    >>> [str(window) for window in found.windows]
    ['k3s2p1', 'k7s2p3']
    """
    found = []
    for i, o in dict.fromkeys(zip(sizes, broadcast_sizes("output", output, len(sizes)), strict=True)):
        answers: list[Windows] = [
            solve_windows(i, o, options.kernel, options.stride, padding, options.dilation, field)
            for padding in options.paddings
        ]
        windows = tuple(window for each in answers for window in each)
        found.append(LayersBetween(i, o, windows, answers[0].equation, answers[0].domain))
    return tuple(found)


@dataclass(frozen=True)
class LayerInputs:
    """One layer, and the input sizes of which it makes the wanted output."""

    layer: Window
    inputs: tuple[Inputs, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the layer and the sizes, an entry an axis."""
        return {"layer": str(self.layer), "accepted": [each.to_dict() for each in self.inputs]}


def solve_layer_inputs(output: Sequence[int], options: WindowOptions) -> tuple[LayerInputs, ...]:
    """Return every layer of ``options`` with the input sizes of which it makes ``output``.

    Raises:
        ConfigError: ``options`` has no kernels.
    """
    return tuple(
        LayerInputs(window, tuple(solve_inputs(Graph.chain(window), size) for size in output))
        for window in options.windows()
    )


def _field_dict(fields: Sequence[Field]) -> dict[str, list[object]]:
    names = {"field": "size", "stride": "stride", "offset": "offset", "holes": "holes"}
    return {key: [getattr(field, name) for field in fields] for key, name in names.items()}


def describe_sizes(found: Sequence[Inputs]) -> str:
    """Return the sizes and equations of all axes, once where they are alike."""
    texts = [str(each) for each in found]
    return texts[0] if len(set(texts)) == 1 else "; ".join(f"axis {axis} {text}" for axis, text in enumerate(texts))


def _lines(title: str, found: Sequence[object]) -> str:
    texts = [str(each) for each in found]
    if len(set(texts)) == 1:
        return f"{title}: {texts[0]}"
    return "\n".join(f"{title} along axis {axis}: {text}" for axis, text in enumerate(texts))
