"""The strength and the chance of each random change of a sample, by level and as stated.

Absent on purpose: making changes (:mod:`convoxel.train.augment`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from convoxel.train.config import AugmentConfig, TrainConfig


class Strength(NamedTuple):
    """The range of a change and the share of samples that it changes.

    Attributes:
        low, high: range of the change; where only a largest value counts, it is ``high``.
        chance: share of samples that are changed.
        is_stated: whether the configuration states the range.
    """

    low: float
    high: float
    chance: float
    is_stated: bool = False

    @property
    def most(self) -> float:
        """Largest value."""
        return self.high

    @property
    def is_on(self) -> bool:
        """True if anything is changed."""
        return self.chance > 0


Strengths: TypeAlias = Mapping[str, Strength]
_Rows: TypeAlias = Mapping[str, tuple[float, float, float]]

_OFF = Strength(0.0, 0.0, 0.0)
_NO_SCALE = Strength(1.0, 1.0, 0.0)
# Least value, largest value and share of samples. Interpolation costs most, so only some samples are warped.
_LIGHT_MAPS: _Rows = {
    "rotate": (0, 15, 0.3), "scale": (1 / 1.15, 1 / 0.85, 0.3), "contrast": (0, 0.2, 0.3), "brightness": (0, 0.2, 0.3),
    "noise": (0, 0.15, 0.15), "gamma": (0.7, 1.5, 0.2), "blur": (0.4, 0.9, 0.1),
}  # fmt: skip
_LIGHT_IMAGES: _Rows = {
    "rotate": (0, 10, 0.7), "scale": (1 / 1.15, 1 / 0.85, 0.7), "shift": (0, 0.08, 0.7), "contrast": (0, 0.2, 0.3),
    "brightness": (0, 0.2, 0.3), "noise": (0, 0.15, 0.15),
}  # fmt: skip
# Isensee et al. 2021, supplementary note 4, with the chances of nnU-Net's second version; its noise has a variance of
# up to 0.1, of which 0.2 is the usual deviation.
_STRONG_MAPS: _Rows = {
    "rotate": (0, 30, 0.3), "scale": (0.7, 1.4, 0.3), "contrast": (0, 0.25, 0.3), "brightness": (0, 0.25, 0.15),
    "noise": (0, 0.2, 0.1), "gamma": (0.7, 1.5, 0.3), "blur": (0.5, 1.0, 0.2), "low_resolution": (0.5, 1, 0.25),
}  # fmt: skip
_STRONG_IMAGES: _Rows = {
    "rotate": (0, 15, 0.8), "scale": (0.75, 1.33, 0.8), "shear": (0, 0.1, 0.8), "shift": (0, 0.12, 0.8),
    "contrast": (0, 0.4, 0.5), "brightness": (0, 0.4, 0.5), "noise": (0, 0.15, 0.15), "erase": (0, 0.25, 0.25),
}  # fmt: skip
_LEVELS: Mapping[tuple[str, bool], _Rows] = {
    ("none", True): {}, ("light", True): _LIGHT_MAPS, ("strong", True): _STRONG_MAPS,
    ("none", False): {}, ("light", False): _LIGHT_IMAGES, ("strong", False): _STRONG_IMAGES,
}  # fmt: skip
#: Names of the changes, as :class:`~convoxel.train.config.AugmentConfig` has them.
CHANGES = (
    "rotate", "scale", "shear", "shift", "elastic", "contrast", "brightness", "noise", "gamma", "blur",
    "low_resolution", "erase",
)  # fmt: skip
_INTENSITIES = frozenset({"contrast", "brightness", "noise", "gamma", "blur"})
_CHANCE = 0.3  # of a change that the level does not have


def choose_strengths(config: TrainConfig, dims: int) -> Strengths:
    """Return the strength of every change.

    Volumes that share one normalisation have comparable intensities, which distinguish tissues: grey and white matter
    differ by 1.3 units. Changes as large as those between scanners would teach the network to rely on places instead
    (Dice of white matter behind the training part of a head: 0.84 instead of 0.94). To regress, intensities but for
    noise stay as they are, since values may follow them. What the configuration states holds in any case.

    Args:
        config: planned configuration.
        dims: number of spatial axes.
    """
    labelled = config.task == "segment"
    rows = dict(_LEVELS[config.augment.level, labelled])
    comparable = labelled and dims == 3 and config.normalise in ("dataset", "ct")
    light = config.augment.level == "light"
    if comparable:
        for name in ("contrast", "brightness", "noise"):
            if name in rows:
                low, high, chance = rows[name]
                rows[name] = (low, 0.2 * high, chance)
        rows.pop("gamma", None)
        rows.pop("blur", None)
    if light and (dims != 3 or config.slices is not None):  # where structures of a pixel matter
        rows.pop("blur", None)
    if config.task == "regress":
        for name in _INTENSITIES - {"noise"}:
            rows.pop(name, None)
    if dims == 1 and light:
        for name in ("rotate", "scale", "shift"):
            rows.pop(name, None)
    return {name: _strength(config.augment, name, rows) for name in CHANGES}


def _strength(stated: AugmentConfig, name: str, rows: _Rows) -> Strength:
    value = getattr(stated, name)
    blank = _NO_SCALE if name == "scale" else _OFF
    if value is None:
        return Strength(*rows[name]) if name in rows else blank
    low, high = value if isinstance(value, tuple) else (value, 1.0) if name == "low_resolution" else (0.0, value)
    nothing = (low, high) == (1.0, 1.0) or high == 0
    chance = rows[name][2] if name in rows else _CHANCE
    return blank if nothing else Strength(low, high, stated.chance or chance, True)
