"""``convoxel data``: what a data set holds, and everything that is wrong with it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convoxel.cli.options import Json, Task, command
from convoxel.cli.parsing import parse_share
from convoxel.cli.screen import Screen, emit, plural, times
from convoxel.errors import DataError

app = typer.Typer(no_args_is_help=True, help="Look into a data set before training on it.",
                  epilog="Example: convoxel data check hippocampus")  # fmt: skip

_TaskOption = Annotated[
    Task | None,
    typer.Option("--task", help="Task (default: segment where there are images/ and labels/, else classify)."),
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
    json: Json = False,
) -> None:
    """Read every sample and list all problems; exit code 2 if there are any.

    Beside broken samples these are identical images, subjects in two parts, classes that training lacks, and parts
    without foreground.
    """
    from convoxel.data import check as find_problems
    from convoxel.data import guess_task, load

    chosen, stated = task or guess_task(source), _stated(validation, split, subject_pattern)
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


def _stated(validation: str | None, split: str | None, subject_pattern: str | None) -> dict[str, Any]:
    share = None if validation is None else parse_share(validation)
    return {"validation": share, "split": split, "subject_pattern": subject_pattern}


@command(app, "convoxel data list digits", name="list")
def list_samples(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Data set, as for check (default: list the bundled sets).")
    ] = None,
    task: _TaskOption = None,
    validation: _ValidationOption = None,
    split: _SplitOption = None,
    subject_pattern: _PatternOption = None,
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
    found = load(source, task or guess_task(source), **_stated(validation, split, subject_pattern))
    if json:
        return emit(found.to_dict())
    screen.say(f"{found.name}: {found.task}, {found.dims}-D, {plural(found.channels, 'channel')}", "bold")
    screen.say(f"Classes: {', '.join(found.classes)}")
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
    screen.table("part|sample|size|class" + "|subject" * with_subjects, (row[: 4 + with_subjects] for row in rows))
    screen.say(", ".join(f"{name} {len(part)}" for name, part in found.parts.items()) + f" samples: {found.rule}")
