"""The parts of encoder–decoder networks: stages, up-sampling, and padding to any size.

A stage is the convolutions at one resolution. Nothing here knows how many resolutions there are.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.errors import check_choice
from convoxel.models.layer_factory import LayerFactory
from convoxel.nn import PixelShuffle, conv, conv_transpose, resize

#: Blocks of a stage.
BLOCKS = ("plain", "residual")
#: Ways of up-sampling; ``"resize"`` is the older name of ``"linear"``, which stored runs hold.
UP_SAMPLINGS = ("transposed", "linear", "nearest", "shuffle", "resize")


class Residual(nn.Module):
    """Two convolutions and the shortcut, added before the last activation (He et al. 2016, arXiv 1512.03385).

    The shortcut has a 1-wide convolution where the number of channels changes, and is cropped where the
    convolutions have no padding.
    """

    def __init__(
        self,
        factory: LayerFactory,
        inputs: int,
        middle: int,
        outputs: int,
        kernel: Sequence[int],
        padded: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        padding = None if padded else 0
        self.margins = tuple(0 if padded else size - 1 for size in kernel)
        self.conv1 = factory.conv(inputs, middle, kernel, padding=padding, bias=bias)
        self.norm1 = factory.normalise(middle)
        self.act1 = factory.activate()
        self.conv2 = factory.conv(middle, outputs, kernel, padding=padding, bias=bias)
        self.norm2 = factory.normalise(outputs)
        self.act2 = factory.activate()
        self.shortcut = None if inputs == outputs else factory.unit(inputs, outputs, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial)``."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.act2(y + trim(shortcut, self.margins))
        return out


def build_stage(
    factory: LayerFactory,
    inputs: int,
    outputs: int,
    *,
    kernel: Sequence[int],
    blocks: int = 1,
    block: str = "plain",
    middle: int | None = None,
    padded: bool = True,
    bias: bool | None = None,
) -> nn.Sequential:
    """Return ``blocks`` blocks of two convolutions, each with normalisation and activation.

    Args:
        factory: maker of the layers: number of axes, normalisation and activation.
        inputs, outputs: channels of the first block's input, and of every block's output.
        kernel: size of the convolutions along each axis.
        blocks: number of blocks.
        block: ``"plain"`` or ``"residual"``.
        middle: channels between the two convolutions of the first block (default: ``outputs``).
        padded: whether sizes stay; otherwise every convolution takes kernel − 1 off each axis.
        bias: whether convolutions have a bias (default: where no normalisation follows).

    Raises:
        ConfigError: ``block`` is neither.

    >>> stage = build_stage(LayerFactory(1), 2, 4, kernel=(3,), blocks=2)
    >>> [name for name, _ in stage.named_children()][:3], len(stage)
    (['conv1', 'norm1', 'act1'], 12)
    """
    check_choice("block", block, BLOCKS)
    between = [outputs if middle is None else middle] + [outputs] * (blocks - 1)
    sources = [inputs] + [outputs] * (blocks - 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if block == "residual":
        for step, (first, second) in enumerate(zip(sources, between, strict=True), 1):
            layers[f"block{step}"] = Residual(factory, first, second, outputs, kernel, padded, bias)
        return nn.Sequential(layers)
    channels = [inputs, *(count for second in between for count in (second, outputs))]
    for step, (first, second) in enumerate(itertools.pairwise(channels), 1):
        layers[f"conv{step}"] = factory.conv(first, second, kernel, padding=None if padded else 0, bias=bias)
        if factory.norm != "none":
            layers[f"norm{step}"] = factory.normalise(second)
        layers[f"act{step}"] = factory.activate()
    return nn.Sequential(layers)


def build_up_sampling(
    dims: int, inputs: int, outputs: int, scale: Sequence[int], kind: str, bias: bool = True
) -> nn.Module:
    """Return the up-sampling from ``(n, inputs, *spatial)`` to ``(n, outputs, *(scale · spatial))``.

    Args:
        dims: number of spatial axes.
        inputs, outputs: channels.
        scale: factor along each axis.
        kind: ``"transposed"``: a transposed convolution whose kernel is its stride; ``"linear"`` or
            ``"nearest"``: a 1-wide convolution, then a resize; ``"shuffle"``: a 3-wide convolution to
            outputs · Πscale channels, which become pixels.
        bias: whether the convolution has a bias (default True).

    Raises:
        ConfigError: ``kind`` is none of these.

    >>> build_up_sampling(3, 8, 4, (1, 2, 2), "transposed").kernel_size
    (1, 2, 2)
    """
    check_choice("up", kind, UP_SAMPLINGS)
    if kind == "transposed":
        return conv_transpose(dims, inputs, outputs, scale, stride=scale, bias=bias)
    if kind == "shuffle":
        wide = conv(dims, inputs, outputs * math.prod(scale), 3, padding=1, bias=bias)
        return nn.Sequential(OrderedDict(conv=wide, shuffle=PixelShuffle(dims, scale)))
    # The 1×1 convolution commutes with the resize (both are linear, the weights of a resize sum to one), and
    # costs Πscale times less when it comes first.
    mode = "nearest" if kind == "nearest" else "linear"
    factor = scale[0] if len(set(scale)) == 1 else scale
    layers = OrderedDict(conv=conv(dims, inputs, outputs, 1, bias=bias), resize=resize(dims, factor, mode))
    return nn.Sequential(layers)


def _is_recorded() -> bool:
    """Return True while a graph is recorded, whose sizes stay open: asking for one would bake the answer into it."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def pad(x: Tensor, multiples: Sequence[int]) -> Tensor:
    """Return ``x`` with zeros after the end of each axis, up to the next multiple.

    >>> pad(torch.ones(1, 1, 5, 8), (4, 4)).shape
    torch.Size([1, 1, 8, 8])
    """
    amounts = [(-size) % multiple for size, multiple in zip(x.shape[2:], multiples, strict=True)]
    if not _is_recorded() and not any(amounts):
        return x
    return nn.functional.pad(x, [count for amount in reversed(amounts) for count in (0, amount)])


def crop(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the beginning of ``x`` along each axis, of the spatial ``sizes``: the inverse of :func:`pad`.

    >>> crop(torch.arange(5).reshape(1, 1, 5), (3,)).tolist()
    [[[0, 1, 2]]]
    """
    amounts = [size - have for size, have in zip(sizes, x.shape[2:], strict=True)]
    if not _is_recorded() and not any(amounts):
        return x
    # Slices would do, but PyTorch asks while it records them whether anything is cut off, and its graph then holds
    # for sizes alike in that only.
    return nn.functional.pad(x, [count for amount in reversed(amounts) for count in (0, amount)])


def trim(x: Tensor, margins: Sequence[int]) -> Tensor:
    """Return the middle of ``x``: without ``margins`` pixels at either end of each axis.

    >>> trim(torch.arange(5).reshape(1, 1, 5), (1,)).tolist()
    [[[1, 2, 3]]]
    """
    for axis, margin in enumerate(margins, 2):
        if margin:
            x = x[(slice(None),) * axis + (slice(margin, -margin),)]
    return x
