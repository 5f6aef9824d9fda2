"""``convoxel compare sharing``: what weights that are shared, local or free make of the same few samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.screen import console, emit, limit_threads, number, say, table
from convoxel.errors import ConfigError

__all__ = ["sharing"]


def sharing(
    data: Annotated[str, typer.Option(metavar="DIR|NAME", help="Labelled images, as `convoxel data` names them.")] = (
        "digits"
    ),
    samples: Annotated[int, typer.Option(min=1, help="Samples that are trained on; few, for the prior to matter.")] = (
        100
    ),
    kernel: Annotated[int, typer.Option(min=1, help="Kernel size along each axis.")] = 3,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the layer.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 100,
    starts: Annotated[int, typer.Option(min=1, help="Random starts that accuracies are the means of.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the samples and of the first start.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also draw: .svg, .png or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Train a convolution, a locally and a fully connected layer on the same few samples, and compare them.

    They are the same map with ever weaker priors: parameters, non-zeros and multiplications grow, and so does the gap
    between known samples and new ones. A convolution also
    bears images that are moved. The distance says how far a trained layer is from being a convolution.
    """
    from convoxel.data import load
    from convoxel.train.sharing_study import read_arrays, study_sharing

    screen = console(json)
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"output: the folder of {output} is not there. Create it first, or give another --output.")
    dataset = load(data, "classify", seed=seed)
    train, test = read_arrays(dataset.train, samples, seed), read_arrays(dataset.validation)
    with limit_threads(threads):
        study = study_sharing(train, test, kernel=kernel, channels=channels, steps=steps, starts=starts, seed=seed)
    if output is not None:
        from convoxel.draw.sharing_chart import sharing as draw

        draw(study).save(output)
    if json:
        emit({"data": dataset.name, **study.to_dict(), "figure": output})
        return
    rows = [
        (row.kind, f"{row.params:,}", f"{row.nonzeros:,}", f"{row.size_bytes:,}", f"{row.multiplications:,}",
         number(row.train_accuracy, 3), f"{number(row.test_accuracy, 3)} ± {number(row.test_deviation, 3)}",
         number(row.moved_accuracy, 3), number(row.gap, 3), number(row.distance, 3))
        for row in study.rows
    ]  # fmt: skip
    say(screen, f"{dataset.name}: {study.samples} samples to train on, {len(test[0])} new ones:", "bold")
    headings = "layer|>parameters|>non-zeros|>bytes|>products|>trained|>new|>new, moved|>gap|>distance"
    screen.print(table(headings, rows))
    if output is not None:
        say(screen, f"Figure: {output}")
