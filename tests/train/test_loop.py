"""Training runs: bit-equal after any interruption, refused when something is wrong, never half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convoxel import lazy, train
from convoxel.errors import CheckpointError, ConfigError, ConvoxelError, DataError, UnsupportedError
from convoxel.files.lock import hold_lock
from convoxel.train import Progress, TrainConfig, fit
from convoxel.train.checkpoint import Store
from convoxel.train.interrupt import Interrupt
from tests.support.counted_clock import count_time

CLASSIFY: dict[str, Any] = {
    "task": "classify", "data": "digits", "model": "course_vgg", "width": 0.1, "batch_size": 8,
    "steps_per_epoch": 3, "epochs": 3, "validate_every": 2, "validation": 60, "threads": 1, "tensorboard": False,
}  # fmt: skip
SEGMENT: dict[str, Any] = {
    "task": "segment", "levels": 1, "width": 4, "patch": (8, 8, 8), "batch_size": 2, "steps_per_epoch": 4,
    "epochs": 2, "validation": 2, "threads": 1, "tensorboard": False,
}  # fmt: skip


def write_volumes(folder: Path, count: int = 6) -> Path:
    """Volumes of noise with a bright and a dark ball, 1 × 1 × 2 mm."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in (10, 12, 9)), indexing="ij"), axis=-1)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = (-3, 5, 7)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        image, label = rng.normal(100, 5, grid.shape[:3]), np.zeros(grid.shape[:3], np.uint8)
        for number, shift in ((1, 40.0), (2, -40.0)):
            ball = ((grid - rng.uniform(2, 7, 3)) ** 2).sum(axis=-1) < 7
            image[ball], label[ball] = image[ball] + shift, number
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"images/v{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labels/v{index}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


def classify(output: Path, **entries: Any) -> TrainConfig:
    return TrainConfig.build(**{**CLASSIFY, "output": str(output), **entries})


def segment(volumes: Path, output: Path, **entries: Any) -> TrainConfig:
    return TrainConfig.build(**{**SEGMENT, "data": str(volumes), "output": str(output), **entries})


def essence(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All that must be equal bit for bit: weights, buffers, optimiser; and the metrics without times."""
    found = Store(run).load()
    tensors = {name: value.contiguous().numpy().tobytes() for name, value in found.tensors.items()}
    history = [
        {name: value for name, value in row.items() if name not in ("time_s", "samples_per_s")}
        for row in found.body["history"]
    ]
    return tensors, history


def stop_at(step: int, number: int = signal.SIGINT) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.step == step and progress.phase == "train":
            os.kill(os.getpid(), number)

    return on_progress


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    result = fit(classify(output))
    assert (result.steps, result.interrupted, result.signal) == (9, False, None)
    assert result.best_metric == max(row["metric"] for row in essence(output)[1])
    return output


def test_a_run_leaves_what_it_promises(unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir()}
    assert names == {
        "checkpoints", "config.yaml", "describe.json", "evaluation.json", "examples.npz", "metrics.jsonl",
        "plan.json", "split.json",
    }  # fmt: skip
    stored = TrainConfig.from_yaml(unbroken / "config.yaml")
    assert stored.precision in ("float32", "bfloat16") and stored.learning_rate and stored.normalise == "dataset"
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 9]
    assert set(rows[0]) == {
        "step", "epoch", "time_s", "train_loss", "validation_loss", "metric", "per_class", "learning_rate",
        "samples_per_s",
    }  # fmt: skip
    figures = json.loads((unbroken / "evaluation.json").read_text())
    assert figures["metric_name"] == "accuracy" and len(figures["samples"]) == 60
    with np.load(unbroken / "examples.npz", allow_pickle=False) as examples:
        assert examples["images"].shape == (12, 8, 8) and examples["labels"].shape == (12,)
        assert len(examples["names"]) == len(examples["predictions"]) == 12


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM), (8, signal.SIGINT)])
def test_resumed_run_is_bit_equal(tmp_path: Path, unbroken: Path, step: int, number: int) -> None:
    config = classify(tmp_path / "run")
    first = fit(config, on_progress=stop_at(step, number))
    assert (first.interrupted, first.signal, first.steps) == (True, number, step)
    second = fit(TrainConfig.build(task="classify", data="digits", output=config.output), resume=True)
    assert (second.interrupted, second.steps) == (False, 9)
    assert essence(tmp_path / "run") == essence(unbroken)


def test_interrupted_validation_is_repeated(tmp_path: Path, unbroken: Path) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.phase == "validate" and progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    config = classify(tmp_path / "run")
    assert fit(config, on_progress=on_progress).metrics == {}
    fit(config, resume=True)
    assert essence(tmp_path / "run") == essence(unbroken)


def test_workers_and_checkpoint_pace_change_nothing(tmp_path: Path, unbroken: Path) -> None:
    fit(classify(tmp_path / "run", num_workers=2, checkpoint_seconds=1e-3))
    assert essence(tmp_path / "run") == essence(unbroken)


@pytest.mark.parametrize(
    "entries",
    [
        {"optimiser": "adam"},
        {"optimiser": "sgd"},
        {"accumulate": 2, "ema": 0.9, "schedule": "poly", "rates": {"encoder.*": 0.1, "encoder.0.conv1.*": 0}},
    ],
)
def test_resumed_segmentation_is_bit_equal(tmp_path: Path, volumes: Path, entries: dict[str, Any]) -> None:
    whole = segment(volumes, tmp_path / "whole", **entries)
    broken = segment(volumes, tmp_path / "broken", **entries)
    fit(whole)
    fit(broken, on_progress=stop_at(3))
    fit(broken, resume=True, on_progress=stop_at(6))  # the last phase, where statistics are fixed
    fit(broken, resume=True)
    assert essence(tmp_path / "broken") == essence(tmp_path / "whole")


@pytest.mark.slow
def test_steps_on_our_engine_are_repeated_bit_by_bit(tmp_path: Path, volumes: Path) -> None:
    entries = {"width": 32, "patch": (16, 16, 16), "steps_per_epoch": 2, "epochs": 1}
    runs = [
        fit(segment(volumes, tmp_path / name, **entries, **more)).path
        for name, more in (("ours", {}), ("again", {}), ("theirs", {"engine": "torch"}))
    ]
    stored = [TrainConfig.from_yaml(run / "config.yaml").engine for run in runs]
    assert stored == ["convoxel", "convoxel", "torch"]  # volumes in float32 on the CPU
    (ours, rows), again, (theirs, others) = map(essence, runs)
    assert again == (ours, rows) and theirs != ours
    assert rows[-1]["train_loss"] == pytest.approx(others[-1]["train_loss"], rel=1e-4)


def test_killed_run_is_bit_equal(tmp_path: Path, unbroken: Path) -> None:
    """SIGKILL at random instants until it is through."""
    output = tmp_path / "run"
    code = (
        "import sys, json; from convoxel.train import TrainConfig, fit\n"
        "entries = json.loads(sys.argv[1])\n"
        "import pathlib; run = pathlib.Path(entries['output'])\n"
        "config = TrainConfig.build(**entries)\n"
        "print('ready', flush=True)\n"
        "fit(config, resume=(run / 'checkpoints/last.json').exists(), "
        "on_progress=lambda p: print(p.phase, p.step, flush=True))\n"
    )
    entries = json.dumps({**CLASSIFY, "output": str(output), "checkpoint_seconds": 1e-3})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for after in (1, 4, None):
        with subprocess.Popen(
            [sys.executable, "-c", code, entries], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            steps = 0
            for line in process.stdout:
                steps += line.startswith("train")
                if steps == after:
                    time.sleep(0.004 * steps)  # somewhere in the next step or its checkpoint
                    process.kill()
                    break
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert essence(output) == essence(unbroken)


def test_minutes_limit_the_run_and_leave_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_time(monkeypatch)
    config = classify(tmp_path / "run", epochs=None, minutes=0.07)
    seen: list[Progress] = []
    result = fit(config, on_progress=seen.append)
    assert 0 < result.seconds < 4.2 + 0.5  # each reading of this clock takes time, those of the closing too
    found = Store(tmp_path / "run").load()
    assert found.body["fraction"] == 1.0 and found.body["step"] == result.steps > 0
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert seen[-1].phase == "done" and seen[-1].steps_total == result.steps
    again = fit(config, resume=True)  # a complete run only measures itself again
    assert again.steps == result.steps and again.metrics["metric"] == result.metrics["metric"]


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    fit(classify(tmp_path / "run", epochs=1, tensorboard=True))
    (file,) = (tmp_path / "run/tensorboard").glob("events*")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = list(EventFileLoader(str(file)).Load())
    assert events[0].file_version == "brain.Event:2" and events[-1].step == 3
    assert {"loss/train", "metric/mean", "learning_rate"} <= {value.tag for value in events[-1].summary.value}


def test_a_full_disk_costs_the_events_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import run_record

    def fail(self: Any, event: Any) -> None:
        raise OSError(28, "No space left on device")

    row = {"step": 1, "train_loss": 1.0, "validation_loss": 1.0, "metric": 0.5, "per_class": {}, "learning_rate": 0.1}
    kept = run_record.RunRecord(tmp_path / "a")
    monkeypatch.setattr(run_record._Events, "_write", fail)
    with pytest.warns(RuntimeWarning, match=r"tensorboard: no more events are written \(No space left"):
        kept.write_metrics([row])
    kept.write_metrics([row])
    assert (tmp_path / "a/metrics.jsonl").is_file()
    with pytest.warns(RuntimeWarning, match=r"tensorboard: no events are written \(No space left"):
        run_record.RunRecord(tmp_path / "b")


def test_a_model_of_the_other_task_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    for model, words in (("unet", "'unet' is made to segment, but the task is 'classify'"), ("unett", "mean 'unet'")):
        with pytest.raises(ConfigError, match=words):
            fit(classify(tmp_path / "run", model=model, data=str(tmp_path / "none")))
    assert not (tmp_path / "run").exists()


def test_progress_tells_loss_speed_and_time(tmp_path: Path) -> None:
    seen: list[Progress] = []
    fit(classify(tmp_path / "run", epochs=2, validate_every=1), on_progress=seen.append)
    assert [p.phase for p in seen[:2]] == ["prepare", "train"]
    steps = [p for p in seen if p.phase == "train" and p.loss is not None]
    assert {p.epoch for p in steps} == {1, 2} and all(p.steps_total == 6 for p in steps)
    assert all(p.samples_per_s and p.time_left_s is not None for p in steps)
    assert seen[-1].metric is not None and 0 <= seen[-1].metric <= 1


def test_other_settings_are_refused_with_a_diff(tmp_path: Path, unbroken: Path) -> None:
    base = {"task": "classify", "output": str(unbroken)}
    with pytest.raises(CheckpointError, match=r"seed: 0 → 5; width: 0.1 → 0.2|width: 0.1 → 0.2; seed: 0 → 5") as caught:
        fit(TrainConfig.build(**base, data="digits", seed=5, width=0.2), resume=True)
    assert "--force" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"holds no run. Leave --resume out"):
        fit(classify(tmp_path / "none"), resume=True)
    assert not (tmp_path / "none").exists()


def test_other_data_are_refused_and_force_goes_on(tmp_path: Path) -> None:
    first, second = write_volumes(tmp_path / "a"), write_volumes(tmp_path / "b", count=7)
    fit(segment(first, tmp_path / "run", epochs=1))
    other = segment(second, tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError, match=r"data: a → b .its files differ"):
        fit(other, resume=True)
    assert fit(segment(second, tmp_path / "run", epochs=2), resume=True, force=True).steps == 8


def test_an_existing_folder_is_not_touched(tmp_path: Path, unbroken: Path) -> None:
    with pytest.raises(ConfigError, match=r"exists and is not empty. Give another --output, or --resume"):
        fit(classify(unbroken))
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists and is not empty. Give another --output\.$"):
        fit(classify(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(ConfigError, match="exists and is not empty"):
        fit(classify(tmp_path / "note.txt"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output: cannot .*file/run.*another --output"):
        fit(classify(tmp_path / "file" / "run"))


@pytest.mark.parametrize(
    ("entries", "error", "words"),
    [
        ({"model": "course_vg"}, ConfigError, "course_vgg"),
        ({"model_options": {"depht": 3}}, ConfigError, "no option 'depht'"),
        ({"data": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_mistakes_leave_no_folder(tmp_path: Path, entries: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fit(classify(tmp_path / "run", **entries))
    assert not (tmp_path / "run").exists()


def test_broken_samples_are_named_before_training(tmp_path: Path) -> None:
    folder = write_volumes(tmp_path / "data")
    path = folder / "images/v1.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"v1.nii.gz"):
        fit(segment(folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    result = fit(segment(folder, tmp_path / "run", on_bad_sample="skip", epochs=1))
    assert result.steps == 4


def test_infinite_loss_stops_and_names_step_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import loop

    calls = 0

    def build_step_loss(config: TrainConfig, facts: object) -> Any:
        def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return logits.sum() * (float("nan") if calls == 4 else 0.0)

        return loss

    monkeypatch.setattr(loop, "build_step_loss", build_step_loss)
    with pytest.raises(ConvoxelError, match=r"the loss is nan at step 4 \(samples: \d{4}, .*learning_rate"):
        fit(classify(tmp_path / "run", checkpoint_seconds=1e-3))
    assert Store(tmp_path / "run").load().body["step"] == 3


def test_infinite_gradient_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.train import loop

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().sum()  # value 0, slope infinite × 0

    monkeypatch.setattr(loop, "build_step_loss", lambda config, facts: loss)
    with pytest.raises(ConvoxelError, match="the gradient is not finite at step 1"):
        fit(classify(tmp_path / "run"))


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.fsync
    full = False

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(28, os.strerror(28))
        plain(descriptor)

    def on_progress(progress: Progress) -> None:
        nonlocal full
        full = progress.step >= 3

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=r"No space left on device.*The checkpoint of step 2 is intact.*--resume"):
        fit(classify(tmp_path / "run", checkpoint_seconds=1e-3), on_progress=on_progress)
    full = False
    assert Store(tmp_path / "run").load().body["step"] == 2
    assert fit(classify(tmp_path / "run"), resume=True).steps == 9


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ConvoxelError, match="No space left on device"):
        fit(classify(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    threads = torch.get_num_threads()
    fit(classify(tmp_path / "run", epochs=1, threads=2 if threads == 1 else 1))
    assert torch.equal(torch.rand(1), wanted)
    assert torch.get_num_threads() == threads
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_training_works_outside_the_main_thread(tmp_path: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fit(classify(tmp_path / "run", epochs=1))))
    thread.start()
    thread.join(timeout=60)
    assert found and found[0].steps == 3


@pytest.mark.smoke
def test_a_second_ctrl_c_acts_at_once() -> None:
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


@pytest.mark.smoke
def test_public_names_load_on_demand() -> None:
    assert set(train.__all__) <= set(dir(train))
    assert callable(train.evaluate) and callable(train.predict)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = train.nothing
    code = "import sys, convoxel.train as t; t.TrainConfig; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.smoke
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError("no monai", name="monai")

    monkeypatch.setattr(lazy, "import_module", import_module)
    monkeypatch.delitem(vars(train), "fit", raising=False)
    with pytest.raises(UnsupportedError, match=r"Training needs monai: pip install 'convoxel\[train\]'"):
        _ = train.fit


def test_an_edited_configuration_is_told_with_the_difference(tmp_path: Path, unbroken: Path) -> None:
    """A run goes on as its checkpoint says; what the file beside it says otherwise is not overwritten in silence."""
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    shown = run / "config.yaml"
    text = shown.read_text()
    shown.write_text(text.replace("seed: 0", "seed: 5").replace("clip: 5.0", "clip: null"))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"config.yaml: clip: 5.0 → unset; config.yaml: seed: 0 → 5.*--force"):
            fit(classify(run), resume=True)
    assert "seed: 5" in shown.read_text()
    shown.write_text(text.replace("checkpoint_seconds: ", "checkpoint_seconds: 1"))  # changes no result
    assert fit(classify(run), resume=True).steps == 9
    shown.write_text(text.replace("epochs: 3", "epochs: 4"))
    assert fit(classify(run, epochs=None), resume=True, force=True).steps == 12
    assert Store(run).load().body["config"]["epochs"] == 4
    shown.write_text("task: [")
    with pytest.raises(CheckpointError, match=r"config.yaml is not YAML.*delete it"):
        fit(classify(run, epochs=None), resume=True)
    shown.unlink()
    assert fit(classify(run, epochs=None), resume=True).steps == 12


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", killed)
        patch.setattr("convoxel.files.folder.shutil.rmtree", lambda *_, **__: None)  # a dead process removes nothing
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            fit(classify(run))
    (run / ".convoxel-0123456789abcdef.part").write_bytes(b"half")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "next.safetensors").write_bytes(b"whole, but without its manifest")
    assert {path.name for path in run.iterdir()} >= {".lock", "config.yaml"}
    with hold_lock(run), pytest.raises(CheckpointError, match="is training in"):
        fit(classify(run), resume=resume)
    (run / ".lock").touch()
    assert fit(classify(run), resume=resume).steps == 9
    assert not list(run.rglob(".*"))
    (run / ".lock").touch()
    with pytest.raises(ConfigError, match="exists and is not empty"):
        fit(classify(run))


def test_a_run_whose_folder_is_moved_stops_and_goes_on_where_it_lies(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == 4 and run.exists():
            run.rename(moved)

    with pytest.raises(CheckpointError, match=r"run was moved, removed or replaced.*--resume"):
        fit(classify(run), on_progress=move)
    assert not run.exists()
    assert fit(classify(moved), resume=True).steps == 9
