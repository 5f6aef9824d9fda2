"""AlexNet: five convolutions and three linear layers, in the form with one column.

Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks", §3.5;
the single column and its channel counts are those of Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks" (arXiv 1404.5997), §5, without local response normalisation. Input 3 × 224 × 224,
1000 classes, 61 100 840 parameters, 714 188 480 multiply-accumulates.

State-dict names and shapes in 2-D are those of torchvision.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Backbone, Published, Window, check_count, check_stem, scale_channels
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Pyramid
from convoxel.nn import adaptive_average_pool, max_pool, start_network
from convoxel.nn.torch_layers import CONV


class Variant(NamedTuple):
    """The numbers of the network: channels of the convolutions and of the hidden linear layers."""

    channels: tuple[int, int, int, int, int]
    hidden: int
    published: Published


VARIANTS = {"alexnet": Variant((64, 192, 384, 256, 256), 4096, Published(224, 61_100_840, 714_188_480, 195, 56.522))}

# Kernel, stride and padding of the first convolution, and whether a pooling follows it.
_STEMS = {"image": (Window(11, 4, 2), True), "small": (Window(3, 1, 1), False)}
_POOL = Window(3, 2)
_GRID = 6


class AlexNet(Backbone):
    """AlexNet: five convolutions, max pooling after the first, second and fifth, a grid average, three linear layers.

    Weights start as in the paper (2012, §5): N(0, 0.01²), with biases 1 in some layers and 0 elsewhere.

    Args:
        name: ``"alexnet"``.
        norm: name of the normalisation, a key of ``convoxel.nn.NORMS``, after every convolution.
        stem: ``"image"`` (11-wide with stride 4 and a pooling) or ``"small"`` (3-wide with stride 1, no pooling).
        grid: positions along each axis that the classifier sees; 6 in 3-D makes 217 million parameters.
        features_only: build no head and return the feature maps at strides 4, 8, 16 and 32.

    Takes ``(n, in_channels, *spatial)``, every size at least 63 (``"small"``: 7).
    Returns logits ``(n, num_classes)``.

    >>> net = AlexNet(dims=1, in_channels=1, width=0.125, features_only=True)
    >>> net.feature_strides, net.feature_channels, net.input_minimum
    ((4, 8, 16, 32), (8, 24, 32, 32), 63)
    """

    features: Pyramid
    classifier: nn.Sequential

    def __init__(
        self,
        name: str = "alexnet",
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        activation: str = "relu",
        norm: str = "none",
        stem: str = "image",
        dropout: float = 0.5,
        grid: int = 6,
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        check_count("grid", grid)
        window, pooled = _STEMS[check_stem(stem)]
        super().__init__(dims, in_channels, num_classes, features_only, [window, *[_POOL] * (2 + pooled)])
        factory = LayerFactory(dims, norm, activation)
        channels = [scale_channels(count, width) for count in variant.channels]
        kernels = [window, Window(5, 1, 2), *[Window(3, 1, 1)] * 3]
        body = Pyramid()
        inputs = in_channels
        for number, (outputs, (kernel, stride, padding, _)) in enumerate(zip(channels, kernels, strict=True)):
            body.add(factory.conv(inputs, outputs, kernel, stride=stride, padding=padding, bias=True), outputs, stride)
            if norm != "none":
                body.add(factory.normalise(outputs), outputs)
            body.add(factory.activate(), outputs)
            if (number == 0 and pooled) or number in (1, 4):
                body.add(max_pool(dims, _POOL.kernel, stride=_POOL.stride), outputs, _POOL.stride)
            inputs = outputs
        self.features = body
        self.feature_strides, self.feature_channels = body.levels.strides, body.levels.channels
        if not features_only:
            hidden = scale_channels(variant.hidden, width)
            self.avgpool = adaptive_average_pool(dims, grid)
            self.classifier = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(inputs * grid**dims, hidden),
                factory.activate(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                factory.activate(),
                nn.Linear(hidden, num_classes),
            )
        _start(self)


def _start(net: AlexNet) -> None:
    """Draw the weights of Krizhevsky et al. 2012, §5: N(0, 0.01²); biases are 1 in the layers named there, else 0."""
    start_network(net, conv=0.01, linear=0.01)
    convolutions = [layer for layer in net.features if isinstance(layer, CONV)]
    hidden = [] if net.features_only else [net.classifier[1], net.classifier[4]]
    for layer in (convolutions[1], convolutions[3], convolutions[4], *hidden):
        assert isinstance(layer.bias, Tensor)
        nn.init.ones_(layer.bias)
