"""Random changes of training samples that keep their labels true: MONAI's transforms, seeded per sample.

Interpolation costs most (about 7 ms for 48³ voxels, a tenth of a training step), so only some samples are rotated and
scaled; intensity changes cost almost nothing and are more frequent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from convoxel.fork import renewed_lock
from convoxel.train.change_strength import Strength, Strengths, choose_strengths
from convoxel.train.config import TrainConfig


class RandomChange(Protocol):
    """A random change, MONAI's or our own: a function of a sample that draws from the generator given to it."""

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> object:
        """Draw from ``state``."""
        ...

    def __call__(self, sample: Any, /) -> Any:
        """Return the changed sample."""
        ...


_Change: TypeAlias = tuple[str, RandomChange]  # in words, and as a function


class Augmentation:
    """A random change, a function of its arguments alone: the same seed gives the same change.

    Args:
        config: planned configuration (``task``, ``augment``, ``flip_axes``, ``patch``).
        spacing_mm: voxel spacing per axis (default None, square pixels). Planes that contain a thick axis are not
            rotated, because a voxel there would be spread over several.

    Attributes:
        words: the changes in words, without the mirroring.
    """

    def __init__(self, config: TrainConfig, spacing_mm: Sequence[float] | None = None) -> None:
        self.labelled = config.task == "segment"
        dims = len(config.patch or ())
        strengths = choose_strengths(config, dims)
        changes = [*_geometry(config, strengths, dims, spacing_mm), *_intensities(config, strengths, dims)]
        self._changes = [change for _, change in changes]
        self.words = tuple(words for words, _ in changes if words)
        # All transforms draw from one generator, seeded once per sample: seeding the ten of them one by one,
        # as MONAI's Compose does, takes longer than changing a thumbnail.
        self._generator = np.random.RandomState(0)
        for change in self._changes:
            change.set_random_state(state=self._generator)

    def __call__(
        self, image: NDArray[np.float32], label: NDArray[np.uint8] | None, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return the changed image (channels, *spatial) and label (*spatial) or None."""
        sample = {"image": torch.from_numpy(image)}
        if self.labelled and label is not None:
            sample["label"] = torch.from_numpy(label)[None]
        self._generator.seed(seed)
        with _PLAIN_TENSORS:
            for change in self._changes:
                sample = change(sample)
        if "label" in sample:
            label = np.ascontiguousarray(np.asarray(sample["label"]), np.uint8)[0]
        return np.ascontiguousarray(np.asarray(sample["image"]), np.float32), label


class _PlainTensors:
    """A context in which MONAI works on plain tensors: its metadata doubles the cost of small transforms.

    The switch belongs to the whole process, so the first thread that enters turns the metadata off and the last one
    that leaves restores it; a thread during which it changed would see tensors of both kinds.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = renewed_lock(), 0, True

    def __enter__(self) -> None:
        from monai.data import get_track_meta, set_track_meta

        with self._lock:
            if self._inside == 0:
                self._before = get_track_meta()
                set_track_meta(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        from monai.data import set_track_meta

        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                set_track_meta(self._before)


_PLAIN_TENSORS = _PlainTensors()


def _geometry(
    config: TrainConfig, strengths: Strengths, dims: int, spacing_mm: Sequence[float] | None
) -> list[_Change]:
    """Return flips, one warp that turns, scales, shears and shifts, and one that stretches elastically."""
    from monai.transforms import RandAffined, RandFlipd

    labelled = config.task == "segment"
    keys = ["image", "label"] if labelled else ["image"]
    modes = ["bilinear", "nearest"][: len(keys)]
    patch = config.patch or ()
    steps: list[_Change] = []
    if config.augment.mirrors:
        steps += [("", RandFlipd(keys, prob=0.5, spatial_axis=axis)) for axis in config.flip_axes or ()]
    angle, scale, shear, shift = (strengths[name] for name in ("rotate", "scale", "shear", "shift"))
    plane, angles, zooms = "", _angles(dims, math.radians(angle.most), spacing_mm), [_zoom(scale)] * dims
    shears = [shear.most] * (dims * (dims - 1))
    shifts = [shift.most if shift.is_stated else shift.most * side for side in patch]
    if dims == 3 and 0.0 in angles and angle.most:
        plane = " in the plane of the thin axes"
    if config.slices is not None:  # a few slices are turned and scaled as one picture
        axis = config.slice_axis or 0
        angles = [math.radians(angle.most) * (each == axis) for each in range(dims)]
        zooms[axis], shifts[axis], plane = (0.0, 0.0), 0.0, " in the plane of the slices"
        pairs = [(row, column) for row in range(dims) for column in range(dims) if row != column]
        shears = [0.0 if axis in pair else shear.most for pair in pairs]
    words = [
        *([f"rotations up to {angle.most:g}°{plane}"] if dims > 1 and angle.most else []),
        *([f"scaling by {scale.low:.3g} to {scale.high:.3g}"] if scale.high > 1 or scale.low < 1 else []),
        *([f"shear up to {shear.most:g}"] if dims > 1 and shear.most else []),
        *([f"shifts up to {_distance(shift)}"] if shift.most else []),
    ]
    if words:
        change: RandomChange = RandAffined(
            keys,
            prob=max(each.chance for each in (angle, scale, shear, shift) if each.is_on),
            rotate_range=angles if dims > 1 else [0.0],
            scale_range=zooms if dims > 1 else [(0.0, 0.0), *zooms],
            shear_range=shears if dims > 1 else None,
            translate_range=shifts if dims > 1 else [0.0, *shifts],
            mode=modes,
            padding_mode="border",
        )
        steps.append((", ".join(words), change if dims > 1 else AsPicture(change)))
    if strengths["elastic"].is_on:
        elastic = strengths["elastic"]
        steps.append((f"elastic stretching up to {elastic.most:g} pixels", Elastic(keys, elastic.most, elastic.chance)))
    return steps


def _zoom(scale: Strength) -> tuple[float, float]:
    """Return the range of MONAI's scale, which is that of the sampled grid, minus one."""
    return 1.0 / scale.high - 1.0, 1.0 / scale.low - 1.0


def _distance(shift: Strength) -> str:
    return f"{shift.most:g} pixels" if shift.is_stated else f"{100 * shift.most:g} % of the image"


def _angles(dims: int, angle: float, spacing_mm: Sequence[float] | None) -> list[float]:
    """Return the largest rotation about each axis of a volume, or one number in the plane."""
    if dims < 3:
        return [angle]
    if spacing_mm is None or max(spacing_mm) <= 2 * min(spacing_mm):
        return [angle] * dims
    thick = max(range(dims), key=lambda axis: spacing_mm[axis])
    return [angle if axis == thick else 0.0 for axis in range(dims)]


def _intensities(config: TrainConfig, strengths: Strengths, dims: int) -> list[_Change]:
    """Return contrast, brightness, noise, gamma, blur, low resolution and erased parts.

    Strengths are in units of the image's standard deviation, which normalisation makes 1.
    """
    from monai import transforms

    found: list[_Change] = []

    def add(name: str, make: Callable[[Strength], RandomChange], words: str = "") -> None:
        strength = strengths[name]
        if strength.is_on:
            found.append((words or name, make(strength)))

    def blur(strength: Strength) -> RandomChange:
        width = (strength.low, strength.high)
        return transforms.RandGaussianSmoothd("image", width, width, width, prob=strength.chance)

    def gamma(strength: Strength) -> RandomChange:
        return transforms.RandAdjustContrastd("image", prob=strength.chance, gamma=(strength.low, strength.high))

    def coarsen(strength: Strength) -> RandomChange:
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
        zoom = (strength.low, 1.0)
        return transforms.RandSimulateLowResolutiond("image", strength.chance, "nearest-exact", mode, zoom_range=zoom)

    def erase(strength: Strength) -> RandomChange:
        most = [max(1, round(side * strength.most ** (1 / dims))) for side in config.patch or ()]
        return transforms.RandCoarseDropoutd(
            "image", 1, [1] * dims, fill_value=0.0, max_holes=1, max_spatial_size=most, prob=strength.chance
        )

    add("contrast", lambda s: transforms.RandScaleIntensityd("image", factors=s.most, prob=s.chance))
    add("brightness", lambda s: transforms.RandShiftIntensityd("image", offsets=s.most, prob=s.chance))
    add("noise", lambda s: transforms.RandGaussianNoised("image", prob=s.chance, std=s.most))
    add("gamma", gamma)
    add("blur", blur)
    add("low_resolution", coarsen, "low resolution")
    add("erase", erase, "erased parts")
    return found


class AsPicture:
    """A transform of pictures for signals, which become pictures of one row."""

    def __init__(self, change: RandomChange) -> None:
        self.change = change

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> AsPicture:
        """Draw from ``state``."""
        self.change.set_random_state(seed, state)
        return self

    def __call__(self, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the changed sample."""
        found = self.change({name: value[:, None] for name, value in sample.items()})
        return {name: value[:, 0] for name, value in found.items()}


class Elastic:
    """Random elastic stretching: displacements at every eighth pixel, and between them linear ones.

    Args:
        keys: image, and label where there is one, which is sampled at the nearest pixel.
        most: largest displacement along each axis in pixels.
        chance: share of samples that are stretched.
    """

    _STEP = 8

    def __init__(self, keys: Sequence[str], most: float, chance: float) -> None:
        self.keys, self.most, self.chance = keys, most, chance
        self._random = np.random.RandomState(0)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Elastic:
        """Draw from ``state``."""
        self._random = state if state is not None else np.random.RandomState(seed)
        return self

    def __call__(self, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the changed sample; arrays are (channels, *spatial)."""
        if self._random.uniform() >= self.chance:
            return sample
        size = sample["image"].shape[1:]
        flat = len(size) == 1
        knots = [-(-side // self._STEP) + 1 for side in size]
        drawn = torch.from_numpy(self._random.uniform(-self.most, self.most, (1, len(size), *knots)).astype(np.float32))
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        moved = functional.interpolate(drawn, size, mode=mode, align_corners=True)[0]
        axes = [torch.arange(side, dtype=torch.float32) for side in size]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + moved
        scaled = [2 * place / max(side - 1, 1) - 1 for place, side in zip(places, size, strict=True)]
        grid = torch.stack([*scaled[::-1], *([torch.zeros_like(scaled[0])] if flat else [])], dim=-1)[None]
        found = dict(sample)
        for key in self.keys:
            value = sample[key][None].float()
            interpolation = "nearest" if key == "label" else "bilinear"
            taken = functional.grid_sample(
                value[:, :, None] if flat else value,
                grid[:, None] if flat else grid,
                mode=interpolation,
                padding_mode="border",
                align_corners=True,
            )
            found[key] = (taken[:, :, 0] if flat else taken)[0].to(sample[key].dtype)
        return found
