"""Maps (*spatial) of the parts of an input on which a score depends, by methods of MONAI and captum.

Nothing here is random: equal inputs give equal maps on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convoxel.predict.explained_score import Score, Shifted

# Parts of an input's sides that a window covers, by the number of axes: passes grow with their product.
_SIDES = {1: 16, 2: 8, 3: 4}
_MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Windows:
    """Windows that cover parts of an input: their size, and by how much the next one lies further, along each axis."""

    window: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def over(cls, size: Sequence[int], window: Sequence[int] | None = None) -> Windows:
        """Return windows over an input of ``size``; those that are given overlap by half.

        Args:
            size: spatial size of the input.
            window: size of a window (default: a sixteenth of a signal, an eighth of a picture's sides, which overlap by
                half; a quarter of a volume's, which overlap by a quarter: 125 of them, where half would make 343).

        >>> Windows.over((96, 96, 96)).count((96, 96, 96))
        125
        """
        default = [max(1, round(side / _SIDES[len(size)])) for side in size]
        sides = tuple(min(want, side) for want, side in zip(window or default, size, strict=True))
        if window is None and len(size) == 3:
            return cls(sides, tuple(-(-3 * side // 4) for side in sides))
        return cls(sides, tuple(max(1, side // 2) for side in sides))

    def count(self, size: Sequence[int]) -> int:
        """Return the number of windows that cover an input of ``size``.

        >>> Windows((4, 4), (2, 2)).count((16, 5))
        14
        """
        axes = zip(size, self.window, self.stride, strict=True)
        return math.prod(-(-(side - wide) // step) + 1 for side, wide, step in axes)


def grad_cam(score: Score, images: Tensor, layer: str, known: Tensor | None = None) -> Tensor:
    """Return the Grad-CAM++ map (*spatial) of one image, 0 or more, as large as the image.

    Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063, computed by MONAI.

    Args:
        score: what is explained.
        images: (1, channels, *spatial).
        layer: name of the layer in the network, which runs once and returns one map.
        known: (*map) bool, positions of the layer that count; the others become 0 (default: all).
    """
    from monai.visualize import GradCAMpp, default_upsampler

    method = GradCAMpp(Shifted(score), f"score.network.{layer}")
    found: Tensor = method.compute_map(images.detach().requires_grad_(True), class_idx=0).detach()
    if known is not None:
        found = found * known.to(found.device)
    enlarged: Tensor = default_upsampler(images.shape[2:])(found)
    return enlarged[0, 0]


def occlusion_drop(score: Callable[[Tensor], Tensor], images: Tensor, windows: Windows, at_once: int = 1) -> Tensor:
    """Return by how much the score drops where a window covers the image: the mean over the windows of a place.

    Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901, computed by captum. A covered place is 0, the mean intensity
    of a normalised image.

    Args:
        score: what is explained: a network, or any function of images that returns (n, 1).
        images: (1, channels, *spatial).
        windows: which places are covered, all channels of them.
        at_once: images in a forward pass (default 1).
    """
    from captum.attr import Occlusion

    channels = images.shape[1]
    with torch.no_grad():
        found: Tensor = Occlusion(score).attribute(
            images,
            sliding_window_shapes=(channels, *windows.window),
            strides=(channels, *windows.stride),
            baselines=0.0,
            target=0,
            perturbations_per_eval=at_once,
        )
    return found[0, 0]


def integrated_gradients(score: Score, images: Tensor, steps: int, at_once: int = 1) -> tuple[Tensor, float]:
    """Return the integrated gradients of one image, summed over channels, and by how much their sum misses the score.

    The sum over all places is score(image) − score(0), up to the quadrature's error. 0 is an image of mean intensity.
    Sundararajan, Taly & Yan 2017, https://arxiv.org/abs/1703.01365, computed by captum (Gauss–Legendre).

    Args:
        score: what is explained.
        images: (1, channels, *spatial).
        steps: points of the quadrature.
        at_once: images in a pass (default 1).
    """
    from captum.attr import IntegratedGradients

    found, missing = IntegratedGradients(score).attribute(
        images, baselines=0.0, target=0, n_steps=steps, internal_batch_size=at_once, return_convergence_delta=True
    )
    return found[0].detach().sum(0), float(missing)


def images_at_once(size: Sequence[int], most: int) -> int:
    """Return how many images of a size pass at once in memory for ``most`` voxels; at least one."""
    return max(1, min(_MOST_AT_ONCE, most // math.prod(size)))


def settle(network: nn.Module) -> nn.Module:
    """Return the network itself, ready for gradients with respect to its input: weights fixed, nothing in place."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # a flag of PyTorch's activations
    return network.eval().requires_grad_(False)
