"""Signals from files to classes: tables of two rates train one network, which predicts a table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from convoxel.cli import main
from convoxel.train import TrainConfig, fit, load_model


def write(folder: Path) -> Path:
    """Write waves and squares of two channels, some sampled twice as often as the others."""
    rng = np.random.default_rng(0)
    for name in ("square", "wave"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            step = 0.01 if number % 3 else 0.02
            times = step * np.arange(round(1.2 / step))
            wave = np.sin(2 * np.pi * 3 * times + rng.uniform(0, 6))
            signal = np.sign(wave) if name == "square" else wave
            rows = [
                f"{t:.3f},{a:.5f},{b:.5f}" for t, a, b in zip(times, signal, rng.normal(0, 1, len(times)), strict=True)
            ]
            (folder / name / f"{number}.csv").write_text("time,lead,noise\n" + "\n".join(rows) + "\n")
    return folder


def test_tables_train_a_network_and_become_a_table_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run = write(tmp_path / "data"), tmp_path / "run"
    fit(
        TrainConfig.build(
            task="classify", data=str(source), output=str(run), model="course_vgg", width=0.25, batch_size=4, epochs=1,
            steps_per_epoch=1, threads=1, tensorboard=False, augment=False,
        )
    )  # fmt: skip
    loaded = load_model(run)
    assert (loaded.data.dims, loaded.data.channels) == (1, 2) and loaded.data.spacing_mm == pytest.approx((0.01,))
    assert "0.01 s" in (run / "plan.json").read_text()
    table = tmp_path / "classes.csv"
    assert main(["predict", str(run), "--input", str(source / "wave"), "--output", str(table)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{i}.csv" for i in range(5)]
    assert {row["class"] for row in rows} <= {"square", "wave"}
    capsys.readouterr()
