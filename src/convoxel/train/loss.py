"""What is learned: the loss of classification and of segmentation, for training batches and for scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

__all__ = ["build_loss", "combine_segmentation_loss", "measure_loss", "overlap_sums"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Szegedy et al. 2015, section 5: what the losses of auxiliary classifiers count.
_AUXILIARY = 0.3


def build_loss(task: str) -> Loss:
    """Return the loss ``(logits, targets) → scalar`` of a task.

    "classify": cross-entropy with label smoothing 0.05; logits (n, classes), targets (n,) int64.
    "segment": cross-entropy plus soft Dice of the foreground classes over the whole batch
    (MONAI's DiceCELoss); logits (n, classes, *spatial), targets (n, *spatial) int64.
    """
    if task == "classify":
        return torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    from monai.losses import DiceCELoss

    # Dice over the batch, not per patch: a patch that lacks a class would otherwise push hard on noise.
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = criterion(logits, targets[:, None])
        return value

    return loss


def measure_loss(criterion: Loss, found: torch.Tensor | Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of what a network gives in training.

    Args:
        criterion: as :func:`build_loss` returns it.
        found: logits (n, classes, *spatial), or several: the first are the network's answer. Further ones are
            of auxiliary classifiers, which count 0.3 each, or of coarser levels, the l-th of which counts 2⁻ˡ
            against every so-many-th target (Isensee et al. 2021); the weights of levels sum to one.
        targets: (n,) or (n, *spatial) int64; where logits lack a border, the middle counts.

    >>> measure_loss(torch.nn.CrossEntropyLoss(), torch.zeros(1, 2, 3), torch.zeros(1, 5, dtype=torch.long)).item()
    0.6931471824645996
    """
    logits, *others = [found] if isinstance(found, torch.Tensor) else found
    for axis, size in enumerate(logits.shape[2:], 1):
        targets = targets.narrow(axis, (targets.shape[axis] - size) // 2, size)
    loss = criterion(logits.float(), targets)
    if not others:
        return loss
    if targets.dim() == 1:
        return loss + _AUXILIARY * sum(criterion(other.float(), targets) for other in others)
    for level, other in enumerate(others, 1):
        loss = loss + 2.0**-level * criterion(other.float(), _coarsen(targets, other.shape[2:]))
    return loss / (2.0 - 2.0 ** -len(others))


def _coarsen(targets: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return every so-many-th target along each axis, of ``sizes``."""
    steps = [-(-have // size) for have, size in zip(targets.shape[1:], sizes, strict=True)]
    places = (slice(None), *(slice(None, None, step) for step in steps))
    return targets[places]


def overlap_sums(logits: torch.Tensor, target: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the summed cross-entropy and the soft Dice sums of one piece of an image.

    Args:
        logits: (classes, *spatial) float32.
        target: (*spatial) int64.

    Returns:
        The sum of −log p(target) over voxels, and (3, classes) float64: Σ p·y, Σ p, Σ y.
    """
    log_p = functional.log_softmax(logits, dim=0)
    entropy = functional.nll_loss(log_p[None], target[None], reduction="sum").item()
    p = log_p.exp_().flatten(1)
    classes, flat = p.shape[0], target.flatten()
    hits = p.gather(0, flat[None])[0].double()
    product = torch.zeros(classes, dtype=torch.float64).index_add_(0, flat, hits)
    truth = torch.bincount(flat, minlength=classes).double()
    return entropy, torch.stack([product, p.sum(dim=1, dtype=torch.float64), truth])


def combine_segmentation_loss(entropy: float, sums: torch.Tensor, voxels: int) -> float:
    """Return the training loss of an image from the sums of its pieces (see :func:`overlap_sums`)."""
    product, predicted, truth = sums[:, 1:] if sums.shape[1] > 1 else sums
    # The same 1e-5 as the training loss adds, so an absent and unpredicted class costs nothing.
    dice = (2 * product + 1e-5) / (predicted + truth + 1e-5)
    return entropy / max(voxels, 1) + 1.0 - float(dice.mean())
