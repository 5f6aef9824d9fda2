"""Processes that train one network together: the batch, loss and metrics of one, and what happens when one dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

from convoxel.data import Sample
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.predict.metrics import Tally
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts
from convoxel.train import RunPlan, TrainConfig, fit, has_run
from convoxel.train.process_group import Processes, SharedBatchNorm, open_processes, raise_faults
from convoxel.train.training_batch import Batches
from tests.train.test_loop import essence, segment, write_volumes

ROOT = Path(__file__).parents[2]
RUN: dict[str, Any] = {"batch_size": 4, "validation": 3, "precision": "float32", "validate_every": 1, "ema": 0.5}

# What each process does: a whole run; one that a signal to the second stops; and one whose second process is killed.
SCRIPT = """
import json, os, signal, sys
from convoxel.errors import ConvoxelError
from convoxel.train import TrainConfig, fit, loop

whole, stopped, broken, ports = json.loads(sys.argv[1])
rank, spoken = int(os.environ["RANK"]), []
result = fit(TrainConfig.build(**whole), on_progress=spoken.append, on_plan=spoken.append)
assert result.first == (rank == 0) == bool(spoken), (rank, len(spoken))

step = loop._step
def hurt(number):
    def stepped(run, batches, criterion):
        if rank == 1 and run.state.step == 3:
            os.kill(os.getpid(), number)
        return step(run, batches, criterion)
    return stepped

loop._step, os.environ["MASTER_PORT"] = hurt(signal.SIGTERM), ports[0]
result = fit(TrainConfig.build(**stopped))
assert (result.interrupted, result.signal, result.steps) == (True, signal.SIGTERM, 4), result
loop._step, os.environ["MASTER_PORT"] = hurt(signal.SIGKILL), ports[1]
try:
    fit(TrainConfig.build(**broken))
except ConvoxelError as error:
    print(error)
"""


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def launch(*configs: TrainConfig) -> list[subprocess.CompletedProcess[str]]:
    """Run the script in two processes, as torchrun starts them."""
    told = json.dumps([*(config.to_dict() for config in configs), [free_port(), free_port()]])
    place = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, told],
            cwd=ROOT,
            env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [each.communicate() for each in started]
    return [subprocess.CompletedProcess([], each.returncode, *texts) for each, texts in zip(started, said, strict=True)]


def test_two_processes_train_as_one_and_notice_a_death(tmp_path: Path) -> None:
    """Equal but for the order of sums: about 2 roundings of each weight and step, which eight steps of Adam widen."""
    data = write_volumes(tmp_path / "data")
    names = ("one", "two", "stopped", "broken")
    one, *others = (segment(data, tmp_path / name, **RUN, checkpoint_seconds=1e-6) for name in names)
    first, second = launch(*others)
    assert first.returncode == 0, first.stderr
    assert second.returncode == -9, second.stderr
    assert first.stdout.count("another process of this run has ended") == 1
    assert (
        f"The last checkpoint in {tmp_path / 'broken'} is intact" in first.stdout
        and "--resume-if-present" in first.stdout
    )
    fit(one)
    (alone, rows), (shared, shared_rows) = essence(tmp_path / "one"), essence(tmp_path / "two")
    assert alone.keys() == shared.keys()
    for row, other in zip(rows, shared_rows, strict=True):
        for name in ("train_loss", "validation_loss", "metric"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), name
        assert row["step"] == other["step"] and row["per_class"].keys() == other["per_class"].keys()
    assert rows[0]["train_loss"] == pytest.approx(shared_rows[0]["train_loss"], rel=1e-6)
    for name, value in alone.items():
        if name.startswith("model."):
            weights = [
                np.frombuffer(each, np.int64 if "num_batches" in name else np.float32) for each in (value, shared[name])
            ]
            np.testing.assert_allclose(*weights, rtol=1e-2, atol=1e-4, err_msg=name)
    plan = dict(RunPlan.read(tmp_path / "two").choices)  # type: ignore[union-attr]
    assert plan["processes"].startswith("2 processes, each with 2 of the 4 samples of a batch")
    for name in ("stopped", "broken"):  # by another number of processes
        folder, told = tmp_path / name, []
        assert has_run(folder)
        result = fit(segment(data, folder, **RUN), resume=True, on_plan=told.append)
        assert result.steps == 8 and f"2 processes until step {4 if name == 'stopped' else 3}" in str(told[0])
        found = essence(folder)[1]
        assert found[-1]["validation_loss"] == pytest.approx(rows[-1]["validation_loss"], rel=1e-4)


# ---- parts


def batches(processes: Processes | None = None, **entries: Any) -> Batches:
    rng = np.random.default_rng(0)
    samples = [Sample(f"s{k}", rng.random((1, 6, 6), np.float32), k % 3) for k in range(7)]
    stated = {"task": "classify", "data": "d", "output": "o", "batch_size": 4, "patch": (6, 6), "flip_axes": (1,)}
    facts = DataFacts(("a", "b", "c"), 2, 1, Normalisation("dataset", (0.5,), (0.3,)), None, "", "d")
    return Batches(samples, TrainConfig.build(**{**stated, **entries}), facts, processes=processes)


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_processes_share_out_the_same_samples(mix: str) -> None:
    entries = {"augment": {"level": "light", "mix": mix}}
    for step in range(4):
        whole = batches(**entries).batch(step)
        parts = [batches(Processes(rank, 2), **entries).batch(step) for rank in range(2)]
        assert sum((part.names for part in parts), ()) == whole.names
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
        if whole.mixture is not None:
            mixtures = [part.mixture for part in parts if part.mixture is not None]
            assert torch.equal(torch.cat([each[0] for each in mixtures]), whole.mixture[0])
            assert {each[1] for each in mixtures} == {whole.mixture[1]}


def test_a_batch_that_cannot_be_shared_is_refused_with_the_near_sizes() -> None:
    config = TrainConfig.build(task="classify", data="d", output="o", batch_size=5)
    assert Processes().share(config) is config
    with pytest.raises(
        ConfigError, match=r"batch_size: got 5, but 3 processes .*multiple of 3\. Set batch_size=3 or 6"
    ):
        Processes(1, 3).share(config)
    with pytest.raises(ConfigError, match=r"Set batch_size=8\."):
        Processes(1, 8).share(config)


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for word in ("cuda:1", "mps"):
        with (
            pytest.raises(ConfigError, match=f"device: got '{word}', but there are 2 processes"),
            open_processes(TrainConfig.build(task="classify", data="d", output="o", device=word)),
        ):
            pass
    monkeypatch.delenv("RANK")  # a size alone is no group
    with open_processes(TrainConfig.build(task="classify", data="d", output="o")) as found:
        assert found == Processes()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_metrics_of_dealt_out_images_are_those_of_all(count: int) -> None:
    rng = np.random.default_rng(2)
    logits, truth = rng.normal(size=(11, 3)), rng.integers(0, 3, 11)
    whole, parts = Tally("classify", "abc"), [Tally("classify", "abc") for _ in range(count)]
    several, dealt = (
        Tally("classify", "abc", multi_label=True),
        [Tally("classify", "abc", multi_label=True) for _ in range(count)],
    )
    for index, (row, number) in enumerate(zip(logits, truth.tolist(), strict=True)):
        sample = Sample(f"s{index}", np.zeros((1, 2), np.float32))
        for tally in (whole, parts[index % count]):
            tally.add_class(sample, number, row)
        for tally in (several, dealt[index % count]):
            tally.add_labels(sample, frozenset({number}), row)
    for one, many in ((whole, parts), (several, dealt)):
        joined = many[0].dealt([json.loads(json.dumps(each.to_dict())) for each in many]).metrics()
        expected = one.metrics()
        assert joined.pop("loss") == pytest.approx(expected.pop("loss"))  # type: ignore[misc]
        assert joined == expected


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of one process, whose sums are its own."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_shared_batch_normalisation_is_batch_normalisation(group: None, momentum: float | None) -> None:
    torch.manual_seed(0)
    for kind, size in ((nn.BatchNorm1d, (5, 3)), (nn.BatchNorm2d, (4, 3, 5, 2)), (nn.BatchNorm3d, (2, 3, 2, 3, 4))):
        plain, shared = kind(3, momentum=momentum), kind(3, momentum=momentum)
        shared.__class__ = SharedBatchNorm
        assert list(plain.state_dict()) == list(shared.state_dict())
        for _ in range(2):
            x = torch.randn(size) * 3 + 50
            rows = [x.clone().requires_grad_() for _ in range(2)]
            found = [module(row) for module, row in zip((plain, shared), rows, strict=True)]
            for each in found:
                (each**3).sum().backward()
            torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(rows[1].grad, rows[0].grad, rtol=1e-3, atol=1e-3)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shared.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-4)


def test_messages_reach_every_process(group: None) -> None:
    pair = Processes(0, 2)  # of which this group has one
    assert pair.tell({"a": [1, "ö"]}) == {"a": [1, "ö"]}
    assert pair.highest(3.0, False) == [3.0, 0.0]
    assert Processes().exchange("x") == ["x"] and Processes().tell({"b": 1}) == {"b": 1}
    raise_faults([None, None])
    with pytest.raises(ConvoxelError, match="of 2 processes not all could begin"):
        raise_faults([None, "no data"])
