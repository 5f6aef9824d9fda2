"""Losses of shapes: distances to boundaries and centrelines, of probabilities against masks.

MONAI's losses of these names take images and volumes, and measure a mask that fills its patch from a voxel outside it.
Here distances are of signals too, and those of a mask without a boundary are 0; elsewhere the values are MONAI's, with
sums over the batch as those of the regional terms.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from convoxel.predict.loss_terms import LossTerms

# What clDice adds above and below its two ratios (Shit et al. 2021), so that absent tubes cost nothing.
_SMOOTH = 1.0


def build_shape_loss(terms: LossTerms) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the term of shapes, without its weight, of probabilities and masks (n, classes, *spatial) → scalar."""
    if terms.shape == "hausdorff":
        exponent = terms.options["exponent"]
        return lambda shares, truth: _hausdorff(shares, truth, exponent)
    if terms.shape == "boundary":
        return _boundary
    iterations = int(terms.options["iterations"])
    return lambda shares, truth: _centrelines(shares, truth, iterations)


def signed_distances(masks: torch.Tensor) -> torch.Tensor:
    """Return Euclidean distances in voxels, of those outside a mask to it, of those inside below 0 to what is outside.

    Args:
        masks: (n, classes, *spatial) bool; one that is empty or fills everything has no boundary, and distances of 0.

    >>> signed_distances(torch.tensor([[[False, False, True, True, True]]])).tolist()
    [[[2.0, 1.0, -1.0, -2.0, -3.0]]]
    """
    from scipy.ndimage import distance_transform_edt

    found = torch.zeros(masks.shape)
    for mask, distances in zip(masks.detach().cpu().flatten(0, 1), found.flatten(0, 1), strict=True):
        if mask.any() and not mask.all():
            outside, inside = (distance_transform_edt(each) for each in (~mask.numpy(), mask.numpy()))
            distances.copy_(torch.from_numpy(outside - inside))
    return found.to(masks.device)


def _hausdorff(shares: torch.Tensor, truth: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the mean of (p − y)²·(d(p)^α + d(y)^α) (Karimi and Salcudean 2019, equation 9)."""
    weights = sum(signed_distances(masks > 0.5).abs() ** exponent for masks in (shares, truth))
    return ((shares - truth) ** 2 * weights).mean()


def _boundary(shares: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean of p·d(y), where d is 0 on the innermost voxels of the boundary (Kervadec et al. 2019)."""
    distances = signed_distances(truth > 0.5)
    return (shares * (distances + (distances < 0))).mean()


def _centrelines(shares: torch.Tensor, truth: torch.Tensor, iterations: int) -> torch.Tensor:
    """Return 1 − clDice, the mean over the classes (Shit et al. 2021, algorithm 1)."""
    from monai.losses.cldice import soft_skel

    def part(skeleton: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        axes = (0, *range(2, masks.dim()))
        return ((skeleton * masks).sum(axes) + _SMOOTH) / (skeleton.sum(axes) + _SMOOTH)

    precision = part(soft_skel(shares, iterations), truth)
    sensitivity = part(soft_skel(truth, iterations), shares)
    return 1.0 - (2.0 * precision * sensitivity / (precision + sensitivity)).mean()
