"""``convoxel draw …``: pictures of layers and networks as SVG, PNG, GIF or a web page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convoxel.cli.options import Assign, Json, Network, Shape, Weights, command
from convoxel.cli.parsing import parse_options, parse_padding, parse_shape, parse_sizes
from convoxel.cli.screen import Screen, emit
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw import Figure
    from convoxel.draw.network_outline import Subject
    from convoxel.files.values import JsonObject
    from convoxel.lookup import NamedNetwork

app = typer.Typer(
    no_args_is_help=True,
    help="Draw layers and networks: what slides, what is read, what is seen, what is held.",
    epilog="Example: convoxel draw conv --size 5x5 --kernel 3 --stride 2 --padding same --svg conv.svg",
)


Size = Annotated[str, typer.Option(help="Input size, such as 7, 5x5 or 4x4x4.")]
Kernel = Annotated[str, typer.Option(help="Kernel size; one number for all axes, or 3x5.")]
Stride = Annotated[str, typer.Option(help="Stride, likewise.")]
Padding = Annotated[
    str, typer.Option(help="none, half, full, same or causal; or numbers: 1, 1x2, before:after as in 1:0.")
]
Dilation = Annotated[str, typer.Option(help="Dilation, likewise.")]
OutputPadding = Annotated[str, typer.Option(help="Outputs added at the end of a transposed convolution.")]
Kind = Annotated[
    Literal["correlation", "convolution", "transposed"],
    typer.Option(help="Operation; networks compute the correlation."),
]
Depth = Annotated[int | None, typer.Option(help="Parts of a module's path that make a node (default: all).", min=1)]

# The files that every picture can be written into, with the help of their options.
_FILES = {
    "svg": "Write SVG into this file (default: NAME.svg, if no file is named).",
    "png": "Write PNG into this file.",
    "gif": "Write GIF into this file.",
    "html": "Write a web page into this file.",
}
_THEME = Annotated[
    Literal["auto", "light", "dark"], typer.Option(help="Light or dark; auto follows the reader (PNG, GIF: light).")
]

Picture = Callable[..., "Figure | tuple[Figure, dict[str, object]]"]


def _picture(example: str, moving: bool = False) -> Callable[[Picture], Picture]:
    """Register a function that returns a figure, and further facts for --json, as a command that writes it.

    The command has the function's options and those of files; ``moving`` pictures can be GIFs too.
    """

    def register(function: Picture) -> Picture:
        formats = {name: help for name, help in _FILES.items() if moving or name != "gif"}
        function.__annotations__.pop("return", None)  # it names a class that only type checkers import
        own = inspect.signature(function, eval_str=True).parameters.values()

        def run(**given: Any) -> None:
            files = {name: given.pop(name) for name in formats}
            theme, json = given.pop("theme"), given.pop("json")
            for name, file in files.items():
                if file is not None and file.suffix.lower() != f".{name}":
                    raise ConfigError(f"{name}: got {file}; expected a file that ends in .{name}.")
            made = function(**given)
            _save(*(made if isinstance(made, tuple) else (made, {})), function.__name__, files, theme, json)

        keyword = inspect.Parameter.KEYWORD_ONLY
        common = [
            *(
                inspect.Parameter(n, keyword, default=None, annotation=Annotated[Path | None, typer.Option(help=text)])
                for n, text in formats.items()
            ),
            inspect.Parameter("theme", keyword, default="auto", annotation=_THEME),
            inspect.Parameter("json", keyword, default=False, annotation=Json),
        ]
        parameters = [parameter.replace(kind=keyword) for parameter in own] + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        command(app, example, function.__name__)(run)
        return function

    return register


def _save(
    figure: Figure, facts: dict[str, object], name: str, files: dict[str, Path | None], theme: str, json: bool
) -> None:
    """Write the figure into the files that were named, or NAME.svg, and say so."""
    named = [file for file in files.values() if file is not None] or [Path(f"{name}.svg")]
    written = [figure.save(file, None if theme == "auto" else theme) for file in named]
    if json:
        size = {"width": round(figure.width), "height": round(figure.height), "frames": figure.frames}
        return emit({"title": figure.title, "text": figure.text, **size, **facts, "files": written})
    screen = Screen()
    for line in (figure.title, figure.text, *(f"written: {file}" for file in written)):
        screen.say(line)


@_picture("convoxel draw conv --size 5x5 --kernel 3 --stride 2 --padding same --svg conv.svg", moving=True)
def conv(
    size: Size = "5x5",
    kernel: Kernel = "3",
    stride: Stride = "1",
    padding: Padding = "none",
    dilation: Dilation = "1",
    kind: Kind = "correlation",
    output_padding: OutputPadding = "0",
    border: Annotated[
        Literal["zeros", "reflect", "replicate", "circular"], typer.Option(help="Values on the padding.")
    ] = "zeros",
    view: Annotated[
        Literal["gather", "scatter"],
        typer.Option(help="Transposed: what an output gathers, or where an input scatters to."),
    ] = "gather",
    numbers: Annotated[bool, typer.Option("--numbers", help="Show values in the cells.")] = False,
    step: Annotated[int | None, typer.Option(help="Draw one step as a still, counted from 1.")] = None,
    strip: Annotated[int | None, typer.Option(help="Draw this many steps side by side as a still.")] = None,
    step_s: Annotated[float, typer.Option(help="Duration of one step in seconds.")] = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show a kernel sliding over its input, step by step, in 1-D, 2-D or 3-D.

    A transposed convolution is shown as a window over its stretched input, or with --view scatter as what each input
    adds to the output.
    """
    from convoxel import draw

    layer = _layer(size, kernel, stride, padding, dilation, kind, output_padding)
    figure = draw.conv(**layer, border=border, view=view, numbers=numbers, step_s=step_s)
    steps = figure.frames
    if step is not None and strip is not None:
        raise ConfigError("step: given together with strip; expected one of them. Leave the other out.")
    if step is not None:
        if not 1 <= step <= steps:
            raise ConfigError(f"step: got {step}; this layer has the steps 1 to {steps}.")
        figure = figure.still(step - 1)
    if strip is not None:
        if not 1 <= strip <= steps:
            raise ConfigError(f"strip: got {strip}; this layer has {steps} steps. Give 1 to {steps}.")
        figure = figure.strip(strip)
    return figure, {"steps": steps}


@_picture("convoxel draw matrix --size 3x3 --kernel 2 --sharing all --svg matrix.svg")
def matrix(
    size: Size = "4x4",
    kernel: Kernel = "3",
    stride: Stride = "1",
    padding: Padding = "none",
    dilation: Dilation = "1",
    kind: Kind = "correlation",
    output_padding: OutputPadding = "0",
    channels: Annotated[str, typer.Option(help="Channels in and out, such as 2x4.")] = "1x1",
    groups: Annotated[int, typer.Option(help="Groups of channels.")] = 1,
    sharing: Annotated[
        Literal["shared", "sparse", "dense", "all"],
        typer.Option(help="Convolution, locally connected, fully connected, or all."),
    ] = "shared",
    columns: Annotated[bool, typer.Option("--columns-first", help="Number pixels column by column.")] = False,
) -> Figure:
    """Show a layer as a matrix: what is not zero, which entries are the same weight, its Toeplitz blocks."""
    from convoxel import draw

    both = parse_sizes("channels", channels)
    if len(both) != 2:
        raise ConfigError(f"channels: got {channels!r}; expected channels in and out, such as 2x4.")
    layer = _layer(size, kernel, stride, padding, dilation, kind, output_padding)
    ways = ["dense", "sparse", "shared"] if sharing == "all" else sharing
    order = "F" if columns else "C"
    return draw.matrix(**layer, in_channels=both[0], out_channels=both[1], groups=groups, sharing=ways, order=order)


@_picture("convoxel draw overlap --kernel 3,4 --stride 2 --svg overlap.svg")
def overlap(
    kernel: Annotated[str, typer.Option(help="Kernel sizes, each drawn by itself.")] = "3,4",
    stride: Annotated[int, typer.Option(help="Stride.", min=1)] = 2,
    size: Size = "6x6",
    padding: Padding = "none",
) -> Figure:
    """Show how many inputs reach each output of a transposed convolution: uneven ones make checkerboards."""
    from convoxel import draw

    sizes = parse_sizes("size", size)
    return draw.overlap(parse_sizes("kernel", kernel), stride, parse_padding(padding, len(sizes)), size=sizes)


@_picture("convoxel draw network unet --shape 1,1,256,256 --svg unet.svg")
def network(model: Network, shape: Shape = None, assign: Assign = None, depth: Depth = None) -> Figure:
    """Show a network as a graph with shapes, parameters and receptive fields; U-Nets as a U."""
    from convoxel import draw

    return draw.network(_subject(model, shape, assign), depth=depth)


@_picture("convoxel draw field resnet18 --layer layer2 --at 14,14 --image photo.png --svg field.svg")
def field(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer whose output is meant (default: the last one with positions).")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Position of the output in its map (default: the middle).")] = None,
    image: Annotated[Path | None, typer.Option(help="Image or volume to draw over; the network sees its size.")] = None,
    effective: Annotated[bool, typer.Option("--effective", help="Measure the influence of each pixel too.")] = False,
    weights: Weights = None,
) -> Figure:
    """Show what one output sees of the image: its exact receptive field, and its measured influence."""
    from convoxel import draw

    pixels = None
    if image is not None:
        from convoxel.data import read_image

        pixels = read_image(image).image
        shape = shape or ",".join(map(str, (1, *pixels.shape)))
    place = None if at is None else parse_sizes("at", at, least=0)
    of = _subject(model, shape, assign)
    measured = None
    if weights is not None and not effective:
        raise ConfigError(
            f"weights: {weights} given without effective; a receptive field is that of any weights. Give --effective."
        )
    if effective:  # without a file of weights, zoo networks have those that training starts from
        from convoxel.inspect import effective_field

        found = _find(model, shape, assign, weights=True, weights_from=weights)
        x = found.shape if pixels is None else pixels[None]
        measured = effective_field(found.module, x, layer=layer, position=of.map(layer).place(place)).array
    # Of an image with neither one nor three channels, the first is drawn.
    shown = pixels if pixels is None or pixels.shape[0] in (1, 3) else pixels[0]
    return draw.field(of, at=place, layer=layer, image=shown, effective=measured)


@_picture("convoxel draw funnel resnet18 --svg funnel.svg")
def funnel(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN|FILE|CHAIN", help="A network, or layers such as 'k3 k3 pool2 k3'.")
    ],
    shape: Annotated[
        str | None, typer.Option(help="Input shape, such as 1,3,224,224; of a chain one number, such as 16.")
    ] = None,
    assign: Assign = None,
    axis: Annotated[int, typer.Option(help="Axis of the image (default: the last).")] = -1,
    depth: Depth = None,
) -> Figure:
    """Show how the receptive field grows from layer to layer, along one axis."""
    from convoxel import draw

    if re.search(r"\s", model.strip()) or re.fullmatch(r"(k|pool|t|conv)\d\S*", model):
        sizes = parse_sizes("shape", shape or "16")
        if len(sizes) != 1:
            raise ConfigError(f"shape: got {shape!r}; a chain of layers takes one size, such as 16.")
        return draw.funnel_of_chain(model, sizes[0])
    return draw.funnel(_subject(model, shape, assign), axis=axis, depth=depth)


@_picture("convoxel draw memory unet --svg memory.svg")
def memory(model: Network, shape: Shape = None, assign: Assign = None) -> Figure:
    """Show which values a network holds at which step, and where most are alive."""
    from convoxel import draw

    return draw.memory(_subject(model, shape, assign))


def _layer(
    size: str, kernel: str, stride: str, padding: str, dilation: str, kind: str, output_padding: str
) -> JsonObject:
    sizes = parse_sizes("size", size)
    return {
        "size": sizes,
        "kernel": parse_sizes("kernel", kernel),
        "stride": parse_sizes("stride", stride),
        "padding": parse_padding(padding, len(sizes)),
        "dilation": parse_sizes("dilation", dilation),
        "kind": kind,
        "output_padding": parse_sizes("output_padding", output_padding, least=0),
    }


def _find(
    model: str, shape: str | None, assign: list[str] | None, weights: bool = False, weights_from: Path | None = None
) -> NamedNetwork:
    from convoxel.lookup import find_network

    known = parse_shape(shape)
    return find_network(
        model, () if known is None else [known], parse_options(assign), weights=weights, weights_from=weights_from
    )


def _subject(model: str, shape: str | None, assign: list[str] | None) -> Subject:
    """Return the network that the command is told to draw, traced."""
    import dataclasses

    from convoxel.draw.network_outline import subject

    found = _find(model, shape, assign)
    return dataclasses.replace(subject(found.source, found.shape), name=found.name)
