"""The report of a training run: one HTML page that needs nothing but itself.

The page fetches no script, font or picture; its own security policy forbids it. What the run folder does not hold yet
is named as missing, so that the report of an interrupted run is as honest as that of a finished one. The templates
escape every text; styles, and figures that escape their own texts, are the exceptions.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from convoxel.draw.quantity import count, duration, listed, number, percent, sizes
from convoxel.draw.theme import DARK, LIGHT, OVER
from convoxel.draw.training_curves import charts
from convoxel.files.atomic import write_bytes
from convoxel.files.values import Array, Options
from convoxel.report import results
from convoxel.report.run_contents import Record, RunFolder, mapping, mappings, read_run
from convoxel.report.sample_panels import prepare_examples

_MODELS = {"unet": "U-Net", "course_vgg": "VGG", "resnet18": "ResNet-18"}
_NETWORK = ("layer", "operator", "output", "kernel", "parameters", "MACs", "share of MACs", "receptive field")


def write_report(
    run_dir: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    evaluation: Options | None = None,
    examples: Mapping[str, Array] | None = None,
) -> Path:
    """Write the report of a run, whole or not at all, and return its path.

    The page shows headline figures, curves, example predictions, figures of each class, confusion, the
    network's table, the configuration and the commands to go on with. It works for runs that are
    unfinished, interrupted or partly damaged and says what is missing.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        path: the page (default: ``report.html`` in the run folder).
        evaluation: what :func:`convoxel.train.evaluate` returned of other images or another part, in place of the
            closing evaluation (default None).
        examples: arrays of their example pictures, as of ``convoxel.predict.example_pictures`` (default: none, with
            ``evaluation``).

    Raises:
        CheckpointError: the folder does not exist or holds no run.
        DataError: the report cannot be written (no space, no permission).
    """
    folder = Path(run_dir)
    run, target = read_run(folder), folder / "report.html" if path is None else Path(path)
    if evaluation is not None:
        # As it would be read from the run folder: lists for tuples.
        run.evaluation, run.examples = json.loads(json.dumps(evaluation)), dict(examples or {})
    return write_bytes(target, render_report(run).encode("utf-8", "replace"))


def render_report(run: RunFolder) -> str:
    """Return the page as text."""
    return (
        _templates()
        .get_template("report.html.jinja")
        .render(
            run=run,
            name=run.path.resolve().name or "run",
            lead=opening(run),
            unfinished="" if run.finished else _unfinished(run),
            outdated=_outdated(run),
            resume=_resume_command(run),
            cards=results.headline(run),
            charts={over: charts(run.metrics, over=over, metric_name=run.metric_name) for over in ("time", "step")},
            validations=results.validation_table(run),
            examples=prepare_examples(run),
            classes=results.class_table(run),
            figures=results.figure_table(run),
            scores=results.score_charts(run),
            samples=results.sample_table(run),
            confusion=results.confusion(run),
            network=_network(run),
            plan=[(name, str(words)) for name, words in run.plan.items()],
            config=[(name.replace("_", " "), _value(name, value)) for name, value in run.config.items()],
            versions=versions(run),
            commands=commands(run),
            footer=_footer(run),
        )
    )


@cache
def _templates() -> Environment:
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    found = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters["unbroken"] = lambda words: words.replace(" %", "\u00a0%")  # no line ends before a per cent sign
    found.globals.update(light=LIGHT, dark=DARK, swatches=list(OVER))
    return found


def opening(run: RunFolder) -> str:
    """Return the sentence that says what a run's network does, to which images."""
    dims = run.data.get("dims")
    model = str(run.config.get("model") or run.network.get("name") or "network")
    verbs = {"segment": "segments", "classify": "classifies", "regress": "predicts numbers from"}
    verb = f"{verbs[run.task]} the images"
    data = str(run.data.get("data_name") or run.config.get("data") or "an unnamed data set")
    words = f"A {f'{dims}-D ' if dims in (1, 2, 3) else ''}{_MODELS.get(model, model)} that {verb} of {data}"
    names = run.classes
    if run.task == "regress":
        words += f": {listed(names[:12])}"
    elif run.multi_label:
        words += f", each of which may have several of {len(names)} classes"
    elif len(names) > 12:
        words += f" into {len(names)} classes"
    elif len(names) > 1:
        words += f" into {listed(names)}"
    if run.elsewhere:
        words += f", measured on {run.elsewhere}"
    return f"{words}."


def _unfinished(run: RunFolder) -> str:
    """Say how far a run has come, and what is missing."""
    step = number(run.last.get("step"))
    if step is None and run.metrics:
        step = number(run.metrics[-1].get("step"))
    words = "This run has not finished"
    if step:
        words += f": its last {'checkpoint' if run.last else 'validation'} is of step {step:g}"
        if run.fraction is not None and run.fraction < 1:
            words += f", {percent(run.fraction)} of the way"
    else:
        words += ": no training step has been recorded"
    there = {
        "the closing evaluation": run.evaluation,
        "the example predictions": run.examples,
        "the network's table": run.network.get("rows"),
    }
    missing = listed([name for name, found in there.items() if not found])
    return f"{words}. Still missing: {missing}." if missing else f"{words}."


def _outdated(run: RunFolder) -> str:
    evaluated, best = number(run.evaluation.get("step")), number(run.best_row.get("step"))
    if evaluated is None or best is None or evaluated == best:
        return ""
    return (
        f"The closing figures, examples and network are of step {evaluated:g}; training has since reached a better "
        f"checkpoint at step {best:g}."
    )


def _network(run: RunFolder) -> tuple[str, results.Sheet, list[str]] | None:
    """Return the network's size in words, its table and remarks, as ``convoxel.inspect.describe`` made them."""
    rows = mappings(run.network.get("rows"))
    if not rows:
        return None
    total, inputs = mapping(run.network.get("total")), run.network.get("input_shapes")
    macs = number(total.get("macs")) or 0.0
    words = (
        f"on an input of {sizes(inputs[0]) if isinstance(inputs, list) and inputs else '–'} (batch, channels, space): "
        f"{number(total.get('params')) or 0:,.0f} parameters, {count(macs)} multiply–adds, "
        f"{count(number(total.get('peak_bytes')) or 0)}B of activations at the peak."
    )
    remarks = run.network.get("remarks")
    sheet = results.Sheet("The network's layers", _NETWORK, [_layer(row, macs) for row in rows], range(4, 7))
    return words, sheet, list(map(str, remarks)) if isinstance(remarks, list) else []


def _layer(row: Record, macs: float) -> tuple[str, ...]:
    cost, params = number(row.get("macs")) or 0.0, number(row.get("params")) or 0.0
    field = mapping(row.get("field"))
    whole = field.get("whole")
    return (
        str(row.get("name", "")),
        str(row.get("operator", "")).replace("_", " "),
        sizes(row.get("output_shape")),
        sizes(row.get("kernel")),
        f"{params:,.0f}" if params else "–",
        count(cost) if cost else "–",
        percent(cost / macs) if cost and macs else "–",
        "whole image" if isinstance(whole, list) and whole and all(whole) else sizes(field.get("size")),
    )


def versions(run: RunFolder) -> list[tuple[str, str]]:
    """Return what the result depends on beside the configuration."""
    made = mapping(run.best.get("versions")) or mapping(run.last.get("versions"))
    found = [(name.replace("_", " "), str(version)) for name, version in made.items()]
    if fingerprint := str(run.data.get("fingerprint") or ""):
        found.append(("data fingerprint", f"{fingerprint[:16]}…" if len(fingerprint) > 16 else fingerprint))
    return found


def _value(name: str, value: object) -> str:
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        return listed(list(map(str, value))) if name == "flip_axes" else sizes(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else f"{value}"


def _resume_command(run: RunFolder) -> str:
    return f"convoxel train --resume {shlex.quote(str(run.path.resolve()))}"


def commands(run: RunFolder) -> list[tuple[str, str]]:
    """Return how to use the run: predict, evaluate, go on, and the same from Python."""
    path = str(run.path.resolve())
    folder = shlex.quote(path)
    suffix = ".nii.gz" if run.data.get("dims") == 3 and run.task != "classify" else ".png"
    output = {"classify": "classes.csv", "regress": "values.csv"}.get(run.task, f"label{suffix}")
    longer = ""
    for limit in ("epochs", "minutes"):
        if run.finished and (value := number(run.config.get(limit))) is not None:
            longer = f" --{limit} {2 * value:g} --force"
    return [
        (
            "Predict an image, or every image of a folder",
            f"convoxel predict {folder} --input image{suffix} --output {output}\n"
            f"convoxel predict {folder} --input images/ --output predictions/",
        ),
        ("Measure on other labelled images", f"convoxel evaluate {folder} --data DATA"),
        ("Train longer" if run.finished else "Go on training", _resume_command(run) + longer),
        (
            "From Python",
            "from convoxel.train import evaluate, load_model, predict\n\n"
            f'predict({path!r}, "image{suffix}", "{output}")\n'
            f"run = load_model({path!r})  # run.network, run.config, run.data",
        ),
    ]


def _footer(run: RunFolder) -> str:
    parts = [f"Run folder: {run.path.resolve()}"]
    if run.written is not None:
        parts.append(f"figures of {run.written:%Y-%m-%d %H:%M}")
    if elapsed := number(run.last.get("elapsed_s")):
        parts.append(f"trained for {duration(elapsed)}")
    return " · ".join(parts)
