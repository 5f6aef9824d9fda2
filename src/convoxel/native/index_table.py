"""Tables of weighted sums along an axis: which positions of the input each position of the result takes.

Resizing, average pooling and padding are all ``y[o] = Σ_t weight[o, t] · x[source[o, t]]`` along each axis in turn, so
one native step serves them. The engine makes tables from rules (``csrc/index_table.cpp``), which know no sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.native import _core


class Taps(NamedTuple):
    """One axis: ``source`` int32, the input positions, or −1 for none, and ``weight`` float32, both (outputs, taps)."""

    source: NDArray[np.int32]
    weight: NDArray[np.float32]

    def between(self, size: int, out: int) -> Taps:
        """Return the table itself, which is of one size."""
        return self


class TableRule(NamedTuple):
    """One axis of any size: the words, numbers and fractions of a rule that the engine knows."""

    words: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    fractions: tuple[float, ...] = ()

    def between(self, size: int, out: int) -> Taps:
        """Return the table from an axis of ``size`` to one of ``out`` positions.

        >>> TableRule(("adaptive_average",)).between(5, 2).source.tolist()
        [[0, 1, 2], [2, 3, 4]]
        """
        taps, index, weight = _core.index_table(*self, size, out)
        return Taps(index.reshape(out, taps), weight.reshape(out, taps))


AxisTable = Taps | TableRule
