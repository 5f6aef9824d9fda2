"""``convoxel compare``: networks of the zoo and trained runs side by side: cost, field, speed, quality; and studies."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from convoxel.cli.network import Choice, choose_network, parse_options
from convoxel.cli.screen import console, duration, emit, limit_threads, number, say, table
from convoxel.cli.sharing import sharing
from convoxel.cli.upsampling import upsampling
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from convoxel.draw.comparison_chart import Contender
    from convoxel.inspect import Summary

__all__ = ["app"]

# Each network runs at least so often, and until all together have run so long.
_ROUNDS, _MEASURE_S = 5, 2.0


class _Commands(typer.core.TyperGroup):
    """Words that are no command of this group are networks: `convoxel compare unet resnet18`."""

    default = "networks"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if not args or args[0] in known else [self.default, *args])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    help="Compare networks and runs, or ways to build a layer. Names of networks and folders of runs need no command: "
    "`convoxel compare unet resnet18 --json` is `convoxel compare networks unet resnet18 --json`.",
    epilog="Example: convoxel compare unet --levels 3 4 5 --output levels",
)
app.command(epilog="Example: convoxel compare upsampling --dims 3 --output upsampling.png")(upsampling)
app.command(epilog="Example: convoxel compare sharing --samples 60 --output sharing.png")(sharing)


@app.command(epilog="Example: convoxel compare networks unet --levels 3 4 5 --output levels")
def networks(
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL|RUN", help="Names of `convoxel models`, folders of runs, or both.")
    ],
    levels: Annotated[
        str | None, typer.Option(metavar="N …", help="U-Nets with each of these numbers of poolings: --levels 3 4 5.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Input for all, as n,channels,*sizes; else usual ones.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of those networks that have it.")
    ] = None,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Measure how long a run takes on our engine.")] = True,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Also draw a figure: FILE.svg and FILE.png.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compare networks: parameters, multiply-adds, receptive field and time; of trained runs also their quality."""
    from convoxel.inspect import describe

    screen = console(json)
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"output: the folder of {output} is not there. Create it first, or give another --output.")
    zoo, counts = _split(names, levels)
    chosen = _choose(zoo, counts, shape, assign or [], weights=timed)
    summaries = [describe(choice.model, choice.shape) for _, choice in chosen]  # says which sizes fit
    with limit_threads(threads):
        seconds: list[float] | list[None] = _measure(chosen, threads, screen) if timed else [None] * len(chosen)
    rows = [
        _contender(target, choice, summary, latency_s)
        for (target, choice), summary, latency_s in zip(chosen, summaries, seconds, strict=True)
    ]
    files: tuple[Path, ...] = ()
    if output is not None:
        from convoxel.draw.comparison_chart import save_comparison

        files = save_comparison(rows, output)
    if json:
        emit({"networks": [dataclasses.asdict(row) for row in rows], "figure": list(files)})
        return
    _print(screen, rows)
    if files:
        say(screen, f"Figure: {files[0]} and {files[1].name}")


def _split(networks: list[str], levels: str | None) -> tuple[list[str], list[int]]:
    """Return names and numbers of levels; `--levels 3 4 5` leaves 4 and 5 among the names."""
    if levels is None:
        return networks, []
    names = [name for name in networks if not name.isdigit()]
    words = [*levels.replace(",", " ").split(), *(name for name in networks if name.isdigit())]
    if not all(word.isdigit() for word in words) or not words:
        raise ConfigError(f"levels: got {levels!r}; expected whole numbers, such as --levels 3 4 5.")
    if not names:
        raise ConfigError("compare: no network given. For example: convoxel compare unet --levels 3 4 5")
    return names, [int(word) for word in words]


def _choose(
    names: list[str], levels: list[int], shape: str | None, assign: list[str], weights: bool
) -> list[tuple[str, Choice]]:
    """Return each network with what was asked for; runs get an input that suits all of them, if there is one."""
    from convoxel import models

    used: set[str] = set()
    chosen = []
    for target in names:
        zoo = target in models.names()
        known = ({"dims", "in_channels", "num_classes"} | models.entry(target).options.keys()) if zoo else set()
        suited = [text for text in assign if text.partition("=")[0].strip() in known]
        used.update(suited)
        variants = [[f"levels={count}"] for count in levels] if "levels" in known and levels else [[]]
        used.update("levels" for _ in variants if levels and "levels" in known)
        for extra in variants:
            choice = choose_network(target, shape, [*suited, *extra] if zoo else None, weights=weights)
            label = " ".join([target, *suited, *extra])
            chosen.append((target, choice._replace(name=label if zoo else _label(target, choice.name))))
    unused = [text for text in assign if text not in used]
    if unused:
        parse_options(unused)
        raise ConfigError(f"set: {unused[0]!r} given, but none of {', '.join(names)} has that option. Leave it out.")
    if levels and "levels" not in used:
        raise ConfigError(f"levels: given, but none of {', '.join(names)} has levels. Leave --levels out, or add unet.")
    return chosen if shape is not None else _align(chosen)


def _label(target: str, name: str) -> str:
    """A run is called by its folder, with its network in brackets."""
    return f"{Path(target).resolve().name} ({name.partition(' of ')[0]})"


def _align(chosen: list[tuple[str, Choice]]) -> list[tuple[str, Choice]]:
    """Give runs one input, so that costs compare: the smallest that holds each one's patch and that all take."""
    from convoxel import models

    runs = [choice for target, choice in chosen if target not in models.names()]
    if len({(*choice.shape[:2], len(choice.shape)) for choice in runs}) != 1:
        return chosen
    sizes = [max(axis) for axis in zip(*(choice.shape[2:] for choice in runs), strict=True)]
    # Each network may ask for more, which the others must take in turn; networks that never agree keep their own.
    for _ in range(8):
        wanted = [
            max(max(choice.model.nearest_sizes(size, axis)) for choice in runs) for axis, size in enumerate(sizes)
        ]
        if wanted == sizes:
            shape = (*runs[0].shape[:2], *sizes)
            return [(t, choice if t in models.names() else choice._replace(shape=shape)) for t, choice in chosen]
        sizes = wanted
    return chosen


def _measure(chosen: list[tuple[str, Choice]], threads: int | None, screen: Console) -> list[float]:
    """Return the median time of each network; they take turns, so that whatever else runs meets all alike."""
    import numpy as np
    import torch

    from convoxel.graph.compile import compile as compile_model

    programs: list[tuple[Any, Any]] = []
    times: list[list[float]] = [[] for _ in chosen]
    for _, choice in chosen:
        say(screen, f"Compiling {choice.name} …", "dim")
        x = np.random.default_rng(0).standard_normal(choice.shape, np.float32)
        program = compile_model(choice.model, torch.from_numpy(x), threads=threads)
        program(x)
        programs.append((program, x))
    begun = time.perf_counter()
    while len(times[0]) < _ROUNDS or time.perf_counter() - begun < _MEASURE_S:
        for (program, x), taken in zip(programs, times, strict=True):
            start = time.perf_counter()
            program(x)
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def _contender(target: str, choice: Choice, summary: Summary, latency_s: float | None) -> Contender:
    """Return a row: the costs in ``summary``, and what the run's folder tells."""
    from convoxel.draw.comparison_chart import Contender
    from convoxel.draw.folder import mapping, read_run
    from convoxel.draw.quantity import number as finite

    found: dict[str, Any] = {}
    if (Path(target) / "checkpoints").is_dir():
        run = read_run(target)
        steps, seconds = finite(run.last.get("step")), finite(run.last.get("elapsed_s"))
        metric = finite(run.evaluation.get("metric"))
        found = {
            "metric_name": "accuracy" if run.task == "classify" else "Dice",
            "metric": metric if metric is not None else finite(run.best_row.get("metric")),
            "per_class": mapping(run.evaluation.get("per_class")),
            "train_s": seconds,
            "steps": None if steps is None else int(steps),
        }
    return Contender(
        name=choice.name,
        shape=choice.shape,
        params=summary.params,
        macs=summary.macs,
        field=summary.field.size if summary.field else (),
        whole=bool(summary.field and any(summary.field.whole)),
        latency_s=latency_s,
        **found,
    )


def _print(screen: Console, rows: list[Contender]) -> None:
    from convoxel.draw.quantity import count

    metric = next((row.metric_name for row in rows if row.metric_name), "")
    classes = list(dict.fromkeys(name for row in rows for name in row.per_class))
    classes = classes if 1 < len(classes) <= 4 else []
    timed = any(row.latency_s is not None for row in rows)
    headings = "network|input|>parameters|>MACs|receptive field"
    headings += ("|>ms" if timed else "") + (f"|>{metric}|>trained" if metric else "")
    headings += "".join(f"|>{name}" for name in classes)
    cells = []
    for row in rows:
        line: list[Any] = [row.name, "×".join(map(str, row.shape)), f"{row.params:,}", count(row.macs), row.sight]
        if timed:
            line.append(number(None if row.latency_s is None else 1e3 * row.latency_s, 2))
        if metric:
            line += [number(row.metric), duration(row.train_s)]
        cells.append((*line, *(number(row.per_class.get(name)) for name in classes)))
    screen.print(table(headings, cells))
