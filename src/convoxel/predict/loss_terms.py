"""Losses by word: the terms of each loss, their numbers, and the weights of classes.

A loss is a pointwise term, of every voxel or image alone, plus a regional term, of whole classes, plus a term of
shapes; each may be absent. Training computes the terms of batches, validation those of whole images; configuration and
plan need their names only. Absent on purpose: a term of shapes in validation. Its value depends on the grid and on how
far a patch reaches, and an image is validated on its own grid, piece by piece.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError
from convoxel.files.fault import brief


class _Option(NamedTuple):
    """A number of a loss: its limits, both allowed, and what it means."""

    low: float
    high: float
    words: str


_OPTIONS = {
    "gamma": _Option(0.0, 10.0, "how little certain voxels or images count"),
    "alpha": _Option(0.0, 1.0, "weight of wrongly found voxels"),
    "beta": _Option(0.0, 1.0, "weight of missed voxels"),
    "label_smoothing": _Option(0.0, 0.99, "share of the truth that is spread over all classes"),
    "delta": _Option(1e-6, 1e6, "error in standard deviations above which it counts linearly"),
    "weight": _Option(0.0, 1e6, "weight of the term of shapes"),
    "exponent": _Option(0.1, 4.0, "power of the distances"),
    "iterations": _Option(1.0, 64.0, "erosions of the skeleton: half of the widest tube in voxels"),
}
_WHOLE = ("iterations",)


@dataclass(frozen=True)
class LossTerms:
    """A loss: its terms with their numbers.

    Attributes:
        word: name of the loss.
        pointwise: "cross_entropy", "binary_cross_entropy" (of each class by itself), "focal" (Lin et al. 2017: the mean
            of w·(1 − p)^γ·(−log p)), "squared", "absolute" or "huber" (Huber 1964) of the error of values, or None.
        regional: "dice", "jaccard", "tversky" (Salehi et al. 2017), of all classes but the background; or
            "generalised_dice" (Sudre et al. 2017), of all; or None. Over the batch.
        shape: "hausdorff" (Karimi and Salcudean 2019), "boundary" (Kervadec et al. 2019) or "centreline" (clDice, Shit
            et al. 2021), of all classes but the background; or None. Training alone computes it.
        options: numbers of the terms: ``gamma`` of the focal loss, ``label_smoothing`` of cross-entropies, ``alpha``
            and ``beta``, Tversky's weights of voxels that are wrongly found and that are missed; ``weight`` of the term
            of shapes, ``exponent`` of Hausdorff's distances, ``iterations`` of clDice's skeleton.
        weights: weight of each class in the pointwise term (default None, all 1).
    """

    word: str
    pointwise: Literal["cross_entropy", "focal", "binary_cross_entropy", "squared", "absolute", "huber"] | None = None
    regional: Literal["dice", "jaccard", "generalised_dice", "tversky"] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None
    shape: Literal["hausdorff", "boundary", "centreline"] | None = None


_SMOOTHING, _FOCUS, _SHARES = {"label_smoothing": 0.0}, {"gamma": 2.0}, {"alpha": 0.3, "beta": 0.7}
# Weights with which networks found blobs and tubes from random weights. Of boundaries it is the one that Kervadec et
# al. begin with: 1 leaves small classes empty. With a weight of 1, clDice may stay where everything is of one class.
_DISTANCES, _BOUNDARY = {"weight": 0.1, "exponent": 2.0}, {"weight": 0.01}
_TUBES = {"weight": 0.5, "iterations": 3.0}
#: The loss of images that may have several classes, where none is stated.
MULTI_LABEL = LossTerms("bce", "binary_cross_entropy", options=_SMOOTHING)
#: The losses of each task; the first is its default.
LOSSES: dict[str, tuple[LossTerms, ...]] = {
    "segment": (
        LossTerms("dice_ce", "cross_entropy", "dice", _SMOOTHING),
        LossTerms("dice", regional="dice"),
        LossTerms("ce", "cross_entropy", options=_SMOOTHING),
        LossTerms("bce", "binary_cross_entropy", options=_SMOOTHING),
        LossTerms("focal", "focal", options=_FOCUS),
        LossTerms("tversky", regional="tversky", options=_SHARES),
        LossTerms("generalised_dice", regional="generalised_dice"),
        LossTerms("jaccard", regional="jaccard"),
        LossTerms("dice_bce", "binary_cross_entropy", "dice", _SMOOTHING),
        LossTerms("dice_focal", "focal", "dice", _FOCUS),
        LossTerms("tversky_ce", "cross_entropy", "tversky", {**_SHARES, **_SMOOTHING}),
        LossTerms("tversky_focal", "focal", "tversky", {**_SHARES, **_FOCUS}),
        LossTerms("generalised_dice_ce", "cross_entropy", "generalised_dice", _SMOOTHING),
        LossTerms("generalised_dice_focal", "focal", "generalised_dice", _FOCUS),
        LossTerms("jaccard_ce", "cross_entropy", "jaccard", _SMOOTHING),
        LossTerms("dice_hausdorff", None, "dice", _DISTANCES, shape="hausdorff"),
        LossTerms("dice_boundary", None, "dice", _BOUNDARY, shape="boundary"),
        LossTerms("dice_cldice", None, "dice", _TUBES, shape="centreline"),
        LossTerms("dice_ce_cldice", "cross_entropy", "dice", {**_SMOOTHING, **_TUBES},
                  shape="centreline"),
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
}  # fmt: skip

# Every term in words, with its numbers; {each} stands for what the terms of classes are of.
_WORDS = {
    "squared": "mean squared error of standardised values",
    "absolute": "mean absolute error of standardised values",
    "huber": "Huber's loss of standardised values (delta {delta:g})",
    "binary_cross_entropy": "binary cross-entropy of each {one}",
    "focal": "focal loss (gamma {gamma:g})",
    "dice": "soft Dice of the {each}, over the batch",
    "jaccard": "soft Jaccard index of the {each}, over the batch",
    "generalised_dice": "generalised Dice of {all}, over the batch, each weighed by 1 / (its voxels)²",
    "tversky": "Tversky of the {each}, over the batch (alpha {alpha:g} of wrongly found voxels, "
    "beta {beta:g} of missed ones)",
    "hausdorff": "{weight:g} × squared errors weighed by distances to both boundaries in voxels, to the power of "
    "{exponent:g}",
    "boundary": "{weight:g} × signed distances to the true boundary in voxels, weighed by probabilities",
    "centreline": "{weight:g} × clDice of the {each}, of skeletons by {iterations:g} erosions",
}
_SOURCES = {
    "focal": "Lin et al. 2017",
    "dice": "Drozdzal et al. 2016",
    "jaccard": "Rahman and Wang 2016",
    "generalised_dice": "Sudre et al. 2017",
    "tversky": "Salehi et al. 2017",
    "hausdorff": "Karimi and Salcudean 2019",
    "boundary": "Kervadec et al. 2019",
    "centreline": "Shit et al. 2021",
    "huber": "Huber 1964",
}


@dataclass(frozen=True)
class LossRow:
    """A loss with its task, as ``train --loss list`` shows it.

    Attributes:
        task: task that it is of.
        word: its name.
        words: its terms with the numbers that they have by default.
        options: its numbers with their defaults.
        weighed: whether ``class_weights`` may be given.
        source: where its terms are defined.
    """

    task: str
    word: str
    words: str
    options: str
    weighed: bool
    source: str


def list_losses() -> list[LossRow]:
    """Return every loss of every task.

    >>> [row.word for row in list_losses() if "gamma" in row.options and row.task == "classify"]
    ['focal']
    """
    rows = []
    for task, table in LOSSES.items():
        for terms in table:
            options = (f"{name}={value:g}" for name, value in terms.options.items())
            names = (_SOURCES.get(kind or "", "") for kind in (terms.regional, terms.shape, terms.pointwise))
            words = describe_loss(terms, ()).partition(": ")[2]
            sources = "; ".join(filter(None, names))
            rows.append(LossRow(task, terms.word, words, ", ".join(options), terms.pointwise is not None, sources))
    return rows


def list_options() -> list[tuple[str, str, str]]:
    """Return every number of losses: its name, its limits and what it means."""
    return [(name, f"{option.low:g} … {option.high:g}", option.words) for name, option in _OPTIONS.items()]


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
        near = difflib.get_close_matches(str(config.loss), [terms.word for terms in known], 1)
        raise ConfigError(
            f"loss: got {brief(config.loss)}; expected a loss to {config.task}: {words}"
            + (f". Did you mean {near[0]!r}?" if near else "")
        )
    for name, value in config.loss_options.items():
        if name not in found.options:
            named = ", ".join(found.options) or "none"
            raise ConfigError(f"loss_options: got {brief(name)}; the options of {found.word!r} are: {named}")
        low, high, _ = _OPTIONS[name]
        if not low <= value <= high or (name in _WHOLE and value % 1):
            noun = "a whole number" if name in _WHOLE else "a number"
            raise ConfigError(f"loss_options.{name}: got {value:g}; expected {noun} from {low:g} to {high:g}")
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
    return replace(found, options=options)


def choose_loss(config: LossConfig, dims: int, multi_label: bool = False) -> str:
    """Return the loss that suits the data: the one that is stated, else their default.

    Args:
        config: configuration of the run.
        dims: number of the network's spatial axes.
        multi_label: an image may have several classes (default False).

    Raises:
        ConfigError: as of :func:`find_loss`; the stated one is not for these data.
    """
    if dims == 1 and find_loss(config).shape == "centreline":
        raise ConfigError(
            f"loss: got {brief(config.loss)}, but the data are signals; expected another: clDice compares "
            "centrelines of tubes, which have 2 or 3 axes."
        )
    if config.task != "classify":
        return find_loss(config).word
    if not multi_label:
        return find_loss(config).word
    fitting = [terms.word for terms in LOSSES[config.task] if terms.pointwise != "cross_entropy"]
    if config.loss is not None and config.loss not in fitting:
        raise ConfigError(
            f"loss: got {brief(config.loss)}, but an image may have several classes; expected {' or '.join(fitting)}. "
            "Leave it out, or change it."
        )
    return config.loss or MULTI_LABEL.word


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
    return replace(terms, weights=weights)


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


def class_loss(terms: LossTerms, logits: NDArray[np.float64], truth: int) -> tuple[float, float]:
    """Return the loss of one image of a known class, as training computes it, and its weight in the mean of images.

    Args:
        terms: loss of the run.
        logits: scores of the classes; all but binary cross-entropy ignore a number that is added to all.
        truth: number of the image's class.

    >>> cost, weight = class_loss(LossTerms("ce", "cross_entropy", weights=(1.0, 3.0)), np.log([0.5, 0.5]), 1)
    >>> round(cost / weight, 4)
    0.6931
    """
    if terms.pointwise == "binary_cross_entropy":
        return label_loss(terms, logits, np.arange(len(logits)) == truth), 1.0
    weights = np.array(terms.weights or (1.0,) * len(logits))
    log_p = logits - np.logaddexp.reduce(logits)
    if terms.pointwise == "focal":
        return float(weights[truth] * _focus(terms, -log_p[truth])), 1.0
    smoothing = terms.options.get("label_smoothing", 0.0)
    spread = -float(weights @ log_p) / len(log_p) if smoothing else 0.0  # 0 · ∞ of a class that is impossible
    return float((1 - smoothing) * weights[truth] * -log_p[truth] + smoothing * spread), float(weights[truth])


def label_loss(terms: LossTerms, logits: NDArray[np.float64], held: NDArray[np.bool_]) -> float:
    """Return the loss of one image each of whose classes is there or not, as training computes it.

    Args:
        terms: binary cross-entropy or focal loss with the weights of classes.
        logits: scores of the classes.
        held: whether the image has each class.
    """
    # −log σ(x) of classes that are there, −log(1 − σ(x)) of others, without overflow.
    signed = np.where(held, logits, -logits)
    each = np.logaddexp(0.0, -signed)
    if terms.pointwise == "focal":
        each = _focus(terms, each)
    elif terms.options.get("label_smoothing"):
        each = each + terms.options["label_smoothing"] / 2 * signed  # log(1 + eˣ) = log(1 + e⁻ˣ) + x
    return float((each * np.array(terms.weights or (1.0,))).mean())


def _focus(terms: LossTerms, surprise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (1 − p)^γ·(−log p) of −log p."""
    return np.asarray(np.maximum(-np.expm1(-surprise), 0.0) ** terms.options["gamma"] * surprise)


def describe_loss(terms: LossTerms, classes: Sequence[str], regions: bool = False) -> str:
    """Return a loss in words.

    Args:
        terms: the loss.
        classes: names of the network's channels.
        regions: whether the channels are regions that overlap (default False).

    >>> describe_loss(LossTerms("focal", "focal", options={"gamma": 2.0}, weights=(1.0, 2.5)), ["cat", "dog"])
    'focal: focal loss (gamma 2); weight of a class: cat 1, dog 2.5'
    """
    nouns = {"one": "region", "each": "regions", "all": "all regions"} if regions else \
        {"one": "class", "each": "foreground classes", "all": "all classes"}  # fmt: skip
    options, parts = terms.options, []
    for kind in (terms.pointwise, terms.regional, terms.shape):
        if kind == "cross_entropy" and not regions:
            parts.append("cross-entropy")
        elif kind is not None:
            parts.append(_WORDS["binary_cross_entropy" if kind == "cross_entropy" else kind].format(**nouns, **options))
        if kind == "focal" and regions:
            parts[-1] = parts[-1].replace("loss", "loss of each region")
        smoothing = options.get("label_smoothing")
        if kind in ("cross_entropy", "binary_cross_entropy") and smoothing:
            parts[-1] += f" of labels smoothed by {smoothing:g}"
    words = f"{terms.word}: {' + '.join(parts)}"
    if terms.shape is not None:
        words += " (of training patches; the loss of validation leaves this term out)"
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
