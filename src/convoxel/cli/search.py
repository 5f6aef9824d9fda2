"""``convoxel search``: the networks of a family that lie inside every budget, and those that no other one beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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
from convoxel.cli.parsing import parse_amount, parse_options, parse_shape, parse_values, split_words
from convoxel.cli.progress import Counter
from convoxel.cli.scale import train_variants
from convoxel.cli.screen import Screen, command_line, emit, milliseconds, number, plural, times
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from convoxel.search import Findings

_ROWS = 24  # of the table; --json has all


def search(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A name of `convoxel models`.")],
    shape: Shape = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=V,V", help="Values of an option, or of `size`, the image's; may be repeated (default: usual)."
        ),
    ] = None,
    assign: Assign = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="N", help="Most parameters, such as 1M.")] = None,
    max_macs: Annotated[str | None, typer.Option(metavar="N", help="Most multiply-accumulates, such as 100M.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Most memory of a run, such as 64MB: activations and weights.")
    ] = None,
    min_field: Annotated[int | None, typer.Option(min=1, help="Least receptive field, in pixels.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Most milliseconds of a run on our engine, measured here.")
    ] = None,
    low: Annotated[str, typer.Option(metavar="FIGURE,…", help="Figures to minimise: macs, params, memory, field.")] = (
        "macs"
    ),
    high: Annotated[str, typer.Option(metavar="FIGURE,…", help="Figures to maximise.")] = "params,field",
    most: Annotated[int, typer.Option(min=1, help="Networks to count; of more combinations, a sample.")] = 256,
    seed: Annotated[int, typer.Option(help="Random seed of the sample and of training.")] = 0,
    timed: Annotated[bool, typer.Option("--time", help="Measure the time of the best even without --max-ms.")] = False,
    data: Data = None,
    epochs: Epochs = 10,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train so many networks in all, which a study chooses.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Begin no further training here after so long.")] = None,
    storage: Storage = None,
    study: StudyName = None,
    sampler: Annotated[
        Literal["tpe", "nsga2"], typer.Option(help="Look for the best quality (tpe), or for quality and --low at once.")
    ] = "tpe",
    resume: Annotated[bool, typer.Option("--resume", help="Refuse to begin a new study in --storage.")] = False,
    output: TrialRuns = None,
    device: Device = "auto",
    threads: Threads = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Search a family of networks for those inside every budget, and show which of them no other one beats.

    Networks are counted without being computed; only the best are timed, or with --data trained. Without data,
    parameters and receptive field stand for what a network can learn. --plot draws all networks inside the budgets.

    With --trials, --minutes or --storage a study chooses what is trained, by what came before: networks outside the
    budgets are never trained, and curves below the median are stopped. Machines with the same command and --storage
    share it; what a killed one was training is begun again, and the same command later goes on.
    """
    from convoxel.graph.threads import limit_threads
    from convoxel.search import Budget, find

    check_figure("plot", plot)
    asked = {"trials": trials, "minutes": minutes, "storage": storage, "study": study, "output": output,
             "resume": resume or None, "sampler": None if sampler == "tpe" else sampler}  # fmt: skip
    stated = [name for name, value in asked.items() if value is not None]
    if stated and data is None:
        raise ConfigError(f"{stated[0]}: given without --data; expected both, since trials are trained.")
    if resume and storage is None:
        raise ConfigError("resume: given without --storage; expected both. Only there is something to go on with.")
    budget = Budget(
        max_params=parse_amount("max-parameters", max_parameters),
        max_macs=parse_amount("max-macs", max_macs),
        max_bytes=parse_amount("max-memory", max_memory),
        min_field=min_field,
        max_time_s=None if max_ms is None else max_ms / 1e3,
    )
    goals = {**dict.fromkeys(split_words([low]), "low"), **dict.fromkeys(split_words([high]), "high")}
    if stated and data is not None:
        from convoxel.search.find import plan_space
        from convoxel.search.trained_search import search_trained

        with limit_threads(threads), Counter("training") as counter:
            found = search_trained(
                plan_space(network, parse_shape(shape), parse_values(vary), parse_options(assign)),
                data, budget=budget, goals=goals, epochs=epochs, threads=threads, settings={"device": device},
                study=study, storage=storage, sampler=sampler, trials=trials, minutes=minutes, resume=resume,
                output=output, seed=seed, on_progress=counter,
            )  # fmt: skip
        return _show(found, plot, json)
    with limit_threads(threads), Counter() as counter:
        found = find(
            network,
            parse_shape(shape),
            vary=parse_values(vary),
            fixed=parse_options(assign),
            budget=budget,
            goals=goals,
            most=most,
            seed=seed,
            timed=timed,
            on_progress=lambda word, done, total, what: counter(done, total, what, word),
        )
    if data is not None:
        trained = train_variants(
            data, network, found.front_options, epochs=epochs, seed=seed, threads=threads, device=device
        )
        found = found.with_quality([row.quality for row in trained.rows])
    _show(found, plot, json)


def _show(found: Findings, plot: Path | None, json: bool) -> None:
    """Print what was found, as a table or as JSON, and draw it."""
    if plot is not None:
        from convoxel.draw.search_chart import search_front

        search_front(found).save(plot)
    if json:
        return emit({**found.to_dict(), "figure": plot})
    screen = Screen()
    _print(screen, found)
    if plot is not None:
        screen.say(f"Figure: {plot}")


def _print(screen: Screen, found: Findings) -> None:
    from convoxel.draw.quantity import count

    space, best = found.space, found.best
    timed = any(each.time_s is not None for each in found.front)
    headings = "|network|input|>parameters|>MACs|>memory, bytes|>field"
    headings += ("|>ms" if timed else "") + ("|>quality" if found.trained else "")
    inside = f"{len(found.inside)} inside {found.budget.text() or 'no budget'}"
    screen.say(f"{space.network}, {found.measured} of {len(space)} combinations counted: {inside}", "bold")
    if found.study is not None:
        stopped = sum(row.stopped for row in found.study.trained)
        trained = plural(len(found.study.trained), "network")
        screen.say(
            f"Study {found.study.name}: {trained} trained, {found.study.own} of these here, {stopped} stopped early; "
            f"{found.study.outside} outside the budgets, not trained."
        )
        for fault in found.study.failed:
            screen.say(f"Failed: {fault}")
    if not found.inside:
        return screen.say("Nothing is trained yet; others may be at it, and the same command goes on.")
    shown = found.inside[:_ROWS]
    rows = (
        (
            "●" if place < len(found.front) else "", each.name, times(each.shape), f"{each.params:,}", count(each.macs),
            count(each.memory_bytes), times(sorted(set(each.field))) or "–",
            *([milliseconds(each.time_s)] if timed else []), *([number(each.quality, 3)] if found.trained else []),
        )
        for place, each in enumerate(shown)
    )  # fmt: skip
    screen.table(headings, rows)
    goals = ", ".join(f"{name} {way}" for name, way in found.goals.items())
    screen.say(f"● {len(found.front)} that no other one beats ({goals}).")
    if len(shown) < len(found.inside):
        screen.say(f"{len(found.inside) - len(shown)} more are inside; --json lists them.")
    if not found.complete and found.study is None:
        screen.say(f"The networks are a sample with the seed {found.seed}; --most counts more of them.")
    if found.refused:
        screen.say(f"{found.refused} combinations are no network for this input.")
    options = [f"--set={key}={value}" for key, value in {**best.fixed, **best.options}.items() if key != "size"]
    words = command_line("convoxel", "describe", space.network, "--shape", ",".join(map(str, best.shape)), *options)
    screen.say(f"{'Best' if found.trained else 'Largest'} of them: {words}")
