"""Losses of classification and segmentation on training batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from convoxel.data.data_set import IGNORED
from convoxel.data.regions import Regions
from convoxel.predict.loss_terms import LossTerms
from convoxel.predict.segmentation_loss import GENERALISED_SMOOTH, binary_costs, focal
from convoxel.train.shape_loss import build_shape_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# (logits, targets) → probabilities, truth, both (n, classes, *spatial)
Masks = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

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
    pointwise = None if terms.pointwise is None else _build_pointwise(terms, deterministic, ignores, regions)
    of_masks = _build_mask_terms(terms, regions)
    if of_masks is None:
        assert pointwise is not None  # a loss has a term
        return pointwise
    masks = _mask_regions(regions) if regions is not None else _mask_classes(ignores)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = of_masks(*masks(logits, targets))
        return total if pointwise is None else total + pointwise(logits, targets)

    return loss


def _mask_classes(ignores: bool) -> Masks:
    """Return the function that returns probabilities and truth of classes, one a voxel; 0 where targets are ignored."""

    def masks(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shares = logits.softmax(dim=1)
        kept, known = _known(targets) if ignores else (None, targets)
        truth = torch.zeros_like(shares).scatter_(1, known[:, None], 1.0)
        return (shares, truth) if kept is None else (shares * kept[:, None], truth * kept[:, None])

    return masks


def _mask_regions(regions: Regions) -> Masks:
    """Return the function that returns the same of regions, each found by itself; targets hold label values."""
    table = _region_table(regions)

    def masks(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept = (targets != IGNORED)[:, None]
        truth = table.to(logits.device)[targets].movedim(-1, 1)
        return logits.sigmoid() * kept, truth.to(logits) * kept

    return masks


def _region_table(regions: Regions) -> torch.Tensor:
    """Return whether each label value belongs to each region, (values, regions)."""
    return torch.from_numpy(regions.classes[1:].T.copy())


def _build_mask_terms(terms: LossTerms, regions: Regions | None) -> Loss | None:
    """Return the terms of probabilities and truth (n, classes, *spatial), regional and of shapes, or None."""
    parts: list[Loss] = []
    foreground = 0 if regions is not None else 1

    def add(criterion: Loss, first: int, weight: float = 1.0) -> None:
        parts.append(lambda shares, truth: weight * criterion(shares[:, first:], truth[:, first:]))

    if terms.regional is not None:
        add(_regional_criterion(terms), 0 if terms.regional == "generalised_dice" else foreground)
    if terms.shape is not None:
        add(build_shape_loss(terms), foreground, terms.options["weight"])
    if not parts:
        return None
    first, *others = parts
    return lambda shares, truth: sum((part(shares, truth) for part in others), first(shares, truth))


def _regional_criterion(terms: LossTerms) -> Loss:
    """Return MONAI's loss of whole classes, over the batch: a patch that lacks a class would push hard on noise."""
    from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss

    criterion: Loss
    if terms.regional == "tversky":
        criterion = TverskyLoss(batch=True, alpha=terms.options["alpha"], beta=terms.options["beta"])
    elif terms.regional == "generalised_dice":
        criterion = GeneralizedDiceLoss(batch=True, smooth_nr=GENERALISED_SMOOTH, smooth_dr=GENERALISED_SMOOTH)
    else:
        criterion = DiceLoss(batch=True, jaccard=terms.regional == "jaccard")
    return criterion


def _build_pointwise(terms: LossTerms, deterministic: bool, ignores: bool, regions: Regions | None) -> Loss:
    options = terms.options
    stated = None if terms.weights is None else torch.tensor(terms.weights)
    table = None if regions is None else _region_table(regions)

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
        """Costs of each channel by itself: of regions, of an image's several classes, or of the only one."""
        kept = None
        if table is not None:
            kept, truth = (targets != IGNORED)[:, None], table.to(logits.device)[targets].movedim(-1, 1)
        elif targets.is_floating_point():
            truth = targets > 0
        else:
            known = targets
            if ignores:
                kept, known = _known(targets)
                kept = kept[:, None]
            truth = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, known[:, None], True)
        costs = binary_costs(logits, truth, terms)
        if stated is not None:
            costs = costs * stated.to(logits).view(-1, *(1,) * (logits.dim() - 2))
        return costs.mean() if kept is None else _share((costs * kept).sum(), kept.sum() * logits.shape[1])

    def focused(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (binary if targets.is_floating_point() else mean_focal)(logits, targets)

    def of_values(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if terms.pointwise == "huber":
            each = functional.huber_loss(logits, targets, reduction="none", delta=options["delta"])
        else:
            measure = functional.mse_loss if terms.pointwise == "squared" else functional.l1_loss
            each = measure(logits, targets, reduction="none")
        return each.mean() if stated is None else (each * stated.to(logits)).mean()

    if regions is not None:
        return binary
    kinds = {"focal": focused, "binary_cross_entropy": binary, "cross_entropy": cross_entropy}
    return kinds.get(terms.pointwise or "", of_values)


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
