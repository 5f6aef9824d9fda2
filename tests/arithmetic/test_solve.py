"""Backwards answers against exhaustive search: nothing is missing, nothing is wrong."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoxel.arithmetic import (
    Exact,
    Field,
    Graph,
    Join,
    Layer,
    Node,
    PeriodicAffine,
    SizeSet,
    Window,
    compose,
    conv_size,
    misalignment,
    parse_chain,
    solve_alignment,
    solve_depth,
    solve_inputs,
    solve_windows,
    span,
)
from convoxel.arithmetic.size_set import solve_conditions
from convoxel.errors import ConfigError, ShapeError, UnsupportedError
from tools.axes import Net, layers_of, networks

drawn = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
UPPER = 150


def searched(graph: Graph) -> dict[int, int]:
    """The output of every input size up to UPPER that the graph takes, by trying."""
    found = {}
    for i in range(1, UPPER + 1):
        try:
            found[i] = graph.size(i)
        except ShapeError:
            continue
    return found


def check_inputs(graph: Graph) -> None:
    tried = searched(graph)
    answer = solve_inputs(graph)
    assert [i for i in range(1, UPPER + 1) if i in answer.sizes] == list(tried)
    assert all(answer.output_size(i) == o for i, o in tried.items())
    assert answer.smallest == min(tried, default=answer.smallest)
    for o in {*list(tried.values())[:4], 1, 7}:
        giving = solve_inputs(graph, o)
        assert answer.giving(o).sizes == giving.sizes
        assert [i for i in range(1, UPPER + 1) if i in giving.sizes] == [i for i, own in tried.items() if own == o]


@settings(drawn, max_examples=80)
@given(networks(dims=1))
def test_inputs_of_drawn_networks(net: Net) -> None:
    check_inputs(net.axes[0])


@settings(drawn, max_examples=80)
@given(st.lists(layers_of(1), min_size=1, max_size=3), st.lists(layers_of(1), min_size=1, max_size=3))
def test_inputs_where_branches_must_be_of_one_size(left: list[list[Layer]], right: list[list[Layer]]) -> None:
    """Nothing is cropped: the sizes that fit are few, periodic, or none."""
    nodes = [Node(layer, (place,)) for place, (layer,) in enumerate(left)]
    end = len(nodes)
    nodes += [Node(layer, (end + place if place else 0,)) for place, (layer,) in enumerate(right)]
    check_inputs(Graph((*nodes, Node(Join(), (end, len(nodes))))))


stairs = st.builds(PeriodicAffine, st.lists(st.integers(-9, 9), min_size=1, max_size=4).map(tuple), st.integers(-2, 2))


@settings(drawn, max_examples=200)
@given(st.lists(stairs, max_size=3), st.lists(stairs, max_size=2))
def test_conditions_on_any_periodic_affine_functions(
    positive: list[PeriodicAffine], zero: list[PeriodicAffine]
) -> None:
    """Slopes may be negative."""
    sizes = solve_conditions(positive, zero)
    for i in range(1, 120):
        assert (i in sizes) == (all(f.at(i) >= 1 for f in positive) and all(f.at(i) == 0 for f in zero))
    listed = list(itertools.islice(sizes, 20))
    assert listed == sorted(set(listed)) and all(i in sizes for i in listed)
    assert sizes.smallest == (listed[0] if listed else None) and sizes.endless == bool(sizes.starts)
    assert bool(sizes) == bool(listed)
    for i in (1, 17, 60):
        near = [j for j in (*range(i, 0, -1),) if j in sizes][:1], [j for j in range(i, 400) if j in sizes][:1]
        assert sizes.nearest(i) == tuple(dict.fromkeys(near[0] + near[1]))


@settings(drawn, max_examples=60)
@given(stairs, stairs)
def test_periodic_affine_functions_compose(outer: PeriodicAffine, inner: PeriodicAffine) -> None:
    for i in range(-20, 40):
        assert outer.after(inner).at(i) == outer.at(inner.at(i))
        assert outer.minus(inner).at(i) == outer.at(i) - inner.at(i)
        assert outer.plus(3).at(i) == outer.at(i) + 3


def test_sizes_print() -> None:
    assert str(SizeSet()) == "no size"
    assert str(SizeSet((4, 5, 6))) == "4 … 6" and str(SizeSet((4, 6))) == "4, 6"
    assert str(SizeSet(starts=(5, 7), step=8)) == "{5, 7} + 8 n (n ≥ 0)"
    assert str(SizeSet((3,), (8,), 4)) == "3 and 8 + 4 n (n ≥ 0)"


@settings(drawn, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.none() | st.integers(1, 12))
def test_windows_are_all(i: int, o: int, field: int | None) -> None:
    found = solve_windows(i, o, dilation=None, field=field)
    expected = set()
    for k, d in itertools.product(range(1, i + 1), range(1, i + 1)):
        e = span(k, d)
        if e > i or (k == 1 and d > 1) or (field is not None and e != field):
            continue
        for s, p in itertools.product(range(1, e + 1), range(e // 2 + 1)):
            if conv_size(i, k, s, p, d) == o:
                expected.add(Window(k, s, p, d))
    assert set(found) == expected and len(found) == len(expected)


def test_windows_among_those_that_are_asked_for() -> None:
    assert [str(w) for w in solve_windows(224, 56, kernel=(3, 7), stride=4)] == ["k3s4", "k3s4p1", "k7s4p2", "k7s4p3"]
    assert [str(w) for w in solve_windows(28, 28, kernel=range(1, 6), padding="same", stride=1)] == [
        "k1psame", "k2psame", "k3psame", "k4psame", "k5psame",
    ]  # fmt: skip
    assert [str(w) for w in solve_windows(28, 28, kernel=4, stride=1, padding=(1, 2))] == ["k4p1:2"]
    assert [str(w) for w in solve_windows(28, 14, kernel=3, stride=2, padding=[0, 1, 2])] == ["k3s2p1"]
    behind = compose(compose(Field.window(), 7, 2, 3), 3, 2, 1)  # a field of 11, stride 4
    assert [str(w) for w in solve_windows(56, 28, stride=2, field=19, before=behind)] == ["k3s2p1"]
    text = str(solve_windows(5, 9, kernel=3))
    assert text == "no window: 8 s + e − 5 ≤ p + p′ ≤ 9 s + e − 6 (k 3, s 1 … e, p 0 … ⌊e / 2⌋, d 1)"


def test_large_sizes_have_few_strides_to_try() -> None:
    """Every window that makes 512 of 1024: none strides by more than (1024 + 2 p − e) / 511."""
    found = solve_windows(1024, 512)
    assert all(conv_size(1024, w.k, w.s, w.p, w.d) == 512 for w in found if isinstance(w.p, int))
    assert {w.s for w in found} == {1, 2} and len([w for w in found if w.s == 2]) > 500


@pytest.mark.parametrize("text, target", [("k3p1", 224), ("k3d2", 50), ("k3p1x2 pool2", 224), ("k5s2", 1000),
                                          ("k3s3 k2", 99), ("k4 t2s2", 7), ("k3", 1)])  # fmt: skip
def test_depth_is_the_smallest(text: str, target: int) -> None:
    block = parse_chain(text)
    answer = solve_depth(target, block)
    whole = Graph(()).then(*[block] * answer.count)
    far = solve_inputs(whole).sizes.nearest(5000)[-1]
    assert whole.field(far).size == answer.field.size >= target
    if answer.count:
        less = Graph(()).then(*[block] * (answer.count - 1))
        assert less.field(far).size < target


def test_depth_says_how_the_field_grows() -> None:
    assert solve_depth(224, parse_chain("k3")).equation == "r = 1 + 2 n ≥ 224"
    assert solve_depth(99, parse_chain("k3s3")).equation == "r = 1 + 2 (3ⁿ − 1) / 2 ≥ 99"
    assert solve_depth(9, parse_chain("k3"), before=Field.window(7)).equation == "r = 7 + 2 n ≥ 9"
    family = solve_depth(
        100, lambda n: parse_chain(" ".join(f"k3d{2**level}" for level in range(n))) if n else Graph(())
    )
    assert family.count == 6 and family.field.size == 127  # WaveNet: 1 + 2 (2ⁿ − 1)
    with pytest.raises(ConfigError, match=r"target is 5, .* stays at 1 inputs .* k1"):
        solve_depth(5, parse_chain("k1"))
    with pytest.raises(ConfigError, match="does not reach 5 inputs with 64 levels; it has 3"):
        solve_depth(5, lambda n: parse_chain("k3"))


@settings(drawn, max_examples=60)
@given(
    st.lists(layers_of(1, 1), min_size=1, max_size=2), st.lists(layers_of(1, 1), min_size=1, max_size=2),
    st.integers(0, 2),
)  # fmt: skip
def test_alignment_is_complete(left: list[list[Layer]], right: list[list[Layer]], layer: int) -> None:
    first, second = (Graph.chain(*(layer for (layer,) in each)) for each in (left, right))
    layer = min(layer, len(second.nodes))
    answer = solve_alignment(first, second, layer)
    assert sorted(answer.paddings) == sorted(
        pair for pair in itertools.product(range(-24, 25), repeat=2) if aligned(first, second, layer, pair)
    )
    if answer:
        assert answer.apart == 0 and f"padding ({answer.paddings[0][0]}, " in str(answer)


def aligned(first: Graph, second: Graph, layer: int, pair: tuple[int, int]) -> bool:
    """Return True if sizes and centres agree for every size that both branches take."""
    from convoxel.arithmetic import Pad

    padded = Graph.chain(*(node.layer for node in second.nodes[:layer]), Pad(*pair),
                         *(node.layer for node in second.nodes[layer:]))  # fmt: skip
    far = 400
    if first.size(far) != padded.size(far) or misalignment(first.field(far), padded.field(far)) != 0:
        return False
    one, other = searched(first), searched(padded)
    return all(other[i] == o for i, o in one.items() if i in other)


def test_alignment_of_strided_branches() -> None:
    """The shortcut of a residual block that strides: a 1-wide kernel against two 3-wide ones."""
    answer = solve_alignment(parse_chain("k1s2"), parse_chain("k3s2 k3p1"))
    assert answer.paddings == ((1, 1),) and answer.apart == 0
    later = solve_alignment(parse_chain("k1s2"), parse_chain("k3s2 k3p1"), layer=1)
    assert not later and later.apart == 1
    assert str(later).startswith("no padding aligns them; (0, ")
    drift = solve_alignment(parse_chain("k1s2"), parse_chain("k3"))
    assert str(drift) == "no padding aligns them: the strides are 2 and 1; such branches drift apart"
    with pytest.raises(ConfigError, match=r"layer is 3, but the second branch has 1 layers. Count from 0"):
        solve_alignment(parse_chain("k1"), parse_chain("k3"), 3)


def test_equations() -> None:
    cases = {
        "k3p1": "every size from 1: o = i",
        "t2s2": "every size from 1: o = 2 i",
        "k3": "every size from 3: o = i − 2",
        "k3s2": "every size from 3: o = ⌊(i − 1) / 2⌋",
        "pool2 t2s2": "every size from 2: o = 2 ⌊i / 2⌋",
        "adaptive7": "every size from 1: o = 7",
        "up3/2": "every size from 1: o = ⌊3 i / 2⌋",
        "k3 exact5": "7: o = i − 2",
        "k3 adaptive4 k5": "no size",
        "t3s3 k2s2 t5s5": "every size from 1: o = 5 ⌊3 i / 2⌋",
    }
    for text, said in cases.items():
        graph = parse_chain(text)
        if text.startswith("t3s3"):
            assert "grows by 15 whenever i does by 2" in str(solve_inputs(graph))
        else:
            assert str(solve_inputs(graph)) == said, text


def test_a_field_that_converges_is_given_up() -> None:
    with pytest.raises(ConfigError, match=r"target is 9, .* stays at 7 inputs .* k4 t2s2"):
        solve_depth(9, parse_chain("k4 t2s2"))


def test_errors_say_how_to_mend() -> None:
    with pytest.raises(ShapeError, match=r"input size 12 is not one of: 7. The nearest: 7"):
        solve_inputs(Graph.chain(Window(3), Exact(5))).output_size(12)
    with pytest.raises(ShapeError, match="sizes must be at least 1, but i is 0"):
        solve_windows(0, 3)
    with pytest.raises(ConfigError, match="kernel is 0, but it must be at least 1"):
        solve_windows(4, 3, kernel=0)
    with pytest.raises(ConfigError, match=r"padding is \(1, 2, 3\), but a tuple must be \(before, after\)"):
        solve_windows(4, 3, kernel=3, padding=(1, 2, 3))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="too many kernels and strides to try"):
        solve_windows(9000, 1)
    with pytest.raises(UnsupportedError, match=f"repeat only after {3**11} positions, .* up to 65536"):
        solve_inputs(parse_chain("k3s3x16"))
    with pytest.raises(UnsupportedError, match="strides repeat only after"):
        parse_chain("up3x16").field(9)
    with pytest.raises(ShapeError, match="k3 takes no input size"):
        solve_depth(9, parse_chain("adaptive1 k3"))


def test_fractions() -> None:
    answer = solve_alignment(parse_chain("k1"), parse_chain("k2"))
    assert (answer.nearest, answer.apart) == ((0, 1), Fraction(1, 2))
