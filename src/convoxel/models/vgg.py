"""VGG: stacks of 3-wide convolutions between poolings (Simonyan & Zisserman 2015, arXiv 1409.1556)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convoxel.models.network import Network, scale_channels
from convoxel.nn import activation, batch_norm, conv, global_average_pool, max_pool, start_weights

__all__ = ["VGG", "course_vgg"]

# Channels of the convolutions of one stage; a 2-wide max pooling stands between stages.
_COURSE = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))


class VGG(Network):
    """3-wide convolutions with batch norm and ReLU, max pooling between stages, global average, linear.

    Needs at least 2^(stages − 1) pixels along each axis, and takes any size above.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        num_classes: int,
        *,
        stages: tuple[tuple[int, ...], ...],
        width: float,
    ) -> None:
        super().__init__(dims, in_channels, num_classes, input_minimum=2 ** (len(stages) - 1))
        layers: list[nn.Module] = []
        inputs = in_channels
        for number, stage in enumerate(stages):
            if number:
                layers.append(max_pool(dims, 2))
            for channels in stage:
                outputs = scale_channels(channels, width)
                layers += [conv(dims, inputs, outputs, 3, padding=1, bias=False), batch_norm(dims, outputs)]
                layers.append(activation("relu"))
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = global_average_pool(dims)
        self.classifier = nn.Linear(inputs, num_classes)
        start_weights(self, linear=(self.classifier,))

    def compute(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)``."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def course_vgg(dims: int = 2, in_channels: int = 3, num_classes: int = 10, *, width: float = 1.0) -> VGG:
    """Return the course's VGG: 64, 64, pool, 128, 128, pool, 3 × 256, pool, 3 × 512, global average, linear.

    Every convolution is 3 wide, padded, without bias, and followed by batch normalisation and ReLU.

    Args:
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of logits.
        width: factor on all channel counts, which are rounded to multiples of 8.

    Returns:
        A module from ``(n, in_channels, *spatial)``, every size at least 8, to logits ``(n, num_classes)``.

    Raises:
        ConfigError: an argument is out of range. The module raises ShapeError for an input that does not fit.

    >>> import torch
    >>> course_vgg(2, in_channels=1, num_classes=10, width=0.125).eval()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    return VGG(dims, in_channels, num_classes, stages=_COURSE, width=width)
