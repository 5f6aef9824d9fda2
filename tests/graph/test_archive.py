"""Programs in files: what is saved is what runs, and what is damaged, foreign or newer is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F
from torch import nn

import convoxel as cx
from convoxel.cli import main
from convoxel.errors import ConfigError, GraphError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.pytree import Leaf
from convoxel.graph.store.cvx import VERSION, write_program
from convoxel.graph.store.record import ProgramRecord


class Branches(nn.Module):
    """Nested results, a size that follows from the input's, and an operator that runs in NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        a = torch.relu(self.first(x))
        b = self.second(a)
        up = nn.functional.interpolate(b, size=a.shape[2:], mode="bilinear")
        return {"parts": (up, torch.softmax(b, 1)), "height": a.shape[2] // 2, "none": None}


@pytest.fixture(scope="module")
def program() -> cx.Program:
    return compile(Branches(), torch.zeros(1, 3, 16, 16))


@pytest.fixture
def saved(program: cx.Program, tmp_path: Path) -> Path:
    path = tmp_path / "net.cvx"
    program.save(path)
    return path


def test_a_loaded_program_gives_the_same_numbers(program: cx.Program, saved: Path) -> None:
    loaded = cx.load(saved, threads=1)
    assert str(loaded.graph) == str(program.graph)  # type: ignore[union-attr]
    for shape in ((1, 3, 16, 16), (2, 3, 9, 13)):
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        ours, theirs = program(x), loaded(x)
        assert theirs["height"] == shape[2] // 2 and theirs["none"] is None
        for a, b in zip(ours["parts"], theirs["parts"], strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_array_equal(a, b)


def test_the_engine_shares_the_weights_of_a_file(saved: Path) -> None:
    """It copies what somebody could write to; of a file's weights there would be two copies for nothing."""
    for name, array in cx.load(saved).graph.constants.items():
        part: Any = array
        while isinstance(part, np.ndarray):
            assert not part.flags.writeable, name
            part = part.base


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A network of 16 MiB, the most of it in one layer."""
    torch.manual_seed(0)
    path = tmp_path / "large.cvx"
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(4096, 1024))
    compile(net, torch.zeros(1, 3, 16, 16)).save(path)
    return path


MEASURE = """
import sys
import numpy as np
from convoxel.graph.load import load

def kilobytes(kind):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(kind))

load(sys.argv[1])(np.ones((1, 3, 16, 16), np.float32))  # what modules and the engine need, whatever the network
begun = kilobytes("VmRSS")
program = load(sys.argv[2])
program(np.ones((1, 3, 16, 16), np.float32))
print(kilobytes("VmHWM") - begun)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what memory is used")
def test_a_loaded_program_holds_its_weights_once(large: Path, saved: Path) -> None:
    words = [sys.executable, "-c", MEASURE, str(saved), str(large)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    weights = large.stat().st_size / 1024
    # In three parts (bf16x6) they take half as much again; with the file's own beside them, twice as much or more.
    assert 0.9 * weights < int(done.stdout) < 1.8 * weights


def test_a_file_may_be_replaced_but_not_overwritten(large: Path, tmp_path: Path) -> None:
    program = cx.load(large)
    small, wide = (np.random.default_rng(0).standard_normal((1, 3, n, n), np.float32) for n in (16, 24))
    expected = [program(small), program(wide)]
    again = cx.load(large)
    (tmp_path / "other").write_bytes(b"another program")
    (tmp_path / "other").replace(large)
    for x, y in zip((small, wide), expected, strict=True):
        np.testing.assert_array_equal(again(x), y)
    large.write_bytes(b"short")  # the new file: nobody reads it
    again(np.concatenate([small, small]))


def test_an_overwritten_file_is_refused(large: Path) -> None:
    program = cx.load(large)
    with large.open("r+b") as file:
        file.truncate(5000)
    actions: tuple[Callable[[], Any], ...] = (
        lambda: program(np.ones((1, 3, 16, 16), np.float32)),
        lambda: program.save(large.with_name("b.cvx")),
        lambda: sum(array.sum() for array in program.graph.constants.values()),  # its pages are gone
        lambda: copy.deepcopy(program.graph.constants),
        lambda: program.replace(precision="high")(np.ones((1, 3, 16, 16), np.float32)),
    )
    for act in actions:
        with pytest.raises(GraphError, match="was overwritten while a program of it was in use; expected the file"):
            act()


def test_a_program_that_is_cut_off_between_plan_and_run_is_refused(large: Path) -> None:
    x = np.ones((1, 3, 16, 16), np.float32)
    planned, ran, copied = cx.load(large), cx.load(large), copy.deepcopy(cx.load(large))
    planned.prepare(x)
    expected = ran(x)
    with large.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(GraphError, match="was overwritten while a program of it was in use"):
        planned(x)
    for program in (ran, copied):  # whose weights are packed, or in memory
        np.testing.assert_array_equal(program(x), expected)


def test_a_constant_of_a_step_is_no_part_of_the_file(tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shift = nn.Conv2d(1, 1, 1), nn.Parameter(torch.randn(1, 1, 160, 160))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + self.shift

    x = np.ones((1, 1, 160, 160), np.float32)
    path = tmp_path / "shifted.cvx"
    compile(Shifted(), x).save(path)
    program = cx.load(path)
    assert isinstance(program, cx.Program) and program.file is not None
    expected = program(x)
    with path.open("r+b") as file:
        file.truncate(5000)
    assert program.planned(x).is_native
    np.testing.assert_array_equal(program(x), expected)


def test_loading_needs_no_pytorch(saved: Path) -> None:
    code = (
        "import sys, numpy as np, convoxel as cx; "
        f"y = cx.load({str(saved)!r})(np.ones((1, 3, 8, 8), np.float32)); "
        "sys.exit(bool({'torch', 'onnx'} & set(sys.modules)) or y['parts'][0].shape != (1, 4, 8, 8))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_foreign_nodes_are_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.i0(x)

    with pytest.warns(UserWarning, match="will run in PyTorch"):
        odd = compile(Odd(), torch.zeros(1, 2, 4))
    with pytest.raises(UnsupportedError, match=r"save: 1 node\(s\) run in PyTorch.*aten\.i0\.default"):
        odd.save("never.cvx")
    assert not Path("never.cvx").exists()


def changed(path: Path, **changes: str) -> None:
    """Write the file again with other metadata, its tensors as they are."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path.write_bytes(safetensors.numpy.save(tensors, {**metadata, **changes}))


def test_damage_is_found_wherever_it_is(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int).tolist():
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(GraphError, match=r"load: .*net\.cvx"):
            cx.load(saved)
        saved.write_bytes(whole[:place])
        with pytest.raises(GraphError, match=r"load: .*net\.cvx"):
            cx.load(saved)


def test_what_is_not_ours_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot be read"):
        cx.load(tmp_path / "missing.cvx")
    changed(saved, version=str(VERSION + 1))
    with pytest.raises(GraphError, match=rf"has format version '{VERSION + 1}'; this Convoxel reads up to {VERSION}"):
        cx.load(saved)
    changed(saved, format="another")
    with pytest.raises(GraphError, match="no saved program"):
        cx.load(saved)
    foreign = tmp_path / "weights.cvx"
    foreign.write_bytes(safetensors.numpy.save({"w": np.ones(3, np.float32)}))
    with pytest.raises(GraphError, match="no saved program"):
        cx.load(foreign)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["graph"].pop("nodes"),
        lambda content: content["graph"]["nodes"][1].__setitem__(0, "magic"),
        lambda content: content["graph"]["nodes"][1][4].pop("stride"),
        lambda content: content["graph"]["inputs"][0].__setitem__(1, [{"size": "__import__('os')"}]),
        lambda content: content.update(structure=[]),
        lambda content: content["graph"].update(outputs=["nothing"]),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(saved: Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with safetensors.safe_open(saved, framework="numpy") as file:
        content = json.loads(file.metadata()["program"])
    change(content)
    monkeypatch.setattr("convoxel.graph.store.cvx._digest", lambda text, tensors, after_each=None: "same")
    changed(saved, program=json.dumps(content), sha256="same")
    with pytest.raises(GraphError):
        cx.load(saved)


def test_a_file_from_before_an_operator_gained_operands(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with safetensors.safe_open(saved, framework="numpy") as file:
        content = json.loads(file.metadata()["program"])
    node = next(node for node in content["graph"]["nodes"] if node[0] == "convolution")
    assert node[2][-1] == ""
    del node[2][-1], node[4]["slope"]
    monkeypatch.setattr("convoxel.graph.store.cvx._digest", lambda text, tensors, after_each=None: "same")
    changed(saved, program=json.dumps(content), sha256="same")
    assert cx.load(saved)(np.zeros((1, 3, 16, 16), np.float32))["height"] == 8


class FirstVersion(nn.Module):
    """The network of ``version1.cvx``: operators that have other names today, settings of today's names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.group = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)
        for index, parameter in enumerate(self.parameters()):
            numbers = torch.sin(torch.arange(parameter.numel()) * 0.7 + index) * 0.3
            parameter.data = numbers.reshape(parameter.shape)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.stem(x))
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        z = F.channel_shuffle(self.group(F.max_unpool2d(pooled, places, 2)), 2)
        z = F.pad(z, (1, 1, 0, 0), value=0.5)
        w = F.pixel_shuffle(z, 2)
        means = z.mean((2, 3))
        return {
            "scores": torch.log_softmax(self.head(means), 1),
            "map": w,
            "best": z.argmax(1),
            "wide": F.relu(F.pad(self.stem.weight.mean() * x, (0, 0, 0, 0, 1, 2))),
            "attention": torch.sigmoid(F.conv1d(means[:, None], self.head.weight[:1, None, :3], padding=1)),
            "shape": F.pixel_unshuffle(w, 2).flatten(2).softmax(2),
            "z": torch.cat([F.interpolate(pooled, scale_factor=2), x], 1)[:, ::3],
        }


def test_a_file_of_version_1_still_loads(tmp_path: Path) -> None:
    path = Path(__file__).with_name("version1.cvx")
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata()["version"] == "1" and json.loads(file.metadata()["program"])["algorithm"] == "fast"
    loaded = cx.load(path)
    assert isinstance(loaded, cx.Program)
    assert (loaded.algorithm, loaded.precision, loaded.recorded) == ("auto", "high", None)
    loaded.save(tmp_path / "net.cvx")
    for program in (loaded, cx.load(tmp_path / "net.cvx")):
        for sizes in ((8, 8), (10, 12)):
            x = torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                expected = FirstVersion()(x)
            found = program(x)
            assert list(found) == list(expected)
            for name, y in expected.items():
                torch.testing.assert_close(found[name], y, atol=1e-4, rtol=1e-4, msg=name)


class OldWords(nn.Module):
    """The network of ``old_operators.cvx``: what was called otherwise, or had other attributes, in version 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.line = nn.Conv2d(2, 6, 3), nn.Conv1d(1, 1, 3, padding=1)
        self.slopes, self.head = nn.PReLU(6), nn.Linear(6 * 4 * 4, 4)
        for number, parameter in enumerate(self.parameters()):
            parameter.data = torch.sin(torch.arange(parameter.numel()) + number).reshape(parameter.shape) / 2

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.slopes(self.first(x))  # (n, 6, 4, 4)
        gate = self.line(x.mean((2, 3))[:, None]).transpose(1, 2)[..., None]
        x = F.pad(x * gate, (1, 1, 1, 1), "reflect")[:, :, 1:-1, 1:-1] + F.pad(x[:, 1:5], (0, 0, 0, 0, 1, 1))
        largest, places = F.max_pool2d(x, 2, return_indices=True)
        shares = torch.softmax(x, 1) + torch.softmax(x, 3)
        sums = x.sum((2, 3), keepdim=True) * x.amin(1, keepdim=True) + x.mean(1, keepdim=True)
        wide = F.max_unpool2d(largest, places, 2) + F.interpolate(largest, scale_factor=2)
        mixed = torch.cat([wide[:, ::2], shares[:, [1, 3, 5]]], 1) + sums
        top = F.adaptive_max_pool2d(mixed, 1).flatten(1)
        return self.head(mixed.flatten(1)), top, mixed.permute(0, 2, 3, 1), mixed.prod(1)


def test_operators_by_their_old_names_still_load() -> None:
    path = Path(__file__).with_name("old_operators.cvx")
    with safetensors.safe_open(path, framework="numpy") as file:
        written = {node[0] for node in json.loads(file.metadata()["program"])["graph"]["nodes"]}
    assert written >= {"array.reduce_product", "array.softmax", "blank", "dense", "global_max_pool", "lay", "narrow"}
    assert written >= {"pad", "pick_channels", "prelu", "reduce", "softmax", "squeeze"}
    program = cx.load(path)
    assert isinstance(program, cx.Program)
    for batch in (1, 3):
        x = torch.sin(torch.arange(72.0 * batch)).reshape(batch, 2, 6, 6)
        with torch.no_grad():
            expected = OldWords()(x)
        for found, wanted in zip(program(x), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_failed_write_leaves_the_old_file(saved: Path, program: cx.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(GraphError, match=r"could not be written \(No space left on device\)"):
        program.save(saved)
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]
    with pytest.raises(GraphError, match="existing folder"):
        program.save(saved.parent / "missing" / "net.cvx")
    with pytest.raises(ConfigError, match=r"net.onnx ends in '.onnx'; expected .cvx"):
        program.save(saved.parent / "net.onnx")


def test_an_attribute_that_no_file_can_hold(tmp_path: Path, program: cx.Program) -> None:
    odd = program.graph.nodes[0].with_attributes(what=object())
    graph: Graph = program.graph.replace(nodes=(odd,))
    with pytest.raises(UnsupportedError, match="an attribute is a object"):
        write_program(tmp_path / "net.cvx", ProgramRecord(graph, Leaf(0)))


# ---- command line ----------------------------------------------------------------------------------------


def test_compile_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x, y = tmp_path / "net.cvx", tmp_path / "x.npy", tmp_path / "y.npy"
    assert main(["compile", "unet", "--shape", "1,1,16,16", "--set", "levels=1", "--output", str(net)]) == 0
    np.save(x, np.ones((2, 1, 16, 16), np.float32))
    assert main(["run", str(net), "--input", str(x), "--output", str(y)]) == 0
    assert "result 0: 2×" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(y), cx.load(net)(np.load(x)))
    assert main(["run", str(net), "--input", str(x), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shapes"][0][0] == 2


def test_run_refuses(tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = tmp_path / "x.npy"
    np.save(x, np.ones((1, 3, 8, 8), np.float32))
    objects, several = tmp_path / "o.npy", tmp_path / "s.npz"
    np.save(objects, np.array([{}], object), allow_pickle=True)
    np.savez(several, a=np.ones(2))
    (tmp_path / "short.npy").write_bytes(x.read_bytes()[:-100])
    for words, said in (
        ([str(objects)], "cannot be read"),
        ([str(several)], "several arrays"),
        ([str(tmp_path / "short.npy")], "cannot be read"),
        ([str(x), "--output", "a.npy"], "1 files are named, but the network has 4 results"),
    ):
        assert main(["run", str(saved), "--input", *words]) == 2
        assert said in capsys.readouterr().err


def test_compile_takes_onnx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, "h", "w"]) for name, c in (("x", 3), ("y", 4))
    )
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "net", [x], [y], [weight])
    path, out = tmp_path / "net.onnx", tmp_path / "net.cvx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    assert main(["compile", str(path), "--shape", "1,3,8,8", "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [1, 3, 8, 8]
    assert cx.load(out)(np.ones((1, 3, 4, 5), np.float32)).shape == (1, 4, 2, 3)
    assert main(["compile", str(path), "--tune"]) == 2
    assert "do not go with .onnx files" in capsys.readouterr().err
    assert main(["compile", str(out), "--shape", "1,3,8,8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "net.cvx"


def test_compile_checks_first_where_it_shall_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in (("net.txt", "ends in '.txt'; expected .cvx"), ("none/net.cvx", "expected an existing folder")):
        assert main(["compile", "no network", "--output", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
