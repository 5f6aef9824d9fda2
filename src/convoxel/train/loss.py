"""Losses of classification and segmentation on training batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_SMOOTHING = 0.05
#: What :func:`build_loss` returns, in words.
LOSS_WORDS = {
    "segment": "cross-entropy + soft Dice of the foreground classes, over the batch",
    "classify": f"cross-entropy, labels smoothed by {_SMOOTHING:g}",
}

# Szegedy et al. 2015, section 5: the weight of the losses of auxiliary classifiers.
_AUXILIARY = 0.3


def build_loss(task: str, *, deterministic: bool = False) -> Loss:
    """Return the loss ``(logits, targets) → scalar`` of a task.

    "classify": cross-entropy with label smoothing 0.05; logits (n, classes), targets (n,) int64.
    "segment": cross-entropy plus soft Dice of the foreground classes over the whole batch
    (MONAI's DiceCELoss); logits (n, classes, *spatial), targets (n, *spatial) int64.

    Args:
        task: "classify" or "segment".
        deterministic: sum on GPUs in one order; PyTorch adds the cross-entropies of images as they come
            (default False).
    """
    if task == "classify":
        return torch.nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    from monai.losses import DiceCELoss, DiceLoss

    # Dice over the batch, not per patch: a patch that lacks a class would otherwise push hard on noise.
    kind = DiceLoss if deterministic else DiceCELoss
    criterion = kind(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = criterion(logits, targets[:, None])
        if deterministic:  # of rows, one a voxel, the sum has an order
            value = value + torch.nn.functional.cross_entropy(logits.movedim(1, -1).flatten(0, -2), targets.flatten())
        return value

    return loss


def measure_loss(criterion: Loss, found: torch.Tensor | Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of a network's output in training.

    Args:
        criterion: loss that :func:`build_loss` returned.
        found: logits (n, classes, *spatial), or several tensors: the first is the network's answer. Further ones
            come from auxiliary classifiers, with a weight of 0.3 each, or from coarser levels: the l-th has the weight
            2⁻ˡ and is compared with equally spaced targets (Isensee et al. 2021); the weights of levels sum to one.
        targets: (n,) or (n, *spatial) int64; where logits lack a border, those in the middle are used.

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
    steps = [-(-have // size) for have, size in zip(targets.shape[1:], sizes, strict=True)]
    places = (slice(None), *(slice(None, None, step) for step in steps))
    return targets[places]
