"""Receptive fields against explicit sets of positions, carried through drawn chains of layers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convoxel.arithmetic import (
    Field,
    compose,
    compose_adaptive,
    compose_resize,
    compose_slice,
    compose_transposed,
    join,
)
from convoxel.errors import ConfigError, ShapeError

Positions = Callable[[int], set[int]]  # of an axis: position → input positions that it sees


def conv_layer(k: int, s: int, p: int, d: int) -> tuple[Callable[[Field], Field], Callable[[Positions], Positions]]:
    def positions(sees: Positions) -> Positions:
        return lambda o: set().union(*(sees(s * o - p + d * m) for m in range(k)))

    return lambda f: compose(f, k, s, p, d), positions


def transposed_layer(
    k: int, s: int, p: int, d: int
) -> tuple[Callable[[Field], Field], Callable[[Positions], Positions]]:
    def positions(sees: Positions) -> Positions:
        def at(o: int) -> set[int]:
            sources = [j for j in range((o + p - k * d) // s, (o + p) // s + 1) if o + p - s * j in range(0, k * d, d)]
            return set().union(*(sees(j) for j in sources))

        return at

    return lambda f: compose_transposed(f, k, s, p, d), positions


def slice_layer(start: int, step: int) -> tuple[Callable[[Field], Field], Callable[[Positions], Positions]]:
    return lambda f: compose_slice(f, start, step), lambda sees: lambda o: sees(start + step * o)


layers = st.one_of(
    st.builds(conv_layer, st.integers(1, 4), st.integers(1, 3), st.integers(-1, 3), st.integers(1, 3)),
    st.builds(transposed_layer, st.integers(1, 4), st.integers(1, 3), st.integers(-1, 3), st.integers(1, 2)),
    st.builds(slice_layer, st.integers(-3, 3), st.integers(1, 2)),
)


def assert_hull(field: Field, sees: Positions) -> None:
    for position in range(-7, 14):
        expected = sees(position)
        assert field.at(position) == ((min(expected), max(expected)) if expected else None)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(layers, max_size=4))
def test_chain_of_layers(chain: list[tuple[Callable[[Field], Field], Callable[[Positions], Positions]]]) -> None:
    field, sees = Field.window(), lambda o: {o}
    for step, positions in chain:
        field, sees = step(field), positions(sees)  # type: ignore[assignment]
    assert_hull(field, sees)
    spans = [max(s) - min(s) + 1 for s in map(sees, range(field.period)) if s]
    assert field.size == max(spans, default=0)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(layers, max_size=2), st.lists(layers, max_size=2))
def test_join_is_the_union(left: list, right: list) -> None:  # type: ignore[type-arg]
    fields, both = [], []
    for chain in (left, right):
        field, sees = Field.window(), lambda o: {o}
        for step, positions in chain:
            field, sees = step(field), positions(sees)  # type: ignore[assignment]
        fields.append(field)
        both.append(sees)

    def union(o: int) -> set[int]:
        return both[0](o) | both[1](o)

    if fields[0].stride == fields[1].stride:
        assert_hull(join(*fields), union)
    else:
        with pytest.raises(ShapeError, match="different strides"):
            join(*fields)
        tabled = join(*fields, size=9)
        for position in range(9):
            seen = union(position)
            assert tabled.at(position) == ((min(seen), max(seen)) if seen else None)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic", "area"])
@pytest.mark.parametrize("i, o", [(12, 24), (12, 36), (20, 30), (21, 14), (30, 10), (9, 9), (16, 20), (10, 23)])
def test_resize_sees_the_columns_with_weight(i: int, o: int, mode: str) -> None:
    identity = torch.eye(i, dtype=torch.float64)[:, None]
    if mode == "cubic":
        matrix = torch.nn.functional.interpolate(identity[..., None], (o, 1), mode="bicubic")[..., 0]
    else:
        matrix = torch.nn.functional.interpolate(identity, o, mode=mode)
    check_matrix(matrix[:, 0].T, compose_resize(Field.window(), i, o, mode))


@pytest.mark.parametrize("i, o", [(5, 9), (9, 5), (7, 10), (6, 6)])
def test_resize_with_aligned_corners(i: int, o: int) -> None:
    identity = torch.eye(i, dtype=torch.float64)[:, None]
    matrix = torch.nn.functional.interpolate(identity, o, mode="linear", align_corners=True)
    field = compose_resize(Field.window(), i, o, "linear", align_corners=True)
    check_matrix(matrix[:, 0].T, field)
    assert field.at(0) == (0, 0) and field.at(o - 1) == (i - 1, i - 1)


def test_resize_by_a_factor_follows_the_factor_not_the_sizes() -> None:
    identity = torch.eye(11, dtype=torch.float64)[:, None]
    matrix = torch.nn.functional.interpolate(identity, scale_factor=1.5, mode="linear")
    check_matrix(matrix[:, 0].T, compose_resize(Field.window(), 11, 16, "linear", scale=1.5))


@pytest.mark.parametrize("i, o", [(12, 4), (10, 4), (7, 7), (5, 8), (9, 1)])
def test_adaptive_pooling(i: int, o: int) -> None:
    identity = torch.eye(i, dtype=torch.float64)[:, None]
    matrix = torch.nn.functional.adaptive_avg_pool1d(identity, o)
    check_matrix(matrix[:, 0].T, compose_adaptive(Field.window(), i, o))


def check_matrix(matrix: torch.Tensor, field: Field) -> None:
    """Compare with the non-zeros of each row, except where the field reaches over the border."""
    checked = 0
    outputs, inputs = matrix.shape
    for position in range(outputs):
        seen = field.at(position)
        assert seen is not None
        if seen[0] >= 0 and seen[1] < inputs:
            support = torch.nonzero(matrix[position].abs() > 1e-9)[:, 0]
            assert (int(support[0]), int(support[-1])) == seen
            checked += 1
    assert checked >= outputs // 2


def test_D2_published_chains() -> None:
    """VGG-16 and AlexNet of Araujo, Norris & Sim 2019: field, stride and effective padding."""
    field, pools = Field.window(), []
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            field = compose(field, 3, p=1)
        field = compose(field, 2, 2)
        pools.append(field.size)
    assert pools == [6, 16, 44, 100, 212]
    assert (field.stride, field.offset) == (32, -90)

    alexnet, sizes = Field.window(), []
    for k, s in ((11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)):
        alexnet = compose(alexnet, k, s)
        sizes.append(str(alexnet))
    assert sizes == ["11/4", "19/8", "51/8", "67/16", "99/16", "131/16", "163/16", "195/32"]


def test_fractions() -> None:
    up = compose_transposed(Field.window(), 3, 2, 1)
    assert up.stride == Fraction(1, 2)
    assert [up.at(o) for o in range(3)] == [(0, 0), (0, 1), (1, 1)]
    assert compose(up, 2, 2).stride == 1
    assert up.centre == 0  # a transposed convolution with half padding does not shift
    assert compose_transposed(Field.window(), 2, 2).centre == Fraction(-1, 4)


def test_errors_say_how_to_mend() -> None:
    with pytest.raises(ConfigError, match="mode is 'spline', but it can be 'nearest'"):
        compose_resize(Field.window(), 4, 8, "spline")
    with pytest.raises(ShapeError, match="sizes of at least 1"):
        compose_resize(Field.window(), 0, 8)
    with pytest.raises(ShapeError, match="sizes of at least 1"):
        compose_adaptive(Field.window(), 4, 0)
    with pytest.raises(ConfigError, match="stride s is 0"):
        compose(Field.window(), 3, 0)
    with pytest.raises(ShapeError, match="at least one field"):
        join()
