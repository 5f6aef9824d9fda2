"""Checkpoints under fire: damaged bytes, failing disks, and deaths between any two writes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from convoxel.errors import CheckpointError
from convoxel.files.lock import hold_lock
from convoxel.train import checkpoint
from convoxel.train.checkpoint import Store


def tensors(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model.weight": torch.randn(3, 4, 2, generator=generator).permute(2, 0, 1),  # not contiguous
        "model.count": torch.tensor(step),
        "optimiser.0.step": torch.tensor(float(step)),
    }


def body(step: int) -> dict[str, Any]:
    return {"step": step, "history": [{"metric": 0.1 + 0.2, "step": step}], "name": "Fuß"}


def save(store: Store, *steps: int) -> None:
    for step in steps:
        store.save(tensors(step), body(step))


def loaded_step(store: Store) -> int:
    """The step of the newest checkpoint, whose every byte is checked against what was saved."""
    found = store.load()
    step = int(found.body["step"])
    wanted = tensors(step)
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in wanted.items())
    assert found.body["history"] == body(step)["history"] and found.body["name"] == "Fuß"
    return step


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.smoke
def test_newest_of_two_generations(store: Store) -> None:
    save(store, 1, 2, 3)
    assert loaded_step(store) == 3
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["last.json", "last.safetensors", "previous.json", "previous.safetensors"]
    for suffix in (".json", ".safetensors"):
        (store.folder / f"last{suffix}").unlink()
    with pytest.warns(RuntimeWarning, match=r"the last one is missing; the one before it, of step 2"):
        assert loaded_step(store) == 2


def test_nothing_to_load_says_so(store: Store) -> None:
    with pytest.raises(CheckpointError, match=r"no whole checkpoint .no checkpoint is there.*another --output"):
        store.load()


def first_step(store: Store, suffix: str) -> int:
    """The step of the generation that stands in for a damaged one; a warning must name the file."""
    with pytest.warns(RuntimeWarning, match=rf"last\{suffix} is damaged.*the one before it, of step 1"):
        return loaded_step(store)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_bit_and_truncation_is_noticed(store: Store, suffix: str) -> None:
    save(store, 1, 2)
    path = store.folder / f"last{suffix}"
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert first_step(store, suffix) == 1
    for length in {0, 1, 8, *(rng.randrange(len(whole)) for _ in range(40))}:
        path.write_bytes(whole[:length])
        assert first_step(store, suffix) == 1
    path.write_bytes(whole + b"\n")
    assert first_step(store, suffix) == 1


def test_damage_is_told_with_the_tensor(store: Store) -> None:
    save(store, 1)
    path = store.folder / "last.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last.safetensors is damaged or missing \(tensor "):
        store.load()
    (store.folder / "last.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"last.json is damaged"):
        store.load()


def test_another_format_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoxel.files.manifest.FORMAT", 99)
    save(store, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"last.json has format 99, this version reads 1"):
        store.load()


class Fault:
    """Lets the k-th call that changes the disk fail: with an error, or as a death that no code sees."""

    CALLS = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.count = 0
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), at, error))

    def _wrap(self, call: Any, at: int, error: BaseException) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            # A dead process makes no further call; a full disk stays full for writes but lets files go.
            dead = isinstance(error, Death) and self.count >= at
            if dead or self.count == at:
                raise error
            return call(*arguments, **named)

        return wrapped


class Death(BaseException):
    pass


def faults(kind: str) -> Iterator[BaseException]:
    if kind == "death":
        yield Death()
    else:
        for number in (28, 5, 30, 13):  # no space, I/O error, read-only, no permission
            yield OSError(number, os.strerror(number))


def count_calls(folder: Path, action: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        fault = Fault(patch, 10**9, Death())
        action(Store(folder))
        return fault.count


@pytest.mark.parametrize("kind", ["error", "death"])
@pytest.mark.parametrize("best", [False, True])
def test_a_fault_at_any_write_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, best: bool
) -> None:
    origin = tmp_path / "origin"
    save(Store(origin), 1, 2)
    Store(origin).save_best(tensors(2), body(2))

    def act(store: Store) -> None:
        (store.save_best if best else store.save)(tensors(3), body(3))

    shutil.copytree(origin, tmp_path / "count")
    total = count_calls(tmp_path / "count", act, monkeypatch)
    assert total >= 10
    injected = 0
    for at in range(1, total + 1):
        for error in faults(kind):
            run = tmp_path / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(origin, run)
            store = Store(run)
            with monkeypatch.context() as patch:
                Fault(patch, at, error)
                try:
                    act(store)
                except CheckpointError as caught:
                    assert "cannot save in" in str(caught) and "is intact" in str(caught)
                except Death:
                    pass
            injected += 1
            assert loaded_step(store) in ((2,) if best else (2, 3))
            assert store.load_best().body["step"] in (2, 3)
            store.settle()
            assert not list(store.folder.glob(".convoxel-*"))
            save(store, 4, 5)
            assert loaded_step(store) == 5
            assert store.load_best().body["step"] in (2, 3)
    assert injected >= total


def test_a_first_save_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = count_calls(tmp_path / "count", lambda store: save(store, 1), monkeypatch)
    for at in range(1, total):
        run = tmp_path / f"run{at}"
        run.mkdir()
        with monkeypatch.context() as patch:
            Fault(patch, at, OSError(28, os.strerror(28)))
            try:
                save(Store(run), 1)
            except CheckpointError as caught:
                assert "No space left on device" in str(caught)
        whole = False
        with contextlib.suppress(CheckpointError):
            whole = loaded_step(Store(run)) == 1
        left = list(run.rglob("*.*"))
        assert whole or not left, (at, left)


def test_settle_refuses_when_nothing_is_whole(store: Store) -> None:
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        store.settle()


def test_what_reads_back_differently_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 1)
    plain = checkpoint.read_bytes

    def lying(path: Path, count: int = -1) -> bytes:
        content = plain(path, count)
        return content[:-1] + b"?" if path.name == "next.safetensors" else content

    monkeypatch.setattr(checkpoint, "read_bytes", lying)
    with pytest.raises(CheckpointError, match=r"reads back differently.*step 1 is intact"):
        save(store, 2)
    monkeypatch.undo()
    assert loaded_step(store) == 1


def test_checkpoints_name_no_code(store: Store) -> None:
    save(store, 1)
    assert (store.folder / "last.safetensors").read_bytes()[8:9] == b"{"
    assert (store.folder / "last.json").read_bytes()[:1] == b"{"


@pytest.mark.smoke
def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path),
        pytest.raises(CheckpointError, match=rf"process {os.getpid()} is training in .*another --output"),
        hold_lock(tmp_path),
    ):
        pass
    with hold_lock(tmp_path):
        pass


def test_a_folder_that_is_moved_is_noticed(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    run.mkdir()
    with hold_lock(run) as hold:
        (run / ".lock").unlink()  # by somebody who clears hidden files
        hold.check()
        run.rename(moved)
        for _ in range(2):  # no folder of that name, then another one, which another trainer holds
            with pytest.raises(CheckpointError, match="was moved, removed or replaced"):
                hold.check()
            run.mkdir(exist_ok=True)
            (run / ".lock").touch()
    assert (run / ".lock").exists()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write in .*none .No such file"), hold_lock(tmp_path / "none"):
        pass
