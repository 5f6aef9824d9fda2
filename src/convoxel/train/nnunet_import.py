"""Networks that nnU-Net trained, as runs.

Of v2, ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_*.pth`` are read; of v1, ``fold_*/model_*.model`` with
the ``.model.pkl`` beside it, and ``postprocessing.json``.
A fold becomes an ordinary run folder, several a folder of runs, which is an ensemble. The configuration holds the rules
by which nnU-Net predicts: tiles, mirrored axes, the mean of logits; the facts of the data hold its geometry and
normalisation. Files are read as data: tensors, texts and numbers; nothing in them is run, and no network is computed.
The second stage of a cascade brings along the first, whose runs lie within its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from convoxel.errors import ConfigError, DataError, check_choice
from convoxel.files.fault import brief, fault, shown
from convoxel.files.folder import whole_folder
from convoxel.models.weights import match_tensors, read_torch_file
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import TrainConfig
from convoxel.train.imported_run import ImportedRun, count_weights, write_run
from convoxel.train.nnunet_plans import Plan, read_plan, read_plans
from convoxel.train.pickled_plans import read_pickled_plan
from convoxel.train.run_network import build_network

_FOLDS = 5  # of nnU-Net's cross-validation, which its files do not state
_PREVIOUS = "previous"  # folder of the runs of a cascade's first stage, in that of the second
_MEND = "Predict with nnU-Net itself"
_STEPS = 250  # of an epoch of nnU-Net's trainer


class _Fold(NamedTuple):
    """A network of a fold, in our words.

    Attributes:
        name: number of the fold, or "all".
        file: its checkpoint.
        plan: what the plans say.
        weights: tensors by name.
        mirror: axes of the network's grid along which nnU-Net mirrors.
        epochs: epochs of its training, as the checkpoint says.
        trainer: name of its trainer.
    """

    name: str
    file: Path
    plan: Plan
    weights: Mapping[str, Any]
    mirror: tuple[int, ...]
    epochs: object
    trainer: str


class _Version(Protocol):
    """The files of a version of nnU-Net in a folder of trained networks.

    Attributes:
        checkpoint: name of the checkpoints.
        described: files that describe the networks and their data.
    """

    checkpoint: str
    described: tuple[str, ...]

    def fold(self, folder: str) -> str | None:
        """Return the number that the name of a folder says, or "all"."""

    def read(self, source: Path, name: str, file: Path) -> _Fold:
        """Return the network of a fold."""

    def before(self, source: Path, plan: Plan) -> Path:
        """Return the folder of the stage before, in a cascade."""


class _Second:
    """nnU-Net v2."""

    described: tuple[str, ...] = ("dataset.json", "plans.json")

    def __init__(self, which: str) -> None:
        self.checkpoint = f"checkpoint_{which}.pth"

    def fold(self, folder: str) -> str | None:
        match = re.fullmatch(r"fold_(\d{1,4}|all)", folder)
        return match and match[1]

    def read(self, source: Path, name: str, file: Path) -> _Fold:
        found = _read_checkpoint(file)
        weights, stated = found.get("network_weights"), found.get("init_args")
        configuration = stated.get("configuration") if isinstance(stated, Mapping) else None
        if not isinstance(weights, Mapping) or not isinstance(configuration, str):
            raise _unknown(file, found, "network_weights and init_args, as nnU-Net v2 writes them")
        plan = read_plan(source, configuration)
        mirror, trainer = _mirrored(file, plan, found), brief(found.get("trainer_name"))
        return _Fold(name, file, plan, weights, mirror, found.get("current_epoch"), trainer)

    def before(self, source: Path, plan: Plan) -> Path:
        return source.with_name(f"{source.name.rpartition('__')[0]}__{plan.previous}")


class _First:
    """nnU-Net v1; as there, the first fold that is read decides about all."""

    described: tuple[str, ...] = ("plans.pkl",)

    def __init__(self, which: str, trainer: str | None, postprocessing: bool) -> None:
        self.checkpoint = f"model_{which}{'_checkpoint' if which == 'final' else ''}.model"
        self._trainer, self._postprocessing = trainer, postprocessing
        self._plans: dict[Path, Plan] = {}

    def fold(self, folder: str) -> str | None:
        match = re.fullmatch(r"fold_(\d{1,4})|(all)", folder)
        return match and (match[1] or match[2])

    def read(self, source: Path, name: str, file: Path) -> _Fold:
        if source not in self._plans:
            record = file.with_name(f"{file.name}.pkl")
            self._plans[source] = read_pickled_plan(source, record, self._trainer, self._postprocessing)
        plan, found = self._plans[source], _read_checkpoint(file)
        weights = found.get("state_dict")
        if not isinstance(weights, Mapping):
            raise _unknown(file, found, "state_dict, as nnU-Net v1 writes it")
        named = {_own_name(str(key), plan.options["blocks"]): value for key, value in weights.items()}
        return _Fold(name, file, plan, named, plan.rule.mirror, found.get("epoch"), plan.trainer)

    def before(self, source: Path, plan: Plan) -> Path:
        """Return the folder, RESULTS/3d_lowres/TASK/TRAINER__PLANS where this one is RESULTS/…/TASK/…__PLANS."""
        here = source.absolute()
        return here.parents[2] / "3d_lowres" / here.parent.name / f"{plan.previous}__{here.name.rpartition('__')[2]}"


def import_nnunet(
    folder: str | Path,
    output: str | Path,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    trainer: str | None = None,
    postprocessing: bool = True,
    on_fold: Callable[[int, int], None] = lambda done, total: None,
) -> list[ImportedRun]:
    """Make runs of the networks that nnU-Net trained, and return them.

    They predict as ``nnUNetv2_predict`` does, or ``nnUNet_predict`` of v1: with its tiles, weights and mirrored axes,
    its normalisation, its resampling, and the mean of the folds' logits, or shares of v1.

    Args:
        folder: folder of trained networks, TRAINER__PLANS__CONFIGURATION, or TRAINER__PLANS of v1.
        output: new folder: the run itself where there is one fold, else a folder of runs, one for each.
        folds: numbers of folds, or "all" for the network that was trained on all data (default: all numbered folds that
            are there).
        checkpoint: "final" or "best" (default "final").
        trainer: trainer of v1 that the folder's own predicts like, such as "nnUNetTrainerV2", where that is not one of
            nnU-Net's package (default: the folder's own).
        postprocessing: keep the clean-up of label maps that v1 found to help (default True).
        on_fold: called with the number of folds that are imported, and of all.

    Raises:
        DataError: a file is missing or wrong, holds other objects than tensors and numbers, or describes what Convoxel
            does not compute: another network, another resampling; or the first stage of a cascade is missing.
        ConfigError: an argument is unknown, or the output exists.
        CheckpointError: weights do not fit the network of the plans.
    """
    check_choice("checkpoint", checkpoint, ("final", "best"))
    source, target = Path(folder), Path(output)
    version: _Version
    if (source / "plans.pkl").is_file() and not (source / "plans.json").is_file():
        version = _First(checkpoint, trainer, postprocessing)
    else:
        if trainer is not None:
            raise ConfigError(f"trainer: got {trainer!r} for {source}, which is none of nnU-Net v1; leave it out.")
        read_plans(source)  # what is no folder of nnU-Net is refused before its folds are looked for
        version = _Second(checkpoint)
    files = _find_folds(source, folds, version)
    with whole_folder(target) as part:
        return _import_folds(source, files, part, target, version, on_fold)


def _import_folds(
    source: Path,
    files: Mapping[str, Path],
    part: Path,
    target: Path,
    version: _Version,
    on_fold: Callable[[int, int], None] = lambda done, total: None,
    *,
    stage: bool = False,
) -> list[ImportedRun]:
    """Write a run for each fold into ``part``, which becomes ``target``; ``stage``: they are the first of a cascade."""
    runs: list[ImportedRun] = []
    for done, (name, file) in enumerate(files.items()):
        inside = Path() if len(files) == 1 else Path(f"fold_{name}")
        fold = version.read(source, name, file)
        if fold.plan.previous is not None and stage:
            raise fault(source, "both stages of the cascade have a stage before", "one of a first stage", _MEND)
        if fold.plan.previous is not None and not runs:  # the other folds share it
            before = version.before(source, fold.plan)
            came = f"the stage before is missing, {shown(fold.plan.previous)} of the same trainer and plans"
            if not before.is_dir():
                raise fault(before, came, "a folder beside that of the second stage", "Copy it there")
            earlier = _find_folds(before, None, version)
            place = inside / _PREVIOUS
            _import_folds(before, earlier, part / place, target / place, version, stage=True)
        previous = _PREVIOUS if not runs else f"../{runs[0].path.name}/{_PREVIOUS}"
        where = (part / inside, target / inside, previous if fold.plan.previous is not None else None)
        runs.append(_import_fold(source, fold, version, *where))
        on_fold(done + 1, len(files))
    return runs


def _find_folds(source: Path, folds: Sequence[int | str] | None, version: _Version) -> dict[str, Path]:
    """Return the checkpoint of each fold."""
    there, name = {}, version.checkpoint
    for path in source.iterdir():
        fold = version.fold(path.name)
        if fold and (path / name).is_file():
            there[fold] = path / name
    if folds is None:
        numbered = sorted((fold for fold in there if fold != "all"), key=int)
        wanted = numbered or list(there)
    else:
        wanted = list(map(str, folds))
    missing = [fold for fold in wanted if fold not in there]
    if missing or not wanted:
        known = ", ".join(f"fold_{fold}" for fold in sorted(there)) or "none"
        came = f"fold_{missing[0]}/{name} is missing" if missing else f"no fold has a {name}"
        raise fault(source, came, f"folds that are there: {known}", "Name others by --folds, or another --checkpoint")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"folds: {', '.join(wanted)} names one twice; expected each fold once.")
    return {fold: there[fold] for fold in wanted}


def _read_checkpoint(file: Path) -> Mapping[str, Any]:
    content = read_torch_file(file)
    if not isinstance(content, Mapping):
        raise _unknown(file, type(content).__name__, "a dictionary, as nnU-Net writes it")
    return content


def _unknown(file: Path, found: object, expected: str) -> DataError:
    came = f"it holds {brief(list(found) if isinstance(found, Mapping) else found)}"
    return fault(file, came, expected, "Load other files with --weights")


def _import_fold(
    source: Path, fold: _Fold, version: _Version, part: Path, target: Path, previous: str | None
) -> ImportedRun:
    plan, weights = fold.plan, fold.weights
    config = _configure(fold, source, target, previous)
    facts = DataFacts(
        plan.labels.names or (), plan.dims, plan.channels, plan.normalisation, plan.geometry.spacing_mm,
        _fingerprint(source, version.described), plan.dataset, geometry=plan.geometry, ignored=plan.labels.ignored,
        regions=plan.labels.regions, channel_files=True, previous_values=plan.previous_values,
    )  # fmt: skip
    with torch.device("meta"):
        network = build_network(config, plan.dims, facts.inputs, len(facts.outputs))
    if plan.planes:
        weights = {key: _as_volume(value) for key, value in weights.items()}
    tensors = match_tensors(network, fold.file, weights)
    trained = _STEPS * fold.epochs if isinstance(fold.epochs, int) and 0 < fold.epochs < 10**6 else 0
    told = {"nnunet": str(fold.file), "trainer": fold.trainer, "configuration": plan.name}
    write_run(part, config, facts, tensors, told, trained)
    return ImportedRun(fold.name, target, config, facts, count_weights(network))


def _configure(fold: _Fold, source: Path, target: Path, previous: str | None) -> TrainConfig:
    """Return the configuration of a run: the network, and nnU-Net's rules of prediction."""
    plan, name = fold.plan, fold.name
    batch = any("running_mean" in str(key) for key in fold.weights)
    normalised = any(str(key).endswith(".norm.weight") for key in fold.weights)
    options = {
        **plan.options,
        "norm": "batch" if batch else "instance" if normalised else "none",
        "bias": any(str(key).endswith("convs.0.conv.bias") for key in fold.weights),
    }
    levels = options.pop("levels")
    return TrainConfig.build(
        task="segment", data=plan.dataset or source.name, output=str(target), model=plan.model,
        model_options={**options, "levels": levels}, patch=plan.patch, overlap=0.5,
        spacing=plan.geometry.spacing_mm, orientation=plan.geometry.orientation,
        folds=None if name == "all" else max(_FOLDS, int(name) + 1), fold=0 if name == "all" else int(name),
        flip_axes=fold.mirror, ignore_label=plan.labels.ignored,
        prediction=plan.rule.model_copy(update={"mirror": fold.mirror, "previous": previous}),
    )  # fmt: skip


def _mirrored(file: Path, plan: Plan, found: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the axes of the network's grid along which nnU-Net v2 mirrors."""
    axes = found.get("inference_allowed_mirroring_axes") or ()
    dims = plan.dims - plan.planes
    if not isinstance(axes, (tuple, list)) or not all(type(axis) is int and 0 <= axis < dims for axis in axes):
        came = f"inference_allowed_mirroring_axes is {brief(axes)}"
        raise fault(file, came, f"axes from 0 to {dims - 1}", "Copy the file from the training folder")
    return tuple(sorted({axis + plan.planes for axis in axes}))


# The names of v1's modules, in which the last convolution of a stage may stand apart, and the places of ours.
_UNIT = re.compile(r"(?:module\.)?conv_blocks_(context|localization)\.(\d+)\.(?:([01])\.)?blocks\.(\d+)\.(\w+)\.(\w+)")
_LINEAR = re.compile(r"(?:module\.)?(tu|seg_outputs)\.(\d+\.\w+)")


def _own_name(name: str, count: int) -> str:
    """Return the name that a tensor of nnU-Net v1 has in our network, whose stages have ``count`` convolutions.

    >>> _own_name("conv_blocks_localization.0.1.blocks.0.instnorm.weight", 2)
    'decoder.stages.0.convs.1.norm.weight'
    """
    unit, linear = _UNIT.fullmatch(name), _LINEAR.fullmatch(name)
    if unit is not None:
        side, stage, apart, number, layer, kind = unit.groups()
        place = int(number) + (count - 1 if apart == "1" else 0)
        where = f"encoder.stages.{stage}.0" if side == "context" else f"decoder.stages.{stage}"
        return f"{where}.convs.{place}.{'norm' if layer == 'instnorm' else layer}.{kind}"
    if linear is not None:
        return f"decoder.{'transpconvs' if linear[1] == 'tu' else 'seg_layers'}.{linear[2]}"
    return name


def _as_volume(value: object) -> object:
    """Return the weight of a convolution over planes as that of one over volumes of a slice."""
    return value[:, :, None] if isinstance(value, Tensor) and value.ndim == 4 else value


def _fingerprint(source: Path, names: Sequence[str]) -> str:
    """Return SHA-256 over what is known of the training data: their description and their plans."""
    parts = [(source / name).read_bytes() for name in names]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
