"""Networks as functions of NumPy arrays, on PyTorch or on our engine, and the size of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel.predict.computation import Computation
from convoxel.predict.device import explain_memory

if TYPE_CHECKING:
    from convoxel.graph.run.program import Program

Array = NDArray[np.float32]
Call = Callable[[Array], Array]


def torch_call(model: nn.Module, computation: Computation | None = None) -> Call:
    """Return ``model`` as a function (n, channels, *spatial) → logits, computed by PyTorch without gradients.

    Args:
        model: network, on the device of ``computation``.
        computation: how it is computed (default: on the CPU, in float32).
    """
    way = computation or Computation()

    def call(images: Array) -> Array:
        def doing() -> str:
            return f"predict: an input of {' × '.join(map(str, images.shape))}"

        def mend() -> str:
            return "Use engine='convoxel', which computes on the CPU, or a smaller network or patch."

        with explain_memory(way.device, doing, mend), torch.inference_mode(), way.settings(), way.autocast():
            logits: torch.Tensor = model(way.move(torch.from_numpy(np.ascontiguousarray(images))))
            found: Array = logits.float().contiguous().cpu().numpy()
        return found

    return call


def compiled(model: nn.Module, shape: tuple[int, ...], precision: str | None = None) -> Program:
    """Return ``model`` compiled for our engine with an example of ``shape``; ``precision`` is as of ``compile``."""
    from convoxel.graph.compile import compile as compile_model

    program: Program = compile_model(model, torch.zeros(shape), precision=precision)
    return program


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
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    resized = nn.functional.interpolate(tensor, size=size, mode=mode, align_corners=False, antialias=len(size) == 2)
    return np.ascontiguousarray(resized[0].numpy())
