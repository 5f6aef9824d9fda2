"""The sizes of inputs that a PyTorch module takes."""

from __future__ import annotations

from torch import nn

from convoxel.models.slice_network import SliceNetwork
from convoxel.predict.tile_size import InputSizes


def input_sizes(model: nn.Module) -> InputSizes:
    """Return the sizes that ``model`` takes; any size if it does not say."""
    border = tuple(getattr(model, "borders", ()))
    if isinstance(model, SliceNetwork):
        return InputSizes(model.multiples, model.minimums, border)
    multiple, least = (int(getattr(model, name, 1) or 1) for name in ("input_multiple", "input_minimum"))
    return InputSizes(multiple, max(least, multiple), border if any(border) else ())
