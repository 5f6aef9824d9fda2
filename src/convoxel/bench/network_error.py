"""The numerical error of a named network's layers in float32, on random input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convoxel.lookup import find_network


def measure_errors(
    word: str,
    shape: Sequence[int] | None = None,
    options: Mapping[str, object] | None = None,
    *,
    weights: str | Path | None = None,
    on_progress: Callable[[int, int], object] = lambda done, count: None,
) -> dict[str, float]:
    """Return the relative error of each layer by the name of its last step; see :mod:`convoxel.inspect.layer_error`.

    Args:
        word: name, run folder or file, as of :func:`convoxel.lookup.find_network`.
        shape: shape of the input (default: a usual one).
        options: options of a network of the zoo.
        weights: file of weights for a network of the zoo (default: random ones, always the same).
        on_progress: called with the number of steps that are done, and the number of all.
    """
    import torch

    from convoxel.inspect.layer_error import layer_errors

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = find_network(word, () if shape is None else [tuple(shape)], options, weights=True, weights_from=weights)
    held = {} if isinstance(found.source, Path) else found.module.state_dict()
    arrays = {name: value.detach().cpu().numpy() for name, value in held.items()}
    return layer_errors(found.open().record(found.shapes), arrays, on_progress=on_progress)
