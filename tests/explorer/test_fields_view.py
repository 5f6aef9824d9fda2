"""The page of receptive fields: images by slices, boxes of units, measured influence, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from convoxel.cli import main
from convoxel.errors import ConfigError
from convoxel.explorer import fields_view, opened_image
from convoxel.explorer.image_frame import open_frame
from convoxel.explorer.session import ForbiddenPath, Session
from convoxel.explorer.view import Answer, Picture, Query, plain
from convoxel.files.progress import listening
from convoxel.inspect import effective_field

SIZE = (24, 20, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume whose voxels say where they lie, a picture, a signal, and a damaged file."""
    found = tmp_path_factory.mktemp("images")
    i, j, k = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    values = (i * 1000 + j * 30 + k).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-2.0, 1.0, 3.0, 1.0])), found / "scan.nii.gz")  # x to the left
    np.save(found / "stored.npy", values.astype(np.float32))
    Image.fromarray(np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)).save(found / "photo.png")
    np.savetxt(found / "signal.csv", np.sin(np.arange(300))[:, None], delimiter=",")
    (found / "broken.nii.gz").write_bytes(gzip.compress(b"nothing"))
    return found


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session.of([str(folder)])


def ask(session: Session, function: Answer, **words: object) -> Any:
    """Return what a page would get: numbers, or the pixels of a picture."""
    found = function(session, Query(tuple((name, str(value)) for name, value in words.items())))
    if isinstance(found, Picture):
        return np.asarray(Image.open(io.BytesIO(found.content)))
    return json.loads(json.dumps(plain(found)))


def test_images_of_the_folders_are_listed(session: Session, folder: Path) -> None:
    found = ask(session, opened_image.images)
    names = [Path(each["path"]).name for each in found["images"]]
    assert {"scan.nii.gz", "stored.npy", "photo.png", "signal.csv"} <= set(names)
    assert [each["path"] for each in found["patterns"]] == ["pattern-1d", "pattern-2d", "pattern-3d"]
    assert Session().roots == () and ask(Session(), opened_image.images)["images"] == []


@pytest.mark.parametrize(("plane", "index"), [("axial", 3), ("coronal", 7), ("sagittal", 11)])
def test_slices_are_turned_as_they_are_drawn(session: Session, folder: Path, plane: str, index: int) -> None:
    from convoxel.data import read_image
    from convoxel.draw import oriented_slice

    scan = str(folder / "scan.nii.gz")
    sample = read_image(scan)
    drawn = oriented_slice(sample.image, sample.affine, plane, index)
    low, high = 0, 24000
    got = ask(session, opened_image.shade, image=scan, plane=plane, index=index, low=low, high=high)
    assert np.array_equal(got, np.clip(np.rint(drawn.pixels[0] * (255 / high)), 0, 255).astype(np.uint8))
    told = next(each for each in ask(session, opened_image.describe, image=scan)["planes"] if each["name"] == plane)
    assert tuple(told["marks"]) == drawn.marks and tuple(told["spacing"]) == drawn.spacing


def test_a_large_volume_stays_in_its_file(tmp_path: Path) -> None:
    """Opening and slicing take memory of a few slices, however large the volume is."""
    side = 256
    file = tmp_path / "large.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((side, side, side), np.int16), np.eye(4)), file)
    own = Session.of([str(tmp_path)])
    tracemalloc.start()
    try:
        for plane in ("axial", "coronal", "sagittal"):
            ask(own, opened_image.shade, image=file, plane=plane, index=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20 < 2 * side**3


def test_images_without_directions_stay_as_stored(session: Session, folder: Path) -> None:
    stored = str(folder / "stored.npy")
    values = np.load(stored)
    planes = ask(session, opened_image.describe, image=stored)["planes"]
    assert [each["marks"] for each in planes] == [[], [], []]
    got = ask(session, opened_image.shade, image=stored, plane="axis 1", index=4, low=0, high=24000)
    assert np.array_equal(got, np.clip(np.rint(values[:, 4] * np.float32(255 / 24000)), 0, 255))
    photo = ask(session, opened_image.shade, image=folder / "photo.png")
    assert np.array_equal(photo, np.asarray(Image.open(folder / "photo.png")))


def test_curves_keep_their_extremes(session: Session, folder: Path) -> None:
    signal = str(folder / "signal.csv")
    values = np.sin(np.arange(300))
    got = ask(session, opened_image.curve, image=signal)
    assert got["size"] == 300 and np.allclose(got["largest"], values, atol=1e-6)
    few = opened_image.stretches(values, bins=10)
    assert max(few["largest"]) == values.max() and min(few["least"]) == values.min() and len(few["starts"]) == 10


def test_the_box_is_that_of_the_command(
    session: Session, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = str(folder / "stored.npy")
    got = ask(session, fields_view.unit, image=scan, net="resnet18", layer="layer1.0.conv2", at="3,2,1")
    words = ["draw", "field", "resnet18", "--image", scan, "--layer", "layer1.0.conv2", "--at", "3,2,1"]
    assert main([*words, "--svg", str(tmp_path / "field.svg"), "--json"]) == 0
    assert got["text"] == json.loads(capsys.readouterr().out)["text"]
    assert got["box"] == [[-1, 25], [-5, 21], [-9, 17]] and got["clipped"] == [[0, 23], [0, 19], [0, 15]]
    assert got["edges"] == [[low - 0.5, high + 0.5] for low, high in got["box"]]
    assert got["centre"] == [12, 8, 4] and got["copies"][0]["text"].startswith(" ".join(["convoxel", *words]))


def test_a_click_finds_the_unit_there(session: Session, folder: Path) -> None:
    scan = str(folder / "scan.nii.gz")
    for voxel, at in ("12,8,4", [3, 2, 1]), ("0,0,0", [0, 0, 0]), ("23,19,15", [5, 4, 3]):
        got = ask(session, fields_view.unit, image=scan, net="resnet18", layer="layer1.0.conv2", voxel=voxel)
        assert got["at"] == at
        again = ask(
            session, fields_view.unit, image=scan, net="resnet18", layer=got["layer"], at=",".join(map(str, at))
        )
        assert again["box"] == got["box"]


def test_an_image_of_another_size_is_padded(session: Session, folder: Path) -> None:
    scan = str(folder / "scan.nii.gz")
    frame = open_frame(session, Query((("image", scan), ("net", "unet"), ("set", "levels=3"))))
    assert frame.size == (24, 24, 16) and frame.before == (0, 0, 0)
    assert frame.cut((0, 16, 0), (24, 8, 16))[0, 0, :, 4:].any() == np.False_


def test_the_influence_is_that_of_the_whole_image(session: Session) -> None:
    """The part around a unit gives the very gradient of the whole image, wherever the unit lies."""
    words = {"image": "pattern-2d", "net": "resnet18", "layer": "layer2.0.conv1"}
    frame = open_frame(session, Query(tuple(words.items())))
    for at in ("0,27", "14,13"):
        got = fields_view.measure_influence(frame, _layer(frame, words["layer"]), tuple(map(int, at.split(","))))
        assert got.exact and got.part != frame.size
        whole = effective_field(
            frame.module, frame.cut((0, 0), frame.size), layer=words["layer"], position=tuple(map(int, at.split(",")))
        )
        spread = np.zeros(frame.size)
        spread[tuple(slice(a, a + n) for a, n in zip(got.start, got.values.shape, strict=True))] = got.values
        assert np.allclose(spread, whole.array, atol=1e-4) and got.size == whole.size
    told = ask(session, fields_view.effective, **words, at="14,13")
    cover = ask(session, fields_view.heat, **words, at="14,13")[..., 1]
    (top, bottom), (left, right) = told["voxels"]
    outside = cover.copy()
    outside[top : bottom + 1, left : right + 1] = 0
    assert cover.max() == 215 and not outside.any()


def _layer(frame: Any, name: str) -> fields_view.Layer:
    return next(each for each in fields_view.list_layers(frame) if each.name == name)


def test_layers_belong_to_modules(session: Session) -> None:
    frame = open_frame(session, Query((("image", "pattern-1d"), ("net", "unet"), ("set", "levels=2"))))
    modules = {each.name: each.module for each in fields_view.list_layers(frame)}
    assert modules["encoder.0.conv1"] == "encoder.0.conv1" and modules["head"] == "head"
    assert modules["cat"] is None  # a step between modules
    resnet = open_frame(session, Query((("image", "pattern-2d"), ("net", "resnet18"))))
    assert _layer(resnet, "layer1.0.add").module == "layer1.0"


def test_networks_of_files_have_boxes_alone(session: Session, tmp_path: Path) -> None:
    import torch

    import convoxel as cx

    file = tmp_path / "net.cvx"
    cx.compile(torch.nn.Conv2d(1, 2, 5), torch.zeros(1, 1, 32, 32)).save(file)
    own = Session.of([str(file)])
    got = ask(own, fields_view.unit, image="pattern-2d", net=file, at="10,20")
    assert got["box"] == [[10, 14], [20, 24]] and not got["measurable"]
    with pytest.raises(ConfigError, match="no gradients"):
        ask(own, fields_view.effective, image="pattern-2d", net=file, at="10,20")


def test_decoding_tells_how_far_it_is(folder: Path) -> None:
    from convoxel.data.image_file import map_image

    told: list[tuple[int, int]] = []
    with listening(lambda done, total: told.append((done, total))):
        map_image(folder / "scan.nii.gz")
    count = int(np.prod(SIZE)) * 2
    assert told[-1] == (count, count)
    map_image(folder / "scan.nii.gz")
    assert told[-1] == (count, count) and len(told) < 10


@pytest.mark.parametrize(
    ("function", "words", "reason"),
    [
        (opened_image.describe, {"image": "broken.nii.gz"}, "nifti|NIfTI|header|bytes"),
        (opened_image.shade, {"image": "scan.nii.gz", "plane": "oblique"}, "plane"),
        (opened_image.shade, {"image": "scan.nii.gz", "plane": "axial", "index": "16"}, "index"),
        (opened_image.shade, {"image": "scan.nii.gz", "low": "nan"}, "low"),
        (opened_image.curve, {"image": "scan.nii.gz"}, "curve"),
        (fields_view.unit, {"image": "scan.nii.gz", "voxel": "1,2"}, "voxel"),
        (fields_view.unit, {"image": "scan.nii.gz", "at": "0,0,99"}, "at"),
        (fields_view.unit, {"image": "scan.nii.gz", "layer": "layer9"}, "layer"),
        (fields_view.describe, {"image": "scan.nii.gz", "set": "dims=2"}, "dims"),
    ],
)
def test_mistakes_are_told(
    session: Session, folder: Path, function: Answer, words: dict[str, str], reason: str
) -> None:
    words = {**words, "image": str(folder / words["image"])}
    with pytest.raises(Exception, match=reason) as told:
        ask(session, function, **words)
    assert type(told.value).__module__ == "convoxel.errors"


def test_files_elsewhere_stay_closed(session: Session, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((4, 4)))
    for word in (str(tmp_path / "other.npy"), "../other.npy", "/etc/passwd"):
        with pytest.raises(ForbiddenPath):
            ask(session, opened_image.describe, image=word)
