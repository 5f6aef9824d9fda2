"""Axes of NumPy inputs of a prediction: as stated, as stated for training, or as the network's own tell."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convoxel.predict.case_prediction import MapOptions, read_case
from tests.support.refusal import refused


def predictor(trained: str | None, channels: int = 3, exact: Any = None) -> Any:
    config, data = SimpleNamespace(task="segment", axes=trained, rate=None), SimpleNamespace(dims=2, channels=channels)
    return SimpleNamespace(run=SimpleNamespace(config=config, data=data), exact=exact)


@pytest.mark.parametrize("exact", [None, True])
@pytest.mark.parametrize(
    ("trained", "stated", "shape", "last"),
    [
        (None, None, (9, 8, 3), True),
        (None, None, (3, 9, 8), False),
        ("NHWC", None, (9, 3, 3), True),
        ("CHW", None, (3, 9, 3), False),
        ("CHW", "HWC", (3, 9, 3), True),
    ],
)
def test_axes_of_inputs(
    tmp_path: Path, trained: str | None, stated: str | None, shape: tuple[int, ...], last: bool, exact: Any
) -> None:
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    image = read_case(predictor(trained, exact=exact), [tmp_path / "a.npy"], MapOptions(stated)).image
    assert np.array_equal(image[:, :, :], np.moveaxis(array, -1, 0) if last else array)


def test_axes_that_were_stated_for_another_number_of_axes_do_not_serve(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((9, 8), np.float32))
    assert read_case(predictor("HWC", channels=1), [tmp_path / "a.npy"], MapOptions()).image.shape == (1, 9, 8)
    np.save(tmp_path / "b.npy", np.ones((3, 9, 3), np.float32))
    file = tmp_path / "b.npy"
    refused(lambda: read_case(predictor(None), [file], MapOptions()), file, "CHW or HWC", "--axes")
