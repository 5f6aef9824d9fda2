"""The C interface: saved programs run without Python's planner, bit for bit, and a damaged file is refused."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import torch
from torch import nn

import convoxel as cx
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.graph.run import native_plan
from convoxel.graph.store.cvx import VERSION
from convoxel.graph.store.tensor_file import lay_out
from convoxel.native import Plan
from convoxel.native.checksum import checksum
from tests.support.c_api import ARGUMENT, FILE, OK, SHAPE, UNSUPPORTED, CError, Network, Tensor, described, library


class Skipped(nn.Module):
    """A concatenation of what goes down and up again, whose sizes must be even; two results."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv, up = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1], (
            nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
        )[dims - 1]  # fmt: skip
        self.first, self.down = conv(2, 8, 3, padding=1), conv(8, 12, 3, stride=2, padding=1)
        self.up, self.last = up(12, 8, 2, stride=2), conv(16, 3, 3, padding=1)
        self.norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1](8, affine=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.relu(self.norm(self.first(x)))
        b = nn.functional.leaky_relu(self.down(a))
        return self.last(torch.cat([a, self.up(b)], 1)), torch.softmax(b, 1)


class Resized(nn.Module):
    """Steps with a table of weights for each position, which depends on the size, and a size that is a fraction."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        functions, a = nn.functional, self.first(x)
        b = functions.avg_pool2d(a, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        up = functions.interpolate(b, a.shape[2:], mode="bilinear")
        shrunk = functions.interpolate(a, scale_factor=0.7, mode="bicubic", antialias=True)
        padded = functions.pad(b, (1, 0, 1, 1), mode="reflect")
        return self.last(torch.cat([a, up], 1)), shrunk, functions.adaptive_avg_pool2d(padded, (1, 3)), padded


def padded_as_tensorflow_does() -> bytes:
    """Return an ONNX model whose padding follows from its input's size."""
    rng = np.random.default_rng(0)
    weights = {"a": (64, 2, 3, 3), "b": (64, 1, 5, 5), "c": (32, 64, 1, 1), "d": (32, 4, 3, 3)}
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "a"], ["1"], **same),
        node("Conv", ["1", "b"], ["2"], group=64, **same),
        node("Conv", ["2", "c"], ["3"]),
        node("MaxPool", ["3"], ["4"], kernel_shape=[3, 3], **same),
        node("AveragePool", ["4"], ["5"], kernel_shape=[3, 3], **same),
        node("ConvTranspose", ["5", "d"], ["y"], **same),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", float32, ["n", 2, "h", "w"])],
        [onnx.helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(rng.standard_normal(s, np.float32), name) for name, s in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def noise(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def saved(program: cx.Program, folder: Path, **how: object) -> Path:
    path = folder / "net.cvx"
    program.save(path, **how)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def segmenter() -> cx.Program:
    torch.manual_seed(0)
    return cx.compile(Skipped(2), noise(1, 2, 16, 16))  # type: ignore[return-value]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_results_of_any_size_have_the_bits_of_pythons(dims: int, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(dims)
    program = cx.compile(Skipped(dims), noise(1, 2, *(8,) * dims), precision=precision)
    network = Network(saved(program, tmp_path))
    spatial = (-1,) * dims
    assert network.ports("input") == [("x", (-1, 2, *spatial))]
    assert network.ports("result") == [("last", (-1, 3, *spatial)), ("softmax", (-1, 12, *spatial))]
    for shape in ((1, 2, *(8,) * dims), (3, 2, *(12, 6, 10)[:dims])):
        x = noise(*shape)
        for ours, expected in zip(network(x), program(x), strict=True):
            assert ours.tobytes() == expected.tobytes()


def test_algorithms_that_were_chosen_are_taken(tmp_path: Path) -> None:
    """A file that names an algorithm for a problem runs it, in C as in Python."""
    torch.manual_seed(0)
    net, x = nn.Conv2d(32, 32, 3, padding=1), noise(1, 32, 24, 24)
    program = cx.compile(net, x)
    isa = cx.build_info()["instruction_set"]
    (problem,) = program.choices[isa]
    results = []
    for algorithm in ("winograd(2)", "winograd(6)", "indirect"):
        chosen = program.replace(choices={isa: {problem: algorithm}})
        results.append(Network(saved(chosen, tmp_path))(x)[0])
        assert results[-1].tobytes() == chosen(x).tobytes()
    assert len({result.tobytes() for result in results}) == 3


def test_whole_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU())
    net = nn.Sequential(*layers, nn.Conv2d(64, 64, 3))
    x = noise(1, 2, 32, 32)
    program = cx.quantise(net, [x], only_faster=False, max_loss=1)
    assert any(node.operator == "quantised_convolution" for node in program.graph.nodes)
    network = Network(saved(program, tmp_path).read_bytes())
    y = noise(2, 2, 26, 38)
    assert network(y)[0].tobytes() == program(y).tobytes()


def test_tables_and_paddings_follow_the_open_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for program in (cx.compile(Resized(), noise(1, 2, 16, 20)), cx.load(padded_as_tensorflow_does())):
        network = Network(saved(program, tmp_path, sizes=[{}]))
        for shape in ((1, 2, 16, 20), (2, 2, 31, 18), (1, 2, 23, 33), (1, 2, 32, 47)):
            results = program(noise(*shape))
            expected = results if isinstance(results, tuple | list) else [results]
            for ours, theirs in zip(network(noise(*shape)), expected, strict=True):
                assert ours.tobytes() == theirs.tobytes()


def test_sizes_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one cannot be written, the file runs with those that the program was compiled for; ``sizes`` states others.

    No network is known whose sizes cannot be written, so one of the operations is forgotten.
    """
    monkeypatch.delitem(native_plan._CALLS, "floor")
    program = cx.compile(Resized(), noise(1, 2, 8, 12))
    network = Network(saved(program, tmp_path))
    x = noise(3, 2, 8, 12)
    assert network(x)[0].tobytes() == program(x)[0].tobytes()
    with pytest.raises(
        CError, match=r"inputs \(1, 2, 10, 10\): the file holds plans for h = 8, w = 12, any n"
    ) as refusal:
        network(noise(1, 2, 10, 10))
    assert refusal.value.status == SHAPE
    wider = Network(saved(program, tmp_path, sizes=[{"h": 10, "w": 10}, {"n": 1, "h": 4, "w": 6}]))
    for shape in ((2, 2, 10, 10), (1, 2, 4, 6)):
        x = noise(*shape)
        assert wider(x)[0].tobytes() == program(x)[0].tobytes()
    with pytest.raises(CError, match="h = 10, w = 10, any n; or n = 1, h = 4, w = 6"):
        wider(noise(2, 2, 4, 6))
    with pytest.raises(ConfigError, match="sizes names 'x'; this network's open sizes are n, h, w"):
        program.save(tmp_path / "net.cvx", sizes=[{"x": 3}])
    with pytest.raises(ConfigError, match="sizes has h = 0"):
        program.save(tmp_path / "net.cvx", sizes=[{"h": 0}])
    with pytest.raises(UnsupportedError, match=r"save: .*w.*sizes="):
        program.save(tmp_path / "net.cvx", sizes=[{"h": 8}])


def test_sizes_that_python_refuses_are_refused(segmenter: cx.Program, tmp_path: Path) -> None:
    """An odd size does not fit the skip connection; the condition is in the file."""
    network = Network(saved(segmenter, tmp_path))
    for shape, reason in (((1, 2, 9, 8), "where "), ((1, 3, 8, 8), "x has shape"), ((1, 2, 8), "expected")):
        with pytest.raises(CError, match=reason) as refusal:
            network.prepare(shape)
        assert refusal.value.status == SHAPE
        with pytest.raises(cx.ShapeError):
            segmenter.prepare(noise(*shape))
    for shape in ((0, 2, 8, 8), (1, 2, -8, 8), (1, 2, 2**40, 2), (2**31, 2, 2**31, 2**31)):
        with pytest.raises(CError):
            network.prepare(shape)


def test_steps_that_run_in_numpy_are_named(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.argmax(x, 1)

    program = cx.compile(Sorted(), noise(1, 2, 8, 8))
    with pytest.raises(CError, match="arg_extreme") as refusal:
        Network(saved(program, tmp_path))
    assert refusal.value.status == UNSUPPORTED
    with pytest.raises(UnsupportedError, match=r"save: .*arg_extreme"):
        program.save(tmp_path / "net.cvx", sizes=[{"h": 8, "w": 8}])


def test_inputs_that_come_back_and_results_twice(tmp_path: Path) -> None:
    class Returned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 1)

        def forward(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.layer(x) + z
            return y, z, y

    program = cx.compile(Returned(), noise(1, 2, 4, 4), noise(1, 2, 4, 4))
    network = Network(saved(program, tmp_path))
    x, z = noise(2, 2, 5, 4), noise(2, 2, 5, 4) + 1
    for ours, expected in zip(network(x, z), program(x, z), strict=True):
        assert ours.tobytes() == expected.tobytes()
    with pytest.raises(CError, match=r"z has shape|the file holds plans"):
        network(x, noise(2, 2, 4, 4))


def test_tensors_by_name(segmenter: cx.Program, tmp_path: Path) -> None:
    network = Network(saved(segmenter, tmp_path))
    x, api = noise(1, 2, 8, 8), network.api
    names = [name for name, _ in network.ports("result")]
    room = np.zeros(12 * 4 * 4, np.float32)
    wanted = described(room, (), names[1])

    def run(given: Tensor, result: Tensor) -> int:
        return int(api.convoxel_run(network.pointer, given, 1, result, 1))

    assert run(described(x, x.shape, "x"), wanted) == OK
    assert tuple(wanted.shape[: wanted.axes]) == (1, 12, 4, 4)
    assert room.tobytes() == segmenter(x)[1].tobytes()
    for given, result, status in (
        (described(x, x.shape, "y"), wanted, ARGUMENT),
        (described(x, x.shape), described(room, (), "nobody"), ARGUMENT),
        (described(None, x.shape), wanted, ARGUMENT),
        (described(x[:, :, :4], x.shape), wanted, SHAPE),
        (described(x, x.shape), described(room[:-1], ()), SHAPE),
        (described(x, x.shape), described(None, ()), SHAPE),
    ):
        assert run(given, result) == status
        assert api.convoxel_last_error().startswith(b"convoxel_run: ")
    assert api.convoxel_run(None, None, 0, None, 0) == ARGUMENT
    assert api.convoxel_set_threads(network.pointer, -1) == ARGUMENT
    assert api.convoxel_input_name(network.pointer, 1) is None
    assert api.convoxel_load_file(None, None) == ARGUMENT
    assert api.convoxel_version().decode() == cx.__version__
    assert api.convoxel_instruction_set().decode() == cx.build_info()["instruction_set"]


def test_a_program_serves_many_threads(segmenter: cx.Program, tmp_path: Path) -> None:
    network = Network(saved(segmenter, tmp_path))
    shapes = [(1, 2, 8, 8), (2, 2, 12, 8), (1, 2, 16, 20)]
    expected = [segmenter(noise(*shape))[0].tobytes() for shape in shapes]
    wrong: list[int] = []

    def work(first: int) -> None:
        for index in [*range(first, 3), *range(first)] * 4:
            network.set_threads(1 + (first + index) % 3)
            if network(noise(*shapes[index]))[0].tobytes() != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_runs_it(segmenter: cx.Program, tmp_path: Path) -> None:
    network, x = Network(saved(segmenter, tmp_path)), noise(1, 2, 8, 8)
    expected = network(x)[0].tobytes()
    child = os.fork()
    if child == 0:
        os._exit(0 if network(x)[0].tobytes() == expected and Network(tmp_path / "net.cvx")(x) else 1)
    assert os.waitpid(child, 0)[1] == 0


# ---- files that are damaged, or made to harm -----------------------------------------------------------------


@pytest.fixture
def whole(segmenter: cx.Program, tmp_path: Path) -> bytes:
    return saved(segmenter, tmp_path).read_bytes()


def test_damage_is_found_wherever_it_is(whole: bytes) -> None:
    api = library()
    sha = whole.index(b'"sha256":"')  # Python's own, which nothing reads here
    for place in np.linspace(0, len(whole) - 1, 80).astype(int).tolist():
        if sha <= place < sha + 76:
            continue
        with pytest.raises(CError) as refusal:
            Network(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :], api)
        assert refusal.value.status == FILE
        with pytest.raises(CError):
            Network(whole[:place], api)


def changed(whole: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    """Return the file with other native plans, under a checksum that is right."""
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    metadata, tensors = header.pop("__metadata__"), safetensors.deserialize(whole)
    content = json.loads(metadata["native"])
    change(content)
    metadata["native"] = json.dumps(content)
    areas = [metadata["program"].encode(), metadata["native"].encode()]
    for name, entry in sorted(tensors):
        extents = "".join(f"{extent}," for extent in entry["shape"])
        areas += [f"{name}\n{entry['dtype']}\n{extents}".encode(), bytes(entry["data"])]
    metadata["checksum"] = str(checksum([np.frombuffer(area, np.uint8) for area in areas]))
    types = {"F32": np.float32, "I32": np.int32, "I16": np.int16}
    arrays = {n: np.frombuffer(e["data"], types[e["dtype"]]).reshape(e["shape"]) for n, e in tensors}
    return b"".join(lay_out(arrays, metadata))


def _plan(content: dict[str, object]) -> dict[str, list[object]]:
    return content["plans"][0]  # type: ignore[index,no-any-return]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: _plan(c)["steps"].__setitem__(1, ["no_step", "", []]),
        lambda c: _plan(c)["steps"].__setitem__(1, ["softmax", "", []]),
        lambda c: _plan(c)["buffers"].__setitem__(1, ["input", 0]),
        lambda c: _plan(c)["sources"].__setitem__(0, 99),
        lambda c: _plan(c)["sources"].__setitem__(0, 0),
        lambda c: _plan(c)["blocks"].clear(),
        lambda c: _plan(c)["blocks"].__setitem__(0, ["arena_0", 2**60, 0, 1]),
        lambda c: _plan(c)["blocks"].__setitem__(0, ["arena_0", 2**45, 0, 1]),
        lambda c: _plan(c)["expressions"].__setitem__(0, ["//", 1, 0]),
        lambda c: _plan(c)["expressions"].__setitem__(0, ["*", 2**40, 2**40]),
        lambda c: _plan(c)["expressions"].__setitem__(0, ["+", [0], 1]),
        lambda c: _plan(c)["expressions"].__setitem__(0, ["no", 1, 1]),
        lambda c: c["layers"][0].__setitem__("shape", [8, 2, 1, 3, 4]),
        lambda c: c["layers"][0].__setitem__("groups", 3),
        lambda c: c["layers"][0].__setitem__("stride", [1, 0, 1]),
        lambda c: c["layers"][0].__setitem__("padding_low", [2**62, 1, 1]),
        lambda c: c["layers"][0].__setitem__("weight", "nothing"),
        lambda c: c["layers"][0].__setitem__("bias", c["layers"][1]["bias"]),
        lambda c: c["layers"].clear(),
        lambda c: c.__setitem__("plans", []),
        lambda c: c.__setitem__("digits", 99),
        lambda c: c.__setitem__("inputs", []),
        lambda c: c.pop("results"),
    ],
)  # fmt: skip
def test_plans_that_lie_are_refused(whole: bytes, change: Callable[[dict[str, object]], None]) -> None:
    with pytest.raises(CError):
        Network(changed(whole, change)).prepare((1, 2, 8, 8))


def test_what_the_change_above_keeps_is_whole(whole: bytes, segmenter: cx.Program) -> None:
    x = noise(1, 2, 8, 8)
    assert Network(changed(whole, lambda content: None))(x)[0].tobytes() == segmenter(x)[0].tobytes()


def test_every_step_lies_within_its_buffers(whole: bytes) -> None:
    """Views that are moved, or made longer, leave the arena or a buffer: each is refused, or computes nonsense."""
    refused = 0
    for step, argument in ((0, 1), (1, 1), (1, 2), (2, 1), (4, 2)):

        def move(content: dict[str, object], step: int = step, argument: int = argument) -> None:
            arguments = _plan(content)["steps"][step][2]  # type: ignore[index]
            if isinstance(arguments[argument], list):
                arguments[argument][1] = 2**30

        try:
            Network(changed(whole, move)).prepare((1, 2, 8, 8))
        except CError:
            refused += 1
    assert refused >= 3


def test_foreign_files_are_refused(tmp_path: Path, whole: bytes) -> None:
    arrays = {"a": np.zeros(3, np.float32)}
    for metadata, reason in (
        ({}, "no saved program"),
        ({"format": "convoxel-program", "version": str(VERSION + 1)}, "this library reads up to"),
        ({"format": "convoxel-program", "version": "4"}, "older Convoxel"),
        ({"format": "convoxel-program", "version": "-1"}, "format version '-1'"),
    ):
        with pytest.raises(CError, match=reason):
            Network(b"".join(lay_out(arrays, metadata)))
    for content in (b"", b"x" * 7, b"\xff" * 64, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 60) + b"[" * 60):
        with pytest.raises(CError):
            Network(content)
    with pytest.raises(CError, match="cannot be read"):
        Network(tmp_path / "absent.cvx")
    with pytest.raises(CError, match="it is no file"):
        Network(tmp_path)


def test_an_overwritten_file_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.cvx"
    network = Network(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CError, match="was overwritten while a program of it was in use"):
        network.prepare((1, 2, 8, 8))


def test_the_steps_parameters_are_the_engines() -> None:
    """Lowerings leave out what the engine fills in."""
    from convoxel.native.plan import step_parameters

    assert set(step_parameters()) <= set(dir(Plan))
    assert ("slope", "slope", 0.0) in step_parameters()["convolve"]


def test_weights_are_stored_once(tmp_path: Path) -> None:
    """A layer's weights are the graph's, also where the engine has taken a copy of them."""
    program = cx.compile(nn.Conv2d(2, 64, 7), noise(1, 2, 16, 16))
    assert saved(program, tmp_path).stat().st_size < 1.5 * 4 * 64 * 2 * 49
