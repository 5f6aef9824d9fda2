"""Folders of runs as training leaves them, written without a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def history(classes: list[str], count: int = 5) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    return [
        {
            "step": 10 * i, "epoch": i, "time_s": 30.0 * i, "train_loss": 4.0 / i, "validation_loss": 5.0 / i**2,
            "metric": (0.5, 0.7, 0.9, 0.85, 0.9)[(i - 1) % 5], "per_class": dict.fromkeys(classes, 0.5 + 0.05 * i),
            "learning_rate": 0.01 / i, "samples_per_s": 8.0,
        }
        for i in range(1, count + 1)
    ]  # fmt: skip


def segmented(path: Path, names: tuple[str, str] = ("grey", "white"), sample: str = "case") -> Path:
    """A run folder as training leaves it, with small pictures."""
    classes = ["background", *names]
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(
        "task: segment\ndata: 'my data'\nmodel: unet\nminutes: 3.0\nlevels: 2\npatch: [8, 8, 8]\naugment: true\n"
    )
    rows = history(list(names))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [
        {"name": f"{sample}{i}", "metric": 0.8 + 0.05 * i, "dice": dict.fromkeys(classes, 0.8 + 0.05 * i)}
        for i in range(3)
    ]
    evaluation = {
        "metric_name": "mean Dice", "metric": 0.912, "per_class": dict.fromkeys(names, 0.912), "loss": 0.2,
        "confusion": [[900, 50, 50], [10, 190, 0], [0, 20, 80]], "samples": samples, "count": 3, "step": 30,
    }  # fmt: skip
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    data = {"classes": classes, "dims": 3, "data_name": "my data", "fingerprint": "ab" * 32}
    for name, step, fraction in (("best", 30, 0.6), ("last", 50, 1.0)):
        body = {"data": data, "step": step, "fraction": fraction, "elapsed_s": 150.0, "versions": {"convoxel": "1"}}
        (path / "checkpoints" / f"{name}.json").write_text(json.dumps({"sha256": "", "body": body}))
    row = {"name": "conv", "operator": "max_pool", "output_shape": [1, 2, 8], "kernel": [3], "params": 1234,
           "macs": 5000, "field": {"size": [3], "whole": [False]}}  # fmt: skip
    total = {"params": 1234, "macs": 5000, "peak_bytes": 4096, "field": [44, 44, 44], "whole": [False] * 3}
    described = {"name": "UNet", "input_shapes": [[1, 1, 8, 8, 8]], "total": total, "rows": [row], "remarks": ["Note."]}
    (path / "describe.json").write_text(json.dumps(described))
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 20, 16), np.uint8)
    titles = np.array([f"{sample}0, slice 4", f"{sample}1, slice 5"])
    labels[:, 5:12, 5:9], labels[:, 5:12, 9:12] = 1, 2
    np.savez(path / "examples.npz", images=rng.random((2, 20, 16)).astype(np.float32), labels=labels,
             predictions=np.roll(labels, 1, axis=1), names=titles)  # fmt: skip
    return path


def classified(path: Path, names: list[str]) -> Path:
    """A run folder of a classification: one image of the first class is taken for the second."""
    size = len(names)
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text("task: classify\ndata: digits\nmodel: course_vgg\nepochs: 4\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history(names)))
    matrix = 9 * np.eye(size, dtype=int)
    matrix[0, 1] = 3
    samples = [
        {"name": "a", "label": names[0], "predicted": names[1], "probability": 0.7, "correct": False},
        {"name": "b", "label": names[1], "predicted": names[1], "probability": 0.99996, "correct": True},
    ]
    evaluation = {"metric_name": "accuracy", "metric": 0.97, "per_class": dict.fromkeys(names, 0.9), "count": 2,
                  "confusion": matrix.tolist(), "samples": samples, "step": 30}  # fmt: skip
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    np.savez(path / "examples.npz", images=np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32),
             labels=np.array([1, 0]), predictions=np.array([1, 1]), names=np.array(["b", "a"]))  # fmt: skip
    return path
