"""``convoxel predict``: label maps or classes of new images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.evaluate import Engine
from convoxel.cli.meter import Meter
from convoxel.cli.screen import console, duration, emit, limit_threads, say

__all__ = ["predict"]


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    input: Annotated[Path, typer.Option(help="Image file, or folder of images.")],
    output: Annotated[Path, typer.Option(help="File or folder to write: label maps, or a .csv/.json of classes.")],
    engine: Annotated[Engine, typer.Option(help="What computes: our engine or PyTorch.")] = Engine.convoxel,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the files written as one JSON object.")] = False,
) -> None:
    """Predict images with a trained network: label maps with the images' affine, or a table of classes."""
    from convoxel.train import predict as run_network

    screen = console(json)
    begun = time.perf_counter()
    with limit_threads(threads), Meter(screen) as meter:
        files = run_network(run, input, output, engine=engine.value, on_progress=meter)
    seconds = time.perf_counter() - begun
    if json:
        emit({"files": files, "seconds": seconds, "engine": engine.value})
        return
    where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {files[0].parent}"
    say(screen, f"Wrote {where} in {duration(seconds)}.")
