"""Rules of ``use_native`` for operators that move, repeat or drop numbers without computing any."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convoxel.graph.ir.size import Size
from convoxel.graph.passes.rewrite import Rewriter

__all__ = ["MOVEMENTS"]

_MOST_COPIES = 64  # repetitions of a tensor, each a step of its own


def _concat(site: Rewriter) -> bool:
    native = all(map(site.is_native, site.node.inputs)) and len(site.node.inputs) > 1
    return native and site.is_made_natively() and site.last("concat", *site.node.inputs, axis=site.node["axis"])


def _slice(site: Rewriter) -> bool:
    """One range after another; those of channels must be whole, or of known numbers."""
    ranges = list(zip(site.node["starts"], site.node["stops"], site.node["steps"], strict=True))
    used = [axis for axis, bounds in enumerate(ranges) if bounds not in ((0, None, 1), (0, site.x.shape[axis], 1))]
    if not used or not site.is_made_natively() or any(ranges[axis][2] < 1 for axis in used if axis != 1):
        return False
    source, shape = site.x.name, list(site.x.shape)
    for axis in used:
        start, stop, step = ranges[axis]
        shape[axis] = site.shape[axis]
        index: list[int] | None = None
        if axis == 1 and step != 1:
            channels = site.x.shape[1]
            if isinstance(channels, Size) or any(isinstance(bound, Size) for bound in (start, stop)):
                return False
            index = list(range(*slice(start, stop, step).indices(channels)))
        add: Any = site.last if axis == used[-1] else site.between
        more: dict[str, Any] = {} if axis == used[-1] else {"shape": tuple(shape)}
        if index is not None:
            source = add("pick_channels", source, site.add(np.array(index, np.int32), "index"), **more)
        else:
            source = add("narrow", source, axis=axis, start=start, stop=stop, step=step, **more)
    return True


def _gather(site: Rewriter) -> bool:
    index, channels = site.constant(1), site.x.shape[1]
    if index is None or index.ndim != 1 or site.node["axis"] != 1 or not isinstance(channels, int):
        return False
    picked = np.where(index < 0, index + channels, index)
    if not site.is_made_natively() or picked.size == 0 or picked.min() < 0 or picked.max() >= channels:
        return False
    return site.last("pick_channels", site.x.name, site.add(picked.astype(np.int32), "index"))


def _pad(site: Rewriter) -> bool:
    padding, value, mode = tuple(site.node["padding"]), site.constant(1), site.node["mode"]
    zero = not site.node.inputs[1] or (value is not None and not value.any())
    if padding[0] != (0, 0) or not site.is_made_natively():
        return False
    if padding[1] != (0, 0):
        return mode == "constant" and _pad_channels(site, padding, 0.0 if zero else value)
    if len(padding) < 3 or not (zero or mode != "constant"):
        return False
    mode = "zero" if mode == "constant" else mode
    return site.last("pad", site.x.name, padding=padding[2:], mode=mode)


def _pad_channels(site: Rewriter, padding: tuple[Any, ...], value: Any) -> bool:
    """More channels of one number beside those of x; positions are padded with zeros only."""
    open_or_cut = any(isinstance(side, Size) or side < 0 for side in padding[1])
    around = any(pair != (0, 0) for pair in padding[2:])
    if open_or_cut or value is None or (around and np.any(value)):
        return False
    n, _, *space = site.x.shape
    parts = [site.x.name]
    for side, place in zip(padding[1], (0, 2), strict=True):
        if not side:
            continue
        made = (n, side, *space)
        name = site.between("blank", site.x.name, shape=made, channels=side)
        if np.any(value):
            scaling = site.add(np.ones(1), "scale"), site.add(np.asarray(value, np.float64).reshape(-1), "shift")
            name = site.between("affine", name, *scaling, shape=made)
        parts.insert(place, name)
    if not around:
        return site.last("concat", *parts, axis=1)
    whole = site.between("concat", *parts, shape=(n, site.shape[1], *space), axis=1)
    return site.last("pad", whole, padding=padding[2:], mode="zero")


def _reshape(site: Rewriter) -> bool:
    """A line of channels becomes a line of positions, or the other way round (Wang et al. 2020, "ECA-Net")."""
    before, after = site.x.shape, site.shape
    places = [[axis for axis, size in enumerate(shape) if axis and size != 1] for shape in (before, after)]
    if before[0] != after[0] or [len(found) for found in places] != [1, 1] or not site.is_made_natively():
        return False
    (old,), (new,) = places
    return 1 in (old, new) and old != new and before[old] == after[new] and site.last("lay", site.x.name, shape=after)


def _is_worth_it(site: Rewriter) -> bool:
    """Whether a native step is at either side: it is the smaller tensor that is converted."""
    return site.is_made_natively() or site.is_read_natively()


def _expand(site: Rewriter) -> bool:
    fits = len(site.x.shape) == len(site.shape)
    return fits and _is_worth_it(site) and site.last("expand", site.x.name, shape=site.shape)


def _tile(site: Rewriter) -> bool:
    repeats = tuple(site.node["repeats"])
    known = all(isinstance(count, int) and count > 0 for count in repeats)
    if not known or math.prod(repeats) > _MOST_COPIES or not _is_worth_it(site):
        return False
    return site.last("tile", site.x.name, repeats=repeats)


def _blocks(site: Rewriter) -> bool:
    how = {key: site.node[key] for key in ("block", "channels_outside")}
    return len(site.shape) > 2 and site.last(site.node.operator.removeprefix("array."), site.x.name, **how)


MOVEMENTS: dict[str, Callable[[Rewriter], bool]] = {
    "concat": _concat,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    "depth_to_space": _blocks,
    "space_to_depth": _blocks,
    "expand": _expand,
    "reshape": _reshape,
    "tile": _tile,
}
"""The operator's name on arrays, and its rule: whether it is replaced."""
