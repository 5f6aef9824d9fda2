"""PyTorch modules as functions of NumPy arrays, compiled for our engine, and the sizes that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from convoxel.graph.compile import compile as compile_model
from convoxel.models.levels import LevelNetwork
from convoxel.models.slice_network import SliceNetwork
from convoxel.predict.computation import Computation
from convoxel.predict.device import explain_memory
from convoxel.predict.network_call import Array, Call
from convoxel.predict.tile_size import InputSizes

if TYPE_CHECKING:
    from convoxel.graph.run.program import Program


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
    """Return ``model`` compiled for our engine with an example of ``shape``; ``precision`` is as of ``compile``.

    Packed weights are small where that costs hardly any time: an ensemble holds those of all its members.
    """
    program: Program = compile_model(model, torch.zeros(shape), precision=precision)
    return program.compacted(torch.zeros(shape))


def input_sizes(model: nn.Module) -> InputSizes:
    """Return the sizes that ``model`` takes; any size if it does not say."""
    border = tuple(getattr(model, "borders", ()))
    if isinstance(model, SliceNetwork):
        return InputSizes(model.multiples, model.minimums, border)
    if isinstance(model, LevelNetwork) and model.sizes == "check" and len({*model.multiples}) > 1:
        return InputSizes(*model.axis_sizes, border if any(border) else ())
    multiple, least = (int(getattr(model, name, 1) or 1) for name in ("input_multiple", "input_minimum"))
    return InputSizes(multiple, max(least, multiple), border if any(border) else ())
