"""Losses by word: the terms of each loss, their numbers, and the weights of classes.

A loss is a pointwise term, of every voxel or image alone, plus a regional term, of whole classes; either may be absent.
Training computes the terms of batches, validation those of whole images; configuration and plan need their names only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError
from convoxel.files.fault import brief

# Smallest and largest value of every option, both allowed.
_LIMITS = {
    "gamma": (0.0, 10.0),
    "alpha": (0.0, 1.0),
    "beta": (0.0, 1.0),
    "label_smoothing": (0.0, 0.99),
    "delta": (1e-6, 1e6),
}


@dataclass(frozen=True)
class LossTerms:
    """A loss: its terms with their numbers.

    Attributes:
        word: name of the loss.
        pointwise: "cross_entropy", "binary_cross_entropy" (of each class by itself), "focal" (Lin et al. 2017: the mean
            of w·(1 − p)^γ·(−log p)), "squared", "absolute" or "huber" (Huber 1964) of the error of values, or None.
        regional: "dice", "tversky" (Salehi et al. 2017), or None; of all classes but the background, over the batch.
        options: numbers of the terms: ``gamma`` of the focal loss, ``label_smoothing`` of the cross-entropy, ``alpha``
            and ``beta``, Tversky's weights of voxels that are wrongly found and that are missed.
        weights: weight of each class in the pointwise term (default None, all 1).
    """

    word: str
    pointwise: Literal["cross_entropy", "focal", "binary_cross_entropy", "squared", "absolute", "huber"] | None = None
    regional: Literal["dice", "tversky"] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None


_SMOOTHING, _FOCUS, _SHARES = {"label_smoothing": 0.0}, {"gamma": 2.0}, {"alpha": 0.3, "beta": 0.7}
#: The loss of images that may have several classes, and of no others.
MULTI_LABEL = LossTerms("bce", "binary_cross_entropy")
#: The losses of each task; the first is its default.
LOSSES: dict[str, tuple[LossTerms, ...]] = {
    "segment": (
        LossTerms("dice_ce", "cross_entropy", "dice", _SMOOTHING),
        LossTerms("dice", regional="dice"),
        LossTerms("ce", "cross_entropy", options=_SMOOTHING),
        LossTerms("focal", "focal", options=_FOCUS),
        LossTerms("tversky", regional="tversky", options=_SHARES),
        LossTerms("dice_focal", "focal", "dice", _FOCUS),
        LossTerms("tversky_ce", "cross_entropy", "tversky", {**_SHARES, **_SMOOTHING}),
    ),
    "classify": (
        LossTerms("ce", "cross_entropy", options={"label_smoothing": 0.05}),
        LossTerms("focal", "focal", options=_FOCUS),
        MULTI_LABEL,
    ),
    # Of values in standard deviations of the training part.
    "regress": (
        LossTerms("mse", "squared"),
        LossTerms("mae", "absolute"),
        LossTerms("huber", "huber", options={"delta": 1.0}),
    ),
}


_ERRORS = {
    "squared": "mean squared error of standardised values",
    "absolute": "mean absolute error of standardised values",
    "huber": "Huber's loss of standardised values (delta {delta:g})",
}


class LossConfig(Protocol):
    """The entries of a run's configuration that say which loss it has."""

    @property
    def task(self) -> str: ...
    @property
    def loss(self) -> str | None: ...
    @property
    def loss_options(self) -> Mapping[str, float]: ...
    @property
    def class_weights(self) -> Literal["balanced"] | Mapping[str, float] | None: ...


def find_loss(config: LossConfig) -> LossTerms:
    """Return the loss that a configuration names, with its numbers but without the weights of classes.

    Raises:
        ConfigError: the task has no such loss, the loss has no such option or no pointwise term that classes could
            weigh in, or a number is out of range.
    """
    known = LOSSES[config.task]
    found = next((terms for terms in known if terms.word == (config.loss or known[0].word)), None)
    if found is None:
        words = ", ".join(terms.word for terms in known)
        raise ConfigError(f"loss: got {brief(config.loss)}; expected a loss to {config.task}: {words}")
    for name, value in config.loss_options.items():
        if name not in found.options:
            named = ", ".join(found.options) or "none"
            raise ConfigError(f"loss_options: got {brief(name)}; the options of {found.word!r} are: {named}")
        low, high = _LIMITS[name]
        if not low <= value <= high:
            raise ConfigError(f"loss_options.{name}: got {value:g}; expected a number from {low:g} to {high:g}")
    options = {**found.options, **config.loss_options}
    if found.regional == "tversky" and not options["alpha"] + options["beta"]:
        raise ConfigError("loss_options: alpha and beta are 0, so no mistake costs anything; expected one above 0")
    if config.class_weights == "balanced" and config.task == "regress":
        raise ConfigError("class_weights: got balanced, but values have no classes; state a number for each target.")
    if config.class_weights is not None and found.pointwise is None:
        weighed = ", ".join(terms.word for terms in known if terms.pointwise)
        raise ConfigError(
            f"class_weights: given with the loss {found.word!r}, which has no term of single voxels; leave them out, "
            f"or expected a loss that they weigh in: {weighed}"
        )
    return LossTerms(found.word, found.pointwise, found.regional, options)


def choose_loss(config: LossConfig, multi_label: bool = False) -> str:
    """Return the loss that suits the data: the one that is stated, else their default.

    Raises:
        ConfigError: as of :func:`find_loss`; the stated one is not for these data.
    """
    if config.task != "classify":
        return find_loss(config).word
    if multi_label != (config.loss == MULTI_LABEL.word) and not (multi_label and config.loss is None):
        why = "an image may have several classes" if multi_label else "every image has one class"
        others = [terms.word for terms in LOSSES[config.task] if terms is not MULTI_LABEL]
        expected = MULTI_LABEL.word if multi_label else " or ".join(others)
        raise ConfigError(
            f"loss: got {brief(config.loss)}, but {why}; expected {expected}. Leave it out, or change it."
        )
    return MULTI_LABEL.word if multi_label else find_loss(config).word


def plan_loss(config: LossConfig, classes: Sequence[str], counts: Sequence[int]) -> LossTerms:
    """Return the loss of a run with the weight of each class.

    Args:
        config: configuration of the run.
        classes: names of its classes.
        counts: voxels (to segment) or images (to classify) of each class in the training part.

    Raises:
        ConfigError: as of :func:`find_loss`; a weight is stated for an unknown class.
    """
    terms, stated = find_loss(config), config.class_weights
    if stated is None:
        return terms
    if stated == "balanced":
        weights = _balance(counts)
    else:
        unknown = [name for name in stated if name not in classes]
        if unknown:
            raise ConfigError(
                f"class_weights: got {brief(unknown[0])}; expected names of classes: {', '.join(classes[:12])}"
                f"{', …' if len(classes) > 12 else ''}."
            )
        weights = tuple(float(stated.get(name, 1.0)) for name in classes)
    return LossTerms(terms.word, terms.pointwise, terms.regional, terms.options, weights)


def value_loss(terms: LossTerms, error: NDArray[np.float64]) -> float:
    """Return the loss of one image's standardised errors (targets,), as training computes it.

    >>> value_loss(LOSSES["regress"][2], np.array([0.5, -3.0]))
    1.3125
    """
    size = np.abs(error)
    each = {"squared": size**2, "absolute": size}.get(terms.pointwise or "")
    if each is None:
        delta = terms.options["delta"]
        each = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return float((each * np.array(terms.weights or (1.0,))).mean())


def class_loss(terms: LossTerms, log_p: NDArray[np.float64], truth: int) -> tuple[float, float]:
    """Return the loss of one image of a known class, as training computes it, and its weight in the mean of images.

    Args:
        terms: cross-entropy or focal loss with their numbers.
        log_p: logarithms of the probabilities of the classes.
        truth: number of the image's class.

    >>> cost, weight = class_loss(LossTerms("ce", "cross_entropy", weights=(1.0, 3.0)), np.log([0.5, 0.5]), 1)
    >>> round(cost / weight, 4)
    0.6931
    """
    weights = np.array(terms.weights or (1.0,) * len(log_p))
    if terms.pointwise == "focal":
        doubt = max(-math.expm1(float(log_p[truth])), 0.0)
        return float(weights[truth] * doubt ** terms.options["gamma"] * -log_p[truth]), 1.0
    smoothing = terms.options.get("label_smoothing", 0.0)
    spread = -float(weights @ log_p) / len(log_p) if smoothing else 0.0  # 0 · ∞ of a class that is impossible
    return float((1 - smoothing) * weights[truth] * -log_p[truth] + smoothing * spread), float(weights[truth])


def label_loss(terms: LossTerms, logits: NDArray[np.float64], held: NDArray[np.bool_]) -> float:
    """Return the loss of one image that may have several classes, as training computes it.

    Args:
        terms: binary cross-entropy with the weights of classes.
        logits: scores of the classes.
        held: whether the image has each class.
    """
    # −log σ(x) of classes that are there, −log(1 − σ(x)) of others, without overflow.
    each = np.logaddexp(0.0, np.where(held, -logits, logits))
    return float((each * np.array(terms.weights or (1.0,))).mean())


def describe_loss(terms: LossTerms, classes: Sequence[str], regions: bool = False) -> str:
    """Return a loss in words.

    Args:
        terms: the loss.
        classes: names of the network's channels.
        regions: whether the channels are regions that overlap (default False).

    >>> describe_loss(LossTerms("focal", "focal", options={"gamma": 2.0}, weights=(1.0, 2.5)), ["cat", "dog"])
    'focal: focal loss (gamma 2); weight of a class: cat 1, dog 2.5'
    """
    options, parts = terms.options, []
    if terms.pointwise == "cross_entropy":
        smoothing = options.get("label_smoothing")
        kind = "binary cross-entropy of each region" if regions else "cross-entropy"
        parts.append(kind + (f" of labels smoothed by {smoothing:g}" if smoothing else ""))
    elif terms.pointwise == "binary_cross_entropy":
        parts.append("binary cross-entropy of each class")
    elif terms.pointwise in _ERRORS:
        parts.append(_ERRORS[terms.pointwise].format(**options))
    elif terms.pointwise == "focal":
        parts.append(f"focal loss{' of each region' * regions} (gamma {options['gamma']:g})")
    kind = "regions" if regions else "foreground classes"
    if terms.regional == "dice":
        parts.append(f"soft Dice of the {kind}, over the batch")
    elif terms.regional == "tversky":
        shares = f"alpha {options['alpha']:g} of wrongly found voxels, beta {options['beta']:g} of missed ones"
        parts.append(f"Tversky of the {kind}, over the batch ({shares})")
    words = f"{terms.word}: {' + '.join(parts)}"
    if terms.weights is None:
        return words
    listed = ", ".join(f"{name} {weight:.4g}" for name, weight in list(zip(classes, terms.weights, strict=True))[:12])
    return f"{words}; weight of a class: {listed}{', …' if len(classes) > 12 else ''}"


def _balance(counts: Sequence[int]) -> tuple[float, ...]:
    """Return N / (K·n) for each class; of classes that occur, so that those that are absent shift no weight.

    >>> _balance([30, 10, 0])
    (0.6666666666666666, 2.0, 1.0)
    """
    occurring = sum(count > 0 for count in counts)
    if not occurring:
        raise ConfigError("class_weights: got balanced, but the run knows no counts of its classes. State numbers.")
    total = sum(counts)
    return tuple(total / (occurring * count) if count else 1.0 for count in counts)
