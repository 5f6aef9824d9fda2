"""Pictures for the report: upright slices of the labelled part."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.data import Sample
from convoxel.predict.example_pictures import Examples

pytestmark = pytest.mark.smoke


def test_examples_are_upright_slices_of_the_labelled_part() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.float32).reshape(1, 4, 5, 3)
    label = np.zeros((4, 5, 3), np.uint8)
    label[:, :, 2] = 1
    examples = Examples(1)
    examples.offer(0, Sample("head", image, label, np.diag([1.0, 2.0, 3.0, 1.0])), label)
    arrays = examples.arrays()
    assert arrays["images"].shape == (6, 5, 4) and arrays["labels"].min() == 1
    assert arrays["names"][0] == "head, slice 2"
    assert arrays["images"][0, 0, 0] == image[0, 3, 4, 2]  # top left: front, patient's right
    assert arrays["marks"][0].tolist() == ["A", "P", "R", "L"]
    assert arrays["spacing"][0].tolist() == [2, 1]
    flipped = Examples(1)
    flipped.offer(0, Sample("head", image[:, ::-1], label, np.diag([-1.0, 2.0, 3.0, 1.0])), label)
    assert (flipped.arrays()["images"] == arrays["images"]).all()


@pytest.mark.parametrize(("across", "letters"), [(0, "SIAP"), (1, "SIRL"), (2, "APRL")])
def test_examples_are_cut_across_the_shortest_axis(across: int, letters: str) -> None:
    size = [6, 7, 8]
    size[across] = 3
    label = np.zeros(size, np.uint8)
    label[-1, -1, -1] = 1  # right, front, top
    examples = Examples(1)
    examples.offer(0, Sample("v", label[None].astype(np.float32), label, np.eye(4)), label)
    arrays = examples.arrays()
    assert arrays["labels"].shape[1:] == tuple(size[axis] for axis in (2, 1, 0) if axis != across)
    assert arrays["labels"][0, 0, 0] == 1
    assert "".join(arrays["marks"][0]) == letters


def test_examples_of_planes_colours_and_classes() -> None:
    planes = Examples(10)
    for index in range(10):
        size = (4, 4) if index else (6, 2)
        planes.offer(index, Sample(str(index), np.ones((1, *size), np.float32), np.ones(size, np.uint8)),
                     np.ones(size, np.uint8))  # fmt: skip
    assert planes.arrays()["images"].shape == (6, 6, 4)
    colours = Examples(2)
    for index in range(2):
        colours.offer(index, Sample("c", np.ones((3, 4, 5), np.float32), index), 1 - index)
    arrays = colours.arrays()
    assert arrays["images"].shape == (2, 4, 5, 3)
    assert (arrays["labels"].tolist(), arrays["predictions"].tolist()) == ([0, 1], [1, 0])
    assert Examples(3).arrays() == {}
