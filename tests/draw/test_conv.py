"""Sliding kernels and matrices: what the picture shows is what the layer reads."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convoxel import draw, nn
from convoxel.draw.layer_matrix import MatrixLayout
from convoxel.draw.scan import Scan, Track
from convoxel.errors import ConfigError, ConvoxelError, ShapeError
from tests.support.drawing import SVG, check_texts, elements, parsed

CASES: list[dict[str, Any]] = [
    {"size": 7, "kernel": 3, "padding": "causal", "dilation": 2},
    {"size": (5, 5), "kernel": 3, "stride": 2, "padding": "same"},
    {"size": (5, 6), "kernel": (2, 3), "padding": ((1, 0), (0, 2)), "kind": "convolution"},
    {"size": (6, 6), "kernel": 3, "padding": ((-1, 0), (0, -2))},
    {"size": (4, 4), "kernel": 4, "padding": "full"},
    {"size": (3, 3), "kernel": 3, "stride": 2, "padding": 1, "kind": "transposed", "output_padding": 1},
    {"size": 4, "kernel": 2, "stride": 3, "kind": "transposed", "dilation": 2},
    {"size": (3, 4, 3), "kernel": (2, 3, 1), "padding": (0, 1, 0)},
]


def layer_matrix(case: dict[str, Any]) -> np.ndarray:
    """The layer's matrix by PyTorch on unit images; entry = 1 + number of the weight."""
    scan = Scan.of(**case)
    axes, kind = len(scan.size), case.get("kind", "correlation")
    weight = torch.arange(1.0, 1 + np.prod(scan.kernel)).reshape(1, 1, *scan.kernel).double()
    weight = weight.flip(tuple(range(2, 2 + axes))) if kind == "convolution" else weight
    units = torch.eye(int(np.prod(scan.size))).double().reshape(-1, 1, *scan.size)
    strides, dilations = [t.s for t in scan.tracks], [t.d for t in scan.tracks]
    if kind == "transposed":
        assert all(t.p[0] == t.p[1] for t in scan.tracks)
        function = (None, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[axes]
        result = function(units, weight, None, strides, [t.p[0] for t in scan.tracks], [t.a for t in scan.tracks],
                          1, dilations)  # fmt: skip
    else:
        pads = [p for track in reversed(scan.tracks) for p in track.p]
        function = (None, torch.conv1d, torch.conv2d, torch.conv3d)[axes]
        result = function(torch.nn.functional.pad(units, pads), weight, None, strides, 0, dilations)
    assert tuple(result.shape[2:]) == scan.output
    return result.reshape(len(units), -1).T.numpy()


def numbers(key: str | None) -> tuple[int, ...]:
    return tuple(map(int, (key or "").split(",")))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_A5_every_step_covers_what_its_row_of_the_matrix_reads(case: dict[str, Any]) -> None:
    figure, scan, matrix = draw.conv(**case), Scan.of(**case), layer_matrix(case)
    assert figure.frames == len(matrix) == scan.steps()
    for step, row in enumerate(matrix):
        placed = list(elements(parsed(figure.still(step))))
        cells = {p.spot: numbers(p.data("input")) for p in placed if p.data("input")}
        assert len(cells) == matrix.shape[1]
        shown = np.zeros_like(row)
        for slot in (p for p in placed if p.data("slot")):
            if slot.spot in cells:
                place = np.ravel_multi_index(cells[slot.spot], scan.size)
                shown[place] = 1 + np.ravel_multi_index(numbers(slot.data("slot")), scan.kernel)
        np.testing.assert_array_equal(shown, row)


@pytest.mark.parametrize("border", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("case", [
    {"size": 5, "kernel": 5, "padding": (2,)},
    {"size": (4, 5), "kernel": 3, "stride": 2, "padding": ((1, 2), (2, 0)), "kind": "convolution"},
    {"size": (3, 3, 3), "kernel": 3, "stride": 2, "padding": 1},
], ids=str)  # fmt: skip
def test_D8_borders_repeat_what_the_layer_pads_with(case: dict[str, Any], border: str) -> None:
    figure, scan = draw.conv(**case, border=border), Scan.of(**case, border=border)
    units = torch.eye(int(np.prod(scan.size))).double().reshape(-1, 1, *scan.size)
    pads = [p for track in reversed(scan.tracks) for p in track.p]
    units = torch.nn.functional.pad(units, pads, mode=border)
    weight = torch.arange(1.0, 1 + np.prod(scan.kernel)).reshape(1, 1, *scan.kernel).double()
    weight = weight.flip(tuple(range(2, weight.dim()))) if scan.kind == "convolution" else weight
    function = (torch.conv1d, torch.conv2d, torch.conv3d)[len(scan.size) - 1]
    matrix = function(units, weight, None, [track.s for track in scan.tracks]).flatten(1).T.numpy()
    assert figure.frames == len(matrix)
    for step, row in enumerate(matrix):
        placed = list(elements(parsed(figure.still(step))))
        cells = {
            p.spot: numbers(p.data("input") or p.data("copy")) for p in placed if p.data("input") or p.data("copy")
        }
        shown = np.zeros_like(row)
        for slot in (p for p in placed if p.data("slot")):
            place = np.ravel_multi_index(cells[slot.spot], scan.size)
            shown[place] += 1 + np.ravel_multi_index(numbers(slot.data("slot")), scan.kernel)
        np.testing.assert_array_equal(shown, row)
    assert f"({border})" in figure.title and check_texts(figure) > 3


@pytest.mark.parametrize("case", [
    {"size": (3, 3), "kernel": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"size": 4, "kernel": 2, "stride": 3, "dilation": 2, "output_padding": 2},
    {"size": 3, "kernel": 4, "stride": 1, "padding": 2},
    {"size": (2, 3, 2), "kernel": (2, 1, 3), "stride": (2, 1, 1)},
], ids=str)  # fmt: skip
def test_scattered_each_input_covers_what_its_column_of_the_matrix_writes(case: dict[str, Any]) -> None:
    case = {**case, "kind": "transposed"}
    figure, scan, matrix = draw.conv(**case, view="scatter"), Scan.of(**case), layer_matrix(case)
    assert figure.frames == matrix.shape[1]
    for step, column in enumerate(matrix.T):
        placed = list(elements(parsed(figure.still(step))))
        cells = {p.spot: numbers(p.data("output")) for p in placed if p.data("output")}
        assert len(cells) == len(column)
        shown = np.zeros_like(column)
        for slot in (p for p in placed if p.data("slot")):
            if slot.spot in cells:
                place = np.ravel_multi_index(cells[slot.spot], scan.output)
                shown[place] = 1 + np.ravel_multi_index(numbers(slot.data("slot")), scan.kernel)
        np.testing.assert_array_equal(shown, column)
    assert check_texts(figure) > 3


def test_scattered_sums_grow_to_the_layers_result() -> None:
    x, w = np.arange(9).reshape(3, 3) * 100, np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    figure = draw.conv((3, 3), 3, 2, 1, kind="transposed", view="scatter", x=x, w=w)
    expected = torch.conv_transpose2d(torch.tensor(x)[None, None], torch.tensor(w)[None, None], None, 2, 1)
    texts = [element.text for element in parsed(figure.still(8)).iter(f"{SVG}text")]
    assert {str(int(v)) for v in expected.ravel()} <= set(texts)
    assert any("input (2, 2) = 800 is added to 4 outputs, 5 of 9 products are cut off" in (t or "") for t in texts)
    first = [element.text for element in parsed(figure.still(1)).iter(f"{SVG}text")]
    assert "400" in first and "5600" not in first
    added = [p.element.text for p in elements(parsed(figure.still(4))) if p.data("added")]
    assert sorted(map(int, map(str, added))) == sorted((400 * w).ravel().tolist())  # beside the sums, no weights
    assert not any((t or "").startswith("×") for t in texts)


@pytest.mark.parametrize("kind", ["correlation", "convolution", "transposed"])
@pytest.mark.parametrize("padding", ["none", "half", "full", "same", "causal", ((1, 0), (0, 2))])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [((2, 3), 1, 1), ((4, 2), 2, 1), ((2, 3), (1, 3), 2)])
def test_pictures_show_what_the_operator_gives(
    kind: str, padding: Any, kernel: Any, stride: Any, dilation: Any
) -> None:
    """Each output cell holds the number that the operator of the same name and arguments computes."""
    x = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4]], np.uint8)
    w = np.arange(1, 1 + np.prod(kernel), dtype=np.uint8).reshape(kernel) ** 2 * 7
    given: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    tensors = [torch.tensor(array.astype(float)) for array in (x, w)]
    figure = draw.conv(x.shape, kernel, kind=kind, x=x, w=w, **given)
    if kind == "transposed":
        if padding == "same":
            given["output_size"] = [side * s for side, s in zip(x.shape, np.broadcast_to(stride, 2), strict=True)]
        operator = nn.functional.conv_transpose
    else:
        operator = {"correlation": nn.functional.correlate, "convolution": nn.functional.convolve}[kind]
    expected = operator(*tensors, dims=2, **given).numpy()
    root = parsed(figure.still(figure.frames - 1))
    texts = [(float(t.get("x", 0)), float(t.get("y", 0)), t.text or "") for t in root.iter(f"{SVG}text")]
    cells = {p.data("output"): p for p in elements(root) if p.data("output")}
    assert set(cells) == {f"{r},{c}" for r in range(expected.shape[0]) for c in range(expected.shape[1])}
    side = float(next(iter(cells.values())).element.get("width", 0))
    for key, cell in cells.items():
        left, top = cell.spot
        (text,) = {t for a, b, t in texts if left < a < left + side and top < b < top + side}
        assert float(text) == expected[numbers(key)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_entries_are_those_of_the_matrix_and_each_axis_is_read_once(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Track, int]] = []
    reads = Track.reads
    monkeypatch.setattr(Track, "reads", lambda track, output: asked.append((track, output)) or reads(track, output))
    scan, whole = Scan.of(**case), layer_matrix(case)
    expected = [(row, column, int(whole[row, column]) - 1) for row, column in np.argwhere(whole).tolist()]
    assert MatrixLayout(scan, 1, 1, 1).entries() == expected
    assert len(asked) == sum(scan.output)


@pytest.mark.parametrize("case", CASES)
def test_matrix_pictures_show_the_matrix(case: dict[str, Any]) -> None:
    figure, matrix = draw.matrix(**case), layer_matrix(case)
    placed = list(elements(parsed(figure)))
    weights = {p.data("weight"): p.element.get("d", "") for p in placed if p.data("weight")}
    corners = {w: re.findall(r"M([\d.]+) ([\d.]+)", path) for w, path in weights.items()}
    zeros = [tuple(map(float, corner)) for p in placed if p.element.tag == f"{SVG}path" and not p.data("weight")
             for corner in re.findall(r"M([\d.]+) ([\d.]+)", p.element.get("d", ""))]  # fmt: skip
    xs, ys = sorted({x for x, _ in zeros}), sorted({y for _, y in zeros})
    assert (len(ys), len(xs)) == matrix.shape
    shown = np.zeros_like(matrix)
    for weight, spots in corners.items():
        for x, y in spots:
            shown[ys.index(float(y)), xs.index(float(x))] = 1 + int(weight)  # type: ignore[arg-type]
    np.testing.assert_array_equal(shown, matrix)
    assert f"{matrix.size} entries, {np.count_nonzero(matrix)} not zero" in figure.text


def test_A3_matrix_of_the_lecture_is_drawn() -> None:
    """A 3×3 image, column by column, under a 2×2 kernel."""
    root = parsed(draw.matrix((3, 3), 2, order="F"))
    low = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
    found = [(round(p.spot[1]), round(p.spot[0]), (p.element.text or "").translate(low)) for p in elements(root)
             if re.fullmatch(r"[ky]\w", p.element.text or "")]  # fmt: skip
    key = min(p.spot[1] for p in elements(root) if p.data("key"))  # below the matrix
    found = [entry for entry in found if entry[0] < key]
    rows = [[text for _, _, text in sorted(group)] for _, group in itertools.groupby(sorted(found), lambda e: e[0])]
    texts = [text for row in rows for text in row if text[0] == "k"]
    assert texts == ["k1", "k2", "k3", "k4"] * 4
    assert [e[1] for e in sorted(found) if e[2][0] == "k"][:4] == [e[1] - 34 for e in sorted(found) if e[2][0] == "k"][
        4:8
    ]

    said = {p.data("sum"): (p.element.text or "").translate(low) for p in elements(root) if p.data("sum")}
    assert said["2"] == "y3 = x4k1 + x5k2 + x7k3 + x8k4"
    keys = {p.data("key"): p.spot for p in elements(root) if p.data("key")}
    assert keys["x2"][0] == keys["x1"][0] < keys["x4"][0] and keys["x2"][1] > keys["x1"][1]  # column by column
    assert len(keys) == 9 + 4 + 4 and "kernel column" in " ".join(e.text or "" for e in root.iter(f"{SVG}text"))


def test_B2_sharing_counts_weights_as_the_lecture_does() -> None:
    for sharing, weights in (("shared", 4), ("sparse", 16), ("dense", 36)):
        assert draw.matrix((3, 3), 2, sharing=sharing).text.endswith(f" {weights} weights.")
    three = draw.matrix((3, 3), 2, sharing=("dense", "sparse", "shared"))
    assert "36 weights" in three.text and "16 weights" in three.text and check_texts(three) > 60


def test_groups_leave_blocks_empty() -> None:
    figure = draw.matrix(8, 3, 1, 1, in_channels=4, out_channels=4, groups=2)
    assert "1024 entries, 176 not zero" in figure.text  # 2 groups of 2 × 2 channels, 22 entries each


def test_blocks_are_framed_where_a_kernel_row_lies() -> None:
    blocks = [numbers(p.data("block")) for p in elements(parsed(draw.matrix((4, 4), 3, 1, 1))) if p.data("block")]
    assert blocks == [(o, i) for o in range(4) for i in range(4) if abs(o - i) <= 1]


def test_numbers_are_the_layers_results() -> None:
    x, w = np.arange(16).reshape(4, 4) - 5, np.array([[1, -2], [0, 3]])
    figure = draw.conv((4, 4), 2, x=x, w=w)
    expected = torch.conv2d(torch.tensor(x)[None, None], torch.tensor(w)[None, None])[0, 0]
    texts = [element.text for element in parsed(figure.still(8)).iter(f"{SVG}text")]
    assert {str(int(v)).replace("-", "−") for v in expected.ravel()} <= set(texts)
    assert any("output (2, 2) = " in (text or "") for text in texts)


def test_moving_figures_move_by_style_alone_and_can_stand_still() -> None:
    text = draw.conv((4, 4), 3).svg()
    assert text.count("@keyframes") >= 5 and "<animate" not in text
    assert "@media (prefers-reduced-motion:no-preference)" in text and "prefers-color-scheme:dark" in text
    # Outside of the motion there is a frame of rest.
    assert "visibility:visible" in text.split("@media (prefers-reduced-motion")[0]


def test_motion_stands_in_every_step_where_its_still_does() -> None:
    figure = draw.conv((4, 4), 3, 1, 1, dilation=2)
    text = figure.svg()
    (name,) = re.findall(r'data-part="window"', text)[:1] and re.findall(r'<g class="(m\d+)" data-part="window"', text)
    (frames,) = re.findall(rf"@keyframes f\w{{7}}{name}{{((?:[^{{}}]*{{[^}}]*}})*)}}", text)
    stops = re.findall(r"([\d.]+)%,([\d.]+)%{transform:translate\((-?[\d.]+)px,(-?[\d.]+)px\)}", frames)
    (window,) = (shape for shape in figure.shapes if shape.data.get("part") == "window")
    for step in range(figure.frames):
        share = 100 * (step + 0.3) / figure.frames
        place = [(float(x), float(y)) for begin, end, x, y in stops if float(begin) <= share <= float(end)]
        assert place == [window.moves[step]]  # type: ignore[union-attr]
        kinds = re.findall(r"@keyframes f\w{7}(w\d+){(.*?})}", text)
        shown = {name for name, rule in kinds if _visible(rule, share)}
        status = [e for e in parsed(figure).iter(f"{SVG}text") if (e.text or "").startswith("step ")]
        seen = [e.text for e in status if (e.get("class") or "").split()[1] in shown]
        assert len(seen) == 1 and (seen[0] or "").startswith(f"step {step + 1} of ")


def _visible(rule: str, share: float) -> bool:
    stops = [(float(at), state) for at, state in re.findall(r"([\d.]+)%{visibility:(\w+)}", rule)]
    return [state for at, state in stops if at <= share][-1] == "visible"


def test_two_figures_on_a_page_do_not_share_names() -> None:
    one, other = draw.conv((4, 4), 3), draw.conv((5, 4), 3)
    name, another = (re.findall(r'class="(f\w{7})"', figure.svg())[0] for figure in (one, other))
    assert name != another and not re.search(r"[{}]\.(?!f)\w", one.svg())
    assert one.svg() == draw.conv((4, 4), 3).svg()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_text_is_cut(case: dict[str, Any]) -> None:
    assert check_texts(draw.conv(**case, numbers=True)) > 8
    assert check_texts(draw.matrix(**case)) > 4
    assert check_texts(draw.conv(**case).strip()) > 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_tracks_read_what_the_equations_say(data: st.DataObject) -> None:
    i, k, s, d = (data.draw(st.integers(1, n)) for n in (9, 4, 3, 3))
    p = (data.draw(st.integers(-1, 4)), data.draw(st.integers(-1, 4)))
    flipped = data.draw(st.booleans())
    forward = Track(i, k, s, p, d, flipped=flipped)
    try:
        size = forward.o
    except ConvoxelError:
        return
    expected = [
        [(k - 1 - m if flipped else m, o * s - p[0] + d * m) for m in range(k) if 0 <= o * s - p[0] + d * m < i]
        for o in range(size)
    ]
    assert [forward.reads(o) for o in range(size)] == expected
    # The transposed layer reads what the layer would write: its matrix is the transpose.
    added = (i + sum(p) - d * (k - 1) - 1) % s
    back = Track(size, k, s, p, d, added, transposed=True, flipped=flipped)
    try:
        assert back.o == i
    except ShapeError:
        return
    entries = {(o, j, w) for o in range(size) for w, j in forward.reads(o)}
    assert {(o, j, w) for j in range(i) for w, o in back.reads(j)} == entries


@pytest.mark.parametrize("call, match", [
    (lambda: draw.conv((40, 40), 3), "too many to watch"),
    (lambda: draw.conv((5, 5, 5, 5)), "expected 1 to 3 sizes"),
    (lambda: draw.conv((5, 5), kind="deep"), "kind is 'deep', but it can be 'correlation'"),
    (lambda: draw.conv((5, 5), (3, 3, 3)), "kernel: got"),
    (lambda: draw.conv((5, 5), output_padding=1), "only kind='transposed'"),
    (lambda: draw.conv((5, 2), 3), "axis 1 of 2: "),
    (lambda: draw.conv((5, 5), x=np.ones(5)), "x has shape"),
    (lambda: draw.conv((5, 5), w=np.full((3, 3), "a")), "w is array"),
    (lambda: draw.conv((5, 5), step_s=0), "step_s: got 0"),
    (lambda: draw.conv((5, 5)).still(9), "frames 0 to 8"),
    (lambda: draw.conv((5, 5)).strip([]), "frames is empty"),
    (lambda: draw.matrix((90, 90), 3), "too large to draw"),
    (lambda: draw.matrix((3, 3), 2, sharing="some"), "sharing: got 'some'"),
    (lambda: draw.matrix((3, 3), 2, order="K"), "order: got 'K'"),
    (lambda: draw.matrix((3, 3), 2, in_channels=3, groups=2), "groups: got 2"),
    (lambda: draw.overlap((), 2), "at least one kernel"),
    (lambda: draw.overlap(3, 2, size=(2, 2, 2, 2)), "expected 1 to 3 sizes"),
    (lambda: draw.conv((5, 5), border="mirror"), "border is 'mirror', but it can be 'zeros', 'reflect'"),
    (lambda: draw.conv((3, 3), kind="transposed", border="reflect"), "has a border of zeros alone"),
    (lambda: draw.conv((9, 3), 7, padding="half", border="reflect"),
     "axis 1 of 2: a border of 3 is more than reflect padding makes of 3 inputs: at most 2"),
    (lambda: draw.conv(2, 6, padding=3, border="circular"), "at most 2. Use a larger size or less padding"),
    (lambda: draw.conv((3, 3), view="scatter"), "view: got 'scatter' with kind 'correlation'; expected 'gather', or"),
    (lambda: draw.conv((3, 3), kind="transposed", view="above"), "view: got 'above'"),
    (lambda: draw.overlap(3, 2, size=(99, 99)), "too many to draw"),
])  # fmt: skip
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=re.escape(match)):
        call()


def test_panels_of_overlap_share_one_scale() -> None:
    figure = draw.overlap((3, 4), 2, size=(4, 4))
    roles: dict[int, set[str]] = {}
    for p in elements(parsed(figure)):
        if p.data("reached"):
            roles.setdefault(int(p.data("reached") or 0), set()).add(p.element.get("class") or "")
    assert all(len(names) == 1 for names in roles.values()) and len(roles) == 3
    with pytest.raises(ConfigError, match="too many"):
        draw.overlap((3, 4), 2, size=(99, 99))


@pytest.mark.parametrize("dilation", [1, 2])
def test_D8_a_causal_output_stands_under_the_last_input_of_its_window(dilation: int) -> None:
    placed = list(elements(parsed(draw.conv(7, 3, padding="causal", dilation=dilation))))
    inputs = {p.data("input"): p.spot[0] for p in placed if p.data("input")}
    outputs = {p.data("output"): p.spot[0] for p in placed if p.data("output")}
    assert inputs == outputs


def test_a_transposed_layer_fills_the_same_size_where_the_kernel_is_narrower_than_the_stride() -> None:
    assert Scan.of((3, 3), 2, 3, "same", kind="transposed").output == (9, 9)


@pytest.mark.parametrize("k, s, even", [(3, 2, False), (4, 2, True), (2, 2, True), (5, 3, False), (6, 3, True)])
@pytest.mark.parametrize("size", [(9,), (9, 8), (3, 4, 2)])
def test_C7_overlap_counts_what_a_transposed_layer_of_ones_gives(
    k: int, s: int, even: bool, size: tuple[int, ...]
) -> None:
    figure = draw.overlap(k, s, size=size)
    function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[len(size) - 1]
    counts = function(torch.ones(1, 1, *size), torch.ones(1, 1, *(k,) * len(size)), stride=s)[0, 0].numpy()
    shown = {
        numbers(p.data("output")): int(p.data("reached") or 0) for p in elements(parsed(figure)) if p.data("reached")
    }
    assert shown == {place: int(count) for place, count in np.ndenumerate(counts)}
    assert figure.text.startswith("Even" if even else "Uneven") and check_texts(figure) > 3
