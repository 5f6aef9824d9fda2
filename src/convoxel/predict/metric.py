"""A metric: its name, what it measures, in which unit, which direction is better, and who defined it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Of_co = TypeVar("Of_co", bound=Callable[..., object], covariant=True)
Better = Literal["higher", "lower", "near 0", ""]
#: A number, a length (mm, or voxels where the spacing is unknown), or a volume (ml, mm² in 2-D, mm in 1-D, or voxels).
Quantity = Literal["", "length", "volume"]


@dataclass(frozen=True)
class Metric(Generic[Of_co]):
    """One metric of a task.

    Attributes:
        name: name on the command line, in tables and files, such as "hd95".
        words: its definition in words or as an equation.
        source: where it is defined.
        of: function that computes it; what it takes is the task's.
        better: direction of better values; empty where none is.
        quantity: what kind of number it is.
    """

    name: str
    words: str
    source: str
    of: Of_co
    better: Better = "higher"
    quantity: Quantity = ""

    def unit(self, spaced: bool, dims: int) -> str:
        """Return the unit of its values: that of lengths and volumes depends on whether the spacing is known.

        >>> Metric("hd", "", "", max, "lower", "length").unit(spaced=True, dims=3)
        'mm'
        """
        if not self.quantity:
            return ""
        if not spaced:
            return "voxels"
        return "mm" if self.quantity == "length" else {1: "mm", 2: "mm²", 3: "ml"}[dims]
