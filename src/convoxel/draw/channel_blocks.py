"""Layers with channels, drawn as blocks in space: what a kernel covers, and how many weights that takes.

A block is a feature map: as wide and tall as the image, as deep as it has channels. A convolution's kernel goes through
all channels of its group; a depthwise one through one; a pointwise one is a single column. Of 3-D images a block is one
channel, so 2.5-D kernels (k × k × 1, then 1 × 1 × k) are drawn as what they cover of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from convoxel.arithmetic import conv_macs, conv_params
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import sizes
from convoxel.draw.scene import Line, Look, Point, Shape, Words, arrow
from convoxel.errors import ConfigError, check_choice

WAYS = ("plain", "grouped", "depthwise", "depthwise_separable", "bottleneck", "2.5d", "dense")
_UNIT, _LEAN = 15.0, 0.46  # pixels of a pixel, and share of it that depth moves to the right and up
_MOST_WIDE, _MOST_DEEP = 9, 12  # pixels and channels that are drawn one by one; more are drawn as so many
_GAP, _ROW = 62.0, 62.0
_NAME, _SOFT = Look(fill="ink", size=13, bold=True), Look(fill="soft", size=12)
_FACES = {"front": 1.0, "side": 0.72, "top": 0.86}


class _Block(NamedTuple):
    """A box of (depth, height, width) cells: its role, its caption, and what is under it."""

    shape: tuple[int, int, int]
    role: str
    name: str
    text: str = ""
    number: int = 1


class _Stage(NamedTuple):
    """A layer: what goes in, its kernels, what comes out, and its weights."""

    title: str
    blocks: tuple[_Block, ...]
    covered: tuple[int, int, int]  # cells of the first block that one kernel covers
    equation: str
    params: int
    macs: int


def channels(
    in_channels: int = 3,
    out_channels: int = 5,
    kernel: int = 3,
    *,
    way: str | Sequence[str] = ("plain", "depthwise_separable"),
    size: int = 7,
    groups: int = 1,
    hidden: int | None = None,
) -> Figure:
    """Return a layer with its channels drawn in space, and the count of its weights; several ways below each other.

    Args:
        in_channels: channels in (default 3).
        out_channels: channels out (default 5).
        kernel: kernel size of every axis (default 3).
        way: one or several of "plain", "grouped", "depthwise", "depthwise_separable", "bottleneck" (1 × 1, k × k,
            1 × 1), "2.5d" (k × k × 1, then 1 × 1 × k, of volumes) and "dense" (fully connected, which is a convolution
            with a kernel as large as the image).
        size: size of the image (default 7), padded to stay so.
        groups: groups of channels, for "grouped".
        hidden: channels of the bottleneck (default: a quarter of the channels in).

    Raises:
        ConfigError: a way is not known, a number is below 1, or groups do not divide the channels.

    >>> channels(3, 5).text
    'plain: 3 × 3 × 3 × 5 = 135 weights; depthwise separable: 3 × 3 × 3 + 1 × 1 × 3 × 5 = 42 weights.'
    """
    ways = (way,) if isinstance(way, str) else tuple(way)
    numbers = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel": kernel,
        "size": size,
        "groups": groups,
    }
    wrong = next((name for name, value in numbers.items() if value < 1), None)
    if wrong or not ways:
        raise ConfigError(f"channels: {wrong or 'way'} is {numbers.get(wrong or '', ways)}; expected at least 1.")
    for each in ways:
        check_choice("way", each, WAYS)
    if in_channels % groups or out_channels % groups:
        raise ConfigError(f"groups: got {groups}; it must divide in_channels={in_channels} and {out_channels}.")
    rows = [(each, _stages(each, in_channels, out_channels, kernel, size, groups, hidden)) for each in ways]
    title = f"{in_channels} channels to {out_channels}, kernel {kernel} × {kernel}"
    if ways == ("2.5d",):
        title = f"2.5-D kernels: {kernel} × {kernel} × 1, then 1 × 1 × {kernel}"
    told = [
        (each, stages, " + ".join(s.equation for s in stages), sum(s.params for s in stages)) for each, stages in rows
    ]
    text = "; ".join(f"{each.replace('_', ' ')}: {equation} = {count} weights" for each, _, equation, count in told)
    shapes, width, top = heading(title, ["Weights without biases; multiply–adds of one image."])
    y = top + 20
    for each, stages, equation, count in told:
        macs = sum(stage.macs for stage in stages)
        line = f"{each.replace('_', ' ')}:  {equation} = {_number(count)} weights,  {_number(macs)} multiply–adds"
        shapes.append(Words(EDGE, y + 6, line, look=_NAME, data={"way": each, "params": str(count), "macs": str(macs)}))
        width = max(width, EDGE * 2 + text_width(line, 13, bold=True))
        drawn, wide, y = _row(stages, y + 26)
        shapes += drawn
        width = max(width, wide + EDGE)
        y += 26
    told_, least, end = legend(_LEGEND, y, width)
    return Figure(title, f"{text}.", max(width, least), end + EDGE - 8, (*shapes, *told_))


_LEGEND = [
    (Look(fill="c2", opacity=0.55), "feature map"), (Look(fill="c1", opacity=0.75), "kernel, and what it covers"),
    (Look(fill="c3", opacity=0.6), "result"),
]  # fmt: skip


def _stages(way: str, cin: int, cout: int, k: int, size: int, groups: int, hidden: int | None) -> tuple[_Stage, ...]:
    middle = hidden or max(1, cin // 4)
    if way == "depthwise_separable":
        return (_conv(cin, cin, k, size, cin), _conv(cin, cout, 1, size))
    if way == "bottleneck":
        return (_conv(cin, middle, 1, size), _conv(middle, middle, k, size), _conv(middle, cout, 1, size))
    if way == "2.5d":
        flat, deep = (1, k, k), (k, 1, 1)
        pixels = (size,) * 3
        weights = cin * cout
        return (
            _Stage(f"{k} × {k} × 1", (_Block(pixels, "c2", f"volume {sizes(pixels)}"),
                   _Block(flat, "c1", "within slices"),
                   _Block(pixels, "c3", "result")), flat, f"{k} × {k} × 1 × {cin} × {cout}", k * k * weights,
                   k * k * weights * size**3),
            _Stage(f"1 × 1 × {k}", (_Block(pixels, "c2", "result"), _Block(deep, "c1", "across slices"),
                   _Block(pixels, "c3", "result")), deep, f"1 × 1 × {k} × {cout} × {cout}", k * cout * cout,
                   k * cout * cout * size**3),
        )  # fmt: skip
    if way == "dense":
        taps = (size, size)
        params = conv_params(cin, cout, taps, bias=False)
        blocks = (
            _Block((cin, size, size), "c2", f"{cin} × {size} × {size}"),
            _Block((cin, size, size), "c1", f"{cout} kernels", f"each {size} × {size} × {cin}", cout),
            _Block((cout, 1, 1), "c3", f"{cout} × 1 × 1"),
        )
        return (
            _Stage("fully connected", blocks, (cin, size, size), f"{size} × {size} × {cin} × {cout}", params, params),
        )
    return (
        _conv(cin, cin if way == "depthwise" else cout, k, size, {"grouped": groups, "depthwise": cin}.get(way, 1)),
    )


def _conv(cin: int, cout: int, k: int, size: int, groups: int = 1) -> _Stage:
    fan = cin // groups
    depthwise = groups == cin == cout and groups > 1
    equation = f"{k} × {k} × {fan} × {cout}" if not depthwise else f"{k} × {k} × {cin}"
    kernel = _Block((fan, k, k), "c1", f"{cout} kernel{'s' * (cout > 1)}", f"each {k} × {k} × {fan}", cout)
    blocks = (
        _Block((cin, size, size), "c2", f"{cin} × {size} × {size}"),
        kernel,
        _Block((cout, size, size), "c3", f"{cout} × {size} × {size}"),
    )
    macs = conv_macs((size, size), cin, cout, (k, k), groups)
    name = "depthwise" if depthwise else "pointwise" if k == 1 else "convolution"
    return _Stage(name, blocks, (fan, k, k), equation, conv_params(cin, cout, (k, k), groups, bias=False), macs)


def _row(stages: Sequence[_Stage], top: float) -> tuple[list[Shape], float, float]:
    """Return the blocks of a row of layers, beside each other, its width and its bottom."""
    shapes: list[Shape] = []
    tall = max(_extent(block.shape)[1] for stage in stages for block in stage.blocks[::2])
    tall = max(tall, *(_stack_height(stage.blocks[1]) for stage in stages))
    x = EDGE
    for number, stage in enumerate(stages):
        for place, block in enumerate(stage.blocks):
            if number and place == 0:
                continue  # the result of the layer before it
            wide, high = _extent(block.shape)
            y = top + (tall - high) / 2
            if place == 1:
                shapes += arrow(
                    ((x - _GAP + 14, top + tall / 2), (x - 14, top + tall / 2)), Look(stroke="faint", weight=1.5)
                )
                shapes += _stack(block, x, top, tall)
            else:
                if place == 2:
                    ends = ((x - _GAP + 14, top + tall / 2), (x - 14, top + tall / 2))
                    shapes += arrow(ends, Look(stroke="faint", weight=1.5))
                shapes += _box(block.shape, block.role, (x, y))
                last = number == len(stages) - 1
                if place == 0 or not last:  # what the next kernel covers
                    covered = stage.covered if place == 0 else stages[number + 1].covered
                    shapes += _covered(block.shape, covered, (x, y))
            wide = max(wide, text_width(block.name, 12), text_width(block.text, 12))
            shapes.append(Words(x, top + tall + 20, block.name, look=_SOFT))
            if block.text:
                shapes.append(Words(x, top + tall + 36, block.text, look=_SOFT))
            x += wide + _GAP
    return shapes, x - _GAP, top + tall + 40


def _shown(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return the size of a box in cells as it is drawn: large ones are drawn as so many."""
    deep, tall, wide = shape
    flat = min(1.0, _MOST_WIDE / max(tall, wide))
    return (min(deep, _MOST_DEEP), tall * flat, wide * flat)


def _extent(shape: tuple[int, int, int]) -> Point:
    deep, tall, wide = _shown(shape)
    return (wide + deep * _LEAN) * _UNIT, (tall + deep * _LEAN) * _UNIT


def _box(
    shape: tuple[int, int, int], role: str, corner: Point, opacity: float = 0.5, lines: bool = True
) -> Iterator[Shape]:
    """Yield the three faces of a box, whose upper left corner is that of its bounds, and its cells."""
    deep, tall, wide = (value * _UNIT for value in _shown(shape))
    lean = deep * _LEAN
    x, y = corner[0], corner[1] + lean
    front = ((x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall))
    top = ((x, y), (x + lean, y - lean), (x + wide + lean, y - lean), (x + wide, y))
    side = ((x + wide, y), (x + wide + lean, y - lean), (x + wide + lean, y + tall - lean), (x + wide, y + tall))
    for name, face in (("front", front), ("top", top), ("side", side)):
        yield Line(face, closed=True, look=Look(fill=role, opacity=opacity * _FACES[name]))
        yield Line(face, closed=True, look=Look(stroke="ink", weight=0.9, opacity=0.55))
    thin = Look(stroke="ink", weight=0.5, opacity=0.28)
    if not lines:
        return
    for column in range(1, math.ceil(wide / _UNIT)):
        a = x + column * _UNIT
        yield Line(((a + lean, y - lean), (a, y), (a, y + tall)), look=thin)
    for row in range(1, math.ceil(tall / _UNIT)):
        b = y + row * _UNIT
        yield Line(((x, b), (x + wide, b), (x + wide + lean, b - lean)), look=thin)
    for layer in range(1, round(deep / _UNIT)):
        d = layer * _UNIT * _LEAN
        ends = ((x + d, y - d), (x + wide + d, y - d), (x + wide + d, y + tall - d))
        yield Line(ends, look=thin)


def _covered(shape: tuple[int, int, int], covered: tuple[int, int, int], corner: Point) -> Iterator[Shape]:
    """Yield the part of a box that one kernel covers, at its upper left front."""
    lean = (_shown(shape)[0] - min(_shown(covered)[0], _shown(shape)[0])) * _UNIT * _LEAN
    scale = _shown(shape)[2] / shape[2]
    part = (min(covered[0], _MOST_DEEP), max(1, round(covered[1] * scale)), max(1, round(covered[2] * scale)))
    yield from _box(part, "c1", (corner[0], corner[1] + lean), 0.75, lines=False)


def _stack_height(block: _Block) -> float:
    return min(block.number, 3) * (_extent(block.shape)[1] + 6) + (16 if block.number > 3 else 0)


def _stack(block: _Block, x: float, top: float, tall: float) -> Iterator[Shape]:
    """Yield up to three kernels below each other."""
    shown = min(block.number, 3)
    high = _extent(block.shape)[1] + 6
    y = top + (tall - _stack_height(block)) / 2
    for number in range(shown):
        yield from _box(block.shape, block.role, (x, y + number * high), 0.75)
    if block.number > shown:
        yield Words(x + 2, y + shown * high + 8, f"… {block.number} in all", look=Look(fill="soft", size=11))


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")
