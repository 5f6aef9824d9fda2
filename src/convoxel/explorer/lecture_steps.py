"""The steps of the lecture: for each a title, a sentence or two, a picture with its arguments, and what can be changed.

A step is data: adding one is a few lines here. ``lecture_view`` shows them, the static export writes them, and
``docs/lecture.md`` lists for every row of the lecture the step that shows it. ``PICTURES`` are functions of
``convoxel.draw``, and a few that measure first.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw import Figure

POOLED = ((12, 20, 30, 0), (8, 12, 2, 0), (34, 70, 37, 4), (112, 100, 25, 12))
KERNELS = {
    "Sobel": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "Gauss": ((1, 2, 1), (2, 4, 2), (1, 2, 1)),
    "Laplace": ((0, -1, 0), (-1, 4, -1), (0, -1, 0)),
    "identity": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}


@dataclass(frozen=True)
class Control:
    """One thing that can be changed: a whole number, or one of a few words.

    Attributes:
        name: argument of the picture; of several axes all get the number.
        label: its name on the page.
        least, most: bounds of a number.
        words: the words; () for a number.
        values: what a word stands for (default: itself).
    """

    name: str
    label: str
    least: int = 1
    most: int = 9
    words: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def value(self, text: str, usual: Any) -> Any:
        """Return what a text stands for, in the form of the usual value.

        Raises:
            ConfigError: it is no such word, or no number within the bounds.
        """
        if self.words:
            if text not in self.words:
                raise ConfigError(f"{self.name}: got {text[:40]!r}; expected {', '.join(self.words)}.")
            return self.values.get(text, text)
        number = int(text) if text.isdecimal() and len(text) < 7 else -1
        if not self.least <= number <= self.most:
            raise ConfigError(
                f"{self.name}: got {text[:40]!r}; expected a whole number from {self.least} to {self.most}."
            )
        return (number,) * len(usual) if isinstance(usual, tuple) else number

    def text(self, value: Any) -> str:
        """Return the text that stands for a value."""
        if self.words:
            return next((word for word in self.words if self.values.get(word, word) == value), self.words[0])
        return str(value[0] if isinstance(value, tuple) else value)


@dataclass(frozen=True)
class Step:
    """One idea of the lecture.

    Attributes:
        name: its name in addresses.
        section: part of the lecture.
        title: title in a few words.
        text: one or two sentences.
        picture: name of the picture in ``PICTURES``.
        args: arguments of the picture.
        controls: what can be changed.
        rows: rows of the lecture that it shows.
        view: address of the view in which it can be explored; names in braces are arguments.
    """

    name: str
    section: str
    title: str
    text: str
    picture: str
    args: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    rows: str = ""
    view: str = ""

    def changed(self, given: Mapping[str, str]) -> Step:
        """Return the step with other values of its controls, as texts.

        Raises:
            ConfigError: a value is none that the control takes.
        """
        args = dict(self.args)
        for control in self.controls:
            if given.get(control.name):
                args[control.name] = control.value(given[control.name], self.args.get(control.name))
        return dataclasses.replace(self, args=args)

    def draw(self) -> Figure:
        """Return the picture.

        Raises:
            ConvoxelError: the arguments do not fit each other.
        """
        return PICTURES[self.picture](**self.args)

    def command(self) -> str:
        """Return the command that draws the same picture."""
        words = ["convoxel", *_COMMANDS.get(self.picture, f"draw {self.picture}").split()]
        options: list[str] = []
        for name, value in self.args.items():
            place = _OPTIONS.get((self.picture, name), _OPTIONS.get(("", name), f"--{name.replace('_', '-')}"))
            if place == "":  # an argument without a name
                words.append(_written(value))
            elif place.endswith("="):
                options += [place[:-1].split()[0], place[:-1].split()[1] + "=" + _written(value)]
            elif isinstance(value, bool):
                options += [place] if value else []
            elif place.startswith("+"):  # an option that is given several times
                options += [word for each in value for word in (place[1:], each)]
            elif place == "--sharing":
                options += [place, "all"]
            elif place == "--columns-first":
                options += [place] if value == "F" else []
            else:
                options += [place, _written(value)]
        return shlex.join([*words, *options])

    def python(self) -> str:
        """Return the same as Python."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        call = _PYTHON.get(self.picture, f"cx.draw.{self.picture}({{}})").format(given)
        return f"import convoxel as cx\n\nfigure = {call}\nfigure.save('{self.name}.svg')"

    def link(self) -> str:
        """Return the address of the view with the same state; empty where there is none."""
        texts = {name: _written(value, ";") for name, value in self.args.items()}
        return self.view.format(**texts)


def _written(value: Any, rows: str = "; ") -> str:
    """Return a value as the command line takes it: sizes with ×, rows of numbers with semicolons."""
    if isinstance(value, (tuple, list)):
        if value and isinstance(value[0], (tuple, list)):
            return rows.join(" ".join(map(str, row)) for row in value)
        return "x".join(map(str, value))
    return str(value)


# What differs between the arguments of pictures and the options of commands.
_COMMANDS = {
    "funnel_of_chain": "draw funnel",
    "gallery": "draw animation",
    "max_norm": "draw norm",
    "resize_matrix": "draw resize --matrix",
    "layer_shifts": "draw shifts",
    "photograph": "draw features photo.png",
    "upsampling": "compare upsampling",
    "scales": "scale",
}
_OPTIONS = {
    ("channels", "in_channels"): "--in", ("channels", "out_channels"): "--out", ("channels", "way"): "+--way",
    ("matrix", "order"): "--columns-first", ("funnel_of_chain", "chain"): "", ("funnel_of_chain", "size"): "--shape",
    ("block", "name"): "", ("network", "model"): "", ("field", "model"): "", ("memory", "model"): "",
    ("network", "levels"): "--set levels=", ("network", "dims"): "--set dims=", ("separable", "kernel"): "--w",
    ("max_norm", "kernels"): "--w", ("gallery", "name"): "", ("scales", "model"): "",
}  # fmt: skip
_PYTHON = {
    "layer_shifts": "cx.draw.shifts(cx.draw.shift_picture.measure_layers())",
    "photograph": "cx.draw.features(cx.data.read_image('photo.png').image)",
    "upsampling": "cx.draw.upsampling(cx.inspect.upsampling(cx.nn.upsamplers(2, 1, 1), (1, 1, 8, 8)))",
    "network": "cx.draw.network({})",
}


# ---- pictures that measure or read first -------------------------------------------------------------------


def _network(model: str, shape: tuple[int, ...], depth: int | None = None, **options: Any) -> Figure:
    from convoxel import draw
    from convoxel.draw.network_outline import subject
    from convoxel.lookup import find_network

    found = find_network(model, [shape], options)
    return draw.network(dataclasses.replace(subject(found.source, found.shape), name=found.name), depth=depth)


def _field(model: str, shape: tuple[int, ...], layer: str) -> Figure:
    from convoxel import draw

    return draw.field(model, shape, layer=layer)


def _layer_shifts() -> Figure:
    from convoxel import draw
    from convoxel.draw.shift_picture import measure_layers

    return draw.shifts(measure_layers())


def _upsampling() -> Figure:
    from convoxel import draw, nn
    from convoxel.inspect import upsampling

    return draw.upsampling(upsampling(nn.upsamplers(2, 1, 1), (1, 1, 8, 8), starts=4, timed=False))


def _photograph(pool: int = 2) -> Figure:
    from convoxel import draw

    return draw.features(sample_photograph(), pool=pool)


def sample_photograph() -> Any:
    """Return a photograph (rows, columns, 3); a drawn scene where scikit-learn, which brings one, is not installed."""
    import numpy as np

    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        y, x = np.mgrid[0:96, 0:144]
        return ((np.hypot(y - 48, x - 72) % 24 < 12) * 140 + 60 * (x > 72) + 20).astype(np.uint8)
    return load_sample_image("flower.jpg")


def _scales(model: str = "mobilenet_v2") -> Figure:
    from convoxel import draw
    from convoxel.lookup import describe

    entries = []
    for width in (0.25, 0.5, 0.75, 1.0):
        summary = describe(model, (1, 3, 224, 224), width=width)
        entries.append(draw.Entry(f"width {width:g}", summary.params / 1e6, summary.macs / 1e6))
    return draw.pareto(entries, x="parameters in millions", y="million MACs", title=f"Width multipliers of {model}")


def _drawn(name: str) -> Callable[..., Figure]:
    def picture(**args: Any) -> Figure:
        from convoxel import draw

        made: Figure = getattr(draw, name)(**args)
        return made

    return picture


_NAMES = (
    "block", "channels", "connections", "conv", "deform", "dynamic", "funnel_of_chain", "gallery", "layout",
    "linearity", "matrix", "max_norm", "memory", "neurons", "overlap", "pool", "prior", "resize", "resize_matrix",
    "separable", "shuffle", "translation", "unpool",
)  # fmt: skip
PICTURES: Mapping[str, Callable[..., Figure]] = {
    **{name: _drawn(name) for name in _NAMES}, "network": _network, "field": _field, "layer_shifts": _layer_shifts,
    "upsampling": _upsampling, "photograph": _photograph, "scales": _scales,
}  # fmt: skip

# ---- the steps ---------------------------------------------------------------------------------------------

_SIZE, _KERNEL = Control("size", "size", 3, 9), Control("kernel", "kernel", 1, 5)
_STRIDE = Control("stride", "stride", 1, 4)
_SIZES = {"signal": (9,), "image": (6, 6), "volume": (3, 3, 3)}
_PADDING = Control("padding", "padding", words=("none", "half", "full", "same", "causal"))
_KIND = Control("kind", "operation", words=("correlation", "convolution"))
_BENCH = "/layer?size={size}&kernel={kernel}&stride={stride}&padding={padding}&kind={kind}&numbers=1"
_LAYER = {"size": (5, 5), "kernel": (3, 3), "stride": (1, 1), "padding": "none", "kind": "correlation"}
_ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX = (
    "Convolution and cross-correlation", "Intuition", "Sampling", "Anatomy of a layer", "Convolution arithmetic",
    "Applied architectures",
)  # fmt: skip

STEPS: tuple[Step, ...] = (
    Step(
        "signal",
        _ONE,
        "A kernel slides over a signal",
        "s(t) = Σ x(a) w(t − a): a convolution reads the kernel backwards, a cross-correlation forwards.",
        "conv",
        {"size": (8,), "kernel": (3,), "stride": (1,), "padding": "none", "kind": "convolution", "numbers": True},
        (Control("size", "size", 3, 14), _KERNEL, _KIND),
        "A1 A2",
        _BENCH,
    ),
    Step(
        "image",
        _ONE,
        "The same over an image",
        "Every output is the sum of the products under the window. Networks compute the correlation.",
        "conv",
        {**_LAYER, "numbers": True},
        (_SIZE, _KERNEL, _KIND),
        "A2 A5",
        _BENCH,
    ),
    Step(
        "matrix",
        _ONE,
        "A convolution is a matrix",
        "Each row holds the kernel once, moved by one place: constant along diagonals, doubly block Toeplitz.",
        "matrix",
        {"size": (3, 3), "kernel": (2, 2), "order": "F"},
        (
            Control("size", "size", 2, 5),
            Control("kernel", "kernel", 1, 3),
            Control("order", "pixels", words=("by columns", "by rows"), values={"by columns": "F", "by rows": "C"}),
        ),
        "A3 A4",
        "/layer?size={size}&kernel={kernel}&order={order}",
    ),
    Step(
        "translation",
        _TWO,
        "Shift the image: the output shifts along",
        "A convolution is equivariant. Strides and pooling are so for some shifts alone; global pooling is invariant.",
        "translation",
        {"size": (6, 6), "layer": "convolution"},
        (
            Control("layer", "layer", words=("convolution", "stride", "max_pool", "blur_pool", "global_pool")),
            Control("size", "size", 4, 10),
        ),
        "B1",
        "",
    ),
    Step(
        "shifts",
        _TWO,
        "Measured over many shifts",
        "A stride of 2 breaks odd shifts; blurring before every second value is kept lowers the error.",
        "layer_shifts",
        rows="B1 C2",
    ),
    Step(
        "sharing",
        _TWO,
        "Shared weights: 36, 16 or 4",
        "Fully connected, locally connected, convolution: the same image, fewer and fewer free weights.",
        "matrix",
        {"size": (3, 3), "kernel": (2, 2), "sharing": ("dense", "sparse", "shared")},
        (Control("size", "size", 2, 4), Control("kernel", "kernel", 1, 3)),
        "B2",
        "/layer?size={size}&kernel={kernel}",
    ),
    Step(
        "sparsity",
        _TWO,
        "Most entries are zero",
        "Memory and multiplications grow with the entries that are not zero, not with the matrix.",
        "matrix",
        {"size": (8, 8), "kernel": (3, 3)},
        (Control("size", "size", 3, 12), _KERNEL),
        "B3",
        "/layer?size={size}&kernel={kernel}",
    ),
    Step(
        "prior",
        _TWO,
        "An infinitely strong prior",
        "A convolution is a fully connected layer that may not differ along diagonals: the nearest one to any matrix.",
        "prior",
        {"size": (3, 3), "kernel": (2, 2), "seed": 0},
        (Control("seed", "random seed", 0, 9),),
        "B4",
        "/layer?size={size}&kernel={kernel}",
    ),
    Step(
        "dense",
        _TWO,
        "Fully connected is a convolution too",
        "Its kernel is as large as the image. On a larger image the same weights give a map of answers.",
        "channels",
        {"in_channels": 4, "out_channels": 10, "kernel": 5, "size": 5, "way": ("dense",)},
        (Control("in_channels", "channels in", 1, 12), Control("out_channels", "classes", 1, 20)),
        "B5",
        "/layer?size={size}x{size}&kernel={kernel}&in={in_channels}&out={out_channels}",
    ),
    Step(
        "pooling",
        _THREE,
        "Pooling",
        "The largest value or the mean of each window: no weights, and a little invariance.",
        "pool",
        {"size": (4, 4), "kernel": (2, 2), "kind": "max", "x": POOLED},
        (Control("kind", "kind", words=("max", "average")), Control("kernel", "kernel", 1, 4)),
        "C1",
        "/layer?kind={kind}_pool&size={size}&kernel={kernel}&numbers=1&x={x}",
    ),
    Step(
        "trio",
        _THREE,
        "Convolution, activation, pooling of a photograph",
        "Edges across and down, spots, blur: what a first layer answers to, cut off at zero, then thinned out.",
        "photograph",
        {"pool": 2},
        (Control("pool", "pooling", 1, 8),),
        "C1 F1",
        "",
    ),
    Step(
        "strides",
        _THREE,
        "Strides sample down as well",
        "With learned weights in place of a maximum; rows may never be read.",
        "conv",
        {**_LAYER, "size": (6, 6), "stride": (2, 2), "numbers": True},
        (_SIZE, _KERNEL, _STRIDE),
        "C2",
        _BENCH,
    ),
    Step(
        "interpolation",
        _THREE,
        "Interpolation is a linear operation",
        "Every output is a weighted sum of inputs: y = R x, with weights that depend on the place alone.",
        "resize",
        {"size": (3, 3), "to": (6, 6), "mode": "linear"},
        (Control("mode", "mode", words=("nearest", "linear", "cubic", "spline", "area")), Control("to", "to", 1, 9)),
        "C3",
    ),
    Step(
        "interpolation-matrix",
        _THREE,
        "The matrix of an interpolation",
        "y = R x: a row for each output, and every row's weights sum to 1.",
        "resize_matrix",
        {"size": (2, 2), "to": (4, 4), "mode": "linear"},
        (Control("mode", "mode", words=("nearest", "linear", "cubic", "spline", "area")), Control("to", "to", 1, 6)),
        "C4",
    ),
    Step(
        "linearity",
        _THREE,
        "Which operations are linear?",
        "f(2u + v) = 2 f(u) + f(v) for all inputs? One pair that differs is enough to say no.",
        "linearity",
        {"operator": "max_pool", "size": (4, 4), "seed": 0},
        (
            Control(
                "operator",
                "operation",
                words=(
                    "max_pool",
                    "average_pool",
                    "nearest",
                    "linear",
                    "cubic",
                    "spline",
                    "convolution",
                    "bias",
                    "relu",
                ),
            ),
            Control("seed", "random seed", 0, 9),
        ),
        "C4",
    ),
    Step(
        "unpooling",
        _THREE,
        "Un-pooling",
        "Back to where the largest value was, or to a fixed place, zeros elsewhere.",
        "unpool",
        {"size": (4, 4), "kernel": (2, 2), "mode": "indices", "x": POOLED},
        (Control("mode", "mode", words=("indices", "fixed", "nearest", "average")),),
        "C5",
        "",
    ),
    Step(
        "transposed",
        _THREE,
        "Transposed convolution",
        "Each input adds the kernel to the output; or, read from the output, a window over stretched inputs.",
        "conv",
        {
            "size": (3, 3),
            "kernel": (3, 3),
            "stride": (2, 2),
            "padding": "none",
            "kind": "transposed",
            "view": "scatter",
            "numbers": True,
        },
        (Control("size", "size", 2, 5), _KERNEL, _STRIDE, Control("view", "read", words=("scatter", "gather"))),
        "C6",
        _BENCH,
    ),
    Step(
        "transposed-matrix",
        _THREE,
        "Its matrix is the transpose",
        "The convolution leads from 5 × 5 to 2 × 2, the transposed one back: rows and columns change places.",
        "matrix",
        {"size": (2, 2), "kernel": (3, 3), "stride": (2, 2), "kind": "transposed"},
        (Control("size", "size", 1, 3), _KERNEL, _STRIDE),
        "C6",
        "/layer?size={size}&kernel={kernel}&stride={stride}&kind={kind}",
    ),
    Step(
        "overlap",
        _THREE,
        "Uneven overlap makes checkerboards",
        "A kernel that the stride divides reaches every output equally often.",
        "overlap",
        {"kernel": (3, 4), "stride": 2, "size": (4, 4)},
        (Control("stride", "stride", 1, 4),),
        "C7",
        "/layer?kind=transposed&size={size}&kernel=3&stride={stride}",
    ),
    Step(
        "upsampling",
        _THREE,
        "Transposed convolution or resize and convolve?",
        "Checkerboards, weights and cost of seven ways of up-sampling.",
        "upsampling",
        rows="C7",
    ),
    Step(
        "shuffle",
        _THREE,
        "1 × 1 convolution and shuffle",
        "Channels become pixels: nothing overlaps.",
        "shuffle",
        {"size": (2, 3), "factor": 2},
        (Control("factor", "factor", 1, 3),),
        "C7",
    ),
    Step(
        "layout",
        _FOUR,
        "The order of a tensor in memory",
        "N C H W keeps a channel together, N H W C a pixel. The engine takes either.",
        "layout",
        {"channels": 3, "size": (2, 3)},
        (Control("channels", "channels", 1, 4),),
        "D1",
    ),
    Step(
        "volume",
        _FOUR,
        "One, two, three dimensions",
        "A volume is drawn as slices; the window lies on several of them.",
        "conv",
        {"size": (4, 4, 4), "kernel": (2, 2, 2), "stride": (2, 2, 2), "padding": "none", "kind": "correlation"},
        (Control("size", "size", 2, 5), Control("kernel", "kernel", 1, 3), _STRIDE),
        "E1 A5",
        _BENCH,
    ),
    Step(
        "neurons",
        _FOUR,
        "Receptive fields of neurons",
        "Ganglion cells answer to spots, simple cells of the cortex to edges. Learned kernels look alike.",
        "neurons",
        {},
        (),
        "D3",
    ),
    Step(
        "connections",
        _FOUR,
        "Who sees what",
        "Fully connected, a convolution, a convolution with strides.",
        "connections",
        {"size": 9, "kernel": 3, "stride": 2},
        (Control("size", "inputs", 3, 15), Control("kernel", "kernel", 1, 5), Control("stride", "stride", 1, 4)),
        "D2 B3",
    ),
    Step(
        "stack",
        _FOUR,
        "Stacked and dilated kernels",
        "Two kernels of 3 see what one of 5 does, with 18 C² for 25 C² weights; dilation grows the field faster.",
        "funnel_of_chain",
        {"chain": "k3 k3", "size": 17},
        (
            Control(
                "chain",
                "layers",
                words=("k3", "k3 k3", "k3 k3 k3", "k5", "k3d2 k3d2", "k3 k3d2 k3d4", "k3s2 k3s2", "k3 pool2 k3"),
            ),
        ),
        "D2 D4",
    ),
    Step(
        "field",
        _FOUR,
        "The receptive field in a network",
        "Exact, through all layers; borders included.",
        "field",
        {"model": "resnet18", "shape": (1, 3, 128, 128), "layer": "layer2"},
        (Control("layer", "layer", words=("conv1", "layer1", "layer2", "layer3")),),
        "D2 D3 H2",
        "/fields?net={model}&layer={layer}",
    ),
    Step(
        "dilated",
        _FOUR,
        "Dilated kernels",
        "The same weights, further apart: a larger field at no cost.",
        "conv",
        {**_LAYER, "size": (7, 7), "dilation": (2, 2)},
        (_SIZE, _KERNEL, Control("dilation", "dilation", 1, 3)),
        "D4 I2",
        _BENCH + "&dilation={dilation}",
    ),
    Step(
        "bottleneck",
        _FOUR,
        "1 × 1 kernels: a bottleneck",
        "A linear projection of the channels at every pixel, down and up again.",
        "channels",
        {"in_channels": 16, "out_channels": 16, "kernel": 3, "way": ("plain", "bottleneck")},
        (Control("in_channels", "channels in", 4, 64), Control("out_channels", "channels out", 4, 64)),
        "D4",
    ),
    Step(
        "two-and-a-half",
        _FOUR,
        "2.5-D kernels",
        "Within slices, then across them: 12 weights in place of 27.",
        "channels",
        {"in_channels": 1, "out_channels": 1, "kernel": 3, "way": ("2.5d",)},
        (_KERNEL,),
        "D5",
    ),
    Step(
        "deformable",
        _FOUR,
        "Adaptive kernels",
        "Each tap moves by an offset that is made from the image.",
        "deform",
        {"size": (6, 6), "offset": 0.8, "seed": 0},
        (
            Control(
                "offset", "offsets", words=("none", "small", "large"), values={"none": 0.0, "small": 0.8, "large": 2.0}
            ),
            Control("size", "input", words=("signal", "image", "volume"), values=_SIZES),
            Control("seed", "random seed", 0, 9),
        ),
        "D6",
    ),
    Step(
        "dynamic",
        _FOUR,
        "Kernels that depend on the image",
        "The layer mixes a few kernels, and each image decides with which shares.",
        "dynamic",
        {"size": (5, 5), "temperature": 1, "seed": 0},
        (
            Control(
                "size",
                "input",
                words=("signal", "image", "volume"),
                values={"signal": (9,), "image": (5, 5), "volume": (3, 4, 4)},
            ),
            Control("temperature", "temperature", 1, 9),
            Control("seed", "random seed", 0, 9),
        ),
        "D6",
    ),
    Step(
        "norm",
        _FOUR,
        "Constraints: soft and hard",
        "MaxNorm scales a kernel down after a step that made it too long.",
        "max_norm",
        {"bound": 2},
        (Control("bound", "bound", 1, 5),),
        "D7 I5",
    ),
    Step(
        "padding",
        _FOUR,
        "Padding",
        "None, half, full, causal: what lies outside, and how large the output becomes.",
        "conv",
        {**_LAYER, "padding": "half", "border": "zeros"},
        (_SIZE, _KERNEL, _PADDING, Control("border", "border", words=("zeros", "reflect", "replicate", "circular"))),
        "D8 I4",
        _BENCH + "&border={border}",
    ),
    Step(
        "causal",
        _FOUR,
        "Causal padding",
        "The output stands under the last input of its window: nothing of the future.",
        "conv",
        {"size": (8,), "kernel": (3,), "stride": (1,), "padding": "causal", "dilation": (1,), "kind": "correlation"},
        (Control("size", "size", 4, 12), _KERNEL, Control("dilation", "dilation", 1, 3)),
        "D8",
        _BENCH + "&dilation={dilation}",
    ),
    Step(
        "separable",
        _FOUR,
        "Separable kernels",
        "K = u vᵀ if its rank is 1: I * K = (I * u) * v, and 9 weights become 6.",
        "separable",
        {"kernel": KERNELS["Sobel"]},
        (Control("kernel", "kernel", words=tuple(KERNELS), values=KERNELS),),
        "D9 D10 D11",
    ),
    Step(
        "depthwise",
        _FOUR,
        "Depthwise separable: 135 or 42 weights",
        "A kernel for each channel, then 1 × 1 across channels. 64 to 128 channels, 5 × 5: 204 800 or 9 792.",
        "channels",
        {"in_channels": 3, "out_channels": 5, "kernel": 3, "way": ("plain", "depthwise_separable")},
        (Control("in_channels", "channels in", 1, 64), Control("out_channels", "channels out", 1, 128), _KERNEL),
        "D12",
        "/layer?size=7x7&kernel={kernel}&in={in_channels}&out={out_channels}&padding=half&bias=0",
    ),
    Step(
        "scaling",
        _FOUR,
        "Scaling: width, depth, resolution",
        "A width multiplier of a half costs about a quarter. Search chooses under budgets.",
        "scales",
        {"model": "mobilenet_v2"},
        (),
        "D13 D14",
        "/network?net={model}",
    ),
    Step(
        "arithmetic",
        _FIVE,
        "Sizes",
        "o = ⌊(i + 2p − k) / s⌋ + 1 along each axis; with dilation k becomes d (k − 1) + 1.",
        "conv",
        {**_LAYER, "size": (7, 7), "stride": (2, 2), "padding": "half"},
        (_SIZE, _KERNEL, _STRIDE, _PADDING),
        "E1 E2 E3 H3",
        _BENCH + "&want=3",
    ),
    Step(
        "gallery",
        _FIVE,
        "The guide's animations",
        "Dumoulin & Visin 2016, and the cases that they leave out.",
        "gallery",
        {"name": "padding_strides"},
        (),
        "E1 D8 A5",
    ),
    Step(
        "memory",
        _FIVE,
        "What a network holds",
        "Parameters are one cost; the values between layers are another.",
        "memory",
        {"model": "unet", "shape": (1, 1, 64, 64)},
        (),
        "E3 H5",
        "/network?net={model}&heat=memory",
    ),
    Step(
        "alexnet",
        _SIX,
        "AlexNet",
        "Large kernels and strides first, then three layers of 3 × 3.",
        "network",
        {"model": "alexnet", "shape": (1, 3, 224, 224), "depth": 2},
        (),
        "F1",
        "/network?net={model}",
    ),
    Step(
        "vgg",
        _SIX,
        "VGG",
        "Nothing but 3 × 3 kernels and pooling.",
        "network",
        {"model": "vgg11", "shape": (1, 3, 224, 224), "depth": 2},
        (),
        "F1",
        "/network?net={model}",
    ),
    Step(
        "inception",
        _SIX,
        "Inception",
        "Kernels of several sizes side by side, concatenated.",
        "block",
        {"name": "inception"},
        (),
        "F1",
        "/network?net=googlenet",
    ),
    Step(
        "resnet",
        _SIX,
        "ResNet",
        "The input is added to what two layers make of it.",
        "block",
        {"name": "residual, stride 2"},
        (Control("name", "block", words=("residual", "residual, stride 2", "bottleneck")),),
        "F1 G1 H1 I3",
        "/network?net=resnet18",
    ),
    Step(
        "densenet",
        _SIX,
        "DenseNet",
        "Each layer reads all that came before it.",
        "block",
        {"name": "dense"},
        (),
        "F1",
        "/network?net=densenet121",
    ),
    Step(
        "mobile",
        _SIX,
        "MobileNet and EfficientNet",
        "Depthwise separable layers between 1 × 1 projections.",
        "block",
        {"name": "inverted residual"},
        (Control("name", "block", words=("inverted residual", "mbconv")),),
        "F1 D12",
        "/network?net=mobilenet_v2",
    ),
    Step(
        "unet",
        _SIX,
        "U-Net",
        "Down, up, and skips across: one number adds a resolution level.",
        "network",
        {"model": "unet", "shape": (1, 1, 64, 64), "levels": 3},
        (Control("levels", "levels", 1, 5),),
        "F1 G2 H4 I7",
        "/network?net={model}&shape=1,1,64,64&set=levels%3D{levels}",
    ),
)


def find_step(name: str) -> Step:
    """Return the step of a name; the first for none.

    Raises:
        ConfigError: there is no such step.
    """
    found = STEPS[0] if not name else next((step for step in STEPS if step.name == name), None)
    if found is None:
        raise ConfigError(f"step: there is no step {name[:40]!r}. Open the lecture at its beginning.")
    return found


def sections(steps: Sequence[Step] = STEPS) -> dict[str, list[Step]]:
    """Return the steps by their section, in order."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.section, []).append(step)
    return found
