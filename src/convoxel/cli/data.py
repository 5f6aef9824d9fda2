"""``convoxel data``: what a data set holds, and everything that is wrong with it."""

from __future__ import annotations

from typing import Annotated

import typer

from convoxel.cli.options import Json, Task, command
from convoxel.cli.screen import Screen, emit, plural, times
from convoxel.errors import DataError

app = typer.Typer(no_args_is_help=True, help="Look into a data set before training on it.",
                  epilog="Example: convoxel data check hippocampus")  # fmt: skip

_TaskOption = Annotated[
    Task | None,
    typer.Option("--task", help="Task (default: segment where there are images/ and labels/, else classify)."),
]

_SHOWN = 20
_LISTED = 50


@command(app, "convoxel data check hippocampus --task segment")
def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, .npz file, mni152 or digits.")],
    task: _TaskOption = None,
    json: Json = False,
) -> None:
    """Read every sample and list all problems; exit code 2 if there are any."""
    from convoxel.data import check as find_problems
    from convoxel.data import guess_task, load

    chosen = task or guess_task(source)
    screen = Screen(json)
    with screen.status("reading every sample"):
        problems = find_problems(source, chosen)
        count = 0 if problems else sum(map(len, load(source, chosen).parts.values()))
    if json:
        found = [{"name": problem.name, "message": problem.message} for problem in problems]
        emit({"source": source, "task": chosen, "problems": found})
    else:
        for problem in problems[:_LISTED]:
            screen.say(str(problem))
        if len(problems) > _LISTED:
            screen.say(f"… and {len(problems) - _LISTED} more (--json lists all)")
    if problems:
        some = plural(len(problems), "problem")
        raise DataError(f"data: {source} has {some}, listed on stdout. Mend or remove what is named there.")
    if not json:
        screen.say(f"{source}: all {count} samples are whole.")


@command(app, "convoxel data list digits", name="list")
def list_samples(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Data set, as for check (default: list the bundled sets).")
    ] = None,
    task: _TaskOption = None,
    all: Annotated[bool, typer.Option("--all", help=f"Show every sample, not {_SHOWN} of each part.")] = False,
    json: Json = False,
) -> None:
    """Show a data set's kind, classes, parts and samples."""
    from convoxel.data import guess_task, load
    from convoxel.data.bundled import BUNDLED

    screen = Screen()
    if source is None:
        if json:
            return emit({"bundled": [{"name": name, "task": kind} for name, kind in BUNDLED.items()]})
        return screen.table("bundled|task", BUNDLED.items())
    found = load(source, task or guess_task(source))
    if json:
        return emit(found.to_dict())
    screen.say(f"{found.name}: {found.task}, {found.dims}-D, {plural(found.channels, 'channel')}", "bold")
    screen.say(f"Classes: {', '.join(found.classes)}")
    for note in found.notes:
        screen.say(f"Note: {note}.")
    if found.spacing_mm is not None:
        screen.say(f"Spacing: {times((f'{value:g}' for value in found.spacing_mm), ' × ')} mm (median)")
    rows = []
    for name, part in found.parts.items():
        shown = part.entries if all else part.entries[:_SHOWN]
        rows += [(name, entry.name, times(entry.shape), found.class_of(entry) or "") for entry in shown]
        if len(shown) < len(part):
            rows.append((name, f"… and {len(part) - len(shown)} more (--all)", "", ""))
    screen.table("part|sample|size|class", rows)
    screen.say(", ".join(f"{name} {len(part)}" for name, part in found.parts.items()) + f" samples: {found.rule}")
