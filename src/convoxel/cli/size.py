"""``convoxel size``: convolution arithmetic forwards and backwards, one question a subcommand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import Assign, Json, command
from convoxel.cli.parsing import parse_options, parse_paddings, parse_range, parse_shape, parse_sizes
from convoxel.cli.screen import Screen, emit, plural, times
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.arithmetic import Alignment, Graph
    from convoxel.arithmetic.image import Depths, ImageInputs, Tiles, WindowOptions
    from convoxel.lookup import NetworkSizes

app = typer.Typer(
    no_args_is_help=True,
    help="Answer questions about sizes and receptive fields of layers and networks, in 1-D, 2-D and 3-D.\n\n"
    "A layer is k3 (convolution), pool2, t2s2 (transposed), up2, down2, unpool2, pad1, adaptive7 or exact5, followed "
    "by s stride, p padding (p1, p1:2 before and after, psame, phalf, pfull, pcausal), d dilation, a rows that a "
    "transposed convolution adds, c rounding up; x4 repeats it. Numbers differ by axis in k3,3,1. A network is a name "
    "of `convoxel models`, the folder of a run, or an .onnx or .cvx file.",
    epilog="Example: convoxel size output 224 k7s2p3 pool3s2p1 k3x4",
)

# Solutions that a terminal shows; `--json` has all.
_SHOWN = 60

Chain = Annotated[list[str], typer.Argument(metavar="LAYER...|NETWORK", help="Layers such as k3s2p1, or one network.")]
Layers = Annotated[list[str], typer.Argument(metavar="LAYER...", help="Layers such as k3s2p1.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Input shape that the network takes, such as 1,3,224,224 (default: a usual one)."),
]
Kernel = Annotated[str | None, typer.Option(help="Kernel sizes to try, such as 3, 1,3,5 or 1..7 (default: all).")]
Stride = Annotated[str | None, typer.Option(help="Strides to try (default: up to the kernel's span).")]
Padding = Annotated[
    str | None,
    typer.Option(help="Paddings to try: numbers, 1:2 (before, after) or words (default: up to half of the kernel)."),
]
Dilation = Annotated[str | None, typer.Option(help="Dilations to try (default: 1).")]


@command(app, "convoxel size output 224 k7s2p3 pool3s2p1 k3x4")
def output(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="Input size, such as 224 or 128x128x64.")],
    chain: Chain,
    assign: Assign = None,
    shape: Shapes = None,
    json: Json = False,
) -> None:
    """Compute the output size of layers or of a network for a given input size.

    Of layers, also the size, receptive field, stride and offset behind each of them, and the input sizes that fit.
    """
    sizes = _sizes("size", size)
    network = _network(chain, assign, shape, len(sizes))
    if network is not None:
        came, results = network.run(sizes)
        if json:
            emit({"network": network.name, "input": came[2:], "output": results})
        else:
            Screen().say(f"{times(came)} → {', '.join(map(times, results))}")
        return
    from convoxel.arithmetic.image import describe_sizes, join_axes, trace_chain

    found = trace_chain(_graphs(chain, len(sizes)), sizes)
    if json:
        return emit(found.to_dict())
    screen = Screen()
    rows = (
        (row.layer, times(row.size), *(join_axes(getattr(f, name) for f in row.fields) for name in _FIELD_COLUMNS))
        for row in found.rows
    )
    screen.table("layer|>size|>field|>stride|>offset", rows)
    screen.say(f"Input sizes that fit: {describe_sizes(found.accepted)}")
    if found.holes:
        screen.say(f"Of the field, up to {found.holes} inputs along an axis are skipped (dilation or stride).")


_FIELD_COLUMNS = ("size", "stride", "offset")


@command(app, "convoxel size inputs 56 k7s2p3 pool3s2p1")
def inputs(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[OUTPUT] LAYER...|NETWORK", help="Wanted output size, then layers or one network."),
    ],
    assign: Assign = None,
    shape: Shapes = None,
    json: Json = False,
) -> None:
    """List the input sizes that layers or a network take, or those that give a wanted output size."""
    from convoxel.arithmetic.image import describe_sizes, solve_image_inputs

    wanted = _sizes("output", words[0]) if re.match(r"\d+([x×,.]|$)", words[0]) else None
    chain = words[1:] if wanted else words
    if not chain:
        raise ConfigError(f"output: got {words[0]} alone; expected layers or a network after it, such as k3.")
    network = _network(chain, assign, shape, len(wanted or ()))
    if network is not None and wanted is None:
        came, results = network.run(network.valid.smallest)
        if json:
            return emit({"network": network.name, **network.valid.to_dict(), "output": results})
        known = network.valid.inputs
        screen = Screen()
        screen.say(f"{network.name} takes {describe_sizes(known) if known else network.valid}")
        screen.say(f"smallest: {times(came)} → {', '.join(map(times, results))}")
        return
    if network is not None:
        found = solve_image_inputs(network.inputs, wanted)
    else:
        from convoxel.arithmetic import solve_inputs

        axes = max(len(wanted or ()), *(word.count(",") + 1 for word in chain))
        found = solve_image_inputs([solve_inputs(graph) for graph in _graphs(chain, axes)], wanted)
    _show(found, json)


@command(app, "convoxel size layers 224 112 --kernel 1..7 --stride 2")
def layers(
    size: Annotated[str, typer.Argument(metavar="INPUT", help="Input size, such as 224 or 128x128x64.")],
    wanted: Annotated[str, typer.Argument(metavar="OUTPUT", help="Output size, likewise.")],
    kernel: Kernel = None,
    stride: Stride = None,
    padding: Padding = None,
    dilation: Dilation = None,
    field: Annotated[int | None, typer.Option(help="Receptive field that the layer must have (default: any).")] = None,
    json: Json = False,
) -> None:
    """List the layers (kernel, stride, padding, dilation) that make one size of another."""
    from convoxel.arithmetic.image import solve_layers

    options = _window_options(kernel, stride, padding, dilation)
    found = solve_layers(_sizes("size", size), _sizes("output", wanted), options, field)
    if json:
        return emit({"axes": [each.to_dict() for each in found]})
    screen = Screen()
    for each in found:
        count = plural(len(each.windows), "layer") if each.windows else "no layer"
        screen.say(f"{each.input} → {each.output}: {count} with {each.equation}")
        screen.say(f"  searched: {each.domain}")
        if each.windows:
            hidden = len(each.windows) - _SHOWN
            more = f" … and {hidden} more (--json lists all; --kernel, --stride narrow down)" if hidden > 0 else ""
            screen.say("  " + "  ".join(map(str, each.windows[:_SHOWN])) + more)


@command(app, "convoxel size sources 56 --kernel 3,5 --padding same")
def sources(
    wanted: Annotated[str, typer.Argument(metavar="OUTPUT", help="Output size, such as 56 or 56x28.")],
    kernel: Annotated[str, typer.Option(help="Kernel sizes to try, such as 3, 1,3,5 or 1..7.")],
    stride: Stride = None,
    padding: Padding = None,
    dilation: Dilation = None,
    json: Json = False,
) -> None:
    """List single layers together with the input sizes of which each makes a wanted output size."""
    from convoxel.arithmetic.image import solve_layer_inputs

    sizes = _sizes("output", wanted)
    found = solve_layer_inputs(sizes, _window_options(kernel, stride, padding, dilation))
    if json:
        return emit({"output": sizes, "solutions": [each.to_dict() for each in found]})
    screen = Screen()
    screen.say(f"Output {times(sizes)}:")
    rows = ((each.layer, times((i.sizes for i in each.inputs), " × "), each.inputs[0].equation) for each in found)
    screen.table("layer|input|equation", rows)


@command(app, "convoxel size depth 224 k3p1x2 pool2")
def depth(
    field: Annotated[int, typer.Argument(metavar="FIELD", min=1, help="Receptive field in pixels.")],
    chain: Layers,
    json: Json = False,
) -> None:
    """Compute how often layers must be repeated for a wanted receptive field."""
    from convoxel.arithmetic.image import solve_depths

    _show(solve_depths(_graphs(chain), field), json)


@command(app, "convoxel size tiles 64 k3p1x4 pool2 --image 150")
def tiles(
    tile: Annotated[int, typer.Argument(metavar="TILE", min=1, help="Size of a tile along each axis.")],
    chain: Chain,
    image: Annotated[str | None, typer.Option(help="Size of an image that the tiles must cover.")] = None,
    assign: Assign = None,
    shape: Shapes = None,
    json: Json = False,
) -> None:
    """Compute the halo of tiles whose outputs together equal those of the whole image exactly."""
    from convoxel.arithmetic.image import solve_tiles

    sizes = () if image is None else _sizes("image", image)
    network = _network(chain, assign, shape, len(sizes))
    graphs = _graphs(chain, len(sizes)) if network is None else network.graphs
    _show(solve_tiles(graphs, tile, sizes), json)


@command(app, "convoxel size align k1 'k3d2 k3'")
def align(
    first: Annotated[str, typer.Argument(metavar="BRANCH", help="Layers of one branch, in quotes.")],
    second: Annotated[str, typer.Argument(metavar="BRANCH", help="Layers of the other branch, in quotes.")],
    layer: Annotated[int, typer.Option(min=0, help="Layer of the other branch to pad, counted from 0.")] = 0,
    json: Json = False,
) -> None:
    """Compute the padding with which two branches of the same input fit when they are joined."""
    from convoxel.arithmetic import parse_chain, solve_alignment

    _show(solve_alignment(parse_chain(first), parse_chain(second), layer), json)


def _show(found: Alignment | Depths | ImageInputs | Tiles, json: bool) -> None:
    if json:
        emit(found.to_dict())
    else:
        Screen().say(str(found))


def _sizes(name: str, text: str) -> tuple[int, ...]:
    return parse_sizes(name, text, count=(1, 3))


def _graphs(chain: list[str], axes: int = 0) -> tuple[Graph, ...]:
    """Return the chain along each axis; without a size, its numbers tell how many axes there are."""
    from convoxel.arithmetic import parse_chains

    return parse_chains(chain, axes or max(word.count(",") + 1 for word in chain))


def _network(chain: list[str], assign: list[str] | None, shape: list[str] | None, axes: int) -> NetworkSizes | None:
    """Return the network that a single word means, or None for layers.

    ``axes`` is the number of sizes that were given: more than one tell how many axes a network of the zoo has.
    """
    from convoxel.arithmetic.notation import KINDS
    from convoxel.lookup import find_network, is_file, open_sizes

    (word, *more) = chain
    if more or (re.match(rf"({'|'.join(KINDS)})-?\d", word) and not is_file(word)):
        if assign or shape:
            raise ConfigError("size: --set and --shape belong to a network, but layers are given. Leave them out.")
        return None
    from convoxel.models import names

    options = parse_options(assign)
    if axes > 1 and not shape and word in names():
        options.setdefault("dims", axes)
    shapes = [found for found in map(parse_shape, shape or ()) if found]
    return open_sizes(find_network(word, shapes, options), word)


def _window_options(kernel: str | None, stride: str | None, padding: str | None, dilation: str | None) -> WindowOptions:
    from convoxel.arithmetic import PADDING_WORDS
    from convoxel.arithmetic.image import WindowOptions

    return WindowOptions(
        kernel=parse_range("kernel", kernel),
        stride=parse_range("stride", stride),
        paddings=parse_paddings(padding, PADDING_WORDS),
        dilation=parse_range("dilation", dilation) or [1],
    )
