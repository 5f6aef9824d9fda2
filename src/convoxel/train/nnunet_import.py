"""Networks that nnU-Net trained, as runs: ``plans.json``, ``dataset.json`` and ``fold_*/checkpoint_*.pth`` are read.

A fold becomes an ordinary run folder, several a folder of runs, which is an ensemble. The configuration holds the rules
by which nnU-Net predicts: tiles, mirrored axes, the mean of logits; the facts of the data hold its geometry and
normalisation. Files are read as data: tensors, texts and numbers; nothing in them is run, and no network is computed.
The second stage of a cascade brings along the first, whose runs lie within its own. Absent on purpose: nnU-Net v1,
whose plans are Python objects.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convoxel.errors import ConfigError, check_choice
from convoxel.files.fault import brief, fault, shown
from convoxel.files.folder import whole_folder
from convoxel.models.weights import match_tensors, read_torch_file
from convoxel.predict.prediction_rule import PredictionRule
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import TrainConfig
from convoxel.train.imported_run import ImportedRun, count_weights, write_run
from convoxel.train.nnunet_plans import Plan, read_plan, read_plans
from convoxel.train.run_network import build_network

_FOLD = re.compile(r"fold_(\d{1,4}|all)")
_FOLDS = 5  # of nnU-Net's cross-validation, which its files do not state
_PREVIOUS = "previous"  # folder of the runs of a cascade's first stage, in that of the second
_MEND = "Predict with nnU-Net itself"
_STEPS = 250  # of an epoch of nnU-Net's trainer


def import_nnunet(
    folder: str | Path,
    output: str | Path,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "final",
    on_fold: Callable[[int, int], None] = lambda done, total: None,
) -> list[ImportedRun]:
    """Make runs of the networks that nnU-Net v2 trained, and return them.

    They predict as ``nnUNetv2_predict`` does: with its tiles, weights and mirrored axes, its normalisation, its
    resampling, and the mean of the folds' logits.

    Args:
        folder: folder of trained networks, TRAINER__PLANS__CONFIGURATION.
        output: new folder: the run itself where there is one fold, else a folder of runs, one for each.
        folds: numbers of folds, or "all" for the network that was trained on all data (default: all numbered folds that
            are there).
        checkpoint: "final" or "best" (default "final").
        on_fold: called with the number of folds that are imported, and of all.

    Raises:
        DataError: a file is missing or wrong, holds other objects than tensors and numbers, or describes what Convoxel
            does not compute: another network, another resampling; or the first stage of a cascade is missing beside it.
        ConfigError: an argument is unknown, or the output exists.
        CheckpointError: weights do not fit the network of the plans.
    """
    check_choice("checkpoint", checkpoint, ("final", "best"))
    source, target = Path(folder), Path(output)
    read_plans(source)  # what is no folder of nnU-Net is refused before its folds are looked for
    files = _find_folds(source, folds, f"checkpoint_{checkpoint}.pth")
    with whole_folder(target) as part:
        return _import_folds(source, files, part, target, checkpoint, on_fold)


def _import_folds(
    source: Path,
    files: Mapping[str, Path],
    part: Path,
    target: Path,
    checkpoint: str,
    on_fold: Callable[[int, int], None] = lambda done, total: None,
    *,
    stage: bool = False,
) -> list[ImportedRun]:
    """Write a run for each fold into ``part``, which becomes ``target``; ``stage``: they are the first of a cascade."""
    runs: list[ImportedRun] = []
    for done, (fold, file) in enumerate(files.items()):
        inside = Path() if len(files) == 1 else Path(f"fold_{fold}")
        plan, found = _read_fold(source, file)
        if plan.previous is not None and stage:
            raise fault(source, "both stages of the cascade have a stage before", "one of a first stage", _MEND)
        if plan.previous is not None and not runs:  # the other folds share it
            before = source.with_name(f"{source.name.rpartition('__')[0]}__{plan.previous}")
            came = f"the stage before is missing, {shown(plan.previous)} of the same trainer and plans"
            if not before.is_dir():
                raise fault(before, came, "a folder beside that of the second stage", "Copy it there")
            earlier = _find_folds(before, None, f"checkpoint_{checkpoint}.pth")
            place = inside / _PREVIOUS
            _import_folds(before, earlier, part / place, target / place, checkpoint, stage=True)
        previous = _PREVIOUS if not runs else f"../{runs[0].path.name}/{_PREVIOUS}"
        where = (part / inside, target / inside, previous if plan.previous is not None else None)
        runs.append(_import_fold(source, fold, file, plan, found, *where))
        on_fold(done + 1, len(files))
    return runs


def _find_folds(source: Path, folds: Sequence[int | str] | None, name: str) -> dict[str, Path]:
    """Return the checkpoint of each fold."""
    there = {}
    for path in source.iterdir():
        match = _FOLD.fullmatch(path.name)
        if match and (path / name).is_file():
            there[match[1]] = path / name
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


def _read_fold(source: Path, file: Path) -> tuple[Plan, Mapping[str, Any]]:
    """Return the plan of a fold's configuration, and what its checkpoint holds."""
    content = read_torch_file(file)
    found: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    weights, stated = found.get("network_weights"), found.get("init_args")
    name = stated.get("configuration") if isinstance(stated, Mapping) else None
    if not isinstance(weights, Mapping) or not isinstance(name, str):
        came = f"it holds {brief(list(found) or type(content).__name__)}"
        expected = "network_weights and init_args, as nnU-Net v2 writes them"
        raise fault(file, came, expected, "Load other files with --weights")
    return read_plan(source, name), found


def _import_fold(
    source: Path,
    fold: str,
    file: Path,
    plan: Plan,
    found: Mapping[str, Any],
    part: Path,
    target: Path,
    previous: str | None,
) -> ImportedRun:
    weights: Mapping[str, Any] = found["network_weights"]
    config = _configure(plan, source, target, fold, _mirrored(file, plan, found), weights, previous)
    facts = DataFacts(
        plan.labels.names or (), plan.dims, plan.channels, plan.normalisation, plan.geometry.spacing_mm,
        _fingerprint(source), plan.dataset, geometry=plan.geometry, ignored=plan.labels.ignored,
        regions=plan.labels.regions, channel_files=True, previous_values=plan.previous_values,
    )  # fmt: skip
    with torch.device("meta"):
        network = build_network(config, plan.dims, facts.inputs, len(facts.outputs))
    if plan.planes:
        weights = {key: _as_volume(value) for key, value in weights.items()}
    tensors = match_tensors(network, file, weights)
    epochs = found.get("current_epoch")
    trained = _STEPS * epochs if isinstance(epochs, int) and 0 < epochs < 10**6 else 0
    told = {"nnunet": str(file), "trainer": brief(found.get("trainer_name")), "configuration": plan.name}
    write_run(part, config, facts, tensors, told, trained)
    return ImportedRun(fold, target, config, facts, count_weights(network))


def _configure(
    plan: Plan,
    source: Path,
    target: Path,
    fold: str,
    mirror: tuple[int, ...],
    weights: Mapping[str, Any],
    previous: str | None,
) -> TrainConfig:
    """Return the configuration of a run: the network, and nnU-Net's rules of prediction."""
    batch = any("running_mean" in str(key) for key in weights)
    normalised = any(str(key).endswith(".norm.weight") for key in weights)
    options = {
        **plan.options,
        "norm": "batch" if batch else "instance" if normalised else "none",
        "bias": any(str(key).endswith("convs.0.conv.bias") for key in weights),
    }
    levels = options.pop("levels")
    return TrainConfig.build(
        task="segment", data=plan.dataset or source.name, output=str(target), model=plan.model,
        model_options={**options, "levels": levels}, patch=plan.patch, overlap=0.5,
        spacing=plan.geometry.spacing_mm, orientation=plan.geometry.orientation,
        folds=None if fold == "all" else max(_FOLDS, int(fold) + 1), fold=0 if fold == "all" else int(fold),
        flip_axes=mirror, ignore_label=plan.labels.ignored,
        prediction=PredictionRule(mean="logits", mirror=mirror, tile="patch", blend="filter", previous=previous),
    )  # fmt: skip


def _mirrored(file: Path, plan: Plan, found: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the axes of the network's grid along which nnU-Net mirrors."""
    axes = found.get("inference_allowed_mirroring_axes") or ()
    dims = plan.dims - plan.planes
    if not isinstance(axes, (tuple, list)) or not all(type(axis) is int and 0 <= axis < dims for axis in axes):
        came = f"inference_allowed_mirroring_axes is {brief(axes)}"
        raise fault(file, came, f"axes from 0 to {dims - 1}", "Copy the file from the training folder")
    return tuple(sorted({axis + plan.planes for axis in axes}))


def _as_volume(value: object) -> object:
    """Return the weight of a convolution over planes as that of one over volumes of a slice."""
    return value[:, :, None] if isinstance(value, Tensor) and value.ndim == 4 else value


def _fingerprint(source: Path) -> str:
    """Return SHA-256 over what is known of the training data: their description and their plans."""
    parts = [(source / name).read_bytes() for name in ("dataset.json", "plans.json")]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
