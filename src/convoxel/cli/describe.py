"""``convoxel describe``: a network's shapes, parameters, costs and receptive fields, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer

from convoxel.cli.network import choose_network
from convoxel.cli.screen import console, emit

__all__ = ["describe"]


def describe(
    network: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="Name of `convoxel models`, or folder of a run.")],
    shape: Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; a usual one unless given.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show every layer of a network: output shape, parameters, multiply-adds, memory, receptive field.

    Nothing is computed and no memory taken, however large the network.
    """
    import dataclasses

    from convoxel.inspect import describe as look

    chosen = choose_network(network, shape, assign, weights=False)
    summary = dataclasses.replace(look(chosen.model, chosen.shape), name=chosen.name)
    if json:
        emit(summary.to_dict())
    else:
        console().print(summary)
