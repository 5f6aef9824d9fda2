"""A dynamic convolution: its kernel is a mixture of kernels, with shares that each image decides by itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.board import CELL, DONE, TAP
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import percent, sizes, spelled
from convoxel.draw.scene import Box, Look, Shape, Words, arrow
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import Array

_NAME, _SOFT = Look(fill="ink", size=12, bold=True), Look(fill="soft", size=11)
_WAY = Look(stroke="soft", weight=1.6)
_GAP, _SLICE, _MOST = 40.0, 12.0, 400
# Along one axis; along several, products of the first with the second.
_SMOOTH, _EDGE, _POINT = (1, 2, 1), (1, 0, -1), (-1, 2, -1)


def dynamic(
    size: int | Sequence[int] = (5, 5),
    *,
    images: Sequence[ArrayLike] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Figure:
    """Return a layer whose kernel depends on the image: two images, their shares of three kernels, their outputs.

    K = Σ αₑ Kₑ with α = softmax(R · mean(x) / T) (Yang et al. 2019, arXiv 1904.04971), as ``nn.DynamicConv`` has it:
    here R prefers smoothing for bright images, and edges for dark ones.

    Args:
        size: size of the images, one to three axes of at least 3.
        images: values of images of that size (default: a dark and a bright one).
        temperature: T; large values mix evenly (default 1).
        seed: random seed of the default images (default 0).

    Raises:
        ConfigError: a size is below 3, there are more cells than anyone would read, or the temperature is not positive.
        ShapeError: an image has another shape.

    >>> dynamic((3, 3), images=[np.zeros((3, 3)), np.full((3, 3), 9)]).text
    'A dynamic convolution of 2 images of 3 × 3: shares 98 %, 2 %, 0 %; shares 0 %, 1 %, 99 %.'
    """
    import torch

    from convoxel import nn

    lengths = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(lengths) <= 3 or min(lengths) < 3 or int(np.prod(lengths)) > _MOST:
        raise ConfigError(
            f"size: got {lengths}; expected one to three sizes of at least 3, of up to {_MOST} cells, such as (5, 5)."
        )
    rng = np.random.default_rng(seed)
    given = [rng.integers(0, 4, lengths), rng.integers(5, 10, lengths)] if images is None else list(images)
    values = [np.asarray(each, np.float64) for each in given]
    if not values or any(each.shape != lengths for each in values):
        raise ShapeError(
            f"dynamic: images have shapes {[each.shape for each in values]}; expected {lengths} each. Give values of "
            "the size, or a size of the values."
        )
    kernels = _kernels(len(lengths))
    layer = nn.DynamicConv(len(lengths), 1, 1, 3, experts=len(kernels), temperature=temperature, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.stack(list(kernels.values())))[:, None, None])
        layer.router.weight.copy_(torch.tensor([[-1.0], [0.0], [1.0]]))
        layer.router.bias.copy_(torch.tensor([4.0, 0.0, -4.0]))
        batch = torch.as_tensor(np.stack(values))[:, None]
        shares = torch.softmax(layer.router(batch.flatten(2).mean(2)) / temperature, dim=1).numpy()
        results = layer(batch)[:, 0].numpy()
    mixed = np.tensordot(shares, np.stack(list(kernels.values())), axes=1)
    title = f"Dynamic convolution, {len(kernels)} kernels mixed for each image"
    lines = [
        "K = α₁K₁ + α₂K₂ + α₃K₃, and each image decides the shares α by itself: one layer, another kernel for each."
    ]
    shapes, width, top = heading(title, lines)
    pitch = 40.0 if max(lengths) <= 6 else 30.0
    y, right = top + 24, width
    x = EDGE
    for number, (name, kernel) in enumerate(kernels.items(), 1):
        wide, tall = _extent(kernel.shape, 34.0)
        shapes += _numbers(kernel, (x, y), 34.0, TAP, f"K{number}".translate(_LOW) + f": {name}", f"expert{number}")
        x += max(wide, text_width(f"K{number}: {name}", 12, bold=True)) + _GAP
    right, y = max(right, x - _GAP + EDGE), y + tall + 50
    for number, (image, share, kernel, result) in enumerate(zip(values, shares, mixed, results, strict=True)):
        high = max(_extent(each.shape, pitch)[1] for each in (image, result))
        high = max(high, _extent(kernel.shape, 34.0)[1], 22.0 * len(share))
        x = EDGE
        name = f"image {number + 1}, mean {spelled(round(float(image.mean()), 1))}"
        done = f"output {sizes(result.shape)}"
        for part, side, look, word, key in (
            (image, pitch, CELL, name, "image"), (share, 0.0, TAP, "shares α", "share"),
            (kernel, 34.0, TAP, "its kernel K", "kernel"), (result, pitch, DONE, done, "output"),
        ):  # fmt: skip
            wide, tall = (150.0, 22.0 * len(share)) if key == "share" else _extent(part.shape, side)
            at = (x, y + (high - tall) / 2)
            if key == "share":
                shapes += _bars(part, at, word, number)
            else:
                shapes += _numbers(part, at, side, look, word, f"{key}{number + 1}")
            if x > EDGE:
                shapes += arrow(((x - _GAP + 8, y + high / 2), (x - 10, y + high / 2)), _WAY, head=6.0)
            x += max(wide, text_width(word, 12, bold=True)) + _GAP
        right, y = max(right, x - _GAP + EDGE), y + high + 46
    entries = [(CELL, "image"), (TAP, "kernels and shares"), (DONE, "output")]
    told, wide, end = legend(entries, y - 22, right)
    text = f"A dynamic convolution of {len(values)} images of {sizes(lengths)}: "
    text += "; ".join("shares " + ", ".join(f"{100 * float(each):.0f} %" for each in share) for share in shares) + "."
    return Figure(title, text, max(right, wide), end + EDGE - 8, (*shapes, *told))


_LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _kernels(axes: int) -> dict[str, Array]:
    """Return the kernels that are mixed, by their names."""

    def product(last: Sequence[int], others: Sequence[int]) -> Array:
        found = np.asarray(last, np.float64)
        for _ in range(axes - 1):
            found = np.multiply.outer(np.asarray(others, np.float64), found)
        return found

    smooth = product(_SMOOTH, _SMOOTH)
    return {"edges": product(_EDGE, _SMOOTH), "points": product(_POINT, _SMOOTH), "smooth": smooth / 2.0 ** (2 * axes)}


def _extent(shape: Sequence[int], pitch: float) -> tuple[float, float]:
    deep, tall, wide = (*(1,) * (3 - len(shape)), *shape)
    return deep * wide * pitch + (deep - 1) * _SLICE - 3, tall * pitch - 3


def _numbers(values: Array, corner: tuple[float, float], pitch: float, look: Look, name: str, key: str) -> list[Shape]:
    """Return a grid of numbers with its name; slices of a volume stand beside each other."""
    x, y = corner
    shapes: list[Shape] = [Words(x, y - 8, name, look=_NAME)]
    side = pitch - 3
    for place in itertools.product(*map(range, values.shape)):
        deep, tall, wide = (*(0,) * (3 - len(place)), *place)
        at = (x + deep * (values.shape[-1] * pitch + _SLICE) + wide * pitch, y + tall * pitch)
        shapes.append(Box(*at, side, side, 4, look=look, data={"grid": key, "cell": ",".join(map(str, place))}))
        word = spelled(round(float(values[place]), 2) + 0.0)
        size = min(0.42 * pitch, 1.45 * side / len(word))
        shapes.append(
            Words(
                at[0] + side / 2, at[1] + side / 2 + 0.36 * size, word, look=Look(fill="ink", size=size, align="middle")
            )
        )
    return shapes


def _bars(shares: Array, corner: tuple[float, float], name: str, number: int) -> list[Shape]:
    """Return the shares of the kernels as bars."""
    x, y = corner
    shapes: list[Shape] = [Words(x, y - 8, name, look=_NAME)]
    for index, share in enumerate(shares):
        at = y + 22 * index
        told = {"share": f"{number + 1},{index + 1}"}
        shapes += [
            Words(x, at + 14, f"α{index + 1}".translate(_LOW), look=_SOFT),
            Box(x + 24, at + 2, 80, 15, 3, look=Look(stroke="faint")),
            Box(x + 24, at + 2, max(80 * float(share), 0.5), 15, 3, look=TAP, data=told),
            Words(x + 112, at + 14, percent(float(share)), look=_SOFT),
        ]
    return shapes
