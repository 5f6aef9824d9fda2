"""One layer measured: ours, by the automatic choice and by each algorithm if wanted, in turn with the peers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convoxel import native
from convoxel.bench.clock import interleave, measure_ceilings
from convoxel.bench.comparison import OURS, Comparison, Times
from convoxel.bench.exact import relative_error
from convoxel.bench.layer_list import Layer
from convoxel.bench.peer import prepare_peers
from convoxel.errors import UnsupportedError
from convoxel.native import Convolution, Plan, View
from convoxel.native.plan import Floats


@dataclass(frozen=True, kw_only=True)
class LayerResult(Comparison):
    """One layer, measured.

    Attributes:
        layer: the layer.
        algorithm: algorithm that our engine chose.
        times, peers, ceiling: as of every comparison; ``times`` also has single algorithms.
        l2_error: ‖y − exact‖ / ‖exact‖ at sampled outputs.
        workspace_bytes: scratch memory of all threads together.
        largest_bytes: size of the largest of input, output and packed weights.
    """

    layer: Layer
    algorithm: str
    times: Times
    peers: tuple[str, ...]
    ceiling: float
    l2_error: float
    workspace_bytes: int
    largest_bytes: int

    @property
    def gflop(self) -> float:
        """Billions of multiplications and additions of the direct algorithm."""
        return self.layer.gflop

    @property
    def group(self) -> str:
        """The net that the layer comes from."""
        return self.layer.net

    @property
    def label(self) -> str:
        """The layer without its net."""
        return self.layer.text

    @property
    def workspace_share(self) -> float:
        """Scratch memory by the largest of input, output and packed weights."""
        return self.workspace_bytes / self.largest_bytes

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return {
            "layer": str(self.layer),
            "net": self.layer.net,
            "kind": self.layer.kind,
            "algorithm": self.algorithm,
            **self.timing(),
            "l2_error": self.l2_error,
            "workspace_bytes": self.workspace_bytes,
            "workspace_share": self.workspace_share,
        }


def measure_layer(layer: Layer, threads: int, rounds: int = 9, every_algorithm: bool = False) -> LayerResult:
    """Measure a layer on random data.

    Args:
        layer: the layer.
        threads: number of CPU threads of each engine.
        rounds: timed runs of each contender (default 9).
        every_algorithm: whether to measure all algorithms that support the layer, beside the automatic choice.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, layer.in_channels, *layer.size), np.float32)
    w = rng.standard_normal(layer.weight_shape, np.float32)
    w /= np.float32(layer.fan_in**0.5)
    bias = rng.standard_normal(layer.out_channels, np.float32)
    x_last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y_last = np.empty((1, *layer.out_size, layer.out_channels), np.float32)

    convolution, plan = _plan(layer, w, bias, threads, "auto")
    plan.run([x_last, y_last])
    error = relative_error(layer, x, w, bias, np.moveaxis(y_last, -1, 1))
    (step,) = plan.steps
    plans = {OURS: plan}
    for row in native.algorithms() if every_algorithm else ():
        try:
            plans[row["name"]] = _plan(layer, w, bias, threads, row["name"], row["precision"])[1]
        except UnsupportedError:
            continue
    runs: dict[str, Callable[[], object]] = {
        name: functools.partial(plan.run, [x_last, y_last]) for name, plan in plans.items()
    }
    peers = prepare_peers(layer, x, w, bias, threads)
    ceilings = measure_ceilings(threads)
    times = interleave({**runs, **peers}, rounds)
    return LayerResult(
        layer=layer,
        algorithm=step["algorithm"],
        times=times,
        peers=tuple(peers),
        ceiling=max(ceilings + measure_ceilings(threads)),
        l2_error=error,
        workspace_bytes=plan.workspace_bytes,
        largest_bytes=max(x.nbytes, y_last.nbytes, convolution.packed_bytes),
    )


def find_candidates(layer: Layer, threads: int) -> list[tuple[str, float]]:
    """Return the algorithms that the automatic choice has for a layer and their expected costs, cheapest first.

    >>> from convoxel.bench.layer_list import parse_layer
    >>> "indirect" in dict(find_candidates(parse_layer("resnet18 2 64x56 128 k3 s2"), 1))
    True
    """
    convolution, src, dst = _place(layer, np.zeros(layer.weight_shape, np.float32), None)
    return [each for each in Plan(0, 2, threads).candidates(convolution, src, dst) if math.isfinite(each[1])]


def _plan(
    layer: Layer, w: Floats, bias: Floats, threads: int, algorithm: str, precision: str = "float32"
) -> tuple[Convolution, Plan]:
    convolution, src, dst = _place(layer, w, bias)
    plan = Plan(0, 2, threads, precision=precision)
    plan.convolve(convolution, src, dst, algorithm=algorithm)
    return convolution, plan


def _place(layer: Layer, w: Floats, bias: Floats | None) -> tuple[Convolution, View, View]:
    """Return the layer between buffer 1 and buffer 2, channels last; absent axes have size 1."""

    def axes(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
        d, h, w = (fill,) * (3 - layer.dims) + values
        return d, h, w

    convolution = Convolution(
        w.reshape(*w.shape[:2], *axes(layer.kernel, 1)),
        bias,
        stride=axes(layer.stride, 1),
        padding_low=axes(layer.padding, 0),
        dilation=axes(layer.dilation, 1),
        groups=layer.groups,
        transposed=layer.transposed,
    )
    src = View.dense(1, 0, (1, *axes(layer.size, 1), layer.in_channels))
    dst = View.dense(2, 0, (1, *axes(layer.out_size, 1), layer.out_channels))
    return convolution, src, dst
