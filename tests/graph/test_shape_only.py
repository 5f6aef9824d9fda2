"""Constants without numbers: no memory, the shapes and types of the numbers that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.shape_only import ShapeOnly, outline


def test_it_takes_the_memory_of_one_number() -> None:
    array = ShapeOnly((1 << 20, 1 << 20), np.float64)
    assert array.shape == (1 << 20, 1 << 20) and array.dtype == np.float64 and set(array.strides) == {0}
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    assert root.nbytes == 8
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


@pytest.mark.parametrize(
    "use",
    [
        lambda a: a.reshape(2, 12, 5),
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[1:, None],
        lambda a: a * 2.0,
        lambda a: np.ones((3, 1, 1, 1)) - a,
        lambda a: a / np.sqrt(a + 1e-5),
        lambda a: np.maximum(a, 0) > 1,
    ],
)
def test_results_are_of_the_kind_with_the_shape_and_type_of_numbers(use) -> None:  # type: ignore[no-untyped-def]
    found, expected = use(ShapeOnly((4, 6, 5))), use(np.zeros((4, 6, 5), np.float32))
    assert isinstance(found, ShapeOnly) and set(found.strides) <= {0}
    assert found.shape == expected.shape and found.dtype == expected.dtype


def test_an_outline_keeps_small_and_whole_numbers() -> None:
    constants = {
        "weight": np.ones((8, 3, 3, 3), np.float32),
        "double": np.ones(17),
        "scale": np.full(3, 2.0, np.float32),
        "index": np.arange(1000),
    }
    found = outline(Graph("g", (), (), (), constants)).constants
    assert {name for name, array in found.items() if isinstance(array, ShapeOnly)} == {"weight", "double"}
    assert all(
        found[name].shape == array.shape and found[name].dtype == array.dtype for name, array in constants.items()
    )
    assert found["index"] is constants["index"] and found["scale"] is constants["scale"]
