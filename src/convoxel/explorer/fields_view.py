"""Receptive fields over an image: what one unit of any layer can see, exactly, and how much of that it really uses.

The box and its sentence are those of ``convoxel draw field``, the measured influence is that of
``inspect.effective_field`` on the part of the image that the unit can see.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convoxel.draw.field_picture import field as draw_field
from convoxel.draw.quantity import sizes as say
from convoxel.errors import ConfigError
from convoxel.explorer.image_frame import ImageFrame, Span, open_frame
from convoxel.explorer.opened_image import find_place, png, stretches
from convoxel.explorer.view import Picture, Query, View
from convoxel.inspect.feature_map import FeatureMap, alignment, feature_maps, is_within
from convoxel.lookup import is_given

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import Array, JsonObject

_MOST_LAYERS, _MOST_CENTRES = 600, 200
_MOST_MACS = 40e9  # of a pass forward; with the way back, some seconds on two cores
_MOST_VOXELS = 96**3


@dataclass(frozen=True)
class Layer:
    """A layer whose units can be looked at.

    Attributes:
        name: name of its step.
        map: its result, with receptive fields.
        module: path of the PyTorch module whose output it is; None where there is none.
    """

    name: str
    map: FeatureMap
    module: str | None


def list_layers(frame: ImageFrame) -> list[Layer]:
    """Return the layers of a network in running order; norms and activations belong to the layer before them."""
    record = frame.subject.record
    steps = {step.name: step for step in record.steps}
    maps = [each for each in feature_maps(record, frame.subject.seen) if not steps[each.layer].stays]
    return [Layer(each.layer, each, find_module(frame, each.layer)) for each in reversed(maps)][:_MOST_LAYERS]


def find_module(frame: ImageFrame, step: str) -> str | None:
    """Return the path of the module whose output a step's result is, norms and activations aside, or None."""
    names = [each.name for each in frame.subject.record.steps if not each.stays]
    path = step.partition(":")[0]
    while True:
        if path in frame.modules:
            inner = [name for name in names if is_within(name, path or None)]
            return path if inner and inner[-1] == step else None
        if not path:
            return None
        path = path.rpartition(".")[0]


def _layer(frame: ImageFrame, query: Query) -> Layer:
    """Return the layer that a page names, or the last one whose field the image holds."""
    layers = list_layers(frame)
    if not layers:
        raise ConfigError(f"net: no layer of {frame.subject.name} has units whose place in the image is known.")
    name = query.text("layer")
    if name:
        known = {each.name: each for each in layers}
        if name not in known:
            frame.subject.map(name)  # raises with the nearest name, unless the name is that of a block
            return Layer(name, frame.subject.map(name), name)
        return known[name]
    fits = [each for each in layers if all(f.size <= n for f, n in zip(each.map.fields, frame.size, strict=True))]
    return (fits or layers[:1])[-1]


# ---- answers --------------------------------------------------------------------------------------------------


def describe(session: Session, query: Query) -> JsonObject:
    """Return the layers of a network for an image, with the sizes of their maps and fields."""
    frame = open_frame(session, query)
    layers = [
        {
            "name": each.name, "size": each.map.size, "field": [f.size for f in each.map.fields],
            "stride": [f.stride for f in each.map.fields], "measurable": each.module is not None,
            "text": f"{each.name} · map {say(each.map.size)} · field {say([f.size for f in each.map.fields])}",
        }
        for each in list_layers(frame)
    ]  # fmt: skip
    fitted = "" if frame.size == frame.image.size else f"; its input is {say(frame.size)}"
    return {
        "net": frame.word, "name": frame.subject.name, "input": frame.shape, "layers": layers,
        "layer": _layer(frame, query).name, "gradients": frame.has_gradients,
        "text": f"{frame.subject.name} on {frame.image.sample.name}{fitted}",
    }  # fmt: skip


def unit(session: Session, query: Query) -> JsonObject:
    """Return what a unit sees: of ``layer`` the one at ``at``, or the one whose centre is nearest to ``voxel``."""
    frame = open_frame(session, query)
    layer = _layer(frame, query)
    at = _unit(frame, layer, query)
    box = layer.map.box(at)
    found: JsonObject = {
        "layer": layer.name, "at": at, "map": layer.map.size, "whole": layer.map.whole, "input": frame.size,
        "text": draw_field(frame.subject, at=at, layer=layer.name).text, "copies": _copies(frame, layer, at, query),
        "measurable": layer.module is not None and frame.has_gradients,
    }  # fmt: skip
    found["centres"] = list_centres(frame, layer)
    if layer.map.whole:
        found["text"] += " Beside that, a step before it lets it see the whole image."
    if box is None:
        return {**found, "box": None}
    edges = frame.edges(box)
    clipped = [(max(low, -0.5), min(high, n - 0.5)) for (low, high), n in zip(edges, frame.image.size, strict=True)]
    inside = [(max(low, 0), min(high, n - 1)) for (low, high), n in zip(box, frame.size, strict=True)]
    share = math.prod(max(high - low + 1, 0) / n for (low, high), n in zip(inside, frame.size, strict=True))
    return {
        **found, "box": box, "clipped": inside, "edges": edges, "clipped_edges": clipped,
        "centre": [(low + high) / 2 for low, high in edges],
        "sides": [high - low + 1 for low, high in box],
        "share": f"{share:.2%}",
    }  # fmt: skip


def list_centres(frame: ImageFrame, layer: Layer) -> list[list[float]] | None:
    """Return along each axis of the image the middles of the units' fields; None where there are too many to draw."""
    if max(layer.map.size) > _MOST_CENTRES:
        return None
    boxes = [[f.at(p) or (-1, -1) for p in range(n)] for f, n in zip(layer.map.fields, layer.map.size, strict=True)]
    found: list[list[float]] = [[] for _ in boxes]
    for number in range(max(layer.map.size)):
        edges = frame.edges([each[min(number, len(each) - 1)] for each in boxes])
        for axis, (low, high) in enumerate(edges):
            found[axis].append((low + high) / 2)
    return [sorted(set(each)) for each in found]


def _unit(frame: ImageFrame, layer: Layer, query: Query) -> tuple[int, ...]:
    voxel = query.text("voxel")
    if voxel and not query.text("at"):
        middle = tuple(n // 2 for n in frame.image.size)
        return layer.map.nearest(frame.place(find_place("voxel", voxel, frame.image.size, middle)))
    return find_place("at", query.text("at"), layer.map.size, layer.map.place(None))


@dataclass(frozen=True, eq=False)
class Influence:
    """The measured influence of the voxels of a box of the image on a unit.

    Attributes:
        start: first voxel of the box.
        values: (*box), the largest 1.
        size: extent of what is above the threshold, in places of the input.
        part: size of the part of the input that was computed.
        exact: whether that part holds all that the unit sees.
        time_s: seconds that it took.
        text: the result in words.
    """

    start: tuple[int, ...]
    values: Array
    size: tuple[int, ...]
    part: tuple[int, ...]
    exact: bool
    time_s: float
    text: str


def _measured(session: Session, query: Query) -> Influence:
    frame = open_frame(session, query)
    layer = _layer(frame, query)
    at = _unit(frame, layer, query)
    if layer.module is None:
        what = "a file, which has no gradients" if not frame.has_gradients else "no module of its own"
        raise ConfigError(
            f"layer: {layer.name} of {frame.subject.name} is {what}, so its influence is not measured; the box is "
            "exact all the same. Choose another layer, or a run or a network of the zoo."
        )
    key = ("influence", frame.word, tuple(frame.options.items()), frame.image.word, layer.name, at)
    return session.keep(key, lambda: measure_influence(frame, layer, at))


def measure_influence(frame: ImageFrame, layer: Layer, at: Sequence[int]) -> Influence:
    """Return how strongly each voxel moves a unit, measured on the part of the input that it sees."""
    from convoxel.inspect import effective_field

    begun = time.perf_counter()
    start, size, exact = plan_part(frame, layer, at)
    inner = [int(p - first / f.stride) for p, first, f in zip(at, start, layer.map.fields, strict=True)]
    found = effective_field(frame.module, frame.cut(start, size), layer=layer.module, position=inner)
    corner, values = frame.spread(start, found.array.astype(np.float32))
    seconds = time.perf_counter() - begun
    text = f"{found}. Measured as the gradient on {say(size)} inputs in {seconds:.1f} s"
    text += "." if exact else "; the field is larger than that, and what lies beyond was not measured."
    return Influence(corner, values, found.size, size, exact, seconds, text[0].upper() + text[1:])


def plan_part(frame: ImageFrame, layer: Layer, at: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return the part of the input in which a unit is computed, and whether it holds all that the unit sees.

    A part begins and ends where every layer keeps its phase. Where it would take too long it is cut around the unit.
    """
    whole = ((0,) * len(frame.size), frame.size, True)
    steps = alignment(frame.subject.seen, len(frame.size))
    box = layer.map.box(at)
    total = float(np.prod(frame.size))
    macs = sum(step.macs for step in frame.subject.record.steps)
    most = min(_MOST_VOXELS, _MOST_MACS / max(macs / total, 1e-9))
    if steps is None or box is None or (layer.map.whole and total <= most):
        return whole
    ends = [_aligned(max(low, 0), min(high + 1, n), n, step)
            for (low, high), n, step in zip(box, frame.size, steps, strict=True)]  # fmt: skip
    exact = not layer.map.whole
    centre = [(low + high) // 2 for low, high in box]
    while np.prod([high - low for low, high in ends], dtype=float) > most:
        sides = [high - low for low, high in ends]
        axis = int(np.argmax(sides))
        if sides[axis] <= 2 * steps[axis]:
            break
        low, high = ends[axis]
        # The end that is farther from the unit gives way.
        ends[axis] = (
            (low + steps[axis], high) if centre[axis] - low > high - centre[axis] else (low, high - steps[axis])
        )
        exact = False
    return tuple(low for low, _ in ends), tuple(high - low for low, high in ends), exact


def _aligned(low: int, high: int, total: int, step: int) -> Span:
    """Return the smallest span that holds ``low`` to ``high`` and begins and ends on a step, where there is room."""
    start = low // step * step
    return start, min(-(-high // step) * step, total) if total % step == 0 else total


def effective(session: Session, query: Query) -> JsonObject:
    """Measure the influence on a unit, and return its extent and the voxels that it is known for."""
    found = _measured(session, query)
    ends = [(first, first + count - 1) for first, count in zip(found.start, found.values.shape, strict=True)]
    answer: JsonObject = {
        "text": found.text, "size": found.size, "part": found.part, "exact": found.exact, "voxels": ends,
        "time_s": found.time_s,
    }  # fmt: skip
    if found.values.ndim == 1:
        curve = stretches(found.values)
        answer["curve"] = {**curve, "starts": [found.start[0] + place for place in curve["starts"]]}
    return answer


def heat(session: Session, query: Query) -> Picture:
    """Return the influence on a slice as a picture that covers more where it is larger."""
    frame, found = open_frame(session, query), _measured(session, query)
    plane = frame.image.plane(query.text("plane", frame.image.planes[0].name if frame.image.planes else ""))
    whole = np.zeros([frame.image.size[axis] for axis in sorted(plane.axes)], np.float32)
    place = [slice(first, first + count) for first, count in zip(found.start, found.values.shape, strict=True)]
    values = found.values
    if plane.across is not None:
        index = query.number("index", 0, 0, frame.image.size[plane.across] - 1) - place.pop(plane.across).start
        inside = 0 <= index < values.shape[plane.across]
        values = (
            np.take(values, index, axis=plane.across) if inside else np.zeros_like(np.take(values, 0, plane.across))
        )
    whole[tuple(place)] = values
    if plane.axes[0] > plane.axes[1]:
        whole = whole.T
    rows, columns = (slice(None, None, -1) if back else slice(None) for back in plane.reversed)
    # Without the root its rim would not be seen: influence falls off fast.
    cover = np.rint(215 * np.sqrt(np.clip(whole[rows, columns], 0, 1))).astype(np.uint8)
    return png(np.stack([np.full_like(cover, 255), cover], axis=-1))


# ---- to copy --------------------------------------------------------------------------------------------------


def _copies(frame: ImageFrame, layer: Layer, at: Sequence[int], query: Query) -> list[JsonObject]:
    place = ",".join(map(str, at))
    options = "".join(f" --set {shlex.quote(each)}" for each in query.texts("set"))
    same = frame.size == frame.image.size and frame.image.sample.source is not None
    image = f" --image {shlex.quote(frame.image.word)}" if same else f" --shape {','.join(map(str, frame.shape))}"
    name = shlex.quote(layer.name)
    command = f"convoxel draw field {shlex.quote(frame.word)}{image}{options} --layer {name} --at {place}"
    python = (
        "import convoxel as cx\n\n"
        f"figure = cx.draw.field({frame.word!r}, {frame.shape}, layer={layer.name!r}, at={tuple(at)})\n"
        "print(figure.text)\nfigure.save('field.svg')"
    )
    if is_given(frame.word):
        return [{"name": "Python", "text": python.replace(repr(frame.word), "net", 1)}]
    measured = f"{command} --effective" if layer.module == layer.name else ""
    return [
        {"name": "Picture (command)", "text": f"{command} --svg field.svg"},
        *([{"name": "With its influence", "text": f"{measured} --svg field.svg"}] if measured else []),
        {"name": "Python", "text": python},
    ]


VIEW = View(
    "fields",
    "Fields",
    "What one unit of any layer sees of an image: the exact box, and the measured influence, in all slices.",
    {"describe": describe, "unit": unit, "effective": effective, "heat": heat},
)
