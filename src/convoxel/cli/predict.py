"""``convoxel predict``: label maps or classes of new images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Axes, Device, Engine, Json, Mirror, Precision, Runs, Threads, Tile
from convoxel.cli.parsing import parse_tile
from convoxel.cli.progress import Meter
from convoxel.cli.screen import Screen, duration, emit


def predict(
    runs: Runs,
    input: Annotated[Path, typer.Option(help="Image file, folder of images or of DICOM slices, or FOLDER#SERIES.")],
    output: Annotated[Path, typer.Option(help="File or folder to write: label maps, or a .csv/.json of classes.")],
    engine: Engine = "convoxel",
    precision: Precision = "float32",
    device: Device = "auto",
    mirror: Mirror = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Label maps that are bit for bit those of whole images, in memory for a tile."),
    ] = False,
    tile: Tile = None,
    axes: Axes = None,
    ending: Annotated[
        str | None, typer.Option(help="Ending of label maps in a folder, such as .seg.dcm (default: by the input).")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Predict images with trained networks: label maps with the images' affine, or a table of classes.

    Several runs are an ensemble, whose shares of classes are averaged; a folder with the runs of all folds is one too.

    Large images are predicted on tiles that overlap and are blended, so logits differ a little from those of the whole
    image. With --exact they do not: a tile takes along all that its part of the result reads.
    """
    from convoxel.graph.threads import limit_threads
    from convoxel.train import predict as run_network

    screen = Screen(json)
    begun = time.perf_counter()
    tilings: dict[str, None] = {}

    def note(tiling: object) -> None:
        tilings.setdefault(str(tiling))

    size = parse_tile(tile)
    with limit_threads(threads), Meter(screen) as meter:
        files = run_network(
            runs,
            input,
            output,
            engine=engine,
            precision=precision,
            device=device,
            mirror=mirror,
            exact=exact,
            tile=size,
            axes=axes,
            ending=ending,
            on_tiling=note,
            on_progress=meter,
        )
    seconds = time.perf_counter() - begun
    if json:
        return emit({"files": files, "seconds": seconds, "engine": engine, "tilings": list(tilings)})
    for tiling in tilings:
        screen.say(tiling)
    where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {files[0].parent}"
    screen.say(f"Wrote {where} in {duration(seconds)}.")
