"""Orientation and spacing: the way from a file's grid to the network's and back, beside SimpleITK and plain loops."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from convoxel.data.data_set import Entry, Sample
from convoxel.data.geometry import Geometry, choose_spacing, find_box, fit_label, own_spacing
from convoxel.data.mapped_image import MappedImage
from convoxel.data.resample import AxisSampling, match_label, resample_image, resample_label, resample_slabs
from convoxel.errors import DataError

Array = NDArray[np.float32]
RAS = Geometry("ras")


def stored_otherwise(
    array: NDArray[np.generic], affine: NDArray[np.float64], axes: tuple[int, ...], backwards: tuple[bool, ...]
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Return the same anatomy (*any, *spatial) with other axes in file and affine."""
    lead = array.ndim - 3
    moved = array.transpose(*range(lead), *(lead + axis for axis in axes))
    other = affine[:, [*axes, 3]].copy()
    for axis, back in enumerate(backwards):
        if back:
            moved = np.flip(moved, lead + axis)
            other[:3, 3] += other[:3, axis] * (moved.shape[lead + axis] - 1)
            other[:3, axis] *= -1
    return np.ascontiguousarray(moved), other


WAYS = [
    (axes, back) for axes in itertools.permutations(range(3)) for back in itertools.product((False, True), repeat=3)
]


def tilted(degrees: float) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    affine = np.diag([0.8, 1.1, 2.5, 1.0])
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ affine[:2, :2]
    affine[:3, 3] = -20, 7, 3
    return affine


@pytest.mark.parametrize("degrees", [0, 10, -40])
def test_every_storage_order_gives_the_same_image_and_label_as_views(degrees: float) -> None:
    rng = np.random.default_rng(0)
    image, affine = rng.normal(size=(2, 4, 5, 6)).astype(np.float32), tilted(degrees)
    label = rng.integers(0, 9, (4, 5, 6)).astype(np.uint8)
    for way in WAYS:
        (pixels, other), (classes, _) = (stored_otherwise(each, affine, *way) for each in (image, label))
        sample = Sample("a", pixels.astype(np.float32), classes.astype(np.uint8), other)
        found = RAS.sample(sample)
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_array_equal(found.label, label)
        assert found.affine is not None and own_spacing(3, found.affine, None) == pytest.approx((0.8, 1.1, 2.5))
        np.testing.assert_allclose(found.affine, affine, atol=1e-12)
        assert np.shares_memory(found.image, sample.image) and found.origin is None
        mapped = RAS.place_sample(sample).image(MappedImage(pixels))  # type: ignore[arg-type]
        np.testing.assert_array_equal(mapped[:, 1:3], image[:, 1:3])


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (0.8, 1.1, 5.0)])
def test_matrices_lead_to_the_places_in_space_that_voxels_have(spacing: tuple[float, ...] | None) -> None:
    # An image that holds its own coordinates: linear functions survive linear interpolation and B-splines within.
    affine = tilted(10)
    index = np.indices((12, 14, 16), np.float64)
    space = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    for axes, back in WAYS[::5]:
        stored, other = stored_otherwise(space, affine, axes, back)
        found = Geometry("ras", spacing).sample(Sample("a", stored.astype(np.float32), None, other))
        assert found.affine is not None
        inner = (slice(None), *(slice(side // 2 - 1, side // 2 + 1) for side in found.image.shape[1:]))
        told = (
            np.tensordot(found.affine[:3, :3], np.indices(found.image.shape[1:]), 1)
            + found.affine[:3, 3, None, None, None]
        )
        np.testing.assert_allclose(found.image[inner], told[inner], atol=0.02 if spacing else 1e-5)
        assert spacing is None or own_spacing(3, found.affine, None) == pytest.approx(spacing)


def test_planes_and_signals_take_part_by_what_their_headers_say() -> None:
    plane = Sample(
        "a", np.arange(6, dtype=np.float32).reshape(1, 2, 3), None, np.diag([-1.0, -1, 1, 1])[:, [1, 0, 2, 3]]
    )
    np.testing.assert_array_equal(RAS.sample(plane).image[0], [[5, 2], [4, 1], [3, 0]])
    ruled = Geometry("ras", (1.0, 1.0))
    tiff = Sample("b", np.ones((1, 8, 6), np.float32), np.ones((8, 6), np.uint8), None, (0.5, 2.0))
    found = ruled.sample(tiff)
    assert found.image.shape == (1, 4, 12) and np.shape(found.label) == (4, 12) and found.spacing_mm == (1.0, 1.0)
    assert not ruled.knows(None, (0.5, 2.0)) and Geometry("keep", (1.0, 1.0)).knows(None, (0.5, 2.0))
    png = Sample("c", np.ones((1, 8, 6), np.float32))
    assert ruled.sample(png) is png and not ruled.knows(None, None) and Geometry().knows(None, None)
    lost = Sample("d", np.ones((1, 4, 4, 4), np.float32), None, np.zeros((4, 4)))  # a matrix that says nothing
    assert Geometry("ras", (1.0, 1.0, 1.0)).sample(lost) is lost
    guessed = Sample(
        "e", np.ones((1, 4, 4, 4), np.float32), None, np.diag([-2.0, 1, 1, 1]), (2.0, 1, 1), oriented=False
    )
    place = Geometry("ras", (1.0, 1.0, 1.0)).place_sample(guessed)
    assert place.upright and place.shape == (8, 4, 4)  # its spacing is known, its orientation is not


def test_images_of_the_rule_come_back_as_they_are() -> None:
    sample = Sample("a", np.ones((1, 4, 4, 4), np.float32), None, np.diag([1.004, 0.997, 3, 1]), (1.0, 1.0, 3.0))
    assert Geometry("ras", (1.0, 1.0, 3.0)).sample(sample) is sample
    assert Geometry().sample(sample) is sample and not Geometry().changes


def test_resampling_equals_simpleitk() -> None:
    rng = np.random.default_rng(1)
    image, own, target = rng.normal(size=(1, 17, 23, 9)).astype(np.float32), (0.7, 1.1, 3.0), (1.0, 0.8, 1.3)
    place = Geometry("keep", target).place((17, 23, 9), None, own)
    samplings = place.samplings
    whole = SimpleITK.GetImageFromArray(image[0].transpose(2, 1, 0))
    whole.SetSpacing(own)
    filter = SimpleITK.ResampleImageFilter()
    filter.SetOutputSpacing(target)
    filter.SetSize(place.shape)
    filter.SetOutputOrigin((place.matrix[:3, 3] * own).tolist())
    filter.SetDefaultPixelValue(np.nan)
    filter.SetInterpolator(SimpleITK.sitkBSpline)
    wanted = SimpleITK.GetArrayFromImage(filter.Execute(whole)).transpose(2, 1, 0)
    found = resample_image(image, samplings, (3, 3, 3))[0]
    apart = np.abs(found - np.clip(wanted, image.min(), image.max()))
    assert (apart[found > image.min()] < 1e-5).all() and (found > image.min()).mean() > 0.99

    label = rng.integers(0, 4, (17, 23, 9)).astype(np.uint8)
    filter.SetInterpolator(SimpleITK.sitkLinear)
    shares = []
    for value in range(4):
        mask = SimpleITK.GetImageFromArray((label == value).astype(np.float32).transpose(2, 1, 0))
        mask.SetSpacing(own)
        shares.append(SimpleITK.GetArrayFromImage(filter.Execute(mask)).transpose(2, 1, 0))
    first, second = np.sort(shares, axis=0)[[-1, -2]]
    clear = first - second > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(resample_label(label, samplings)[clear], np.argmax(shares, axis=0)[clear])


def test_slabs_are_resampled_as_the_whole_whatever_their_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for step in (0.5, 1.0, 1.3, 3.0):
        samplings = [AxisSampling(12, max(1, int(12 / step + 0.5)), step), AxisSampling(7, 5, 1.4), AxisSampling(4, 4)]
        scores = rng.normal(size=(3, 12, 7, 4)).astype(np.float32)
        ((_, whole),) = resample_slabs([(0, scores)], samplings)
        wanted = sum(
            weight[:, None, None] * scores[:, source] for source, weight in zip(*samplings[0].taps(1), strict=True)
        )
        wanted = sum(
            weight[:, None] * wanted[:, :, source] for source, weight in zip(*samplings[1].taps(1), strict=True)
        )
        np.testing.assert_allclose(whole, wanted, atol=1e-6)
        for cuts in ((1, 2, 3, 12), (5, 6, 12), (11, 12)):
            found = np.full(whole.shape, np.nan, np.float32)
            store = np.empty_like(scores)

            def slabs(cuts: tuple[int, ...] = cuts, store: Array = store, scores: Array = scores):  # type: ignore[no-untyped-def]
                for start, stop in zip((0, *cuts), cuts, strict=False):
                    store[...] = np.nan  # a slab is overwritten once the next is asked for
                    store[:, : stop - start] = scores[:, start:stop]
                    yield start, store[:, : stop - start]

            with monkeypatch.context() as patch:
                patch.setattr("convoxel.data.resample._PART", 200)
                for first, slab in resample_slabs(slabs(), samplings):
                    assert np.isnan(found[:, first : first + slab.shape[1]]).all(), "a slice comes twice"
                    found[:, first : first + slab.shape[1]] = slab
            np.testing.assert_array_equal(found, whole)


def test_scores_return_to_their_places_on_the_own_grid() -> None:
    rng = np.random.default_rng(3)
    for axes, back in WAYS:
        label, affine = stored_otherwise(rng.integers(0, 3, (6, 5, 4)), np.diag([1.0, 2, 3, 1]), axes, back)
        place = RAS.place(label.shape, affine, None)
        scores = np.stack([place.turned(label == value) for value in range(3)]).astype(np.float32)
        found = np.full(label.shape, 9)
        for part, slab in place.slabs((first, scores[:, first : first + 2]) for first in range(0, scores.shape[1], 2)):
            found[part] = slab.argmax(axis=0)
        np.testing.assert_array_equal(found, label)


def test_thick_slices_are_interpolated_linearly_across() -> None:
    image = np.zeros((1, 9, 9, 5), np.float32)
    image[..., 2], image[0, 0, 0, 0] = 1.0, -1.0
    thick = Geometry("keep", (1.0, 1.0, 1.0)).sample(Sample("a", image, None, None, (1.0, 1.0, 4.0)))
    assert thick.image[0, 4, 4].tolist() == pytest.approx(
        [*[0] * 6, 0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125, *[0] * 6], abs=1e-4
    )
    assert Geometry("keep", (1.0, 1.0, 1.0)).place((9, 9, 5), None, (1.0, 1.0, 4.0)).coarse == 2
    assert Geometry("keep", (1.0, 1.0, 4.0)).place((9, 9, 5), None, (1.0, 1.0, 1.0)).coarse == 2
    assert Geometry("keep", (1.0, 1.0, 1.0)).place((9, 9, 5), None, (1.0, 4.0, 4.0)).coarse is None
    assert Geometry("keep", (1.0, 1.0, 1.0)).place((9, 9, 5), None, (1.0, 1.0, 3.0)).coarse is None


def test_air_stays_air_and_values_stay_in_their_range() -> None:
    rng = np.random.default_rng(4)
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 6:14, 6:14] = rng.uniform(50, 100, (8, 8))
    found = resample_image(image, [AxisSampling(20, 40, 0.5), AxisSampling(20, 13, 1.5)], (3, 3))[0]
    assert found.min() == 0 and found.max() <= image.max()
    assert (found == 0)[[0, -1]].all() and (found > 0).sum() == 16 * 5
    np.testing.assert_array_equal(found > 0, (found > 0)[::-1, ::-1])


def test_headers_cannot_ask_for_more_memory_than_there_is() -> None:
    sample = Sample("huge", np.ones((1, 8, 8, 8), np.float32), None, np.diag([1e5, 1e5, 1e5, 1]))
    with pytest.raises(DataError, match="huge"):
        Geometry("ras", (1.0, 1.0, 1.0)).sample(sample)
    for size, refusal in ((6, False), (60, True)):  # 0.4 MB and 440 MB
        spaced = Sample("wide", np.ones((1, 8, 8, 8), np.float32), None, np.diag([size, size, size, 1.0]))
        place = Geometry("ras", (1.0, 1.0, 1.0)).place_sample(spaced)
        if refusal:
            with pytest.raises(DataError, match="wide: its spacing would make 480 × 480 × 480 from 8 × 8 × 8 voxels"):
                Geometry("ras", (1.0, 1.0, 1.0)).image(spaced, place)
        else:
            assert Geometry("ras", (1.0, 1.0, 1.0)).image(spaced, place).shape == (1, 48, 48, 48)


def entries(*spacings: tuple[float, ...], shape: tuple[int, ...] = (100, 100, 100)) -> list[Entry]:
    return [Entry("a", shape, spacing, lambda: Sample("a", np.zeros((1, 1, 1, 1), np.float32))) for spacing in spacings]


def test_the_spacing_of_a_run_is_the_median_and_less_for_thick_slices() -> None:
    assert choose_spacing(RAS, entries((1, 1, 1), (1, 1, 2), (2, 1, 3))) == (1, 1, 2)
    assert choose_spacing(RAS, entries((1, 1, 1.000004))) == (1, 1, 1)
    thick = [(1.0, 1.0, side) for side in (4.0, 5.0, 6.0, 7.0, 8.0)]
    assert choose_spacing(RAS, entries(*thick)) == (1, 1, 6)  # as many slices as columns
    assert choose_spacing(RAS, entries(*thick, shape=(100, 100, 20))) == (1, 1, 4.4)
    assert choose_spacing(RAS, entries((1, 1, 1.5), *[(1, 1, 4.0)] * 3, shape=(100, 100, 9))) == pytest.approx(
        (1, 1, 2.25)
    )
    assert choose_spacing(RAS, [Entry("a", (4, 4), None, lambda: Sample("a", np.zeros((1, 1, 1), np.float32)))]) is None
    lying = Entry(
        "a", (9, 9, 9), (3, 1, 2), lambda: Sample("a", np.zeros(1)), affine=np.diag([3.0, 1, 2, 1])[[1, 2, 0, 3]]
    )
    assert choose_spacing(RAS, [lying]) == (1, 2, 3) and choose_spacing(Geometry(), [lying]) == (3, 1, 2)


def test_entries_say_what_their_samples_will_be() -> None:
    sample = Sample(
        "a", np.zeros((1, 4, 6, 10), np.float32), None, np.diag([2.0, 1, 1, 1])[:, [2, 0, 1, 3]], (1.0, 2.0, 1.0)
    )
    entry = Geometry("ras", (1.0, 1.0, 1.0)).entry(
        Entry("a", (4, 6, 10), sample.spacing_mm, lambda: sample, None, sample.affine)
    )
    read = entry.read()
    assert entry.shape == read.image.shape[1:] == (12, 10, 4)
    assert entry.spacing_mm == read.spacing_mm == pytest.approx((1, 1, 1))
    np.testing.assert_array_equal(entry.affine, read.affine)


def test_labels_of_another_grid_are_brought_onto_that_of_their_image(tmp_path: Path) -> None:
    label = np.zeros((10, 10, 10), np.uint8)
    label[2:6, 3:7, 4:8] = 3
    shifted = np.diag([1.0, 1, 1, 1])
    shifted[:3, 3] = 2, -1, 0
    found = fit_label("a", label, np.eye(4), (10, 10, 10), shifted)
    wanted = np.zeros_like(label)
    wanted[0:4, 4:8, 4:8] = 3
    np.testing.assert_array_equal(found, wanted)
    halved = np.diag([0.5, 0.5, 0.5, 1.0])
    halved[:3, 3] = -0.25
    slices = np.zeros_like(label)
    slices[:, 2:5] = 3
    fine = fit_label("a", slices, np.eye(4), (20, 20, 20), halved)
    np.testing.assert_array_equal(fine, slices.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    for axes, back in WAYS[::7]:
        moved, affine = stored_otherwise(label, np.eye(4), axes, back)
        np.testing.assert_array_equal(fit_label("a", moved.astype(np.uint8), affine, (10, 10, 10), np.eye(4)), label)
    far = np.eye(4)
    far[:3, 3] = 1e9
    assert not fit_label("a", label, far, (4, 4, 4), np.eye(4)).any()
    for wrong in (None, np.zeros((4, 4))):
        with pytest.raises(DataError, match=r"a\.nii: "):
            fit_label("a.nii", label, wrong, (10, 10, 10), np.eye(4))
    plane = np.eye(4)
    plane[2, 3] = 5
    with pytest.raises(DataError, match="plane"):
        fit_label("a", label[0], plane, (10, 10), np.eye(4))


def test_match_label_is_a_loop_over_voxels_and_classes() -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(0, 3, (5, 6)).astype(np.uint8)
    matrix = np.array([[0.8, 0.3, -0.6], [-0.2, 0.9, 0.7]])
    found = match_label(label, matrix, (7, 8))
    for i, j in itertools.product(range(7), range(8)):
        y, x = matrix @ (i, j, 1)
        out = max(-0.5 - y, y - 4.5, -0.5 - x, x - 5.5)
        if out > -1e-5:
            assert out < 1e-5 or found[i, j] == 0
            continue
        y, x = min(max(y, 0), 4), min(max(x, 0), 5)
        a, b = min(int(y), 3), min(int(x), 4)
        weight = np.outer([a + 1 - y, y - a], [b + 1 - x, x - b])
        shares = [weight[label[a : a + 2, b : b + 2] == value].sum() for value in range(3)]
        assert sorted(shares)[-1] - sorted(shares)[-2] < 1e-5 or found[i, j] == int(np.argmax(shares))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_of_what_is_not_zero(order: Literal["C", "F"], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoxel.data.mapped_image._SLAB", 40)  # several slabs, along whichever axis is read in one go
    image = np.zeros((2, 7, 8, 9), np.int16, order=order)
    image[0, 2:5, 1:7, 3:4], image[1, 3, 7, 5] = -1, 2
    for values in (image, MappedImage(image)):
        assert find_box(values) == ((2, 5), (1, 8), (3, 6))
        assert find_box(values, positive=True) == ((3, 4), (7, 8), (5, 6))
    assert find_box(np.zeros((1, 3, 4), np.float32)) is None
