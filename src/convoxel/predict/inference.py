"""A trained network as a function of whole images: normalise, tile, blend; on our engine or PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.geometry import Place, spacing_words
from convoxel.errors import ConfigError
from convoxel.files.fault import fault
from convoxel.graph.run.tiling import TilePlan
from convoxel.predict.computation import Computation
from convoxel.predict.device import check_device_word, choose_device
from convoxel.predict.exact_tiles import ExactTiles
from convoxel.predict.network_call import Array, Call, compiled, compiled_call, resize, torch_call
from convoxel.predict.sliding_window import Tiling, blend_slabs
from convoxel.predict.tile_size import InputSizes, input_sizes, plan_tile
from convoxel.predict.trained_run import AnyRun


@dataclass(frozen=True)
class Predictor:
    """Classes of whole images from a network that sees tiles.

    Images come onto the network's grid by the run's geometry, and what is found returns to their own.

    Attributes:
        run: the trained network and the facts of its data.
        call: normalised tiles (n, channels, *tile) float32 → logits; NumPy both ways.
        sizes: the sizes of tiles that the network takes.
        overlap: least share of a tile that its neighbour covers too.
        engine: "convoxel" or "torch", which computes ``call``.
        exact: tiles whose label maps are bit for bit those of whole images, in place of tiles that are blended.
        device: PyTorch's name of the device that computes (default "cpu").
    """

    run: AnyRun
    call: Call
    sizes: InputSizes
    overlap: float
    engine: str
    exact: ExactTiles | None = None
    device: str = "cpu"

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the bits of a result beside the image, for JSON: results are kept under its hash."""
        way = {"engine": self.engine, "device": self.device, "overlap": self.overlap, "exact": self.exact is not None}
        return {"run": self.run.identity, **way}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, class number = position."""
        return self.run.data.classes

    def slabs(self, sample: Sample) -> Iterator[tuple[Place, Array]]:
        """Yield (part of the image, logits (classes, *part)) of an image as stored; the parts cover its own grid."""
        rule = self.run.data.rule
        place = rule.place_sample(sample)
        image = rule.image(sample, place)
        statistics = self.run.data.normalisation.statistics(image)

        def call(tiles: Array) -> Array:
            return self.call(np.stack([statistics.normalise(tile) for tile in tiles]))

        size = image.shape[1:]
        tile = plan_tile(size, self.run.config.patch or size, self.sizes)
        tiling = Tiling(self.sizes.inner(tile), self.overlap, fill=statistics.floor, border=self.sizes.border)
        return place.slabs(blend_slabs(call, image, tiling))

    def logits(self, sample: Sample) -> Array:
        """Return logits (classes, *spatial) of an image, on its own grid."""
        result = np.empty((len(self.classes), *sample.image.shape[1:]), np.float32)
        for part, slab in self.slabs(sample):
            place = (slice(None), *part)
            result[place] = slab
        return result

    def label_map(
        self,
        sample: Sample,
        on_tile: Callable[[int, int], None] | None = None,
        on_tiling: Callable[[TilePlan], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Return the class of each voxel, (*spatial) uint8; memory: one layer of tiles and the map.

        Of exact tiles, ``on_tiling`` is called with the plan, and ``on_tile`` with the number of those done and of all.

        Raises:
            DataError: the image has another spacing than the run, and tiles are exact.
        """
        if self.exact is not None:
            return self._exact_map(self.exact, sample, on_tile, on_tiling)
        result = np.empty(sample.image.shape[1:], np.uint8)
        for part, slab in self.slabs(sample):
            result[part] = slab.argmax(axis=0)
        return result

    def _exact_map(
        self,
        tiles: ExactTiles,
        sample: Sample,
        on_tile: Callable[[int, int], None] | None,
        on_tiling: Callable[[TilePlan], None] | None,
    ) -> NDArray[np.uint8]:
        rule = self.run.data.rule
        place = rule.place_sample(sample)
        if place.resamples:
            have, want = spacing_words(sample.spacing_mm), spacing_words(rule.spacing_mm)
            raise fault(
                sample.source or sample.name,
                f"the image has {have}, and exact tiles cannot be resampled to the run's spacing",
                want,
                "Leave exact out, or resample the image before",
            )
        image = place.image(sample.image)
        found = tiles.label_map(image, self.run.data.normalisation.statistics(image), on_tile, on_tiling)
        return np.ascontiguousarray(place.turned_back(found))

    def class_logits(self, samples: Sequence[Sample]) -> Array:
        """Return logits (n, classes) of images to classify, computed as one batch."""
        images = [self.run.data.rule.sample(sample).image for sample in samples]
        size = self.run.config.patch or images[0].shape[1:]
        statistics = self.run.data.normalisation.statistics
        return self.call(np.stack([resize(statistics(image).normalise(image), size) for image in images]))

    def values(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Return the predicted numbers (n, targets) of images to regress, computed as one batch."""
        scale = self.run.data.targets
        assert scale is not None  # a run that regresses has one
        return scale.restore(self.class_logits(samples).astype(np.float64))

    def shares(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Return the probability of each class (n, classes) of images to classify, computed as one batch.

        Probabilities of an image sum to one, unless it may have several classes.
        """
        logits = self.class_logits(samples).astype(np.float64)
        if self.run.data.multi_label:
            return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def check_engine(engine: str) -> None:
    """Raise ConfigError unless ``engine`` is "convoxel" or "torch"."""
    if engine not in ("convoxel", "torch"):
        raise ConfigError(f"engine: got {engine!r}; expected 'convoxel' or 'torch'.")


def place_run(run: AnyRun, engine: str, device: str = "auto") -> Computation:
    """Move a run's network to where an engine computes it, and return how PyTorch does.

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
        return Computation()
    where = choose_device(device)
    # In float32 the fastest kernels of GPUs have channels first.
    computation = Computation(where, channels_last=where.type == "cpu")
    computation.arrange(run.network, run.data.dims)
    return computation


def build_predictor(
    run: AnyRun,
    *,
    engine: str = "torch",
    computation: Computation | None = None,
    overlap: float | None = None,
    exact: bool = False,
    tile: int | Sequence[int] | None = None,
) -> Predictor:
    """Return the predictor of a trained network.

    Args:
        run: trained network with its configuration and the facts of its data.
        engine: "torch", or "convoxel" (compiled for our CPU engine) (default "torch").
        computation: how PyTorch computes the network, which is where it says (default: on the CPU, in float32).
        overlap: least share of a tile that its neighbour covers too (default: the configuration's).
        exact: compute label maps that are bit for bit those of whole images, on tiles that blend nothing; only our
            engine can (default False).
        tile: size of such a tile, its halo included (default: what takes about a gigabyte).

    Raises:
        ConfigError: the engine is unknown; ``exact`` with PyTorch or a classifier; ``tile`` without ``exact``.
    """
    check_engine(engine)
    _check_exact(run, engine, exact, tile)
    sizes = input_sizes(run.network)
    tiles = None
    if engine == "torch":
        call = torch_call(run.network, computation)
    else:
        size = run.config.patch or (sizes.least + 3 * sizes.multiple,) * run.data.dims
        program = compiled(run.network, (1, run.data.channels, *size))
        call = compiled_call(program)
        tiles = ExactTiles(program, sizes, tile) if exact else None
    device = "cpu" if computation is None else str(computation.device)
    return Predictor(run, call, sizes, run.config.overlap if overlap is None else overlap, engine, tiles, device)


def _check_exact(run: AnyRun, engine: str, exact: bool, tile: object) -> None:
    if tile is not None and not exact:
        raise ConfigError(
            f"tile: got {tile!r} without exact; tiles that are blended have the size of training's patch."
        )
    if exact and run.config.task != "segment":
        raise ConfigError("exact: the run classifies images, and a class sees the whole image; leave exact out.")
    if exact and engine != "convoxel":
        raise ConfigError("exact: PyTorch's sums depend on the size of a tile; use engine='convoxel'.")
