"""``convoxel data``: what a data set holds, and everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.models import Task
from convoxel.cli.screen import console, emit, say, table
from convoxel.errors import DataError

if TYPE_CHECKING:
    from convoxel.data import DataSet, Split

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look into a data set before training on it.",
                  epilog="Example: convoxel data check hippocampus")  # fmt: skip

_Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, .npz file, mni152 or digits.")]
_Task = Annotated[
    Task | None, typer.Option(help="Unless given: segment where there are images/ and labels/, else classify.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]

_SHOWN = 20
_LISTED = 50


@app.command(epilog="Example: convoxel data check hippocampus --task segment")
def check(source: _Source, task: _Task = None, json: _Json = False) -> None:
    """Read every sample and list all problems; exit code 2 if there are any."""
    from convoxel.data import check as find_problems
    from convoxel.data import load

    chosen = _task(source, task)
    screen = console(json)
    with screen.status("reading every sample"):
        problems = find_problems(source, chosen)
        count = 0 if problems else sum(len(part) for _, part in _parts(load(source, chosen)))
    if json:
        emit(
            {
                "source": source,
                "task": chosen,
                "problems": [{"name": problem.name, "message": problem.message} for problem in problems],
            }
        )
    else:
        for problem in problems[:_LISTED]:
            say(screen, str(problem))
        if len(problems) > _LISTED:
            say(screen, f"… and {len(problems) - _LISTED} more (--json lists all)")
    if problems:
        some = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"data: {source} has {some}, listed on stdout. Mend or remove what is named there.")
    if not json:
        say(screen, f"{source}: all {count} samples are whole.")


@app.command("list", epilog="Example: convoxel data list digits")
def list_samples(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="As for check; the bundled sets unless given.")
    ] = None,
    task: _Task = None,
    all: Annotated[bool, typer.Option("--all", help=f"Every sample, not {_SHOWN} a part.")] = False,
    json: _Json = False,
) -> None:
    """Show a data set's kind, classes, parts and samples."""
    from convoxel.data import load
    from convoxel.data.bundled import BUNDLED

    if source is None:
        if json:
            emit({"bundled": [{"name": name, "task": kind} for name, kind in BUNDLED.items()]})
        else:
            console().print(table("bundled|task", list(BUNDLED.items())))
        return
    found = load(source, _task(source, task))
    if json:
        emit(_to_dict(found))
    else:
        _print(found, None if all else _SHOWN)


def _task(source: str, task: Task | None) -> str:
    from convoxel.data.bundled import BUNDLED

    if task is not None:
        return task.value
    if source in BUNDLED:
        return BUNDLED[source]
    folders = [Path(source), *(Path(source) / name for name in ("train", "training"))]
    paired = any((folder / "images").is_dir() or (folder / "labels").is_dir() for folder in folders)
    return "segment" if paired else "classify"


def _parts(found: DataSet) -> list[tuple[str, Split]]:
    parts = [("train", found.train), ("validation", found.validation)]
    return parts if found.test is None else [*parts, ("test", found.test)]


def _to_dict(found: DataSet) -> dict[str, Any]:
    return {
        "name": found.name,
        "task": found.task,
        "dims": found.dims,
        "channels": found.channels,
        "classes": list(found.classes),
        "spacing_mm": found.spacing_mm,
        "fingerprint": found.fingerprint,
        "parts": {
            name: [
                {
                    "name": entry.name,
                    "shape": list(entry.shape),
                    "spacing_mm": entry.spacing_mm,
                    "class": _name(found, entry),
                }
                for entry in part.entries
            ]
            for name, part in _parts(found)
        },
    }


def _name(found: DataSet, entry: Any) -> str | None:
    return None if entry.label is None else found.classes[entry.label]


def _print(found: DataSet, limit: int | None) -> None:
    screen = console()
    channels = "1 channel" if found.channels == 1 else f"{found.channels} channels"
    say(screen, f"{found.name}: {found.task}, {found.dims}-D, {channels}", "bold")
    say(screen, f"Classes: {', '.join(found.classes)}")
    if found.spacing_mm is not None:
        say(screen, f"Spacing: {' × '.join(f'{value:g}' for value in found.spacing_mm)} mm (median)")
    rows = []
    for name, part in _parts(found):
        for entry in part.entries[:limit]:
            rows.append((name, entry.name, "×".join(map(str, entry.shape)), _name(found, entry) or ""))
        hidden = len(part) - len(part.entries[:limit])
        if hidden:
            rows.append((name, f"… and {hidden} more (--all)", "", ""))
    screen.print(table("part|sample|size|class", rows))
    say(screen, ", ".join(f"{name} {len(part)}" for name, part in _parts(found)) + " samples")
