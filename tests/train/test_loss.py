"""Losses by word: against MONAI and by hand, of whole images against those of batches, weights of classes, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.losses import (
    BoundaryLoss,
    DiceCELoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    HausdorffDTLoss,
    SoftclDiceLoss,
    TverskyLoss,
)

from convoxel.data import Sample
from convoxel.data.regions import Regions
from convoxel.errors import CheckpointError, ConfigError
from convoxel.predict.loss_terms import LOSSES, LossTerms, find_loss, plan_loss
from convoxel.predict.metrics import Tally
from convoxel.predict.segmentation_loss import SegmentationLoss
from convoxel.train import TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.label_survey import LabelSurvey
from convoxel.train.loss import build_loss
from tests.train.test_loop import classify, segment, stop_at, write_volumes

SHAPE: dict[str, Any] = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}


def config(task: str = "segment", **entries: Any) -> TrainConfig:
    return TrainConfig.build(**{"task": task, "data": "folder", "output": "run", **entries})


def case(seed: int, *shape: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with targets; the last class is missing."""
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape[0], classes, *shape[1:], generator=rng)
    return logits, torch.randint(classes - 1, shape, generator=rng)


def test_the_default_is_bit_equal_to_monais() -> None:
    logits, targets = case(0, 2, 4, 5, 6)
    found, wanted = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = build_loss(find_loss(config()))(found, targets)
    reference = DiceCELoss(**SHAPE)(wanted, targets[:, None])
    loss.backward()
    reference.backward()
    assert torch.equal(loss, reference) and torch.equal(found.grad, wanted.grad)  # type: ignore[arg-type]
    logits, targets = case(1, 7)
    reference = torch.nn.CrossEntropyLoss(label_smoothing=0.05)(logits, targets)
    assert torch.equal(build_loss(find_loss(config("classify")))(logits, targets), reference)


def test_the_terms_are_those_of_monai_and_of_the_paper() -> None:
    logits, targets = case(2, 2, 4, 5, 6)
    dice, tversky = DiceLoss(**SHAPE), TverskyLoss(**SHAPE, alpha=0.3, beta=0.7)
    focal = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0, reduction="none")
    entropy = torch.nn.functional.cross_entropy(logits, targets)
    # MONAI averages over classes too, of which one alone has y = 1.
    focused = 4 * focal(logits, targets[:, None]).mean()
    whole = {**SHAPE, "include_background": True}
    single = torch.nn.functional.one_hot(targets, 4).movedim(-1, 1).float()
    parts = {
        "dice": dice(logits, targets[:, None]), "ce": entropy, "focal": focused,
        "bce": torch.nn.functional.binary_cross_entropy_with_logits(logits, single),
        "tversky": tversky(logits, targets[:, None]),
        "jaccard": DiceLoss(**SHAPE, jaccard=True)(logits, targets[:, None]),
        "generalised_dice": GeneralizedDiceLoss(**whole, smooth_nr=1e-12, smooth_dr=1e-12)(logits, targets[:, None]),
        "hausdorff": HausdorffDTLoss(**SHAPE)(logits, targets[:, None]),
        "boundary": BoundaryLoss(**SHAPE)(logits, targets[:, None]),
    }  # fmt: skip
    for word in (terms.word for terms in LOSSES["segment"] if terms.shape != "centreline"):
        names = [word] if word in parts else [word.rpartition("_")[0], word.rpartition("_")[2]]
        terms = find_loss(config(loss=word))
        wanted = sum(
            parts[name] * (terms.options["weight"] if name in ("hausdorff", "boundary") else 1) for name in names
        )
        found = build_loss(terms)(logits, targets)
        torch.testing.assert_close(found, wanted)
    p = torch.tensor([[0.8, 0.2]])
    found = build_loss(replace(find_loss(config("classify", loss="focal")), weights=(3.0, 1.0)))
    assert found(p.log(), torch.tensor([0])).item() == pytest.approx(3 * 0.2**2 * -np.log(0.8))


@pytest.mark.parametrize("shape", [(1, 12, 9), (1, 8, 7, 6)])
def test_centrelines_are_compared_as_monai_compares_those_of_one_image_and_class(shape: tuple[int, ...]) -> None:
    logits, targets = case(5, *shape, classes=2)
    targets = targets ^ (logits[:, 1] > 2)
    mask: dict[str, Any] = {"include_background": False, "to_onehot_y": True, "softmax": True}
    wanted = SoftclDiceLoss(**mask, iter_=2, smooth=1e-12)(logits, targets[:, None])
    dice, entropy = DiceLoss(**SHAPE)(logits, targets[:, None]), torch.nn.functional.cross_entropy(logits, targets)
    options = {"weight": 0.25, "iterations": 2}
    for word, others in (("dice_cldice", dice), ("dice_ce_cldice", dice + entropy)):
        found = build_loss(find_loss(config(loss=word, loss_options=options)))(logits, targets)
        torch.testing.assert_close(found, others + 0.25 * wanted)


def nearest(mask: np.ndarray) -> np.ndarray:
    """Signed distances of a mask by loops."""
    places = {inside: np.argwhere(mask == inside) for inside in (True, False)}
    found = np.zeros(mask.shape)
    for place in np.ndindex(mask.shape):
        others = places[not mask[place]]
        if len(others):
            found[place] = np.sqrt(((others - place) ** 2).sum(axis=1)).min() * (-1 if mask[place] else 1)
    return found


@pytest.mark.parametrize("shape", [(2, 9), (2, 5, 6), (1, 4, 3, 5)])
@pytest.mark.parametrize("regions", [None, Regions(((1, 2), (2,), (1, 2, 3)))])
def test_distances_are_those_of_loops_in_any_number_of_axes(shape: tuple[int, ...], regions: Regions | None) -> None:
    logits, targets = case(6, *shape, classes=4 if regions is None else 3)
    targets[0] = 1  # the mask of this class fills its patch, which has no boundary then
    if regions is None:
        shares, truth = logits.softmax(dim=1)[:, 1:], torch.stack([targets == k for k in (1, 2, 3)], 1)
    else:
        shares = logits.sigmoid()
        truth = torch.stack([sum(targets == k for k in values).bool() for values in regions.values], 1)
    p, y = shares.double().numpy(), truth.numpy()
    seen, known = (np.array([[nearest(each) for each in row] for row in masks]) for masks in (p > 0.5, y))
    assert not known[0].any()
    smooth = build_loss(find_loss(config(loss="dice")), regions=regions)(logits, targets).item()
    for word, wanted in {
        "dice_hausdorff": np.mean((p - y) ** 2 * (np.abs(seen) ** 1.5 + np.abs(known) ** 1.5)),
        "dice_boundary": np.mean(p * np.where(known < 0, known + 1, known)),
    }.items():
        options = {"weight": 0.5, **({"exponent": 1.5} if word == "dice_hausdorff" else {})}
        found = logits.clone().requires_grad_()
        loss = build_loss(find_loss(config(loss=word, loss_options=options)), regions=regions)(found, targets)
        assert loss.item() == pytest.approx(smooth + 0.5 * wanted, rel=1e-5)
        loss.backward()
        assert found.grad is not None and torch.isfinite(found.grad).all()


def test_large_classes_count_in_the_generalised_dice() -> None:
    targets = torch.zeros(1, 400, 500, dtype=torch.long)
    targets[:, 200:] = 1
    logits = torch.where(torch.stack([targets == 0, targets == 1], 1), -9.0, 9.0)  # all wrong
    terms = find_loss(config(loss="generalised_dice"))
    whole = SegmentationLoss(2, terms)
    whole.add(logits[0], targets[0])
    for loss in (build_loss(terms)(logits, targets).item(), whole.value()):
        assert loss == pytest.approx(1.0, abs=1e-4)
    assert build_loss(terms)(-logits, targets).item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("terms", [t for t in LOSSES["segment"] if t.shape], ids=lambda terms: terms.word)
@pytest.mark.parametrize("regions", [None, Regions(((1, 2, 3), (2,), (3,)))])
def test_ignored_voxels_are_background_to_shapes(terms: LossTerms, regions: Regions | None) -> None:
    logits, targets = case(7, 1, 6, 5, 6, classes=4 if regions is None else 3)
    hidden = targets.clone()
    hidden[:, 3:] = 255
    found = logits.clone().requires_grad_()
    value = build_loss(terms, ignores=True, regions=regions)(found, hidden)
    value.backward()
    assert found.grad is not None and not found.grad[:, :, 3:].any() and found.grad[:, :, :3].any()
    sure, empty = logits.clone(), targets.clone()  # the same voxels, labelled as background and known to be
    empty[:, 3:] = 0
    sure[:, :, 3:] = -99.0
    if regions is None:
        sure[:, 0, 3:] = 99.0
    alone = replace(terms, pointwise=None)
    wanted, masked = (build_loss(alone, ignores=hides, regions=regions)(each, known)
                      for hides, each, known in ((False, sure, empty), (True, logits, hidden)))  # fmt: skip
    torch.testing.assert_close(wanted, masked)


@pytest.mark.parametrize("terms", LOSSES["segment"], ids=lambda terms: terms.word)
def test_the_loss_of_a_whole_image_is_that_of_training(terms: LossTerms) -> None:
    terms = replace(terms, shape=None)  # which validation leaves out
    logits, targets = case(3, 1, 4, 5, 6)
    options = {name: value + 0.1 for name, value in terms.options.items()}
    changed = replace(terms, options=options, weights=(0.5, 2.0, 1.0, 7.0))
    for each in (terms, changed if terms.pointwise else replace(terms, options=options)):
        whole = SegmentationLoss(4, each)
        for part in (slice(0, 1), slice(1, 4)):
            whole.add(logits[0, :, part], targets[0, part])
        for deterministic in (False, True):
            wanted = build_loss(each, deterministic=deterministic)(logits, targets).item()
            assert whole.value() == pytest.approx(wanted, rel=2e-6)


LEARNT = [(terms, None) for terms in LOSSES["segment"]] + [
    (terms, Regions(((1, 2), (2,))))
    for terms in LOSSES["segment"]
    if terms.shape or terms.word in ("bce", "generalised_dice", "jaccard")
]


@pytest.mark.parametrize(("terms", "regions"), LEARNT, ids=[f"{t.word}{'-regions' * bool(r)}" for t, r in LEARNT])
def test_each_loss_learns_where_tubes_are(terms: LossTerms, regions: Regions | None) -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    far = torch.stack([(rows + slope * columns - y).abs() for y, slope in ((7, 0.2), (12, -0.3), (20, 1.0))])
    targets = (far < 4).long() + (far < 1.5)
    images = (targets + 0.1 * torch.randn(targets.shape))[:, None]
    outputs = 3 if regions is None else 2
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, outputs, 1))
    optimiser, loss = torch.optim.Adam(network.parameters(), 0.05), build_loss(terms, regions=regions)
    for _ in range(45):
        optimiser.zero_grad()
        loss(network(images), targets).backward()
        optimiser.step()
    scores = network(images).detach().numpy()
    maps = scores.argmax(axis=1) if regions is None else np.stack([regions.label_map(each > 0) for each in scores])
    assert np.mean(maps == targets.numpy()) > 0.97


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_certain_voxel_leaves_the_focal_loss_finite(gamma: float) -> None:
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0]]).requires_grad_()
    build_loss(find_loss(config("classify", loss="focal", loss_options={"gamma": gamma})))(
        logits, torch.tensor([0, 0])
    ).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad.abs().max() > 0.4


def test_balanced_weights_come_from_the_training_labels() -> None:
    survey = LabelSurvey(("air", "a", "b"), 2)
    for voxels in ([0] * 20 + [1] * 4, [0] * 20 + [1] * 4):
        label = np.array(voxels, np.uint8).reshape(4, 6)
        survey.add(Sample("x", label[None].astype(np.float32), label))
    assert survey.counts.tolist() == [40, 8, 0]
    balanced = plan_loss(config(class_weights="balanced"), survey.classes, survey.counts.tolist())
    assert balanced.weights == (48 / 80, 48 / 16, 1.0)  # of the two classes that occur
    stated = plan_loss(config(class_weights={"b": 5}), survey.classes, ())
    assert stated.weights == (1.0, 1.0, 5.0)


@pytest.mark.parametrize(("entries", "told"), [
    ({"loss": "hinge"}, ["'hinge'", "dice_ce", "tversky_ce"]),
    ({"task": "classify", "loss": "dice"}, ["'dice'", "classify", "ce, focal"]),
    ({"loss": "dice_cldise"}, ["'dice_cldise'", "Did you mean 'dice_cldice'?"]),
    ({"loss": "dice_cldice", "loss_options": {"iterations": 2.5}}, ["iterations", "2.5", "a whole number from 1"]),
    ({"loss": "dice_hausdorff", "class_weights": "balanced"}, ["class_weights", "'dice_hausdorff'"]),
    ({"loss_options": {"gamma": 2}}, ["gamma", "'dice_ce'", "label_smoothing"]),
    ({"loss": "focal", "loss_options": {"gamma": -1}}, ["gamma", "-1", "0 to 10"]),
    ({"loss": "tversky", "loss_options": {"alpha": 0, "beta": 0}}, ["alpha and beta"]),
    ({"loss": "dice", "class_weights": "balanced"}, ["class_weights", "'dice'", "dice_focal"]),
    ({"class_weights": {"a": 0}}, ["class_weights", "above 0"]),
    ({"task": "classify", "ignore_label": 3}, ["ignore_label", "classify"]),
    ({"class_weights": "equal"}, ["class_weights", "'equal'", "balanced"]),
])  # fmt: skip
def test_wrong_losses_are_refused_by_the_configuration(entries: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**entries)
    assert all(words in str(caught.value) for words in told)
    assert find_loss(config(loss_options={"label_smoothing": 0.1})).options == {"label_smoothing": 0.1}


def test_a_run_keeps_its_loss_and_weights(tmp_path: Path) -> None:
    begun = classify(tmp_path / "run", loss="focal", loss_options={"gamma": 1.5}, class_weights="balanced", epochs=1)
    fit(begun, on_progress=stop_at(1))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())["loss"]
    assert plan.startswith("focal: focal loss (gamma 1.5); weight of a class: ")
    before = load_model(tmp_path / "run", "last").loss
    assert before.word == "focal" and before.weights is not None and len(set(before.weights)) > 1
    with pytest.raises(CheckpointError, match="loss: focal → ce"):
        fit(classify(tmp_path / "run", loss="ce", epochs=1), resume=True)
    fit(begun, resume=True)
    assert load_model(tmp_path / "run").loss == before
    with pytest.raises(ConfigError, match="class_weights: got 'eleven'"):
        fit(classify(tmp_path / "other", class_weights={"eleven": 2}))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("terms", LOSSES["segment"], ids=lambda terms: terms.word)
def test_ignored_voxels_do_not_count(terms: LossTerms) -> None:
    terms = replace(terms, shape=None)
    logits, targets = case(4, 1, 4, 5, 6)
    part, hidden = (0, slice(0, 2)), targets.clone()
    hidden[:, 2:] = 255
    weighted = replace(terms, weights=(0.5, 2.0, 1.0, 7.0)) if terms.pointwise else terms
    smoothed = {**terms.options, **({"label_smoothing": 0.1} if "label_smoothing" in terms.options else {})}
    for each in (terms, weighted, replace(weighted, options=smoothed)):
        wanted = build_loss(each)(logits[:, :, :2], targets[:, :2]).item()
        whole = SegmentationLoss(4, each)
        whole.add(logits[0], hidden[0])
        assert whole.value() == pytest.approx(wanted, rel=2e-6)
        for deterministic in (False, True):
            loss = build_loss(each, ignores=True, deterministic=deterministic)
            found = logits.clone().requires_grad_()
            value = loss(found, hidden)
            value.backward()
            assert value.item() == pytest.approx(wanted, rel=2e-6)
            assert found.grad is not None and not found.grad[:, :, 2:].any() and found.grad[part].any()
        nothing = logits.clone().requires_grad_()
        build_loss(each, ignores=True)(nothing, torch.full_like(targets, 255)).backward()
        assert nothing.grad is not None and not nothing.grad.any()


def partly_labelled(folder: Path, count: int = 6) -> Path:
    """Volumes of which a third is labelled 7: 720 voxels of each are labelled."""
    for path in sorted((write_volumes(folder, count) / "labels").iterdir()):
        stored = nibabel.load(path)  # type: ignore[attr-defined]
        label = np.asarray(stored.dataobj).copy()  # type: ignore[attr-defined]
        label[:, :4] = 7
        nibabel.save(nibabel.Nifti1Image(label, stored.affine), path)  # type: ignore[attr-defined]
    return folder


def test_a_run_ignores_a_value_from_reading_to_metrics(tmp_path: Path) -> None:
    folder = partly_labelled(tmp_path / "data")
    run = tmp_path / "run"
    begun = segment(folder, run, ignore_label=7, epochs=1, steps_per_epoch=2, loss="tversky_ce")
    fit(begun, on_progress=stop_at(1))
    fit(begun, resume=True)
    facts = load_model(run).data
    assert facts.ignored == 7 and len(facts.classes) == 3
    assert sum(facts.class_counts) == facts.parts["train"] * 720
    assert "7" in json.loads((run / "plan.json").read_text())["ignored"]
    found = evaluate(run, engine="torch")
    assert np.sum(found["confusion"]) == facts.parts["validation"] * 720
    other = evaluate(run, partly_labelled(tmp_path / "other", 3), engine="torch")
    assert np.sum(other["confusion"]) == 3 * 720
    predict(run, folder / "images" / "v0.nii.gz", tmp_path / "out.nii.gz", engine="torch")
    assert np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj).max() < 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
def test_validation_of_classes_has_the_loss_of_training(weights: tuple[float, ...] | None) -> None:
    logits, targets = torch.randn(9, 3, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3
    sample = Sample("x", np.zeros((1, 2, 2), np.float32))
    smoothed = LossTerms("bce", "binary_cross_entropy", options={"label_smoothing": 0.2})
    for terms in (*LOSSES["classify"], LossTerms("ce", "cross_entropy"), smoothed):
        each = replace(terms, weights=weights)
        tally = Tally("classify", ("a", "b", "c"), terms=each)
        for row, truth in zip(logits.double().numpy(), targets.tolist(), strict=True):
            tally.add_class(sample, truth, row)
        assert tally.metrics()["loss"] == pytest.approx(build_loss(each)(logits, targets).item(), rel=1e-6)
    held = logits.roll(1, 0) > 0
    for terms in (*LOSSES["classify"][1:], smoothed):
        several = replace(terms, weights=weights)
        tally = Tally("classify", ("a", "b", "c"), multi_label=True, terms=several)
        for row, own in zip(logits.double().numpy(), held.numpy(), strict=True):
            tally.add_labels(sample, frozenset(np.flatnonzero(own).tolist()), row)
        wanted = build_loss(several)(logits, held.float()).item()
        assert tally.metrics()["loss"] == pytest.approx(wanted, rel=1e-6)
        if terms.pointwise == "focal" and weights is None:
            assert FocalLoss(gamma=2.0)(logits, held.float()).item() == pytest.approx(wanted, rel=1e-6)
