"""The plans of nnU-Net: ``plans.json`` and ``dataset.json`` beside trained networks, checked and in our words.

Everything in them is text from outside. What a plan says is bounded before a network is built from it, and what would
be computed in another way is refused by name.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convoxel.data.dataset_json import LabelScheme, label_scheme, read_description
from convoxel.data.geometry import Geometry
from convoxel.files.fault import brief, fault, shown
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject
from convoxel.predict.normalisation import ChannelRule, Normalisation
from convoxel.predict.prediction_rule import PredictionRule

_MOST_BYTES = 64 * 2**20  # plans of large data sets list sizes of every image
_MOST_PARENTS = 16
_READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO")
_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu", "ELU": "elu", "GELU": "gelu", "SiLU": "silu"}
_NETWORKS = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet"}
_SCHEMES: dict[str, Literal["zscore", "ct", "range", "bytes", "none"]] = {
    "ZScoreNormalization": "zscore", "CTNormalization": "ct", "NoNormalization": "none",
    "RescaleTo01Normalization": "range", "RGBTo01Normalization": "bytes",
}  # fmt: skip
# Plans of the first releases of nnU-Net v2 name the numbers of the network in this way.
_OLD_NAMES = {
    "kernel_sizes": "conv_kernel_sizes", "strides": "pool_op_kernel_sizes",
    "n_conv_per_stage": "n_conv_per_stage_encoder", "n_blocks_per_stage": "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder": "n_conv_per_stage_decoder",
}  # fmt: skip

Count = Annotated[int, Field(ge=1, le=2**20)]
Few = Annotated[int, Field(ge=1, le=64)]
Distance = Annotated[float, Field(gt=0, lt=math.inf)]
Several = Annotated[tuple[Few, ...], Field(min_length=1, max_length=16)]
Model = TypeVar("Model", bound=BaseModel)


class Outside(BaseModel):
    """Entries of a file of nnU-Net, which has others too."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class Architecture(Outside):
    """The numbers of a network, as nnU-Net hands them to its class."""

    n_stages: Annotated[int, Field(ge=2, le=16)]
    features_per_stage: tuple[Count, ...]
    kernel_sizes: tuple[tuple[Few, ...] | Few, ...]
    strides: tuple[tuple[Few, ...] | Few, ...]
    n_conv_per_stage: Several | Few | None = None
    n_blocks_per_stage: Several | Few | None = None
    n_conv_per_stage_decoder: Several | Few
    conv_bias: bool = False
    norm_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False
    stem_channels: int | None = None
    block: str | None = None


class _Intensities(Outside):
    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


class Configuration(Outside):
    """One configuration of a plan, such as 3d_fullres, with what it inherits."""

    patch_size: Annotated[tuple[Count, ...], Field(min_length=2, max_length=3)]
    spacing: Annotated[tuple[Distance, ...], Field(min_length=2, max_length=3)]
    normalization_schemes: Annotated[tuple[str, ...], Field(min_length=1, max_length=4096)]
    use_mask_for_norm: tuple[bool, ...]
    preprocessor_name: str = "DefaultPreprocessor"
    previous_stage: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    resampling_fn_data: str = "resample_data_or_seg_to_shape"
    resampling_fn_data_kwargs: dict[str, Any] = Field(default_factory=dict)
    resampling_fn_seg: str = "resample_data_or_seg_to_shape"
    resampling_fn_seg_kwargs: dict[str, Any] = Field(default_factory=dict)
    resampling_fn_probabilities: str = "resample_data_or_seg_to_shape"
    resampling_fn_probabilities_kwargs: dict[str, Any] = Field(default_factory=dict)


class _Plans(Outside):
    configurations: dict[str, dict[str, Any]]
    dataset_name: str = "nnunet"
    transpose_forward: tuple[Annotated[int, Field(ge=0, le=2)], ...]
    image_reader_writer: str = "SimpleITKIO"
    original_median_shape_after_transp: tuple[float, ...] = ()
    original_median_spacing_after_transp: tuple[float, ...] = ()
    foreground_intensity_properties_per_channel: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Plan(BaseModel):
    """All that a plan says of one configuration, in our words.

    Attributes:
        name: name of the configuration.
        dataset: name of the data set.
        model: name of the network in the zoo.
        options: options of the network; its normalisation is what its weights say.
        dims: number of spatial axes of images and network.
        channels: number of channels.
        labels: names of classes or regions, and the value of voxels that no class is known of.
        patch: size of a tile.
        geometry: the rule that brings images onto the network's grid.
        normalisation: rules of the channels.
        planes: whether the network sees volumes slice by slice.
        previous: configuration of the stage before, in a cascade; of nnU-Net v1, its trainer.
        rule: rules of prediction, but for what a checkpoint says.
        trainer: name of the trainer; empty where the checkpoint says it.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    dataset: str
    model: str
    options: dict[str, Any]
    dims: int
    channels: int
    labels: LabelScheme
    patch: tuple[int, ...]
    geometry: Geometry
    normalisation: Normalisation
    planes: bool
    previous: str | None = None
    rule: PredictionRule = PredictionRule(mean="logits", tile="patch", blend="filter")
    trainer: str = ""

    @property
    def previous_values(self) -> tuple[int, ...]:
        """Values of the label map of the stage before, each of which is a channel of the network's input."""
        if self.previous is None:
            return ()
        if self.labels.regions is not None:
            return tuple(sorted(self.labels.regions.known))
        return tuple(range(1, len(self.labels.names or ())))


def read_plan(folder: Path, name: str) -> Plan:
    """Return what the plans in ``folder`` say of the configuration called ``name``.

    Raises:
        DataError: a file is missing or wrong, or says what we do not compute in the same way.
    """
    where = folder / "plans.json"
    plans = check_entries(_Plans, read_plans(folder), where)
    merged = _inherit(plans.configurations, name, where)
    configuration = check_entries(Configuration, merged, where, name)
    _refuse_others(configuration, name, where)
    axes, planes = _axes(plans, configuration, where)
    dims = len(axes)
    described = folder / "dataset.json"
    found = read_description(folder)
    if found is None:
        raise fault(described, "it is missing", "the classes of the network", "Copy it from the training folder")
    channels = found.get("channel_names", found.get("modality"))
    count = len(configuration.normalization_schemes)
    if not isinstance(channels, dict) or len(channels) != count or len(configuration.use_mask_for_norm) != count:
        came = f"channel_names is {brief(channels)}, and {shown(where)} normalises {count} channels"
        raise fault(described, came, "as many channels in both", "Copy both files from the training folder")
    spacing = configuration.spacing
    if planes:
        own = plans.original_median_spacing_after_transp
        spacing = (own[0] if len(own) == 3 and 0 < own[0] < math.inf else 1.0, *spacing)
    geometry = Geometry(
        "ras" if plans.image_reader_writer == "NibabelIOWithReorient" else "keep",
        spacing, axes=axes, kept=(0,) if planes else (), crop="nonzero", sampling="faces",
    )  # fmt: skip
    model, options = _network(merged, configuration, where, name, planes)
    return Plan(
        name=name, dataset=plans.dataset_name, model=model, options=options, dims=dims, channels=count,
        labels=label_scheme(described, found),
        patch=(1, *configuration.patch_size) if planes else configuration.patch_size,
        geometry=geometry, normalisation=_normalisation(plans, configuration, where), planes=planes,
        previous=configuration.previous_stage,
    )  # fmt: skip


def read_plans(folder: Path) -> JsonObject:
    """Return the content of ``plans.json``.

    Raises:
        DataError: it is missing or no JSON object.
    """
    path = folder / "plans.json"
    if not path.is_file():
        inside = sorted(each.parent.name for name in ("json", "pkl") for each in folder.glob(f"*/plans.{name}"))
        mend = f"Name one of {', '.join(map(shown, inside[:3]))}" if inside else "Check the path"
        raise fault(
            folder, "it holds no plans.json and no plans.pkl",
            "a folder of trained networks, TRAINER__PLANS__CONFIGURATION", mend,
        )  # fmt: skip
    try:
        content = json.loads(read_text(path, _MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise fault(path, f"this is not JSON ({error})", "the plans of nnU-Net", "Copy it again") from None
    if not isinstance(content, dict):
        raise fault(path, f"it holds a {type(content).__name__}", "the plans of nnU-Net", "Copy it again")
    return content


def check_entries(model: type[Model], entries: object, where: Path, name: str = "", version: str = "v2") -> Model:
    """Return entries as ``model`` has them; DataError where one, below ``name``, is missing or of another kind."""
    try:
        return model.model_validate(entries)
    except ValidationError as error:
        item = error.errors()[0]
        entry = ".".join([*([name] if name else []), *map(str, item["loc"])])
        came = f"{shown(entry)} is {brief(item.get('input'))} ({item['msg'].lower()})"
        raise fault(where, came, f"the plans of nnU-Net {version}", "Copy the file from the training folder") from None


def _inherit(configurations: dict[str, dict[str, Any]], name: str, where: Path) -> JsonObject:
    """Return the entries of a configuration over those of its parents."""
    found: JsonObject = {}
    parent: object = name
    for _ in range(_MOST_PARENTS):
        if not isinstance(parent, str) or parent not in configurations:
            known = ", ".join(map(shown, list(configurations)[:8]))
            raise fault(where, f"there is no configuration {brief(parent)}", f"one of {known}", "Copy the file again")
        found = {**configurations[parent], **found}
        parent = configurations[parent].get("inherits_from")
        if parent is None:
            return found
    raise fault(where, f"{shown(name)} inherits from itself", "plans without circles", "Copy the file again")


def _refuse_others(configuration: Configuration, name: str, where: Path) -> None:
    """Refuse what nnU-Net can do and an imported run cannot."""
    mend = "Predict with nnU-Net itself"
    if configuration.preprocessor_name != "DefaultPreprocessor":
        came = f"the preprocessor is {shown(configuration.preprocessor_name)}"
        raise fault(where, came, "DefaultPreprocessor", mend)
    resampled = [("data", 3), ("probabilities", 1)]
    for what, order in resampled if configuration.previous_stage is None else [*resampled, ("seg", 1)]:
        function: str = getattr(configuration, f"resampling_fn_{what}")
        stated: dict[str, Any] = getattr(configuration, f"resampling_fn_{what}_kwargs")
        wanted = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        other = {key: value for key, value in {**wanted, **stated}.items() if key in wanted and value != wanted[key]}
        if function != "resample_data_or_seg_to_shape" or other:
            came = f"{what} is resampled by {shown(function)} with {brief(other or stated)}"
            raise fault(where, came, f"resample_data_or_seg_to_shape with order {order}, order_z 0", mend)


def _axes(plans: _Plans, configuration: Configuration, where: Path) -> tuple[tuple[int, ...], bool]:
    """Return the axis, as files have them, of each axis of the network, and whether it sees volumes slice by slice."""
    reader, forward = plans.image_reader_writer, plans.transpose_forward
    if reader not in _READERS:
        raise fault(
            where, f"images are read by {shown(reader)}", f"one of {', '.join(_READERS)}", "Predict with nnU-Net"
        )
    if sorted(forward) != [0, 1, 2]:
        raise fault(where, f"transpose_forward is {brief(forward)}", "the axes 0, 1 and 2", "Copy the file again")
    if len(configuration.patch_size) != len(configuration.spacing):
        came = f"patch_size is {brief(configuration.patch_size)} and spacing {brief(configuration.spacing)}"
        raise fault(where, came, "as many numbers in both", "Copy the file again")
    flat = len(configuration.patch_size) == 2
    shape = plans.original_median_shape_after_transp
    pictures = flat and (reader == "NaturalImage2DIO" or (len(shape) == 3 and shape[0] == 1))
    if pictures and forward[0] != 0:
        raise fault(where, f"transpose_forward is {brief(forward)}", "0 first, for pictures", "Copy the file again")
    axes = tuple(axis - 1 for axis in forward[1:]) if pictures else forward
    if reader in ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"):  # they read axes in the reverse order
        axes = tuple(len(axes) - 1 - axis for axis in axes)
    return axes, flat and not pictures


def _normalisation(plans: _Plans, configuration: Configuration, where: Path) -> Normalisation:
    rules = []
    pairs = zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    for channel, (scheme, masked) in enumerate(pairs):
        kind = _SCHEMES.get(scheme)
        if kind is None:
            came = f"channel {channel} is normalised by {shown(scheme)}"
            raise fault(where, came, f"one of {', '.join(_SCHEMES)}", "Predict with nnU-Net")
        if kind != "ct":
            rules.append(ChannelRule(kind, masked and kind == "zscore"))
            continue
        found = plans.foreground_intensity_properties_per_channel.get(str(channel))
        name = f"foreground_intensity_properties_per_channel.{channel}"
        known = check_entries(_Intensities, found, where, name)
        rules.append(ChannelRule("ct", False, known.mean, known.std, known.percentile_00_5, known.percentile_99_5))
    return Normalisation("channels", channels=tuple(rules))


def _network(
    merged: JsonObject, configuration: Configuration, where: Path, name: str, planes: bool
) -> tuple[str, dict[str, Any]]:
    """Return the network's name in the zoo and its options; normalisation and biases are what its weights say."""
    stated = merged.get("architecture")
    if isinstance(stated, dict):
        kind, numbers = str(stated.get("network_class_name")).rpartition(".")[2], stated.get("arch_kwargs")
    else:
        kind, numbers = str(merged.get("UNet_class_name")), _old_numbers(merged)
    if kind not in _NETWORKS:
        raise fault(
            where, f"the network of {shown(name)} is {shown(brief(kind))}", f"one of {', '.join(_NETWORKS)}",
            "Other networks cannot be imported: predict with nnU-Net",
        )  # fmt: skip
    found = check_entries(Architecture, numbers, where, f"{name}.architecture")
    dims, stages = len(configuration.patch_size), found.n_stages
    blocks = found.n_conv_per_stage if kind == "PlainConvUNet" else found.n_blocks_per_stage
    strides = [_per_axis(entry, dims) for entry in found.strides]
    kernels = [_per_axis(entry, dims) for entry in found.kernel_sizes]
    eps, slope = (found.norm_op_kwargs or {}).get("eps", 1e-5), (found.nonlin_kwargs or {}).get("negative_slope", 0.01)
    activation = _ACTIVATIONS.get(str(found.nonlin).rpartition(".")[2])
    for wrong, came, expected in (
        (blocks is None, "it states no convolutions for each stage", "n_conv_per_stage or n_blocks_per_stage"),
        ({stages} != {len(strides), len(kernels), len(found.features_per_stage)},
         f"it has {stages} stages and numbers for others", "one entry a stage"),
        (any(len(entry) != dims for entry in (*strides, *kernels)), "strides or kernels have other axes than the patch",
         f"{dims} numbers a stage"),
        (any(step != 1 for step in strides[0]), f"the first stride is {brief(strides[0])}", "1 at full resolution"),
        (eps != 1e-5 or not (found.norm_op_kwargs or {}).get("affine", True),
         f"norm_op_kwargs is {brief(found.norm_op_kwargs)}", "eps 1e-5 and affine"),
        (activation is None, f"nonlin is {brief(found.nonlin)}", f"one of {', '.join(_ACTIVATIONS)}"),
        (slope != 0.01, f"negative_slope is {brief(slope)}", "0.01"),
        (found.nonlin_first, "activations come before normalisation", "nonlin_first false"),
        (found.stem_channels not in (None, found.features_per_stage[0]), f"stem_channels is {found.stem_channels}",
         "as many as the first stage has"),
        (found.block is not None and not found.block.endswith("BasicBlockD"), f"block is {brief(found.block)}",
         "BasicBlockD"),
    ):  # fmt: skip
        if wrong:
            place = f"the network of {shown(name)}"
            raise fault(
                where, f"in {place}, {came}", expected, "Other networks cannot be imported: predict with nnU-Net"
            )
    decoder = found.n_conv_per_stage_decoder
    if planes:  # a plane is a volume of one slice
        strides, kernels = [(1, *entry) for entry in strides], [(1, *entry) for entry in kernels]
    return _NETWORKS[kind], {
        "levels": stages - 1, "width": list(found.features_per_stage), "blocks": _listed(blocks),
        "decoder_blocks": _listed(decoder[::-1] if isinstance(decoder, tuple) else decoder),
        "kernels": [list(entry) for entry in kernels], "strides": [list(entry) for entry in strides[1:]],
        "activation": activation, "deep_supervision": max(stages - 2, 0),
    }  # fmt: skip


def _old_numbers(merged: JsonObject) -> JsonObject:
    """Return the numbers of a network from plans of the first releases of nnU-Net v2."""
    try:
        base, most = int(merged["UNet_base_num_features"]), int(merged["unet_max_num_features"])
        numbers = {name: merged[old] for name, old in _OLD_NAMES.items()}
        stages = len(numbers["strides"])
        features = [min(base * 2**stage, most) for stage in range(min(stages, 32))]
    except (KeyError, TypeError, ValueError):
        return {}
    return {**numbers, "n_stages": stages, "features_per_stage": features, "nonlin": "LeakyReLU", "conv_bias": True}


def _per_axis(entry: tuple[int, ...] | int, dims: int) -> tuple[int, ...]:
    return entry if isinstance(entry, tuple) else (entry,) * dims


def _listed(entry: tuple[int, ...] | int | None) -> list[int] | int | None:
    return list(entry) if isinstance(entry, tuple) else entry
