"""Analysis of networks that do not run: shapes, costs and receptive fields of every step.

Read in this order:

``record``           a graph as read: the one record of modules, files and programs
``receptive_field``  the part of the image that every value sees
``feature_map``      the results whose positions are places of the image
``memory``           memory in use at every step, and memory that training keeps
``axis_graph``       a network along one axis, as a graph that arithmetic solves
``valid_sizes``      input sizes that work, and the output sizes
``advice``           warnings for designers, in sentences
``row``, ``summary`` rows and totals as data
``table``            the same, printed
``describe``         the public function: a record becomes a summary

and of networks that have values:

``model_call``                 calls that leave a module as it was
``shift_equivariance``         equivariance of a network under translation
``effective_receptive_field``  the inputs that an output really depends on
``linearity_check``            linearity, and which step breaks it
``factorisation``              a kernel as smaller ones
``rank``                       ranks, errors and savings of separation
``upsampler``                  ways of up-sampling: overlap, checkerboard, cost
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.face import open_face
from convoxel.inspect.describe import describe
from convoxel.inspect.row import Reach, Row
from convoxel.inspect.summary import Summary
from convoxel.inspect.table import COLUMNS
from convoxel.inspect.valid_sizes import ValidSizes
from convoxel.lazy import lazy_names

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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "convoxel.inspect.effective_receptive_field": "EffectiveField effective_field",
        "convoxel.inspect.linearity_check": "Linearity linearity",
        "convoxel.inspect.rank": "separability time_engine",
        "convoxel.inspect.shift_equivariance": "Equivariance equivariance",
        "convoxel.inspect.upsampler": "Upsampling checkerboard upsampling",
    },
    early=True,
)

open_face(__name__, early=True)
