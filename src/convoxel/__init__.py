"""Convoxel: convolutional networks in one, two and three dimensions.

Design them by arithmetic, train them on your images, run them at the full speed of the CPU you have.

>>> import numpy as np, convoxel as cx
>>> x = np.ones((1, 1, 4, 4), np.float32)
>>> cx.conv(x, np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0, 0]
array([4., 6., 6., 4.], dtype=float32)

Names load on first use: ``import convoxel`` imports neither NumPy's nor PyTorch's world.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from convoxel import arithmetic, data, draw, inspect, models, native, nn, search, train
    from convoxel.face import describe
    from convoxel.graph.compile import compile
    from convoxel.graph.load import load
    from convoxel.graph.run.program import Program
    from convoxel.native import algorithms, build_info, conv, conv_transpose

__version__ = "0.1.0"

# Where each top-level name lives: a module, or a name within one.
_LAZY = {
    "algorithms": "convoxel.native:algorithms",
    "arithmetic": "convoxel.arithmetic",
    "build_info": "convoxel.native:build_info",
    "compile": "convoxel.graph.compile:compile",
    "conv": "convoxel.native:conv",
    "conv_transpose": "convoxel.native:conv_transpose",
    "data": "convoxel.data",
    "describe": "convoxel.face:describe",
    "draw": "convoxel.draw",
    "inspect": "convoxel.inspect",
    "load": "convoxel.graph.load:load",
    "models": "convoxel.models",
    "native": "convoxel.native",
    "nn": "convoxel.nn",
    "Program": "convoxel.graph.run.program:Program",
    "search": "convoxel.search",
    "train": "convoxel.train",
}

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
    "native",
    "nn",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'convoxel' has no attribute '{name}'")
    module, _, attribute = _LAZY[name].partition(":")
    value = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
