"""The accuracy of a program: how far its results are from a reference, and how far rounding alone may bring them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convoxel.arithmetic.winograd import TABLED, error_factor, tiles_of, winograd
from convoxel.files.values import Array
from convoxel.graph.run.step_table import StepRow

_EPSILON = 2.0**-23
_ORDER = 8.0  # other orders of summation, and folded weights are rounded anew: whole networks differ by up to 3
_FOURIER = 4.0  # rounding grows with the logarithm of a tile's size, at most 64 × 64 × 64
# A number of 16 digits errs by 2**-18, one of 8 digits by 2**-9, one of float32 by 2**-24.
_PRECISIONS = {"float32": 1.0, "high": 2.0**6, "bfloat16": 2.0**15}
_MOST_LABELS = 1e-3  # share of whole numbers that may differ, where rounding cannot tell scores apart


@dataclass(frozen=True)
class Verification:
    """The distance of a program's results from its source's; of several, that of the one nearest to its tolerance.

    Attributes:
        reference: the type in which the source was computed, ``"float64"`` or ``"float32"``.
        max_error: the largest |y − y₀|.
        l2_error: ‖y − y₀‖ / ‖y₀‖; infinite if y is not finite where y₀ is. For whole numbers (labels), the share that
            differs.
        tolerance: what ``l2_error`` may be: 8 κ times the source's own error, where κ is how much the chosen
            algorithms multiply the rounding of direct sums (see ``error_growth``).
        source_error: the source's own ‖y − y₀‖ / ‖y₀‖ in float32; without a float64 reference its estimate
            2⁻²⁴ √ΣK, over all layers with sums of K products.
    """

    reference: str
    max_error: float
    l2_error: float
    tolerance: float
    source_error: float

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance."""
        return self.l2_error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"relative L2 error {self.l2_error:.1e}, tolerance {self.tolerance:.1e}, largest difference "
            f"{self.max_error:.1e} ({self.reference} reference; the model itself errs by {self.source_error:.1e})"
        )


def compare_results(
    results: Sequence[Array],
    source: Sequence[Array],
    exact: Sequence[Array] | None,
    rows: Sequence[StepRow],
    growth: float,
) -> Verification:
    """Return the comparison of a program's results with its source's, that of the result nearest to its tolerance.

    Args:
        results: of the program.
        source: of the source in float32.
        exact: of the source in float64; None if nobody has computed them.
        rows: steps of the program, as ``Program.profile`` returns them.
        growth: ``error_growth`` of the program.
    """
    found = []
    for index, result in enumerate(results):
        truth = source[index] if exact is None else exact[index]
        own = _estimate(rows) if exact is None else _distance(source[index], truth)[1]
        tolerance = _ORDER * growth * max(own, _EPSILON) if truth.dtype.kind == "f" else _MOST_LABELS
        reference = "float32" if exact is None else "float64"
        found.append(Verification(reference, *_distance(result, truth), tolerance, own))
    return max(found, key=lambda comparison: comparison.l2_error / comparison.tolerance)


def error_growth(
    rows: Sequence[StepRow], constants: Mapping[str, Array], operands: Mapping[str, Sequence[str]]
) -> float:
    """Return κ, how much the least exact algorithm among a program's steps multiplies the rounding of direct sums.

    For Winograd's algorithms it is the product over the axes of ``arithmetic.winograd.error_factor``, 1 for those that
    sum directly; fewer digits multiply it as they multiply the rounding of a number. Rounding errors pass through a
    network linearly, so κ bounds its result's as it bounds one layer's.

    Args:
        rows: of ``Program.profile``.
        constants: the graph's, by name.
        operands: the names of every node's operands; the second is a convolution's weight.
    """
    growth = 1.0
    for row in rows:
        tiles = tiles_of(row["algorithm"])
        growth = max(growth, *(_PRECISIONS.get(kind, 1.0) for kind in (row["type"], row["stored"])))
        if row["algorithm"] == "fft":
            growth = max(growth, _FOURIER)
        elif tiles is not None:
            names = operands.get(row["name"], ())
            weight = constants.get(names[1]) if len(names) > 1 else None
            kernel = (3, 3, 3) if weight is None else weight.shape[2:]
            growth = max(growth, _PRECISIONS[row["type"]] * _winograd_growth(tiles, kernel))
    return growth


def _winograd_growth(tiles: Sequence[int], kernel: Sequence[int]) -> float:
    """Return the product of the axes' factors; axes with an untabled tile or kernel are summed directly."""
    pairs = zip(tiles[3 - len(kernel) :], kernel, strict=True)
    factors = (error_factor(winograd(m, r)) for m, r in pairs if (m, r) in TABLED)
    return math.prod(factors)


def _estimate(rows: Sequence[StepRow]) -> float:
    """Return 2⁻²⁴ √ΣK: rounding as a random walk, over the layers with K products for each of their results."""
    products = sum(row["macs"] / math.prod(row["shape"]) for row in rows if row["macs"])
    return _EPSILON / 2 * math.sqrt(max(products, 1.0))


def _distance(y: Array, truth: Array) -> tuple[float, float]:
    """Return max |y − truth| and ‖y − truth‖ / ‖truth‖; of whole numbers, the share that differs."""
    if y.shape != truth.shape:
        return math.inf, math.inf
    if truth.dtype.kind != "f":
        wrong = y != truth
        return float(wrong.any()), float(wrong.mean()) if wrong.size else 0.0
    finite = np.isfinite(truth)
    if not np.array_equal(finite, np.isfinite(y)):
        return math.inf, math.inf
    expected = np.where(finite, truth, 0).astype(np.float64)
    difference = np.where(finite, y, 0).astype(np.float64) - expected
    scale = float(np.linalg.norm(expected)) or 1.0
    return float(np.abs(difference).max(initial=0.0)), float(np.linalg.norm(difference)) / scale
