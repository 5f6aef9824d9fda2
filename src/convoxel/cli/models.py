"""``convoxel models``: the networks that can be trained, described and compiled by name."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from convoxel.cli.screen import console, emit, say, table

__all__ = ["Task", "models"]


class Task(str, Enum):
    """What a network is for."""

    segment = "segment"
    classify = "classify"


def models(
    task: Annotated[Task | None, typer.Option(help="Only those for one task.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """List the networks of the zoo with their options; each works in 1-D, 2-D and 3-D."""
    from convoxel import models as zoo

    found = [(name, zoo.entry(name)) for name in zoo.names(None if task is None else task.value)]
    if json:
        emit(
            {
                "models": [
                    {"name": name, "task": row.task, "options": row.options, "paper": row.paper} for name, row in found
                ]
            }
        )
        return
    screen = console()
    rows = [
        (name, row.task, ", ".join(f"{key}={value}" for key, value in row.options.items()), row.paper)
        for name, row in found
    ]
    screen.print(table("name|task|options|paper", rows))
    say(screen, "Options are set by --set name=value, as in: convoxel describe unet --set levels=2")
