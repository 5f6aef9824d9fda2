"""Decides, once, whatever the user left unset: from the data, the task and the machine.

The result is a configuration without open questions about the run (:func:`plan_run`), which is stored
with the run, so a resumed run and a prediction never decide anew. Nothing here reads files or trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from convoxel import models
from convoxel.errors import ConfigError, ShapeError
from convoxel.train.config import TrainConfig
from convoxel.train.network import build_network

__all__ = ["Fit", "input_fit", "plan_patch", "plan_run", "plan_tile"]

# An image of at most _WHOLE_VOXELS is trained on whole (a cropped hippocampus has 40 × 56 × 40); larger ones
# in near-cubic patches of _PATCH_VOXELS, small enough that a batch holds several different places.
_WHOLE_VOXELS = {1: 16_384, 2: 256 * 256, 3: 96_000}
_PATCH_VOXELS = {1: 8_192, 2: 192 * 192, 3: 40 * 40 * 40}
# Four patches of 40³: with 16 channels a step of about a quarter of a second on two cores.
_BATCH_VOXELS = {1: 65_536, 2: 150_000, 3: 260_000}
# One tile of a prediction: larger than a patch because nothing is kept for a backward pass, and larger
# tiles overlap less. 96³ voxels × 48 float32 channels ≈ 170 MB at the widest place of a 16-wide U-Net.
_TILE_VOXELS = {1: 1 << 20, 2: 1024 * 1024, 3: 96 * 96 * 96}
_DEFAULT_MINUTES = 10.0
# Up to this many pixels an axis, a stem that quarters the image leaves too little for the stages after it.
_THUMBNAIL = 64


class Fit(NamedTuple):
    """The sizes that a network takes: ``least + n · multiple`` along each axis.

    Attributes:
        multiple, least: numbers of pixels, for every axis.
        border: pixels at each side of the input for which there is no output, by axis; empty: none.
    """

    multiple: int = 1
    least: int = 1
    border: tuple[int, ...] = ()

    def inner(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the output's size for an input of ``size``."""
        return tuple(side - 2 * edge for side, edge in zip(size, self.border or (0,) * len(size), strict=True))

    def around(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the input's size for an output of ``size``."""
        return tuple(side + 2 * edge for side, edge in zip(size, self.border or (0,) * len(size), strict=True))

    def above(self, side: int) -> int:
        """Return the smallest size of an axis that the network takes and that is not below ``side``."""
        return self.least + max(0, -(-(side - self.least) // self.multiple)) * self.multiple


def plan_run(config: TrainConfig, *, dims: int, channels: int, sizes: Sequence[Sequence[int]]) -> TrainConfig:
    """Return ``config`` with every unset entry decided.

    Args:
        config: what the user stated; stated entries are kept.
        dims: number of spatial axes of the images.
        channels: channels of the images.
        sizes: spatial sizes of the training images.

    Raises:
        ConfigError: a stated entry does not fit the data (rank of ``patch`` or ``flip_axes``, a patch
            that the network cannot halve often enough, a classifier told to use ``levels``).
    """
    segment = config.task == "segment"
    chosen = _plan_model(config, dims, sizes)
    chosen["patch"] = _plan_input(config, _sketch(config, chosen, dims, channels), channels, sizes)
    voxels = math.prod(chosen["patch"])
    if config.batch_size is None:
        batch = max(2, min(64, round(_BATCH_VOXELS[dims] / voxels))) if segment else 32
        chosen["batch_size"] = batch if segment else max(1, min(batch, len(sizes)))
    else:
        chosen["batch_size"] = config.batch_size
    if config.steps_per_epoch is None:
        # Volumes give many patches each; at least 32 steps keep the bookkeeping of an epoch cheap.
        steps = math.ceil(len(sizes) / chosen["batch_size"])
        chosen["steps_per_epoch"] = max(steps, 32) if segment else steps
    if config.minutes is None and config.epochs is None:
        chosen["minutes"] = _DEFAULT_MINUTES
    if config.validate_every is None and config.epochs is not None:
        chosen["validate_every"] = max(1, config.epochs // 25)
    chosen["learning_rate"] = config.learning_rate or _plan_learning_rate(config)
    # Scanners scale volumes differently; with a single volume there is nothing to level out, and its own
    # figures would shift with the cut (a slab of the back of a head has less air than one of the front).
    several = dims == 3 and segment and len(sizes) > 1
    chosen["normalise"] = config.normalise or ("sample" if several else "dataset")
    if config.flip_axes is None:
        chosen["flip_axes"] = _plan_flips(segment, dims, channels)
    elif config.flip_axes and max(config.flip_axes) >= dims:
        raise ConfigError(f"flip_axes: {config.flip_axes} given, but the images have axes 0 … {dims - 1}.")
    chosen["threads"] = config.threads or torch.get_num_threads()
    chosen["precision"] = config.precision or _plan_precision(dims)
    return TrainConfig.build(**{**config.to_dict(), **chosen})


def _plan_model(config: TrainConfig, dims: int, sizes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return name, levels, width and options of the network."""
    segment = config.task == "segment"
    name = config.model or ("unet" if segment else "course_vgg")
    known = models.entry(name).options
    chosen: dict[str, Any] = {"model": name}
    if name == "unet":
        chosen["levels"] = config.levels or _plan_levels(dims, sizes)
    elif "levels" in known:
        chosen["levels"] = config.levels or known["levels"]
    elif config.levels is not None:
        raise ConfigError(f"levels: {config.levels} given, but {name!r} has none; use model=unet.")
    if name == "unet":
        chosen["width"] = config.width or (16 if dims == 3 else 32)
    elif isinstance(known.get("width"), int):
        chosen["width"] = config.width or known["width"]
    elif "width" in known:
        # Weights from a file have the published width unless told.
        chosen["width"] = config.width or (1.0 if config.weights else _plan_width(sizes))
    small = max(_median(sizes)) <= _THUMBNAIL and config.weights is None
    if small and "stem" in known and "stem" not in config.model_options:
        chosen["model_options"] = {**config.model_options, "stem": "small"}
    return chosen


def _sketch(config: TrainConfig, chosen: dict[str, Any], dims: int, channels: int) -> Any:
    """The network without memory for weights: it knows which sizes fit."""
    with torch.device("meta"):
        return build_network(TrainConfig.build(**{**config.to_dict(), **chosen}), dims, channels, 2)


def input_fit(model: Any) -> Fit:
    """Return the sizes that ``model`` takes; any, if it does not say."""
    multiple = int(getattr(model, "input_multiple", 1) or 1)
    least = int(getattr(model, "input_minimum", 1) or 1)
    border = tuple(getattr(model, "borders", ()))
    return Fit(multiple, max(least, multiple), border if any(border) else ())


def _plan_levels(dims: int, sizes: Sequence[Sequence[int]]) -> int:
    """Three poolings (four in the plane), fewer for images too small to leave 4 voxels at the bottom."""
    smallest = min(_median(sizes))
    wanted = 3 if dims == 3 else 4
    return max(1, min(wanted, int(math.log2(max(smallest, 8) / 4))))


def _plan_width(sizes: Sequence[Sequence[int]]) -> float:
    """Classifiers: a quarter of the published width for thumbnails, half for larger images."""
    return 0.25 if max(math.prod(size) for size in sizes) <= 64 * 64 else 0.5


def _plan_learning_rate(config: TrainConfig) -> float:
    return 0.05 if config.optimiser == "sgd" else 2e-3


def _plan_precision(dims: int) -> str:
    """bfloat16 products where the CPU has matrix tiles for them (2.5 × faster steps), else float32."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return "bfloat16" if dims > 1 and tiles is not None and tiles() else "float32"


def _plan_flips(segment: bool, dims: int, channels: int) -> tuple[int, ...]:
    """Axes whose reversal keeps the labels true.

    Volumes: the first axis, left–right in the usual orientation, which mirrors anatomy onto anatomy;
    never front–back or up–down, which would turn an anterior structure into a posterior one. Planes to
    segment: both. Classes: colour photographs left–right; one channel may be writing, so never.
    """
    if segment:
        return (0,) if dims != 2 else (0, 1)
    return (1,) if dims == 2 and channels == 3 else ()


def _plan_input(config: TrainConfig, model: Any, channels: int, sizes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the input's size, which ``model`` takes."""
    dims, fit = model.dims, input_fit(model)
    if config.patch is not None:
        patch = config.patch
        if len(patch) != dims:
            raise ConfigError(f"patch: got {len(patch)} sizes {patch}, the images have {dims} axes; give {dims}.")
        for axis, size in enumerate(patch):
            near = model.nearest_sizes(size, axis)
            if size not in near:
                why = f"is not a multiple of {fit.multiple}, which the levels need"
                if fit.border or size % fit.multiple == 0:
                    why = f"does not fit {config.model or 'the network'}: {model.size_rule()}"
                raise ConfigError(f"patch: {size} {why}; give {' or '.join(map(str, near))}.")
        return patch
    median = _median(sizes)
    if config.task == "classify":
        patch = tuple(median)
    else:
        wanted = fit.around(median)
        patch = plan_patch(wanted, fit, 1 << 62)
        if math.prod(fit.inner(patch)) > _WHOLE_VOXELS[dims]:
            patch = plan_patch(wanted, fit, _PATCH_VOXELS[dims])
    try:
        model.check_input((2, channels, *patch))
    except ShapeError as error:
        raise ConfigError(f"patch: the images have {' × '.join(map(str, median))} pixels, but {error}") from None
    return patch


def _median(sizes: Sequence[Sequence[int]]) -> list[int]:
    """The median size of each axis."""
    return [sorted(axis)[len(axis) // 2] for axis in zip(*sizes, strict=True)]


def plan_patch(size: Sequence[int], fit: Fit | int, voxels: int) -> tuple[int, ...]:
    """Return a patch that covers ``size`` if ``voxels`` allow, else one as near to a cube as fits.

    Every side is one that ``fit`` (or a multiple of it, if a number) takes; the longest side is shortened first.

    >>> plan_patch((36, 50, 36), 8, 48**3)
    (40, 56, 40)
    >>> plan_patch((197, 140, 189), 4, 48**3)
    (48, 48, 48)
    """
    fit = Fit(fit, fit) if isinstance(fit, int) else fit
    patch = [fit.above(side) for side in size]
    while math.prod(fit.inner(patch)) > voxels and max(patch) > fit.least:
        longest = max(range(len(patch)), key=lambda axis: patch[axis])
        patch[longest] -= fit.multiple
    return tuple(patch)


def plan_tile(size: Sequence[int], patch: Sequence[int], fit: Fit | int) -> tuple[int, ...]:
    """Return the tile in which an image of ``size`` is predicted: all of it, or as much as memory likes.

    Args:
        size: spatial size of the image, in voxels.
        patch: training patch; a tile is never smaller, or the network would miss context it has learned.
        fit: the sizes that the network takes, or what every side must be a multiple of.
    """
    fit = Fit(fit, fit) if isinstance(fit, int) else fit
    limit = max(_TILE_VOXELS[len(size)], math.prod(patch))
    wanted = fit.around(size)
    whole = plan_patch(wanted, fit, 1 << 62)
    tile = plan_patch(wanted, fit, limit)
    return tuple(max(side, min(fit.above(want), full)) for side, want, full in zip(tile, patch, whole, strict=True))
