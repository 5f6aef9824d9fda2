"""Drawn files of every format: a few of those that ``python -m tools.drawn_files`` compares, and what it would find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoxel import data
from tools.drawn_files import FORMATS, compare


@pytest.mark.filterwarnings("ignore")  # of the libraries that write these files
@pytest.mark.parametrize("name", FORMATS)
def test_files_hold_what_another_library_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(name, 1000, tmp_path / "a")
    read = data.read_image

    def shifted(path: Path) -> data.Sample:
        sample = read(path)
        return replace(sample, image=np.roll(sample.image, 1, axis=-1))

    monkeypatch.setattr(data, "read_image", shifted)
    with pytest.raises(AssertionError):
        compare(name, 1000, tmp_path / "b")
