"""Files whose networks compute with their input's size: right at the size that was exported, and at others."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional as F

import convoxel as cx
from convoxel.errors import ShapeError, UnsupportedError
from convoxel.graph.load import from_onnx
from tests.support.onnx_model import ints, model, node, numbers
from tools.drawn_exports import DrawnExport

Shapes = Sequence[tuple[int, ...]]


class Applied(nn.Module):
    """A function of a tensor and of what a convolution that shrinks it makes of it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], channels: int = 4, **window: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, **(window or {"stride": 2}))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's result."""
        return self.function(x, self.conv(x))


def exported(net: nn.Module, x: Tensor, opset: int) -> onnx.ModelProto:
    """Return the file that the TorchScript exporter writes, with open batch and spatial sizes."""
    file, axes = io.BytesIO(), {0: "n", **{axis: f"a{axis}" for axis in range(2, x.dim())}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (x,), file, dynamo=False, input_names=["x"], opset_version=opset, dynamic_axes={"x": axes}
        )
    return onnx.load_from_string(file.getvalue())


def agrees(net: nn.Module, program: Any, shapes: Shapes) -> None:
    """Compare a program with PyTorch at some sizes."""
    torch.manual_seed(1)
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            expected = net(x).numpy()
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(program(x.numpy()), expected, atol=2e-4, err_msg=str(shape))


SIZES: Shapes = ((1, 3, 19, 22), (2, 3, 16, 33), (1, 3, 24, 17), (1, 3, 32, 32))


def padded_to_a_multiple(x: Tensor, y: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % 8, 0, (8 - height % 8) % 8)).clone()


def padded_to_the_skip(x: Tensor, y: Tensor) -> Tensor:
    more = [x.shape[axis] - y.shape[axis] for axis in (3, 2)]
    return torch.cat((F.pad(y, (more[0] // 2, more[0] - more[0] // 2, more[1] // 2, more[1] - more[1] // 2)), x), 1)


def cropped_to_the_skip(x: Tensor, y: Tensor) -> Tensor:
    top, left = ((x.shape[axis] - y.shape[axis]) // 2 for axis in (2, 3))
    return torch.cat((x[:, :, top : top + y.shape[2], left : left + y.shape[3]], y), 1)


def unfolded(x: Tensor, y: Tensor) -> Tensor:
    return F.unfold(y, 3, padding=1, stride=2).view(y.shape[0], -1, (y.shape[2] + 1) // 2, (y.shape[3] + 1) // 2)


def turned_halves(x: Tensor, y: Tensor) -> Tensor:
    half = x.shape[2] // 2
    first, second = x.split([half, x.shape[2] - half], 2)
    return torch.cat((second, first), 2)


FUNCTIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Sequence[int]]] = {
    "to the skip's size": (lambda x, y: F.interpolate(y, size=x.shape[2:]), (9, 10, 11, 13, 18, 20)),
    "to the skip's size, linear": (lambda x, y: F.interpolate(y, size=x.shape[2:], mode="bilinear"), (11, 16, 20)),
    "to the skip's size, corners": (
        lambda x, y: F.interpolate(y, size=x.shape[2:], mode="bicubic", align_corners=True),
        (11, 18),
    ),
    "by a fraction": (lambda x, y: F.interpolate(y, scale_factor=0.7, mode="bilinear"), (11, 13, 20)),
    "by fractions": (lambda x, y: F.interpolate(y, scale_factor=(1.5, 0.5), mode="nearest"), (9, 12, 18)),
    "by a fraction, corners": (
        lambda x, y: F.interpolate(y, scale_factor=1.3, mode="bilinear", align_corners=True),
        (11, 17),
    ),
    "by a fraction, computed anew": (
        lambda x, y: F.interpolate(y, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
        (11, 16),
    ),
    "to half": (lambda x, y: F.interpolate(x, size=[(s + 1) // 2 for s in x.shape[2:]], mode="bilinear"), (11, 17)),
    "padded to a multiple": (padded_to_a_multiple, (11, 16, 20)),
    "padded to the skip": (padded_to_the_skip, (11, 18)),
    "cropped to the skip": (cropped_to_the_skip, (11, 18)),
    "unfolded": (unfolded, (11, 18)),
    "halves": (turned_halves, (11, 18)),
    "thirds": (lambda x, y: torch.cat(torch.chunk(F.pad(x, (0, 2, 0, 3)), 3, 3)[::-1], 3), (11, 13)),
    "rolled": (lambda x, y: torch.roll(x, (1, -2), (2, 3)), (10, 18)),
    "norms of windows": (lambda x, y: F.lp_pool2d(x, 2, 3, 2), (11, 18)),
    "mean over parts": (lambda x, y: F.adaptive_avg_pool2d(y, 1) * y.shape[2], (11, 18)),
    "places": (lambda x, y: x + torch.arange(x.shape[3]) / x.shape[3], (9, 11, 18)),
    "more rows": (lambda x, y: torch.cat((x, x.new_zeros(x.shape[0], 3, 2, x.shape[3])), 2), (9, 18)),
    "one number for each size": (lambda x, y: x / x.shape[2] + x.shape[3] / 8, (9, 18)),
    "rows of positions": (lambda x, y: y.flatten(2).transpose(1, 2).softmax(1).transpose(1, 2).view(y.shape), (9, 18)),
    "pixels from channels": (
        lambda x, y: F.interpolate(F.pixel_shuffle(y, 2), size=x.shape[2:], mode="bilinear"),
        (11, 18),
    ),
}


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, (_, opsets) in FUNCTIONS.items() for opset in opsets]
)
def test_exports_with_open_sizes(name: str, opset: int) -> None:
    net = Applied(FUNCTIONS[name][0]).eval()
    shapes = [shape for shape in SIZES if "thirds" not in name or (shape[3] + 2) % 3 != 1]
    agrees(net, from_onnx(exported(net, torch.randn(SIZES[0]), opset)), shapes)


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (4, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("factor", [0.5, 0.3, 1.5, 1.25])
def test_fractions_of_sizes_that_layers_change(kernel: int, padding: int, factor: float) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, kernel, padding=padding), nn.Upsample(scale_factor=factor, mode="bilinear"))
    agrees(net.eval(), from_onnx(exported(net, torch.randn(SIZES[0]), 18)), SIZES)


# Drawn so that every kind of layer occurs, in 1-D, 2-D and 3-D; ``tools.export_fuzz`` runs thousands.
DRAWN = (1, 41, 53, 64, 103, 111, 112, 119, 120, 129, 167, 186)


@pytest.mark.parametrize("seed", DRAWN)
def test_drawn_exports(seed: int) -> None:
    net = DrawnExport(seed, exact=False)
    agrees(net, from_onnx(exported(net, net.inputs[0], 11 + seed % 10)), [tuple(x.shape) for x in net.inputs])


# ---- sizes as ONNX computes them -------------------------------------------------------------------------------


def computed(steps: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """Return x cut to the number of rows ``n`` that ``steps`` compute from its height ``h``."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape two", "h", axis=0),
        *steps,
        node("Slice", "x zero n two", "y"),
    ]
    return model(nodes, [ints("zero", 0), ints("two", 2), *constants], opset=18)


INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT
STEPS: dict[str, tuple[Sequence[onnx.NodeProto], Sequence[onnx.TensorProto]]] = {
    "seven tenths": (
        [
            node("Cast", "h", "f", to=FLOAT),
            node("Mul", "f share", "g"),
            node("Floor", "g", "r"),
            node("Cast", "r", "n", to=INT),
        ],
        [numbers("share", [0.7])],
    ),
    "a third, up": (
        [
            node("Cast", "h", "f", to=FLOAT),
            node("Div", "f three", "g"),
            node("Ceil", "g", "r"),
            node("Cast", "r", "n", to=INT),
        ],
        [numbers("three", [3.0])],
    ),
    "half, to even": (
        [
            node("Cast", "h", "f", to=TensorProto.DOUBLE),
            node("Mul", "f half", "g"),
            node("Round", "g", "r"),
            node("Cast", "r", "n", to=INT),
        ],
        [numbers("half", [0.5], np.float64)],
    ),
    "towards zero": (
        [node("Sub", "ten h", "m"), node("Div", "m three", "q"), node("Abs", "q", "n")],
        [ints("ten", 10), ints("three", 3)],
    ),
    "modulo": ([node("Neg", "h", "m"), node("Mod", "m five", "n")], [ints("five", 5)]),
    "remainder": (
        [node("Sub", "ten h", "m"), node("Mod", "m five", "r", fmod=1), node("Abs", "r", "n")],
        [ints("ten", 10), ints("five", 5)],
    ),
    "bounds": (
        [node("Min", "h ten", "a"), node("Max", "a eight", "n")],
        [ints("ten", 10), ints("eight", 8)],
    ),
    "a choice": (
        [node("Greater", "h ten", "c"), node("Where", "c four h", "n")],
        [ints("ten", 10), ints("four", 4)],
    ),
    "two conditions": (
        [
            node("Greater", "h ten", "a"),
            node("Equal", "h seven", "b"),
            node("Or", "a b", "c"),
            node("Not", "c", "d"),
            node("Where", "d four h", "n"),
        ],
        [ints("ten", 10), ints("four", 4), ints("seven", 7)],
    ),
    "a product over axes": (
        [node("Slice", "shape zero two", "s"), node("ReduceProd", "s", "p", keepdims=1), node("Div", "p three", "n")],
        [ints("three", 3)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_arithmetic_of_sizes(name: str) -> None:
    proto = computed(*STEPS[name])
    program, reference = from_onnx(proto), ReferenceEvaluator(proto)
    for height in (3, 7, 9, 10, 11, 13, 20):
        x = np.arange(3 * height * 2, dtype=np.float32).reshape(1, 3, height, 2)
        (expected,) = reference.run(None, {"x": x})
        if 0 in expected.shape:
            with pytest.raises(ShapeError):
                program(x)
        else:
            np.testing.assert_array_equal(program(x), expected)


def test_sizes_become_numbers_of_a_tensor() -> None:
    """Their root is none of our expressions, and none is needed: it is computed when an input is there."""
    steps = [
        node("Cast", "h", "f", to=FLOAT),
        node("Sqrt", "f", "r"),
        node("Range", "none h1 one", "places"),
        node("Cast", "places", "p", to=FLOAT),
        node("Reshape", "p column", "q"),
        node("Div", "x r", "a"),
        node("Add", "a q", "y"),
    ]
    nodes = [node("Shape", "x", "shape"), node("Gather", "shape two", "h", axis=0), node("Squeeze", "h", "h1"), *steps]
    constants = [ints("two", 2), numbers("none", 0, np.int64), numbers("one", 1, np.int64), ints("column", -1, 1)]
    proto = model(nodes, constants, opset=18)
    program, reference = from_onnx(proto), ReferenceEvaluator(proto)
    for height in (4, 9):
        x = np.random.default_rng(0).standard_normal((2, 3, height, 5)).astype(np.float32)
        np.testing.assert_allclose(program(x), reference.run(None, {"x": x})[0], rtol=1e-6)


@pytest.mark.parametrize(
    "last",
    [
        node("CenterCropPad", "x sides", "y", axes=[2, 3]),
        node("Resize", "x - - sides", "y", axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"),
        node("Resize", "x - - sides", "y", axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_smaller"),
    ],
)
def test_sizes_asked_for_by_another_axis(last: onnx.NodeProto) -> None:
    """Height and width of the result are the width and a fixed number."""
    nodes = [node("Shape", "x", "w", start=3), node("Concat", "w seven", "sides", axis=0), last]
    proto = model(nodes, [ints("seven", 7)], opset=18)
    program, reference = from_onnx(proto), ReferenceEvaluator(proto)
    for shape in ((1, 3, 9, 6), (1, 3, 5, 8), (2, 3, 7, 7)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(program(x), reference.run(None, {"x": x})[0], atol=1e-5, err_msg=str(shape))


def branching(condition: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Return −x or x, as a condition on the height says."""
    result = [onnx.helper.make_tensor_value_info("b", FLOAT, None)]
    branches = [onnx.helper.make_graph([node(op, "x", "b")], op, [], result) for op in ("Neg", "Identity")]
    nodes = [node("Shape", "x", "shape"), node("Gather", "shape two", "h"), *condition]
    nodes.append(node("If", "c", "y", then_branch=branches[0], else_branch=branches[1]))
    return model(nodes, [numbers("one", 1, np.int64), numbers("two", 2, np.int64)], opset=18)


def test_a_graph_that_few_sizes_change_refuses_these() -> None:
    program = from_onnx(branching([node("Equal", "h one", "c")]))
    x = np.ones((1, 3, 5, 5), np.float32)
    np.testing.assert_array_equal(program(x), x)
    with pytest.raises(ShapeError, match="h == 1"):
        program(x[:, :, :1])


def test_a_graph_that_many_sizes_change_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="another graph for sizes with h % 2"):
        from_onnx(branching([node("Mod", "h two", "m"), node("Cast", "m", "c", to=TensorProto.BOOL)]))


def test_programs_keep_their_sizes_when_saved(tmp_path: Any) -> None:
    net = Applied(FUNCTIONS["by a fraction"][0]).eval()
    program = from_onnx(exported(net, torch.randn(SIZES[0]), 18))
    program.save(tmp_path / "net.cvx")
    agrees(net, cx.load(tmp_path / "net.cvx"), SIZES)


# ---- modules ---------------------------------------------------------------------------------------------------

MODULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "by a fraction, computed anew": lambda x, y: F.interpolate(y, scale_factor=0.7, recompute_scale_factor=True),
    "mean by a fraction": lambda x, y: F.interpolate(x, scale_factor=0.6, mode="area"),
    "to a rounded size": lambda x, y: F.interpolate(x, size=[round(s * 0.7) for s in x.shape[2:]], mode="bilinear"),
    "a root of a size": lambda x, y: y * (y.shape[2] * y.shape[3]) ** 0.5 + x.shape[3] / 8,
    "padded to a multiple": padded_to_a_multiple,
    "cropped to the skip": cropped_to_the_skip,
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_with_open_sizes(name: str) -> None:
    net = Applied(MODULES[name]).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="compile: .* in PyTorch")
        program = cx.compile(net, torch.randn(SIZES[0]))
    agrees(net, program, SIZES)


def test_sizes_on_which_a_module_takes_another_branch_are_refused() -> None:
    net = Applied(lambda x, y: x[:, :, :-1] if x.shape[2] % 2 else x).eval()
    program = cx.compile(net, torch.randn(SIZES[0]))
    agrees(net, program, [(1, 3, 21, 30)])
    with pytest.raises(ShapeError, match="h = 16"):
        program(torch.randn(1, 3, 16, 22))
