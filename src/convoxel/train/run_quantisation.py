"""Trained runs on whole numbers of 8 bits: ranges from their own images, and the loss of their own task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from convoxel.data import DataSet, Sample
from convoxel.errors import ConfigError, DataError
from convoxel.graph.quantise import Progress, quantise
from convoxel.graph.run.program import Program
from convoxel.predict.compiled_network import CompiledNetwork, compile_run, keep_quantised
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import Predictor, build_predictor
from convoxel.predict.metrics import metric_name
from convoxel.predict.network_call import Array, compiled_call
from convoxel.train.run_evaluation import load_part
from convoxel.train.run_folder import load_model

_MOST_INPUTS = 16  # that ranges are observed on, from all images alike


def quantise_run(
    run_dir: str | Path,
    source: str | Path | None = None,
    *,
    split: str | None = None,
    which: str = "best",
    images: int = 8,
    max_loss: float = 0.005,
    method: str = "auto",
    only_faster: bool = True,
    output: str | Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[Program, Path | None]:
    """Return a run's network on whole numbers of 8 bits, and the file that it is kept in.

    ``predict`` and ``evaluate`` take the kept program for ``precision="int8"``.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        source: labelled images, as of :func:`convoxel.train.evaluate` (default: the run's own).
        split: the part on which the loss is measured, as of :func:`convoxel.train.evaluate`.
        which: checkpoint, "best" or "last" (default "best").
        images: number of images that ranges are taken from, of the training part where there is one (default 8).
        max_loss, method, only_faster, on_progress: as of :func:`convoxel.quantise`; the figure is the run's metric.
        output: ``.cvx`` file to save the program in as well (default: none).

    Raises:
        AccuracyError: the loss stays above ``max_loss``.
        ConfigError: an argument is out of range, or the data have no image whose figure can be taken.
        CheckpointError: the folder is no run. DataError: the data do not fit the run.
    """
    if images < 1:
        raise ConfigError(f"images: got {images}; expected at least 1.")
    run = load_model(run_dir, which)
    dataset, split = load_part(run, run_dir, source, split)
    samples = dataset.split(split)
    network = compile_run(run, "float32")
    predictor = build_predictor(run, engine="convoxel", precision="float32", mirror="none")
    inputs = _record_inputs(predictor, network, _spread(dataset, split, images))

    def measure(program: Program) -> float:
        figure = evaluate_samples(_computing(predictor, compiled_call(program)), samples).metrics()["metric"]
        if figure is None:
            raise DataError(f"data: no image of {dataset.name} ({split}) has a class that can be measured.")
        return float(figure)

    program = quantise(
        network.program,
        inputs,
        measure=measure,
        metric=metric_name(run.config.task, run.data.multi_label),
        max_loss=max_loss,
        method=method,
        only_faster=only_faster,
        on_progress=on_progress,
    )
    kept = keep_quantised(run, CompiledNetwork(program, network.sizes))
    if output is not None:
        program.save(output)
    return program, kept


def _spread(dataset: DataSet, split: str, count: int) -> list[Sample]:
    """Return images from all over the training part, or the part to be measured where there is none."""
    part = dataset.train if len(dataset.train) else dataset.split(split)
    places = np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int))
    return [part[int(place)] for place in places]


def _computing(predictor: Predictor, call: Callable[[Array], Array]) -> Predictor:
    """Return the predictor with another function in the place of its network."""
    (member,) = predictor.members
    return replace(predictor, members=(replace(member, call=call),))


def _record_inputs(predictor: Predictor, network: CompiledNetwork, samples: list[Sample]) -> list[Array]:
    """Return inputs that the network sees as it predicts images, evenly over images and tiles."""
    call, seen = compiled_call(network.program), list[Array]()

    def record(images: Array) -> Array:
        seen.append(np.array(images[:1]))
        return call(images)

    recording = _computing(predictor, record)
    chosen: list[Array] = []
    for sample in samples:
        seen.clear()
        if predictor.run.config.task == "segment":
            for _ in recording.slabs(sample):
                pass
        else:
            recording.class_logits([sample])
        each = max(1, _MOST_INPUTS // len(samples))
        places = np.unique(np.linspace(0, len(seen) - 1, min(each, len(seen))).round().astype(int))
        chosen += [seen[int(place)] for place in places]
    return chosen
