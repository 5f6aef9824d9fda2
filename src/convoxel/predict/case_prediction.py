"""The prediction of one case: an image is read, its classes are computed, and what was asked for is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convoxel import data
from convoxel.data.image_file import map_image, read_header, with_dims
from convoxel.data.image_header import Header
from convoxel.data.share_file import share_order, share_path, write_shares
from convoxel.errors import ConfigError, check_choice
from convoxel.files.file_array import FileArray, new_array
from convoxel.files.values import Array
from convoxel.graph.run.tiling import TilePlan
from convoxel.predict.clean_up import AS_FOUND, Change, CleanUp
from convoxel.predict.inference import Predictor, new_map
from convoxel.predict.share_rounding import SHARE_KINDS, round_shares, share_scale
from convoxel.predict.stage_clock import measure_stages, stage


@dataclass(frozen=True)
class MapOptions:
    """The outputs of an image, and the way in which its file is read.

    Attributes:
        axes: what the axes of NumPy arrays mean, such as "HWC" (default: as in training, where that was stated; else as
            the network's axes and channels tell).
        shares: type of the numbers in maps of the classes' shares, of ``share_rounding.SHARE_KINDS``; None writes none.
        clean_up: rules by which the label map is cleaned up; shares stay as the network gives them.
    """

    axes: str | None = None
    shares: str | None = None
    clean_up: CleanUp = AS_FOUND

    def check(self, predictor: Predictor) -> None:
        """Raise ConfigError where the network has no such outputs."""
        facts, task = predictor.run.data, predictor.run.config.task
        if self.shares is not None:
            check_choice("probabilities", self.shares, SHARE_KINDS)
        if task != "segment" and (self.shares is not None or self.clean_up):
            name = "clean-up" if self.shares is None else "probabilities"
            raise ConfigError(f"{name}: given to {task}; expected a run that segments. Tables hold shares anyway.")
        self.clean_up.check(facts.classes, facts.dims)

    def targets(self, label: Path, dims: int) -> tuple[Path, ...]:
        """Return the files of a case, of which ``label`` is the first."""
        return (label,) if self.shares is None else (label, share_path(label, dims, self.shares))


LABEL_MAP = MapOptions()


@dataclass(frozen=True)
class CaseResult:
    """The outcome of a case.

    Attributes:
        outputs: files that were written.
        tiling: exact tiles of the image; None where tiles are blended.
        stages: seconds of each stage, by the names of ``stage_clock.STAGES``.
        changes: what the clean-up changed, by class.
    """

    outputs: tuple[Path, ...]
    tiling: TilePlan | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)


def predict_case(
    predictor: Predictor,
    path: Path,
    targets: Sequence[Path],
    options: MapOptions = LABEL_MAP,
    on_tile: Callable[[int, int], None] | None = None,
) -> CaseResult:
    """Predict one image and write its label map, and maps of its classes' shares where these are asked for.

    Args:
        predictor: trained network.
        path: image.
        targets: files to write, as :meth:`MapOptions.targets` lists them.
        options: what is written, and how the image is read.
        on_tile: called with the number of tiles done and of all.

    Raises:
        DataError: the image is unreadable or does not fit the network, or a file cannot be written.
    """
    tilings: list[TilePlan] = []
    facts, changes = predictor.run.data, dict[str, Change]()
    with measure_stages() as clock:
        with stage("read"):
            sample = read_case(predictor, path, options)
        with stage("blend"):  # and, within it, what prepares images and computes the network
            found, shares = _compute(predictor, sample, targets, options, on_tile, tilings.append)
            if options.clean_up:
                found = np.asarray(found)  # components may reach through the whole map
                changes = options.clean_up.apply(found, facts.value_names, sample)
        with stage("write"):
            data.write_label(targets[0], found, like=sample, classes=facts.value_names)
            if shares is not None and options.shares is not None:
                write_shares(targets[1], shares, share_scale(options.shares), facts.outputs, sample)
    return CaseResult(tuple(targets), tilings[-1] if tilings else None, clock.seconds, changes)


def _compute(
    predictor: Predictor,
    sample: data.Sample,
    targets: Sequence[Path],
    options: MapOptions,
    on_tile: Callable[[int, int], None] | None,
    on_tiling: Callable[[TilePlan], None],
) -> tuple[Array | FileArray, Array | FileArray | None]:
    """Return the label map of an image, and the shares of its classes as stored, where they are asked for."""
    if options.shares is None:
        return predictor.label_map(sample, on_tile, on_tiling), None
    found, facts = new_map(sample), predictor.run.data
    shares = new_array((len(facts.outputs), *found.shape), options.shares, share_order(targets[1], found.ndim))
    for part, scores in predictor.scores(sample, on_tile, on_tiling):
        found[part] = chosen = predictor.decide(scores)
        place = (slice(None), *part)
        shares[place] = round_shares(predictor.shares_of(scores), None if facts.several else chosen, options.shares)
    return found, shares


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
