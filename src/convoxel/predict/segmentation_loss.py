"""The training loss of a whole image, from sums over its pieces: no map of probabilities is kept."""

from __future__ import annotations

import torch
from torch.nn import functional

from convoxel.data.data_set import IGNORED
from convoxel.data.regions import Regions
from convoxel.predict.loss_terms import LossTerms

# The same of the generalised Dice loss, in which a class of n voxels adds up to about 1/n: 1e-5 would hide large ones.
GENERALISED_SMOOTH = 1e-12
_SMOOTH = 1e-5  # what MONAI's losses add above and below, so an absent and unpredicted class costs nothing


def focal(log_p: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 − p)^γ·(−log p), elementwise (Lin et al. 2017, equation 4).

    Args:
        log_p: logarithm of the probability of the true class.
        gamma: γ ≥ 0; 0 gives the cross-entropy.
    """
    # Kept above 0, where a power below 1 has no slope.
    doubt = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return doubt**gamma * -log_p


def binary_costs(logits: torch.Tensor, truth: torch.Tensor, terms: LossTerms) -> torch.Tensor:
    """Return the pointwise cost of each channel by itself: binary cross-entropy, or the focal loss.

    Args:
        logits: scores of regions or classes, of any shape.
        truth: whether each is there, of the same shape.
        terms: loss of the run.
    """
    if terms.pointwise == "focal":
        return focal(functional.logsigmoid(torch.where(truth, logits, -logits)), terms.options["gamma"])
    smoothing = terms.options.get("label_smoothing", 0.0)
    wanted = truth.to(logits) * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def segmentation_loss(outputs: int, terms: LossTerms, regions: Regions | None = None) -> SegmentationLoss:
    """Return the loss of one image whose pieces are to be added.

    Args:
        outputs: number of classes, or of regions.
        terms: loss of the run.
        regions: label values of regions that overlap (default None: each voxel has one class).
    """
    return SegmentationLoss(outputs, terms) if regions is None else _RegionLoss(outputs, terms, regions)


class SegmentationLoss:
    """The training loss of one image, summed over its pieces.

    Args:
        classes: number of classes.
        terms: loss of the run.
    """

    _background = 1  # of the sums, the first are of the background, which most regional terms leave out

    def __init__(self, classes: int, terms: LossTerms) -> None:
        self._terms = terms
        self._weight = torch.tensor(terms.weights or (1.0,) * classes, dtype=torch.float64)
        self._points, self._norm = 0.0, 0.0
        self._sums = torch.zeros(3, classes, dtype=torch.float64)  # of each class: Σ p·y, Σ p, Σ y

    def add(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        """Add a piece: logits (classes, *spatial) float32, target (*spatial) int64; targets of 255 do not count."""
        log_p, flat = functional.log_softmax(logits, dim=0).flatten(1), target.flatten()
        kept = flat != IGNORED
        hides = len(log_p) <= IGNORED and not bool(kept.all())
        if hides:
            log_p, flat = log_p[:, kept], flat[kept]
        classes = len(log_p)
        own = log_p.gather(0, flat[None])[0]
        truth = torch.bincount(flat, minlength=classes).double()
        if self._terms.pointwise == "binary_cross_entropy":
            scores = logits.flatten(1)
            self._add_binary(scores[:, kept] if hides else scores, flat == torch.arange(classes)[:, None])
        elif self._terms.pointwise is not None:
            self._add_points(log_p, own, flat, truth)
        if self._terms.regional is not None:
            predicted = log_p.exp_().sum(dim=1, dtype=torch.float64)
            product = torch.zeros(classes, dtype=torch.float64).index_add_(0, flat, own.exp().double())
            self._sums += torch.stack([product, predicted, truth])

    def _add_binary(self, scores: torch.Tensor, truth: torch.Tensor) -> None:
        """Add the pointwise costs of channels (channels, voxels), each by itself."""
        costs = binary_costs(scores, truth, self._terms).sum(dim=1, dtype=torch.float64)
        self._points += float(costs @ self._weight)
        self._norm += scores.numel()

    def _add_points(self, log_p: torch.Tensor, own: torch.Tensor, flat: torch.Tensor, truth: torch.Tensor) -> None:
        options = self._terms.options
        focused = self._terms.pointwise == "focal"
        each = focal(own, options["gamma"]) if focused else -own
        found = torch.zeros(len(log_p), dtype=torch.float64).index_add_(0, flat, each.double()) @ self._weight
        smoothing = options.get("label_smoothing", 0.0)
        if smoothing:
            spread = -log_p.sum(dim=1, dtype=torch.float64) @ self._weight / len(log_p)
            found = (1 - smoothing) * found + smoothing * spread
        self._points += float(found)
        self._norm += float(truth.sum() if focused else truth @ self._weight)

    def value(self) -> float:
        """Return the loss of all pieces together, without the term of shapes."""
        found, kind = self._points / (self._norm or 1.0), self._terms.regional
        if kind is None:
            return found
        first = self._background if self._sums.shape[1] > 1 and kind != "generalised_dice" else 0
        product, predicted, truth = self._sums[:, first:]
        wrong, missed = predicted - product, truth - product
        if kind == "dice":
            share = (2 * product + _SMOOTH) / (2 * product + wrong + missed + _SMOOTH)
        elif kind == "jaccard":
            share = (2 * product + _SMOOTH) / (2 * (product + wrong + missed) + _SMOOTH)
        elif kind == "generalised_dice":
            weight = torch.where(truth > 0, truth.clamp_min(1.0) ** -2, 0.0)
            weight = torch.where(truth > 0, weight, weight.max())  # as MONAI weighs classes that are absent
            both = ((2 * product * weight).sum(), ((predicted + truth) * weight).sum())
            share = (both[0] + GENERALISED_SMOOTH) / (both[1] + GENERALISED_SMOOTH)
        else:
            cost = self._terms.options["alpha"] * wrong + self._terms.options["beta"] * missed
            share = (product + _SMOOTH) / (product + cost + _SMOOTH)
        return found + 1.0 - float(share.mean())


class _RegionLoss(SegmentationLoss):
    """The same of regions that overlap; targets hold label values."""

    _background = 0

    def __init__(self, count: int, terms: LossTerms, regions: Regions) -> None:
        super().__init__(count, terms)
        self._table = torch.from_numpy(regions.classes[1:])

    def add(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        scores, flat = logits.flatten(1), target.flatten()
        kept = flat != IGNORED
        if not kept.all():
            scores, flat = scores[:, kept], flat[kept]
        truth = self._table[:, flat]
        if self._terms.pointwise is not None:
            self._add_binary(scores, truth)
        if self._terms.regional is not None:
            shares = scores.sigmoid()
            sums = [(each.sum(dim=1, dtype=torch.float64)) for each in (shares * truth, shares, truth)]
            self._sums += torch.stack(sums)
