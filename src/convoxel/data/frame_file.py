"""Frames of several subjects in one HDF5 file, a class (or a label map) each.

    /subject000000_frame00000000 (rows, columns)    /subject000000_label00000000
    /subject000000_num_frames                       /num_subjects

A single number may be stored as an array of one element, as MATLAB does. Subjects and frames are counted from any
number. Frames are read when they are needed, and those of a subject are never split.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from convoxel.data.collection import Collection
from convoxel.data.data_set import Entry, Sample
from convoxel.data.dataset_json import LabelScheme
from convoxel.data.hdf5_file import HDF5File, open_hdf5, read_dataset
from convoxel.data.image_file import check_finite
from convoxel.data.label_file import apply_scheme, check_labels, class_count, name_classes, settle_scheme, values_of
from convoxel.data.opening import Opening
from convoxel.files.fault import ErrorCollector, fault, plural, shown
from convoxel.files.values import Array

_ENDINGS = (".h5", ".hdf5", ".hdf")
_KEY = re.compile(r"(?P<subject>subject\d{1,12})_(?P<kind>frame|label)(?P<frame>\d{1,12})")
_COUNT = re.compile(r"(subject\d{1,12})_num_frames")
_COPY = "Copy the file again from its source, or write it again"


def has_frames(path: Path) -> bool:
    """Return whether a name is that of an HDF5 file."""
    return path.is_file() and path.name.lower().endswith(_ENDINGS)


def frame_tasks(path: Path) -> tuple[str, ...]:
    """Return the task that an HDF5 file of frames serves: its first label tells it; none for another file."""
    if not has_frames(path):
        return ()
    with open_hdf5(path) as file:
        label = next((n for n in file.names() if (m := _KEY.fullmatch(n)) and m["kind"] == "label"), None)
        return ("segment",) if label is not None and np.prod(file.claims(label)[0]) > 1 else ("classify",)


def open_frames(path: Path, task: str, errors: Opening) -> Collection:
    """Return the samples of an HDF5 file of frames; labels are read at once, frames on first use."""
    with open_hdf5(path) as file:
        names = frozenset(file.names())
        frames = sorted(
            (m["subject"], m["frame"], n) for n in names if (m := _KEY.fullmatch(n)) and m["kind"] == "frame"
        )
        if not frames:
            came = f"it holds {', '.join(map(shown, sorted(names)[:4])) or 'no data sets'}"
            expected = "data sets subject000000_frame00000000 with labels subject000000_label00000000"
            raise fault(path, came, expected, "Name them so")
        _check_counts(path, file, names, frames, errors)
        found: dict[str, tuple[str, str, tuple[int, ...], Array]] = {}
        for subject, number, name in frames:
            with errors.collect(name):
                label = f"{subject}_label{number}"
                if label not in names:
                    raise fault(
                        f"{path}#/{name}", "a frame without label", f"a data set {label}", "Add it, or remove the frame"
                    )
                shape = file.claims(name)[0]
                if len(shape) != 2:
                    raise fault(
                        f"{path}#/{name}", f"shape {shape}", "a picture (rows, columns)", "Store one frame a data set"
                    )
                found[name] = (subject, label, shape, _read_label(path, file, label, shape, task))
        for name in sorted(names):
            match = _KEY.fullmatch(name)
            if match and match["kind"] == "label" and f"{match['subject']}_frame{match['frame']}" not in names:
                mend = "Add its frame, or remove the label"
                errors.note(name, fault(f"{path}#/{name}", "a label without frame", "a frame for every label", mend))
        declared = _read_count(path, file, "num_classes") if "num_classes" in names else None
    if not found:
        raise fault(path, "no frame is usable", "frames with labels", _COPY)
    scheme, low = LabelScheme(), 0
    if task == "segment":
        scheme = settle_scheme(path, errors)
        labels, ignored = {name: held[3] for name, held in found.items()}, scheme.ignored
        classes, scheme = name_classes(path, scheme, lambda: _count_classes(path, labels, errors, ignored))
    else:
        numbers = [int(name) for name in errors.classes if name.isdecimal()]
        known = set(numbers) if len(numbers) == len(errors.classes) else set()
        classes, low = _number_classes(path, known | {int(held[3]) for held in found.values()}, declared)
    entries = [
        _entry(path, name, subject, shape, label if task == "segment" else int(label) - low, scheme)
        for name, (subject, _, shape, label) in found.items()
        if name not in errors.names
    ]
    whole = Collection(shown(path.stem), task, (2, 1), classes, {"": entries}, [(path.name, path)])
    return replace(whole, ignored=scheme.ignored, regions=scheme.regions)


def _check_counts(
    path: Path, file: HDF5File, names: frozenset[str], frames: list[tuple[str, str, str]], errors: ErrorCollector
) -> None:
    """Report numbers of subjects or frames that are not those that the file states."""
    there: dict[str, int] = {}
    for subject, _, _ in frames:
        there[subject] = there.get(subject, 0) + 1
    claims = [("num_subjects", len(there), "subjects have frames")] if "num_subjects" in names else []
    for name in sorted(names):
        match = _COUNT.fullmatch(name)
        if match is not None:
            claims.append((name, there.get(match[1], 0), f"frames of {match[1]} are there"))
    for name, count, noun in claims:
        with errors.collect(name):
            stated = _read_count(path, file, name)
            if stated != count:
                raise fault(f"{path}#/{name}", f"it is {stated}, but {count} {noun}", "the same number", _COPY)


def _read_count(path: Path, file: HDF5File, name: str) -> int:
    """Return a single whole number, stored as such or as an array of one element."""
    shape, _ = file.claims(name)
    if np.prod(shape) != 1:
        raise fault(f"{path}#/{name}", f"shape {shape}", "a single number", _COPY)
    value = file.read(name).reshape(-1)[0]
    if value != int(value):
        raise fault(f"{path}#/{name}", f"it is {value}", "a whole number", _COPY)
    return int(value)


def _read_label(path: Path, file: HDF5File, name: str, shape: tuple[int, ...], task: str) -> Array:
    """Return a label as stored: a number of one element to classify, a map of the frame's shape to segment."""
    claimed = file.claims(name)[0]
    where = f"{path}#/{name}"
    if task == "classify":
        if np.prod(claimed) != 1:
            mend = "Choose the task segment" if claimed == shape else "Give one class a frame"
            raise fault(where, f"a label of shape {claimed}", "one class number", mend)
        return check_labels(where, file.read(name).reshape(()), 65_536)
    if claimed != shape:
        raise fault(where, f"a label of shape {claimed}", f"{shape} as its frame", "Give one class number a pixel")
    return check_labels(where, file.read(name))


def _count_classes(path: Path, labels: dict[str, Array], errors: ErrorCollector, ignored: int | None) -> int:
    count, complaints = class_count({name: values_of(label, ignored) for name, label in labels.items()})
    for name, came in complaints.items():
        errors.note(
            name, fault(f"{path}#/{name}", came, "class numbers 0, 1, 2, … without a gap", "Renumber the labels")
        )
    if count < 2:
        raise fault(path, "every label is 0 throughout", "at least one class beside the background", _COPY)
    return count


def _number_classes(path: Path, values: set[int], declared: int | None) -> tuple[tuple[str, ...], int]:
    """Return the names of the classes and the least class number, which is 0 or 1."""
    low = 1 if 0 not in values and (declared is None or max(values) == declared) else 0
    count = declared if declared is not None else max(values) + 1 - low
    allowed = set(range(low, low + count))
    if not values <= allowed or (declared is None and values != allowed):
        came = f"class numbers {', '.join(map(str, sorted(values)[:8]))}"
        expected = f"{low} to {low + count - 1}" + ("" if declared is None else f", as num_classes is {declared}")
        raise fault(path, came, expected, "Number the classes without a gap")
    if count < 2:
        raise fault(path, f"{plural(count, 'class', 'classes')}", "at least two", "Add frames of other classes")
    return tuple(str(number) for number in sorted(allowed)), low


def _entry(
    path: Path, name: str, subject: str, shape: tuple[int, ...], label: int | Array, scheme: LabelScheme
) -> Entry:
    def read() -> Sample:
        where = f"{path}#/{name}"
        with np.errstate(all="ignore"):
            image = read_dataset(path, name).astype(np.float32)[None]
        check_finite(where, image)
        known = label if isinstance(label, int) else np.array(apply_scheme(where, label, scheme))
        return Sample(name, image, known, source=path)

    return Entry(name, shape, None, read, label if isinstance(label, int) else None, subject=subject)
