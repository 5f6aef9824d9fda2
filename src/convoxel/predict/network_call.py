"""Networks as functions of NumPy arrays, and the size of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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


def resize(image: Array, size: tuple[int, ...]) -> Array:
    """Return ``image`` (channels, *spatial) linearly resized to ``size``, or itself when it fits already."""
    if image.shape[1:] == tuple(size):
        return image
    import torch  # for images of another size than the network's alone
    from torch.nn.functional import interpolate

    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    resized = interpolate(tensor, size=size, mode=mode, align_corners=False, antialias=len(size) == 2)
    return np.ascontiguousarray(resized[0].numpy())
