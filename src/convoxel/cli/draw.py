"""``convoxel draw …``: pictures of layers and networks as SVG, PNG, GIF or a web page."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convoxel.cli.options import Assign, Json, Network, Shape, Weights, command
from convoxel.cli.parsing import parse_numbers, parse_options, parse_padding, parse_shape, parse_sizes
from convoxel.cli.progress import Counter
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
X = Annotated[
    str | None,
    typer.Option("--x", help="Values of the input: '12 20; 8 12', rows by ;, slices by | (its size counts)."),
]
W = Annotated[str | None, typer.Option("--w", help="Values of the kernel, likewise.")]
StepS = Annotated[float, typer.Option("--step-s", help="Duration of one step in seconds.")]
Still = Annotated[int | None, typer.Option("--step", help="Draw one step as a still, counted from 1.")]
Strip = Annotated[int | None, typer.Option("--strip", help="Draw this many steps side by side as a still.")]
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
    x: X = None,
    w: W = None,
    numbers: Annotated[bool, typer.Option("--numbers", help="Show values in the cells.")] = False,
    step: Still = None,
    strip: Strip = None,
    step_s: StepS = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show a kernel sliding over its input, step by step, in 1-D, 2-D or 3-D.

    A transposed convolution is shown as a window over its stretched input, or with --view scatter as what each input
    adds to the output. Values are those of --x and --w. Channels: `draw channels`; photographs: `draw features`.
    """
    from convoxel import draw

    inputs, weights = parse_numbers("x", x), parse_numbers("w", w)
    size = _size_of(inputs, size)
    kernel = _size_of(weights, kernel)
    layer = _layer(size, kernel, stride, padding, dilation, kind, output_padding)
    figure = draw.conv(**layer, border=border, view=view, x=inputs, w=weights, numbers=numbers, step_s=step_s)
    return _steps(figure, step, strip)


def _size_of(values: list[Any] | None, size: str) -> str:
    """Return the size of nested lists; ``size`` where there are none."""
    if values is None:
        return size
    sizes, inner = [], values
    while isinstance(inner, list):
        sizes.append(len(inner))
        inner = inner[0]
    return "x".join(map(str, sizes))


def _rows(values: list[Any] | None) -> list[Any] | None:
    """Return numbers as rows; a single row came without a ``;``."""
    return [values] if values and not isinstance(values[0], list) else values


def _steps(figure: Figure, step: int | None, strip: int | None) -> tuple[Figure, dict[str, object]]:
    """Return a moving figure, one step of it, or several side by side; and how many there are."""
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


@_picture("convoxel draw pool --x '12 20 30 0; 8 12 2 0; 34 70 37 4; 112 100 25 12' --svg pool.svg", moving=True)
def pool(
    size: Size = "4x4",
    kernel: Kernel = "2",
    stride: Annotated[str | None, typer.Option(help="Stride (default: the kernel size).")] = None,
    padding: Padding = "none",
    dilation: Dilation = "1",
    kind: Annotated[Literal["max", "average"], typer.Option(help="Largest value or mean.")] = "max",
    ceil: Annotated[bool, typer.Option("--ceil", help="Let a last window reach beyond the end.")] = False,
    count_include_pad: Annotated[
        bool, typer.Option("--count-include-pad/--count-inputs", help="Count zeros of the padding in a mean.")
    ] = True,
    x: X = None,
    step: Still = None,
    strip: Strip = None,
    step_s: StepS = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show a pooling window moving over numbers, in 1-D, 2-D or 3-D."""
    from convoxel import draw

    values = parse_numbers("x", x)
    sizes = parse_sizes("size", _size_of(values, size), count=(1, 3))
    figure = draw.pool(
        sizes, parse_sizes("kernel", kernel), None if stride is None else parse_sizes("stride", stride),
        parse_padding(padding, len(sizes)), parse_sizes("dilation", dilation), kind=kind, ceil=ceil,
        count_include_pad=count_include_pad, x=values, step_s=step_s,
    )  # fmt: skip
    return _steps(figure, step, strip)


@_picture("convoxel draw unpool --mode indices --svg unpool.svg", moving=True)
def unpool(
    size: Size = "4x4",
    kernel: Kernel = "2",
    mode: Annotated[
        Literal["indices", "fixed", "nearest", "average"],
        typer.Option(help="To the place of the largest value, to a fixed place, to every place, or shared out."),
    ] = "indices",
    position: Annotated[str, typer.Option(help="Place in the window of mode fixed.")] = "0",
    x: X = None,
    step: Still = None,
    strip: Strip = None,
    step_s: StepS = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show a max pooling and its un-pooling, window by window."""
    from convoxel import draw

    values = parse_numbers("x", x)
    sizes = parse_sizes("size", _size_of(values, size), count=(1, 3))
    place = parse_sizes("position", position, least=0)
    figure = draw.unpool(sizes, parse_sizes("kernel", kernel), mode=mode, position=place, x=values, step_s=step_s)
    return _steps(figure, step, strip)


@_picture("convoxel draw resize --size 3x3 --to 6x6 --mode linear --svg resize.svg", moving=True)
def resize(
    size: Size = "3x3",
    to: Annotated[str, typer.Option(help="Wanted size.")] = "6x6",
    mode: Annotated[
        Literal["nearest", "nearest-exact", "linear", "cubic", "spline", "area"], typer.Option(help="Interpolation.")
    ] = "linear",
    order: Annotated[int, typer.Option(help="Order of a spline.")] = 3,
    align_corners: Annotated[bool, typer.Option("--align-corners", help="Let the outermost values stay.")] = False,
    matrix: Annotated[bool, typer.Option("--matrix", help="Draw the matrix R of y = R x, row by row.")] = False,
    x: X = None,
    step: Still = None,
    strip: Strip = None,
    step_s: StepS = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show an interpolation with the weights through which each output reads its inputs."""
    from convoxel import draw

    values = parse_numbers("x", x)
    sizes, wanted = parse_sizes("size", _size_of(values, size), count=(1, 3)), parse_sizes("to", to)
    way = draw.resize_matrix if matrix else draw.resize
    figure = way(sizes, wanted, mode=mode, order=order, align_corners=align_corners, x=values, step_s=step_s)
    return _steps(figure, step, strip)


@_picture("convoxel draw linearity --operator max_pool --svg linearity.svg")
def linearity(
    operator: Annotated[
        Literal[
            "nearest", "linear", "cubic", "spline", "area", "convolution", "bias", "average_pool", "max_pool", "relu"
        ],
        typer.Option(help="Interpolation to twice the size, convolution (bias: with one), pooling or rectifier."),
    ] = "linear",
    size: Size = "4x4",
    seed: Annotated[int, typer.Option(help="Random seed of the second input.")] = 0,
) -> Figure:
    """Show whether an operator is linear: f(2u + v) beside 2 f(u) + f(v)."""
    from convoxel import draw

    return draw.linearity(operator, parse_sizes("size", size, count=(1, 3)), seed=seed)


@_picture("convoxel draw shuffle --size 2x3 --factor 2 --svg shuffle.svg", moving=True)
def shuffle(
    size: Size = "2x2",
    factor: Annotated[int, typer.Option(help="Factor of every axis.")] = 2,
    step: Still = None,
    step_s: StepS = 0.9,
) -> tuple[Figure, dict[str, object]]:
    """Show up-sampling by a 1 × 1 convolution and a shuffle of channels into pixels."""
    from convoxel import draw

    return _steps(draw.shuffle(parse_sizes("size", size), factor, step_s=step_s), step, None)


@_picture("convoxel draw deform --size 6x6 --offset 0.8 --svg deform.svg", moving=True)
def deform(
    size: Size = "6x6",
    kernel: Kernel = "3",
    stride: Stride = "1",
    padding: Padding = "half",
    dilation: Dilation = "1",
    offset: Annotated[float, typer.Option(help="Spread of random offsets; 0 is the plain convolution.")] = 0.8,
    modulated: Annotated[
        bool, typer.Option("--modulated", help="Weight each tap as well (v2): random weights from 0 to 1.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the offsets and weights.")] = 0,
    x: X = None,
    w: W = None,
    step: Still = None,
    step_s: StepS = 1.2,
) -> tuple[Figure, dict[str, object]]:
    """Show a deformable convolution: where the taps of its kernel are, and where they read."""
    from convoxel import draw

    values, weights = parse_numbers("x", x), parse_numbers("w", w)
    sizes = parse_sizes("size", _size_of(values, size), count=(1, 3))
    figure = draw.deform(
        sizes, parse_sizes("kernel", _size_of(weights, kernel)), parse_sizes("stride", stride),
        parse_padding(padding, len(sizes)), parse_sizes("dilation", dilation), offset=offset, mask=modulated or None,
        seed=seed, x=values, w=weights, step_s=step_s,
    )  # fmt: skip
    return _steps(figure, step, None)


@_picture("convoxel draw dynamic --size 5x5 --svg dynamic.svg")
def dynamic(
    size: Size = "5x5",
    temperature: Annotated[float, typer.Option(help="Large values mix the kernels evenly.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed of the images.")] = 0,
) -> Figure:
    """Show a dynamic convolution: two images, their shares of three kernels, and what that makes of them."""
    from convoxel import draw

    return draw.dynamic(parse_sizes("size", size, count=(1, 3)), temperature=temperature, seed=seed)


@_picture("convoxel draw channels --in 3 --out 5 --way plain --way depthwise_separable --svg channels.svg")
def channels(
    in_channels: Annotated[int, typer.Option("--in", help="Channels in.", min=1)] = 3,
    out_channels: Annotated[int, typer.Option("--out", help="Channels out.", min=1)] = 5,
    kernel: Annotated[int, typer.Option(help="Kernel size of every axis.", min=1)] = 3,
    way: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WAY",
            help="plain, grouped, depthwise, depthwise_separable, bottleneck, 2.5d or dense (default: plain and "
            "depthwise_separable).",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Size of the image.", min=1)] = 7,
    groups: Annotated[int, typer.Option(help="Groups of channels, for grouped.", min=1)] = 1,
) -> Figure:
    """Show a layer with its channels in space, and count its weights; several ways below each other."""
    from convoxel import draw

    ways = way or ["plain", "depthwise_separable"]
    return draw.channels(in_channels, out_channels, kernel, way=ways, size=size, groups=groups)


@_picture("convoxel draw separable --w '1 0 -1; 2 0 -2; 1 0 -1' --svg separable.svg")
def separable(
    w: Annotated[str, typer.Option("--w", help="Values of the kernel, rows by ;.")] = "1 0 -1; 2 0 -2; 1 0 -1",
    rank: Annotated[int | None, typer.Option(help="Largest rank that is drawn (default: the kernel's).")] = None,
) -> Figure:
    """Show a kernel as a product of vectors, its singular values, and its best approximations by rank."""
    from convoxel import draw

    return draw.separable(_rows(parse_numbers("w", w)) or (), rank)


@_picture("convoxel draw prior --size 3x3 --kernel 2 --svg prior.svg")
def prior(
    size: Size = "3x3", kernel: Kernel = "2", seed: Annotated[int, typer.Option(help="Random seed of the matrix.")] = 0
) -> Figure:
    """Show a fully connected layer beside the convolution that is nearest to it."""
    from convoxel import draw

    return draw.prior(parse_sizes("size", size), parse_sizes("kernel", kernel), seed=seed)


@_picture("convoxel draw layout --channels 3 --size 2x3 --svg layout.svg")
def layout(channels: Annotated[int, typer.Option(help="Number of channels.", min=1)] = 3, size: Size = "2x3") -> Figure:
    """Show the order of a tensor in memory: channels first (N C H W), or last (N H W C)."""
    from convoxel import draw

    return draw.layout(channels, parse_sizes("size", size))


@_picture("convoxel draw norm --w '2 1; 0 2' --bound 2 --svg norm.svg")
def norm(
    w: Annotated[
        str, typer.Option("--w", help="Values of the kernels, rows by ;, kernels by |.")
    ] = "2 1; 0 2 | 1 0; 0 1 | 3 -1; 2 1",
    bound: Annotated[float, typer.Option(help="Largest norm.")] = 2.0,
) -> Figure:
    """Show kernels before and after their norm is held at a bound (MaxNorm)."""
    from convoxel import draw

    values = parse_numbers("w", w) or []
    return draw.max_norm(values if "|" in w else [values], bound)


@_picture("convoxel draw translation --size 8 --layer max_pool --svg translation.svg", moving=True)
def translation(
    size: Size = "6x6",
    layer: Annotated[
        Literal["convolution", "stride", "max_pool", "blur_pool", "global_pool"],
        typer.Option(help="What the shifted image goes through."),
    ] = "convolution",
    shifts: Annotated[int, typer.Option(help="Number of shifts, from 0 on.")] = 5,
    x: X = None,
    step: Still = None,
    strip: Strip = None,
    step_s: StepS = 1.2,
) -> tuple[Figure, dict[str, object]]:
    """Show a layer of a shifted image beside its shifted output: what stride and pooling break."""
    from convoxel import draw

    values = parse_numbers("x", x)
    sizes = parse_sizes("size", _size_of(values, size), count=(1, 2))
    return _steps(draw.translation(sizes, layer, shifts=shifts, x=values, step_s=step_s), step, strip)


@_picture("convoxel draw shifts --model resnet18 --shape 1,3,64,64 --svg shifts.svg")
def shifts(
    model: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="A network (default: layers of demonstrations beside each other)."),
    ] = None,
    shape: Shape = None,
    assign: Assign = None,
    weights: Weights = None,
    most: Annotated[int, typer.Option(help="Largest shift.", min=1, max=32)] = 8,
) -> tuple[Figure, dict[str, object]]:
    """Show how far a network is from equivariance, shift by shift."""
    from convoxel import draw
    from convoxel.draw.shift_picture import measure_layers, measure_network

    if model is None:
        reports = measure_layers(range(1, most + 1))
    else:
        found = _find(model, shape, assign, weights=True, weights_from=weights)
        reports = {found.name: measure_network(found.module, found.shape, range(1, most + 1))}
    return draw.shifts(reports), {"reports": {name: report.to_dict() for name, report in reports.items()}}


@_picture("convoxel draw connections --size 9 --kernel 3 --stride 2 --svg connections.svg")
def connections(
    size: Annotated[int, typer.Option(help="Number of inputs.")] = 9,
    kernel: Annotated[int, typer.Option(help="Kernel size.")] = 3,
    stride: Annotated[int, typer.Option(help="Stride of the last one.")] = 2,
) -> Figure:
    """Show a fully connected layer, a convolution and one with strides side by side."""
    from convoxel import draw

    return draw.connections(size, kernel, stride)


@_picture("convoxel draw features photo.png --w '1 0 -1; 2 0 -2; 1 0 -1' --svg features.svg")
def features(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Photograph, or an image of any format that is read.")],
    w: Annotated[str | None, typer.Option("--w", help="Values of a kernel (default: edges, spots, blur).")] = None,
    pool: Annotated[int, typer.Option(help="Kernel size and stride of the pooling.", min=1)] = 2,
    model: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="Draw the maps of a run, an .onnx file or a network of the zoo instead."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer of the model; may be repeated (default: five convolutions).")
    ] = None,
    maps: Annotated[int, typer.Option(help="Maps of each layer, the strongest first.", min=1)] = 6,
    assign: Assign = None,
) -> Figure:
    """Show convolution, activation and pooling of an image as feature maps, by usual kernels or by a network's layers.

    A network of the zoo has the weights that training starts from.
    """
    from convoxel import draw
    from convoxel.data import read_image

    if model is not None:
        from convoxel.explorer.inside_view import network_maps

        name, whole, found = network_maps(model, image, layer or (), assign or ())
        return draw.feature_maps(name, whole, found, most=maps)
    if layer or assign:
        raise ConfigError("layer: given without a network. Name it with --model, such as --model RUN.")
    kernel = _rows(parse_numbers("w", w))
    return draw.features(read_image(image).image, None if kernel is None else {"kernel": kernel}, pool=pool)


@_picture("convoxel draw neurons --model resnet18 --weights resnet18.pth --svg neurons.svg")
def neurons(
    model: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="A run, or a network whose weights are given.")
    ] = None,
    shape: Shape = None,
    assign: Assign = None,
    weights: Weights = None,
) -> Figure:
    """Show receptive fields of neurons (centre-surround, Gabor) beside the first kernels that a network learned."""
    from convoxel import draw
    from convoxel.draw.feature_picture import first_kernels

    if model is None:
        return draw.neurons()
    found = _find(model, shape, assign, weights=True, weights_from=weights)
    return draw.neurons(first_kernels(found.module), said=f"first kernels of {found.name}")


@_picture("convoxel draw block inception --svg inception.svg")
def block(
    name: Annotated[
        Literal[
            "residual", "residual, stride 2", "bottleneck", "inception", "dense", "inverted residual", "mbconv",
            "u-net level",
        ],
        typer.Argument(metavar="NAME", help="residual, bottleneck, inception, dense, 'inverted residual', mbconv, …"),
    ],
) -> Figure:  # fmt: skip
    """Show a block of the lecture's networks as a diagram for a slide; of other networks: `draw network --part`."""
    from convoxel import draw

    return draw.block(name)


@_picture("convoxel draw animation padding_strides --svg animation.svg", moving=True)
def animation(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an animation of `draw gallery`.")],
    step: Still = None,
    strip: Strip = None,
) -> tuple[Figure, dict[str, object]]:
    """Show one animation of Dumoulin & Visin's guide to convolution arithmetic."""
    from convoxel import draw

    return _steps(draw.gallery(name), step, strip)


@command(app, "convoxel draw gallery --output gallery", "gallery")
def gallery(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the pictures and their page.")] = Path(
        "gallery"
    ),
    theme: _THEME = "auto",
    json: Json = False,
) -> None:
    """Write the animations of Dumoulin & Visin's guide to convolution arithmetic as SVG, and a page of all."""
    from convoxel import draw

    written = draw.save_gallery(output, theme)
    if json:
        return emit({"names": draw.gallery_names(), "files": written})
    Screen().say(f"{len(written) - 1} animations: {written[0]}")


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
def network(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    depth: Depth = None,
    part: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Draw this part alone, such as layer1.0 or inception3a.")
    ] = None,
    heat: Annotated[
        Literal["params", "macs", "bytes", "time", "error"] | None,
        typer.Option(help="Colour parts by a figure; time is measured, error is that of float32 beside float64."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Draw what is added, changed and left out beside this one.")
    ] = None,
    against_set: Annotated[
        list[str] | None, typer.Option("--against-set", metavar="NAME=VALUE", help="Option of that network.")
    ] = None,
    weights: Weights = None,
) -> tuple[Figure, dict[str, object]]:
    """Show a network as a graph with shapes, parameters and receptive fields; U-Nets as a U.

    --against shows two networks as one graph: convoxel draw network unet --set levels=4 --against unet
    """
    from convoxel import draw
    from convoxel.draw.network_heat import error_heat, known_heat, time_heat

    if weights is not None and heat not in ("time", "error"):
        raise ConfigError(f"weights: {weights} given, but nothing is measured. Give --heat error, or leave it out.")
    if against_set and against is None:
        raise ConfigError(f"against-set: got {against_set[0]!r} without a network. Give --against NETWORK.")
    of = _subject(model, shape, assign)
    other = None
    if against is not None:
        other = _subject(against, shape or ",".join(map(str, of.record.inputs[0])), against_set)
    if heat is None:
        return draw.network(of, depth=depth, part=part, against=other), {}
    known, options = parse_shape(shape), parse_options(assign)
    if heat == "error":
        from convoxel.bench.network_error import measure_errors

        with Counter("comparing layers") as counter:
            found = error_heat(measure_errors(
                model, known, options, weights=weights, on_progress=lambda done, count: counter(done, count, "layers")
            ))  # fmt: skip
    elif heat == "time":
        from convoxel.bench.profile import profile_network

        steps = profile_network(model, known, options, weights=weights).steps
        found = time_heat({step["name"]: step["time_s"] for step in steps}, of)
    else:
        found = known_heat(heat, of)
    figure = draw.network(of, depth=depth, part=part, heat=found, against=other)
    return figure, {"heat": {"figure": found.title, "layers": dict(found.values)}}


@_picture("convoxel draw field resnet18 --layer layer2 --at 14,14 --image photo.png --svg field.svg")
def field(
    model: Network,
    shape: Shape = None,
    assign: Assign = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer whose output is meant (default: the last one with positions).")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Position of the output in its map (default: the middle).")] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Image or volume to draw over; it is padded where the network does not take its size."),
    ] = None,
    effective: Annotated[bool, typer.Option("--effective", help="Measure the influence of each pixel too.")] = False,
    weights: Weights = None,
) -> Figure:
    """Show what one output sees of the image: its exact receptive field, and its measured influence."""
    from convoxel import draw

    pixels, fitted = None, ""
    if image is not None:
        from convoxel.data import read_image
        from convoxel.draw.field_picture import fit_image
        from convoxel.lookup import fit_input

        pixels = read_image(image).image
        if shape is None:
            network = _find(model, ",".join(map(str, (1, *pixels.shape))), assign)
            pixels, fitted = fit_image(pixels, *fit_input(model, network))
            shape = ",".join(map(str, (1, *pixels.shape)))
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
    figure = draw.field(of, at=place, layer=layer, image=shown, effective=measured)
    return dataclasses.replace(figure, text=f"{figure.text}{fitted}")


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
    from convoxel.draw.network_outline import subject

    found = _find(model, shape, assign)
    return dataclasses.replace(subject(found.source, found.shape), name=found.name)
