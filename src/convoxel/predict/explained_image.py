"""An image as the network of a run sees it, the part of it that a target needs, and the way back to its own grid.

A part is exact where it holds all that the target reads: the receptive field of the output says which inputs those are,
and the part begins and ends where every layer keeps its phase. What lies outside has no influence at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.geometry import Placement
from convoxel.errors import ConvoxelError
from convoxel.fork import cached_property
from convoxel.inspect.feature_map import FeatureMap, alignment, feature_maps
from convoxel.inspect.receptive_field import TensorField, trace_fields
from convoxel.inspect.record import Record, open_source
from convoxel.predict.network_call import resize
from convoxel.predict.normalisation import Statistics
from convoxel.predict.sliding_window import cut
from convoxel.predict.tile_size import InputSizes, plan_patch, plan_tile
from convoxel.predict.torch_network import input_sizes
from convoxel.predict.trained_run import AnyRun

Array = NDArray[np.float32]
Span = tuple[int, int]


class Part(NamedTuple):
    """A box of the network's input: its first place, its size, and whether it holds all that the target reads."""

    start: tuple[int, ...]
    size: tuple[int, ...]
    exact: bool = True


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """An image on the way between its own grid and the input of a run's network.

    The input of a segmentation is the image on the run's grid, padded to a size that the network takes; that of a
    classification or regression has the size of training.

    Attributes:
        run: the trained network and the facts of its data.
        sample: the image as stored.
        placement: way between its own grid and the run's.
        image: (channels, *spatial) on the run's grid, and of the size of training where the run segments nothing.
        statistics: of its intensities.
    """

    run: AnyRun
    sample: Sample
    placement: Placement
    image: Array
    statistics: Statistics

    @classmethod
    def of(cls, run: AnyRun, sample: Sample) -> ExplainedImage:
        """Return an image as stored, on its way."""
        placement = run.data.rule.place_sample(sample)
        image, statistics = run.data.prepare(sample, placement)
        if run.config.task != "segment":
            image = resize(image, run.config.patch or image.shape[1:])
        return cls(run, sample, placement, image, statistics)

    @property
    def segments(self) -> bool:
        """True if the network of the run returns a class for each voxel."""
        return self.run.config.task == "segment"

    @cached_property
    def sizes(self) -> InputSizes:
        """The sizes that the network takes."""
        return input_sizes(self.run.network) if self.segments else InputSizes()

    @cached_property
    def input_size(self) -> tuple[int, ...]:
        """Size of the input that covers the whole image."""
        return plan_patch(self.sizes.around(self.image.shape[1:]), self.sizes)

    @cached_property
    def before(self) -> tuple[int, ...]:
        """Places of the input before the image's first, along each axis."""
        inner, size = self.sizes.inner(self.input_size), self.image.shape[1:]
        edges = self.sizes.border or (0,) * len(size)
        return tuple((a - b) // 2 + edge for a, b, edge in zip(inner, size, edges, strict=True))

    @cached_property
    def most(self) -> int:
        """Voxels of the largest input of one pass: those of a tile of prediction."""
        size = self.image.shape[1:]
        return math.prod(plan_tile(size, self.run.config.patch or size, self.sizes)) if self.segments else 1 << 62

    def record(self, size: Sequence[int]) -> tuple[Record, dict[str, TensorField]] | None:
        """Return the network as it computes an input of ``size``, with receptive fields; None if it cannot be read."""
        try:
            found = open_source(self.run.network).record([(1, self.run.data.channels, *size)])
            return found, trace_fields(found)[0]
        except ConvoxelError:
            return None

    @cached_property
    def whole_record(self) -> tuple[Record, dict[str, TensorField]] | None:
        """The network as it computes the whole image."""
        return self.record(self.input_size)

    def map_of(self, layer: str, size: Sequence[int]) -> FeatureMap | None:
        """Return the exact receptive fields of a layer ("": of the network) for an input of ``size``, where known."""
        found = self.whole_record if tuple(size) == self.input_size else self.record(size)
        return None if found is None else next(feature_maps(*found, layer or None), None)

    def cut(self, part: Part) -> Array:
        """Return a part of the input, normalised: (1, channels, *size)."""
        places = [start - before for start, before in zip(part.start, self.before, strict=True)]
        values = cut(self.image, places, part.size, self.statistics.floor)
        return self.statistics.normalise(values)[None]

    def whole(self) -> Part:
        """Return the whole input."""
        return Part((0,) * len(self.input_size), self.input_size)

    def plan(self, box: Sequence[Span] | None, centre: Sequence[int], *, wide: bool = False) -> Part:
        """Return the part of the input in which a target is computed.

        Args:
            box: first and last input that the target reads along each axis; None where that is not known.
            centre: input around which a part lies that cannot hold all.
            wide: whether as much of the input is wanted as fits one pass (default False).
        """
        if not self.segments or (wide and math.prod(self.input_size) <= self.most):
            return self.whole()
        exact = self._around(box) if box is not None else self.whole()
        if math.prod(exact.size) <= self.most:
            return self._grown(exact) if wide else exact
        patch = self.run.config.patch or self.image.shape[1:]
        side = plan_tile(self.image.shape[1:], patch, self.sizes)
        steps = self.steps or (1,) * len(side)
        starts = []
        for middle, wide_side, total, step in zip(centre, side, self.input_size, steps, strict=True):
            start = min(max(middle - wide_side // 2, 0), max(total - wide_side, 0))
            starts.append(start // step * step)
        return Part(tuple(starts), tuple(min(a, b) for a, b in zip(side, self.input_size, strict=True)), False)

    @cached_property
    def steps(self) -> tuple[int, ...] | None:
        """Inputs by which a part may begin later along each axis so that every layer keeps its phase; None if none."""
        if self.whole_record is None:
            return None
        steps = alignment(self.whole_record[1], len(self.input_size))
        return steps and tuple(math.lcm(step, self.sizes.of(axis)[1]) for axis, step in enumerate(steps))

    def reads(self, layer: str, box: Sequence[Span]) -> tuple[Span, ...] | None:
        """Return the inputs that a box of a layer's positions ("": of the network's) reads; None where unknown, or all.

        Positions are those of the whole input's map.
        """
        seen = self.map_of(layer, self.input_size)
        if seen is None or seen.whole or self.steps is None:
            return None
        ends = []
        for field, (low, high), total in zip(seen.fields, box, self.input_size, strict=True):
            # The field of a later position neither begins nor ends earlier, but for the phases of one period.
            near = {*range(low, min(low + field.period, high + 1)), *range(max(low, high - field.period + 1), high + 1)}
            found = [span for position in near if (span := field.at(position))]
            if not found:
                return None
            ends.append((max(min(a for a, _ in found), 0), min(max(b for _, b in found), total - 1)))
        return tuple(ends)

    def _around(self, box: Sequence[Span]) -> Part:
        """Return the smallest part that holds ``box`` and keeps the phase of every layer."""
        starts, stops = [], []
        for axis, ((low, high), total, step) in enumerate(zip(box, self.input_size, self.steps or (), strict=True)):
            start, stop = low // step * step, total - (total - high - 1) // step * step
            while stop - start < min(self.sizes.of(axis)[0], total):
                start, stop = max(start - step, 0), min(stop + step, total)
            starts.append(start)
            stops.append(stop)
        return Part(tuple(starts), tuple(b - a for a, b in zip(starts, stops, strict=True)))

    def _grown(self, part: Part) -> Part:
        """Return a part that holds another, as much of the input as fits one pass, about as much on every side."""
        starts, stops = list(part.start), [start + side for start, side in zip(part.start, part.size, strict=True)]
        grows = True
        while grows:
            grows = False
            for axis, (step, total) in enumerate(zip(self.steps or (), self.input_size, strict=True)):
                sides = [stop - start for start, stop in zip(starts, stops, strict=True)]
                sides[axis] += step
                if math.prod(sides) > self.most:
                    continue
                # Towards the side that is nearer, as long as the input reaches.
                before, behind = part.start[axis] - starts[axis], stops[axis] - part.start[axis] - part.size[axis]
                if starts[axis] >= step and (before <= behind or stops[axis] + step > total):
                    starts[axis], grows = starts[axis] - step, True
                elif stops[axis] + step <= total:
                    stops[axis], grows = stops[axis] + step, True
        return Part(tuple(starts), tuple(b - a for a, b in zip(starts, stops, strict=True)))

    # The way between the image's own grid and the input.

    def inwards(self, box: Sequence[Span]) -> tuple[Span, ...]:
        """Return the first and last place of the input for a box of the own grid, in places of the image.

        A box holds the places whose middle lies in it, or the one that is nearest to its own.
        """
        found = []
        place = self.placement
        for own, back, sampling, side in zip(
            place.axes, place.reversed, place.samplings, self.image.shape[1:], strict=True
        ):
            ends = [sampling.size - 1 - end if back else end for end in box[own]]
            edges = [min(ends) - 0.5, max(ends) + 0.5]
            first, ratio = float(sampling.positions[0]), side / sampling.count
            edges = [((edge - first) / sampling.step + 0.5) * ratio - 0.5 for edge in edges]
            low, high = math.ceil(edges[0] - 1e-9), math.ceil(edges[1] - 1e-9) - 1
            if low > high or box[own][0] == box[own][1]:
                low = high = round(sum(edges) / 2)
            found.append((min(max(low, 0), side - 1), min(max(high, 0), side - 1)))
        return tuple(found)

    def outwards(self, box: Sequence[Span]) -> tuple[tuple[float, float], ...]:
        """Return the edges, on the own grid, of a box of places of the image; a place reaches half to each side."""
        place, found = self.placement, [(0.0, 0.0)] * len(box)
        for axis, (own, back, sampling, side) in enumerate(
            zip(place.axes, place.reversed, place.samplings, self.image.shape[1:], strict=True)
        ):
            ratio = sampling.count / side
            ends = [(edge + 0.5) * ratio - 0.5 for edge in (box[axis][0] - 0.5, box[axis][1] + 0.5)]
            turned = [float(sampling.positions[0]) + end * sampling.step for end in ends]
            turned = [sampling.size - 1 - end for end in turned] if back else turned
            found[own] = (min(turned), max(turned))
        return tuple(found)

    def spread(self, part: Part, values: Array) -> Array:
        """Return a map of a part of the input as one of the whole image, on its own grid; 0 outside the part."""
        size: tuple[int, ...] = self.image.shape[1:]
        whole = np.zeros(size, np.float32)
        inside, taken = [], []
        for start, count, before, side in zip(part.start, part.size, self.before, size, strict=True):
            low, high = max(start - before, 0), min(start + count - before, side)
            inside.append(slice(low, high))
            taken.append(slice(low + before - start, high + before - start))
        whole[tuple(inside)] = values[tuple(taken)]
        resized = resize(whole[None], self.placement.shape)
        result = np.empty(self.sample.image.shape[1:], np.float32)
        for place, slab in self.placement.slabs([(0, resized)]):
            result[place] = slab[0]
        return result
