"""Run folders as trained networks: load one, predict images with it; none of PyTorch where programs are kept."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoxel import data
from convoxel.data.axes import check_axes
from convoxel.errors import CheckpointError, ConfigError, DataError, check_choice
from convoxel.files.fault import ErrorCollector
from convoxel.files.manifest import encode
from convoxel.files.values import JsonObject
from convoxel.predict.archive import ArchiveOptions
from convoxel.predict.case_files import list_inputs, take_part
from convoxel.predict.case_manifest import CaseRecord
from convoxel.predict.case_prediction import MapOptions
from convoxel.predict.clean_up import CleanUp
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor, build_predictor, check_engine, join_predictors, place_run
from convoxel.predict.label_threshold import Threshold, plan_thresholds, read_best
from convoxel.predict.member import MemberFacts, check_members
from convoxel.predict.ray_workers import RayWorkers, parse_place
from convoxel.predict.run_progress import OnProgress
from convoxel.predict.trained_run import DataFacts, StoredNetwork, TrainedRun
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.run_list import SPLIT, Runs, check_folds, list_runs

if TYPE_CHECKING:
    from torch import nn

# How runs of earlier versions were computed, which do not say it.
_ON_CPU = {"device": "cpu", "channels_last": True, "compile": False}


def load_model(run_dir: str | Path, which: str = "best") -> TrainedRun[TrainConfig]:
    """Return the trained network of a run folder in eval mode, with its configuration and the facts of its data.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        which: "best" by the validation metric, or "last" (default "best").

    Returns:
        ``network``, ``config``, ``data`` (``classes``, ``dims``, ``channels``, ``spacing_mm`` …), ``step``, ``metric``.

    Raises:
        CheckpointError: the folder is no run, or no checkpoint in it is whole. A damaged best checkpoint
            is replaced by the last one, with a warning.
        ConfigError: ``which`` is neither word.
    """
    run = _open_run(Path(run_dir), which)
    _ = run.network  # loaded now: a training that goes on replaces the checkpoint
    return run


def _open_run(run: Path, which: str) -> TrainedRun[TrainConfig]:
    """Return a run whose network is loaded once somebody asks for it: a kept program does not need it."""
    body = _read_manifest(run, which)
    config, facts = read_facts(body, run)

    def load_network() -> nn.Module:
        from convoxel.predict.computation import Computation
        from convoxel.train.run_network import build_network, load_weights

        network = build_network(config, facts.dims, facts.inputs, len(facts.outputs))
        load_weights(network, Store(run).reload(body), run)
        return Computation().arrange(network.eval(), facts.dims)

    identity = hashlib.sha256(encode(body)).hexdigest()  # the body holds the hashes of all tensors
    source = StoredNetwork(run, which, load_network)
    return TrainedRun(source, config, facts, int(body["step"]), body.get("metric"), identity)


def read_facts(body: JsonObject, run: Path) -> tuple[TrainConfig, DataFacts]:
    """Return the configuration and the facts of the data that the manifest of a checkpoint holds.

    Runs of earlier versions validated on the test part where the data had no validation part. They do not know the
    sizes of their parts, and go on with the parts that they had. They were trained on the CPU.

    Raises:
        CheckpointError: they are not what a training writes, although the checkpoint is whole.
    """
    try:
        config, facts = TrainConfig.build(**body["config"]), DataFacts.from_dict(body["data"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # ConfigError is a ValueError
        raise CheckpointError(
            f"checkpoint: the one in {run} is none of a training run ({type(error).__name__}: {error}). Start anew."
        ) from None
    if not facts.parts and config.validation is None:
        config = config.model_copy(update={"validation": "test"})
    if config.device is None:
        config = config.model_copy(update=_ON_CPU)
    if config.engine is None:  # trained before there was a choice
        config = config.model_copy(update={"engine": "torch"})
    return config, facts


def _read_manifest(run: Path, which: str) -> JsonObject:
    """Return the manifest of a checkpoint whose tensors are whole."""
    if which not in ("best", "last"):
        raise ConfigError(f"which: got {which!r}; expected 'best' or 'last'.")
    store = Store(run)
    if not store.folder.is_dir():
        came = "is not a training run (it has no checkpoints folder)" if run.exists() else "does not exist"
        raise CheckpointError(
            f"the run {run} {came}; expected the folder of a training run. "
            "Give the one that `convoxel train --output` named."
        )
    if which == "last":
        return store.newest().body
    try:
        return store.best().body
    except CheckpointError as error:
        body = store.newest().body
        if any(store.folder.glob("best*")):
            reason = str(error).partition("(")[2].rpartition(")")[0]
            warnings.warn(
                f"checkpoint: the best one in {run} cannot be used ({reason}); the last one, of step "
                f"{body['step']}, is used instead.",
                RuntimeWarning,
                stacklevel=3,
            )
        return body


def load_predictor(
    runs: Runs,
    *,
    engine: str = "convoxel",
    precision: str | None = None,
    which: str = "best",
    device: str = "auto",
    mirror: str | Sequence[int] | None = None,
    threshold: Threshold = None,
    **exact: Any,
) -> Predictor:
    """Return the predictor of a run folder, or of several as one ensemble.

    Arguments and errors as of :func:`load_model`, :func:`convoxel.train.run_list.list_runs` and :func:`predict`.
    """
    check_engine(engine, precision)
    members = load_members(runs, which)
    levels = find_thresholds(threshold, list_runs(runs), members)
    found = build_ensemble(members, engine, device, precision=precision, mirror=mirror, **exact)
    return replace(found, thresholds=levels)


def find_thresholds(
    threshold: Threshold, folders: Mapping[str, Path], members: Mapping[str, TrainedRun[TrainConfig]]
) -> tuple[float, ...] | None:
    """Return the threshold of each class where an image may have several; None where nothing is stated.

    Raises:
        ConfigError: it is none of the run's; or "best" of an ensemble, whose probabilities are none of a member's.
    """

    def best() -> dict[str, float]:
        if len(folders) > 1:
            raise ConfigError(
                "threshold: got 'best' with several runs, whose means have other thresholds; expected numbers. "
                "Evaluate the ensemble on data that no member was trained on, and state what it prints."
            )
        return read_best(next(iter(folders.values())))

    facts = next(iter(members.values())).data
    return plan_thresholds(threshold, facts.classes, facts.multi_label, best)


def load_members(runs: Runs, which: str = "best") -> dict[str, TrainedRun[TrainConfig]]:
    """Return the trained networks that ``runs`` name, by name; arguments and errors as of :func:`load_predictor`."""
    members = {name: _open_run(folder, which) for name, folder in list_runs(runs).items()}
    check_folds(runs, members)
    return members


def build_ensemble(
    members: Mapping[str, TrainedRun[TrainConfig]], engine: str, device: str, **options: Any
) -> Predictor:
    """Return the predictor of trained networks; they are compared before the first one is compiled."""
    check_members(members)
    shared: dict[str, Any] = {name: options.get(name) for name in ("precision", "mirror")}
    stages: dict[Path, Predictor] = {}
    for folder in filter(None, map(_find_previous, members.values())):
        if folder not in stages:
            stages[folder] = load_predictor(folder, engine=engine, device=device, **shared)
    return join_predictors(
        {
            name: build_predictor(
                run,
                engine=engine,
                computation=place_run(run, engine, device),
                previous=stages.get(_find_previous(run) or Path()),
                **options,
            )
            for name, run in members.items()
        }
    )


def _find_previous(run: TrainedRun[TrainConfig]) -> Path | None:
    """Return the folder of the stage before, in a cascade.

    Raises:
        CheckpointError: the run names another place than beside or inside its own folder.
    """
    stated = run.config.prediction.previous
    if stated is None or not isinstance(run.source, StoredNetwork):
        return None
    folder = run.source.folder.resolve()
    found = (folder / stated).resolve()
    if not found.is_relative_to(folder.parent):
        raise CheckpointError(f"run: prediction.previous is {stated}; expected a folder beside or inside the run's.")
    return found


def load_data(config: TrainConfig, source: str | Path | None = None, *, run: str | Path | None = None) -> data.DataSet:
    """Return the data set of a configuration, or another ``source`` read in the same way.

    The configuration's own data are split as the folder ``run`` says, where it does.
    """
    stated: dict[str, Any] = {name: getattr(config, name) for name in ("validation", "folds", "fold", "split")}
    # The template of "mni152" is cut in two by its own rule.
    if source is None and run is not None and config.data != "mni152" and (Path(run) / SPLIT).is_file():
        stated = {"split": Path(run) / SPLIT}
    return load_source(config, source, gap=config.gap, subject_pattern=config.subject_pattern, **stated)


def load_source(config: TrainConfig, source: str | Path | None, **stated: Any) -> data.DataSet:
    """Return the data of a configuration, or of another ``source``, split as ``stated`` (arguments of ``load``)."""
    where = config.data if source is None else str(source)
    try:
        return data.load(
            where,
            config.task,
            seed=config.seed,
            bad=config.on_bad_sample,
            resample_labels=config.resample_labels,
            axes=config.axes,
            rate=config.rate,
            ignore_label=config.ignore_label,
            **{"regions": None if config.regions is None else dict(config.regions), **stated},
        )
    except DataError as error:
        raise DataError(f"data: {error}") from None


def predict(
    run_dir: Runs,
    input: str | Path,
    output: str | Path,
    *,
    engine: str = "convoxel",
    precision: str | None = None,
    device: str = "auto",
    mirror: str | Sequence[int] | None = None,
    exact: bool = False,
    tile: int | Sequence[int] | None = None,
    axes: str | None = None,
    ending: str | None = None,
    probabilities: str | None = None,
    keep_largest: str | Sequence[str] | None = None,
    min_volume: str | float | None = None,
    fill_holes: bool = False,
    threshold: Threshold = None,
    on_error: str = "stop",
    skip_existing: bool = False,
    part: Sequence[int] = (1, 1),
    on: str | None = None,
    workers: int | None = None,
    on_begin: Callable[[list[MemberFacts]], None] = lambda members: None,
    on_case: Callable[[CaseRecord], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Predict one image file or a folder of them and return the files of results.

    Several runs are an ensemble: shares of classes are averaged on the image's own grid (logits where the runs'
    ``prediction.mean`` says so), numbers of a regression as they are. Members agree on task, classes, axes and
    channels; each has its own geometry, normalisation and patch.
    Segmentation writes one label map per image, on the image's own grid: NIfTI for volumes (MetaImage and NRRD in their
    own format), PNG for planes. A folder of DICOM slices is one image, ``FOLDER#NUMBER`` one series of several in it.
    Images are turned and resampled as the run's geometry says, and what is found returns. Those whose files do not say
    how they lie are taken as stored, with a warning.
    Channels may be files of their own, ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz`` … on one grid, as nnU-Net names them:
    they are one image, whose results are named CASE, where a network has several channels and such files hold one each.
    An ``output`` that ends like an image file is that file, else a folder of files named as the images.
    Classification writes one table: ``output`` itself if it ends in ``.csv`` or ``.json``, else
    ``predictions.csv`` in that folder; each row has file, class, probability and all probabilities.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote, several of them, or a folder with the runs of all folds.
        input: image file, or folder of image files (or with an ``images`` folder).
        output: file or folder, see above. No file is half-written, and no input is overwritten.
        engine: "convoxel" or "torch" (default "convoxel").
        precision: digits of the products, as of :func:`evaluate`.
        device: where PyTorch computes, as of :func:`evaluate` (default "auto").
        mirror: axes of the network's grid along which each tile is mirrored too; the logits of all copies are averaged.
            "none", "auto" (as training mirrored its samples), "all", or axes such as "lr" or "0,2" (default: what the
            run's ``prediction.mirror`` says, usually none).
        exact: compute label maps that are bit for bit those of whole images, on tiles that blend nothing (default
            False: overlapping tiles, blended, whose logits differ a little from the whole image's).
        tile: size of an exact tile, its halo included (default: what takes about a gigabyte).
        axes: what the axes of NumPy arrays mean, such as "HWC" (default: as in training, where that was stated; else as
            the network's axes and channels tell).
        ending: ending of the label maps in a folder, such as ".mha", or ".seg.dcm" for DICOM segmentations of DICOM
            series (default: by the image's format).
        probabilities: type of the numbers in maps of the classes' shares, "uint8", "uint16", "float16" or "float32",
            which are written beside each label map as ``NAME_probabilities`` (default: none). Volumes are 4-D NIfTI
            with classes as the fourth axis, planes TIFF with a page for each class, signals and float16 ``.npz``. Whole
            numbers of a voxel sum to the share 1 exactly, and the first of the largest is the class of the label map.
        keep_largest: classes of which only the largest connected component stays, such as "liver,spleen"; "all" for
            each class, "foreground" for all of them together (default: none). Components join at faces, edges and
            corners.
        min_volume: size below which components become background, such as "0.5ml", "20mm2", "30" (voxels), or by class
            "liver=2ml,tumour=5" (default: none).
        fill_holes: give enclosed background the class that has the most faces around it (default False).
        threshold: least probability at which a class is there, where an image may have several (default ½): a number,
            numbers by class such as ``{"cat": 0.3}`` or "cat=0.3,dog=0.6", or "best", those of the largest F1 on the
            run's validation part.
        on_error: "stop" raises the first error of an image of a folder; "skip" notes it in the manifest beside the
            results and predicts the others (default "stop"). What is wrong with every image, such as an option or a
            full disk, is raised.
        skip_existing: leave out the images whose results are there, came from the same content, networks and options
            (by hash), and are as they were written (default False).
        part: number of a part of the images, from 1, and number of parts; processes that each take one may run at once
            and write into the same folder (default: all). A table holds the rows of all parts that are done.
        on: "ray" computes in processes of a Ray cluster on this machine, "ray:ADDRESS" on another one, which reads and
            writes the same folders (default: in this process). Results are the same.
        workers: number of such processes (default: one for each machine). Each has its share of the cores.
        on_begin: called before the first image with ``run``, ``step`` and ``mirrored`` (axes) of each network.
        on_case: called with the record of each image: ``file``, ``state`` ("done", "skipped", "failed"), ``reason``,
            ``seconds``, ``tiling`` (exact tiles in words, and what the label map is equal to) …
        on_note: called with what the names of files were taken to say, in words.
        on_progress: called after each image and each exact tile; ``step`` of ``steps_total`` images.

    Raises:
        DataError: the input is missing, empty, unreadable or does not fit the network; ``exact``, and an image has
            another spacing than the run.
        ConfigError: the output is the input, or a file where a folder is needed; engine, device or axis is unknown;
            members of an ensemble do not agree; a class or size of the clean-up is none of the run's; ``exact`` with
            PyTorch, a classifier or mirrored images; ``tile`` without ``exact``, or too small (the message names the
            least); there is no such part or cluster.
        CheckpointError: one of ``run_dir`` is no run.
        UnsupportedError: ``exact`` and a step of the network sees the whole image; the message names it. Ray is not
            installed.
        WriteError: a result or the manifest cannot be written.
    """
    check_axes(axes)
    options = MapOptions(axes, probabilities, CleanUp.build(keep_largest, min_volume, fill_holes))
    check_choice("on_error", on_error, ("skip", "stop"))
    take_part([], part)
    list_inputs(Path(input), ErrorCollector(strict=False))  # a missing one is reported before the network is compiled
    if on is None and workers is not None:
        raise ConfigError(f"workers: got {workers} without on; give on='ray', or leave workers out.")
    folders = [folder.absolute() for folder in list_runs(run_dir).values()]  # workers may have another working folder
    load = functools.partial(
        load_predictor,
        engine=engine,
        precision=precision,
        device=device,
        mirror=mirror,
        exact=exact,
        tile=tile,
        threshold=threshold,
    )
    others = None if on is None else RayWorkers(functools.partial(load, folders), parse_place(on), workers)
    predictor = load(run_dir)
    on_begin([member.facts for member in predictor.members])
    return predict_files(
        predictor,
        Path(input),
        Path(output),
        on_progress,
        options,
        ending,
        archive=ArchiveOptions(on_error, skip_existing, part),
        on_case=on_case,
        on_note=on_note,
        workers=others,
    )
