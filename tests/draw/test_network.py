"""Networks as pictures: graphs, receptive fields over images, funnels, memory."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convoxel import draw
from convoxel.arithmetic import Field, parse_chain
from convoxel.draw.layered_layout import layered
from convoxel.draw.network_outline import Outline, outline, subject
from convoxel.errors import ConfigError, ShapeError
from convoxel.inspect import effective_field
from convoxel.inspect.table import bytes_text
from convoxel.lookup import describe
from tests.support.drawing import SVG, Placed, check_texts, elements, parsed


class Branches(nn.Module):
    """Two branches that are added, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.side = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.twice(self.twice(x)) + self.side(x)


def boxes(placed: list[Placed]) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right, bottom of every node."""
    found = {}
    for p in placed:
        if p.data("node"):
            (x, y), width, height = p.spot, float(p.element.get("width", 0)), float(p.element.get("height", 0))
            found[p.data("node") or ""] = (x, y, x + width, y + height)
    return found


def test_outline_of_a_network_with_branches() -> None:
    found = outline(subject(Branches(), (1, 1, 8, 8)))
    assert [node.name for node in found.nodes] == ["input", "first", "twice", "side", "add"]
    assert found.edges == ((0, 1), (1, 2), (1, 3), (2, 4), (3, 4))
    first, add = found.nodes[1], found.nodes[4]
    assert first.what() == "3 × 3 convolution" and first.params == 40 and first.sees() == "field 3"
    assert add.joins and add.what() == "add" and add.sees() == "field 7"


def test_a_module_that_is_left_and_entered_again_is_two_nodes() -> None:
    class Returning(Branches):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.twice(self.side(self.twice(self.first(x))))

    found = outline(subject(Returning(), (1, 1, 8, 8)))
    assert [node.name for node in found.nodes] == ["input", "first", "twice", "side", "twice:2"]
    assert all(start < end for start, end in found.edges)


def test_depth_decides_how_much_is_one_node() -> None:
    of = subject("resnet50", (1, 3, 64, 64))
    coarse, usual, fine = outline(of, 1), outline(of), outline(of, 3)
    assert len(coarse.nodes) == 9 < len(usual.nodes) == 21 < len(fine.nodes)
    total = describe("resnet50", (1, 3, 64, 64)).params
    for found in (coarse, usual, fine):
        assert sum(node.params for node in found.nodes) == total
    assert coarse.nodes[6].sees() == usual.nodes[18].sees() == "field 427, stride 32"


NETWORKS: list[tuple[Any, Any, int | None]] = [
    ("resnet50", None, None),
    ("googlenet", None, None),
    ("googlenet", (1, 3, 64, 64), 2),
    ("densenet121", (1, 3, 64, 64), None),
    ("unet", None, None),
    ("unet", (1, 1, 64), None),
    ("unet_resnet34", (1, 3, 64, 64), None),
    ("unet", (1, 1, 32, 32, 32), 1),
    ("mobilenet_v3_small", (1, 3, 64, 64), 2),
    (Branches(), (1, 1, 8, 8), None),
]


@pytest.mark.parametrize("model, shape, depth", NETWORKS, ids=lambda value: str(value)[:24])
def test_graphs_are_readable(model: Any, shape: Any, depth: int | None) -> None:
    figure = draw.network(model, shape, depth=depth)
    found = outline(subject(model, shape), depth)
    placed = boxes(list(elements(parsed(figure))))
    assert list(placed) == [node.name for node in found.nodes]
    edges = list(placed.values())
    for i, (left, top, right, bottom) in enumerate(edges):
        assert left >= 0 and top >= 0 and right <= figure.width and bottom <= figure.height
        for other in edges[:i]:  # no node lies on another
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    check_texts(figure)
    arrows = [p for p in elements(parsed(figure)) if p.element.tag == f"{SVG}polygon"]
    assert len(arrows) == len(found.edges) + sum(bool(node.merges) for node in found.nodes)


@pytest.mark.parametrize("model, part", [("googlenet", "inception3a"), ("densenet121", "features.denseblock1")])
def test_no_edge_runs_behind_a_box_or_off_the_page(model: str, part: str) -> None:
    figure = draw.network(model, (1, 3, 64, 64), depth=9, part=part)
    placed = list(elements(parsed(figure)))
    nodes = boxes(placed)
    for p in placed:
        if p.element.tag == f"{SVG}polyline":
            points = [tuple(map(float, point.split(","))) for point in (p.element.get("points") or "").split()]
            for (x0, y0), (x1, y1) in itertools.pairwise(points):
                for share in (0.25, 0.5, 0.75):
                    x, y = p.dx + x0 + share * (x1 - x0), p.dy + y0 + share * (y1 - y0)
                    assert 0 <= x <= figure.width
                    hit = [n for n, (a, b, c, d) in nodes.items() if a + 1 < x < c - 1 and b + 1 < y < d - 1]
                    assert hit == []


def test_shortcuts_within_a_box_are_drawn() -> None:
    found = outline(subject("resnet18", (1, 3, 64, 64)), 2)
    assert [node.name for node in found.nodes if node.merges] == [f"layer{n}.{m}" for n in range(1, 5) for m in (0, 1)]
    assert found.nodes[3].what() == "2 convolutions, shortcut"
    notes = [e.text for e in parsed(draw.network("resnet18", (1, 3, 64, 64), depth=2)).iter(f"{SVG}title")]
    assert notes.count("2 convolutions, shortcut") == 5


def test_wide_networks_keep_to_a_page() -> None:
    figure = draw.network("densenet121", (1, 3, 64, 64), depth=9)
    assert figure.width < 6000


def test_a_part_is_a_network_of_its_own() -> None:
    found = outline(subject("resnet18", (1, 3, 64, 64)), 9, part="layer2.0")
    assert {node.name for node in found.nodes} == {"input", "conv1", "conv2", "downsample.0", "add"}
    assert sum(node.params for node in found.nodes) == 230_144
    with pytest.raises(ConfigError, match="has no layer"):
        draw.network("resnet18", (1, 3, 64, 64), part="layer2.7")


def test_a_unet_is_drawn_as_a_u_with_level_skips() -> None:
    figure = draw.network("unet", (1, 1, 64, 64))
    placed = boxes(list(elements(parsed(figure))))

    def middle(name: str) -> tuple[float, float]:
        left, top, right, bottom = placed[name]
        return (left + right) / 2, (top + bottom) / 2

    for level, join in enumerate(("cat:4", "cat:3", "cat:2", "cat")):
        assert middle(f"encoder.{level}")[1] == pytest.approx(middle(join)[1], abs=0.1)
        assert middle(f"encoder.{level}")[0] < middle("encoder.4")[0] < middle(f"decoder.{level}")[0]
        assert middle(f"decoder.{level}")[1] < middle(join)[1] < middle(f"up.{level}")[1]
    assert max(placed, key=lambda name: placed[name][1]) == "encoder.4"


def test_long_chains_are_wrapped_into_columns() -> None:
    deep = nn.Sequential(*(nn.Conv1d(1, 1, 3, padding=1) for _ in range(40)))
    figure = draw.network(deep, (1, 1, 64), depth=1)
    assert figure.height < 1300 and figure.width > 1000
    single = draw.network(deep[:5], (1, 1, 64))
    assert single.width < 500


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.data())
def test_layouts_keep_nodes_apart_and_edges_downwards(count: int, data: st.DataObject) -> None:
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=24)) if pairs else []
    sizes = [(data.draw(st.integers(5, 40)), data.draw(st.integers(5, 20))) for _ in range(count)]
    found = layered(sizes, edges, across=6, down=9)
    for (a, b), way in zip(edges, found.ways, strict=True):
        assert found.ranks[a] < found.ranks[b] and len(way) == 2 * (found.ranks[b] - found.ranks[a])
        assert all(0 <= x <= found.width + 1e-6 and 0 <= y <= found.height + 1e-6 for x, y in way)
    for i in range(count):
        (x, y), (w, h) = found.places[i], sizes[i]
        assert w / 2 - 1e-6 <= x <= found.width - w / 2 + 1e-6 and h / 2 - 1e-6 <= y <= found.height - h / 2 + 1e-6
        for j in range(i):
            (u, v), (s, t) = found.places[j], sizes[j]
            assert abs(x - u) >= (w + s) / 2 + 6 - 1e-6 or abs(y - v) >= (h + t) / 2 + 9 - 1e-6


# ---- what is seen ----------------------------------------------------------------------------------------


def gradient_box(net: nn.Module, size: tuple[int, ...], at: tuple[int, ...]) -> list[tuple[int, int]]:
    """The inputs that move one output, by PyTorch."""
    x = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
    net.double()(x)[(0, 0, *at)].backward()
    assert x.grad is not None
    places = np.argwhere(x.grad[0, 0].numpy() != 0)
    return list(zip(places.min(0).tolist(), places.max(0).tolist(), strict=True))


def ones(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    return net


def test_boxes_are_what_the_gradient_reaches() -> None:
    net = ones(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, (3, 5), dilation=(2, 1)),
                             nn.ConvTranspose2d(1, 1, 3, 2)))  # fmt: skip
    size = (40, 44)
    for at in ((12, 14), (13, 15), (14, 15)):
        figure = draw.field(net, (1, 1, *size), at=at)
        (shown,) = [p.data("field") for p in elements(parsed(figure)) if p.data("field")]
        numbers = list(map(int, (shown or "").split(",")))
        assert [tuple(numbers[:2]), tuple(numbers[2:])] == gradient_box(net, size, at)
        check_texts(figure)


def drawn_box(figure: draw.Figure) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the frame around the field."""
    (frame,) = [p for p in elements(parsed(figure)) if p.data("field")]
    points = [
        (frame.dx + float(x), frame.dy + float(y))
        for line in frame.element.iter(f"{SVG}polyline")
        for x, y in (point.split(",") for point in (line.get("points") or "").split())
    ]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def test_boxes_lie_where_they_should_on_the_image() -> None:
    net = nn.Conv2d(1, 1, 5, padding=2)
    figure = draw.field(net, (1, 1, 20, 20), at=(10, 4), image=np.zeros((20, 20)))
    (image,) = [p for p in elements(parsed(figure)) if p.element.tag == f"{SVG}image"]
    left, top, right, bottom = drawn_box(figure)
    cell = float(image.element.get("width", 0)) / 20
    assert [(left - image.spot[0]) / cell, (top - image.spot[1]) / cell] == pytest.approx([2, 8], abs=0.01)
    assert [(right - left) / cell, (bottom - top) / cell] == pytest.approx([5, 5], abs=0.01)


def test_a_side_far_outside_of_the_picture_stays_open() -> None:
    net = nn.Conv2d(1, 1, 31, padding=15)
    figure = draw.field(net, (1, 1, 20, 20), at=(1, 10))
    (frame,) = [p for p in elements(parsed(figure)) if p.data("field")]
    assert frame.data("field") == "-14,16,-5,25" and len(list(frame.element)) == 3  # 14 rows above 20 are too far
    assert "rows −14 to 16 and columns −5 to 25 of 20 × 20: 31 × 31 inputs." in figure.text


def test_what_was_measured_can_be_handed_over() -> None:
    net = ones(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)))
    measured = effective_field(net, (1, 1, 16, 16))
    assert (
        draw.field(net, (1, 1, 16, 16), effective=measured).svg()
        == draw.field(net, (1, 1, 16, 16), effective=measured.array).svg()
    )


def test_D3_influence_is_shown_with_its_spread() -> None:
    net = nn.Conv2d(1, 1, 9, padding=4)
    measured = np.zeros((16, 16))
    measured[6:10, 5:12] = 1.0
    figure = draw.field(net, (1, 1, 16, 16), effective=measured)
    (shown,) = [p.data("influence") for p in elements(parsed(figure)) if p.data("influence")]
    assert shown == "6,9,5,11"
    red = np.asarray(figure.picture()).astype(int)
    assert ((red[..., 0] - red[..., 2]) > 120).sum() > 1000
    assert "95 %" in " ".join(e.text or "" for e in parsed(figure).iter(f"{SVG}text"))


@pytest.mark.parametrize("size", [(64,), (12, 14), (8, 10, 12)])
def test_signals_images_and_volumes(size: tuple[int, ...]) -> None:
    net = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1](2, 2, 3, stride=2, padding=1)
    image = np.random.default_rng(0).random((2, *size))
    with pytest.raises(ShapeError, match="image has shape"):
        draw.field(net, (1, 2, *size), image=image)
    figure = draw.field(net, (1, 2, *size), image=image[0], effective=image[1])
    assert len([p for p in elements(parsed(figure)) if p.data("field")]) == (3 if len(size) == 3 else 1)
    check_texts(figure)


def test_fields_behind_pooling_are_those_of_the_last_map() -> None:
    figure = draw.field("resnet18", (1, 3, 64, 64))
    assert "of layer4.1.relu:2 sees" in figure.text and "435 × 435 inputs" in figure.text


# ---- funnels and memory ----------------------------------------------------------------------------------


def test_rows_of_a_funnel_are_the_fields() -> None:
    figure = draw.funnel("resnet18", (1, 3, 224, 224), depth=1)
    rows = {p.data("row"): p.data("ends") for p in elements(parsed(figure)) if p.data("row")}
    assert list(rows) == ["input", "conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    sizes = [int(ends.split(",")[1]) - int(ends.split(",")[0]) + 1 for ends in rows.values() if ends]
    assert sizes == [1, 7, 11, 43, 99, 211, 435]
    assert check_texts(figure) > 14


@pytest.mark.parametrize("chain, size", [("k3 k3 pool2 k3", 16), ("k3d2 t2s2", 9), ("k5s2p2 up2 k3p1", 12)])
def test_units_of_a_chain_are_those_that_the_end_reads(chain: str, size: int) -> None:
    figure = draw.funnel_of_chain(chain, size)
    graph = parse_chain(chain)
    units = {p.data("unit"): p.data("seen") == "yes" for p in elements(parsed(figure)) if p.data("unit")}
    assert [sum(key.startswith(f"{row},") for key in units if key) for row in range(len(graph.sizes(size)))] == list(
        graph.sizes(size)
    )
    seen = {int(key.split(",")[1]) for key, marked in units.items() if key and marked and key.startswith("0,")}
    field = graph.field(size)
    reached = [{i for i in field.inputs(o) if 0 <= i < size} for o in range(graph.size(size))]
    assert seen in reached
    check_texts(figure)


def test_long_chains_are_bars() -> None:
    figure = draw.funnel_of_chain("k7s2p3 pool3s2p1 k3p1x4", 224)
    assert "End" not in figure.title and figure.text.endswith("k3p1: 43, stride 4.")


def test_memory_blocks_do_not_lie_on_each_other() -> None:
    figure = draw.memory("unet", (1, 1, 64, 64))
    blocks = [p for p in elements(parsed(figure)) if p.data("block")]
    areas = [(*p.spot, p.spot[0] + float(p.element.get("width", 0)), p.spot[1] + float(p.element.get("height", 0)))
             for p in blocks]  # fmt: skip
    tall = [float(p.element.get("height", 0)) / int(p.data("bytes") or 1) for p in blocks]
    assert max(tall) == pytest.approx(np.median(tall), rel=0.5) and len(blocks) > 10
    for i, (left, top, right, bottom) in enumerate(areas):
        for a, b, c, d in areas[:i]:
            assert right <= a + 0.02 or c <= left + 0.02 or bottom <= b + 0.02 or d <= top + 0.02
    peak = describe("unet", (1, 1, 64, 64)).peak_bytes
    assert f"At most {bytes_text(peak)} are alive" in figure.text
    check_texts(figure)


def test_files_are_drawn_too(tmp_path: Path) -> None:
    import convoxel as cx

    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3)).eval()
    file = tmp_path / "net.cvx"
    cx.compile(net, torch.zeros(1, 1, 20, 20)).save(file)
    for figure in (draw.network(file, (1, 1, 20, 20)), draw.memory(file, (1, 1, 20, 20)),
                   draw.field(str(file), (1, 1, 20, 20)), draw.funnel(file, (1, 1, 20, 20))):  # fmt: skip
        assert check_texts(figure) > 4


@pytest.mark.parametrize("call, match", [
    (lambda: draw.network("resnet"), "resnet"),
    (lambda: draw.network(Branches()), "needs the shape of its input"),
    (lambda: draw.network(Branches(), (1, 1)), "shape: got (1, 1)"),
    (lambda: draw.network("resnet18", depth=0), "depth: got 0"),
    (lambda: draw.field("resnet18", layer="layer5"), "no layer 'layer5'; did you mean 'layer"),
    (lambda: draw.field("resnet18", layer="layer2", at=(28, 0)), "at: got (28, 0); layer2.1.relu:2 has positions"),
    (lambda: draw.field("resnet18", layer="fc"), "no result whose positions are known"),
    (lambda: draw.field("unet", (1, 1, 32, 32), effective=np.ones((3, 3))), "effective has shape (3, 3)"),
    (lambda: draw.funnel("resnet18", axis=2), "axis: got 2"),
    (lambda: draw.funnel_of_chain("k3", 0), "size: got 0"),
    (lambda: draw.funnel_of_chain("q3", 9), "not understood"),
])  # fmt: skip
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=re.escape(match)):
        call()


def test_an_unknown_field_is_said_to_be_unknown() -> None:
    class Rolled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.roll(x, 1, -1)

    figure = draw.network(nn.Sequential(nn.Conv1d(1, 1, 3), Rolled()), (1, 1, 9))
    assert "field not known" in [e.text for e in parsed(figure).iter(f"{SVG}text")]
    assert isinstance(outline(subject("resnet18", (1, 3, 32, 32))), Outline) and Field.window().size == 1


def test_heat_colours_parts_by_a_figure() -> None:
    figure = draw.network("resnet18", (1, 3, 64, 64), depth=1, heat="macs")
    shares = [float(share) for each in elements(parsed(figure)) if (share := each.data("heat"))]
    assert max(shares) == 1 and len(shares) == 6  # the stem, four stages and the classifier
    assert "multiply-accumulates" in figure.svg()
    with pytest.raises(ConfigError, match="heat"):
        draw.network("resnet18", (1, 3, 64, 64), heat="weight")


def test_two_networks_are_one_graph() -> None:
    from convoxel.draw.network_difference import difference
    from convoxel.lookup import find_network

    def unet(levels: int) -> Any:
        found = find_network("unet", [(1, 1, 64, 64)], {"levels": levels})
        return subject(found.source, found.shape)

    small, large = unet(2), unet(3)
    there, back, same = (difference(*pair, 2) for pair in ((small, large), (large, small), (small, small)))
    names = {state: [n.name for n, s in zip(there.outline.nodes, there.states, strict=True) if s == state]
             for state in ("added", "removed")}  # fmt: skip
    assert {"encoder.3", "up.2", "decoder.2"} <= set(names["added"]) and names["removed"] == []
    assert there.count("added") == back.count("removed") and set(same.states) == set(same.edges) == {"same"}
    assert all(start < end for start, end in (*there.outline.edges, *back.outline.edges))
    # Without what was added, the joint graph is the first network; without what was removed, the second.
    kept = [i for i, state in enumerate(back.states) if state != "removed"]
    ends = {(back.outline.nodes[i].name, back.outline.nodes[j].name)
            for (i, j), state in zip(back.outline.edges, back.edges, strict=True) if state != "removed"}  # fmt: skip
    whole = outline(small, 2)
    assert [back.outline.nodes[i].name for i in kept] == [node.name for node in whole.nodes]
    assert ends == {(whole.nodes[i].name, whole.nodes[j].name) for i, j in whole.edges}
    figure = draw.network(large, against=small, depth=2)
    states = [each.data("state") for each in elements(parsed(figure))]
    assert states.count("added") == there.count("added") and "added" in figure.text
    with pytest.raises(ConfigError, match="against"):
        draw.network(large, against=small, part="up.0")
