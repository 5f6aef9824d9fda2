"""``convoxel evaluate``: figures of a trained network on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convoxel.cli.options import (
    Device,
    Engine,
    FillHoles,
    IgnoreLabel,
    Json,
    KeepLargest,
    MinVolume,
    Mirror,
    ResampleLabels,
    RunPrecision,
    Runs,
    Threads,
    Threshold,
    Which,
    check_figure,
)
from convoxel.cli.screen import Screen, by_class, duration, emit, ensemble_words, number, plural
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.files.values import Options


# A terminal shows the worst cases; --json and --csv have them all.
_SHOWN = 5


def _list_metrics(asked: str | None) -> str | None:
    """Print all metrics and leave where they are asked for; no run is needed."""
    if asked == "list":
        from convoxel.predict.metric_table import list_metrics

        rows = (
            (row.task, row.name, row.better, row.unit, row.words, row.source.partition(", ")[0])
            for row in list_metrics()
        )
        screen = Screen()
        screen.table("task|name|better|unit|definition|source", rows)
        screen.say("Also hd90 (any percentage), nsd@2.5mm and nsd@2voxels (any tolerance).")
        raise typer.Exit
    return asked


def evaluate(
    runs: Runs,
    data: Annotated[str | None, typer.Option(help="Labelled images (default: those of the run).")] = None,
    split: Annotated[
        Literal["validation", "train", "test", "all"] | None,
        typer.Option(help="Part of the data (default: validation, or all of data that are new to the run)."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…|list",
            callback=_list_metrics,
            is_eager=True,
            help="Metrics, such as dice,hd95,nsd@1mm,volume or auc,ap,ece; list prints all with their definitions.",
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", help="Resamples of the intervals' bootstrap over subjects; 0: no intervals.")
    ] = 2000,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table too: a row for each image and class.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page too, as of a training, with these figures and the worst images."
        ),
    ] = None,
    resample_labels: ResampleLabels = False,
    ignore_label: IgnoreLabel = None,
    which: Which = "best",
    engine: Engine = "convoxel",
    precision: RunPrecision = "float32",
    device: Device = "auto",
    mirror: Mirror = None,
    keep_largest: KeepLargest = None,
    min_volume: MinVolume = None,
    fill_holes: FillHoles = False,
    threshold: Threshold = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure a trained network on labelled images: each metric with its interval, for each class and each image.

    Distances and volumes are in mm and ml where the images tell their spacing, in voxels elsewhere. Where a class is
    neither labelled nor predicted, a ratio is undefined and left out of the mean; where it is only one of both,
    overlaps are 0 and a distance is the image's diagonal.
    """
    from convoxel.graph.threads import limit_threads
    from convoxel.predict.case_table import write_case_table
    from convoxel.predict.example_pictures import Examples
    from convoxel.train import evaluate as measure
    from convoxel.train.run_list import list_runs

    check_figure("csv", csv, (".csv",))
    check_figure("report", report, (".html",))
    if report is not None and len(list_runs(runs)) > 1:
        raise ConfigError("report: given with several runs, and a page is that of one; expected --csv or --json.")
    screen, pictures = Screen(json), Examples(0)
    with limit_threads(threads), screen.status("reading data") as status:

        def begin(count: int, facts: Any) -> None:
            nonlocal pictures
            pictures = Examples.of(count, facts)

        def show(index: int, sample: Any, prediction: Any, row: Any) -> None:
            status.update(f"{index + 1} images, last {sample.name}")
            if report is not None:
                pictures.offer(index, sample, prediction, row)

        figures: Options = measure(
            runs, data, engine=engine, precision=precision, split=split, which=which,
            metrics=metrics and metrics.split(","), replicates=bootstrap, device=device, mirror=mirror,
            keep_largest=keep_largest, min_volume=min_volume, fill_holes=fill_holes, threshold=threshold,
            resample_labels=resample_labels,            ignore_label=ignore_label, on_begin=begin, on_sample=show,
        )  # fmt: skip
    if csv is not None:
        write_case_table(csv, figures)
    if report is not None:
        from convoxel.report import write_report

        write_report(runs[0], report, evaluation=figures, examples=pictures.arrays())
    if json:
        return emit({**figures, "csv": csv, "report": report})
    segment = figures["metric_name"] == "mean Dice"
    name = "Dice" if segment else figures["metric_name"]
    where = f"{figures['data']} ({figures['split']}, {plural(figures['count'], 'image')})"
    shown = f"{'mean ' if segment else ''}{name} {number(figures['metric'])}"
    screen.say(
        f"{', '.join(map(str, runs))} on {where}: {shown}{by_class(figures['per_class']) if segment else ''}", "bold"
    )
    _print_figures(screen, figures)
    if segment:
        screen.say(_spread(figures["samples"]))
        if figures["count"] > 1:
            worst = sorted(figures["samples"], key=lambda row: row["metric"] if row["metric"] is not None else 2.0)
            screen.say("Lowest: " + ", ".join(f"{row['name']} {number(row['metric'], 3)}" for row in worst[:_SHOWN]))
    elif figures["metric_name"] == "R²":
        worst = sorted(figures["samples"], key=lambda row: -row["error"])[:_SHOWN]
        told = (f"{row['name']} ({_values(row['truth'])} as {_values(row['predicted'])})" for row in worst)
        screen.say("Largest errors: " + ", ".join(told))
    else:
        wrong = [row for row in figures["samples"] if not row["correct"]]
        if wrong:
            taken = ", ".join(f"{row['name']} ({row['label']} as {row['predicted']})" for row in wrong[:_SHOWN])
            screen.say(f"{len(wrong)} wrong: {taken}{' …' if len(wrong) > _SHOWN else ''}")
    for rule in _rules(figures):
        screen.say(rule)
    for what, file in (("Table", csv), ("Report", report)):
        if file is not None:
            screen.say(f"{what}: {file}")
    ensemble = ensemble_words(figures["members"])
    if ensemble:
        screen.say(ensemble)
    steps = [str(member["step"]) for member in figures["members"]]
    shown = f"checkpoint{'s' * (len(steps) > 1)} of step {', '.join(steps)}"
    screen.say(f"{duration(figures['seconds'])} with engine {figures['engine']}, {shown}")


def _values(by_target: dict[str, float]) -> str:
    return "; ".join(f"{value:.4g}" for value in by_target.values())


def _print_figures(screen: Screen, figures: Options) -> None:
    """Print each metric over all images and of each class: of a segmentation beside the spread of images."""
    table, interval = figures["figures"], f"{100 * figures['resampling']['level']:g} % interval"
    if figures["metric_name"] != "mean Dice":
        whole = ((name, number(figure["value"]), _range(figure["interval"])) for name, figure in table.items())
        screen.table(f"metric|>value|{interval}", whole)
        by_metric: Options = {name: figure["per_class"] for name, figure in table.items() if figure["per_class"]}
        cells = (
            (label, first["images"], *(number(each[label]["value"], 3) for each in by_metric.values()))
            for label, first in next(iter(by_metric.values()), {}).items()
        )
        if by_metric:
            screen.say()
            screen.table("class|>images" + "".join(f"|>{name}" for name in by_metric), cells)
        if figures["thresholds"]:
            screen.say()
            screen.table("class|>threshold|>of the largest F1|>this F1", (
                (label, number(each["threshold"]), number(each["best"]), number(each["best_f1"], 3))
                for label, each in figures["thresholds"].items()
            ))  # fmt: skip
        return
    rows: list[tuple[object, ...]] = []
    for name, figure in table.items():
        heading = f"{name} ({figure['unit']})" if figure["unit"] else name
        if len(figure["per_class"]) > 1:
            rows.append((heading, "mean", number(figure["value"]), _range(figure["interval"]), "", "", ""))
        for label, value in figure["per_class"].items():
            rows.append((heading, label, number(value["value"]), _range(value["interval"]), number(value["median"]),
                         _range((value["least"], value["most"])), value["images"]))  # fmt: skip
    screen.table(f"metric|class|>value|{interval}|>median|range|>images", rows)


def _range(ends: tuple[float | None, float | None] | None) -> str:
    return "–" if ends is None or None in ends else f"{number(ends[0], 3)} … {number(ends[1], 3)}"


def _rules(figures: Options) -> list[str]:
    """Say how intervals came about, and what counts where a class is not there, as far as it matters here."""
    drawn = figures["resampling"]
    lines = []
    if drawn["replicates"]:
        several = drawn["subjects"] != figures["count"]
        subjects = f"{drawn['subjects']} subjects" if several else plural(figures["count"], "image")
        lines.append(f"Intervals over {subjects}: {drawn['method']}, {drawn['replicates']} resamples.")
    lone = [
        f"{label} in {row['name']}"
        for row in figures["samples"]
        for label, (labelled, predicted) in row.get("voxels", {}).items()
        if not (labelled and predicted)
    ]
    if lone:
        listed = ", ".join(lone[:_SHOWN]) + (" …" if len(lone) > _SHOWN else "")
        lines.append(f"{figures['empty_rule']} Here: {listed}.")
    return lines


def _spread(samples: list[dict[str, Any]]) -> str:
    """Return in words how far images differ."""
    from convoxel.predict.case_statistics import Spread, read_cases

    spread = Spread.of([case.value for case in read_cases(samples).values()])
    if spread is None:
        return "No image has a class to be measured: nothing is labelled, and nothing was found."
    quartiles = f"quartiles {spread.quartile_1:.3f}, {spread.median:.3f}, {spread.quartile_3:.3f}"
    return f"Images: {spread.mean:.3f} ± {spread.deviation:.3f}, {quartiles}"
