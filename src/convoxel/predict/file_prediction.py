"""Prediction of image files: label maps with the images' affine, or a table of classes."""

from __future__ import annotations

import csv
import functools
import io
import unicodedata
from pathlib import Path

import numpy as np

from convoxel import data
from convoxel.data.image_file import list_images, map_image, read_header, with_dims
from convoxel.data.image_format import endings, find_format, split_ending
from convoxel.data.image_header import Header, fit_channels
from convoxel.errors import ConfigError, DataError, check_choice
from convoxel.files.atomic import write_json, write_text
from convoxel.files.fault import shown
from convoxel.files.folder import make_folder
from convoxel.predict.classification_metric import THRESHOLD
from convoxel.predict.inference import Predictor
from convoxel.predict.run_progress import OnProgress, Progress

_CLASSIFY_BATCH = 32


def list_inputs(source: Path) -> list[Path]:
    """Return the images that ``source`` names: itself, those in it, or those in its folder ``images``.

    Raises:
        DataError: it is missing, or a folder without images.
    """
    found = find_format(source)
    if not source.exists() and not (found and found.holds and found.holds(source)):  # FOLDER#SERIES exists in it
        raise DataError(f"input: {source} does not exist. Give an image file or a folder of images.")
    if source.is_file() or found is not None:
        return [source]
    folder = source / "images" if (source / "images").is_dir() else source
    files = list_images(folder)
    if not files:
        raise DataError(f"input: {folder} holds no image file. Give a folder of .nii.gz, .png, .npy … files.")
    return files


def predict_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    on_progress: OnProgress | None = None,
    axes: str | None = None,
    ending: str | None = None,
) -> list[Path]:
    """Predict the images of ``source``, write the results to ``target`` and return the files written.

    ``ending`` is that of label maps in a folder (default: by the image's format).

    See :func:`convoxel.train.predict`, which does this with the network of a run folder.
    """
    files = list_inputs(source)
    segment, facts = predictor.run.config.task == "segment", predictor.run.data
    if segment:
        targets = _name_maps(files, source, target, facts.dims, ending)
    else:
        targets = [target if target.suffix.lower() in (".csv", ".json") else target / "predictions.csv"]
    taken = {path.resolve() for path in files}
    for path in targets:
        if path.resolve() in taken:
            raise ConfigError(f"output: {path} is an input image. Give another --output.")
        if path.is_dir():
            raise ConfigError(f"output: {path} is a folder, a file is needed there. Give another --output.")
    headers = [_read_header(predictor, path, axes) for path in files]
    for path, header in zip(files, headers, strict=True):  # a wrong image is refused before the first prediction
        fit_channels(path, header, facts.channels)
    lying = [(str(path), h.stated_affine, h.spacing_mm) for path, h in zip(files, headers, strict=True)]
    facts.warn_of_geometry(lying)
    with make_folder(targets[0].parent):
        if segment:
            _write_maps(predictor, files, targets, axes, on_progress)
        else:
            _write_table(predictor, files, targets[0], axes, on_progress)
    return targets


def _name_maps(files: list[Path], source: Path, target: Path, dims: int, ending: str | None) -> list[Path]:
    if split_ending(target)[1] and not target.is_dir():
        if files == [source]:
            return [target]
        raise ConfigError(f"output: {target} names one file, but {source} is a folder. Give a folder.")
    if ending is not None:
        check_choice("ending", ending, endings(written=True))
    targets = [target / (split_ending(path)[0] + (ending or _label_ending(path, dims))) for path in files]
    _check_distinct(files, targets)
    return targets


def _label_ending(path: Path, dims: int) -> str:
    """Return the ending of the label map of an image: its own format's where that has a say."""
    found = find_format(path)
    return (found and found.label_ending) or {1: ".npy", 2: ".png", 3: ".nii.gz"}[dims]


def _check_distinct(files: list[Path], targets: list[Path]) -> None:
    """Raise ConfigError where two images would have one label map, or had on a disk that ignores capitals."""
    inputs: dict[str, Path] = {}
    for path, target in zip(files, targets, strict=True):
        first = inputs.setdefault(unicodedata.normalize("NFC", target.name).casefold(), path)
        if first is not path:
            raise ConfigError(
                f"input: {shown(first.name)} and {shown(path.name)} would both be written as {shown(target.name)}; "
                "expected names that differ before their endings, in more than capitals. Rename one of them."
            )


def _read_header(predictor: Predictor, path: Path, axes: str | None) -> Header:
    """Return the header of an image as the network sees it; axes that were stated for training serve where they fit."""
    header, facts, trained = read_header(path), predictor.run.data, predictor.run.config.axes
    if axes is None and trained and header.stored and len(trained.removeprefix("N")) == len(header.stored[0]):
        axes = trained
    return with_dims(path, header, facts.dims, facts.channels, axes)


def _read(predictor: Predictor, path: Path, axes: str | None) -> data.Sample:
    read = data.read_image if predictor.exact is None else map_image  # exact tiles read what they need
    found = _read_header(predictor, path, axes).axes or None
    return read(path, dims=predictor.run.data.dims, channels=predictor.run.data.channels, axes=found)


def _write_maps(
    predictor: Predictor, files: list[Path], targets: list[Path], axes: str | None, on_progress: OnProgress | None
) -> None:
    for done, (path, target) in enumerate(zip(files, targets, strict=True)):
        try:
            sample = _read(predictor, path, axes)
            on_tile = functools.partial(_report_part, on_progress, done, len(files))
            found = predictor.label_map(sample, on_tile)
            data.write_label(target, found, like=sample, classes=predictor.classes)
        except DataError as error:
            if done == 0:
                raise
            raise DataError(f"{error} {done} of {len(files)} label maps are written in {target.parent}.") from None
        _report(on_progress, done + 1, len(files))


def _write_table(
    predictor: Predictor, files: list[Path], target: Path, axes: str | None, on_progress: OnProgress | None
) -> None:
    rows: list[dict[str, str | float]] = []
    regress = predictor.run.config.task == "regress"
    for first in range(0, len(files), _CLASSIFY_BATCH):
        group = files[first : first + _CLASSIFY_BATCH]
        samples = [_read(predictor, path, axes) for path in group]
        shares = predictor.values(samples) if regress else predictor.shares(samples)
        for path, share in zip(group, shares, strict=True):
            if regress:
                named = {name: float(f"{value:.9g}") for name, value in zip(predictor.classes, share, strict=True)}
                rows.append({"file": path.name, **named})
                continue
            named = {f"p_{name}": round(float(p), 6) for name, p in zip(predictor.classes, share, strict=True)}
            if predictor.run.data.multi_label:  # as the column of labels.csv: no name where there is no class
                chosen = np.flatnonzero(share >= THRESHOLD)
                rows.append({"file": path.name, "labels": ";".join(predictor.classes[c] for c in chosen), **named})
            else:
                best = predictor.classes[int(share.argmax())]
                rows.append({"file": path.name, "class": best, "probability": named[f"p_{best}"], **named})
        _report(on_progress, first + len(group), len(files))
    if target.suffix.lower() == ".json":
        write_json(target, rows)
        return
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(target, text.getvalue())


def _report_part(on_progress: OnProgress | None, done: int, total: int, part: int, parts: int) -> None:
    """Report a tile of an image; the last one is the image itself, once its label map is written."""
    if part < parts:
        _report(on_progress, done + part / parts, total)


def _report(on_progress: OnProgress | None, done: float, total: int) -> None:
    if on_progress is not None:
        on_progress(Progress(phase="predict", epoch=1, step=int(done), steps_total=total, fraction=done / total))
