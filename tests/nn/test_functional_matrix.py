"""Layers as matrices, their structure, and the nearest convolution to a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given

from convoxel.errors import ConfigError, ShapeError
from convoxel.nn import functional as cf
from tests.support.drawn import drawn
from tests.support.layer_problems import LayerProblem, layer_problems

LINEAR = ("zeros", "reflect", "replicate", "circular")


def test_A3_lecture_matrix_entry_by_entry() -> None:
    k1, k2, k3, k4, *x = sympy.symbols("k1:5 x1:10")
    kernel = np.array([[[[k1, k3], [k2, k4]]]], object)  # column-major, as the image is
    matrix = cf.convolution_matrix(kernel, (3, 3), form="dense", order="column")
    expected = [
        [k1, k2, 0, k3, k4, 0, 0, 0, 0],
        [0, k1, k2, 0, k3, k4, 0, 0, 0],
        [0, 0, 0, k1, k2, 0, k3, k4, 0],
        [0, 0, 0, 0, k1, k2, 0, k3, k4],
    ]
    assert matrix.tolist() == expected
    x1, x2, x3, x4, x5, x6, x7, x8, x9 = x
    assert list(matrix @ np.array(x, object)) == [
        x1 * k1 + x2 * k2 + x4 * k3 + x5 * k4,
        x2 * k1 + x3 * k2 + x5 * k3 + x6 * k4,
        x4 * k1 + x5 * k2 + x7 * k3 + x8 * k4,
        x5 * k1 + x6 * k2 + x8 * k3 + x9 * k4,
    ]
    rows = cf.convolution_matrix(kernel, (3, 3), form="dense")
    assert rows[0].tolist() == [k1, k3, 0, k2, k4, 0, 0, 0, 0]


@drawn(20)
@given(layer_problems(LINEAR))
def test_A4_matrix_of_any_layer(problem: LayerProblem) -> None:
    x, w, options = problem
    y = cf.correlate(x, w, **options).numpy()
    for order, flag in (("row", "C"), ("column", "F")):
        matrix = cf.convolution_matrix(w, problem.size, order=order, **options)
        assert matrix.has_canonical_format
        np.testing.assert_array_equal(matrix @ x.numpy().ravel(flag), y.ravel(flag))
        for form in ("torch", "dense"):
            other = cf.convolution_matrix(w, problem.size, order=order, form=form, **options)
            np.testing.assert_array_equal(other.to_dense().numpy(), matrix.toarray())
        operator = cf.convolution_matrix(w, problem.size, order=order, form="operator", **options)
        np.testing.assert_array_equal(operator @ x.numpy().ravel(flag), y.ravel(flag))
        np.testing.assert_array_equal(operator.T @ y.ravel(flag), matrix.T @ y.ravel(flag))


@drawn(30)
@given(layer_problems())
def test_C6_transposed_matrix_is_the_transpose(problem: LayerProblem) -> None:
    x, w, options = problem
    options = {name: value for name, value in options.items() if name != "padding_mode"}
    y = cf.correlate(x, w, **options)
    matrix = cf.convolution_matrix(w, problem.size, **options)
    back = cf.transposed_matrix(w, y.shape[1:], output_size=problem.size, **options)
    np.testing.assert_array_equal(back.toarray(), matrix.toarray().T)
    z = cf.conv_transpose(y, w, output_size=problem.size, **options)
    np.testing.assert_array_equal(back @ y.numpy().ravel(), z.numpy().ravel())
    assert float((y * y).sum()) == float((x * z).sum())  # <conv x, y> = <x, conv' y>, integers: exact


@pytest.mark.parametrize("form", ["torch", "dense", "operator"])
def test_transposed_matrix_forms(form: str) -> None:
    w = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(1, 2, 3)
    arguments = {"stride": 2, "padding": ((1, 0),), "output_padding": 1}
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    y = cf.conv_transpose(x, w, **arguments).flatten()
    matrix = cf.transposed_matrix(w, 3, form=form, **arguments)
    found = matrix @ (x.flatten().numpy() if form == "operator" else x.flatten())
    np.testing.assert_array_equal(np.asarray(found), y.numpy())


def test_operator_of_many_columns_and_large_volume() -> None:
    """As a dense matrix this would hold 64⁶ = 6.9·10¹⁰ elements; the operator holds none."""
    w = torch.ones(1, 1, 3, 3, 3)
    operator = cf.convolution_matrix(w, (64, 64, 64), padding="half", form="operator")
    assert operator.shape == (64**3, 64**3)
    assert float((operator @ np.ones(64**3, np.float32)).max()) == 27.0
    small = cf.convolution_matrix(torch.ones(1, 1, 2), 4, form="operator")
    np.testing.assert_array_equal(small @ np.eye(4), cf.convolution_matrix(torch.ones(1, 1, 2), 4).toarray())
    np.testing.assert_array_equal(small.T @ np.eye(3), cf.convolution_matrix(torch.ones(1, 1, 2), 4).toarray().T)


def test_A4_structure_is_reported() -> None:
    w = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    found = cf.toeplitz_structure(cf.convolution_matrix(w, (6, 5), padding="half"), (6, 5), (6, 5))
    assert found and found.kind == "Toeplitz" and found.levels == 2 and found.diagonals == 9
    assert str(found) == "doubly block Toeplitz: 9 diagonals, offsets -1 … 1, -1 … 1"
    ring = cf.convolution_matrix(w, (6, 5), padding="half", padding_mode="circular")
    assert cf.toeplitz_structure(ring, (6, 5), (6, 5)).kind == "circulant"
    strided = cf.convolution_matrix(np.ones((2, 3, 3)), 9, stride=2, order="column")
    assert str(cf.toeplitz_structure(strided, 9, 4, stride=2, order="column")).startswith("2×3 blocks, each Toeplitz")
    volume = cf.convolution_matrix(torch.ones(1, 1, 2, 2, 2), (3, 3, 3), form="torch")
    assert cf.toeplitz_structure(volume, (3, 3, 3), (2, 2, 2)).levels == 3
    assert cf.toeplitz_structure(np.zeros((3, 4)), 4, 3).diagonals == 0


def test_A4_arbitrary_matrix_is_no_toeplitz_matrix() -> None:
    rng = np.random.default_rng(0)
    found = cf.toeplitz_structure(rng.normal(size=(9, 16)), (4, 4), (3, 3))
    assert not found and str(found).startswith("not Toeplitz")
    matrix = cf.convolution_matrix(np.ones((1, 1, 2, 2)), (4, 4)).toarray()
    assert cf.toeplitz_structure(matrix, (4, 4), (3, 3))
    wrong = matrix.copy()
    wrong[4, 5] = 0  # one hole in a diagonal
    assert not cf.toeplitz_structure(wrong, (4, 4), (3, 3))
    wrong = matrix.copy()
    wrong[0, 15] = 1e-3  # one element where the diagonal is one long
    assert cf.toeplitz_structure(wrong, (4, 4), (3, 3), tolerance=1e-2)
    reflected = cf.convolution_matrix(np.ones((1, 1, 3, 3)), (4, 4), padding=1, padding_mode="reflect")
    assert not cf.toeplitz_structure(reflected, (4, 4), (4, 4))
    with pytest.raises(ShapeError, match="not made of blocks of 9×16"):
        cf.toeplitz_structure(rng.normal(size=(9, 15)), (4, 4), (3, 3))
    with pytest.raises(ConfigError, match="order is 'C'"):
        cf.toeplitz_structure(matrix, (4, 4), (3, 3), order="C")


@drawn(20)
@given(layer_problems(LINEAR))
def test_B4_projection(problem: LayerProblem) -> None:
    _, w, options = problem
    groups = options.pop("groups")
    options["kernel_size"] = tuple(w.shape[2:])
    matrix = cf.convolution_matrix(w, problem.size, groups=groups, form="dense", **_without_kernel(options))
    found = cf.project_to_convolution(matrix, problem.size, **options)
    scale = float(torch.linalg.vector_norm(matrix)) + 1.0
    assert float(found.distance) <= 1e-12 * scale
    again = cf.convolution_matrix(found.weight, problem.size, form="dense", **_without_kernel(options))
    torch.testing.assert_close(again, matrix, atol=1e-12 * scale, rtol=0.0)
    # A random matrix: idempotent, and the residual is orthogonal to every convolution.
    noise = torch.randn(matrix.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    near = cf.project_to_convolution(noise, problem.size, **options)
    nearest = cf.convolution_matrix(near.weight, problem.size, form="dense", **_without_kernel(options))
    twice = cf.project_to_convolution(nearest, problem.size, **options)
    torch.testing.assert_close(twice.weight, near.weight, atol=1e-11, rtol=0.0)
    assert abs(float(((noise - nearest) * matrix).sum())) <= 1e-11 * scale * float(noise.norm())
    assert abs(float(near.distance) - float((noise - nearest).norm())) <= 1e-11 * scale


def _without_kernel(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name != "kernel_size"}


def test_B4_projection_returns_the_kernel_and_takes_sparse() -> None:
    w = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(2, 1, 2, 3)
    for form in ("scipy", "torch", "dense"):
        matrix = cf.convolution_matrix(w, (4, 5), padding="half", form=form)
        assert torch.equal(
            cf.project_to_convolution(matrix, (4, 5), (2, 3), padding="half").weight.round(decimals=12), w
        )
    with pytest.raises(ShapeError, match="expected \\(o · 12, c · 20\\)"):
        cf.project_to_convolution(torch.zeros(5, 20), (4, 5), (2, 2))
    noise = torch.randn(6, 4, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: cf.project_to_convolution(m, 4, 2), noise)


def test_matrix_refuses() -> None:
    w = np.ones((1, 1, 3))
    with pytest.raises(ConfigError, match="form is 'csc' and order 'row'"):
        cf.convolution_matrix(w, 5, form="csc")
    with pytest.raises(ConfigError, match="not linear"):
        cf.convolution_matrix(w, 5, padding_mode="constant")
    with pytest.raises(ShapeError, match="expected \\(o, c / groups"):
        cf.convolution_matrix(np.ones((3, 3)), 5)
    with pytest.raises(ShapeError, match="output_size is \\(9,\\)"):
        cf.transposed_matrix(w, 3, stride=2, output_size=9)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic", "area", "spline"])
@pytest.mark.parametrize(("size", "wanted"), [((5,), (8,)), ((4, 6), (7, 3)), ((3, 4, 2), (5, 2, 3))])
def test_C4_matrix_times_image_equals_resize(mode: str, size: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    x = torch.randn(size, dtype=torch.float64, generator=torch.manual_seed(0))
    y = cf.resize(x[None, None], wanted, mode=mode)[0, 0].numpy()
    for order, flag in (("row", "C"), ("column", "F")):
        for form in ("scipy", "torch", "dense", "operator"):
            matrix = cf.resize_matrix(size, wanted, mode=mode, form=form, order=order)
            found = matrix @ (
                torch.from_numpy(x.numpy().ravel(flag)) if form in ("torch", "dense") else x.numpy().ravel(flag)
            )
            # Weights of a row sum to at most 4 per axis (splines), each product rounds once.
            np.testing.assert_allclose(np.asarray(found), y.ravel(flag), atol=1e-13)


@pytest.mark.parametrize("mode", ["linear", "cubic", "spline", "average", "convolution", "max", "relu"])
def test_C4_which_operators_are_linear(mode: str) -> None:
    layers = {
        "average": lambda x: cf.average_pool(x, 2),
        "convolution": lambda x: cf.correlate(x, torch.ones(1, 1, 3, 3, dtype=torch.float64)),
        "max": lambda x: cf.max_pool(x, 2),
        "relu": torch.relu,
    }
    layer = layers.get(mode, lambda x: cf.resize(x, 9, mode=mode))
    generator = torch.manual_seed(0)
    x, y = (torch.randn(1, 1, 6, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    error = float((layer(2 * x - 3 * y) - (2 * layer(x) - 3 * layer(y))).abs().max())
    assert (error < 1e-12) == (mode not in ("max", "relu"))
