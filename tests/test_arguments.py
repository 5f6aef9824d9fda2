"""Odd arguments at the public face: a few of the calls that ``tools.faults.arguments`` varies, and the face itself."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convoxel as cx
from convoxel.annotation import argument_types, fits
from convoxel.arithmetic import SizeSet
from convoxel.arithmetic.notation import parse_chain, parse_chains
from convoxel.errors import ConfigError, ConvoxelError, DataError, ShapeError, UnsupportedError
from tools.faults import arguments, words
from tools.faults.face import Example, examples
from tools.faults.scene import Scene

IMAGE = torch.arange(16.0).reshape(1, 1, 4, 4)
EYE = np.eye(8, dtype=int)
ENDLESS: Any = torch.ones((), dtype=torch.int64).expand(10**11)  # as a tensor's entries are made all at once
SMALL = cx.compile(torch.nn.Conv2d(1, 1, 1).eval(), torch.zeros(1, 1, 2, 2), threads=1, tune=False)
CHAIN = parse_chain("k3")
FEW = (np.eye(8, 9, dtype=np.float32).reshape(8, 1, 3, 3), np.arange(8) % 2)
VIEW = cx.native.View.dense(1, 0, (1, 1, 2, 2, 1))
PROBLEM = ((1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1), 1, False, (1, 1, 1, 4, 4), (1, 1, 1, 4, 4))
SLOW = ("solve_", "find", "compile", "tiled", "scales", "separa", "Network", "Net", "sharing", "upsampl", "field")


def drawn() -> list[Example]:
    """A few of the quick examples, drawn by a fixed seed."""
    quick = [e for e in examples({}) if not any(word in e.name for word in SLOW)]
    return [quick[i] for i in np.random.default_rng(0).choice(len(quick), 12, replace=False)]


def test_odd_arguments_are_refused_in_words(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 0, full=False)
    for number, example in enumerate(drawn()):
        assert arguments.find(scene, example, np.random.default_rng(number)) == []


def test_odd_words_are_tried_at_every_command() -> None:
    """A new command needs a line that works in the sweep, which lists it otherwise."""
    commands = words.commands()
    assert {("describe",), ("data", "check"), ("size", "output")} <= set(commands)
    assert "--shape" in commands[("describe",)]


def test_what_leaks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep must tell an error from within, an end of the process and an example that fails."""
    names: dict[str, Any] = {"__name__": "convoxel.arithmetic.leaky"}
    text = "import os\ndef flops(macs):\n    os._exit(3) if macs == -1 else None\n    return macs.real.real + 0"
    exec(compile(text, "convoxel/leaky.py", "exec"), names)
    leaky = names["flops"]
    leaky._explains = True
    monkeypatch.setattr(cx.arithmetic, "flops", leaky)
    monkeypatch.setattr(arguments, "odd_values", lambda: {"'a'": lambda: "a", "-1": lambda: -1, "2": lambda: 2})
    scene = Scene(tmp_path, 0, full=True)
    found = arguments.find(scene, Example("flops", "convoxel.arithmetic", "convoxel.arithmetic", "flops(3)"), None)
    assert any("flops(macs='a'): AttributeError at leaky.py" in line for line in found)
    assert any(line == "flops(macs=-1): the process ended with 3" for line in found)
    wrong = Example("wrong", "convoxel.arithmetic", "convoxel.arithmetic", "flops('x' / 2)")
    assert "the example itself fails" in arguments.find(scene, wrong, None)[-1]


@pytest.mark.parametrize(("call", "kind", "told"), [
    (lambda: cx.nn.functional.max_pool(3, 2), ConfigError, "max_pool: x is 3, but it must be a tensor"),
    (lambda: cx.nn.Conv2d(2, 4, 3, groups=1.5), ConfigError, "Conv2d: groups is 1.5, but it must be a whole number"),
    (lambda: cx.nn.Conv2d(2, 4, 3)(torch.zeros(1, 3, 8, 8)), ShapeError, r"Conv2d: .*Given x=\(1, 3, 8, 8\)"),
    (lambda: cx.nn.Conv2d(2, 4, 3, device="no"), ShapeError, "Conv2d: .*device.*Given in_channels=2"),
    (lambda: cx.nn.Conv2d(2, 4, 2**70), ConfigError, "must be a whole number"),
    (lambda: cx.arithmetic.Window("a"), ConfigError, "Window: k is 'a', but it must be a whole number"),
    (lambda: cx.arithmetic.PeriodicAffine([1], 2), ConfigError, "values is .* a tuple of whole numbers"),
    (lambda: cx.arithmetic.Window(3).size(None), ConfigError, "Window.size: sizes is None"),
    (lambda: cx.arithmetic.Field.window(10**12), ShapeError, "is too long"),
    (lambda: cx.arithmetic.transposed_taps(3, s=2**60), ShapeError, "too large"),
    (lambda: cx.arithmetic.resize_taps(8, 16, scale=1e-320), ConfigError, "scale is 1e-320"),
    (lambda: cx.arithmetic.resize_taps(8, 4, scale=-0.5), ConfigError, "scale is -0.5"),
    (lambda: cx.models.NnUNet("unet"), ConfigError, "name is 'unet'"),
    (lambda: cx.compile(torch.nn.ReLU(), torch.eye(2).to_sparse()), UnsupportedError, "has the layout .*to_dense"),
    (lambda: SMALL(torch.eye(2)[None, None].to_sparse()), UnsupportedError, "layout torch.sparse_coo; .*to_dense"),
    (lambda: cx.draw.overlay(np.eye(8, dtype=complex), EYE), DataError, "image has the type complex128"),
    (lambda: cx.models.Pyramid().add(torch.nn.ReLU(), 1, name="1.5"), ConfigError, "name is '1.5'"),
    (lambda: cx.inspect.linearity(torch.nn.ReLU(), IMAGE, np.uint64(2**64 - 1)), ShapeError, "expected equal shapes"),
    (lambda: cx.nn.functional.max_pool(IMAGE, itertools.count()), ConfigError, "has more than 1000 entries"),
    (lambda: cx.conv(IMAGE.numpy(), IMAGE.numpy(), stride=ENDLESS), ConfigError, "stride has more than 1000 entries"),
    (lambda: cx.draw.conv(ENDLESS), ConfigError, "conv: size: there are 100,000,000,000 entries"),
    (lambda: cx.nn.Conv(2, 1, 1, 3, stride=ENDLESS), ConfigError, "Conv: stride: there are 100,000"),
    (lambda: cx.arithmetic.linear_macs(-1, 2), ConfigError, "in_features is -1"),
    (lambda: cx.draw.conv("a"), ConfigError, "conv: size is 'a'.* a whole number or a sequence of whole numbers"),
    (lambda: cx.arithmetic.solve_tile(CHAIN, 16).cover(2**64), ShapeError, "tiles; expected at most"),
    (lambda: cx.search.scales("unet", torch.zeros(0), (cx.search.Scale(),)), ConfigError, "shape: .* has 0 axes"),
    (lambda: cx.data.load("mni152", "segment", ignore_label=np.zeros(2)), ConfigError, "ignore_label is"),
    (lambda: cx.draw.matrix((3, 3), 2, padding=10**14), ConfigError, "too large to draw"),
    (lambda: cx.draw.deform((6, 6), padding=2**31), ShapeError, "deform: array is too big"),  # from within Cython
    (lambda: cx.models.build("unet", 1, strides=10**6), ConfigError, "strides is 1000000, .* at most 255"),
    (lambda: cx.describe(torch.nn.ReLU(), (1, 3, 8.5)), ConfigError, "input_shapes is .* whole numbers"),
    (lambda: SMALL.tiled(IMAGE.numpy(), out=3), ConfigError, "Program.tiled: out is 3"),
    (lambda: SMALL.tiled(IMAGE.numpy(), exact="no"), ConfigError, "exact is 'no', but it must be True or False"),
    (lambda: SMALL.tiling(IMAGE.numpy(), exact=2), ConfigError, "Program.tiling: exact is 2"),
    (lambda: cx.compile(torch.nn.ReLU(), IMAGE, verify="no"), ConfigError, "compile: verify is 'no'"),
    (lambda: SMALL.replace(graph=3), ConfigError, "Program: graph is 3, but it must be a Graph"),
    (lambda: SMALL.replace(file=3), ConfigError, "Program: file is 3, but it must be a TensorFile or None"),
    (lambda: SMALL.replace(choices={"avx2": 1}), ConfigError, "Program: choices is .* a mapping"),
    (lambda: parse_chains(["k3"], 10**40), ConfigError, "axes is 10+.*; expected 1 to 64"),
    (lambda: cx.native.Problem(3, *PROBLEM[1:]), ConfigError, "Problem: kernel is 3, .* a tuple of 3"),
    (lambda: SMALL.replace(thread=1), ConfigError, "there is no field 'thread'; expected one of graph, .*threads"),
    (lambda: cx.describe(3.5, (1, 1)), ConfigError, "describe: model is 3.5, but it must be .*Module"),
    (lambda: cx.search.Budget(max_params="many"), ConfigError, "Budget: max_params is 'many'.* a number or None"),
    (lambda: cx.search.Scale(width=float("nan")), ConfigError, "width: got nan"),
    (lambda: cx.models.resnet18(num_classes=2.5), ConfigError, "ResNet: num_classes is 2.5"),
    (lambda: cx.models.resnet18(depth=1e30), ConfigError, "depth is 1e.30"),
    (lambda: cx.models.ResNet("x"), ConfigError, "name is 'x'"),
    (lambda: cx.native.View.dense(0, 0, (1, 2)), ConfigError, "View.dense: shape is .* a tuple of 5"),
    (lambda: cx.nn.AvgPool(1, 2)(torch.zeros(1, 1, 4, 4)), ShapeError, "AvgPool: x has 4 axes .*expected 3"),
    (lambda: cx.nn.MaxPool(2, 2)(torch.zeros(1, 4, 4)), ShapeError, "MaxPool: x has 3 axes .*expected 4"),
    (lambda: cx.inspect.ValidSizes((SizeSet((32,)),), ()), ConfigError, "outputs has 0 entries; expected 1"),
    (lambda: cx.nn.Conv(1, 2, 4, 3, groups=True), ConfigError, "Conv: groups is True, .* a whole number"),
    (lambda: cx.nn.Conv(1, 2, 4, 3, padding=10**12), ConfigError, "padding is 10+, .* at most 2147483647"),
    (lambda: cx.nn.ConvTranspose2d(2, 4, 3, padding=10**30), ConfigError, "padding is 10+, .* at most 2147483647"),
    (lambda: cx.nn.batch_norm(2, 10**30), ConfigError, "batch_norm: channels is 10+, which is too large"),
    (lambda: cx.nn.functional.average_pool(IMAGE, 2, count_include_pad="no"), ConfigError, "count_include_pad is 'no'"),
    (lambda: cx.nn.functional.average_pool(IMAGE, 2, divisor=1.5), ConfigError, "divisor is 1.5"),
    (lambda: cx.nn.functional.resize(IMAGE, 8, antialias=2), ConfigError, "antialias is 2, .* True or False"),
    (lambda: cx.nn.functional.resize_matrix(3, 6, dims=1.5), ConfigError, "dims is 1.5"),
    (lambda: cx.nn.functional.resize_matrix((), 6), ConfigError, "dims is 0"),
    (lambda: cx.nn.functional.resize(IMAGE, 8, order=True), ConfigError, "order is True"),
    (lambda: cx.nn.functional.correlate(IMAGE, IMAGE, padding=2**62), ConfigError, "padding is .* at most 2147483647"),
    (lambda: cx.nn.functional.convolution_matrix(np.ones((2, 1, 1)), 4, groups=0), ConfigError, "groups is 0"),
    (lambda: cx.nn.functional.deform_conv(IMAGE, IMAGE[:, :0], IMAGE), ShapeError, "offset is"),
    (lambda: cx.nn.functional.toeplitz_structure(np.broadcast_to(1.0, (10**11, 4)), 4, 4), ConfigError, "too large"),
    (lambda: cx.nn.functional.toeplitz_structure((1, 2), 2, 2), ConfigError, "matrix is .* 2-D"),
    (lambda: cx.nn.functional.toeplitz_structure(np.eye(2), 2, 2, tolerance=np.nan), ConfigError, "tolerance is nan"),
    (lambda: cx.nn.functional.blur_pool(IMAGE, 10**6), ConfigError, "kernel_size is 10+, .* at most 1024"),
    (lambda: cx.nn.BlurPool(1, 1)(torch.zeros(2)), ShapeError, "BlurPool: x has 1 axes"),
    (lambda: cx.nn.DeformConv(1, 2, 2, 3, groups=0), ConfigError, "groups is 0"),
    (lambda: cx.nn.DynamicConv(1, 4, 4, 3, groups=3), ConfigError, "groups is 3, but it must divide"),
    (lambda: cx.nn.DynamicConv(1, 4, 4, 3)(torch.zeros(2)), ShapeError, "DynamicConv: Dimension out of range"),
    (lambda: cx.nn.DepthwiseSeparableConv(1, 2, 2, 3, multiplier=2**62), ConfigError, "DepthwiseSeparableConv: "),
    (lambda: cx.native.measure_ceiling(1, rounds=10**12), ConfigError, "rounds is 10+, .* at most"),
    (lambda: cx.native.Plan(0, 2).softmax(VIEW, VIEW, name=3), ConfigError, "Plan.softmax: .* argument types"),
    (lambda: convolve_plan(np.zeros(0)), ConfigError, "padding_low has 0 entries, but there are 3 axes"),
    (lambda: cx.train.study_sharing(FEW, FEW, channels=torch.tensor(2.0)), ConfigError, "channels is tensor"),
    (lambda: cx.train.study_sharing(FEW, FEW, steps=10**12), ConfigError, "steps is 10+ .* at most 100,000"),
    (lambda: cx.train.study_sharing(FEW[:1], FEW), ConfigError, "train has 1 entries; expected two"),
    (lambda: cx.train.sliding_window(abs, np.zeros((1, 4, 0)), (2, 2)), ShapeError, "empty axis"),
    (lambda: cx.train.sliding_window(abs, np.zeros((1, 4, 4)), (2, 2), batch=-1), ConfigError, "batch is -1"),
])  # fmt: skip
def test_errors_name_the_argument(call: Callable[[], object], kind: type[ConvoxelError], told: str) -> None:
    with pytest.raises(kind, match=told):
        call()


def convolve_plan(padding_low: Any) -> list[float]:
    """Return a 3 × 3 sum over a 2 × 2 image of ones, run by a plan."""
    plan = cx.native.Plan(0, 2, threads=1)
    convolution = cx.native.Convolution(np.ones((1, 1, 1, 3, 3), np.float32))
    plan.convolve(convolution, VIEW, VIEW._replace(buffer=2), padding_low=padding_low)
    image, result = np.ones(4, np.float32), np.zeros(4, np.float32)
    plan.run([image, result])
    return [float(value) for value in result]


TRUE, FALSE = (True, 1, np.bool_(True)), (False, 0, np.bool_(False))


@pytest.mark.parametrize(("call", "values"), [
    (lambda flag: cx.nn.MaxPool(2, 3, stride=2, ceil_mode=flag)(IMAGE), TRUE),
    (lambda flag: cx.nn.MaxPool(2, 3, stride=2, ceil_mode=flag)(IMAGE), FALSE),
    (lambda flag: cx.nn.AvgPool(1, 2, padding=1, count_include_pad=flag)(IMAGE[0]), FALSE),
    (lambda flag: cx.nn.Conv(1, 1, 1, 3, bias=flag).bias is None, FALSE),
    (lambda flag: cx.nn.functional.max_pool(IMAGE, 3, stride=2, ceil=flag), TRUE),
    (lambda flag: cx.nn.functional.average_pool(IMAGE, 2, padding=1, count_include_pad=flag), FALSE),
    (lambda flag: cx.nn.functional.resize(IMAGE, 8, align_corners=flag), TRUE),
    (lambda flag: cx.nn.functional.resize(IMAGE, 2, antialias=flag), TRUE),
    (lambda flag: cx.nn.functional.adaptive_max_pool(IMAGE, 2, return_indices=flag)[1], TRUE),
    (lambda size: cx.nn.functional.resize_matrix(size, 4).toarray(), (2, np.int64(2), np.array(2), torch.tensor(2))),
    (lambda image: np.asarray(cx.draw.overlay(image, EYE)), (EYE.astype(float), EYE, EYE.astype(bool))),
    (lambda size: cx.nn.functional.toeplitz_structure(np.eye(3), size, 3).kind, (3, np.int8(3), torch.tensor(3))),
    (lambda size: cx.nn.adaptive_average_pool(2, size)(IMAGE), (2, (2, 2), np.array([2, 2]), torch.tensor(2))),
    (lambda groups: cx.nn.Conv(2, 2, 4, 3, groups=groups).weight.shape, (2, np.int64(2), np.array(2), torch.tensor(2))),
    (convolve_plan, ((0, 1, 1), [0, 1, 1], np.array([0, 1, 1]), torch.tensor([0, 1, 1]))),
    (lambda number: cx.train.study_sharing(FEW, list(FEW), kernel=2, channels=number, steps=1, starts=number).channels,
     (1, np.int64(1), torch.tensor(1))),
])  # fmt: skip
def test_numbers_and_truth_values_of_other_packages_are_those_of_python(
    call: Callable[[Any], Any], values: tuple[object, ...]
) -> None:
    first, *others = (call(value) for value in values)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_what_a_function_returns_explains_its_failures_before_its_class_was_asked_for() -> None:
    code = (
        "import numpy as np, torch, convoxel as cx\n"
        "program = cx.compile(torch.nn.ReLU(), np.zeros((1, 1, 4, 4), np.float32))\n"
        "try: program.tiled(np.zeros((1, 1, 4, 4), np.float32), out=3)\n"
        "except cx.ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Program.tiled: out is 3, but it must be")


def test_types_are_those_that_a_function_was_written_with() -> None:
    """A module may be loaded anew, as for its doctests; its name then leads to other classes than before."""
    known = sys.modules["convoxel.arithmetic.size_set"]
    spec = known.__spec__
    assert spec is not None
    try:
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])  # type: ignore[union-attr]
        argument_types.cache_clear()
        affine = cx.arithmetic.PeriodicAffine((0, 1), 0)
        assert affine.after(affine) == affine
    finally:
        sys.modules[spec.name] = known
        argument_types.cache_clear()


def test_numbers_of_numpy_do_not_overflow() -> None:
    counts = cx.arithmetic.conv_macs(
        np.array([10**6, 10**6]), np.int32(10**6), np.int32(10**6), np.array([3, 3], np.int8)
    )
    assert counts == 9 * 10**24
    assert cx.arithmetic.linear_params(np.int8(100), np.int8(100)) == 10100
    assert type(cx.arithmetic.Window(np.int64(3)).k) is int
    assert cx.arithmetic.resize_taps(8, 16, scale=np.float32(2)) == cx.arithmetic.resize_taps(8, 16, scale=2.0)


def test_a_refused_layer_leaves_no_trace() -> None:
    levels = cx.models.Pyramid().levels
    with pytest.raises(TypeError, match="unhashable"):
        levels.add("layer", 4, np.array([1, 2]))  # type: ignore[arg-type]
    assert (levels.stride, levels.names) == (1, ())


def test_public_functions_are_those_that_are_written() -> None:
    """They keep their name, signature and text, are found by pickle, and Python's own errors about calls stay."""
    assert pickle.loads(pickle.dumps(cx.conv)) is cx.conv is cx.native.conv  # noqa: S301
    assert str(inspect.signature(cx.draw.matrix)).startswith("(size: 'int | Sequence[int]'")
    assert (cx.conv.__doc__ or "").startswith("Compute the cross-correlation")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        cx.conv(np.zeros((1, 1, 3)))
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        cx.arithmetic.flops(macs=1, more=2)


def test_failures_in_which_all_arguments_fit_are_told_as_what_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a value that PyTorch or NumPy refuse, of one that nobody thought of or a mistake of ours, and of a bug."""
    from convoxel.face import explained

    def broken(count: int, error: type[Exception]) -> None:
        raise error("whatever")

    broken.__module__ = "convoxel.errors"  # a module whose names its annotations have
    monkeypatch.setitem(broken.__globals__, "__name__", "convoxel.errors")
    public = explained(broken, "convoxel")
    for kind in (AttributeError, KeyError, IndexError, TypeError, ZeroDivisionError, np.exceptions.AxisError):
        with pytest.raises(ConfigError, match=rf"broken: {kind.__name__}: .*whatever.*Given count=1,.* report this"):
            public(1, kind)
    for kind, told in (
        (RuntimeError, ShapeError), (ValueError, ShapeError), (NotImplementedError, UnsupportedError),
        (FileNotFoundError, DataError),
    ):  # fmt: skip
        with pytest.raises(told, match=r"broken: whatever\. Given count=1"):
            public(1, kind)

    class Steering(RuntimeError):
        """As exporters raise to turn back."""

    for kind in (Steering, AssertionError, NameError):
        with pytest.raises(kind, match="whatever"):
            public(1, kind)
    with pytest.raises(ConfigError, match=r"broken: count is 1\.5, but it must be a whole number"):
        public(1.5, KeyError)


def test_a_call_that_runs_out_of_memory_is_told_also_where_nothing_is_left_to_look_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def empty(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("convoxel.face.argument_types", empty)
    with pytest.raises(ShapeError, match="max_pool: there is not enough memory"):
        cx.nn.functional.max_pool(3, 2)


def test_what_functions_and_modules_of_the_caller_raise_comes_back_as_it_is() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("enough")

    class Failing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("mine")

    class Odd:
        def __len__(self) -> int:
            raise RuntimeError("no length")

        def __iter__(self) -> Any:
            raise RuntimeError("no entries")

    with pytest.raises(RuntimeError, match=r"^enough$"):
        cx.train.sliding_window(fail, np.zeros((1, 4, 4), np.float32), (2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^mine$") as caught:
        cx.train.sliding_window(Failing(), np.zeros((1, 4, 4), np.float32), (2, 2))
    assert not isinstance(caught.value, ConvoxelError)
    with pytest.raises(ConvoxelError):
        cx.nn.functional.max_pool(IMAGE, Odd())  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "hint", "expected"), [
    (np.int8(1), int, True), (True, int, False), (1.0, int, False), (torch.tensor(1), int, True),
    (np.float32(1), float, True), (1j, float, False), (1, bool, True), (2, bool, False), ("a", str, True),
    ([1], tuple[int, ...], False), ((1, None), tuple[int, ...], False), ((1, 2), tuple[int, int, int], False),
    (np.zeros(2), np.ndarray, True), (torch.zeros(2), np.ndarray, False), (np.zeros(2), torch.Tensor, False),
    (np.array(["a"]), np.ndarray, False), ({"a": 1}, dict[str, int], True), ({"a": "b"}, dict[str, int], False),
])  # fmt: skip
def test_values_fit_their_annotation(value: object, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected
