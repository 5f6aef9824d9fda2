"""Metrics by hand, the loss of whole images, normalisation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from convoxel.predict.metrics import SegmentationLoss, Tally, confusion, dice
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts
from convoxel.train.loss import build_loss

pytestmark = pytest.mark.smoke


def test_normalisation_ignores_padding_and_survives_constants() -> None:
    image = np.zeros((2, 4, 5), np.float32)
    image[0, 1:3] = np.array([1, 3, 1, 3, 1], np.float32)
    found = Normalisation("sample").statistics(image)
    assert found.mean.tolist() == pytest.approx([1.8, 0.0]) and found.floor.tolist() == [0, 0]
    assert found.std[0] == pytest.approx(np.std([1, 3, 1, 3, 1])) and found.std[1] == 1
    normal = found.normalise(image)
    assert normal.dtype == np.float32 and np.isfinite(normal).all()
    assert np.isfinite(Normalisation("dataset", (1.0,), (0.0,)).statistics(image[:1]).normalise(image[:1])).all()


def test_loss_of_pieces_equals_the_training_loss() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 5, 6), torch.randint(0, 3, (1, 4, 5, 6))
    wanted = build_loss("segment")(logits, target).item()
    loss = SegmentationLoss(3)
    for part in (slice(0, 1), slice(1, 4)):
        loss.add(logits[0, :, part], target[0, part])
    assert loss.value() == pytest.approx(wanted, rel=1e-5)
    reference = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert reference(logits, target[:, None]).item() == pytest.approx(wanted)


def test_dice_by_hand() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    counts = confusion(truth, predicted, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    found = dice(counts)
    assert found[:3].tolist() == pytest.approx([0.5, 0.8, 0.0]) and np.isnan(found[3])


def test_tally_of_volumes_skips_absent_classes() -> None:
    tally = Tally("segment", ("air", "a", "b"))
    tally.add_volume("one", np.array([[5, 0, 0], [0, 4, 0], [0, 0, 0]]), 0.5)
    tally.add_volume("two", np.array([[5, 0, 0], [2, 2, 0], [0, 0, 3]]), 1.5)
    found = tally.metrics()
    assert found["per_class"] == pytest.approx({"a": (1 + 4 / 6) / 2, "b": 1.0})
    assert found["metric"] == pytest.approx(((1 + 4 / 6) / 2 + 1) / 2) and found["loss"] == 1.0
    assert found["samples"][0] == {"name": "one", "dice": {"air": 1.0, "a": 1.0, "b": None}, "metric": 1.0}


def test_tally_of_classes() -> None:
    tally = Tally("classify", ("cat", "dog", "owl"))
    for truth, predicted in ((0, 0), (0, 1), (1, 1)):
        tally.add_class("x", truth, predicted, 0.9, 0.1)
    found = tally.metrics()
    assert found["metric"] == pytest.approx(2 / 3)
    assert found["per_class"] == {"cat": 0.5, "dog": 1.0, "owl": None}


def test_facts_of_earlier_versions_are_read() -> None:
    facts = DataFacts(("a", "b"), 2, 1, Normalisation("dataset", (1.0,), (2.0,)), None, "0", "set")
    entries = asdict(facts)
    entries["intensity"] = entries.pop("normalisation")
    assert DataFacts.from_dict(entries) == facts
