"""Calls of a PyTorch module, or of a function of a tensor, that leave its state as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convoxel.errors import ConfigError


@contextlib.contextmanager
def evaluating(model: nn.Module | Callable[..., Any]) -> Iterator[None]:
    """Put every module of ``model`` into eval mode within the block; a plain function has none."""
    modes = [(child, child.training) for child in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for child, _ in modes:
            child.training = False
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def given_tensor(x: ArrayLike | Tensor) -> Tensor:
    """Return what a caller gave as a tensor; PyTorch does not take all numbers of NumPy, but arrays without axes."""
    return torch.as_tensor(np.asarray(x) if isinstance(x, np.generic) else x)


def tensor_of(caller: str, value: Any) -> Tensor:
    """Return what a model returned, in floating point; ConfigError, named by ``caller``, if it is no tensor."""
    if not isinstance(value, torch.Tensor):
        raise ConfigError(
            f"{caller}: the model returned a {type(value).__name__}, expected a tensor. "
            "Wrap it to return one of its outputs."
        )
    return value if value.is_floating_point() else value.float()
