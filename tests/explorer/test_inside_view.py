"""The page of a network's inside: feature maps, kernels, samplings and shifts have the numbers of the library."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convoxel as cx
from convoxel.errors import ConfigError
from convoxel.explorer import inside_view
from convoxel.explorer.feature_sheet import GAP, Sheet, coloured, draw_tile, join_tiles
from convoxel.explorer.image_frame import open_frame
from convoxel.explorer.session import Session
from convoxel.explorer.view import Answer, Picture, Query, plain
from convoxel.lookup import GivenNetwork
from tests.support.drawing import check_texts

WORDS = {
    "picture": [("net", "unet"), ("set", "levels=1"), ("set", "width=6"), ("image", "pattern-2d")],
    "signal": [("net", "unet"), ("set", "levels=1"), ("set", "width=6"), ("image", "pattern-1d")],
    "volume": [("net", "unet"), ("set", "levels=1"), ("set", "width=4"), ("image", "pattern-3d")],
}


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def ask(session: Session, function: Answer, of: str, **words: object) -> Any:
    """Return what a page would get: numbers, or the pixels of a picture."""
    found = function(session, Query((*WORDS[of], *((name, str(value)) for name, value in words.items()))))
    if isinstance(found, Picture):
        return np.asarray(Image.open(io.BytesIO(found.content)))
    return json.loads(json.dumps(plain(found)))


@pytest.mark.parametrize("of", ["picture", "signal", "volume"])
def test_maps_are_those_of_pytorch(session: Session, of: str) -> None:
    frame = open_frame(session, Query(tuple(WORDS[of])))
    x = torch.from_numpy(frame.cut((0,) * len(frame.size), frame.size))
    known: list[Any] = []
    with torch.no_grad():
        handle = frame.module.get_submodule("encoder.0.conv2").register_forward_hook(lambda m, i, y: known.append(y))
        frame.module(x)
        handle.remove()
    y = known[0][0].numpy()
    told = ask(session, inside_view.maps, of, layer="encoder.0.conv2")
    assert told["channels"] == len(y) and told["size"] == list(y.shape[1:])
    assert np.allclose(told["largest"], y.reshape(len(y), -1).max(axis=1), atol=1e-4)
    assert np.allclose(told["mean"], y.reshape(len(y), -1).mean(axis=1), atol=1e-4)
    sheet = ask(session, inside_view.sheet, of, layer="encoder.0.conv2")
    rows, columns = (told["tile"][0] * told["scale"][0], told["tile"][1] * told["scale"][1])
    down = -(-told["count"] // told["columns"])
    assert sheet.shape == (down * (rows + GAP) - GAP, told["columns"] * (columns + GAP) - GAP, 4)
    cut = y if y.ndim == 3 else y[:, None] if y.ndim == 2 else np.take(y, told["index"], axis=1 + told["axis"])
    spread = cut[0].max() - cut[0].min()
    near = coloured(cut[0], float(cut[0].min()), float(cut[0].max())).astype(int)
    seen = sheet[: rows : told["scale"][0], : columns : told["scale"][1], :3].astype(int)
    assert spread > 0 and np.abs(seen - near).max() <= 12  # rounding may take the next of 256 colours


@pytest.mark.parametrize("size", [(40,), (24, 32), (16, 16, 16)], ids=str)
def test_maps_of_the_command_line_are_those_of_the_page(tmp_path: Path, size: tuple[int, ...]) -> None:
    np.save(file := tmp_path / "image.npy", np.random.default_rng(0).standard_normal(size).astype(np.float32))
    options = [f"dims={len(size)}", "levels=1", "width=4"]
    name, whole, found = inside_view.network_maps("unet", file, ["encoder.0.conv2"], options)
    page = Session.of(["unet", str(file)])
    words = (("net", "unet"), ("image", str(file)), ("layer", "encoder.0.conv2"), *(("set", each) for each in options))
    told = inside_view.maps(page, Query(words))
    maps = found["encoder.0.conv2"]
    assert name == "unet" and whole.shape[1:] == size and maps.shape == (told["channels"], *told["size"])
    np.testing.assert_allclose(maps.reshape(len(maps), -1).max(axis=1), told["largest"], rtol=1e-5)
    assert len(inside_view.network_maps("unet", file, (), options)[2]) == 5
    with pytest.raises(ConfigError, match="layer"):
        inside_view.network_maps("unet", file, ["decoder"], options)
    figure = cx.draw.feature_maps(name, whole, found, most=3)
    strongest = np.argsort(-np.abs(maps).mean(axis=tuple(range(1, maps.ndim))))[:3]
    if len(size) < 3:  # of a volume the middle slice decides
        assert all(f"channel {channel}: " in figure.still().svg() for channel in strongest)
    assert check_texts(figure) == 3 + 2 + 2


@pytest.mark.parametrize("of", ["picture", "signal", "volume"])
@pytest.mark.parametrize("layer", ["encoder.1.conv1", "pools.0", "up.0", "encoder.0.act1"])
def test_numbers_add_up(session: Session, of: str, layer: str) -> None:
    told = ask(session, inside_view.number, of, layer=layer, channel=2)
    assert told["value"] == pytest.approx(told["computed"], abs=1e-4)
    if told["kind"] == "sum":
        assert told["bias"] + sum(s for _, s in told["channels"]) == pytest.approx(told["value"], abs=1e-6)
        assert sum(t["product"] for t in told["terms"]) == pytest.approx(
            dict(map(tuple, told["channels"]))[told["inner"]]
        )
    if told["kind"] == "max":
        assert told["value"] == max(t["x"] for t in told["terms"] if t["source"])


def test_a_click_names_a_position(session: Session) -> None:
    by_click = ask(session, inside_view.number, "picture", layer="encoder.0.conv2", row=10, column=200)
    assert by_click["at"] == [10, 200]
    volume = ask(session, inside_view.number, "volume", layer="encoder.0.conv2", row=3, column=5, axis=1, index=7)
    assert volume["at"] == [3, 7, 5]


def test_ranks_are_those_of_the_library(session: Session) -> None:
    frame = open_frame(session, Query(tuple(WORDS["picture"])))
    weight = frame.module.get_submodule("encoder.0.conv2").weight[3, 1].detach().double()
    told = ask(session, inside_view.kernel, "picture", layer="encoder.0.conv2", channel=3, inner=1, rank=2)
    study = cx.inspect.separability(weight)
    assert told["ranks"] == list(study.ranks) and np.allclose(told["values"], weight)
    assert np.allclose(told["best"], study.best(2)) and told["distance"] == pytest.approx(study.error(2))
    assert told["distance"] == pytest.approx(study.spectra[0].error(2))
    with pytest.raises(ConfigError, match="no kernel"):
        ask(session, inside_view.kernel, "picture", layer="pools.0")


def test_pooling_and_back(session: Session) -> None:
    told = ask(session, inside_view.pooling, "picture", layer="encoder.0.act1", channel=1)
    values = np.array(told["values"])
    grids = {each["name"]: np.array(each["values"]) for each in told["grids"]}
    assert np.allclose(grids["largest of each window"], values.reshape(4, 2, 4, 2).max(axis=(1, 3)))
    assert np.allclose(grids["mean of each window"], values.reshape(4, 2, 4, 2).mean(axis=(1, 3)))
    back = grids["to where the maximum was"]
    assert np.allclose(back.ravel()[told["places"]], values.ravel()[told["places"]])
    assert np.count_nonzero(back) <= len(told["places"]) == 16


def test_ways_of_enlarging(session: Session) -> None:
    told = ask(session, inside_view.upsampling, "picture", layer="encoder.0.conv2")
    values = torch.tensor(told["values"], dtype=torch.float64)[None, None]
    linear = next(each["values"] for each in told["grids"] if each["name"] == "linear")
    assert np.allclose(linear, torch.nn.functional.interpolate(values, scale_factor=2, mode="bilinear")[0, 0])
    uneven = {each["name"] for each in told["layers"] if not each["even"]}
    assert "transposed, kernel 3" in uneven and "transposed, kernel 4" not in uneven


def test_offsets_move_the_samples(session: Session) -> None:
    still = ask(session, inside_view.deformable, "picture", bend="none")
    assert still["samples"] == still["plain"] and still["result"] == pytest.approx(still["without"])
    moved = ask(session, inside_view.deformable, "picture", bend="shifted", amount=100)
    values, centre = np.array(moved["values"]), np.array(moved["centre"])
    window = values[tuple(slice(place, place + 3) for place in centre)]  # shifted by one along each axis
    assert moved["result"] == pytest.approx(window.mean())


def test_shifts_are_measured(session: Session) -> None:
    exact = ask(session, inside_view.shift, "picture", layer="encoder.0.conv2", shift=3)
    assert exact["interior"] and next(row for row in exact["rows"] if row["shift"] == [3, 3])["exact"]
    pooled = ask(session, inside_view.shift, "picture", layer="pools.0", shift=3)
    assert not next(row for row in pooled["rows"] if row["shift"] == [3, 3])["exact"] and pooled["period"] == 2
    three = ask(session, inside_view.shifted, "picture", layer="pools.0", shift=2)
    assert three.shape[1] > 2 * three.shape[0]


@pytest.mark.parametrize("kind", ["file", "module"])
def test_occlusion_of_any_network_is_the_drop_of_its_score(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(12, 4),
    )  # fmt: skip
    np.save(image := tmp_path / "image.npy", np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32))
    cx.compile(net, torch.zeros(1, 1, 8, 16)).save(tmp_path / "net.cvx")
    given = GivenNetwork.of(net, (1, 1, 8, 16))
    word = str(tmp_path / "net.cvx") if kind == "file" else given.word
    session, words = Session.of([word, str(image)]), (("net", word), ("image", str(image)), ("class", "2"))
    told = inside_view.explain(session, Query(words))
    assert told["method"] == "occlusion" and told["methods"] == ("occlusion",)
    x = torch.from_numpy(open_frame(session, Query(words)).cut((0, 0), (8, 16)))
    with torch.no_grad():
        whole = float(net.eval()(x)[0, 2])
        drops, seen = np.zeros((8, 16)), np.zeros((8, 16))
        for row, column in itertools.product(range(8), range(15)):  # windows of 1 × 2 by 1
            covered = x.clone()
            covered[..., row, column : column + 2] = 0
            drops[row, column : column + 2] += whole - float(net(covered)[0, 2])
            seen[row, column : column + 2] += 1
    found = told["maps"]["occlusion"]
    assert told["target"]["score"] == pytest.approx(whole, abs=1e-5)
    assert found["largest"] == pytest.approx((drops / seen).max(), abs=1e-5)
    assert found["least"] == pytest.approx((drops / seen).min(), abs=1e-5)
    heat = inside_view.heat(session, Query(words))
    assert isinstance(heat, Picture) and Image.open(io.BytesIO(heat.content)).size == (16, 8)
    with pytest.raises(ConfigError, match="class"):
        inside_view.explain(session, Query((*words[:2], ("class", "9"))))


def test_segmentations_are_explained_where_they_find_a_class(session: Session) -> None:
    told = ask(session, inside_view.explain, "signal")
    assert told["target"]["where"] == "region" and 0 < told["target"]["voxels"] <= 1024
    assert "predicted as it" in told["text"] and told["maps"]["occlusion"]["unit"] == "logits"


def test_sheets_have_room_for_all() -> None:
    place = Sheet.of((7, 5, 4), 0, 200)
    tiles = [draw_tile(np.full((5, 4), each), (0.0, 6.0), place) for each in range(7)]
    whole = join_tiles(tiles, place.columns)
    assert whole.shape[1] <= 200 and (whole[..., 3] == 255).sum() == 7 * 20 * place.scale[0] * place.scale[1]
    assert coloured(np.array([np.nan, 1.0]), 0, 1)[0].tolist() == [0, 0, 0]
