"""Losses of bfloat16 and int8 on networks trained here: a U-Net on hippocampus, ResNet-18 and MobileNet-V2 on CIFAR.

Run by hand::

    .venv/bin/python -m tools.task_losses --data FOLDER --work FOLDER [--minutes 5] [--only mobilenet_v2]

FOLDER of the data holds ``hippocampus`` and ``cifar10``, as ``convoxel train`` reads them. Each network is trained for
so many minutes, unless the work folder holds its run. It is quantised with a loss of at most 0.005 on its validation
images and evaluated at every precision; on CIFAR on the test images, which no choice was made on. The table tells the
figure of the task, its loss, and the share of decisions, voxels or images, that differ from those of float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.cli import main as convoxel
from convoxel.graph.quantise import Quantisation
from convoxel.train import evaluate
from convoxel.train.run_quantisation import quantise_run

PRECISIONS = ("float32", "high", "bfloat16", "int8")


@dataclass(frozen=True)
class Case:
    """A network to train.

    Attributes:
        task, data: task and folder of the data.
        words: further words of ``convoxel train``.
        split: part of the data that losses are measured on; layers are chosen on the validation part.
    """

    task: str
    data: str
    words: Sequence[str]
    split: str


SMALL_STEM = ("--set", "model_options.stem=small", "--validation", "300")
CASES = {
    "unet": Case("segment", "hippocampus", ("--patch", "48,64,48", "--validation", "26"), "validation"),
    "resnet18": Case("classify", "cifar10", ("--width", "0.5", *SMALL_STEM), "test"),
    "mobilenet_v2": Case("classify", "cifar10", ("--width", "0.5", *SMALL_STEM), "test"),
}


def measure(name: str, data: Path, work: Path, minutes: float) -> dict[str, Any]:
    """Train and quantise a network and return its figures by precision."""
    case, run = CASES[name], work / name
    if not (run / "evaluation.json").exists():
        words = ["train", case.task, "--data", data / case.data, "--model", name, "--minutes", minutes, *case.words]
        if convoxel([str(word) for word in (*words, "--output", run)]):
            raise SystemExit(f"{name}: the training failed")
    program, _ = quantise_run(run, None, split="validation")
    record = Quantisation.of(program)
    rows: dict[str, Any] = {}
    decisions: dict[str, list[np.ndarray]] = {}
    for precision in PRECISIONS:
        found = decisions[precision] = []

        def keep(index: int, sample: Any, prediction: Any, row: Any, found: list[np.ndarray] = found) -> None:
            values = np.asarray(prediction)
            found.append(values.argmax() if case.task == "classify" else values.copy())

        figures = evaluate(run, None, precision=precision, split=case.split, on_sample=keep)
        changed = sum(int((a != b).sum()) for a, b in zip(found, decisions["float32"], strict=True))
        rows[precision] = {"metric": figures["metric"], "changed": changed / sum(np.size(each) for each in found)}
    return {"network": name, "metric": figures["metric_name"], "quantisation": str(record), "precisions": rows}


def main() -> int:
    """Measure the networks and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", choices=tuple(CASES))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print("| network | precision | figure | loss | changed decisions |\n|---|---|---|---|---|", flush=True)
    for name in [options.only] if options.only else CASES:
        found = measure(name, options.data, options.work, options.minutes)
        (options.work / f"{name}.json").write_text(json.dumps(found, indent=1))
        whole = found["precisions"]["float32"]["metric"]
        for precision, row in found["precisions"].items():
            loss, changed = whole - row["metric"], 100 * row["changed"]
            print(f"| {name} | {precision} | {row['metric']:.4f} | {loss:+.4f} | {changed:.3f} % |", flush=True)
        print(f"\n{name}: {found['quantisation']}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
