"""``convoxel describe``: a network's shapes, parameters, costs and receptive fields, layer by layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.network import choose_network, is_file, open_file
from convoxel.cli.screen import console, emit, say
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.inspect import Summary

__all__ = ["describe"]


def describe(
    network: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN|FILE", help="Name of `convoxel models`, a run's folder, or an .onnx file."),
    ],
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Input as n,channels,*sizes; a usual one unless given. Once for each input of a file."),
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2.")
    ] = None,
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
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the table as a web page to this file too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show every layer of a network: output shape, parameters, multiply-adds, memory, receptive field.

    Nothing is computed and no memory taken, however large the network. The last lines say which input sizes work,
    and what a designer should know.
    """
    summary = _look(network, shape or [], assign, _sizes(object_size))
    view = summary.view(depth, None if columns is None else [name.strip() for name in columns.split(",")])
    if csv is not None:
        _write(csv, summary.to_csv(depth=depth))
    if html is not None:
        _write(html, view.page())
    if json:
        emit(summary.to_dict())
    else:
        screen = console()
        screen.print(view)
        for path in filter(None, (csv, html)):
            say(screen, f"written: {path}")


def _look(network: str, shapes: list[str], assign: list[str] | None, object_size: tuple[int, ...]) -> Summary:
    import dataclasses

    from convoxel.inspect.describe import describe as look
    from convoxel.inspect.describe import summarise

    objects: Any = object_size[0] if len(object_size) == 1 else object_size or None
    if is_file(network):
        source, known = open_file(network, shapes, assign)
        return summarise(source, known, object_size=objects)
    if len(shapes) > 1:
        raise ConfigError(f"shape: {len(shapes)} given, but {network} has one input. Give --shape once.")
    chosen = choose_network(network, shapes[0] if shapes else None, assign, weights=False)
    return dataclasses.replace(look(chosen.model, chosen.shape, object_size=objects), name=chosen.name)


def _sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    words = re.split(r"[,x×\s]+", text.strip("() "))
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"object: got {text!r}; expected a size, or one an axis, such as 40 or 20,40,40.")
    return tuple(map(int, words))


def _write(path: Path, text: str) -> None:
    from convoxel.files.atomic import write_bytes

    write_bytes(path, text.encode())
