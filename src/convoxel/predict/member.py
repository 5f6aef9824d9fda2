"""The networks of an ensemble: what each needs for its tiles, which of them share a pass over an image.

An ensemble of one is an ordinary network. Members agree on what they tell (task, classes) and on what they see
(channels, axes); geometry, normalisation and patch are each one's own. Those that have these in common read and prepare
a tile once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.geometry import Place
from convoxel.errors import ConfigError
from convoxel.files.file_array import FileArray
from convoxel.predict.exact_tiles import ExactTiles
from convoxel.predict.mirror import axis_words
from convoxel.predict.network_call import Array, Call
from convoxel.predict.tile_size import InputSizes, plan_tile
from convoxel.predict.trained_run import AnyRun


class MemberFacts(TypedDict):
    """A network of an ensemble: name of its run, step of its checkpoint, axes along which images are mirrored."""

    run: str
    step: int
    mirrored: list[str]


class Stage(Protocol):
    """The predictor of the stage before, in a cascade."""

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the bits of its label map beside the image."""

    def label_map(self, sample: Sample) -> NDArray[np.uint8] | FileArray:
        """Return the label map (*spatial) of an image as stored."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        run: the trained network and the facts of its data.
        call: normalised tiles (n, channels, *tile) float32 → logits, over all mirrored copies; NumPy both ways.
        sizes: the sizes of tiles that the network takes.
        overlap: least share of a tile that its neighbour covers too.
        mirrored: axes of the network's grid along which ``call`` mirrors its tiles.
        exact: tiles whose label maps are bit for bit those of whole images, in place of tiles that are blended.
        name: name of the run's folder; empty for a network without one.
        previous: predictor of the stage before, whose label map the network sees too.
    """

    run: AnyRun
    call: Call
    sizes: InputSizes
    overlap: float
    mirrored: tuple[int, ...] = ()
    exact: ExactTiles | None = None
    name: str = ""
    previous: Stage | None = None

    @property
    def pass_key(self) -> object:
        """The choices that two members must have in common to read the same tiles."""
        data, config = self.run.data, self.run.config
        rule = config.prediction
        return (
            data.rule,
            data.normalisation,
            config.patch,
            (rule.tile, rule.tile_mean, rule.blend, rule.returned, rule.within, rule.padding, rule.previous_map),
            self.sizes,
            self.overlap,
            id(self.previous),
        )

    @property
    def facts(self) -> MemberFacts:
        """Name, step and mirrored axes of the member, as people are told them."""
        return {"run": self.name, "step": self.run.step, "mirrored": axis_words(self.mirrored, self.run)}

    def tile(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the network's input for tiles of an image of ``size``."""
        patch = self.run.config.patch or tuple(size)
        return patch if self.run.config.prediction.tile == "patch" else plan_tile(size, patch, self.sizes)


def group_members(members: Sequence[Member]) -> list[tuple[Member, ...]]:
    """Return the members in groups that share a pass over an image, in order."""
    groups: dict[object, list[Member]] = {}
    for member in members:
        groups.setdefault(member.pass_key, []).append(member)
    return [tuple(group) for group in groups.values()]


def check_members(runs: Mapping[str, AnyRun]) -> None:
    """Raise ConfigError where runs do not tell and see the same; the message names two of them."""
    (named, first), *others = runs.items()
    for name, run in others:
        for noun, have, want in (
            ("task", run.config.task, first.config.task),
            ("number of axes", run.data.dims, first.data.dims),
            ("number of channels", run.data.channels, first.data.channels),
            ("classes", ", ".join(run.data.classes), ", ".join(first.data.classes)),
            ("classes an image", *(("one", "any")[each.data.multi_label] for each in (run, first))),
            ("regions", run.data.regions, first.data.regions),
            ("prediction.mean", run.config.prediction.mean, first.config.prediction.mean),
            ("prediction.tile_mean", run.config.prediction.tile_mean, first.config.prediction.tile_mean),
            ("prediction.largest", run.config.prediction.largest, first.config.prediction.largest),
        ):
            if have != want:
                raise ConfigError(
                    f"run: {name} has {noun} {have}, and {named} has {want}; expected members of an ensemble that "
                    "agree. Predict with each of them alone."
                )


def common_slabs(
    streams: Sequence[Iterable[tuple[Place, Array]]], axis: int, backwards: bool
) -> Iterator[tuple[Place, list[Array]]]:
    """Yield (part, the scores of every stream there) along one axis, cut wherever a slab of any stream ends.

    Args:
        streams: each yields (part, scores (classes, *part)) that cover the same image along ``axis``, in one direction.
        axis: number of that axis.
        backwards: whether slabs come from the end of the axis to its beginning.
    """
    if len(streams) == 1:
        yield from ((part, [slab]) for part, slab in streams[0])
        return
    ways = [iter(stream) for stream in streams]
    held: list[tuple[Place, Array] | None] = [None] * len(ways)
    while True:
        for index, way in enumerate(ways):
            held[index] = held[index] or next(way, None)
        found = [each for each in held if each is not None]
        if len(found) < len(ways):  # all end together, since they cover the same image
            assert not found
            return
        count = min(part[axis].stop - part[axis].start for part, _ in found)
        pieces = [_split(part, slab, axis, count, backwards) for part, slab in found]
        assert len({(place[axis].start, place[axis].stop) for (place, _), _ in pieces}) == 1
        yield pieces[0][0][0], [slab for (_, slab), _ in pieces]
        held = [rest for _, rest in pieces]


def _split(
    part: Place, slab: Array, axis: int, count: int, backwards: bool
) -> tuple[tuple[Place, Array], tuple[Place, Array] | None]:
    """Return the first ``count`` slices of a slab in its direction, and what remains, as views."""
    first, stop = part[axis].start, part[axis].stop
    cut = stop - count if backwards else first + count

    def between(low: int, high: int) -> tuple[Place, Array]:
        place = (*part[:axis], slice(low, high), *part[axis + 1 :])
        inside = (*((slice(None),) * (axis + 1)), slice(low - first, high - first))
        return place, slab[inside]

    taken, rest = (first, cut), (cut, stop)
    if backwards:
        taken, rest = (cut, stop), (first, cut)
    return between(*taken), between(*rest) if count < stop - first else None
