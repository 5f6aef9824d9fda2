"""Predicts image files: label maps beside nothing but their affine, or a table of classes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convoxel import data
from convoxel.data.header import fit_channels
from convoxel.data.image import list_images, read_header, split_ending, with_dims
from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import write_bytes
from convoxel.files.fault import ErrorCollector
from convoxel.train.inference import Predictor, load_predictor
from convoxel.train.progress import Progress

__all__ = ["predict"]

_CLASSIFY_BATCH = 32
OnProgress = Callable[[Progress], None]


def predict(
    run_dir: str | Path,
    input: str | Path,
    output: str | Path,
    *,
    engine: str = "convoxel",
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Predict one image file or a folder of them and return the files written.

    Segmentation writes one label map per image, with the image's affine: NIfTI for volumes, PNG for planes.
    An ``output`` that ends like an image file is that file, else a folder of files named as the images.
    Classification writes one table: ``output`` itself if it ends in ``.csv`` or ``.json``, else
    ``predictions.csv`` in that folder; each row has file, class, probability and all probabilities.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        input: image file, or folder of image files (or with an ``images`` folder).
        output: file or folder, see above. No file is half-written, and no input is overwritten.
        engine: "convoxel" or "torch".
        on_progress: called after each image; ``step`` of ``steps_total`` images.

    Raises:
        DataError: the input is missing, empty, unreadable or does not fit the network.
        ConfigError: the output is the input, or a file where a folder is needed.
        CheckpointError: ``run_dir`` is no run.
    """
    source, target = Path(input), Path(output)
    files = _list(source)
    predictor = load_predictor(run_dir, engine=engine)
    segment = predictor.config.task == "segment"
    targets = _name_maps(files, source, target, predictor.dims) if segment else [_name_table(target)]
    taken = {path.resolve() for path in files}
    for path in targets:
        if path.resolve() in taken:
            raise ConfigError(f"output: {path} is an input image. Give another --output.")
        if path.is_dir():
            raise ConfigError(f"output: {path} is a folder, a file is needed there. Give another --output.")
    for path in files:
        _check_header(predictor, path)  # a folder with a wrong image is refused before the first prediction
    made = _make_folder(targets[0].parent)
    try:
        return _write(predictor, files, targets, on_progress)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: what was written is whole and stays
                folder.rmdir()
        raise


def _write(predictor: Predictor, files: list[Path], targets: list[Path], on_progress: OnProgress | None) -> list[Path]:
    if predictor.config.task == "segment":
        _write_maps(predictor, files, targets, on_progress)
    else:
        _write_table(predictor, files, targets[0], on_progress)
    return targets


def _list(source: Path) -> list[Path]:
    if not source.exists():
        raise DataError(f"input: {source} does not exist. Give an image file or a folder of images.")
    if source.is_file():
        return [source]
    folder = source / "images" if (source / "images").is_dir() else source
    files = list_images(folder, ErrorCollector())
    if not files:
        raise DataError(f"input: {folder} holds no image file. Give a folder of .nii.gz, .png, .npy … files.")
    return files


def _name_maps(files: list[Path], source: Path, target: Path, dims: int) -> list[Path]:
    if source.is_file() and split_ending(target)[1] and not target.is_dir():
        return [target]
    if split_ending(target)[1] and not target.is_dir():
        raise ConfigError(f"output: {target} names one file, but {source} is a folder. Give a folder.")
    ending = {1: ".npy", 2: ".png", 3: ".nii.gz"}[dims]
    return [target / (split_ending(path)[0] + ending) for path in files]


def _name_table(target: Path) -> Path:
    if target.suffix.lower() in (".csv", ".json"):
        return target
    return target / "predictions.csv"


def _check_header(predictor: Predictor, path: Path) -> None:
    header = with_dims(path, read_header(path), predictor.dims)
    fit_channels(path, header, predictor.channels)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and return those that were not there, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output: cannot make the folder {folder} ({error.strerror or error}). Give another --output."
        ) from None
    return made


def _read(predictor: Predictor, path: Path) -> Any:
    return data.read_image(path, dims=predictor.dims, channels=predictor.channels)


def _write_maps(predictor: Predictor, files: list[Path], targets: list[Path], on_progress: OnProgress | None) -> None:
    for number, (path, target) in enumerate(zip(files, targets, strict=True), 1):
        try:
            sample = _read(predictor, path)
            data.write_label(target, predictor.label_map(sample.image), sample.affine, sample.spacing_mm)
        except DataError as error:
            if number == 1:
                raise
            done = f"{number - 1} of {len(files)} label maps are written in {target.parent}"
            raise DataError(f"{error} {done}.") from None
        _report(on_progress, number, len(files))


def _write_table(predictor: Predictor, files: list[Path], target: Path, on_progress: OnProgress | None) -> None:
    rows: list[dict[str, Any]] = []
    for first in range(0, len(files), _CLASSIFY_BATCH):
        group = files[first : first + _CLASSIFY_BATCH]
        logits = predictor.class_logits([_read(predictor, path).image for path in group]).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        for path, share in zip(group, shares, strict=True):
            best = int(share.argmax())
            rounded = [round(float(p), 6) for p in share]
            row = {"file": path.name, "class": predictor.classes[best], "probability": rounded[best]}
            row.update((f"p_{name}", p) for name, p in zip(predictor.classes, rounded, strict=True))
            rows.append(row)
        _report(on_progress, first + len(group), len(files))
    if target.suffix.lower() == ".json":
        write_bytes(target, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
        return
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(target, text.getvalue().encode("utf-8"))


def _report(on_progress: OnProgress | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(Progress(1, done, total, done / total, None, None, None, None, "predict"))
