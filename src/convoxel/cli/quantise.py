"""``convoxel quantise``: a trained network on whole numbers of 8 bits, where that is faster and loses little."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convoxel.cli.options import Json, Network, Threads, Which
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, emit, milliseconds, plural
from convoxel.errors import ConfigError


def quantise(
    network: Network,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled images of a run (default: its own); inputs of other networks: .npy or .npz file."),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(help="The most that the task's figure (Dice, accuracy …) may fall; layers return to float.")
    ] = 0.005,
    split: Annotated[
        Literal["validation", "train", "test", "all"] | None,
        typer.Option(help="Part of the data on which the loss is measured (default: as of evaluate)."),
    ] = None,
    images: Annotated[int, typer.Option(help="Images, or inputs of a file, that ranges are taken from.")] = 8,
    method: Annotated[
        Literal["auto", "minmax", "percentile", "mse"],
        typer.Option(help="The ranges that levels cover (auto: the ones whose results err least)."),
    ] = "auto",
    everything: Annotated[
        bool, typer.Option("--all", help="Quantise layers that are not measured to be faster, too.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the program as .cvx; that of a run is kept with it.")
    ] = None,
    which: Which = "best",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Quantise a network after training: int8 where that is measured to be faster here, within a loss that you set.

    The program of a run is kept in its folder, and `predict` and `evaluate` use it for --precision int8.
    """
    from convoxel.graph.quantise import Quantisation
    from convoxel.graph.threads import limit_threads
    from convoxel.lookup import is_run

    with limit_threads(threads), Counter("quantising") as counter:
        if is_run(network):
            from convoxel.train.run_quantisation import quantise_run

            program, kept = quantise_run(
                network, data, split=split, which=which, images=images, max_loss=max_loss, method=method,
                only_faster=not everything, output=output, on_progress=counter,
            )  # fmt: skip
        else:
            from convoxel.bench.network_quantisation import quantise_network

            if data is None:
                raise ConfigError("data: missing; give --data inputs.npy, or .npz with x and the classes y.")
            if output is None:
                raise ConfigError("output: missing; give --output net.cvx.")
            program = quantise_network(
                network, data, output, images=images, max_loss=max_loss, method=method,
                only_faster=not everything, threads=threads, on_progress=counter,
            )  # fmt: skip
            kept = None
    record = Quantisation.of(program)
    assert record is not None
    files = [path for path in (kept, output) if path is not None]
    if json:
        return emit({**vars(record), "loss": record.loss, "files": files})
    screen = Screen()
    screen.say(f"{len(record.layers)} of {plural(record.count, 'layer')} in int8", "bold")
    for names, why in ((record.slow, "float32, where int8 is no faster"), (record.lossy, "float32, for their loss")):
        if names:
            screen.say(f"{plural(len(names), 'layer')} in {why}: {', '.join(names)}")
    screen.say(f"{record.metric}: {record.before:.4f} in float32, {record.after:.4f} now, a loss of {record.loss:.4f}")
    screen.say(f"A run: {milliseconds(record.float_s, 1)} ms in float32, {milliseconds(record.int8_s, 1)} ms now")
    for path in files:
        screen.say(f"Wrote {path}.")
