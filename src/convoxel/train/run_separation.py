"""Separated convolutions in the network of a run: chosen by measurements, written as a run that can be trained on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from convoxel.data import DataSet, Split
from convoxel.data.split_file import write_split
from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import write_json, write_text
from convoxel.files.folder import whole_folder
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject
from convoxel.inspect import describe
from convoxel.inspect.rank import least_time, time_engine
from convoxel.nn.separation import Separation, separate, time_torch
from convoxel.nn.weight_constraint import decay_groups
from convoxel.predict.computation import Computation
from convoxel.predict.device import choose_device, synchronise
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import build_predictor, check_engine, place_run
from convoxel.predict.metrics import Metrics
from convoxel.train.batch_norm import set_mode
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.optimisation import learning_rate
from convoxel.train.run_folder import load_data, load_model
from convoxel.train.run_list import SPLIT
from convoxel.train.run_network import tensor_names
from convoxel.train.run_plan import RunPlan
from convoxel.train.training_batch import Batches
from convoxel.train.training_step import build_step_loss, compute_loss


@dataclass(frozen=True)
class RunSeparation:
    """A run's network with smaller convolutions.

    Attributes:
        separation: the network, and what was replaced.
        metric, loss: of the validation part before and after; None where only outputs were compared.
    """

    separation: Separation
    metric: tuple[float | None, float | None] | None = None
    loss: tuple[float, float] | None = None

    def to_dict(self) -> JsonObject:
        """Return everything but the network as JSON values."""
        return {**self.separation.to_dict(), "metric": self.metric, "loss": self.loss}


_CLOCKS = {"convoxel": time_engine, "torch": time_torch}
# Share of the largest learning rate of the run: the network has been trained already.
_TUNING_RATE = 0.1
# Held-out samples by whose loss ranks are chosen; the whole validation part judges what they make.
_JUDGED_SAMPLES = 4


def separate_run(
    run_dir: str | Path,
    *,
    max_error: float | None = None,
    max_accuracy_loss: float | None = None,
    max_loss: float | None = None,
    fine_tune: int = 0,
    batch: int | None = None,
    engine: str = "convoxel",
    goal: str = "time",
    which: str = "best",
    device: str = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> RunSeparation:
    """Return a run's network with convolutions replaced by smaller ones; see :func:`convoxel.nn.separate`.

    Output errors are measured on a batch of training samples; accuracy and the task's loss on the validation part, for
    the loss of each layer's ranks on patches of it. The choice depends on that part, so only another data set gives an
    unbiased accuracy of the result.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        max_error: largest relative change of the output (default None, no limit).
        max_accuracy_loss: largest decrease of the validation metric (default None, no limit).
        max_loss: largest rise of the loss on the validation part (default None, no limit).
        fine_tune: training steps after each trial, with ``max_accuracy_loss`` or ``max_loss`` (default 0).
        batch: samples that are timed and compared at once (default: the run's batch size).
        engine: engine that is timed, "convoxel" or "torch" (default "convoxel").
        goal: what has to fall, measured "time", "macs" or "params" (default "time").
        which: checkpoint, "best" or "last" (default "best").
        device: where PyTorch tunes and evaluates, and is timed if it is the engine: "auto", "cpu", "cuda", "cuda:1" …
            or "mps" (default "auto", a GPU where there is one).
        on_progress: called with one line of text for each step.

    Raises:
        CheckpointError: the folder is no run. DataError: its data cannot be read or differ. ConfigError: an
            argument is out of range, or the device is not here.
    """
    check_engine(engine)
    where = choose_device(device)
    way = Computation(where, channels_last=where.type == "cpu")
    for name, value, least in (("fine_tune", fine_tune, 0), ("batch", batch, 1)):
        if value is not None and value < least:
            raise ConfigError(f"{name}: got {value}; expected a whole number of at least {least}.")
    if fine_tune and max_accuracy_loss is None and max_loss is None:
        raise ConfigError(
            "fine_tune: given without max_accuracy_loss or max_loss; expected one of them. Errors are measured before "
            "it."
        )
    run = load_model(run_dir, which)
    dataset = run.data.rule.training_data(load_data(run.config, run=run_dir))
    if dataset.fingerprint != run.data.fingerprint:
        raise DataError(
            f"data: {dataset.name} is not what the run was trained on (its files differ); expected the same. "
            "Restore the files, or separate in Python with convoxel.nn.separate."
        )
    config = run.config if batch is None else run.config.override([f"batch_size={batch}"])
    batches = Batches(dataset.train, config, run.data)

    judged: list[tuple[nn.Module, Metrics]] = []

    def validate(candidate: nn.Module) -> Metrics:
        tried = replace(run, source=candidate)
        predictor = build_predictor(tried, engine="torch", computation=place_run(tried, "torch", device))
        found = evaluate_samples(predictor, dataset.validation).metrics()
        Computation().arrange(candidate, dataset.dims)  # what looks at its weights works on the CPU
        judged.append((candidate, found))
        return found

    def score(candidate: nn.Module) -> float:
        metric = validate(candidate)["metric"]
        if metric is None:
            raise DataError(
                f"data: no validation image of {dataset.name} has a class to be found; expected one at least, to tell "
                "what separating costs. Leave max_accuracy_loss out."
            )
        return metric

    def tune(candidate: nn.Module) -> None:
        way.arrange(candidate, dataset.dims)
        with way.settings(repeated=True):
            _fine_tune(candidate, run.config, batches, fine_tune, way)
        Computation().arrange(candidate, dataset.dims)

    def measure(module: nn.Module, shape: tuple[int, ...]) -> float:
        if engine == "torch" and where.type != "cpu":
            return _time_on(module, shape, where)
        return _CLOCKS[engine](module, shape)

    by_loss = max_loss is not None
    found = separate(
        run.network,
        batches.batch(0).images,
        max_error=max_error,
        max_accuracy_loss=max_accuracy_loss,
        max_loss=max_loss,
        loss=_held_out_loss(run.config, dataset, batches) if by_loss else None,
        score=(lambda net: -validate(net)["loss"]) if by_loss else None if max_accuracy_loss is None else score,
        fine_tune=tune if fine_tune else None,
        measure=measure,
        goal=goal,
        on_progress=on_progress,
    )
    if not judged:
        return RunSeparation(found)
    before = judged[0][1]  # of the network as it was
    after = next((metrics for network, metrics in judged if network is found.model), before)
    return RunSeparation(found, (before["metric"], after["metric"]), (before["loss"], after["loss"]))


def _held_out_loss(config: TrainConfig, dataset: DataSet, batches: Batches) -> Callable[[nn.Module], float]:
    """Return the function that gives a network's mean loss on a few patches or images of the validation part."""
    facts, entries = batches.facts, map(batches.facts.rule.entry, dataset.validation.entries)
    still = config.override(["augment=none"]).model_copy(update={"flip_axes": ()})
    held_out = Batches(Split(tuple(entries), dataset.validation.cache), still, facts)
    count = -(-_JUDGED_SAMPLES // (config.batch_size or 1))
    seen, criterion = [held_out.batch(number) for number in range(count)], build_step_loss(config, facts)

    @torch.no_grad()
    def loss(network: nn.Module) -> float:
        return sum(float(compute_loss(network, batch, criterion, Computation())) for batch in seen) / count

    return loss


def _time_on(module: nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
    """Return the seconds that a module takes on a GPU, the launch of its kernels included."""
    moved, x = copy.deepcopy(module).to(device), torch.randn(*shape).to(device)

    def call() -> None:
        moved(x)
        synchronise(device)

    with torch.inference_mode(), Computation(device).settings():
        return least_time(call, 7, 0.2)


def _fine_tune(model: nn.Module, config: TrainConfig, batches: Batches, steps: int, computation: Computation) -> None:
    """Train for ``steps`` as the run was trained, with a tenth of its learning rate."""
    criterion = build_step_loss(config, batches.facts)
    optimiser = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for step in range(steps):
            fraction = step / steps
            set_mode(model, fraction)
            for group in optimiser.param_groups:
                group["lr"] = _TUNING_RATE * learning_rate(config, fraction)
            loss = compute_loss(model, batches.batch(step).moved(computation), criterion, computation)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip or float("inf"))
            optimiser.step()
    model.eval()


def save_separated(
    made: RunSeparation,
    run_dir: str | Path,
    output: str | Path,
    *,
    which: str = "best",
    minutes: float | None = None,
    epochs: int | None = None,
) -> Path:
    """Write a separated network as a run into a new folder and return it.

    It predicts, evaluates, exports and compiles as other runs do. ``separation.json`` holds all figures. With
    ``minutes`` or ``epochs`` it is a run before its first step, which :func:`convoxel.train.fit` tunes with
    ``resume=True``: as the run was trained, with a tenth of its learning rate. The weights as they are stay the best
    ones until tuned ones are better on the validation part.

    Args:
        made: separation that :func:`separate_run` returned.
        run_dir: run that it came from.
        output: folder to write; it must be missing or empty.
        which: checkpoint that it came from, "best" or "last" (default "best").
        minutes, epochs: length of the tuning (default None: the run is complete).

    Raises:
        ConfigError: the folder is not empty or cannot be made, or both lengths are given. Nothing is left half-written.
        CheckpointError: the run is gone. DataError: its data cannot be read.
    """
    run, folder, found = load_model(run_dir, which), Path(output), made.separation
    tuned = minutes is not None or epochs is not None
    rows = [*(row.model_dump() for row in run.config.separated), *found.structure()]
    changes: JsonObject = {"separated": rows, "output": str(folder), "weights": None}
    if tuned:
        rate = _TUNING_RATE * (run.config.learning_rate or 1e-3)
        changes |= {"minutes": minutes, "epochs": epochs, "learning_rate": rate}
    config = run.config.model_copy(update=changes)
    restored = replace(run, config=config, source=found.model)
    metric = None if made.metric is None else made.metric[1]
    words = (
        f"{len(found.replacements)} convolutions replaced by smaller ones: parameters {found.params[0]:,} → "
        f"{found.params[1]:,}, multiply-adds {found.macs[0]:,} → {found.macs[1]:,}"
    )
    body = {
        "step": 0 if tuned else run.step,
        "fraction": 0.0 if tuned else 1.0,
        "metric": metric,
        "best_metric": metric,
        "config": config.to_dict(),
        "data": json.loads(json.dumps(asdict(run.data))),
        "source": {"run": str(run_dir)},
    }
    tensors = tensor_names({name: value.contiguous() for name, value in found.model.state_dict().items()})
    with whole_folder(folder) as part:
        write_text(part / "config.yaml", config.to_yaml())
        if (Path(run_dir) / SPLIT).is_file():
            write_text(part / SPLIT, read_text(Path(run_dir) / SPLIT))
        else:  # a run of an earlier version
            write_split(part / SPLIT, load_data(run.config))
        plan = RunPlan.read(Path(run_dir)) or RunPlan(())
        plan.with_choice("separated", words).write(part)
        write_json(part / "describe.json", describe(found.model, restored.input_shape).to_dict())
        write_json(part / "separation.json", {"run": str(run_dir), **made.to_dict()})
        write_json(part / "weights.json", {"summary": f"{run_dir}, {words}"})
        store = Store(part)
        store.save(tensors, body)
        store.save_best(tensors, body)
    return folder
