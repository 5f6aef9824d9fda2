"""A trained network as a function of whole images: normalise, tile, blend; on our engine or PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.geometry import (
    Place,
    Placement,
    background_scores,
    extent,
    find_box,
    spacing_words,
    spread_scores,
    surround,
)
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import ConfigError
from convoxel.files.fault import fault
from convoxel.files.file_array import FileArray, new_array
from convoxel.graph.quantise import NOTE
from convoxel.graph.run.program import Program
from convoxel.graph.run.tiling import Arena, TilePlan
from convoxel.native.precision import check_precision
from convoxel.predict.class_shares import logits_of, shares_of
from convoxel.predict.clean_up import keep_largest
from convoxel.predict.compiled_network import compile_run
from convoxel.predict.device_word import check_device_word
from convoxel.predict.exact_tiles import ExactTiles
from convoxel.predict.member import Member, check_members, common_slabs, group_members
from convoxel.predict.mirror import mirrored_axes, mirrored_call
from convoxel.predict.network_call import Array, compiled_call, resize, shares_call
from convoxel.predict.normalisation import Statistics
from convoxel.predict.sliding_window import Fill, OnTile, Tiling, best_classes, blend_parts, blend_slabs
from convoxel.predict.stage_clock import stage, staged
from convoxel.predict.trained_run import AnyRun, DataFacts

if TYPE_CHECKING:
    from convoxel.predict.computation import Computation

#: An image (channels, *spatial) on the grid of each pass over it, and what normalises its tiles.
Prepared = Sequence[tuple[Array | MappedImage, Statistics]]


@dataclass(frozen=True)
class Predictor:
    """Classes of whole images from one network or an ensemble, which see tiles.

    Images come onto each network's grid by its run's geometry, and what is found returns to their own. There the scores
    of several members are averaged: the shares of classes or, where the runs say so, logits.

    Attributes:
        members: the networks, which agree on what they tell.
        engine: "convoxel" or "torch", which computes them.
        device: PyTorch's name of the device that computes (default "cpu").
        precision: digits of the products, as of :func:`convoxel.compile` (default "float32").
        thresholds: least probability of each class where an image may have several (default: ½).
    """

    members: tuple[Member, ...]
    engine: str
    device: str = "cpu"
    precision: str = "float32"
    thresholds: tuple[float, ...] | None = None

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the bits of a result beside the image, for JSON: results are kept under its hash."""
        members = [
            {
                "run": member.run.identity, "overlap": member.overlap, "mirrored": list(member.mirrored),
                **({} if member.previous is None else {"previous": member.previous.recipe}),
            }
            for member in self.members
        ]  # fmt: skip
        way = {"engine": self.engine, "device": self.device, "exact": self.exact is not None}
        digits = {} if self.precision == "float32" else {"precision": self.precision}
        levels = {} if self.thresholds is None else {"thresholds": self.thresholds}
        return {"members": members, **way, **digits, **levels}

    @property
    def run(self) -> AnyRun:
        """The first member's run, whose classes, task and numbers of axes and channels are those of all."""
        return self.members[0].run

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, class number = position."""
        return self.run.data.classes

    @property
    def exact(self) -> ExactTiles | None:
        """The first member's exact tiles; None where tiles are blended."""
        return self.members[0].exact

    @property
    def blends_shares(self) -> bool:
        """True where tiles give shares, and not logits."""
        return self.run.config.prediction.tile_mean == "shares" and self.run.config.task == "segment"

    @property
    def averages_shares(self) -> bool:
        """True where scores are means of shares, and not logits."""
        return self.blends_shares or (len(self.members) > 1 and self.run.config.prediction.mean == "shares")

    def slabs(self, sample: Sample) -> Iterator[tuple[Place, Array]]:
        """Yield (part of the image, logits (outputs, *part)) of an image as stored; the parts cover its own grid.

        Logits of an ensemble are those of which its shares come. A part may be overwritten once the next is asked for.
        """
        for part, scores in self.scores(sample):
            yield part, logits_of(scores, self.run.data.several) if self.averages_shares else scores

    def shares_of(self, scores: Array) -> Array:
        """Return the shares of the classes that scores (classes, *any) of :meth:`scores` mean."""
        return scores if self.averages_shares else shares_of(scores, self.run.data.several)

    def decide(self, scores: Array) -> NDArray[np.uint8]:
        """Return the values of label maps (*any) that scores (outputs, *any) of :meth:`scores` mean."""
        return self.run.data.decide(scores, 0.5 if self.averages_shares else 0.0)

    def prepare(self, sample: Sample) -> Prepared:
        """Return the image on the grid of each pass over it, which :meth:`scores` makes itself unless it is given.

        Chunks of files are unpacked here, once for all tiles and members.

        Raises:
            DataError: the image has another spacing than the run, and tiles are exact.
        """
        rule = self.run.data.rule
        with stage("prepare"):
            if isinstance(sample.image, MappedImage):
                sample = replace(sample, image=sample.image.unpacked())
            if self.exact is None:
                passes = [group[0].run.data for group in group_members(self.members)]
                return [data.prepare(sample, data.rule.place_sample(sample)) for data in passes]
            place = rule.place_sample(sample)
            if place.resamples:
                have, want = spacing_words(sample.spacing_mm), spacing_words(rule.spacing_mm)
                raise fault(
                    sample.source or sample.name,
                    f"the image has {have}, and exact tiles cannot be resampled to the run's spacing",
                    want,
                    "Leave exact out, or resample the image before",
                )
            return [member.run.data.prepare(sample, place) for member in self.members]

    def scores(
        self,
        sample: Sample,
        on_tile: OnTile | None = None,
        on_tiling: Callable[[TilePlan], None] | None = None,
        prepared: Prepared | None = None,
    ) -> Iterator[tuple[Place, Array]]:
        """Yield (part of the image, scores (classes, *part)): logits, or shares where these are averaged.

        A part may be overwritten once the next is asked for.

        Args:
            sample: an image as stored, whose own grid the parts cover.
            on_tile: called with the number of tiles done and of all.
            on_tiling: called with the plan of exact tiles.
            prepared: the image as :meth:`prepare` returns it (default: it is prepared now).

        Raises:
            DataError: the image has another spacing than the run, and tiles are exact.
        """
        if self.exact is None:
            return self._blended(sample, on_tile, prepared)
        return self._exact(sample, on_tile, on_tiling, prepared)

    def _blended(
        self, sample: Sample, on_tile: OnTile | None, prepared: Prepared | None
    ) -> Iterator[tuple[Place, Array]]:
        placed = [(group, group[0].run.data.rule.place_sample(sample)) for group in group_members(self.members)]
        (_, first), *others = placed
        axis, backwards = first.axes[0], first.reversed[0]
        for group, place in others:
            if (place.axes[0], place.reversed[0]) != (axis, backwards):
                raise fault(
                    sample.source or sample.name,
                    f"{self.members[0].name} and {group[0].name} see the image along different axes",
                    "members of an ensemble that turn it in the same way",
                    "Predict with each of them alone, or store the image with axes towards right, front and top",
                )
        whole = len(placed) > 1  # passes whose tiles differ meet slab by slab
        images = prepared or self.prepare(sample)
        images = [
            _with_previous(group[0], sample, place, *each) for (group, place), each in zip(placed, images, strict=True)
        ]
        streams = [
            _group_slabs(group, place, *images[number], whole, None if number else on_tile)
            for number, (group, place) in enumerate(placed)
        ]
        outputs = len(self.run.data.outputs)
        for part, slabs in common_slabs(streams, axis, backwards):
            found = [each for slab in slabs for each in np.split(slab, len(slab) // outputs)]
            yield part, self._mean(found, as_shares=self.averages_shares and not self.blends_shares)

    def _mean(self, found: Sequence[Array], *, as_shares: bool) -> Array:
        """Return the scores that the members' (classes, *any) or (n, classes) make together; logits ``as_shares``."""
        if len(found) == 1 and not as_shares:
            return found[0]
        several = self.run.data.several
        total: Array | None = None
        for each in found:
            scores = shares_of(each, several) if as_shares else each
            total = np.array(scores) if total is None else np.add(total, scores, out=total)
        assert total is not None
        total /= np.float32(len(found))
        return total

    def logits(self, sample: Sample) -> Array:
        """Return logits (outputs, *spatial) of an image, on its own grid."""
        result = np.empty((len(self.run.data.outputs), *sample.image.shape[1:]), np.float32)
        for part, slab in self.slabs(sample):
            place = (slice(None), *part)
            result[place] = slab
        return result

    def label_map(
        self,
        sample: Sample,
        on_tile: OnTile | None = None,
        on_tiling: Callable[[TilePlan], None] | None = None,
        prepared: Prepared | None = None,
    ) -> NDArray[np.uint8] | FileArray:
        """Return the class of each voxel, (*spatial) uint8, in a file where it is large; memory: that of some tiles.

        Arguments as of :meth:`scores`.

        Raises:
            DataError: the image has another spacing than the run, and tiles are exact.
        """
        result = new_map(sample)
        for part, scores in self.scores(sample, on_tile, on_tiling, prepared):
            result[part] = self.decide(scores)
        self.finish(result, sample)
        return result

    def finish(self, label: NDArray[np.uint8] | FileArray, sample: Sample) -> None:
        """Clean up a label map (*spatial) as the run says, in place."""
        for rule in self.run.config.prediction.largest:
            keep_largest(label, rule, sample)

    def _exact(
        self,
        sample: Sample,
        on_tile: OnTile | None,
        on_tiling: Callable[[TilePlan], None] | None,
        prepared: Prepared | None,
    ) -> Iterator[tuple[Place, Array]]:
        rule = self.run.data.rule
        place = rule.place_sample(sample)
        passes = []
        for member, (image, statistics) in zip(self.members, prepared or self.prepare(sample), strict=True):
            assert member.exact is not None
            passes.append(member.exact.plan(image, statistics))
            if passes[-1].grid != passes[0].grid or member.run.data.rule != rule:
                raise ConfigError(
                    f"exact: {member.name} needs other tiles than {self.members[0].name}; expected members of one "
                    "architecture and geometry. Leave exact out, or predict with each of them alone."
                )
        if on_tiling is not None:
            on_tiling(passes[0].tiling)
        arena = Arena()
        tiles = staged("network", zip(*(each.parts(arena) for each in passes), strict=True))
        for done, found in enumerate(tiles, start=1):
            box, logits = found[0][0], [each for _, each in found]
            if all(side.start < side.stop for side in box):
                yield place.own_box(box), place.turned_back(self._mean(logits, as_shares=self.averages_shares))
            if on_tile is not None:
                on_tile(done, passes[0].tiling.count)
        data = self.run.data
        for part in place.surroundings():
            logits = [spread_scores(background_scores(len(data.outputs), data.several), extent(part))]
            yield part, self._mean(logits * len(self.members), as_shares=self.averages_shares)

    def class_logits(self, samples: Sequence[Sample]) -> Array:
        """Return logits (n, classes) of images to classify, computed as one batch; as of :meth:`slabs`."""
        scores = self._mean([logits.T for logits in self._member_logits(samples)], as_shares=self.averages_shares)
        logits = logits_of(scores, self.run.data.several) if self.averages_shares else scores
        found: Array = logits.T
        return found

    def _member_logits(self, samples: Sequence[Sample]) -> Iterator[Array]:
        """Yield each member's (n, outputs) for whole images, resized to its patch."""
        for member in self.members:
            data = member.run.data
            images = [data.rule.sample(sample).image for sample in samples]
            size = member.run.config.patch or images[0].shape[1:]
            statistics = data.normalisation.statistics
            yield member.call(np.stack([resize(statistics(image).normalise(image), size) for image in images]))

    def values(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Return the predicted numbers (n, targets) of images to regress, computed as one batch: members' means."""
        found = []
        for member, logits in zip(self.members, self._member_logits(samples), strict=True):
            scale = member.run.data.targets
            assert scale is not None  # a run that regresses has one
            found.append(scale.restore(logits.astype(np.float64)))
        return np.asarray(np.mean(found, axis=0)) if len(found) > 1 else found[0]

    def shares(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Return the probability of each class (n, classes) of images to classify, computed as one batch.

        Probabilities of an image sum to one, unless it may have several classes.
        """
        logits = self.class_logits(samples).astype(np.float64)
        if self.run.data.several:
            return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def new_map(sample: Sample) -> NDArray[np.uint8] | FileArray:
    """Return zeros (*spatial) for a label map of an image, in a file where it is large."""
    shape = sample.image.shape[1:]
    return new_array(shape, np.uint8, range(len(shape))[::-1])  # as most volumes are stored


def _with_previous(
    member: Member, sample: Sample, place: Placement, image: Array | MappedImage, statistics: Statistics
) -> tuple[Array | MappedImage, Statistics]:
    """Return a prepared image with the label map of the stage before as further channels, where there is one."""
    if member.previous is None:
        return image, statistics
    data = member.run.data
    squeezed = member.run.config.prediction.previous_map == "squeezed"
    masks = place.masks(np.asarray(member.previous.label_map(sample)), data.previous_values, squeezed)
    whole = np.concatenate([image[(slice(None),) * image.ndim], masks])
    return whole, data.normalisation.statistics(whole)


def _group_slabs(
    group: Sequence[Member],
    place: Placement,
    image: Array | MappedImage,
    statistics: Statistics,
    whole: bool,
    on_tile: OnTile | None,
) -> Iterator[tuple[Place, Array]]:
    """Yield (part of the image, logits (members · classes, *part)) of members that read the same tiles.

    Parts are slabs, which follow each other along the first axis of the network's grid, where ``whole`` says so.
    """
    first = group[0]

    def call(tiles: Array) -> Array:
        images = np.stack([statistics.normalise(tile) for tile in tiles])
        with stage("network"):
            found = [member.call(images) for member in group]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    data, rule = first.run.data, first.run.config.prediction
    size, inside = image.shape[1:], find_box(image, positive=True) if rule.within == "positive" else None
    if inside is not None:
        part = (slice(None), *(slice(*ends) for ends in inside))
        image = image[part]
    tile, blend = first.tile(image.shape[1:]), rule.blend
    fill: Fill = "edge" if rule.padding == "replicate" else statistics.floor
    tiling = Tiling(first.sizes.inner(tile), first.overlap, 1, fill, first.sizes.border, blend)
    background = background_scores(len(data.outputs), data.several)
    if rule.tile_mean == "shares":
        background = shares_of(background, data.several)
    beyond = np.tile(background, len(group))
    if whole or place.resamples or inside is not None:
        slabs: Iterable[tuple[int, Array]] = blend_slabs(call, image, tiling, on_tile)
        way = _Return(rule.returned, data, len(group)) if place.resamples and rule.returned != "logits" else None
        if way is not None:
            slabs = ((start, way.leave(slab)) for start, slab in slabs)
            beyond = np.zeros(len(beyond), np.float32)  # as MONAI pads
        if inside is not None:
            slabs = surround(slabs, inside, size, beyond)
        found = place.slabs(slabs, beyond if whole else None, nearest=rule.returned == "labels")
        yield from found if way is None else ((own, way.arrive(scores)) for own, scores in found)
    else:
        for box, logits in blend_parts(call, image, tiling, on_tile):
            yield place.own_box(box), place.turned_back(logits)
    if not whole:
        for rest in place.surroundings():
            yield rest, spread_scores(beyond, extent(rest))


@dataclass(frozen=True)
class _Return:
    """The way of logits from the network's grid to the image's own, where they do not travel as logits.

    Attributes:
        form: "shares" or "labels".
        data: facts of the data.
        members: number of networks, whose logits (members · classes, *any) go together.
    """

    form: str
    data: DataFacts
    members: int

    def leave(self, logits: Array) -> Array:
        """Return what is interpolated."""
        return np.concatenate([self._form(each) for each in np.split(logits, self.members)])

    def arrive(self, found: Array) -> Array:
        """Return logits of what was interpolated."""
        return logits_of(found, self.data.several)

    def _form(self, logits: Array) -> Array:
        if self.form == "shares":
            return shares_of(logits, self.data.several)
        if self.data.several:
            return np.asarray(logits > 0, np.float32)
        numbers = np.arange(len(logits)).reshape(-1, *(1 for _ in logits.shape[1:]))
        return np.asarray(best_classes(logits) == numbers, np.float32)


def check_engine(engine: str, precision: str | None = None) -> None:
    """Raise ConfigError unless ``engine`` is "convoxel" or "torch", and has such a ``precision``."""
    if engine not in ("convoxel", "torch"):
        raise ConfigError(f"engine: got {engine!r}; expected 'convoxel' or 'torch'.")
    if precision not in (None, "int8"):
        check_precision(precision)
    if precision not in (None, "float32") and engine == "torch":
        raise ConfigError(
            f"precision: got {precision!r}, but engine='torch' computes in float32 here; use engine='convoxel'."
        )


def place_run(run: AnyRun, engine: str, device: str = "auto") -> Computation | None:
    """Move a run's network to where an engine computes it, and return how PyTorch does; None for our engine.

    Args:
        run: trained network.
        engine: "torch" or "convoxel"; the latter computes on the CPU.
        device: a word of :func:`convoxel.predict.device.choose_device` (default "auto").

    Raises:
        ConfigError: the engine is unknown, or the device is none, not here, or not for this engine.
    """
    check_engine(engine)
    check_device_word(device)
    if engine == "convoxel":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device: got {device!r}, but engine='convoxel' computes on the CPU; use engine='torch'.")
        return None
    from convoxel.predict.computation import Computation
    from convoxel.predict.device import choose_device

    where = choose_device(device)
    # In float32 the fastest kernels of GPUs have channels first.
    computation = Computation(where, channels_last=where.type == "cpu")
    computation.arrange(run.network, run.data.dims)
    return computation


def build_predictor(
    run: AnyRun,
    *,
    engine: str = "torch",
    precision: str | None = None,
    computation: Computation | None = None,
    overlap: float | None = None,
    mirror: str | Sequence[int] | None = None,
    exact: bool = False,
    tile: int | Sequence[int] | None = None,
    previous: Predictor | None = None,
) -> Predictor:
    """Return the predictor of a trained network.

    Args:
        run: trained network with its configuration and the facts of its data.
        engine: "torch", or "convoxel" (compiled for our CPU engine) (default "torch").
        precision: digits of the products of our engine, as of :func:`convoxel.compile` (default: PyTorch's setting);
            "int8" takes the program that ``convoxel quantise`` kept with the run.
        computation: how PyTorch computes the network, which is where it says (default: on the CPU, in float32).
        overlap: least share of a tile that its neighbour covers too (default: the configuration's).
        mirror: axes along which images are mirrored, as of :func:`convoxel.predict.mirror.mirrored_axes` (default: the
            configuration's, which is none unless somebody stated it).
        exact: compute label maps that are bit for bit those of whole images, on tiles that blend nothing; only our
            engine can (default False).
        tile: size of such a tile, its halo included (default: what takes about a gigabyte).
        previous: predictor of the stage before, in a cascade.

    Raises:
        ConfigError: the engine is unknown; a stage before is missing; ``exact`` with PyTorch, a classifier or
            ``mirror``; ``tile`` without ``exact``; ``mirror`` names no axis.
    """
    check_engine(engine, precision)
    axes = mirrored_axes(mirror, run)
    _check_exact(run, engine, exact, tile, axes)
    if run.data.previous_values and previous is None:
        raise ConfigError("run: the network sees the label map of a stage before; predict with its run folder.")
    tiles, used = None, "float32"
    if engine == "torch":
        from convoxel.predict.torch_network import input_sizes, torch_call

        call, sizes = torch_call(run.network, computation), input_sizes(run.network)
    else:
        found = compile_run(run, precision)
        program, sizes = found.program, found.sizes
        call, used = compiled_call(program), _precision_of(program)
        tiles = ExactTiles(program, sizes, tile) if exact else None
    if run.config.prediction.tile_mean == "shares" and run.config.task == "segment":
        call = shares_call(call, run.data.several)
    device = "cpu" if computation is None else str(computation.device)
    share = run.config.overlap if overlap is None else overlap
    member = Member(run, mirrored_call(call, axes), sizes, share, axes, tiles, previous=previous)
    return Predictor((member,), engine, device, used)


def _precision_of(program: Program) -> str:
    """Return the word for a program's numbers; of those quantised, each by its record, which decides the bits."""
    record = program.notes.get(NOTE)
    return program.precision if record is None else f"int8 {hashlib.sha256(record.encode()).hexdigest()[:12]}"


def join_predictors(predictors: Mapping[str, Predictor]) -> Predictor:
    """Return the ensemble of all members of predictors, which have the names of their runs.

    Raises:
        ConfigError: they do not agree on task, classes, axes or channels; the message names both.
    """
    check_members({name: each.run for name, each in predictors.items()})
    members = [replace(member, name=name) for name, each in predictors.items() for member in each.members]
    first = next(iter(predictors.values()))
    return replace(first, members=tuple(members))


def _check_exact(run: AnyRun, engine: str, exact: bool, tile: object, mirrored: Sequence[int]) -> None:
    if tile is not None and not exact:
        raise ConfigError(
            f"tile: got {tile!r} without exact; tiles that are blended have the size of training's patch."
        )
    if exact and (run.config.prediction.within != "all" or run.data.previous_values):
        raise ConfigError("exact: the run predicts a box of each image, or in two stages; leave exact out.")
    if exact and run.config.task != "segment":
        raise ConfigError("exact: the run classifies images, and a class sees the whole image; leave exact out.")
    if exact and engine != "convoxel":
        raise ConfigError("exact: PyTorch's sums depend on the size of a tile; use engine='convoxel'.")
    if exact and mirrored:
        raise ConfigError(
            f"exact: images are mirrored along axes {', '.join(map(str, mirrored))}, and tiles of a mirrored image lie "
            "elsewhere; leave exact out, or give mirror='none'."
        )
