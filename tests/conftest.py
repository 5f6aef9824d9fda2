"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images, where there is one (CONVOXEL_SHARED_DATA or beside the repository)."""
    named = os.environ.get("CONVOXEL_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real images is not here (set CONVOXEL_SHARED_DATA)")
    return folder
