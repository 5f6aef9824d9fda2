"""The zoo gives torchvision's names, shapes and numbers, as recorded by ``tools/identity.py``; no torchvision here."""

from __future__ import annotations

import json
import math

import pytest
import torch

from convoxel import models
from tools import identity

RECORD = json.loads(identity.RECORD.read_text())
# Large weights take seconds to fill; ``make conformance`` computes them all.
LIGHT = [name for name in RECORD if (models.info(name).params or 0) < 12e6]


def test_record_holds_what_is_compared() -> None:
    assert set(RECORD) == set(identity.SIZES) and len(LIGHT) > 6
    families = {"alexnet", "vgg16", "vgg16_bn", "googlenet", "inception_v3", "resnet18", "resnet50", "resnet152"}
    families |= {"resnext50_32x4d", "densenet121", "densenet161", "mobilenet_v2", "mobilenet_v3_large"}
    assert families | {"mobilenet_v3_small", "efficientnet_b0", "efficientnet_b4"} <= set(RECORD)


@pytest.mark.parametrize("name", RECORD)
def test_names_and_shapes(name: str) -> None:
    options = {"auxiliary": True} if "auxiliary" in models.entry(name).options else {}
    with torch.device("meta"):
        state = models.build(name, **options).state_dict()
    assert identity.digest(state) == RECORD[name]["digest"]


@pytest.mark.parametrize("name", LIGHT)
def test_numbers(name: str) -> None:
    values = identity.logits(identity.fill(identity.build(name)), name)
    assert identity.misfit(identity.fingerprint(values), RECORD[name]["logits"]) <= identity.TOLERANCE


def test_filling_depends_on_names_and_shapes_alone() -> None:
    """The first numbers of Philox with the key CRC-32("input"), as NumPy guarantees them."""
    assert identity.uniform("input", (1, 4)).tolist() == identity.uniform("input", (2, 2)).flatten()[None].tolist()
    assert identity.uniform("input", (3,)).tolist() == pytest.approx([-0.2703725, 0.0663983, 0.3090485], abs=1e-6)
    assert identity.uniform("weight", (3,)).tolist() != identity.uniform("input", (3,)).tolist()


def test_the_checks_can_fail() -> None:
    recorded = RECORD["resnet18"]["logits"]
    assert identity.misfit(recorded, recorded) == 0
    assert identity.misfit([recorded[0] * 1.01 + 1, *recorded[1:]], recorded) > identity.TOLERANCE
    assert identity.misfit([math.nan, *recorded[1:]], recorded) == math.inf
    state = {"a": torch.zeros(2, 3), "b": torch.zeros(3)}
    assert identity.digest(state) != identity.digest({"a": torch.zeros(3, 2), "b": torch.zeros(3)})
    assert identity.digest(state) != identity.digest({"c": torch.zeros(2, 3), "b": torch.zeros(3)})
    net = identity.fill(identity.build("mobilenet_v3_small"))
    changed = identity.logits(net, "mobilenet_v3_small")
    with torch.no_grad():
        net.features[5].block[1][0].weight.copy_(net.features[5].block[1][0].weight.flip(-1))
    assert (identity.logits(net, "mobilenet_v3_small") - changed).abs().max() > 1e-3 * changed.std()
