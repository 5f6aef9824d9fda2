"""``convoxel scale``: a network made wider, deeper and finer by rule: what each costs, and what each learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.amount import parse_numbers
from convoxel.cli.network import parse_options, parse_shape
from convoxel.cli.progress import Counter
from convoxel.cli.screen import console, duration, emit, limit_threads, number, say, table
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.predict.run_progress import Progress
    from convoxel.search import Candidate, Scale
    from convoxel.train.scaling_study import ScalingStudy

__all__ = ["check_plot", "scale", "train_scales"]


def scale(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A name of `convoxel models`.")],
    width: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on all channels, one at a time.")] = None,
    depth: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on all numbers of blocks.")] = None,
    resolution: Annotated[str | None, typer.Option(metavar="F,F", help="Factors on the image's size.")] = None,
    compound: Annotated[
        str | None, typer.Option(metavar="PHI,PHI", help="All three together: 1.1^phi, 1.2^phi and 1.15^phi.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option at every scale, such as stem=small.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; else a usual one.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR|NAME", help="Train each alike on this data, such as digits.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, with --data.")] = 10,
    seed: Annotated[int, typer.Option(help="Of each training.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw quality against scale: .svg, .png or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what a network costs when it is made wider, deeper, finer, or all at once; with data also what it learns.

    With --data each is trained for the same epochs with the same seed. Images keep their size then, so --resolution
    is refused and --compound scales width and depth only.
    """
    from convoxel.search.scale import scaled_options, scales

    screen = console(json)
    check_plot(plot)
    if plot is not None and data is None:
        raise ConfigError("plot: given without --data; expected both, since quality is drawn. Add --data digits.")
    if data is not None and (resolution is not None or shape is not None):
        wrong = "resolution" if resolution is not None else "shape"
        raise ConfigError(f"{wrong}: given with --data, whose images keep their size. Leave --{wrong} out.")
    factors = _factors(network, width, depth, resolution, compound, fixed_size=data is not None)
    sizes = None if shape is None else parse_shape(shape)
    fixed = parse_options(assign or [])
    if data is None:
        rows = scales(network, sizes, factors, fixed=fixed)
        if json:
            emit({"network": network, "scales": [{**f._asdict(), **row.to_dict()} for f, row in _pairs(factors, rows)]})
            return
        _print_costs(screen, network, _pairs(factors, rows))
        return
    options = [{**scaled_options(network, factor, (1, 1, 1)), **fixed} for factor in factors]
    study = train_scales(data, network, options, epochs=epochs, seed=seed, threads=threads)
    if plot is not None:
        from convoxel.draw.scaling_chart import scaling

        scaling(study).save(plot)
    if json:
        emit({**study.to_dict(), "figure": plot})
        return
    _print_quality(screen, study, epochs)
    if plot is not None:
        say(screen, f"Figure: {plot}")


def check_plot(plot: Path | None) -> None:
    """Refuse a figure that could not be written, before anything is computed for it."""
    if plot is None:
        return
    if plot.suffix.lower() not in (".svg", ".png", ".html"):
        raise ConfigError(f"plot: {plot.name!r} ends in {plot.suffix!r}; expected .svg, .png or .html.")
    if not plot.absolute().parent.is_dir():
        raise ConfigError(f"plot: the folder of {plot} is not there. Create it first, or give another --plot.")


def train_scales(
    data: str,
    network: str,
    options: Sequence[Mapping[str, Any]],
    *,
    epochs: int,
    seed: int,
    threads: int | None,
) -> ScalingStudy:
    """Return the networks trained, with a counter on stderr."""
    from convoxel.train.scaling_study import study_scaling

    with limit_threads(threads), Counter("training") as counter:

        def tell(place: int, name: str, progress: Progress) -> None:
            # In hundredths of a network, for the counter to move.
            counter(100 * place + round(100 * progress.fraction), 100 * len(options), name)

        return study_scaling(data, network, options, epochs=epochs, seed=seed, threads=threads, on_progress=tell)


def _factors(
    network: str, width: str | None, depth: str | None, resolution: str | None, phis: str | None, *, fixed_size: bool
) -> list[Scale]:
    """Return the scales that were asked for, each once; a usual row of widths if none was."""
    from convoxel.search.scale import Scale, compound

    found = [Scale(width=value) for value in parse_numbers(width, "width")]
    found += [Scale(depth=value) for value in parse_numbers(depth, "depth")]
    found += [Scale(resolution=value) for value in parse_numbers(resolution, "resolution")]
    together = [compound(phi) for phi in parse_numbers(phis, "compound")]
    found += [factor._replace(resolution=1.0) if fixed_size else factor for factor in together]
    for factor in found:
        for name, value in factor._asdict().items():
            if not 0 < value <= 1000:
                raise ConfigError(f"{name}: got {value:g}; expected a factor above 0 and up to 1000, such as 0.5.")
    return list(dict.fromkeys(found)) or [Scale(width=value) for value in (0.25, 0.5, 1.0)]


def _pairs(factors: Sequence[Scale], rows: Sequence[Candidate]) -> list[tuple[Scale, Candidate]]:
    return list(zip(factors, rows, strict=True))


def _print_costs(screen: Any, network: str, pairs: Sequence[tuple[Scale, Candidate]]) -> None:
    from convoxel.draw.quantity import count

    cells = [
        (
            *(f"{value:.3g}" for value in factor),
            "×".join(map(str, row.shape)),
            f"{row.params:,}",
            count(row.macs),
            count(row.memory_bytes),
            "×".join(map(str, sorted(set(row.field)))) or "–",
        )
        for factor, row in pairs
    ]
    say(screen, f"{network}, scaled:", "bold")
    screen.print(table(">width|>depth|>resolution|input|>parameters|>MACs|>memory, bytes|>field", cells))


def _print_quality(screen: Any, study: ScalingStudy, epochs: int) -> None:
    from convoxel.draw.quantity import count

    cells = [
        (row.name, "×".join(map(str, row.shape)), f"{row.params:,}", count(row.macs), number(row.quality, 3),
         duration(row.train_s))
        for row in study.rows
    ]  # fmt: skip
    say(screen, f"{study.network} on {study.data}, {epochs} epochs each:", "bold")
    screen.print(table(f"scale|input|>parameters|>MACs|>{study.metric_name}|>trained", cells))
