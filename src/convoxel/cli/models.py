"""``convoxel models``: the networks that can be trained, described and compiled by name."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.screen import console, emit, say, table

if TYPE_CHECKING:
    from convoxel.models import Info

__all__ = ["Task", "models"]


class Task(str, Enum):
    """What a network is for."""

    segment = "segment"
    classify = "classify"


def models(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATTERN",
            help="A network to show in full, or a pattern such as 'resnet*'.",
            show_default=False,
        ),
    ] = "*",
    task: Annotated[Task | None, typer.Option(help="Only those for one task.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """List the networks of the zoo with their published figures, or show one; each works in 1-D, 2-D and 3-D."""
    from convoxel import models as zoo
    from convoxel.errors import ConfigError

    known = zoo.names(name, None if task is None else task.value)
    if not known and set("*?[") & set(name):
        raise ConfigError(f"models: no network is called {name!r}. `convoxel models` lists all.")
    if not known:  # unknown, which names the nearest, or for the other task
        raise ConfigError(f"task: {name!r} is made to {zoo.entry(name).task}. Leave --task out, or give a pattern.")
    found = [_counted(zoo.info(each)) for each in known]
    if json:
        emit({"models": [row._asdict() for row in found]})
    elif known == (name,):
        _show(found[0])
    else:
        _list(found)


def _counted(row: Info) -> Info:
    """Return the row with its figures counted where none are recorded."""
    if row.params is not None:
        return row
    from convoxel.inspect import describe

    summary = describe(row.name, (1, *row.shape))
    field = max((int(size) for size in summary.field.size), default=None) if summary.field else None
    return row._replace(params=summary.params, macs=summary.macs, field=field)


def _list(found: list[Info]) -> None:
    rows = [
        (
            row.name,
            row.task,
            _short(row.params, 1e6),
            _short(row.macs, 1e9),
            "–" if row.field is None else row.field,
            " × ".join(map(str, row.shape)),
            "–" if row.top1 is None else f"{row.top1:.2f}",
        )
        for row in found
    ]
    screen = console()
    screen.print(table("name|task|>parameters, M|>MACs, G|>field, px|>input|>top-1, %", rows))
    say(
        screen,
        "As published, in 2-D; 1 MAC is a multiply and an add. `convoxel models NAME` shows options and sources.",
    )


def _short(value: int | None, unit: float) -> str:
    return "–" if value is None else f"{value / unit:.3f}"


def _show(row: Info) -> None:
    options = [f"{key}={value}" for key, value in row.options.items()]
    lines = [
        ("name", row.name),
        ("task", row.task),
        ("paper", row.paper),
        ("input", " × ".join(map(str, row.shape))),
        ("parameters", f"{row.params:,}"),
        ("MACs", f"{row.macs:,}"),
        ("receptive field", "–" if row.field is None else f"{row.field} px"),
        ("top-1 on ImageNet", "–" if row.top1 is None else f"{row.top1:g} % ({row.source})"),
        ("options", ", ".join(options)),
    ]
    screen = console()
    for label, value in lines:
        say(screen, f"{label:20}{value}")
    say(screen, f"\nSet options by --set name=value: convoxel describe {row.name} --set {options[0]}")
