"""Training on devices: what is chosen for them, scaled losses, and runs that move; without a GPU."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from convoxel.data import Sample
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.predict.computation import Computation
from convoxel.predict.loss_terms import LOSSES
from convoxel.predict.trained_run import DataFacts
from convoxel.train import RunPlan, TrainConfig, evaluate, fit, load_model, step_choice, training_batch, training_step
from convoxel.train.checkpoint import Store
from convoxel.train.config import AugmentConfig
from convoxel.train.defaults import plan_computation
from convoxel.train.loss import build_loss
from convoxel.train.training_state import TrainingState
from tests.predict.test_device import pretend_gpus
from tests.train.test_loop import CLASSIFY, classify, essence, stop_at

HALF: dict[str, Any] = {"precision": "float16", "steps_per_epoch": 2, "epochs": 2}


def stated(**entries: Any) -> TrainConfig:
    return TrainConfig.build(**{**CLASSIFY, "output": "run", **entries})


# ---- choices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "dims", "precision"),
    [((9, 0), 3, "bfloat16"), ((8, 0), 2, "bfloat16"), ((7, 5), 2, "float16"), ((6, 1), 3, "float32"),
     ((9, 0), 1, "float32")],
)  # fmt: skip
def test_a_gpu_gets_the_precision_of_its_matrix_units(
    monkeypatch: pytest.MonkeyPatch, generation: tuple[int, int], dims: int, precision: str
) -> None:
    pretend_gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    chosen = plan_computation(stated(), dims)
    assert chosen["device"] == "cuda:0" and chosen["precision"] == precision and chosen["num_workers"] >= 1
    assert "compile" not in chosen and "channels_last" not in chosen  # a measured step chooses them
    kept = plan_computation(stated(precision="float32", num_workers=0, device="cpu"), dims)
    engine = "convoxel" if dims > 1 else "torch"
    on_cpu = {"device": "cpu", "precision": "float32", "channels_last": True, "compile": False, "engine": engine}
    assert kept == on_cpu


@pytest.mark.parametrize("entries", [{"precision": "bfloat16"}, {"compile": True}])
def test_our_engine_is_refused_where_it_computes_nothing(entries: dict[str, Any]) -> None:
    assert plan_computation(stated(device="cpu", **entries), 3)["engine"] == "torch"
    with pytest.raises(ConfigError, match="engine: convoxel computes planes and volumes in float32 on the CPU"):
        plan_computation(stated(device="cpu", engine="convoxel", **entries), 3)
    with pytest.raises(ConfigError, match="this run has signals"):
        plan_computation(stated(device="cpu", engine="convoxel"), 1)


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [("device", "gpu", "auto, cpu, cuda"), ("compile", "sometimes", "true, false or auto"),
     ("precision", "float8", "'float16'")],
)  # fmt: skip
def test_wrong_words_are_told(entry: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{entry}='{value}'.*{told}"):
        stated(**{entry: value})


@pytest.mark.parametrize(
    ("entries", "times", "last", "compiles", "tried"),
    [
        ({"minutes": 60.0}, {True: 1.0, False: 2.0}, True, True, 3),  # 0.5 s a step, an hour to win 20 s back
        ({"minutes": 5.0}, {True: 2.0, False: 1.0}, False, False, 2),  # too short to try
        ({"minutes": 5.0, "compile": "auto"}, {True: 1.0, False: 2.0}, True, True, 3),
        ({"minutes": 60.0, "channels_last": False}, {False: 0.4}, False, False, 2),  # no faster
        ({"minutes": 60.0, "compile": False}, {True: 1.0, False: 2.0}, True, False, 2),
        ({"epochs": 300}, {True: 1.0, False: 2.0}, True, True, 3),
        ({"epochs": 3}, {True: 1.0, False: 2.0}, True, False, 2),
        ({"deterministic": True, "precision": "float32"}, {}, False, False, 0),
        ({"deterministic": True, "precision": "float16"}, {}, True, False, 0),
        ({"compile": True, "channels_last": True}, {}, True, True, 0),
    ],
)
def test_measured_steps_choose_layout_and_compiler(
    monkeypatch: pytest.MonkeyPatch,
    entries: dict[str, Any],
    times: dict[bool, float],
    last: bool,
    compiles: bool,
    tried: int,
) -> None:
    clock = [0.0]
    calls: list[bool] = []

    def time_step(trial: Any, channels_last: bool, prepare: Any = None) -> float:
        calls.append(channels_last)
        clock[0] += 20.0
        return times[channels_last] if prepare is None else 0.5

    monkeypatch.setattr(step_choice._Trial, "_time", time_step)
    monkeypatch.setattr(step_choice, "now", lambda: clock[0])
    config = TrainConfig.build(**{**CLASSIFY, "output": "run", "epochs": None, "minutes": None, **entries})
    if config.minutes is None and config.epochs is None:
        config = config.model_copy(update={"epochs": 3})
    images = [Sample(str(index), np.zeros((1, 8, 8), np.float32), index % 2) for index in range(8)]
    dataset: Any = SimpleNamespace(train=images, dims=2)
    facts: Any = DataFacts(("0", "1"), 2, 1, SimpleNamespace(statistics=lambda image: Plain()), None, "", "")  # type: ignore[arg-type]
    chosen, words = step_choice.choose_step(
        config.model_copy(update={"patch": (8, 8), "augment": AugmentConfig(level="none"), "device": "cpu"}),
        dataset,
        facts,
        torch.nn.Conv2d(1, 2, 3),
    )
    assert (chosen.channels_last, chosen.compile, len(calls)) == (last, compiles, tried)
    assert len(words) == (0 if tried == 0 else 1 + (config.compile in (None, "auto")))


class Plain:
    """Statistics that leave an image as it is."""

    floor = 0.0

    def normalise(self, image: Any) -> Any:
        return image


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def compiled(images: torch.Tensor) -> torch.Tensor:
        raise TorchDynamoException("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiled)
    with pytest.raises(ConfigError, match=r"compile: got True.*no C\+\+ compiler.*compile=false"):
        training_step.compile_forward(torch.nn.Conv1d(1, 1, 1))(torch.zeros(1, 1, 3))


def test_a_compiled_run_trains_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is kept on resume, and the checkpoint has the network's own names."""
    compiled: list[torch.nn.Module] = []

    def compile_model(model: torch.nn.Module, dynamic: bool) -> Any:
        compiled.append(model)
        return lambda images: model(images)

    monkeypatch.setattr(torch, "compile", compile_model)
    config = classify(tmp_path / "run", epochs=1, compile=True)
    assert fit(config, on_progress=stop_at(1)).interrupted
    result = fit(classify(tmp_path / "run", epochs=1), resume=True)
    assert len(compiled) == 2 and result.steps == 3
    fit(classify(tmp_path / "plain", epochs=1))
    assert essence(tmp_path / "run")[0] == essence(tmp_path / "plain")[0]
    assert load_model(tmp_path / "run").config.compile is True
    assert "torch.compile" in dict(RunPlan.read(tmp_path / "run").choices)["device"]  # type: ignore[union-attr]


# ---- float16 ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def begun_with(monkeypatch: pytest.MonkeyPatch, scale: float) -> Iterator[None]:
    plain = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: plain(device, scale, enabled=enabled))
    yield
    monkeypatch.undo()


def test_the_scale_of_the_loss_is_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with begun_with(monkeypatch, 512.0):
        fit(classify(whole, **HALF))
        assert Store(whole).load().body["scaler"]["scale"] == 512.0
        assert fit(classify(broken, **HALF), on_progress=stop_at(1)).interrupted
    assert Store(broken).load().body["scaler"]["_growth_tracker"] == 1
    fit(classify(broken, **HALF), resume=True)
    assert essence(broken) == essence(whole)
    assert Store(broken).load().body["scaler"] == Store(whole).load().body["scaler"]


def test_an_overflow_leaves_the_update_out_and_scales_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with begun_with(monkeypatch, 2.0**40):
        result = fit(classify(run, **HALF))
    assert result.steps == 4
    assert Store(run).load().body["scaler"]["scale"] == 2.0**36
    assert not any(name.startswith("optimiser.") for name in Store(run).load().tensors)  # no update was right


def test_a_gradient_without_any_scale_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import loop

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().sum()  # value 0, slope infinite × 0

    monkeypatch.setattr(loop, "build_step_loss", lambda config, facts: loss)
    with begun_with(monkeypatch, 4.0), pytest.raises(ConvoxelError, match=r"not finite at step 3 .*bfloat16"):
        fit(classify(tmp_path / "run", **HALF))


# ---- moves -----------------------------------------------------------------------------------------------


def pretend_trained_on(run: Path, **entries: Any) -> None:
    """Write into a run's checkpoint and configuration that it was computed otherwise."""
    store = Store(run)
    checkpoint = store.load()
    config = {**checkpoint.body["config"], **entries}
    config = {name: value for name, value in config.items() if value != "absent"}
    store.save(checkpoint.tensors, {**checkpoint.body, "config": config})
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_run_goes_on_where_its_device_is_not(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    fit(classify(whole, epochs=1))
    fit(classify(run, epochs=1), on_progress=stop_at(2))
    pretend_trained_on(run, device="cuda:7", channels_last=False, compile=True, num_workers=5)
    with pytest.raises(ConfigError, match="device: got 'cuda:7'"):
        fit(classify(run, epochs=1, device="cuda:7"), resume=True)
    plans: list[RunPlan] = []
    fit(classify(run, epochs=1), resume=True, on_plan=plans.append)
    assert "resumed; until step 2 on cuda:7" in dict(plans[0].choices)["device"]
    assert "resumed; until step 2 on cuda:7" in json.loads((run / "plan.json").read_text())["device"]
    config = load_model(run).config
    assert (config.device, config.channels_last, config.compile, config.num_workers) == ("cpu", True, False, 0)
    assert yaml.safe_load((run / "config.yaml").read_text())["device"] == "cpu"
    assert essence(run)[0] == essence(whole)[0]


def test_a_run_of_an_earlier_version_was_trained_on_the_cpu(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    fit(classify(whole, epochs=1))
    fit(classify(run, epochs=1), on_progress=stop_at(2))
    new = ("device", "channels_last", "compile", "deterministic")
    pretend_trained_on(run, **dict.fromkeys(new, "absent"))
    fit(classify(run, epochs=1, device="cpu"), resume=True)  # another way to compute is no other configuration
    assert essence(run)[0] == essence(whole)[0]
    assert load_model(run).config.channels_last is True


def test_the_state_moves_between_optimisers_of_devices(tmp_path: Path) -> None:
    """The one that updates all at once, as on GPUs, counts steps with the weights; checkpoints hold either's state."""
    config = classify(tmp_path / "run")
    states = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(2, 3, 3)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused)
        states.append(TrainingState(layer, optimiser, torch.amp.GradScaler("cpu", enabled=False)))
    for state in states:
        step(state)
    store = Store(tmp_path)
    facts: Any = DataFacts(("a",), 2, 2, None, None, "", "")  # type: ignore[arg-type]
    store.save(states[0].tensors(), states[0].body(config, facts))
    checkpoint = store.load()
    assert all(tensor.device.type == "cpu" for tensor in checkpoint.tensors.values())
    states[1].restore(checkpoint, tmp_path)
    for state in states:
        step(state)
    torch.testing.assert_close(states[1].model.state_dict(), states[0].model.state_dict())


def step(state: TrainingState) -> None:
    state.optimiser.zero_grad()
    state.model(torch.ones(1, 2, 4, 4)).square().sum().backward()
    state.optimiser.step()


def test_batches_are_copied_ahead_and_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record stands for a GPU's streams: the copy of a batch begins before the one before it is handed out."""
    told: list[str] = []
    stream = SimpleNamespace(record_event=lambda: "copied", wait_event=lambda event: told.append("wait"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)

    def prepared() -> Iterator[training_batch.Batch]:
        for number in range(9):
            told.append(f"copy {number}")
            image = torch.full((1, 1, 2, 2), float(number))
            yield training_batch.Batch(image, torch.tensor([number]), (str(number),))

    found = training_batch._copied_ahead(prepared(), Computation())
    for number in range(3):
        batch = next(found)
        assert batch.targets.item() == number == batch.images.mean().item() and batch.names == (str(number),)
    assert told == ["copy 0", "copy 1", "wait", "copy 2", "wait", "copy 3", "wait"]


# ---- steps -----------------------------------------------------------------------------------------------


def test_a_step_that_does_not_fit_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import loop

    def full(*arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(loop, "compute_loss", full)
    with pytest.raises(ConvoxelError) as caught:
        fit(classify(tmp_path / "run", precision="float32"))
    told = ["train: a step of course_vgg", "8 × 8 × 8", "float32", "CPU", "batch_size=4", "precision=bfloat16"]
    assert all(words in str(caught.value) for words in told)


def test_the_ordered_loss_is_the_same_loss() -> None:
    rng = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (2, 4, 5, 6), generator=rng)
    losses, slopes = [], []
    for deterministic in (False, True):
        logits = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = build_loss(LOSSES["segment"][0], deterministic=deterministic)(logits, targets)
        loss.backward()
        losses.append(loss.detach())
        slopes.append(logits.grad)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(slopes[1], slopes[0])


def test_evaluation_takes_a_device_for_pytorch(tmp_path: Path) -> None:
    fit(classify(tmp_path / "run", epochs=1, steps_per_epoch=1))
    for device, engine, told in (
        ("cuda", "convoxel", "computes on the CPU"),
        ("cuda", "torch", "device: got 'cuda'"),
        ("gpu", "convoxel", "auto, cpu, cuda"),
    ):
        with pytest.raises(ConfigError, match=told):
            evaluate(tmp_path / "run", engine=engine, device=device)
    auto, cpu = (evaluate(tmp_path / "run", engine="torch", device=device) for device in ("auto", "cpu"))
    assert auto["loss"] == cpu["loss"] and auto["confusion"] == cpu["confusion"]


def test_trainings_of_a_search_take_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.cli.scale import train_variants

    seen: list[Any] = []
    monkeypatch.setattr(
        "convoxel.train.scaling_study.study_scaling", lambda *arguments, **named: seen.append(named["settings"])
    )
    train_variants("digits", "course_vgg", [{}], epochs=1, seed=0, threads=None, device="cuda:1")
    assert seen == [{"device": "cuda:1"}]
