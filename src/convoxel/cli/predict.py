"""``convoxel predict``: label maps or classes of new images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convoxel.cli.options import (
    Axes,
    Device,
    Engine,
    FillHoles,
    Json,
    KeepLargest,
    MinVolume,
    Mirror,
    RunPrecision,
    Runs,
    Threads,
    Threshold,
    Tile,
)
from convoxel.cli.parsing import parse_part, parse_tile
from convoxel.cli.progress import Meter
from convoxel.cli.screen import Screen, duration, emit, ensemble_words

if TYPE_CHECKING:
    from convoxel.predict.case_manifest import CaseRecord
    from convoxel.predict.member import MemberFacts

# Failures that are told as they come; the manifest lists all.
_MOST_TOLD = 20


def predict(
    runs: Runs,
    input: Annotated[
        Path,
        typer.Option(
            help="Image file, folder of images or of DICOM slices, or FOLDER#SERIES; CASE_0000.nii.gz … are channels."
        ),
    ],
    output: Annotated[Path, typer.Option(help="File or folder to write: label maps, or a .csv/.json of classes.")],
    engine: Engine = "convoxel",
    precision: RunPrecision = "float32",
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
    probabilities: Annotated[
        str | None,
        typer.Option(
            metavar="uint8|uint16|float16|float32",
            help="Write maps of the classes' shares too, as numbers of this type.",
        ),
    ] = None,
    keep_largest: KeepLargest = None,
    min_volume: MinVolume = None,
    fill_holes: FillHoles = False,
    threshold: Threshold = None,
    on_error: Annotated[
        Literal["skip", "stop"],
        typer.Option(help="A bad image in a folder: predict the others (exit code 3), or stop there."),
    ] = "skip",
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave out results that are there, of the same content, run and options."),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Predict a part of the images, such as 3/16; parts may run at once."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="ray[:ADDRESS]", help="Compute in processes of a Ray cluster, here or elsewhere."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of these processes (default: one a machine).")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Predict images with trained networks: label maps with the images' affine, or a table of classes.

    Several runs are an ensemble, whose shares of classes are averaged; a folder with the runs of all folds is one too.

    Large images are predicted on tiles that overlap and are blended, so logits differ a little from those of the whole
    image. With --exact they do not: a tile takes along all that its part of the result reads.

    Beside the results lies a manifest (labels.manifest.jsonl beside labels), which says of each image whether it is
    done, and why it failed.
    """
    from convoxel.files.memory import return_large_blocks
    from convoxel.graph.threads import limit_threads
    from convoxel.train import predict as run_networks

    return_large_blocks()
    screen = Screen(json)
    begun = time.perf_counter()
    summary = _Summary(screen)
    size, number = parse_tile(tile), parse_part(part)
    with limit_threads(threads), Meter(screen) as meter:
        try:
            files = run_networks(
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
                probabilities=probabilities,
                keep_largest=keep_largest,
                min_volume=min_volume,
                fill_holes=fill_holes,
                threshold=threshold,
                on_error=on_error,
                skip_existing=skip_existing,
                part=number,
                on=on,
                workers=workers,
                on_begin=summary.begin,
                on_case=summary,
                on_note=summary.note,
                on_progress=meter,
            )
        except KeyboardInterrupt:
            screen.say(f"Stopped: {summary}. The same command with --skip-existing goes on from there.")
            raise
    seconds = time.perf_counter() - begun
    if json:
        emit({"files": files, "seconds": seconds, "engine": engine, **summary.figures()})
    else:
        for tiling in summary.tilings:
            screen.say(tiling)
        where = f"{len(files)} files in {files[0].parent}" if len(files) > 1 else str(*files)
        screen.say(f"{f'Wrote {where}' if files else 'Nothing to write'} in {duration(seconds)}.")
        if summary.stages:
            told = ", ".join(f"{name} {duration(value)}" for name, value in summary.stages.items())
            screen.say(f"Time of the images: {told}.")
        for name, total in summary.cleaned.items():
            screen.say(
                f"Clean-up of {name}: {total['removed']} components removed ({total['removed_voxels']} voxels), "
                f"{total['filled']} holes filled ({total['filled_voxels']} voxels)."
            )
        if summary.is_worth_telling:
            screen.say(f"Images: {summary}.")
    if summary.failures:
        raise typer.Exit(3)


class _Summary:
    """The outcomes of all images; called with the record of each."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._counts = {"done": 0, "skipped": 0, "failed": 0}
        self.members: list[MemberFacts] = []
        self.failures: list[dict[str, str]] = []
        self.notes: list[str] = []
        self.tilings: dict[str, None] = {}
        self.stages: dict[str, float] = {}
        self.cleaned: dict[str, dict[str, int]] = {}

    def begin(self, members: list[MemberFacts]) -> None:
        """Tell the networks of an ensemble, and what is mirrored."""
        self.members = members
        told = ensemble_words(members)
        if told:
            self._screen.say(told)

    def note(self, told: str) -> None:
        """Tell what the names of files were taken to say."""
        self.notes.append(told)
        self._screen.say(f"Channels: {told}.")

    def __call__(self, record: CaseRecord) -> None:
        """Count an image, and tell at once if it failed."""
        self._counts[record.state] += 1
        if record.state == "done":
            for name, value in record.stages.items():
                self.stages[name] = self.stages.get(name, 0.0) + value
        if record.tiling:
            self.tilings.setdefault(record.tiling)
        for name, change in record.cleaned.items() if record.state == "done" else ():
            total = self.cleaned.setdefault(name, dict.fromkeys(change, 0))
            for word, count in change.items():
                total[word] += count
        if record.state == "failed":
            self.failures.append({"file": record.file, "reason": record.reason})
            if len(self.failures) <= _MOST_TOLD:
                self._screen.say(f"Failed: {record.reason}")

    def __str__(self) -> str:
        done, skipped, failed = self._counts.values()
        return f"{done} predicted, {skipped} done before, {failed} failed"

    @property
    def is_worth_telling(self) -> bool:
        """True where images were left out or failed."""
        return self._counts["skipped"] + self._counts["failed"] > 0

    def figures(self) -> dict[str, object]:
        """Return the entries of the JSON object."""
        told = {
            "members": self.members,
            "failures": self.failures,
            "notes": self.notes,
            "tilings": list(self.tilings),
            "cleaned": self.cleaned,
        }
        return {"images": dict(self._counts), **told, "stages": self.stages}
