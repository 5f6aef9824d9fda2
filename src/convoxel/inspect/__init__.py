"""Analysis of networks that do not run: shapes, costs and receptive fields of every step.

Read in this order:

``step``        one step of a network, as data
``vocabulary``  which operator a PyTorch function is
``meta``        PyTorch functions on shapes alone
``trace``       a PyTorch module becomes steps, run without data
``graph``       an ONNX file or a saved program becomes steps
``sight``       what every step sees of the image
``memory``      what is alive at every step, and what training keeps
``route``       a network along one axis, as a graph that arithmetic solves
``admission``   which input sizes work, and what comes out
``advice``      what a designer should know, in sentences
``summary``     rows and totals as data
``table``       the same, printed
``describe``    the public function: steps become a summary

and of networks that have values:

``shift``          equivariance: does a network commute with shifts?
``influence``      effective receptive fields: what an output really looks at
``superposition``  linearity, and which step breaks it
``factorisation``  a kernel as smaller ones
``rank``           ranks, errors and what separation would save
``upsampler``      ways of up-sampling: overlap, checkerboard, cost
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from convoxel.inspect.describe import describe
from convoxel.inspect.summary import Reach, Row, Summary
from convoxel.inspect.table import COLUMNS
from convoxel.inspect.valid_sizes import ValidSizes

if TYPE_CHECKING:
    from convoxel.inspect.effective_receptive_field import EffectiveField, effective_field
    from convoxel.inspect.linearity_check import Linearity, linearity
    from convoxel.inspect.rank import separability, time_engine
    from convoxel.inspect.shift_equivariance import Equivariance, equivariance
    from convoxel.inspect.upsampler import Upsampling, checkerboard, upsampling

__all__ = [
    "COLUMNS",
    "EffectiveField",
    "Equivariance",
    "Linearity",
    "Reach",
    "Row",
    "Summary",
    "Upsampling",
    "ValidSizes",
    "checkerboard",
    "describe",
    "effective_field",
    "equivariance",
    "linearity",
    "separability",
    "time_engine",
    "upsampling",
]

# What measures needs PyTorch; a description of a file does not.
_LAZY = {
    "EffectiveField": "effective_receptive_field",
    "Equivariance": "shift_equivariance",
    "Linearity": "linearity_check",
    "Upsampling": "upsampler",
    "checkerboard": "upsampler",
    "effective_field": "effective_receptive_field",
    "equivariance": "shift_equivariance",
    "linearity": "linearity_check",
    "separability": "rank",
    "time_engine": "rank",
    "upsampling": "upsampler",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'convoxel.inspect' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"convoxel.inspect.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
