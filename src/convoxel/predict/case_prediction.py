"""The prediction of one case: an image is read, its classes are computed, and what was asked for is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoxel import data
from convoxel.data.image_file import map_image, read_header, with_dims
from convoxel.data.image_header import Header
from convoxel.graph.run.tiling import TilePlan
from convoxel.predict.inference import Predictor
from convoxel.predict.stage_clock import measure_stages, stage


@dataclass(frozen=True)
class MapOptions:
    """The outputs of an image, and the way in which its file is read.

    Attributes:
        axes: what the axes of NumPy arrays mean, such as "HWC" (default: as in training, where that was stated; else as
            the network's axes and channels tell).
    """

    axes: str | None = None


LABEL_MAP = MapOptions()


@dataclass(frozen=True)
class CaseResult:
    """The outcome of a case.

    Attributes:
        outputs: files that were written.
        tiling: exact tiles of the image; None where tiles are blended.
        stages: seconds of each stage, by the names of ``stage_clock.STAGES``.
    """

    outputs: tuple[Path, ...]
    tiling: TilePlan | None = None
    stages: Mapping[str, float] = field(default_factory=dict)


def predict_case(
    predictor: Predictor,
    path: Path,
    targets: Sequence[Path],
    options: MapOptions = LABEL_MAP,
    on_tile: Callable[[int, int], None] | None = None,
) -> CaseResult:
    """Predict one image and write its label map.

    Args:
        predictor: trained network.
        path: image.
        targets: files to write; the first is the label map.
        options: what is written, and how the image is read.
        on_tile: called with the number of tiles done and of all.

    Raises:
        DataError: the image is unreadable or does not fit the network, or a file cannot be written.
    """
    tilings: list[TilePlan] = []
    with measure_stages() as clock:
        with stage("read"):
            sample = read_case(predictor, path, options)
        with stage("blend"):  # and, within it, what prepares images and computes the network
            found = predictor.label_map(sample, on_tile, tilings.append)
        with stage("write"):
            data.write_label(targets[0], found, like=sample, classes=predictor.run.data.value_names)
    return CaseResult(tuple(targets), tilings[-1] if tilings else None, clock.seconds)


def read_case_header(predictor: Predictor, path: Path, options: MapOptions) -> Header:
    """Return the header of an image as the network sees it; axes that were stated for training serve where they fit."""
    axes, trained = options.axes, predictor.run.config.axes
    header, facts = read_header(path), predictor.run.data
    if axes is None and trained and header.stored and len(trained.removeprefix("N")) == len(header.stored[0]):
        axes = trained
    return with_dims(path, header, facts.dims, facts.channels, axes)


def read_case(predictor: Predictor, path: Path, options: MapOptions) -> data.Sample:
    """Return an image as the network takes it; to be segmented, its values stay as stored, where the format allows."""
    read = map_image if predictor.run.config.task == "segment" else data.read_image
    found = read_case_header(predictor, path, options).axes or None
    return read(path, dims=predictor.run.data.dims, channels=predictor.run.data.channels, axes=found)
