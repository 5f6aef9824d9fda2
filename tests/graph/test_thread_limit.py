"""Threads that are limited for a while, with PyTorch or without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from convoxel.errors import ConfigError
from convoxel.graph.threads import limit_threads
from convoxel.native.machine import default_threads
from convoxel.predict.ray_workers import Worker

LATER = """
import sys
from convoxel.graph.threads import limit_threads
with limit_threads(1):
    assert "torch" not in sys.modules
    import torch
    assert torch.get_num_threads() == 1
assert torch.get_num_threads() == 2
"""


def test_pytorch_follows_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOXEL_THREADS", "2")
    before = torch.get_num_threads()
    with limit_threads(5):
        assert (torch.get_num_threads(), default_threads()) == (5, 5)
    assert (torch.get_num_threads(), os.environ["CONVOXEL_THREADS"]) == (before, "2")
    with pytest.raises(ConfigError, match="threads is 0"), limit_threads(0):
        pass
    with pytest.raises(ConfigError, match=r"threads is 1000.*at most"), limit_threads(10**40):
        pass


def test_pytorch_is_not_imported_and_learns_of_it_when_it_is() -> None:
    subprocess.run([sys.executable, "-c", LATER], check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})


def test_a_worker_keeps_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOXEL_THREADS", raising=False)
    before = torch.get_num_threads()
    worker = Worker(lambda: None, 7)  # type: ignore[arg-type, return-value]
    assert default_threads() == 7
    del worker
    assert torch.get_num_threads() == before and "CONVOXEL_THREADS" not in os.environ
