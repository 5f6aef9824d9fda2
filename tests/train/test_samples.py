"""Samples in batches: normalised, cut, changed at random but reproducibly."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from convoxel.data import Sample
from convoxel.errors import ConfigError, DataError
from convoxel.predict.computation import Computation
from convoxel.predict.network_call import resize
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts
from convoxel.train.augment import Augmentation, Elastic
from convoxel.train.batch_norm import set_mode, slow_statistics
from convoxel.train.config import TrainConfig
from convoxel.train.defaults import plan_run
from convoxel.train.training_batch import Batches
from convoxel.train.training_step import compute_loss

pytestmark = pytest.mark.smoke


def pieces(count: int = 5, size: tuple[int, ...] = (9, 10, 11), classify: bool = False) -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        image = rng.normal(10 * index, 2, (1, *size)).astype(np.float32)
        label = index % 2 if classify else rng.integers(0, 3, size).astype(np.uint8)
        image.flags.writeable = False
        found.append(Sample(f"p{index}", image, label))
    return found


def facts(classes: int, intensity: Normalisation | None = None) -> DataFacts:
    return DataFacts(tuple(map(str, range(classes))), 3, 1, intensity or Normalisation("sample"), None, "", "pieces")


def planned(**entries: Any) -> TrainConfig:
    base = {"task": "segment", "data": "x", "output": "y", "levels": 1, "patch": (8, 8, 8), "batch_size": 2,
            "epochs": 1}  # fmt: skip
    config = TrainConfig.build(**{**base, **entries})
    dims = len(config.patch or ())
    return plan_run(config, dims=dims, channels=1, sizes=[(9,) * dims] * 5).config


def test_batches_are_functions_of_their_number() -> None:
    config = planned()
    one, two = (Batches(pieces(), config, facts(3)) for _ in range(2))
    later = [one.batch(step) for step in (0, 7, 3)]
    for step, batch in zip((0, 7, 3), later, strict=True):
        again = two.batch(step)
        assert torch.equal(batch.images, again.images) and torch.equal(batch.targets, again.targets)
        assert batch.names == again.names
    assert later[0].images.shape == (2, 1, 8, 8, 8) and later[0].images.dtype == torch.float32
    assert later[0].targets.shape == (2, 8, 8, 8) and later[0].targets.dtype == torch.int64
    other = Batches(pieces(), planned(seed=1), facts(3)).batch(0)
    assert not torch.equal(other.images, later[0].images)


def test_every_sample_comes_once_per_round() -> None:
    batches = Batches(pieces(), planned(augment=False), facts(3))
    names = [name for step in range(5) for name in batches.batch(step).names]
    assert sorted(names[:5]) == sorted(names[5:]) == [f"p{index}" for index in range(5)]
    assert names[:5] != names[5:]


@pytest.mark.parametrize("workers", [0, 3])
def test_iterate_goes_on_from_any_step(workers: int) -> None:
    batches = Batches(pieces(), planned(num_workers=workers), facts(3))
    sequence = batches.iterate(4)
    try:
        for step in range(4, 9):
            assert torch.equal(next(sequence).images, batches.batch(step).images)
    finally:
        sequence.close()


def test_a_sample_without_label_is_named() -> None:
    batches = Batches([Sample("odd", np.zeros((1, 8, 8, 8), np.float32), None)], planned(), facts(3))
    with pytest.raises(DataError, match="odd has no label"):
        batches.batch(0)


def test_classes_are_resized_and_normalised() -> None:
    config = planned(task="classify", levels=None, patch=(8, 8), augment=False)
    intensity = Normalisation("dataset", (20.0,), (2.0,))
    batch = Batches(pieces(size=(9, 7), classify=True), config, facts(2, intensity)).batch(0)
    assert batch.images.shape == (2, 1, 8, 8) and batch.targets.shape == (2,)
    same = np.ones((1, 8, 8), np.float32)
    assert resize(same, (8, 8)) is same


@pytest.mark.parametrize(
    ("size", "wanted", "mode"),
    [
        ((9,), (21,), "linear"), ((1,), (4,), "linear"), ((40, 9), (7, 12), "bilinear"), ((3, 1), (1, 5), "bilinear"),
        ((5, 9, 7), (8, 4, 7), "trilinear"),
    ],
)  # fmt: skip
def test_images_are_resized_as_by_pytorch(size: tuple[int, ...], wanted: tuple[int, ...], mode: str) -> None:
    image = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], wanted, mode=mode, align_corners=False, antialias=len(size) == 2
    )[0].numpy()
    found = resize(image.swapaxes(0, -1).copy().swapaxes(0, -1), wanted)  # of any layout in memory
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("task", ["segment", "classify"])
def test_augmentation_is_reproducible_and_keeps_values_valid(task: str, dims: int) -> None:
    config = planned(task=task, levels=1 if task == "segment" else None, patch=(16,) * dims)
    change = Augmentation(config)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *(16,) * dims)).astype(np.float32)
    label = rng.integers(0, 3, (16,) * dims).astype(np.uint8) if task == "segment" else None
    results = [change(image.copy(), None if label is None else label.copy(), seed) for seed in range(12)]
    for seed, (changed, mask) in enumerate(results):
        again, mask_again = Augmentation(config)(image.copy(), None if label is None else label.copy(), seed)
        assert (changed == again).all() and changed.shape == image.shape and changed.dtype == np.float32
        assert np.isfinite(changed).all()
        if label is not None:
            assert mask is not None and mask_again is not None and (mask == mask_again).all()
            assert set(np.unique(mask)) <= {0, 1, 2} and mask.dtype == np.uint8
    assert len({changed.tobytes() for changed, _ in results}) > 6


def test_image_and_label_move_together() -> None:
    grid = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"))
    ball = ((grid - np.array([7, 12, 15]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 20
    change = Augmentation(planned(patch=(24, 24, 24)))
    for seed in range(25):
        image, label = change(ball[None] * 8.0 + np.zeros((1, 1, 1, 1), np.float32), ball.astype(np.uint8), seed)
        assert label is not None
        middle = [np.argwhere(mask).mean(axis=0) for mask in (image[0] > 4.0, label > 0)]
        assert np.abs(middle[0] - middle[1]).max() < 1.0


def test_comparable_volumes_keep_their_intensities() -> None:
    image, label = np.full((1, 16, 16, 16), 2.0, np.float32), np.zeros((16, 16, 16), np.uint8)
    reach = {}
    for rule in ("dataset", "sample"):
        change = Augmentation(planned(patch=(16, 16, 16), normalise=rule))
        means = [float(change(image.copy(), label, seed)[0].mean()) for seed in range(40)]
        reach[rule] = max(abs(mean - 2.0) for mean in means)
    assert 0 < reach["dataset"] < 0.15 < reach["sample"]


def test_only_planned_axes_are_flipped() -> None:
    ramp = np.arange(16, dtype=np.float32)
    image = (ramp[:, None, None] + ramp[:, None] + ramp)[None]
    change = Augmentation(planned(patch=(16, 16, 16), flip_axes=(1,)))
    falls = [False, False, False]
    for seed in range(30):
        changed = change(image.copy(), np.zeros((16, 16, 16), np.uint8), seed)[0][0]
        for axis in range(3):
            falls[axis] |= bool(np.diff(changed.mean(axis=tuple({0, 1, 2} - {axis}))).mean() < 0)
    assert falls == [False, True, False]


def test_thick_slices_are_turned_in_their_plane_only() -> None:
    image = np.zeros((1, 16, 16, 16), np.float32)
    image[0, :, :, 8:] = 1  # constant in each slice of axis 2: a turn about axis 2 leaves it alone
    change = Augmentation(planned(patch=(16, 16, 16), flip_axes=()), (1.0, 1.0, 5.0))
    for seed in range(20):
        mask = change(image.copy(), (image[0] > 0).astype(np.uint8), seed)[1]
        assert mask is not None and (mask == mask[:1, :1]).all()


def test_statistics_are_fixed_in_the_last_phase() -> None:
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))
    slow_statistics(model)
    assert model[1].momentum == 0.02
    set_mode(model, 0.5)
    assert all(layer.training for layer in model)
    set_mode(model, 0.8)
    assert [layer.training for layer in model] == [True, False, True]


def test_source_uses_no_unsafe_reader() -> None:
    folder = Path(__file__).parents[2] / "src/convoxel/train"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for word in ("torch.load", "import pickle", "pickle.load", "yaml.load(", "allow_pickle=True"):
        assert word not in text


STATED: dict[str, Any] = {
    "rotate": 40.0, "scale": (0.8, 1.25), "shear": 0.2, "shift": 3.0, "elastic": 3.0, "contrast": 0.3,
    "brightness": 0.3, "noise": 0.2, "gamma": (0.5, 2.0), "blur": (0.5, 1.0), "low_resolution": 0.5, "erase": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", STATED)
def test_every_change_is_one_word(name: str, dims: int) -> None:
    entries = {"level": "none", "chance": 1.0, name: STATED[name]}
    change = Augmentation(planned(augment=entries, patch=(16,) * dims, flip_axes=()))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *(16,) * dims)).astype(np.float32)
    label = rng.integers(0, 3, (16,) * dims).astype(np.uint8)
    moved = [False, False]
    for seed in range(6):
        changed, mask = change(image.copy(), label.copy(), seed)
        assert mask is not None and changed.shape == image.shape and set(np.unique(mask)) <= {0, 1, 2}
        moved = [moved[0] or bool((changed != image).any()), moved[1] or bool((mask != label).any())]
    if dims == 1 and name in ("rotate", "shear"):
        assert change.words == () and moved == [False, False]
    else:
        assert len(change.words) == 1
        assert moved == [True, name in ("rotate", "scale", "shear", "shift", "elastic")]


def test_levels_are_words_and_stated_values_hold() -> None:
    def words(**entries: Any) -> str:
        return ", ".join(Augmentation(planned(patch=(16, 16, 16), normalise="sample", augment=entries)).words)

    assert "rotations up to 15°" in words() and "low resolution" not in words()
    strong = words(level="strong")
    assert "rotations up to 30°" in strong and "scaling by 0.7 to 1.4" in strong and "low resolution" in strong
    assert "rotations up to 5°" in words(level="strong", rotate=5)
    assert "rotations" not in words(rotate=0) and words(level="none") == ""
    assert words(level="none", shift=5) == "shifts up to 5 pixels"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_elastic_stretching_moves_image_and_label_alike(dims: int) -> None:
    ramp = np.indices((24,) * dims).sum(axis=0).astype(np.float32)
    change = Elastic(["image", "label"], 2.0, 1.0)
    change.set_random_state(seed=1)
    found = change({"image": torch.from_numpy(ramp[None]), "label": torch.from_numpy((ramp > 20)[None])})
    moved = found["image"][0].numpy()
    assert 0.2 < np.abs(moved - ramp).max() <= 2.0 * dims + 1e-4
    far = np.abs(moved - 20.5) > dims  # the nearest pixel lies half a pixel away along each axis
    assert (found["label"][0].numpy() == (moved > 20.5))[far].all() and far.mean() > 0.5


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_mixed_images_answer_by_their_shares(how: str) -> None:
    config = planned(
        task="classify", levels=None, patch=(8, 8), batch_size=4, augment={"level": "none", "mix": how}, seed=5
    )
    split = pieces(size=(8, 8), classify=True)
    plain = Batches(split, config.override(["augment.mix=none"]), facts(2)).batch(0)
    mixed = Batches(split, config, facts(2)).batch(0)
    assert plain.mixture is None and mixed.mixture is not None and torch.equal(mixed.targets, plain.targets)
    others, share = mixed.mixture
    order = next(p for p in permutations(range(4)) if _is_mixed(mixed.images, plain.images, p, how, share))
    assert torch.equal(others, plain.targets[list(order)])
    logits = torch.randn(4, 2)
    found = compute_loss(lambda images: logits, mixed, functional.cross_entropy, Computation())
    parts = [functional.cross_entropy(logits, targets) for targets in (mixed.targets, others)]
    torch.testing.assert_close(found, (1 - share) * parts[0] + share * parts[1])


def _is_mixed(found: torch.Tensor, images: torch.Tensor, order: Any, how: str, share: float) -> bool:
    other = images[list(order)]
    if how == "mixup":
        return bool(torch.allclose(found, (1 - share) * images + share * other, atol=1e-5))
    taken = (found == other).all(dim=1)
    return bool(((found == images).all(dim=1) | taken).all()) and math.isclose(float(taken[0].float().mean()), share)


def test_label_maps_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"augment.mix: given to segment; expected none"):
        planned(augment={"mix": "mixup"})
