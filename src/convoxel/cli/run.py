"""``convoxel run``: a saved program or an ONNX model on arrays, with NumPy alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Json, SavedPrecision, Threads, Tile
from convoxel.cli.parsing import parse_tile
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, duration, emit, milliseconds, times


def run_program(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help=".cvx file of `convoxel compile`, or .onnx file.")],
    input: Annotated[list[Path], typer.Option("--input", "-i", help=".npy file; one for each input, in order.")],
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help=".npy file to write; one for each result, in order.")
    ] = None,
    tile: Tile = None,
    threads: Threads = None,
    precision: SavedPrecision = None,
    json: Json = False,
) -> None:
    """Run a compiled network on arrays; PyTorch is not needed.

    With --tile arrays may be larger than memory: files are read and written a tile at a time, and the results are bit
    for bit those of a run without.
    """
    from convoxel.graph.array_file import run_files

    with Counter("running") as counter:
        on_progress = lambda done, total: counter(done, total, "tiles")  # noqa: E731
        found = run_files(program, input, output or (), threads, parse_tile(tile), on_progress, precision)
    if json:
        return emit({"program": program, **dataclasses.asdict(found)})
    screen = Screen()
    if found.tiling:
        screen.say(found.tiling)
    screen.say(f"{program}: loaded in {duration(found.load_s)}, ran in {milliseconds(found.run_s, 1)} ms", "bold")
    for number, shape in enumerate(found.shapes):
        where = f" → {found.outputs[number]}" if found.outputs else ""
        screen.say(f"result {number}: {times(shape) or 'a number'}{where}")
