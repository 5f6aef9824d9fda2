"""Programs as objects: pickled, copied, sent to other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.errors import GraphError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.run.program import Program

X = np.random.default_rng(0).standard_normal((2, 16, 10, 12), np.float32)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # More than 64 KiB of weights in one layer, which a loaded program leaves in its file.
        self.body = nn.Sequential(
            nn.Conv2d(16, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 4, 1)
        )

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.body(x)
        return {"map": y, "mean": [y.mean((2, 3)), None, x.shape[0]]}


def unpickled(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  # made by this test


def network() -> nn.Module:
    torch.manual_seed(0)
    return Heads().eval()


@pytest.fixture(scope="module")
def program() -> Program:
    made = compile(network(), X, threads=1, algorithm="direct", precision="high", verify=True)
    return made.replace(choices={"avx9": {"a problem": "indirect"}}, verification=made.verification)


def same(a: Program, b: Program) -> None:
    for setting in ("threads", "algorithm", "precision", "choices", "verification", "structure"):
        assert getattr(a, setting) == getattr(b, setting), setting
    assert str(a.graph) == str(b.graph) and str(a.recorded) == str(b.recorded)
    ours, theirs = a(X), b(X)
    assert ours["mean"][1:] == theirs["mean"][1:] == [None, 2]
    np.testing.assert_array_equal(ours["map"], theirs["map"])
    np.testing.assert_array_equal(ours["mean"][0], theirs["mean"][0])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_hold_everything(program: Program, protocol: int) -> None:
    data = pickle.dumps(program, protocol)
    again = unpickled(data)
    same(again, program)
    assert again.file is None and pickle.dumps(again, protocol) == data


def test_the_content_of_a_pickle_is_the_file_and_is_checked(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path / "net.cvx")
    make, (data, threads, verification) = program.__reduce__()
    assert data == (tmp_path / "net.cvx").read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b"", b"{}" * 10):
        with pytest.raises(GraphError, match="the pickled program is"):
            make(damaged, threads, verification)


def test_a_copy_shares_and_a_deep_copy_does_not(program: Program) -> None:
    program(X)
    shallow, deep = copy.copy(program), copy.deepcopy(program)
    for made in (shallow, deep):
        assert made is not program
        same(made, program)
    assert shallow._plans is program._plans and shallow._packed_weights is program._packed_weights
    assert deep._plans is not program._plans and deep._packed_weights is not program._packed_weights
    for name, array in program.graph.constants.items():
        assert shallow.graph.constants[name] is array
        assert not np.shares_memory(deep.graph.constants[name], array)
        np.testing.assert_array_equal(deep.graph.constants[name], array)
    holder = copy.deepcopy({"one": program, "other": program})
    assert holder["one"] is holder["other"] is not program


def test_copies_of_a_loaded_program_need_no_file(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.cvx"
    program.save(path)
    loaded = cx.load(path, threads=1)
    assert isinstance(loaded, Program) and loaded.file is not None
    copies = [copy.deepcopy(loaded), unpickled(pickle.dumps(loaded))]
    with path.open("r+b") as file:
        file.truncate(5000)
    for made in copies:
        assert made.file is None
        np.testing.assert_array_equal(made(X)["map"], program(X)["map"])
    for make in (copy.deepcopy, pickle.dumps, lambda loaded: copy.copy(loaded)(np.concatenate([X, X]))):
        with pytest.raises(GraphError, match="was overwritten while a program of it was in use"):
            make(loaded)  # type: ignore[operator]


def test_a_copy_outlives_its_program_in_every_thread(program: Program) -> None:
    expected = program(X)["map"]
    found: list[Any] = []

    def work() -> None:
        for make in (copy.copy, copy.deepcopy, lambda p: unpickled(pickle.dumps(p))):
            found.append(make(program)(X)["map"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12 and all(np.array_equal(y, expected) for y in found)


def test_other_processes(program: Program) -> None:
    """A process that inherits nothing, and that needs no PyTorch."""
    code = "import pickle, sys; p = pickle.load(sys.stdin.buffer); x = pickle.load(sys.stdin.buffer); "
    code += "assert 'torch' not in sys.modules; sys.stdout.buffer.write(p(x)['map'].tobytes())"
    given = pickle.dumps(program) + pickle.dumps(X)
    found = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True).stdout
    assert found == program(X)["map"].tobytes()


def test_pools_of_processes(program: Program) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for each, x in zip(pool.map(program, [X, X[:1]]), (X, X[:1]), strict=True):
            np.testing.assert_array_equal(each["map"], program(x)["map"])


def test_what_runs_in_pytorch_is_copied_but_not_pickled() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x) + 1

    with pytest.warns(UserWarning, match="will run in PyTorch"):
        program = compile(Net(), X)
    np.testing.assert_array_equal(copy.deepcopy(program)(X), program(X))
    with pytest.raises(UnsupportedError, match="bessel_j0"):
        pickle.dumps(program)


def test_joblib(program: Program) -> None:
    joblib = pytest.importorskip("joblib")
    for backend in ("threading", "loky"):
        found = joblib.Parallel(2, backend)(joblib.delayed(program)(X[i : i + 1]) for i in range(2))
        for i, each in enumerate(found):
            np.testing.assert_array_equal(each["map"], program(X[i : i + 1])["map"])
    assert joblib.hash(program) == joblib.hash(unpickled(pickle.dumps(program)))
