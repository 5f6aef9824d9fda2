"""Networks as a row of layers that know where each resolution ends, so that feature maps can be taken there.

``Pyramid`` is such a row as one module; ``Trunk`` is a network whose children are the row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError
from convoxel.files.fault import brief
from convoxel.models.backbone import Backbone, Window


class Levels:
    """At which layer of a row each stride ends, and with how many channels."""

    def __init__(self) -> None:
        self.stride = 1
        self._ends: dict[int, tuple[str, int]] = {}

    def add(self, name: str, channels: int, stride: int) -> None:
        """Note that layer ``name`` comes next, with ``channels``, at ``stride`` times the stride so far."""
        stride *= self.stride
        self._ends[stride] = (name, channels)
        self.stride = stride

    @property
    def names(self) -> tuple[str, ...]:
        """The last layer at each stride."""
        return tuple(name for name, _ in self._ends.values())

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides, finest first."""
        return tuple(self._ends)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels at the end of each stride."""
        return tuple(channels for _, channels in self._ends.values())


class Pyramid(nn.Sequential):
    """Layers in a row that return the last value at each stride, finest first.

    State-dict names are those of ``nn.Sequential`` with the same layers.

    >>> import torch
    >>> net = Pyramid()
    >>> net.add(nn.Conv1d(1, 4, 3, padding=1), 4)
    >>> net.add(nn.MaxPool1d(2), 4, stride=2)
    >>> [tuple(x.shape) for x in net(torch.zeros(1, 1, 8))], net.levels.strides
    ([(1, 4, 8), (1, 4, 4)], (1, 2))
    """

    def __init__(self) -> None:
        super().__init__()
        self.levels = Levels()

    def add(self, layer: nn.Module, channels: int, stride: int = 1, name: str | None = None) -> None:
        """Append ``layer``, which returns ``channels`` at ``stride`` times the stride so far."""
        key = str(len(self)) if name is None else name
        if not key or "." in key:
            raise ConfigError(f"name is {brief(key)}, but a layer's name is a text without dots. Give another.")
        self.levels.add(key, channels, stride)
        self.add_module(key, layer)

    def __getitem__(self, index: slice | int) -> nn.Module:
        """Return a layer, or the layers of a slice as a plain ``nn.Sequential``."""
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the last value at each stride."""
        ends = self.levels.names
        found = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in ends:
                found.append(x)
        return found


class Trunk(Backbone):
    """A network whose layers up to the head are its own children, run in the order of :meth:`append`.

    Its head is ``avgpool``, perhaps ``dropout``, and ``fc``.
    """

    dropout: nn.Module | None = None
    fc: nn.Module

    def __init__(
        self, dims: int, in_channels: int, num_classes: int, features_only: bool = False, windows: Sequence[Window] = ()
    ) -> None:
        super().__init__(dims, in_channels, num_classes, features_only, windows)
        self.levels = Levels()
        self._row: list[str] = []

    def append(self, name: str, layer: nn.Module, channels: int, stride: int = 1) -> None:
        """Add ``layer`` as the child ``name``; it returns ``channels`` at ``stride`` times the stride so far."""
        self.add_module(name, layer)
        self._row.append(name)
        self.levels.add(name, channels, stride)
        self.feature_strides, self.feature_channels = self.levels.strides, self.levels.channels

    def collect(self, x: Tensor, wanted: Collection[str]) -> list[Tensor]:
        """Run the row on ``x`` and return what the layers ``wanted`` give, in the order of the row."""
        found = []
        for name in self._row:
            x = getattr(self, name)(x)
            if name in wanted:
                found.append(x)
        return found

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the last feature map at each of ``feature_strides``."""
        return self.collect(x, self.levels.names)

    def classify(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)`` from the last feature map."""
        values = torch.flatten(self.avgpool(x), 1)
        logits: Tensor = self.fc(values if self.dropout is None else self.dropout(values))
        return logits
