"""Tables of classes or numbers: a row for each image, as CSV or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convoxel.data import Sample
from convoxel.files.atomic import write_json, write_text
from convoxel.files.csv_text import csv_text
from convoxel.predict.classification_metric import THRESHOLD
from convoxel.predict.inference import Predictor

Row = dict[str, str | float]


def predict_rows(predictor: Predictor, names: Sequence[str], samples: Sequence[Sample]) -> list[Row]:
    """Return the rows of images, computed as one batch."""
    regress = predictor.run.config.task == "regress"
    found = predictor.values(samples) if regress else predictor.shares(samples)
    rows: list[Row] = []
    for name, share in zip(names, found, strict=True):
        if regress:
            values = (float(f"{value:.9g}") for value in share)
            rows.append({"file": name, **dict(zip(columns(predictor)[1:], values, strict=True))})
            continue
        named = {f"p_{name}": round(float(p), 6) for name, p in zip(predictor.classes, share, strict=True)}
        if predictor.run.data.multi_label:  # as the column of labels.csv: no name where there is no class
            chosen = np.flatnonzero(share >= (THRESHOLD if predictor.thresholds is None else predictor.thresholds))
            rows.append({"file": name, "labels": ";".join(predictor.classes[c] for c in chosen), **named})
        else:
            best = predictor.classes[int(share.argmax())]
            rows.append({"file": name, "class": best, "probability": named[f"p_{best}"], **named})
    return rows


def columns(predictor: Predictor) -> list[str]:
    """Return the names of the columns, as :func:`predict_rows` fills them."""
    if predictor.run.config.task == "regress":
        prefix = "predicted_" if "file" in predictor.classes else ""
        return ["file", *(f"{prefix}{name}" for name in predictor.classes)]
    chosen = ["labels"] if predictor.run.data.multi_label else ["class", "probability"]
    return ["file", *chosen, *(f"p_{name}" for name in predictor.classes)]


def write_table(target: Path, names: Sequence[str], rows: Sequence[Mapping[str, str | float]]) -> None:
    """Write rows with these columns as .csv or .json, in one step.

    Raises:
        WriteError: the file cannot be written.
    """
    if target.suffix.lower() == ".json":
        write_json(target, [dict(row) for row in rows])
        return
    write_text(target, csv_text([names, *([row.get(name, "") for name in names] for row in rows)]))
