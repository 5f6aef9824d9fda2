"""Explanations beside MONAI's and captum's by hand, the exact part of an image, and the way back to its own grid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Occlusion
from monai.visualize import GradCAMpp
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from convoxel import data, draw, models
from convoxel.cli import main
from convoxel.data import Sample
from convoxel.data.geometry import Geometry
from convoxel.data.regions import Regions
from convoxel.errors import ConfigError
from convoxel.predict import tile_size
from convoxel.predict.attribution import Windows
from convoxel.predict.computation import Computation
from convoxel.predict.explanation import Explanation, Question, explain_sample
from convoxel.predict.explanation_method import METHODS
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.target_scale import TargetScale
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train import TrainConfig

CLASSES = ("background", "a", "b")
MEAN, STD = 2.0, 3.0


def trained(
    network: nn.Module, dims: int, task: str, geometry: Geometry | None = None, **facts: Any
) -> TrainedRun[Any]:
    config = TrainConfig.build(task=task, data="d", output="o", **facts.pop("options", {}))
    known = DataFacts(CLASSES, dims, 1, Normalisation("dataset", (MEAN,), (STD,)), None, "", "d", {}, geometry, **facts)
    return TrainedRun(network.eval(), config, known, 0)


def classifier(dims: int) -> nn.Module:
    torch.manual_seed(dims)
    make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    pool: Any = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims]
    return nn.Sequential(
        make(1, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), make(4, 5, 3, padding=1), nn.ReLU(inplace=True),
        pool(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


def unet(dims: int, levels: int = 1) -> nn.Module:
    torch.manual_seed(7)
    network = models.UNet(dims, num_classes=3, levels=levels, width=2)
    with torch.no_grad():
        network.head.bias[1] += 0.2  # so that some voxels are predicted as foreground
    return network


def image(*size: int, affine: Any = None) -> Sample:
    rng = np.random.default_rng(0)
    return Sample("scan", rng.normal(MEAN, STD, (1, *size)).astype(np.float32), affine=affine)


def explain(run: TrainedRun[Any], sample: Sample, methods: Sequence[str] = tuple(METHODS), **asked: Any) -> Explanation:
    return explain_sample({"run": run}, sample, Question(methods, **asked), Computation())


class ByHand(nn.Module):
    """A class's logit, or its sum over voxels, as the first of two outputs; less a number, as MONAI takes exp of it."""

    def __init__(self, network: nn.Module, number: int, voxels: NDArray[np.bool_] | None) -> None:
        super().__init__()
        self.network, self.number, self.less = network, number, 0.0
        self.voxels = None if voxels is None else torch.from_numpy(voxels.copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x)[:, self.number]
        y = y[:, None] if self.voxels is None else (y * self.voxels).flatten(1).sum(1, keepdim=True)
        return torch.cat([y, -y], 1) - self.less


def by_hand(
    network: nn.Module, x: NDArray[np.float32], number: int, layer: str, window: Sequence[int],
    voxels: NDArray[np.bool_] | None = None,
) -> dict[str, NDArray[np.float32]]:  # fmt: skip
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    score, images = ByHand(network, number, voxels).eval(), torch.from_numpy(x)[None]
    score.less = float(score(images)[0, 0].detach())
    cam = GradCAMpp(score, f"network.{layer}", postprocessing=lambda m: m)(images.clone().requires_grad_(), class_idx=0)
    stride = tuple(max(1, side // 2) for side in window)
    drop = Occlusion(score).attribute(images, (1, *window), strides=(1, *stride), target=0)
    shares = IntegratedGradients(score).attribute(images, target=0, n_steps=50)
    found = {"gradcam++": cam / cam.max(), "occlusion": drop, "integrated-gradients": shares}
    return {name: each[0, 0].detach().numpy() for name, each in found.items()}


def assert_equal(found: Explanation, expected: dict[str, NDArray[np.float32]]) -> None:
    for method, values in expected.items():
        assert values.std() > 0  # a map that shows something
        scale = np.abs(values).max()
        np.testing.assert_allclose(found.maps[method].values, values, atol=2e-5 * scale, err_msg=method)


@pytest.mark.parametrize("dims", [1, 2])
def test_maps_of_a_classifier_are_those_of_monai_and_captum_by_hand(dims: int) -> None:
    size = {1: (48,), 2: (16, 20)}[dims]
    network, sample = classifier(dims), image(*size)
    found = explain(trained(network, dims, "classify"), sample)
    x = (sample.image - np.float32(MEAN)) / np.float32(STD)
    logits = network(torch.from_numpy(x)[None])[0].detach()
    number = int(logits.argmax())
    assert (found.target.name, found.layer) == (CLASSES[number], "3")
    assert found.target.score == pytest.approx(float(logits[number]), abs=1e-6)
    assert found.target.share == pytest.approx(float(logits.softmax(0)[number]), abs=1e-6)
    window = {1: (3,), 2: (2, 2)}[dims]
    assert_equal(found, by_hand(network, x, number, "3", window))
    facts = found.maps["integrated-gradients"].facts
    nothing = network(torch.zeros(1, 1, *size))[0, number].detach()
    assert facts["sum"] == pytest.approx(float(logits[number] - nothing), abs=2e-4)


def test_maps_of_a_3d_unet_are_those_by_hand_on_the_image_as_the_patient_lies() -> None:
    """The file runs to the left and downwards, its axes in another order; the network sees it in RAS+."""
    affine = np.array([[0, -1.0, 0, 0], [0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1]])
    sample = image(8, 12, 10, affine=affine)
    network = unet(3)
    run = trained(network, 3, "segment", Geometry("ras"))
    turned = np.flip(sample.image.transpose(0, 2, 3, 1), (1, 3)).copy()
    x = (turned - np.float32(MEAN)) / np.float32(STD)
    labels = network(torch.from_numpy(x)[None])[0].argmax(0).numpy()
    number = int(np.bincount(labels.ravel(), minlength=3)[1:].argmax()) + 1
    found = explain(run, sample)
    assert found.target.where == "region" and found.target.number == number
    assert found.target.voxels == np.count_nonzero(labels == number)
    expected = by_hand(network, x, number, found.layer, (3, 2, 2), labels == number)
    back = {name: np.flip(values, (0, 2)).transpose(2, 0, 1) for name, values in expected.items()}
    windows = found.maps["occlusion"].facts["window"]
    assert windows == (2, 3, 2) or back.pop("occlusion") is not None
    assert_equal(found, back)
    np.testing.assert_array_equal(found.region, np.flip(labels == number, (0, 2)).transpose(2, 0, 1))


@pytest.mark.parametrize(("task", "dims"), [("classify", 1), ("segment", 2)])
def test_of_an_ensemble_the_mean_score_is_explained_by_mean_maps(task: str, dims: int) -> None:
    """Occlusion and integrated gradients are linear in the score, so their means are those of the mean score."""
    size = {1: (48,), 2: (16, 24)}[dims]
    runs, sample = {}, image(*size)
    for seed, name in enumerate("xyz"):
        network = classifier(1) if task == "classify" else unet(2)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        runs[name] = trained(network, dims, task)
    costs: list[Any] = []
    moments: list[tuple[int, int]] = []
    found = explain_sample(
        runs, sample, Question(), Computation(), costs.append, lambda done, total, what: moments.append((done, total))
    )
    x = torch.from_numpy((sample.image - np.float32(MEAN)) / np.float32(STD))[None]
    logits = np.stack([run.network(x)[0].detach().numpy() for run in runs.values()])
    shares = np.stack([F.softmax(torch.from_numpy(each), 0).numpy() for each in logits])
    mean = logits.mean(axis=0)
    if task == "classify":
        assert found.target.number == int(mean.argmax())
        assert found.target.share == pytest.approx(float(shares.mean(axis=0)[found.target.number]), abs=1e-6)
        score = float(mean[found.target.number])
    else:  # the voxels are those of the ensemble's own label map
        labels = shares.mean(axis=0).argmax(axis=0)
        np.testing.assert_array_equal(found.region, labels == found.target.number)
        score = float(mean[found.target.number][labels == found.target.number].sum())
    assert found.target.score == pytest.approx(score, rel=1e-5)
    assert found.members == ("x", "y", "z")

    class Mean(nn.Module):
        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            return torch.stack([run.network(tiles) for run in runs.values()]).mean(0)

    windows = found.maps["occlusion"].facts["window"]
    voxels = None if found.region is None else found.region
    network = Mean()
    score_of = ByHand(network, found.target.number, voxels)
    drop = Occlusion(score_of).attribute(
        x, (1, *windows), strides=(1, *(max(1, side // 2) for side in windows)), target=0
    )
    slopes = IntegratedGradients(score_of).attribute(x, target=0, n_steps=50)
    assert_equal(found, {"occlusion": drop[0, 0].numpy(), "integrated-gradients": slopes[0, 0].detach().numpy()})
    assert found.maps["gradcam++"].values.max() == pytest.approx(1) and "mean over 3 networks" in str(
        draw.explanation(found).svg()
    )
    total = sum(cost.forward for cost in costs[0])
    assert moments[-1] == (total, total) and [done for done, _ in moments] == sorted(done for done, _ in moments)
    other = trained(classifier(1) if task == "classify" else unet(2), dims, task, Geometry(spacing_mm=(2.0,) * dims))
    with pytest.raises(ConfigError, match=r"run: other brings images onto another grid than x"):
        explain_sample({**runs, "other": other}, sample, Question(), Computation())


def test_a_unit_that_nothing_changes_is_told_and_drawn_through_the_middle() -> None:
    network = unet(3)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[1] = 1
    found = explain(trained(network, 3, "segment"), image(8, 10, 12), ("field",))
    assert not found.maps["field"].values.any() and "does not change with the image here" in found.notes[0]
    assert "through voxel 4, 5, 6" in draw.explanation(found).svg()


def test_a_part_that_holds_the_receptive_field_gives_the_maps_of_the_whole_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, sample = trained(unet(2, 2), 2, "segment", options={"patch": (8, 8)}), image(120, 136)
    methods = ("gradcam++", "integrated-gradients", "field")
    whole = explain(run, sample, methods, at=(50, 61), target="b", window=(6, 6))
    monkeypatch.setitem(tile_size._TILE_VOXELS, 2, 64 * 64)
    part = explain(run, sample, methods, at=(50, 61), target="b")
    assert whole.costs[0].size == (120, 136) and max(part.costs[0].size) <= 64 and part.notes == ()
    assert part.target.score == pytest.approx(whole.target.score, abs=1e-5)
    for method in methods[1:]:
        scale = np.abs(whole.maps[method].values).max()
        np.testing.assert_allclose(part.maps[method].values, whole.maps[method].values, atol=1e-5 * scale)
    # Beyond the part Grad-CAM++ is not known, and at its rim interpolated with what is not known.
    inside = (slice(40, 60), slice(52, 64))
    ratio = part.maps["gradcam++"].values[inside] / whole.maps["gradcam++"].values[inside].clip(1e-9)
    np.testing.assert_allclose(ratio, ratio[10, 9], rtol=1e-4)
    assert part.unit is not None and whole.unit is not None
    assert part.unit.box == whole.unit.box and part.unit.size == (44, 44)
    rows, columns = part.maps["field"].values.nonzero()
    assert part.unit.box[0][0] < rows.min() and rows.max() < part.unit.box[0][1]
    assert part.unit.box[1][0] < columns.min() and columns.max() < part.unit.box[1][1]


def test_a_target_that_does_not_fit_is_explained_on_a_tile_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    run, sample = trained(unet(2), 2, "segment", options={"patch": (8, 8)}), image(60, 60)
    monkeypatch.setitem(tile_size._TILE_VOXELS, 2, 24 * 24)
    found = explain(run, sample, ("integrated-gradients",), steps=5)
    assert found.costs[0].size == (24, 24) and "24 × 24" in found.notes[0]
    assert found.region is not None
    rows, columns = found.maps["integrated-gradients"].values.nonzero()
    assert np.ptp(rows) < 24 and np.ptp(columns) < 24
    assert 0 < found.target.voxels < np.count_nonzero(found.region)


class Linear(nn.Module):
    """Two classes of which one is the smoothed image, by a window of ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.dim() - 2]
        smooth = conv(x, torch.ones(1, 1, *(3,) * (x.dim() - 2)), padding=1)
        return torch.cat([0 * smooth, smooth, -smooth], 1)


def test_the_field_of_a_linear_network_is_its_window_and_occlusion_its_sum() -> None:
    sample = image(20, 20)
    found = explain(
        trained(Linear(), 2, "segment"), sample, ("occlusion", "field"), at=(0, 9), target="a", window=(1, 1)
    )
    expected = np.zeros((20, 20))
    expected[:2, 8:11] = 1
    np.testing.assert_allclose(found.maps["field"].values, expected)
    assert found.unit is not None and found.unit.box == ((-1.5, 1.5), (7.5, 10.5)) and found.unit.size == (3, 3)
    drop = (sample.image[0] - MEAN) / STD * expected  # a covered pixel takes its own share away
    np.testing.assert_allclose(found.maps["occlusion"].values, drop, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_maps_return_to_a_grid_of_another_spacing_and_direction(seed: int) -> None:
    """The brightest voxel of a dark image is the strongest, wherever its axes point."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3) * (1.0, 1.5, 2.0)
    values = np.full((1, 14, 12, 10), MEAN, np.float32)
    place = tuple(int(rng.integers(3, n - 3)) for n in values.shape[1:])
    values[0, place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2, place[2]] += 5
    values[(0, *place)] += 40
    sample = Sample("bright", values, affine=affine)
    run = trained(Linear(), 3, "segment", Geometry("ras", (1.0, 1.0, 1.0)))
    found = explain(run, sample, ("integrated-gradients",), at=place, target="a", steps=2)
    assert found.maps["integrated-gradients"].strongest == place


def test_an_image_that_was_resized_for_the_network_is_explained_on_its_own_grid() -> None:
    run = trained(classifier(2), 2, "classify", options={"patch": (16, 16)})
    found = explain(run, image(40, 24), at=(10, 5), target="b")
    assert {m: each.values.shape for m, each in found.maps.items()} == dict.fromkeys(METHODS, (40, 24))
    assert found.unit is not None and found.unit.box is not None
    # 7 inputs of 16 each: of 40 / 16 and 24 / 16 pixels, around the point
    spans = [high - low for low, high in found.unit.box]
    assert spans == pytest.approx([7 * 2.5, 7 * 1.5])
    assert all(low < p < high for p, (low, high) in zip((10, 5), found.unit.box, strict=True))


def test_values_are_explained_in_their_unit() -> None:
    run = trained(classifier(1), 1, "regress", targets=TargetScale((10.0, 0.0, 0.0), (4.0, 1.0, 1.0)))
    sample = image(32)
    found = explain(run, sample, ("integrated-gradients",), target="background")
    x = torch.from_numpy((sample.image - np.float32(MEAN)) / np.float32(STD))[None]
    assert found.target.score == pytest.approx(float(run.network(x)[0, 0].detach()) * 4 + 10, abs=1e-4)
    gain = float((run.network(x) - run.network(torch.zeros_like(x)))[0, 0].detach())
    assert found.maps["integrated-gradients"].values.sum() == pytest.approx(4 * gain, abs=1e-3)
    assert found.target.unit == "value"


def test_the_network_stays_as_it_was_and_equal_calls_give_equal_bits() -> None:
    run = trained(classifier(2), 2, "classify")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    first, second = explain(run, image(16, 16)), explain(run, image(16, 16))
    for method in METHODS:
        np.testing.assert_array_equal(first.maps[method].values, second.maps[method].values)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in run.network.parameters())
    modules = list(run.network.modules())
    assert not any(module._forward_hooks or module._backward_hooks for module in modules)
    assert [module.inplace for module in modules if isinstance(module, nn.ReLU)] == [True, True]


def test_the_stated_work_is_what_passes_the_network() -> None:
    network = classifier(2)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    run = trained(network, 2, "classify")
    moments: list[tuple[int, int, str]] = []
    asked = Question(("occlusion", "integrated-gradients"), steps=7)
    found = explain_sample({"run": run}, image(16, 20), asked, Computation(), on_progress=lambda *m: moments.append(m))
    occlusion, shares = found.costs
    assert occlusion.forward == Windows((2, 2), (1, 1)).count((16, 20)) + 1 == 15 * 19 + 1
    assert (shares.forward, shares.backward) == (9, 7)
    # captum asks once more for the score of the image; one pass beforehand tells the class and the layers.
    assert sum(seen) - 1 == pytest.approx(occlusion.forward + shares.forward, abs=2)
    total = occlusion.forward + shares.forward
    assert moments[-1] == (total, total, "")
    assert [done for done, _, _ in moments] == sorted(done for done, _, _ in moments)


@pytest.mark.parametrize(
    ("task", "asked", "words"),
    [
        ("classify", {"methods": ("gradcam",)}, "methods: got 'gradcam'.*gradcam\\+\\+"),
        ("classify", {"methods": ()}, "methods: got none"),
        ("classify", {"target": "liver"}, "target: .*'liver'.*background, a, b"),
        ("classify", {"box": ((0, 2), (0, 2))}, "box: .*leave box out"),
        ("segment", {"box": ((0, 2), (0, 2)), "at": (0, 0)}, "box: given together with at"),
        ("segment", {"at": (0, 16)}, "at: got \\(0, 16\\).*0 … 15, 0 … 15"),
        ("segment", {"at": (0,)}, "at: got 1 entries; expected 2"),
        ("segment", {"box": ((4, 4), (0, 2))}, "box: got"),
        ("segment", {"methods": ("occlusion",), "layer": "head"}, "layer: .*occlusion"),
        ("segment", {"layer": "decoder"}, "layer: 'decoder' .*expected one of .*"),
        ("segment", {"layer": "encoder.9"}, "layer: 'encoder.9' is not there; expected one of encoder.1"),
        ("segment", {"steps": 0, "methods": ("integrated-gradients",)}, "steps: got 0"),
        ("segment", {"window": (0, 3), "methods": ("occlusion",)}, "window: got"),
    ],
)
def test_questions_without_an_answer_are_refused(task: str, asked: dict[str, Any], words: str) -> None:
    network = classifier(2) if task == "classify" else unet(2)
    with pytest.raises(ConfigError, match=words):
        explain(trained(network, 2, task), image(16, 16), **{"methods": ("gradcam++",), **asked})


def test_of_overlapping_regions_each_has_a_channel_of_its_own() -> None:
    """The first channel is the first region, not the background; a voxel may lie in both."""
    facts = {"regions": Regions(((1, 2), (2,)))}
    sample = Sample("scan", (MEAN + STD * np.arange(-32.0, 32).reshape(1, 8, 8)).astype(np.float32))
    run = trained(Nested(), 2, "segment", **facts)
    whole = explain(run, sample, ("integrated-gradients",), steps=2)
    assert (whole.target.name, whole.target.number, whole.target.voxels) == ("a", 0, 31)
    core = explain(run, sample, ("integrated-gradients",), target="b", steps=2)
    assert (core.target.number, core.target.voxels) == (1, 21)
    voxel = explain(run, sample, ("integrated-gradients",), target="b", at=(7, 7), steps=2)
    assert voxel.target.score == pytest.approx(31 - 10) and voxel.target.share == pytest.approx(1 / (1 + np.exp(-21)))
    with pytest.raises(ConfigError, match=r"target: .*'background'.*: a, b"):
        explain(run, sample, target="background")


class Nested(nn.Module):
    """Two regions, of which the second lies in the first: above 0 and above 10."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return torch.cat([x, x - 10], 1)


def test_a_class_that_is_not_predicted_names_those_that_are() -> None:
    sample = Sample("dark", np.full((1, 8, 8), MEAN + STD, np.float32))
    with pytest.raises(ConfigError, match=r"target: .* no voxel of dark as b; it predicts a \(64\)"):
        explain(trained(Linear(), 2, "segment"), sample, ("occlusion",), target="b")


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pictures_show_each_map_with_its_scale(dims: int, tmp_path: Path) -> None:
    size = (24, 16, 8)[-dims:]
    found = explain(
        trained(unet(dims), dims, "segment"), image(*size, affine=np.eye(4) if dims == 3 else None), steps=3
    )
    figure = draw.explanation(found)
    svg = figure.svg()
    for word in (*METHODS, "exact field", "for "):
        assert word in svg
    assert svg.count("<image") >= len(METHODS) * (3 if dims == 3 else 1) * (1 if dims == 1 else 2)
    for theme in ("light", "dark"):
        assert figure.picture(theme, 1.0).width == pytest.approx(figure.width, abs=1)
    files = found.save_maps(tmp_path)
    assert [f.name for f in files] == [f"scan_{m}{'.nii.gz' if dims == 3 else '.npy'}" for m in METHODS]
    for file, each in zip(files, found.maps.values(), strict=True):
        back = data.read_image(file, dims=dims, channels=1)
        np.testing.assert_array_equal(back.image[0], each.values)


def test_the_command_writes_figure_and_maps_and_tells_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(classifier(1), 1, "classify")
    monkeypatch.setattr("convoxel.train.run_explanation.load_members", lambda folder, which: {"run": run})
    np.save(tmp_path / "beat.npy", image(48).image[0])
    words = ["explain", "run", "--input", str(tmp_path / "beat.npy"), "--method", "gradcam++,field"]
    assert main([*words, "--at", "7", "--output", str(tmp_path / "out" / "why.svg"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(tmp_path / "out" / f"why_{m}.npy") for m in ("gradcam++", "field")]
    assert (tmp_path / "out" / "why.svg").read_text().startswith("<svg") and told["target"]["where"] == "image"
    assert main([*words, "--output", str(tmp_path / "folder")]) == 0
    assert "1 forward and 1 backward pass of 48" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == [
        "beat.png",
        "beat_field.npy",
        "beat_gradcam++.npy",
    ]
    for more, said in (
        (["--class", "c"], "target"), (["--at", "48"], "at: got (48,)"), (["--at", "x"], "at: got 'x'"),
        (["--box", "3:3"], "box: got '3:3'"), (["--method", "shap"], "methods: got 'shap'"),
        (["--layer", "list"], "layer: 'list' is not there; expected one of"),
        (["--output", str(tmp_path / "beat.npy")], "output"), (["--output", "why.jpg"], "output: why.jpg ends in .jpg"),
        (["--device", "tpu"], "device"),
    ):  # fmt: skip
        assert main([*words, "--output", str(tmp_path / "none"), *more]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_questions_are_values() -> None:
    assert dataclasses.replace(Question(), at=(1, 2)) == Question(at=(1, 2))
