"""Defaults of everything that the user left unset, chosen once from the data, the task and the machine.

The result is a complete configuration (:func:`plan_run`), which is stored with the run, so a resumed run and a
prediction never choose anew. Nothing here reads files or trains.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch

from convoxel import models
from convoxel.data.image_header import Spacing
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import JsonObject
from convoxel.predict.device import choose_device
from convoxel.predict.loss_terms import choose_loss
from convoxel.predict.tile_size import plan_patch
from convoxel.predict.torch_network import input_sizes
from convoxel.train.config import TrainConfig
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


def plan_run(
    config: TrainConfig,
    *,
    dims: int,
    channels: int,
    sizes: Sequence[Sequence[int]],
    flip_axes: Sequence[int] = (),
    multi_label: bool = False,
    spacing_mm: Spacing = None,
) -> TrainConfig:
    """Return ``config`` with a value for every unset entry.

    Args:
        config: configuration as the user stated it; stated entries are kept. What only a measured step can choose
            (``channels_last`` and ``compile`` on a GPU) stays unset.
        dims: number of spatial axes of the images.
        channels: channels of the images.
        sizes: spatial sizes of the training images.
        flip_axes: axes along which samples are mirrored unless the configuration states some (default none).
        multi_label: an image may have several classes (default False).
        spacing_mm: spacing of the training images, of which the thickest axis is that of ``slices`` (default None).

    Raises:
        ConfigError: a stated entry does not fit the data (rank of ``patch`` or ``flip_axes``, a patch
            that the network cannot halve often enough, ``levels`` for a classifier), or ``device`` is not here.
    """
    segment = config.task == "segment"
    planar = dims
    if config.slices is not None:
        config, planar = _plan_slices(config, dims, sizes, spacing_mm), 2
    chosen = _plan_model(config, planar, [_plane(config, size) for size in sizes])
    with torch.device("meta"):  # no memory for weights: the network knows which sizes fit
        sketch = build_network(TrainConfig.build(**{**config.to_dict(), **chosen}), dims, channels, 2)
    chosen["patch"] = _plan_input(config, sketch, channels, sizes)
    voxels = math.prod(_plane(config, chosen["patch"]))
    batch = max(2, min(64, round(_BATCH_VOXELS[planar] / voxels))) if segment else max(1, min(32, len(sizes)))
    chosen["batch_size"] = config.batch_size or batch
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
    # Scanners scale volumes differently; a single volume has no such differences, and its own statistics would
    # change with the cut (a slab of the back of a head has less air than one of the front).
    several = dims == 3 and segment and len(sizes) > 1
    chosen["normalise"] = config.normalise or ("sample" if several else "dataset")
    if config.flip_axes is None:
        chosen["flip_axes"] = tuple(flip_axes)
    elif config.flip_axes and max(config.flip_axes) >= dims:
        raise ConfigError(f"flip_axes: {config.flip_axes} given, but the images have axes 0 … {dims - 1}.")
    chosen["threads"] = config.threads or torch.get_num_threads()
    chosen.update(plan_computation(config, dims))
    return TrainConfig.build(**{**config.to_dict(), **chosen})


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


def _plane(config: TrainConfig, size: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of a slice, or all where there are no slices."""
    return tuple(side for axis, side in enumerate(size) if config.slices is None or axis != config.slice_axis)


def _plan_model(config: TrainConfig, dims: int, sizes: Sequence[Sequence[int]]) -> JsonObject:
    segment = config.task == "segment"
    name = config.model or ("unet" if segment else "course_vgg")
    known = models.entry(name).options
    chosen: JsonObject = {"model": name}
    if {"levels", "strides"} <= known.keys():
        # Three poolings (four in the plane; in nnU-Net's networks five), fewer if an image would have less than 4
        # voxels at the bottom.
        deepest = int(math.log2(max(min(_median(sizes)), 8) / 4))
        most = known["levels"] if name != "unet" else 3 if dims == 3 else 4
        chosen["levels"] = config.levels or max(1, min(most, deepest))
    elif "levels" in known:
        chosen["levels"] = config.levels or known["levels"]
    elif config.levels is not None:
        raise ConfigError(f"levels: {config.levels} given, but {name!r} has none; use model=unet.")
    if name == "unet":
        chosen["width"] = config.width or (16 if dims == 3 else 32)
    elif isinstance(known.get("width"), int):
        chosen["width"] = config.width or known["width"]
    elif "width" in known:
        # Weights from a file have the published width by default.
        # Else half of it, and a quarter for thumbnails.
        thumbnails = max(math.prod(size) for size in sizes) <= 64 * 64
        chosen["width"] = config.width or (1.0 if config.weights else 0.25 if thumbnails else 0.5)
    small = max(_median(sizes)) <= _THUMBNAIL and config.weights is None
    if small and "stem" in known and "stem" not in config.model_options:
        chosen["model_options"] = {**config.model_options, "stem": "small"}
    return chosen


def plan_computation(config: TrainConfig, dims: int) -> JsonObject:
    """Return the entries that say where and how a run is computed, as far as no step needs to be measured for them.

    Raises:
        ConfigError: the device is not here.
    """
    device = choose_device(config.device or "auto")
    chosen: JsonObject = {"device": str(device), "precision": config.precision or _plan_precision(device, dims)}
    if config.num_workers is None:
        # A GPU waits while samples are prepared between its steps.
        chosen["num_workers"] = 0 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))
    if config.engine is None:
        kept = (
            device.type == "cpu"
            and dims == 3
            and chosen["precision"] == "float32"
            and config.channels_last is not False
        )
        chosen["engine"] = "convoxel" if kept and not config.compile else "torch"
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
    config: TrainConfig, model: models.Network, channels: int, sizes: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """Return the size of the input, one that ``model`` takes."""
    dims, fit = model.dims, input_sizes(model)
    if config.patch is not None:
        patch = config.patch
        if len(patch) != dims:
            raise ConfigError(f"patch: got {len(patch)} sizes {patch}, the images have {dims} axes; give {dims}.")
        for axis, size in enumerate(patch):
            near = model.nearest_sizes(size, axis)
            if size not in near:
                why = f"is not a multiple of {fit.multiple}, which the levels need"
                if fit.border or not isinstance(fit.multiple, int) or size % fit.multiple == 0:
                    why = f"does not fit {config.model or 'the network'}: {model.size_rule()}"
                raise ConfigError(f"patch: {size} {why}; give {' or '.join(map(str, near))}.")
        return patch
    median = _median(sizes)
    if config.slices is not None:
        median[config.slice_axis or 0], dims = 1, 2  # one slice and its neighbours
    if config.task != "segment":
        patch = tuple(median)
    else:
        wanted = fit.around(median)
        patch = plan_patch(wanted, fit)
        if math.prod(fit.inner(patch)) > _WHOLE_VOXELS[dims]:
            patch = plan_patch(wanted, fit, _PATCH_VOXELS[dims])
    try:
        model.check_input((2, channels, *patch))
    except ShapeError as error:
        raise ConfigError(f"patch: the images have {' × '.join(map(str, median))} pixels, but {error}") from None
    return patch


def _median(sizes: Sequence[Sequence[int]]) -> list[int]:
    return [sorted(axis)[len(axis) // 2] for axis in zip(*sizes, strict=True)]
