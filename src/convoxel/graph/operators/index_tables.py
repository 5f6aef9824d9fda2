"""Index and weight tables: how one output position of an axis is a weighted sum of input positions.

Average pooling, resizing and padding are all ``y[o] = Σ_t weight[o, t] · x[source[o, t]]`` along each axis in
turn, so one native step serves them all. The engine makes the tables by rules that hold for every size; the formulas
are those of PyTorch's operators, float32 roundings of the nearest neighbour included.
"""

from __future__ import annotations

from convoxel.native.index_table import TableRule

CUBIC_SHARPNESS = -0.75  # of PyTorch's and OpenCV's cubic kernel


def identity() -> TableRule:
    """Return the table that copies an axis."""
    return TableRule(("identity",))


def none() -> TableRule:
    """Return the table whose sums have no terms."""
    return TableRule(("none",))


def average(
    kernel: int, stride: int, low: int, high: int, count_padding: bool, divisor: float = 0, dilation: int = 1
) -> TableRule:
    """Return the table of average pooling.

    Without ``divisor`` it is the window's length within the padded axis (``count_padding``) or within the axis itself.
    The part of a ceil-mode window beyond the padding never counts.
    """
    return TableRule(("average",), (kernel, stride, low, high, dilation, int(count_padding)), (divisor,))


def adaptive_average() -> TableRule:
    """Return the table that averages windows of nearly equal length."""
    return TableRule(("adaptive_average",))


def resize(mode: str, align_corners: bool = False, scale: float | None = None) -> TableRule:
    """Return the table that resizes an axis.

    ``scale`` is the factor that the user gave, if any: PyTorch maps positions by it, not by the quotient of the sizes.
    ``mode`` is ``"nearest"``, ``"nearest_exact"``, ``"linear"``, ``"cubic"``, or one of the last two antialiased:
    where the axis shrinks, the kernel becomes wider, and counts no positions beyond the ends.
    """
    return TableRule(("resize", mode), (int(align_corners),), (scale or 0.0,))


def interpolate(
    scale: float | None,
    *,
    mode: str,
    coordinate: str,
    rounding: str,
    cubic: float,
    exclude_outside: bool,
    antialias: bool,
    region: tuple[float, float] = (0.0, 1.0),
) -> TableRule:
    """Return the table of one axis of ONNX's resizing; without ``scale`` it is the quotient of the sizes.

    ``mode`` is ``"nearest"`` (by ``rounding``), ``"linear"`` or ``"cubic"``, beyond the ends of the axis its nearest
    element; with ``exclude_outside`` elements beyond the ends count nothing. ``coordinate`` is a name of ONNX's;
    ``region`` is the part of the axis that ``"tf_crop_and_resize"`` takes, and positions beyond the axis have no terms.
    """
    words = ("interpolate", mode, coordinate, rounding)
    return TableRule(words, (int(exclude_outside), int(antialias)), (scale or 0.0, cubic, *region))


def pad(low: int, mode: str) -> TableRule:
    """Return the table that pads (or, where ``low`` is negative, crops) an axis.

    ``mode`` is ``"constant"`` (0), ``"replicate"``, ``"reflect"`` (the edge is not repeated) or ``"circular"``.
    """
    return TableRule(("pad", mode), (low,))
