"""``convoxel draw …``: pictures of layers and networks as SVG, PNG, GIF or a web page."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.network import choose_network, is_file, open_file
from convoxel.cli.screen import console, emit, say
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw import Figure

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Draw layers and networks: what slides, what is read, what is seen, what is held.",
)


class Kind(str, Enum):
    """What a layer computes."""

    correlation = "correlation"
    convolution = "convolution"
    transposed = "transposed"


class Border(str, Enum):
    """What lies on the padding."""

    zeros = "zeros"
    reflect = "reflect"
    replicate = "replicate"
    circular = "circular"


class View(str, Enum):
    """From where a transposed convolution is seen."""

    gather = "gather"
    scatter = "scatter"


class Sharing(str, Enum):
    """Which entries of a matrix are the same weight."""

    shared = "shared"
    sparse = "sparse"
    dense = "dense"
    all = "all"


class Theme(str, Enum):
    """Which page a picture is for."""

    auto = "auto"
    light = "light"
    dark = "dark"


Size = Annotated[str, typer.Option(help="Input size, such as 7, 5x5 or 4x4x4.")]
Kernel = Annotated[str, typer.Option(help="Kernel size; one number for all axes, or 3x5.")]
Stride = Annotated[str, typer.Option(help="Stride, likewise.")]
Padding = Annotated[
    str, typer.Option(help="none, half, full, same or causal; or numbers: 1, 1x2, before:after as in 1:0.")
]
Dilation = Annotated[str, typer.Option(help="Dilation, likewise.")]
OutputPadding = Annotated[str, typer.Option(help="Outputs added at the end (transposed).")]
KindOption = Annotated[Kind, typer.Option(help="What is computed; networks compute the correlation.")]
Network = Annotated[
    str, typer.Argument(metavar="MODEL|RUN|FILE", help="Name of `convoxel models`, a run's folder, or an .onnx file.")
]
Shape = Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; a usual one unless given.")]
Assign = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2.")
]
Depth = Annotated[int | None, typer.Option(help="Parts of a module's path that make a node.", min=1)]
Svg = Annotated[Path | None, typer.Option(help="Write SVG to this file; NAME.svg here if no file is named.")]
Png = Annotated[Path | None, typer.Option(help="Write PNG to this file.")]
Gif = Annotated[Path | None, typer.Option(help="Write GIF to this file.")]
Html = Annotated[Path | None, typer.Option(help="Write a web page to this file.")]
ThemeOption = Annotated[Theme, typer.Option(help="Light or dark; auto follows the reader (PNG, GIF: light).")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]


def _add(example: str) -> Any:
    """Register a command with its example; lines of a docstring end where the terminal's do."""

    def register(function: Any) -> Any:
        paragraphs = [" ".join(text.split()) for text in (function.__doc__ or "").split("\n\n")]
        return app.command(help="\n\n".join(paragraphs), epilog=f"Example: {example}")(function)

    return register


@_add("convoxel draw conv --size 5x5 --kernel 3 --stride 2 --padding same --svg conv.svg")
def conv(
    size: Size = "5x5",
    kernel: Kernel = "3",
    stride: Stride = "1",
    padding: Padding = "none",
    dilation: Dilation = "1",
    kind: KindOption = Kind.correlation,
    output_padding: OutputPadding = "0",
    border: Annotated[Border, typer.Option(help="What lies on the padding.")] = Border.zeros,
    view: Annotated[
        View, typer.Option(help="Transposed: what an output gathers, or where an input scatters to.")
    ] = View.gather,
    numbers: Annotated[bool, typer.Option("--numbers", help="Show values in the cells.")] = False,
    step: Annotated[int | None, typer.Option(help="One step as a still, counted from 1.")] = None,
    strip: Annotated[int | None, typer.Option(help="So many steps side by side as a still.")] = None,
    step_s: Annotated[float, typer.Option(help="Seconds of one step.")] = 0.9,
    svg: Svg = None,
    png: Png = None,
    gif: Gif = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show a kernel sliding over its input, step by step, in 1-D, 2-D or 3-D.

    A transposed convolution is shown as a window over its stretched input, or with --view scatter as what each input
    adds to the output.
    """
    from convoxel import draw

    layer = _layer(size, kernel, stride, padding, dilation, kind, output_padding)
    figure = draw.conv(**layer, border=border.value, view=view.value, numbers=numbers, step_s=step_s)
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
        figure = figure.strip([round(i * (steps - 1) / max(strip - 1, 1)) for i in range(strip)])
    _save(figure, "conv", (svg, png, gif, html), theme, json, steps=steps)


@_add("convoxel draw matrix --size 3x3 --kernel 2 --sharing all --svg matrix.svg")
def matrix(
    size: Size = "4x4",
    kernel: Kernel = "3",
    stride: Stride = "1",
    padding: Padding = "none",
    dilation: Dilation = "1",
    kind: KindOption = Kind.correlation,
    output_padding: OutputPadding = "0",
    channels: Annotated[str, typer.Option(help="Channels in and out, such as 2x4.")] = "1x1",
    groups: Annotated[int, typer.Option(help="Groups of channels.")] = 1,
    sharing: Annotated[
        Sharing, typer.Option(help="Convolution, locally connected, fully connected, or all.")
    ] = Sharing.shared,
    columns: Annotated[bool, typer.Option("--columns-first", help="Number pixels column by column.")] = False,
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show a layer as a matrix: what is not zero, which entries are the same weight, its Toeplitz blocks."""
    from convoxel import draw

    both = _numbers("channels", channels)
    if len(both) != 2:
        raise ConfigError(f"channels: got {channels!r}; expected channels in and out, such as 2x4.")
    layer = _layer(size, kernel, stride, padding, dilation, kind, output_padding)
    ways = ["dense", "sparse", "shared"] if sharing is Sharing.all else sharing.value
    order = "F" if columns else "C"
    figure = draw.matrix(**layer, in_channels=both[0], out_channels=both[1], groups=groups, sharing=ways, order=order)
    _save(figure, "matrix", (svg, png, None, html), theme, json)


@_add("convoxel draw overlap --kernel 3,4 --stride 2 --svg overlap.svg")
def overlap(
    kernel: Annotated[str, typer.Option(help="Kernel sizes, each drawn by itself.")] = "3,4",
    stride: Annotated[int, typer.Option(help="Stride.", min=1)] = 2,
    size: Size = "6x6",
    padding: Padding = "none",
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show how many inputs reach each output of a transposed convolution: uneven ones make checkerboards."""
    from convoxel import draw

    sizes = _numbers("size", size)
    figure = draw.overlap(_numbers("kernel", kernel), stride, _padding(padding, len(sizes)), size=sizes)
    _save(figure, "overlap", (svg, png, None, html), theme, json)


@_add("convoxel draw network unet --shape 1,1,256,256 --svg unet.svg")
def network(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    depth: Depth = None,
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show a network as a graph with shapes, parameters and receptive fields; U-Nets as a U."""
    from convoxel import draw

    figure = draw.network(_subject(model, shape, assign), depth=depth)
    _save(figure, "network", (svg, png, None, html), theme, json)


@_add("convoxel draw field resnet18 --layer layer2 --at 14,14 --image photo.png --svg field.svg")
def field(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    layer: Annotated[str | None, typer.Option(help="Whose output; the last one with positions unless given.")] = None,
    at: Annotated[str | None, typer.Option(help="Position of the output in its map; the middle unless given.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image or volume to draw over; its size is the input's.")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Measure what the output really looks at too.")
    ] = False,
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show what one output sees of the image: its exact receptive field, and its measured influence."""
    from convoxel import draw

    pixels = None
    if image is not None:
        from convoxel.data import read_image

        pixels = read_image(image).image
        shape = shape or ",".join(map(str, (1, *pixels.shape)))
    place = None if at is None else _numbers("at", at, least=0)
    of = _subject(model, shape, assign)
    measured = _influence(of, model, shape, assign, layer, place, pixels) if effective else None
    figure = draw.field(of, at=place, layer=layer, image=_shown(pixels), effective=measured)
    _save(figure, "field", (svg, png, None, html), theme, json)


@_add("convoxel draw funnel resnet18 --svg funnel.svg")
def funnel(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN|FILE|CHAIN", help="A network, or layers such as 'k3 k3 pool2 k3'."),
    ],
    shape: Annotated[
        str | None, typer.Option(help="Input as n,channels,*sizes; of a chain one number, such as 16.")
    ] = None,
    assign: Assign = None,
    axis: Annotated[int, typer.Option(help="Axis of the image; the last unless given.")] = -1,
    depth: Depth = None,
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show how the receptive field grows from layer to layer, along one axis."""
    from convoxel import draw

    if re.search(r"\s", model.strip()) or re.fullmatch(r"(k|pool|t|conv)\d\S*", model):
        sizes = _numbers("shape", shape or "16")
        if len(sizes) != 1:
            raise ConfigError(f"shape: got {shape!r}; a chain of layers takes one size, such as 16.")
        figure = draw.funnel_of_chain(model, sizes[0])
    else:
        figure = draw.funnel(_subject(model, shape, assign), axis=axis, depth=depth)
    _save(figure, "funnel", (svg, png, None, html), theme, json)


@_add("convoxel draw memory unet --svg memory.svg")
def memory(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    svg: Svg = None,
    png: Png = None,
    html: Html = None,
    theme: ThemeOption = Theme.auto,
    json: Json = False,
) -> None:
    """Show which values a network holds at which step, and where most are alive."""
    from convoxel import draw

    _save(draw.memory(_subject(model, shape, assign)), "memory", (svg, png, None, html), theme, json)


def _numbers(name: str, text: str, least: int = 1) -> tuple[int, ...]:
    words = re.split(r"[,x×]", text.strip())
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise ConfigError(f"{name}: got {text!r}; expected whole numbers from {least} on, such as 3 or 3x5.")
    return tuple(map(int, words))


def _padding(text: str, axes: int) -> Any:
    """Return a word, or a pair (before, after) for each axis."""
    if re.fullmatch(r"[a-z]+", text):
        return text  # the layer says which words there are
    pairs = []
    for word in re.split(r"[,x×]", text.strip()):
        found = re.fullmatch(r"(-?\d+)(?::(-?\d+))?", word)
        if not found:
            raise ConfigError(f"padding: got {text!r}; expected a word such as same, or numbers: 1, 1x2, 1:0.")
        pairs.append((int(found[1]), int(found[2] or found[1])))
    return tuple(pairs * axes if len(pairs) == 1 else pairs)


def _layer(
    size: str, kernel: str, stride: str, padding: str, dilation: str, kind: Kind, output_padding: str
) -> dict[str, Any]:
    sizes = _numbers("size", size)
    return {
        "size": sizes,
        "kernel": _numbers("kernel", kernel),
        "stride": _numbers("stride", stride),
        "padding": _padding(padding, len(sizes)),
        "dilation": _numbers("dilation", dilation),
        "kind": kind.value,
        "output_padding": _numbers("output_padding", output_padding, least=0),
    }


def _subject(model: str, shape: str | None, assign: list[str] | None) -> Any:
    """Return the network that the command is told to draw, traced."""
    import dataclasses

    from convoxel.draw.network_outline import subject

    if is_file(model):
        _, (known, *_) = open_file(model, [] if shape is None else [shape], assign)
        return subject(model, known)
    chosen = choose_network(model, shape, assign, weights=False)
    return dataclasses.replace(subject(chosen.model, chosen.shape), name=chosen.name)


def _influence(
    of: Any, model: str, shape: str | None, assign: list[str] | None, layer: str | None, place: Any, pixels: Any
) -> Any:
    """Return the measured influence on the output that is drawn; zoo networks have the weights they start with."""
    from convoxel.inspect import effective_field

    if is_file(model):
        raise ConfigError(f"effective: {model} is a file, which has no gradients. Give a run, or a name of the zoo.")
    chosen = choose_network(model, shape, assign, weights=True)
    seen = of.map(layer)
    x = chosen.shape if pixels is None else pixels[None]
    return effective_field(chosen.model, x, layer=layer, position=seen.place(place)).array


def _shown(pixels: Any) -> Any:
    """Return the image as it can be drawn: with more than one and other than three channels, the first."""
    return pixels if pixels is None or pixels.shape[0] in (1, 3) else pixels[0]


def _save(figure: Figure, name: str, files: tuple[Path | None, ...], theme: Theme, json: bool, **facts: object) -> None:
    """Write the figure into the files that were named, or NAME.svg, and say so."""
    wanted = list(zip((".svg", ".png", ".gif", ".html"), files, strict=True))
    written = []
    for ending, file in wanted:
        if file is not None and file.suffix.lower() != ending:
            raise ConfigError(f"{ending[1:]}: got {file}; expected a file that ends in {ending}.")
    if not any(files):
        wanted = [(".svg", Path(f"{name}.svg"))]
    for _, file in wanted:
        if file is not None:
            written.append(figure.save(file, None if theme is Theme.auto else theme.value))
    if json:
        size = {"width": round(figure.width), "height": round(figure.height), "frames": figure.frames}
        emit({"title": figure.title, "text": figure.text, **size, **facts, "files": written})
        return
    screen = console()
    say(screen, figure.title)
    say(screen, figure.text)
    for file in written:
        say(screen, f"written: {file}")
