"""Normalisation: by statistics of the training data, the batch, each image, groups of channels, neighbours."""

from __future__ import annotations

import numpy as np

from convoxel.errors import UnsupportedError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Ints, wide
from convoxel.graph.operators.operator import (
    EPILOGUE,
    REQUIRED,
    Operator,
    Shapes,
    array_row,
    operands,
)
from convoxel.graph.operators.shape import (
    operand,
    same,
)
from convoxel.graph.operators.step import Step, copy, refuse
from convoxel.graph.operators.view import (
    joined_batch,
    row_views,
)

__all__ = ["ROWS"]


def _batch_norm_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and one mean and variance for each channel."""
    return [operand(shapes, 0), operand(shapes, 3), operand(shapes, 4)]


def _layer_norm_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result, and the mean and deviation with the normalised axes at size 1."""
    x = operand(shapes, 0)
    axis = node["axis"] % len(x)
    small = (*x[:axis], *(1,) * (len(x) - axis))
    return [x, small, small]


# ---- native steps


def _lower_batch_normalise(step: Step) -> None:
    """Normalisation by the statistics of the whole batch: its images one behind the other are one long image."""
    channels, name = step.out.shape[4], step.node.name
    joined = joined_batch(step.x, step.out)
    if joined is None:  # a crop
        copy(step.plan, step.x, step.out, f"{name}.copy")
        joined = joined_batch(step.out, step.out)
    if joined is None:
        raise UnsupportedError("a batch cannot be normalised into a crop of a larger tensor")
    source, target = joined
    weight, bias = step.vector(1, channels, 1.0), step.vector(2, channels, 0.0)
    epsilon = float(step.node["epsilon"])
    step.plan.normalise(source, target, channels, weight, bias, epsilon, name=name, **step.epilogue)


def _lower_normalise(step: Step) -> None:
    """Instance, group and layer normalisation with statistics of the input."""
    channels = step.out.shape[4]
    step.plan.normalise(
        step.x,
        step.out,
        step.node["groups"] or channels,
        step.vector(1, channels, 1.0),
        step.vector(2, channels, 0.0),
        float(step.node["epsilon"]),
        name=step.node.name,
        **step.epilogue,
    )


def _lower_channel_norm(step: Step) -> None:
    """Layer normalisation over the channels of each position: every position is a sample of its own."""
    channels = step.out.shape[4]
    weight, bias = step.vector(1, channels, 1.0), step.vector(2, channels, 0.0)
    for source, target in row_views(step.x, step.out):
        step.plan.normalise(
            source, target, 1, weight, bias, float(step.node["epsilon"]), name=step.node.name, **step.epilogue
        )


def _lower_softmax(step: Step) -> None:
    """Softmax over the channels, or its logarithm."""
    step.plan.softmax(step.x, step.out, step.node["log"], name=step.node.name)


def _lower_local_response_norm(step: Step) -> None:
    """Each number over a power of the mean square of its neighbouring channels."""
    how = {key: float(step.node[key]) for key in ("alpha", "beta", "bias")}
    step.plan.local_response_norm(step.x, step.out, step.node["size"], name=step.node.name, **how)


# ---- on arrays


def _batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float, momentum: float
) -> tuple[Array, Array, Array]:
    """Return the batch normalised by its own statistics, and the running mean and variance after it."""
    axes = (0, *range(2, x.ndim))
    over = (1, -1, *(1,) * (x.ndim - 2))
    own_mean, own_variance = np.mean(x, axis=axes), np.var(x, axis=axes)
    result = (x - own_mean.reshape(over)) / np.sqrt(own_variance.reshape(over) + epsilon)
    result = result * weight.reshape(over) + bias.reshape(over)
    kept = 1 - momentum
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


_NEIGHBOURS = {"size": REQUIRED, "alpha": REQUIRED, "beta": REQUIRED, "bias": REQUIRED}

ROWS = (
    Operator(
        "batch_norm",
        operands("x weight?! bias?! mean! variance!"),
        same,
        {"epsilon": REQUIRED},
        lower=refuse,  # fold_batch_norm leaves none
    ),
    Operator(
        "batch_normalise",
        operands("x weight?! bias?!"),
        same,
        {"epsilon": REQUIRED, **EPILOGUE},
        lower=_lower_batch_normalise,
    ),
    Operator(
        "normalise",
        operands("x weight?! bias?!"),
        same,
        {"groups": REQUIRED, "epsilon": REQUIRED, **EPILOGUE},
        lower=_lower_normalise,
    ),
    Operator(
        "channel_norm",
        operands("x weight?! bias?!"),
        same,
        {"epsilon": REQUIRED, **EPILOGUE},
        lower=_lower_channel_norm,
    ),
    Operator("softmax", operands("x"), same, {"log": False}, lower=_lower_softmax),
    Operator("local_response_norm", operands("x"), same, _NEIGHBOURS, lower=_lower_local_response_norm),
    array_row(
        "batch_norm",
        _batch_norm,
        _batch_norm_shape,
        "x weight bias mean variance",
        epsilon=REQUIRED,
        momentum=REQUIRED,
    ),
    array_row("layer_norm", _layer_norm, _layer_norm_shape, "x weight? bias?", axis=REQUIRED, epsilon=REQUIRED),
    array_row("rms_norm", _rms_norm, same, "x weight?", axis=REQUIRED, epsilon=REQUIRED),
    array_row("local_response_norm", _local_response_norm, **_NEIGHBOURS),
    array_row("lp_normalise", _lp_normalise, axis=REQUIRED, p=REQUIRED),
    array_row("mean_variance_normalise", _mean_variance_normalise, axes=REQUIRED, epsilon=1e-9),
    array_row("softmax", _softmax, axes=REQUIRED, log=False),
    array_row("hardmax", _hardmax, axes=REQUIRED),
)
