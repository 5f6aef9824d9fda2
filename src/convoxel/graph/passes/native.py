"""The pass that hands operators on arrays to native steps, wherever those compute the same.

A reader that finds no native step for an operator, or does not look for one, adds an ``array.`` node. Here is the one
place that says which of these the engine can do, and on which operands: ``movement`` for those that compute nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import CHANNELS_FIRST, Graph, Node
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import OPERATORS
from convoxel.graph.operators.view import NATIVE_RANKS
from convoxel.graph.passes.movement import MOVEMENTS
from convoxel.graph.passes.rewrite import Rewriter

__all__ = ["clipping", "use_native"]

_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


# ---- element by element ----------------------------------------------------------------------------------


def _plain(kind: str, parameter: str = "") -> Callable[[Rewriter], bool]:
    """Return the rule of an activation whose ``parameter`` is the engine's slope."""

    def rule(site: Rewriter) -> bool:
        return site.activation(kind, float(site.node[parameter]) if parameter else 0.0)

    return rule


def _celu(site: Rewriter) -> bool:
    alpha = float(site.node["alpha"])
    return alpha > 0 and site.activation("celu", alpha)


def _softplus(site: Rewriter) -> bool:
    """softplus(βx) / β; beyond a threshold of 15 or more float32 cannot tell it from x."""
    beta, threshold = float(site.node["beta"]), float(site.node["threshold"])
    if threshold < 15 or beta <= 0:
        return False
    if beta == 1:
        return site.activation("softplus")
    scale, none, back = (site.add(np.array([v]), part) for v, part in
                         ((beta, "scale"), (0.0, "shift"), (1 / beta, "back")))  # fmt: skip
    curved = site.between("affine", site.x.name, scale, none, shape=site.shape, activation="softplus")
    return site.last("affine", curved, back, none)


def _thresholded_relu(site: Rewriter) -> bool:
    """What is not above a bound becomes the bound."""
    bound = float(site.node["alpha"])
    return bound == float(site.node["value"]) and site.activation(*clipping(bound, math.inf))


def _selu(site: Rewriter) -> bool:
    usual = all(math.isclose(site.node[key], number, rel_tol=1e-6) for key, number in _SELU.items())
    return usual and site.activation("selu")


def _gelu(site: Rewriter) -> bool:
    return site.activation("gelu_tanh" if site.node["approximate"] == "tanh" else "gelu")


def _hard_sigmoid(site: Rewriter) -> bool:
    alpha, beta = float(site.node["alpha"]), float(site.node["beta"])
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return site.activation("hard_sigmoid")
    return site.affine(alpha, beta, activation="clip", slope=(0.0, 1.0))


def _swish(site: Rewriter) -> bool:
    return site.node["alpha"] == 1 and site.activation("silu")


def _clip(site: Rewriter) -> bool:
    bounds = []
    for index, usual in ((1, -math.inf), (2, math.inf)):
        array = site.constant(index)
        if site.node.inputs[index] and (array is None or array.size != 1 or np.isnan(array).any()):
            return False
        bounds.append(usual if array is None else float(array.reshape(-1)[0]))
    return site.activation(*clipping(*bounds))


def clipping(low: float, high: float) -> tuple[str, Any]:
    """Return the activation, and its parameter, that cuts numbers off at ``low`` and ``high``."""
    known = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}.get((low, high))
    return (known, 0.0) if known else ("clip", (low, high))


def _prelu(site: Rewriter) -> bool:
    slope = site.constant(1)
    if slope is None:
        return False
    if slope.size == 1:
        return site.activation("leaky_relu", float(slope.reshape(-1)[0]))
    lifted = _lifted(slope, len(site.shape))
    if lifted is None or lifted.shape != (1, site.shape[1], *(1,) * (len(site.shape) - 2)):
        return False
    return site.last("prelu", site.x.name, site.add(lifted.reshape(-1).astype(np.float32), "slope"))


def _lifted(array: NDArray[Any], rank: int) -> NDArray[Any] | None:
    """Return the array with axes of size 1 in front, as many as stretching would add."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim <= rank else None


_SCALINGS: dict[str, Callable[[NDArray[np.float64], bool], tuple[Any, Any] | None]] = {
    "add": lambda number, first: (1.0, number),
    "subtract": lambda number, first: (-1.0, number) if first else (1.0, -number),
    "multiply": lambda number, first: (number, 0.0),
    "divide": lambda number, first: None if first or not np.all(np.isfinite(1 / number)) else (1 / number, 0.0),
}
"""Scale and shift of x ∘ number, or of number ∘ x if the number comes ``first``."""


def _combination(site: Rewriter) -> bool:
    """Two tensors, or a tensor and numbers for its channels."""
    operator, rank = site.node.operator.removeprefix("array."), len(site.shape)
    operands = list(site.node.inputs)
    for index in range(2):
        array = site.constant(index)
        if array is None:
            continue
        lifted = _lifted(array, rank)
        if lifted is None or array.dtype != np.float32:
            return False
        if _scaled(site, operator, lifted, first=index == 0):
            return True
        if lifted.ndim != array.ndim:
            operands[index] = site.add(lifted, "other")
    whole = all(map(site.is_native, operands)) and len({_rank(site, name) for name in operands}) == 1
    return whole and site.last(operator, *operands)


def _scaled(site: Rewriter, operator: str, number: NDArray[Any], first: bool) -> bool:
    """Replace the node by a scaling or a cut-off if ``number`` holds one number for each channel, or one for all."""
    name = site.node.inputs[1 if first else 0]
    per_channel = number.ndim >= 2 and number.size == number.shape[1] == site.shape[1]
    x = site.graph.values.get(name)
    if x is None or x.shape != site.shape or not site.is_native(name) or not (per_channel or number.size == 1):
        return False
    numbers = number.reshape(-1).astype(np.float64)
    if operator in ("maximum", "minimum"):
        if numbers.size != 1 or np.isnan(numbers).any():
            return False
        bound = float(numbers[0])
        kind, slope = clipping(bound, math.inf) if operator == "maximum" else clipping(-math.inf, bound)
        return site.last("activation", name, activation=kind, slope=slope)
    with np.errstate(all="ignore"):
        found = _SCALINGS[operator](numbers, first)
    if found is None:
        return False
    parts = [site.add(np.atleast_1d(np.asarray(v, np.float64)), part)
             for part, v in zip(("scale", "shift"), found, strict=True)]  # fmt: skip
    return site.last("affine", name, *parts)


def _rank(site: Rewriter, name: str) -> int:
    value = site.graph.values.get(name)
    return len(value.shape) if value is not None else site.constants[name].ndim


def _power(site: Rewriter) -> bool:
    exponent = site.constant(1)
    if exponent is None or exponent.size != 1 or exponent.ndim > len(site.shape) or exponent.reshape(-1)[0] != 2:
        return False
    return site.is_native(site.x.name) and site.last("multiply", site.x.name, site.x.name)


def _reciprocal(site: Rewriter) -> bool:
    return site.last("divide", site.add(np.ones((1,) * len(site.shape), np.float32), "one"), site.x.name)


# ---- along axes ------------------------------------------------------------------------------------------


def _reduction(site: Rewriter) -> bool:
    function, axes = site.node.operator.removeprefix("array.reduce_"), tuple(site.node["axes"])
    source = site.x.name
    if 0 in axes or not axes:
        return False
    if function == "min":
        return _smallest(site, axes)
    if function == "sum_square":
        source, function = site.between("multiply", source, source, shape=site.x.shape), "sum"
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(site.x.shape))
    if site.node["keep"]:
        return site.last("reduce", source, function=function, axes=axes)
    whole = site.between("reduce", source, shape=kept, function=function, axes=axes)
    return site.last("array.reshape", whole, shape=site.shape)


def _smallest(site: Rewriter, axes: tuple[int, ...]) -> bool:
    """min x = −max(−x)"""
    turn = site.add(np.array([-1.0]), "turn"), site.add(np.zeros(1), "shift")
    source = site.between("affine", site.x.name, *turn, shape=site.x.shape)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(site.x.shape))
    largest = site.between("reduce", source, shape=kept, function="max", axes=axes)
    if site.node["keep"]:
        return site.last("affine", largest, *turn)
    whole = site.between("affine", largest, *turn, shape=kept)
    return site.last("array.reshape", whole, shape=site.shape)


def _rms_norm(site: Rewriter) -> bool:
    """The layer norm of x beside −x: their mean is 0, and their variance the mean square of x."""
    channels = site.shape[1]
    if len(site.shape) != 2 or site.node["axis"] % 2 != 1 or not isinstance(channels, int):
        return False
    weight = site.constant(1)
    if weight is None and site.node.inputs[1]:
        return False
    turn = site.add(np.array([-1.0]), "turn"), site.add(np.zeros(1), "shift")
    both = (site.shape[0], 2 * channels)
    mirrored = site.between("affine", site.x.name, *turn, shape=site.shape)
    beside = site.between("concat", site.x.name, mirrored, shape=both, axis=1)
    weights = np.ones(channels) if weight is None else weight.reshape(-1)
    scale = site.add(np.concatenate([weights, np.ones(channels)]).astype(np.float32), "weights")
    whole = site.between("channel_norm", beside, scale, "", shape=both, epsilon=float(site.node["epsilon"]))
    return site.last("narrow", whole, axis=1, start=0, stop=channels)


def _adaptive_max_pool(site: Rewriter) -> bool:
    """Windows of equal length, or the whole axis."""
    lengths = []
    for old, new in zip(site.x.shape[2:], site.node["size"], strict=True):
        if new and (isinstance(old, Size) or old % new):
            return False
        lengths.append(old // new if new else 1)
    none = ((0, 0),) * len(lengths)
    window = {"kernel": tuple(lengths), "stride": tuple(lengths), "padding": none, "dilation": (1,) * len(lengths)}
    return site.last("max_pool", site.x.name, **window)


def _softmax(site: Rewriter) -> bool:
    return tuple(site.node["axes"]) == (1,) and site.last("softmax", site.x.name, log=site.node["log"])


def _response_norm(site: Rewriter) -> bool:
    # An even window begins elsewhere in the native step.
    usual = {key: site.node[key] for key in ("size", "alpha", "beta", "bias")}
    fits = usual["size"] % 2 == 1 and usual["alpha"] >= 0 and usual["bias"] > 0
    return fits and site.last("local_response_norm", site.x.name, **usual)


def _layer_norm(site: Rewriter) -> bool:
    rank = len(site.shape)
    weights = [site.constants.get(name) if name else None for name in site.node.inputs[1:]]
    known = all(not name or name in site.constants for name in site.node.inputs[1:])
    if site.node["axis"] % rank != 1 or not known:
        return False
    epsilon = float(site.node["epsilon"])
    if rank == 2:
        return site.last("channel_norm", *site.node.inputs, epsilon=epsilon)
    result = site.x.name
    steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [("normalise", (), {"groups": 1, "epsilon": epsilon})]
    for operator, part, array in zip(("multiply", "add"), ("weight", "bias"), weights, strict=True):
        if array is not None:  # a number for each place, not only for each channel
            steps.append((operator, (site.add(array[None].astype(np.float32), part),), {}))
    for operator, inputs, attributes in steps[:-1]:
        result = site.between(operator, result, *inputs, shape=site.shape, **attributes)
    operator, inputs, attributes = steps[-1]
    return site.last(operator, result, *inputs, **attributes)


def _matmul(site: Rewriter) -> bool:
    weight = site.constant(1)
    if weight is None or weight.ndim != 2 or len(site.x.shape) != 2 or weight.dtype != np.float32:
        return False
    return site.last("dense", site.x.name, site.add(np.ascontiguousarray(weight.T), "weight"))


_RULES: dict[str, Callable[[Rewriter], bool]] = {
    **MOVEMENTS,
    "relu": _plain("relu"),
    "sigmoid": _plain("sigmoid"),
    "tanh": _plain("tanh"),
    "hard_swish": _plain("hard_swish"),
    "leaky_relu": _plain("leaky_relu", "slope"),
    "elu": _plain("elu", "alpha"),
    "mish": _plain("mish"),
    "softplus": _softplus,
    "thresholded_relu": _thresholded_relu,
    "celu": _celu,
    "selu": _selu,
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "swish": _swish,
    "clip": _clip,
    "prelu": _prelu,
    "abs": lambda site: site.activation("leaky_relu", -1.0),
    "negate": lambda site: site.affine(-1.0, 0.0),
    "reciprocal": _reciprocal,
    "power": _power,
    "adaptive_max_pool": _adaptive_max_pool,
    "rms_norm": _rms_norm,
    "softmax": _softmax,
    "local_response_norm": _response_norm,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), _combination),
    **dict.fromkeys(("reduce_mean", "reduce_max", "reduce_min", "reduce_sum", "reduce_sum_square"), _reduction),
}
_TWO_SIDED = {"array.add", "array.subtract", "array.multiply", "array.divide", "array.maximum", "array.minimum"}


def use_native(graph: Graph) -> Graph:
    """Return the graph with operators on arrays replaced by native ones where operands and attributes allow it."""
    if not any(node.operator.startswith("array.") for node in graph.nodes):
        return graph
    constants = dict(graph.constants)
    made: set[str] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        replaced = _replaced(Rewriter(graph, node, constants, made)) or [node]
        nodes += replaced
        made.update(v.name for n in replaced if OPERATORS[n.operator].layout != CHANNELS_FIRST for v in n.outputs)
    return graph.replace(nodes=tuple(nodes), constants=constants)


def _replaced(site: Rewriter) -> list[Node]:
    """Return the nodes that make what the site's node made; none if it must stay."""
    node = site.node
    rule = _RULES.get(node.operator.removeprefix("array.")) if node.operator.startswith("array.") else None
    if rule is None or node.outputs[0].dtype != "float32" or 0 in node.outputs[0].shape or site.needs_all():
        return []
    two_sided = node.operator in _TWO_SIDED
    if not two_sided and (node.inputs[0] not in site.graph.values or not site.is_native(node.inputs[0])):
        return []
    if len(node.outputs[0].shape) not in NATIVE_RANKS and not node.operator.startswith("array.reduce"):
        return []
    before = len(site.constants)
    if rule(site):
        return site.nodes
    for name in list(site.constants)[before:]:  # of a replacement that was not finished
        del site.constants[name]
    return []
