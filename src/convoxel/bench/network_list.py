"""The networks to compare: those of the zoo on inputs of the usual sizes, or any others.

A network is data, down to the name of the function that builds it, so that another process can build it, too.
"""

from __future__ import annotations

import fnmatch
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError
from convoxel.files.values import Options

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """A network and its input.

    Attributes:
        name: name in the list.
        model: name in the zoo; or a function, such as ``package.module:function``, that returns any network.
        channels: channels of the input.
        size: spatial sizes of the input.
        options: options of the zoo's network, beside ``dims`` and ``in_channels``; or all arguments of the function,
            of types that JSON knows.
        quick: whether it belongs to the short list (default False).
        tolerance: ‖y − y₀‖ / ‖y₀‖ beyond which an engine did not compute this network (default 1e-3).
    """

    name: str
    model: str
    channels: int
    size: tuple[int, ...]
    options: Options = field(default_factory=dict)
    quick: bool = False
    tolerance: float = 1e-3

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    def shape(self, batch: int) -> tuple[int, ...]:
        """Return the input's shape: (batch, channels, *size)."""
        return (batch, self.channels, *self.size)

    def build(self) -> nn.Module:
        """Return the network in eval mode, with the same random weights every time."""
        import torch

        from convoxel import models

        torch.manual_seed(0)
        if ":" in self.model:
            module: nn.Module = pkgutil.resolve_name(self.model)(**self.options)
            return module.eval()
        return models.build(self.model, dims=self.dims, in_channels=self.channels, **self.options).eval()

    def __str__(self) -> str:
        sizes = str(self.size[0]) if len(set(self.size)) == 1 else "x".join(map(str, self.size))
        return f"{self.name} {self.dims}-D {self.channels}x{sizes}"


_UNET = {"levels": 4, "width": 32, "num_classes": 1}

NETWORKS = (
    Network("alexnet", "alexnet", 3, (224, 224)),
    Network("vgg16", "vgg16", 3, (224, 224)),
    Network("googlenet", "googlenet", 3, (224, 224)),
    Network("inception_v3", "inception_v3", 3, (299, 299)),
    Network("resnet18", "resnet18", 3, (224, 224), quick=True),
    Network("resnet50", "resnet50", 3, (224, 224), quick=True),
    Network("densenet121", "densenet121", 3, (224, 224)),
    Network("mobilenet_v2", "mobilenet_v2", 3, (224, 224), quick=True),
    Network("efficientnet_b0", "efficientnet_b0", 3, (224, 224)),
    Network("unet2d", "unet", 1, (256, 256), _UNET, quick=True),
    Network("unet3d", "unet", 1, (64, 64, 64), _UNET),
    Network("resnet18_1d", "resnet18", 12, (4096,), quick=True),
    Network("resnet18_3d", "resnet18", 1, (64, 64, 64)),
)


def select_networks(names: Sequence[str] = (), dims: Sequence[int] = (), every: bool = False) -> list[Network]:
    """Return the networks of some names and numbers of axes; without names, the quick ones.

    Args:
        names: patterns with ``*`` and ``?`` (default: all).
        dims: numbers of axes (default: all).
        every: whether to return those that are not quick, too.

    Raises:
        ConfigError: a name that no network has, or nothing is left.

    >>> [network.name for network in select_networks(["unet*"], dims=[3])]
    ['unet3d']
    """
    for name in names:
        if not fnmatch.filter([network.name for network in NETWORKS], name):
            raise ConfigError(
                f"networks: got {name!r}; expected some of {', '.join(network.name for network in NETWORKS)}."
            )
    named = [n for n in NETWORKS if not names or any(fnmatch.fnmatchcase(n.name, name) for name in names)]
    found = [network for network in named if not dims or network.dims in dims]
    if not found:
        has = ", ".join(map(str, sorted({network.dims for network in named})))
        raise ConfigError(f"dims: got {', '.join(map(str, dims))}; these networks have {has}.")
    quick = [network for network in found if network.quick]
    return found if every or names or not quick else quick
