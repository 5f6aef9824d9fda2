"""Programs as ONNX models: what ONNX's own evaluator computes of them, and what comes back when they are read again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convoxel as cx
from convoxel.cli import main
from convoxel.errors import ConfigError, GraphError, UnsupportedError
from convoxel.graph.ir.graph import CHANNELS_LAST, Graph, Value
from convoxel.graph.ir.pytree import Leaf
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.write.onnx import build_model
from convoxel.graph.write.onnx.call import RULES
from tests.support.onnx_model import model, node
from tools.onnx_export import check, reference, written


class Net(nn.Module):
    """Layers of which the passes make fused steps, and a function in the middle."""

    def __init__(self, dims: int, middle: Callable[[Any], Any], channels: int = 8) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.first, self.norm = conv(2, 8, 3, padding=1, bias=False), norm(8)
        self.last = conv(channels, 3, 3, stride=2, dilation=2, padding=2)
        self.middle = middle

    def forward(self, x: Any) -> Any:
        return self.last(self.middle(F.relu(self.norm(self.first(x)))))


def _squeeze_excite(x: Any) -> Any:
    return x * torch.sigmoid(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True))


MIDDLES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "residual": ((1, 3), lambda x: F.gelu(x + x.roll(1, 1))),
    "gate": ((2,), _squeeze_excite),
    "max_pool": ((1, 3), lambda x: (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.ndim - 3](x, 3, 2, 1)),
    "average": ((2,), lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "nearest": ((2, 3), lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
    "linear": ((2,), lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
    "size": ((2,), lambda x: F.interpolate(F.avg_pool2d(x, 2), size=x.shape[2:], mode="bilinear")),
    "adaptive": ((2,), lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 3), size=x.shape[2:])),
    "group_norm": ((3,), lambda x: F.group_norm(x, 4)),
    "instance_norm": ((2,), lambda x: F.leaky_relu(F.instance_norm(x), 0.2)),
    "layer_norm": ((2,), lambda x: F.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1)),
    "softmax": ((2,), lambda x: F.log_softmax(x, 1) * F.softmax(x, 2)),
    "pads": ((1, 3), lambda x: F.pad(x, (1, 2) * (x.ndim - 2), mode="reflect")),
    "shuffle": ((2,), lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2).flip(2)[:, :, 1:]),
    "split": ((2,), lambda x: torch.cat([F.elu(x[:, 4:]), F.hardswish(x[:, :4]), F.mish(x[:, ::2])], 1)[:, 2:10]),
    "activations": ((1,), lambda x: F.selu(F.softplus(x)) + F.silu(x) + F.celu(x, 0.5) + F.hardsigmoid(x) + x.tanh()),
    "attention": ((1,), lambda x: F.scaled_dot_product_attention(*(x.transpose(1, 2),) * 3).transpose(1, 2)),
    "unfolded": ((2,), lambda x: x.flatten(2).cumsum(-1).unflatten(2, x.shape[2:]).clamp(-3, 5)),
}


@pytest.mark.parametrize(("name", "dims"), [(name, dims) for name, (several, _) in MIDDLES.items() for dims in several])
def test_a_model_computes_what_the_program_does(name: str, dims: int) -> None:
    torch.manual_seed(0)
    net = Net(dims, MIDDLES[name][1]).eval()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    sizes = [(16, 14, 12)[:dims], (10, 18, 8)[:dims]]
    program = cx.compile(net, torch.zeros(1, 2, *sizes[0]))
    generator = np.random.default_rng(0)
    inputs = [[generator.standard_normal((n, 2, *size), np.float32)] for n, size in zip((2, 1), sizes, strict=True)]
    assert check(program, inputs, reference) < 1e-4


def test_transposed_and_depthwise_blocks() -> None:
    torch.manual_seed(0)
    inverted = (nn.Conv2d(6, 24, 1), nn.SiLU(), nn.Conv2d(24, 24, 3, 2, 1, groups=24), nn.ReLU6(), nn.Conv2d(24, 6, 1))
    back = (
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
        nn.PReLU(4),
        nn.Flatten(),
        nn.Linear(400, 5),
    )
    program = cx.compile(nn.Sequential(*inverted, *back), torch.zeros(1, 6, 10, 10))
    assert "depthwise_block" in str(program.graph)
    x = np.random.default_rng(0).standard_normal((3, 6, 10, 10), np.float32)
    assert check(program, [[x]], reference) < 1e-4


def test_layers_of_whole_numbers_are_quantised_ones() -> None:
    """Levels are the same in every engine; a sum that lies half-way between two may be rounded to either."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    program = cx.compile(nn.Sequential(*layers), torch.zeros(1, 2, 16, 16))
    inputs = np.random.default_rng(0).standard_normal((4, 2, 16, 16), np.float32)
    quantised = cx.quantise(program, [inputs], only_faster=False)
    assert "quantised_convolution" in str(quantised.graph)
    model = onnx.load_from_string(written(quantised))
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    ours, theirs = quantised(inputs), reference(model.SerializeToString())([inputs])[0]
    apart = np.abs(ours - theirs) / np.sqrt(np.mean(ours**2))
    assert np.isfinite(theirs).all() and apart.mean() < 1e-3 and apart.max() < 0.1


class Nested(nn.Module):
    def forward(self, x: Any, mask: Any) -> dict[str, Any]:
        return {"sum": x + mask, "pair": (x, x.amax(1)), "none": None, "odd name": mask.sum()}


def test_outputs_of_a_model_keep_their_names(tmp_path: Path) -> None:
    """Also through a .cvx file, and beside results that are named by their place alone."""
    source = model([node("Relu", "x", "scores"), node("Neg", "x", "boxes/0")], outputs="scores boxes/0")
    program = cx.load(source.SerializeToString())
    program.save(tmp_path / "net.cvx")
    again = cx.load((tmp_path / "net.cvx").read_bytes())
    again.to_onnx(tmp_path / "net.onnx")
    assert [value.name for value in onnx.load(tmp_path / "net.onnx").graph.output] == ["scores", "boxes/0"]
    assert isinstance(again(np.ones((1, 3, 2, 2), np.float32)), tuple)


def test_inputs_and_outputs_have_names_and_open_sizes(tmp_path: Path) -> None:
    program = cx.compile(Nested(), torch.zeros(1, 3, 8, 6), torch.zeros(1, 3, 8, 6))
    program.replace(notes={"origin": "a test"}).to_onnx(tmp_path / "net.onnx", {"labels": '["a", "ß"]'})
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts == {"origin": "a test", "labels": '["a", "ß"]'}
    assert [value.name for value in model.graph.input] == [value.name for value in program.graph.inputs]
    assert [value.name for value in model.graph.output] == ["sum", "pair_0", "pair_1", "odd_name"]
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [str(extent) if isinstance(extent, Size) else extent for extent in program.graph.inputs[0].shape]
    assert model.opset_import[0].version == 18 and model.producer_name == "convoxel"
    x, mask = np.random.default_rng(0).standard_normal((2, 2, 3, 9, 5), np.float32)
    results = reference((tmp_path / "net.onnx").read_bytes())([x, mask])
    for ours, expected in zip(results, (x + mask, x, x.max(1), mask.sum()), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_sizes_that_the_network_was_not_read_for_are_refused_by_the_model() -> None:
    x = Value("x", (Size("n"), 2, Size("h"), Size("w")))
    relu = make_node("relu", "relu", ("x",), (Value("y", x.shape),))
    graph = Graph("net", (x,), ("y",), (relu,), guards=(Size("h % 4 == 0"), Size("h >= w")))
    run = reference(build_model(graph, Leaf(0)).SerializeToString())
    good = np.random.default_rng(0).standard_normal((1, 2, 8, 6), np.float32)
    np.testing.assert_array_equal(run([good])[0], np.maximum(good, 0))
    for bad in (good[:, :, :7], good.swapaxes(2, 3)):
        with pytest.raises(Exception, match=r"reshape|Reshape|shape"):
            run([bad])


@pytest.mark.parametrize(
    "text",
    [
        "h // 2 - w", "-h // 3", "(w - 2 * h) // 3", "-h % 5", "h ** 2 * w", "Max(h, w, 7) + Min(h, 3)",
        "CeilDiv(h, 4)", "TruncDiv(w - 2 * h, 3)", "floor(ToFloat(h) * 0.7)",
        "TruncToInt(Float32(Float32(h) * 0.3))", "ceiling(IntTrueDiv(h, w))", "RoundToInt(0.5 * ToFloat(h))",
        "Where(h > w, h, 2 * w)", "Where(h <= 3, 1, w)",
        "Where((h > 2) & (w != 5), h, 0)", "FloorToInt(sqrt(ToFloat(h * w)))", "Where(2 < h < w, 1, 0)",
        "FloorToInt(FloatPow(ToFloat(h), 1.5))", "Where(not h == 4, 8, 9)",
    ],
)  # fmt: skip
def test_sizes_are_computed_by_the_model(text: str) -> None:
    x = Value("x", (Size("h"), Size("w")))
    sizes = make_node("sizes", "sizes", (), (Value("y", (2,), "int64"),), values=(Size(text), 5), shape=(2,))
    run = reference(build_model(Graph("net", (x,), ("y",), (sizes,)), Leaf(0)).SerializeToString())
    for h, w in ((1, 1), (4, 5), (10, 3), (7, 7), (3, 20)):
        expected = Size(text).value({"h": h, "w": w})
        np.testing.assert_array_equal(run([np.zeros((h, w), np.float32)])[0], [expected, 5])


def test_what_onnx_cannot_say_is_refused_by_name(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.i0(x).median(2).values + torch.lgamma(x).sum(2)

    with pytest.warns(UserWarning, match="will run in PyTorch"):
        odd = cx.compile(Odd(), torch.zeros(1, 2, 4))
    with pytest.raises(UnsupportedError, match=r"3 node\(s\) have no counterpart .*i0.*PyTorch.*median.*lgamma"):
        odd.to_onnx(tmp_path / "odd.onnx")
    plain = cx.compile(nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 8))
    with pytest.raises(ConfigError, match=r"to_onnx: .*net\.cvx ends in '\.cvx'; expected \.onnx"):
        plain.to_onnx(tmp_path / "net.cvx")
    with pytest.raises(GraphError, match=r"to_onnx: the folder of .* is not there"):
        plain.to_onnx(tmp_path / "none" / "net.onnx")
    with pytest.raises(GraphError, match=r"to_onnx: .* could not be written \(not open for that\)"):
        (tmp_path / "read").touch()
        with (tmp_path / "read").open("rb") as file:
            plain.to_onnx(file)
    assert [path.name for path in tmp_path.iterdir()] == ["read"]


def test_rules_are_of_operators_that_exist() -> None:
    assert set(RULES) <= set(OPERATORS)
    native = {name for name, row in OPERATORS.items() if row.lower is not None or row.alias is not None}
    # A part of a resized image has tables of its own; it is no network.
    assert native - set(RULES) == {"resample"}
    assert CHANNELS_LAST == "last"


def test_a_network_is_exported_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "net.onnx"
    words = [
        "export",
        "unet",
        "--set",
        "levels=2",
        "--set",
        "width=4",
        "--shape",
        "1,1,16,16",
        "-o",
        str(target),
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["inputs"] == {"x": ["n", 1, "h", "w"]} and told["outputs"] == {"output": ["n", 2, "h", "w"]}
    assert told["opset"] == 18 and told["size_bytes"] == target.stat().st_size
    program: Any = cx.load(target)
    assert program(np.zeros((2, 1, 8, 12), np.float32)).shape == (2, 2, 8, 12)
    program.save(tmp_path / "net.cvx")
    assert main(["export", str(tmp_path / "net.cvx"), "-o", str(tmp_path / "again.onnx")]) == 0
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32)
    np.testing.assert_allclose(cx.load(tmp_path / "again.onnx")(x), program(x), rtol=1e-4, atol=1e-5)
    assert main(["export", "unet", "-o", str(tmp_path / "net.txt")]) == 2
    assert "net.txt ends in '.txt'; expected .onnx" in capsys.readouterr().err
    buffer = io.BytesIO()
    program.to_onnx(buffer)
    assert onnx.load_from_string(buffer.getvalue()).graph.output[0].name == "output"
