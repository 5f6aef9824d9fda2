"""Plans: lists of native steps over views, made once for one set of shapes and run from any thread.

A tensor inside a plan is a ``View``: five axes (n, d, h, w, c), channels contiguous, any strides, in the plan's
arena (buffer 0) or in one of the caller's buffers (1, 2, …). An absent spatial axis has size 1.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError, ShapeError, UnsupportedError
from convoxel.files.mapping import is_of_file
from convoxel.native import _core
from convoxel.native.calibration import calibrate
from convoxel.native.machine import algorithms, instruction_set, resolve_threads

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Slope = float | tuple[float, float]  # an activation's parameter; clip's are (low, high)

ACTIVATIONS: tuple[str, ...] = tuple(_core.activations)


class View(NamedTuple):
    """Where a tensor lives. Offsets and strides count floats; the channels' stride is always 1."""

    buffer: int
    offset: int
    shape: tuple[int, int, int, int, int]
    strides: tuple[int, int, int, int]

    @classmethod
    def dense(cls, buffer: int, offset: int, shape: Sequence[int]) -> View:
        """The view of a tensor that fills its memory.

        >>> View.dense(0, 0, (2, 1, 4, 4, 3)).strides
        (48, 48, 12, 3)
        """
        n, d, h, w, c = shape
        return cls(buffer, offset, (n, d, h, w, c), (d * h * w * c, h * w * c, w * c, c))

    def channels(self, begin: int, end: int) -> View:
        """The slice of channels ``[begin, end)``: same memory, no copy."""
        return self._replace(offset=self.offset + begin, shape=(*self.shape[:4], end - begin))


class Convolution:
    """A convolution's weights and window, packed once per algorithm and shared by any number of plans.

    Args:
        weight: ``(out_channels, in_channels/groups, kd, kh, kw)``; transposed: ``(in_channels,
            out_channels/groups, kd, kh, kw)``. Kept if neither it nor an array that it is a part of can be
            written to; else copied. What lies in a ``FileMemory`` is given back as it is packed.
        bias: ``(out_channels,)`` or None.
        stride, dilation: per axis (d, h, w).
        padding_low: padding before the first input of each axis; negative crops. The padding at the other end
            follows from the size of the output.
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
        # The core keeps the array, so it must be one that nobody writes to.
        made = np.ascontiguousarray(weight, dtype=np.float32)
        weight = made.copy() if made is weight and not _is_frozen(made) else made
        if weight.ndim != 5:
            raise ShapeError(f"Convolution: weight has shape {weight.shape}; expected 5 axes (out, in, d, h, w).")
        if bias is not None:
            bias = np.ascontiguousarray(bias, dtype=np.float32)
        self.kernel_size: Triple = weight.shape[2:]
        self.stride, self.padding_low, self.dilation = stride, padding_low, dilation
        self.groups, self.transposed = groups, transposed
        try:
            self._core = _core.make_convolution(
                weight, bias, stride, padding_low, dilation, groups, transposed, is_of_file(weight)
            )
        except ValueError as error:
            raise ShapeError(f"Convolution: {error}.") from None

    @property
    def in_channels(self) -> int:
        return int(self._core.in_channels)

    @property
    def out_channels(self) -> int:
        return int(self._core.out_channels)

    @property
    def packed_bytes(self) -> int:
        """Bytes of weights packed so far, over all algorithms that asked for them."""
        return int(self._core.packed_bytes)


class Problem(NamedTuple):
    """What the time of a convolution depends on, apart from the machine; weights are not among it.

    ``str(problem)`` is its name in tables and in the tuning cache.

    Attributes:
        kernel, stride, dilation, padding_low, groups, transposed: as in ``Convolution``.
        in_shape, out_shape: (n, d, h, w, c).
        activation, residual: what is done to the result.
        gated: whether the input is multiplied by a vector of channels.

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

    @classmethod
    def of(
        cls,
        convolution: Convolution,
        src: View,
        dst: View,
        activation: str = "none",
        residual: bool = False,
        gated: bool = False,
    ) -> Problem:
        """The problem of running ``convolution`` from one view to another."""
        return cls(
            convolution.kernel_size,
            convolution.stride,
            convolution.dilation,
            convolution.padding_low,
            convolution.groups,
            convolution.transposed,
            src.shape,
            dst.shape,
            activation,
            residual,
            gated,
        )

    def __str__(self) -> str:
        kernel, stride, dilation, padding, in_shape, out_shape = (
            "x".join(map(str, numbers))
            for numbers in (
                self.kernel, self.stride, self.dilation, self.padding_low, self.in_shape, self.out_shape,
            )
        )  # fmt: skip
        what = "conv_transpose" if self.transposed else "conv"
        epilogue = f" {self.activation}" + (" residual" if self.residual else "")
        gate = " gated" if self.gated else ""
        return (
            f"{what} {kernel} s{stride} p{padding} d{dilation} g{self.groups} {in_shape} -> {out_shape}{gate}{epilogue}"
        )


class Plan:
    """A list of native steps. Add steps, then run them any number of times, from any thread.

    Args:
        arena_size: floats of scratch memory that views with buffer 0 live in.
        buffer_count: buffers that the caller passes to ``run`` (indices 1 … buffer_count).
        threads: how many threads a run uses; None for all that the process may use. The result is the same,
            bit by bit, for any number.
        isa: instruction set, by default the one in use (``build_info()["instruction_set"]``).
        winners: measured choices: an algorithm by the text of a ``Problem``; where the family of a step ("auto")
            lacks it or it cannot run, the expected cost decides.

    Each method that adds a step raises ``ShapeError`` if its views do not fit.
    """

    def __init__(
        self,
        arena_size: int,
        buffer_count: int,
        threads: int | None = None,
        *,
        isa: str | None = None,
        winners: Mapping[str, str] | None = None,
    ) -> None:
        calibrate()
        self._core = _core.Plan(arena_size, buffer_count + 1, resolve_threads(threads), isa or instruction_set())
        self._winners = winners or {}
        self._problems: list[Problem] = []
        self._results: list[int] = []  # floats of each step's result

    def convolve(
        self,
        convolution: Convolution,
        src: View,
        dst: View,
        residual: View | None = None,
        activation: str = "none",
        slope: Slope = 0.0,
        algorithm: str = "auto",
        name: str = "",
        gate: View | None = None,
    ) -> None:
        """dst = activation(convolution(src · gate) + bias + residual).

        gate: ``(n, 1, 1, 1, c)``, one factor for each image and channel of src (squeeze-and-excite).
        """
        problem = Problem.of(convolution, src, dst, activation, residual is not None, gate is not None)
        winner = self._winners.get(str(problem)) if self._winners else None
        if winner is not None:
            with contextlib.suppress(ValueError):  # nothing of the family can run: adding the step says why
                costs = dict(self.candidates(convolution, src, dst, algorithm, gate is not None))
                algorithm = winner if math.isfinite(costs.get(winner, math.inf)) else algorithm
        self._add(
            "convolve",
            dst,
            convolution._core,
            src,
            dst,
            residual,
            gate,
            activation,
            _pair(slope),
            algorithm,
            name,
            what=algorithm,
        )
        self._problems.append(problem)

    def convolve_block(
        self,
        convolutions: Sequence[Convolution],
        depthwise: int,
        src: View,
        dst: View,
        residual: View | None = None,
        activations: Sequence[tuple[str, Slope]] = (),
        algorithm: str = "auto",
        name: str = "",
    ) -> None:
        """dst = src through convolutions one after another, plus residual, without memory for what lies between.

        convolutions: one is depthwise; at most one lies in front of it and one behind, 1x1, stride 1, no groups.
        depthwise: the place of that one. activations: of each; the last one comes after the residual. algorithm:
        "auto"; "banded" (each thread expands the lines that a band of outputs needs, and goes on with them); "blocked"
        (each thread projects what it has just computed; an expansion comes before); "staged" (one after the other); or
        what all are to run with, one after the other.
        """
        self._add(
            "convolve_block",
            dst,
            [convolution._core for convolution in convolutions],
            depthwise,
            src,
            dst,
            residual,
            [(kind, _pair(slope)) for kind, slope in activations or [("none", 0.0)] * len(convolutions)],
            algorithm,
            name,
            what=algorithm,
        )

    def candidates(
        self, convolution: Convolution, src: View, dst: View, algorithm: str = "auto", gated: bool = False
    ) -> list[tuple[str, float]]:
        """The algorithms that ``convolve`` could choose among and their expected cost, cheapest first.

        A unit of cost is one vector's multiply-add at full speed on all cores. An infinite one says that the
        algorithm can run but loses more accuracy than it may unasked.
        """
        return list(self._core.candidates(convolution._core, src, dst, gated, algorithm))

    def max_pool(
        self,
        src: View,
        dst: View,
        kernel: Triple,
        stride: Triple,
        dilation: Triple = (1, 1, 1),
        padding_low: Triple = (0, 0, 0),
        name: str = "",
    ) -> None:
        """Largest value of each window; positions outside of src do not count."""
        self._add("max_pool", dst, src, dst, kernel, stride, dilation, padding_low, name)

    def resample(
        self,
        src: View,
        dst: View,
        axes: Sequence[tuple[NDArray[np.int32], Floats]],
        name: str = "",
    ) -> None:
        """dst[o] = Σ weight · src[index] over the taps of the three axes (index, weight: ``(out, taps)`` each).

        An index of −1 is no tap. Average pooling, adaptive pooling and every linear resize are of this form.
        """
        tables = [
            (np.ascontiguousarray(index, np.int32), np.ascontiguousarray(weight, np.float32)) for index, weight in axes
        ]
        self._add("resample", dst, src, dst, tables, name)

    def combine(
        self, op: str, a: View, b: View, dst: View, activation: str = "none", slope: Slope = 0.0, name: str = ""
    ) -> None:
        """dst = activation(a op b); axes of size 1 of a and b are repeated.

        op: "add", "subtract", "multiply", "divide", "maximum" or "minimum".
        """
        self._add("combine", dst, op, a, b, dst, activation, _pair(slope), name)

    def reduce(self, op: str, src: View, dst: View, name: str = "") -> None:
        """Mean, max or sum (op) over every axis along which dst has size 1: space, channels or both."""
        self._add("reduce", dst, op, src, dst, name)

    def softmax(self, src: View, dst: View, log: bool = False, name: str = "") -> None:
        """Softmax over the channels of each pixel, or its logarithm."""
        self._add("softmax", dst, src, dst, log, name)

    def permute_channels(self, src: View, dst: View, index: Sequence[int], name: str = "") -> None:
        """Channel c of dst = channel index[c] of src."""
        self._add("permute_channels", dst, src, dst, [int(i) for i in index], name)

    def local_response_norm(
        self, src: View, dst: View, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0,
        name: str = "",
    ) -> None:  # fmt: skip
        """dst = src / (bias + alpha · m) ** beta, m the mean of src² over size channels, as in PyTorch.

        The window of channel c begins at c − size // 2; channels that do not exist count as 0.
        """
        self._add("local_response_norm", dst, src, dst, size, alpha, beta, bias, name)

    def prelu(self, src: View, dst: View, slope: Floats, name: str = "") -> None:
        """dst = src where that is not negative, src · slope elsewhere; one slope per channel."""
        self._add("prelu", dst, src, dst, _floats(slope), name)

    def affine(
        self,
        src: View,
        dst: View,
        scale: Floats,
        shift: Floats,
        activation: str = "none",
        slope: Slope = 0.0,
        name: str = "",
    ) -> None:
        """dst = activation(src · scale + shift), one scale and shift per channel."""
        self._add("affine", dst, src, dst, _floats(scale), _floats(shift), activation, _pair(slope), name)

    def normalise(
        self,
        src: View,
        dst: View,
        groups: int,
        weight: Floats,
        bias: Floats,
        eps: float,
        activation: str = "none",
        slope: Slope = 0.0,
        name: str = "",
    ) -> None:
        """Each sample minus its mean, over its standard deviation, per group of channels; then · weight + bias.

        groups = channels is instance normalisation, 1 is layer normalisation over channels and space.
        """
        self._add(
            "normalise", dst, src, dst, groups, _floats(weight), _floats(bias), eps, activation, _pair(slope), name
        )

    def import_channels_first(self, buffer: int, dst: View, name: str = "") -> None:
        """Copies a dense ``(n, c, d, h, w)`` buffer into a view."""
        self._add("import_channels_first", dst, buffer, dst, name)

    def export_channels_first(self, src: View, buffer: int, name: str = "") -> None:
        """Copies a view into a dense ``(n, c, d, h, w)`` buffer."""
        self._add("export_channels_first", src, src, buffer, name)

    def _add(self, method: str, result: View, *arguments: Any, what: str = "auto") -> None:
        """Call a method of the core; ``result`` is what the new step writes."""
        try:
            getattr(self._core, method)(*arguments)
        except ValueError as error:
            if str(error).startswith("there is no algorithm"):
                names = ", ".join(["auto", "fast", "direct", "winograd", *(str(row["name"]) for row in algorithms())])
                raise ConfigError(f"{method}: {error}; give one of {names}.") from None
            if what != "auto" and str(error).startswith("algorithm"):
                raise UnsupportedError(f"{method}: {error}.") from None
            raise ShapeError(f"{method}: {error}.") from None
        self._results.append(math.prod(result.shape))

    def run(
        self,
        buffers: Sequence[Floats],
        first: int = 0,
        last: int | None = None,
        arena: Floats | None = None,
    ) -> None:
        """Runs steps ``[first, last)``. buffers[i] is buffer i + 1: float32, C-contiguous, large enough.

        arena is needed only to keep what the steps left there for a later call (see ``new_arena``).
        """
        self._run(buffers, first, last, arena, timed=False)

    def profile(self, buffers: Sequence[Floats]) -> list[dict[str, Any]]:
        """Runs all steps and returns them with ``time_s`` each."""
        times = self._run(buffers, 0, None, None, timed=True)
        return [{**row, "time_s": time} for row, time in zip(self.steps, times, strict=True)]

    def _run(
        self, buffers: Sequence[Floats], first: int, last: int | None, arena: Floats | None, timed: bool
    ) -> list[float]:
        for index, (buffer, written) in enumerate(zip(buffers, self._core.written[1:], strict=False)):
            if buffer.dtype != np.float32 or not buffer.flags.c_contiguous:
                raise ShapeError(
                    f"run: buffers[{index}] is {buffer.dtype} with strides {buffer.strides}; "
                    "expected C-contiguous float32."
                )
            if written and not buffer.flags.writeable:
                raise ShapeError(f"run: buffers[{index}] is read-only but the plan writes to it.")
        try:
            return self._core.run(list(buffers), arena, first, len(self) if last is None else last, timed)
        except ValueError as error:
            raise ShapeError(f"run: {error}.") from None

    def new_arena(self) -> Floats:
        """Scratch memory for ``run``, aligned to a cache line."""
        raw = np.empty(self.arena_size + 16, np.float32)
        skip = -raw.ctypes.data // 4 % 16
        return raw[skip : skip + self.arena_size]

    def __len__(self) -> int:
        return len(self._results)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps so far: name, operator, algorithm, macs, workspace_bytes (per thread), bytes (of the result)."""
        return [{**row, "bytes": 4 * floats} for row, floats in zip(self._core.steps, self._results, strict=True)]

    @property
    def problems(self) -> list[Problem]:
        """The convolutions among the steps, in their order."""
        return list(self._problems)

    @property
    def arena_size(self) -> int:
        return int(self._core.arena_size)

    @property
    def workspace_bytes(self) -> int:
        """Scratch bytes that the steps' threads need together, beside the arena."""
        return int(self._core.workspace_bytes)

    @property
    def threads(self) -> int:
        return int(self._core.threads)


def _is_frozen(array: NDArray[Any]) -> bool:
    """Whether neither the array nor one that it is a view of can be written to."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return True


def _floats(values: Any) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32).reshape(-1)


def _pair(slope: Slope) -> tuple[float, float]:
    return slope if isinstance(slope, tuple) else (slope, 0.0)


def is_frozen(array: Any) -> bool:
    """Return whether nobody can write to an array any more: not through it, nor through what it is a view of."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None
