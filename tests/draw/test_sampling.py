"""Pictures of sampling, shifts, channels and deformed kernels: their numbers are those of the operators."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from convoxel import draw
from convoxel.draw.board import small_numbers
from convoxel.draw.figure import Figure
from convoxel.draw.linearity_picture import OPERATORS
from convoxel.draw.scan import Scan
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn import functional
from tests.support.drawing import SVG, check_texts, elements, parsed

LECTURE = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]


def read_grid(figure: Figure, number: int | str, step: int | None = None) -> dict[tuple[int, ...], float]:
    """The numbers in the cells of a grid, in a frame (default: the last)."""
    root = parsed(figure.still(figure.frames - 1 if step is None else step))
    texts = [(p.dx + float(p.element.get("x", 0)), p.dy + float(p.element.get("y", 0)), p.element.text or "")
             for p in elements(root) if p.element.tag == f"{SVG}text"]  # fmt: skip
    found = {}
    for p in elements(root):
        if p.data("grid") == str(number) and p.data("cell"):
            (left, top), side = p.spot, float(p.element.get("width", 0))
            inside = [t for x, y, t in texts if left < x < left + side - 4 and top < y < top + side]
            values = [t.replace("−", "-") for t in inside if re.fullmatch(r"[−-]?[\d.]+(e[+-]?\d+)?", t)]
            if values:
                found[tuple(map(int, (p.data("cell") or "").split(",")))] = float(values[0])
    return found


def read_named(figure: Figure, name: str) -> np.ndarray:
    """The numbers of a grid as an array."""
    found = read_grid(figure, name)
    values = np.zeros(tuple(1 + max(axis) for axis in zip(*found, strict=True)))
    for place, value in found.items():
        values[place] = value
    return values


def check_grid(figure: Figure, number: int, expected: np.ndarray) -> None:
    found = read_grid(figure, number)
    assert set(found) == set(np.ndindex(expected.shape))
    for place, value in found.items():
        assert value == pytest.approx(expected[place], rel=6e-3, abs=6e-3)


def marked(figure: Figure, step: int) -> set[str]:
    return {p.data("marked") or "" for p in elements(parsed(figure.still(step))) if p.data("marked")}


def test_C1_the_lectures_pooling_is_drawn() -> None:
    figure = draw.pool((4, 4), x=LECTURE)
    check_grid(figure, 0, np.array(LECTURE))
    check_grid(figure, 1, np.array([[20, 30], [112, 37]]))
    assert marked(figure, 1) == {"0,2", "0,3", "1,2", "1,3", "0,1"} and check_texts(figure) > 8


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("case", [
    {"size": (5, 6), "kernel": 3, "stride": 2, "padding": 1, "ceil": True},
    {"size": 9, "kernel": 3, "stride": 2, "dilation": 2},
    {"size": (4, 5), "kernel": 2, "stride": 1, "padding": ((0, 1), (1, 0)), "count_include_pad": False},
    {"size": (4, 4, 4), "kernel": 2},
], ids=str)  # fmt: skip
def test_C1_pooled_numbers_are_the_operators(case: dict[str, Any], kind: str) -> None:
    figure = draw.pool(kind=kind, **case)
    shape = Scan.of(case["size"], 1).size
    x = small_numbers(shape)
    given = {name: value for name, value in case.items() if name not in ("size", "kernel")}
    if kind == "max":
        given.pop("count_include_pad", None)
        y = functional.max_pool(torch.tensor(x.astype(float))[None, None], case["kernel"], dims=len(shape), **given)
    else:
        y = functional.average_pool(torch.tensor(x.astype(float))[None, None], case["kernel"], dims=len(shape), **given)
    check_grid(figure, 1, y[0, 0].numpy())
    check_texts(figure)


@pytest.mark.parametrize("mode", functional.UNPOOL_MODES)
def test_C5_unpooled_numbers_are_the_operators(mode: str) -> None:
    x = torch.tensor(LECTURE, dtype=torch.float64)[None, None]
    y, indices = functional.max_pool(x, 2, return_indices=True)
    expected = functional.unpool(y, 2, mode=mode, indices=indices if mode == "indices" else None)
    figure = draw.unpool((4, 4), mode=mode, x=LECTURE)
    check_grid(figure, 1, y[0, 0].numpy())
    check_grid(figure, 2, expected[0, 0].numpy())
    check_texts(figure)


@pytest.mark.parametrize("mode", functional.RESIZE_MODES)
def test_C3_interpolated_numbers_and_weights_are_the_operators(mode: str) -> None:
    x = np.array([[0, 4, 2], [1, 1, 3]])
    figure = draw.resize((2, 3), (3, 5), mode=mode, x=x)
    expected = functional.resize(torch.tensor(x.astype(float))[None, None], (3, 5), mode=mode)[0, 0].numpy()
    check_grid(figure, 1, expected)
    labels = [e.text or "" for e in parsed(figure.still(7)).iter(f"{SVG}text") if (e.text or "").startswith("×")]
    weights = [float(label[1:].replace("−", "-")) for label in labels]
    assert sum(weights) == pytest.approx(1, abs=0.02) and len(weights) == len(marked(figure, 7)) - 1
    check_texts(figure)


@pytest.mark.parametrize("mode", functional.RESIZE_MODES)
@pytest.mark.parametrize("size, to", [((4,), (7,)), ((2, 3), (3, 4)), ((2, 2, 2), (3, 2, 1))], ids=str)
def test_C4_the_matrix_of_an_interpolation_is_drawn(mode: str, size: tuple[int, ...], to: tuple[int, ...]) -> None:
    figure = draw.resize_matrix(size, to, mode=mode)
    matrix = np.asarray(functional.resize_matrix(size, to, mode=mode, form="dense"))
    shown = read_grid(figure, 0)
    assert set(shown) == {tuple(place) for place in np.argwhere(np.abs(matrix) > 1e-9).tolist()}
    assert all(value == pytest.approx(matrix[place], abs=6e-3) for place, value in shown.items())
    x = torch.tensor(small_numbers(size).astype(float))[None, None]
    expected = functional.resize(x, to, mode=mode)[0, 0].numpy().reshape(-1, 1)
    check_grid(figure, 2, expected)
    assert figure.frames == len(matrix) and check_texts(figure)
    row = {f"{figure.rest},{place}" for place in np.flatnonzero(np.abs(matrix[figure.rest]) > 1e-9)}
    assert row <= marked(figure, figure.rest)


def test_C4_matrices_that_nobody_reads_are_refused() -> None:
    with pytest.raises(ConfigError, match="matrix"):
        draw.resize_matrix((8, 8), (16, 16))


@pytest.mark.parametrize("size", [(5,), (4, 4), (2, 4, 2)], ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_C4_linear_operators_are_told_from_others(operator: str, size: tuple[int, ...]) -> None:
    figure = draw.linearity(operator, size)
    together, apart = read_grid(figure, 2), read_grid(figure, 3)
    differ = {place for place, value in together.items() if abs(value - apart[place]) > 0.02}
    linear = operator not in ("bias", "max_pool", "relu")
    assert bool(differ) != linear and set(together) == set(apart) and check_texts(figure)
    assert marked(figure, 0) == {",".join(map(str, place)) for place in differ}
    assert ("is linear" in figure.text, "is affine" in figure.text) == (linear, operator == "bias")


def test_C7_shuffled_channels_are_the_operators() -> None:
    figure = draw.shuffle((2, 3), 2)
    x = torch.arange(1.0, 25.0).reshape(1, 4, 2, 3)
    check_grid(figure, 4, functional.pixel_shuffle(x, 2)[0, 0].numpy())


def test_D6_deformed_numbers_and_places_are_the_operators() -> None:
    offset = np.random.default_rng(1).uniform(-1, 1, (18, 4, 4))
    mask = np.random.default_rng(2).uniform(0, 1, (9, 4, 4))
    x, w = np.arange(16).reshape(4, 4), np.arange(9.0).reshape(3, 3)
    figure = draw.deform((4, 4), offset=offset, mask=mask, x=x, w=w)
    tensors = (torch.tensor(array, dtype=torch.float64)[None] for array in (x[None], offset, w[None]))
    expected = functional.deform_conv(*tensors, mask=torch.tensor(mask)[None], padding=1)[0, 0].numpy()
    check_grid(figure, 1, expected)
    placed = list(elements(parsed(figure.still(5))))  # output (1, 1), padded by 1
    taps = [tuple(map(float, (p.data("tap") or "").split(","))) for p in placed if p.data("tap")]
    homes = [(1 + row, 1 + column) for row in range(3) for column in range(3)]
    wanted = [(r + offset[2 * n, 1, 1], c + offset[2 * n + 1, 1, 1]) for n, (r, c) in enumerate(homes)]
    np.testing.assert_allclose(taps, wanted, atol=1e-3)


def test_D6_deformed_volumes_are_drawn_in_their_slices() -> None:
    figure = draw.deform((2, 3, 3), 2, padding="none", offset=(offset := np.full((24, 1, 2, 2), 0.25)), mask=True)
    placed = list(elements(parsed(figure.still(0))))
    taps = [tuple(map(float, (p.data("tap") or "").split(","))) for p in placed if p.data("tap")]
    np.testing.assert_allclose(taps, np.array(list(np.ndindex(2, 2, 2))) + 0.25, atol=1e-3)
    assert len({p.element.get("r") for p in placed if p.data("tap")}) > 4  # dots are as large as their weights
    plain = draw.deform((2, 3, 3), 2, padding="none", offset=offset)
    x = torch.tensor(small_numbers((2, 3, 3)).astype(float))[None, None]
    w = torch.ones(1, 1, 2, 2, 2, dtype=torch.float64)
    check_grid(plain, 1, functional.deform_conv(x, torch.tensor(offset)[None], w)[0, 0].numpy())
    with pytest.raises(ConfigError, match="taps"):
        draw.deform((8, 8, 8))


@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 4, 3)], ids=str)
def test_D6_each_image_has_the_kernel_of_its_shares(size: tuple[int, ...]) -> None:
    images = [np.zeros(size) + 1, np.arange(np.prod(size)).reshape(size) % 5 + 4]
    figure = draw.dynamic(size, images=images, temperature=2.0)
    grids = {name: read_named(figure, name) for name in ("expert1", "expert2", "expert3", "kernel1", "kernel2")}
    experts = np.stack([grids[f"expert{n}"] for n in (1, 2, 3)])
    assert len({each.tobytes() for each in experts}) == 3
    for number, image in enumerate(images, 1):
        logits = np.array([-1.0, 0.0, 1.0]) * (image.mean() - 4) / 2.0
        shares = np.exp(logits) / np.exp(logits).sum()
        kernel = np.tensordot(shares, experts, axes=1)
        np.testing.assert_allclose(grids[f"kernel{number}"], kernel, atol=0.02)
        x = torch.tensor(image.astype(float))[None, None]
        expected = functional.dynamic_conv(x, torch.tensor(kernel)[None, None, None])[0, 0].numpy()
        np.testing.assert_allclose(read_named(figure, f"output{number}"), expected, atol=0.02 * np.abs(image).sum())
        bars = [p for p in elements(parsed(figure.still())) if (p.data("share") or "").startswith(f"{number},")]
        widths = np.array([float(p.element.get("width", 0)) for p in bars])
        np.testing.assert_allclose(widths, np.maximum(80 * shares, 0.5), atol=0.1)
    check_texts(figure)


def test_D6_dynamic_pictures_name_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="size"):
        draw.dynamic((2, 5))
    with pytest.raises(ShapeError, match="images"):
        draw.dynamic((3, 3), images=[np.zeros((3, 4))])
    with pytest.raises(ConfigError, match="temperature"):
        draw.dynamic(temperature=0.0)


@pytest.mark.parametrize("layer, errors", [
    ("convolution", [False] * 4), ("stride", [False, True] * 2), ("max_pool", [False, True] * 2),
    ("blur_pool", [False, True] * 2), ("global_pool", [False] * 4),
])  # fmt: skip
def test_B1_shifts_break_what_they_should(layer: str, errors: list[bool]) -> None:
    figure = draw.translation((6, 6), layer, shifts=4)
    shown = [any(p.data("differs") for p in elements(parsed(figure.still(step)))) for step in range(4)]
    assert shown == errors and check_texts(figure) > 20


def test_B1_reports_are_bars() -> None:
    from convoxel.draw.shift_picture import measure_layers

    reports = measure_layers(range(1, 4), 12)
    figure = draw.shifts(reports)
    shown = {(p.data("network"), p.data("shift")): float(p.data("error") or 0) for p in elements(parsed(figure))
             if p.data("network")}  # fmt: skip
    assert shown == {(name, f"{row.shift[0]},{row.shift[1]}"): pytest.approx(row.error, rel=1e-5)
                     for name, report in reports.items() for row in report.rows}  # fmt: skip
    assert check_texts(figure) > 20


@pytest.mark.parametrize("numbers, ways, params", [
    ((3, 5, 3), ("plain", "depthwise_separable"), [135, 42]),
    ((64, 128, 5), ("plain", "depthwise_separable"), [204_800, 9_792]),
    ((8, 8, 3), ("grouped", "bottleneck", "depthwise", "2.5d", "dense"), [288, 16 + 36 + 16, 72, 768, 3136]),
])  # fmt: skip
def test_D12_channels_count_the_weights(numbers: tuple[int, int, int], ways: Any, params: list[int]) -> None:
    figure = draw.channels(*numbers, way=ways, groups=2 if "grouped" in ways else 1)
    shown = [int(p.data("params") or 0) for p in elements(parsed(figure)) if p.data("way")]
    assert shown == params and check_texts(figure) > 6


def test_D9_sobel_is_a_product_and_its_approximations_are_best() -> None:
    figure = draw.separable()
    check_grid(figure, 1, np.array([[1], [2], [1]]))
    check_grid(figure, 2, np.array([[1, 0, -1]]))
    assert "9 → 6 weights" in figure.text
    spots = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
    figure = draw.separable(spots)
    left, values, right = np.linalg.svd(spots)
    check_grid(figure, 3, values[0] * np.outer(left[:, 0], right[0]))
    check_grid(figure, 4, spots)
    assert f"{100 * values[1] / np.linalg.norm(values):.1f} %" in figure.text and check_texts(figure) > 20


def test_D7_norms_are_held() -> None:
    kernels = np.array([[[3.0, 4.0]], [[0.5, 0.0]]])
    figure = draw.max_norm(kernels, 2)
    check_grid(figure, 2, kernels[0] * 2 / 5)
    check_grid(figure, 3, kernels[1])


def test_layers_of_a_photograph_are_the_operators() -> None:
    image = np.random.default_rng(0).random((20, 30))
    figure = draw.features(image, {"edges": [[1, 0, -1]]}, pool=2)
    assert figure.text.startswith("Feature maps of an image of 20 × 30: 20 × 28") and "10 × 14 after" in figure.text
    assert len([p for p in elements(parsed(figure)) if p.element.tag == f"{SVG}image"]) == 4
    assert check_texts(draw.features(image)) > 20 and check_texts(draw.neurons(np.ones((5, 3, 3)))) > 5


def test_connections_are_those_of_the_layers() -> None:
    figure = draw.connections(9, 3, 2)
    placed = list(elements(parsed(figure)))
    assert sum(p.data("output") is not None for p in placed) == 7 + 7 + 4
    assert "63 weights" in figure.text and check_texts(figure) > 5


@pytest.mark.parametrize("name", draw.gallery_names())
def test_every_animation_of_the_gallery_moves(name: str) -> None:
    figure = draw.gallery(name)
    assert figure.frames > 3 and figure.title


@pytest.mark.parametrize("call, match", [
    (lambda: draw.pool((4, 4), kind="min"), "kind is 'min'"),
    (lambda: draw.pool((4, 4), x=[[1, 2]]), "x has shape (1, 2)"),
    (lambda: draw.pool((50, 50)), "too many to watch"),
    (lambda: draw.pool((4, 4), step_s=0), "step_s: got 0"),
    (lambda: draw.unpool((5, 4)), "no multiple of kernel"),
    (lambda: draw.unpool((4, 4), mode="some"), "mode is 'some'"),
    (lambda: draw.resize((30, 30), (5, 5)), "too many numbers"),
    (lambda: draw.shuffle((2, 2, 2)), "one or two axes"),
    (lambda: draw.deform((9, 9, 9)), "too many to watch"),
    (lambda: draw.deform((3, 3), offset=np.ones((2, 3))), "offset has shape (2, 3)"),
    (lambda: draw.channels(3, 4, way="grouped", groups=2), "must divide in_channels=3"),
    (lambda: draw.channels(0), "in_channels is 0"),
    (lambda: draw.separable(np.ones(3)), "kernel has shape (3,)"),
    (lambda: draw.translation(5, "stride"), "expected even numbers"),
    (lambda: draw.shifts({}), "reports is empty"),
    (lambda: draw.gallery("sliding"), "name is 'sliding'"),
    (lambda: draw.block("wooden"), "name is 'wooden'"),
    (lambda: draw.max_norm(np.ones(3)), "kernels has shape (3,)"),
    (lambda: draw.connections(50), "got 50"),
])  # fmt: skip
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=re.escape(match)):
        call()
