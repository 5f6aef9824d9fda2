"""Classes that overlap: unions of label values, found by a sigmoid each, written by value, measured as regions."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, TverskyLoss
from PIL import Image
from torch.nn import functional

from convoxel import data
from convoxel.bench.run_quality import compare_quality
from convoxel.cli import main
from convoxel.data import Sample
from convoxel.data.regions import Regions, count_classes, plan_regions
from convoxel.errors import ConfigError, DataError
from convoxel.predict.loss_terms import LOSSES, LossTerms
from convoxel.predict.metric_table import overlap_metrics
from convoxel.predict.metrics import Tally
from convoxel.predict.segmentation_loss import segmentation_loss
from convoxel.report import write_report
from convoxel.train import TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.loss import build_loss
from tests.support.refusal import refused

RNG = np.random.default_rng(3)
NESTED = Regions(((1, 2, 4), (2, 4), (4,)))
CROSSED = Regions(((1, 3), (2, 3)))


@pytest.mark.parametrize(
    "regions", [NESTED, CROSSED, Regions(((7,), (7, 9), (9, 1))), Regions(((1, 2), (2, 5)), (1, 2))]
)
def test_tables_lead_to_masks_and_back(regions: Regions) -> None:
    label = RNG.choice([0, *sorted(regions.known)], (4, 5, 6)).astype(np.uint8)
    masks = regions.masks(label)
    for mask, values in zip(masks, regions.values, strict=True):
        assert np.array_equal(mask, np.isin(label, values))
    counts = count_classes(label, 1 + len(masks), regions)
    assert counts.tolist() == [int((label == 0).sum()), *(int(mask.sum()) for mask in masks)]
    if regions.order is None:  # every voxel's value is one with just these regions, so the masks return
        assert np.array_equal(regions.masks(regions.label_map(masks)), masks)
    found = RNG.random((len(masks), 7, 5)) < 0.5
    written = regions.label_map(found)
    for place in np.ndindex(written.shape):
        held = tuple(int(k) for k in np.flatnonzero(found[(slice(None), *place)]))
        own = [v for v in sorted(regions.known) if tuple(k for k, r in enumerate(regions.values) if v in r) == held]
        if regions.order is not None:
            assert written[place] == (regions.order[held[-1]] if held else 0)
        elif own or not held:
            assert written[place] == (own[0] if held else 0)
        else:
            assert written[place] in regions.values[held[-1]]
    drawn = regions.drawn(label)
    for place in np.ndindex(label.shape):
        assert drawn[place] == max((k + 1 for k, r in enumerate(regions.values) if label[place] in r), default=0)


@pytest.mark.parametrize(
    ("stated", "order", "words"),
    [
        ({"a": [0, 1]}, None, "'a' is [0, 1]"),
        ({"a": [255]}, None, "'a' is [255]"),
        ({"a": []}, None, "'a' is []"),
        ({"a": [1, True]}, None, "'a' is [1, True]"),
        ({"a": [1, 2], "b": [2, 1]}, None, "the same label values"),
        ({"a": [1, 2], "b": 2}, [1], "regions_class_order: got [1]"),
        ({f"r{i}": [i + 1] for i in range(17)}, None, "17 regions"),
        ({}, None, "0 regions"),
    ],
)
def test_false_regions(stated: dict[str, object], order: list[object] | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_regions(stated, order)
    assert words in str(caught.value)


def reference(terms: LossTerms, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The loss of regions by PyTorch's and MONAI's own functions."""
    total, wanted, smoothing = torch.zeros(()), truth.float(), terms.options.get("label_smoothing", 0.0)
    shares = logits.sigmoid()
    if terms.pointwise == "focal":
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        each = each * (1 - torch.exp(-each)) ** terms.options["gamma"]
    else:
        wanted = wanted * (1 - smoothing) + smoothing / 2
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    if terms.weights is not None:
        each = each * torch.tensor(terms.weights).view(-1, *[1] * (logits.dim() - 2))
    if terms.pointwise is not None:
        total = total + each.mean()
    if terms.regional in ("dice", "jaccard"):
        total = total + DiceLoss(sigmoid=True, batch=True, jaccard=terms.regional == "jaccard")(logits, truth.float())
    elif terms.regional == "generalised_dice":
        weights = 1 / truth.sum(dim=(0, 2, 3, 4)).double() ** 2
        both = [(each.sum(dim=(0, 2, 3, 4)) * weights).sum() for each in (2 * shares * truth, shares + truth)]
        total = total + 1 - both[0] / both[1]
    elif terms.regional == "tversky":
        options = {name: terms.options[name] for name in ("alpha", "beta")}
        total = total + TverskyLoss(sigmoid=True, batch=True, **options)(logits, truth.float())
    return total


@pytest.mark.parametrize("terms", LOSSES["segment"], ids=lambda terms: terms.word)
def test_losses_of_regions(terms: LossTerms) -> None:
    terms = replace(terms, shape=None)  # test_loss has those
    logits = torch.from_numpy(RNG.normal(0, 2, (1, 3, 6, 5, 4)).astype(np.float32))
    label = RNG.choice([0, 1, 2, 4], (1, 6, 5, 4)).astype(np.uint8)
    truth, targets = torch.from_numpy(NESTED.masks(label[0]))[None], torch.from_numpy(label.astype(np.int64))
    weighted = replace(terms, weights=(0.5, 2.0, 3.0)) if terms.pointwise else terms
    smoothed = replace(weighted, options={**terms.options, **{k: 0.1 for k in terms.options if k == "label_smoothing"}})
    hidden = targets.clone()
    hidden[:, 3:] = 255
    for each in (terms, weighted, smoothed):
        wanted = reference(each, logits, truth).item()
        assert build_loss(each, regions=NESTED)(logits, targets).item() == pytest.approx(wanted, rel=2e-6)
        part = reference(each, logits[:, :, :3], truth[:, :, :3]).item()
        assert build_loss(each, regions=NESTED)(logits, hidden).item() == pytest.approx(part, rel=2e-6)
        for held, value in ((targets, wanted), (hidden, part)):
            whole = segmentation_loss(3, each, NESTED)
            for piece in (np.s_[:, :4], np.s_[:, 4:]):
                whole.add(logits[0][piece], held[0][piece[1:]])
            assert whole.value() == pytest.approx(value, rel=2e-6)
    nothing = logits.clone().requires_grad_()
    build_loss(terms, regions=NESTED)(nothing, torch.full_like(targets, 255)).backward()
    assert nothing.grad is not None and not nothing.grad.any()


def test_metrics_are_those_of_each_region() -> None:
    label, found = (RNG.choice([0, 1, 2, 3, 255][:n], (9, 8, 7)).astype(np.uint8) for n in (5, 4))
    names, wanted = ("background", "a", "b"), ["dice", "hd95", "nsd@1mm", "volume"]
    sample = Sample("x", np.zeros((1, 9, 8, 7), np.float32), label, np.eye(4), (1.0, 1.0, 2.0))
    tally = Tally("segment", names, overlap_metrics(wanted), regions=CROSSED)
    row = tally.add_volume(sample, label, found, 0.0)
    for name, values in zip(names[1:], CROSSED.values, strict=True):
        masks = [np.where(label == 255, 255 * (each is label), np.isin(each, values)).astype(np.uint8)
                 for each in (label, found)]  # fmt: skip
        alone = Tally("segment", ("background", name), overlap_metrics(wanted))
        single = alone.add_volume(sample, *masks, 0.0)
        assert row["dice"][name] == single["dice"][name] and row["voxels"][name] == single["voxels"][name]
        assert [row["values"][m][name] for m in wanted] == [single["values"][m][name] for m in wanted]
    assert tally.metrics()["confusion"] == [] and tally.metrics()["per_class"].keys() == {"a", "b"}


def pictures(folder: Path, count: int = 8) -> Path:
    """Discs in discs: values 4 in 2 in 1, each brighter."""
    rows, columns = np.ogrid[:24, :24]
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        y, x = rng.integers(9, 15, 2)
        far = (rows - y) ** 2 + (columns - x) ** 2
        label = ((far < 64).astype(np.uint8) + (far < 30) + 2 * (far < 9)).astype(np.uint8)
        image = (40 + 50 * label + rng.normal(0, 3, label.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(label).save(folder / "labels" / f"{number:02d}.png")
    return folder


STATED = {"whole": [1, 2, 4], "core": [2, 4], "heart": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("regions")
    source = pictures(folder / "set")
    known = {"levels": 1, "width": 8, "epochs": 5, "steps_per_epoch": 20, "validate_every": 5, "batch_size": 4}
    fit(TrainConfig.build(task="segment", data=str(source), output=str(folder / "run"), regions=STATED, threads=1,
                          augment=False, tensorboard=False, learning_rate=0.01, **known))  # fmt: skip
    return source, folder / "run"


def test_regions_are_trained_written_and_measured(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, run = trained
    model = load_model(run)
    assert model.data.outputs == ("whole", "core", "heart") and model.data.several
    plan = json.loads((run / "plan.json").read_text())
    assert "heart = 4" in plan["regions"] and "of each region" in plan["loss"]
    found = evaluate(run, engine="torch", metrics=["dice", "hd95"], replicates=0)
    assert found["per_class"].keys() == {"whole", "core", "heart"} and found["confusion"] == []
    assert min(value or 0.0 for value in found["per_class"].values()) > 0.8
    assert found["loss"] < 0.6
    other = pictures(tmp_path / "other", 3)  # other data need not state the regions of the run
    elsewhere = evaluate(run, other, replicates=0, engine="torch")
    assert elsewhere["count"] == 3
    twin = shutil.copytree(run, tmp_path / "twin")
    monkeypatch.setattr("convoxel.bench.run_quality.evaluate", functools.partial(evaluate, engine="torch"))
    for quality in compare_quality([run, twin], other, ["dice", "iou"]):
        assert quality is not None and quality.metric == pytest.approx(elsewhere["metric"], abs=1e-5)
        assert quality.per_class.keys() == {"whole", "core", "heart"} and quality.measured["iou"].value is not None
        assert quality.best or (quality.difference is not None and quality.difference.images == 3)
    for kind, exact in (("blended", False), ("exact", True), ("together", False)):
        runs = [run, shutil.copytree(run, tmp_path / "copy")] if kind == "together" else run
        # Our engine compiles once, for exact tiles.
        files = predict(runs, source, tmp_path / kind, exact=exact, engine="convoxel" if exact else "torch")
        labels = [np.array(Image.open(path)) for path in files]
        assert set(np.unique(labels)) == {0, 1, 2, 4}
        truth = [np.array(Image.open(source / "labels" / path.name)) for path in files]
        assert np.mean(np.array(labels) == np.array(truth)) > 0.9
    text = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "heart" in text and "Dice in this picture" not in text


def test_commands_take_regions(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run = trained
    words = "whole=1+2+4,core=2+4,heart=4"
    assert main(["data", "check", str(source), "--task", "segment", "--regions", words]) == 0
    capsys.readouterr()
    assert main(["data", "stats", str(source), "--task", "segment", "--regions", words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in told["parts"]["train"]["classes"]}
    assert (
        told["regions"]["core"] == [2, 4] and rows["whole"]["voxels"] > rows["core"]["voxels"] > rows["heart"]["voxels"]
    )
    assert rows["background"]["share"] + rows["whole"]["share"] == pytest.approx(1.0)
    assert main(["data", "view", str(source), "--regions", words, "--output", str(tmp_path / "sheet.png")]) == 0
    assert main(["data", "check", str(source), "--task", "segment", "--regions", "whole=1+2"]) == 2
    assert "unexpected label values 4" in capsys.readouterr().out
    assert main(["data", "list", str(source), "--task", "segment", "--regions", "whole=1;2"]) == 2
    assert "'whole=1;2'" in capsys.readouterr().err
    page = ["--report", str(tmp_path / "page.html"), "--bootstrap", "0", "--engine", "torch"]
    assert main(["evaluate", str(run), *page]) == 0


def test_nnunet_regions(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "raw", 4)
    for old, new in (("images", "imagesTr"), ("labels", "labelsTr")):
        (folder / old).rename(folder / new)
    for path in (folder / "imagesTr").iterdir():
        path.rename(path.with_name(f"{path.stem}_0000.png"))
    description = {"channel_names": {"0": "grey"}, "file_ending": ".png", "numTraining": 4,
                   "labels": {"background": 0, **STATED}, "regions_class_order": [1, 2, 4]}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    found = data.load(folder, "segment")
    assert found.regions == replace(NESTED, order=(1, 2, 4)) and found.classes == ("background", *STATED)
    assert found.fingerprint != replace(found, regions=CROSSED).fingerprint
    assert np.unique(found.train[0].label).tolist() == [0, 1, 2, 4]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the run was trained on whole = 1"):  # the order of writing differs
        evaluate(trained[1], folder)
    where = folder / "dataset.json"
    for entries, words in (
        ({"regions_class_order": [1, 2]}, "regions_class_order: got [1, 2]"),
        ({"regions_class_order": 3}, "regions_class_order is 3"),
        ({"labels": {"whole": [1, 2], "core": 2}}, "expected one background"),
        ({"labels": {"background": 0, "whole": [1, 2], "ignore": 2}, "regions_class_order": [1]}, "to ignore, 2, is"),
    ):
        where.write_text(json.dumps({**description, **entries}))
        refused(lambda: data.load(folder, "segment"), folder, words)


def test_sources_without_label_maps_have_no_regions() -> None:
    with pytest.raises(ConfigError, match="regions: given for a source without label maps"):
        data.load("mni152", "segment", regions={"a": [1, 2]})
    with pytest.raises(ConfigError, match="regions: given to classify"):
        TrainConfig.build(task="classify", data="digits", output="run", regions={"a": 1})
