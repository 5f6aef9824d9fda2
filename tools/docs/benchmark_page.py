"""The page of benchmarks, from files of measurements, each of which holds the command that made it.

``python -m tools.docs.benchmark_page networks.json "COMMAND" DATE`` keeps what ``convoxel bench networks --json`` wrote
as ``docs/benchmarks/networks.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tools.docs.page import PAGES

__all__ = ["FOLDER", "condense", "render_benchmarks"]

FOLDER = PAGES / "benchmarks"
_TITLES = {
    "alexnet": "AlexNet", "vgg16": "VGG-16", "googlenet": "GoogLeNet", "inception_v3": "Inception-v3",
    "resnet18": "ResNet-18", "resnet50": "ResNet-50", "densenet121": "DenseNet-121", "mobilenet_v2": "MobileNet-V2",
    "efficientnet_b0": "EfficientNet-B0", "unet2d": "U-Net 2-D, 256²", "unet3d": "U-Net 3-D, 64³",
}  # fmt: skip
_ENGINES = {
    "convoxel": "float32", "convoxel-high": "high", "convoxel-bfloat16": "bfloat16",
    "pytorch-cl": "PyTorch, channels-last", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO, float32",
    "pytorch-bf16": "PyTorch, bfloat16",
    "openvino-installed": "OpenVINO as installed",
}  # fmt: skip
_CLASSES = {
    "convoxel": ("pytorch-cl", "onnxruntime", "openvino"),
    "convoxel-bfloat16": ("pytorch-bf16", "openvino-installed"),
}


def condense(measured: dict[str, Any], command: str, date: str) -> dict[str, Any]:
    """Return what the page needs of the JSON of ``convoxel bench networks``.

    Args:
        measured: the JSON.
        command: the command that wrote it.
        date: the day.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in measured["rows"]:
        entry = rows.setdefault(
            row["network"], {"network": row["network"], "shape": row["shape"], "ms": {}, "error": {}}
        )
        ours = "convoxel" if row["precision"] == "float32" else f"convoxel-{row['precision']}"
        entry["ms"] |= {ours if engine == "convoxel" else engine: round(ms, 3) for engine, ms in row["ms"].items()}
        for engine, error in row["l2_errors"].items():
            entry["error"][engine] = float(f"{error:.1e}")
    machine = {key: measured["machine"][key] for key in ("version", "processor", "instruction_set", "threads")}
    return {"command": command, "date": date, "machine": machine, "rows": list(rows.values())}


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(
        [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    )


def _number(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:.3g}"


def ratios(networks: dict[str, Any], ours: str, peers: tuple[str, ...]) -> list[float]:
    """Return for each network by what factor ours is faster than the fastest of ``peers``."""
    return [min(row["ms"][peer] for peer in peers if peer in row["ms"]) / row["ms"][ours] for row in networks["rows"]]


def render_networks() -> str:
    """Return the table of whole networks."""
    found = _read("networks.json")
    engines = [engine for engine in _ENGINES if any(engine in row["ms"] for row in found["rows"])]
    columns = {ours: ratios(found, ours, peers) for ours, peers in _CLASSES.items()}
    rows = [
        [_TITLES.get(row["network"], row["network"]), *(_number(row["ms"].get(engine)) for engine in engines),
         *(f"{column[place]:.2f}×" for column in columns.values())]
        for place, row in enumerate(found["rows"])
    ]  # fmt: skip
    means = [f"{statistics.geometric_mean(column):.2f}×" for column in columns.values()]
    rows.append(["geometric mean", *[""] * len(engines), *means])
    heads = ["network", *(_ENGINES[engine] for engine in engines), "float32 by the best float32 peer",
             "bfloat16 by the best bfloat16 peer"]  # fmt: skip
    machine = found["machine"]
    return (
        f"Milliseconds of one input, batch 1, on {machine['threads']} threads of an {machine['processor']} with the "
        f"instruction set `{machine['instruction_set']}`, {found['date']}. The first columns are Convoxel's "
        "precisions.\n\n"
        f"```text\n{found['command']}\n```\n\n{_table(heads, rows)}"
    )


def render_benchmarks() -> str:
    """Return the page of benchmarks: text by hand, tables by file."""
    text = (FOLDER / "benchmarks.in").read_text(encoding="utf-8")
    text = text.replace("{networks}", render_networks())
    for name, rows in _read("measured.json").items():
        cells = [[row["what"], f"`{row['command']}`", row["result"]] for row in rows]
        text = text.replace(f"{{{name}}}", _table(["figure", "command", "result"], cells))
    return text


if __name__ == "__main__":
    source, command, date = sys.argv[1:]
    kept = condense(json.loads(Path(source).read_text(encoding="utf-8")), command, date)
    (FOLDER / "networks.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
