"""Networks as functions of NumPy arrays, and the size of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.operators import index_tables
from convoxel.native.plan import Plan, View
from convoxel.predict.class_shares import shares_of

if TYPE_CHECKING:
    from convoxel.graph.run.program import Program

Array = NDArray[np.float32]
Call = Callable[[Array], Array]


def compiled_call(program: Program) -> Call:
    """Return a compiled network as the same function."""

    def call(images: Array) -> Array:
        found: Array = program(np.ascontiguousarray(images))
        return found

    return call


def shares_call(call: Call, several: bool) -> Call:
    """Return the network that gives shares of classes, as of :func:`class_shares.shares_of`, where ``call`` logits."""
    return lambda images: np.stack([shares_of(logits, several) for logits in call(images)])


def resize(image: Array, size: Sequence[int]) -> Array:
    """Return ``image`` (channels, *spatial) linearly resized to ``size``, or itself when it fits already.

    The positions and weights are those of PyTorch's ``interpolate``. Planes are antialiased: a photograph is mostly
    several times as large as a network's input.
    """
    if image.shape[1:] == tuple(size):
        return image
    mode = "linear_antialiased" if len(size) == 2 else "linear"
    absent = 3 - len(size)
    tables = (index_tables.resize(mode),) * len(size)
    source = np.ascontiguousarray(image, np.float32)
    result = np.empty((len(image), *size), np.float32)
    # Channels are images of one channel here, so that nothing has to be transposed.
    given, wanted = (
        View.dense(buffer, 0, (len(image), *(1,) * absent, *array.shape[1:], 1))
        for buffer, array in ((1, source), (2, result))
    )
    plan = Plan(0, 2)
    plan.resample(given, wanted, (*(index_tables.identity(),) * absent, *tables))
    plan.run([source, result])
    return result
