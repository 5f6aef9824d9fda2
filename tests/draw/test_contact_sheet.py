"""Contact sheets: every sample has its picture, and what lies in the picture is the sample's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoxel import data, draw
from convoxel.cli import main
from convoxel.errors import ConfigError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("shape", [(40,), (12, 20), (6, 12, 14)])
def test_a_sheet_of_label_maps(tmp_path: Path, shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(8):
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(1, n // 2) for n in shape)] = 1
        for part, values in (("images", RNG.normal(0, 1, shape)), ("labels", label)):
            (tmp_path / part).mkdir(exist_ok=True)
            np.save(tmp_path / part / f"{i}.npy", values)
    dataset = data.load(tmp_path, "segment")
    sheet, one = (draw.contact_sheet(dataset, count=count) for count in (24, 1))
    assert sheet.width > 6 * 168 and sheet.height > one.height > 168
    pixels = np.asarray(sheet).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - draw.class_colour(1)).sum(axis=1) == 0).sum() > 100  # the contour of the class
    assert main(["data", "view", str(tmp_path), "--output", str(tmp_path / "a.png"), "--part", "train"]) == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and "Wrote" in capsys.readouterr().out


def test_the_slice_with_most_of_a_label_is_shown(tmp_path: Path) -> None:
    import nibabel

    for i in range(2):
        image, label = np.zeros((20, 24, 8), np.float32), np.zeros((20, 24, 8), np.uint8)
        image[:10, :, 6], label[:10, :, 6] = 100, 1  # towards the patient's left, shown on the right
        for part, values in (("images", image), ("labels", label)):
            (tmp_path / part).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / part / f"{i}.nii")
    sheet = np.asarray(draw.contact_sheet(data.load(tmp_path, "segment"), "train"))[46 : 46 + 168, 16 : 16 + 168]
    shown = np.abs(sheet.astype(int) - draw.class_colour(1)).sum(axis=2) < 200
    assert shown[:, 90:150].mean() > 0.9 and shown[:, 20:80].mean() < 0.1


def test_broken_samples_are_named(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"{i}.npy", np.full((9, 9), np.nan) if i == 1 else RNG.normal(0, 1, (9, 9)))
    assert draw.contact_sheet(data.load(tmp_path, "classify")).mode == "RGB"
    with pytest.raises(ConfigError, match=r"count is 0"):
        draw.contact_sheet(data.load(tmp_path, "classify"), count=0)
    with pytest.raises(ConfigError, match=r"no name of a PNG file"):
        draw.save_contact_sheet(tmp_path / "a.jpg", data.load(tmp_path, "classify"))
