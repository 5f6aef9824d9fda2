"""Random modules whose layers compute with their input's size: resizing by fractions and to a skip's size, crops, pads.

A seed decides everything. Every layer is drawn, tried on features of several sizes, and kept if it runs on all of them.
Modules take (n, 3, …) with the sizes of ``sizes``, in 1-D, 2-D and 3-D.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DrawnExport"]

CHANNELS = 3
_MOST = 60_000  # numbers of a feature
# The first is exported; the others run: smaller, larger, even, odd, powers of two.
_SIZES: dict[int, Sequence[tuple[int, ...]]] = {
    1: ((41,), (36,), (64,), (53,)),
    2: ((19, 22), (24, 17), (32, 32), (21, 29)),
    3: ((9, 10, 11), (8, 12, 10), (11, 9, 13)),
}
_FACTORS = (0.3, 0.5, 0.6, 0.7, 0.75, 1.25, 1.3, 1.5, 1.7, 2, 2, 2.5, 3)
Features = list[Tensor]
Layer = Callable[[Tensor, Features], Tensor]


class _Function(nn.Module):
    """A function of a feature and of the earlier ones."""

    def __init__(self, function: Layer) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, skips: Features) -> Tensor:
        """Return the function's result."""
        return self.function(x, skips)


class _Plain(nn.Module):
    """A layer that does not look at earlier features."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, skips: Features) -> Tensor:
        """Return the layer's result."""
        y: Tensor = self.layer(x)
        return y


class DrawnExport(nn.Module):
    """A module of up to ``layers`` random layers, decided by ``seed``; ``kinds`` names them.

    ``inputs`` are of the sizes that it takes, the first of them to be exported; ``open_batch`` says that their batches
    differ as well. ``exact`` permits the mode "nearest-exact", which the TorchScript exporter does not know.
    """

    def __init__(self, seed: int, exact: bool = True, layers: int = 6) -> None:
        super().__init__()
        self._random = random.Random(seed)
        torch.manual_seed(seed)
        self.dims = self._random.choice((1, 2, 2, 2, 3))
        self.sizes = _SIZES[self.dims]
        self.kinds: list[str] = []
        self.body = nn.ModuleList()
        self.exact = exact
        self.open_batch = self._random.random() < 0.3
        batches = [2, 1, 3, 2] if self.open_batch else [self._random.choice((1, 1, 2))] * 4
        self.inputs = [torch.randn(n, CHANNELS, *size) for n, size in zip(batches, self.sizes, strict=False)]
        self._features: list[Features] = [[x] for x in self.inputs]
        for _ in range(self._random.randint(3, layers)):
            self._grow()
        self.pooled = self._random.random() < 0.15
        self.eval()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the result of all layers, or also its mean over space."""
        skips = [x]
        for layer in self.body:
            skips.append(layer(skips[-1], skips))
        y = skips[-1]
        return (y, y.mean(tuple(range(2, y.dim())))) if self.pooled else y

    def _grow(self) -> None:
        """Add a layer that runs on features of all sizes."""
        for _ in range(20):
            kind = self._random.choice(_DRAWN)
            drawn = _KINDS[kind](self)
            if drawn is None:
                continue
            layer = (_Plain(drawn) if isinstance(drawn, nn.Module) else _Function(drawn)).eval()
            with torch.no_grad():
                try:
                    results = [layer(skips[-1], list(skips)) for skips in self._features]
                except (RuntimeError, ValueError, IndexError):
                    continue
            if all(r.dim() == self.dims + 2 and 0 < r.numel() < _MOST and bool(r.isfinite().all()) for r in results):
                self.body.append(layer)
                self.kinds.append(kind)
                for skips, result in zip(self._features, results, strict=True):
                    skips.append(result)
                return

    # ---- what layers are drawn from

    @property
    def channels(self) -> int:
        """The channels of the last feature."""
        return self._features[0][-1].shape[1]

    @property
    def positions(self) -> int:
        """The most positions of a last feature."""
        return max(math.prod(skips[-1].shape[2:]) for skips in self._features)

    def choose(self, *options: object) -> object:
        """Return one of the options."""
        return self._random.choice(options)

    def some(self, *options: int) -> int:
        """Return one of some numbers."""
        return self._random.choice(options)

    def of(self, kind: str, *arguments: object, **options: object) -> nn.Module:
        """Return a layer of PyTorch for this number of axes."""
        made: nn.Module = getattr(nn, f"{kind}{self.dims}d")(*arguments, **options)
        return made

    def pick(self) -> int:
        """Return the number of an earlier feature."""
        return self._random.randrange(len(self._features[0]))


_KINDS: dict[str, Callable[[DrawnExport], nn.Module | Layer | None]] = {}


def _kind(function: Callable[[DrawnExport], nn.Module | Layer | None]) -> None:
    _KINDS[function.__name__.strip("_")] = function


def _space(net: DrawnExport) -> range:
    return range(2, 2 + net.dims)


def _within(shape: Sequence[object]) -> tuple[object, ...]:
    return (slice(None), slice(None), *shape)


# ---- layers ----------------------------------------------------------------------------------------------------


def _convolution(net: DrawnExport) -> nn.Module:
    kernel, dilation = net.some(1, 2, 3, 3, 4, 5), net.some(1, 1, 2)
    padding = net.choose(0, 1, kernel // 2, "same")
    stride = 1 if padding == "same" else net.some(1, 1, 2, 3)
    groups = net.some(1, 1, net.channels)
    mode = net.choose("zeros", "zeros", "reflect", "replicate", "circular")
    out = net.some(1, 2, 4) * groups if groups > 1 else net.some(2, 4, 6)
    return net.of("Conv", net.channels, out, kernel, stride, padding, dilation, groups, True, mode)


def _pointwise(net: DrawnExport) -> nn.Module:
    return net.of("Conv", net.channels, net.some(2, 4, 8), 1)


def _transposed(net: DrawnExport) -> nn.Module:
    kernel, stride = net.some(2, 3, 4), net.some(1, 2, 2)
    extra = net.some(0, stride - 1)
    return net.of("ConvTranspose", net.channels, net.some(2, 4), kernel, stride, net.some(0, 1), extra)


def _max_pool(net: DrawnExport) -> nn.Module:
    kernel = net.some(2, 3)
    return net.of("MaxPool", kernel, net.some(1, 2, 3), net.some(0, kernel // 2), ceil_mode=net.choose(False, True))


def _average_pool(net: DrawnExport) -> nn.Module:
    kernel, counted = net.some(2, 3), net.choose(False, True)
    stride, padding = net.some(1, 2, 3), net.some(0, kernel // 2)
    ceil = net.choose(False, True)
    return net.of("AvgPool", kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)


def _lp_pool(net: DrawnExport) -> nn.Module:
    return net.of("LPPool", net.some(1, 2, 3), net.some(2, 3), net.some(1, 2), ceil_mode=net.choose(False, True))


def _adaptive_pool(net: DrawnExport) -> nn.Module:
    size = net.some(1, 1, 1, 2)
    return net.of(str(net.choose("AdaptiveAvgPool", "AdaptiveMaxPool")), size)


def _norm(net: DrawnExport) -> nn.Module:
    made = net.choose("BatchNorm", "InstanceNorm", "GroupNorm")
    if made == "GroupNorm":
        return nn.GroupNorm(net.some(1, net.channels), net.channels)
    norm = net.of(str(made), net.channels, affine=True)
    if made == "BatchNorm":
        norm.running_mean = torch.randn(net.channels)  # type: ignore[assignment]
        norm.running_var = torch.rand(net.channels) + 0.5  # type: ignore[assignment]
    return norm


def _layer_norm(net: DrawnExport) -> Layer:
    norm = nn.LayerNorm(net.channels).requires_grad_(False)
    last, first = (0, *_space(net), 1), (0, net.dims + 1, *range(1, net.dims + 1))
    return lambda x, skips: norm(x.permute(last)).permute(first)


def _activation(net: DrawnExport) -> nn.Module:
    kinds = (nn.ReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Tanh, nn.Softplus, nn.Mish)
    kind: type[nn.Module] = net.choose(*kinds)  # type: ignore[assignment]
    return kind()


# ---- resizing --------------------------------------------------------------------------------------------------


def _mode(net: DrawnExport) -> dict[str, object]:
    mode = net.choose("nearest", *{1: ("linear",), 2: ("bilinear", "bilinear", "bicubic"), 3: ("trilinear",)}[net.dims])
    mode = net.choose(mode, mode, mode, "nearest-exact") if net.exact else mode
    return {"mode": mode} | ({} if str(mode).startswith("nearest") else {"align_corners": net.choose(False, True)})


def _resize_by_factor(net: DrawnExport) -> Layer:
    factor = net.choose(*_FACTORS)
    if net.some(0, 0, 1):
        factor = tuple(net.choose(*_FACTORS) for _ in range(net.dims))
    how = _mode(net) | {"scale_factor": factor}
    if net.some(0, 0, 1):
        how["recompute_scale_factor"] = True
    return lambda x, skips: functional.interpolate(x, **how)  # type: ignore[arg-type]


def _resize_to_skip(net: DrawnExport) -> Layer:
    how, index = _mode(net), net.pick()
    return lambda x, skips: functional.interpolate(x, size=skips[index].shape[2:], **how)  # type: ignore[arg-type]


def _resize_to_double(net: DrawnExport) -> Layer:
    how, more = _mode(net), net.some(0, 1)

    def resize(x: Tensor, skips: Features) -> Tensor:
        return functional.interpolate(x, size=[2 * s - more for s in x.shape[2:]], **how)  # type: ignore[arg-type]

    return resize


def _resize_to_half(net: DrawnExport) -> Layer:
    how, up = _mode(net), net.some(0, 1)

    def resize(x: Tensor, skips: Features) -> Tensor:
        size = [(s + 1) // 2 if up else int(s * 0.5) for s in x.shape[2:]]
        return functional.interpolate(x, size=size, **how)  # type: ignore[arg-type]

    return resize


def _fixed_size(net: DrawnExport) -> Layer:
    how, size = _mode(net), [net.some(5, 8, 12) for _ in range(net.dims)]
    return lambda x, skips: functional.interpolate(x, size=size, **how)  # type: ignore[arg-type]


def _area(net: DrawnExport) -> Layer:
    size = [net.some(1, 4)] * net.dims
    return lambda x, skips: functional.interpolate(x, size=size, mode="area")


# ---- crops and pads --------------------------------------------------------------------------------------------


def _crop_to_skip(net: DrawnExport) -> Layer:
    index, centred = net.pick(), net.some(0, 1)

    def crop(x: Tensor, skips: Features) -> Tensor:
        for axis in _space(net):
            size = skips[index].shape[axis]
            start = (x.shape[axis] - size) // 2 if centred else 0
            if x.shape[axis] < size:
                raise ValueError("smaller")
            x = x.narrow(axis, start, size) if centred else x[_within([slice(None)] * (axis - 2) + [slice(size)])]
        return x

    return crop


def _crop_skip(net: DrawnExport) -> Layer:
    """The crop of a U-Net: the earlier feature is cut to the size of this one and joined to it."""
    index = net.pick()

    def crop(x: Tensor, skips: Features) -> Tensor:
        skip = skips[index]
        for axis in _space(net):
            start = (skip.shape[axis] - x.shape[axis]) // 2
            if start < 0:
                raise ValueError("smaller")
            skip = skip[_within([slice(None)] * (axis - 2) + [slice(start, start + x.shape[axis])])]
        return torch.cat((x, skip), 1)

    return crop


def _pad_to_skip(net: DrawnExport) -> Layer:
    """The pad of a U-Net: this feature grows to the size of an earlier one."""
    index = net.pick()

    def pad(x: Tensor, skips: Features) -> Tensor:
        pads: list[int] = []
        for axis in reversed(_space(net)):
            more = skips[index].shape[axis] - x.shape[axis]
            pads += [more // 2, more - more // 2]
        return torch.cat((functional.pad(x, pads), skips[index]), 1)

    return pad


def _pad_to_multiple(net: DrawnExport) -> Layer:
    multiple, form = net.some(2, 4, 8), net.some(0, 1, 2)

    def pad(x: Tensor, skips: Features) -> Tensor:
        pads: list[int] = []
        for axis in reversed(_space(net)):
            size = x.shape[axis]
            more = (
                (multiple - size % multiple) % multiple
                if form == 0
                else -size % multiple
                if form == 1
                else (size + multiple - 1) // multiple * multiple - size
            )
            pads += [0, more]
        return functional.pad(x, pads)

    return pad


def _pad(net: DrawnExport) -> Layer:
    pads = [net.some(0, 1, 2) for _ in range(2 * net.dims)]
    mode = str(net.choose("constant", "reflect", "replicate", "circular"))
    return lambda x, skips: functional.pad(x, pads, mode=mode)


def _cut(net: DrawnExport) -> Layer:
    pads = [-net.some(0, 1) for _ in range(2 * net.dims)]
    return lambda x, skips: functional.pad(x, pads)


def _inside(net: DrawnExport) -> Layer:
    bounds = [slice(net.some(0, 1), net.choose(None, -1)) for _ in range(net.dims)]
    return lambda x, skips: x[_within(bounds)]


def _half(net: DrawnExport) -> Layer:
    axis, second = net.some(*_space(net)), net.some(0, 1)

    def cut(x: Tensor, skips: Features) -> Tensor:
        middle = x.shape[axis] // 2
        part = slice(middle, None) if second else slice(None, middle)
        return x[_within([slice(None)] * (axis - 2) + [part])]

    return cut


def _every_second(net: DrawnExport) -> Layer:
    steps = [slice(net.some(0, 1), None, net.some(1, 2, 3)) for _ in range(net.dims)]
    return lambda x, skips: x[_within(steps)]


def _focus(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))

    def cut(x: Tensor, skips: Features) -> Tensor:
        even = x.shape[axis] // 2 * 2
        x = x.narrow(axis, 0, even)
        parts = [x[_within([slice(None)] * (axis - 2) + [slice(i, None, 2)])] for i in (0, 1)]
        return torch.cat(parts, 1)

    return cut


# ---- joints ----------------------------------------------------------------------------------------------------


def _join(net: DrawnExport) -> Layer:
    how, index = _mode(net), net.pick()

    def join(x: Tensor, skips: Features) -> Tensor:
        y = functional.interpolate(x, size=skips[index].shape[2:], **how)  # type: ignore[arg-type]
        return torch.cat((y, skips[index]), 1)

    return join


def _add(net: DrawnExport) -> Layer:
    index = net.pick()
    return lambda x, skips: x + skips[index]


def _gate(net: DrawnExport) -> Layer:
    axes = tuple(_space(net))
    return lambda x, skips: x * x.mean(axes, keepdim=True).sigmoid()


def _standardise(net: DrawnExport) -> Layer:
    axes = tuple(_space(net))
    return lambda x, skips: (x - x.mean(axes, keepdim=True)) / (x.std(axes, keepdim=True) + 1.0)


def _largest(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))
    return lambda x, skips: x + x.amax(axis, keepdim=True)


def _spatial_softmax(net: DrawnExport) -> Layer:
    return lambda x, skips: x.flatten(2).softmax(-1).view(x.shape) * x.flatten(2).shape[-1]


def _stack_parts(net: DrawnExport) -> Layer:
    axis, parts = net.some(1, *_space(net)), net.some(2, 3)

    def chunks(x: Tensor, skips: Features) -> Tensor:
        return torch.cat(x.chunk(parts, axis)[::-1], axis)

    return chunks


def _split_parts(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))

    def split(x: Tensor, skips: Features) -> Tensor:
        half = x.shape[axis] // 2
        first, second = x.split([half, x.shape[axis] - half], axis)
        return torch.cat((second, first), axis)

    return split


def _roll(net: DrawnExport) -> Layer:
    axis, shift = net.some(*_space(net)), net.some(1, -1, 2)
    return lambda x, skips: torch.roll(x, shift, axis)


def _flip(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))
    return lambda x, skips: torch.cat((x, x.flip(axis)), 1)


# ---- shapes ----------------------------------------------------------------------------------------------------


def _pixel_shuffle(net: DrawnExport) -> nn.Module | None:
    return nn.Sequential(nn.Conv2d(net.channels, 8, 1), nn.PixelShuffle(2)) if net.dims == 2 else None


def _pixel_unshuffle(net: DrawnExport) -> Layer | None:
    if net.dims != 2:
        return None

    def unshuffle(x: Tensor, skips: Features) -> Tensor:
        return functional.pixel_unshuffle(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2], 2)

    return unshuffle


def _unfold(net: DrawnExport) -> Layer | None:
    if net.dims != 2:
        return None
    kernel, padding, stride, dilation = net.some(2, 3), net.some(0, 1), net.some(1, 2), net.some(1, 1, 2)

    def unfold(x: Tensor, skips: Features) -> Tensor:
        columns = functional.unfold(x, kernel, dilation, padding, stride)
        sizes = [(s + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for s in x.shape[2:]]
        return columns.view(x.shape[0], -1, *sizes)

    return unfold


def _attention(net: DrawnExport) -> Layer | None:
    if net.positions > 1000:
        return None

    def attend(x: Tensor, skips: Features) -> Tensor:
        flat = x.flatten(2)
        shares = (flat.transpose(1, 2) @ flat / flat.shape[1] ** 0.5).softmax(-1)
        return (flat @ shares.transpose(1, 2)).reshape(x.shape)

    return attend


def _channel_attention(net: DrawnExport) -> Layer:
    def attend(x: Tensor, skips: Features) -> Tensor:
        n, c, *space = x.shape
        flat = x.reshape(n, c, -1)
        shares = (flat @ flat.transpose(1, 2) / flat.shape[2]).softmax(-1)
        return (shares @ flat).view(n, c, *space)

    return attend


def _windows(net: DrawnExport) -> Layer:
    """Windows of two positions along an axis, each with its mean taken off."""
    axis = net.some(*_space(net))

    def part(x: Tensor, skips: Features) -> Tensor:
        x = x.narrow(axis, 0, x.shape[axis] // 2 * 2)
        shape = list(x.shape)
        pairs = x.reshape(*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])
        return (pairs - pairs.mean(axis + 1, keepdim=True)).reshape(shape)

    return part


def _rows(net: DrawnExport) -> Layer:
    """A linear layer over channels, positions as rows."""
    linear = nn.Linear(net.channels, net.some(2, 4)).requires_grad_(False)

    def project(x: Tensor, skips: Features) -> Tensor:
        y = linear(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])

    return project


def _per_size(net: DrawnExport) -> Layer:
    axis, form = net.some(*_space(net)), net.some(0, 1, 2)

    def scale(x: Tensor, skips: Features) -> Tensor:
        size = x.shape[axis]
        return x / size if form == 0 else x * (size // 2) if form == 1 else x + size / 8

    return scale


def _positions(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))

    def add(x: Tensor, skips: Features) -> Tensor:
        places = torch.arange(x.shape[axis]) / x.shape[axis]
        return x + places.view(-1, *(1,) * (net.dims + 1 - axis))

    return add


def _zeros(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))

    def join(x: Tensor, skips: Features) -> Tensor:
        shape = [2 if i == axis else size for i, size in enumerate(x.shape)]
        return torch.cat((x, x.new_zeros(shape)), axis)

    return join


def _spread(net: DrawnExport) -> Layer:
    axes = tuple(_space(net))
    return lambda x, skips: torch.cat((x, x.mean(axes, keepdim=True).expand(-1, -1, *x.shape[2:])), 1)


def _repeat(net: DrawnExport) -> Layer:
    repeats = [1, 1, *(net.some(1, 2) for _ in range(net.dims))]
    return lambda x, skips: x.repeat(repeats)


def _running_sum(net: DrawnExport) -> Layer:
    axis = net.some(*_space(net))
    return lambda x, skips: x.cumsum(axis) / x.shape[axis]


for _function in (
    *(_convolution, _pointwise, _transposed, _max_pool, _average_pool, _lp_pool, _adaptive_pool, _norm, _layer_norm),
    *(_activation, _resize_by_factor, _resize_to_skip, _resize_to_double, _resize_to_half, _fixed_size, _area),
    *(_crop_to_skip, _crop_skip, _pad_to_skip, _pad_to_multiple, _pad, _cut, _inside, _half, _every_second, _focus),
    *(_join, _add, _gate, _standardise, _largest, _spatial_softmax, _stack_parts, _split_parts, _roll, _flip),
    *(_pixel_shuffle, _pixel_unshuffle, _unfold, _attention, _channel_attention, _windows, _rows, _per_size),
    *(_positions, _zeros, _spread, _repeat, _running_sum),
):
    _kind(_function)
_DRAWN = sorted([*_KINDS, *(kind for kind in _KINDS if kind.startswith("resize_") or kind == "join")])
