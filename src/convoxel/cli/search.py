"""``convoxel search``: the networks of a family that lie inside every budget, and those that no other one beats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.amount import parse_amount, parse_values
from convoxel.cli.network import parse_options, parse_shape
from convoxel.cli.progress import Counter
from convoxel.cli.scale import check_plot, train_scales
from convoxel.cli.screen import command_line, console, emit, limit_threads, number, say, table

if TYPE_CHECKING:
    from convoxel.search import Candidate, Findings

__all__ = ["search"]

_ROWS = 24  # of the table; --json has all


def search(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A name of `convoxel models`.")],
    shape: Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; else a usual one.")] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=V,V", help="Values of an option, or of the image's size; else usual ones."),
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option that all networks have.")
    ] = None,
    max_parameters: Annotated[str | None, typer.Option(metavar="N", help="Most parameters, such as 1M.")] = None,
    max_macs: Annotated[str | None, typer.Option(metavar="N", help="Most multiply-accumulates, such as 100M.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Most memory of a run, such as 64MB: activations and weights.")
    ] = None,
    min_field: Annotated[int | None, typer.Option(min=1, help="Least receptive field, in pixels.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Most milliseconds of a run on our engine, measured here.")
    ] = None,
    low: Annotated[str, typer.Option(metavar="FIGURE,…", help="What shall be low: macs, params, memory, field.")] = (
        "macs"
    ),
    high: Annotated[str, typer.Option(metavar="FIGURE,…", help="What shall be high.")] = "params,field",
    most: Annotated[int, typer.Option(min=1, help="Networks to count; more combinations are sampled.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the sample and of training.")] = 0,
    timed: Annotated[bool, typer.Option("--time", help="Also time the best where --max-ms is not given.")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DIR|NAME", help="Train the best on this data, shortly, and compare quality.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, with --data.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw all inside the budgets: .svg, .png or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Search a family of networks for those inside every budget, and show which of them no other one beats.

    Networks are counted without being computed; only the best are timed or trained. Without data, parameters and
    receptive field stand for what a network can learn.
    """
    from convoxel.search import Budget, find

    screen = console(json)
    check_plot(plot)
    budget = Budget(
        max_params=parse_amount(max_parameters, "max-parameters"),
        max_macs=parse_amount(max_macs, "max-macs"),
        max_bytes=parse_amount(max_memory, "max-memory"),
        min_field=min_field,
        max_time_s=None if max_ms is None else max_ms / 1e3,
    )
    goals = {name.strip(): way for way, names in (("low", low), ("high", high)) for name in names.split(",") if name}
    with limit_threads(threads), _Words() as words:
        found = find(
            network,
            None if shape is None else parse_shape(shape),
            vary=parse_values(vary or []),
            fixed=parse_options(assign or []),
            budget=budget,
            goals=goals,
            most=most,
            seed=seed,
            timed=timed,
            on_progress=words,
        )
    if data is not None:
        found = _train(found, data, epochs, seed, threads)
    if plot is not None:
        _draw(found, plot)
    if json:
        emit({**found.to_dict(), "figure": plot})
        return
    _print(screen, found)
    if plot is not None:
        say(screen, f"Figure: {plot}")


class _Words:
    """Progress of a search: a counter for each thing that is done in turn."""

    def __init__(self) -> None:
        self._word = ""
        self._counter: Counter | None = None

    def __enter__(self) -> _Words:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)

    def __call__(self, word: str, done: int, total: int, what: str) -> None:
        if word != self._word or self._counter is None:
            self.__exit__()
            self._word, self._counter = word, Counter(word).__enter__()
        self._counter(done, total, what)


def _train(found: Findings, data: str, epochs: int, seed: int, threads: int | None) -> Findings:
    """Return the findings with the quality of each network on the front."""
    options = [{**each.fixed, **each.options} for each in found.front]
    study = train_scales(data, found.space.network, options, epochs=epochs, seed=seed, threads=threads)
    best = tuple(
        dataclasses.replace(each, quality=row.quality) for each, row in zip(found.front, study.rows, strict=True)
    )
    return dataclasses.replace(found, front=best, inside=(*best, *found.inside[len(best) :]))


def _draw(found: Findings, plot: Path) -> None:
    """Draw quality where it is known, else parameters, over multiply-accumulates."""
    from convoxel.draw.pareto_chart import Entry, pareto

    trained = [each for each in found.inside if each.quality is not None]
    shown = trained or found.inside
    # What all of them have says nothing about a point.
    alike = [name for name in found.space.vary if len({str(each.options[name]) for each in shown}) == 1]
    entries = []
    for index, each in enumerate(shown):
        told = " ".join(f"{name}={value}" for name, value in each.options.items() if name not in alike) or each.name
        grade = each.params if each.quality is None else each.quality
        entries.append(Entry(told, each.macs, grade, quiet=index >= len(found.front)))
    title = f"{len(shown)} networks inside the budgets: {found.space.network}"
    pareto(entries, x="multiply–adds", y="quality" if trained else "parameters", title=title).save(plot)


def _print(screen: Any, found: Findings) -> None:
    from convoxel.draw.quantity import count

    space = found.space
    timed = any(each.time_s is not None for each in found.front)
    trained = any(each.quality is not None for each in found.front)
    headings = "|network|input|>parameters|>MACs|>memory, bytes|>field"
    headings += ("|>ms" if timed else "") + ("|>quality" if trained else "")

    def cells(each: Candidate, mark: str) -> tuple[Any, ...]:
        line: list[Any] = [mark, each.name, "×".join(map(str, each.shape)), f"{each.params:,}", count(each.macs)]
        line += [count(each.memory_bytes), "×".join(map(str, sorted(set(each.field)))) or "–"]
        line += [number(None if each.time_s is None else 1e3 * each.time_s, 2)] if timed else []
        return (*line, *([number(each.quality, 3)] if trained else []))

    say(screen, f"{space.network}, {found.measured} of {len(space)} combinations counted: {len(found.inside)} inside "
                f"{found.budget.text() or 'no budget'}", "bold")  # fmt: skip
    shown = found.inside[:_ROWS]
    screen.print(table(headings, [cells(each, "●" if i < len(found.front) else "") for i, each in enumerate(shown)]))
    goals = ", ".join(f"{name} {way}" for name, way in found.goals.items())
    say(screen, f"● {len(found.front)} that no other one beats ({goals}).")
    if len(shown) < len(found.inside):
        say(screen, f"{len(found.inside) - len(shown)} more are inside; --json lists them.")
    if not found.complete:
        say(screen, f"The space is a sample of seed {found.seed}; --most counts more of it.")
    if found.refused:
        say(screen, f"{found.refused} combinations are no network for this input.")
    best = found.best
    options = [f"--set={key}={value}" for key, value in {**best.fixed, **best.options}.items() if key != "size"]
    words = command_line("convoxel", "describe", space.network, "--shape", ",".join(map(str, best.shape)), *options)
    say(screen, f"Largest of them: {words}" if not trained else f"Best of them: {words}")
