"""``convoxel scale``: a network made wider, deeper and finer by rule: what each costs, and what each learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import (
    Assign,
    Data,
    Device,
    Epochs,
    Json,
    Plot,
    Shape,
    Storage,
    StudyName,
    Threads,
    TrialRuns,
    check_figure,
)
from convoxel.cli.parsing import parse_factors, parse_options, parse_shape
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, duration, emit, number, times
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.predict.run_progress import Progress
    from convoxel.train.scaling_study import ScalingStudy


def scale(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A name of `convoxel models`.")],
    width: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on all channels, one at a time.")] = None,
    depth: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on all numbers of blocks.")] = None,
    resolution: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on the image's size.")] = None,
    compound: Annotated[
        str | None, typer.Option(metavar="PHI,PHI", help="All three together: 1.1^phi, 1.2^phi and 1.15^phi.")
    ] = None,
    assign: Assign = None,
    shape: Shape = None,
    data: Data = None,
    epochs: Epochs = 10,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Random seed of each training.")] = 0,
    storage: Storage = None,
    study: StudyName = None,
    output: TrialRuns = None,
    threads: Threads = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Show what a network costs when it is made wider, deeper, finer, or all at once; with data also what it learns.

    With --data each is trained for the same epochs with the same seed. Images keep their size then, so --resolution
    is refused and --compound scales width and depth only. --plot draws quality against scale. Machines that run the
    same command with the same --storage share the trainings.
    """
    from convoxel.draw.quantity import count
    from convoxel.search.scaling import list_scales, scaled_options, scales

    screen = Screen(json)
    check_figure("plot", plot)
    if plot is not None and data is None:
        raise ConfigError("plot: given without --data; expected both, since quality is drawn. Add --data digits.")
    if data is not None and (resolution is not None or shape is not None):
        wrong = "resolution" if resolution is not None else "shape"
        raise ConfigError(f"{wrong}: given with --data, whose images keep their size. Leave --{wrong} out.")
    for name, value in (("storage", storage), ("study", study), ("output", output)):
        if value is not None and (data is None or storage is None):
            raise ConfigError(f"{name}: expected together with --data and --storage. Leave it out, or give all.")
    factors = list_scales(
        width=parse_factors("width", width), depth=parse_factors("depth", depth),
        resolution=parse_factors("resolution", resolution), phi=parse_factors("compound", compound),
        fixed_size=data is not None,
    )  # fmt: skip
    fixed = parse_options(assign)
    if data is None:
        rows = list(zip(factors, scales(network, parse_shape(shape), factors, fixed=fixed), strict=True))
        if json:
            return emit({"network": network, "scales": [{**asdict(f), **row.to_dict()} for f, row in rows]})
        screen.say(f"{network}, scaled:", "bold")
        cells = (
            (*(f"{value:.3g}" for value in factor.factors), times(row.shape), f"{row.params:,}", count(row.macs),
             count(row.memory_bytes), times(sorted(set(row.field))) or "–")
            for factor, row in rows
        )  # fmt: skip
        return screen.table(">width|>depth|>resolution|input|>parameters|>MACs|>memory, bytes|>field", cells)
    options = [{**scaled_options(network, factor, (1, 1, 1)), **fixed} for factor in factors]
    if storage is not None:
        from convoxel.graph.threads import limit_threads
        from convoxel.search.trained_search import share_scales

        with limit_threads(threads), Counter("training") as counter:
            trained, state = share_scales(
                data, network, options, storage=storage, study=study, epochs=epochs, threads=threads, seed=seed,
                settings={"device": device}, output=output, on_progress=counter,
            )  # fmt: skip
        for fault in state.failed:
            screen.say(f"Failed: {fault}")
        if len(trained.rows) + len(state.failed) < len(options):
            screen.say(f"{len(trained.rows)} of {len(options)} are trained; others train the rest.", "dim")
    else:
        trained = train_variants(data, network, options, epochs=epochs, seed=seed, threads=threads, device=device)
    if plot is not None:
        from convoxel.draw.scaling_chart import scaling

        scaling(trained).save(plot)
    if json:
        return emit({**trained.to_dict(), "figure": plot})
    screen.say(f"{trained.network} on {trained.data}, {epochs} epochs each:", "bold")
    cells = (
        (row.name, times(row.shape), f"{row.params:,}", count(row.macs), number(row.quality, 3), duration(row.train_s))
        for row in trained.rows
    )  # fmt: skip
    screen.table(f"scale|input|>parameters|>MACs|>{trained.metric_name}|>trained", cells)
    if plot is not None:
        screen.say(f"Figure: {plot}")


def train_variants(
    data: str,
    network: str,
    options: Sequence[Mapping[str, object]],
    *,
    epochs: int,
    seed: int,
    threads: int | None,
    device: str,
) -> ScalingStudy:
    """Train a network with each set of options, with a counter on stderr."""
    from convoxel.graph.threads import limit_threads
    from convoxel.train.scaling_study import study_scaling

    with limit_threads(threads), Counter("training") as counter:

        def tell(place: int, name: str, progress: Progress) -> None:
            # In hundredths of a network, for the counter to move.
            counter(100 * place + round(100 * progress.fraction), 100 * len(options), name)

        settings = {"device": device}
        return study_scaling(
            data, network, options, epochs=epochs, seed=seed, threads=threads, settings=settings, on_progress=tell
        )
