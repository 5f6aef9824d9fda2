"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Networks of tests are small: more threads of PyTorch would spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# They expect the CPU's bits; tools/device_check.py is for GPUs.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_configure(config: pytest.Config) -> None:
    """Let trainings be as short as the suite's are: a network of a few steps may well know one class only."""
    config.addinivalue_line("filterwarnings", "ignore:train. the network predicts")


@pytest.fixture(autouse=True, scope="session")
def no_cache() -> Iterator[None]:
    """Tests neither read nor write the user's cache; one that needs a cache names a folder of its own.

    Nor does the width of the terminal in which the suite runs change what they see.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVOXEL_CACHE", "")
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images, where there is one (CONVOXEL_SHARED_DATA or beside the repository)."""
    named = os.environ.get("CONVOXEL_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real images is not here (set CONVOXEL_SHARED_DATA)")
    return folder
