"""The prediction of one case: an image is read, its classes are computed, and what was asked for is written.

Each of the three is a function of its own, since those of consecutive cases overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convoxel import data
from convoxel.data.channel_files import map_channels, read_channels, read_image_header
from convoxel.data.image_file import read_header
from convoxel.data.image_format import at_rate
from convoxel.data.image_header import Header
from convoxel.data.share_file import share_order, share_path, write_shares
from convoxel.errors import ConfigError, check_choice
from convoxel.files.file_array import FileArray, new_array
from convoxel.files.values import Array
from convoxel.graph.run.tiling import TilePlan
from convoxel.predict.clean_up import AS_FOUND, Change, CleanUp
from convoxel.predict.inference import Predictor, Prepared, new_map
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


@dataclass(frozen=True)
class LoadedCase:
    """An image as stored, and as it is prepared for the network."""

    sample: data.Sample
    prepared: Prepared


@dataclass(frozen=True)
class ComputedCase:
    """Results of a network for an image, to be written.

    Attributes:
        like: the image, whose grid and header the results have.
        label: label map.
        shares: shares of its classes as stored, where they are asked for.
        tiling, changes: as of :class:`CaseResult`.
    """

    like: data.Sample
    label: Array | FileArray
    shares: Array | FileArray | None
    tiling: TilePlan | None
    changes: Mapping[str, Change]


def predict_case(
    predictor: Predictor,
    files: Sequence[Path],
    targets: Sequence[Path],
    options: MapOptions = LABEL_MAP,
    on_tile: Callable[[int, int], None] | None = None,
) -> CaseResult:
    """Predict one image and write its label map, and maps of its classes' shares where these are asked for.

    Args:
        predictor: trained network.
        files: the image as one file, or as a file a channel.
        targets: files to write, as :meth:`MapOptions.targets` lists them.
        options: what is written, and how the image is read.
        on_tile: called with the number of tiles done and of all.

    Raises:
        DataError: the image is unreadable or does not fit the network, or a file cannot be written.
    """
    with measure_stages() as clock:
        found = compute_case(predictor, load_case(predictor, files, options), targets, options, on_tile)
        write_case(predictor, found, targets, options)
    return CaseResult(tuple(targets), found.tiling, clock.seconds, found.changes)


def load_case(predictor: Predictor, files: Sequence[Path], options: MapOptions) -> LoadedCase:
    """Read an image and prepare it: the first step of :func:`predict_case`."""
    with stage("read"):
        sample = read_case(predictor, files, options)
    return LoadedCase(sample, predictor.prepare(sample))


def compute_case(
    predictor: Predictor,
    loaded: LoadedCase,
    targets: Sequence[Path],
    options: MapOptions,
    on_tile: Callable[[int, int], None] | None = None,
) -> ComputedCase:
    """Compute the label map of an image and clean it up: the second step of :func:`predict_case`."""
    tilings: list[TilePlan] = []
    changes: dict[str, Change] = {}
    sample = loaded.sample
    with stage("blend"):  # and, within it, what computes the network
        found, shares = _compute(predictor, loaded, targets, options, on_tile, tilings.append)
    if options.clean_up:
        with stage("clean-up"):
            found = np.asarray(found)  # components may reach through the whole map
            changes = options.clean_up.apply(found, predictor.run.data.value_names, sample)
    return ComputedCase(sample, found, shares, tilings[-1] if tilings else None, changes)


def write_case(predictor: Predictor, found: ComputedCase, targets: Sequence[Path], options: MapOptions) -> None:
    """Write what was found in an image: the last step of :func:`predict_case`."""
    facts = predictor.run.data
    with stage("write"):
        # Masks of pictures come from paint programs, which show 255 as white and 1 as black.
        label = np.asarray(found.label) * np.uint8(255) if facts.painted and found.label.ndim == 2 else found.label
        data.write_label(targets[0], label, like=found.like, classes=facts.value_names)
        if found.shares is not None and options.shares is not None:
            write_shares(targets[1], found.shares, share_scale(options.shares), facts.outputs, found.like)


def _compute(
    predictor: Predictor,
    loaded: LoadedCase,
    targets: Sequence[Path],
    options: MapOptions,
    on_tile: Callable[[int, int], None] | None,
    on_tiling: Callable[[TilePlan], None],
) -> tuple[Array | FileArray, Array | FileArray | None]:
    """Return the label map of an image, and the shares of its classes as stored, where they are asked for."""
    sample, prepared = loaded.sample, loaded.prepared
    if options.shares is None:
        return predictor.label_map(sample, on_tile, on_tiling, prepared), None
    found, facts = new_map(sample), predictor.run.data
    shares = new_array((len(facts.outputs), *found.shape), options.shares, share_order(targets[1], found.ndim))
    for part, scores in predictor.scores(sample, on_tile, on_tiling, prepared):
        found[part] = chosen = predictor.decide(scores)
        place = (slice(None), *part)
        shares[place] = round_shares(predictor.shares_of(scores), None if facts.several else chosen, options.shares)
    predictor.finish(found, sample)
    return found, shares


def files_as_trained(predictor: Predictor, files: Sequence[Path]) -> list[Path]:
    """Return the files of an image, recordings at the rate that was stated for training."""
    return [at_rate(path, predictor.run.config.rate) for path in files]


def read_case_header(predictor: Predictor, files: Sequence[Path], options: MapOptions) -> Header:
    """Return the header of an image as the network sees it; axes that were stated for training serve where they fit."""
    files = files_as_trained(predictor, files)
    axes, trained = options.axes, predictor.run.config.axes
    header, facts = read_header(files[0]), predictor.run.data
    if axes is None and trained and header.stored and len(trained.removeprefix("N")) == len(header.stored[0]):
        axes = trained
    return read_image_header(files, facts.dims, facts.channels, axes, first=header)


def read_case(predictor: Predictor, files: Sequence[Path], options: MapOptions) -> data.Sample:
    """Return an image as the network takes it; to be segmented, its values stay as stored, where the format allows."""
    read = map_channels if predictor.run.config.task == "segment" else read_channels
    found = read_case_header(predictor, files, options).axes or None
    return read(files_as_trained(predictor, files), predictor.run.data.dims, predictor.run.data.channels, found)
