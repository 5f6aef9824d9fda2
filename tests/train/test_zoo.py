"""Training takes every network of the zoo: with borders, with extra logits, over backbones, from a file of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from convoxel import models
from convoxel.cli import main
from convoxel.data import Sample
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.predict.tile_size import InputSizes, plan_patch, plan_tile
from convoxel.train import TrainConfig, evaluate, fit, load_model
from convoxel.train.defaults import plan_run
from convoxel.train.loss import measure_loss
from convoxel.train.run_folder import load_predictor

SHORT: dict[str, Any] = {
    "epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "threads": 1, "tensorboard": False, "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six grey pictures with a bright disc to segment."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:22, :27]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(6):
        y, x = rng.uniform(7, 15, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 25
        image = np.clip(rng.normal(90, 10, disc.shape) + 80 * disc, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/p{index}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / f"labels/p{index}.png")
    return folder


def segment(pictures: Path, output: Path, **entries: Any) -> TrainConfig:
    return TrainConfig.build(
        **{**SHORT, "task": "segment", "data": str(pictures), "output": str(output), "validation": 2, **entries}
    )


def test_label_maps_have_the_values_of_the_masks(pictures: Path, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for file in (pictures / kind).iterdir():
            values = np.asarray(Image.open(file)) * np.uint8(255 if kind == "labels" else 1)
            Image.fromarray(values).save(tmp_path / "set" / kind / file.name)
    fit(segment(tmp_path / "set", tmp_path / "run", model="unet", levels=1, width=4))
    words = ["--input", str(tmp_path / "set" / "images"), "--output", str(tmp_path / "maps")]
    assert main(["predict", str(tmp_path / "run"), *words]) == 0
    found = np.stack([np.asarray(Image.open(file)) for file in (tmp_path / "maps").glob("*.png")])
    assert len(found) == 6 and set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize("entries", [
    {"model": "unet", "levels": 2, "width": 4, "model_options": {"deep_supervision": 1, "sizes": "pad"}},
    {"model": "unet", "levels": 2, "width": 4, "model_options": {"block": "residual", "strides": [[1, 2], 2]}},
    {"model": "unet_ronneberger", "levels": 1, "width": 4},
    {"model": "unet_cicek", "levels": 1, "width": 4},
    {"model": "unet_resnet18", "width": 0.125},
], ids=lambda entries: "-".join([entries["model"], *entries.get("model_options", {})]))  # fmt: skip
def test_every_kind_of_unet_trains_and_predicts(tmp_path: Path, pictures: Path, entries: dict[str, Any]) -> None:
    run = tmp_path / "run"
    result = fit(segment(pictures, run, **entries))
    assert result.steps == 2 and result.best_metric is not None
    ours, theirs = (load_predictor(run, engine=engine) for engine in ("convoxel", "torch"))
    image = np.random.default_rng(1).normal(100, 20, (1, 31, 24)).astype(np.float32)
    assert ours.label_map(Sample("a", image)).shape == (31, 24)
    np.testing.assert_allclose(ours.logits(Sample("a", image)), theirs.logits(Sample("a", image)), rtol=1e-3, atol=1e-4)
    assert evaluate(run, engine="torch")["count"] == 2


def test_borders_are_seen_and_not_lost(tmp_path: Path, pictures: Path) -> None:
    """Tiles of a network without padding see their true surroundings, so tiling does not change a voxel."""
    run = tmp_path / "run"
    fit(segment(pictures, run, model="unet_ronneberger", levels=1, width=4))
    predictor = load_predictor(run, engine="torch")
    (member,) = predictor.members
    assert member.sizes == InputSizes(multiple=2, least=18, border=(8, 8))
    image = np.random.default_rng(1).normal(100, 20, (1, 30, 26)).astype(np.float32)
    whole = predictor.logits(Sample("a", image))
    model = load_model(run).network
    statistics = predictor.run.data.normalisation.statistics(image)
    padded = np.pad(statistics.normalise(image), ((0, 0), (8, 8), (8, 8)), constant_values=0.0)
    with torch.no_grad():
        inner = model(torch.from_numpy(padded[None]))[0].numpy()
    # Where no output saw the padding, the value beyond the image does not matter.
    np.testing.assert_allclose(whole[:, 8:-8, 8:-8], inner[:, 8:-8, 8:-8], rtol=1e-4, atol=1e-5)


def test_sizes_of_networks_with_borders() -> None:
    fit = InputSizes(multiple=16, least=188, border=(92, 92))
    assert fit.inner((572, 572)) == (388, 388) and fit.around((388, 388)) == (572, 572)
    assert [fit.above(side, 0) for side in (1, 188, 189, 572)] == [188, 188, 204, 572]
    assert plan_patch(fit.around((300, 100)), fit, 1 << 40) == (492, 284)
    assert plan_patch(fit.around((300, 100)), fit, 1) == (188, 188)
    assert plan_tile((300, 100), (188, 188), fit) == (492, 284)


def plan(**entries: Any) -> TrainConfig:
    """Plan a run on small pictures in colour."""
    config = TrainConfig.build(**{"task": "classify", "data": "x", "output": "y", **entries})
    return plan_run(config, dims=2, channels=3, sizes=[(32, 32)] * 8).config


def test_small_images_get_the_small_stem() -> None:
    assert plan(model="resnet18").model_options == {"stem": "small"}
    assert plan(model="resnet18", model_options={"stem": "image"}).model_options == {"stem": "image"}
    assert plan(model="course_vgg").model_options == {}
    started = plan(model="resnet18", weights="file.pth")
    assert started.model_options == {} and started.width == 1.0
    large = TrainConfig.build(task="classify", data="x", output="y", model="resnet18")
    assert plan_run(large, dims=2, channels=3, sizes=[(96, 96)]).config.model_options == {}


def test_levels_and_width_of_the_papers_networks_stay() -> None:
    stated = {"task": "segment", "data": "x", "output": "y", "model": "unet_cicek"}
    config = plan_run(TrainConfig.build(**stated), dims=3, channels=1, sizes=[(30, 40, 30)]).config
    assert (config.levels, config.width) == (3, 64)
    config = plan_run(TrainConfig.build(**stated, levels=2, width=8), dims=3, channels=1, sizes=[(30, 40, 30)]).config
    assert (config.levels, config.width, config.patch) == (2, 8, (72, 80, 72))


@pytest.mark.parametrize("entries, match", [
    ({"model": "alexnet", "model_options": {"stem": "image"}}, "patch: the images have 32 × 32 pixels, but AlexNet"),
    ({"model": "unet", "task": "segment", "levels": 2, "patch": (30, 32)}, "patch: 30 is not a multiple of 4"),
    ({"model": "unet_ronneberger", "task": "segment", "patch": (190, 188)},
     r"patch: 190 does not fit unet_ronneberger: every size must be 188 \+ 16 n .*; give 188 or 204"),
    ({"model": "resnet18", "model_options": {"stm": "small"}}, "no option 'stm'; did you mean 'stem'"),
    ({"model": "unet", "task": "segment", "levels": 1, "model_options": {"deep_supervision": 1}},
     "deep_supervision is 1"),
])  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_written(entries: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        plan(**entries)


def test_loss_of_coarser_levels_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn(1, 3, 5, 8, generator=generator), torch.randn(1, 3, 3, 4, generator=generator)
    targets = torch.randint(0, 3, (1, 5, 8), generator=generator)
    expected = (cross_entropy(fine, targets) + 0.5 * cross_entropy(coarse, targets[:, ::2, ::2])) / 1.5
    torch.testing.assert_close(measure_loss(cross_entropy, [fine, coarse], targets), expected)
    assert measure_loss(cross_entropy, fine, targets) == cross_entropy(fine, targets)
    inner = fine[:, :, 1:-1, 2:-2]
    torch.testing.assert_close(
        measure_loss(cross_entropy, inner, targets), cross_entropy(inner, targets[:, 1:-1, 2:-2])
    )


def test_loss_of_auxiliary_classifiers_by_hand() -> None:
    logits, targets = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 1, 1])
    main_loss, first, second = (cross_entropy(part, targets) for part in logits)
    torch.testing.assert_close(measure_loss(cross_entropy, tuple(logits), targets), main_loss + 0.3 * (first + second))


# ---- weights from a file ---------------------------------------------------------------------------------


def test_train_starts_from_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    source = models.build("resnet18", 2, 3, 7, width=0.125, stem="small")
    save_file(source.state_dict(), tmp_path / "start.safetensors")
    words = ["train", "classify", "--data", "digits", "--model", "resnet18", "--width", "0.125", "--epochs", "1",
             "--threads", "1", "--set", "tensorboard=false", "--set", "steps_per_epoch=1", "--batch-size", "4",
             "--set", "model_options.stem=small",
             "--learning-rate", "1e-9", "--weights", str(tmp_path / "start.safetensors"),
             "--output", str(tmp_path / "run")]  # fmt: skip
    assert main(words) == 0
    assert f"Started from {len(source.state_dict()) - 2} tensors from " in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert report["adapted"] == ["conv1.weight (3 → 1 channels)"] and report["fresh"] == ["fc.weight", "fc.bias"]
    loaded = load_model(tmp_path / "run")
    torch.testing.assert_close(loaded.network.layer4[1].conv2.weight, source.layer4[1].conv2.weight, rtol=0, atol=1e-6)
    assert loaded.config.weights == str(tmp_path / "start.safetensors")
    again = tmp_path / "again"
    fit(TrainConfig.build(**{**SHORT, "task": "classify", "data": "digits", "model": "resnet18", "width": 0.125,
                             "model_options": {"stem": "small"}, "output": str(again),
                             "weights": str(tmp_path / "run")}))  # fmt: skip
    assert json.loads((again / "weights.json").read_text())["fresh"] == []


@pytest.mark.parametrize("content, error, match", [
    (None, DataError, "weights: .* does not exist"),
    (b"no weights", DataError, "is neither a safetensors nor a PyTorch file"),
    ({"conv1.weight": torch.zeros(2, 3, 7, 7)}, CheckpointError, "does not fit ResNet"),
])  # fmt: skip
def test_weights_that_cannot_be_used_leave_no_folder(
    tmp_path: Path, content: Any, error: type[Exception], match: str
) -> None:
    path = tmp_path / "start.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(error, match=match):
        fit(TrainConfig.build(**{**SHORT, "task": "classify", "data": "digits", "model": "resnet18",
                                 "output": str(tmp_path / "run"), "weights": str(path)}))  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_photographs_in_train_and_test_folders(shared_data: Path) -> None:
    """The layout of the CIFAR-10 sample: train/ and test/, one folder a class, JPEG in colour."""
    from convoxel import data

    found = data.load(shared_data / "cifar10", "classify")
    assert (found.dims, found.channels, len(found.classes)) == (2, 3, 10)
    assert found.test is not None and (len(found.train), len(found.validation), len(found.test)) == (2400, 600, 1000)
    assert found.train[0].image.shape == (3, 32, 32)
    held = data.load(shared_data / "cifar10", "classify", validation=0.1)
    assert held.test is not None and (len(held.train), len(held.validation), len(held.test)) == (2700, 300, 1000)
