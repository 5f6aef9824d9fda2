"""Separability: what is found is exact, and a network that is rewritten keeps its budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import nn

import convoxel as cx
from convoxel import nn as cnn
from convoxel.cli import main
from convoxel.errors import ConfigError, ShapeError
from convoxel.inspect import separability
from convoxel.inspect.factorisation import SCHEMES, canonical, factorise, tucker
from convoxel.inspect.rank import factor_layers
from convoxel.train import TrainConfig, fit, load_model, run_separation
from tests.support.refusal import refused_command

SOBEL = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]


def weights_as_time(module: nn.Module, shape: Sequence[int]) -> float:
    """A clock that always says the same."""
    return float(sum(parameter.numel() for parameter in module.parameters()))


# ---- single kernels --------------------------------------------------------------------------------------


def test_D9_sobel_is_a_product_and_convolution_is_associative() -> None:
    found = separability(SOBEL)
    u, v = (vector.numpy() for vector in found.vectors())
    assert found.separable and np.allclose(np.outer(u, v), SOBEL, atol=1e-12)
    assert np.allclose(u / u[0], [1, 2, 1]) and np.allclose(v / v[0], [1, 0, -1])
    assert (found.freedom(), found.freedom(1)) == (9, 6)
    image = np.random.default_rng(0).standard_normal((9, 11))
    twice = convolve2d(convolve2d(image, u[:, None]), v[None])
    assert np.allclose(convolve2d(image, np.array(SOBEL)), twice, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (4, 7)])
def test_D10_error_is_the_discarded_singular_values(shape: tuple[int, int]) -> None:
    kernel = np.random.default_rng(0).standard_normal(shape)
    found = separability(kernel)
    (spectrum,) = found.spectra
    assert np.allclose(spectrum.values, np.linalg.svd(kernel, compute_uv=False))
    for rank in range(1, min(shape) + 1):
        assert found.error(rank) == pytest.approx(np.sqrt(np.sum(np.square(spectrum.values[rank:]))), abs=1e-12)
        assert found.error(rank) == pytest.approx(spectrum.error(rank), abs=1e-12)
        exact = separability(found.best(rank))
        assert exact.ranks == (rank,) and exact.separable == (rank == 1)


def test_D10_rank_one_in_three_dimensions_is_found_exactly() -> None:
    torch.manual_seed(0)
    u, v, w = torch.randn(3), torch.randn(5), torch.randn(4)
    cube = torch.einsum("i,j,k->ijk", u, v, w)
    found = separability(cube)
    assert found.ranks == (1, 1, 1) and found.separable and found.error(1) < 1e-6 * float(cube.norm())
    a, b, c = found.vectors()
    assert torch.allclose(torch.einsum("i,j,k->ijk", a, b, c).float(), cube, atol=1e-5)
    two = cube + torch.einsum("i,j,k->ijk", torch.randn(3), torch.randn(5), torch.randn(4))
    assert separability(two).ranks == (2, 2, 2) and not separability(two).separable
    assert float((canonical(two, 2) - two).norm()) < 1e-3 * float(two.norm())
    assert float((tucker(two, (2, 2, 2)) - two).norm()) < 1e-6 * float(two.norm())
    # No Tucker approximation is nearer than its worst unfolding allows, nor further than all together.
    random = separability(torch.randn(4, 4, 4))
    lost = [spectrum.error(2) for spectrum in random.spectra]
    assert max(lost) <= random.error((2, 2, 2)) <= float(np.sqrt(np.sum(np.square(lost)))) + 1e-9
    assert separability([1.0, 2.0]).separable


# ---- layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_D10_factorisations_are_convolutions(dims: int, scheme: str) -> None:
    torch.manual_seed(0)
    window: dict[str, Any] = {"stride": 2, "padding": 2, "dilation": 2}
    layer = cnn.conv(dims, 12, 10, 3, **window)
    x = torch.randn(2, 12, *(13, 12, 11)[:dims])
    for error in (1e-9, 0.2, 0.5):
        made = factorise(layer.weight, scheme, error)
        if made is None:
            assert (scheme, dims) in (("spatial", 1), ("channel_spatial", 1), ("planar", 1), ("planar", 2))
            return
        assert made.error <= error + 1e-7
        layers = factor_layers(layer, made)
        y = layer(x)
        # The composition has the kernel whose distance was reported: measured by unit impulses.
        plain = cnn.conv(dims, 12, 10, 3, bias=False)
        plain.load_state_dict({"weight": layer.weight.detach()})
        composed = factor_layers(plain, made)
        impulses = torch.eye(12).reshape(12, 12, *(1,) * dims)
        impulses = torch.nn.functional.pad(impulses, (2, 2) * dims)
        with torch.no_grad():
            difference = float((composed(impulses) - plain(impulses)).norm() / plain(impulses).norm())
        assert difference == pytest.approx(made.error, abs=1e-5)
        assert layers(x).shape == y.shape
        if error < 1e-6:
            assert torch.allclose(layers(x), y, atol=1e-4)
    assert factorise(layer.weight, scheme, 0.9).params < made.params or scheme == "depthwise"


def test_report_of_layers_and_networks() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1))
    found = separability(net, shape=(1, 3, 8, 8), measure=weights_as_time)
    assert [row.name for row in found.rows] == ["0", "3"], "a layer with groups is separated already"
    first = found.rows[0]
    assert (first.params, first.macs) == (448, 27 * 16 * 64) and first.time_s == 448.0
    assert {other.scheme for other in first.alternatives} == {"spatial", "channel", "channel_spatial", "depthwise"}
    assert all(other.macs and other.time_s for other in first.alternatives)
    assert json.loads(json.dumps(found.to_dict()))["layers"][0]["shape"] == [16, 3, 3, 3]
    assert "spatial" in str(found) and "16×3×3×3" in str(found)
    assert separability(net[0]).macs is None and len(separability(net[3]).spectra) == 2


@pytest.mark.parametrize("call, match", [
    (lambda: separability("kernel"), "subject is a str; expected a kernel of numbers"),
    (lambda: separability(np.ones((2, 2, 2, 2))), r"the kernel has shape \(2, 2, 2, 2\); expected 1 to 3 axes"),
    (lambda: separability(nn.Conv2d(4, 4, 3, groups=2)), "the layer has groups=2; expected one without groups"),
    (lambda: separability(SOBEL, measure=weights_as_time), "shape: not given, but measure needs an input"),
])  # fmt: skip
def test_refusals_of_reports(call: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        call()


# ---- networks --------------------------------------------------------------------------------------------


def network(dims: int) -> nn.Module:
    """A network whose first layer is separable, whose second nearly is, and whose third is not."""
    torch.manual_seed(0)
    net = nn.Sequential(*(cnn.conv(dims, 12, 12, 3, padding=1) for _ in range(3)))
    with torch.no_grad():
        for layer, noise in zip(net, (0.0, 0.02, 10.0), strict=True):
            made = factorise(torch.randn_like(layer.weight), "channel", 0.9)
            near = factor_layers(layer, made)
            bias = layer.bias.view(-1, *(1,) * dims)
            impulses = torch.nn.functional.pad(torch.eye(12).reshape(12, 12, *(1,) * dims), (1, 1) * dims)
            seen = (near(impulses) - bias).transpose(0, 1).flip(tuple(range(2, 2 + dims)))
            layer.weight.copy_(0.2 * (seen + noise * seen.std() * torch.randn_like(seen)))
    return net.eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D11_budget_is_kept_and_the_output_still_checked(dims: int) -> None:
    net = network(dims)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(2, 12, *(9,) * dims)
    lines: list[str] = []
    found = cnn.separate(net, x, max_error=0.05, measure=weights_as_time, on_progress=lines.append)
    assert {row.name for row in found.replacements} >= {"0"} and "2" not in {row.name for row in found.replacements}
    with torch.no_grad():
        error = float((found.model(x) - net(x)).norm() / net(x).norm())
    assert error == pytest.approx(found.error, rel=1e-3) and error <= 0.05
    assert found.params[1] < found.params[0] and found.macs[1] < found.macs[0] and found.speedup > 1.0
    assert found.params[1] == sum(p.numel() for p in found.model.parameters())
    for row in found.replacements:
        assert row.macs[1] < row.macs[0] and row.time_s[1] < row.time_s[0]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items()), "the model is as it was"
    assert len(lines) == 3 and "3 of 3 layers" in lines[-1]
    again = cnn.restore_separated(net, json.loads(json.dumps(found.structure())))
    again.load_state_dict(found.model.state_dict())
    assert torch.equal(again(x), found.model(x))
    program = cx.compile(found.model, x)
    y = found.model(x).detach().numpy()
    assert np.allclose(program(x.numpy()), y, rtol=0, atol=2e-5 * np.abs(y).max())


def test_D11_a_network_that_does_not_become_faster_stays() -> None:
    net = network(2)
    found = cnn.separate(net, torch.randn(1, 12, 9, 9), max_error=0.5, measure=lambda module, shape: 1.0)
    assert found.replacements == () and found.speedup == 1.0 and found.error == 0.0
    assert found.params[0] == found.params[1] and found.macs[0] == found.macs[1]


def test_D11_accuracy_budget_is_kept_with_fine_tuning() -> None:
    net = network(2)
    x = torch.randn(2, 12, 9, 9)
    with torch.no_grad():
        wanted = net(x)

    def score(model: nn.Module) -> float:
        assert not model.training
        with torch.no_grad():
            return 1.0 - float((model(x) - wanted).norm() / wanted.norm())

    tuned: list[int] = []

    def tune(model: nn.Module) -> None:
        tuned.append(1)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(5):
            optimiser.zero_grad()
            (model(x) - wanted).square().mean().backward()
            optimiser.step()

    found = cnn.separate(net, x, max_accuracy_loss=0.1, score=score, fine_tune=tune, measure=weights_as_time)
    assert found.score is not None and found.score[0] == 1.0 and found.score[1] >= 0.9
    assert score(found.model) == pytest.approx(found.score[1]) and len(found.trials) == len(tuned) > 1
    inside = [trial for trial in found.trials if trial.score >= 0.9]
    assert found.time_s[1] == min(trial.time_s for trial in inside) < found.time_s[0]
    values = iter([1.0])
    none = cnn.separate(net, x, max_accuracy_loss=0.01, score=lambda model: next(values, 0.0), measure=weights_as_time)
    assert none.replacements == () and none.score == (1.0, 1.0) and len(none.trials) == 1, "0 is far beyond the limit"


@pytest.mark.parametrize("entries, error, match", [
    ({}, ConfigError, "give one limit, max_error, max_accuracy_loss or max_loss"),
    ({"max_error": 0.1, "max_accuracy_loss": 0.1}, ConfigError, "give one limit"),
    ({"max_error": -1.0}, ConfigError, "max_error is -1.0, but it must be a number of at least 0"),
    ({"max_accuracy_loss": 0.1}, ConfigError, "max_accuracy_loss needs score"),
    ({"max_loss": 0.1}, ConfigError, "max_loss needs loss"),
    ({"max_error": 0.1, "goal": "size"}, ConfigError, "goal is 'size', but it can be 'time', 'macs' or 'params'"),
    ({"max_error": 0.1, "schemes": ["svd"]}, ConfigError, "schemes has 'svd', but there are 'spatial'"),
])  # fmt: skip
def test_refusals_of_limits(entries: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        cnn.separate(network(1), torch.randn(1, 12, 9), **entries)


def test_refusals_of_networks() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(ShapeError, match="model returns a tuple; expected one tensor"):
        cnn.separate(Two(), torch.zeros(1, 1, 4), max_error=0.1)
    with pytest.raises(ConfigError, match=r"model is a single convolution. Put it into nn.Sequential"):
        cnn.separate(nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 4), max_error=0.1)
    with pytest.raises(ConfigError, match="structure: '5' is not in the model; expected a convolution"):
        cnn.restore_separated(network(1), [{"name": "5", "factors": []}])


@pytest.mark.parametrize("shapes", [
    [],
    [((4, 12, 3), (0,), 1)],
    [((10**9, 12, 3), (0,), 1), ((12, 10**9, 1), (), 1)],
    [((4, 12, 3), (0,), 1), ((12, 4, 3), (0,), 1)],
    [((4, 12, 5), (0,), 1), ((12, 4, 1), (), 1)],
    [((4, 12, 1), (), 1), ((12, 4, 1), (), 1)],
    [((12, 12, 3), (0,), 5)],
])  # fmt: skip
def test_factors_that_make_another_kernel_are_refused(
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], int]],
) -> None:
    factors = [{"shape": shape, "axes": axes, "groups": groups} for shape, axes, groups in shapes]
    with pytest.raises(ConfigError, match=r"the factors of '0' do not make its kernel \(12, 12, 3\)"):
        cnn.restore_separated(network(1), [{"name": "0", "factors": factors}])


def test_ranks_by_the_loss_of_the_task_and_what_has_to_fall() -> None:
    net = network(3)
    x = torch.randn(2, 12, 5, 5, 5)
    with torch.no_grad():
        wanted = net(x)
    asked: list[int] = []

    def loss(model: nn.Module) -> float:
        assert not model.training
        asked.append(1)
        with torch.no_grad():
            return 0.25 + float((model(x) - wanted).square().mean() / wanted.square().mean())

    clocked: list[int] = []

    def clock(module: nn.Module, shape: Sequence[int]) -> float:
        clocked.append(1)
        return 1.0

    found = cnn.separate(net, x, max_loss=0.01, loss=loss, goal="params", measure=clock)
    assert found.score is not None and found.score[0] == -0.25 and found.score[0] - found.score[1] <= 0.01
    assert -loss(found.model) == pytest.approx(found.score[1]) and found.params[1] < found.params[0] * 0.9
    assert {row.name for row in found.replacements} == {"0", "1"} and found.error > 0
    assert all(row.loss_rise is not None and row.output_error is None for row in found.replacements)
    assert len(clocked) < 20 < len(asked), "what is counted needs no clock, but for the layers that are told"
    none = cnn.separate(net, x, max_loss=0.01, loss=loss, measure=clock)
    assert none.replacements == () and none.score == (-0.25, -0.25), "no layer is faster by this clock"


def test_dropout_before_a_layer_is_before_its_parts() -> None:
    net = cx.models.build("unet", 3, 1, 2, levels=1, width=8, dropout=0.5, dropout_where="all")
    hooked = ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv3d))
    name, layer = next(row for row in hooked if row[1]._forward_pre_hooks)
    made = factorise(layer.weight, "channel", 0.0)
    assert made is not None
    factors = [{"shape": factor.weight.shape, "axes": factor.axes, "groups": 1} for factor in made.factors]
    parts = cnn.restore_separated(net, [{"name": name, "factors": factors}]).get_submodule(name)
    x = torch.ones(1, layer.in_channels, 4, 4, 4)
    torch.nn.init.ones_(parts[0].weight)
    torch.manual_seed(0)
    seen = []
    parts[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    parts.train()(x)
    parts.eval()(x)
    assert set(seen[0].unique().tolist()) == {0.0, 2.0} and torch.equal(seen[1], x)


# ---- the command -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_D11_separate_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, output = tmp_path / "run", tmp_path / "smaller"
    fit(TrainConfig.build(task="classify", data="digits", output=str(run), model="course_vgg", width=0.125, epochs=1,
                          steps_per_epoch=2, batch_size=4, tensorboard=False))  # fmt: skip
    monkeypatch.setitem(run_separation._CLOCKS, "convoxel", weights_as_time)
    assert main(["separate", str(run), "--max-error", "0.5", "--output", str(output), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["error"] <= 0.5 and figures["replacements"] and figures["output"] == str(output)
    smaller = load_model(output)
    assert sum(p.numel() for p in smaller.network.parameters()) == figures["params"][1] and smaller.step == 2
    assert main(["compile", str(output), "--output", str(tmp_path / "network.cvx")]) == 0
    x = torch.randn(3, 1, 8, 8)
    y = cx.load(tmp_path / "network.cvx")(x.numpy())
    assert np.allclose(y, smaller.network(x).detach().numpy(), atol=1e-4)
    capsys.readouterr()
    plot = tmp_path / "trials.svg"
    assert main(["separate", str(run), "--max-accuracy-loss", "1.0", "--fine-tune", "1", "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert "× as fast on engine convoxel" in shown and f"Figure: {plot}" in shown
    assert "validation score" in plot.read_text(encoding="utf-8") and "trained" in plot.read_text(encoding="utf-8")
    line = refused_command(capsys, "separate", run, "--plot", plot)
    assert "plot: given without max_accuracy_loss or max_loss" in line
    line = refused_command(capsys, "separate", run, "--max-accuracy-loss", "1", "--plot", tmp_path / "no" / "a.svg")
    assert "plot: the folder of" in line
    line = refused_command(capsys, "separate", run, "--max-error", "0.1", "--max-accuracy-loss", "0.1")
    assert "max_error: given with max_accuracy_loss; expected one limit" in line
    assert "fine_tune: given without max_accuracy_loss" in refused_command(capsys, "separate", run, "--fine-tune", "3")
    assert "exists and is not empty" in refused_command(capsys, "separate", run, "--output", output)
    assert "does not exist" in refused_command(capsys, "separate", tmp_path / "none")
    assert "batch: got 0; expected" in refused_command(capsys, "separate", run, "--batch", "0")
    assert "minutes: given with epochs" in refused_command(capsys, "separate", run, "--minutes", "1", "--epochs", "1")
    assert "epochs: given without --output" in refused_command(capsys, "separate", run, "--epochs", "1")


@pytest.mark.slow
def test_volumes_become_a_smaller_run_that_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run_separation._CLOCKS, "convoxel", weights_as_time)
    data, run, output = tmp_path / "data", tmp_path / "run", tmp_path / "smaller"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.standard_normal((8, 16, 16)).astype(np.float32)
        np.save(data / f"image_train{number:02d}.npy", image)
        np.save(data / f"label_train{number:02d}.npy", (image > 0.5).astype(np.uint8))
    fit(TrainConfig.build(task="segment", data=str(data), output=str(run), levels=1, width=8, epochs=1, seed=3,
                          steps_per_epoch=2, batch_size=2, patch=(8, 8, 8), tensorboard=False))  # fmt: skip
    stated = ["--max-loss", "0.05", "--goal", "params", "--fine-tune", "1", "--epochs", "2", "--output", str(output)]
    assert main(["separate", str(run), *stated, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    figures = json.loads((output / "separation.json").read_text())
    assert figures["loss"][1] <= figures["loss"][0] + 0.05 and figures["params"][1] < figures["params"][0]
    assert {"rank", "ranks"} & figures["replacements"][0].keys() and figures["metric"][0] is not None
    smaller, whole = load_model(output), load_model(run)
    assert sum(p.numel() for p in smaller.network.parameters()) == figures["params"][1]
    assert smaller.config.learning_rate == pytest.approx(0.1 * (whole.config.learning_rate or 0.0))
    assert smaller.metric is None or smaller.metric >= figures["metric"][1], "tuning never makes it worse"
    assert json.loads((output / "split.json").read_text()) == json.loads((run / "split.json").read_text())
    capsys.readouterr()
    assert main(["train", "--resume", str(output), "--epochs", "3", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6
    twice = tmp_path / "twice"
    assert main(["separate", str(output), "--max-error", "0.9", "--goal", "params", "--output", str(twice)]) == 0
    assert len(load_model(twice).config.separated) > len(smaller.config.separated), "parts are separated again"
