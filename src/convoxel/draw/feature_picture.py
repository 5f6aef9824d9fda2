"""Convolution, activation and pooling of a photograph as feature maps, and kernels of neurons beside learned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.caption import EDGE, heading
from convoxel.draw.figure import Figure
from convoxel.draw.image_overlay import image_pixels
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import listed, sizes, spelled
from convoxel.draw.scene import Bitmap, Box, Look, Shape, Words
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import Array
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

if TYPE_CHECKING:
    from torch import nn

KERNELS: Mapping[str, tuple[tuple[float, ...], ...]] = {
    "edges across": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "edges down": ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
    "spots": ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
    "blur": ((1 / 9,) * 3,) * 3,
}
_PANEL, _GAP, _KERNEL = 168.0, 20.0, 66.0
_MAP = 112.0
_MOST = 192  # pixels along an axis that are convolved
_HEAD, _SOFT = Look(fill="ink", size=12, bold=True), Look(fill="soft", size=11)
_FRAME = Look(stroke="faint", weight=1)


def features(image: ArrayLike, kernels: Mapping[str, ArrayLike] | None = None, *, pool: int = 2) -> Figure:
    """Return convolution, activation (ReLU) and max pooling of a photograph as feature maps, a row for each kernel.

    Args:
        image: (rows, columns), or with channels first or last, whose mean is taken; large ones are made smaller.
        kernels: name → (rows, columns) (default: edges, spots and blur).
        pool: kernel size and stride of the pooling (default 2).

    Raises:
        ShapeError: the image or a kernel has other axes.
        ConfigError: the pooling is below 1, or there is no kernel.

    >>> features(np.eye(24), pool=2).text
    'Feature maps of an image of 24 × 24: 22 × 22 after the convolution, 11 × 11 after the pooling.'
    """
    import torch

    from convoxel.nn import functional

    grey = greyscale(image)
    chosen = {name: np.asarray(k, np.float64) for name, k in (KERNELS if kernels is None else kernels).items()}
    if not chosen or pool < 1:
        raise ConfigError(
            f"features: got {len(chosen)} kernels and pool {pool}; expected at least one, and at least 1."
        )
    tensor = torch.as_tensor(grey)[None, None]
    rows: list[tuple[str, Array, Array, Array, Array]] = []
    for name, kernel in chosen.items():
        if kernel.ndim != 2:
            raise ShapeError(f"features: kernel {name!r} has shape {kernel.shape}; expected (rows, columns).")
        response = functional.correlate(tensor, torch.as_tensor(kernel)[None, None])
        active = response.clamp(min=0)
        pooled: Any = functional.max_pool(active, pool)
        maps = [step[0, 0].numpy() for step in (response, active, pooled)]
        rows.append((name, kernel, maps[0], maps[1], maps[2]))
    title = "Convolution, activation, pooling"
    shapes, width, top = heading(title, ["Each row is one kernel: the image under it, negative values cut off, then"
                                         f" the largest of every {pool} × {pool}."])  # fmt: skip
    scale = _PANEL / max(grey.shape)
    tall = grey.shape[0] * scale
    y = top + 22
    left = EDGE + _PANEL + _GAP
    shapes.append(Words(EDGE, y - 8, f"image {sizes(grey.shape)}", look=_HEAD))
    shapes += _panel(grey, (EDGE, y), scale, "image")
    heads = [
        "kernel",
        f"convolution {sizes(rows[0][2].shape)}",
        "activation (ReLU)",
        f"pooling {sizes(rows[0][4].shape)}",
    ]
    for column, word in enumerate(heads):
        x = left + (0 if column == 0 else _KERNEL + _GAP + (column - 1) * (_PANEL + _GAP))
        shapes.append(Words(x, y - 8, word, look=_HEAD))
    for name, kernel, *maps in rows:
        cell = _KERNEL / max(kernel.shape)
        shapes += _weights(kernel, (left, y + (tall - _KERNEL) / 2), cell)
        shapes.append(Words(left, y + (tall + _KERNEL) / 2 + 16, name, look=_SOFT))
        for column, values in enumerate(maps):
            x = left + _KERNEL + _GAP + column * (_PANEL + _GAP)
            shapes += _panel(values, (x, y), scale * (pool if column == 2 else 1), name, signed=column == 0)
        y += tall + _GAP
    right = left + _KERNEL + 3 * (_PANEL + _GAP)
    first = rows[0]
    text = f"Feature maps of an image of {sizes(grey.shape)}: {sizes(first[2].shape)} after the convolution, "
    text += f"{sizes(first[4].shape)} after the pooling."
    note = "Grey is 0 in the first column of maps, brighter is positive; black is 0 in the others."
    shapes.append(Words(EDGE, y + 4, note, look=_SOFT))
    return Figure(title, text, max(width, right + EDGE), y + 20, tuple(shapes))


def feature_maps(name: str, image: ArrayLike, layers: Mapping[str, ArrayLike], *, most: int = 6) -> Figure:
    """Return the strongest feature maps of some layers, a row for each layer, beside the image.

    Args:
        name: name of the network.
        image: input of the network, (channels, *spatial) of one to three axes; channels are averaged.
        layers: name of a layer → its result, (channels, *spatial). Of volumes the middle slice is drawn.
        most: number of maps of a layer, those with the largest mean size first (default 6).

    Raises:
        ShapeError: the image or a result has other axes.
        ConfigError: there is no layer, or ``most`` is below 1.

    >>> feature_maps("net", np.eye(8)[None], {"conv": np.ones((4, 8, 8))}, most=2).text
    'Feature maps of net: conv, 2 of 4 channels of 8 × 8, the strongest 0 and 1.'
    """
    if not layers or most < 1:
        raise ConfigError(f"feature_maps: got {len(layers)} layers and most={most}; expected at least one, and 1.")
    title = f"Feature maps of {name}"
    shapes, width, top = heading(title, ["The strongest channels of each layer: grey is 0, brighter is positive."])
    whole = _plane("image", image).mean(axis=0)
    scale = _PANEL / max(whole.shape)
    y = top + 22
    shapes.append(Words(EDGE, y - 8, f"image {sizes(np.shape(image)[1:])}", look=_HEAD))
    shapes += _panel(whole, (EDGE, y), scale, "image", signed=bool((whole < 0).any()))
    left, right, told, lowest = EDGE + _PANEL + _GAP, width, [], y + whole.shape[0] * scale
    for layer, result in layers.items():
        maps = _plane(layer, result)
        order = np.argsort(-np.abs(maps).mean(axis=(1, 2)), kind="stable")[:most]
        size = sizes(np.shape(result)[1:])
        shapes.append(Words(left, y - 8, f"{layer}, {len(order)} of {len(maps)} channels of {size}", look=_HEAD))
        fit = _MAP / max(maps.shape[1:])
        for column, channel in enumerate(order):
            x = left + column * (_MAP + 10)
            shapes += _panel(maps[channel], (x, y), fit, f"{layer}, channel {channel}", signed=True)
            below = y + maps.shape[1] * fit + 13
            shapes.append(Words(x, below, f"channel {channel}", look=_SOFT))
        right = max(
            right,
            left + len(order) * (_MAP + 10) - 10 + EDGE,
            left + text_width(f"{layer}, {len(order)} of {len(maps)} channels of {size}", 12, bold=True) + EDGE,
        )
        strongest = listed([str(channel) for channel in order])
        told.append(f"{layer}, {len(order)} of {len(maps)} channels of {size}, the strongest {strongest}")
        y += maps.shape[1] * fit + 46
    text = f"Feature maps of {name}: {'; '.join(told)}."
    return Figure(title, text, right, max(y - 20, lowest + EDGE), tuple(shapes))


def _plane(name: str, values: ArrayLike) -> Array:
    """Return maps (channels, rows, columns): the middle slice of volumes, and signals as strips."""
    found = np.asarray(values, np.float64)
    if not 2 <= found.ndim <= 4 or found.size == 0:
        raise ShapeError(f"feature_maps: {name} has shape {found.shape}; expected (channels, *spatial).")
    if found.ndim == 4:
        return found[:, found.shape[1] // 2]
    return np.repeat(found[:, None], max(1, found.shape[-1] // 8), axis=1) if found.ndim == 2 else found


def greyscale(image: ArrayLike) -> Array:
    """Return an image as (rows, columns) between 0 and 1, made smaller where it has many pixels.

    Raises:
        ShapeError: it is no image.
    """
    pixels = image_pixels(np.asarray(image)).mean(axis=2) / 255.0
    most = max(pixels.shape)
    if most > _MOST:
        size = tuple(max(1, round(n * _MOST / most)) for n in reversed(pixels.shape))
        small = Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
        pixels = np.asarray(small, np.float64) / 255.0
    return np.asarray(pixels, np.float64)


def _panel(values: Array, corner: tuple[float, float], scale: float, name: str, signed: bool = False) -> list[Shape]:
    rows, columns = values.shape
    most = float(np.abs(values).max()) or 1.0
    tone = values / (2 * most) + 0.5 if signed else values / most
    picture = Image.fromarray(np.rint(np.clip(tone, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    x, y = corner
    wide, tall = columns * scale, rows * scale
    note = f"{name}: {spelled(float(values.min()))} to {spelled(float(values.max()))}"
    return [Bitmap(x, y, wide, tall, picture, note=note), Box(x, y, wide, tall, look=_FRAME)]


def _weights(kernel: Array, corner: tuple[float, float], cell: float) -> list[Shape]:
    shapes: list[Shape] = []
    for row, column in np.ndindex(kernel.shape):
        x, y = corner[0] + column * cell, corner[1] + row * cell
        shapes.append(Box(x, y, cell - 2, cell - 2, 2, look=Look(fill="c1", opacity=0.4)))
        word = spelled(round(float(kernel[row, column]), 2) + 0.0)
        size = min(0.45 * cell, 1.5 * (cell - 2) / len(word))
        shapes.append(
            Words(x + (cell - 2) / 2, y + cell / 2 + 0.3 * size, word, look=Look(fill="ink", size=size, align="middle"))
        )
    return shapes


# ---- neurons -----------------------------------------------------------------------------------------------


def centre_surround(size: int = 15, centre: float = 1.6, surround: float = 3.2) -> Array:
    """Return the receptive field of a ganglion cell: a narrow Gaussian minus a wide one (Rodieck 1965).

    >>> round(float(centre_surround().sum()), 6) + 0.0
    0.0
    """
    y, x = _grid(size)
    squared = x**2 + y**2
    narrow, wide = (np.exp(-squared / (2 * s**2)) for s in (centre, surround))
    return np.asarray(narrow / narrow.sum() - wide / wide.sum())


def gabor(size: int = 15, angle: float = 0.0, wavelength: float = 6.0, phase: float = 0.0, width: float = 3.0) -> Array:
    """Return the receptive field of a simple cell of the visual cortex: a wave under a Gaussian (Daugman 1985).

    >>> gabor(5).shape
    (5, 5)
    """
    y, x = _grid(size)
    along = x * np.cos(angle) + y * np.sin(angle)
    wave = np.cos(2 * np.pi * along / wavelength + phase) * np.exp(-(x**2 + y**2) / (2 * width**2))
    return np.asarray(wave - wave.mean())


def first_kernels(model: nn.Module) -> Array:
    """Return the kernels of a network's first convolution in 2-D, (number, channels, rows, columns).

    Raises:
        ConfigError: it has none of more than one weight.

    >>> import torch
    >>> first_kernels(torch.nn.Conv2d(3, 8, 5)).shape
    (8, 3, 5, 5)
    """
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.dim() == 4 and weight.shape[-1] > 1:
            found: Array = weight.detach().numpy()
            return found
    raise ConfigError("model: it has no convolution in 2-D with kernels above 1 × 1. Give another network.")


def neurons(learned: ArrayLike | Sequence[ArrayLike] | None = None, *, said: str = "learned kernels") -> Figure:
    """Return receptive fields of neurons, centre–surround and Gabor, beside kernels that were learned.

    Args:
        learned: (number, rows, columns) or with channels second, whose mean is taken; up to 32 are drawn (default:
            none).
        said: heading of the learned ones.

    Raises:
        ShapeError: the kernels have other axes.

    >>> neurons(np.ones((4, 1, 5, 5))).text
    'Receptive fields of neurons: 2 centre–surround and 8 Gabor functions, beside 4 learned kernels.'
    """
    own = [centre_surround(), -centre_surround()]
    waves = [gabor(angle=np.pi * n / 4, phase=p) for p in (0.0, np.pi / 2) for n in range(4)]
    kernels = None if learned is None else np.asarray(learned, np.float64)
    if kernels is not None and kernels.ndim == 4:
        kernels = kernels.mean(axis=1)
    if kernels is not None and kernels.ndim != 3:
        raise ShapeError(f"neurons: learned has shape {kernels.shape}; expected (number, rows, columns).")
    groups: list[tuple[str, str, list[Array]]] = [
        ("ganglion cells", "centre–surround", own), ("simple cells of the cortex", "Gabor functions", waves),
    ]  # fmt: skip
    if kernels is not None:
        groups.append((said, f"{len(kernels)} of {sizes(kernels.shape[1:])}", list(kernels[:32])))
    title = "Receptive fields: neurons and kernels"
    shapes, width, top = heading(title, ["Bright where light excites, dark where it inhibits; grey is 0."])
    x, bottom, tile = EDGE, top, 54.0
    for name, note, fields in groups:
        across = 2 if len(fields) <= 2 else 4 if len(fields) <= 8 else 8
        shapes += [Words(x, top + 16, name, look=_HEAD), Words(x, top + 33, note, look=_SOFT)]
        for number, values in enumerate(fields):
            row, column = divmod(number, across)
            most = float(np.abs(values).max()) or 1.0
            tone = np.rint((values / (2 * most) + 0.5) * 255).astype(np.uint8)
            at = (x + column * (tile + 6), top + 44 + row * (tile + 6))
            shapes.append(Bitmap(*at, tile, tile, Image.fromarray(tone).convert("RGB"), data={"kernel": name}))
            bottom = max(bottom, at[1] + tile)
        x += max(across * (tile + 6), 190.0) + 24
    text = f"Receptive fields of neurons: {len(own)} centre–surround and {len(waves)} Gabor functions"
    text += f", beside {len(kernels)} learned kernels." if kernels is not None else "."
    return Figure(title, text, max(width, x - 24 + EDGE), bottom + EDGE, tuple(shapes))


def _grid(size: int) -> tuple[Array, Array]:
    place = np.arange(size) - (size - 1) / 2
    return place[:, None], place[None]
