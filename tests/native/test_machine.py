"""Threads, instruction sets, and mistakes in public calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convoxel as cx
from convoxel import native, reference
from convoxel.native.precision import PRECISIONS
from tools.conformance import INSTRUCTION_SETS

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_an_instruction_set_can_be_forced(isa: str) -> None:
    done = run_python("import convoxel as cx; print(cx.build_info()['instruction_set'])", CONVOXEL_ISA=isa)
    assert done.stdout.strip() == isa


def test_an_unknown_instruction_set_or_thread_count_is_refused() -> None:
    done = run_python("import convoxel as cx; cx.build_info()", CONVOXEL_ISA="mmx")
    assert "ConfigError: CONVOXEL_ISA is 'mmx'" in done.stderr
    done = run_python("import convoxel as cx; cx.build_info()", CONVOXEL_THREADS="many")
    assert "ConfigError: CONVOXEL_THREADS is 'many'" in done.stderr
    with pytest.raises(cx.ConfigError, match="threads is 0"):
        native.Plan(0, 0, 0)


def test_threads_respect_affinity_and_environment() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from convoxel import native; "
    if hasattr(os, "sched_setaffinity"):
        assert run_python(code + "print(native.default_threads())").stdout.strip() == "1"
    done = run_python("from convoxel import native; print(native.default_threads())", CONVOXEL_THREADS="3")
    assert done.stdout.strip() == "3"


def test_build_info_and_ceiling_are_filled() -> None:
    info = cx.build_info()
    assert info["instruction_set"] in [row["name"] for row in info["instruction_sets"]]
    assert info["compiler"] and info["processor"] and info["threads"] >= 1
    assert native.measure_ceiling(1, rounds=20_000) > 1e9


def test_algorithms_are_listed_with_their_limits() -> None:
    rows = cx.algorithms()
    assert {"pointwise", "indirect", "stretched", "phases"} <= {row["name"] for row in rows}
    assert all(len(row["summary"]) > 20 for row in rows)
    assert {row["precision"] for row in rows} <= set(PRECISIONS)


@pytest.mark.skipif(not (ROOT / "build").is_dir(), reason="needs the build folder")
def test_microkernel_objects_define_no_weak_symbols() -> None:
    """The linker could keep a weak symbol that was compiled for AVX-512 for every machine."""
    objects = list(ROOT.glob("build/cp*/CMakeFiles/microkernels_*.dir/csrc/*.o"))
    assert len(objects) >= 3
    for path in objects:
        symbols = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        weak = [line for line in symbols.splitlines() if line[17:18] in "VWvwu" and line[17:18] != " "]
        assert weak == [], f"{path.name}: {weak}"
        assert "_GLOBAL__sub_I" not in symbols, f"{path.name} runs code when it is loaded"


def test_families_of_algorithms_can_be_forced() -> None:
    x = np.random.default_rng(0).integers(-4, 5, (1, 16, 20, 20)).astype(np.float32)
    w = np.random.default_rng(1).integers(-4, 5, (16, 16, 3, 3)).astype(np.float32)
    exact = reference.conv(x, w, None, (1, 1), ((0, 0), (0, 0)), (1, 1))
    assert np.array_equal(cx.conv(x, w, algorithm="direct"), exact)
    fourth = cx.conv(x, w, algorithm="winograd(4)")
    assert np.array_equal(cx.conv(x, w, algorithm="winograd(4,3)"), fourth)
    assert not np.array_equal(fourth, exact)
    assert np.abs(cx.conv(x, w, algorithm="winograd") - exact).max() < 1e-2
    with pytest.raises(cx.UnsupportedError, match=r"winograd\(4,5\).*kernel.*5"):
        cx.conv(x, w, algorithm="winograd(4,5)")
    with pytest.raises(cx.UnsupportedError, match=r"'winograd'.*stride"):
        cx.conv(x, w, stride=2, algorithm="winograd")
    for name in ("winograd(4", "winograd(4,)", "winograd(4,33)", "winograd(5,3)", "direkt"):
        with pytest.raises(cx.ConfigError, match=re.escape(name) + r"'.*auto, direct, winograd, pointwise"):
            cx.conv(x, w, algorithm=name)


class TestConvMistakes:
    x = np.ones((1, 3, 8, 8), np.float32)
    w = np.ones((8, 2, 3, 3), np.float32)

    def test_channels(self) -> None:
        with pytest.raises(cx.ShapeError, match=r"conv: x has 3 channels.* 4 .*2 x 2") as error:
            cx.conv(self.x, self.w, groups=2)
        assert "Give x 4 channels" in str(error.value)

    def test_rank(self) -> None:
        with pytest.raises(cx.ShapeError, match=r"conv: x .*\(3, 8, 8\).*w \(8, 2, 3, 3\)"):
            cx.conv(self.x[0], self.w)

    def test_kernel_larger_than_input(self) -> None:
        with pytest.raises(cx.ShapeError):
            cx.conv(np.ones((1, 2, 2, 2), np.float32), self.w)

    def test_stride_and_dilation(self) -> None:
        for option in ("stride", "dilation"):
            with pytest.raises(cx.ConfigError, match=f"{option} is 0.* at least 1"):
                cx.conv(np.ones((1, 2, 8, 8), np.float32), self.w, **{option: 0})

    def test_bias(self) -> None:
        with pytest.raises(cx.ShapeError, match="bias"):
            cx.conv(np.ones((1, 2, 8, 8), np.float32), self.w, np.ones(3, np.float32))

    def test_forced_algorithm(self) -> None:
        with pytest.raises(cx.UnsupportedError, match=r"'pointwise'.*kernel"):
            cx.conv(np.ones((1, 2, 8, 8), np.float32), self.w, algorithm="pointwise")

    def test_transposed_channels(self) -> None:
        with pytest.raises(cx.ShapeError, match=r"conv_transpose: x has 3 channels.*8"):
            cx.conv_transpose(self.x, self.w)

    def test_empty_axis(self) -> None:
        with pytest.raises(cx.ShapeError, match=r"x \(1, 2, 0, 8\).*size 0"):
            cx.conv(np.ones((1, 2, 0, 8), np.float32), self.w)


def test_other_types_and_layouts_are_converted() -> None:
    x = np.arange(64).reshape(1, 1, 8, 8)[:, :, ::2, ::-1]
    y = cx.conv(x, np.ones((1, 1, 2, 2)))
    assert y.dtype == np.float32
    assert y[0, 0, 0, 0] == x[0, 0, :2, :2].sum()
    assert cx.conv(np.ones((0, 1, 4), np.float32), np.ones((2, 1, 3), np.float32)).shape == (0, 2, 2)


def test_the_stub_of_the_core_is_current() -> None:
    """`python -m nanobind.stubgen -D -m convoxel.native._core -o src/convoxel/native/_core.pyi` writes it."""
    stubgen = pytest.importorskip("nanobind.stubgen")
    generator = stubgen.StubGen(native._core, quiet=True)
    generator.put(native._core)
    written = (ROOT / "src/convoxel/native/_core.pyi").read_text()
    names = re.findall(r"def (\w+)\(", generator.get())
    assert len(names) > 10
    assert re.findall(r"def (\w+)\(", written) == names
