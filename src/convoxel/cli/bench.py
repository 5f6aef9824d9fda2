"""``convoxel bench``: layers and networks against other engines, the register tile against the ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.progress import Counter
from convoxel.cli.screen import console, emit, say, table
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.bench.layer_bench import LayerResult
    from convoxel.bench.network_bench import NetworkResult
    from convoxel.bench.summary_table import Mean, Summary

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure speed beside other engines; wants an idle machine.",
                  epilog="Example: convoxel bench layers --nets vgg16")  # fmt: skip

_Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (all).")]
_SHORT = {
    "convoxel": "ours", "pytorch": "torch", "pytorch-cl": "torch-cl", "torch.compile": "compiled", "onnxruntime": "ort",
    "openvino": "ov",
}  # fmt: skip


@app.command(epilog="Example: convoxel bench layers --nets vgg16,unet3d --json layers.json --plot layers.png")
def layers(
    more: Annotated[list[str] | None, typer.Argument(metavar="NET", help="The same as --nets.")] = None,
    nets: Annotated[list[str] | None, typer.Option(help="Only these nets' layers, separated by commas.")] = None,
    dims: Annotated[str | None, typer.Option(help="Only layers of so many axes, such as 3 or 1,3.")] = None,
    all_lines: Annotated[bool, typer.Option("--all", help="Every layer of the list, not the short list.")] = False,
    algorithms: Annotated[bool, typer.Option("--algorithms", help="Every algorithm of ours, too.")] = False,
    threads: _Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each contender.")] = 9,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures and the machine.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw the ratios as bars.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="LIST", help="Another list of layers.")] = None,
) -> None:
    """Measure single convolutions beside PyTorch, ONNX Runtime and OpenVINO, in turn in one process.

    A ratio is our speed by the fastest peer's; ! marks what is below 1. Peers that are not installed are left out.
    """
    from convoxel.bench.peer import missing_peers, quieten_threads

    quieten_threads()
    from convoxel.bench.clock import write_json
    from convoxel.bench.layer import LIST, read_layers, select_layers
    from convoxel.bench.layer_bench import measure_layer
    from convoxel.bench.summary_table import summarise
    from convoxel.native import default_threads

    chosen = select_layers(read_layers(file or LIST), _words([*(nets or []), *(more or [])]), _dims(dims), all_lines)
    _check_targets(json, plot)
    count = threads or default_threads()
    screen, absent = console(), missing_peers()
    if absent:
        say(console(json=True), f"convoxel: note: without {', '.join(absent)}, which are not installed.")
    say(screen, _heading())
    results: list[LayerResult] = []
    with Counter("measuring") as counter:
        for done, layer in enumerate(chosen):
            counter(done, len(chosen), str(layer))
            results.append(measure_layer(layer, count, rounds, algorithms))
            say(screen, _line(results[-1]))
    summary = summarise(results)
    _print_summary(summary, count)
    if json is not None:
        rows = [result.to_dict() for result in results]
        write_json(rows, json, threads=count, rounds=rounds, missing=absent, summary=summary.to_dict())
    if plot is not None:
        from convoxel.bench.plot import plot_results

        plot_results(results, plot, f"{_machine()}, {count} threads, ceiling {summary.ceiling / 1e9:.0f} GFLOP/s")


@app.command(epilog="Example: convoxel bench networks resnet50 'unet*' --batch 1,8 --threads 1,2 --json networks.json")
def networks(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these networks; * and ?.")] = None,
    dims: Annotated[str | None, typer.Option(help="Only networks of so many axes, such as 3 or 1,3.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every network, not the short list.")] = False,
    batch: Annotated[str, typer.Option(help="Images in the input, such as 1,8.")] = "1",
    threads: Annotated[str | None, typer.Option(help="CPU threads, such as 1,2 (all).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each contender.")] = 7,
    tune: Annotated[bool, typer.Option("--tune", help="Ours measures its algorithms first.")] = False,
    algorithm: Annotated[str, typer.Option(help="Of our convolutions: auto, fast, direct, ….")] = "auto",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures and the machine.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw the ratios as bars.")] = None,
) -> None:
    """Measure whole networks beside PyTorch (three ways), ONNX Runtime and OpenVINO, in turn, each in its own process.

    A ratio is our speed by the fastest peer's; ! marks what is below 1. Memory is the most that the engine's process
    held, beyond the imported engine. Peers that are not installed are left out; those that fail are named.
    """
    from convoxel.bench.peer import quieten_threads

    quieten_threads()
    from convoxel.bench.clock import write_json
    from convoxel.bench.network import select_networks
    from convoxel.bench.network_bench import measure_network, missing_engines
    from convoxel.bench.summary_table import geometric_means
    from convoxel.native import default_threads

    chosen = select_networks(_words(names or []), _dims(dims), every)
    batches, counts = _numbers("batch", batch), _numbers("threads", threads or str(default_threads()))
    _check_targets(json, plot)
    screen, absent = console(), missing_engines()
    if absent:
        say(console(json=True), f"convoxel: note: without {', '.join(absent)}, which are not installed.")
    say(screen, _NETWORK_HEADING)
    results: list[NetworkResult] = []
    plans = [(network, b, count) for count in counts for b in batches for network in chosen]
    with Counter("measuring") as counter:
        for network, b, count in plans:
            done = len(results)

            def show(step: str, done: int = done, what: str = f"{network.name}, batch {b}") -> None:
                counter(done, len(plans), f"{what}: {step}")

            results.append(measure_network(network, b, count, rounds, tune, algorithm, on_step=show))
            for line in _network_lines(results[-1]):
                say(screen, line)
            if json is not None:  # whatever was measured is kept, should the next one be interrupted
                write_json(
                    [result.to_dict() for result in results],
                    json,
                    rounds=rounds,
                    tune=tune,
                    algorithm=algorithm,
                    missing=absent,
                )
    means = geometric_means([(group, result) for result in results for group in ("all", result.group)])
    say(screen)
    rows = [(mean.name, f"{mean.ratio:.2f}×", f"{mean.smallest:.2f}×", mean.count) for mean in means]
    screen.print(table("speed by the best peer's|>geometric mean|>smallest|>networks", rows))
    if plot is not None:
        from convoxel.bench.plot import plot_results

        plot_results(results, plot, f"Whole networks: speed by the fastest of the other engines. {_machine()}")


_NETWORK_HEADING = (
    f"{'network':<26}{'batch':>5}{'threads':>8}{'GFLOP':>8}{'ours':>9}{'ceiling':>8}{'ratio':>8}  {'best peer':<10}"
    f"{'MiB':>6}{'least':>7}{'compile':>8}  ms"
)


def _network_lines(result: NetworkResult) -> list[str]:
    """The row, and one line more for each engine that failed."""
    head = f"{result.label:<26}{result.batch:>5}{result.threads:>8}{result.gflop:8.2f}"
    failures = [f"  {_SHORT.get(name, name)} failed: {reason}" for name, reason in result.failed.items()]
    if "convoxel" not in result.times:
        return [f"{head}{'failed':>9}", *failures]
    ratio = result.ratio
    mark = "  –     " if ratio is None else f"{ratio:6.2f}x" + ("!" if ratio < 1 else " ")
    peaks = {name: result.peak_bytes[name] / 2**20 for name in result.times}
    least = min((peaks[name] for name in result.peers), default=0.0)
    times = "  ".join(f"{_SHORT.get(name, name)} {1e3 * result.times[name]['median_s']:.3g}" for name in result.peers)
    speed = f"{1e3 * result.time_s:7.2f}ms{100 * result.flops / result.ceiling:6.0f} %{mark:>8}"
    best = f"  {_SHORT.get(result.best_peer or '', '–'):<10}"
    return [f"{head}{speed}{best}{peaks['convoxel']:6.0f}{least:7.0f}{result.compile_s:6.1f} s  {times}", *failures]


def _words(given: list[str]) -> list[str]:
    return [name for words in given for name in words.split(",") if name]


def _dims(dims: str | None) -> list[int]:
    words = (dims or "").replace(",", " ").split()
    if not set(words) <= {"1", "2", "3"}:
        raise ConfigError(f"dims: got {dims!r}; expected 1, 2 or 3, or several separated by commas.")
    return [int(word) for word in words]


def _numbers(name: str, text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not words or not all(word.isdigit() and int(word) for word in words):
        raise ConfigError(f"{name}: got {text!r}; expected a number from 1 up, or several separated by commas.")
    return [int(word) for word in words]


def _check_targets(json: Path | None, plot: Path | None) -> None:
    """Refuse files that could not be written, before minutes of measuring."""
    for path in (json, plot):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}; make it first.")
    if plot is not None:
        from convoxel.bench.plot import check_plot

        check_plot(plot)


def _machine() -> str:
    from convoxel.native import build_info

    build = build_info()
    return f"Convoxel {build['version']}, {build['processor']}, {build['instruction_set']}"


def _heading() -> str:
    return (
        f"{'layer':<46}{'GFLOP':>8} {'algorithm':<13}{'GFLOP/s':>8}{'ceiling':>8}{'ratio':>8}  {'best peer':<10}"
        f"{'error':>8}{'scratch':>9}  ms"
    )


def _line(result: LayerResult) -> str:
    ratio, layer = result.ratio, result.layer
    mark = "  –     " if ratio is None else f"{ratio:6.2f}x" + ("!" if ratio < 1 else " ")
    share = f"{100 * result.flops / result.ceiling:.0f} %"
    scratch = f"{result.workspace_bytes / result.largest_bytes:.2f}x"
    times = "  ".join(f"{_SHORT.get(name, name)} {1e3 * t['median_s']:.3g}" for name, t in result.times.items())
    return (
        f"{layer!s:<46}{layer.gflop:8.3f} {result.algorithm:<13}{result.flops / 1e9:8.0f}{share:>8}{mark:>8}"
        f"  {_SHORT.get(result.best_peer or '', '–'):<10}{result.l2_error:8.0e}{scratch:>9}  {times}"
    )


def _print_summary(summary: Summary, threads: int) -> None:
    screen = console()
    headings = "|>geometric mean|>smallest|>layers"

    def rows(means: tuple[Mean, ...]) -> list[tuple[Any, ...]]:
        return [(mean.name, f"{mean.ratio:.2f}×", f"{mean.smallest:.2f}×", mean.count) for mean in means]

    say(screen)
    if summary.nets:
        screen.print(table("net" + headings, rows(summary.nets)))
        say(screen)
        screen.print(table("kind" + headings, rows(summary.kinds)))
        say(screen)
    say(
        screen,
        f"Ceiling {summary.ceiling / 1e9:.0f} GFLOP/s on {threads} thread{'' if threads == 1 else 's'}; largest error "
        f"{summary.largest_error:.1e}; scratch memory at most {summary.largest_workspace_share:.2f}× the largest of "
        "input, output and weights.",
    )
    if summary.slower:
        say(screen, f"A peer was faster in {len(summary.slower)} layers:")
        for result in summary.slower:
            say(screen, f"  {result.ratio:.2f}×  {result.layer}  ({result.algorithm}; {result.best_peer})")


@app.command(epilog="Example: convoxel bench tile --json")
def tile(
    threads: _Threads = None,
    isa: Annotated[str | None, typer.Option(help="Instruction set; `convoxel info` lists them (the best).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each product.")] = 15,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Measure matrix products M×K×N against the ceiling of fused multiply-adds, in turn."""
    import dataclasses

    from convoxel.bench.clock import describe_machine
    from convoxel.bench.tile import PRODUCTS, measure_product
    from convoxel.native import default_threads, instruction_set, instruction_sets

    count, chosen = threads or default_threads(), isa or instruction_set()
    if chosen not in instruction_sets():
        raise ConfigError(f"isa: got {chosen!r}; this processor offers {', '.join(instruction_sets())}.")
    results = []
    with Counter("measuring") as counter:
        for done, (m, k, n) in enumerate(PRODUCTS):
            counter(done, len(PRODUCTS), f"{m}×{k}×{n}")
            results.append(measure_product(m, k, n, count, chosen, rounds))
    if json:
        emit({"machine": describe_machine(), "rows": [dataclasses.asdict(result) for result in results]})
        return
    screen = console()
    say(screen, f"{chosen}, {count} thread{'' if count == 1 else 's'}, median of {rounds}", "bold")
    cells = [
        (f"{r.m}×{r.k}×{r.n}", f"{r.flops / 1e9:.1f}", f"{r.ceiling / 1e9:.1f}", f"{100 * r.share:.1f} %",
         f"{100 * r.share_min:.0f} … {100 * r.share_max:.0f} %")
        for r in results
    ]  # fmt: skip
    screen.print(table("M×K×N|>GFLOP/s|>ceiling|>share|>spread", cells))
