"""Plans: lists of native steps over views, made once for one set of shapes and run from any thread.

A tensor inside a plan is a ``View``: five axes (n, d, h, w, c), channels contiguous, any strides, in the plan's
arena (buffer 0) or in one of the caller's buffers (1, 2, …). An absent spatial axis has size 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.arithmetic.argument import per_axis
from convoxel.errors import ShapeError
from convoxel.files.mapping import is_of_file
from convoxel.files.values import JsonObject
from convoxel.native import _core
from convoxel.native.calibration import calibrate
from convoxel.native.machine import resolve_isa, resolve_threads
from convoxel.native.precision import DIGITS, check_precision

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Slope = float | tuple[float, float]  # an activation's parameter; clip's are (low, high)

ACTIVATIONS: tuple[str, ...] = tuple(_core.activations)


ELEMENT_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}
"""The types in which tensors of a plan are stored, and the bytes of a number."""


class View(NamedTuple):
    """The place of a tensor. Offset and strides count numbers; the stride of the channels is always 1."""

    buffer: int
    offset: int
    shape: tuple[int, int, int, int, int]
    strides: tuple[int, int, int, int]
    element: str = "float32"

    @classmethod
    def dense(cls, buffer: int, offset: int, shape: tuple[int, int, int, int, int], element: str = "float32") -> View:
        """Return the view of a tensor without gaps.

        >>> View.dense(0, 0, (2, 1, 4, 4, 3)).strides
        (48, 48, 12, 3)
        """
        n, d, h, w, c = shape
        return cls(buffer, offset, (n, d, h, w, c), (d * h * w * c, h * w * c, w * c, c), element)

    def channels(self, begin: int, end: int) -> View:
        """Return the slice of channels ``[begin, end)``, of the same memory."""
        return self._replace(offset=self.offset + begin, shape=(*self.shape[:4], end - begin))


class Convolution(_core.Convolution):
    """The weights and the window of a convolution. Any number of plans share it; each algorithm packs it once.

    Args:
        weight: ``(out_channels, in_channels/groups, kd, kh, kw)``; transposed: ``(in_channels,
            out_channels/groups, kd, kh, kw)``. It is copied unless it is read-only, with every array that it is a
            view of. Pages of a ``FileMemory`` are released as they are packed.
        bias: ``(out_channels,)`` or None.
        stride, dilation: per axis (d, h, w).
        padding_low: padding before the first input of each axis; a negative one crops. The padding at the other
            end follows from the size of the output.
        groups: number of groups.
        transposed: the transposed (fractionally strided) convolution.
    """

    def __init__(
        self,
        weight: Floats,
        bias: Floats | None = None,
        *,
        stride: Triple = (1, 1, 1),
        padding_low: Triple = (0, 0, 0),
        dilation: Triple = (1, 1, 1),
        groups: int = 1,
        transposed: bool = False,
    ) -> None:
        # The engine keeps the array, so nobody may write to it.
        made = np.ascontiguousarray(weight, dtype=np.float32)
        weight = made.copy() if made is weight and not is_frozen(made) else made
        if weight.ndim != 5:
            raise ShapeError(f"Convolution: weight has shape {weight.shape}; expected 5 axes (out, in, d, h, w).")
        if bias is not None:
            bias = np.ascontiguousarray(bias, dtype=np.float32)
        window = (engine_numbers("stride", stride), engine_numbers("padding_low", padding_low))
        dilated = engine_numbers("dilation", dilation)
        super().__init__(weight, bias, *window, dilated, groups, transposed, is_of_file(weight), False)
        self.arrays: Mapping[str, Floats | None] = {"weight": weight, "bias": bias}  # the weight, as the engine has it


class Problem(NamedTuple):
    """Everything but the machine that the time of a convolution depends on. Weights do not matter.

    ``str(problem)`` is its name in tables and in the tuning cache.

    Attributes:
        kernel, stride, dilation, padding_low, groups, transposed: as in ``Convolution``.
        in_shape, out_shape: (n, d, h, w, c).
        activation, residual: the activation, and whether a residual is added before it.
        gated: whether a vector of channels multiplies the input.
        in_element, out_element: the types in which input and result are stored.

    >>> str(Problem((1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1), 1, False, (1, 1, 8, 9, 64), (1, 1, 8, 9, 32), "relu"))
    'conv 1x3x3 s1x1x1 p0x1x1 d1x1x1 g1 1x1x8x9x64 -> 1x1x8x9x32 relu'
    """

    kernel: Triple
    stride: Triple
    dilation: Triple
    padding_low: Triple
    groups: int
    transposed: bool
    in_shape: tuple[int, int, int, int, int]
    out_shape: tuple[int, int, int, int, int]
    activation: str = "none"
    residual: bool = False
    gated: bool = False
    in_element: str = "float32"
    out_element: str = "float32"

    @classmethod
    def of(
        cls,
        convolution: _core.Convolution,
        src: View,
        dst: View,
        activation: str = "none",
        residual: bool = False,
        gated: bool = False,
    ) -> Problem:
        """Return the problem of running ``convolution`` from one view to another."""
        return cls(*convolution.window, src.shape, dst.shape, activation, residual, gated, src.element, dst.element)

    @property
    def of_one_image(self) -> Problem:
        """The same problem for a batch of one, which decides the algorithm: equal images get equal bits."""
        return self._replace(in_shape=(1, *self.in_shape[1:]), out_shape=(1, *self.out_shape[1:]))

    def __str__(self) -> str:
        return str(_core.problem_text(*self))


class Plan(_core.Plan):
    """A list of native steps. Add steps, then run them any number of times, from any thread.

    The engine has a method for each kind of step (``csrc/steps.h``). Each takes ``name``, the name of the layer for
    ``steps``, and raises ``ShapeError`` if its views do not fit.

    Args:
        arena_size: floats of scratch memory that views with buffer 0 live in.
        buffer_count: buffers that the caller passes to ``run`` (indices 1 … buffer_count).
        threads: number of threads of a run (default: all that the process may use). The result has the same bits
            for any number.
        isa: instruction set, by default the one in use (``build_info()["instruction_set"]``).
        precision: one of ``PRECISIONS``: the fewest digits of the numbers that convolutions may multiply.
        chosen: algorithms that were chosen before, by the text of a ``Problem`` of one image (``choices``). The
            expected cost decides for problems without one, and if the algorithm cannot run or is not in the family that
            a step asks for ("auto").
    """

    def __init__(
        self,
        arena_size: int,
        buffer_count: int,
        threads: int | None = None,
        *,
        isa: str | None = None,
        precision: str = "float32",
        chosen: Mapping[str, str] | None = None,
    ) -> None:
        calibrate()
        digits = DIGITS[check_precision(precision)]
        super().__init__(
            arena_size, buffer_count + 1, resolve_threads(threads), resolve_isa(isa), digits, dict(chosen or {})
        )
        self._problems: list[Problem] = []

    def convolve(
        self,
        convolution: _core.Convolution,
        src: View,
        dst: View,
        residual: View | None = None,
        activation: str = "none",
        slope: Slope = 0.0,
        algorithm: str = "auto",
        gate: View | None = None,
        padding_low: Sequence[int] | None = None,
        chosen: str = "",
        name: str = "",
    ) -> None:
        """Add a step: dst = activation(convolution(src · gate) + bias + residual), by the algorithm that was chosen.

        gate: ``(n, 1, 1, 1, c)``, one factor for each image and channel of src (squeeze-and-excite).
        padding_low: in place of the convolution's own, for a part of an image that has other padding than the whole.
        chosen: the algorithm that runs if ``algorithm`` allows it (default: what was chosen for the problem).
        """
        padding_low = None if padding_low is None else engine_numbers("padding_low", padding_low)
        super().convolve(
            convolution, src, dst, residual, activation, slope, algorithm, gate, padding_low, chosen, name=name
        )
        problem = Problem.of(convolution, src, dst, activation, residual is not None, gate is not None)
        self._problems.append(problem)

    def convolve_block(
        self,
        convolutions: Sequence[_core.Convolution],
        depthwise: int,
        src: View,
        dst: View,
        residual: View | None = None,
        activations: Sequence[tuple[str, Slope]] = (),
        algorithm: str = "auto",
        padding_low: Sequence[int] | None = None,
        parts: Sequence[str] = (),
        name: str = "",
    ) -> None:
        """Add a step that runs a depthwise convolution and its 1×1 neighbours; see the engine's own description.

        parts: the algorithm of each convolution (default: what was chosen for its problem, if anything).
        """
        padding_low = None if padding_low is None else engine_numbers("padding_low", padding_low)
        super().convolve_block(
            convolutions, depthwise, src, dst, residual, activations, algorithm, padding_low, parts, name=name
        )

    def run(
        self, buffers: Sequence[Floats], first: int = 0, last: int | None = None, arena: Floats | None = None
    ) -> None:
        """Run steps ``[first, last)``. buffers[i] is buffer i + 1: float32, C-contiguous, large enough.

        Give an arena (see ``new_arena``) only to keep its contents for a later call.
        """
        self._run(buffers, first, last, arena, timed=False)

    def profile(self, buffers: Sequence[Floats]) -> list[JsonObject]:
        """Run all steps and return them, each with its ``time_s``."""
        times = self._run(buffers, 0, None, None, timed=True)
        return [{**row, "time_s": time} for row, time in zip(self.steps, times, strict=True)]

    def _run(
        self, buffers: Sequence[Floats], first: int, last: int | None, arena: Floats | None, timed: bool
    ) -> list[float]:
        for index, (buffer, written) in enumerate(zip(buffers, self.written[1:], strict=False)):
            if buffer.dtype != np.float32 or not buffer.flags.c_contiguous:
                raise ShapeError(
                    f"run: buffers[{index}] is {buffer.dtype} with strides {buffer.strides}; "
                    "expected C-contiguous float32."
                )
            if written and not buffer.flags.writeable:
                raise ShapeError(f"run: buffers[{index}] is read-only but the plan writes to it.")
        return self.run_steps(list(buffers), arena, first, len(self) if last is None else last, timed)

    def new_arena(self) -> Floats:
        """Return scratch memory for ``run``, aligned to a cache line."""
        raw = np.empty(self.arena_size + 16, np.float32)
        skip = -raw.ctypes.data // 4 % 16
        return raw[skip : skip + self.arena_size]

    @property
    def problems(self) -> list[Problem]:
        """The problems of the steps that run one convolution each, in their order."""
        return list(self._problems)

    @property
    def choices(self) -> dict[str, str]:
        """The algorithm of every convolution, those of blocks included, by the text of its problem for one image.

        With the instruction set they decide the bits of the results.
        """
        chosen = (row for row in self.steps if row["problems"])
        pairs = (zip(row["problems"], row["parts"] or [row["algorithm"]], strict=True) for row in chosen)
        return {problem: name for each in pairs for problem, name in each}


def place_blocks(blocks: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Return the offset of every block, in floats, and the size of the smallest arena found that holds them all.

    Args:
        blocks: size in floats, and the first and the last step that use the block.

    >>> place_blocks([(32, 0, 1), (16, 1, 2), (20, 2, 3)])
    ([0, 32, 0], 48)
    """
    offsets, size = _core.place_blocks([tuple(block) for block in blocks])
    return list(offsets), size


def step_parameters() -> dict[str, list[tuple[Any, ...]]]:
    """Return the parameters of every step by its name: (name, type), or (name, type, default), of each.

    A type is "view", "layer", "text", "bool", "int", "float", "axes", "slope", "levels", "table", "floats" or "int32s",
    or ("optional", type), ("list", type), ("pair", type, type).

    >>> step_parameters()["copy"]
    [('src', 'view'), ('dst', 'view')]
    """
    return dict(_core.step_parameters())


def engine_numbers(name: str, value: object) -> tuple[int, ...]:
    """Return a number for each axis (d, h, w), of a size that the engine can compute with.

    >>> engine_numbers("stride", 2)
    (2, 2, 2)
    >>> engine_numbers("stride", (1, 1, 2**70))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convoxel.errors.ConfigError: stride is 1180591620717411303424, but it must be a whole number of ...
    """
    return per_axis(name, value, 3, -(2**32), 2**32)


def is_frozen(array: Any) -> bool:
    """Return whether an array and every array that it is a view of are read-only, or lie in a file's memory."""
    base = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or is_of_file(array)
