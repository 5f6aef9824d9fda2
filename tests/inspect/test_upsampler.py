"""Ways of up-sampling side by side: overlaps against counting, the checkerboard against its definition, the command."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import pkgutil
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from convoxel import draw, inspect
from convoxel import nn as cnn
from convoxel.arithmetic import transposed_taps
from convoxel.cli import main
from convoxel.errors import ConfigError, ShapeError
from tests.support.refusal import refused_command


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("scale", [2, 3])
def test_C7_kernel_3_overlaps_unevenly_and_kernel_4_evenly(dims: int, scale: int) -> None:
    ways = cnn.upsamplers(dims, 2, 3, scale)
    rows = {row.name: row for row in inspect.upsampling(ways, (1, 2, *(6,) * dims), starts=64 >> dims, timed=False)}
    assert list(rows) == list(ways)
    for kernel in (scale, scale + 1, 2 * scale):
        row = rows[f"transposed, kernel {kernel}"]
        # Far from the border, output o of a transposed convolution reads as many inputs as there are taps.
        taps = transposed_taps(kernel, scale, -(-(kernel - scale) // 2))
        inside = [len(taps.at(4 * scale + phase)) for phase in range(scale)]
        assert sorted(row.overlaps) == sorted(math.prod(reads) for reads in itertools.product(inside, repeat=dims))
        assert row.even == (kernel % scale == 0) == (row.checkerboard < 1e-12)
        assert row.params == kernel**dims * 6 + 3 and row.macs == (6 * kernel) ** dims * 6
    assert rows["transposed, kernel 3" if scale == 2 else "transposed, kernel 4"].even is False
    for name in ("nearest + convolution", "linear + convolution"):
        assert rows[name].even and set(rows[name].overlaps) == {3.0**dims}
        assert abs(rows[name].checkerboard_start) < 1e-9, "whatever the weights, a constant stays constant"
    for name in set(rows) - {"nearest + convolution", "linear + convolution"}:
        # Each of ∏s positions has weights of its own: of independent means of 0, 1 − 1/∏s is what differs.
        assert rows[name].checkerboard_start == pytest.approx(1 - scale**-dims, abs=0.15)


def test_C7_checkerboard_is_the_energy_at_the_frequencies_of_the_stride() -> None:
    y = torch.randn(3, 12, 8, generator=torch.manual_seed(0), dtype=torch.float64)
    power = torch.fft.fft2(y).abs().square()
    fold = power[:, ::4, ::4]  # the multiples of 1/3 and 1/2 of the sampling rate
    expected = 1 - float(fold[:, 0, 0].sum() / power[:, [0, 4, 8]][:, :, [0, 4]].sum())
    assert inspect.checkerboard(y, (3, 2)) == pytest.approx(expected, abs=1e-12)
    assert inspect.checkerboard(torch.zeros(1, 4), (2,)) == 0.0
    with pytest.raises(ShapeError, match=r"checkerboard: y is \(1, 5\); expected .* in blocks of \(2,\)"):
        inspect.checkerboard(torch.zeros(1, 5), (2,))


def test_models_are_left_as_they_are_and_starts_repeat() -> None:
    way = {"one": nn.ConvTranspose1d(1, 1, 2, 2)}
    before, state = way["one"].weight.detach().clone(), torch.random.get_rng_state()
    first, again = (inspect.upsampling(way, (1, 1, 4), starts=3, timed=False)[0] for _ in range(2))
    assert torch.equal(before, way["one"].weight) and torch.equal(state, torch.random.get_rng_state())
    assert first.checkerboard_start == again.checkerboard_start > 0
    assert inspect.upsampling(way, (1, 1, 4), starts=3, seed=9, timed=False)[0].checkerboard_start != pytest.approx(
        first.checkerboard_start
    )


def test_C7_report_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dims in (1, 2, 3):
        picture = tmp_path / f"{dims}.svg"
        words = ["--dims", dims, "--channels", 2, "--size", 4, "--starts", 1, "--output", picture]
        assert main(["compare", "upsampling", *map(str, words), *(["--no-time"] if dims > 1 else [])]) == 0
        shown = capsys.readouterr().out
        assert "transposed, kernel 3" in shown and "1 or 2" in shown and f"Figure: {picture}" in shown
        assert "products an output" in picture.read_text(encoding="utf-8")
    assert main(["compare", "upsampling", "--size", "4", "--scale", "3", "--starts", "1", "--no-time", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [1, 16, 4, 4] and len(found["ways"]) == 7 and found["figure"] is None
    assert found["ways"][0]["time_s"] is None and found["ways"][0]["even"] is True


def test_the_picture_has_a_bar_for_each_figure() -> None:
    rows = inspect.upsampling(cnn.upsamplers(2, 2, 2), (1, 2, 4, 4), starts=1, timed=False)
    figure = draw.upsampling(rows)
    bars = [shape.data["bar"] for shape in figure.shapes if "bar" in shape.data]
    assert bars.count("parameters") == bars.count("multiply–adds") == 7 and "time of one run" not in bars
    widths = [shape.width for shape in figure.shapes if shape.data.get("bar") == "parameters"]
    assert widths == pytest.approx([max(widths) * row.params / max(r.params for r in rows) for row in rows])
    with pytest.raises(ConfigError, match="rows is empty"):
        draw.upsampling([])


def test_refusals(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 0 models and starts=16; expected at least one of each"):
        inspect.upsampling({}, (1, 1, 4))
    with pytest.raises(ShapeError, match=r"upsampling: third makes \(1, 1, 9\) of \(1, 1, 4\); expected"):
        inspect.upsampling({"third": nn.ConvTranspose1d(1, 1, 3, 2)}, (1, 1, 4), timed=False)
    with pytest.raises(ConfigError, match="scale is 1, but it must be a whole number of at least 2"):
        cnn.upsamplers(2, 1, 1, 1)
    assert "'--dims'" in refused_command(capsys, "compare", "upsampling", "--dims", "4")
    line = refused_command(capsys, "compare", "upsampling", "--output", tmp_path / "none" / "a.svg")
    assert "output: the folder of" in line
    line = refused_command(capsys, "compare", "upsampling", "--no-time", "--size", "4", "--output", tmp_path / "a.bmp")
    assert "ends in '.bmp'" in line


def test_a_name_loaded_late_is_no_modules_name() -> None:
    """Else importing the module would put it where the function is expected."""
    importlib.import_module("convoxel.inspect.upsampler")
    for name in inspect.__all__:
        assert not isinstance(getattr(inspect, name), types.ModuleType), name
    modules = {module.name for module in pkgutil.iter_modules(inspect.__path__)}
    assert not ({*inspect.__all__} - {"describe"}) & modules
