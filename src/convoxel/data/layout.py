"""Layouts of data sets: the table through which a folder or a file is recognised and opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from convoxel.data.classification import open_classes
from convoxel.data.collection import Collection
from convoxel.data.course_volumes import has_volumes, open_volumes
from convoxel.data.decathlon import has_training_list, open_decathlon
from convoxel.data.frame_file import frame_tasks, open_frames
from convoxel.data.label_table import open_table, table_tasks
from convoxel.data.nnunet_raw import has_cases, open_cases
from convoxel.data.npz_set import open_npz_set
from convoxel.data.opening import Opening
from convoxel.data.segmentation import has_pairs, open_segmentation
from convoxel.files.fault import fault

TASKS = ("segment", "classify", "regress")


class Layout(NamedTuple):
    """One layout of data sets.

    Attributes:
        words: what such a source holds, for people.
        tasks: path → tasks that the source serves, the likeliest first; none if it has another layout.
        open: path, task, and where problems are reported → all its samples.
    """

    words: str
    tasks: Callable[[Path], tuple[str, ...]]
    open: Callable[[Path, str, Opening], Collection]


def _archive_tasks(path: Path) -> tuple[str, ...]:
    return ("classify", "segment", "regress") if path.is_file() and path.name.lower().endswith(".npz") else ()


def _folder(
    words: str, task: str, holds: Callable[[Path], bool], open_folder: Callable[[Path, Opening], Collection]
) -> Layout:
    """Return the layout of folders that serve one task."""
    return Layout(
        words,
        lambda path: (task,) if path.is_dir() and holds(path) else (),
        lambda path, task, errors: open_folder(path, errors),
    )


#: The layouts that can be told from others, in the order in which they are asked.
LAYOUTS = (
    Layout("a table of samples (labels.csv)", table_tasks, open_table),
    Layout("arrays of images and labels in one .npz file", _archive_tasks, open_npz_set),
    Layout("frames of several subjects in one HDF5 file", frame_tasks, open_frames),
    _folder("a raw data set of nnU-Net", "segment", has_cases, open_cases),
    _folder("a list of images and labels in dataset.json", "segment", has_training_list, open_decathlon),
    _folder("volumes image_train00.npy and label_train00.npy", "segment", has_volumes, open_volumes),
    _folder("a folder images/ and a folder labels/", "segment", has_pairs, open_segmentation),
)


def find_tasks(path: Path) -> tuple[str, ...]:
    """Return the tasks that a folder or file serves, the likeliest first; none where its layout is unknown."""
    found = [task for layout in LAYOUTS for task in layout.tasks(path)]
    return tuple(dict.fromkeys(found)) or (("classify",) if path.is_dir() else ())


def open_layout(path: Path, task: str, errors: Opening) -> Collection:
    """Return the samples of a folder or file.

    Raises:
        DataError: its layout serves another task, or is unknown, or something in it is wrong.
    """
    other = None
    for layout in LAYOUTS:
        tasks = layout.tasks(path)
        if task in tasks:
            return layout.open(path, task, errors)
        other = layout if tasks and other is None else other
    if other is not None:
        serves = other.tasks(path)[0]
        came, mend = f"this is a data set to {serves}: {other.words}", f"Choose the task {serves}, or give other data"
        raise fault(path, came, f"a data set to {task}", mend)
    if path.is_dir() and task == "regress":
        came, expected = "nothing here states numbers to predict", "labels.csv with the columns file and value"
        raise fault(path, came, expected, "Add the table")
    if path.is_dir():  # any folders may be classes; to segment, what the usual layout lacks is said
        return open_classes(path, errors) if task == "classify" else open_segmentation(path, errors)
    raise fault(path, "this is a file, not a data set", expected_sources(), "Give the folder that holds it")


def expected_sources() -> str:
    """Return in words what a data set may be."""
    return "a folder, or a file that holds a whole data set (.npz, .h5, .csv)"
