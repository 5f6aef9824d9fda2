"""Maps of class shares: rounding, files in the formats of the field, and the label map beside them."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.predict.share_rounding import round_shares, share_scale


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32"])
def test_rounded_shares_keep_sums_and_the_class(classes: int, kind: str) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, rng.choice([0.001, 0.1, 3, 30], (1, 50, 40)), (classes, 50, 40))
    logits[:, :10] = np.round(logits[:, :10])  # equal shares
    shares = np.exp(logits - logits.max(axis=0))
    shares = (shares / shares.sum(axis=0)).astype(np.float32)
    label = (classes - 1 - shares[::-1].argmax(axis=0)).astype(np.uint8)  # the last of the largest: the hard case
    stored = round_shares(shares, label, kind)
    assert stored.dtype == kind and (stored.argmax(axis=0) == label).all()
    scale = share_scale(kind)
    error = np.abs(stored.astype(np.float64) / scale - shares).max()
    if kind.startswith("u"):
        assert (stored.sum(axis=0, dtype=np.int64) == scale).all()
        assert error <= 2.01 / scale
    else:
        assert error <= 2.0 ** (-11 if kind == "float16" else -24) * 3
    assert (round_shares(shares, shares.argmax(axis=0).astype(np.uint8), "uint8").argmax(0) == shares.argmax(0)).all()


def test_shares_that_do_not_exclude_each_other_are_rounded_alone() -> None:
    shares = np.array([[0.5, 0.49999997, 1.0], [0.999, 0.0, 0.001]], np.float32)
    assert round_shares(shares, None, "uint8").tolist() == [[128, 127, 255], [255, 0, 0]]
