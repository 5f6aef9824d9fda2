"""Pictures for the report: upright slices of the labelled part."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.data import Sample
from convoxel.predict.example_pictures import Examples
from convoxel.predict.metrics import ClassifiedImage, SegmentedImage

pytestmark = pytest.mark.smoke


def segmented(metric: float | None) -> SegmentedImage:
    return {"name": "x", "subject": "x", "dice": {}, "metric": metric, "voxels": {}, "values": {}, "confusion": []}


def classified(probability: float, correct: bool = False) -> ClassifiedImage:
    return {"name": "x", "subject": "x", "label": "a", "predicted": "b", "probability": probability,
            "correct": correct, "probabilities": {}}  # fmt: skip


def test_examples_are_upright_slices_of_the_labelled_part() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.float32).reshape(1, 4, 5, 3)
    label = np.zeros((4, 5, 3), np.uint8)
    label[:, :, 2] = 1
    examples = Examples(1)
    examples.offer(0, Sample("head", image, label, np.diag([1.0, 2.0, 3.0, 1.0])), label, segmented(1.0))
    arrays = examples.arrays()
    assert arrays["images"].shape == (6, 5, 4) and arrays["labels"].min() == 1
    assert arrays["names"][0] == "head, slice 2"
    assert arrays["images"][0, 0, 0] == image[0, 3, 4, 2]  # top left: front, patient's right
    assert arrays["marks"][0].tolist() == ["A", "P", "R", "L"]
    assert arrays["spacing"][0].tolist() == [2, 1]
    flipped = Examples(1)
    flipped.offer(0, Sample("head", image[:, ::-1], label, np.diag([-1.0, 2.0, 3.0, 1.0])), label, segmented(1.0))
    assert (flipped.arrays()["images"] == arrays["images"]).all()


@pytest.mark.parametrize(("across", "letters"), [(0, "SIAP"), (1, "SIRL"), (2, "APRL")])
def test_examples_are_cut_across_the_shortest_axis(across: int, letters: str) -> None:
    size = [6, 7, 8]
    size[across] = 3
    label = np.zeros(size, np.uint8)
    label[-1, -1, -1] = 1  # right, front, top
    examples = Examples(1)
    examples.offer(0, Sample("v", label[None].astype(np.float32), label, np.eye(4)), label, segmented(1.0))
    arrays = examples.arrays()
    assert arrays["labels"].shape[1:] == tuple(size[axis] for axis in (2, 1, 0) if axis != across)
    assert arrays["labels"][0, 0, 0] == 1
    assert "".join(arrays["marks"][0]) == letters


def test_examples_of_planes_colours_and_classes() -> None:
    planes = Examples(10)
    for index in range(10):
        size = (4, 4) if index else (6, 2)
        planes.offer(index, Sample(str(index), np.ones((1, *size), np.float32), np.ones(size, np.uint8)),
                     np.ones(size, np.uint8), segmented(1.0))  # fmt: skip
    assert planes.arrays()["images"].shape == (6, 6, 4)
    colours = Examples(2)
    for index in range(2):
        colours.offer(index, Sample("c", np.ones((3, 4, 5), np.float32), index), 1 - index, classified(0.5))
    arrays = colours.arrays()
    assert arrays["images"].shape == (2, 4, 5, 3)
    assert (arrays["labels"].tolist(), arrays["predictions"].tolist()) == ([0, 1], [1, 0])
    assert Examples(3).arrays() == {}


def test_half_of_the_examples_are_the_worst_and_come_first() -> None:
    """Of 30 images, six are drawn: the three worst of all, wherever they come, and three spread ones."""
    label = np.zeros((4, 4), np.uint8)
    scores = np.random.default_rng(0).permutation(30) / 30
    examples = Examples(30)
    for index, score in enumerate(scores):
        metric = None if index == 7 else float(score)
        examples.offer(index, Sample(str(index), label[None].astype(np.float32), label), label, segmented(metric))
    arrays = examples.arrays()
    shown, expected = arrays["scores"], np.sort(np.delete(scores, 7))
    assert len(shown) == 6 and (np.diff(shown) >= 0).all()
    spread = {str(index) for index in (0, 14, 29)}
    hardest = [score for index, score in enumerate(scores) if str(index) not in spread and index != 7]
    assert set(np.sort(hardest)[:3]) <= set(shown) and spread <= set(arrays["names"]) and shown[0] == expected[0]
    assert arrays["names"][0] == str(int(np.argmin(scores)))


def test_a_bad_volume_shows_the_slice_where_most_is_wrong() -> None:
    label = np.zeros((8, 8, 5), np.uint8)
    wrong = label.copy()
    wrong[2:6, 2:6, 3] = 1
    wrong[0, 0, 1] = 1
    examples = Examples(40)
    for index in range(40):
        bad = index == 11
        found, row = (wrong, segmented(0.1)) if bad else (label, segmented(None))
        examples.offer(index, Sample(str(index), label[None].astype(np.float32), label), found, row)
    arrays = examples.arrays()
    assert arrays["names"][0] == "11, slice 3" and arrays["predictions"][0].sum() == 16
    assert arrays["scores"][0] == 0.1 and np.isnan(arrays["scores"][1:]).all()


def test_confident_mistakes_are_the_worst_of_a_classification() -> None:
    examples = Examples(50, 4)
    for index in range(50):
        row = classified(0.9, correct=index not in (20, 21)) if index != 21 else classified(0.99)
        examples.offer(index, Sample(str(index), np.ones((1, 4, 4), np.float32), 0), int(not row["correct"]), row)
    arrays = examples.arrays()
    assert arrays["names"][:2].tolist() == ["21", "20"] and arrays["predictions"][:3].tolist() == [1, 1, 0]
