"""Clean-up of label maps: connected components that are kept or removed, and holes that are filled.

Voxels of a class that share a face, an edge or a corner are one component (26 neighbours in a volume, 8 in a plane).
Background that touches no border of the image by faces alone is a hole. Removed voxels become background, before holes
are filled. SciPy finds the components, within the box that a class takes, so that memory is that of the box.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convoxel.data.data_set import Sample
from convoxel.data.geometry import own_spacing
from convoxel.errors import ConfigError
from convoxel.files.fault import brief, fault
from convoxel.files.file_array import FileArray
from convoxel.files.memory import check_memory
from convoxel.predict.prediction_rule import LargestComponent

Labels = NDArray[np.uint8]
Box = tuple[slice, ...]

#: Words for ``keep_largest`` beside names of classes.
EACH, TOGETHER = "all", "foreground"
_MM = {"ml": (3, 1000.0), "cm3": (3, 1000.0), "mm3": (3, 1.0), "cm2": (2, 100.0), "mm2": (2, 1.0)}  # axes, mm to them
_COUNTS = ("", "voxel", "voxels", "pixel", "pixels", "sample", "samples")
_SIZE = re.compile(r"(?:(.*)=)?\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*[23]?)\s*", re.IGNORECASE)
_BYTES = 7  # of a voxel of a box: the number of its component and some masks


@dataclass(frozen=True)
class LeastSize:
    """The size below which a component of a class is removed; an empty name stands for every class."""

    name: str
    amount: float
    unit: str


@dataclass
class Change:
    """Numbers of components removed from a class and of holes that it filled, and of their voxels."""

    removed: int = 0
    removed_voxels: int = 0
    filled: int = 0
    filled_voxels: int = 0


@dataclass(frozen=True)
class CleanUp:
    """Rules by which label maps are cleaned up; without any, they stay as they are.

    Attributes:
        keep_largest: classes of which the largest component stays ("all": each class), or "foreground": of all classes
            taken together.
        least: sizes below which components are removed.
        fill_holes: whether enclosed background becomes the class that has the most faces around it.
    """

    keep_largest: tuple[str, ...] = ()
    least: tuple[LeastSize, ...] = field(default=())
    fill_holes: bool = False

    def __bool__(self) -> bool:
        return bool(self.keep_largest or self.least or self.fill_holes)

    @classmethod
    def build(
        cls,
        keep_largest: str | Sequence[str] | None = None,
        min_volume: str | float | None = None,
        fill_holes: bool = False,
    ) -> CleanUp:
        """Return the rules that words state.

        Args:
            keep_largest: "all", "foreground", or names of classes, joined by commas or as a list (default: none).
            min_volume: least size of a component, such as "0.5ml", "20mm2" or "30" (voxels), for every class, or
                "liver=2ml,tumour=5voxels" (default: none).
            fill_holes: fill enclosed background (default False).

        Raises:
            ConfigError: a size is none.

        >>> CleanUp.build("liver", "0.5ml").least
        (LeastSize(name='', amount=0.5, unit='ml'),)
        """
        given = keep_largest.split(",") if isinstance(keep_largest, str) else keep_largest or ()
        sizes = () if min_volume is None else str(min_volume).split(",")
        names = tuple(name.strip() for name in given)
        return cls(tuple(filter(None, names)), tuple(map(_parse_size, sizes)), bool(fill_holes))

    def check(self, classes: Sequence[str], dims: int) -> None:
        """Raise ConfigError where a rule names no class or a size that images of ``dims`` axes do not have."""
        named = [("keep_largest", name) for name in self.keep_largest if name not in (EACH, TOGETHER)]
        named += [("min_volume", rule.name) for rule in self.least if rule.name]
        for argument, name in named:
            if name not in classes[1:]:
                words = [EACH, TOGETHER] if argument == "keep_largest" else []
                known = ", ".join(dict.fromkeys([*words, *classes[1:]]))  # a class may be called foreground
                raise ConfigError(f"{argument}: got {brief(name)}; expected {known} (classes of the run).")
        if len(self.keep_largest) > 1 and {EACH, TOGETHER} & set(self.keep_largest):
            raise ConfigError(f"keep_largest: got {','.join(self.keep_largest)}; expected one word, or names alone.")
        for rule in self.least:
            axes = _MM[rule.unit][0] if rule.unit in _MM else dims
            if axes != dims:
                fitting = [unit for unit, (count, _) in _MM.items() if count == dims]
                raise ConfigError(
                    f"min_volume: got a size in {rule.unit}, and the images have {dims} spatial axes; expected "
                    f"{' or '.join([*fitting, 'a number of voxels'])}."
                )
        if self.fill_holes and dims == 1:
            raise ConfigError("fill_holes: given for signals, in which nothing encloses; expected images or volumes.")

    def apply(self, label: Labels, classes: Sequence[str], sample: Sample) -> dict[str, Change]:
        """Clean up class numbers (*spatial) in place and return what changed, by class; classes as before are left out.

        Args:
            label: class numbers.
            classes: names by class number.
            sample: the image, whose spacing tells sizes.

        Raises:
            DataError: a size is asked for in mm, and the image tells no spacing; or the memory does not suffice.
        """
        from scipy.ndimage import find_objects

        changes = {number: Change() for number in range(1, len(classes))}
        least = self._least_voxels(classes, sample)
        boxes = find_objects(label, max_label=len(classes) - 1)
        for number, box in enumerate(boxes, start=1):
            alone = EACH in self.keep_largest or classes[number] in self.keep_largest
            if box is not None and (alone or number in least):
                _check_room(sample, label[box])
                _drop(label[box], label[box] == number, alone, least.get(number, 0.0), changes)
        inside = _union(boxes)
        if inside is not None and TOGETHER in self.keep_largest:
            _check_room(sample, label[inside])
            _drop(label[inside], label[inside] > 0, True, 0.0, changes)
        if inside is not None and self.fill_holes:
            _check_room(sample, label[inside])
            _fill(label[inside], changes)
        return {classes[number]: change for number, change in changes.items() if change != Change()}

    def _least_voxels(self, classes: Sequence[str], sample: Sample) -> dict[int, float]:
        """Return the least number of voxels of a component, by class number; a rule of a name precedes that of all."""
        found: dict[int, float] = {}
        for rule in sorted(self.least, key=lambda rule: bool(rule.name)):
            voxels = rule.amount
            if rule.unit in _MM:
                voxels = rule.amount * _MM[rule.unit][1] / _voxel_mm(sample, f"{rule.amount:g} {rule.unit}")
            for number in [classes.index(rule.name)] if rule.name else range(1, len(classes)):
                found[number] = voxels
        return found


#: No rules.
AS_FOUND = CleanUp()


def keep_largest(label: Labels | FileArray, rule: LargestComponent, sample: Sample) -> None:
    """Make background of what a rule of nnU-Net v1 drops from class numbers (*spatial), in place.

    Raises:
        DataError: the rule asks for a volume, and the image tells no spacing; or the memory does not suffice.
    """
    from scipy.ndimage import generate_binary_structure
    from scipy.ndimage import label as number_components

    whole = np.asarray(label)
    box = _box_of(np.isin(whole, rule.values))
    if box is None:
        return
    view = whole[box]
    _check_room(sample, view)
    mask = np.isin(view, rule.values)
    components, count = number_components(mask, generate_binary_structure(view.ndim, 1))
    sizes = _counts(components, count)
    sizes[0] = 0
    drop = sizes < sizes.max()
    if rule.least_mm3 is not None:
        drop &= sizes < rule.least_mm3 / _voxel_mm(sample, f"{rule.least_mm3:g} mm3")
    drop[0] = False
    if drop.any():
        view[drop[components]] = 0
        label[box] = view


def _box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the box around all that is True."""
    lines = [mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)) for axis in range(mask.ndim)]
    ends = [np.flatnonzero(line) for line in lines]
    return tuple(slice(int(end[0]), int(end[-1]) + 1) for end in ends) if all(end.size for end in ends) else None


def _voxel_mm(sample: Sample, asked: str) -> float:
    """Return the size of a voxel, in mm to the number of axes."""
    spacing = own_spacing(sample.image.ndim - 1, sample.affine, sample.spacing_mm)
    if spacing is None:
        raise fault(
            sample.source or sample.name,
            f"the image tells no spacing, so {asked} are no number of voxels",
            "a spacing in mm",
            "Give min_volume as a number of voxels, such as 30, or store the spacing in the file",
        )
    return math.prod(spacing)


def _parse_size(text: str) -> LeastSize:
    found = _SIZE.fullmatch(text)
    unit = found[3].lower() if found else ""
    if found is None or (unit not in _MM and unit not in _COUNTS) or not math.isfinite(float(found[2])):
        raise ConfigError(
            f"min_volume: got {brief(text)}; expected a size such as 0.5ml, 100mm3, 20mm2 or 30 (voxels), or by class "
            "liver=2ml,tumour=5."
        )
    return LeastSize((found[1] or "").strip(), float(found[2]), unit if unit in _MM else "voxels")


def _check_room(sample: Sample, view: Labels) -> None:
    check_memory(sample.source or sample.name, _BYTES * view.size)


def _union(boxes: Sequence[Box | None]) -> Box | None:
    """Return the box around all boxes."""
    found = [box for box in boxes if box is not None]
    sides = zip(*found, strict=True)
    return tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides) if found else None


def _counts(components: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return the voxels of each component, slice by slice: bincount makes 64-bit numbers of what it is given."""
    total = np.zeros(count + 1, np.int64)
    for part in components:
        total += np.bincount(np.ravel(part), minlength=count + 1)
    return total


def _drop(view: Labels, mask: NDArray[np.bool_], alone: bool, least: float, changes: Mapping[int, Change]) -> None:
    """Make background of the components of ``mask`` that are smaller than ``least``, or not the largest."""
    from scipy.ndimage import generate_binary_structure, label

    components, count = label(mask, generate_binary_structure(view.ndim, view.ndim))
    sizes = _counts(components, count)
    sizes[0] = 0
    drop = sizes < least
    if alone:  # of equals the first stays
        drop |= np.arange(count + 1) != sizes.argmax()
    drop[0] = False
    if not drop.any():
        return
    gone = drop[components]
    pairs = np.unique(np.stack([view[gone].astype(np.int64), components[gone].astype(np.int64)]), axis=1)[0]
    for number, voxels in enumerate(np.bincount(view[gone])):
        if voxels:
            changes[number].removed += int((pairs == number).sum())
            changes[number].removed_voxels += int(voxels)
    view[gone] = 0


def _fill(view: Labels, changes: Mapping[int, Change]) -> None:
    """Fill the background in the box around all classes that touches none of its sides."""
    from scipy.ndimage import find_objects, generate_binary_structure, label

    components, count = label(view == 0, generate_binary_structure(view.ndim, 1))
    outer = np.zeros(count + 1, bool)
    for axis in range(view.ndim):
        for side in (0, -1):
            outer[np.unique(components.take(side, axis))] = True
    for number, box in enumerate(find_objects(components), start=1):
        if outer[number] or box is None:
            continue
        wider = tuple(slice(side.start - 1, side.stop + 1) for side in box)
        hole, around = components[wider] == number, view[wider]
        faces = np.zeros(256, np.int64)
        for axis in range(view.ndim):
            before, after = ([slice(None)] * view.ndim for _ in range(2))
            before[axis], after[axis] = slice(None, -1), slice(1, None)
            for here, there in ((before, after), (after, before)):
                faces += np.bincount(around[tuple(there)][hole[tuple(here)]], minlength=256)
        faces[0] = 0  # of the hole itself
        best = int(faces.argmax())
        voxels = int(hole.sum())
        around[hole] = best
        changes[best].filled += 1
        changes[best].filled_voxels += voxels
