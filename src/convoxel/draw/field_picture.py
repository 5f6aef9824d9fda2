"""The receptive field of an output over the image: as a box, and with the measured influence as a tint.

The box is exact (``inspect``). The tint is an array that was measured (``inspect.effective_field``). A volume is shown
as the three slices through the middle of the box, a signal as a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.image_overlay import image_pixels, shrunk
from convoxel.draw.network_outline import Model, subject
from convoxel.draw.quantity import listed, sizes
from convoxel.draw.scene import Bitmap, Box, Disc, Group, Line, Look, Point, Shape, Words
from convoxel.draw.theme import colour
from convoxel.errors import ShapeError
from convoxel.files.values import Array
from convoxel.inspect.feature_map import FeatureMap
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

if TYPE_CHECKING:
    from convoxel.inspect import EffectiveField

_PANEL, _TALLEST, _SIGNAL = 380.0, 380.0, 130.0
_BEYOND = 0.35  # share of the image by which a box may reach out of it in the picture
_MARGIN = 0.04  # share that is shown where the box reaches further
_MOST_CENTRES = 500
_BOX = Look(stroke="c1", weight=2.5)
_HOME = Look(fill="c1", stroke="card", weight=1.5)
_CENTRE = Look(fill="c2", opacity=0.75)
_FRAME = Look(stroke="faint", weight=1)
_SHARE = Look(stroke="c6", weight=2, dash=(5, 4))
_MOST = 0.95  # share of the influence that is framed

Pixels = Array


def field(
    model: Model,
    shape: Sequence[int] | None = None,
    *,
    at: Sequence[int] | None = None,
    layer: str | None = None,
    image: ArrayLike | None = None,
    effective: ArrayLike | EffectiveField | None = None,
) -> Figure:
    """Return the receptive field of one output, drawn over the image.

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a program.
        shape: (n, channels, *spatial) of the input (default: a usual one, for networks of the zoo).
        at: position of the output in its map, an entry for each axis (default: the middle).
        layer: layer of the output (default: the last one that has positions).
        image: (*spatial), or with one or three channels first or last, of the size of the input.
        effective: (*spatial), the influence of each input, 0 for none; or what ``inspect.effective_field`` returned.

    Raises:
        ConfigError: the model, the layer or the position is wrong.
        ShapeError: the image or the influence has another size than the input.

    >>> figure = field("resnet18", (1, 3, 64, 64), layer="layer1")
    >>> figure.text
    'Output (8, 8) of layer1.1.relu:2 sees rows 11 to 53 and columns 11 to 53 of 64 × 64: 43 × 43 inputs.'
    """
    of = subject(model, shape)
    influence: Any = getattr(effective, "array", effective)
    seen = of.map(layer)
    place = seen.place(at)
    scene = _Scene(of.size, seen, place, _given("image", image, of.size), _given("effective", influence, of.size))
    return scene.figure(of.name)


def _given(name: str, array: ArrayLike | None, size: tuple[int, ...]) -> Pixels | None:
    """Return (*spatial) or (*spatial, 3) of an array, whose channels may come first or last."""
    if array is None:
        return None
    values = np.asarray(array)
    found = values
    if values.ndim == len(size) + 1 and values.shape[0] in (1, 3) and values.shape[1:] == size:
        found = np.moveaxis(values, 0, -1)
    if found.ndim == len(size) + 1 and found.shape[-1] == 1:
        found = found[..., 0]
    coloured = name == "image" and found.ndim == len(size) + 1 and found.shape[-1] == 3
    if found.shape[: len(size)] != size or not (found.ndim == len(size) or coloured):
        raise ShapeError(f"field: {name} has shape {values.shape}, but the network's input is {size}. Give that size.")
    if name == "effective":
        finite = np.nan_to_num(found.astype(np.float64), nan=0.0, posinf=0.0)
        return np.abs(finite)
    return found


def fit_image(image: Pixels, shape: Sequence[int], before: Sequence[int]) -> tuple[Pixels, str]:
    """Return an image as the input of a network, and what was done to it in words; "" where it has that size.

    Args:
        image: (channels, *spatial).
        shape: shape of the input, (1, channels, *spatial).
        before: where the image begins in the input along each axis; negative where it is cut.
    """
    size, wanted = image.shape[1:], tuple(shape[2:])
    if shape[1] != len(image):  # the field is that of any number of channels
        image = np.broadcast_to(image[:1], (shape[1], *size))
    if wanted == size:
        return image, ""
    starts = [max(-place, 0) for place in before]
    inside = (slice(None), *(slice(start, start + side) for start, side in zip(starts, wanted, strict=True)))
    image = image[inside]
    behind = [(0, side - own) for side, own in zip(wanted, image.shape[1:], strict=True)]
    done = "cut" if min(before) < 0 else "padded"
    filled = np.pad(image, [(0, 0), *behind], constant_values=image.min())
    return filled, f" The image of {sizes(size)} is {done} to {sizes(wanted)}, a size that the network takes."


@dataclass(frozen=True)
class _Scene:
    """An output, its receptive field, the image and the measured influence."""

    size: tuple[int, ...]
    map: FeatureMap
    place: tuple[int, ...]
    image: Pixels | None
    effective: Pixels | None

    @property
    def box(self) -> list[tuple[int, int] | None]:
        """First and last input along each axis."""
        return [f.at(p) for f, p in zip(self.map.fields, self.place, strict=True)]

    def figure(self, name: str) -> Figure:
        """Return the picture."""
        axes = len(self.size)
        panels: list[tuple[int, ...]] = [[(0,)], [(0, 1)], [(1, 2), (0, 2), (0, 1)]][axes - 1]  # type: ignore[assignment]
        text, lines = self._told(), [self._told()]
        if all(seen and seen[0] <= 0 and seen[1] >= n - 1 for seen, n in zip(self.box, self.size, strict=True)):
            lines.append("It covers all of the image; sides of the box that lie far outside are not drawn.")
        if self.effective is not None:
            spread = [hi - lo + 1 for lo, hi in self._spread()]
            lines.append(f"95 % of the influence along each axis lies within {sizes(spread)} inputs.")
        shapes, width, top = heading(f"{name}: what one output sees", lines)
        x, bottom, dotted = EDGE, top, False
        for shown in panels:
            drawn, wide, tall = self._panel(shown)
            label = [Words(0, -8, self._caption(shown), look=Look(fill="soft", size=11.5))] if axes == 3 else []
            shapes.append(Group((*label, *drawn), moves=((x, top + (30 if axes == 3 else 12)),)))
            dotted = dotted or any(shape.look == _CENTRE for shape in drawn)
            bottom = max(bottom, top + tall + (30 if axes == 3 else 12))
            x += wide + 26
        told, least, end = legend(self._legend(dotted), bottom + 16, max(width, x - 26 + EDGE))
        title = f"{name}: receptive field"
        return Figure(title, text, max(width, least, x - 26 + EDGE), end + EDGE - 8, (*shapes, *told))

    def _told(self) -> str:
        names = {1: ("positions",), 2: ("rows", "columns"), 3: ("slices", "rows", "columns")}[len(self.size)]
        parts = [
            f"{name} {seen[0]} to {seen[1]}".replace("-", "−") if seen else f"no {name}"
            for name, seen in zip(names, self.box, strict=True)
        ]
        where = str(self.place[0]) if len(self.place) == 1 else str(self.place)
        spans = [seen[1] - seen[0] + 1 if seen else 0 for seen in self.box]
        return f"Output {where} of {self.map.layer} sees {listed(parts)} of {sizes(self.size)}: {sizes(spans)} inputs."

    def _caption(self, shown: tuple[int, ...]) -> str:
        names = ("depth", "height", "width")
        (hidden,) = {0, 1, 2} - set(shown)
        return f"{names[shown[0]]} × {names[shown[1]]}, at {names[hidden]} {self._middle(hidden)}"

    def _middle(self, axis: int) -> int:
        seen = self.box[axis]
        middle = (seen[0] + seen[1]) // 2 if seen else self.size[axis] // 2
        return min(max(middle, 0), self.size[axis] - 1)

    def _plane(self, array: Pixels, shown: tuple[int, ...]) -> Pixels:
        """Cut the array through the middle of the box along the axes that are not shown."""
        index: list[Any] = [slice(None)] * array.ndim
        for axis in set(range(len(self.size))) - set(shown):
            index[axis] = self._middle(axis)
        return np.asarray(array[tuple(index)])

    def _spread(self) -> list[tuple[int, int]]:
        """Return along each axis where the middle 95 % of the influence lie."""
        assert self.effective is not None
        found = []
        for axis in range(len(self.size)):
            others = tuple(a for a in range(len(self.size)) if a != axis)
            sums = np.cumsum(self.effective.sum(axis=others))
            low, high = (1 - _MOST) / 2 * sums[-1], (1 + _MOST) / 2 * sums[-1]
            found.append(
                (int(np.searchsorted(sums, low, "right")), int(min(np.searchsorted(sums, high), len(sums) - 1)))
            )
        return found

    def _panel(self, shown: tuple[int, ...]) -> tuple[list[Shape], float, float]:
        """Return a picture of one or two axes, its width and its height."""
        rows, columns = (self.size[shown[0]], self.size[shown[1]]) if len(shown) == 2 else (1, self.size[shown[0]])
        scale = min(_PANEL / columns, _TALLEST / rows)
        tall_scale = scale if len(shown) == 2 else _SIGNAL
        if len(shown) == 1:
            scale = 560.0 / columns
        ends = [self.box[axis] for axis in shown] if len(shown) == 2 else [(0, 0), self.box[shown[0]]]
        out = [_beyond(seen, n) for seen, n in zip(ends, (rows, columns), strict=True)]
        left, top = out[1][0] * scale + 3, out[0][0] * tall_scale + 3
        width, height = columns * scale, rows * tall_scale

        def frame(row: tuple[int, int], column: tuple[int, int], look: Look, **facts: str) -> Group:
            sides = (
                (row[0], row[1] + 1, -out[0][0], rows + out[0][1]),
                (column[0], column[1] + 1, -out[1][0], columns + out[1][1]),
            )
            (y0, y1, top_open, bottom_open), (x0, x1, left_open, right_open) = (
                (max(a, low), min(b, high), a < low - 0.01, b > high + 0.01) for a, b, low, high in sides
            )
            x0, x1, y0, y1 = left + x0 * scale, left + x1 * scale, top + y0 * tall_scale, top + y1 * tall_scale
            # A side that lies beyond the picture stays open.
            lines = [
                (((x0, y0), (x1, y0)), top_open), (((x1, y0), (x1, y1)), right_open),
                (((x1, y1), (x0, y1)), bottom_open), (((x0, y1), (x0, y0)), left_open),
            ]  # fmt: skip
            return Group(tuple(Line(points, look=look) for points, gone in lines if not gone), data=facts)

        shapes = [*self._ground(shown, (left, top), (width, height))]
        shapes += self._centres(shown, (left, top), (width, height), (scale, tall_scale))
        if self.effective is not None:
            spread = self._spread()
            row = spread[shown[0]] if len(shown) == 2 else (0, 0)
            shapes.append(frame(row, spread[shown[-1]], _SHARE, influence=_ends(row, spread[shown[-1]])))
        if ends[0] and ends[1]:
            shapes.append(frame(ends[0], ends[1], _BOX, field=_ends(ends[0], ends[1])))
            y, x = ((a + b + 1) / 2 for a, b in ends)  # type: ignore[misc]
            shapes.append(Disc(left + x * scale, top + y * tall_scale, 4.5, look=_HOME))
        full_wide, full_tall = left + width + out[1][1] * scale + 3, top + height + out[0][1] * tall_scale + 3
        return shapes, full_wide, full_tall

    def _ground(self, shown: tuple[int, ...], corner: Point, size: Point) -> Iterator[Shape]:
        """Yield the image, or a plain area, with the tint of the influence over it."""
        (x, y), (width, height) = corner, size
        if len(shown) == 1:
            yield from self._signal(corner, size)
            return
        if self.image is None:
            yield Box(x, y, width, height, look=Look(fill="grid"))
        else:
            pixels = image_pixels(self._plane(self.image, shown))
            yield Bitmap(x, y, width, height, shrunk(Image.fromarray(pixels)))
        if self.effective is not None:
            plane = self._plane(self.effective, shown)
            yield Bitmap(x, y, width, height, _tint(plane / (self.effective.max() or 1.0)), smooth=True)
        yield Box(x, y, width, height, look=_FRAME)

    def _signal(self, corner: Point, size: Point) -> Iterator[Shape]:
        (x, y), (width, height) = corner, size
        yield Box(x, y, width, height, look=Look(fill="grid"))
        step = width / self.size[0]
        if self.effective is not None:
            tall = self.effective / (self.effective.max() or 1.0) * (height - 16)
            steps = [(x + (i + d) * step, y + height - t) for i, t in enumerate(tall) for d in (0, 1)]
            area = ((x, y + height), *steps, (x + width, y + height))
            yield Line(area, closed=True, look=Look(fill="c5", opacity=0.45))
        if self.image is not None:
            values = self.image.astype(np.float64)
            values = values.mean(axis=-1) if values.ndim == 2 else values
            low, high = float(values.min()), float(values.max())
            share = (values - low) / ((high - low) or 1.0)
            points = tuple((x + (i + 0.5) * step, y + height - 10 - s * (height - 20)) for i, s in enumerate(share))
            yield Line(points, look=Look(stroke="ink", weight=1.5))

    def _centres(self, shown: tuple[int, ...], corner: Point, size: Point, scale: Point) -> Iterator[Shape]:
        """Yield a dot at the centre of each output's field, unless there are too many."""
        centres = []
        for axis in shown:
            seen = [self.map.fields[axis].at(p) for p in range(self.map.size[axis])]
            centres.append([(s[0] + s[1] + 1) / 2 for s in seen if s])
        if len(shown) == 1:
            centres.insert(0, [0.5])
        apart = min(scale[0], scale[1] if len(shown) == 2 else scale[0]) * float(self.map.fields[shown[-1]].stride)
        if apart < 7 or len(centres[0]) * len(centres[1]) > _MOST_CENTRES:
            return
        for row in centres[0]:
            for column in centres[1]:
                x, y = column * scale[0], row * scale[1]
                if 0 <= x <= size[0] and 0 <= y <= size[1]:
                    yield Disc(corner[0] + x, corner[1] + y, 1.6, look=_CENTRE)

    def _legend(self, dotted: bool) -> list[tuple[Look, str]]:
        entries = [(_BOX, "receptive field (exact)"), (Look(fill="c1"), "its centre")]
        if dotted:
            entries.append((_CENTRE, "centres of the other outputs"))
        if self.effective is not None:
            entries += [(Look(fill="c5", opacity=0.6), "measured influence"), (_SHARE, "95 % of it, along each axis")]
        return entries


def _beyond(seen: tuple[int, int] | None, size: int) -> tuple[float, float]:
    """Return how much is drawn before and behind the image, for a box that may reach out of it."""
    if seen is None:
        return 0.0, 0.0
    before, after = (
        reach if reach <= _BEYOND * size else _MARGIN * size for reach in (max(-seen[0], 0), max(seen[1] + 1 - size, 0))
    )
    return before, after


def _tint(share: Pixels) -> Image.Image:
    """Return a picture of one colour that covers more where the influence is larger."""
    cover = np.sqrt(np.clip(share, 0.0, 1.0))  # without the root its rim would not be seen: influence falls off fast
    pixels = np.empty((*share.shape, 4), np.uint8)
    pixels[..., :3] = colour("c5")
    pixels[..., 3] = np.rint(215 * cover)
    return shrunk(Image.fromarray(pixels, "RGBA"))


def _ends(rows: tuple[int, int], columns: tuple[int, int]) -> str:
    return f"{rows[0]},{rows[1]},{columns[0]},{columns[1]}"
