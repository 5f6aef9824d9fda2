"""``convoxel describe``: a network's shapes, parameters, costs and receptive fields, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Assign, Json, Network
from convoxel.cli.parsing import parse_options, parse_shape, parse_sizes, split_words
from convoxel.cli.screen import Screen, emit


def describe(
    network: Network,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Input shape, such as 1,3,224,224 (default: a usual one); once for each input of a file."),
    ] = None,
    assign: Assign = None,
    depth: Annotated[
        int | None, typer.Option(help="Show modules down to this depth: 1 for the network's top modules.", min=1)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns, separated by commas: layer,output,macs,live,field,offset,…")
    ] = None,
    object_size: Annotated[
        str | None,
        typer.Option("--object", metavar="SIZE", help="Size of the objects to find, such as 40 or 20,40,40."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows into this file too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the table as a web page into this file too.")] = None,
    json: Json = False,
) -> None:
    """Show every layer of a network: output shape, parameters, multiply-adds, memory, receptive field.

    Nothing is computed and no memory taken, however large the network. The last lines say which input sizes work,
    and give advice on the design.
    """
    from convoxel.files.atomic import write_text
    from convoxel.lookup import find_network

    objects = () if object_size is None else parse_sizes("object", object_size)
    shapes = [found for found in map(parse_shape, shape or ()) if found]
    named = find_network(network, shapes, parse_options(assign))
    summary = named.describe(objects[0] if len(objects) == 1 else objects or None)
    view = summary.view(depth, None if columns is None else split_words([columns]))
    if csv is not None:
        write_text(csv, summary.to_csv(depth=depth))
    if html is not None:
        write_text(html, view.page())
    if json:
        return emit({**summary.to_dict(), **({"geometry": named.geometry} if named.geometry else {})})
    screen = Screen()
    screen.print(view)
    if named.geometry:
        screen.say(f"Images: {named.geometry}")
    for path in filter(None, (csv, html)):
        screen.say(f"written: {path}")
