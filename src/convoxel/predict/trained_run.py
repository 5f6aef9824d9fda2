"""A trained network with everything that is known about it: its configuration and the facts of its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from convoxel.data import DataSet, Sample
from convoxel.data.geometry import Floats, Geometry, Placement
from convoxel.data.image_header import Affine, Spacing
from convoxel.data.regions import Regions
from convoxel.errors import CheckpointError, DataError
from convoxel.files.fault import few
from convoxel.fork import cached_property
from convoxel.predict.loss_terms import LossTerms, plan_loss
from convoxel.predict.normalisation import Normalisation, Statistics
from convoxel.predict.prediction_rule import PredictionRule
from convoxel.predict.sliding_window import best_classes
from convoxel.predict.target_scale import TargetScale

if TYPE_CHECKING:
    from torch import nn


class PredictionConfig(Protocol):
    """The entries of a run's configuration that prediction uses; ``convoxel.train.TrainConfig`` has them."""

    task: Literal["segment", "classify", "regress"]
    patch: tuple[int, ...] | None
    overlap: float
    axes: str | None
    rate: float | None
    flip_axes: tuple[int, ...] | None
    prediction: PredictionRule
    loss: str | None
    loss_options: dict[str, float]
    class_weights: Literal["balanced"] | dict[str, float] | None


def _is_named(classes: Sequence[str]) -> bool:
    """Return whether somebody named the classes, or numbers stand for them.

    >>> _is_named(["background", "class 1", "class 2"]), _is_named(["background", "liver"])
    (False, True)
    """
    return list(classes) not in (
        ["background", "foreground"],
        ["background", *(f"class {number}" for number in range(1, len(classes)))],
    )


@dataclass(frozen=True)
class DataFacts:
    """The facts of the data that a network was trained on.

    Attributes:
        classes: names, class number = position.
        dims: number of spatial axes.
        channels: channels of every image.
        normalisation: of the images' intensities.
        spacing_mm: median voxel spacing of the training images on the network's grid; None where the format has none.
        fingerprint: SHA-256 over names and contents of all files.
        data_name: name of the data set.
        parts: number of samples of each part; empty in runs of earlier versions.
        geometry: the rule by which images come onto the network's grid; None in runs of earlier versions, which take
            all images as stored.
        class_counts: voxels (to segment) or images (to classify) of each of ``outputs`` in the training part; empty in
            runs of earlier versions.
        multi_label: whether an image may have several classes, or none.
        targets: scale of the numbers to predict (regress), whose names ``classes`` holds; None for other tasks.
        ignored: value in label files of voxels that belong to no known class; None where there was none.
        regions: label values of each class but the background, where classes overlap; None where they do not.
        previous_values: values of the label map of the stage before, each of which is a channel more of the network's
            input; empty where there is no such stage.
        channel_files: whether the training images were files a channel, named CASE_0000, CASE_0001 ….
        painted: whether the masks hold 255 in place of 1, as those of paint programs do; predicted ones do, too.
    """

    classes: tuple[str, ...]
    dims: int
    channels: int
    normalisation: Normalisation
    spacing_mm: tuple[float, ...] | None
    fingerprint: str
    data_name: str
    parts: dict[str, int] = field(default_factory=dict)
    geometry: Geometry | None = None
    class_counts: tuple[int, ...] = ()
    multi_label: bool = False
    targets: TargetScale | None = None
    ignored: int | None = None
    regions: Regions | None = None
    channel_files: bool = False
    previous_values: tuple[int, ...] = ()
    painted: bool = False

    @classmethod
    def from_data_set(
        cls, dataset: DataSet, normalisation: Normalisation, geometry: Geometry | None, class_counts: Sequence[int] = ()
    ) -> DataFacts:
        """Return the facts of a data set whose training samples are on the network's grid, and are normalised."""
        facts = (dataset.classes, dataset.dims, dataset.channels, normalisation)
        parts = {name: len(part) for name, part in dataset.parts.items()}
        targets = TargetScale.of(dataset.train.labels) if dataset.task == "regress" else None
        source = (dataset.spacing_mm, dataset.fingerprint, dataset.name)
        found = cls(*facts, *source, parts, geometry, tuple(class_counts), dataset.multi_label, targets)
        return replace(found, ignored=dataset.ignored, regions=dataset.regions)

    @property
    def inputs(self) -> int:
        """Number of channels of the network's input."""
        return self.channels + len(self.previous_values)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's channels: the classes; of regions, the regions without the background."""
        return self.classes if self.regions is None else self.classes[1:]

    @property
    def several(self) -> bool:
        """True where an image or a voxel may have several classes, or none: each channel decides by itself."""
        return self.multi_label or self.regions is not None

    def decide(self, scores: NDArray[np.float32], level: float = 0.0) -> NDArray[np.uint8]:
        """Return the label map (*spatial) of scores (outputs, *spatial).

        Args:
            scores: logits, or shares.
            level: score above which a region is there: 0 of logits, 0.5 of shares (default 0).
        """
        if self.regions is not None:
            return self.regions.label_map(scores > level)
        return best_classes(scores)

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the values of label maps, as files have them."""
        return self.classes if self.regions is None else self.regions.value_names(self.classes)

    @property
    def rule(self) -> Geometry:
        """The rule of geometry; that of earlier versions keeps images as stored."""
        return self.geometry or Geometry()

    def prepare(self, sample: Sample, place: Placement) -> tuple[Floats, Statistics]:
        """Return a sample's image on the network's grid, and the statistics that normalise its tiles.

        Raises:
            DataError: the image would be too large for the memory.
        """
        turned: Floats | None = None
        if self.normalisation.ruled:
            turned = place.turned(sample.image[(slice(None),) * sample.image.ndim])
            sample = replace(sample, image=self.normalisation.apply_rules(turned))
            place = place.after_turning
        image = self.normalisation.finish(self.rule.image(sample, place))
        if turned is not None and self.normalisation.resampled:
            image = self.normalisation.apply_to(image, place.body(self.normalisation.find_body(turned)))
        return image, self.normalisation.statistics(image)

    @classmethod
    def from_dict(cls, entries: object) -> DataFacts:
        """Return the facts that a checkpoint's JSON holds.

        Raises:
            CheckpointError: one is missing or of another type; the message names it.
        """
        if isinstance(entries, dict) and "intensity" in entries:  # the entry's first name, in runs of earlier versions
            entries = {"normalisation": entries["intensity"], **entries}
        try:
            return TypeAdapter(cls).validate_python(entries)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}" for item in error.errors())
            raise CheckpointError(
                f"checkpoint: the facts of its data are incomplete or wrong ({wrong}); "
                "expected those that training wrote. Train the run anew."
            ) from None

    def warn_of_geometry(self, images: Iterable[tuple[str, Affine, Spacing]]) -> None:
        """Warn once of images whose place the run's rule cannot tell, or whose place it does not look at.

        Args:
            images: name, affine and spacing of images that are to be predicted.
        """
        if self.geometry is not None:
            self.geometry.warn_of_unknown(images)
            return
        located = [name for name, affine, spacing in images if affine is not None or spacing is not None]
        if located:
            warnings.warn(
                "geometry: the run was trained by an earlier version, which knew no orientation and no spacing, so "
                f"{few(located)} {'is' if len(located) == 1 else 'are'} predicted as stored. That is right for images "
                "that are stored as those of training were. Train anew to have orientation and spacing observed.",
                RuntimeWarning,
                stacklevel=3,
            )

    def check(self, dataset: DataSet) -> None:
        """Raise DataError unless ``dataset`` has the axes, channels and classes that the run was trained on."""
        for noun, have, want in (
            ("spatial axes", dataset.dims, self.dims),
            ("channels", dataset.channels, self.channels),
            ("classes", len(dataset.classes), len(self.classes)),
        ):
            if have != want:
                named = f": {', '.join(self.classes)}" if noun == "classes" else ""
                raise DataError(
                    f"data: {dataset.name} has {have} {noun}, the run was trained on {want}{named}. "
                    "Give data of the same kind, or train a run on these."
                )
        if dataset.multi_label != self.multi_label:
            words = ("one class an image", "any number of classes an image")
            raise DataError(
                f"data: {dataset.name} has {words[dataset.multi_label]}, the run was trained on data with "
                f"{words[self.multi_label]}. Give data of the same kind, or train a run on these."
            )
        if dataset.regions != self.regions:
            told = ["no regions" if each.regions is None else each.regions.describe(each.classes)
                    for each in (dataset, self)]  # fmt: skip
            raise DataError(
                f"data: {dataset.name} has {told[0]}; the run was trained on {told[1]}. "
                "Give data of the same kind, or train a run on these."
            )
        if dataset.classes != self.classes and all(map(_is_named, (dataset.classes, self.classes))):
            names = [", ".join(classes) for classes in (dataset.classes, self.classes)]
            raise DataError(
                f"data: {dataset.name} has the classes {names[0]}, the run was trained on {names[1]}. "
                "Name them alike, or train a run on these."
            )


Config_co = TypeVar("Config_co", bound=PredictionConfig, covariant=True)


@dataclass(frozen=True)
class StoredNetwork:
    """A network in the folder of a run, which also keeps its compiled programs.

    Attributes:
        folder: the run's folder.
        which: name of the checkpoint.
        load: returns the network, a PyTorch module in eval mode.
    """

    folder: Path
    which: str
    load: Callable[[], nn.Module]

    @cached_property
    def network(self) -> nn.Module:
        """The network, loaded once."""
        return self.load()

    @property
    def is_loaded(self) -> bool:
        """True while the network is in memory."""
        return "network" in self.__dict__

    def release(self) -> None:
        """Give back the network's memory; it is loaded again when somebody asks for it."""
        self.__dict__.pop("network", None)


@dataclass(frozen=True)
class TrainedRun(Generic[Config_co]):
    """A trained network and what it was trained with.

    Attributes:
        source: the network, or the place that it is loaded from when somebody asks for it.
        config: complete configuration of the run.
        data: facts of its data.
        step: optimiser steps that the weights have seen.
        metric: mean validation metric (Dice or accuracy, 0 … 1) of the last validation; None before the first.
        identity: SHA-256 of the checkpoint, configuration and facts included; empty where there is none.
    """

    source: nn.Module | StoredNetwork
    config: Config_co
    data: DataFacts
    step: int
    metric: float | None = None
    identity: str = ""

    @property
    def network(self) -> nn.Module:
        """The network, a PyTorch module in eval mode."""
        return self.source.network if isinstance(self.source, StoredNetwork) else self.source

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (1, channels, *patch) of an input as the network saw it in training."""
        return (1, self.data.inputs, *(self.config.patch or ()))

    @property
    def loss(self) -> LossTerms:
        """The loss that the network was trained with."""
        return plan_loss(self.config, self.data.outputs, self.data.class_counts)


AnyRun = TrainedRun[PredictionConfig]
