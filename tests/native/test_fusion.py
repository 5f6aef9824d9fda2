"""Each activation fused into each algorithm equals the activation applied to the algorithm's result."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel import UnsupportedError
from convoxel.native import ACTIVATIONS, Convolution, Plan, View
from tools.conformance import INSTRUCTION_SETS, PRECISION, algorithms_of

RNG = np.random.default_rng(3)
SRC = (1, 3, 6, 7, 21)


def weight(*shape: int) -> np.ndarray:
    return (0.3 * RNG.standard_normal(shape)).astype(np.float32)


# Layers of 21 channels, and of 3 for first layers. Each algorithm runs at least one of them.
LAYERS = {
    "3x3x3": (Convolution(weight(35, 21, 3, 3, 3), padding_low=(1, 1, 1)), SRC, (1, 3, 6, 7, 35)),
    "1x1x1": (Convolution(weight(35, 21, 1, 1, 1)), SRC, (1, 3, 6, 7, 35)),
    "depthwise": (Convolution(weight(21, 1, 3, 5, 5), padding_low=(1, 2, 2), groups=21), SRC, (1, 3, 6, 7, 21)),
    "large": (Convolution(weight(21, 1, 5, 5, 5), padding_low=(2, 2, 2), groups=21), SRC, (1, 3, 6, 7, 21)),
    "first": (Convolution(weight(35, 3, 3, 3, 3), padding_low=(1, 1, 1)), (1, 3, 6, 7, 3), (1, 3, 6, 7, 35)),
    "narrow": (Convolution(weight(7, 21, 3, 1, 3), padding_low=(1, 0, 1)), SRC, (1, 3, 6, 7, 7)),
    "transposed": (Convolution(weight(21, 35, 2, 2, 2), stride=(2, 2, 2), transposed=True), SRC, (1, 6, 12, 14, 35)),
}


def run(algorithm: str, isa: str, name: str, x: np.ndarray, activation: str, fused: bool) -> np.ndarray:
    layer, src, dst = LAYERS[name]
    y = np.full(dst, np.nan, np.float32)
    views = View.dense(1, 0, src), View.dense(2, 0, dst)
    slope = (-0.5, 0.75) if activation == "clip" else 0.2
    plan = Plan(0, 2, 2, isa=isa, precision=PRECISION[algorithm])
    if fused:
        plan.convolve(layer, *views, activation=activation, slope=slope, algorithm=algorithm)
    else:
        plan.convolve(layer, *views, algorithm=algorithm)
        one = np.ones(dst[-1], np.float32)
        plan.affine(views[1], views[1], one, 0 * one, activation, slope)
    plan.run([x, y])
    return y


@pytest.mark.parametrize(("isa", "algorithm"), [(isa, name) for isa in INSTRUCTION_SETS for name in algorithms_of(isa)])
def test_every_activation(isa: str, algorithm: str) -> None:
    ran = 0
    for name, (_, src, _) in LAYERS.items():
        x = RNG.standard_normal(src).astype(np.float32)
        try:
            scale = max(1, np.abs(run(algorithm, isa, name, x, "none", True)).max())
        except UnsupportedError:
            continue
        for activation in ACTIVATIONS:
            fused = run(algorithm, isa, name, x, activation, True)
            ran += 1
            apart = run(algorithm, isa, name, x, activation, False)
            # Several roundings of sums as large as the largest one before the activation.
            tolerance = 8 * np.finfo(np.float32).eps * scale
            np.testing.assert_allclose(fused, apart, rtol=2e-6, atol=tolerance, err_msg=f"{name}, {activation}")
            if activation == "clip":
                assert fused.min() == np.float32(-0.5)
                assert fused.max() == np.float32(0.75)
    assert ran >= len(ACTIVATIONS)
