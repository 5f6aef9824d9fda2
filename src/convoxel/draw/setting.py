"""The report's sections about what was trained and how to go on: network, configuration, commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from convoxel.draw.folder import RunFolder, mapping
from convoxel.draw.markup import Child, Markup, join, table, tag
from convoxel.draw.quantity import count, number, percent, sizes
from convoxel.files.values import JsonObject

__all__ = ["resume_command", "show_commands", "show_config", "show_network"]


def show_network(run: RunFolder) -> Markup:
    """Return the network's table, as ``convoxel.inspect.describe`` made it."""
    head = tag("h2", "Network")
    listed = run.network.get("rows")
    rows = [mapping(row) for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    if not rows:
        return join([head, tag("p", "The network's table is written when the run comes to its end.")])
    total = mapping(run.network.get("total"))
    macs = number(total.get("macs")) or 0.0
    inputs = run.network.get("input_shapes")
    shape = sizes(inputs[0]) if isinstance(inputs, list) and inputs else "–"
    words = join(
        [
            tag("b", str(run.network.get("name", "The network"))),
            f" on an input of {shape} (batch, channels, space): "
            f"{number(total.get('params')) or 0:,.0f} parameters, {count(macs)} multiply–adds, "
            f"{count(number(total.get('peak_bytes')) or 0)}B of activations at the peak.",
        ]
    )
    columns = ("layer", "operator", "output", "kernel", "parameters", "MACs", "share of MACs", "receptive field")
    cells = [_layer(row, macs) for row in rows]
    grid = table(columns, cells, numbers=(4, 5, 6), caption="The network's layers", class_="scroll tall")
    remarks = run.network.get("remarks")
    notes = [tag("p", str(remark)) for remark in remarks] if isinstance(remarks, list) else []
    return join([head, tag("p", words), *notes, grid])


def _layer(row: JsonObject, macs: float) -> list[Child]:
    cost = number(row.get("macs")) or 0.0
    field = mapping(row.get("field"))
    whole = field.get("whole")
    seen = "whole image" if isinstance(whole, list) and whole and all(whole) else sizes(field.get("size"))
    params = number(row.get("params")) or 0.0
    return [
        str(row.get("name", "")),
        str(row.get("operator", "")).replace("_", " "),
        sizes(row.get("output_shape")),
        sizes(row.get("kernel")),
        f"{params:,.0f}" if params else "–",
        count(cost) if cost else "–",
        percent(cost / macs) if cost and macs else "–",
        seen,
    ]


def show_config(run: RunFolder) -> Markup:
    """Return every entry of the configuration, and what else the result depends on."""
    head = tag("h2", "Configuration")
    if not run.config:
        return join([head, tag("p", "The run holds no configuration that could be read.")])
    parts: list[Child] = [
        head,
        tag(
            "p",
            "Every decision of this run, stated or chosen from the data. The same is in ",
            tag("code", "config.yaml"),
            ".",
        ),
        _entries((name, _value(value)) for name, value in run.config.items()),
    ]
    made = mapping(run.best.get("versions")) or mapping(run.last.get("versions"))
    made_with = [(name, str(version)) for name, version in made.items()]
    fingerprint = str(run.data.get("fingerprint") or "")
    if fingerprint:
        made_with.append(("data fingerprint", f"{fingerprint[:16]}…" if len(fingerprint) > 16 else fingerprint))
    if made_with:
        parts += [tag("h3", "Made with"), _entries(made_with)]
    return join(parts)


def _entries(pairs: Iterable[tuple[str, str]]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", name.replace("_", " ")), tag("dd", value)) for name, value in pairs),
               class_="entries")  # fmt: skip


def _value(value: object) -> str:
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        return sizes(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else f"{value}"


def resume_command(run: RunFolder) -> str:
    """Return the command that goes on with the run."""
    return f"convoxel train --resume {_folder(run)}"


def _folder(run: RunFolder) -> str:
    return shlex.quote(str(run.path.resolve()))


def show_commands(run: RunFolder) -> Markup:
    """Return how to use the run: predict, evaluate, go on, and the same from Python."""
    folder = _folder(run)
    suffix = ".nii.gz" if run.data.get("dims") == 3 else ".png"
    if run.task == "classify":
        suffix = ".png"
    output = "classes.csv" if run.task == "classify" else f"label{suffix}"
    parts: list[Child] = [tag("h2", "Use this run")]
    if not run.best:
        parts.append(tag("p", "There is no best checkpoint yet: these work after the first validation."))
    steps = [
        ("Predict an image, or every image of a folder",
         f"convoxel predict {folder} --input image{suffix} --output {output}\n"
         f"convoxel predict {folder} --input images/ --output predictions/"),
        ("Measure on other labelled images", f"convoxel evaluate {folder} --data DATA"),
        ("Go on training" if not run.finished else "Train longer",
         resume_command(run) + ("" if not run.finished else _longer(run))),
        ("From Python", "from convoxel.train import evaluate, load_model, predict\n\n"
         f"predict({str(run.path.resolve())!r}, \"image{suffix}\", \"{output}\")\n"
         f"run = load_model({str(run.path.resolve())!r})  # run.network, run.config, run.data"),
    ]  # fmt: skip
    for title, text in steps:
        parts += [tag("h3", title), tag("pre", tag("code", text), tabindex="0")]
    return join(parts)


def _longer(run: RunFolder) -> str:
    for limit in ("minutes", "epochs"):
        if (value := number(run.config.get(limit))) is not None:
            return f" --{limit} {2 * value:g} --force"
    return ""
