"""The layers to compare: lines of a list such as ``layers.txt``, which says how to write them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convoxel.arithmetic.window import conv_size, transposed_size
from convoxel.errors import ConfigError, ShapeError

LIST = Path(__file__).with_name("layers.txt")

_MARK = re.compile(r"([kspd])(\d+(?:x\d+)*)|(g)(\d+)|(t)|(quick)")


@dataclass(frozen=True)
class Layer:
    """One convolution at batch 1; tuples have one number per spatial axis.

    Attributes:
        net: the network that it comes from.
        in_channels, out_channels, groups: as in PyTorch.
        size: spatial sizes of the input.
        kernel, stride, padding, dilation: as in PyTorch; padding is the same at both ends.
        transposed: whether it is a transposed convolution.
        quick: whether it belongs to the short list.
    """

    net: str
    in_channels: int
    size: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    quick: bool = False

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def out_size(self) -> tuple[int, ...]:
        """Size of the output."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        if self.transposed:
            return tuple(transposed_size(i, k, s, (p, p), d, 0) for i, k, s, p, d in axes)
        return tuple(conv_size(i, k, s, (p, p), d) for i, k, s, p, d in axes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out_channels, in_channels/groups, *kernel); transposed: (in_channels, out_channels/groups, *kernel)."""
        ends = (self.in_channels, self.out_channels)
        first, second = ends if self.transposed else ends[::-1]
        return (first, second // self.groups, *self.kernel)

    @property
    def fan_in(self) -> int:
        """Products that are added for one output."""
        return math.prod(self.kernel) * self.in_channels // self.groups

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of the direct algorithm."""
        pixels = math.prod(self.size if self.transposed else self.out_size)
        macs = pixels * math.prod(self.kernel) * self.in_channels * self.out_channels / self.groups
        return 2 * macs / 1e9

    @property
    def fully_connected(self) -> bool:
        """True if it is one matrix times one vector."""
        return self.groups == 1 and set(self.size) == set(self.out_size) == set(self.kernel) == {1}

    @property
    def kind(self) -> str:
        """The first of ``KINDS`` that it belongs to."""
        return next(name for name, belongs in KINDS.items() if belongs(self))

    @property
    def text(self) -> str:
        """The layer without its net."""
        return " ".join(str(self).split()[1:])

    def __str__(self) -> str:
        marks = f"k{_short(self.kernel)}"
        marks += f" s{_short(self.stride)}" if max(self.stride) > 1 else ""
        usual = _usual_padding(self.kernel, self.dilation, self.transposed)
        marks += f" p{_short(self.padding)}" if self.padding != usual else ""
        marks += f" d{_short(self.dilation)}" if max(self.dilation) > 1 else ""
        marks += f" g{self.groups}" if self.groups > 1 else ""
        marks += " t" if self.transposed else ""
        source = f"{self.in_channels}x{_short(self.size)}"
        return f"{self.net:<12}{self.dims}-D {source:>9} -> {self.out_channels:<4} {marks}"


# Kinds of layers for means: name and question, in the order in which they are asked.
KINDS: dict[str, Callable[[Layer], bool]] = {
    "1-D": lambda layer: layer.dims == 1,
    "transposed": lambda layer: layer.transposed,
    "fully connected": lambda layer: layer.fully_connected,
    "first layers": lambda layer: layer.in_channels <= 4,
    "depthwise 2-D": lambda layer: layer.dims == 2 and layer.groups == layer.in_channels,
    "depthwise 3-D": lambda layer: layer.dims == 3 and layer.groups == layer.in_channels,
    "strided": lambda layer: max(layer.stride) > 1,
    "1x1": lambda layer: max(layer.kernel) == 1,
    "3x3 s1": lambda layer: layer.kernel == (3, 3),
    "3x3x3": lambda layer: layer.kernel == (3, 3, 3),
    "large kernels": lambda layer: min(layer.kernel) >= 5,
    "other": lambda layer: True,
}


def _usual_padding(kernel: Sequence[int], dilation: Sequence[int], transposed: bool) -> tuple[int, ...]:
    """Return the padding of a line without ``p``, with which the size stays for an odd kernel and stride 1."""
    return tuple(0 if transposed else d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))


def _short(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def parse_layer(line: str) -> Layer:
    """Return the layer that a line of a list describes, with one input and one output.

    Raises:
        ConfigError: the line is none, or its numbers do not make a convolution.

    >>> print(parse_layer("vgg16 2 64x224 64 k3"))
    vgg16       2-D    64x224 -> 64   k3
    >>> parse_layer("inception3 2 128x17 192 k1x7").out_size
    (17, 17)
    """
    (layer,) = parse_layers(line)
    return layer


def parse_layers(line: str) -> list[Layer]:
    """Return the layers that a line of a list describes: each of its inputs with each of its outputs.

    Raises:
        ConfigError: the line describes none, or its numbers do not make a convolution.

    >>> [str(layer).split()[2:5] for layer in parse_layers("vgg16 2 64x112,128x112 128 k3")]
    [['64x112', '->', '128'], ['128x112', '->', '128']]
    """
    net, dims, sources, outs, *marks = *line.split(), *[""] * 4
    return [
        _parse(line, [net, dims, source, out, *filter(None, marks)])
        for source in sources.split(",")
        for out in outs.split(",")
    ]


def _parse(line: str, words: Sequence[str]) -> Layer:
    try:
        net, dims_, source, out, *marks = words
        dims, (channels, *size) = int(dims_), map(int, source.split("x"))
        numbers, flags = _read_marks(marks)
        if dims not in (1, 2, 3) or "k" not in numbers:
            raise ValueError
        kernel, stride, dilation = (_per_axis(numbers.get(name, (1,)), dims) for name in "ksd")
        padding = _per_axis(numbers.get("p", _usual_padding(kernel, dilation, "t" in flags)), dims)
        (groups,) = numbers.get("g", (1,))
        layer = Layer(
            net, channels, _per_axis(tuple(size), dims), int(out), kernel, stride, padding, dilation, groups,
            "t" in flags, "quick" in flags,
        )  # fmt: skip
    except ValueError:
        raise ConfigError(
            f"layers: got {line.strip()!r}; expected: net dims channelsxsize out_channels kN [sN] [pN] [dN] [gN] [t] "
            "[quick], as in 'resnet18 2 64x56 128 k3 s2'; sizes and N may be one number per axis, as in k1x7. Commas "
            "separate several inputs or outputs."
        ) from None
    positive = (*layer.size, *kernel, *stride, *dilation, channels, layer.out_channels, groups)
    if min(positive) < 1 or channels % groups or layer.out_channels % groups or not _fits(layer):
        raise ConfigError(
            f"layers: {line.strip()!r} is no convolution: numbers must be at least 1, g must divide both channels, "
            "and the kernel must fit the padded input."
        )
    return layer


def _fits(layer: Layer) -> bool:
    try:
        return min(layer.out_size) >= 1
    except ShapeError:
        return False


def _read_marks(marks: Iterable[str]) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    numbers: dict[str, tuple[int, ...]] = {}
    flags: set[str] = set()
    for mark in marks:
        match = _MARK.fullmatch(mark)
        if match is None:
            raise ValueError
        letter, values = (match[1] or match[3]), (match[2] or match[4])
        if letter:
            numbers[letter] = tuple(map(int, values.split("x")))
        else:
            flags.add(mark)
    return numbers, flags


def _per_axis(values: tuple[int, ...], dims: int) -> tuple[int, ...]:
    values = values * dims if len(values) == 1 else values
    if len(values) != dims:
        raise ValueError
    return values


def read_layers(path: Path = LIST) -> list[Layer]:
    """Return the layers of a list; empty lines and those that begin with ``#`` are left out.

    Raises:
        ConfigError: the file cannot be read, a line is no layer (it is named), or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"layers: {path} cannot be read ({reason}); give a list of layers.") from None
    layers = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                layers += parse_layers(line)
            except ConfigError as error:
                raise ConfigError(f"{path.name}, line {number}: {error}") from None
    if not layers:
        raise ConfigError(f"layers: {path} holds no layer.")
    return layers


def select_layers(
    layers: Sequence[Layer], nets: Sequence[str] = (), dims: Sequence[int] = (), all_lines: bool = False
) -> list[Layer]:
    """Return the layers of some nets and numbers of axes; of these the quick ones, if there are any.

    Args:
        layers: the layers to choose from.
        nets: names of nets (default: all).
        dims: numbers of axes (default: all).
        all_lines: whether to return those that are not quick, too.

    Raises:
        ConfigError: a net that is not in the list, or nothing is left.
    """
    names = list(dict.fromkeys(layer.net for layer in layers))
    for net in nets:
        if net not in names:
            raise ConfigError(f"nets: got {net!r}; expected some of {', '.join(names)}.")
    found = [layer for layer in layers if (not nets or layer.net in nets) and (not dims or layer.dims in dims)]
    if not found:
        has = ", ".join(map(str, sorted({layer.dims for layer in layers if not nets or layer.net in nets})))
        raise ConfigError(f"dims: got {', '.join(map(str, dims))}; these layers have {has}.")
    quick = [layer for layer in found if layer.quick]
    return found if all_lines or not quick else quick
