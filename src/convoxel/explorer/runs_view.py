"""Runs: live curves, figures and mistakes, several side by side, and commands that start and stop them.

The figures are those of the run's report and of ``convoxel compare``, the pictures those of ``convoxel.draw``. A page
sends the version that it shows along; where nothing has changed since, the answer is a few bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.data.bundled import BUNDLED
from convoxel.draw.comparison_chart import basis
from convoxel.draw.quantity import count, duration, figure, number, sizes
from convoxel.draw.training_curves import charts, compared_charts
from convoxel.errors import ConfigError
from convoxel.explorer import run_launch
from convoxel.explorer.opened_image import find_window
from convoxel.explorer.run_cases import describe_case, draw_slice, examples, list_cases, open_case
from convoxel.explorer.run_list import KnownRun, list_runs, open_run, summarise_run
from convoxel.explorer.view import Query, View
from convoxel.lookup import is_run
from convoxel.report import results
from convoxel.report.run_contents import mapping

if TYPE_CHECKING:
    from convoxel.draw.comparison_chart import Quality
    from convoxel.explorer.jobs import Job
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject

_MOST_COMPARED = 7  # as many colours as lines can have
_MOST_TEXT = 400


# ---- lists --------------------------------------------------------------------------------------------------


def catalogue(session: Session, query: Query) -> JsonObject:
    """Return all runs in a line each, the commands that were started, and where new ones may be made."""
    runs = list_runs(session)
    return {
        "runs": runs, "jobs": session.jobs.list(), "leave": session.jobs.leave, "readonly": session.readonly,
        "folders": [str(root) for root in session.roots if root.is_dir() and not is_run(root)],
    }  # fmt: skip


def settings(session: Session, query: Query) -> JsonObject:
    """Return what a form offers: data sets, networks of each task, and the words of the exercises."""
    from convoxel import models

    by_task = {task: list(models.names("*", task)) for task in ("segment", "classify")}
    words = [{"tasks": ["segment", "classify"], **word} for word in run_launch.words_to_change()]
    return {
        "data": _find_data(session) + [{"path": name, "name": name, "task": task} for name, task in BUNDLED.items()],
        "models": by_task, "words": words,
    }  # fmt: skip


def _find_data(session: Session) -> list[JsonObject]:
    """Return folders that look like data sets, in the folders that were named and one below."""
    found: list[JsonObject] = []
    for root in session.roots:
        for folder in [root, *(root / entry["name"] for entry in session.entries(str(root)) if root.is_dir()
                               and entry["kind"] == "folder")] if root.is_dir() else []:  # fmt: skip
            if is_run(folder):
                continue
            names = {entry["name"].lower() for entry in session.entries(str(folder)) if entry["kind"] == "folder"}
            if {"images", "labels"} <= names or {"imagestr", "labelstr"} <= names:
                found.append({"path": str(folder), "name": folder.name, "task": "segment"})
            elif {"train", "test"} <= names or {"train", "validation"} <= names:
                found.append({"path": str(folder), "name": folder.name, "task": "classify"})
    return found[:50]


# ---- one run ------------------------------------------------------------------------------------------------


def show(session: Session, query: Query) -> JsonObject:
    """Return everything about a run, or "same" where the page has this version."""
    starting = _starting(session, query.text("run"))
    if starting is not None:
        return {"pending": True, "name": starting.folder.name, "job": starting.to_dict(), "version": ""}
    run = open_run(session, query.text("run"))
    over = query.text("over", "time")
    version = f"{run.version}-{over}"
    job = session.jobs.of(run.folder)
    progress: JsonObject = {"job": None if job is None else job.to_dict(), "state": run.state}
    if query.text("version") == version:
        return {"same": True, "version": version, **progress}
    page = session.keep((run.folder, version), lambda: _describe(run, over), "pages", 32)
    return {**page, "version": version, **progress}


def _starting(session: Session, text: str) -> Job | None:
    """Return the command that was started for a run whose folder is not there yet."""
    job = session.jobs.of(Path(text))
    return job if job is not None and not is_run(job.folder) else None


def _describe(run: KnownRun, over: str) -> JsonObject:
    contents = run.contents
    confusion = results.confusion(contents)
    path = str(run.folder)
    return {
        **summarise_run(run),
        "cards": [card._asdict() for card in results.headline(contents)],
        "charts": [{"title": each.title, "svg": each.svg("page")}
                   for each in charts(contents.metrics, over=over, metric_name=contents.metric_name)],
        "warnings": [*contents.warnings, *contents.problems],
        "plan": [{"name": name, "text": str(text)} for name, text in contents.plan.items()],
        "config": [{"name": name, "text": _short(value)} for name, value in sorted(_flat(contents.config).items())],
        "confusion": None if confusion is None else {
            "words": confusion[0],
            "names": contents.classes,
            "rows": [[cell._asdict() for cell in cells] for _, cells in confusion[1]],
            "pairs": [list(map(str, row)) for row in confusion[2].rows] if confusion[2] else [],
            "head": list(confusion[2].head) if confusion[2] else [],
        },
        "cases": list_cases(run), "examples": examples(run), "evaluated": bool(contents.evaluation),
        "copies": _copies(path, contents.task),
    }  # fmt: skip


def _copies(path: str, task: str) -> list[JsonObject]:
    word = shlex.quote(path)
    target = {"classify": "classes.csv", "regress": "values.csv"}.get(task, "labels")
    return [
        {"name": "Measure (command)", "text": f"convoxel evaluate {word}"},
        {"name": "Predict (command)", "text": f"convoxel predict {word} --input IMAGES --output {target}"},
        {"name": "Go on training (command)", "text": f"convoxel train --resume {word}"},
        {"name": "Python", "text": f"from convoxel.report import read_run\n\nrun = read_run({path!r})\n"
         "print(run.metrics[-1], run.evaluation.get('figures'))"},
    ]  # fmt: skip


def cases(session: Session, query: Query) -> JsonObject:
    """Return the images of a run's evaluation, the worst first; ``cell`` is a cell of the confusion matrix."""
    run = open_run(session, query.text("run"))
    text = query.text("cell")
    if not text:
        return list_cases(run)
    row, _, column = text.partition(",")
    pair = Query((("row", row), ("column", column)))
    return list_cases(run, (pair.number("row", -1, least=0), pair.number("column", -1, least=0)))


def case(session: Session, query: Query) -> JsonObject:
    """Predict one image of a run's data, and return its planes and the figures."""
    run = open_run(session, query.text("run"))
    return describe_case(run, open_case(session, run, query.text("case")))


def slice_layers(session: Session, query: Query) -> JsonObject:
    """Return image, label, prediction and difference of a slice of that image as pictures."""
    run = open_run(session, query.text("run"))
    index = query.number("slice", 0, least=0) if query.text("slice") else None
    found = open_case(session, run, query.text("case"))
    channel = query.number("channel", 0, least=0, most=len(found.sample.image) - 1)
    window = find_window(query, found.window) if query.text("low") or query.text("high") else None
    return draw_slice(found, query.text("plane", "axial"), index, channel, window)


# ---- several runs -------------------------------------------------------------------------------------------


def compare(session: Session, query: Query) -> JsonObject:
    """Return several runs side by side: figures with the difference to the best, curves, and settings that differ."""
    from convoxel.bench.run_quality import compare_quality

    names = query.texts("run")
    if not 2 <= len(dict.fromkeys(names)) <= _MOST_COMPARED or len(set(names)) < len(names):
        raise ConfigError(f"run: {len(names)} given; expected 2 to {_MOST_COMPARED} different runs.")
    starting = {name: job for name in names if (job := _starting(session, name)) is not None}
    runs = [open_run(session, name) for name in names if name not in starting]
    over = query.text("over", "time")
    version = "-".join([*(run.version for run in runs), over])
    jobs = [*(session.jobs.of(run.folder) for run in runs), *starting.values()]
    progress: JsonObject = {
        "jobs": [job.to_dict() for job in jobs if job is not None], "states": [run.state for run in runs],
    }  # fmt: skip
    if not runs:
        return {"pending": True, "version": "", **progress}
    if query.text("version") == version:
        return {"same": True, "version": version, **progress}

    def made() -> JsonObject:
        qualities = compare_quality([run.folder for run in runs])
        labels = _labels(runs)
        return {
            "names": labels, "paths": [str(run.folder) for run in runs],
            "rows": _figures(runs, [each for each in qualities if each is not None]),
            "charts": [{"title": each.title, "svg": each.svg("page")} for each in compared_charts(
                {label: run.contents.metrics for label, run in zip(labels, runs, strict=True)},
                over=over, metric_name=runs[0].contents.metric_name)],
            "settings": _settings(runs),
            "copies": [{"name": "The same (command)",
                        "text": "convoxel compare " + " ".join(shlex.quote(str(run.folder)) for run in runs)}],
        }  # fmt: skip

    return {**session.keep(version, made, "comparisons", 16), "version": version, **progress}


def _labels(runs: Sequence[KnownRun]) -> list[str]:
    from convoxel.bench.network_comparison import distinct_names

    return distinct_names([str(run.folder) for run in runs])


def _figures(runs: Sequence[KnownRun], qualities: Sequence[Quality]) -> list[JsonObject]:
    """Return a row for each figure, with a text for each run."""
    from convoxel.draw.comparison_chart import Contender

    totals = [mapping(run.contents.network.get("total")) for run in runs]
    name = qualities[0].metric_name
    rows = [
        (name, [figure(each.metric) for each in qualities]),
        ("its interval (95 %)", [_range(each.interval) for each in qualities]),
        ("difference to the best, same images", [_difference(each) for each in qualities]),
    ]
    classes = list(dict.fromkeys(label for each in qualities for label in each.per_class))
    if 1 < len(classes) <= 6:
        rows += [(f"{name} of {label}", [figure(number(each.per_class.get(label))) for each in qualities])
                 for label in classes]  # fmt: skip
    shown = {"parameters": "params", "multiply-accumulates": "macs"}
    rows += [(title, [count(number(total.get(key)) or 0) for total in totals]) for title, key in shown.items()]
    rows += [
        ("receptive field", [sizes(total.get("field")) for total in totals]),
        ("measured for an input of", [_input(run) for run in runs]),
        ("trained", ["–" if each.train_s is None else duration(each.train_s) for each in qualities]),
        ("steps", ["–" if each.steps is None else f"{each.steps:,}" for each in qualities]),
        ("samples a second", [_speed(run) for run in runs]),
    ]
    told = basis([Contender(each.basis, (), 0, 0, quality=each) for each in qualities])
    return [{"name": title, "cells": cells, "differs": len(set(cells)) > 1} for title, cells in rows] + [
        {"name": "", "text": text} for text in told
    ]


def _input(run: KnownRun) -> str:
    shapes = run.contents.network.get("input_shapes")
    return sizes(shapes[0]) if isinstance(shapes, list) and shapes else "–"


def _speed(run: KnownRun) -> str:
    speeds = [value for row in run.contents.metrics if (value := number(row.get("samples_per_s"))) is not None]
    return f"{sum(speeds) / len(speeds):.1f}" if speeds else "–"


def _range(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} … {interval[1]:.3f}"


def _difference(quality: Quality) -> str:
    if quality.best:
        return "the best"
    found = quality.difference
    if found is None:
        return "–"
    words = f"{found.mean:+.3f}".replace("-", "−")
    if found.interval is not None:
        words += f" ({found.interval[0]:+.3f} … {found.interval[1]:+.3f})".replace("-", "−")
    return words if found.p_value is None else f"{words}, p {found.p_value:.2g}"


def _settings(runs: Sequence[KnownRun]) -> list[JsonObject]:
    """Return the settings in which runs differ."""
    flat = [_flat(run.contents.config) for run in runs]
    names = sorted({name for each in flat for name in each} - {"output"})
    rows = [{"name": name, "cells": [_short(each.get(name)) for each in flat]} for name in names]
    return [row for row in rows if len(set(row["cells"])) > 1]


def _flat(config: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Return settings by their full names, such as ``model_options.norm``."""
    found: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _short(value: object) -> str:
    if value is None or value in ({}, [], ()):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))[:_MOST_TEXT]
    return str(value)[:_MOST_TEXT]


def measure(session: Session, query: Query) -> JsonObject:
    """Compile the networks of runs, and return the time of one run of each on this machine; they take turns."""
    from convoxel.bench.network_comparison import compare_networks

    folders: list[Path] = [run_launch.find_run(session, Query((("run", name),))) for name in query.texts("run")]
    if not folders:
        raise ConfigError("run: none given; expected the runs to measure.")
    if not session.measuring.acquire(blocking=False):
        raise ConfigError("measure: another network is being measured. Wait until that is done.")
    try:
        rows = compare_networks([str(folder) for folder in folders], timed=True)
    finally:
        session.measuring.release()
    texts = [f"{1e3 * row.latency_s:.3g} ms" if row.latency_s is not None else "–" for row in rows]
    return {"times": texts, "inputs": [sizes(row.shape) for row in rows]}


VIEW = View(
    "runs",
    "Runs",
    "Trainings: live curves, mistakes, several side by side; start and stop them.",
    {
        "catalogue": catalogue, "settings": settings, "show": show, "cases": cases, "case": case,
        "slice": slice_layers, "compare": compare, "plan": run_launch.plan,
    },
    {
        "start": run_launch.start, "resume": run_launch.resume, "stop": run_launch.stop,
        "predict": run_launch.predict, "choose": run_launch.choose, "measure": measure,
    },
)  # fmt: skip
