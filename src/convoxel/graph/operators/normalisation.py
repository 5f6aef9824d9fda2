"""Normalisation: by statistics of the training data, the batch, each image, groups of channels, neighbours."""

from __future__ import annotations

import math

import numpy as np

from convoxel.errors import UnsupportedError
from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Ints, wide
from convoxel.graph.operators.operator import EPILOGUE, Shapes, row
from convoxel.graph.operators.reads import Applied, Reads, ReadsRule, over, unchanged
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import check_channels, operand, same
from convoxel.graph.operators.step import Step, copy, refuse
from convoxel.graph.operators.view import joined_batch, row_views
from convoxel.native import View


def _batch_norm_training_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and one mean and variance for each channel."""
    return [operand(shapes, 0), operand(shapes, 3), operand(shapes, 4)]


def _per_channel_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result has the shape of x; there is a weight for each channel."""
    x = operand(shapes, 0)
    for weights in shapes[1:]:
        if weights is not None:
            check_channels(x, weights[0])
    return [x]


def _layer_norm_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and the mean and deviation with the normalised axes at size 1."""
    x = operand(shapes, 0)
    axis = node["axis"] % len(x)
    small = (*x[:axis], *(1,) * (len(x) - axis))
    return [x, small, small]


# ---- native steps


def _lower_batch_normalise(step: Step) -> None:
    """Normalisation by the statistics of the whole batch: its images one behind the other are one long image."""
    joined = joined_batch(step.x, step.out)
    if joined is None:  # a crop
        copy(step.plan, step.x, step.out, f"{step.node.name}.copy")
        joined = joined_batch(step.out, step.out)
    if joined is None:
        raise UnsupportedError("a batch cannot be normalised into a crop of a larger tensor")
    source, target = joined
    _add_step(step, source, target, step.out.shape[4])


def _lower_normalise(step: Step) -> None:
    """Instance, group and layer normalisation with statistics of the input."""
    _add_step(step, step.x, step.out, step.node["groups"] or step.out.shape[4])


def _lower_channel_norm(step: Step) -> None:
    """Layer normalisation over the channels of each position: every position is a sample of its own."""
    for source, target in row_views(step.x, step.out):
        _add_step(step, source, target, 1)


def _add_step(step: Step, source: View, target: View, groups: int) -> None:
    weight, bias = step.vector(1, step.out.shape[4], 1.0), step.vector(2, step.out.shape[4], 0.0)
    epsilon = float(step.node["epsilon"])
    step.plan.normalise(source, target, groups, weight, bias, epsilon, name=step.node.name, **step.epilogue)


def _lower_softmax(step: Step) -> None:
    """Softmax over the channels, or its logarithm."""
    step.plan.softmax(step.x, step.out, step.node["log"], name=step.node.name)


def _lower_local_response_norm(step: Step) -> None:
    """Each number over a power of the mean square of its neighbouring channels."""
    how = {key: float(step.node[key]) for key in ("alpha", "beta", "bias")}
    step.plan.local_response_norm(step.x, step.out, step.node["size"], name=step.node.name, **how)


# ---- on arrays


def _batch_norm_training(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float, momentum: float
) -> tuple[Array, Array, Array]:
    """Return the batch normalised by its own statistics, and the running mean and variance after it."""
    axes = (0, *range(2, x.ndim))
    own_mean, own_variance, kept = np.mean(x, axis=axes), np.var(x, axis=axes), 1 - momentum
    result = _batch_norm(x, weight, bias, own_mean, own_variance, epsilon)
    return result, mean * momentum + own_mean * kept, variance * momentum + own_variance * kept


def _layer_norm(
    x: Array, weight: Array | None, bias: Array | None, axis: int, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return (x − mean) / √(variance + ε) · weight + bias over the axes from ``axis`` on, the mean, and 1 / √(…).

    Ba, Kiros & Hinton 2016, "Layer normalization".
    """
    axes, x = tuple(range(axis % x.ndim, x.ndim)), wide(x)
    mean = np.mean(x, axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(np.square(x - mean), axis=axes, keepdims=True) + x.dtype.type(epsilon))
    result = (x - mean) * inverse
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias), mean, inverse


def _rms_norm(x: Array, weight: Array | None, axis: int, epsilon: float) -> Array:
    """Return x / √(mean square + ε) · weight over the axes from ``axis`` on (Zhang & Sennrich 2019)."""
    axes, x = tuple(range(axis % x.ndim, x.ndim)), wide(x)
    result = x / np.sqrt(np.mean(np.square(x), axis=axes, keepdims=True) + x.dtype.type(epsilon))
    return result if weight is None else result * weight


def _local_response_norm(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    """Return x / (bias + α/size · Σ x²)^β, the sum over ``size`` channels around each (Krizhevsky et al. 2012)."""
    before = (size - 1) // 2
    pairs = [(before, size - 1 - before) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    squares = np.pad(np.square(x), pairs)
    total = sum(squares[:, shift : shift + x.shape[1]] for shift in range(size))
    return x / (bias + alpha / size * total) ** beta


def _lp_normalise(x: Array, axis: int, p: int) -> Array:
    """Return x over its p-norm along an axis; a norm of 0 leaves 0."""
    norm = np.linalg.norm(wide(x), ord=p, axis=axis, keepdims=True)
    return x / np.where(norm == 0, 1, norm)


def _mean_variance_normalise(x: Array, axes: Ints, epsilon: float) -> Array:
    """Return (x − mean) / (standard deviation + ε) along ``axes``."""
    mean = np.mean(x, axis=axes, keepdims=True)
    return (x - mean) / (np.sqrt(np.mean(np.square(x - mean), axis=axes, keepdims=True)) + epsilon)


def _softmax(x: Array, axes: Ints, log: bool) -> Array:
    """Return exp(x) over its sum along ``axes``, or the logarithm of it."""
    shifted = wide(x) - np.max(wide(x), axis=axes, keepdims=True)
    powers = np.exp(shifted)
    total = np.sum(powers, axis=axes, keepdims=True)
    return shifted - np.log(total) if log else powers / total


def _hardmax(x: Array, axes: Ints) -> Array:
    """Return 1 at the first largest element along ``axes``, which are the last ones or one, and 0 elsewhere."""
    order = [axis for axis in range(x.ndim) if axis not in axes] + list(axes)
    moved = x.transpose(order)
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
    ones = np.zeros_like(flat)
    np.put_along_axis(ones, np.argmax(flat, axis=-1)[..., None], 1, axis=-1)
    return ones.reshape(moved.shape).transpose(np.argsort(order))


def _shaped(parameter: Array, rank: int) -> Array:
    """Return one number for each channel in a shape that stretches to a tensor of ``rank`` axes."""
    return parameter.reshape(1, -1, *(1,) * (rank - 2))


def _scaled(x: Array, weight: Array | None, bias: Array | None) -> Array:
    """Return x · weight + bias with one of each for every channel."""
    x = x if weight is None else x * _shaped(weight, x.ndim)
    return x if bias is None else x + _shaped(bias, x.ndim)


def _batch_norm(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array, epsilon: float
) -> Array:
    """Return (x − mean) / √(variance + ε) · weight + bias, one of each for every channel (Ioffe & Szegedy 2015)."""
    deviation = np.sqrt(wide(variance) + variance.dtype.type(epsilon))
    return _scaled((wide(x) - _shaped(mean, x.ndim)) / _shaped(deviation, x.ndim), weight, bias)


def _batch_normalise(x: Array, weight: Array | None, bias: Array | None, epsilon: float, **epilogue: object) -> Array:
    """Return the batch normalised by its own statistics."""
    axes = (0, *range(2, x.ndim))
    return _batch_norm(x, weight, bias, np.mean(x, axis=axes), np.var(x, axis=axes), epsilon)


def _normalise(
    x: Array, weight: Array | None, bias: Array | None, groups: int, epsilon: float, **epilogue: object
) -> Array:
    """Return x normalised by mean and variance of each image's groups of channels (Wu & He 2018)."""
    count = groups or x.shape[1]
    parts = wide(x).reshape(len(x), count, math.prod(x.shape[1:]) // count)
    return _scaled(_layer_norm(parts, None, None, 2, epsilon)[0].reshape(x.shape), weight, bias)


# ---- from arrays to native steps --------------------------------------------------------------------------


def _over_channels(site: Rewriter) -> bool:
    return tuple(site.node["axes"]) == (1,)


def _has_middle(site: Rewriter) -> bool:
    """An even window begins elsewhere in the native step."""
    return site.node["size"] % 2 == 1 and site.node["alpha"] >= 0 and site.node["bias"] > 0


def _native_layer_norm(site: Rewriter) -> bool:
    """Over channels alone, or over all that one image has, with a number for each place."""
    rank, epsilon = len(site.shape), float(site.node["epsilon"])
    known = all(not name or name in site.constants for name in site.node.inputs[1:])
    if site.node["axis"] % rank != 1 or not known:
        return False
    if rank == 2:
        return site.last("channel_norm", *site.node.inputs, epsilon=epsilon)
    result = site.x.name
    steps: list[tuple[str, tuple[str, ...], JsonObject]] = [("normalise", (), {"groups": 1, "epsilon": epsilon})]
    for operator, part, index in (("multiply", "weight", 1), ("add", "bias", 2)):
        array = site.constant(index)
        if array is not None:
            steps.append((operator, (site.add(array[None].astype(np.float32), part),), {}))
    for operator, inputs, attributes in steps[:-1]:
        result = site.between(operator, result, *inputs, shape=site.shape, **attributes)
    operator, inputs, attributes = steps[-1]
    return site.last(operator, result, *inputs, **attributes)


def _native_rms_norm(site: Rewriter) -> bool:
    """The layer norm of x beside −x: their mean is 0, and their variance the mean square of x."""
    channels, weight = site.shape[1], site.constant(1)
    rows = len(site.shape) == 2 and site.node["axis"] % 2 == 1 and isinstance(channels, int)
    if not rows or not isinstance(channels, int) or (weight is None and site.node.inputs[1]):
        return False
    both = (site.shape[0], 2 * channels)
    mirrored = site.between("affine", site.x.name, *site.scaling(-1.0, 0.0), shape=site.shape)
    beside = site.between("concat", site.x.name, mirrored, shape=both, axis=1)
    weights = np.ones(channels) if weight is None else weight.reshape(-1)
    scale = site.add(np.concatenate([weights, np.ones(channels)]).astype(np.float32), "weights")
    whole = site.between("channel_norm", beside, scale, "", shape=both, epsilon=float(site.node["epsilon"]))
    return site.last("slice", whole, starts=(0, 0), stops=(None, channels), steps=(1, 1))


# ---- what is read


def _normalised(first: int | None) -> ReadsRule:
    """Return the rule of statistics over the axes from ``first`` on, or from the node's axis on."""

    def rule(applied: Applied) -> Reads:
        begin = applied.node["axis"] % len(applied.x) if first is None else first
        return over(applied, range(begin, len(applied.x)))

    return rule


def _over_axes(applied: Applied) -> Reads:
    """The axes that the node names."""
    return over(applied, applied.node["axes"])


def _over_axis(applied: Applied) -> Reads:
    """The axis that the node names."""
    return over(applied, [applied.node["axis"]])


def _of_channels(applied: Applied) -> Reads:
    """The channels of a position."""
    return over(applied, [1])


ROWS = (
    row(
        "batch_norm(x, weight?!, bias?!, mean!, variance!; epsilon)",
        _per_channel_shape,
        _batch_norm,
        refuse,  # fold_batch_norm leaves none
        reads=unchanged,
    ),
    row(
        f"batch_normalise(x, weight?!, bias?!; epsilon, {EPILOGUE})",
        _per_channel_shape,
        _batch_normalise,
        _lower_batch_normalise,
        reads=_normalised(2),
    ),
    row(
        f"normalise(x, weight?!, bias?!; groups, epsilon, {EPILOGUE})",
        _per_channel_shape,
        _normalise,
        _lower_normalise,
        fits=Rewriter.has_space,
        reads=_normalised(2),
    ),
    row(
        f"channel_norm(x, weight?!, bias?!; epsilon, {EPILOGUE})",
        _per_channel_shape,
        lower=_lower_channel_norm,
        reads=_of_channels,
    ),
    row(
        "softmax(x; axes, log=False)",
        same,
        _softmax,
        _lower_softmax,
        fits=_over_channels,
        reads=_over_axes,
        stored="float32",
    ),
    row(
        "local_response_norm(x; size, alpha, beta, bias)",
        same,
        _local_response_norm,
        _lower_local_response_norm,
        stored="float32",
        fits=_has_middle,
        reads=_of_channels,
    ),
    row(
        "batch_norm_training(x, weight, bias, mean, variance; epsilon, momentum)",
        _batch_norm_training_shape,
        _batch_norm_training,
        reads=_normalised(2),
    ),
    row(
        "layer_norm(x, weight?, bias?; axis, epsilon)",
        _layer_norm_shape,
        _layer_norm,
        to_native=_native_layer_norm,
        reads=_normalised(None),
    ),
    row("rms_norm(x, weight?; axis, epsilon)", same, _rms_norm, to_native=_native_rms_norm, reads=_normalised(None)),
    row("lp_normalise(x; axis, p)", same, _lp_normalise, reads=_over_axis),
    row("mean_variance_normalise(x; axes, epsilon=1e-9)", same, _mean_variance_normalise, reads=_over_axes),
    row("hardmax(x; axes)", same, _hardmax, reads=_over_axes),
)
