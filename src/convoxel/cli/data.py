"""``convoxel data``: what a data set holds, and everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from convoxel.cli.options import Axes, IgnoreLabel, Json, Rate, Regions, Task, command
from convoxel.cli.parsing import parse_regions, parse_share
from convoxel.cli.screen import Screen, emit, percent, plural, times
from convoxel.errors import DataError

app = typer.Typer(no_args_is_help=True, help="Look into a data set before training on it.",
                  epilog="Example: convoxel data check hippocampus")  # fmt: skip

_TaskOption = Annotated[
    Task | None, typer.Option("--task", help="Task (default: as the data tell; classify where folders may be classes).")
]

_Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, file of a whole data set, mni152 or digits.")]
_ValidationOption = Annotated[
    str | None, typer.Option("--validation", help="Held-out samples, as for `convoxel train` (default: 20 %).")
]
_SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="FILE.json", help="Samples of every part, as for `convoxel train`.")
]
_PatternOption = Annotated[
    str | None, typer.Option("--subject-pattern", metavar="REGEX", help="Finds the subject in a sample's name.")
]

_SHOWN = 20
_LISTED = 50


@command(app, "convoxel data check hippocampus --task segment")
def check(
    source: _Source,
    task: _TaskOption = None,
    validation: _ValidationOption = None,
    split: _SplitOption = None,
    subject_pattern: _PatternOption = None,
    regions: Regions = None,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    rate: Rate = None,
    json: Json = False,
) -> None:
    """Read every sample and list all problems; exit code 2 if there are any.

    Beside broken samples these are identical images, subjects in two parts, classes that training lacks, and parts
    without foreground.
    """
    from convoxel.data import check as find_problems
    from convoxel.data import guess_task, load

    chosen, stated = (
        task or guess_task(source),
        _stated(validation, split, subject_pattern, regions, ignore_label, axes, rate),
    )
    screen = Screen(json)
    with screen.status("reading every sample"):
        problems = find_problems(source, chosen, **stated)
        whole = None if problems else load(source, chosen, **stated)
    if json:
        found = [{"name": problem.name, "message": problem.message} for problem in problems]
        notes = [] if whole is None else list(whole.notes)
        emit({"source": source, "task": chosen, "problems": found, "notes": notes})
    else:
        for problem in problems[:_LISTED]:
            screen.say(str(problem))
        if len(problems) > _LISTED:
            screen.say(f"… and {len(problems) - _LISTED} more (--json lists all)")
    if problems:
        some = plural(len(problems), "problem")
        raise DataError(f"data: {source} has {some}, listed on stdout. Mend or remove what is named there.")
    if not json and whole is not None:
        screen.say(f"{source}: all {sum(map(len, whole.parts.values()))} samples are whole.")
        for note in whole.notes:
            screen.say(f"Note: {note}.")


def _stated(
    validation: str | None,
    split: str | None,
    subject_pattern: str | None,
    regions: str | None,
    ignore_label: int | None,
    axes: str | None,
    rate: float | None,
) -> dict[str, Any]:
    return {
        "validation": None if validation is None else parse_share(validation),
        "split": split,
        "subject_pattern": subject_pattern,
        "regions": None if regions is None else parse_regions(regions),
        "ignore_label": ignore_label,
        "axes": axes,
        "rate": rate,
    }


@command(app, "convoxel data list digits", name="list")
def list_samples(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Data set, as for check (default: list the bundled sets).")
    ] = None,
    task: _TaskOption = None,
    validation: _ValidationOption = None,
    split: _SplitOption = None,
    subject_pattern: _PatternOption = None,
    regions: Regions = None,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    rate: Rate = None,
    all: Annotated[bool, typer.Option("--all", help=f"Show every sample, not {_SHOWN} of each part.")] = False,
    json: Json = False,
) -> None:
    """Show a data set's kind, classes, parts and samples."""
    from convoxel.data import guess_task, load
    from convoxel.data.bundled import BUNDLED
    from convoxel.data.image_header import spacing_unit

    screen = Screen()
    if source is None:
        if json:
            return emit({"bundled": [{"name": name, "task": kind} for name, kind in BUNDLED.items()]})
        return screen.table("bundled|task", BUNDLED.items())
    found = load(
        source,
        task or guess_task(source),
        **_stated(validation, split, subject_pattern, regions, ignore_label, axes, rate),
    )
    if json:
        return emit(found.to_dict())
    screen.say(f"{found.name}: {found.task}, {found.dims}-D, {plural(found.channels, 'channel')}", "bold")
    screen.say(f"{'Targets' if found.task == 'regress' else 'Classes'}: {', '.join(found.classes)}")
    if found.regions is not None:
        screen.say(f"Regions: {found.regions.describe(found.classes)}")
    for note in found.notes:
        screen.say(f"Note: {note}.")
    if found.spacing_mm is not None:
        screen.say(
            f"Spacing: {times((f'{value:g}' for value in found.spacing_mm), ' × ')} {spacing_unit(found.dims)} (median)"
        )
    rows = []
    for name, part in found.parts.items():
        shown = part.entries if all else part.entries[:_SHOWN]
        rows += [(name, e.name, times(e.shape), found.class_of(e) or "", e.subject or "") for e in shown]
        if len(shown) < len(part):
            rows.append((name, f"… and {len(part) - len(shown)} more (--all)", "", "", ""))
    with_subjects = any(row[-1] for row in rows)
    screen.table(
        ("part|sample|size|value" if found.task == "regress" else "part|sample|size|class")
        + "|subject" * with_subjects,
        (row[: 4 + with_subjects] for row in rows),
    )
    screen.say(", ".join(f"{name} {len(part)}" for name, part in found.parts.items()) + f" samples: {found.rule}")


@command(app, "convoxel data stats hippocampus")
def stats(
    source: _Source,
    task: _TaskOption = None,
    validation: _ValidationOption = None,
    split: _SplitOption = None,
    subject_pattern: _PatternOption = None,
    regions: Regions = None,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    rate: Rate = None,
    json: Json = False,
) -> None:
    """Measure every sample: sizes, spacings, orientations, intensities and classes, for each part."""
    from convoxel.data import guess_task, load, measure_set

    screen = Screen(json)
    with screen.status("reading every sample"):
        found = measure_set(
            load(
                source,
                task or guess_task(source),
                **_stated(validation, split, subject_pattern, regions, ignore_label, axes, rate),
            )
        )
    if json:
        return emit(found)
    screen.say(f"{found['name']}: {found['task']}, {found['dims']}-D, {plural(found['channels'], 'channel')}", "bold")
    parts = found["parts"].items()
    screen.table(
        "part|>samples|>subjects|>broken|size (least, median, largest)|spacing (likewise)|orientation",
        (
            (name, part["samples"], part["subjects"] or "–", len(part["broken"]), _limits(part["shape"]),
             _limits(part["spacing_mm"]), ", ".join(f"{count} {axes}" for axes, count in part["orientations"].items()))
            for name, part in parts
        ),
    )  # fmt: skip
    columns = ("mean", "std", "min", "quantile_0.005", "median", "quantile_0.995", "max")
    screen.table(
        "part|>channel|>mean|>deviation|>least|>0.5 %|>median|>99.5 %|>largest",
        (
            (name, channel, *(f"{part['intensity'][column][channel]:.5g}" for column in columns))
            for name, part in parts
            if part["intensity"] is not None
            for channel in range(found["channels"])
        ),
    )
    if found["task"] == "regress":
        told = ("mean", "std", "min", "median", "max")
        screen.table(
            "part|target|>samples|>mean|>deviation|>least|>median|>largest",
            (
                (name, row["name"], row["samples"], *(f"{row[column]:.5g}" for column in told))
                for name, part in parts
                for row in part["classes"]
            ),
        )
    else:
        _print_classes(screen, found["parts"])
    for note in found["notes"]:
        screen.say(f"Note: {note}.")


def _print_classes(screen: Screen, parts: dict[str, Any]) -> None:
    unit = next((key for key in ("volume_ml", "area_mm2") if key in next(iter(parts.values()))["classes"][0]), None)
    screen.table(
        "part|class|>samples|>voxels|>share"
        + (f"|{unit.replace('_', ' in ')} (least, median, largest)" if unit else ""),
        (
            (name, row["name"], row["samples"], row.get("voxels", "–"), percent(row["share"], 2))
            + ((_limits(row[unit]),) if unit else ())
            for name, part in parts.items()
            for row in part["classes"]
        ),
    )


def _limits(limits: dict[str, Any] | None) -> str:
    """Return the least, median and largest value; one where they are equal."""
    if limits is None:
        return "–"
    rows = [value if isinstance(value, list) else [value] for value in limits.values()]
    words = [times(f"{side:.4g}" for side in row) for row in rows]
    return words[0] if len(set(words)) == 1 else " – ".join(words)


@command(app, "convoxel data view hippocampus --output sheet.png")
def view(
    source: _Source,
    output: Annotated[Path, typer.Option(metavar="FILE.png", help="Picture to write.")],
    task: _TaskOption = None,
    part: Annotated[
        Literal["all", "train", "validation", "test"], typer.Option(help="Part of the data that is shown.")
    ] = "all",
    count: Annotated[int, typer.Option(min=1, help="Most samples, spread evenly over the part.")] = 24,
    validation: _ValidationOption = None,
    split: _SplitOption = None,
    subject_pattern: _PatternOption = None,
    regions: Regions = None,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    rate: Rate = None,
    json: Json = False,
) -> None:
    """Draw a contact sheet: pictures of many samples with their names, label maps laid over them."""
    from convoxel.data import guess_task, load
    from convoxel.draw import save_contact_sheet

    screen = Screen(json)
    with screen.status("drawing"):
        dataset = load(
            source,
            task or guess_task(source),
            **_stated(validation, split, subject_pattern, regions, ignore_label, axes, rate),
        )
        path = save_contact_sheet(output, dataset, part, count)
    if json:
        return emit({"source": source, "file": path})
    screen.say(f"Wrote {path}.")
