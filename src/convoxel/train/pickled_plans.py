"""The plans of nnU-Net v1, which are pickles beside its networks, checked and in our words.

They are read as data (``files.pickled_values``). The file beside the first fold's checkpoint says all: the plans, the
stage, and the name of the trainer, a class that may change the network and its rules. Those of the package that change
neither are known by name; another one is refused unless somebody says which of them it predicts like.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from convoxel.data.dataset_json import LabelScheme, label_scheme, read_description
from convoxel.data.geometry import Geometry
from convoxel.files.fault import brief, fault, shown
from convoxel.files.pickled_values import read_pickled
from convoxel.files.stream import read_text
from convoxel.predict.normalisation import ChannelRule, Normalisation
from convoxel.predict.prediction_rule import LargestComponent, PredictionRule
from convoxel.train.nnunet_plans import Count, Distance, Few, Outside, Plan, check_entries

_MEND = "Predict with nnU-Net itself"
_MOST_FEATURES = {2: 480, 3: 320}
_SCHEMES: dict[str, Literal["zscore", "ct", "none"]] = {"nonCT": "zscore", "CT": "ct", "noNorm": "none"}
_POSTPROCESSING = "postprocessing.json"

# Endings of the package's trainers that change the training alone, and of those that do not mirror.
_TRAINING = (
    r"Loss_\w+|SegLoss_\w+|Adam\w*|SGD_\w+|Ranger_\w+|momentum\w+|cycleAtEnd\d?|copy\d|fp16|fp32|fullEvals|warmup|BN|"
    r"DA[235](?:_BN)?|ForceBD|ForceSD|insaneDA|independentScalePerAxis|softDeepSupervision|noDeepSupervision|"
    r"graduallyTransitionFromCEToDice|reduceMomentumDuringTraining|\d+epochs|ep\d+|lowerLR|noConnComp|shorter|"
    r"shorter_lowerLR|smallerBinStrel|EducatedGuess\d?"
)
_UNMIRRORED = r"noMirroring|noDataAugmentation|ep\d+_nomirror"
_TRAINER = re.compile(rf"nnUNetTrainer(?:V2)?(CascadeFullRes)?(?:_(?:{_TRAINING}|({_UNMIRRORED})))?")

PerAxis = Annotated[tuple[Few, ...], Field(min_length=2, max_length=3)]


class _Stage(Outside):
    patch_size: Annotated[tuple[Count, ...], Field(min_length=2, max_length=3)]
    current_spacing: Annotated[tuple[Distance, ...], Field(min_length=3, max_length=3)]
    num_pool_per_axis: Annotated[tuple[Annotated[int, Field(ge=0, le=15)], ...], Field(min_length=2, max_length=3)]
    pool_op_kernel_sizes: Annotated[tuple[PerAxis, ...], Field(min_length=1, max_length=15)] | None = None
    conv_kernel_sizes: Annotated[tuple[PerAxis, ...], Field(min_length=2, max_length=16)] | None = None


class _Intensities(Outside):
    mean: float
    sd: float
    percentile_00_5: float
    percentile_99_5: float


class _Properties(Outside):
    intensityproperties: dict[int, Any] | None = None


class _Export(Outside):
    force_separate_z: bool | None = None
    interpolation_order: int = 1
    interpolation_order_z: int = 0


class _Plans(Outside):
    plans_per_stage: dict[int, _Stage]
    num_modalities: Annotated[int, Field(ge=1, le=4096)]
    num_classes: Annotated[int, Field(ge=1, le=254)]
    all_classes: tuple[int, ...]
    normalization_schemes: dict[int, str]
    use_mask_for_norm: dict[int, bool]
    base_num_features: Count
    conv_per_stage: Annotated[int, Field(ge=2, le=16)] = 2
    transpose_forward: tuple[Annotated[int, Field(ge=0, le=2)], ...] | None = None
    preprocessor_name: str | None = None
    segmentation_export_params: _Export = Field(default_factory=_Export)
    dataset_properties: _Properties = Field(default_factory=_Properties)


class _Record(Outside):
    """The record beside a checkpoint: the plans, and the arguments and the name of its trainer."""

    name: str
    init: Annotated[tuple[Any, ...], Field(min_length=6, max_length=64)]
    plans: _Plans


class Trainer(NamedTuple):
    """The facts that a trainer's name says.

    Attributes:
        name: name in the file.
        cascade: whether its network is the second stage of a cascade.
        mirrors: whether it mirrored images, so that prediction does.
    """

    name: str
    cascade: bool
    mirrors: bool


def read_pickled_plan(source: Path, record: Path, trainer: str | None = None, postprocessing: bool = True) -> Plan:
    """Return what the record beside a checkpoint says.

    Args:
        source: folder of trained networks, where ``postprocessing.json`` and ``dataset.json`` may lie too.
        record: the file ``model_….model.pkl`` of a fold.
        trainer: trainer of nnU-Net's package that the file's own predicts like (default: the file's own).
        postprocessing: whether the clean-up that nnU-Net found is part of the rules (default True).

    Raises:
        DataError: a file is missing or wrong, or says what we do not compute in the same way.
    """
    found = check_entries(_Record, read_pickled(record), record, version="v1")
    plans, known = found.plans, _read_trainer(record, found.name, trainer)
    stage = _find_stage(plans, found.init[5], record)
    planes = len(stage.patch_size) == 2
    kernels, strides = _levels(stage, record)
    _refuse_others(plans, planes, record)
    forward = plans.transpose_forward or (0, 1, 2)
    if sorted(forward) != [0, 1, 2]:
        raise fault(record, f"transpose_forward is {brief(forward)}", "the axes 0, 1 and 2", "Copy the file again")
    geometry = Geometry(
        spacing_mm=stage.current_spacing, axes=tuple(2 - axis for axis in forward), kept=(0,) if planes else (),
        crop="nonzero", sampling="faces", thick_back="image",
    )  # fmt: skip
    if planes:  # a plane is a volume of one slice
        kernels, strides = [(1, *entry) for entry in kernels], [(1, *entry) for entry in strides]
    levels, most = len(strides), _MOST_FEATURES[len(stage.patch_size)]
    width = [min(plans.base_num_features * 2**level, most) for level in range(1, levels + 1)]
    options = {
        "levels": levels, "width": [plans.base_num_features, *width], "blocks": plans.conv_per_stage,
        "decoder_blocks": plans.conv_per_stage, "kernels": list(map(list, kernels)),
        "strides": list(map(list, strides)), "activation": "leaky_relu", "deep_supervision": levels - 1,
    }  # fmt: skip
    lowest = len(plans.plans_per_stage) > 1 and stage is plans.plans_per_stage[min(plans.plans_per_stage)]
    previous = _previous_trainer(found.init, record) if known.cascade else None
    name = "2d" if planes else "3d_cascade_fullres" if known.cascade else "3d_lowres" if lowest else "3d_fullres"
    mirror = (1, 2) if planes else (0, 1, 2)
    rule = PredictionRule(
        mean="shares", tile_mean="shares", mirror=mirror if known.mirrors else (), tile="patch", blend="filter_float32",
        previous_map="squeezed", largest=_read_postprocessing(source, plans.num_classes) if postprocessing else (),
    )  # fmt: skip
    return Plan(
        name=name, dataset=source.absolute().parent.name, model="generic_unet", options=options, dims=3,
        channels=plans.num_modalities, labels=_read_labels(source, plans, record),
        patch=(1, *stage.patch_size) if planes else stage.patch_size, geometry=geometry,
        normalisation=_normalisation(plans, record), planes=planes, previous=previous, rule=rule, trainer=known.name,
    )  # fmt: skip


def _read_trainer(record: Path, name: str, like: str | None) -> Trainer:
    match = _TRAINER.fullmatch(name if like is None else like)
    if match is None:
        raise fault(
            record,
            f"the trainer is {shown(brief(like or name))}, which may have another network or predict otherwise",
            "one that changes the training of nnUNetTrainerV2 alone",
            "If it does, say what it predicts like: --trainer nnUNetTrainerV2 (or nnUNetTrainerV2_noMirroring)",
        )
    return Trainer(name, bool(match[1]), not match[2])


def _find_stage(plans: _Plans, stated: object, record: Path) -> _Stage:
    stages = plans.plans_per_stage
    number = next(iter(stages)) if stated is None and len(stages) == 1 else stated
    if not isinstance(number, int) or number not in stages:
        came = f"the trainer's stage is {brief(stated)}"
        raise fault(record, came, f"one of {brief(sorted(stages))}", "Copy the file again")
    return stages[number]


def _levels(stage: _Stage, record: Path) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the kernels of all levels, and the strides between them; plans of early versions leave them out."""
    dims, pools = len(stage.patch_size), stage.num_pool_per_axis
    strides = list(stage.pool_op_kernel_sizes or ())
    if stage.pool_op_kernel_sizes is None:
        strides = [tuple(1 + (max(pools) - count <= step) for count in pools) for step in range(max(pools))]
    kernels = list(stage.conv_kernel_sizes or [(3,) * dims] * (len(strides) + 1))[: len(strides) + 1]
    for wrong, came, expected in (
        (any(len(entry) != dims for entry in (*strides, *kernels)) or not strides,
         "strides or kernels have other axes than the patch", f"{dims} numbers a level"),
        (len(kernels) <= len(strides), f"there are {len(kernels)} kernels", f"{len(strides) + 1}, one a level"),
        ({side for entry in kernels for side in entry} - {1, 3}, f"kernels are {brief(kernels)}", "sizes of 1 and 3"),
    ):  # fmt: skip
        if wrong:
            raise fault(record, came, expected, _MEND)
    return kernels, strides


def _refuse_others(plans: _Plans, planes: bool, record: Path) -> None:
    usual = "PreprocessorFor2D" if planes else "GenericPreprocessor"
    if plans.preprocessor_name not in (None, usual):
        raise fault(record, f"the preprocessor is {shown(plans.preprocessor_name)}", usual, _MEND)
    if plans.segmentation_export_params != _Export():
        came = f"maps are resampled with {brief(plans.segmentation_export_params.model_dump())}"
        raise fault(record, came, "order 1, across thick slices 0", _MEND)
    if sorted(plans.all_classes) != list(range(1, plans.num_classes + 1)):
        raise fault(record, f"all_classes is {brief(plans.all_classes)}", f"1 … {plans.num_classes}", _MEND)


def _previous_trainer(init: tuple[Any, ...], record: Path) -> str:
    name = init[8] if len(init) > 8 else None
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,64}", name):
        raise fault(record, f"the trainer of the stage before is {brief(name)}", "its name", "Copy the file again")
    return name


def _normalisation(plans: _Plans, record: Path) -> Normalisation:
    rules = []
    for channel in range(plans.num_modalities):
        scheme, masked = plans.normalization_schemes.get(channel), plans.use_mask_for_norm.get(channel)
        kind = _SCHEMES.get(str(scheme))
        if kind is None or masked is None:
            came = f"channel {channel} is normalised by {shown(brief(scheme))}, its mask is {brief(masked)}"
            raise fault(record, came, f"one of {', '.join(_SCHEMES)}, and True or False", _MEND)
        if kind != "ct":
            rules.append(ChannelRule(kind, masked and kind == "zscore"))
            continue
        stated = (plans.dataset_properties.intensityproperties or {}).get(channel)
        known = check_entries(_Intensities, stated, record, f"intensityproperties.{channel}", version="v1")
        rules.append(ChannelRule("ct", masked, known.mean, known.sd, known.percentile_00_5, known.percentile_99_5))
    return Normalisation("channels", channels=tuple(rules), resampled=True)


def _read_labels(source: Path, plans: _Plans, record: Path) -> LabelScheme:
    """Return the classes, by the names of ``dataset.json`` where somebody put it beside the networks."""
    described = read_description(source)
    if described is None:
        return LabelScheme(("background", *(f"class {number}" for number in range(1, plans.num_classes + 1))))
    found = label_scheme(source / "dataset.json", described)
    if found.regions is not None or found.ignored is not None or len(found.names or ()) != plans.num_classes + 1:
        came = f"labels are {brief(described.get('labels'))}"
        expected = f"the background and the {plans.num_classes} classes of {record.name}"
        raise fault(source / "dataset.json", came, expected, "Correct or remove it")
    return found


def _read_postprocessing(source: Path, classes: int) -> tuple[LargestComponent, ...]:
    """Return the clean-up that nnU-Net found to help, and applies to what it predicts."""
    path = source / _POSTPROCESSING
    if not path.is_file():
        return ()
    expected = '{"for_which_classes": [[1, 2], 1]}, with classes of the network'
    try:
        found = json.loads(read_text(path, 2**20))
        groups = [tuple(entry) if isinstance(entry, list) else (entry,) for entry in found["for_which_classes"]]
        least = _least_sizes(found.get("min_valid_object_sizes"))
        if any(type(value) is not int or not 0 < value <= classes for group in groups for value in group):
            raise ValueError("a class is none of the network's")
        return tuple(
            LargestComponent(values=group, least_mm3=None if least is None else least[group]) for group in groups
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        came = f"it is no description of a clean-up ({brief(str(error))})"
        raise fault(path, came, expected, "Correct it, or import with --no-postprocessing") from None


def _least_sizes(text: object) -> Mapping[tuple[int, ...], float] | None:
    """Return the sizes that nnU-Net writes as Python's text of a dictionary; None where there are none."""
    if text in (None, "None"):
        return None
    if not isinstance(text, str) or len(text) > 2**14:
        raise ValueError(f"min_valid_object_sizes is {brief(text)}")
    try:
        stated = ast.literal_eval(text)
    except (SyntaxError, MemoryError) as error:
        raise ValueError(f"min_valid_object_sizes is {brief(text)}") from error
    return {key if isinstance(key, tuple) else (key,): float(value) for key, value in stated.items()}
