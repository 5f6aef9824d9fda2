"""Networks of the zoo and trained runs side by side: cost, receptive field, time on our engine, and quality."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convoxel import models
from convoxel.bench.clock import interleave
from convoxel.bench.run_quality import compare_quality
from convoxel.draw.comparison_chart import Contender, Quality
from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject
from convoxel.graph.threads import limit_threads
from convoxel.inspect import Summary
from convoxel.lookup import NamedNetwork, find_network, is_run

# The common options of all networks, beside their own.
_COMMON = frozenset({"dims", "in_channels", "num_classes"})


@dataclass(frozen=True)
class _Chosen:
    """A network, the word that named it, and the name to show."""

    word: str
    network: NamedNetwork
    label: str

    @property
    def trained(self) -> bool:
        return self.word not in models.names()


def compare_networks(
    words: Sequence[str],
    *,
    levels: Sequence[int] = (),
    shape: tuple[int, ...] | None = None,
    options: Mapping[str, object] | None = None,
    timed: bool = True,
    threads: int | None = None,
    data: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> list[Contender]:
    """Return what each network costs, sees and takes, and the quality of those that were trained.

    Args:
        words: names of the zoo and folders of runs.
        levels: numbers of poolings; each U-Net is compared with all of them.
        shape: input of all networks (default: those that ``describe`` shows, a run's own patch).
        options: options of those networks of the zoo that have them.
        timed: whether to measure the time of a run on our engine.
        threads: number of CPU threads (default: all).
        data: other labelled images to measure all runs on (default: each run's closing evaluation counts).
        metrics: names of the metrics to measure there (default: those that cost nothing beside the prediction).
        on_step: called with what is done next.

    Raises:
        ConfigError: a word is no network or comes twice, no network has one of the options, or there are metrics
            without data, or data without a run.
        DataError: the data do not fit a run.
    """
    if metrics is not None and data is None:
        raise ConfigError(
            "metrics: given without data; expected both. Give the labelled images to measure the runs on."
        )
    if data is not None and not any(map(is_run, words)):
        raise ConfigError(
            f"data: given, but none of {', '.join(words)} is a run. Leave it out, or add folders of runs."
        )
    chosen = _choose(words, levels, shape, dict(options or {}), timed)
    summaries = [each.network.describe() for each in chosen]  # says which sizes fit
    with limit_threads(threads):
        times: Sequence[float | None] = _measure(chosen, threads, on_step) if timed else [None] * len(chosen)
        if data is not None:
            on_step(f"Measuring the runs on {data} …")
        folders = [each.word if is_run(each.word) else None for each in chosen]
        qualities = compare_quality(folders, data, metrics)
    return [_contender(*each) for each in zip(chosen, summaries, times, qualities, strict=True)]


def _choose(
    words: Sequence[str], levels: Sequence[int], shape: tuple[int, ...] | None, options: JsonObject, weights: bool
) -> list[_Chosen]:
    """Return each network with the options that it has, once for each number of levels."""
    shapes = () if shape is None else (shape,)
    used: set[str] = set()
    chosen = []
    runs = [word for word in words if word not in models.names()]
    labels = dict(zip(runs, distinct_names(runs), strict=True))
    repeated = next((word for word in words if words.count(word) > 1), None)
    if repeated is not None:
        raise ConfigError(f"compare: {repeated} comes twice. Name each network once.")
    for word in words:
        if word in labels:
            network = find_network(word, shapes, weights=weights)
            label = f"{labels[word]} ({network.name.partition(' of ')[0]})"
            chosen.append(_Chosen(word, network, label))
            continue
        known = _COMMON | models.entry(word).options.keys()
        suited = {name: value for name, value in options.items() if name in known}
        used.update(suited)
        variants: list[JsonObject] = [{"levels": count} for count in levels] if "levels" in known else []
        used.update(*variants)
        for variant in variants or [{}]:
            given = {**suited, **variant}
            label = " ".join([word, *(f"{name}={value}" for name, value in given.items())])
            network = find_network(word, shapes, given, weights=weights)
            chosen.append(_Chosen(word, dataclasses.replace(network, name=label), label))
    unused = next((f"{name}={value}" for name, value in options.items() if name not in used), None)
    if unused is not None:
        raise ConfigError(f"set: {unused!r} given, but none of {', '.join(words)} has that option. Leave it out.")
    if levels and "levels" not in used:
        raise ConfigError(f"levels: given, but none of {', '.join(words)} has levels. Leave it out, or add unet.")
    return chosen


def distinct_names(folders: Sequence[str]) -> list[str]:
    """Return the shortest ends of the folders' paths that tell them apart.

    Raises:
        ConfigError: one folder comes twice.

    >>> distinct_names(["/data/unet/run", "/data/vgg/run", "/data/other"])
    ['unet/run', 'vgg/run', 'other']
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    for index, own in enumerate(parts):
        if own in parts[:index]:
            raise ConfigError(f"compare: {folders[index]} comes twice. Name each network once.")
    names = []
    for own in parts:
        length = 1
        while sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append(str(Path(*own[-length:])))
    return names


def _measure(chosen: Sequence[_Chosen], threads: int | None, tell: Callable[[str], None]) -> list[float]:
    """Return the median time of each network; they take turns, so that whatever else runs meets all alike."""
    import numpy as np
    import torch

    from convoxel.graph.compile import compile as compile_model

    runs: dict[int, Callable[[], object]] = {}
    for number, each in enumerate(chosen):
        tell(f"Compiling {each.label} …")
        x = np.random.default_rng(0).standard_normal(each.network.shape, np.float32)
        program = compile_model(each.network.module, torch.from_numpy(x), threads=threads)
        runs[number] = functools.partial(program, x)
    times = interleave(runs)
    return [times[number]["median_s"] for number in runs]


def _contender(each: _Chosen, summary: Summary, latency_s: float | None, quality: Quality | None) -> Contender:
    """Return a row: the costs in ``summary``, and the quality of a run."""
    return Contender(
        name=each.label,
        shape=each.network.shape,
        params=summary.params,
        macs=summary.macs,
        field=summary.field.size if summary.field else (),
        whole=bool(summary.field and any(summary.field.whole)),
        latency_s=latency_s,
        quality=quality,
        run=each.word if is_run(each.word) else None,
    )
