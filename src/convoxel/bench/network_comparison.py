"""Networks of the zoo and trained runs side by side: cost, receptive field, time on our engine, and quality."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoxel import models
from convoxel.bench.clock import interleave
from convoxel.draw.comparison_chart import Contender
from convoxel.draw.quantity import number as finite
from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject
from convoxel.graph.threads import limit_threads
from convoxel.inspect import Summary
from convoxel.lookup import NamedNetwork, find_network, is_run
from convoxel.report.run_contents import mapping, read_run

# The common options of all networks, beside their own.
_COMMON = frozenset({"dims", "in_channels", "num_classes"})


@dataclass(frozen=True)
class _Chosen:
    """A network, and the word that named it."""

    word: str
    network: NamedNetwork

    @property
    def trained(self) -> bool:
        return self.word not in models.names()

    @property
    def label(self) -> str:
        """The name to show; a run is called by its folder, with its network in brackets."""
        if not self.trained:
            return self.network.name
        return f"{Path(self.word).resolve().name} ({self.network.name.partition(' of ')[0]})"


def compare_networks(
    words: Sequence[str],
    *,
    levels: Sequence[int] = (),
    shape: tuple[int, ...] | None = None,
    options: Mapping[str, object] | None = None,
    timed: bool = True,
    threads: int | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> list[Contender]:
    """Return what each network costs, sees and takes, and the quality of those that were trained.

    Args:
        words: names of the zoo and folders of runs.
        levels: numbers of poolings; each U-Net is compared with all of them.
        shape: input of all networks (default: usual ones; runs get one that suits all of them, if there is one).
        options: options of those networks of the zoo that have them.
        timed: whether to measure the time of a run on our engine.
        threads: number of CPU threads (default: all).
        on_step: called with what is done next.

    Raises:
        ConfigError: a word is no network, or no network has one of the options.
    """
    chosen = _choose(words, levels, shape, dict(options or {}), timed)
    if shape is None:
        chosen = _align(chosen)
    summaries = [each.network.describe() for each in chosen]  # says which sizes fit
    with limit_threads(threads):
        times: Sequence[float | None] = _measure(chosen, threads, on_step) if timed else [None] * len(chosen)
    return [_contender(*each) for each in zip(chosen, summaries, times, strict=True)]


def _choose(
    words: Sequence[str], levels: Sequence[int], shape: tuple[int, ...] | None, options: JsonObject, weights: bool
) -> list[_Chosen]:
    """Return each network with the options that it has, once for each number of levels."""
    shapes = () if shape is None else (shape,)
    used: set[str] = set()
    chosen = []
    for word in words:
        if word not in models.names():
            chosen.append(_Chosen(word, find_network(word, shapes, weights=weights)))
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
            chosen.append(_Chosen(word, dataclasses.replace(network, name=label)))
    unused = next((f"{name}={value}" for name, value in options.items() if name not in used), None)
    if unused is not None:
        raise ConfigError(f"set: {unused!r} given, but none of {', '.join(words)} has that option. Leave it out.")
    if levels and "levels" not in used:
        raise ConfigError(f"levels: given, but none of {', '.join(words)} has levels. Leave it out, or add unet.")
    return chosen


def _align(chosen: list[_Chosen]) -> list[_Chosen]:
    """Give runs one input, so that costs compare: the smallest that holds each one's patch and that all take."""
    runs = [each.network for each in chosen if each.trained]
    if len({(*run.shape[:2], len(run.shape)) for run in runs}) != 1:
        return chosen
    sizes = [max(axis) for axis in zip(*(run.shape[2:] for run in runs), strict=True)]
    # Each network may ask for more, which the others must take in turn; networks that never agree keep their own.
    for _ in range(8):
        wanted = [max(max(_nearest(run, size, axis)) for run in runs) for axis, size in enumerate(sizes)]
        if wanted == sizes:
            shapes = ((*runs[0].shape[:2], *sizes),)
            return [
                dataclasses.replace(each, network=dataclasses.replace(each.network, shapes=shapes))
                if each.trained
                else each
                for each in chosen
            ]
        sizes = wanted
    return chosen


def _nearest(run: NamedNetwork, size: int, axis: int) -> tuple[int, ...]:
    network: Any = run.module  # every network of the zoo has the method
    sizes: tuple[int, ...] = network.nearest_sizes(size, axis)
    return sizes


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


def _contender(each: _Chosen, summary: Summary, latency_s: float | None) -> Contender:
    """Return a row: the costs in ``summary``, and what the run's folder tells."""
    found: JsonObject = {}
    if is_run(each.word):
        run = read_run(each.word)
        metric, steps = finite(run.evaluation.get("metric")), finite(run.last.get("step"))
        found = {
            "metric_name": "accuracy" if run.task == "classify" else "Dice",
            "metric": metric if metric is not None else finite(run.best_row.get("metric")),
            "per_class": mapping(run.evaluation.get("per_class")),
            "train_s": finite(run.last.get("elapsed_s")),
            "steps": None if steps is None else int(steps),
        }
    return Contender(
        name=each.label,
        shape=each.network.shape,
        params=summary.params,
        macs=summary.macs,
        field=summary.field.size if summary.field else (),
        whole=bool(summary.field and any(summary.field.whole)),
        latency_s=latency_s,
        **found,
    )
