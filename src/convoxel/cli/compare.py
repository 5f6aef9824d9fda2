"""``convoxel compare``: networks of the zoo and trained runs side by side; ways to up-sample; ways to share weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from convoxel.cli.options import Assign, Json, Shape, Threads, Timed, check_figure, command
from convoxel.cli.parsing import parse_options, parse_shape, parse_sizes
from convoxel.cli.screen import Screen, duration, emit, milliseconds, number, times
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw.comparison_chart import Contender, Quality
    from convoxel.predict.case_statistics import Difference

# Input size along each axis, by the number of axes, with which ways to up-sample are compared.
_UPSAMPLED_SIZE = {1: 4096, 2: 64, 3: 24}


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

Figure = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Draw a figure into this .svg, .png or .html file too."),
]


@command(app, "convoxel compare networks unet --levels 3 4 5 --output levels")
def networks(
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL|RUN", help="Names of `convoxel models`, folders of runs, or both.")
    ],
    levels: Annotated[
        str | None, typer.Option(metavar="N …", help="Numbers of poolings of U-Nets to compare: --levels 3 4 5.")
    ] = None,
    shape: Shape = None,
    assign: Assign = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR|NAME", help="Measure all runs on these labelled images, and compare there."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Metrics to measure there, as of `convoxel evaluate`.")
    ] = None,
    timed: Timed = True,
    threads: Threads = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw a figure too: FILE.svg and FILE.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare networks: parameters, multiply-adds, receptive field and time; of trained runs also their quality."""
    from convoxel.bench.network_comparison import compare_networks

    screen = Screen(json)
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"output: the folder of {output} does not exist. Create it first, or give another --output.")
    words, counts = _split(names, levels)
    rows = compare_networks(
        words, levels=counts, shape=parse_shape(shape), options=parse_options(assign), timed=timed, threads=threads,
        data=data, metrics=metrics and metrics.split(","), on_step=lambda text: screen.say(text, "dim"),
    )  # fmt: skip
    files: tuple[Path, ...] = ()
    if output is not None:
        from convoxel.draw.comparison_chart import save_comparison

        files = save_comparison(rows, output)
    if json:
        return emit({"networks": [row.to_dict() for row in rows], "figure": files})
    _print_networks(screen, rows, measured=data is not None)
    if files:
        screen.say(f"Figure: {files[0]} and {files[1].name}")


def _split(words: list[str], levels: str | None) -> tuple[list[str], tuple[int, ...]]:
    """Return names and numbers of levels; `--levels 3 4 5` leaves 4 and 5 among the names."""
    if levels is None:
        return words, ()
    names = [word for word in words if not word.isdigit()]
    if not names:
        raise ConfigError("compare: no network given. For example: convoxel compare unet --levels 3 4 5")
    return names, parse_sizes("levels", ",".join([levels, *(word for word in words if word.isdigit())]))


def _print_networks(screen: Screen, rows: list[Contender], measured: bool) -> None:
    from convoxel.draw.comparison_chart import same_input
    from convoxel.draw.quantity import count

    timed, alike = any(row.latency_s is not None for row in rows), same_input(rows)
    headings = "network|input|>parameters|>MACs" + ("" if alike else "|>MACs a pixel") + "|receptive field"
    cells = (
        (
            row.name, times(row.shape), f"{row.params:,}", count(row.macs),
            *([] if alike else [count(row.macs_a_pixel)]), row.sight,
            *([milliseconds(row.latency_s)] if timed else []),
        )
        for row in rows
    )  # fmt: skip
    screen.table(headings + ("|>ms" if timed else ""), cells)
    trained = [row for row in rows if row.quality is not None]
    if trained:
        _print_quality(screen, trained, measured)


def _print_quality(screen: Screen, rows: list[Contender], measured: bool) -> None:
    """Print what trainings reached: each metric with its interval, the spread of images, the difference to the best."""
    from convoxel.draw.comparison_chart import basis

    found = [(row.name, row.quality) for row in rows if row.quality is not None]
    names = list(dict.fromkeys(quality.metric_name for _, quality in found))
    classes = list(dict.fromkeys(name for _, quality in found for name in quality.per_class))
    classes = classes if 1 < len(classes) <= 4 else []
    grouped, paired = any(quality.group for _, quality in found), any(quality.difference for _, quality in found)
    spread = any(quality.spread is not None and quality.metric_name == "Dice" for _, quality in found)
    headings = (
        "run" + ("|on" if grouped else "") + f"|>{' or '.join(names)}|interval" + ("|quartiles" if spread else "")
    )
    headings += ("|to the best, same images" if paired else "") + "".join(f"|>{name}" for name in classes) + "|>trained"
    cells = (
        (
            name, *([quality.group] if grouped else []), number(quality.metric),
            _range(quality.interval), *([_quartiles(quality)] if spread else []),
            *(["the best" if quality.best else _difference(quality.difference)] if paired else []),
            *(number(value if isinstance(value := quality.per_class.get(label), float) else None) for label in classes),
            "–" if quality.train_s is None else duration(quality.train_s),
        )
        for name, quality in found
    )  # fmt: skip
    screen.say()
    screen.table(headings, cells)
    for line in basis(rows):
        screen.say(line)
    _print_seeds(screen, rows)
    if measured:
        _print_metrics(screen, found)


def _print_seeds(screen: Screen, rows: list[Contender]) -> None:
    """Print which settings the runs differ in; where seeds alone differ, mean and deviation over these."""
    from convoxel.bench.seed_groups import group_seeds

    runs = {row.name: (row.run, row.quality.metric) for row in rows
            if row.run is not None and row.quality is not None and row.quality.metric is not None}  # fmt: skip
    if len(runs) < 2:
        return
    groups = group_seeds(runs)
    cells = (
        (", ".join(each.changed) or "the seed alone", len(each.runs), number(each.mean), number(each.deviation))
        for each in groups
    )
    screen.say()
    screen.table("what differs|>seeds|>mean|>± over seeds", cells)
    if all(each.deviation is None for each in groups):
        screen.say(
            "Train each with several seeds (--seed 1, --seed 2 …) and compare them all to tell effects from chance."
        )


def _print_metrics(screen: Screen, found: list[tuple[str, Quality]]) -> None:
    """Print every metric of every run, with the difference to the best run over the same images."""
    rows = [
        (
            f"{metric} ({each.unit})" if each.unit else metric, name, number(each.value), _range(each.interval),
            "the best" if quality.best else _difference(each.difference),
        )
        for metric in dict.fromkeys(metric for _, quality in found for metric in quality.measured)
        for name, quality in found
        if (each := quality.measured.get(metric)) is not None
    ]  # fmt: skip
    screen.say()
    screen.table("metric|run|>value|interval|to the best, same images", rows)


def _range(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} … {interval[1]:.3f}"


def _quartiles(quality: Quality) -> str:
    spread = quality.spread
    return "–" if spread is None or quality.metric_name != "Dice" else _range((spread.quartile_1, spread.quartile_3))


def _difference(difference: Difference | None) -> str:
    """Return a paired difference with its interval, effect and p-value."""
    if difference is None:
        return "–"
    interval, effect, p_value = difference.interval, difference.effect, difference.p_value
    shown = f"{difference.mean:+.3f}" + ("" if interval is None else f" ({interval[0]:+.3f} … {interval[1]:+.3f})")
    return shown if effect is None or p_value is None else f"{shown}, r {effect:+.2f}, p {p_value:.2g}"


@command(app, "convoxel compare upsampling --dims 3 --output upsampling.png")
def upsampling(
    dims: Annotated[int, typer.Option(min=1, max=3, help="Number of spatial axes.")] = 2,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the input and of the output.")] = 16,
    size: Annotated[
        int | None, typer.Option(min=1, help="Input size along each axis (default: 4096, 64 or 24 in 1-D to 3-D).")
    ] = None,
    scale: Annotated[int, typer.Option(min=2, help="Outputs for one input along each axis.")] = 2,
    starts: Annotated[int, typer.Option(min=1, help="Random starts over which the checkerboard is measured.")] = 16,
    timed: Timed = True,
    threads: Threads = None,
    output: Figure = None,
    json: Json = False,
) -> None:
    """Compare ways of up-sampling: how many products make each output, how strong a checkerboard is, what each costs.

    The checkerboard is the share of energy that alternates where a constant image should stay constant: with equal
    weights, which shows uneven overlap, and with weights that training starts from.
    """
    from convoxel.draw.quantity import count
    from convoxel.graph.threads import limit_threads
    from convoxel.inspect.upsampler import upsampling as measure
    from convoxel.nn.upsampling import upsamplers

    check_figure("output", output)
    shape = (1, channels, *(size or _UPSAMPLED_SIZE[dims],) * dims)
    with limit_threads(threads):
        rows = measure(upsamplers(dims, channels, channels, scale), shape, starts=starts, timed=timed)
    if output is not None:
        from convoxel.draw.upsampling_chart import upsampling as draw

        draw(rows).save(output)
    if json:
        return emit({"shape": shape, "ways": [row.to_dict() for row in rows], "figure": output})
    screen = Screen()
    screen.say(f"From {times(shape, ' × ')} to {scale} times as many along each axis:", "bold")
    cells = (
        (
            row.name, " or ".join(f"{value:g}" for value in sorted(set(row.overlaps))), number(row.checkerboard),
            number(row.checkerboard_start), f"{row.params:,}", count(row.macs), milliseconds(row.time_s, 3),
        )
        for row in rows
    )  # fmt: skip
    screen.table("way|>products an output|>checkerboard|>at the start|>parameters|>MACs|>ms", cells)
    if output is not None:
        screen.say(f"Figure: {output}")


@command(app, "convoxel compare sharing --samples 60 --output sharing.png")
def sharing(
    data: Annotated[str, typer.Option(metavar="DIR|NAME", help="Labelled images, as `convoxel data` names them.")] = (
        "digits"
    ),
    samples: Annotated[int, typer.Option(min=1, help="Samples to train on; few, for the prior to matter.")] = 100,
    kernel: Annotated[int, typer.Option(min=1, help="Kernel size along each axis.")] = 3,
    channels: Annotated[int, typer.Option(min=1, help="Output channels of the layer.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 100,
    starts: Annotated[int, typer.Option(min=1, help="Random starts over which accuracies are averaged.")] = 3,
    seed: Annotated[int, typer.Option(help="Random seed of the samples and of the first start.")] = 0,
    threads: Threads = None,
    output: Figure = None,
    json: Json = False,
) -> None:
    """Train a convolution, a locally and a fully connected layer on the same few samples, and compare them.

    They are the same map with ever weaker priors: parameters, non-zeros and multiplications grow, and so does the gap
    between known samples and new ones. A convolution also tolerates shifted images. The distance says how far a
    trained layer is from being a convolution.
    """
    from convoxel.data import load
    from convoxel.graph.threads import limit_threads
    from convoxel.train.sharing_study import read_arrays, study_sharing

    check_figure("output", output)
    dataset = load(data, "classify", seed=seed)
    train, test = read_arrays(dataset.train, samples, seed), read_arrays(dataset.validation)
    with limit_threads(threads):
        study = study_sharing(train, test, kernel=kernel, channels=channels, steps=steps, starts=starts, seed=seed)
    if output is not None:
        from convoxel.draw.sharing_chart import sharing as draw

        draw(study).save(output)
    if json:
        return emit({"data": dataset.name, **study.to_dict(), "figure": output})
    screen = Screen()
    screen.say(f"{dataset.name}: {study.samples} samples to train on, {len(test[0])} new ones:", "bold")
    rows = (
        (row.kind, f"{row.params:,}", f"{row.nonzeros:,}", f"{row.size_bytes:,}", f"{row.multiplications:,}",
         number(row.train_accuracy, 3), f"{number(row.test_accuracy, 3)} ± {number(row.test_deviation, 3)}",
         number(row.moved_accuracy, 3), number(row.gap, 3), number(row.distance, 3))
        for row in study.rows
    )  # fmt: skip
    headings = "layer|>parameters|>non-zeros|>bytes|>products|>trained|>new|>new, moved|>gap|>distance"
    screen.table(headings, rows)
    if output is not None:
        screen.say(f"Figure: {output}")
