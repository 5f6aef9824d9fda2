"""Programs as users meet them: calls, fallback to PyTorch, nested results, threads, and every error message."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convoxel.arithmetic.size_search import nearest_sizes
from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.run.program import Program


class Net(nn.Module):
    """A network given as a function of its own layers and its inputs."""

    def __init__(self, function: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 3, 1))


@pytest.fixture(scope="module")
def small() -> Program:
    return compile(small_net(), torch.zeros(1, 2, 16, 16))


def quietly(model: nn.Module, *examples: torch.Tensor) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(model, *examples)


# ---- calling ---------------------------------------------------------------------------------------------


def test_arrays_give_arrays_and_tensors_give_tensors(small: Program) -> None:
    x = torch.randn(2, 2, 8, 10)
    tensor, array = small(x), small(x.numpy())
    assert isinstance(tensor, torch.Tensor) and isinstance(array, np.ndarray)
    assert array.shape == (2, 3, 4, 5) and array.dtype == np.float32
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_any_memory_order(small: Program) -> None:
    x = torch.randn(2, 2, 8, 10)
    expected = small(x)
    assert torch.equal(small(x.to(memory_format=torch.channels_last)), expected)
    assert torch.equal(small(x.requires_grad_()), expected)
    fortran = np.asfortranarray(x.detach().numpy())
    fortran.flags.writeable = False
    np.testing.assert_array_equal(small(fortran), expected)


def test_results_are_the_callers_own(small: Program) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    first = small(x)
    kept = first.copy()
    second = small(2 * x)
    first[:] = 0
    np.testing.assert_array_equal(small(x), kept)
    assert not np.shares_memory(first, second)


def test_the_network_may_return_its_input_or_a_constant() -> None:
    net = Net(lambda self, x: (x, self.layer.weight, x.relu()), layer=nn.Conv2d(2, 2, 1))
    program = compile(net, torch.zeros(1, 2, 4, 4))
    x = np.ones((1, 2, 4, 4), np.float32)
    same, constant, _ = program(x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(constant, net.layer.weight.detach().numpy())
    same[:] = 7
    constant[:] = 7
    assert x.max() == 1 and program(x)[1].max() < 7


def test_nested_results() -> None:
    def nested(self: nn.Module, x: torch.Tensor) -> Any:
        return {"a": x.relu(), "b": [x * 2, (x.sigmoid(), None)], "size": x.shape[2], "text": "logits"}

    program = compile(Net(nested), torch.zeros(1, 2, 4, 6))
    result = program(torch.ones(3, 2, 8, 6))
    assert list(result) == ["a", "b", "size", "text"]
    assert isinstance(result["b"], list) and isinstance(result["b"][1], tuple)
    assert result["b"][0].max() == 2 and result["b"][1][1] is None
    assert result["size"] == 8 and result["text"] == "logits"


def test_several_inputs() -> None:
    def joined(self: nn.Module, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.up(a), b], 1)

    net = Net(joined, up=nn.ConvTranspose2d(4, 2, 2, 2)).eval()
    program = compile(net, torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 16, 16))
    a, b = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 10, 12)
    torch.testing.assert_close(program(a, b), net(a, b).detach())
    with pytest.raises(ShapeError, match=r"expected \(n, 3, 2 \* h, 2 \* w\): axis 2 is 11, but must be 10"):
        program(a, torch.randn(2, 3, 11, 12))


def test_weights_are_those_of_the_moment_of_compilation() -> None:
    net = small_net()
    net.train()
    x = torch.randn(1, 2, 8, 8)
    program = compile(net, x)
    expected = program(x)
    assert net.training and all(module.training for module in net.modules())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(program(x), expected)
    # A size that comes later is planned from the same weights.
    assert program(torch.randn(1, 2, 12, 12)).abs().max() > 0


def test_the_mode_of_every_module_is_kept() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    net[1].eval()
    compile(net, torch.zeros(1, 1, 4, 4))
    assert [module.training for module in net] == [True, False, True]


# ---- many threads, many sizes ----------------------------------------------------------------------------


def test_two_threads_share_one_program(small: Program) -> None:
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(1, 2, 8 + 2 * i, 12)).astype(np.float32) for i in range(6)]
    expected = [compile(small_net(), x)(x) for x in inputs[:1]] + [small(x) for x in inputs[1:]]
    failures: list[BaseException] = []

    def work(order: int) -> None:
        try:
            for _ in range(20):
                for x, y in list(zip(inputs, expected, strict=True))[::order]:
                    np.testing.assert_array_equal(small(x), y)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(order,)) for order in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_two_threads_with_a_foreign_operator() -> None:
    program = quietly(
        Net(lambda self, x: self.c(x * 2).cumsum(2).relu(), c=nn.Conv2d(2, 2, 1)), torch.zeros(1, 2, 8, 8)
    )
    inputs = [np.random.default_rng(i).normal(size=(1, 2, 8, 8)).astype(np.float32) for i in range(2)]
    expected = [program(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(50) if not np.array_equal(program(inputs[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_plans_are_kept_for_a_bounded_number_of_sizes(small: Program) -> None:
    for width in range(8, 80, 2):
        small(np.zeros((1, 2, 8, width), np.float32))
    assert len(small._plans.keys()) <= 16
    assert small._plans.keys()[-1] == ((1, 2, 8, 78),)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(small: Program, threads: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 24, 20)).astype(np.float32)
    np.testing.assert_array_equal(compile(small_net(), x, threads=threads)(x), small(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_runs_the_program_that_its_parent_used() -> None:
    """Sizes that are planned and sizes that are not, with threads that exist only in the parent."""
    inputs = [np.random.default_rng(0).normal(size=(2, 2, side, side)).astype(np.float32) for side in (24, 26)]
    program = compile(small_net(), inputs[0], threads=2)
    expected = [program(inputs[0]), compile(small_net(), inputs[1], threads=2)(inputs[1])]
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(program(x), y) for x, y in zip(inputs, expected, strict=True))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(program(inputs[1]), expected[1])  # and the parent goes on


# ---- what PyTorch computes -------------------------------------------------------------------------------


def test_an_unknown_operator_runs_in_pytorch_and_is_named() -> None:
    net = Net(lambda self, x: self.c(torch.i0(self.c(x))), c=nn.Conv2d(2, 2, 3, padding=1))
    with pytest.warns(UserWarning, match=r"compile: 1 operator will run in PyTorch: aten.i0.default \(no rule\)"):
        program = compile(net, torch.zeros(1, 2, 8, 8))
    for shape in ((1, 2, 8, 8), (3, 2, 12, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), net(x).detach())
    assert "aten.i0.default" in program.explain(x)
    assert {row["operator"] for row in program.profile(x)} >= {"pytorch"}


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x.permute(0, 2, 3, 1),
        lambda self, x: self.c(x).permute(0, 2, 1, 3).relu(),
        lambda self, x: x.argmax(1),
        lambda self, x: torch.stack([x.relu(), x], 1),
        lambda self, x: F.pad(x, [1, 1, 1, 1], value=2.0) * 2,
        lambda self, x: (x > 0).float() * self.c(x),
        lambda self, x: x - self.c(x),
        lambda self, x: torch.max(self.c(x), dim=1)[0],
        lambda self, x: F.max_pool2d(x, 2, return_indices=True)[1],
        lambda self, x: x * x.shape[2],
        lambda self, x: F.linear(x.mean((2, 3))[:, None], torch.ones(3, 2)),
        lambda self, x: x.flatten() * 2,
        lambda self, x: torch.einsum("nchw,nkhw->nck", x, self.c(x)),
        lambda self, x: F.conv2d(x, self.c.weight * x.mean()),
        lambda self, x: self.c(x)[:, :, torch.tensor([1, 0])],
        lambda self, x: F.gelu(x, approximate="tanh"),
        lambda self, x: x.clamp(-1, 1),
        lambda self, x: x.new_zeros(x.shape).index_add_(2, torch.tensor([0, 1]), x[:, :, :2]),
        lambda self, x: x.view(x.shape[0], 2, -1, 2).transpose(2, 3).reshape(x.shape),
    ],
)
def test_pytorch_and_engine_take_turns(function: Any) -> None:
    net = Net(function, c=nn.Conv2d(2, 2, 1)).eval()
    program = quietly(net, torch.zeros(1, 2, 8, 8))
    for shape in ((1, 2, 8, 8), (2, 2, 6, 10)):
        x = torch.randn(shape)
        kept = x.clone()
        torch.testing.assert_close(program(x), net(x).detach())
        assert torch.equal(x, kept)


def test_a_branch_on_the_size_is_not_taken_for_all_sizes() -> None:
    def crop_odd(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        up = self.up(F.max_pool2d(x, 2))
        if up.shape[2] != x.shape[2]:
            up = F.pad(up, (0, 0, 0, 1))
        return torch.cat([x, up], 1)

    net = Net(crop_odd, up=nn.ConvTranspose2d(2, 2, 2, 2)).eval()
    for height, other in ((8, 9), (9, 8)):
        program = compile(net, torch.zeros(1, 2, height, 8))
        x = torch.randn(2, 2, height + 4, 6)
        torch.testing.assert_close(program(x), net(x).detach())
        with pytest.raises(
            ShapeError, match=r"inputs \(1, 2, \d, 8\): it was compiled for .*, but h = \d; compile again .* fit: h = "
        ):
            program(torch.zeros(1, 2, other, 8))


def test_sizes_recorded_under_a_condition_are_not_used_without_it() -> None:
    def resized(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool2d(x, 3, 3, 1, ceil_mode=True)
        return F.interpolate(x, size=pooled.shape[2:])

    net = Net(resized).eval()
    program = compile(net, torch.zeros(1, 1, 16, 16))
    refused = 0
    for size in range(6, 30):
        x = torch.randn(1, 1, size, size)
        try:
            torch.testing.assert_close(program(x), net(x))
        except ShapeError as error:
            assert "compile again with an example of this size" in str(error)
            refused += 1
    assert refused < 24


def test_a_network_that_fixes_its_size() -> None:
    net = Net(lambda self, x: x * float(x.shape[2] % 7) + len(x)).eval()
    program = quietly(net, torch.zeros(1, 2, 8, 8))
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(program(x), net(x))
    with pytest.raises(ShapeError, match=r"\(2, 2, 8, 8\), expected \(1, 2, 8, 8\): axis 0 is 2, but must be 1; if"):
        program(torch.zeros(2, 2, 8, 8))


# ---- looking inside --------------------------------------------------------------------------------------


def test_profile_and_memory(small: Program) -> None:
    x = np.zeros((1, 2, 32, 32), np.float32)
    rows = small.profile(x)
    assert [row["name"] for row in rows] == ["input:last", "0", "2", "3", "3:first"]
    first = rows[1]
    assert first["macs"] == 32 * 32 * 8 * 2 * 9 and first["shape"] == (1, 8, 32, 32)
    assert first["time_s"] > 0 and first["gflops"] == pytest.approx(2e-9 * first["macs"] / first["time_s"])
    memory = small.memory(x)
    # input 2, convolution 8, pooled 8/4 and 3/4 channels of 32 x 32 floats; the largest two live together
    assert memory.activation_bytes == 4 * 32 * 32 * (2 + 8 + 2) + 4 * 16 * 16 * 3
    assert memory.arena_bytes == 4 * 32 * 32 * (8 + 2)
    assert memory.weight_bytes == 4 * (8 * 2 * 9 + 8 + 3 * 8 + 3)
    assert rows[1]["bytes"] == 4 * 32 * 32 * 8 and rows[2]["bytes"] == 4 * 16 * 16 * 8
    assert repr(small) == "Program(Sequential: input: float32[n, 2, h, w])"


def test_tuning_keeps_the_results() -> None:
    net = small_net().eval()
    x = torch.randn(1, 2, 16, 16)
    tuned = compile(net, x, tune=True)
    torch.testing.assert_close(tuned(x), net(x).detach())


def test_programs_need_no_torch() -> None:
    code = "import sys, convoxel.graph.run.program, convoxel.graph.passes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- errors ----------------------------------------------------------------------------------------------


WRONG: list[tuple[Any, str]] = [
    (
        np.zeros((2, 16, 16), np.float32),
        r"input has 3 axes \(2, 16, 16\), expected 4: \(n, c, h, w\), here \(n, 2, h, w\).*x\[None\]",
    ),
    (np.zeros((1, 1, 2, 16, 16), np.float32), r"input has 5 axes .* expected 4"),
    (
        np.zeros((1, 3, 16, 16), np.float32),
        r"\(1, 3, 16, 16\), expected \(n, 2, h, w\): 3 channels came, the network takes 2",
    ),
    (np.zeros((1, 2, 16, 16)), r"input is float64, expected float32; convert it \(x.astype\(np.float32\)\)"),
    (
        torch.zeros(1, 2, 16, 16, dtype=torch.int32),
        r"input is torch.int32, expected torch.float32; convert it \(x.float\(\)\)",
    ),
    (np.zeros((1, 2, 0, 16), np.float32), r"\(1, 2, 0, 16\), expected .* with every size at least 1"),
    ([[1.0]], r"input is a list, expected a NumPy array or a PyTorch tensor"),
    (np.zeros((1, 2, 1, 16), np.float32), r"max_pool 2: the output would be \(1, 8, 0, 8\).*too small"),
]


@pytest.mark.parametrize(("x", "message"), WRONG)
def test_wrong_inputs(small: Program, x: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        small(x)


def test_wrong_number_of_inputs(small: Program) -> None:
    with pytest.raises(ShapeError, match=r"program: 2 inputs came, expected 1 \(input\)"):
        small(np.zeros((1, 2, 8, 8), np.float32), np.zeros((1, 2, 8, 8), np.float32))


def test_tensors_of_another_device_are_refused(small: Program) -> None:
    with pytest.raises(UnsupportedError, match=r"input is on meta; Convoxel runs on the CPU: pass x.cpu\(\)"):
        small(torch.zeros(1, 2, 8, 8, device="meta"))


class Unpadded(nn.Module):
    """A U-Net of one level without padding; ``crop`` cuts the skip to what comes up, ``fixed`` by 2 pixels."""

    def __init__(self, crop: str) -> None:
        super().__init__()
        self.crop = crop
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 3)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.a(x)
        up = self.up(self.b(F.max_pool2d(skip, 2)))
        skip = skip[:, :, 2 : 2 + up.shape[2], 2 : 2 + up.shape[3]] if self.crop == "fitting" else skip[..., 2:-2, 2:-2]
        return self.c(torch.cat([skip, up], 1))


def fixed_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 8 * 8, 3))


def joined() -> nn.Module:
    return Net(
        lambda self, x: torch.cat([x, self.up(F.max_pool2d(F.max_pool2d(x, 2), 2))], 1),
        up=nn.ConvTranspose2d(1, 1, 4, 4),
    )


@functools.cache
def unfit(kind: str) -> Program:
    """A program planned for 32 x 32."""
    models = {"joined": joined, "head": fixed_head}
    model = models[kind]() if kind in models else Unpadded(kind)
    return compile(model.eval(), torch.zeros(1, 1, 32, 32))


UNFIT: list[tuple[str, tuple[int, int], str]] = [
    # the node, what it needed, the nearest sizes that fit
    (
        "joined",
        (10, 12),
        r"program: inputs \(1, 1, 10, 12\): concat cat: cannot join \(1, 1, 10, 12\) and \(1, 1, 8, 12\) along axis 1"
        r".* fit: h = 12, w = 12; or h = 8, w = 12. Pad, crop or resize x$",
    ),
    ("joined", (35, 37), r"concat cat: .* fit: h = 36, w = 40; or h = 32, w = 36\. Pad"),
    ("joined", (2, 2), r"max_pool max_pool2d_1: the output would be \(1, 1, 0, 0\).* fit: h = 4, w = 4\. Pad"),
    ("fixed", (33, 40), r"concat cat: cannot join .* fit: h = 34, w = 40; or h = 32, w = 40\. Pad"),
    ("fixed", (9, 33), r"concat cat: cannot join .* fit: h = 10, w = 34(; or .*)?\. Pad"),
    (
        "fitting",
        (9, 33),
        r"convolution c: the output would be \(1, 2, 0, 24\): the input \(1, 8, 2, 26\) is too small for the window"
        r".* fit: h = 10, w = 33\. Pad",
    ),
    ("fitting", (4, 4), r"convolution b: .* is too small for the window\. .* fit: h = 10, w = 10\. Pad"),
    (
        "head",
        (16, 16),
        r"linear 3: x \(1, 4, 4, 4\) has 64 features but the linear layer expects 256.* fit: h = 31, w = 31\. Pad",
    ),
    ("head", (32, 40), r"linear 3: .* has 320 features .* fit: h = 32, w = 34\. Pad"),
    ("head", (400, 300), r"linear 3: .* fit: h = 32, w = 32\. Pad"),  # far away: what was planned before
]


@pytest.mark.parametrize(("kind", "size", "message"), UNFIT)
def test_sizes_that_do_not_fit_name_the_node_and_the_nearest_that_do(
    kind: str, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        unfit(kind)(torch.zeros(1, 1, *size))


def test_the_nearest_sizes_do_fit() -> None:
    program = unfit("fixed")
    for size in ((33, 40), (11, 13), (9, 9)):
        with pytest.raises(ShapeError) as caught:
            program(torch.zeros(1, 1, *size))
        for h, w in re.findall(r"h = (\d+), w = (\d+)", str(caught.value)):
            assert program(torch.zeros(1, 1, int(h), int(w))).shape[2:] == (int(h) - 8, int(w) - 8)


def test_no_size_fits_far_from_all() -> None:
    assert nearest_sizes(lambda sizes: False, {"n": 1, "w": 5}, ["w"], 8) == []
    assert nearest_sizes(lambda sizes: True, {"n": 1}, [], 8) == []
    asked: list[int] = []

    def refuse(sizes: Mapping[str, int]) -> bool:
        asked.append(sizes["w"])
        return False

    assert nearest_sizes(refuse, {"w": 5, "h": 10**9}, ["w", "h"], 8) == []
    assert len(asked) < 200 and min(asked) > 0  # nothing between the two lengths is tried


def test_wrong_models_and_options() -> None:
    x = torch.zeros(1, 2, 8, 8)
    with pytest.raises(GraphError, match=r"model is a function, expected a torch.nn.Module; wrap a function"):
        compile(lambda x: x, x)
    with pytest.raises(GraphError, match=r"there is no example input"):
        compile(small_net())
    with pytest.raises(GraphError, match=r"example_inputs\[0\] is a list, expected a tensor or array"):
        compile(small_net(), [1.0])
    with pytest.raises(ShapeError, match=r"example_inputs\[0\] is torch.float64, expected float32; convert it"):
        compile(small_net(), x.double())
    with pytest.raises(ShapeError, match=r"example_inputs\[0\] has shape \(1, 2, 0, 8\), expected \(n, c, …\)"):
        compile(small_net(), torch.zeros(1, 2, 0, 8))
    with pytest.raises(
        ShapeError, match=r"cannot be read by torch.export with example_inputs \(1, 3, 8, 8\): .*takes 2 channels"
    ):
        compile(small_net(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"threads is 0, expected at least 1"):
        compile(small_net(), x, threads=0)
    with pytest.raises(ConfigError, match=r"tune=True chooses algorithms, but algorithm='indirect' forces one"):
        compile(small_net(), x, tune=True, algorithm="indirect")


def test_a_forced_algorithm_that_cannot_run_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"convolution 0: .*pointwise"):
        compile(small_net(), torch.zeros(1, 2, 8, 8), algorithm="pointwise")


def test_control_flow_on_values_is_refused() -> None:
    with pytest.raises(GraphError, match=r"cannot be read by torch.export .* control flow on values"):
        compile(Net(lambda self, x: x if x.sum() > 0 else -x), torch.zeros(1, 2, 8, 8))


def test_sizes_that_depend_on_values_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"size of aten.nonzero.default .* depends on values"):
        compile(Net(lambda self, x: x.nonzero()), torch.zeros(1, 2, 8, 8))
