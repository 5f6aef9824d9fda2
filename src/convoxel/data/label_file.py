"""Label files: reading them checked, the values that they may hold, and the names of the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from convoxel.data.data_set import IGNORED
from convoxel.data.dataset_json import NAME, LabelScheme, label_scheme, read_description
from convoxel.data.image_file import check_finite, read_header, read_stored, shaped, with_dims
from convoxel.data.image_format import find_format
from convoxel.data.image_header import Header
from convoxel.data.opening import Opening
from convoxel.files.fault import fault, few, plural, shown
from convoxel.files.stream import read_text
from convoxel.files.values import Array

# A label with more distinct values than this, without names for them, is taken for an image.
MOST_UNNAMED = 64
_MOST_CLASSES = 256
_LISTED = 8
# Distance from a whole number that counts as rounding: programs that scale, store and scale back leave 0.99999.
_ROUNDING = 1e-4
_UNTOLD = LabelScheme()


def read_label_header(path: Path, grid: Header) -> Header:
    """Return the header of the label of an image with the header ``grid``."""
    placed = _read_on(path, grid)
    return read_header(path) if placed is None else placed[0]


def _read_on(path: Path, grid: Header | None) -> tuple[Header, Array] | None:
    """Return header and values of a label that lies on its image's grid and has none of its own; None for others."""
    found = find_format(path)
    return None if grid is None or found is None or found.read_on is None else found.read_on(path, grid)


def read_label(path: Path, dims: int | None = None, grid: Header | None = None) -> tuple[Header, NDArray[np.uint8]]:
    """Return header and values (*spatial) of a label file: whole numbers 0…255, or DataError.

    Args:
        path: label file.
        dims: number of spatial axes that it must have (default: any).
        grid: header of its image, on whose grid a label without a grid of its own is read (default: its own stack).
    """
    placed = _read_on(path, grid)
    if placed is not None:
        return placed[0], check_labels(path, placed[1].reshape(placed[0].shape))
    header = with_dims(path, read_header(path), dims, channels=1)
    if header.channels != 1 and not header.colour:  # colours may be shades of grey, which only the pixels tell
        mend = "Store the number of the class (argmax), not one map a class"
        raise fault(path, f"the label has {header.channels} channels", "one class number a voxel", mend)
    header, values = read_stored(path, label=True)
    header = with_dims(path, header, dims, channels=1)
    return header, check_labels(path, shaped(header, values).reshape(header.shape))


def check_labels(path: object, values: Array, most: int = _MOST_CLASSES) -> Array:
    """Return the values as uint8 (int64 where ``most`` > 256); DataError unless all are whole, 0…most − 1.

    Values within 1e-4 of a whole number count as that number.
    """
    if values.dtype == np.uint8:
        return values
    check_finite(path, values[None])
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        broken = values[np.abs(values - rounded) > _ROUNDING]
        values = rounded
    if values.dtype.kind == "f" and broken.size:
        came = f"{plural(broken.size, 'label value')} not whole (such as {broken[0]:g})"
        mend = "Resample labels by nearest neighbour, and store class numbers rather than probabilities"
        raise fault(path, came, "class numbers 0, 1, 2, …", mend)
    low, high = values.min(), values.max()
    if low < 0 or high >= most:
        mend = "Number the classes 0, 1, 2, … with 0 as background"
        raise fault(path, f"label values from {low:g} to {high:g}", f"class numbers 0 to {most - 1}", mend)
    return values.astype(np.uint8 if most <= 256 else np.int64)


def values_of(label: NDArray[np.uint8], ignored: int | None = None) -> frozenset[int]:
    """Return the values that occur, with 255 as 1 where only 0 and 255 occur (masks from paint programs).

    Args:
        label: values as stored.
        ignored: a value that does not count (default none).

    >>> sorted(values_of(np.array([[0, 255]], np.uint8)))
    [0, 1]
    """
    found = _raw_values(label) - {ignored}
    return frozenset(1 if v == 255 else v for v in found) if found <= {0, 255} else found


def _raw_values(label: NDArray[np.uint8]) -> frozenset[int]:
    return frozenset(int(v) for v in np.flatnonzero(np.bincount(label.ravel(order="K"), minlength=256)))


def to_classes(
    path: object, label: NDArray[np.uint8], count: int, ignored: int | None = None, known: frozenset[int] | None = None
) -> NDArray[np.uint8]:
    """Return class numbers below ``count`` from label values, and 255 for the value to ignore.

    Args:
        path: file of the label, for messages.
        label: values as stored.
        count: number of classes.
        ignored: value to ignore (default none).
        known: values beside 0 that are classes or belong to regions (default: all below ``count``).

    Raises:
        DataError: a value is neither a class nor to be ignored.
    """
    found = _raw_values(label) - {ignored}
    if ignored is not None:
        hidden = label == ignored
        shown_classes = to_classes(path, np.where(hidden, np.uint8(0), label), count, known=known)
        return np.where(hidden, np.uint8(IGNORED), shown_classes)
    if count == 2 and found <= {0, 255}:
        return np.asarray(np.minimum(label, np.uint8(1)))
    wrong = sorted(found - {0} - known) if known is not None else sorted(v for v in found if v >= count)
    if wrong and known is not None:
        mend = "Correct the label, or add the value to a region"
        raise fault(path, f"unexpected label values {_listed(wrong)}", f"0 and {_listed(sorted(known))}", mend)
    if wrong:
        mend = "Correct the label, or name every class in classes.txt"
        raise fault(path, f"unexpected label values {_listed(wrong)}", f"class numbers 0 to {count - 1}", mend)
    return label


def settle_scheme(where: Path, errors: Opening, scheme: LabelScheme = _UNTOLD) -> LabelScheme:
    """Return what is known of label values: by the user, the source, or the network that the samples are for.

    Args:
        where: the source, for messages.
        errors: what the user or the network says.
        scheme: what the source says (default nothing).

    Raises:
        DataError: source and user name different values to ignore.
    """
    if scheme.ignored is None:
        scheme = replace(scheme, ignored=errors.ignored)
    elif errors.ignored not in (None, scheme.ignored) and not errors.classes:  # a network's other data may differ
        came = f"dataset.json says to ignore {scheme.ignored}, ignore_label is {errors.ignored}"
        raise fault(where, came, "one value to ignore", "Leave ignore_label out")
    if errors.classes:
        return scheme if scheme.names else replace(scheme, names=errors.classes, regions=errors.regions)
    if errors.regions is not None:
        return replace(scheme, names=errors.region_names, regions=errors.regions)
    return scheme


def name_classes(
    where: Path, scheme: LabelScheme, count: Callable[[], int], named: Mapping[int, str] = MappingProxyType({})
) -> tuple[tuple[str, ...], LabelScheme]:
    """Return the names of the classes and the scheme with them.

    Args:
        where: the source, for messages.
        scheme: what is known of label values.
        count: returns the number of classes, for those that nobody names.
        named: names that labels themselves state, by class number (default none).

    Raises:
        DataError: the value to ignore is a class.
    """
    names = scheme.names
    if names is None:
        total = count()
        names = ("background", *(f"class {i}" for i in range(1, total))) if total > 2 else ("background", "foreground")
        names = (names[0], *(named.get(number, name) for number, name in enumerate(names[1:], 1)))
    scheme = replace(scheme, names=names)
    if scheme.ignored in scheme.known:
        expected, mend = f"another value than {few(sorted(scheme.known))}", "State another one, or correct the classes"
        raise fault(where, f"the value to ignore, {scheme.ignored}, is a class", expected, mend)
    return names, scheme


def apply_scheme(where: object, label: NDArray[np.uint8], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Return class numbers, or of regions their label values, and 255 for the value to ignore; as of ``to_classes``."""
    known = None if scheme.regions is None else scheme.known
    return to_classes(where, label, max(scheme.known) + 1, scheme.ignored, known)


def class_count(values: dict[str, frozenset[int]]) -> tuple[int, dict[str, str]]:
    """Return the number of classes, and a complaint per file whose values contradict the others.

    Without names for the classes, the values of all labels together must be 0 … n − 1 without a gap.
    """
    union = frozenset().union(*values.values()) if values else frozenset({0})
    if len(union) > MOST_UNNAMED:
        crowded = max(values, key=lambda name: len(values[name]))
        return len(union), {crowded: f"{len(union)} different label values in all"}
    first_missing = next(v for v in range(len(union) + 1) if v not in union)
    beyond = {name: sorted(v for v in held if v > first_missing) for name, held in values.items()}
    return first_missing, {
        name: f"label values {_listed(v)} although {first_missing} occurs nowhere" for name, v in beyond.items() if v
    }


def _listed(values: Iterable[int]) -> str:
    values = list(values)
    return ", ".join(map(str, values[:_LISTED])) + (", …" if len(values) > _LISTED else "")


def folder_scheme(folder: Path) -> LabelScheme:
    """Return what ``dataset.json`` ("labels") or ``classes.txt`` (a class a line) says of a folder's label values."""
    found = read_description(folder) or {}
    if found.get("labels") is not None:
        return label_scheme(folder / NAME, found)
    path = folder / "classes.txt"
    if not path.exists():
        return LabelScheme()
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = tuple(shown(line) for line in lines if line)
    if not 2 <= len(names) <= _MOST_CLASSES or len(set(names)) < len(names):
        came = f"{plural(len(names), 'class name')}, {len(set(names))} different"
        raise fault(path, came, "2 to 256 different names", "Write one name a line, the background first")
    return LabelScheme(names)
