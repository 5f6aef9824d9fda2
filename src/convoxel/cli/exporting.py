"""``convoxel export``: a network as an ONNX model, for other engines, and the model card of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Assign, Json, Network, Weights, Which
from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.cli.screen import Screen, emit, plural
from convoxel.errors import ConfigError


def export(
    network: Network,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=".onnx file to write.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write the model card of a run: what it is for, has seen, and reaches."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Input shape to record with, such as 1,3,224,224 (default: a usual one, or the run's)."),
    ] = None,
    assign: Assign = None,
    weights: Weights = None,
    which: Which = "best",
    json: Json = False,
) -> None:
    """Write a network as an ONNX model, which ONNX Runtime and other engines run.

    Batch and image sizes stay open. The model of a run says in its metadata what comes in and goes out: classes,
    spacing, normalisation. What ONNX cannot say is refused by name.

    --card writes a page of Markdown from a run's own records; what they do not tell stands there as a question.
    """
    if card is not None:
        from convoxel.report import write_card

        write_card(network, card)
    if output is None:
        if card is None:
            raise ConfigError("export: nothing is asked for; give --output FILE.onnx, or --card FILE.md for a run.")
        return emit({"card": str(card)}) if json else Screen().say(f"Card: {card}")
    from convoxel.interchange import export_network

    shapes = [found for found in map(parse_shape, shape or ()) if found]
    screen = Screen(json)
    with screen.status("exporting"):
        found = export_network(network, output, shapes, parse_options(assign), weights=weights, which=which)
    if json:
        return emit({**dataclasses.asdict(found), "card": card and str(card)})
    screen.say(
        f"{found.path}: {found.name}, {found.size_bytes / 1e6:.1f} MB, operator set {found.opset}, "
        f"{plural(found.nodes, 'node')}",
        "bold",
    )
    for word, values in (("input", found.inputs), ("output", found.outputs)):
        for name, sizes in values.items():
            screen.say(f"{word} {name}: {' × '.join(map(str, sizes)) or 'a number'}")
    if found.metadata:
        screen.say(f"metadata: {', '.join(found.metadata)}")
