"""Measured networks as tables in Markdown: times and ratios, errors and memory, and efficiency of threads."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from convoxel.bench.comparison import OURS
from convoxel.bench.engine import ENGINES, peer_class
from convoxel.bench.network_bench import Measurement, NetworkResult
from convoxel.files.values import JsonObject

Ratio = Callable[[NetworkResult], float | None]


def write_tables(results: Sequence[NetworkResult], machine: JsonObject) -> str:
    """Return the tables of all results in Markdown, with the machine beneath them.

    Args:
        results: results of any networks, precisions, batches and numbers of threads.
        machine: what ``network_run.describe_run`` returned.
    """
    groups: dict[tuple[int, int], list[NetworkResult]] = {}
    for result in results:
        groups.setdefault((result.threads, result.batch), []).append(result)
    parts = [part for (threads, batch), group in groups.items() for part in _group_parts(threads, batch, group)]
    counts = sorted({result.threads for result in results})
    if len(counts) > 1:
        parts += _efficiency(results, counts)
    return "\n\n".join([*parts, *_notes(results, machine)]) + "\n"


def _group_parts(threads: int, batch: int, group: Sequence[NetworkResult]) -> Iterator[str]:
    heading = f"batch {batch}, {threads} thread{'' if threads == 1 else 's'}"
    networks, engines = _networks(group), _engines(group)
    precisions = list(dict.fromkeys(result.precision for result in group))
    columns: list[tuple[str, str, Ratio]] = [
        *((f"{p} / {peer_class(p)} peers", p, lambda result: result.ratio) for p in precisions),
        *((f"{p} / installed", p, lambda result: result.default_ratio) for p in precisions),
    ]
    rows = []
    for name, measured in networks.items():
        own = {result.precision: result for result in group if result.network.name == name}
        cells = [_milliseconds(measured.get(engine)) for engine in engines]
        rows.append([name, *cells, *(_times(ratio(own[p])) if p in own else "–" for _, p, ratio in columns)])
    means, least = ["geometric mean"] + [""] * len(engines), ["least"] + [""] * len(engines)
    for _, precision, ratio in columns:
        found = [(ratio(result), result.network.name) for result in group if result.precision == precision]
        known = [(value, name) for value, name in found if value is not None]
        means.append(_times(statistics.geometric_mean(value for value, _ in known)) if known else "–")
        least.append(f"{_times(min(known)[0])} ({min(known)[1]})" if known else "–")
    yield (
        f"Milliseconds of one input, {heading}; speed by that of the fastest peer of the class, and of the fastest as "
        "installed, which sets nothing but the number of threads:"
    )
    yield _table(["network", *engines, *(title for title, _, _ in columns)], [*rows, means, least])
    yield f"Relative error against float64 and peak memory in MiB, {heading}:"
    rows = [[name, *(_cost(measured.get(engine)) for engine in engines)] for name, measured in networks.items()]
    yield _table(["network", *engines], rows)


def _efficiency(results: Sequence[NetworkResult], counts: Sequence[int]) -> Iterator[str]:
    """Yield the table of t₁ / (n · tₙ), the share of n threads that is used, in percent."""
    engines, times = _engines(results), {}
    for result in results:
        for engine, each in result.measured.items():
            if not each.failed:
                times[result.network.name, result.batch, engine, result.threads] = each.time["median_s"]
    rows = []
    for name, batch in dict.fromkeys((result.network.name, result.batch) for result in results):
        for count in counts[1:]:
            cells = []
            for engine in engines:
                one, many = (times.get((name, batch, engine, n)) for n in (counts[0], count))
                share = counts[0] * one / (count * many) if one and many else None
                cells.append("–" if share is None else f"{100 * share:.0f} %")
            rows.append([f"{name}, batch {batch}, {count}", *cells])
    yield f"Efficiency of threads: share of n times the speed on {counts[0]}:"
    yield _table(["network, batch, n", *engines], rows)


def _notes(results: Sequence[NetworkResult], machine: JsonObject) -> Iterator[str]:
    """Yield the machine, its limits and load, versions, spreads, and the engines that did not count."""
    measured = [each for result in results for each in result.measured.values()]
    counted = [each for each in measured if not each.failed]
    ceilings = [each.ceiling / 1e9 for each in measured]
    loads = [load for each in measured for load in each.load]
    bandwidth = machine["bandwidth_bytes_per_s"] / 1e9
    yield (
        f"{machine['processor']}, {machine['instruction_set']}; ceiling of fused multiply-adds in float32 "
        f"{min(ceilings):.0f} to {max(ceilings):.0f} GFLOP/s, memory {bandwidth:.0f} GB/s; "
        f"load {min(loads):.1f} to {max(loads):.1f}."
    )
    versions = {**machine["versions"]}
    inside = {f"oneDNN in {name}": version for name, version in versions.pop("oneDNN", {}).items()}
    yield ", ".join(f"{name} {version}" for name, version in {**versions, **inside}.items() if version) + "."
    if counted:
        widest = max(counted, key=lambda each: each.spread)
        yield (
            f"Median of {max(len(each.turns_s) for each in counted)} turns. Spread of a figure's turns, largest less "
            f"least by the median: {100 * statistics.median(each.spread for each in counted):.0f} % in the middle, "
            f"{100 * widest.spread:.0f} % at most ({widest.network}, {widest.engine})."
        )
    lost = dict.fromkeys(f"{e.network}, {e.engine}: {e.failed}" for e in measured if e.failed)
    if lost:
        yield "Not counted: " + "; ".join(lost) + "."


def _networks(group: Iterable[NetworkResult]) -> dict[str, dict[str, Measurement]]:
    return {result.network.name: dict(result.measured) for result in group}


def _engines(results: Iterable[NetworkResult]) -> list[str]:
    """Return the engines that were measured, ours first."""
    found = {engine for result in results for engine in result.measured}
    return sorted(found, key=lambda name: (not name.startswith(OURS), list(ENGINES).index(name)))


def _milliseconds(each: Measurement | None) -> str:
    return "–" if each is None or each.failed else f"{1e3 * each.time['median_s']:.3g}"


def _cost(each: Measurement | None) -> str:
    if each is None or each.l2_error is None:
        return "–"
    return f"{each.l2_error:.0e}" + ("" if each.failed else f"; {each.peak_bytes / 2**20:.0f}")


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
