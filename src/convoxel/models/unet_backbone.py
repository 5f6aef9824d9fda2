"""Dense prediction on any backbone: a U-Net's decoder over the feature maps of a classification network.

The encoder brings its published form and, if wanted, its published weights; the decoder is that of ``unet``:
up-sampling, concatenation with the encoder's map of equal size, two 3-wide convolutions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, check_choice
from convoxel.models.backbone import Backbone, Network, check_count, scale_channels
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.stage import build_stage, build_up_sampling, crop, pad
from convoxel.nn import LEAKY_SLOPE, conv, start_weights

#: The backbones with a name of their own, ``unet_`` before theirs; :class:`DenseUNet` takes any other.
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b4",
)

# Channels of the decoder at full resolution, doubled at each level: 16, 32, 64, 128, 256 over strides 1 to 16.
_WIDTH = 16


class DenseUNet(Network):
    """An encoder's feature maps, and a decoder back to full resolution; see :func:`build_dense_unet`.

    ``decoder[l]`` and ``up[l]`` produce level l, of which 0 has full resolution. Skips come first in the
    concatenation. Where the encoder has no map at full resolution, level 0 has no skip.

    Args:
        encoder: a backbone built with ``features_only=True``, whose maps have size / stride pixels whenever its
            largest stride divides the size.
        num_classes: number of classes, which is the number of logits.
        width: channels of the decoder at full resolution, doubled at each level.
        up: way of up-sampling, as for ``unet``.
        norm, activation: normalisation and activation of the decoder.
        sizes: ``"pad"`` takes any size, ``"check"`` multiples of the largest stride.

    Raises:
        ConfigError: the encoder returns logits, or another argument is out of range.

    >>> from convoxel.models.resnet import ResNet
    >>> net = DenseUNet(ResNet("resnet18", 1, 1, width=0.125, features_only=True), 3, width=4)
    >>> net(torch.zeros(2, 1, 45)).shape
    torch.Size([2, 3, 45])
    """

    def __init__(
        self,
        encoder: Network,
        num_classes: int,
        *,
        width: int = _WIDTH,
        up: str = "transposed",
        norm: str = "batch",
        activation: str = "relu",
        sizes: str = "pad",
    ) -> None:
        if not isinstance(encoder, Backbone) or not encoder.features_only:
            came = f"a {type(encoder).__name__}" + (" with a head" if isinstance(encoder, Backbone) else "")
            raise ConfigError(
                f"encoder is {came}, but it must return feature maps. Give a backbone built with features_only=True."
            )
        widest = encoder.feature_strides[-1]
        check_choice("sizes", sizes, ("check", "pad"))
        multiple = 1 if sizes == "pad" else widest
        super().__init__(
            encoder.dims, encoder.in_channels, num_classes, input_multiple=multiple, input_minimum=multiple
        )
        check_count("width", width)
        self.sizes = sizes
        self.encoder = encoder
        dims, factory = encoder.dims, LayerFactory(encoder.dims, norm, activation)
        # Each level's stride and the channels of its skip.
        levels = list(zip(encoder.feature_strides, encoder.feature_channels, strict=True))
        if levels[0][0] > 1:
            levels.insert(0, (1, 0))
        strides, skips = zip(*levels, strict=True)
        channels = [width * 2**level for level in range(len(levels) - 1)]
        below = [*channels[1:], skips[-1]]
        self.up = nn.ModuleList(
            build_up_sampling(dims, below[level], outputs, (strides[level + 1] // strides[level],) * dims, up)
            for level, outputs in enumerate(channels)
        )
        self.decoder = nn.ModuleList(
            build_stage(factory, skips[level] + outputs, outputs, kernel=(3,) * dims)
            for level, outputs in enumerate(channels)
        )
        self.head = conv(dims, width, num_classes, 1)
        slope = LEAKY_SLOPE if activation == "leaky_relu" else 0.0
        for part in (self.up, self.decoder, self.head):
            start_weights(part, negative_slope=slope, linear=(*self.up.modules(), self.head))

    def compute(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes, *spatial)``."""
        spatial = x.shape[2:]
        if self.sizes == "pad":
            x = pad(x, (self.encoder.feature_strides[-1],) * self.dims)
        *maps, x = self.encoder.features(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](x)
            # With a map at full resolution there is a skip for every level, else for every level but 0.
            place = level - (len(self.up) - len(maps))
            if place >= 0:
                self._check_fit(maps[place], x)
                x = torch.cat([maps[place], _fitted(x, maps[place])], dim=1)
            x = self.decoder[level](x)
        logits: Tensor = self.head(x)
        return crop(logits, spatial) if self.sizes == "pad" else logits

    def _check_fit(self, skip: Tensor, x: Tensor) -> None:
        if not torch.compiler.is_compiling() and skip.shape[2:] != x.shape[2:]:
            raise ConfigError(
                f"DenseUNet: {type(self.encoder).__name__} returns a feature map of {tuple(skip.shape[2:])} where "
                f"{tuple(x.shape[2:])} is needed: it loses borders. Take a backbone whose convolutions are padded, "
                f"such as {', '.join(BACKBONES[:3])}."
            )


def _fitted(x: Tensor, skip: Tensor) -> Tensor:
    """Return ``x`` with the sizes of ``skip``. They are equal, but PyTorch cannot always prove it for open sizes."""
    if torch.compiler.is_compiling() and not all(map(_known_equal, x.shape[2:], skip.shape[2:])):
        return crop(x, skip.shape[2:])
    return x


def _known_equal(a: int, b: int) -> bool:
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # takes a quarter of a second

    return bool(statically_known_true(a == b))


def build_dense_unet(
    backbone: Callable[..., Network],
    dims: int = 2,
    in_channels: int = 3,
    num_classes: int = 2,
    *,
    width: float = 1.0,
    depth: float | None = None,
    activation: str | None = None,
    norm: str | None = None,
    stem: str | None = None,
    up: str = "transposed",
    sizes: str = "pad",
) -> DenseUNet:
    """Return a U-Net whose encoder is a classification network without its head.

    Ronneberger et al. 2015 (arXiv 1505.04597) with the contracting path replaced, as Iglovikov & Shvets 2018
    (arXiv 1801.05746) did with VGG. The decoder has 16 channels at full resolution, doubled at each level.

    Args:
        backbone: function that builds the encoder, such as ``entry("resnet34").build``.
        width: factor on all channel counts of encoder and decoder (default 1).
        depth: factor on the encoder's number of blocks (default: the encoder's own).
        activation, norm: names for encoder and decoder; by default the encoder has its own, and the decoder ReLU and
            batch normalisation.
        stem: ``"small"`` for inputs of few pixels: the encoder then begins with stride 1.
        up: ``"transposed"``, ``"linear"``, ``"nearest"`` or ``"shuffle"``, as for ``unet``.
        sizes: ``"pad"`` takes any size, with zeros after the end that are cut off again; ``"check"`` refuses
            what is no multiple of the encoder's largest stride. The first is the default because the encoder
            takes any size for classification, and few images have a multiple of 32 pixels.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits ``(n, num_classes, *spatial)``.

    Raises:
        ConfigError: an argument is out of range, or the backbone has no such option.

    >>> from convoxel.models.registry import build
    >>> net = build("unet_resnet18", dims=3, in_channels=1, num_classes=2, width=0.125)
    >>> net.eval()(torch.zeros(1, 1, 20, 33, 17)).shape
    torch.Size([1, 2, 20, 33, 17])
    """
    given: dict[str, object] = {"depth": depth, "activation": activation, "norm": norm, "stem": stem}
    options = {name: value for name, value in given.items() if value is not None}
    known = inspect.signature(backbone).parameters
    for name in options:
        if name not in known:
            raise ConfigError(f"{name} is {options[name]!r}, but this network's encoder has no such option.")
    encoder = backbone(dims, in_channels, num_classes, width=width, features_only=True, **options)
    return DenseUNet(
        encoder,
        num_classes,
        width=scale_channels(_WIDTH, width),
        up=up,
        norm=norm or "batch",
        activation=activation or "relu",
        sizes=sizes,
    )
