"""``convoxel evaluate``: figures of a trained network on labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convoxel.cli.options import Engine, Json, Run, Threads, Which
from convoxel.cli.screen import Screen, by_class, duration, emit, number

if TYPE_CHECKING:
    from convoxel.files.values import Options


# A terminal shows the worst cases; --json has them all.
_SHOWN = 5


def evaluate(
    run: Run,
    data: Annotated[str | None, typer.Option(help="Labelled images (default: those of the run).")] = None,
    split: Annotated[
        Literal["validation", "train", "test", "all"],
        typer.Option(help="Part of the data; of data new to the run, all."),
    ] = "validation",
    which: Which = "best",
    engine: Engine = "convoxel",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure a trained network on labelled images: Dice or accuracy, for each class and each image."""
    from convoxel.graph.threads import limit_threads
    from convoxel.train import evaluate as measure

    screen = Screen(json)
    with limit_threads(threads), screen.status("reading data") as status:

        def show(index: int, sample: Any, prediction: object) -> None:
            status.update(f"{index + 1} images, last {sample.name}")

        figures: Options = measure(run, data, engine=engine, split=split, which=which, on_sample=show)
    if json:
        return emit(figures)
    segment = "dice" in (figures["samples"] or [{}])[0]
    name = "Dice" if segment else "accuracy"
    where = f"{figures['data']} ({figures['split']}, {figures['count']} images)"
    shown = f"{'mean ' if segment else ''}{name} {number(figures['metric'])}"
    screen.say(f"{run} on {where}: {shown}{by_class(figures['per_class']) if segment else ''}", "bold")
    screen.say(_spread(figures["samples"], segment))
    screen.table(f"class|>{name}", ((label, number(value)) for label, value in figures["per_class"].items()))
    if segment and figures["count"] > 1:
        worst = sorted(figures["samples"], key=lambda row: row["metric"] if row["metric"] is not None else 2.0)
        screen.say("Lowest: " + ", ".join(f"{row['name']} {number(row['metric'], 3)}" for row in worst[:_SHOWN]))
    wrong = [row for row in figures["samples"] if row.get("correct") is False]
    if wrong:
        listed = ", ".join(f"{row['name']} ({row['label']} as {row['predicted']})" for row in wrong[:_SHOWN])
        screen.say(f"{len(wrong)} wrong: {listed}{' …' if len(wrong) > _SHOWN else ''}")
    screen.say(f"{duration(figures['seconds'])} with engine {figures['engine']}, checkpoint of step {figures['step']}")


def _spread(samples: list[dict[str, Any]], segment: bool) -> str:
    """Return in words how far images differ, and how sure the metric is over images like these."""
    from convoxel.predict.case_statistics import LEVEL, Spread, case_values, mean_interval, share_interval

    values = list(case_values(samples).values())
    spread, level = Spread.of(values), f"{100 * LEVEL:g} % interval"
    if spread is None:
        return "No image has a class to be measured."
    interval = mean_interval(values) if segment else share_interval(round(sum(values)), len(values))
    known = (
        "unknown from one image" if interval is None else (f"{max(0.0, interval[0]):.3f} … {min(1.0, interval[1]):.3f}")
    )
    if not segment:
        return f"{level} over such images: {known}"
    quartiles = f"quartiles {spread.quartile_1:.3f}, {spread.median:.3f}, {spread.quartile_3:.3f}"
    return f"Images: {spread.mean:.3f} ± {spread.deviation:.3f}, {quartiles}; {level} of the mean: {known}"
