"""Layers on levels: whole numbers of 8 bits, with sums that are exact in 32 bits, and the changes to and from them.

A value of type ``uint8`` that a native step makes holds levels; ``native.integer`` says how they lie in memory. Level q
is (q − zero) · scale; an attribute names both as a pair. Weights are whole numbers, each output channel's in units of
its ``weight_scale``. Passes make these nodes; no reader does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.convolution import (
    convolution_macs,
    convolution_shape,
    part_of_convolution,
    part_of_transposed,
    transposed_convolution_shape,
    transposed_macs,
)
from convoxel.graph.operators.linear import linear_macs, linear_shape, part_of_linear
from convoxel.graph.operators.operator import EPILOGUE, Shapes, row
from convoxel.graph.operators.reads import unchanged, unknown
from convoxel.graph.operators.shape import same
from convoxel.graph.operators.step import Padding, Step, bias, own_padding, padded_layer
from convoxel.graph.operators.view import spatial
from convoxel.native.integer import QuantisedConvolution

_WEIGHT_SCALE = 4  # the operand's place


def _without_scale(shapes: Shapes) -> Shapes:
    """Return the operands' shapes as a layer of floats has them."""
    return [*shapes[:_WEIGHT_SCALE], None]


def _convolution_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """As of a convolution of floats."""
    return convolution_shape(node, _without_scale(shapes))


def _transposed_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """As of a transposed convolution of floats."""
    return transposed_convolution_shape(node, _without_scale(shapes))


def _linear_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """As of a linear layer of floats."""
    return linear_shape(node, _without_scale(shapes))


def _scales(step: Step) -> NDArray[np.float32]:
    """Return what a sum of each output channel is multiplied by: the scale of the levels times that of the weights."""
    scale = step.constants[_WEIGHT_SCALE]
    assert scale is not None
    return (step.node["levels"][0] * scale.astype(np.float64)).astype(np.float32)


def _weights(step: Step) -> NDArray[np.generic]:
    weight = step.constants[1]
    assert weight is not None
    return weight


def _convolve(step: Step, layer: QuantisedConvolution) -> None:
    node = step.node
    step.plan.convolve_quantised(
        layer,
        step.x,
        step.out,
        residual=step.inputs[3],
        result=node["result_levels"] or None,
        residual_levels=node["residual_levels"] or None,
        padding_low=own_padding(node) if step.choice else None,
        name=node.name,
        **step.epilogue,
    )


def _lower_convolution(step: Step) -> None:
    """Convolution of levels with its bias, residual and activation, transposed or not."""
    node, weight = step.node, _weights(step)
    padding = step.choice.padding if step.choice else own_padding(node)

    def make(padding: Padding) -> QuantisedConvolution:
        return QuantisedConvolution(
            weight.reshape(*weight.shape[:2], *spatial(weight.shape[2:], 1)),
            _scales(step),
            bias(step),
            zero=node["levels"][1],
            stride=spatial(node["stride"], 1),
            padding_low=padding,
            dilation=spatial(node["dilation"], 1),
            groups=node["groups"],
            transposed="output_padding" in node.attributes,
        )

    _convolve(step, padded_layer(step.kernels, node.name, padding, make))


def _lower_linear(step: Step) -> None:
    """A linear layer of levels is a convolution whose kernel is as large as its input."""
    weight, (_, *size, _) = _weights(step), step.x.shape

    def make() -> QuantisedConvolution:
        columns = weight.reshape(len(weight), -1, *size)
        return QuantisedConvolution(columns, _scales(step), bias(step), zero=step.node["levels"][1])

    _convolve(step, step.kernels.get((step.node.name, tuple(size)), make))


def _lower_to_levels(step: Step) -> None:
    step.plan.quantise(step.x, step.out, step.node["levels"], name=step.node.name)


def _lower_from_levels(step: Step) -> None:
    step.plan.dequantise(step.x, step.out, step.node["levels"], name=step.node.name)


_OPERANDS = "x, weight!, bias?!, residual?, weight_scale!"
_LEVELS = f"levels, result_levels=(), residual_levels=(), {EPILOGUE}"
_PLACES = "stride, padding, dilation, groups=1"
_fused = unknown("whole numbers of 8 bits")

ROWS = (
    row("to_levels(x; levels)", same, lower=_lower_to_levels, reads=unchanged, stored="float32"),
    row("from_levels(x; levels)", same, lower=_lower_from_levels, reads=unchanged, stored="float32"),
    row(
        f"quantised_convolution({_OPERANDS}; {_PLACES}, {_LEVELS})",
        _convolution_shape,
        lower=_lower_convolution,
        macs=convolution_macs,
        reads=_fused,
        restrict=part_of_convolution,
        stored="float32",
    ),
    row(
        f"quantised_transposed_convolution({_OPERANDS}; {_PLACES}, output_padding, {_LEVELS})",
        _transposed_shape,
        lower=_lower_convolution,
        macs=transposed_macs,
        reads=_fused,
        restrict=part_of_transposed,
        stored="float32",
    ),
    row(
        f"quantised_linear({_OPERANDS}; flatten=False, {_LEVELS})",
        _linear_shape,
        lower=_lower_linear,
        macs=linear_macs,
        reads=_fused,
        restrict=part_of_linear,
        stored="float32",
    ),
)
