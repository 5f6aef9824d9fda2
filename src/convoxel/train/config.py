"""The configuration of a training run: one frozen record, from flags or from one YAML file.

This file holds names, types and limits only. Entries that depend on the data or the machine (patch, width, batch size,
precision …) may stay unset; :mod:`convoxel.train.defaults` chooses them once. Reading a configuration needs neither
PyTorch nor the data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from convoxel.data.regions import plan_regions
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import brief
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject, join_names
from convoxel.files.yaml_text import load_yaml
from convoxel.predict.device_word import DEVICE_WORDS, is_device_word
from convoxel.predict.entries import Entries
from convoxel.predict.loss_terms import find_loss
from convoxel.predict.prediction_rule import PredictionRule

# Entries that do not change the result of a run.
# The last four say where and how the same is computed, which changes how results are rounded, no more.
_NEUTRAL = frozenset(
    {
        "output",
        "data",
        "checkpoint_seconds",
        "tensorboard",
        "track",
        "track_files",
        "num_workers",
        "device",
        "channels_last",
        "compile",
        "engine",
    }
)


Kind = Literal["conv", "conv_transpose", "linear", "local"]
# The two limits exclude each other, so stating one replaces the other.
_LIMITS = {"minutes": "epochs", "epochs": "minutes"}
_NOUNS = {"segmentation": "segment", "classification": "classify", "regression": "regress"}
_Name = Annotated[str, BeforeValidator(lambda name: str(name) if isinstance(name, Path) else name), Field(min_length=1)]


class ConstraintConfig(Entries):
    """Constraints of kernels during training; see ``convoxel.nn.weight_constraint``.

    Args:
        max_norm: largest norm of a kernel, restored after every step (default None, no limit).
        unit_norm: give every kernel norm 1 after every step (default False).
        non_negative: set negative weights to 0 after every step (default False).
        kinds: kinds of layers that these three apply to (default all).
        l2: λ of the penalty λ‖K‖² in the loss for each kind of layer (default none).
    """

    max_norm: float | None = Field(default=None, gt=0)
    unit_norm: bool = False
    non_negative: bool = False
    kinds: tuple[Kind, ...] = ("conv", "conv_transpose", "linear", "local")
    l2: dict[Kind, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_norms(self) -> ConstraintConfig:
        if self.unit_norm and self.max_norm is not None:
            raise ValueError("give max_norm or unit_norm, not both")
        return self


class FactorConfig(Entries):
    """One of the convolutions that stand in the place of a larger one; see ``convoxel.nn.separate``.

    Args:
        shape: shape of its weights, (out, in / groups, *kernel).
        axes: axes whose stride, padding and dilation it has.
        groups: number of groups of channels (default 1).
    """

    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=3, max_length=5)]
    axes: tuple[Annotated[int, Field(ge=0, le=2)], ...]
    groups: int = Field(default=1, ge=1)


class SeparatedConfig(Entries):
    """A convolution of the network that smaller ones replace.

    Args:
        name: its name in the network.
        factors: the convolutions, the first applied first.
    """

    name: _Name
    factors: Annotated[tuple[FactorConfig, ...], Field(min_length=1)]


_Range = tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]]


class AugmentConfig(Entries):
    """Random changes of training samples; what is unset follows from the level, the task and the data.

    Args:
        level: "none", "light", or "strong", which is nnU-Net's for label maps (default "light").
        rotate: largest angle in degrees, about every axis of a volume with thin slices.
        scale: least and largest factor of the size, such as 0.9,1.1.
        shear: largest shear.
        shift: largest shift along each axis in pixels.
        elastic: largest displacement of an elastic stretching in pixels.
        contrast: largest relative change of an image's contrast.
        brightness: largest change of its brightness in standard deviations.
        noise: largest deviation of noise in standard deviations.
        gamma: least and largest exponent of a change of the grey scale, such as 0.7,1.5.
        blur: least and largest deviation of a Gaussian in pixels.
        low_resolution: least factor of the size to which an image is coarsened.
        erase: largest share of an image that is erased.
        chance: share of samples to which each stated change is applied (default: the level's, else 0.3).
        mirrors: mirror along ``flip_axes`` as well (default True).
        mix: "mixup" blends each image of a batch and its answer with another's, "cutmix" puts a part of another into it
            (default "none"); to classify and to regress.
    """

    level: Literal["none", "light", "strong"] = "light"
    rotate: float | None = Field(default=None, ge=0, le=180)
    scale: _Range | None = None
    shear: float | None = Field(default=None, ge=0, le=1)
    shift: float | None = Field(default=None, ge=0, le=10_000)
    elastic: float | None = Field(default=None, ge=0, le=1000)
    contrast: float | None = Field(default=None, ge=0, lt=1)
    brightness: float | None = Field(default=None, ge=0, le=10)
    noise: float | None = Field(default=None, ge=0, le=10)
    gamma: _Range | None = None
    blur: _Range | None = None
    low_resolution: float | None = Field(default=None, gt=0, le=1)
    erase: float | None = Field(default=None, ge=0, le=1)
    chance: float | None = Field(default=None, gt=0, le=1)
    mirrors: bool = True
    mix: Literal["none", "mixup", "cutmix"] = "none"

    @field_validator("scale", "gamma", "blur", mode="before")
    @classmethod
    def _check_range(cls, value: object) -> object:
        words = re.split(r"[,\s]+", value.strip("() ")) if isinstance(value, str) else value
        if words is not None and (not isinstance(words, list | tuple) or len(words) != 2):
            raise ValueError("give the least and the largest value, such as 0.9,1.1")
        return words

    @field_validator("scale", "gamma", "blur")
    @classmethod
    def _check_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("give the least value first, such as 0.9,1.1")
        return value

    @property
    def changes(self) -> bool:
        """True if samples are changed at all."""
        stated = self.model_dump(exclude={"level", "chance", "mirrors", "mix"}, exclude_none=True)
        return self.level != "none" or bool(stated)


class TrainConfig(Entries):
    """The whole configuration of a training run.

    An entry without a default here is chosen from the data and the machine if it is unset. One of ``minutes`` and
    ``epochs`` limits the run (10 minutes if neither is set).

    Args:
        task: "segment", "classify" or "regress".
        data: folder, .npz file, or name of a bundled data set.
        output: new folder for the run.
        model: name of the network ("unet" to segment, "course_vgg" to classify).
        levels: poolings of a U-Net.
        width: channels of the first level, or the factor of all channels where a network has one.
        model_options: further options of the network (default none).
        weights: file of weights to start from (default none, random weights).
        separated: convolutions that smaller ones replace, as ``convoxel separate`` found them (default none).
        patch: size of a training sample along each axis in voxels.
        slices: odd number of neighbouring slices of a volume that a 2-D network sees as channels, to segment the middle
            one (2.5-D; 1: each slice by itself) (default none: a 3-D network sees volumes).
        slice_axis: axis of the network's grid across which these slices follow each other (the thickest).
        batch_size: samples that the network sees at once.
        accumulate: batches whose gradients one step adds up, so that it sees ``accumulate`` times ``batch_size``
            samples in the memory of one batch (default 1). Normalisation and Dice are still those of a batch.
        foreground: share of patches that are centred near a labelled voxel (default 0.8).
        spacing: distance between voxels along each axis in mm (between samples of a signal in s), to which images are
            resampled, or "keep" (default: the median of the training images; to classify, "keep").
        orientation: "ras" turns axes towards the patient's right, front and top, "keep" leaves them as stored (default
            "ras" where files say how they lie).
        resample_labels: bring labels of another grid onto that of their image instead of refusing them (default False).
        normalise: statistics that normalise an image, those of each "sample" or of the whole "dataset", or "ct": those
            of the labelled voxels, after values beyond their percentiles 0.5 and 99.5 were cut off.
        minutes: time of the whole run in minutes, from reading the data to the closing evaluation.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps in an epoch.
        learning_rate: largest learning rate (2e-3 for Adam, 0.05 for SGD).
        optimiser: "adam" (also "adamw": its weight decay is decoupled) or "sgd" (default "adam").
        momentum: Nesterov momentum of SGD (default 0.9).
        schedule: course of the learning rate, "cosine", "poly" (nnU-Net's) or "constant" (default "cosine").
        warmup: share of the run in which the learning rate rises (default 0.02).
        weight_decay: decoupled weight decay of Adam, or L2 decay of SGD (default 1e-4).
        clip: largest norm of the gradient; None does not clip (default 5).
        rates: factor of the learning rate by pattern of weight names, such as ``{"encoder.*": 0.1}`` to tune; 0
            freezes the weights and the statistics of their normalisation. Of several patterns that fit a name, the
            longest holds (default none).
        ema: share of the running mean that a step keeps, such as 0.999: then means of the weights over the steps are
            validated, kept and predict, which are steadier than those of the last step (default none).
        patience: validations without a better metric after which the run ends before its time (default none).
        sync_batch_norm: let batch normalisation see the whole batch where several processes share it, and not the part
            of each (default True).
        constraints: constraints of kernels (default none).
        loss: loss by its word, such as "dice_focal"; ``convoxel train --loss list`` shows all with their terms (default
            "dice_ce" to segment, "ce" to classify, "bce" where an image may have several classes, "mse" to regress).
        loss_options: numbers of the loss, such as ``{"gamma": 1.5}`` of "focal"; the same list has them with limits and
            defaults.
        class_weights: weight of each class in cross-entropy or focal loss, by name (1 where none is stated), or
            "balanced", in inverse proportion to its voxels or images in the training part (default none).
        augment: random changes of training samples, a level ("none" or False, "light" or True, "strong") or entries of
            :class:`AugmentConfig` (default "light").
        flip_axes: axes along which samples are mirrored at random (left–right, unless classes are told apart by side).
        validation: number (int) or fraction (float) of the training samples that validate, where the data have no
            validation part (default 20 %); of subjects where they are known.
        folds: number of parts of a cross-validation, of which one validates (default None: one split).
        fold: the part that validates, 0 … folds − 1 (default 0).
        split: file that lists the samples of every part, such as the split.json of another run.
        subject_pattern: regular expression that finds the subject in the name of a sample.
        ignore_label: value in label files of voxels that belong to no known class, and count neither in the loss nor in
            metrics (default: the value "ignore" of dataset.json).
        regions: label value or values of each region by name, where classes overlap, such as
            ``{"tumour": [1, 2], "core": 2}``; each is found by itself (default: as dataset.json says).
        axes: what the axes of NumPy arrays mean, such as "HWC" (default: as labels and sizes tell).
        rate: rate in Hz to which recordings (EDF, BDF) are resampled (default: as stored, one rate for all channels).
        gap: voxels between training and validation part of "mni152" (default 0).
        on_bad_sample: "stop" at a broken sample or "skip" it (default "stop").
        validate_every: epochs between validations.
        overlap: least share of a tile that its neighbour covers in predictions (default 0.5).
        prediction: further rules of prediction: mean of an ensemble, mirrored axes, size of tiles (default none).
        seed: random seed (default 0).
        threads: number of CPU threads (all).
        num_workers: threads that prepare samples; 0 prepares them between steps (0 on the CPU, up to 8 for a GPU).
        device: where the network is trained: "cpu", "cuda", "cuda:1" (the second GPU), "mps", or "auto", a GPU where
            there is one (auto). A run may be resumed on another device.
        precision: precision of products: "float32"; "tf32" (rounded factors, on GPUs that can); "bfloat16"; or
            "float16", with a loss that is scaled so that small gradients stay.
        channels_last: lay out planes and volumes with channels last (on the CPU; measured on a GPU).
        compile: let torch.compile make the network's step; "auto" measures whether it is faster, in runs that are long
            enough (auto on a GPU, false on the CPU).
        engine: what computes large layers of a step, in float32 on the CPU: "convoxel" (our kernels) or "torch"
            (convoxel for planes and volumes, torch for signals).
        deterministic: take deterministic algorithms on a GPU, where PyTorch has them, so that equal runs are bit-equal
            as they always are on the CPU (default False).
        checkpoint_seconds: time between checkpoints in seconds (default 60).
        tensorboard: write TensorBoard events (default True).
        track: other tools that record the run, "mlflow" or "wandb", or both (default none). They must be installed.
        track_files: send the report, the evaluation and the configuration to them as well (default False).

    >>> config = TrainConfig.build(task="classify", data="digits", output="run", epochs=3)
    >>> config.override(["optimiser=sgd", "learning_rate=0.05"]).learning_rate
    0.05
    """

    task: Annotated[
        Literal["segment", "classify", "regress"], BeforeValidator(lambda task: _NOUNS.get(str(task), task))
    ]
    data: _Name
    output: _Name

    model: str | None = None
    levels: int | None = Field(default=None, ge=1, le=8)
    width: float | None = Field(default=None, gt=0, le=1024)
    model_options: JsonObject = Field(default_factory=dict)
    weights: _Name | None = None
    separated: tuple[SeparatedConfig, ...] = ()

    patch: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=3)] | None = None
    slices: int | None = Field(default=None, ge=1, le=99)
    slice_axis: int | None = Field(default=None, ge=0, le=2)
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    accumulate: int = Field(default=1, ge=1, le=4096)
    foreground: float = Field(default=0.8, ge=0, le=1)
    spacing: Literal["keep"] | tuple[float, ...] | None = None
    orientation: Literal["ras", "keep"] | None = None
    resample_labels: bool = False
    normalise: Literal["sample", "dataset", "ct"] | None = None

    minutes: float | None = Field(default=None, gt=0, le=60 * 24 * 366)
    epochs: int | None = Field(default=None, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)

    learning_rate: float | None = Field(default=None, gt=0, le=100)
    optimiser: Annotated[Literal["adam", "sgd"], BeforeValidator(lambda word: "adam" if word == "adamw" else word)] = (
        "adam"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: float = Field(default=0.02, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0, lt=1)
    clip: float | None = Field(default=5.0, gt=0)
    rates: dict[_Name, Annotated[float, Field(ge=0, le=100)]] = Field(default_factory=dict)
    ema: float | None = Field(default=None, gt=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    sync_batch_norm: bool = True
    constraints: ConstraintConfig = Field(default_factory=ConstraintConfig)
    loss: str | None = None
    loss_options: dict[str, float] = Field(default_factory=dict)
    class_weights: Literal["balanced"] | dict[str, float] | None = None

    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    flip_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] | None = None

    validation: int | float | Literal["test"] | None = None
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)
    split: _Name | None = None
    subject_pattern: _Name | None = None
    ignore_label: int | None = Field(default=None, ge=1, le=255)
    regions: tuple[tuple[_Name, tuple[int, ...]], ...] | None = None  # pairs: a checkpoint's JSON sorts names
    axes: _Name | None = None
    rate: Annotated[float, Field(gt=0, le=1e7)] | None = None
    gap: int = Field(default=0, ge=0)
    on_bad_sample: Literal["stop", "skip"] = "stop"
    validate_every: int | None = Field(default=None, ge=1)
    overlap: float = Field(default=0.5, ge=0, lt=1)
    prediction: PredictionRule = Field(default_factory=PredictionRule)

    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int | None = Field(default=None, ge=1, le=1024)
    num_workers: int | None = Field(default=None, ge=0, le=64)
    device: str | None = None
    precision: Literal["float32", "tf32", "bfloat16", "float16"] | None = None
    channels_last: bool | None = None
    compile: bool | Literal["auto"] | None = None
    engine: Literal["convoxel", "torch"] | None = None
    deterministic: bool = False
    checkpoint_seconds: float = Field(default=60.0, gt=0)
    tensorboard: bool = True
    track: tuple[Literal["mlflow", "wandb", "tensorboard"], ...] = ()
    track_files: bool = False

    @field_validator("model_options")
    @classmethod
    def _check_options(cls, value: JsonObject) -> JsonObject:
        _check_json("", value)
        return value

    @field_validator("patch", mode="before")
    @classmethod
    def _check_patch(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        sides = re.findall(r"\d+", value)
        if len(value) > 99 or not 1 <= len(sides) <= 3 or re.sub(r"[\d,x×\s]", "", value.strip("() ")):
            raise ValueError("give 1 to 3 sizes in voxels, such as 48,48,48")
        return sides

    @field_validator("track", mode="before")
    @classmethod
    def _check_track(cls, value: object) -> object:
        if value is None or value == "none":
            return ()
        return [word for word in re.split(r"[,\s]+", value) if word] if isinstance(value, str) else value

    @field_validator("spacing", mode="before")
    @classmethod
    def _check_spacing(cls, value: object) -> object:
        if value is None or (isinstance(value, str) and value == "keep"):
            return value
        words = re.split(r"[,x×\s]+", value.strip("() ")) if isinstance(value, str) else value
        try:
            sides = tuple(map(float, words if isinstance(words, list | tuple) else [words]))
        except (TypeError, ValueError):
            sides = ()
        if not 1 <= len(sides) <= 3 or not all(0 < side < math.inf for side in sides):
            raise ValueError("give 1 to 3 distances above 0 in mm, such as 1,1,3, or keep")
        return sides

    @field_validator("regions", mode="before")
    @classmethod
    def _check_regions(cls, value: object) -> object:
        pairs = list(value.items()) if isinstance(value, dict) else value
        if pairs is None:
            return None
        if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            raise ValueError("give the label values of each region by name, such as regions.core=[2,3]")
        if len({str(name) for name, _ in pairs}) < len(pairs):
            raise ValueError("give every region once")
        return [(name, [held] if isinstance(held, int) else held) for name, held in pairs]

    @field_validator("augment", mode="before")
    @classmethod
    def _check_augment(cls, value: object) -> object:
        if value is None or isinstance(value, bool):
            return {"level": "none" if value is False else "light"}
        return {"level": value} if isinstance(value, str) else value

    @field_validator("constraints", "prediction", mode="before")
    @classmethod
    def _check_group(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, (dict, Entries)):
            raise ValueError("give its entries, such as constraints.max_norm=3.0 or prediction.mean=logits")
        return {} if value is None else value

    @field_validator("loss_options", mode="before")
    @classmethod
    def _check_loss_options(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("rates", mode="before")
    @classmethod
    def _check_rates(cls, value: object) -> object:
        return {} if value is None else join_names(value) if isinstance(value, dict) else value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _check_weights(cls, value: object) -> object:
        if value is None or (isinstance(value, str) and value == "balanced"):
            return value
        try:
            weights = {str(name): float(weight) for name, weight in value.items()} if isinstance(value, dict) else {}
        except (TypeError, ValueError):
            weights = {}
        if not weights or not all(0 < weight < math.inf for weight in weights.values()):
            raise ValueError("give balanced, or numbers above 0 by class, such as class_weights.lesion=5")
        return weights

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str | None) -> str | None:
        if value is not None and not is_device_word(value):
            raise ValueError(f"give {DEVICE_WORDS}")
        return value

    @field_validator("compile", mode="before")
    @classmethod
    def _check_compile(cls, value: object) -> object:
        if value is not None and not isinstance(value, bool) and not (isinstance(value, str) and value == "auto"):
            raise ValueError("give true, false or auto")
        return value

    @field_validator("validation", mode="before")
    @classmethod
    def _check_word(cls, value: object) -> object:
        if isinstance(value, str) and value != "test" and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value):
            raise ValueError("give a count of samples (30) or a fraction of them (0.2)")
        return value

    @field_validator("validation")
    @classmethod
    def _check_validation(cls, value: int | float | str | None) -> int | float | str | None:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a fraction lies between 0 and 1; a whole number counts samples")
        if isinstance(value, int) and value < 1:
            raise ValueError("at least one sample must be held out")
        return value

    @model_validator(mode="after")
    def _check_length(self) -> TrainConfig:
        if self.minutes is not None and self.epochs is not None:
            raise ValueError("give minutes or epochs, not both")
        return self

    @model_validator(mode="after")
    def _check_slices(self) -> TrainConfig:
        if self.slices is None and self.slice_axis is not None:
            raise ValueError("slice_axis: given without slices; expected both, such as slices=3")
        if self.slices is not None and self.slices % 2 == 0:
            raise ValueError(
                f"slices: got {self.slices}; expected an odd number, as many neighbours at either side of a slice"
            )
        if self.slices is not None and self.task != "segment":
            raise ValueError(f"slices: given to {self.task}; expected none: slices of volumes are segmented")
        return self

    @model_validator(mode="after")
    def _check_mix(self) -> TrainConfig:
        if self.augment.mix != "none" and self.task == "segment":
            raise ValueError("augment.mix: given to segment; expected none: only whole images are mixed")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> TrainConfig:
        find_loss(self)
        if self.regions is not None:
            if self.task != "segment":
                raise ValueError(f"regions: given to {self.task}; expected none: only label maps have regions")
            plan_regions(dict(self.regions))
        if self.ignore_label is not None and self.task != "segment":
            raise ValueError(
                f"ignore_label: given to {self.task}; expected none: only label maps have voxels to ignore"
            )
        return self

    @classmethod
    def build(cls, **entries: Any) -> TrainConfig:
        """Return a checked configuration.

        Raises:
            ConfigError: an entry is unknown, missing or outside its limits; one line, every mistake named.
        """
        return cls(**entries)

    @classmethod
    def from_yaml(cls, path: str | Path, **entries: Any) -> TrainConfig:
        """Return the configuration in a YAML file; ``entries`` that are not None replace the file's.

        Raises:
            ConfigError: the file cannot be read, is not a mapping, or holds a wrong entry.
        """
        try:
            found = load_yaml(read_text(Path(path)))
        except DataError as error:
            raise ConfigError(f"config: {error}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a day that does not exist
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f"line {mark.line + 1}: "
            reason = where + " ".join(str(getattr(error, "problem", None) or error).split()).rstrip(".")
            raise ConfigError(f"config: {path} is not YAML: {reason}. Expected `name: value` lines.") from None
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ConfigError(f"config: {path} must hold `name: value` lines, got {type(found).__name__}.")
        stated = {name: value for name, value in entries.items() if value is not None}
        try:
            return cls.build(**{**found, **stated})
        except ConfigError as error:
            raise ConfigError(f"{error} (in {path})") from None

    def override(self, assignments: Sequence[str]) -> TrainConfig:
        """Return the configuration with ``name=value`` or ``name.inner=value`` replaced; values are YAML.

        Raises:
            ConfigError: an assignment has no ``=``, its value is not YAML, or the entry is wrong.
        """
        entries = self.model_dump(exclude_unset=True)
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            keys = name.strip().split(".")
            if not equals or not all(keys):
                raise ConfigError(f"set: got {assignment!r}; expected name=value, such as batch_size=4.")
            try:
                value = _parse_value(text)
            except (yaml.YAMLError, ValueError, RecursionError):
                raise ConfigError(f"set: the value in {assignment!r} is not YAML; quote it.") from None
            inner = entries
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
                if not isinstance(inner, dict):
                    raise ConfigError(f"set: {key!r} in {assignment!r} has no entries of its own.")
            inner[keys[-1]] = value
            if name.strip() in _LIMITS and value is not None:
                entries[_LIMITS[name.strip()]] = None
        return type(self).build(**entries)

    def to_dict(self) -> JsonObject:
        """Return the entries as JSON and YAML hold them (tuples become lists)."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the YAML text that :meth:`from_yaml` reads back to an equal configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def stated(self) -> JsonObject:
        """Return the entries that were given a value and not left at their defaults."""
        entries = self.to_dict()
        return {name: entries[name] for name in TrainConfig.model_fields
                if name in self.model_fields_set and entries[name] is not None}  # fmt: skip

    def difference(self, stored: TrainConfig) -> list[str]:
        """Return ``name: stored → stated`` for each entry stated here that would change the result.

        >>> first = TrainConfig.build(task="classify", data="digits", output="run", epochs=3, seed=1)
        >>> TrainConfig.build(task="classify", data="digits", output="run", epochs=4).difference(first)
        ['epochs: 3 → 4']
        """
        theirs = stored.to_dict()
        return [
            f"{name}: {'unset' if theirs[name] is None else theirs[name]} → {value}"
            for name, value in self.stated().items()
            if name not in _NEUTRAL and value != theirs[name]
        ]

    def edits(self, stored: TrainConfig) -> list[str]:
        """Return ``name: stored → here`` for every entry that differs and would change the result."""
        ours, theirs = self.to_dict(), stored.to_dict()
        return [
            f"{name}: {'unset' if theirs[name] is None else theirs[name]} → {'unset' if value is None else value}"
            for name, value in ours.items()
            if name not in _NEUTRAL and value != theirs[name]
        ]

    def merged(self, stored: TrainConfig) -> TrainConfig:
        """Return the stored configuration with the entries that are stated here."""
        stated = self.stated()
        entries = {**stored.to_dict(), **stated}
        entries.update({other: None for one, other in _LIMITS.items() if one in stated})
        if stated.get("loss", stored.loss) != stored.loss:  # the numbers of another loss do not belong to it
            entries.update({name: stated.get(name) for name in ("loss_options", "class_weights")})
        return TrainConfig.build(**entries)


def _check_json(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is what JSON can hold, as a checkpoint must hold it."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            _check_json(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_json(name, inner)
    elif not (
        value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    ):
        raise ValueError(f"{name} is {brief(value)}; expected a text, a finite number, true, false, or lists of these")


def _parse_value(text: str) -> object:
    value = load_yaml(text)
    if isinstance(value, str):
        try:
            # YAML 1.1 reads 1e-3 as text (it requires 1.0e-3); users mean a number.
            return float(value)
        except ValueError:
            return value
    return value
