"""Networks quantised after training: what becomes int8, what it loses, what returns to floats, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.graph import quantise as module
from convoxel.graph.activation_range import METHODS, Observation, observe
from convoxel.graph.quantise import NOTE, Quantisation, quantise
from convoxel.graph.quantised_graph import whole_weights
from convoxel.graph.run.program import Program


class Residual(nn.Module):
    """Convolutions of several kinds around an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.outer, self.grouped = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 24, 3, stride=2, groups=3)
        self.up, self.last = nn.ConvTranspose2d(24, 8, 2, stride=2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        x = torch.relu(self.up(torch.relu(self.grouped(x))))
        return self.last(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> tuple[Program, list[np.ndarray]]:
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    samples = [rng.standard_normal((2, 3, 18, 20)).astype(np.float32) for _ in range(3)]
    return cx.compile(Residual().eval(), samples[0]), samples


def kinds(program: Program, x: np.ndarray) -> dict[str, str]:
    return {row["name"]: row["type"] for row in program.profile(x) if row["macs"]}


def test_layers_become_whole_numbers_that_flow_between_them(
    network: tuple[Program, list[np.ndarray]], tmp_path: Path
) -> None:
    program, samples = network
    quantised = quantise(program, samples, only_faster=False, max_loss=1)
    assert set(kinds(quantised, samples[0]).values()) == {"int8"}
    assert len(kinds(quantised, samples[0])) == 6
    y, y0 = quantised(samples[1]), program(samples[1])
    assert 0 < np.linalg.norm(y - y0) <= 0.05 * np.linalg.norm(y0)
    # Of the input, and of the mean before the linear layer: all else is levels from layer to layer.
    rows = quantised.profile(samples[0])
    assert [row["operator"] for row in rows].count("quantise") == 2
    assert "dequantise" not in [row["operator"] for row in rows]
    record = Quantisation.of(quantised)
    assert record is not None
    assert (len(record.layers), record.count, record.lossy, record.slow) == (6, 6, (), ())
    assert record.method in METHODS
    quantised.save(tmp_path / "net.cvx")
    loaded = cx.load(tmp_path / "net.cvx")
    np.testing.assert_array_equal(loaded(samples[1]), y)
    assert Quantisation.of(loaded) == record
    assert "int8" in loaded.explain(samples[0])


class Skips(nn.Module):
    """A small U-Net: maxima, a transposed convolution and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(self.down(x))
        deep = torch.relu(self.deep(nn.functional.max_pool2d(skip, 3, 2, 1)))
        return self.last(torch.cat([skip, torch.relu(self.up(deep))], 1))


def test_levels_pass_maxima_and_concatenations() -> None:
    torch.manual_seed(4)
    x = np.random.default_rng(4).standard_normal((2, 1, 12, 14)).astype(np.float32)
    program = cx.compile(Skips().eval(), x)
    quantised = quantise(program, [x], only_faster=False, max_loss=1)
    operators = [row["operator"] for row in quantised.profile(x)]
    assert (operators.count("quantise"), operators.count("dequantise")) == (1, 0)
    assert set(kinds(quantised, x).values()) == {"int8"}
    y, y0 = quantised(x), program(x)
    assert 0 < np.linalg.norm(y - y0) <= 0.05 * np.linalg.norm(y0)
    np.testing.assert_array_equal(np.concatenate([quantised(x[:1]), quantised(x[1:])]), y)
    np.testing.assert_array_equal(quantised.tiled(x, tile=11), y)


@pytest.mark.parametrize("dims", [1, 3])
def test_other_numbers_of_axes(dims: int) -> None:
    torch.manual_seed(dims)
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    net = nn.Sequential(kind(2, 9, 3, padding=1), nn.LeakyReLU(0.1), kind(9, 4, 3, dilation=2), nn.Sigmoid()).eval()
    x = np.random.default_rng(dims).standard_normal((1, 2, *(9,) * dims)).astype(np.float32)
    quantised = quantise(net, [x], only_faster=False, max_loss=1)
    assert set(kinds(quantised, x).values()) == {"int8"}
    np.testing.assert_allclose(quantised(x), net(torch.from_numpy(x)).detach().numpy(), atol=0.03)


def test_layers_return_to_floats_until_the_loss_is_small(network: tuple[Program, list[np.ndarray]]) -> None:
    program, samples = network
    layers = list(kinds(program, samples[0]))
    calls: list[int] = []

    def figure(candidate: Program) -> float:
        found = [name for name, kind in kinds(candidate, samples[0]).items() if kind == "int8"]
        calls.append(len(found))
        return 0.9 - 0.01 * len(found)

    quantised = quantise(program, samples, measure=figure, metric="Dice", only_faster=False, max_loss=0.025)
    record = Quantisation.of(quantised)
    assert record is not None
    assert (record.metric, record.before, len(record.layers), len(record.lossy)) == ("Dice", 0.9, 2, 4)
    assert record.loss == pytest.approx(0.02)
    assert {*record.layers, *record.lossy} == set(layers)
    found = kinds(quantised, samples[0])
    assert {name for name, kind in found.items() if kind == "int8"} == set(record.layers)
    assert len(calls) <= 6  # a search by halves, not layer by layer


def test_a_loss_that_stays_is_refused_with_its_figure(network: tuple[Program, list[np.ndarray]]) -> None:
    program, samples = network
    judge: Callable[[Program], float] = lambda each: 1.0 if each is program else 0.5  # noqa: E731
    with pytest.raises(cx.AccuracyError, match=r"1\.0000 to 0\.5000.*0\.01"):
        quantise(program, samples, measure=judge, only_faster=False, max_loss=0.01)


def test_what_is_no_faster_stays_in_floats(
    network: tuple[Program, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, samples = network
    slow = list(kinds(program, samples[0]))[2]

    def step_times(self: Any, candidate: Program) -> dict[str, float]:
        times = {}
        for row in candidate.profile(*samples[:1]):
            quick = row["type"] == "int8" and row["name"] != slow
            times[row["name"]] = 0.1 if row["operator"] == "quantise" else 1.0 if quick else 2.0
        return times

    monkeypatch.setattr(module._Search, "_step_times", step_times)
    monkeypatch.setattr(module._Search, "_times", lambda self, programs: [2.0, 1.0][: len(programs)])
    record = Quantisation.of(quantise(program, samples, max_loss=1))
    assert record is not None
    assert record.slow == (slow,)
    assert len(record.layers) == 5
    monkeypatch.setattr(module._Search, "_times", lambda self, programs: [1.0, 1.0][: len(programs)])
    none = quantise(program, samples, max_loss=1)
    np.testing.assert_array_equal(none(samples[0]), program(samples[0]))
    record = Quantisation.of(none)
    assert record is not None
    assert record.layers == ()
    assert record.loss == 0


def test_layers_of_a_block_are_quantised_and_return_together(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    layers = [nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 8, 1)]
    model = nn.Sequential(layers[0], nn.ReLU6(), layers[1], nn.ReLU6(), layers[2], nn.Conv2d(8, 4, 3)).eval()
    samples = [np.random.default_rng(4).standard_normal((1, 8, 20, 21)).astype(np.float32)]
    program = cx.compile(model, samples[0])
    assert [node.operator for node in program.graph.nodes if node.operator.startswith("depth")] == ["depthwise_block"]
    quantised = quantise(program, samples, only_faster=False, max_loss=1)
    rows = [row for row in quantised.profile(samples[0]) if row["macs"]]
    assert [row["type"] for row in rows] == ["int8"] * 4
    y, y0 = quantised(samples[0]), program(samples[0])
    assert 0 < np.linalg.norm(y - y0) <= 0.05 * np.linalg.norm(y0)

    def step_times(self: Any, candidate: Program) -> dict[str, float]:
        whole = {"conv": 0.4, "quantise": 0.0}  # three layers of a block take longer than the block in floats
        return {
            row["name"]: whole.get(row["operator"], 1.0) if row["type"] == "int8" else 1.0
            for row in candidate.profile(*samples)
        }

    monkeypatch.setattr(module._Search, "_step_times", step_times)
    monkeypatch.setattr(module._Search, "_times", lambda self, programs: [2.0, 1.0][: len(programs)])
    mixed = quantise(program, samples, max_loss=1)
    record = Quantisation.of(mixed)
    assert record is not None and record.count == 4 and len(record.layers) == 1 and len(record.slow) == 3
    assert "depthwise_block" in [node.operator for node in mixed.graph.nodes]


def test_the_bias_takes_up_what_rounded_weights_shift() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(64, 40, 1)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn_like(net[0].weight) * torch.linspace(0.1, 3, 64)[:, None, None])
    x = 5 + np.random.default_rng(5).standard_normal((1, 64, 12, 12)).astype(np.float32)  # far from zero in the mean
    program = cx.compile(net, x)
    quantised = quantise(program, [x], only_faster=False, max_loss=1, method="minmax")
    whole = whole_weights(net[0].weight.detach().numpy(), 0)
    lack = (net[0].weight.detach().numpy()[:, :, 0, 0] - whole.whole[:, :, 0, 0] * whole.scale[:, None]) @ x.mean(
        (0, 2, 3)
    )
    shift = (quantised(x) - program(x)).mean((0, 2, 3))
    assert np.abs(shift).mean() < 0.2 * np.abs(lack).mean()


def test_ranges() -> None:
    common = np.random.default_rng(6).standard_normal(200_000)
    counts, edges = np.histogram(np.append(common, 100.0), 2048, (-5.0, 100.0))
    seen = Observation(edges[0], edges[-1], counts, np.zeros(1))
    scales = {method: seen.levels(method).scale * 255 for method in METHODS}
    assert scales["minmax"] == pytest.approx(105)
    assert 7 <= scales["percentile"] <= 11
    assert scales["mse"] < scales["minmax"]
    positive = Observation(0.0, 51.0, np.ones(2048, np.int64), np.zeros(1))
    assert positive.levels("minmax") == (pytest.approx(0.2), 0)
    assert Observation(0.0, 0.0, np.zeros(2048, np.int64), np.zeros(1)).levels("mse").scale > 0


def test_observed_numbers_are_the_layers_own(network: tuple[Program, list[np.ndarray]]) -> None:
    program, samples = network
    name = next(node.inputs[0] for node in program.graph.nodes if node.operator == "convolution")
    seen = observe(program, [name], [(sample,) for sample in samples])[name]
    everything = np.stack(samples)
    assert (seen.low, seen.high) == (everything.min(), everything.max())
    assert seen.counts.sum() == everything.size
    np.testing.assert_allclose(seen.means, everything.mean((0, 1, 3, 4)), rtol=1e-6)


def test_refusals(network: tuple[Program, list[np.ndarray]]) -> None:
    program, samples = network
    with pytest.raises(cx.ConfigError, match="no samples"):
        quantise(program, [])
    for bad in (samples[0][:0], np.full_like(samples[0], np.nan)):
        with pytest.raises(cx.ConfigError, match=r"samples\[1\] is empty or holds NaN"):
            quantise(program, [samples[0], bad])
    with pytest.raises(cx.ConfigError, match="measure returned None"):
        quantise(program, samples, measure=lambda each: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(cx.ConfigError, match="max_loss is -1"):
        quantise(program, samples, max_loss=-1)
    with pytest.raises(cx.ConfigError, match=r"(?s)method.*percentil.*percentile"):
        quantise(program, samples, method="percentil")
    with pytest.raises(cx.ShapeError, match="channels"):
        quantise(program, [samples[0][:, :2]])
    with pytest.raises(cx.GraphError, match="str"):
        quantise("resnet18", samples)  # type: ignore[arg-type]
    done = quantise(program, samples[:1], only_faster=False, max_loss=1, method="minmax")
    assert NOTE in done.notes
    with pytest.raises(cx.UnsupportedError, match="already"):
        quantise(done, samples)
    with pytest.raises(cx.ConfigError, match=r"int8.*quantise"):
        cx.compile(Residual().eval(), samples[0], precision="int8")
