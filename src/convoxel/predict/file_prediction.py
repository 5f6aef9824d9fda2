"""Prediction of image files: label maps with the images' affine, or a table of classes."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convoxel.data.image_header import fit_channels
from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import write_json, write_text
from convoxel.files.folder import make_folder
from convoxel.graph.run.tiling import TilePlan
from convoxel.predict.case_files import list_inputs, name_maps
from convoxel.predict.case_prediction import LABEL_MAP, MapOptions, predict_case, read_case, read_case_header
from convoxel.predict.classification_metric import THRESHOLD
from convoxel.predict.inference import Predictor
from convoxel.predict.run_progress import OnProgress, Progress

_CLASSIFY_BATCH = 32


def predict_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    on_progress: OnProgress | None = None,
    options: MapOptions = LABEL_MAP,
    ending: str | None = None,
    on_tiling: Callable[[TilePlan], None] | None = None,
) -> list[Path]:
    """Predict the images of ``source``, write the results to ``target`` and return the files written.

    ``ending`` is that of label maps in a folder (default: by the image's format); ``on_tiling`` is called with the
    exact tiles of each image.

    See :func:`convoxel.train.predict`, which does this with the network of a run folder.
    """
    files = list_inputs(source)
    segment, facts = predictor.run.config.task == "segment", predictor.run.data
    if segment:
        targets = name_maps(files, source, target, facts.dims, ending)
    else:
        targets = [target if target.suffix.lower() in (".csv", ".json") else target / "predictions.csv"]
    taken = {path.resolve() for path in files}
    for path in targets:
        if path.resolve() in taken:
            raise ConfigError(f"output: {path} is an input image. Give another --output.")
        if path.is_dir():
            raise ConfigError(f"output: {path} is a folder, a file is needed there. Give another --output.")
    headers = [read_case_header(predictor, path, options) for path in files]
    for path, header in zip(files, headers, strict=True):  # a wrong image is refused before the first prediction
        fit_channels(path, header, facts.channels)
    lying = [(str(path), h.stated_affine, h.spacing_mm) for path, h in zip(files, headers, strict=True)]
    facts.warn_of_geometry(lying)
    with make_folder(targets[0].parent):
        if segment:
            _write_maps(predictor, files, targets, options, on_progress, on_tiling)
        else:
            _write_table(predictor, files, targets[0], options, on_progress)
    return targets


def _write_maps(
    predictor: Predictor,
    files: list[Path],
    targets: list[Path],
    options: MapOptions,
    on_progress: OnProgress | None,
    on_tiling: Callable[[TilePlan], None] | None,
) -> None:
    for done, (path, target) in enumerate(zip(files, targets, strict=True)):
        try:
            on_tile = functools.partial(_report_part, on_progress, done, len(files))
            result = predict_case(predictor, path, [target], options, on_tile)
        except DataError as error:
            if done == 0:
                raise
            raise DataError(f"{error} {done} of {len(files)} label maps are written in {target.parent}.") from None
        if on_tiling is not None and result.tiling is not None:
            on_tiling(result.tiling)
        _report(on_progress, done + 1, len(files))


def _write_table(
    predictor: Predictor, files: list[Path], target: Path, options: MapOptions, on_progress: OnProgress | None
) -> None:
    rows: list[dict[str, str | float]] = []
    regress = predictor.run.config.task == "regress"
    for first in range(0, len(files), _CLASSIFY_BATCH):
        group = files[first : first + _CLASSIFY_BATCH]
        samples = [read_case(predictor, path, options) for path in group]
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
