"""The choice of a run's geometry: the orientation and spacing in which its network sees every image."""

from __future__ import annotations

from typing import NamedTuple

from convoxel.data import DataSet
from convoxel.data.geometry import Geometry, choose_spacing, own_spacing, spacing_words
from convoxel.errors import ConfigError
from convoxel.train.config import TrainConfig


class GeometryPlan(NamedTuple):
    """A configuration with orientation and spacing, the rule that they make (None: none is known), and why these."""

    config: TrainConfig
    geometry: Geometry | None
    reason: str


def plan_geometry(config: TrainConfig, dataset: DataSet) -> GeometryPlan:
    """Return how images come onto the network's grid: as stated, else as the files of the training part suggest.

    Args:
        config: configuration; ``orientation`` and ``spacing`` are kept where they are stated.
        dataset: data with its training samples as stored.

    Raises:
        ConfigError: a stated entry needs what no training image says, or has another number of axes.
    """
    entries = dataset.train.entries
    located = any(entry.affine is not None for entry in entries)
    spaced = any(own_spacing(dataset.dims, entry.affine, entry.spacing_mm) for entry in entries)
    if config.orientation == "ras" and not located:
        raise ConfigError(
            "orientation: 'ras' given, but no training image says how it lies; expected 'keep'. Leave orientation out."
        )
    orientation = config.orientation or ("ras" if located else "keep")
    spacing = _stated_spacing(config, dataset.dims, spaced)
    if spacing is None:
        found = choose_spacing(Geometry(orientation), entries) if config.task == "segment" else None
        spacing = found or "keep"
    whole = config.model_copy(update={"orientation": orientation, "spacing": spacing})
    geometry = Geometry(orientation, None if isinstance(spacing, str) else spacing)
    return GeometryPlan(whole, geometry, _reason(config, dataset, geometry, located or spaced))


def geometry_of(config: TrainConfig) -> Geometry | None:
    """Return the geometry of a complete configuration; None for those of versions that knew none."""
    if config.orientation is None and config.spacing is None:
        return None
    spacing = None if config.spacing is None or isinstance(config.spacing, str) else config.spacing
    return Geometry(config.orientation or "keep", spacing)


def _stated_spacing(config: TrainConfig, dims: int, spaced: bool) -> str | tuple[float, ...] | None:
    spacing = config.spacing
    if spacing is None or isinstance(spacing, str):
        return spacing
    if len(spacing) not in (1, dims):
        raise ConfigError(f"spacing: got {len(spacing)} distances {spacing}, the images have {dims} axes; give {dims}.")
    if not spaced:
        raise ConfigError(
            f"spacing: {spacing_words(spacing)} given, but no training image says how far its voxels lie apart; "
            "expected 'keep'. Leave spacing out."
        )
    return spacing * dims if len(spacing) == 1 else spacing


def _reason(config: TrainConfig, dataset: DataSet, geometry: Geometry, known: bool) -> str:
    """Return in words where the rule comes from, and how many training images it changes."""
    if not known:
        return "the files say nothing of orientation and spacing"
    entries = dataset.train.entries
    places = [geometry.place(entry.shape, entry.affine, entry.spacing_mm) for entry in entries]
    turned, resampled = (sum(flags) for flags in ([not p.upright for p in places], [p.resamples for p in places]))
    where = "stated" if config.spacing is not None else "the median of the training images"
    if config.spacing is None and geometry.spacing_mm is None:
        where = "images are resized to the network's input anyway" if config.task != "segment" else "none is stated"
    stored = spacing_words(dataset.spacing_mm)
    where += f"; the median of the files is {stored}" if stored and stored != spacing_words(geometry.spacing_mm) else ""
    return f"{where}; {turned} of {len(entries)} training images are turned, {resampled} resampled"
