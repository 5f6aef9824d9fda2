"""The geometry of a run: the orientation and spacing in which its network sees every image, and the way back.

A file's own grid has its axes and distances as stored; the network's grid has the axes in the order and directions that
the run's rule says, at the run's spacing. Axes are permuted and reversed as views. Oblique images are turned to the
closest axes and not rotated, so that no orientation costs an interpolation. Readers know nothing of this.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from convoxel.data.data_set import DataSet, Entry, Sample, Split
from convoxel.data.image_header import Affine, Spacing, spacing_unit
from convoxel.data.mapped_image import MappedImage, slab_places
from convoxel.data.resample import (
    AxisSampling,
    interpolate_image,
    match_label,
    resample_image,
    resample_label,
    resample_slabs,
    stretch_image,
    stretch_masks,
)
from convoxel.files.fault import fault, few
from convoxel.files.file_array import new_array
from convoxel.files.memory import check_memory
from convoxel.files.stream import FREE_BYTES, MOST_RATIO
from convoxel.files.values import Array

Floats = NDArray[np.float32]
Place = tuple[slice, ...]
Box = tuple[tuple[int, int], ...]

# Spacings that differ by less count as one: headers round, and no network tells 1 mm from 1.01 mm.
_SAME = 0.01
_SAME_MM = 1e-3  # the same in MONAI, which asks that alone
# Voxels thicker than this, in units of their shortest side, are interpolated linearly across: a B-spline would swing
# from one slice to the next (nnU-Net's limit: Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).
_COARSE = 3.0
_THIN_PERCENTILE = 10
_PART = 1 << 20  # voxels
_NEVER = -100.0  # a score whose share beside 0 is nothing: exp(-100) = 4e-44


@dataclass(frozen=True)
class Placement:
    """The way between the own grid of one image and the network's grid.

    Attributes:
        axes: own axis that becomes each axis of the network's grid.
        reversed: whether it runs the other way there.
        samplings: places of the network's voxels along each of its axes, among the own ones.
        coarse: axis of the network's grid across which slices are thick, or None.
        box: (first, stop) along each own axis of the part that the network's grid covers; None: the whole image.
        whole: sizes of the image along its own axes where there is a box.
        stretched: whether voxels are interpolated as nnU-Net does: :func:`convoxel.data.resample.stretch_image`.
        linear: whether they are interpolated linearly.
        coarse_back: as ``coarse``, for scores that return to the own grid.
    """

    axes: tuple[int, ...]
    reversed: tuple[bool, ...]
    samplings: tuple[AxisSampling, ...]
    coarse: int | None = None
    box: Box | None = None
    whole: tuple[int, ...] = ()
    stretched: bool = False
    coarse_back: int | None = None
    linear: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the image on the network's grid."""
        return tuple(sampling.count for sampling in self.samplings)

    @property
    def upright(self) -> bool:
        """True where axes stay as stored, and the whole image."""
        return self.axes == tuple(range(len(self.axes))) and not any(self.reversed) and self.box is None

    @property
    def after_turning(self) -> Placement:
        """The rest of the way once an image is turned and cut."""
        count = len(self.axes)
        return replace(self, axes=tuple(range(count)), reversed=(False,) * count, box=None, whole=())

    @property
    def resamples(self) -> bool:
        """True where voxels do not keep their values."""
        return not all(sampling.same for sampling in self.samplings)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 4×4 matrix from the index of a voxel on the network's grid to that on the own grid."""
        matrix = np.eye(4)
        for axis, (own, back, sampling) in enumerate(zip(self.axes, self.reversed, self.samplings, strict=True)):
            first = float(sampling.positions[0])
            matrix[own] = 0.0
            matrix[own, axis] = -sampling.step if back else sampling.step
            matrix[own, 3] = (sampling.size - 1 - first if back else first) + (self.box[own][0] if self.box else 0)
        return matrix

    def turned(self, array: Array) -> Array:
        """Return (*any, *spatial), or the box of it, with the network's axes, as a view."""
        lead = array.ndim - len(self.axes)
        if self.box is not None:
            array = array[(slice(None),) * lead + tuple(slice(*ends) for ends in self.box)]
        view: Array = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(view, self._backwards(lead))

    def turned_back(self, array: Array) -> Array:
        """Return (*any, *spatial) with the network's axes as one with the own axes, as a view."""
        lead = array.ndim - len(self.axes)
        view: Array = np.flip(array, self._backwards(lead))
        turned: Array = view.transpose(*range(lead), *(lead + self.axes.index(axis) for axis in range(len(self.axes))))
        return turned

    def _turned_box(self) -> Box:
        """Return the box along each axis of the network's grid, in voxels of the own one."""
        ends = [
            ((self.box or ())[own], self.whole[own], back) for own, back in zip(self.axes, self.reversed, strict=True)
        ]
        return tuple((size - stop, size - first) if back else (first, stop) for (first, stop), size, back in ends)

    def _backwards(self, lead: int) -> tuple[int, ...]:
        return tuple(lead + axis for axis, back in enumerate(self.reversed) if back)

    @overload
    def image(self, image: MappedImage) -> MappedImage: ...

    @overload
    def image(self, image: Floats) -> Floats: ...

    def image(self, image: Any) -> Any:
        """Return an image (channels, *spatial) on the network's grid; a view unless voxels change.

        A mapped image gives a mapped image.
        """
        if not self.upright:
            image = image.view(self.turned) if isinstance(image, MappedImage) else self.turned(image)
        if not self.resamples:
            return image
        if self.linear:
            return interpolate_image(image[(slice(None),) * image.ndim], self.samplings)
        if self.stretched:
            return stretch_image(image[(slice(None),) * image.ndim], self.samplings, self.coarse)
        orders = [1 if axis == self.coarse else 3 for axis in range(len(self.axes))]
        if isinstance(image, MappedImage):
            return MappedImage(resample_image(image.unpacked(), self.samplings, orders, new_array))
        return resample_image(image, self.samplings, orders)

    def masks(self, label: Array, values: Sequence[int], squeezed: bool = False) -> Floats:
        """Return where each value of a label map (*spatial) lies, (values, *spatial) on the network's grid.

        ``squeezed``: the whole map is brought into the box, and no axis is apart, as nnU-Net v1 does it.
        """
        if not squeezed:
            return stretch_masks(self.turned(label), values, self.samplings, self.coarse)
        turned = replace(self, box=None).turned(label)
        pairs = zip(turned.shape, self.shape, strict=True)
        return stretch_masks(turned, values, [AxisSampling.between_faces(size, count) for size, count in pairs])

    def body(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask (*spatial), turned and cut, on the network's grid, resampled as nnU-Net does."""
        outside = np.where(mask, np.int8(0), np.int8(-1))
        return stretch_masks(outside, [0], self.samplings, self.coarse)[0] > 0 if self.resamples else mask

    def label(self, label: Array) -> Array:
        """Return class numbers (*spatial) on the network's grid."""
        label = self.turned(label)
        return resample_label(label, self.samplings) if self.resamples else label

    def slabs(
        self, slabs: Iterable[tuple[int, Floats]], beyond: Floats | None = None, *, nearest: bool = False
    ) -> Iterator[tuple[Place, Floats]]:
        """Yield (part of the own grid, its scores (classes, *part)) from scores on the network's grid.

        Args:
            slabs: (first slice, scores (classes, slices, *rest)), which follow each other along the first axis.
            beyond: scores (classes,) beyond the box, with which parts are slabs of the whole image (default None: parts
                cover the box alone).
            nearest: take the nearest score in place of interpolating (default False).
        """
        if self.resamples:
            orders = [0 if nearest or axis == self.coarse_back else 1 for axis in range(len(self.axes))]
            slabs = resample_slabs(slabs, [sampling.reverse for sampling in self.samplings], orders)
        place = self
        if self.box is not None and beyond is not None:
            sizes = [self.whole[own] for own in self.axes]
            slabs = surround(slabs, self._turned_box(), sizes, beyond)
            place = replace(self, box=None, samplings=tuple(AxisSampling(size, size) for size in sizes))
        for first, slab in slabs:
            box = (slice(first, first + slab.shape[1]), *(slice(0, s.size) for s in place.samplings[1:]))
            yield place.own_box(box), place.turned_back(slab)

    def own_box(self, box: Place) -> Place:
        """Return the part of the own grid that a box of a grid with the network's axes, and the own size, is."""
        found = list(box)
        for own, back, sampling, part in zip(self.axes, self.reversed, self.samplings, box, strict=True):
            first, stop = (sampling.size - part.stop, sampling.size - part.start) if back else (part.start, part.stop)
            shift = self.box[own][0] if self.box is not None else 0
            found[own] = slice(first + shift, stop + shift)
        return tuple(found)

    def surroundings(self) -> Iterator[Place]:
        """Yield parts of the own grid, of some megabytes, that together are what lies beyond the box."""
        inside: list[slice] = []
        for (first, stop), size in zip(self.box or (), self.whole, strict=True):
            rest = [slice(0, other) for other in self.whole[len(inside) + 1 :]]
            plane = math.prod(part.stop - part.start for part in (*inside, *rest))
            step = max(1, _PART // max(1, plane))
            for low, high in ((0, first), (stop, size)):
                for start in range(low, high, step):
                    yield (*inside, slice(start, min(start + step, high)), *rest)
            inside.append(slice(first, stop))


def surround(
    slabs: Iterable[tuple[int, Floats]], box: Box, shape: Sequence[int], beyond: Floats
) -> Iterator[tuple[int, Floats]]:
    """Yield (first slice, scores) of the whole grid from those inside a box.

    Args:
        slabs: (first slice of the box, scores (classes, slices, *rest of the box)).
        box: (first, stop) along each axis.
        shape: sizes of the whole grid.
        beyond: scores (classes,) outside the box.
    """
    first, stop = box[0]
    inside = (slice(None), slice(None), *(slice(*ends) for ends in box[1:]))
    if first:
        yield 0, spread_scores(beyond, (first, *shape[1:]))
    for start, slab in slabs:
        around = np.array(spread_scores(beyond, (slab.shape[1], *shape[1:])))
        around[inside] = slab
        yield first + start, around
    if stop < shape[0]:
        yield stop, spread_scores(beyond, (shape[0] - stop, *shape[1:]))


def background_scores(classes: int, several: bool = False) -> Floats:
    """Return logits (classes,) of a voxel that nothing but background is in.

    Args:
        classes: number of classes, the first of which is the background.
        several: whether a voxel may have several classes, none of which is the background (default False).
    """
    scores = np.full(classes, _NEVER, np.float32)
    if not several:
        scores[0] = 0.0
    return scores


def extent(part: Place) -> tuple[int, ...]:
    """Return the sizes of a part of a grid."""
    return tuple(side.stop - side.start for side in part)


def spread_scores(scores: Floats, shape: Sequence[int]) -> Floats:
    """Return scores (classes,) at every place, (classes, *shape), of no memory."""
    return np.broadcast_to(scores.reshape(-1, *(1 for _ in shape)), (len(scores), *shape))


@dataclass(frozen=True)
class Geometry:
    """The rule by which a run's images come onto the grid that its network sees.

    Attributes:
        orientation: "ras" permutes and reverses axes so that they run most nearly towards the patient's right, front
            and top; "keep" leaves them as stored.
        spacing_mm: distance between voxels along each axis of the network's grid in mm; None keeps each image's own.
        axes: axis, as ``orientation`` leaves them, that becomes each axis of the network's grid; None: the same.
        kept: axes of the network's grid along which each image keeps its own distance all the same.
        crop: "nonzero" takes the box around all voxels that are not zero in every channel; "none" takes all.
        sampling: "middles" keeps the middle of an image and the exact spacing, "faces" keeps its outer faces, stretches
            it to whole voxels and interpolates as nnU-Net does, "first" keeps its first voxel and the exact spacing and
            interpolates linearly, as MONAI does.
        thick_back: grid that says first across which slices are thick as scores return, "network" or, as in nnU-Net v1,
            "image"; that version takes the number of the network's axis for one of the image's array.

    >>> rule = Geometry("ras", (1.0, 1.0, 3.0))
    >>> place = rule.place((30, 20, 40), np.diag([-3.0, 1.0, 1.0, 1.0])[[1, 2, 0, 3]], None)
    >>> place.axes, place.reversed, place.shape
    ((1, 2, 0), (False, False, True), (20, 40, 30))
    """

    orientation: Literal["ras", "keep"] = "keep"
    spacing_mm: tuple[float, ...] | None = None
    axes: tuple[int, ...] | None = None
    kept: tuple[int, ...] = ()
    crop: Literal["none", "nonzero"] = "none"
    sampling: Literal["middles", "faces", "first"] = "middles"
    thick_back: Literal["network", "image"] = "network"

    def __str__(self) -> str:
        words = ["axes as stored" if self.orientation == "keep" else "axes towards right, front and top (RAS+)"]
        if self.axes is not None:
            words.append(f"in the order {self.axes}")
        words.append(spacing_words(self.spacing_mm) or "spacing as stored")
        if self.kept and self.spacing_mm is not None:
            words.append(f"along axis {', '.join(map(str, self.kept))} as stored")
        if self.sampling == "faces":
            words.append("between the faces of the image")
        if self.sampling == "first":
            words.append("from its first voxel on")
        if self.crop == "nonzero":
            words.append("cut to what is not zero")
        return ", ".join(words)

    @property
    def changes(self) -> bool:
        """True where the rule may change an image."""
        return self != Geometry()

    def place(self, shape: Sequence[int], affine: Affine, spacing_mm: Spacing) -> Placement:
        """Return the way between an image's own grid and the network's; axes and spacing that are unknown stay.

        Args:
            shape: spatial sizes.
            affine: 4×4 matrix from voxel index to mm, or None.
            spacing_mm: distance between voxels along each axis in mm, or None.
        """
        dims = len(shape)
        upright = tuple(range(dims)), (False,) * dims
        axes, back = (_closest(affine, dims) if self.orientation == "ras" else None) or upright
        if self.axes is not None and len(self.axes) == dims:
            axes, back = tuple(axes[axis] for axis in self.axes), tuple(back[axis] for axis in self.axes)
        samplings, coarse, coarse_back = [AxisSampling(shape[axis], shape[axis]) for axis in axes], None, None
        own, target = own_spacing(dims, affine, spacing_mm), self.spacing_mm
        if own is not None and target is not None and len(target) == dims:
            turned = [own[axis] for axis in axes]
            target = tuple(turned[axis] if axis in self.kept else side for axis, side in enumerate(target))
            samplings = [
                self._sample(sampling, have, wanted)
                for sampling, have, wanted in zip(samplings, turned, target, strict=True)
            ]
            # On either way the grid that voxels come from has the first say.
            coarse, coarse_back = self._coarse_axis(turned, target), self._coarse_axis(target, turned)
            if self.thick_back == "image":
                coarse_back = self._coarse_axis(turned, [target[dims - 1 - axis] for axis in axes])
        faces = self.sampling == "faces"
        return Placement(
            axes, back, tuple(samplings), coarse, stretched=faces,
            coarse_back=coarse_back if faces else None, linear=self.sampling == "first",
        )  # fmt: skip

    def _coarse_axis(self, first: Sequence[float], second: Sequence[float]) -> int | None:
        """Return the one axis whose distances are far above the smallest in the first spacing, else in the second."""
        thick = _thick_axes(first)
        if len(thick) != 1 and not (thick and self.sampling == "faces"):  # nnU-Net asks no further where there are two
            thick = _thick_axes(second)
        return thick[0] if len(thick) == 1 else None

    def _sample(self, sampling: AxisSampling, have: float, wanted: float) -> AxisSampling:
        """Return the places along an axis whose voxels are ``have`` apart for voxels about ``wanted`` apart."""
        if self.sampling == "faces":
            count = max(1, round(have / wanted * sampling.size))
            return AxisSampling.between_faces(sampling.size, count) if count != sampling.size else sampling
        step = wanted / have
        if self.sampling == "first":
            count = max(1, round((sampling.size - 1) / step + 1))
            return sampling if abs(wanted - have) <= _SAME_MM else AxisSampling.from_first(sampling.size, count, step)
        if abs(step - 1) <= _SAME:
            return sampling
        return AxisSampling(sampling.size, max(1, math.floor(sampling.size / step + 0.5)), step)

    def place_sample(self, sample: Sample) -> Placement:
        """Return the way between a sample's own grid and the network's."""
        shape, affine, spacing = sample.image.shape[1:], sample.stated_affine, sample.spacing_mm
        box = find_box(sample.image) if self.crop == "nonzero" else None
        if box is None or all(ends == (0, size) for ends, size in zip(box, shape, strict=True)):
            return self.place(shape, affine, spacing)
        return replace(self.place([stop - first for first, stop in box], affine, spacing), box=box, whole=tuple(shape))

    def knows(self, affine: Affine, spacing_mm: Spacing) -> bool:
        """Return False for an image whose file lacks what the rule needs, so that it is taken as it is."""
        if self.orientation == "ras" and affine is None:
            return False
        return self.spacing_mm is None or affine is not None or spacing_mm is not None

    def warn_of_unknown(self, images: Iterable[tuple[str, Affine, Spacing]]) -> None:
        """Warn once of images (name, affine, spacing) whose files lack what the rule needs."""
        unknown = [name for name, affine, spacing in images if not self.knows(affine, spacing)]
        if unknown:
            what = (
                "spacing" if self.orientation == "keep" else "orientation" + (" or spacing" if self.spacing_mm else "")
            )
            warnings.warn(
                f"geometry: {few(unknown)} {'states' if len(unknown) == 1 else 'state'} no {what} and "
                f"{'is' if len(unknown) == 1 else 'are'} taken as stored, but the run has a rule: {self}. "
                "Give images whose files say how they lie, or store these as the rule says.",
                RuntimeWarning,
                stacklevel=3,
            )

    def sample(self, sample: Sample) -> Sample:
        """Return a sample on the network's grid, label and affine too; the sample itself where nothing changes.

        Raises:
            DataError: the image would be too large for the memory.
        """
        place = self.place_sample(sample)
        if place.upright and not place.resamples:
            return sample
        image, label = self.image(sample, place), sample.label
        if isinstance(label, np.ndarray):
            label = place.label(label)
        header = _turn_header(place, sample.affine, sample.spacing_mm)
        return replace(sample, image=image, label=label, affine=header[0], spacing_mm=header[1], origin=None)

    def image(self, sample: Sample, place: Placement) -> Floats:
        """Return a sample's image on the network's grid; DataError where that is too large for memory or disk."""
        if place.resamples:
            name = sample.source or sample.name
            _check_growth(name, sample.image.shape[1:], place.shape)
            if not isinstance(sample.image, MappedImage):
                _check_room(name, len(sample.image), place.shape)
        return place.image(sample.image)

    def entry(self, entry: Entry) -> Entry:
        """Return the entry that reads the same sample onto the network's grid."""
        place = self.place(entry.shape, entry.affine, entry.spacing_mm)
        if place.upright and not place.resamples:
            return entry
        affine, spacing = _turn_header(place, entry.affine, entry.spacing_mm)
        return replace(
            entry, shape=place.shape, spacing_mm=spacing, affine=affine, read=lambda: self.sample(entry.read())
        )

    def training_data(self, dataset: DataSet) -> DataSet:
        """Return the data set whose training samples are read onto the network's grid.

        Those that validate and test stay on their own: predictions return there, and are measured against labels as
        stored.

        Raises:
            DataError: an image would be too large for the memory.
        """
        if not self.changes:
            return dataset
        cache, entries = dataset.train.cache, [self.entry(entry) for entry in dataset.train.entries]
        for entry, other in zip(dataset.train.entries, entries, strict=True):
            if other is not entry:
                _check_growth(entry.name, entry.shape, other.shape)
                _check_room(entry.name, dataset.channels, other.shape)
                cache.forget(entry)
        return replace(dataset, train=Split(tuple(entries), cache))


def _check_growth(name: object, stored: Sequence[int], shape: Sequence[int]) -> None:
    """Raise DataError where a small image would become a large one, as with a spacing in another unit."""
    have, wanted = math.prod(stored), math.prod(shape)
    if 4 * wanted > FREE_BYTES and wanted > MOST_RATIO * have:
        sizes = " from ".join(" × ".join(map(str, each)) for each in (shape, stored))
        came = f"its spacing would make {sizes} voxels"
        expected = f"at most {MOST_RATIO} times as many above {FREE_BYTES // 2**20} MiB"
        raise fault(name, came, expected, "Correct the spacing in the file, such as micrometres that stand as mm")


def _check_room(name: object, channels: int, shape: Sequence[int]) -> None:
    """Raise DataError where an image does not fit the memory: a header may claim any spacing."""
    check_memory(name, 12 * channels * math.prod(shape))  # the coefficients of a channel, the result, the stored image


def find_box(image: Floats | MappedImage, *, positive: bool = False) -> Box | None:
    """Return (first, stop) along each axis of the voxels that are not zero in every channel; None where all are.

    Args:
        image: (channels, *spatial).
        positive: take voxels that are above zero in some channel instead (default False).
    """
    dims = image.ndim - 1
    found = [np.zeros(size, bool) for size in image.shape[1:]]
    for place in slab_places(image):
        slab = image[place]
        mask = np.asarray(np.any(slab > 0 if positive else slab != 0, axis=0))
        for axis, line in enumerate(found):
            hit = mask.any(axis=tuple(other for other in range(dims) if other != axis))
            part = line[place[1 + axis]] if axis + 1 < len(place) else line
            part |= hit
    if not found[0].any():
        return None
    ends = [np.flatnonzero(line)[[0, -1]] for line in found]
    return tuple((int(low), int(high) + 1) for low, high in ends)


def spacing_words(spacing_mm: Spacing) -> str:
    """Return a spacing as text, such as "1 × 1 × 3 mm"; empty for None."""
    if spacing_mm is None:
        return ""
    return f"{' × '.join(f'{side:.4g}' for side in spacing_mm)} {spacing_unit(len(spacing_mm))}"


def own_spacing(dims: int, affine: Affine, spacing_mm: Spacing) -> Spacing:
    """Return the distance between voxels along each axis as the affine says, else as stated; None where unknown."""
    if affine is not None:
        lengths = np.linalg.norm(np.asarray(affine, np.float64)[:3, :dims], axis=0)
        if np.isfinite(lengths).all() and (lengths > 0).all():
            return tuple(map(float, lengths))
    if spacing_mm is None or not all(0 < side < math.inf for side in spacing_mm):
        return None
    return spacing_mm


def _closest(affine: Affine, dims: int) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
    """Return the axes in the order of the patient's, and which run backwards; None where the matrix does not say."""
    if affine is None:
        return None
    from nibabel.orientations import io_orientation

    found = np.asarray(io_orientation(affine))[:dims]
    if np.isnan(found).any():
        return None
    axes = [int(axis) for axis in np.argsort(found[:, 0])]
    return tuple(axes), tuple(bool(found[axis, 1] < 0) for axis in axes)


def _thick_axes(spacing: Sequence[float]) -> list[int]:
    """Return the axes whose distances are the longest, where these are far above the smallest."""
    longest = max(spacing)
    return [axis for axis, side in enumerate(spacing) if side == longest] if longest > _COARSE * min(spacing) else []


def _turn_header(place: Placement, affine: Affine, spacing_mm: Spacing) -> tuple[Affine, Spacing]:
    own = own_spacing(len(place.axes), affine, spacing_mm)
    spacing = own and tuple(own[axis] * s.step for axis, s in zip(place.axes, place.samplings, strict=True))
    return None if affine is None else affine @ place.matrix, spacing


def choose_spacing(geometry: Geometry, entries: Sequence[Entry]) -> Spacing:
    """Return the spacing of a run by default: the median of its training images along each axis; None if unknown.

    Where slices are thick in spacing and few in number, the tenth percentile of their distance, so that few images lose
    slices (nnU-Net's rule). It is never below the spacing within them.

    Args:
        geometry: its orientation is taken into account.
        entries: training images.
    """
    spacings, sizes = [], []
    for entry in entries:
        own = own_spacing(len(entry.shape), entry.affine, entry.spacing_mm)
        if own is not None:
            axes = geometry.place(entry.shape, entry.affine, None).axes
            spacings.append([own[axis] for axis in axes])
            sizes.append([entry.shape[axis] for axis in axes])
    if not spacings:
        return None
    target, size = np.median(spacings, axis=0), np.median(sizes, axis=0)
    coarse = int(np.argmax(target))
    rest = np.arange(len(target)) != coarse
    if rest.any() and target[coarse] > _COARSE * target[rest].max() and _COARSE * size[coarse] < size[rest].min():
        low = float(np.percentile(np.array(spacings)[:, coarse], _THIN_PERCENTILE))
        target[coarse] = max(low, float(target[rest].max()))
    return tuple(float(f"{side:.6g}") for side in target)  # without the rounding errors of matrices


def fit_label(path: object, label: Array, affine: Affine, shape: Sequence[int], target: Affine) -> Array:
    """Return class numbers of a label file on the grid of its image, which its affine leads to.

    Args:
        path: label file.
        label: class numbers (*spatial).
        affine: the label's 4×4 matrix from voxel index to mm.
        shape: spatial sizes of the image.
        target: the image's matrix.

    Raises:
        DataError: one of the two does not say where it lies, or lies in another plane.
    """
    dims = len(shape)
    expected, mend = "an affine in image and label", "Resample the label onto the image's grid by another program"
    if affine is None or target is None:
        raise fault(path, "the label has another grid, and the files do not say where they lie", expected, mend)
    try:
        matrix = np.linalg.solve(affine, target).astype(np.float64)
    except np.linalg.LinAlgError:
        raise fault(path, "its affine has no inverse", "a matrix that tells voxels apart", mend) from None
    rows = matrix[:dims]
    ends = np.abs(matrix[dims:3, :dims]) @ np.array(shape) + np.abs(matrix[dims:3, 3])
    if (ends > 0.5).any():  # a plane is half a voxel thick to either side
        raise fault(path, "the label lies in another plane than its image", "labels of the same plane", mend)
    return match_label(label, rows[:, [*range(dims), 3]], shape)
