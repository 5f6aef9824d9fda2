"""Arrays in ``.npy`` files: inputs of a program, and the files that its results go into."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import open_atomic
from convoxel.graph.load import load

__all__ = ["FileRun", "read_array", "run_files", "write_array"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class FileRun:
    """One run of a program on files.

    Attributes:
        shapes: shape of each result.
        outputs: the files that were written.
        load_s: seconds to load and to prepare for these sizes.
        run_s: seconds of the run.
    """

    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[Path, ...]
    load_s: float
    run_s: float


def run_files(
    program: str | Path, inputs: Sequence[Path], outputs: Sequence[Path] = (), threads: int | None = None
) -> FileRun:
    """Run a program on arrays in files, with NumPy alone.

    Args:
        program: ``.cvx`` or ``.onnx`` file.
        inputs: one ``.npy`` file for each input, in order.
        outputs: one ``.npy`` file for each result, in order; none to write nothing.
        threads: number of CPU threads (default: all).

    Raises:
        DataError: a file cannot be read or written. ConfigError: ``outputs`` are too few or too many.
    """
    begun = time.perf_counter()
    loaded = load(program, threads)
    arrays = [read_array(path) for path in inputs]
    loaded.prepare(*arrays)
    ready = time.perf_counter()
    results = _leaves(loaded(*arrays))
    run_s = time.perf_counter() - ready
    if outputs and len(outputs) != len(results):
        raise ConfigError(f"output: {len(outputs)} files are named, but the network has {len(results)} results.")
    for path, result in zip(outputs, results, strict=False):
        write_array(path, result)
    shapes = tuple(np.shape(result) for result in results)
    return FileRun(shapes, tuple(outputs), load_s=ready - begun, run_s=run_s)


def read_array(path: Path) -> Array:
    """Return the array of a file; its header is checked against the file before memory is asked for.

    Raises:
        DataError: the file cannot be read or holds several arrays.
    """
    try:
        # A map takes no memory, and its length is checked against the file's; nothing in it can run code.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        why = getattr(reason, "strerror", None) or reason
        raise DataError(f"{path}: it cannot be read ({why}); expected a .npy file. Write it with numpy.save.") from None
    if not isinstance(mapped, np.memmap):
        raise DataError(f"{path}: it holds several arrays; expected a .npy file. Write one array with numpy.save.")
    return np.array(mapped)


def write_array(path: Path, array: Array) -> None:
    """Write an array; the file is either whole or absent."""
    with open_atomic(path) as file:
        np.save(file, array, allow_pickle=False)


def _leaves(results: object) -> list[Array]:
    if isinstance(results, dict):
        return [leaf for value in results.values() for leaf in _leaves(value)]
    if isinstance(results, (list, tuple)):
        return [leaf for value in results for leaf in _leaves(value)]
    return [np.asarray(results)]
