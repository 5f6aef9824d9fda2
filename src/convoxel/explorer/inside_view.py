"""Inside a network: what each layer makes of an image, number by number, and what kernels and samplings do to it.

The engine computes the layers (``inspect.layer_output``); ranks are those of ``inspect.separability``, errors of
translation those of ``inspect.equivariance``, ways of up-sampling those of ``inspect.upsampling``, and what speaks for
a class that of ``convoxel explain``.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoxel.draw.quantity import sizes as say
from convoxel.errors import ConfigError, check_choice
from convoxel.explorer.feature_sheet import GAP, Sheet, coloured, draw_tile, join_tiles
from convoxel.explorer.fields_view import find_module
from convoxel.explorer.image_frame import ImageFrame, open_frame
from convoxel.explorer.opened_image import find_place, png
from convoxel.explorer.session import Session
from convoxel.explorer.view import Picture, Query, View
from convoxel.graph.load import load
from convoxel.inspect.layer_output import Formula, formula, layer_outputs, layer_program
from convoxel.inspect.record import Record, Step, open_source
from convoxel.lookup import find_network, is_file, is_given

if TYPE_CHECKING:
    from convoxel.files.values import Array, JsonObject
    from convoxel.predict.explained_score import Where
    from convoxel.predict.explanation import Explanation

_MOST_MACS, _MOST_VOXELS = 60e9, {1: 1 << 20, 2: 640 * 640, 3: 64**3}
_MOST_COVERED = 5e11  # multiply-adds of an occlusion
_ROW = 1100
_MOST_TERMS = 12  # of a formula
_PATCH = {1: 16, 2: 8, 3: 4}
_LARGEST_KERNEL = 400  # weights of a kernel that are shown as numbers


# ---- what the engine computes --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """A layer, what goes in and what comes out.

    Attributes:
        step: the layer.
        inputs: its operands, (1, channels, *spatial).
        y: its result.
        record: the network for the input that was computed.
        start: place of that input's first voxel; the input is a part of a large image.
    """

    step: Step
    inputs: tuple[Array, ...]
    y: Array
    record: Record
    start: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the result."""
        return tuple(self.y.shape[2:])


def list_steps(record: Record, dims: int) -> list[Step]:
    """Return the steps whose results are maps."""
    return [step for step in record.steps if len(step.shape) == dims + 2]


def _record(frame: ImageFrame, size: Sequence[int]) -> Record:
    if tuple(size) == frame.size:
        return frame.subject.record
    source = frame.explained.run.network if frame.explained is not None else None
    if source is not None:
        return open_source(source).record([(1, frame.channels, *size)])
    return (
        find_network(frame.word, [(1, frame.channels, *size)], frame.options)
        .open()
        .record([(1, frame.channels, *size)])
    )


def _part(frame: ImageFrame, query: Query) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the part of the input that is computed: all of it, or as much around a voxel as takes a few seconds."""
    total = math.prod(frame.size)
    macs = sum(step.macs for step in frame.subject.record.steps)
    most = min(_MOST_VOXELS[len(frame.size)], _MOST_MACS / max(macs / total, 1e-9))
    if total <= most:
        return (0,) * len(frame.size), frame.size
    side = max(16, int(most ** (1 / len(frame.size))) // 16 * 16)
    size = tuple(min(side, n) for n in frame.size)
    middle = tuple(n // 2 for n in frame.image.size)
    centre = frame.place(find_place("voxel", query.text("voxel"), frame.image.size, middle))
    return tuple(
        min(max(c - s // 2, 0) // 16 * 16, n - s) for c, s, n in zip(centre, size, frame.size, strict=True)
    ), size


def _step(record: Record, dims: int, query: Query) -> Step:
    steps = list_steps(record, dims)
    if not steps:
        raise ConfigError(f"net: no layer of {record.name} has a map of the image as its result. Choose another.")
    name = query.text("layer")
    found = next((step for step in steps if step.name == name), None)
    if name and found is None:
        raise ConfigError(f"layer: got {name!r}; expected a layer with a map, such as {steps[0].name!r}.")
    return found or next((step for step in steps if step.operator == "convolution"), steps[0])


def _weights(frame: ImageFrame) -> dict[str, Array]:
    if not frame.has_gradients:
        return {}
    return {name: value.detach().cpu().numpy() for name, value in frame.module.state_dict().items()}


def _frame_key(frame: ImageFrame) -> tuple[object, ...]:
    return (frame.word, tuple(map(str, frame.options.items())), frame.image.word)


def _maps(session: Session, query: Query) -> tuple[ImageFrame, LayerMaps]:
    frame = open_frame(session, query)
    if frame.word.endswith(".cvx"):
        raise ConfigError(
            f"net: {frame.subject.name} is a compiled program, whose layers are joined. Open the .onnx file, the run "
            "or the network of the zoo that it was made of."
        )
    start, size = _part(frame, query)
    record = session.keep(("record", *_frame_key(frame), size), lambda: _record(frame, size))
    step = _step(record, len(size), query)

    def compute() -> LayerMaps:
        y, *inputs = layer_outputs(
            record, _weights(frame), frame.cut(start, size), [step.outputs[0].name, *step.inputs]
        )
        return LayerMaps(step, tuple(inputs), y, record, start)

    return frame, session.keep(("maps", *_frame_key(frame), step.name, start, size), compute)


def network_maps(
    word: str, image: str | Path, layers: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[str, Array, dict[str, Array]]:
    """Return a network's name, the input that it gets of an image file, and the maps of layers, as the page shows them.

    Args:
        word: a run, an ``.onnx`` file, or a network of the zoo with the weights that training starts from.
        image: file of the image; of a large one the middle is computed.
        layers: names of layers (default: five convolutions from the first to the last).
        options: options of a network of the zoo, as name=value.

    Raises:
        ConfigError: there is no such layer, or network and image do not fit each other.
    """
    session = Session.of([word, str(image)], readonly=True)
    pairs = (("net", session.networks[0]), ("image", str(Path(image).resolve())), *(("set", each) for each in options))
    frame, first = _maps(session, Query(pairs))
    usual = [step.name for step in list_steps(first.record, len(frame.size)) if step.operator == "convolution"]
    chosen = layers or [usual[round(n * (len(usual) - 1) / 4)] for n in range(5)] if usual else [first.step.name]
    found = {name: _maps(session, Query((*pairs, ("layer", name))))[1].y[0] for name in dict.fromkeys(chosen)}
    whole = frame.cut(first.start, first.record.inputs[0][2:])[0]
    return frame.subject.name, whole, found


# ---- pictures of maps ----------------------------------------------------------------------------------------


def _planes(frame: ImageFrame, maps: Array, query: Query) -> tuple[Array, int | None, int]:
    """Return maps (channels, *spatial) as (channels, rows, columns), the axis across, and the index along it."""
    if maps.ndim == 2:
        return maps[:, None], None, 0
    if maps.ndim == 3:
        return maps, None, 0
    axis = query.number("axis", _usual_axis(frame), 0, 2)
    index = query.number("index", maps.shape[1 + axis] // 2, 0, 1 << 20)
    index = min(index, maps.shape[1 + axis] - 1)
    cut = np.take(maps, index, axis=1 + axis)
    return _turned(frame, cut, axis), axis, index


def _usual_axis(frame: ImageFrame) -> int:
    return frame.image.planes[0].across or 0 if frame.explained is None and frame.image.planes else 0


def _turned(frame: ImageFrame, cut: Array, axis: int) -> Array:
    """Return (channels, rows, columns) as the image's slices are looked at; a run's grid stays as it is."""
    plane = next((each for each in frame.image.planes if each.across == axis), None)
    if plane is None or frame.explained is not None:
        return cut
    if plane.axes[0] > plane.axes[1]:
        cut = np.swapaxes(cut, 1, 2)
    rows, columns = (slice(None, None, -1) if back else slice(None) for back in plane.reversed)
    return cut[:, rows, columns]


def _position(frame: ImageFrame, size: Sequence[int], query: Query) -> tuple[int, ...]:
    """Return the position in a map that a page names: ``at``, or ``row`` and ``column`` of what it shows."""
    if not query.text("row"):
        return find_place("at", query.text("at"), tuple(size), tuple(n // 2 for n in size))
    row, column = query.number("row", 0, 0), query.number("column", 0, 0)
    if len(size) == 1:
        return (min(column, size[0] - 1),)
    axis: int | None = None
    index, rest = 0, list(range(2))
    backwards = (False, False)
    if len(size) == 3:
        axis = query.number("axis", _usual_axis(frame), 0, 2)
        index = min(query.number("index", size[axis] // 2, 0, 1 << 20), size[axis] - 1)
        rest = [each for each in range(3) if each != axis]
        plane = next((each for each in frame.image.planes if each.across == axis), None)
        if plane is not None and frame.explained is None:
            rest, backwards = list(plane.axes), plane.reversed
    found = [0] * len(size)
    if axis is not None:
        found[axis] = index
    for place, own, back in zip((row, column), rest, backwards, strict=True):
        place = min(place, size[own] - 1)
        found[own] = size[own] - 1 - place if back else place
    return tuple(found)


# ---- answers -------------------------------------------------------------------------------------------------


def describe(session: Session, query: Query) -> JsonObject:
    """Return the layers of a network whose results are maps of the image."""
    frame = open_frame(session, query)
    start, size = _part(frame, query)
    steps = list_steps(frame.subject.record, len(size))
    part = "" if size == frame.size else f"; computed on {say(size)} of {say(frame.size)} inputs around the cross-hair"
    layers = [{"name": step.name, "operator": step.operator, "function": step.function,
               "text": f"{step.name} · {step.function.replace('_', ' ')} · {step.shape[1]} × {say(step.shape[2:])}"}
              for step in steps]  # fmt: skip
    return {
        "net": frame.word, "name": frame.subject.name, "layers": layers, "start": start, "part": size,
        "input": frame.size,
        "layer": _step(frame.subject.record, len(size), query).name, "gradients": frame.has_gradients,
        "classes": _classes(frame), "text": f"{frame.subject.name} on {frame.image.sample.name}{part}",
    }  # fmt: skip


def _classes(frame: ImageFrame) -> list[str]:
    return list(frame.explained.run.data.outputs) if frame.explained is not None else []


def maps(session: Session, query: Query) -> JsonObject:
    """Return where each feature map of a layer stands in the picture of all, with its least, mean and largest value."""
    frame, found = _maps(session, query)
    values, axis, index = _planes(frame, found.y[0], query)
    sheet = Sheet.of(values.shape, _first(found, query), query.number("room", _ROW, 100, 4000))
    shown = found.y[0, sheet.first : sheet.first + sheet.count]
    flat = shown.reshape(len(shown), -1)
    step = found.step
    kernel = f", kernel {say(step.kernel)}" if step.kernel else ""
    return {
        "layer": step.name, "operator": step.operator, "channels": found.y.shape[1], "size": found.size,
        "first": sheet.first, "count": sheet.count, "columns": sheet.columns, "tile": sheet.tile, "scale": sheet.scale,
        "gap": GAP, "axis": axis, "index": index, "slices": 1 if axis is None else found.size[axis],
        "least": flat.min(axis=1).tolist(), "largest": flat.max(axis=1).tolist(),
        "mean": flat.mean(axis=1, dtype=np.float64).tolist(),
        "text": f"{step.name}: {step.function.replace('_', ' ')}{kernel}, "
                f"{found.inputs[0].shape[1]} → {found.y.shape[1]} channels, map {say(found.size)}",
        "linear": step.operator in ("convolution", "transposed_convolution") and len(step.inputs) == 1,
        "copies": _copies(frame, query, step),
    }  # fmt: skip


def _first(found: LayerMaps, query: Query) -> int:
    return query.number("first", 0, 0, found.y.shape[1] - 1)


def sheet(session: Session, query: Query) -> Picture:
    """Return all feature maps of a layer in one picture, each from its least value (violet) to its largest (yellow).

    With ``same=1`` one scale holds for all of them.
    """
    frame, found = _maps(session, query)
    values, _, _ = _planes(frame, found.y[0], query)
    place = Sheet.of(values.shape, _first(found, query), query.number("room", _ROW, 100, 4000))
    shown = values[place.first : place.first + place.count]
    ends = (float(shown.min()), float(shown.max()))
    tiles = [
        draw_tile(each, ends if query.flag("same") else (float(each.min()), float(each.max())), place) for each in shown
    ]
    return png(join_tiles(tiles, place.columns))


def number(session: Session, query: Query) -> JsonObject:
    """Return how one number of a feature map comes about: the values, the weights, the products and their sum."""
    frame, found = _maps(session, query)
    at = _position(frame, found.size, query)
    channel = query.number("channel", 0, 0, found.y.shape[1] - 1)
    weights = {**found.record.graph.constants, **_weights(frame)}
    made = formula(found.step, found.inputs, found.y, (channel, *at), weights)
    sums = made.of_channels()
    strongest = max(sums, key=lambda each: abs(sums[each]), default=0)
    inner = query.number("inner", strongest, 0, 1 << 20) if query.text("inner") else strongest
    terms = [term for term in made.terms if term.channel == inner] if made.kind == "sum" else list(made.terms)
    return {
        "layer": found.step.name, "channel": channel, "at": at, "value": made.value, "computed": made.computed,
        "kind": made.kind, "bias": made.bias, "inner": inner, "channels": [[c, s] for c, s in sums.items()],
        "terms": [
            {"x": t.x, "w": t.w, "product": t.x * t.w, "source": t.source, "weight": t.weight}
            for t in terms[:_LARGEST_KERNEL]
        ],
        "kernel": found.step.kernel, "text": _told(found.step, made, channel, at, inner, terms),
        "window": _window(made, found.inputs[0].shape[2:]),
    }  # fmt: skip


def _window(made: Formula, size: Sequence[int]) -> list[list[int]] | None:
    """Return the first and last input along each axis that a formula reads."""
    sources = np.array([term.source for term in made.terms if term.source is not None])
    return (
        [[int(a), int(b)] for a, b in zip(sources.min(axis=0), sources.max(axis=0), strict=True)]
        if sources.size
        else None
    )


def _told(step: Step, made: Formula, channel: int, at: Sequence[int], inner: int, terms: Sequence[Any]) -> str:
    name = f"y[{channel}; {', '.join(map(str, at))}]"
    values = [f"{term.x:.4g}" for term in terms[:_MOST_TERMS]]
    more = f" … ({len(terms)} in all)" if len(terms) > _MOST_TERMS else ""
    if made.kind == "sum":
        products = [f"{term.x:.3g} · {term.w:.3g}" for term in terms[:_MOST_TERMS]]
        total = sum(term.x * term.w for term in terms)
        text = f"{name} = b + the sum over {len(made.of_channels())} input channels; channel {inner} gives "
        text += f"{' + '.join(products)}{more} = {total:.4g}. "
        return (text + f"All channels and b = {made.bias:.4g} together: {made.value:.6g}.").replace("-", "−")
    if made.kind in ("max", "mean"):
        word = "largest" if made.kind == "max" else "mean"
        return f"{name} = the {word} of {', '.join(values)}{more} = {made.computed:.6g}".replace("-", "−")
    came = f" of {', '.join(values)}" if values else ""
    return f"{name} = {step.function.replace('_', ' ')}{came} = {made.computed:.6g}".replace("-", "−")


def kernel(session: Session, query: Query) -> JsonObject:
    """Return a kernel of a convolution: weights, singular values, ranks, and the best separable approximation."""
    from convoxel.inspect import separability

    frame, found = _maps(session, query)
    weight = _kernels(frame, found)
    channel = query.number("channel", 0, 0, found.y.shape[1] - 1)
    inner, outer = _kernel_index(found.step, weight, channel, query)
    values = weight[outer]
    if math.prod(values.shape) > _LARGEST_KERNEL:
        raise ConfigError(f"kernel: {say(values.shape)} weights are too many to show; up to {_LARGEST_KERNEL} are.")
    study = separability(values)
    largest = max(study.ranks, default=1)
    rank = query.number("rank", 1, 1, max(1, largest))
    best = np.asarray(study.best(rank))
    norm = float(np.linalg.norm(values.astype(np.float64))) or 1.0
    return {
        **study.to_dict(), "values": values.tolist(), "best": best.tolist(), "rank": rank,
        "vectors": [vector.tolist() for vector in study.vectors()], "distance": study.error(rank),
        "relative": study.error(rank) / norm, "channel": channel, "inner": inner, "weights_rank": study.freedom(rank),
        "kernels": [weight.shape[0], weight.shape[1]],
        "text": f"Kernel from channel {inner} to channel {channel}: rank {', '.join(map(str, study.ranks))}. The "
                f"nearest of rank {rank} has {study.freedom(rank)} weights in place of {study.freedom()} and misses "
                f"{study.error(rank) / norm:.1%} of its norm.",
    }  # fmt: skip


def _kernels(frame: ImageFrame, found: LayerMaps) -> Array:
    if found.step.operator not in ("convolution", "transposed_convolution"):
        raise ConfigError(f"layer: {found.step.name} has no kernel; choose a convolution.")
    name = found.step.applied.node.inputs[1]
    return np.asarray({**found.record.graph.constants, **_weights(frame)}[name], np.float64)


def _kernel_index(step: Step, weight: Array, channel: int, query: Query) -> tuple[int, tuple[int, int]]:
    """Return an input channel that the output channel reads, and the place of their kernel among all weights."""
    groups = int(step.applied.node["groups"])
    if step.operator == "convolution":
        first = channel // (weight.shape[0] // groups) * weight.shape[1]
        inner = min(max(query.number("inner", first, 0, 1 << 20), first), first + weight.shape[1] - 1)
        return inner, (channel, inner - first)
    group, own = divmod(channel, weight.shape[1])
    each = weight.shape[0] // groups
    inner = min(max(query.number("inner", group * each, 0, 1 << 20), group * each), (group + 1) * each - 1)
    return inner, (inner, own)


def kernels(session: Session, query: Query) -> Picture:
    """Return the kernels that make one channel, from each input channel, in one picture; one scale holds for all."""
    frame, found = _maps(session, query)
    weight = _kernels(frame, found)
    channel = query.number("channel", 0, 0, found.y.shape[1] - 1)
    _, (outer, own) = _kernel_index(found.step, weight, channel, query)
    own_kernels = weight[outer] if found.step.operator == "convolution" else weight[:, own]
    cut = own_kernels.reshape(len(own_kernels), -1, own_kernels.shape[-1])[:64]  # slices of a volume below each other
    most = float(np.abs(cut).max()) or 1.0
    scale = max(2, 40 // max(cut.shape[1:]))
    tiles = [np.repeat(np.repeat(coloured(each, -most, most), scale, axis=0), scale, axis=1) for each in cut]
    return png(join_tiles(tiles, max(1, min(len(tiles), 640 // (tiles[0].shape[1] + GAP)))))


# ---- sampling ------------------------------------------------------------------------------------------------


def _patch(frame: ImageFrame, found: LayerMaps, query: Query) -> tuple[Array, tuple[int, ...]]:
    """Return a few values of a feature map around a position, an even number along each axis, and where they begin."""
    channel = query.number("channel", 0, 0, found.y.shape[1] - 1)
    at = _position(frame, found.size, query)
    side = _PATCH[len(at)]
    sides = [max(1, min(side, n // 2 * 2)) for n in found.size]
    start = tuple(min(max(p - s // 2, 0), n - s) for p, s, n in zip(at, sides, found.size, strict=True))
    values: Array = found.y[0, channel][tuple(slice(a, a + s) for a, s in zip(start, sides, strict=True))]
    return values, start


def pooling(session: Session, query: Query) -> JsonObject:
    """Return a part of a feature map, what pooling by 2 makes of it, and what each way of un-pooling makes of that."""
    import torch

    from convoxel.nn import functional

    frame, found = _maps(session, query)
    patch, start = _patch(frame, found, query)
    x = torch.from_numpy(np.ascontiguousarray(patch, np.float64))[None, None]
    sides = tuple(min(2, n) for n in patch.shape)
    pooled, indices = functional.max_pool(x, sides, return_indices=True)
    mean = functional.average_pool(x, sides)
    size = patch.shape
    ways = {
        "to where the maximum was": functional.unpool(pooled, sides, mode="indices", indices=indices, output_size=size),
        "to a fixed place (bed of nails)": functional.unpool(pooled, sides, mode="fixed", output_size=size),
        "to every place (nearest)": functional.unpool(pooled, sides, mode="nearest", output_size=size),
        "the mean, shared out": functional.unpool(mean, sides, mode="average", output_size=size),
    }
    return {
        "start": start, "values": patch.tolist(), "size": size, "places": sorted(indices.flatten().tolist()),
        "grids": [{"name": "largest of each window", "values": pooled[0, 0].tolist()},
                  {"name": "mean of each window", "values": mean[0, 0].tolist()},
                  *({"name": name, "values": each[0, 0].tolist()} for name, each in ways.items())],
        "text": f"{say(size)} values of channel {query.text('channel', '0')} from {', '.join(map(str, start))} on, "
                f"pooled by windows of {say(sides)}.",
    }  # fmt: skip


def upsampling(session: Session, query: Query) -> JsonObject:
    """Return a part of a feature map enlarged by each interpolation, and the layers that up-sample, compared."""
    import torch

    from convoxel.inspect import upsampling as compare
    from convoxel.nn import functional, upsamplers

    frame, found = _maps(session, query)
    patch, start = _patch(frame, found, query)
    x = torch.from_numpy(np.ascontiguousarray(patch, np.float64))[None, None]
    grids = [
        {"name": mode, "values": functional.resize(x, scale=2, mode=mode)[0, 0].tolist()}
        for mode in ("nearest", "linear", "cubic", "spline")
    ]
    dims = patch.ndim

    def measure() -> JsonObject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            rows = compare(upsamplers(dims, 4, 4), (1, 4, *(8,) * dims), starts=4, timed=False)
        return {
            "layers": [
                {**row.to_dict(), "response": row.response.tolist(), "response_start": row.response_start.tolist()}
                for row in rows
            ]
        }

    return {
        "start": start, "values": patch.tolist(), "grids": grids, **session.keep(("upsampling", dims), measure),
        "text": f"{say(patch.shape)} values from {', '.join(map(str, start))} on, enlarged twofold along each axis.",
    }  # fmt: skip


_BENDS: dict[str, Callable[[Array, float], Array]] = {
    "none": lambda slot, amount: 0 * slot,
    "wider": lambda slot, amount: slot * amount,
    "shifted": lambda slot, amount: 0 * slot + amount,
    "turned": lambda slot, amount: _turn(slot, amount) - slot,
}


def _turn(slot: Array, amount: float) -> Array:
    """Return positions turned by ``amount`` in the plane of the last two axes; those of a signal come closer."""
    if slot.shape[-1] < 2:
        closer: Array = slot * math.cos(amount)
        return closer
    turned: Array = slot.copy()
    y, x = slot[..., -2], slot[..., -1]
    turned[..., -2] = y * math.cos(amount) + x * math.sin(amount)
    turned[..., -1] = x * math.cos(amount) - y * math.sin(amount)
    return turned


def deformable(session: Session, query: Query) -> JsonObject:
    """Return where a deformable kernel of 3 samples a feature map, what it finds, and the plain kernel's result."""
    import torch

    from convoxel.nn import functional

    frame, found = _maps(session, query)
    patch, start = _patch(frame, found, query)
    bend = _BENDS[check_choice("bend", query.text("bend", "wider"), tuple(_BENDS))]
    amount = query.number("amount", 50, -300, 300) / 100
    dims = patch.ndim
    kernel_size = tuple(min(3, n) for n in patch.shape)
    centre = tuple(n // 2 for n in patch.shape)
    slots = np.stack(np.meshgrid(*[np.arange(k) - k // 2 for k in kernel_size], indexing="ij"), axis=-1).reshape(
        -1, dims
    )
    offsets = bend(slots.astype(np.float64), amount)
    x = torch.from_numpy(np.ascontiguousarray(patch, np.float64))[None, None]
    weight = torch.ones(1, 1, *kernel_size, dtype=torch.float64) / math.prod(kernel_size)
    shape = (1, len(slots) * dims, *patch.shape)
    spread = torch.from_numpy(offsets.reshape(1, -1, *(1,) * dims)).expand(shape).contiguous()
    plain = functional.deform_conv(x, torch.zeros(shape, dtype=torch.float64), weight, padding="same")[0, 0]
    bent = functional.deform_conv(x, spread, weight, padding="same")[0, 0]
    return {
        "start": start, "values": patch.tolist(), "centre": centre, "samples": (slots + offsets + centre).tolist(),
        "plain": [(slot + centre).tolist() for slot in slots], "result": float(bent[centre]),
        "without": float(plain[centre]), "offsets": offsets.tolist(),
        "text": f"The mean of {len(slots)} samples: {float(plain[centre]):.5g} on the grid, {float(bent[centre]):.5g} "
                "at the places that the offsets lead to, where values are interpolated linearly.".replace("-", "−"),
    }  # fmt: skip


# ---- shifted input -------------------------------------------------------------------------------------------


def _shifts(frame: ImageFrame, query: Query) -> int:
    return query.number("shift", 1, 0, max(1, min(frame.size) // 2))


def shift(session: Session, query: Query) -> JsonObject:
    """Return how far the layer's result for a shifted input is from its shifted result, by the shift."""
    import torch

    from convoxel.inspect import equivariance

    frame, found = _maps(session, query)
    amount = _shifts(frame, query)
    x = frame.cut(found.start, found.record.inputs[0][2:])
    shifts = sorted({1, 2, 4, 8, amount} - {0})
    shifts = [each for each in shifts if each <= min(frame.size) // 2] or [1]

    def measure() -> JsonObject:
        program = layer_program(found.record, _weights(frame), found.step.outputs[0].name)
        return equivariance(program, torch.from_numpy(x), shifts).to_dict()

    key = ("shift", *_frame_key(frame), found.step.name, found.start, amount)
    rows = session.keep(key, measure)
    row = next((each for each in rows["rows"] if max(each["shift"]) == amount), None)
    told = "Nothing is shifted."
    if row is not None:
        where = "where no border reaches" if rows["interior"] else "borders included"
        verdict = "only rounding" if row["exact"] else "not a shifted copy"
        told = f"Shifted by {amount} along each axis, {found.step.name} is off by {row['error']:.2e} of its size "
        told += f"({where}): {verdict}."
    return {**rows, "shift": amount, "text": told, "layer": found.step.name}


def shifted(session: Session, query: Query) -> Picture:
    """Return three feature maps side by side: of the shifted input, the shifted one, and their difference."""
    frame, found = _maps(session, query)
    amount = _shifts(frame, query)
    channel = query.number("channel", 0, 0, found.y.shape[1] - 1)
    x = frame.cut(found.start, found.record.inputs[0][2:])
    axes = tuple(range(2, x.ndim))

    def compute() -> Array:
        moved = np.ascontiguousarray(np.roll(x, (amount,) * len(axes), axes))
        return layer_outputs(found.record, _weights(frame), moved, [found.step.outputs[0].name])[0]

    key = ("shifted", *_frame_key(frame), found.step.name, found.start, amount)
    after = session.keep(key, compute)[0, channel]
    steps = [round(amount * own / whole) for own, whole in zip(found.size, x.shape[2:], strict=True)]
    wanted = np.roll(found.y[0, channel], steps, tuple(range(len(steps))))
    three = np.stack([after, wanted, np.abs(after - wanted)])
    values, _, _ = _planes(frame, three, query)
    place = Sheet.of(values.shape, 0, 900)
    ends = (float(three[:2].min()), float(three[:2].max()))
    spread = ends[1] - ends[0]
    tiles = [draw_tile(each, ends if number < 2 else (0.0, spread), place) for number, each in enumerate(values)]
    return png(join_tiles(tiles, 1 if values.shape[1] == 1 else 3))


# ---- what speaks for a class ---------------------------------------------------------------------------------


def _explained(session: Session, query: Query) -> Any:
    frame = open_frame(session, query)
    methods = ("gradcam++", "occlusion")
    method = check_choice("method", query.text("method", "gradcam++"), methods)
    target = query.text("class") or None
    source = frame.image.sample.source
    if frame.explained is None or source is None:  # no run, whose layers and classes Grad-CAM++ asks for
        key = ("occluded", *_frame_key(frame), target)
        return session.keep(key, lambda: _occlude(frame, target)), "occlusion", methods[1:]

    def measure() -> Any:
        from convoxel.train import explain

        return explain(frame.word, source, methods=[method], target=target, device="cpu")

    return session.keep(("explain", *_frame_key(frame), method, target), measure), method, methods


def _occlude(frame: ImageFrame, target: str | None) -> Explanation:
    """Return by how much a class's logit drops where windows cover the image, of any network.

    Raises:
        ConfigError: it would take minutes, or there is no such class.
    """
    import torch

    from convoxel.predict.attribution import Windows, occlusion_drop
    from convoxel.predict.explained_score import Target
    from convoxel.predict.explanation import Attribution, Explanation

    windows, size = Windows.over(frame.size), frame.size
    macs = sum(step.macs for step in frame.subject.record.steps) * (windows.count(size) + 1)
    if macs > _MOST_COVERED:
        raise ConfigError(
            f"explain: {windows.count(size)} windows over {say(size)} take {macs / 1e12:.3g} million million "
            f"multiply-adds; up to {_MOST_COVERED / 1e12:g} are computed here. Choose a smaller image or network."
        )
    run: Callable[[Any], Any] = frame.module if frame.has_gradients else load(frame.word)
    x = torch.from_numpy(frame.cut((0,) * len(size), size))
    with torch.no_grad():
        first = run(x)
        if not isinstance(first, torch.Tensor) or first.ndim not in (2, 2 + len(size)):
            raise ConfigError(f"explain: {frame.subject.name} returns no logits of classes. Choose another network.")
        found = first[0].argmax(0)  # the class, or that of each voxel
        usual = int(found) if first.ndim == 2 else int(found[found > 0].mode()[0]) if bool((found > 0).any()) else 0
        number = int(target) if target is not None and target.isdecimal() and len(target) < 9 else usual
        if (target is not None and not target.isdecimal()) or number >= first.shape[1]:
            raise ConfigError(f"class: got {str(target)[:40]!r}; expected a number from 0 to {first.shape[1] - 1}.")

        region = (found == number).float() if first.ndim > 2 else torch.ones(())
        if not bool(region.any()):
            raise ConfigError(f"class: no voxel is predicted as {number}. Choose another class.")

        def score(images: Any) -> Any:
            return (run(images)[:, number] * region).reshape(len(images), -1).sum(1, keepdim=True)

        drop = occlusion_drop(score, x, windows).numpy()
        value = float(score(x))
    start, part = frame.spread((0,) * len(size), drop)
    values = np.zeros(frame.image.size, np.float32)
    values[tuple(slice(low, low + side) for low, side in zip(start, part.shape, strict=True))] = part
    share = float(first.softmax(1)[0, number]) if first.ndim == 2 else None
    unit = "logit" if first.ndim == 2 else "logits"
    where: Where = "image" if first.ndim == 2 else "region"
    voxels = 0 if first.ndim == 2 else int(region.sum())
    about = Target(number, f"class {number}", where, (), voxels, value, share, unit)
    notes = (f"Windows of {say(windows.window)} cover the image with its middle grey.",)
    maps = {"occlusion": Attribution("occlusion", values, True, unit)}
    return Explanation(frame.image.sample, about, maps, None, "", None, None, (), notes)


def explain(session: Session, query: Query) -> JsonObject:
    """Return what speaks for a class in the image, by Grad-CAM++ or occlusion; see ``convoxel explain``."""
    found, method, methods = _explained(session, query)
    return {**found.to_dict(), "method": method, "methods": methods, "copies": [],
            "text": f"Explained: {found.subject}. {' '.join(found.notes)}"}  # fmt: skip


def heat(session: Session, query: Query) -> Picture:
    """Return a slice of that map, which covers more where it is larger; what speaks against the class is left out."""
    frame = open_frame(session, query)
    found, method, _ = _explained(session, query)
    values = found.maps[method].values
    image = frame.image
    plane = image.plane(query.text("plane", image.planes[0].name if image.planes else ""))
    if plane.across is not None:
        values = np.take(values, query.number("index", 0, 0, image.size[plane.across] - 1), axis=plane.across)
    if plane.axes[0] > plane.axes[1]:
        values = values.T
    rows, columns = (slice(None, None, -1) if back else slice(None) for back in plane.reversed)
    most = float(found.maps[method].values.max()) or 1.0
    cover = np.rint(215 * np.clip(values[rows, columns] / most, 0, 1)).astype(np.uint8)
    return png(np.stack([np.full_like(cover, 255), cover], axis=-1))


# ---- to copy --------------------------------------------------------------------------------------------------


def _copies(frame: ImageFrame, query: Query, step: Step) -> list[JsonObject]:
    if is_given(frame.word):
        module = find_module(frame, step.name)
        return [{"name": "Layer (Python)", "text": f"layer = net.get_submodule({module!r})"}] if module else []
    options = "".join(f", {name}={value!r}" for name, value in frame.options.items())
    module = find_module(frame, step.name)
    known = "{}" if is_file(frame.word) else "{name: each.numpy() for name, each in net.module.state_dict().items()}"
    python = [
        "from convoxel.inspect.layer_output import layer_outputs",
        "from convoxel.lookup import find_network", "",
        f"net = find_network({frame.word!r}, [{frame.shape}], {dict(frame.options)!r}, weights=True)",
        "record = net.open().record(net.shapes)",
        f"weights = {known}",
        f"y = layer_outputs(record, weights, x, [{step.outputs[0].name!r}])[0]",
    ]  # fmt: skip
    copies = [{"name": "Feature maps (Python)", "text": "\n".join(python)}]
    if frame.image.sample.source is not None:
        given = [word for name, value in frame.options.items() for word in ("--set", f"{name}={value}")]
        named = ["convoxel", "draw", "features", frame.image.word, "--model", frame.word, "--layer", step.name]
        copies.insert(0, {"name": "Feature maps (command)", "text": shlex.join([*named, *given])})
    if module and step.kernel and frame.explained is None and frame.has_gradients:
        built = f"cx.models.build({frame.word!r}, dims={len(frame.size)}, in_channels={frame.channels}{options})"
        text = (
            f"import convoxel as cx\n\nlayer = {built}.get_submodule({module!r})\nprint(cx.inspect.separability(layer))"
        )
        copies.append({"name": "Ranks (Python)", "text": text})
    if frame.explained is not None and frame.image.sample.source is not None:
        words = f"convoxel explain {shlex.quote(frame.word)} --input {shlex.quote(frame.image.word)} --output explained"
        copies.append({"name": "What speaks for a class (command)", "text": words})
    return copies


VIEW = View(
    "inside",
    "Inside",
    "What each layer makes of an image: feature maps, kernels, pooling, up-sampling, shifts, what speaks for a class.",
    {
        "describe": describe, "maps": maps, "sheet": sheet, "number": number, "kernel": kernel, "kernels": kernels,
        "pooling": pooling, "upsampling": upsampling, "deformable": deformable, "shift": shift, "shifted": shifted,
        "explain": explain, "heat": heat,
    },
)  # fmt: skip
