"""Networks as functions of NumPy arrays, on PyTorch or on our engine, and the layout and size of what they take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel.predict.precision import autocast

__all__ = ["Array", "Call", "arrange", "arrange_images", "compiled_call", "resize", "torch_call"]

Array = NDArray[np.float32]
Call = Callable[[Array], Array]

_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def arrange(model: nn.Module, dims: int) -> nn.Module:
    """Return the model with weights channels last, in which CPU convolutions train 1.3 … 2 × faster."""
    if dims in _LAYOUTS:
        model.to(memory_format=_LAYOUTS[dims])  # type: ignore[call-overload]  # PyTorch's stub lacks it
    return model


def arrange_images(images: torch.Tensor) -> torch.Tensor:
    """Return a batch (n, channels, *spatial) with channels last in memory."""
    layout = _LAYOUTS.get(images.dim() - 2)
    return images if layout is None else images.contiguous(memory_format=layout)


def torch_call(model: nn.Module, precision: str | None = "float32") -> Call:
    """Return ``model`` as a function (n, channels, *spatial) → logits, computed by PyTorch without gradients."""

    def call(images: Array) -> Array:
        with torch.inference_mode(), autocast(precision):
            logits: torch.Tensor = model(arrange_images(torch.from_numpy(np.ascontiguousarray(images))))
        found: Array = logits.float().contiguous().numpy()
        return found

    return call


def compiled_call(model: nn.Module, shape: tuple[int, ...]) -> Call:
    """Return ``model`` as the same function, compiled for our engine with an example of ``shape``."""
    from convoxel.graph.compile import compile as compile_model

    program = compile_model(model, torch.zeros(shape))

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
