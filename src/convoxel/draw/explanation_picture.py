"""An explanation as a picture: its maps as a tint over the image, each with its scale.

A picture is shown whole, a volume as the three slices through one voxel, a signal as a curve over a shaded ground. Maps
without a sign rise from violet to yellow; those with one are vermilion where they speak for the answer, blue where they
speak against it. The stronger, the more a tint covers, so the image stays readable where a map is near 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.chart import Axis, mark_below, ticks
from convoxel.draw.figure import Figure
from convoxel.draw.image_overlay import edge_letters, edges, enlarge, grey_window, image_pixels, shrunk
from convoxel.draw.letter import wrap
from convoxel.draw.scene import Bitmap, Box, Line, Look, Point, Shape, Words
from convoxel.draw.theme import colour
from convoxel.draw.volume_slice import PLANES, oriented_slice, plane_axis
from convoxel.files.values import Array
from convoxel.lazy import LazyModule
from convoxel.predict.explanation_method import METHODS

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

if TYPE_CHECKING:
    from convoxel.predict.explanation import Attribution, Explanation

_PICTURE, _SLICE, _SIGNAL = (300.0, 300.0), (230.0, 230.0), (640.0, 110.0)  # most width and height of a panel
_GAP, _BAR, _LABELS = 10.0, 12.0, 58.0
_COLUMNS = 2  # of pictures
_FOR, _AGAINST = "class5", "class2"
_USUAL = 0.998  # share of pixels that the scale of integrated gradients shows apart
_COVER = 0.82  # opacity of the strongest place
_GREY = 128  # of the image under the scale's colours
_FRAME = Look(stroke="faint", weight=1)
_CROSS = Look(stroke="class2", weight=1, opacity=0.9, dash=(4, 4))
_FIELD = Look(stroke="class1", weight=2.5)
_TARGET = Look(stroke="class3", weight=2)
_NAME = Look(fill="ink", size=14, bold=True)
_WORD = Look(fill="soft", size=12)
_SCALE = Look(fill="soft", size=11)

Tint = NDArray[np.uint8]


def explanation(found: Explanation) -> Figure:
    """Return the maps of an explanation over its image.

    Args:
        found: what :func:`convoxel.train.explain` returned.
    """
    shown = [_Block(found, each) for each in found.maps.values()]
    if found.sample.image.ndim == 3:
        shown.insert(0, _Block(found, None))
    columns = _COLUMNS if found.sample.image.ndim == 3 else 1
    inner = shown[0].width + _GAP + _BAR + _LABELS
    width = 2 * EDGE + columns * inner + (columns - 1) * 2 * _GAP
    sentence = found.subject
    lines = [line for text in (f"Explained: {sentence}.", *found.notes) for line in wrap(text, width - 2 * EDGE)]
    shapes, _, top = heading(f"{found.sample.name}: {found.target.name}", lines)
    for first in range(0, len(shown), columns):
        row = shown[first : first + columns]
        room = max(len(wrap(block.words, inner)) for block in row)  # so that neighbours begin at one height
        for place, block in enumerate(row):
            shapes += block.draw(EDGE + place * (inner + 2 * _GAP), top, inner, room)
        top += 28 + 16 * room + row[0].height + (20 if found.sample.image.ndim == 2 else 0) + 2 * _GAP
    told, least, end = legend(_legend(found), top, width)
    methods = " ".join(f"{block.name}: {block.words}" for block in shown if block.words)
    text = f"{found.sample.name}, explained: {sentence}. {methods}"
    return Figure(f"Explanation of {found.sample.name}", text, max(width, least), end + EDGE - 8, (*shapes, *told))


def _legend(found: Explanation) -> list[tuple[Look, str]]:
    """Return the marks and what they mean."""
    entries: list[tuple[Look, str]] = []
    if any(each.signed for each in found.maps.values()):
        entries += [(Look(fill=_FOR), f"for {found.target.name}"), (Look(fill=_AGAINST), "against it")]
    if found.region is not None:
        entries.append((_TARGET, "the voxels that are explained"))
    if found.unit is not None and found.unit.box is not None and not _is_beyond(found):
        entries.append((_FIELD, "exact receptive field of the unit"))
    if found.sample.image.ndim == 4:
        entries.append((_CROSS, "the other two slices"))
    return entries


@dataclass(frozen=True)
class _View:
    """A plane of an image, or a signal: its axes, their direction in the picture, and its place and size on the page.

    ``axes`` run downwards and to the right; a signal has the latter alone.
    """

    plane: str
    axes: tuple[int, ...]
    reversed: tuple[bool, ...]
    size: tuple[int, ...]  # pixels along the axes
    width: float
    height: float
    marks: tuple[str, str, str, str] | None = None

    def across(self, axis: int, edge: float) -> float:
        """Return where an edge of a voxel (−0.5 …) lies on the page along an axis of the view."""
        place = self.axes.index(axis)
        share = (edge + 0.5) / self.size[place]
        share = 1 - share if self.reversed[place] else share
        return share * (self.width if place == len(self.axes) - 1 else self.height)


class _Block:
    """The views of an image with one map over them, its name and its scale; without a map (None) the image alone."""

    def __init__(self, found: Explanation, shown: Attribution | None) -> None:
        self.found, self.map = found, shown
        self.point = found.asked or self._place(found, shown)
        self.largest, self.cut = (1.0, False) if shown is None else _largest(shown)
        self.image = found.sample.image
        self.dims = self.image.ndim - 1
        self.views = list(self._views())
        self.width = sum(view.width for view in self.views) + _GAP * (len(self.views) - 1)
        self.height = max(view.height for view in self.views)
        self.shown = self.image if len(self.image) == 3 and self.dims == 2 else self.image[:1]
        # Colours and grey values of one window for all slices, so that they can be compared.
        byte = len(self.shown) == 3 and self.shown.min() >= 0 and self.shown.max() <= 255 and self.shown.max() > 1
        self.window = (0.0, 255.0) if byte else grey_window(self.shown) if self.dims > 1 else None

    @staticmethod
    def _place(found: Explanation, shown: Attribution | None) -> tuple[int, ...]:
        """Return the voxel through which slices pass: the strongest of a map, of another one where this is 0."""
        for each in (*([shown] if shown is not None else []), *found.maps.values()):
            if each.values.any():
                return each.strongest
        return tuple(side // 2 for side in found.sample.image.shape[1:])

    def _views(self) -> Iterator[_View]:
        size = self.image.shape[1:]
        if self.dims == 1:
            yield _View("", (0,), (False,), size, *_SIGNAL)
            return
        spacing = self.found.sample.spacing_mm or (1.0,) * self.dims
        if self.dims == 2:
            yield _View("", (0, 1), (False, False), size, *_within(size, (spacing[0], spacing[1]), _PICTURE))
            return
        affine = self.found.sample.affine
        for plane in PLANES:
            cut = oriented_slice(self.image, affine, plane, self.point[plane_axis(affine, plane)])
            rows, columns = cut.pixels.shape[-2:]
            sides = cut.spacing if affine is not None else (spacing[cut.axes[0]], spacing[cut.axes[1]])
            wide, tall = _within((rows, columns), sides, _SLICE)
            yield _View(plane, cut.axes, cut.reversed, (rows, columns), wide, tall, cut.marks)

    def _plane(self, array: Array, view: _View) -> Array:
        """Return the part of an array (*any, *spatial) that a view shows."""
        if self.dims < 3:
            return array
        affine = self.found.sample.affine
        return oriented_slice(array, affine, view.plane, self.point[plane_axis(affine, view.plane)]).pixels

    @property
    def name(self) -> str:
        """Name of the method."""
        return "image" if self.map is None else self.map.method

    @property
    def words(self) -> str:
        """One sentence about the map."""
        found = self.map
        if found is None:
            return ""
        parts = [METHODS[found.method]]
        if found.method == "field" and self.found.unit is not None:
            parts = [str(self.found.unit), *(["it reaches beyond the image"] if _is_beyond(self.found) else [])]
        elif found.method == "gradcam++":
            parts.append(f"layer {self.found.layer}")
        elif found.method == "occlusion":
            parts += [f"window {'×'.join(map(str, found.facts['window']))}", f"unit: {found.unit}"]
        elif found.method == "integrated-gradients":
            parts += [f"sum {found.facts['sum']:.4g}", f"unit: {found.unit}"]
        if self.dims == 3:
            parts.append(f"slices through voxel {', '.join(map(str, self.point))}")
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}."

    def draw(self, x: float, y: float, width: float, room: int) -> list[Shape]:
        """Return name, words, views and scale from (x, y) on; the views begin below so many lines of words."""
        lines = wrap(self.words, width)
        shapes: list[Shape] = [Words(x, y + 14, self.name, look=_NAME)]
        shapes += [Words(x, y + 32 + 16 * index, line, look=_WORD) for index, line in enumerate(lines)]
        top = y + 28 + 16 * room
        left = x
        for view in self.views:
            shapes += self._panel(view, (left, top))
            left += view.width + _GAP
        if self.map is not None:
            shapes += self._scale(self.map, left, top)
        if self.dims == 1:
            last = self.image.shape[1] - 1
            marks = tuple(mark for mark in ticks(0, last, 5) if mark <= last and mark.is_integer())
            axis = Axis(-0.5, last + 0.5, marks)
            shapes += mark_below(axis, x, self.width, top + self.height)
        return shapes

    def _panel(self, view: _View, corner: Point) -> Iterator[Shape]:
        (x, y), found = corner, self.map
        area = (x, y, view.width, view.height)
        yield Box(*area, look=Look(fill="grid"))
        if self.dims > 1:
            plane = np.moveaxis(self._plane(self.shown, view), 0, -1)
            pixels = image_pixels(plane[..., 0] if plane.shape[-1] == 1 else plane, self.window)
            yield Bitmap(*area, shrunk(Image.fromarray(pixels)), smooth=True)
        if found is not None:
            values = self._plane(found.values, view)
            tint = _tint(values.reshape(-1, values.shape[-1]) / self.largest, signed=found.signed)
            yield Bitmap(*area, shrunk(Image.fromarray(tint, "RGBA"), 2048 if self.dims == 1 else 512), smooth=True)
        if self.dims == 1:
            yield from self._curves(view, corner)
        yield from self._target(view, corner)
        if found is not None and found.method == "field":
            yield from self._field(view, corner)
        if self.dims == 3:
            yield from self._cross(view, corner)
        yield Box(*area, look=_FRAME)
        if view.marks is not None and found is next(iter(self.found.maps.values())):
            yield from edge_letters(view.marks, x, y, (round(view.width), round(view.height)))

    def _curves(self, view: _View, corner: Point) -> Iterator[Shape]:
        """Yield the channels of a signal, each over the whole height; of many samples the least and largest a pixel."""
        (x, y), count = corner, self.image.shape[1]
        for role, values in zip(("ink", "c7", "c3"), self.image, strict=False):
            low, high = float(values.min()), float(values.max())
            share = (values - low) / ((high - low) or 1.0)
            places = (np.arange(count) + 0.5) / count
            bins = int(view.width)
            if count > 4 * bins:
                groups = np.array_split(share, bins)
                share = np.array([end for group in groups for end in (group.min(), group.max())])
                places = np.repeat((np.arange(bins) + 0.5) / bins, 2)
            points = tuple(
                (x + float(a) * view.width, y + view.height - 8 - float(b) * (view.height - 16))
                for a, b in zip(places, share, strict=True)
            )
            yield Line(points, look=Look(stroke=role, weight=1.4))

    def _target(self, view: _View, corner: Point) -> Iterator[Shape]:
        """Yield the outline of the voxels that are explained, where they are not the whole image."""
        if self.found.region is None:
            return
        x, y = corner
        inside = self._plane(self.found.region, view)
        if self.dims == 1:
            changes = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
            for first, stop in zip(changes[::2], changes[1::2], strict=True):
                left, right = (x + view.across(0, edge - 0.5) for edge in (first, stop))
                yield Line(((left, y + view.height - 3), (right, y + view.height - 3)), look=_TARGET)
            return
        if not inside.any():
            return
        scale = 2  # pixels a unit, as figures are saved
        wide, tall = round(view.width * scale), round(view.height * scale)
        # A frame of background, so that a region at the rim of the picture is closed there.
        labels = np.pad(enlarge(inside.astype(np.uint8), (wide, tall)), 3)
        pixels = np.zeros((tall, wide, 4), np.uint8)
        rim = (edges(labels, 3) & (labels > 0))[3:-3, 3:-3]
        pixels[rim] = (*colour(_TARGET.stroke), 255)
        yield Bitmap(x, y, view.width, view.height, Image.fromarray(pixels, "RGBA"))

    def _field(self, view: _View, corner: Point) -> Iterator[Shape]:
        """Yield the box of the exact receptive field; sides beyond the image stay open."""
        unit = self.found.unit
        if unit is None or unit.box is None:
            return
        spans = []
        for axis, side in zip(view.axes, view.size, strict=True):
            low, high = unit.box[axis]
            ends = [view.across(axis, min(max(edge, -0.5), side - 0.5)) for edge in (low, high)]
            spans.append((*sorted(ends), low < -0.5, high > side - 0.5, view.reversed[view.axes.index(axis)]))
        (x, y), (left, right, before, behind, turned) = corner, spans[-1]
        top, bottom, above, below, flipped = spans[0] if self.dims > 1 else (2.0, view.height - 2, False, False, False)
        before, behind = (behind, before) if turned else (before, behind)
        above, below = (below, above) if flipped else (above, below)
        left, right, top, bottom = x + left, x + right, y + top, y + bottom
        sides = (
            (((left, top), (left, bottom)), before), (((right, top), (right, bottom)), behind),
            (((left, top), (right, top)), above), (((left, bottom), (right, bottom)), below),
        )  # fmt: skip
        for line, is_open in sides:
            if not is_open:
                yield Line(line, look=_FIELD)

    def _cross(self, view: _View, corner: Point) -> Iterator[Shape]:
        x, y = corner
        down, right = (view.across(axis, self.point[axis]) for axis in view.axes)
        yield Line(((x, y + down), (x + view.width, y + down)), look=_CROSS)
        yield Line(((x + right, y), (x + right, y + view.height)), look=_CROSS)

    def _scale(self, found: Attribution, x: float, y: float) -> Iterator[Shape]:
        """Yield the scale of a map: its colours over grey, the numbers beside them, its unit below the largest."""
        tall, largest = self.height, self.largest
        tint = _tint(np.linspace(1.0, -1.0 if found.signed else 0.0, 128)[:, None], signed=found.signed)
        # Opaque: over the grey of an image it is the same on light pages, dark ones and paper.
        cover = tint[..., 3:] / 255
        shown = np.rint(cover * tint[..., :3] + (1 - cover) * _GREY).astype(np.uint8)
        yield Bitmap(x, y, _BAR, tall, Image.fromarray(shown), smooth=True)
        yield Box(x, y, _BAR, tall, look=_FRAME)
        numbers = (largest, 0.0, -largest) if found.signed else (largest, largest / 2, 0.0)
        for value, place in zip(numbers, (y + 9, y + tall / 2 + 4, y + tall), strict=True):
            beyond = "" if not (self.cut and value) else "≥ " if value > 0 else "≤ "
            yield Words(x + _BAR + 6, place, f"{beyond}{value:.3g}".replace("-", "−"), look=_SCALE)


def _largest(found: Attribution) -> tuple[float, bool]:
    """Return the value of the strongest colour, and whether some values lie beyond.

    A few pixels have many times the integrated gradients of the others, and would leave nothing to see of these.
    """
    size = np.abs(found.values)
    largest = float(size.max()) or 1.0
    usual = float(np.quantile(size, _USUAL)) if found.method == "integrated-gradients" else largest
    return (usual, True) if 0 < usual < largest else (largest, False)


def _is_beyond(found: Explanation) -> bool:
    """Return whether the exact receptive field holds the whole image, so that no side of it can be drawn."""
    box = None if found.unit is None else found.unit.box
    sides = found.sample.image.shape[1:]
    return box is not None and all(low < -0.5 and high > n - 0.5 for (low, high), n in zip(box, sides, strict=True))


def _within(size: Sequence[int], spacing: tuple[float, float], most: Point) -> Point:
    """Return width and height of a plane of pixels (rows, columns) in the body's proportions."""
    tall, wide = size[0] * spacing[0], size[1] * spacing[1]
    scale = min(most[0] / wide, most[1] / tall)
    return max(wide * scale, 4.0), max(tall * scale, 4.0)


def _tint(share: Array, *, signed: bool) -> Tint:
    """Return (rows, columns, 4) colours of a map between −1 and 1: the stronger, the more they cover."""
    strength = np.abs(np.clip(share, -1.0, 1.0)) if signed else np.clip(share, 0.0, 1.0)
    pixels = np.empty((*share.shape, 4), np.uint8)
    if signed:
        pixels[..., :3] = np.where(share[..., None] > 0, colour(_FOR), colour(_AGAINST))
    else:
        ramp = np.array([colour(f"ramp:{step / 255}", dark=True) for step in range(256)], np.uint8)
        pixels[..., :3] = ramp[np.rint(strength * 255).astype(np.intp)]
    # The root shows the rim of maps that fall off fast, as gradients do.
    pixels[..., 3] = np.rint(255 * _COVER * np.sqrt(strength))
    return pixels
