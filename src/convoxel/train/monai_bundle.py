"""Bundles of MONAI: ``configs/metadata.json``, ``configs/inference.json`` (or .yaml) and ``models/model.pt``, as data.

Plain values and references to them (``@name``, ``@name::entry``) are read. Expressions (``$…``) are code: a number, a
word or a list written as one is read, a choice between two (``$1.5 if @highres else 3.0``) and the length of a list
(``$len(@sizes)``); ``$@network.to(@device)`` stands for the network, and any other is refused where it is needed. What
a transform does is mapped to the rules of a run; a transform, or an argument of one, that has no such rule is refused
by name, since a run without it would be wrong in silence.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import brief, fault, plural, shown
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject
from convoxel.files.yaml_text import load_yaml
from convoxel.models.monai_network import NETWORKS, network_name
from convoxel.predict.normalisation import IntensityStep

_NAMES = ("inference.json", "inference.yaml", "inference.yml")
_MOST_DEPTH = 32
_MOST_VALUES = 20_000
_MOST_LETTERS = 4096  # of an expression
_MOST_CLASSES = 256
# What a reference or an expression that is one may look like.
_REFERENCE = re.compile(r"\$?@([\w.-]+(?:(?:::|#)[\w.-]+)*)")
_MOVED = re.compile(r"\$@([\w.-]+(?:(?:::|#)[\w.-]+)*)\.to\(\s*@?[\w.'\":]+\s*\)")
_MEND = "Predict with MONAI itself, or change the configuration"
_LEAVE = "Predict with MONAI itself, or, where results are right without it, leave it out by --without"

# Entries of a transform that say nothing of what it does to an image.
_OF_ALL = frozenset({"_target_", "_desc_", "_disabled_", "_mode_", "_requires_", "keys", "allow_missing_keys", "lazy"})
_WITHOUT_EFFECT = frozenset({
    "LoadImaged", "EnsureChannelFirstd", "AddChanneld", "AsChannelFirstd", "EnsureTyped", "ToTensord", "ToDeviced",
    "Identityd", "SelectItemsd", "DeleteItemsd", "CopyItemsd", "SqueezeDimd", "DataStatsd",
})  # fmt: skip


@dataclass
class Pipeline:
    """All that a bundle's pipeline says, in our words.

    Attributes:
        orientation, spacing, kept: of the geometry.
        steps: changes of intensities, in order.
        steps_before: how many of them come before the image is resampled.
        within: "positive" where the foreground is cut out last.
        roi, overlap, blend: of the sliding window.
        several: whether each output decides by itself (sigmoid).
        returned: what is interpolated on the way back.
        padding: what is beyond an image that is smaller than a tile.
        notes: what has to be told.
    """

    padding: Literal["constant", "replicate"] = "constant"
    orientation: Literal["ras", "keep"] = "keep"
    spacing: tuple[float, ...] | None = None
    kept: tuple[int, ...] = ()
    steps: list[IntensityStep] = field(default_factory=list)
    steps_before: int = 0
    within: Literal["all", "positive"] = "all"
    roi: tuple[int, ...] = ()
    overlap: float = 0.25
    blend: Literal["constant", "gaussian"] = "constant"
    several: bool = False
    returned: Literal["logits", "shares", "labels"] = "shares"
    notes: list[str] = field(default_factory=list)


class Bundle(NamedTuple):
    """A bundle, read.

    Attributes:
        name: name of the bundle.
        network: name of the network's class.
        arguments: its arguments.
        dims, channels, outputs: spatial axes, channels of the input and of the output.
        classes: names of the outputs.
        pipeline: everything around the network.
        weights: file of its weights.
        texts: files that were read, for the fingerprint.
    """

    name: str
    network: str
    arguments: JsonObject
    dims: int
    channels: int
    outputs: int
    classes: tuple[str, ...]
    pipeline: Pipeline
    weights: Path
    texts: tuple[Path, ...]


def read_bundle(folder: Path, without: Sequence[str] = ()) -> Bundle:
    """Return what the files of a bundle say.

    Args:
        folder: its folder.
        without: names of transforms to leave out (default none).

    Raises:
        DataError: a file is missing or none of a bundle, or asks for what a run does not do; the message names it.
    """
    found = [folder / "configs" / name for name in _NAMES if (folder / "configs" / name).is_file()]
    if not found:
        expected = f"a folder with one of configs/{', configs/'.join(_NAMES)}"
        raise fault(folder, "it holds no configuration for inference", expected, "Give the folder of a bundle")
    config = Config.read(found[0])
    where = config.path
    name, arguments = _find_network(config)
    dims = _whole(where, "spatial_dims", arguments.get("spatial_dims", arguments.get("dimensions", 3)), 1, 3)
    channels = _whole(where, "in_channels", arguments.get("in_channels", 1), 1, 4096)
    outputs = _whole(where, "out_channels", arguments.get("out_channels", 2), 1, _MOST_CLASSES)
    pipeline = Pipeline()
    left_out = {_dictionary_name(name) for name in without}
    steps = {entry: _transforms(config, entry) for entry in ("preprocessing", "postprocessing")}
    missing = left_out - {name for each in steps.values() for name, _ in each}
    if missing:
        there = ", ".join(shown(name) for each in steps.values() for name, _ in each)
        raise ConfigError(f"without: {shown(min(missing))} is no transform of {where}; expected some of {there}.")
    pipeline.notes += [f"{shown(name)} is left out" for name in sorted(left_out)]
    before, after = ([each for each in steps[entry] if each[0] not in left_out] for entry in steps)
    _read_inferer(config, pipeline, dims)
    _read_preprocessing(config, before, pipeline, dims)
    _read_postprocessing(config, after, pipeline, outputs)
    metadata = folder / "configs" / "metadata.json"
    described = Config.read(metadata).content if metadata.is_file() else {}
    texts = (where, metadata) if metadata.is_file() else (where,)
    title = described.get("name")
    return Bundle(
        shown(title) if isinstance(title, str) and title else shown(folder.resolve().name),
        name, arguments, dims, channels, outputs, _class_names(metadata, described, outputs), pipeline,
        _find_weights(folder), texts,
    )  # fmt: skip


def _find_weights(folder: Path) -> Path:
    for name in ("model.pt", "model.pth", "model.safetensors"):
        path = folder / "models" / name
        if path.is_file():
            return path
    scripted = folder / "models" / "model.ts"
    if scripted.is_file():
        came = "the weights are a TorchScript program, which would have to be run"
        raise fault(scripted, came, "models/model.pt with the state dict", "Download or save model.pt")
    raise fault(folder / "models" / "model.pt", "it is missing", "the state dict of the network", "Download the bundle")


# ---- the configuration -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """A configuration, whose references are followed when a value is asked for.

    Attributes:
        path: its file.
        content: its entries as written.
    """

    path: Path
    content: JsonObject

    @classmethod
    def read(cls, path: Path) -> Config:
        """Return the configuration in a file.

        Raises:
            DataError: it is no JSON or YAML object of plain values.
        """
        text = read_text(path)
        try:
            content = json.loads(text) if path.suffix == ".json" else load_yaml(text)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            told = " ".join(str(error).split())[:120]
            came = f"this is no {path.suffix[1:].upper()} ({told})"
            raise fault(path, came, "a configuration", "Copy it again") from None
        if not isinstance(content, dict):
            raise fault(path, f"it holds a {type(content).__name__}", "an object with entries", "Copy it again")
        return cls(path, {str(key): value for key, value in content.items()})

    def get(self, name: str) -> Any:
        """Return the value of an entry with all references followed; None where there is no such entry.

        Raises:
            DataError: a reference leads nowhere or in a circle, or a value is an expression.
        """
        return None if name not in self.content else self._follow(self.content[name], name, 0, [_MOST_VALUES])

    def _follow(self, value: object, place: str, depth: int, left: list[int]) -> Any:
        left[0] -= 1
        if depth > _MOST_DEPTH or left[0] < 0:
            raise fault(self.path, f"{shown(place)} refers to itself, or is too large", "plain values", _MEND)
        if isinstance(value, dict):
            if _is_off(value):  # nothing of it is needed
                return {"_disabled_": True}
            return {str(k): self._follow(v, f"{place}::{k}", depth + 1, left) for k, v in value.items()}
        if isinstance(value, list):
            return [self._follow(each, f"{place}::{index}", depth + 1, left) for index, each in enumerate(value)]
        if not isinstance(value, str):
            return value
        reference = _REFERENCE.fullmatch(value) or _MOVED.fullmatch(value)
        if reference:
            return self._follow(self._at(reference[1], place), place, depth + 1, left)
        if value.startswith("$"):
            return self._literal(value, place)
        if value.startswith(("%", "@")):
            raise fault(self.path, f"{shown(place)} is {brief(value)}", "a plain value, or a reference @name", _MEND)
        return value

    def _literal(self, value: str, place: str) -> Any:
        """Return the plain value that an expression writes, or chooses; others would have to be run."""
        references: dict[str, str] = {}

        def named(match: re.Match[str]) -> str:
            return references.setdefault(match[1], f"_reference_{len(references)}")

        try:
            if len(value) > _MOST_LETTERS:
                return _Expression(value)
            tree: ast.expr = ast.parse(_REFERENCE.sub(named, value[1:].strip()), mode="eval").body
            while isinstance(tree, ast.IfExp):
                name = next((word for word, own in references.items() if _is_name(tree.test, own)), None)
                chosen = None if name is None else self._follow(self._at(name, place), place, 1, [_MOST_VALUES])
                if not isinstance(chosen, bool):
                    return _Expression(value)
                tree = tree.body if chosen else tree.orelse
            if isinstance(tree, ast.Call) and _is_name(tree.func, "len") and len(tree.args) == 1 and not tree.keywords:
                name = next((word for word, own in references.items() if _is_name(tree.args[0], own)), None)
                counted = None if name is None else self._follow(self._at(name, place), place, 1, [_MOST_VALUES])
                return len(counted) if isinstance(counted, list | dict) else _Expression(value)
            return ast.literal_eval(tree)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return _Expression(value)

    def _at(self, name: str, place: str) -> object:
        found: object = self.content
        for word in re.split(r"::|#", name):
            if isinstance(found, dict) and word in found:
                found = found[word]
            elif isinstance(found, list) and word.isdecimal() and int(word[:6]) < len(found):
                found = found[int(word)]
            else:
                raise fault(self.path, f"{shown(place)} refers to {shown(name)}, which is not there", "an entry", _MEND)
        return found


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


class _Expression(str):
    """An expression, which nobody computes."""


def _is_off(entry: Mapping[object, object]) -> bool:
    return entry.get("_disabled_") is True


# ---- the network -----------------------------------------------------------------------------------------


def _find_network(config: Config) -> tuple[str, JsonObject]:
    """Return the class and the arguments of the network."""
    for entry in ("network_def", "network", "net", "model"):
        found = config.get(entry)
        if isinstance(found, dict) and "_target_" in found:
            break
    else:
        came = "it defines no network under network_def or network"
        raise fault(config.path, came, '"network_def": {"_target_": "UNet", …}', _MEND)
    target = found["_target_"]
    name = network_name(target) if isinstance(target, str) and not isinstance(target, _Expression) else None
    if name is None:
        came = f"{entry} is {brief(target)}"
        raise fault(config.path, came, f"one of MONAI's networks {', '.join(NETWORKS)}", _MEND)
    arguments = {key: value for key, value in found.items() if not key.startswith("_")}
    _refuse_expressions(config.path, entry, arguments)
    return name, arguments


def _refuse_expressions(where: Path, place: str, value: object) -> None:
    if isinstance(value, _Expression):
        came = f"{shown(place)} is the expression {brief(str(value))}, which is code"
        raise fault(where, came, "a plain value", "Write the value that it has")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, each in items:
        _refuse_expressions(where, f"{place}::{key}", each)


def _whole(where: Path, name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise fault(where, f"{name} is {brief(value)}", f"a whole number from {least} to {most}", _MEND)
    return value


def _class_names(where: Path, described: JsonObject, outputs: int) -> tuple[str, ...]:
    """Return names of the outputs; numbers stand for those that the metadata do not name."""
    found: Any = described
    for key in ("network_data_format", "outputs"):
        found = found.get(key) if isinstance(found, dict) else None
    stated = next(iter(found.values()), None) if isinstance(found, dict) else None
    named = stated.get("channel_def") if isinstance(stated, dict) else None
    named = named if isinstance(named, dict) else {}
    names = [shown(brief_text(named.get(str(i)))) or f"class {i}" for i in range(outputs)]
    counted: dict[str, int] = {}
    for index, name in enumerate(names):
        counted[name] = counted.get(name, 0) + 1
        if counted[name] > 1:
            names[index] = f"{name} {index}"
    if len(set(names)) < len(names):
        raise fault(where, "two outputs have one name in channel_def", "a name for each", "Correct it")
    return tuple(names)


def brief_text(value: object) -> str:
    """Return a name that is a text of at most 60 letters, else nothing."""
    return value.strip()[:60] if isinstance(value, str) else ""


# ---- the sliding window ----------------------------------------------------------------------------------


def _read_inferer(config: Config, pipeline: Pipeline, dims: int) -> None:
    found = config.get("inferer")
    name = _target(config, "inferer", found)
    if name != "SlidingWindowInferer":
        raise fault(config.path, f"inferer is {shown(name)}", "SlidingWindowInferer", _MEND)
    given = _Arguments(config.path, name, found)
    roi = given.take("roi_size")
    roi = [roi] * dims if isinstance(roi, int) else roi
    if not isinstance(roi, list | tuple) or len(roi) != dims:
        raise fault(config.path, f"roi_size is {brief(roi)}", f"{plural(dims, 'size')} of a tile", _MEND)
    pipeline.roi = tuple(_whole(config.path, "roi_size", side, 1, 4096) for side in roi)
    overlap = given.take("overlap", 0.25)
    shares = set(overlap) if isinstance(overlap, list | tuple) else {overlap}
    if len(shares) != 1 or not all(type(each) in (int, float) and 0 <= each < 1 for each in shares):
        raise fault(config.path, f"overlap is {brief(overlap)}", "one share of a tile, at least 0 and below 1", _MEND)
    pipeline.overlap = float(shares.pop())
    pipeline.blend = given.one_of("mode", "constant", ("constant", "gaussian"))
    pipeline.padding = given.one_of("padding_mode", "constant", ("constant", "replicate"))
    given.expect(sigma_scale=(0.125,), cval=(0, 0.0), roi_weight_map=(None,),
                 process_fn=(None,), with_coord=(False,))  # fmt: skip
    given.ignore("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh",
                 "buffer_steps", "buffer_dim")  # fmt: skip
    given.finish()


def _target(config: Config, place: str, found: object) -> str:
    """Return the class that an entry names, without its package."""
    target = found.get("_target_") if isinstance(found, dict) else None
    if not isinstance(target, str) or isinstance(target, _Expression):
        raise fault(config.path, f"{place} is {brief(found)}", "an object with _target_", _MEND)
    package, _, name = target.rpartition(".")
    if package and not package.startswith("monai."):
        raise fault(config.path, f"{place} is {shown(brief_text(target))}", "a class of MONAI", _MEND)
    return name


class _Arguments:
    """The arguments of a class: each is taken once, and what nobody takes is refused by name."""

    def __init__(self, where: Path, name: str, found: JsonObject) -> None:
        self._where, self._name = where, name
        self._left = {key: value for key, value in found.items() if key not in _OF_ALL}

    def take(self, key: str, default: object = None) -> Any:
        """Return an argument."""
        value = self._left.pop(key, default)
        _refuse_expressions(self._where, f"{self._name}::{key}", value)
        return value

    def one_of(self, key: str, default: object, allowed: Sequence[object]) -> Any:
        """Return an argument that is one of a few values, or a list of such a value."""
        value = self.take(key, default)
        value = value[0] if isinstance(value, list | tuple) and len(set(map(repr, value))) == 1 else value
        if not any(value == each and type(value) is type(each) for each in allowed):
            words = " or ".join(map(repr, allowed))
            raise self.refuse(key, value, words)
        return value

    def refuse(self, key: str, value: object, expected: str) -> DataError:
        """Return the error of an argument."""
        return fault(self._where, f"{key} of {self._name} is {brief(value)}", expected, _MEND)

    def expect(self, **allowed: Sequence[object]) -> None:
        """Refuse arguments that have other values than these, the first of which is the default."""
        for key, values in allowed.items():
            self.one_of(key, values[0], values)

    def number(self, key: str, default: float | None = None) -> float | None:
        """Return an argument that is a finite number, or None where the default is."""
        value = self.take(key, default)
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            raise self.refuse(key, value, "a finite number")
        return float(value)

    def truth(self, key: str, default: bool = False) -> bool:
        """Return an argument that is true or false."""
        return bool(self.one_of(key, default, (True, False)))

    def ignore(self, *keys: str) -> None:
        """Leave out arguments that change no result."""
        for key in keys:
            self._left.pop(key, None)

    def finish(self) -> None:
        """Refuse what is left."""
        for key, value in self._left.items():
            came = f"{self._name} has the argument {shown(key)} ({brief(value)})"
            raise fault(self._where, came, "one that a run can follow", _MEND)


# ---- before and after the network ------------------------------------------------------------------------


def _transforms(config: Config, entry: str) -> list[tuple[str, JsonObject]]:
    """Return the (class, entries) of the transforms of a Compose, without those that are disabled."""
    found = config.get(entry)
    if found is None:
        return []
    if isinstance(found, dict) and _is_off(found):
        return []
    if isinstance(found, dict):
        if _target(config, entry, found) != "Compose":
            return [(_target(config, entry, found), found)]
        found = found.get("transforms")
    if not isinstance(found, list):
        raise fault(config.path, f"{entry} is {brief(found)}", "a Compose of transforms", _MEND)
    steps = []
    for number, each in enumerate(found):
        place = f"{entry}::{number}"
        if isinstance(each, dict) and _is_off(each):
            continue
        if isinstance(each, dict) and isinstance(each.get("_disabled_"), _Expression):
            _refuse_expressions(config.path, f"{place}::_disabled_", each["_disabled_"])
        name = _target(config, place, each)
        steps.append((_dictionary_name(name), each))
    return steps


def _dictionary_name(name: str) -> str:
    """Return one of the several names of a transform of dictionaries: Spacingd, SpacingD, SpacingDict."""
    if name.endswith("Dict"):
        return f"{name[:-4]}d"
    return f"{name[:-1]}d" if name.endswith("D") else name


def _keys(entries: JsonObject) -> list[str]:
    keys = entries.get("keys", [])
    return [keys] if isinstance(keys, str) else [key for key in keys if isinstance(key, str)]


def _read_preprocessing(config: Config, steps: Sequence[tuple[str, JsonObject]], pipeline: Pipeline, dims: int) -> None:
    loaded = next((_keys(entries) for name, entries in steps if name == "LoadImaged"), None)
    if not loaded:
        raise fault(config.path, "preprocessing loads no image", "transforms that begin with LoadImaged", _MEND)
    if dims != 3:
        raise fault(config.path, f"the network is for {dims}-D images", "a network for volumes, spatial_dims 3", _MEND)
    resampled = False
    for name, entries in steps:
        keys = _keys(entries)
        if keys and loaded[0] not in keys:
            continue  # it changes labels
        floats = name == "CastToTyped" and str(entries.get("dtype", "float32")).rpartition(".")[2] == "float32"
        if floats or name in _WITHOUT_EFFECT:
            continue
        given = _Arguments(config.path, name, entries)
        if pipeline.within != "all":
            raise fault(config.path, f"{name} comes after CropForegroundd", "CropForegroundd as the last one", _MEND)
        if name == "Orientationd":
            if resampled:
                raise fault(config.path, "Orientationd comes after Spacingd", "the reverse order", _MEND)
            given.expect(axcodes=("RAS", None), as_closest_canonical=(False, True))
            given.ignore("labels")
            pipeline.orientation = "ras"
        elif name == "Spacingd":
            _read_spacing(given, pipeline, dims)
            resampled, pipeline.steps_before = True, len(pipeline.steps)
        elif name == "CropForegroundd":
            given.expect(select_fn=(None,), channel_indices=(None,), margin=(0,), k_divisible=(1,))
            given.ignore("mode", "source_key", "allow_smaller", "start_coord_key", "end_coord_key")
            pipeline.within = "positive"
        elif name in _INTENSITIES:
            pipeline.steps.append(_INTENSITIES[name](given))
        else:
            known = ", ".join(sorted({"Orientationd", "Spacingd", "CropForegroundd", *_INTENSITIES}))
            raise fault(config.path, f"preprocessing has the transform {shown(name)}", f"some of {known}", _LEAVE)
        given.finish()
    if any(step.nonzero for step in pipeline.steps[pipeline.steps_before :]) and resampled:
        pipeline.notes.append(
            "NormalizeIntensityd with nonzero comes after Spacingd, whose rounding errors around 0 count as image in "
            "MONAI; here they do not"
        )
    if not resampled:
        pipeline.steps_before = len(pipeline.steps)


def _read_spacing(given: _Arguments, pipeline: Pipeline, dims: int) -> None:
    sides = given.take("pixdim")
    if pipeline.spacing is not None:
        raise given.refuse("pixdim", sides, "one Spacingd alone")
    sides = [sides] * dims if isinstance(sides, int | float) else sides
    usable = isinstance(sides, list | tuple) and len(sides) == dims
    if not usable or not all(type(side) in (int, float) and abs(side) < math.inf for side in sides):
        raise given.refuse("pixdim", sides, f"{dims} distances")
    pipeline.spacing = tuple(float(side) if side > 0 else 1.0 for side in sides)
    pipeline.kept = tuple(axis for axis, side in enumerate(sides) if side <= 0)
    given.expect(mode=("bilinear", 1), padding_mode=("border", "nearest"), diagonal=(False,), align_corners=(False,),
                 scale_extent=(False,), min_pixdim=(None,), max_pixdim=(None,))  # fmt: skip
    given.ignore("dtype", "recompute_affine", "ensure_same_shape", "image_only")


def _range_step(given: _Arguments) -> IntensityStep:
    low, high, first, last = (given.number(key) for key in ("a_min", "a_max", "b_min", "b_max"))
    given.ignore("dtype")
    if low is None or high is None:
        raise given.refuse("a_min, a_max", (low, high), "two numbers")
    return IntensityStep("range", low, high, first, last, given.truth("clip"))


def _extent_step(given: _Arguments) -> IntensityStep:
    given.expect(factor=(None,))
    given.ignore("dtype")
    first, last = given.number("minv", 0.0), given.number("maxv", 1.0)
    return IntensityStep("extent", first=first, last=last, each=given.truth("channel_wise"))


def _percentile_step(given: _Arguments) -> IntensityStep:
    low, high, first, last = (given.number(key) for key in ("lower", "upper", "b_min", "b_max"))
    given.expect(relative=(False,))
    given.ignore("dtype")
    if low is None or high is None or not 0 <= low <= high <= 100:
        raise given.refuse("lower, upper", (low, high), "percentiles from 0 to 100")
    clip, each = given.truth("clip"), given.truth("channel_wise")
    return IntensityStep("percentiles", low, high, first, last, clip, each)


def _standard_step(given: _Arguments) -> IntensityStep:
    mean, std = (_numbers(given, key) for key in ("subtrahend", "divisor"))
    given.ignore("dtype")
    return IntensityStep(
        "standard", each=given.truth("channel_wise"), nonzero=given.truth("nonzero"), mean=mean, std=std
    )


def _numbers(given: _Arguments, key: str) -> tuple[float, ...]:
    value = given.take(key)
    listed = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    if len(listed) > 4096 or not all(type(each) in (int, float) and abs(each) < 1e30 for each in listed):
        raise given.refuse(key, value, "finite numbers")
    return tuple(map(float, listed))


_INTENSITIES: dict[str, Callable[[_Arguments], IntensityStep]] = {
    "ScaleIntensityRanged": _range_step,
    "ScaleIntensityd": _extent_step,
    "ScaleIntensityRangePercentilesd": _percentile_step,
    "NormalizeIntensityd": _standard_step,
}
# Clean-ups that prediction has as options.
_OPTIONS = {"KeepLargestConnectedComponentd": "--keep-largest", "FillHolesd": "--fill-holes",
            "RemoveSmallObjectsd": "--min-volume"}  # fmt: skip


def _read_postprocessing(
    config: Config, steps: Sequence[tuple[str, JsonObject]], pipeline: Pipeline, outputs: int
) -> None:
    active = decided = inverted = False
    pipeline.several = outputs == 1
    for name, entries in steps:
        given = _Arguments(config.path, name, entries)
        if name == "Activationsd":
            softmax, sigmoid = given.truth("softmax"), given.truth("sigmoid")
            given.expect(other=(None,), kind=(None,))
            if decided or inverted or softmax == sigmoid:
                raise fault(config.path, "Activationsd is no first transform of a softmax or sigmoid",
                            "one of both, before Invertd and AsDiscreted", _MEND)  # fmt: skip
            active, pipeline.several = True, sigmoid
        elif name == "AsDiscreted":
            argmax, level = given.truth("argmax"), given.take("threshold")
            level = level[0] if isinstance(level, list) and len(level) == 1 else level
            if argmax == (level is not None) or (level is not None and (level != 0.5 or not active)):
                came = f"AsDiscreted has argmax {argmax} and threshold {brief(level)}"
                raise fault(config.path, came, "argmax, or threshold 0.5 of a sigmoid", _MEND)
            given.expect(rounding=(None,))
            given.ignore("to_onehot", "num_classes", "n_classes", "dim", "keepdim", "dtype")
            if argmax and pipeline.several and active:
                raise fault(config.path, "AsDiscreted takes argmax of a sigmoid", "threshold 0.5", _MEND)
            pipeline.several, decided = not argmax, True
        elif name == "Invertd":
            nearest = given.take("nearest_interp", True)
            nearest = nearest[0] if isinstance(nearest, list) and nearest else nearest
            if not isinstance(nearest, bool):
                raise given.refuse("nearest_interp", nearest, "true or false")
            if decided and not nearest:
                nearest = True
                pipeline.notes.append("the bundle interpolates numbers of classes by Invertd; here the nearest counts")
            given.ignore("transform", "orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor",
                         "device", "post_func")  # fmt: skip
            inverted, pipeline.returned = True, "labels" if nearest else "shares" if active else "logits"
        elif name in _OPTIONS:
            pipeline.notes.append(f"the bundle cleans up by {name}; {_OPTIONS[name]} of predict does that")
            continue
        elif name not in _WITHOUT_EFFECT and name != "SaveImaged":
            known = "Activationsd, Invertd, AsDiscreted, SaveImaged"
            raise fault(config.path, f"postprocessing has the transform {shown(name)}", f"some of {known}", _LEAVE)
        else:
            continue
        given.finish()
    if not inverted and (pipeline.spacing is not None or pipeline.orientation != "keep"):
        pipeline.notes.append("the bundle leaves results on the network's grid; label maps have the image's own")
