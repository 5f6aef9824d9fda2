"""``convoxel explain``: what a trained network looks at in an image, as a picture and maps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from convoxel.cli.options import Axes, Device, Json, Runs, Threads, Which
from convoxel.cli.parsing import parse_box, parse_sizes, split_words
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, duration, emit, plural
from convoxel.errors import ConfigError

_ENDINGS = (".png", ".svg", ".html")
# Files that somebody may well ask for; folders are seldom named like these.
_OTHERS = (".jpg", ".jpeg", ".gif", ".pdf", ".tif", ".tiff", ".webp", ".nii", ".gz", ".npy", ".json", ".csv")


def explain(
    run: Runs,
    input: Annotated[Path, typer.Option(help="Image file, or folder of DICOM slices.")],
    output: Annotated[
        Path, typer.Option(metavar="FIGURE|FOLDER", help="Figure (.png, .svg, .html) or folder; maps lie beside it.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD,…",
            help="Some of gradcam++, occlusion, integrated-gradients and field, the receptive fields (default: all).",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Class, or value of a regression (default: the likeliest)."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer of gradcam++ and field (default: the last of the coarsest feature maps).")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z", help="Voxel as stored, through which slices pass; a segmentation's is explained."
        ),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="A:B,…", help="Box of voxels of a segmentation, such as 10:20,5:15,0:8.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Window that occlusion covers, in pixels along each axis.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Points of the integral of integrated-gradients.")] = 50,
    theme: Annotated[Literal["auto", "light", "dark"], typer.Option(help="Colours of the figure.")] = "auto",
    which: Which = "best",
    device: Device = "auto",
    axes: Axes = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show what a trained network looks at in an image: maps over it, and as files beside the figure.

    Explained is the logit of a class, or a value of a regression; of a segmentation the logits of a class at a voxel
    (--at), in a box (--box), or summed over all voxels that are predicted as it.
    """
    from convoxel.graph.threads import limit_threads

    figure, folder = _places(output, input)
    screen, begun = Screen(json), time.perf_counter()
    place = None if at is None else parse_sizes("at", at, least=0)
    span = None if box is None else parse_box(box)
    cover = None if window is None else parse_sizes("window", window)
    with limit_threads(threads), Counter("explaining") as counter:
        from convoxel import draw
        from convoxel.files.folder import make_folder
        from convoxel.train import explain as explain_run

        def show(costs: object) -> None:
            for cost in costs:  # type: ignore[attr-defined]
                screen.say(str(cost))

        words = split_words(method)
        found = explain_run(
            run, input, **({"methods": words} if method is not None else {}), target=target, layer=layer, at=place,
            box=span, window=cover, steps=steps, which=which, device=device, axes=axes, on_plan=show,
            on_progress=counter,
        )  # fmt: skip
    with make_folder(folder):
        maps = found.save_maps(folder, figure.stem if figure is not None else None)
        picture = figure or folder / f"{found.sample.name}.png"
        draw.explanation(found).save(picture, None if theme == "auto" else theme)
    seconds = time.perf_counter() - begun
    if json:
        return emit({**found.to_dict(), "figure": picture, "files": maps, "seconds": seconds})
    screen.say(f"Explained: {found.subject}.")
    for note in found.notes:
        screen.say(note)
    if found.unit is not None:
        screen.say(f"Field: {found.unit}.")
    screen.say(f"Wrote {picture} and {plural(len(maps), 'map')} beside it in {duration(seconds)}.")


def _places(output: Path, image: Path) -> tuple[Path | None, Path]:
    """Return the figure, if a file was named, and the folder of figure and maps."""
    if output.suffix.lower() in _ENDINGS and not output.is_dir():
        if output.absolute() == image.absolute():
            raise ConfigError(f"output: {output} is the input image. Give another --output.")
        return output, output.parent
    named = output.suffix.lower() in _OTHERS and not output.is_dir()
    if output.is_file() or named:
        came = f"ends in {output.suffix}" if named else "is a file"
        raise ConfigError(f"output: {output} {came}; expected a folder, or a name that ends in {', '.join(_ENDINGS)}.")
    return None, output
