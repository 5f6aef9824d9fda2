"""Losses of classification and segmentation on training batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from convoxel.data.data_set import IGNORED
from convoxel.data.regions import Regions
from convoxel.predict.loss_terms import LossTerms
from convoxel.predict.segmentation_loss import focal, region_costs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Szegedy et al. 2015, section 5: the weight of the losses of auxiliary classifiers.
_AUXILIARY = 0.3


def build_loss(
    terms: LossTerms, *, deterministic: bool = False, ignores: bool = False, regions: Regions | None = None
) -> Loss:
    """Return the loss ``(logits, targets) → scalar``: a mean over voxels or images, and one of classes over the batch.

    Args:
        terms: terms and numbers of the loss. Logits are (n, classes, *spatial), targets (n, *spatial) int64; of
            classified images they are (n, classes) and (n,), or both (n, classes) where an image may have several;
            of values both are (n, targets).
        deterministic: sum on GPUs in one order; PyTorch adds the cross-entropies of images as they come
            (default False).
        ignores: targets of 255 belong to no class and do not count (default False).
        regions: label values of each channel, where classes overlap (default None: each voxel has one class).
    """
    if regions is not None:
        return _build_region_loss(terms, regions)
    found = (_build_regional(terms, ignores), _build_pointwise(terms, deterministic, ignores))
    parts = [term for term in found if term is not None]
    if len(parts) == 1:
        return parts[0]
    regional, pointwise = parts
    return lambda logits, targets: regional(logits, targets) + pointwise(logits, targets)


def _build_regional(terms: LossTerms, ignores: bool) -> Loss | None:
    if terms.regional is None:
        return None
    criterion = _region_criterion(
        terms, include_background=False, **dict.fromkeys(("to_onehot_y", "softmax"), not ignores)
    )

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not ignores:
            return criterion(logits, targets[:, None])
        kept, known = _known(targets)
        truth = functional.one_hot(known, logits.shape[1]).movedim(-1, 1)
        return criterion(logits.softmax(dim=1) * kept[:, None], truth * kept[:, None])

    return loss


def _region_criterion(terms: LossTerms, **shape: Any) -> Loss:
    """Return MONAI's loss of whole classes, over the batch: a patch that lacks a class would push hard on noise."""
    from monai.losses import DiceLoss, TverskyLoss

    shape["batch"] = True
    if terms.regional == "tversky":
        tversky: Loss = TverskyLoss(**shape, alpha=terms.options["alpha"], beta=terms.options["beta"])
        return tversky
    dice: Loss = DiceLoss(**shape)
    return dice


def _build_region_loss(terms: LossTerms, regions: Regions) -> Loss:
    """Return the loss of channels that each find a region by itself; targets (n, *spatial) hold label values."""
    table = torch.from_numpy(regions.classes[1:].T.copy())
    weights = None if terms.weights is None else torch.tensor(terms.weights)
    criterion = None if terms.regional is None else _region_criterion(terms, include_background=True)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        kept = (targets != IGNORED)[:, None]
        truth = table.to(logits.device)[targets].movedim(-1, 1)
        total = logits.new_zeros(())
        if criterion is not None:
            total = total + criterion(logits.sigmoid() * kept, truth.to(logits) * kept)
        if terms.pointwise is not None:
            costs = region_costs(logits, truth, terms) * kept
            if weights is not None:
                costs = costs * weights.to(logits).view(-1, *(1,) * (logits.dim() - 2))
            total = total + _share(costs.sum(), kept.sum() * logits.shape[1])
        return total

    return loss


def _build_pointwise(terms: LossTerms, deterministic: bool, ignores: bool) -> Loss | None:
    if terms.pointwise is None:
        return None
    options = terms.options
    stated = None if terms.weights is None else torch.tensor(terms.weights)

    def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if deterministic:  # of rows, one a voxel, the sum has an order
            logits, targets = logits.movedim(1, -1).flatten(0, -2), targets.flatten()
        weight = None if stated is None else stated.to(logits)
        smoothing = options.get("label_smoothing", 0.0)
        if not ignores:
            return functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
        total = functional.cross_entropy(
            logits, targets, weight, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )
        kept, known = _known(targets)
        return _share(total, (kept if weight is None else weight[known] * kept).sum())

    def mean_focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        kept, known = _known(targets) if ignores else (None, targets)
        each = focal(functional.log_softmax(logits, dim=1).gather(1, known[:, None])[:, 0], options["gamma"])
        each = each if stated is None else each * stated.to(logits)[known]
        return each.mean() if kept is None else _share((each * kept).sum(), kept.sum())

    def binary(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = None if stated is None else stated.to(logits)
        return functional.binary_cross_entropy_with_logits(logits, targets, weight)

    def of_values(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if terms.pointwise == "huber":
            each = functional.huber_loss(logits, targets, reduction="none", delta=options["delta"])
        else:
            measure = functional.mse_loss if terms.pointwise == "squared" else functional.l1_loss
            each = measure(logits, targets, reduction="none")
        return each.mean() if stated is None else (each * stated.to(logits)).mean()

    kinds = {"focal": mean_focal, "binary_cross_entropy": binary, "cross_entropy": cross_entropy}
    return kinds.get(terms.pointwise, of_values)


def _known(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where targets are classes, and the targets with 0 where they are none."""
    kept = targets != IGNORED
    return kept, targets * kept


def _share(total: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Return total / norm; 0 where everything is ignored."""
    return total / norm.to(total).clamp_min(torch.finfo(total.dtype).tiny)


def measure_loss(criterion: Loss, found: torch.Tensor | Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of a network's output in training.

    Args:
        criterion: loss that :func:`build_loss` returned.
        found: logits (n, classes, *spatial), or several tensors: the first is the network's answer. Further ones
            come from auxiliary classifiers, with a weight of 0.3 each, or from coarser levels: the l-th has the weight
            2⁻ˡ and is compared with equally spaced targets (Isensee et al. 2021); the weights of levels sum to one.
        targets: (n,) or (n, *spatial) int64, or (n, classes) float32; where logits lack a border, those in the middle
            are used.

    >>> measure_loss(torch.nn.CrossEntropyLoss(), torch.zeros(1, 2, 3), torch.zeros(1, 5, dtype=torch.long)).item()
    0.6931471824645996
    """
    logits, *others = [found] if isinstance(found, torch.Tensor) else found
    for axis, size in enumerate(logits.shape[2:], 1):
        targets = targets.narrow(axis, (targets.shape[axis] - size) // 2, size)
    loss = criterion(logits.float(), targets)
    if not others:
        return loss
    if logits.dim() == 2:
        return loss + _AUXILIARY * sum(criterion(other.float(), targets) for other in others)
    for level, other in enumerate(others, 1):
        loss = loss + 2.0**-level * criterion(other.float(), _coarsen(targets, other.shape[2:]))
    return loss / (2.0 - 2.0 ** -len(others))


def _coarsen(targets: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    steps = [-(-have // size) for have, size in zip(targets.shape[1:], sizes, strict=True)]
    places = (slice(None), *(slice(None, None, step) for step in steps))
    return targets[places]
