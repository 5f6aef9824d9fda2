"""Rules of normalisations: by batches, images, groups of channels, last axes, and neighbouring channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from convoxel.graph.ir.size import Extent, Size, differ
from convoxel.graph.read.onnx.call import Call, Result, Tensor, rank, rule
from convoxel.graph.read.reader import NotNative


@rule("BatchNormalization")
def _batch_norm(call: Call) -> Result:
    x, parameters = call.tensor(0), [call.tensor(index) for index in range(1, 5)]
    _check_parameters(call, x.shape[1], *parameters)
    epsilon = call.get("epsilon", 1e-5)
    if call.get("training_mode", 0) if call.version >= 14 else (call.version < 7 and not call.get("is_test", 0)):
        training = {"epsilon": epsilon, "momentum": call.get("momentum", 0.9)}
        return call.results("batch_norm_training", x, *parameters, dtypes=(None,) * 3, **training)
    return call.add("batch_norm", x, *parameters, epsilon=epsilon)


def _check_parameters(call: Call, count: Any, *parameters: Tensor) -> None:
    """Raise unless there is one number for each of ``count`` channels."""
    for parameter in parameters:
        fits = rank(parameter) == 1 and not differ(parameter.shape[0], count)
        call.require(fits, f"a parameter has shape {list(parameter.shape)}; expected [{count}]")


@rule("InstanceNormalization")
def _instance_norm(call: Call) -> Result:
    return _grouped_norm(call, 0, call.get("epsilon", 1e-5))


@rule("GroupNormalization")
def _group_norm(call: Call) -> Result:
    groups = call.get("num_groups")
    call.require(groups > 0, f"num_groups is {groups}; expected at least 1")
    return _grouped_norm(call, groups, call.get("epsilon", 1e-5))


def _grouped_norm(call: Call, groups: int, epsilon: float) -> Tensor:
    """Normalise each group of channels of each image; 0 groups are as many as channels."""
    x, weight, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    channels = x.shape[1]
    count = groups or channels
    per_group = groups and call.version < 21 and weight.shape[0] != channels  # early sets have one number a group
    _check_parameters(call, count if per_group else channels, weight, bias)
    divides = isinstance(channels, Size) or isinstance(count, Size) or channels % count == 0
    call.require(divides, f"{count} groups do not divide {channels} channels")
    if per_group:
        weight, bias = (_repeated(call, parameter, channels // count) for parameter in (weight, bias))
    return call.add("normalise", x, weight, bias, groups=groups, epsilon=epsilon)


def _repeated(call: Call, parameter: Tensor, times: Extent) -> Tensor:
    """Return one number for each channel of every group."""
    columns = call.add("reshape", parameter, shape=(*parameter.shape, 1))
    return call.add("reshape", call.add("tile", columns, repeats=(1, times)), shape=(parameter.shape[0] * times,))


@rule("LayerNormalization")
def _layer_norm(call: Call) -> Result:
    if call.get("stash_type", 1) != 1:
        raise NotNative("statistics in another type than float32")
    operands, dtypes = (call.tensor(0), call.maybe(1), call.maybe(2)), (None, "float32", "float32")
    how = {"axis": call.get("axis", -1), "epsilon": call.get("epsilon", 1e-5)}
    return call.results("layer_norm", *operands, dtypes=dtypes[: max(len(call.used), 1)], **how)


@rule("RMSNormalization")
def _rms_norm(call: Call) -> Result:
    if call.get("stash_type", 1) != 1:
        raise NotNative("statistics in another type than float32")
    return call.add(
        "rms_norm", call.tensor(0), call.maybe(1), axis=call.get("axis", -1), epsilon=call.get("epsilon", 1e-5)
    )


@rule("LRN")
def _local_response_norm(call: Call) -> Result:
    call.require(call.get("size") > 0, f"size is {call.get('size')}; expected at least 1")
    usual = {"size": None, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    return call.add(
        "local_response_norm", call.tensor(0), **{key: call.get(key, value) for key, value in usual.items()}
    )


@rule("LpNormalization")
def _lp_normalise(call: Call) -> Result:
    x = call.tensor(0)
    return call.add("lp_normalise", x, axis=call.axis(call.get("axis", -1), rank(x)), p=call.get("p", 2))


@rule("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Result:
    return call.add("mean_variance_normalise", call.tensor(0), axes=tuple(call.get("axes", (0, 2, 3))))


@rule("Dropout")
def _dropout(call: Call) -> Result:
    x = call.tensor(0)
    training = call.version >= 12 and call.maybe(2) is not None and bool(call.known(2, "training_mode").reshape(-1)[0])
    if training and (call.maybe(1) is None or float(call.known(1, "ratio").reshape(-1)[0]) != 0):
        raise NotNative("dropout while training")
    if not any(call.used[1:]):
        return x
    shape: Any = tuple(x.shape)
    return [x, call.add("expand", np.array(True), shape=shape)]
