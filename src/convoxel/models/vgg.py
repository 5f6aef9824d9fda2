"""VGG: stacks of 3-wide convolutions between poolings.

Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition" (arXiv
1409.1556), Table 1, columns A, B, D and E. Input 3 × 224 × 224, 1000 classes; parameters and
multiply-accumulates of each network are in ``VARIANTS``. The networks called ``_bn`` normalise after every
convolution, which the paper predates.

State-dict names and shapes in 2-D are those of torchvision.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Backbone, Published, Window, check_count, check_stem, scale_channels, scale_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Pyramid
from convoxel.nn import adaptive_average_pool, max_pool, start_weights


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ.

    Attributes:
        blocks: convolutions of each stage.
        published: figures of the published network.
        norm: normalisation after each convolution.
        channels: channels of each stage.
        hidden: widths of the linear layers before the last.
        grid: positions along each axis that the classifier sees.
        bias: whether convolutions have a bias although a normalisation follows.
        last_pool: whether a pooling follows the last stage.
    """

    blocks: tuple[int, ...]
    published: Published
    norm: str = "none"
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, ...] = (4096, 4096)
    grid: int = 7
    bias: bool = True
    last_pool: bool = True


_A, _B, _D, _E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

VARIANTS = {
    # The network of the course: no hidden linear layers, no bias that a normalisation would subtract again.
    "course_vgg": Variant(
        (2, 2, 3, 3),
        Published(224, 7_643_082, 13_959_369_728, 92),
        "batch",
        channels=(64, 128, 256, 512),
        hidden=(),
        grid=1,
        bias=False,
        last_pool=False,
    ),
    "vgg11": Variant(_A, Published(224, 132_863_336, 7_609_090_048, 150, 69.02)),
    "vgg11_bn": Variant(_A, Published(224, 132_868_840, 7_609_090_048, 150, 70.37), "batch"),
    "vgg13": Variant(_B, Published(224, 133_047_848, 11_308_466_176, 156, 69.928)),
    "vgg13_bn": Variant(_B, Published(224, 133_053_736, 11_308_466_176, 156, 71.586), "batch"),
    "vgg16": Variant(_D, Published(224, 138_357_544, 15_470_264_320, 212, 71.592)),
    "vgg16_bn": Variant(_D, Published(224, 138_365_992, 15_470_264_320, 212, 73.36), "batch"),
    "vgg19": Variant(_E, Published(224, 143_667_240, 19_632_062_464, 268, 72.376)),
    "vgg19_bn": Variant(_E, Published(224, 143_678_248, 19_632_062_464, 268, 74.218), "batch"),
}

_POOL = Window(2, 2)


class VGG(Backbone):
    """A VGG network: stages of 3-wide convolutions with max pooling between them, a grid average, linear layers.

    Weights start at N(0, 2 / fan-in) and biases at 0 (He et al. 2015, arXiv 1502.01852, eq. 10, derived for these
    networks). The paper itself copied the first and last layers from trained shallower networks.

    Args:
        name: ``"vgg11"``, 13, 16 or 19, or one of these with ``"_bn"``.
        depth: factor on the number of convolutions of each stage, rounded up.
        norm: name of the normalisation, a key of ``convoxel.nn.NORMS``; None: ``"batch"`` for the names with
            ``_bn``, else ``"none"``.
        stem: ``"image"``, or ``"small"``: without the first pooling, and the classifier sees one position.
        grid: positions along each axis that the classifier sees; None: 7, or 1 with the small stem. 7 in 3-D
            makes 720 million parameters.
        features_only: build no head and return the feature maps at strides 1, 2, 4, 8, 16 and 32.

    Takes ``(n, in_channels, *spatial)``, every size at least 32 (``"small"``: 16).
    Returns logits ``(n, num_classes)``.

    >>> net = VGG("vgg11", 3, in_channels=1, width=0.125, stem="small", num_classes=2)
    >>> net.feature_strides, net.input_minimum
    ((1, 2, 4, 8, 16), 16)
    """

    def __init__(
        self,
        name: str,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        activation: str = "relu",
        norm: str | None = None,
        stem: str = "image",
        dropout: float = 0.5,
        grid: int | None = None,
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        small = check_stem(stem) == "small"
        last = len(variant.channels) - 1
        pooled = [(stage < last or variant.last_pool) and not (small and stage == 0) for stage in range(last + 1)]
        super().__init__(dims, in_channels, num_classes, features_only, [_POOL] * sum(pooled))
        factory = LayerFactory(dims, variant.norm if norm is None else norm, activation)
        body = Pyramid()
        inputs = in_channels
        for channels, count, pool in zip(variant.channels, variant.blocks, pooled, strict=True):
            outputs = scale_channels(channels, width)
            for _ in range(scale_count(count, depth)):
                body.add(factory.conv(inputs, outputs, 3, bias=variant.bias or factory.norm == "none"), outputs)
                if factory.norm != "none":
                    body.add(factory.normalise(outputs), outputs)
                body.add(factory.activate(), outputs)
                inputs = outputs
            if pool:
                body.add(max_pool(dims, _POOL.kernel), outputs, _POOL.stride)
        self.features = body
        self.feature_strides, self.feature_channels = body.levels.strides, body.levels.channels
        final: tuple[nn.Module, ...] = ()
        if not features_only:
            # A small image has no grid of positions left at the end: its classifier sees the average.
            cells = check_count("grid", (1 if small else variant.grid) if grid is None else grid)
            self.avgpool = adaptive_average_pool(dims, cells)
            layers: list[nn.Module] = []
            inputs *= cells**dims
            for hidden in variant.hidden:
                outputs = scale_channels(hidden, width)
                layers += [nn.Linear(inputs, outputs), factory.activate(), nn.Dropout(dropout)]
                inputs = outputs
            layers.append(nn.Linear(inputs, num_classes))
            self.classifier = nn.Sequential(*layers) if variant.hidden else layers[0]
            final = (layers[-1],)
        start_weights(self, linear=final)


def course_vgg(
    dims: int = 2,
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    width: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    features_only: bool = False,
) -> VGG:
    """Return the course's VGG: 64, 64, pool, 128, 128, pool, 3 × 256, pool, 3 × 512, global average, linear.

    Every convolution is 3 wide, padded, without bias, and followed by batch normalisation and ReLU, unless told
    otherwise; without normalisation it has a bias.

    Args:
        features_only: build no head and return the feature maps at strides 1, 2, 4 and 8.

    Returns:
        A module from ``(n, in_channels, *spatial)``, every size at least 8, to logits ``(n, num_classes)``.

    >>> import torch
    >>> course_vgg(2, in_channels=1, num_classes=10, width=0.125).eval()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    place = "course_vgg", dims, in_channels, num_classes
    return VGG(*place, width=width, activation=activation, norm=norm, features_only=features_only)
