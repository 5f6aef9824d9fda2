"""Separated convolutions in the network of a run: chosen on training data, evaluated on the validation part."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import write_bytes, write_json
from convoxel.files.folder import whole_folder
from convoxel.files.stream import read_text
from convoxel.inspect.rank import least_time, time_engine
from convoxel.nn.separation import Separation, restore_separated, separate, time_torch
from convoxel.nn.weight_constraint import decay_groups
from convoxel.predict.computation import Computation
from convoxel.predict.device import choose_device, synchronise
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import build_predictor, check_engine, place_run
from convoxel.train.batch_norm import set_mode
from convoxel.train.config import TrainConfig
from convoxel.train.optimisation import learning_rate
from convoxel.train.run_folder import load_data, load_model
from convoxel.train.training_batch import Batches
from convoxel.train.training_step import build_step_loss, compute_loss

_CLOCKS = {"convoxel": time_engine, "torch": time_torch}
# Share of the largest learning rate of the run: the network has been trained already.
_TUNING_RATE = 0.1


def separate_run(
    run_dir: str | Path,
    *,
    max_error: float | None = None,
    max_accuracy_loss: float | None = None,
    fine_tune: int = 0,
    batch: int | None = None,
    engine: str = "convoxel",
    which: str = "best",
    device: str = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> Separation:
    """Return a run's network with convolutions replaced by smaller ones; see :func:`convoxel.nn.separate`.

    Output errors are measured on a batch of training samples, accuracy on the validation part. The choice among the
    trials depends on that part, so only another data set gives an unbiased accuracy of the result.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        max_error: largest relative change of the output (default None, no limit).
        max_accuracy_loss: largest decrease of the validation metric (default None, no limit).
        fine_tune: training steps after each trial, with ``max_accuracy_loss`` (default 0).
        batch: samples that are timed and compared at once (default: the run's batch size).
        engine: engine that is timed, "convoxel" or "torch" (default "convoxel").
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
    if fine_tune and max_accuracy_loss is None:
        raise ConfigError("fine_tune: given without max_accuracy_loss; expected both. Errors are measured before it.")
    run = load_model(run_dir, which)
    dataset = run.data.rule.training_data(load_data(run.config))
    if dataset.fingerprint != run.data.fingerprint:
        raise DataError(
            f"data: {dataset.name} is not what the run was trained on (its files differ); expected the same. "
            "Restore the files, or separate in Python with convoxel.nn.separate."
        )
    config = run.config if batch is None else run.config.override([f"batch_size={batch}"])
    batches = Batches(dataset.train, config, run.data)

    def score(candidate: nn.Module) -> float:
        tried = replace(run, source=candidate)
        predictor = build_predictor(tried, engine="torch", computation=place_run(tried, "torch", device))
        metric = evaluate_samples(predictor, dataset.validation).metrics()["metric"]
        Computation().arrange(candidate, dataset.dims)  # what looks at its weights works on the CPU
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

    return separate(
        run.network,
        batches.batch(0).images,
        max_error=max_error,
        max_accuracy_loss=max_accuracy_loss,
        score=None if max_accuracy_loss is None else score,
        fine_tune=tune if fine_tune else None,
        measure=measure,
        on_progress=on_progress,
    )


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


def save_separated(found: Separation, run_dir: str | Path, output: str | Path, shape: tuple[int, ...]) -> Path:
    """Write a separated network into a new folder and return it.

    The folder receives ``network.cvx`` (for ``convoxel run`` and ``convoxel.load``), ``network.safetensors`` and
    ``separation.json`` (all numbers, and the structure that :func:`load_separated` needs).

    Args:
        found: separation that :func:`separate_run` returned.
        run_dir: run that it came from.
        output: folder to write; it must be missing or empty.
        shape: shape of an input, (n, channels, *spatial).

    Raises:
        ConfigError: the folder is not empty or cannot be made. Nothing is left half-written.
    """
    from safetensors.torch import save

    from convoxel.graph.compile import compile as compile_model

    folder = Path(output)
    with whole_folder(folder) as part:
        compile_model(found.model, torch.zeros(*shape)).save(part / "network.cvx")
        state = {name: value.contiguous() for name, value in found.model.state_dict().items()}
        write_bytes(part / "network.safetensors", save(state))
        content = {"run": str(run_dir), "structure": found.structure(), **found.to_dict()}
        write_json(part / "separation.json", content)
    return folder


def load_separated(folder: str | Path, run_dir: str | Path | None = None) -> nn.Module:
    """Return the PyTorch module that :func:`save_separated` wrote, in eval mode.

    Args:
        folder: folder that was written.
        run_dir: run that it came from (default: where it was then).

    Raises:
        DataError: the folder lacks a file, or one is broken. CheckpointError: the run is gone.
    """
    from convoxel.models import load_weights

    path = Path(folder) / "separation.json"
    try:
        content = json.loads(read_text(path, 2**28))
        structure, run = content["structure"], content["run"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: it cannot be read ({type(error).__name__}); expected the file that "
            "`convoxel separate --output` wrote. Give its folder, or separate the run again."
        ) from None
    model = restore_separated(load_model(run_dir or run).network, structure)
    load_weights(model, Path(folder) / "network.safetensors")
    return model.eval()
