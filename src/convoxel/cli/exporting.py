"""``convoxel export``: a network as an ONNX model, for other engines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Assign, Json, Network, Weights, Which
from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.cli.screen import Screen, emit, plural


def export(
    network: Network,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=".onnx file to write.")],
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
    """
    from convoxel.interchange import export_network

    shapes = [found for found in map(parse_shape, shape or ()) if found]
    screen = Screen(json)
    with screen.status("exporting"):
        found = export_network(network, output, shapes, parse_options(assign), weights=weights, which=which)
    if json:
        return emit(dataclasses.asdict(found))
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
