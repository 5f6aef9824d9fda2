"""Defaults of everything that the user left unset, chosen once from the data, the task and the machine.

The result is a complete configuration (:func:`plan_run`), which is stored with the run, so a resumed run and a
prediction never choose anew. Nothing here reads files or trains.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch

from convoxel import models
from convoxel.data.image_header import Spacing
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import plural
from convoxel.files.values import JsonObject
from convoxel.predict.device import choose_device
from convoxel.predict.loss_terms import choose_loss
from convoxel.predict.tile_size import plan_patch
from convoxel.predict.torch_network import input_sizes
from convoxel.train.config import TrainConfig
from convoxel.train.intensity_plan import plan_normalisation
from convoxel.train.level_plan import are_unlike, plan_levels
from convoxel.train.run_network import build_network

# An image of at most _WHOLE_VOXELS is trained on whole (a cropped hippocampus has 40 × 56 × 40); larger ones
# in near-cubic patches of _PATCH_VOXELS, small enough that a batch holds several different places.
_WHOLE_VOXELS = {1: 16_384, 2: 256 * 256, 3: 96_000}
_PATCH_VOXELS = {1: 8_192, 2: 192 * 192, 3: 40 * 40 * 40}
# Four patches of 40³: with 16 channels a step of about a quarter of a second on two cores.
_BATCH_VOXELS = {1: 65_536, 2: 150_000, 3: 260_000}
_DEFAULT_MINUTES = 10.0
# An axis is thicker than the others where they have at most this share of its spacing.
_THICK = 0.99
# In images of at most this many pixels per axis, a stem that quarters the image leaves too little for later stages.
_THUMBNAIL = 64

#: Words by the name of a configuration's entry.
Reasons = dict[str, str]
_Number = TypeVar("_Number", int, float)


class Scale(NamedTuple):
    """Factors of what a step works on, beside the usual defaults: channels, voxels of a patch and of a batch."""

    width: float = 1.0
    patch: float = 1.0
    batch: float = 1.0


class PlannedRun(NamedTuple):
    """A complete configuration, and why its entries are as they are: words by the name of an entry."""

    config: TrainConfig
    reasons: Reasons


def plan_run(
    config: TrainConfig,
    *,
    dims: int,
    channels: int,
    sizes: Sequence[Sequence[int]],
    flip_axes: Sequence[int] = (),
    multi_label: bool = False,
    spacing_mm: Spacing = None,
    ranges: Sequence[tuple[float, float]] = (),
    scale: Scale | None = None,
    processes: int = 1,
) -> PlannedRun:
    """Return ``config`` with a value for every unset entry, and the reasons.

    Args:
        config: configuration as the user stated it; stated entries are kept. What only a measured step can choose
            (``channels_last`` and ``compile`` on a GPU) stays unset.
        dims: number of spatial axes of the images.
        channels: channels of the images.
        sizes: spatial sizes of the training images.
        flip_axes: axes along which samples are mirrored unless the configuration states some (default none).
        multi_label: an image may have several classes (default False).
        spacing_mm: spacing of the training images: patches are near a cube in mm, thick axes are pooled later, and the
            thickest is that of ``slices`` (default None).
        ranges: least and largest value of each training image, which tell CT (default: not known).
        scale: factors of the usual width, patch and batch (default 1).
        processes: number of processes that share every batch, of which it is a multiple (default 1).

    Raises:
        ConfigError: a stated entry does not fit the data (rank of ``patch`` or ``flip_axes``, a patch
            that the network cannot halve often enough, ``levels`` for a classifier), or ``device`` is not here.
    """
    segment, scale = config.task == "segment", scale or Scale()
    reasons: Reasons = {}
    planar = dims
    if config.slices is not None:
        config, planar = _plan_slices(config, dims, sizes, spacing_mm), 2
    plane_mm = None if spacing_mm is None else _plane(config, spacing_mm)
    chosen = _plan_model(config, planar, [_plane(config, size) for size in sizes], plane_mm, scale, reasons)
    with torch.device("meta"):  # no memory for weights: the network knows which sizes fit
        sketch = build_network(TrainConfig.build(**{**config.to_dict(), **chosen}), dims, channels, 2)
    chosen["patch"], reasons["patch"] = _plan_input(config, sketch, channels, sizes, spacing_mm, scale)
    chosen["batch_size"], reasons["batch_size"] = _plan_batch(
        config, planar, chosen["patch"], len(sizes), scale, processes
    )
    if config.steps_per_epoch is None:
        # Volumes give many patches each; at least 32 steps keep the bookkeeping of an epoch cheap.
        steps = math.ceil(len(sizes) / (chosen["batch_size"] * config.accumulate))
        chosen["steps_per_epoch"] = max(steps, 32) if segment else steps
    if config.minutes is None and config.epochs is None:
        chosen["minutes"] = _DEFAULT_MINUTES
    if config.validate_every is None and config.epochs is not None:
        chosen["validate_every"] = max(1, config.epochs // 25)
    chosen["loss"] = choose_loss(config, planar, multi_label)
    chosen["learning_rate"] = config.learning_rate or (0.05 if config.optimiser == "sgd" else 2e-3)
    chosen["normalise"], reasons["normalise"] = plan_normalisation(config, dims, len(sizes), ranges)
    if config.flip_axes is None:
        chosen["flip_axes"] = tuple(flip_axes)
    elif config.flip_axes and max(config.flip_axes) >= dims:
        raise ConfigError(f"flip_axes: {config.flip_axes} given, but the images have axes 0 … {dims - 1}.")
    chosen["threads"] = config.threads or torch.get_num_threads()
    chosen.update(plan_computation(config, dims))
    return PlannedRun(TrainConfig.build(**{**config.to_dict(), **chosen}), reasons)


def _plan_slices(config: TrainConfig, dims: int, sizes: Sequence[Sequence[int]], spacing_mm: Spacing) -> TrainConfig:
    """Return the configuration with the axis across which slices follow each other: the thickest, else the shortest."""
    if dims != 3:
        raise ConfigError(f"slices: {config.slices} given, but the images have {dims} axes; expected volumes.")
    if config.slice_axis is not None:
        return config
    median = _median(sizes)
    axis = min(range(3), key=lambda k: (median[k], -k))  # of equals the last: axial
    if spacing_mm is not None and sorted(spacing_mm)[1] < _THICK * max(spacing_mm):
        axis = spacing_mm.index(max(spacing_mm))
    return config.model_copy(update={"slice_axis": axis})


def _plane(config: TrainConfig, size: Sequence[_Number]) -> tuple[_Number, ...]:
    """Return the numbers of a slice's axes, or all where there are no slices."""
    return tuple(side for axis, side in enumerate(size) if config.slices is None or axis != config.slice_axis)


def _plan_model(
    config: TrainConfig, dims: int, sizes: Sequence[Sequence[int]], spacing_mm: Spacing, scale: Scale, reasons: Reasons
) -> JsonObject:
    segment = config.task == "segment"
    name = config.model or ("unet" if segment else "course_vgg")
    known = models.entry(name).options
    chosen: JsonObject = {"model": name}
    if dims == 3 and segment:
        median = _median(sizes)
        axis = median.index(min(median))
        far = "" if spacing_mm is None else f", {spacing_mm[axis]:.4g} mm apart"
        reasons["slices"] = (
            f"3-D: the shortest axis of the median image has {plural(median[axis], 'slice')}{far}; slices=3 makes it "
            "2.5-D, which sees one neighbour at either side and no more"
        )
    reasons["model"] = "stated" if config.model else f"the usual network to {config.task}"
    if {"levels", "strides", "kernels"} <= known.keys():
        chosen.update(_plan_pooling(config, name, known["levels"], dims, sizes, spacing_mm, reasons))
    elif "levels" in known:
        chosen["levels"] = config.levels or known["levels"]
    elif config.levels is not None:
        raise ConfigError(f"levels: {config.levels} given, but {name!r} has none; use model=unet.")
    if isinstance(known.get("width"), int):
        usual = (16 if dims == 3 else 32) if name == "unet" else known["width"]
        chosen["width"] = config.width or max(1, round(usual * scale.width))
        reasons["width"] = "stated" if config.width else f"channels at full size, {scale.width:g} × the usual {usual}"
    elif "width" in known:
        # Weights from a file have the published width by default.
        # Else half of it, and a quarter for thumbnails.
        thumbnails = max(math.prod(size) for size in sizes) <= 64 * 64
        chosen["width"] = config.width or (1.0 if config.weights else 0.25 if thumbnails else 0.5)
    small = max(_median(sizes)) <= _THUMBNAIL and config.weights is None
    if small and "stem" in known and "stem" not in config.model_options:
        chosen["model_options"] = {**config.model_options, "stem": "small"}
        reasons["model_options"] = f"images of at most {_THUMBNAIL} pixels an axis need all of them"
    return chosen


def _plan_pooling(
    config: TrainConfig,
    name: str,
    usual: int,
    dims: int,
    sizes: Sequence[Sequence[int]],
    spacing_mm: Spacing,
    reasons: Reasons,
) -> JsonObject:
    """Return the levels of a U-Net, and strides and kernels where axes differ."""
    # Three poolings (four in the plane; in nnU-Net's networks five), fewer if too little would be left at the bottom.
    most = usual if name != "unet" else 3 if dims == 3 else 4
    found = plan_levels(_median(sizes), spacing_mm, most, max(most, 4))
    stated = {"strides", "kernels", "padding", "sizes"} & config.model_options.keys()
    if config.levels is not None or stated:
        # What is stated of the poolings holds with what goes with it: the same factor along every axis.
        alike = plan_levels(_median(sizes), None, most)
        reasons["levels"] = "stated" if config.levels else alike.reason
        return {"levels": config.levels or len(alike.strides)}
    reasons["levels"] = found.reason
    chosen: JsonObject = {"levels": len(found.strides)}
    if found.options:
        chosen["model_options"] = {**config.model_options, **found.options}
        reasons["model_options"] = "factors between levels and kernels of levels, by axis: see levels"
    return chosen


def _plan_batch(
    config: TrainConfig, dims: int, patch: Sequence[int], count: int, scale: Scale, processes: int
) -> tuple[int, str]:
    if config.batch_size is not None:
        return config.batch_size, "stated"
    if config.task != "segment":
        size, reason = max(1, min(32, count)), f"32, or all {count} training images"
    else:
        voxels, most = math.prod(_plane(config, patch)), round(_BATCH_VOXELS[dims] * scale.batch)
        size, reason = max(2, min(64, round(most / voxels))), f"about {most:,} voxels a step, 2 to 64 patches"
    if size % processes:
        size, reason = -(-size // processes) * processes, f"{reason}, a multiple of {processes} processes"
    return size, reason


def plan_computation(config: TrainConfig, dims: int) -> JsonObject:
    """Return the entries that say where and how a run is computed, as far as no step needs to be measured for them.

    Raises:
        ConfigError: the device is not here, or ``engine`` computes no such steps.
    """
    device = choose_device(config.device or "auto")
    chosen: JsonObject = {"device": str(device), "precision": config.precision or _plan_precision(device, dims)}
    if config.num_workers is None:
        # A GPU waits while samples are prepared between its steps.
        chosen["num_workers"] = 0 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))
    serves = device.type == "cpu" and chosen["precision"] == "float32" and not config.compile and dims > 1
    if config.engine is None:
        chosen["engine"] = "convoxel" if serves and config.channels_last is not False else "torch"
    elif config.engine == "convoxel" and not serves:
        raise ConfigError(
            "engine: convoxel computes planes and volumes in float32 on the CPU, without torch.compile; this run has "
            f"{'signals, ' if dims == 1 else ''}device={device}, precision={chosen['precision']}, "
            f"compile={bool(config.compile)}. Leave engine out, or change these."
        )
    if device.type != "cuda":
        if config.channels_last is None:
            chosen["channels_last"] = device.type == "cpu"
        if config.compile is None:
            chosen["compile"] = False
    return chosen


def _plan_precision(device: torch.device, dims: int) -> str:
    """Return the reduced precision for which the device has matrix units (2.5 × faster steps on CPUs), else float32."""
    if dims == 1 or device.type == "mps":
        return "float32"
    if device.type == "cpu":
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return "bfloat16" if tiles is not None and tiles() else "float32"
    generation = torch.cuda.get_device_capability(device)
    return "bfloat16" if generation >= (8, 0) else "float16" if generation >= (7, 0) else "float32"


def _plan_input(
    config: TrainConfig,
    model: models.Network,
    channels: int,
    sizes: Sequence[Sequence[int]],
    spacing_mm: Spacing,
    scale: Scale,
) -> tuple[tuple[int, ...], str]:
    """Return the size of the input, one that ``model`` takes, and why this one."""
    dims, fit = model.dims, input_sizes(model)
    if config.patch is not None:
        patch = config.patch
        if len(patch) != dims:
            raise ConfigError(f"patch: got {len(patch)} sizes {patch}, the images have {dims} axes; give {dims}.")
        for axis, size in enumerate(patch):
            near = model.nearest_sizes(size, axis)
            if size not in near:
                multiple = fit.of(axis)[1]
                why = f"is not a multiple of {multiple}, which the levels need"
                if fit.border or not isinstance(fit.multiple, int) or size % multiple == 0:
                    why = f"does not fit {config.model or 'the network'}: {model.size_rule()}"
                raise ConfigError(f"patch: {size} {why}; give {' or '.join(map(str, near))}.")
        return patch, "stated"
    median = _median(sizes)
    image = " × ".join(map(str, median))
    if config.slices is not None:
        median[config.slice_axis or 0], dims = 1, 2  # one slice and its neighbours
    if config.task != "segment":
        patch, reason = tuple(median), f"the median of the training images, {image}"
    else:
        wanted = fit.around(median)
        patch, reason = plan_patch(wanted, fit), f"holds the median training image, {image}"
        whole, most = (round(limits[dims] * scale.patch) for limits in (_WHOLE_VOXELS, _PATCH_VOXELS))
        if math.prod(fit.inner(patch)) > whole:
            unlike = are_unlike(spacing_mm)
            patch = plan_patch(wanted, fit, most, spacing_mm if unlike else None)
            share = min(1.0, math.prod(fit.inner(patch)) / math.prod(median))
            unit = "mm" if unlike else "voxels"
            reason = f"near a cube in {unit} of at most {most:,} voxels, {share:.2g} of the median image, {image}"
    try:
        model.check_input((2, channels, *patch))
    except ShapeError as error:
        raise ConfigError(f"patch: the images have {' × '.join(map(str, median))} pixels, but {error}") from None
    return patch, reason


def _median(sizes: Sequence[Sequence[int]]) -> list[int]:
    return [sorted(axis)[len(axis) // 2] for axis in zip(*sizes, strict=True)]
