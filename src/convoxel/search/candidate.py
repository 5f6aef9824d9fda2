"""One network of a search and its costs, counted without computing anything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from convoxel.graph.read.functions import shapes_only
from convoxel.inspect import describe
from convoxel.models import build
from convoxel.search.space import SIZE, Options, check_shape

_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network and its costs for one input.

    Attributes:
        network: a name of the zoo.
        options: options that a search varied, or a rule scaled.
        fixed: options that all networks of the search share.
        shape: the input (n, channels, *spatial) that the figures are for.
        params: parameters.
        macs: multiply-accumulates.
        memory_bytes: memory of a run: live activations at their peak, and weights, in float32.
        field: receptive field by axis; empty if unknown.
        time_s: seconds of one run on our engine; None if not measured.
        quality: accuracy or Dice on labelled data; None if not trained.
    """

    network: str
    options: Options
    fixed: Options
    shape: tuple[int, ...]
    params: int
    macs: int
    memory_bytes: int
    field: tuple[int, ...]
    time_s: float | None = None
    quality: float | None = None

    @property
    def name(self) -> str:
        """The options as text; the network's name where there are none."""
        return " ".join(f"{key}={value}" for key, value in self.options.items()) or self.network

    @property
    def reach(self) -> int:
        """The receptive field along the axis where it is smallest; 0 if unknown."""
        return min(self.field, default=0)

    @property
    def costs(self) -> tuple[int, int, int, tuple[int, ...]]:
        """All counts: networks that agree in all of them are the same network under two names."""
        return (self.params, self.macs, self.memory_bytes, self.field)

    def build(self) -> nn.Module:
        """Return the network with fresh weights, in eval mode."""
        return _build(self.network, self.shape, {**self.fixed, **self.options}).eval()

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return {**dataclasses.asdict(self), "name": self.name}


def measure(network: str, shape: tuple[int, ...], options: Options, fixed: Options | None = None) -> Candidate:
    """Return a network of the zoo with its costs; it is built and run on shapes alone, as ``describe`` does.

    Args:
        network: a name of ``convoxel.models.names()``.
        shape: input (n, channels, *spatial).
        options: options of the network; ``size`` replaces the spatial sizes.
        fixed: further options.

    Raises:
        ConfigError: an option is not known or out of range.
        ShapeError: the network does not accept the input.

    >>> measure("mobilenet_v1", (1, 3, 224, 224), {"width": 0.5}).params
    1331592
    """
    given, shape = {**(fixed or {}), **options}, check_shape(shape)
    if SIZE in given:
        shape = (*shape[:2], *(given[SIZE],) * (len(shape) - 2))
    with torch.device("meta"), shapes_only():
        module = _build(network, shape, given)
    summary = describe(module, shape)
    return Candidate(
        network=network,
        options=dict(options),
        fixed=dict(fixed or {}),
        shape=shape,
        params=summary.params,
        macs=summary.macs,
        memory_bytes=summary.peak_bytes + _FLOAT_BYTES * summary.params,
        field=summary.field.size if summary.field else (),
    )


def _build(network: str, shape: tuple[int, ...], options: Options) -> nn.Module:
    known = {key: value for key, value in options.items() if key != SIZE}
    return build(network, len(shape) - 2, shape[1], **known)
