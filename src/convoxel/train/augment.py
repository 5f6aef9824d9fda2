"""Random changes of training samples that keep their labels true: MONAI's transforms, seeded per sample.

Interpolation costs most (about 7 ms for 48³ voxels, a tenth of a training step), so only some samples are rotated and
scaled; intensity changes cost almost nothing and are more frequent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.fork import renewed_lock
from convoxel.train.config import TrainConfig

if TYPE_CHECKING:
    from monai.transforms import RandomizableTransform

    _Change = tuple[str, RandomizableTransform]  # in words, and as a function


class Augmentation:
    """A random change, a function of its arguments alone: the same seed gives the same change.

    Args:
        config: planned configuration (``task``, ``flip_axes``, ``patch``).
        spacing_mm: voxel spacing per axis (default None, square pixels). Planes that contain a thick axis are not
            rotated, because a voxel there would be spread over several.

    Attributes:
        words: the changes in words, without the mirroring.
    """

    def __init__(self, config: TrainConfig, spacing_mm: Sequence[float] | None = None) -> None:
        self.labelled = config.task == "segment"
        dims = len(config.patch or ())
        changes = [*_geometry(config, dims, spacing_mm), *_intensities(config, dims)]
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


def _geometry(config: TrainConfig, dims: int, spacing_mm: Sequence[float] | None) -> list[_Change]:
    """Return flips, and small rotations, scalings and (for classification, which has no label map) shifts."""
    from monai.transforms import RandAffined, RandFlipd

    labelled = config.task == "segment"
    keys = ["image", "label"] if labelled else ["image"]
    steps: list[_Change] = [("", RandFlipd(keys, prob=0.5, spatial_axis=axis)) for axis in config.flip_axes or ()]
    if dims < 2:
        return steps
    degrees, scale, shift = 15 if labelled else 10, 0.15, 0.08
    angles, scales = _angles(dims, math.radians(degrees), spacing_mm), [(-scale, scale)] * dims
    plane = " in the plane of the thin axes" if dims == 3 and 0.0 in angles else ""
    if config.slices is not None:  # a few slices are turned and scaled as one picture
        angles = [math.radians(degrees) * (axis == config.slice_axis) for axis in range(dims)]
        scales[config.slice_axis or 0], plane = (0.0, 0.0), " in the plane of the slices"
    moved = "" if labelled else f", shifts up to {100 * shift:g} % of the image"
    change = RandAffined(
        keys,
        prob=0.3 if labelled else 0.7,
        rotate_range=angles,
        scale_range=scales,
        translate_range=None if labelled else [shift * side for side in config.patch or ()],
        mode=["bilinear", "nearest"][: len(keys)],
        padding_mode="border",
    )
    return [*steps, (f"rotations up to {degrees}°{plane}, scaling by up to {100 * scale:g} %{moved}", change)]


def _angles(dims: int, angle: float, spacing_mm: Sequence[float] | None) -> list[float]:
    """Return the largest rotation about each axis of a volume, or one number in the plane."""
    if dims == 2:
        return [angle]
    if spacing_mm is None or max(spacing_mm) <= 2 * min(spacing_mm):
        return [angle] * dims
    thick = max(range(dims), key=lambda axis: spacing_mm[axis])
    return [angle if axis == thick else 0.0 for axis in range(dims)]


def _intensities(config: TrainConfig, dims: int) -> list[_Change]:
    """Return contrast, brightness, gamma, noise and blur, in units of the image's standard deviation.

    Volumes that share one normalisation have comparable intensities, which distinguish tissues: grey and white matter
    differ by 1.3 units. Changes as large as those between scanners would teach the network to rely on places instead
    (Dice of white matter behind the training part of a head: 0.84 instead of 0.94). To regress, contrast and brightness
    stay as they are, since values may follow them.
    """
    from monai import transforms

    labelled = config.task == "segment"
    comparable = labelled and dims == 3 and config.normalise == "dataset"
    strength = 0.2 if comparable else 1.0
    blur = (0.4, 0.9)
    noise = ("noise", transforms.RandGaussianNoised("image", prob=0.15, std=0.15 * strength))
    if config.task == "regress":  # intensities may be what the values follow
        return [noise]
    steps: list[_Change] = [
        ("contrast", transforms.RandScaleIntensityd("image", factors=0.2 * strength, prob=0.3)),
        ("brightness", transforms.RandShiftIntensityd("image", offsets=0.2 * strength, prob=0.3)),
        noise,
    ]
    if labelled and not comparable:
        steps.append(("gamma", transforms.RandAdjustContrastd("image", prob=0.2, gamma=(0.7, 1.5))))
        if dims == 3 and config.slices is None:
            smooth = transforms.RandGaussianSmoothd("image", prob=0.1, sigma_x=blur, sigma_y=blur, sigma_z=blur)
            steps.append(("blur", smooth))
    return steps
