"""Constraints on kernels: hard ones, restored after every step of the optimiser, and soft ones, added to the loss.

Hard constraints are projections of the weights and not parametrisations. A parametrised layer renames its tensors
(``parametrizations.weight.original``), so that no published weights load, and sends the gradient through the
constraint; a projection leaves names, exports and compiled programs as they are, and the bound holds exactly at
every step, which is what Srivastava et al. 2014 (JMLR 15, §5.1) describe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject
from convoxel.nn.kind import KINDS, Kernel, check_kinds, kernels

# Biases and normalisations are no kernels; locally connected layers are as rare as their kernels are large.
_USUAL = ("conv", "conv_transpose", "linear", "local")


@runtime_checkable
class Constraint(Protocol):
    """A projection of a kernel to the nearest one that is allowed."""

    def project(self, kernel: Kernel) -> None:
        """Change the kernel in place."""


class MaxNorm:
    """Every output unit's weights have a Euclidean norm of at most ``bound``: w ← w · min(1, bound / ‖w‖).

    A unit is one output channel of a convolution (its weights over input channels and kernel positions, for a
    transposed convolution as well), one output of a linear layer, one output position of a locally connected one.

    Args:
        bound: largest norm, above 0.

    Raises:
        ConfigError: ``bound`` is not a number above 0.

    >>> layer = nn.ConvTranspose2d(8, 4, 3)
    >>> _ = constrain(layer, [MaxNorm(0.1)])
    >>> bool((layer.weight.detach().double().square().sum((0, 2, 3)) <= 0.1**2).all())
    True
    """

    def __init__(self, bound: float = 3.0) -> None:
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not 0 < bound < math.inf:
            raise ConfigError(f"max_norm is {bound!r}, but it must be a number above 0, such as 3.0.")
        self.bound = float(bound)

    def project(self, kernel: Kernel) -> None:
        """Scale down the units that are too long."""
        norm = _norm(kernel)
        # Scaled weights are rounded to within eps / 2 of their value, so their norm may come out a little longer
        # than computed: twice eps less keeps it at or under the bound, and projecting twice changes nothing.
        limit = self.bound * (1.0 - 2.0 * torch.finfo(kernel.view.dtype).eps)
        factor = torch.where(norm > self.bound, limit / norm, 1.0)
        kernel.view.mul_(factor.to(kernel.view.dtype))


class UnitNorm:
    """Every output unit's weights have Euclidean norm 1: w ← w / ‖w‖; units of zeros stay zeros.

    >>> layer = nn.Conv1d(8, 4, 3)
    >>> _ = constrain(layer, [UnitNorm()])
    >>> torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.ones(4))
    True
    """

    def project(self, kernel: Kernel) -> None:
        """Scale all units to norm 1."""
        norm = _norm(kernel)
        kernel.view.mul_(torch.where(norm > 0, 1.0 / norm, 1.0).to(kernel.view.dtype))


class NonNegative:
    """No weight is below 0: w ← max(w, 0).

    >>> layer = nn.Linear(8, 4)
    >>> _ = constrain(layer, [NonNegative()])
    >>> bool((layer.weight >= 0).all())
    True
    """

    def project(self, kernel: Kernel) -> None:
        """Set negative weights to 0."""
        kernel.view.clamp_(min=0.0)


def _norm(kernel: Kernel) -> Tensor:
    """Return the norms of the units in float64, so that a bound of float32 weights is met to the last bit."""
    norm: Tensor = torch.linalg.vector_norm(kernel.view, dim=kernel.axes, keepdim=True, dtype=torch.float64)
    return norm


@torch.no_grad()
def constrain(
    model: nn.Module,
    constraints: Sequence[Constraint],
    *,
    kinds: Iterable[str] = _USUAL,
    optimiser: torch.optim.Optimizer | None = None,
) -> RemovableHandle | None:
    """Project the kernels of ``model`` now, and with ``optimiser`` after each of its steps too.

    Constraints are applied in the order given. That of ``[NonNegative(), MaxNorm(3.0)]`` is the projection onto
    both; norms before signs would be more than needed.

    Args:
        model: changed in place; biases and normalisations are left alone.
        constraints: instances of :class:`MaxNorm`, :class:`UnitNorm`, :class:`NonNegative` or your own classes.
        kinds: kinds of layers, keys of ``KINDS``.
        optimiser: optimiser whose steps are each followed by a projection (default None).

    Returns:
        None, or with ``optimiser`` a handle whose ``remove()`` ends the projections.

    Raises:
        ConfigError: a kind is unknown.

    >>> layer = nn.Conv2d(3, 8, 3)
    >>> optimiser = torch.optim.SGD(layer.parameters(), lr=100.0)
    >>> handle = constrain(layer, [MaxNorm(1.0)], optimiser=optimiser)
    >>> layer(torch.ones(1, 3, 8, 8)).sum().backward()
    >>> optimiser.step()
    >>> bool((layer.weight.detach().double().flatten(1).norm(dim=1) <= 1.0).all())
    True
    """
    for kernel in kernels(model, kinds):
        for constraint in constraints:
            constraint.project(kernel)
    if optimiser is None:
        return None

    def project(*step: object) -> None:
        constrain(model, constraints, kinds=kinds)

    return optimiser.register_step_post_hook(project)


def l2_penalty(model: nn.Module, kinds: Iterable[str] | Mapping[str, float] = _USUAL) -> Tensor:
    """Return Σ λ‖K‖² over the kernels of ``model``, to be added to a loss.

    Args:
        model: biases and normalisations do not count.
        kinds: the kinds of layers, keys of ``KINDS``, with λ = 1; or λ for each.

    Returns:
        A tensor without axes, with a gradient; 0 if there are no such layers.

    Raises:
        ConfigError: a kind is unknown, or its λ is negative.

    >>> net = nn.Sequential(nn.Conv2d(1, 1, 2), nn.Linear(3, 1))
    >>> with torch.no_grad(): _ = [layer.weight.fill_(1.0) for layer in net]
    >>> l2_penalty(net).item(), l2_penalty(net, {"conv": 0.5}).item()
    (7.0, 2.0)
    """
    strength = _strengths(kinds)
    parts = [strength[kernel.kind] * kernel.view.square().sum() for kernel in kernels(model, strength)]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def decay_groups(model: nn.Module, kinds: float | Mapping[str, float]) -> list[JsonObject]:
    """Return parameter groups for an optimiser of ``torch.optim`` in which only kernels decay.

    Args:
        model: network whose trainable parameters are grouped.
        kinds: ``weight_decay`` of all kernels, or of each kind of layer (a key of ``KINDS``; others do not decay).

    Returns:
        One dict of ``params`` and ``weight_decay`` for each value of decay, the parameters without decay last.

    Raises:
        ConfigError: a kind is unknown, or its decay is negative.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    >>> [(g["weight_decay"], len(g["params"])) for g in decay_groups(net, {"conv": 1e-4, "linear": 1e-2})]
    [(0.0001, 1), (0.01, 1), (0.0, 4)]
    """
    strength = _strengths(kinds if isinstance(kinds, Mapping) else dict.fromkeys(KINDS, kinds))
    groups: dict[float, list[Tensor]] = {}
    seen: set[int] = set()
    for kernel in kernels(model, strength):
        weight = kernel.layer.weight
        assert isinstance(weight, Tensor)
        if strength[kernel.kind] and weight.requires_grad and id(weight) not in seen:
            groups.setdefault(strength[kernel.kind], []).append(weight)
            seen.add(id(weight))
    rest = (parameter for parameter in model.parameters() if id(parameter) not in seen)
    groups[0.0] = [parameter for parameter in rest if parameter.requires_grad]
    return [{"params": params, "weight_decay": decay} for decay, params in groups.items()]


def _strengths(kinds: Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    check_kinds(kinds)
    if not isinstance(kinds, Mapping):
        return dict.fromkeys(check_kinds(kinds), 1.0)
    for kind, value in kinds.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"kinds has {value!r} for {kind!r}, but it must be a number of at least 0.")
    return {kind: float(value) for kind, value in kinds.items()}
