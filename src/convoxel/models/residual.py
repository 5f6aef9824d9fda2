"""The inverted residual block of MobileNet-V2 and of the networks that came from it.

Sandler et al. 2018 (arXiv 1801.04381), Figure 3b; with squeeze-and-excitation (Hu, Shen & Sun 2018, arXiv
1709.01507) as Howard et al. 2019 (arXiv 1905.02244) place it, and stochastic depth (Huang et al. 2016, arXiv
1603.09382).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convoxel.models.layer_factory import LayerFactory
from convoxel.nn import SqueezeExcite


class InvertedResidual(nn.Module):
    """1-wide convolution up, depthwise convolution, perhaps a squeeze, 1-wide convolution down, perhaps a shortcut.

    Args:
        factory: maker of the layers: number of axes, normalisation and activation.
        inputs: channels that come in.
        expanded: channels of the depthwise convolution; there is no convolution up if they are ``inputs``.
        outputs: channels that go out; if they are ``inputs`` and the stride is 1, the input is added to them.
        kernel: size of the depthwise kernel.
        stride: stride of the depthwise convolution.
        squeeze: the squeeze-and-excitation, if any.
        drop: probability with which training leaves out a sample's block, where it has a shortcut.
        name: the layers' name in state dicts; under ``"conv"`` the last two stand one by one.
    """

    def __init__(
        self,
        factory: LayerFactory,
        inputs: int,
        expanded: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        squeeze: SqueezeExcite | None = None,
        drop: float = 0.0,
        name: str = "block",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [] if expanded == inputs else [factory.unit(inputs, expanded, 1)]
        layers.append(factory.unit(expanded, expanded, kernel, stride=stride, groups=expanded))
        if squeeze is not None:
            layers.append(squeeze)
        down = factory.unit(expanded, outputs, 1, active=False)
        layers += down if name == "conv" else [down]
        self.add_module(name, nn.Sequential(*layers))
        self.name = name
        self.shortcut = stride == 1 and inputs == outputs
        self.drop = drop

    @property
    def has_shortcut(self) -> bool:
        """True if the block is added to its input."""
        return self.shortcut

    def drop_shortcut(self) -> None:
        """Take the shortcut away."""
        self.shortcut = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial / stride)``."""
        y: Tensor = getattr(self, self.name)(x)
        if not self.shortcut:
            return y
        return x + (drop_samples(y, self.drop) if self.training and self.drop else y)


def drop_samples(x: Tensor, probability: float) -> Tensor:
    """Return ``x`` with some of its samples 0, and the others divided by the share that is kept.

    >>> sorted(drop_samples(torch.ones(100, 1), 0.5).unique().tolist())
    [0.0, 2.0]
    """
    keep = 1.0 - probability
    mask = torch.rand(x.shape[0], *(1,) * (x.dim() - 1), device=x.device, dtype=x.dtype) < keep
    return x * mask / keep
