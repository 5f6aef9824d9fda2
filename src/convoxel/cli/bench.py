"""``convoxel bench``: layers and networks against other engines, the register tile against the ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import Algorithm, Json, command
from convoxel.cli.parsing import parse_sizes, split_words
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, emit, percent, plural
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.bench.layer_bench import LayerResult
    from convoxel.bench.network_bench import NetworkResult
    from convoxel.bench.summary_table import Mean, Summary

app = typer.Typer(no_args_is_help=True, help="Measure speed beside other engines; needs an idle machine.",
                  epilog="Example: convoxel bench layers --nets vgg16")  # fmt: skip

Dims = Annotated[str | None, typer.Option(help="Numbers of spatial axes, such as 3 or 1,3 (default: all).")]
Rounds = Annotated[int, typer.Option(min=1, help="Timed runs of each contender.")]
Results = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures and the machine.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.svg|png", help="Draw the ratios as bars.")]
BenchThreads = Annotated[int | None, typer.Option("--threads", min=1, help="Number of CPU threads (default: all).")]

_SHORT = {
    "convoxel": "ours", "pytorch": "torch", "pytorch-cl": "torch-cl", "torch.compile": "compiled", "onnxruntime": "ort",
    "openvino": "ov", "openvino-installed": "ov-inst", "openvino-streams": "ov-str", "openvino-int8": "ov-int8",
    "openvino-installed-streams": "ov-inst-str", "onnxruntime-int8": "ort-int8", "pytorch-bf16": "torch-bf16",
    "torch.compile-bf16": "compiled-bf16",
}  # fmt: skip
_LAYER_HEADING = (
    f"{'layer':<46}{'GFLOP':>8} {'algorithm':<13}{'GFLOP/s':>8}{'ceiling':>8}{'ratio':>8}  {'best peer':<10}"
    f"{'error':>8}{'scratch':>9}  ms"
)
_NETWORK_HEADING = (
    f"{'network':<26}{'precision':<10}{'batch':>5}{'threads':>8}{'GFLOP':>8}{'ours':>9}{'ceiling':>8}{'ratio':>8}"
    f"{'default':>8}  {'best peer':<12}{'error':>6}{'MiB':>6}{'least':>7}{'compile':>8}  ms"
)


@command(app, "convoxel bench layers --nets vgg16,unet3d --json layers.json --plot layers.png")
def layers(
    more: Annotated[list[str] | None, typer.Argument(metavar="NET", help="Same as --nets.")] = None,
    nets: Annotated[
        list[str] | None, typer.Option(help="Nets whose layers are measured, separated by commas (default: all).")
    ] = None,
    dims: Dims = None,
    all_lines: Annotated[bool, typer.Option("--all", help="Measure every layer of the list, not the short list.")] = (
        False
    ),
    algorithms: Annotated[bool, typer.Option("--algorithms", help="Measure every algorithm of ours, too.")] = False,
    threads: BenchThreads = None,
    rounds: Rounds = 9,
    json: Results = None,
    plot: Plot = None,
    file: Annotated[Path | None, typer.Option(metavar="LIST", help="Another list of layers.")] = None,
) -> None:
    """Measure single convolutions beside PyTorch, ONNX Runtime and OpenVINO, in turn in one process.

    A ratio is our speed by the fastest peer's; ! marks what is below 1. Peers that are not installed are left out.
    """
    from convoxel.bench.peer import missing_peers, quieten_threads

    quieten_threads()
    from convoxel.bench.clock import write_json
    from convoxel.bench.layer_bench import measure_layer
    from convoxel.bench.layer_list import LIST, read_layers, select_layers
    from convoxel.bench.summary_table import summarise
    from convoxel.native import default_threads

    chosen = select_layers(
        read_layers(file or LIST), split_words([*(nets or []), *(more or [])]), _dims(dims), all_lines
    )
    _check_targets(json, plot)
    count, absent, screen = threads or default_threads(), missing_peers(), Screen()
    _name_missing(absent)
    screen.say(_LAYER_HEADING)
    results: list[LayerResult] = []
    with Counter("measuring") as counter:
        for done, layer in enumerate(chosen):
            counter(done, len(chosen), str(layer))
            results.append(measure_layer(layer, count, rounds, algorithms))
            screen.say(_layer_line(results[-1]))
    summary = summarise(results)
    _print_summary(screen, summary, count)
    if json is not None:
        rows = [result.to_dict() for result in results]
        write_json(rows, json, threads=count, rounds=rounds, missing=absent, summary=summary.to_dict())
    if plot is not None:
        from convoxel.bench.plot import plot_results

        ceiling = f"ceiling {summary.ceiling / 1e9:.0f} GFLOP/s"
        plot_results(results, plot, f"{_machine()}, {plural(count, 'thread')}, {ceiling}")


@command(app, "convoxel bench networks resnet50 'unet*' --precisions float32,bfloat16 --batch 1,8 --work bench-work")
def networks(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Networks; * and ? stand for letters. Same as --nets.")
    ] = None,
    nets: Annotated[list[str] | None, typer.Option(help="Networks, separated by commas (default: the short list).")] = (
        None
    ),
    dims: Dims = None,
    every: Annotated[bool, typer.Option("--all", help="Measure every network, not the short list.")] = False,
    precisions: Annotated[
        str, typer.Option(help="Precisions of ours: float32, high, bfloat16, int8, separated by commas.")
    ] = "float32",
    peers: Annotated[
        str | None,
        typer.Option(
            help="Other engines, such as onnxruntime,openvino,openvino-installed,openvino-streams,pytorch,pytorch-cl,"
            "pytorch-bf16,torch.compile, or all (default: the fast ones of the same precisions)."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Numbers of images in the input, such as 1,8.")] = "1",
    threads: Annotated[str | None, typer.Option(help="Numbers of CPU threads, such as 1,2 (default: all).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed turns of each engine.")] = 5,
    turn: Annotated[float, typer.Option(min=0.001, help="Seconds of back-to-back calls in a turn.")] = 0.4,
    tune: Annotated[bool, typer.Option("--tune", help="Let ours measure its algorithms first.")] = False,
    algorithm: Algorithm = "auto",
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep every measurement and the peers' files here; run it again to go on from them."
        ),
    ] = None,
    json: Results = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write the tables in Markdown.")] = None,
    plot: Plot = None,
) -> None:
    """Measure whole networks at each precision beside PyTorch, ONNX Runtime and OpenVINO, each in its own process.

    Engines take turns of back-to-back calls, and the median turn counts. A ratio is our speed by that of the fastest
    peer of the same precision, the next one by that of the fastest peer as users get it; ! marks what is below 1.
    Memory is the most that the engine's process held, beyond the imported engine. Peers that are not installed are
    left out; those that fail, or whose error is not of their precision, are named and do not count.
    """
    from convoxel.bench.peer import quieten_threads

    quieten_threads()
    from convoxel.bench.clock import write_json
    from convoxel.bench.network_bench import missing_engines
    from convoxel.bench.network_list import select_networks
    from convoxel.bench.network_run import Plan, describe_run, measure_networks
    from convoxel.bench.network_table import write_tables
    from convoxel.bench.summary_table import geometric_means
    from convoxel.files.atomic import write_text
    from convoxel.native import default_threads

    plan = Plan(
        networks=select_networks(split_words([*(nets or []), *(more or [])]), _dims(dims), every),
        batches=parse_sizes("batch", batch),
        threads=parse_sizes("threads", threads or str(default_threads())),
        precisions=split_words([precisions]),
        peers=None if peers is None else split_words([peers]),
        rounds=rounds,
        turn_s=turn,
        tune=tune,
        algorithm=algorithm,
    )
    absent, screen = missing_engines(plan.engines), Screen()
    _check_targets(json, plot, markdown)
    _name_missing(absent)
    machine = describe_run(max(plan.threads))
    screen.say(_NETWORK_HEADING)
    results: list[NetworkResult] = []
    with Counter("measuring") as counter:
        for found in measure_networks(plan, work, counter):
            results += found
            for line in _network_lines(found):
                screen.say(line)
            if json is not None:  # what was measured is kept, should the next one be interrupted
                rows = [result.to_dict() for result in results]
                write_json(rows, json, rounds=rounds, turn_s=turn, tune=tune, missing=absent, run=machine)
            if markdown is not None:
                write_text(markdown, write_tables(results, machine))
    means = geometric_means([(result.group, result) for result in results])
    screen.say()
    screen.table("speed by the best peer's|>geometric mean|>smallest|>networks", _mean_rows(means))
    if plot is not None:
        from convoxel.bench.plot import plot_results

        plot_results(results, plot, f"Whole networks: speed by the fastest of the other engines. {_machine()}")


@command(app, "convoxel bench tile --json")
def tile(
    threads: BenchThreads = None,
    isa: Annotated[str | None, typer.Option(help="Instruction set of `convoxel info` (default: the best).")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each product.")] = 15,
    json: Json = False,
) -> None:
    """Measure matrix products M×K×N against the ceiling of fused multiply-adds, in turn."""
    from convoxel.bench.register_tile import PRODUCTS, measure_product, report_tiles
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
        return emit(report_tiles(results))
    screen = Screen()
    screen.say(f"{chosen}, {plural(count, 'thread')}, median of {rounds}", "bold")
    rows = (
        (f"{r.m}×{r.k}×{r.n}", f"{r.flops / 1e9:.1f}", f"{r.ceiling / 1e9:.1f}", percent(r.share, 1),
         f"{100 * r.share_min:.0f} … {percent(r.share_max)}")
        for r in results
    )  # fmt: skip
    screen.table("M×K×N|>GFLOP/s|>ceiling|>share|>spread", rows)


def _dims(text: str | None) -> tuple[int, ...]:
    return () if text is None else parse_sizes("dims", text, 1, 3)


def _check_targets(json: Path | None, plot: Path | None, markdown: Path | None = None) -> None:
    """Refuse files that could not be written, before minutes of measuring."""
    for path in (json, plot, markdown):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}; make it first.")
    if plot is not None:
        from convoxel.bench.plot import check_plot

        check_plot(plot)


def _name_missing(absent: Sequence[str]) -> None:
    if absent:
        Screen(json=True).say(f"convoxel: note: without {', '.join(absent)}, which are not installed.")


def _machine() -> str:
    from convoxel.native import build_info

    build = build_info()
    return f"Convoxel {build['version']}, {build['processor']}, {build['instruction_set']}"


def _layer_line(result: LayerResult) -> str:
    layer, scratch = result.layer, f"{result.workspace_share:.2f}x"
    speed = f"{result.flops / 1e9:8.0f}{percent(result.ceiling_share):>8}{_ratio(result.ratio):>8}"
    return (
        f"{layer!s:<46}{layer.gflop:8.3f} {result.algorithm:<13}{speed}  {_best(result)}{result.l2_error:8.0e}"
        f"{scratch:>9}  {_times(result, result.times)}"
    )


def _network_lines(results: Sequence[NetworkResult]) -> list[str]:
    """Return the row of each precision, and one line more for each engine that failed."""
    lines = []
    for result in results:
        head = f"{result.label:<26}{result.precision:<10}{result.batch:>5}{result.threads:>8}"
        if not result.ran:
            lines.append(f"{head}{'failed':>17}")
            continue
        own, least = (size / 2**20 for size in (result.own_peak_bytes, result.least_peak_bytes))
        speed = f"{result.gflop:8.2f}{1e3 * result.time_s:7.2f}ms{percent(result.ceiling_share):>8}"
        ratios = f"{_ratio(result.ratio):>8}{_ratio(result.default_ratio):>8}  {_best(result):<12}"
        memory = f"{result.own.l2_error:6.0e}{own:6.0f}{least:7.0f}{result.own.compile_s:6.1f} s"
        lines.append(f"{head}{speed}{ratios}{memory}  {_times(result, result.peers)}")
    failed = {name: reason for result in results for name, reason in result.failed.items()}
    return [*lines, *(f"  {_SHORT.get(name, name)} failed: {reason}" for name, reason in failed.items())]


def _ratio(ratio: float | None) -> str:
    return "  –     " if ratio is None else f"{ratio:6.2f}x" + ("!" if ratio < 1 else " ")


def _best(result: LayerResult | NetworkResult) -> str:
    return f"{_SHORT.get(result.best_peer or '', '–'):<10}"


def _times(result: LayerResult | NetworkResult, names: Iterable[str]) -> str:
    return "  ".join(f"{_SHORT.get(name, name)} {1e3 * result.times[name]['median_s']:.3g}" for name in names)


def _mean_rows(means: Iterable[Mean]) -> list[tuple[object, ...]]:
    return [(mean.name, f"{mean.ratio:.2f}×", f"{mean.smallest:.2f}×", mean.count) for mean in means]


def _print_summary(screen: Screen, summary: Summary, threads: int) -> None:
    screen.say()
    if summary.nets:
        for name, means in (("net", summary.nets), ("kind", summary.kinds)):
            screen.table(f"{name}|>geometric mean|>smallest|>layers", _mean_rows(means))
            screen.say()
    screen.say(
        f"Ceiling {summary.ceiling / 1e9:.0f} GFLOP/s on {plural(threads, 'thread')}; largest error "
        f"{summary.largest_error:.1e}; scratch memory at most {summary.largest_workspace_share:.2f}× the largest of "
        "input, output and weights."
    )
    if summary.slower:
        screen.say(f"A peer was faster in {plural(len(summary.slower), 'layer')}:")
        for result in summary.slower:
            screen.say(f"  {result.ratio:.2f}×  {result.layer}  ({result.algorithm}; {result.best_peer})")
