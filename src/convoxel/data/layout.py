"""Layouts of data sets: the table through which a folder or a file is recognised and opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from convoxel.data.classification import has_classes, open_classes
from convoxel.data.collection import Collection
from convoxel.data.npz_set import open_npz_set
from convoxel.data.segmentation import has_pairs, open_segmentation
from convoxel.files.fault import ErrorCollector, fault

TASKS = ("segment", "classify")


class Layout(NamedTuple):
    """One layout of data sets.

    Attributes:
        words: what such a source holds, for people.
        tasks: path → tasks that the source serves, the likeliest first; none if it has another layout.
        open: path, task, and where problems are reported → all its samples.
    """

    words: str
    tasks: Callable[[Path], tuple[str, ...]]
    open: Callable[[Path, str, ErrorCollector], Collection]


def _is_archive(path: Path) -> tuple[str, ...]:
    return ("classify", "segment") if path.is_file() and path.name.lower().endswith(".npz") else ()


#: The layouts in the order in which they are asked.
LAYOUTS = (
    Layout("arrays of images and labels in one .npz file", _is_archive, open_npz_set),
    Layout(
        "a folder images/ and a folder labels/",
        lambda path: ("segment",) if has_pairs(path) else (),
        lambda path, task, errors: open_segmentation(path, errors),
    ),
    Layout(
        "one folder a class",
        lambda path: ("classify",) if has_classes(path) else (),
        lambda path, task, errors: open_classes(path, errors),
    ),
)


def find_layout(path: Path) -> tuple[Layout | None, tuple[str, ...]]:
    """Return the layout of a folder or file with the tasks that it serves; (None, ()) where none is known."""
    for layout in LAYOUTS:
        tasks = layout.tasks(path)
        if tasks:
            return layout, tasks
    return None, ()


def open_layout(path: Path, task: str, errors: ErrorCollector) -> Collection:
    """Return the samples of a folder or file.

    Raises:
        DataError: its layout serves another task, or is unknown, or something in it is wrong.
    """
    layout, tasks = find_layout(path)
    if layout is not None and task in tasks:
        return layout.open(path, task, errors)
    if path.is_dir() and tasks != ("segment",):
        # A folder of no layout that serves the task: what is missing for the usual one is said.
        return open_segmentation(path, errors) if task == "segment" else open_classes(path, errors)
    if layout is None:
        raise fault(path, "this is a file, not a data set", expected_sources(), "Give the folder that holds it")
    came = f"this is a data set to {tasks[0]}: {layout.words}"
    raise fault(path, came, f"a data set to {task}", f"Choose the task {tasks[0]}, or give other data")


def expected_sources() -> str:
    """Return in words what a data set may be."""
    return "a folder, or a file that holds a whole data set (.npz)"
