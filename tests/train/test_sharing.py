"""The study of sharing, sparsity and the prior: its counts against matrices, its table against what is documented."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from convoxel.arithmetic import conv_matrix
from convoxel.cli import main
from convoxel.data import load
from convoxel.draw.sharing_chart import sharing
from convoxel.errors import ConfigError, DataError
from convoxel.nn import functional as cf
from convoxel.train.sharing_study import SHARING, read_arrays, study_sharing
from tests.support.refusal import refused_command


def some(dims: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).random((count, 2, *(5, 4, 3)[:dims]), np.float32), np.arange(count) % 3


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_B3_counts_are_those_of_the_matrices(dims: int) -> None:
    study = study_sharing(some(dims), some(dims), kernel=2, channels=3, steps=3, starts=1)
    shared, local, full = study.rows
    weight = torch.ones(3, 2, *(2,) * dims)
    matrix = cf.convolution_matrix(weight, (5, 4, 3)[:dims], form="scipy")
    assert [row.kind for row in study.rows] == list(SHARING)
    assert shared.params == weight.numel() and local.params == local.nonzeros == shared.nonzeros == matrix.nnz
    assert full.params == full.nonzeros == full.multiplications == matrix.shape[0] * matrix.shape[1]
    index = matrix.indices.dtype.itemsize
    stored = matrix.nnz * (4 + index) + len(matrix.indptr) * index
    assert (shared.size_bytes, local.size_bytes, full.size_bytes) == (4 * shared.params, stored, 4 * full.params)
    assert shared.matrix.shape == full.matrix.shape == (matrix.shape[0] // 3, matrix.shape[1] // 2)


def test_B2_lecture_example() -> None:
    """A 3×3 image and a 2×2 kernel: 4 parameters shared, 16 local, 36 full."""
    images, labels = np.random.default_rng(0).random((6, 1, 3, 3), np.float32), np.arange(6) % 2
    study = study_sharing((images, labels), (images, labels), kernel=2, channels=1, steps=1, starts=1)
    assert [row.params for row in study.rows] == [4, 16, 36]
    counts = conv_matrix((3, 3), 1, 1, (2, 2))
    assert (counts.shared, counts.nonzeros, counts.dense) == (4, 16, 36)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_B4_distance_from_the_prior(dims: int) -> None:
    shared, local, full = study_sharing(some(dims), some(dims), kernel=2, channels=2, steps=5, starts=1).rows
    assert shared.distance < 1e-6 and np.allclose(shared.matrix, shared.nearest, atol=1e-6)
    assert 0.1 < local.distance <= 1 and 0.1 < full.distance <= 1
    zero = shared.matrix == 0
    assert not local.matrix[zero].any() and full.matrix[zero].all(), "local weights keep the sparsity, free ones do not"
    assert np.array_equal(full.nearest == 0, zero)


def test_B2_study_on_digits_is_reproduced() -> None:
    """A sample of the documented table: the same order, with fewer steps and starts."""
    digits = load("digits", "classify", seed=0)
    train, test = read_arrays(digits.train, 100), read_arrays(digits.validation)
    study = study_sharing(train, test, steps=60, starts=1)
    shared, local, full = study.rows
    assert [row.params for row in study.rows] == [72, 2592, 18432]
    assert min(row.train_accuracy for row in study.rows) > 0.97
    assert shared.gap < min(local.gap, full.gap) and shared.moved_accuracy > local.moved_accuracy + 0.05
    assert study.samples == 100 and study.size == (8, 8) and study.kernel == (3, 3)


def test_starts_are_seeded() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (study_sharing(some(1), some(1), steps=2, starts=1, seed=seed) for seed in (0, 0, 1))
    assert first.to_dict() == again.to_dict() != other.to_dict()
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_command_and_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--steps", "2", "--starts", "1", "--samples", "20"]
    picture = tmp_path / "sharing.svg"
    assert main(["compare", "sharing", *short, "--output", str(picture)]) == 0
    shown = "".join(capsys.readouterr().out.split())  # a long path is broken at the end of a line
    words = (*SHARING, "18,432", "new, moved", f"Figure: {picture}")
    assert all("".join(word.split()) in shown for word in words)
    assert "nearest convolution" in picture.read_text(encoding="utf-8")
    assert main(["compare", "sharing", *short, "--channels", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["params"] for row in found["rows"]] == [18, 648, 4608] and found["channels"] == 2
    assert "samples: got 9999; the data set has" in refused_command(capsys, "compare", "sharing", "--samples", "9999")
    assert "an input of size 8" in refused_command(capsys, "compare", "sharing", "--kernel", "9")
    assert "output: the folder of" in refused_command(capsys, "compare", "sharing", "-o", tmp_path / "none" / "a.svg")


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="steps is 0, but it must be a whole number of at least 1"):
        study_sharing(some(1), some(1), steps=0)
    wide = np.zeros((2, 1, 96, 96), np.float32), np.arange(2)
    with pytest.raises(ConfigError, match=r"images of \(96, 96\) need a fully connected layer of [\d,]+ weights"):
        study_sharing(wide, wide)
    digits = load("digits", "classify").train
    with pytest.raises(DataError, match="samples: got 0"):
        read_arrays(digits, 0)


def test_images_of_different_sizes_are_refused() -> None:
    first = load("digits", "classify").train[0]
    samples = [first, replace(first, image=first.image[:, :4])]
    with pytest.raises(DataError, match=r"images of 2 different sizes; expected one\. Crop or resize them"):
        read_arrays(samples)  # type: ignore[arg-type]


def test_draw_writes_every_kind() -> None:
    figure = sharing(study_sharing(some(3), some(3), kernel=2, steps=1, starts=1))
    assert all(kind in figure.text for kind in SHARING) and figure.height > 100
