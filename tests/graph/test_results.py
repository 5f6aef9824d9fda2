"""Results as the model nests them, also from a file, which names no code."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.utils._pytree as pytree
from torch import nn

import convoxel as cx
from convoxel.errors import GraphError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.ir.pytree import Branch, Leaf
from convoxel.graph.run.program import Program
from convoxel.graph.store.cvx import _digest

X = np.random.default_rng(0).standard_normal((2, 3, 4, 6), np.float32)
Pair = namedtuple("Pair", "first second")


class Typed(NamedTuple):
    score: torch.Tensor
    parts: Any = ()


@dataclasses.dataclass
class Plain:
    """A data class that nobody registered."""

    logits: torch.Tensor
    more: Any = None
    note: str = "none"


@dataclasses.dataclass(frozen=True)
class Frozen:
    y: torch.Tensor
    computed: Any = dataclasses.field(init=False, default=None)


@dataclasses.dataclass
class Registered:
    logits: torch.Tensor
    loss: Any = None
    hidden: Any = None


class Output(OrderedDict[str, Any]):
    """An output as the transformers library makes them: keys and attributes, registered by a list of keys."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


torch.export.register_dataclass(Registered)
pytree.register_pytree_node(
    Output,
    lambda output: (list(output.values()), list(output.keys())),
    lambda values, keys: Output(zip(keys, values, strict=True)),
    serialized_type_name="tests.Output",
)


class Net(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self.conv(x))


def unpickled(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  # made by this test


RESULTS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "named tuple": lambda x, y: Pair(y, x + 1),
    "typed named tuple": lambda x, y: Typed(y, [x, {"a": (y + 1, None)}]),
    "nested named tuples": lambda x, y: [Pair(Pair(x * 1, 3), {"deep": Typed(y)}), "text"],
    "data class": lambda x, y: Plain(y, (x + 1, 2)),
    "data class in a tuple": lambda x, y: (x + 1, {"out": [Plain(y, Plain(x * 2))]}),
    "frozen data class": lambda x, y: Frozen(y),
    "registered data class": lambda x, y: Registered(y, hidden=(x + 1, y * 2)),
    "registered dictionary": lambda x, y: Output(logits=y, hidden=[x + 1]),
    "ordered dictionary": lambda x, y: OrderedDict(b=y, a=x + 1),
    "default dictionary": lambda x, y: defaultdict(list, b=y, a=x + 1),
    "deque": lambda x, y: deque([y, x + 1]),
    "sizes": lambda x, y: (y, x.shape, y.shape[2] * 2),
    "constants": lambda x, y: [None, 1, 2.5, True, "text", y],
    "nothing but constants beside": lambda x, y: {"y": y, 3: (), "empty": [{}, ()]},
    "one in a list": lambda x, y: [y],
}


def flattened(results: Any) -> list[tuple[str, Any]]:
    """Every result with the way to it, by names where there are names and by numbers elsewhere."""
    if dataclasses.is_dataclass(results):
        children: Any = [(f.name, getattr(results, f.name)) for f in dataclasses.fields(results)]
    elif isinstance(results, dict):
        children = results.items()
    elif hasattr(results, "_fields"):
        children = zip(results._fields, results, strict=True)
    elif type(results).__module__ == "torch.return_types":
        children = zip(type(results).__match_args__, results, strict=True)
    elif isinstance(results, list | tuple | deque):
        children = enumerate(results)
    else:
        return [("", results)]
    return [(f".{name}{way}", leaf) for name, child in children for way, leaf in flattened(child)]


def compare(ours: Any, expected: Any, any_order: bool = False) -> None:
    ours, expected = flattened(ours), flattened(expected)
    if any_order:
        ours, expected = sorted(ours, key=lambda row: row[0]), sorted(expected, key=lambda row: row[0])
    assert [way for way, _ in ours] == [way for way, _ in expected]
    for (_, mine), (_, other) in zip(ours, expected, strict=True):
        if isinstance(other, torch.Tensor):
            np.testing.assert_allclose(mine, other.detach(), 1e-5, 1e-5)
        else:
            assert mine == other and type(mine) is type(other)


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_the_models_own_types(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net(RESULTS[name]).eval()
    expected = net(torch.from_numpy(X))
    program = compile(net, X, verify=True)
    found = program(X)
    assert type(found) is type(expected)
    compare(found, expected)
    compare(program(torch.from_numpy(X)), expected)
    # A file knows names, not types.
    program.save(tmp_path / "net.cvx")
    loaded = cx.load(tmp_path / "net.cvx")
    assert isinstance(loaded, Program)
    again = loaded(X)
    if name == "deque":
        assert type(again) is tuple
    compare(again, expected, any_order=name == "registered data class")
    if hasattr(again, "_fields"):
        assert type(again).__name__ == type(expected).__name__ and type(again).__module__ == "convoxel.graph.ir.pytree"
    compare(unpickled(pickle.dumps(again)), expected, any_order=name == "registered data class")
    assert type(loaded(X)) is type(again)


@pytest.mark.filterwarnings("ignore:compile. 1 operator will run in PyTorch")
def test_tuples_of_pytorch_itself() -> None:
    net = Net(lambda x, y: {"found": y.sort(1)}).eval()
    found, expected = compile(net, X)(torch.from_numpy(X)), net(torch.from_numpy(X))
    assert type(found["found"]) is torch.return_types.sort
    compare(found, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "os.system"}, {"name": "import"}, {"name": ""}, {"name": "_a"}, {"name": "x" * 300}, {"name": 3},
        {"keys": ["first"]}, {"keys": ["first", "first"]}, {"keys": ["first", "a b"]}, {"keys": ["first", "_b"]},
        {"keys": ["first", None]}, {"kind": "namedtuple"}, {"kind": "os.system"}, {"kind": ""}, {"children": []},
    ],
)  # fmt: skip
def test_records_of_files_are_names_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "net.cvx"
    compile(Net(RESULTS["named tuple"]).eval(), X).save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["program"])
    assert content["structure"]["kind"] == "record" and content["structure"]["keys"] == ["first", "second"]
    content["structure"].update(change)
    text = json.dumps(content)
    metadata["program"] = text
    metadata["sha256"] = _digest(metadata, tensors)
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(GraphError, match="holds no valid program"):
        cx.load(path)


def test_fields_that_no_named_tuple_could_have(tmp_path: Path) -> None:
    net = Net(lambda x, y: Output({"a b": y, "class": x + 1})).eval()
    program = compile(net, X)
    assert list(program(X)) == ["a b", "class"]
    program.save(tmp_path / "net.cvx")
    assert type(cx.load(tmp_path / "net.cvx")(X)) is tuple


def test_structures_are_compared_by_what_they_say() -> None:
    one = Branch("record", (Leaf(0),), ("a",), "R", make=tuple)
    assert one == Branch("record", (Leaf(0),), ("a",), "R") != Branch("record", (Leaf(0),), ("b",), "R")


def test_results_that_nobody_can_take_apart() -> None:
    with pytest.raises(cx.ConvoxelError, match="set"):
        compile(Net(lambda x, y: {y}).eval(), X)


# ---- state -------------------------------------------------------------------------------------------------


class Stateful(nn.Module):
    def __init__(self, write: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.write = write
        self.inner = nn.BatchNorm2d(3)
        self.inner.register_buffer("steps", torch.zeros(1))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.weight = nn.Parameter(torch.ones(1))
        self.number, self.plain, self.shape = 1, torch.zeros(1), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        self.write(self, x)
        return y * self.inner.steps + self.hidden[0] * self.weight * self.number + self.plain


def assign(path: str, value: Callable[[Any, torch.Tensor], Any]) -> Callable[[Any, torch.Tensor], None]:
    def write(net: Any, x: torch.Tensor) -> None:
        *way, name = path.split(".")
        for part in way:
            net = getattr(net, part)
        setattr(net, name, value(net, x))

    return write


def within_no_grad(net: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        net.weight.add_(1)


WRITES = {
    "inner.steps": [lambda net, x: net.inner.steps.add_(1), assign("inner.steps", lambda inner, x: inner.steps + 1)],
    "hidden": [
        lambda net, x: net.hidden[1:].fill_(2.0),
        lambda net, x: net.hidden.copy_(x[0, 0, 0, :2]),
        assign("hidden", lambda net, x: x.mean((0, 1, 2))[:2]),
    ],
    "weight": [within_no_grad],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, writes in WRITES.items() for i in range(len(writes))])
def test_writes_to_buffers_and_parameters_are_refused_by_name(name: str, number: int) -> None:
    net = Stateful(WRITES[name][number])
    before = {key: value.clone() for key, value in (*net.named_buffers(), *net.named_parameters())}
    with pytest.raises(UnsupportedError, match=rf"the model writes its own {name} at every call"):
        compile(net, X)
    assert net.training
    for key, value in (*net.named_buffers(), *net.named_parameters()):
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("number", assign("number", lambda net, x: net.number + 1)),
        ("plain", assign("plain", lambda net, x: net.plain + 1)),
        ("inner.momentum", assign("inner.momentum", lambda inner, x: 0.5)),
    ],
)
def test_other_attributes_that_change_are_named(name: str, write: Any) -> None:
    with pytest.warns(UserWarning, match=rf"the model assigns {name} while it runs"):
        compile(Stateful(write), X)


def test_harmless_writes_are_accepted() -> None:
    compile(Stateful(assign("shape", lambda net, x: x.shape)), X)  # warnings are errors here
    compile(Stateful(assign("last", lambda net, x: x)), X)
    compile(Stateful(assign("number", lambda net, x: 1)), X)
    program = compile(nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm2d(3)), X)
    x = X.copy()
    np.testing.assert_array_equal(program(x), program(np.maximum(x, 0)))
    np.testing.assert_array_equal(x, X)  # a program writes to no argument
