"""Plans that run once, such as an operator of a training step: what they would check is known to hold."""

from __future__ import annotations

from convoxel.native import _core
from convoxel.native.calibration import calibrate
from convoxel.native.machine import instruction_set
from convoxel.native.plan import Floats, Triple, View

__all__ = ["SingleRun", "borrow_weights", "whole_view"]


class SingleRun(_core.Plan):
    """A plan for one run, in float32; the choice of an algorithm includes the packing of its weights.

    Args:
        buffers: number of arrays that ``run`` takes.
        threads: number of threads; the result has the same bits for any number.
    """

    def __init__(self, buffers: int, threads: int) -> None:
        calibrate()
        super().__init__(0, buffers + 1, threads, instruction_set(), once=True)

    def run(self, *buffers: Floats) -> None:
        """Run all steps. Buffers are float32 and C-contiguous."""
        self.run_steps(list(buffers), None, 0, len(self), False)


def borrow_weights(
    weight: Floats,
    bias: Floats | None,
    *,
    stride: Triple,
    padding_low: Triple,
    dilation: Triple,
    transposed: bool,
    turned: bool = False,
) -> _core.Convolution:
    """Return the convolution of weights that nobody writes to until its plan has run; they are not copied.

    Args:
        weight: as of ``Convolution``. Its taps follow one another in memory; its channels may lie anywhere.
        bias, stride, padding_low, dilation, transposed: as of ``Convolution``.
        turned: the kernel has the taps of ``weight`` in reverse, as in the gradient of a convolution's input.
    """
    return _core.Convolution(weight, bias, stride, padding_low, dilation, 1, transposed, False, turned)


def whole_view(buffer: int, x: Floats) -> View:
    """Return the view of an array (n, *spatial, c) without gaps, of up to 3 spatial axes, as buffer ``buffer``."""
    d, h, w = (1,) * (5 - x.ndim) + x.shape[1:-1]
    return View.dense(buffer, 0, (x.shape[0], d, h, w, x.shape[-1]))
