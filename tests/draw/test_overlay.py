"""Overlays: what is drawn where, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoxel import draw
from convoxel.draw.image_overlay import errors, grey_window, layers
from convoxel.errors import ConfigError, DataError, ShapeError

RNG = np.random.default_rng(0)


def test_panels_mark_labels_and_each_kind_of_error() -> None:
    image = np.full((40, 40), 0.5)
    image[0, 0], image[0, 1] = 0.0, 1.0
    label, prediction = np.zeros((2, 40, 40), np.uint8)
    label[10:20, 10:20], prediction[10:20, 15:25] = 1, 1
    label[30:35, 30:35], prediction[30:35, 30:35] = 1, 2
    pictures = draw.panels(image, label, prediction, height=40)
    assert list(pictures) == ["image", "label", "prediction", "difference"]
    assert {p.size for p in pictures.values()} == {(40, 40)}
    found = {name: np.asarray(p).astype(int) for name, p in pictures.items()}
    grey = found["image"][5, 35]
    assert grey[0] == grey[1] == grey[2]
    assert found["label"][10, 10].tolist() == list(draw.class_colour(1))  # the contour is opaque
    inside = found["label"][15, 15]
    assert inside[0] > inside[2]  # the fill is orange, the grey shines through
    for place, kind in (((15, 12), "missed"), ((15, 22), "extra"), ((32, 32), "confused")):
        colour = np.asarray(draw.ERROR_COLOURS[kind])
        distance = {k: np.abs(found["difference"][place] - np.asarray(c)).sum() for k, c in draw.ERROR_COLOURS.items()}
        assert (
            min(distance, key=lambda k: distance[k]) == kind and np.abs(found["difference"][place] - colour).max() < 60
        )
    right = found["difference"][15, 17]
    assert right[0] == right[1] == right[2]  # where they agree nothing is marked


def test_masks_of_paint_programs_have_one_class() -> None:
    image, mask = RNG.random((12, 12)), np.zeros((12, 12), np.uint8)
    mask[3:8, 3:8] = 255
    both = [draw.overlay(image, each, classes=("back", "cell")) for each in (mask, mask // 255)]
    assert np.array_equal(*map(np.asarray, both))


def test_errors_partition_the_wrong_pixels() -> None:
    label, prediction = RNG.integers(0, 3, (2, 30, 30))
    kinds = errors(label, prediction)
    assert np.array_equal(sum(w.astype(int) for w in kinds.values()), (label != prediction).astype(int))


@pytest.mark.parametrize("shape", [(20, 30), (1, 20, 30), (3, 20, 30), (20, 30, 1), (20, 30, 3)])
def test_overlay_takes_grey_and_colour(shape: tuple[int, ...]) -> None:
    picture = draw.overlay(RNG.random(shape), np.ones((20, 30), np.uint8), classes=("back", "cell"), title="one")
    assert picture.mode == "RGB" and picture.width > picture.height


def test_overlay_with_everything_and_not_finite_pixels() -> None:
    image = RNG.normal(size=(20, 20)).astype(np.float32)
    image[0, :3] = np.nan, np.inf, -np.inf
    picture = draw.overlay(
        image, np.ones((20, 20), bool), np.zeros((20, 20), np.uint8), classes=("a", "b"), marks=("S", "I", "R", "L"),
        captions={"image": "a longer note than the picture is wide"}, spacing=(2.0, 1.0), window=(-1.0, 1.0),
    )  # fmt: skip
    assert picture.width > 4 * 150


def test_spacing_gives_the_proportions_of_the_body() -> None:
    assert draw.panels(np.eye(10), spacing=(3.0, 1.0), height=300)["image"].size == (100, 300)


@pytest.mark.parametrize("channels", ["none", "first", "last"])
def test_crop_leaves_out_empty_borders_only(channels: str) -> None:
    image = np.zeros((100, 120))
    image[40:60, 30:90] = RNG.random((20, 60)) + 0.5
    label = np.zeros((100, 120), np.uint8)
    label[50, 100] = 1
    shown = {"none": image, "first": np.stack([image] * 3), "last": np.stack([image] * 3, axis=-1)}[channels]
    cropped = draw.overlay(shown, label, crop=True)
    by_hand = draw.overlay(image[36:64, 26:105], label[36:64, 26:105])
    assert cropped.size == by_hand.size
    # The grey window's quantiles are interpolated among three times as many values: one grey level of rounding.
    assert np.abs(np.asarray(cropped).astype(int) - np.asarray(by_hand)).max() <= 1
    whole = draw.overlay(np.zeros((10, 10)), crop=True)
    assert whole.tobytes() == draw.overlay(np.zeros((10, 10))).tobytes()
    with pytest.raises(ShapeError, match="label has shape"):
        draw.overlay(image, label[1:], crop=True)


def test_flat_image_and_grey_window() -> None:
    assert draw.panels(np.full((4, 4), 7.0))["image"].size == (300, 300)
    low, high = grey_window(np.full(5, 7.0))
    assert low == 7.0 and high > low


def test_save_overlay_writes_a_png(tmp_path: Path) -> None:
    path = draw.save_overlay(tmp_path / "a.png", np.eye(8), np.eye(8, dtype=np.uint8), title="eye")
    with Image.open(path, formats=["PNG"]) as read:
        assert read.format == "PNG"
    drawn = draw.png(draw.overlay(np.eye(8), np.eye(8, dtype=np.uint8), title="eye"))
    assert path.read_bytes() == drawn and Image.open(io.BytesIO(drawn), formats=["PNG"]).mode == "RGB"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"label has shape \(4, 5\) but the image has \(4, 4\).*Give a label"):
        draw.overlay(np.eye(4), np.ones((4, 5), np.uint8))
    with pytest.raises(ShapeError, match=r"prediction has shape"):
        draw.panels(np.eye(4), None, np.ones((5, 4), np.uint8))
    with pytest.raises(ShapeError, match=r"image has shape \(2, 4, 4\).*oriented_slice"):
        draw.overlay(np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="no finite pixel"):
        draw.overlay(np.full((4, 4), np.nan))
    with pytest.raises(ConfigError, match=r"'a.jpg'.*end it in .png"):
        draw.save_overlay(tmp_path / "a.jpg", np.eye(4))
    with pytest.raises(ConfigError, match="index is 0; foreground classes count from 1"):
        draw.class_colour(0)
    assert list(tmp_path.iterdir()) == []


def axes(flips: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """An affine whose stored axis i runs along world axis order[i], backwards if flips[i] is −1."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, (sign, world) in enumerate(zip(flips, order, strict=True)):
        affine[world, stored] = sign * (stored + 1.0)
    return affine


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("plane", list(draw.PLANES))
def test_slices_show_the_same_body_however_it_is_stored(order, flips, plane) -> None:  # type: ignore[no-untyped-def]
    body = RNG.integers(0, 255, (4, 5, 6))  # x to the right, y to the front, z up
    stored = np.transpose(body, order)[tuple(slice(None, None, flip) for flip in flips)]
    affine = axes(flips, order)
    shown = draw.oriented_slice(stored, affine, plane, 0.3)
    expected = {
        "sagittal": body[1].T[::-1, ::-1],
        "coronal": body[:, 1].T[::-1, ::-1],
        "axial": body[:, :, 1].T[::-1, ::-1],
    }[plane]
    assert np.array_equal(shown.pixels, expected)
    assert shown.marks == tuple({"sagittal": "SIAP", "coronal": "SIRL", "axial": "APRL"}[plane])
    world = {"sagittal": (2, 1), "coronal": (2, 0), "axial": (1, 0)}[plane]
    assert shown.spacing == tuple(order.index(w) + 1.0 for w in world)
    assert draw.plane_axis(affine, plane) == order.index({"sagittal": 0, "coronal": 1, "axial": 2}[plane])


def test_slice_without_affine_and_with_channels() -> None:
    volume = RNG.random((2, 4, 5, 6))
    shown = draw.oriented_slice(volume, None, "axial", 3)
    assert shown.marks is None and shown.pixels.shape == (2, 5, 4)


def test_slice_refusals() -> None:
    volume = np.zeros((3, 4, 5))
    with pytest.raises(ConfigError, match=r"plane is 'top', but it can be 'sagittal', 'coronal' or 'axial'"):
        draw.oriented_slice(volume, None, "top")
    with pytest.raises(ConfigError, match=r"plane is 'top'"):
        draw.plane_axis(None, "top")
    with pytest.raises(ConfigError, match=r"position is 5; the volume has slices 0 to 4"):
        draw.oriented_slice(volume, None, "axial", 5)
    with pytest.raises(ConfigError, match=r"position is 1.5; give an index"):
        draw.oriented_slice(volume, None, "axial", 1.5)
    with pytest.raises(ShapeError, match=r"volume has shape \(3, 4\)"):
        draw.oriented_slice(np.zeros((3, 4)))
    with pytest.raises(ShapeError, match=r"affine has shape \(3, 3\)"):
        draw.oriented_slice(volume, np.eye(3))


def test_layers_are_transparent_where_nothing_is() -> None:
    label, found = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    label[2:8, 2:8], found[4:12, 2:8] = 1, 2
    drawn = {name: np.asarray(picture) for name, picture in layers(np.eye(20), label, found, height=40).items()}
    assert list(drawn) == ["image", "label", "prediction", "difference"]
    assert {array.shape[:2] for array in drawn.values()} == {(40, 40)}
    inside = np.kron(label, np.ones((2, 2))) > 0
    assert (drawn["label"][..., 3] > 0).tolist() == inside.tolist()
    assert drawn["label"][10, 10].tolist()[:3] == list(draw.class_colour(1))
    shades = {kind: drawn["difference"][place][:3].tolist() for kind, place in
              {"missed": (5, 5), "confused": (12, 5), "extra": (20, 5)}.items()}  # fmt: skip
    assert shades == {kind: list(draw.ERROR_COLOURS[kind]) for kind in shades} and not drawn["difference"][0, 0, 3]
    with pytest.raises(ShapeError, match=r"label has shape \(4, 5\) but the image has \(20, 20\)"):
        layers(np.eye(20), np.zeros((4, 5), np.uint8))
