"""The metrics of single images as CSV: a row for each image and class to segment, a row for each image to classify.

Figures are written with all their digits; what is undefined stays empty.
"""

from __future__ import annotations

from pathlib import Path

from convoxel.files.atomic import write_text
from convoxel.files.csv_text import csv_text
from convoxel.files.values import Options


def write_case_table(path: Path, evaluation: Options) -> Path:
    """Write the table of an evaluation, whole or not at all, and return its path.

    Columns of a segmentation: image, subject, class, labelled_voxels, predicted_voxels, then a column for each metric
    with its unit, such as "hd95 (mm)". Of a classification: image, subject, class, predicted, correct, probability, and
    the probability of each class, "p_cat" (of up to 128 classes). Of a regression: image, subject, then the true and
    the predicted value of each target, "age" and "predicted_age" ("true_age" for all, where a column would come twice).

    Raises:
        DataError: the file cannot be written.
    """
    kinds = {"mean Dice": _overlap_rows, "R²": _value_rows}
    return write_text(path, csv_text(kinds.get(evaluation["metric_name"], _class_rows)(evaluation)))


def _overlap_rows(evaluation: Options) -> list[list[object]]:
    figures = evaluation["figures"]
    units = [f"{name} ({figure['unit']})" if figure["unit"] else name for name, figure in figures.items()]
    rows: list[list[object]] = [["image", "subject", "class", "labelled_voxels", "predicted_voxels", *units]]
    for sample in evaluation["samples"]:
        for label, voxels in sample["voxels"].items():
            rows.append([sample["name"], sample["subject"], label, *voxels,
                         *(sample["values"][name][label] for name in figures)])  # fmt: skip
    return rows


def _value_rows(evaluation: Options) -> list[list[object]]:
    samples = evaluation["samples"]
    targets = list(samples[0]["truth"]) if samples else []
    taken = {"image", "subject", *(f"predicted_{target}" for target in targets)}
    prefix = "true_" if taken.intersection(targets) else ""
    return [
        ["image", "subject", *(name for each in targets for name in (f"{prefix}{each}", f"predicted_{each}"))],
        *([sample["name"], sample["subject"], *(sample[side][target] for target in sample["truth"]
                                                for side in ("truth", "predicted"))] for sample in samples),
    ]  # fmt: skip


def _class_rows(evaluation: Options) -> list[list[object]]:
    named = [f"p_{name}" for name in evaluation["samples"][0]["probabilities"]] if evaluation["samples"] else []
    rows: list[list[object]] = [["image", "subject", "class", "predicted", "correct", "probability", *named]]
    for sample in evaluation["samples"]:
        rows.append([sample["name"], sample["subject"], sample["label"], sample["predicted"],
                     int(sample["correct"]), sample["probability"], *sample["probabilities"].values()])  # fmt: skip
    return rows
