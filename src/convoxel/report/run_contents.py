"""The contents of a run folder, for the report of any run: finished, interrupted or damaged.

A missing file is normal (the run has not come that far). A file that cannot be used becomes a problem in words, never
an exception, and the report says so. Sizes are checked before memory is asked for. Tensors of checkpoints are not read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np

from convoxel.draw.quantity import number
from convoxel.errors import CheckpointError
from convoxel.files.values import Array
from convoxel.predict.metrics import metric_name

Record: TypeAlias = dict[str, object]  # of JSON or YAML, with any values
_TEXT_BYTES = 64 * 2**20
_ARRAY_BYTES = 512 * 2**20
_PARTS = ("config.yaml", "metrics.jsonl", "checkpoints")


@dataclass
class RunFolder:
    """The readable side of a run.

    Attributes:
        path: the folder.
        config: entries of config.yaml; empty if there is none.
        metrics: rows of metrics.jsonl.
        evaluation: the closing figures; empty before the end.
        network: what describe.json holds; empty if nothing.
        examples: arrays of examples.npz; empty before the end.
        best: the manifest's body of the best checkpoint; empty before the first validation.
        last: the same of the newest checkpoint.
        plan: what the run chose, in words; empty in runs of earlier versions.
        problems: files that are there and cannot be used, each in one sentence.
    """

    path: Path
    config: Record = field(default_factory=dict)
    metrics: list[Record] = field(default_factory=list)
    evaluation: Record = field(default_factory=dict)
    network: Record = field(default_factory=dict)
    examples: dict[str, Array] = field(default_factory=dict)
    best: Record = field(default_factory=dict)
    last: Record = field(default_factory=dict)
    plan: Record = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def data(self) -> Record:
        """The description of the data in the checkpoints: classes, dims, channels, data_name, …"""
        return mapping(self.best.get("data")) or mapping(self.last.get("data"))

    @property
    def warnings(self) -> list[str]:
        """Sentences about what went wrong in training, the closing ones where it was closed."""
        told = self.evaluation.get("warnings", list(mapping(self.last.get("warnings")).values()))
        return [str(text) for text in told] if isinstance(told, list) else []

    @property
    def classes(self) -> list[str]:
        """The classes' names, background first in segmentation; from wherever they are known."""
        named = self.data.get("classes")
        if isinstance(named, list):
            return [str(name) for name in named]
        graded = [str(name) for name in mapping(self.evaluation.get("per_class"))]
        return graded if self.task != "segment" or not graded else ["background", *graded]

    @property
    def task(self) -> str:
        """ "segment", "classify" or "regress"."""
        task = self.config.get("task")
        return str(task) if task in ("classify", "regress") else "segment"

    @property
    def elsewhere(self) -> str:
        """The images that the figures are of, in words; empty for those that the run held out."""
        data, split = (str(self.evaluation.get(name) or "") for name in ("data", "split"))
        held_out = split in ("", "validation") and data in ("", str(self.data.get("data_name")))
        return "" if held_out else f"{data} ({split})"

    @property
    def metric_name(self) -> str:
        return str(self.evaluation.get("metric_name") or metric_name(self.task, self.multi_label))

    @property
    def multi_label(self) -> bool:
        """True where an image may have several classes, or none."""
        return self.data.get("multi_label") is True

    @property
    def fraction(self) -> float | None:
        """The share of the planned training that is done; None if no checkpoint tells."""
        return number(self.last.get("fraction"))

    @property
    def finished(self) -> bool:
        """True once training came to its end and was evaluated there."""
        return bool(self.evaluation) and (self.fraction is None or self.fraction >= 1.0)

    @property
    def best_row(self) -> Record:
        """The validation with the highest metric (the first of equals, as training keeps it); empty if none."""
        rows = [(metric, row) for row in self.metrics if (metric := number(row.get("metric"))) is not None]
        return max(rows, key=lambda pair: pair[0], default=(0.0, {}))[1]

    @property
    def written(self) -> datetime | None:
        """When the run's figures were last written, in local time."""
        for name in ("evaluation.json", "metrics.jsonl", "config.yaml"):
            try:
                return datetime.fromtimestamp((self.path / name).stat().st_mtime).astimezone()
            except OSError:
                continue
        return None


def read_run(run_dir: str | Path) -> RunFolder:
    """Return what ``run_dir`` holds.

    Raises:
        CheckpointError: it is no folder, or nothing in it is of a run.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise CheckpointError(f"report: {path} is no folder; give the folder that `convoxel train --output` wrote.")
    if not any((path / part).exists() for part in _PARTS):
        raise CheckpointError(
            f"report: {path} holds no run (none of {', '.join(_PARTS)}); "
            "give the folder that `convoxel train --output` wrote."
        )
    run = RunFolder(path)
    run.config = _read_config(run)
    run.metrics = _read_metrics(run)
    run.evaluation = _read_object(run, "evaluation.json")
    run.network = _read_object(run, "describe.json")
    run.plan = _read_object(run, "plan.json")
    run.best = mapping(_read_object(run, "checkpoints/best.json").get("body"))
    run.last = mapping(_read_object(run, "checkpoints/last.json").get("body"))
    run.config = run.config or mapping(run.last.get("config"))
    run.examples = _read_examples(run)
    return run


def mapping(value: object) -> Record:
    """Return ``value`` if it is a mapping, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Record]:
    """Return the mappings in ``value`` if it is a list, else none."""
    return [mapping(item) for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _read_text(run: RunFolder, name: str) -> str:
    path = run.path / name
    try:
        if not path.is_file():
            return ""
        if path.stat().st_size > _TEXT_BYTES:
            run.problems.append(f"{name} is larger than {_TEXT_BYTES >> 20} MiB and was not read.")
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        run.problems.append(f"{name} could not be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'}).")
        return ""


def _parsed(text: str) -> Record | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _read_object(run: RunFolder, name: str) -> Record:
    text = _read_text(run, name)
    found = _parsed(text) if text else {}
    if found is None:
        run.problems.append(f"{name} holds no JSON object and was not used.")
    return found or {}


def _read_metrics(run: RunFolder) -> list[Record]:
    lines = [line for line in _read_text(run, "metrics.jsonl").splitlines() if line.strip()]
    rows = [row for line in lines if (row := _parsed(line)) is not None]
    if bad := len(lines) - len(rows):
        run.problems.append(f"metrics.jsonl: {bad} of {len(lines)} lines hold no JSON object and were left out.")
    return rows


def _read_config(run: RunFolder) -> Record:
    text = _read_text(run, "config.yaml")
    if not text:
        return {}
    try:
        import yaml

        from convoxel.files.yaml_text import load_yaml

        found = load_yaml(text)
    except ImportError:
        return {}  # without PyYAML the checkpoint's copy serves
    except (yaml.YAMLError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        run.problems.append("config.yaml holds no entries and was not used.")
    return mapping(found)


def _read_examples(run: RunFolder) -> dict[str, Array]:
    path = run.path / "examples.npz"
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > _ARRAY_BYTES:
            run.problems.append(f"examples.npz unpacks to more than {_ARRAY_BYTES >> 20} MiB and was not read.")
            return {}
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception:  # zlib.error, BadZipFile, ValueError, …: all are faults of the file
        run.problems.append("examples.npz could not be read.")
        return {}
    if arrays and not _fits(arrays):
        run.problems.append("examples.npz does not hold images, labels, predictions and names of one count and size.")
        return {}
    if arrays and arrays["images"].dtype.kind == "f":
        arrays["images"] = np.nan_to_num(arrays["images"], posinf=0.0, neginf=0.0)  # an image of NaN can still be shown
    return arrays


def _fits(arrays: Mapping[str, Array]) -> bool:
    if any(name not in arrays or arrays[name].ndim < 1 for name in ("images", "labels", "predictions", "names")):
        return False
    images, labels = arrays["images"], arrays["labels"]
    pictures = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    kinds = "fiub" if labels.ndim == 2 else "iub"  # values to regress may be any numbers
    numeric = images.dtype.kind in "fiub" and all(arrays[n].dtype.kind in kinds for n in ("labels", "predictions"))
    counts = {len(array) for array in arrays.values() if array.ndim}
    alike = labels.shape in (images.shape[:3], images.shape[:1]) or labels.ndim == 2  # 2: which classes each image has
    shapes = labels.shape == arrays["predictions"].shape and alike
    return pictures and numeric and len(counts) == 1 and shapes and 0 not in images.shape
