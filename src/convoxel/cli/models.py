"""``convoxel models``: the networks that can be trained, described and compiled by name."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from convoxel.cli.options import Json
from convoxel.cli.screen import Screen, emit, number, times


def models(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATTERN",
            help="Network to show in full, or a pattern such as 'resnet*' (default: all).",
            show_default=False,
        ),
    ] = "*",
    task: Annotated[
        Literal["segment", "classify"] | None, typer.Option(help="Only networks for one task (default: all).")
    ] = None,
    json: Json = False,
) -> None:
    """List the networks of the zoo with their published figures, or show one; each works in 1-D, 2-D and 3-D."""
    from convoxel.lookup import find_models
    from convoxel.models.backbone import ACCURACY_PROTOCOL

    found = find_models(name, task)
    screen = Screen(json)
    if json:
        emit({"models": [row._asdict() for row in found]})
    elif [row.name for row in found] == [name]:
        (row,) = found
        options = [f"{key}={value}" for key, value in row.options.items()]
        for label, value in (
            ("name", row.name),
            ("task", row.task),
            ("paper", row.paper),
            ("input", times(row.shape, " × ")),
            ("parameters", f"{row.params:,}"),
            ("MACs", f"{row.macs:,}"),
            ("receptive field", "–" if row.field is None else f"{row.field} px"),
            ("top-1 on ImageNet", "–" if row.top1 is None else f"{row.top1:g} % ({row.source})"),
            ("options", ", ".join(options)),
        ):
            screen.say(f"{label:20}{value}")
        screen.say(f"\nSet options by --set name=value: convoxel describe {row.name} --set {options[0]}")
    else:
        rows = (
            (
                row.name, row.task, *(number(None if value is None else value / unit, 3) for value, unit in
                ((row.params, 1e6), (row.macs, 1e9))), "–" if row.field is None else row.field,
                times(row.shape, " × "), number(row.top1, 2),
            )
            for row in found
        )  # fmt: skip
        screen.table("name|task|>parameters, M|>MACs, G|>field, px|>input|>top-1, %", rows)
        screen.say("As published, in 2-D; 1 MAC is a multiply and an add. `convoxel models NAME` shows one in full.")
        if any(row.top1 is not None for row in found):
            screen.say(f"Top-1: {ACCURACY_PROTOCOL} of the input's size; – where there are no such weights.")
