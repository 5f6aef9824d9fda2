"""A factory for the layers of one network, which share number of axes, normalisation and activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from convoxel.nn import activation, conv, norm, sizes_of


class LayerFactory(NamedTuple):
    """Makes a network's layers, so that a block takes one argument where it would take five.

    Attributes:
        dims: number of spatial axes.
        norm: name of the normalisation, a key of ``convoxel.nn.NORMS``; with ``"none"`` it is an identity and
            convolutions have a bias.
        activation: name of the activation, a key of ``convoxel.nn.ACTIVATIONS``.
        eps: added to the variance by the normalisation.
        momentum: share of the newest batch in running statistics.

    >>> LayerFactory(3).unit(8, 16, 3, stride=2)[0].weight.shape
    torch.Size([16, 8, 3, 3, 3])
    """

    dims: int
    norm: str = "batch"
    activation: str = "relu"
    eps: float = 1e-5
    momentum: float = 0.1

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool | None = None,
    ) -> nn.Module:
        """Return a convolution, padded by half its kernel unless told, with a bias only where no norm follows."""
        sizes = sizes_of(self.dims, kernel)
        pads = tuple(size // 2 for size in sizes) if padding is None else padding
        biased = self.norm == "none" if bias is None else bias
        return conv(self.dims, inputs, outputs, sizes, stride=stride, padding=pads, groups=groups, bias=biased)

    def normalise(self, channels: int) -> nn.Module:
        """Return the normalisation, or an identity that keeps the places of its neighbours in state dicts."""
        made = norm(self.norm, self.dims, channels, eps=self.eps, momentum=self.momentum)
        return nn.Identity() if made is None else made

    def activate(self, inplace: bool = True) -> nn.Module:
        """Return the activation; with ``inplace`` it may write over its input."""
        made = activation(self.activation)
        if not inplace and hasattr(made, "inplace"):
            made.inplace = False  # type: ignore[assignment]
        return made

    def unit(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool | None = None,
        active: bool = True,
        names: tuple[str, str, str] = ("0", "1", "2"),
    ) -> nn.Sequential:
        """Return convolution, normalisation and, if ``active``, activation, under ``names`` in state dicts."""
        layers = [
            self.conv(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=bias),
            self.normalise(outputs),
            *([self.activate()] if active else []),
        ]
        return nn.Sequential(OrderedDict(zip(names, layers, strict=False)))
