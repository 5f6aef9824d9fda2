"""Convoxel: convolutional networks in one, two and three dimensions.

Design them by arithmetic, train them on your images, run them at the full speed of the CPU you have.

>>> import numpy as np, convoxel as cx
>>> x = np.ones((1, 1, 4, 4), np.float32)
>>> cx.conv(x, np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0, 0]
array([4., 6., 6., 4.], dtype=float32)

Names load on first use: ``import convoxel`` imports neither NumPy's nor PyTorch's world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.errors import (
    AccuracyError,
    CheckpointError,
    ConfigError,
    ConvoxelError,
    DataError,
    GraphError,
    ShapeError,
    UnsupportedError,
)
from convoxel.lazy import lazy_names

if TYPE_CHECKING:
    from convoxel import arithmetic, data, draw, inspect, models, nn, search, train
    from convoxel.explorer.notebook import show as show  # for notebooks
    from convoxel.graph.compile import compile
    from convoxel.graph.load import load
    from convoxel.graph.quantise import quantise
    from convoxel.graph.run.program import Program
    from convoxel.lookup import describe
    from convoxel.native import algorithms, build_info, conv, conv_transpose

__version__ = "0.1.0"

__all__ = [
    "AccuracyError",
    "CheckpointError",
    "ConfigError",
    "ConvoxelError",
    "DataError",
    "GraphError",
    "Program",
    "ShapeError",
    "UnsupportedError",
    "algorithms",
    "arithmetic",
    "build_info",
    "compile",
    "conv",
    "conv_transpose",
    "data",
    "describe",
    "draw",
    "inspect",
    "load",
    "models",
    "nn",
    "quantise",
    "search",
    "train",
]


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "convoxel": "arithmetic data draw inspect models native nn search train",
        "convoxel.explorer.notebook": "show",
        "convoxel.graph.compile": "compile",
        "convoxel.graph.load": "load",
        "convoxel.graph.quantise": "quantise",
        "convoxel.graph.run.program": "Program",
        "convoxel.lookup": "describe",
        "convoxel.native": "algorithms build_info conv conv_transpose",
    },
    early=("describe",),  # others compare by themselves, or must be quick
)
