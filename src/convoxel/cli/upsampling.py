"""``convoxel compare upsampling``: transposed convolution, resize and convolution, pixel shuffle, un-pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from convoxel.cli.screen import console, emit, limit_threads, number, say, table
from convoxel.errors import ConfigError

__all__ = ["upsampling"]

_SIZES = {1: 4096, 2: 64, 3: 24}  # of the input along each axis, unless given


def upsampling(
    dims: Annotated[int, typer.Option(min=1, max=3, help="Spatial axes.")] = 2,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the input and of the output.")] = 16,
    size: Annotated[int | None, typer.Option(min=1, help="Input size along each axis; else a usual one.")] = None,
    scale: Annotated[int, typer.Option(min=2, help="Outputs for one input along each axis.")] = 2,
    starts: Annotated[int, typer.Option(min=1, help="Random starts that the checkerboard is measured over.")] = 16,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Measure how long a run takes on our engine.")] = True,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also draw: .svg, .png or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compare ways of up-sampling: how many products make each output, how strong a checkerboard is, what each costs.

    The checkerboard is the share of energy that alternates where a constant image should stay constant: with equal
    weights, which shows uneven overlap, and with weights that training starts from.
    """
    from convoxel.inspect.upsampler import upsampling as measure
    from convoxel.nn.upsampling import upsamplers

    screen = console(json)
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"output: the folder of {output} is not there. Create it first, or give another --output.")
    shape = (1, channels, *(size or _SIZES[dims],) * dims)
    with limit_threads(threads):
        rows = measure(upsamplers(dims, channels, channels, scale), shape, starts=starts, timed=timed)
    if output is not None:
        from convoxel.draw.upsampling_chart import upsampling as draw

        draw(rows).save(output)
    if json:
        emit({"shape": shape, "ways": [row.to_dict() for row in rows], "figure": output})
        return
    say(screen, f"From {' × '.join(map(str, shape))} to {scale} times as many along each axis:", "bold")
    screen.print(table("way|>products an output|>checkerboard|>at the start|>parameters|>MACs|>ms", _cells(rows)))
    if output is not None:
        say(screen, f"Figure: {output}")


def _cells(rows: Any) -> list[tuple[Any, ...]]:
    from convoxel.draw.quantity import count

    return [
        (
            row.name,
            " or ".join(f"{value:g}" for value in sorted(set(row.overlaps))),
            number(row.checkerboard),
            number(row.checkerboard_start),
            f"{row.params:,}",
            count(row.macs),
            number(None if row.time_s is None else 1e3 * row.time_s, 3),
        )
        for row in rows
    ]
