"""``convoxel size``: convolution arithmetic forwards and backwards, for one layer or a chain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from convoxel.cli.network import choose_network, is_file, open_file
from convoxel.cli.screen import console, emit, say, table
from convoxel.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from convoxel.arithmetic import Field, Graph, Inputs, SizeSet

__all__ = ["size"]

# Solutions that a terminal shows; `--json` has all.
_SHOWN = 60


def size(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SIZE] [LAYER|NETWORK]...",
            help="Size such as 224 or 128x128x64, then layers, or one network.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Backwards: the output size that is wanted.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Backwards: kernels to try: 3, 1,3,5 or 1..7; all.")] = None,
    stride: Annotated[str | None, typer.Option(help="Strides to try; up to the kernel's span.")] = None,
    padding: Annotated[
        str | None, typer.Option(help="Paddings to try: numbers, 1:2 (before, after) or a word; up to half a kernel.")
    ] = None,
    dilation: Annotated[str | None, typer.Option(help="Dilations to try; 1.")] = None,
    field: Annotated[int | None, typer.Option(help="Receptive field that is wanted.")] = None,
    tile: Annotated[int | None, typer.Option(help="Halo of tiles of this size that give exactly the whole.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=3.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="A shape that the network takes, n,channels,*sizes; a usual one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Tell sizes, receptive fields, strides and offsets through layers, in 1-D, 2-D and 3-D, and solve for them.

    A layer is k3 (convolution), pool2, t2s2 (transposed), up2, down2, unpool2, pad1, adaptive7, exact5, followed by s
    stride, p padding (p1, p1:2 before and after, psame, phalf, pfull, pcausal), d dilation, a rows that a transposed
    convolution adds, c rounding up; x4 repeats it. Numbers by axis: k3,3,1. Without a size: which sizes fit. Instead of
    layers, a network: a name of `convoxel models`, a run's folder, an .onnx or .cvx file.

    Backwards: --output with layers or a network gives every input size; with a size or --kernel, every layer that
    leads there. --field with layers tells how often they must be repeated.
    """
    given = list(words or [])
    sizes = _sizes("size", given.pop(0)) if given and re.match(r"\d+([x×,.]|$)", given[0]) else None
    wanted = None if output is None else _sizes("output", output)
    tried = {
        "kernel": _choices("kernel", kernel),
        "stride": _choices("stride", stride),
        "padding": _paddings(padding),
        "dilation": _choices("dilation", dilation) or [1],
    }
    _check(given, sizes, wanted, field, tile, any((kernel, stride, padding, dilation)))
    answer = _answer(given, sizes, wanted, tried, field, tile, assign, shape or [])
    if json:
        emit(answer.report)
    else:
        answer.show()


def _answer(
    words: list[str],
    sizes: Any,
    wanted: Any,
    tried: dict[str, Any],
    field: int | None,
    tile: int | None,
    assign: list[str] | None,
    shape: list[str],
) -> _Answer:
    """Choose by what is given which question it is."""
    network = _network_of(words)
    if network is None and (assign or shape):
        raise ConfigError("size: --set and --shape belong to a network, but none is given. Name one of them.")
    if network is not None:
        if field is not None:
            raise ConfigError(f"size: --field repeats layers, but {network} is a network. Leave --field out.")
        return _network(_Chosen.open(network, sizes or wanted or (), assign, shape), sizes, wanted, tile)
    if words:
        return _chain(words, sizes, wanted, field, tile)
    assert wanted is not None
    return _layers(sizes, wanted, tried, field) if sizes else _inputs_of_layers(wanted, tried)


class _Answer:
    """What one call found: an object for programs; lines and tables for people."""

    def __init__(self, report: dict[str, Any], *parts: Any) -> None:
        self.report = report
        self.parts = parts

    def show(self) -> None:
        """Print the parts: text as it is, tables as rich draws them."""
        screen = console()
        for part in self.parts:
            if isinstance(part, str):
                say(screen, part)
            else:
                screen.print(part)


def _check(layers: list[str], sizes: Any, wanted: Any, field: int | None, tile: int | None, tried: bool) -> None:
    """Refuse what does not go together, before anything is computed."""
    if layers and tried:
        raise ConfigError(
            f"size: --kernel, --stride, --padding and --dilation look for a layer, but layers are given: "
            f"{' '.join(layers)}. Leave one or the other out."
        )
    if layers and sizes and wanted:
        raise ConfigError("size: with layers give a size (forwards) or --output (backwards), not both.")
    if layers and sum(each is not None for each in (wanted, field, tile)) > 1:
        raise ConfigError("size: with layers, --output, --field and --tile are three questions. Ask one.")
    if not layers and wanted is None:
        raise ConfigError(
            "size: nothing to compute; expected a size and layers, such as: convoxel size 224 k7s2p3 pool3s2p1."
        )
    if not layers and tile is not None:
        raise ConfigError("size: --tile needs layers, such as: convoxel size --tile 64 k3p1x4 pool2.")
    if not layers and not sizes and field is not None:
        raise ConfigError("size: --field needs layers, or a size beside --output. Give one of them.")


def _chain(layers: list[str], sizes: Any, wanted: Any, field: int | None, tile: int | None) -> _Answer:
    from convoxel.arithmetic import parse_chains

    axes = len(sizes or wanted or ()) or max(word.count(",") for word in layers) + 1
    if sizes is None and wanted is not None and len(wanted) == 1:
        axes = max(axes, max(word.count(",") for word in layers) + 1)
        wanted = wanted * axes
    graphs = parse_chains(layers, axes)
    if sizes is not None and field is None and tile is None:
        return _forwards(graphs, sizes)
    if field is not None:
        return _depth(graphs, field)
    if tile is not None:
        return _tiles(graphs, tile, sizes)
    from convoxel.arithmetic import solve_inputs

    return _accepted([solve_inputs(graph) for graph in graphs], wanted)


def _forwards(graphs: Sequence[Graph], sizes: tuple[int, ...]) -> _Answer:
    """The size, field, stride and offset behind every layer."""
    from convoxel.arithmetic import solve_inputs

    along = [graph.sizes(i) for graph, i in zip(graphs, sizes, strict=True)]
    fields = [graph.fields(i) for graph, i in zip(graphs, sizes, strict=True)]
    names = ["input", *(str(node) for node in graphs[0].nodes)]
    rows, lines = [], []
    for name, own, seen in zip(names, zip(*along, strict=True), zip(*fields, strict=True), strict=True):
        rows.append({"layer": name, "size": list(own), **_plain(seen)})
        columns = ([f.size for f in seen], [f.stride for f in seen], [f.offset for f in seen])
        lines.append((name, _times(own, full=True), *map(_times, columns)))
    accepted = [solve_inputs(graph) for graph in graphs]
    report = {"input": list(sizes), "layers": rows, "output": rows[-1]["size"], **_plain(tuple(f[-1] for f in fields))}
    remarks = [f"Input sizes that fit: {_alike(accepted)}"]
    holes = max(f[-1].holes for f in fields)
    if holes:
        remarks.append(f"Of the field, up to {holes} inputs along an axis are skipped (dilation or stride).")
    shown = table("layer|>size|>field|>stride|>offset", lines)
    return _Answer({**report, "accepted": [_known(each) for each in accepted]}, shown, *remarks)


def _accepted(found: Sequence[Inputs], wanted: tuple[int, ...] | None) -> _Answer:
    """The input sizes that fit, of ``found``, or those of them that give the wanted output."""
    given = found if wanted is None else [each.giving(o) for each, o in zip(found, wanted, strict=True)]
    report: dict[str, Any] = {"accepted": [_known(each) for each in given]}
    if wanted is not None:
        report["output"] = list(wanted)
        if not all(each.sizes for each in given):
            axis = next(axis for axis, each in enumerate(given) if not each.sizes)
            reachable = _reachable(found[axis], wanted[axis])
            return _Answer(report, f"No input size gives {_times(wanted, full=True)}. {reachable}")
    return _Answer(report, f"Input sizes: {_alike(given)}")


def _reachable(inputs: Inputs, wanted: int) -> str:
    """Say which outputs near the wanted one some input gives."""
    near = [o for o in range(max(1, wanted - 64), wanted + 65) if inputs.giving(o).sizes]
    below, above = [o for o in near if o < wanted], [o for o in near if o > wanted]
    found = [str(o) for o in (*below[-1:], *above[:1])]
    return f"Outputs near it that some input gives: {' and '.join(found) or 'none'}."


class _Chosen(NamedTuple):
    """A network, opened: what it accepts, how its axes go, and a shape that it takes."""

    name: str
    source: Any
    shapes: tuple[tuple[int, ...], ...]
    routes: Any
    admission: Any

    @classmethod
    def open(cls, network: str, sizes: tuple[int, ...], assign: list[str] | None, shape: list[str]) -> _Chosen:
        """Open the network; ``sizes`` tell its number of axes unless there is one of them or a shape."""
        from convoxel.inspect.axis_graph import follow_axes
        from convoxel.inspect.describe import open_source
        from convoxel.inspect.valid_sizes import find_sizes

        if is_file(network):
            source, shapes = open_file(network, shape, assign)
        else:
            told = any(option.partition("=")[0].strip() == "dims" for option in assign or [])
            dims = [f"dims={len(sizes)}"] if len(sizes) > 1 and not told and not shape else []
            one = shape[0] if shape else None
            model, _, usual = choose_network(network, one, [*(assign or []), *dims] or None, weights=False)
            source, shapes, _ = open_source(model, (usual,))
        routes = follow_axes(source.trace(shapes))
        admission = find_sizes(source.accepts, shapes, routes)
        if admission is None:
            raise ConfigError(f"size: {network} takes {_times(shapes[0], full=True)}, which has no image axes.")
        return cls(network, source, shapes, routes, admission)


def _network_of(words: list[str]) -> str | None:
    """Return the word that names a network, if there is one word and it cannot be a layer."""
    from convoxel.arithmetic.notation import KINDS

    if len(words) != 1 or (re.match(rf"({'|'.join(KINDS)})-?\d", words[0]) and not is_file(words[0])):
        return None
    return words[0]


def _network(chosen: _Chosen, sizes: Any, wanted: Any, tile: int | None) -> _Answer:
    """What a network accepts, what comes out, the inputs for an output, or its tiles."""
    axes = len(chosen.shapes[0]) - 2
    sizes, wanted = (_broadcast(name, given, axes) for name, given in (("size", sizes), ("output", wanted)))
    inputs = chosen.admission.inputs
    if tile is not None:
        if chosen.routes is None or inputs is None:
            raise ConfigError(
                f"size: {chosen.name} cannot be tiled: its output has no image axes that can be followed."
            )
        return _tiles([route.graph for route in chosen.routes], tile, sizes)
    if wanted is not None:
        if inputs is None:
            results = chosen.source.accepts(chosen.shapes)
            raise ConfigError(
                f"size: {chosen.name} makes {_times(results[0], full=True)} of {_times(chosen.shapes[0], full=True)}; "
                "no output along the image's axes follows from the size. Leave --output out."
            )
        return _accepted(inputs, wanted)
    report: dict[str, Any] = {"network": chosen.name, **chosen.admission.to_dict()}
    lines = []
    for spatial in (chosen.admission.smallest, *([sizes] if sizes else [])):
        shapes, results = _run(chosen, spatial)
        lines.append(f"{_times(shapes, full=True)} → {', '.join(_times(result, full=True) for result in results)}")
        report["output"] = [list(result) for result in results]
    report["input"] = list(sizes or chosen.admission.smallest)
    what = _alike(inputs) if inputs else str(chosen.admission)
    lines = [f"{chosen.name} takes {what}", f"smallest: {lines[0]}", *lines[1:]]
    return _Answer(report, *lines)


def _run(chosen: _Chosen, spatial: Sequence[int]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Return the shape of the first input of these sizes, and what comes out of it."""
    first, *more = chosen.shapes
    shape = (*first[:2], *spatial)
    alike = [(*each[:2], *spatial) if each[2:] == first[2:] else each for each in more]
    results = chosen.source.accepts((shape, *alike))
    if results is None:
        near = [
            " or ".join(map(str, known.nearest(i))) for known, i in zip(chosen.admission.sizes, spatial, strict=True)
        ]
        raise ShapeError(
            f"size: {chosen.name} does not take {_times(spatial, full=True)}, but: {chosen.admission}. "
            f"The nearest: {_times(near)}."
        )
    return shape, results


def _broadcast(name: str, sizes: tuple[int, ...] | None, axes: int) -> tuple[int, ...] | None:
    """One size is the same along every axis."""
    if sizes is None or len(sizes) == axes:
        return sizes
    if len(sizes) > 1:
        raise ConfigError(f"{name}: got {len(sizes)} sizes, but the network has {axes} image axes. Give one an axis.")
    return sizes * axes


def _depth(graphs: Sequence[Graph], field: int) -> _Answer:
    """How often the layers must be repeated."""
    from convoxel.arithmetic import solve_depth

    found = [solve_depth(field, graph) for graph in graphs]
    report = {"repeats": [each.count for each in found], **_plain(tuple(each.field for each in found))}
    lines = [f"Repetitions for a field of {field}{_axis(axis, found)}: {each}" for axis, each in enumerate(found)]
    return _Answer(report, *(lines[:1] if len(set(map(str, found))) == 1 else lines))


def _tiles(graphs: Sequence[Graph], tile: int, sizes: tuple[int, ...] | None) -> _Answer:
    """The halo of exact tiles, and the tiles that cover a given size."""
    from convoxel.arithmetic import solve_tile

    found = [solve_tile(graph, tile) for graph in graphs]
    rows = [
        {
            "size": each.size, "multiple": each.multiple, "advance": each.advance,
            "halo": [_number(side) for side in each.halo], "inside": list(each.inside),
        }
        for each in found
    ]  # fmt: skip
    report: dict[str, Any] = {"tiles": rows}
    lines = [f"Tiles{_axis(axis, found)}: {str(each).removeprefix('tiles ')}" for axis, each in enumerate(found)]
    lines = lines[:1] if len(set(map(str, found))) == 1 else lines
    if sizes:
        covers = [each.cover(i) for each, i in zip(found, sizes, strict=True)]
        report["parts"] = [[{"input": p.input, "output": p.output, "crop": p.crop} for p in cover] for cover in covers]
        told = (f"{i} in {len(cover)}: {'; '.join(map(str, cover))}" for i, cover in zip(sizes, covers, strict=True))
        lines += dict.fromkeys(told)
    return _Answer(report, *lines)


def _layers(sizes: tuple[int, ...], wanted: tuple[int, ...], tried: dict[str, Any], field: int | None) -> _Answer:
    """Every layer that makes one size of another, along every axis."""
    from convoxel.arithmetic import solve_windows

    wanted = wanted * len(sizes) if len(wanted) == 1 else wanted
    if len(wanted) != len(sizes):
        raise ConfigError(f"output: got {len(wanted)} sizes, but the input has {len(sizes)} axes. Give one an axis.")
    report, parts = [], []
    for i, o in dict.fromkeys(zip(sizes, wanted, strict=True)):
        found = [
            solve_windows(i, o, tried["kernel"], tried["stride"], padding, tried["dilation"], field)
            for padding in tried["padding"]
        ]
        windows = [window for each in found for window in each]
        rows = [
            {"layer": str(w), "kernel": w.k, "stride": w.s, "padding": w.p, "dilation": w.d, "padded": w.padding(i)}
            for w in windows
        ]
        report.append({"input": i, "output": o, "solutions": rows, "equation": found[0].equation})
        parts += _listed(f"{i} → {o}", found[0].equation, found[0].domain, [str(w) for w in windows])
    return _Answer({"axes": report}, *parts)


def _listed(title: str, equation: str, domain: str, found: list[str]) -> list[str]:
    more = f" … and {len(found) - _SHOWN} more (--json lists all; --kernel, --stride narrow down)"
    listed = "  ".join(found[:_SHOWN]) + (more if len(found) > _SHOWN else "")
    what = f"{len(found)} layer{'' if len(found) == 1 else 's'}" if found else "no layer"
    return [f"{title}: {what} with {equation}", f"  looked at: {domain}", *([f"  {listed}"] if found else [])]


def _inputs_of_layers(wanted: tuple[int, ...], tried: dict[str, Any]) -> _Answer:
    """Every layer of the given kernels, and the input sizes that it makes the wanted one of."""
    from convoxel.arithmetic import Graph, Window, solve_inputs, span

    if not tried["kernel"]:
        raise ConfigError("size: --output alone has endless answers. Give layers, a size, or --kernel.")
    rows, lines = [], []
    for k in tried["kernel"]:
        for d in tried["dilation"]:
            for s in tried["stride"] or range(1, span(k, d) + 1):
                paddings = range(span(k, d) // 2 + 1) if tried["padding"] == [None] else _flat(tried["padding"])
                for p in paddings:
                    window = Window(k, s, p, d)
                    found = [solve_inputs(Graph.chain(window), o) for o in wanted]
                    rows.append({"layer": str(window), "accepted": [_known(each) for each in found]})
                    lines.append((str(window), " × ".join(str(each.sizes) for each in found), found[0].equation))
    title = f"Output {_times(wanted, full=True)}:"
    return _Answer({"output": list(wanted), "solutions": rows}, title, table("layer|input|equation", lines))


def _flat(paddings: list[Any]) -> list[Any]:
    return [p for each in paddings for p in (each if isinstance(each, list) else [each])]


def _sizes(name: str, text: str) -> tuple[int, ...]:
    parts = re.split(r"[x×,]", text)
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"{name}: got {text!r}; expected one to three sizes of at least 1, such as 224 or 128x128x64."
        )
    return tuple(map(int, parts))


def _choices(name: str, text: str | None) -> list[int] | None:
    """Read ``3``, ``1,3,5`` or ``1..7``."""
    if text is None:
        return None
    first, dots, last = text.partition("..")
    try:
        found = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 1 << 16:
        raise ConfigError(f"{name}: got {text!r}; expected numbers of at least 1, such as 3, 1,3,5 or 1..7.")
    return found


def _paddings(text: str | None) -> list[Any]:
    """Read paddings as `solve_windows` takes them, one question each: words, pairs, and all numbers together."""
    from convoxel.arithmetic import PADDING_WORDS

    if text is None:
        return [None]
    found: list[Any] = []
    numbers: list[int] = []
    for part in text.split(","):
        if part in PADDING_WORDS:
            found.append(part)
        elif match := re.fullmatch(r"(-?\d+):(-?\d+)", part):
            found.append((int(match[1]), int(match[2])))
        elif match := re.fullmatch(r"(-?\d+)(?:\.\.(\d+))?", part):
            numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
        else:
            raise ConfigError(
                f"padding: got {part!r}; expected a number, 1:2 (before, after), 0..3 or one of "
                f"{', '.join(PADDING_WORDS)}."
            )
    return [*found, *([numbers] if numbers else [])]


def _plain(fields: Sequence[Field]) -> dict[str, list[Any]]:
    """Fields as lists of numbers, an entry an axis."""
    return {
        "field": [field.size for field in fields],
        "stride": [_number(field.stride) for field in fields],
        "offset": [_number(field.offset) for field in fields],
        "holes": [field.holes for field in fields],
    }


def _known(inputs: Inputs) -> dict[str, Any]:
    """Input sizes for programs: single ones, and progressions start + step · n."""
    sizes: SizeSet = inputs.sizes
    found = {
        "exceptions": list(sizes.exceptions),
        "starts": list(sizes.starts),
        "step": sizes.step,
        "smallest": sizes.smallest,
    }
    return {**found, "text": str(sizes), "equation": inputs.equation}


def _alike(found: Sequence[object]) -> str:
    texts = [str(each) for each in found]
    return texts[0] if len(set(texts)) == 1 else "; ".join(f"axis {axis} {text}" for axis, text in enumerate(texts))


def _axis(axis: int, found: Sequence[object]) -> str:
    return f" along axis {axis}" if len(set(map(str, found))) > 1 else ""


def _times(values: Sequence[Any], full: bool = False) -> str:
    """Join an entry an axis by ×; one entry where all are alike, unless ``full``."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 and not full else "×".join(texts)


def _number(value: int | Fraction) -> int | float:
    return int(value) if value == int(value) else float(value)
