"""A program against its PyTorch model on random input.

The reference is the model in float64 where that is affordable, else in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from convoxel.errors import AccuracyError
from convoxel.files.values import Array
from convoxel.graph.read.torch.results import opened
from convoxel.graph.run.accuracy import Verification, compare_results, error_growth
from convoxel.graph.run.program import Program
from convoxel.graph.run.step_table import ProfileRow

_MOST_MACS = 2.5e10  # about five seconds in float64
_MOST_COLUMNS = 2**27  # numbers; PyTorch lays every window out in memory for a convolution in float64


def check_program(
    program: Program, model: torch.nn.Module | torch.export.ExportedProgram, examples: Sequence[torch.Tensor]
) -> Verification:
    """Return ``verify_program`` if it passed.

    Raises:
        AccuracyError: the program's error is outside the tolerance; the message names both.
    """
    found = verify_program(program, model, examples)
    if not found.passed:
        raise AccuracyError(
            f"compile: the program and the model differ on random input of shape "
            f"{', '.join(str(tuple(x.shape)) for x in examples)}: {found}. "
            'Rounding does not explain this: try algorithm="direct", run the model itself, and report the network.'
        )
    return found


class _Evaluated(torch.nn.Module):
    """A recorded model as a module of tensors, in the order in which a program takes them."""

    def __init__(self, recorded: torch.export.ExportedProgram) -> None:
        super().__init__()
        self._call = recorded.module().__call__  # no part of this module: it refuses the switch to evaluation
        self._leaves, self._spec = tree_flatten(recorded.example_inputs)

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return self._call(*args, **kwargs)


def verify_program(
    program: Program, model: torch.nn.Module | torch.export.ExportedProgram, examples: Sequence[torch.Tensor]
) -> Verification:
    """Return how far ``program`` is from ``model`` on random numbers.

    Args:
        program: what ``compile`` returned for ``model``.
        model: a ``torch.nn.Module``, evaluated in evaluation mode and left as it was; or an exported one.
        examples: tensors with the shapes of the inputs; only the values of whole numbers matter.
    """
    if not isinstance(model, torch.nn.Module):
        model = _Evaluated(model)
    generator = torch.Generator().manual_seed(0)
    # Whole numbers are indices, of which only the example's are known to exist.
    inputs = [torch.randn(x.shape, generator=generator) if x.is_floating_point() else x for x in examples]
    rows = program.profile(*inputs)
    ours = _leaves(program(*inputs))
    source = _evaluate(model, inputs)
    exact = _exact(model, inputs) if _affordable(rows) else None
    growth = error_growth(rows, program.graph.constants, {node.name: node.inputs for node in program.graph.nodes})
    return compare_results(ours, source, exact, rows, growth)


def _affordable(rows: Sequence[ProfileRow]) -> bool:
    """Return True if PyTorch computes the network in float64 within seconds and without gigabytes."""
    columns = max((row["macs"] / row["shape"][1] for row in rows if row["macs"]), default=0)
    return bool(sum(row["macs"] for row in rows) <= _MOST_MACS and columns <= _MOST_COLUMNS)


def _evaluate(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[Array]:
    """Return the results of ``model`` in evaluation mode, every module back in its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            return _leaves(model(*inputs))
    finally:
        for module in training:
            module.training = True


def _exact(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[Array] | None:
    """Return the results in float64, None if the model insists on float32 somewhere."""
    try:
        results = _evaluate(copy.deepcopy(model).double(), [x.double() if x.is_floating_point() else x for x in inputs])
    except (RuntimeError, TypeError, ValueError):  # a constant or cast of its own meets float64
        return None
    return None if any(y.dtype == np.float32 for y in results) else results


def _leaves(results: object) -> list[Array]:
    return [leaf.detach().numpy() for leaf in tree_leaves(opened(results)) if isinstance(leaf, torch.Tensor)]
