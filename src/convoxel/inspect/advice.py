"""Warnings in sentences: facts about a network at these input sizes that its designer should know.

Each check is a function from the evidence to sentences. ``advise`` collects them: the receptive field first, then
layers that do not work as intended, then cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from convoxel.arithmetic import Transposed, Window, solve_inputs, span
from convoxel.errors import ConvoxelError, ShapeError
from convoxel.inspect.axis_graph import follow_axes
from convoxel.inspect.receptive_field import TensorField
from convoxel.inspect.record import Record
from convoxel.inspect.row import Row
from convoxel.inspect.valid_sizes import Accepts, say_sizes

_SHOWN = 3


class Evidence(NamedTuple):
    """The facts from which warnings follow.

    Attributes:
        record: the network.
        fields: receptive field of each value.
        rows: cost of each step.
        object_size: size of the objects in the image along each axis; () where it is not known.
        balance: FLOPs that the machine does in the time in which its memory delivers a byte.
        accepts: function that returns None for input shapes that the network refuses.
    """

    record: Record
    fields: Mapping[str, TensorField]
    rows: Sequence[Row]
    object_size: tuple[int, ...]
    balance: float
    accepts: Accepts

    @property
    def image(self) -> tuple[int, ...]:
        return self.record.inputs[0][2:]


def advise(evidence: Evidence) -> tuple[str, ...]:
    """Return the warnings; () for a network without inputs or outputs."""
    if not evidence.record.inputs or not evidence.record.outputs:
        return ()
    return tuple(sentence for check in _CHECKS for sentence in check(evidence))


def _fields_too_small(evidence: Evidence) -> list[str]:
    """A receptive field that is smaller than the object, or than the image."""
    seen = evidence.fields[evidence.record.outputs[0]]
    if not seen.is_clear or not seen.fields or not evidence.image:
        return []
    field = [seen.fields[axis].size for axis in sorted(seen.fields)]
    if evidence.object_size and any(a < b for a, b in zip(field, evidence.object_size, strict=False)):
        return [
            f"the receptive field {_times(field)} is smaller than the object {_times(evidence.object_size)}: "
            "no position of the last feature map sees all of it; go deeper, or use strides or dilation"
        ]
    if evidence.object_size or all(a >= b for a, b in zip(field, evidence.image, strict=False)):
        return []
    if seen.whole:
        return [
            f"the last feature map sees {_times(field)} of {_times(evidence.image)}; "
            "only global steps (pooling, fully-connected layers, norms) see more"
        ]
    return [f"an output sees {_times(field)} of {_times(evidence.image)}: larger objects are judged by their parts"]


def _saturated_layers(evidence: Evidence) -> list[str]:
    """Convolutions whose input sees the whole image already (Richter et al. 2021, arXiv 2106.12307)."""
    if not evidence.image:
        return []
    wide, beyond = 0, []
    for step in evidence.record.steps:
        if not step.macs or max((w.k for w in step.windows if isinstance(w, Window)), default=1) == 1:
            continue
        wide += 1
        seen = evidence.fields[step.inputs[0]]
        known = seen.known and len(seen.fields) == len(evidence.image)
        if known and all(seen.fields[axis].size >= size for axis, size in enumerate(evidence.image)):
            beyond.append(step.name)
    if not beyond:
        return []
    return [
        f"{len(beyond)} of {wide} convolutions wider than 1 find no new context at {_times(evidence.image)}, "
        f"from {beyond[0]} on: their inputs see the whole image already"
    ]


def _uneven_overlap(evidence: Evidence) -> list[str]:
    """Transposed convolutions that write some positions more often than others."""
    found: dict[str, list[str]] = {}
    for step in evidence.record.steps:
        windows = [window for window in step.windows if isinstance(window, Transposed)]
        counts = {
            tuple(sum((phase - w.d * tap) % w.s == 0 for tap in range(w.k)) for phase in range(w.s)) for w in windows
        }
        uneven = [count for count in counts if len(set(count)) > 1]
        if uneven:
            low, high = min(map(min, uneven)), max(map(max, uneven))
            kernel, stride = _times([w.k for w in windows]), _times([w.s for w in windows])
            told = f"kernel {kernel} at stride {stride} writes positions {low} to {high} times an axis"
            found.setdefault(told, []).append(step.name)
    return [
        f"{_listed(names)}: {told}, which shows as a checkerboard; let the stride divide the kernel"
        for told, names in found.items()
    ]


def _unread_borders(evidence: Evidence) -> list[str]:
    """Windows that leave the end of their input unread."""
    unread = []
    for step in evidence.record.steps:
        windows = [window for window in step.windows if isinstance(window, Window) and not window.ceil]
        sizes = step.applied.x[2:]
        lost = [
            (size + sum(w.padding(size)) - span(w.k, w.d)) % w.s - w.padding(size)[1] if span(w.k, w.d) >= w.s else 0
            for size, w in zip(sizes, windows, strict=False)
        ]
        if max(lost, default=0) > 0:
            unread.append((step.name, max(lost), sizes))
    if not unread:
        return []
    name, lost_most, sizes = unread[0]
    more = f" (and {len(unread) - 1} more like it)" if len(unread) > 1 else ""
    last = "position" if lost_most == 1 else f"{lost_most} positions"
    return [f"{name} never reads the last {last} of {_times(sizes)}{more}"]


def _failing_sizes(evidence: Evidence) -> list[str]:
    """Sizes larger by one at which the network fails, and the layer that does."""
    shapes = evidence.record.inputs
    graphs = follow_axes(evidence.record, evidence.fields) if len(shapes) == 1 else None
    for axis, found in enumerate(graphs or ()):
        odd = evidence.image[axis] + 1
        try:
            sizes = solve_inputs(found.graph).sizes
            found.graph.sizes(odd)
        except ShapeError as error:
            beside = [*shapes[0]]
            beside[2 + axis] = odd
            told = re.match(r"layer \d+ \((.*)\), input size \d+: (.*?)\. ", f"{error} ")
            # The network itself has the last word: some pad what does not fit.
            if told and evidence.accepts([tuple(beside)]) is None:
                where = f"an input of {odd} along axis {axis} fails at {told[1]}"
                return [f"{where}: {told[2]}; what works: {say_sizes(sizes)}"]
        except ConvoxelError:
            continue
    return []


def _bound_by_memory(evidence: Evidence) -> list[str]:
    """Layers that need longer to move their bytes than to compute."""
    working = [row for row in evidence.rows if row.macs]
    bound = [row for row in working if row.intensity < evidence.balance]
    if not bound:
        return []
    macs, moved = sum(row.macs for row in working), sum(row.moved_bytes for row in working)
    share = 100 * sum(row.macs for row in bound) / macs
    bytes_share = 100 * sum(row.moved_bytes for row in bound) / moved
    return [
        f"{_listed([row.name for row in bound])} {'is' if len(bound) == 1 else 'are'} bound by memory "
        f"(below the {evidence.balance:.0f} FLOPs a byte of this machine): {_percent(share)} of the MACs, "
        f"{_percent(bytes_share)} of the bytes"
    ]


_CHECKS: tuple[Callable[[Evidence], list[str]], ...] = (
    _fields_too_small, _saturated_layers, _uneven_overlap, _failing_sizes, _unread_borders, _bound_by_memory
)  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _percent(share: float) -> str:
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
