"""The demo, on a volume small enough for a test: its figures, its pictures, and the folders it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from convoxel import demonstration
from convoxel.cli import main
from convoxel.data import DataSet, Entry, Sample, Split
from tests.support.counted_clock import count_time


def small_set(validation: object, gap: int) -> DataSet:
    """Two volumes with a bright shell around a brighter core, as ``mni152`` with its parts."""
    assert gap == 44  # the receptive field of a U-Net of two levels, whatever its width

    def part(name: str, depth: int, seed: int) -> Split:
        shape = (20, depth, 20)
        distance = np.linalg.norm(np.indices(shape) - np.reshape([10, depth / 2, 10], (3, 1, 1, 1)), axis=0)
        label = ((distance < 9).astype(np.uint8) + (distance < 5)).astype(np.uint8)
        noise = np.random.default_rng(seed).normal(0, 5, shape)
        image = (80 * label + noise).astype(np.float32)[None]
        sample = Sample(name, image, label, np.eye(4), (1.0, 1.0, 1.0))
        return Split((Entry(name, shape, sample.spacing_mm, lambda: sample),))

    return DataSet(
        "mni152", "segment", 3, 1, ("background", "grey", "white"), part("front", 24, 0), part("back", 16, 1)
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoxel.data.data_source.open_mni152", small_set)
    monkeypatch.setattr(demonstration, "MODEL", {"levels": 2, "width": 4})
    monkeypatch.setattr(demonstration, "_TRAINING", {"steps_per_epoch": 4, "tensorboard": False})
    count_time(monkeypatch, 0.04)


def run(folder: Path, *words: str) -> int:
    return main(["demo", "--output", str(folder), "--minutes", "0.02", "--threads", "1", *words])


@pytest.mark.usefixtures("small")
def test_demo_measures_draws_and_can_be_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    assert run(folder) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    for part in ("44×44×44 voxels", "Dice grey", "Dice white", "Speed-up", "of their RMS", "Next, try:"):
        assert part in shown
    found = json.loads((folder / "demo.json").read_text())
    assert found["complete"] and found["difference"] < 1e-4 and found["equal"] >= 0.9999
    assert found["data"]["gap"] == 44 and found["threads"] == 1 and found["speed_up"] > 0
    assert found["dice"]["convoxel"] == pytest.approx(found["dice"]["torch"], abs=1e-3)
    for name in (*found["pictures"], found["report"]):
        assert Path(name).stat().st_size > 500
    assert Path(found["pictures"][0]).read_bytes().startswith(b"\x89PNG")

    steps = found["training"]["steps"]
    assert run(folder, "--json") == 0, capsys.readouterr().err
    shown_again = capsys.readouterr()
    again = json.loads(shown_again.out)
    assert again["training"]["steps"] == steps and "used again" in shown_again.err

    (folder / "note.txt").write_text("mine")
    assert main(["demo", "--output", str(folder), "--minutes", "0.01", "--threads", "1"]) == 0
    assert "trained anew" in capsys.readouterr().out and (folder / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_demo_leaves_other_folders_alone(force: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, content in enumerate(["", "[]", '{"convoxel_demo": false}']):
        folder = tmp_path / str(number)
        (folder / "run").mkdir(parents=True)
        (folder / "run" / "thesis.txt").write_text("mine")
        (folder / "demo.json").write_text(content)
        assert run(folder, *force) == 2
        line = capsys.readouterr().err
        assert "not a Convoxel demo" in line and line.count("\n") == 1
        assert (folder / "run" / "thesis.txt").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    assert run(file, *force) == 2 and file.read_text() == "mine"
