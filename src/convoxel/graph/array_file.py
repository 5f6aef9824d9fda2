"""Arrays in ``.npy`` files: inputs of a program, and the files that its results go into, whole or tile by tile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError, DataError, UnsupportedError
from convoxel.files.atomic import open_atomic
from convoxel.graph.load import load
from convoxel.graph.run.program import Program

Array = NDArray[np.generic]


@dataclass(frozen=True)
class FileRun:
    """One run of a program on files.

    Attributes:
        shapes: shape of each result.
        outputs: the files that were written.
        load_s: seconds to load and to prepare for these sizes.
        run_s: seconds of the run.
        tiling: how the first input was cut into tiles, and what the results are equal to; empty if it was not.
    """

    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[Path, ...]
    load_s: float
    run_s: float
    tiling: str = ""


def run_files(
    program: str | Path,
    inputs: Sequence[Path],
    outputs: Sequence[Path] = (),
    threads: int | None = None,
    tile: int | Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    precision: str | None = None,
) -> FileRun:
    """Run a program on arrays in files, with NumPy alone.

    Args:
        program: ``.cvx`` or ``.onnx`` file.
        inputs: one ``.npy`` file for each input, in order.
        outputs: one ``.npy`` file for each result, in order; none to write nothing.
        threads: number of CPU threads (default: all).
        tile: size of tiles, as of ``Program.tiled``, that are read and written one at a time: bit for bit the same
            results in memory for a tile (default: the whole input at once).
        on_progress: called with the number of tiles done and of all tiles.
        precision: as in ``compile`` (default: what a ``.cvx`` file was saved with).

    Raises:
        DataError: a file cannot be read or written. ConfigError: ``outputs`` are too few or too many, or ``tile`` is
            too small. UnsupportedError: a step of the network sees the whole image, so that it cannot run on tiles.
    """
    begun = time.perf_counter()
    loaded = load(program, threads, precision=precision)
    if tile is not None:
        if not isinstance(loaded, Program):
            raise UnsupportedError(f"{program}: sizes depend on the values of an input, so it cannot run on tiles.")
        return _run_tiles(loaded, inputs, outputs, tile, on_progress, begun)
    arrays = [read_array(path) for path in inputs]
    loaded.prepare(*arrays)
    ready = time.perf_counter()
    results = _leaves(loaded(*arrays))
    run_s = time.perf_counter() - ready
    _check_count(outputs, len(results))
    for path, result in zip(outputs, results, strict=False):
        write_array(path, result)
    shapes = tuple(np.shape(result) for result in results)
    return FileRun(shapes, tuple(outputs), load_s=ready - begun, run_s=run_s)


def _check_count(outputs: Sequence[Path], results: int) -> None:
    if outputs and len(outputs) != results:
        raise ConfigError(f"output: {len(outputs)} files are named, but the network has {results} results.")


def _run_tiles(
    program: Program,
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    tile: int | Sequence[int],
    on_progress: Callable[[int, int], None] | None,
    begun: float,
) -> FileRun:
    """Run a program on mapped arrays, tile by tile, into mapped files that take their names at the end."""
    arrays = [map_array(path) for path in inputs]
    tiling = program.tiling(*arrays, tile=tile)
    _check_count(outputs, len(tiling.shapes))
    ready = time.perf_counter()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open_atomic(path)) for path in outputs]
        types = [program.graph.values[name].dtype for name in program.graph.outputs]
        out = [_map_new(*each) for each in zip(files, tiling.shapes, types, strict=True)] if files else None
        program.tiled(*arrays, tile=tile, out=out, on_progress=on_progress)
    run_s = time.perf_counter() - ready
    return FileRun(tuple(tiling.shapes), tuple(outputs), ready - begun, run_s, str(tiling))


def _map_new(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return an array that is mapped into an empty file, behind its header.

    The file's blocks are taken first: a disk that is full says so now, not by a signal when a page is written.
    """
    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    start = file.tell()
    size = start + int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        os.truncate(file.fileno(), size)
    return np.memmap(file, kind, "r+", start, shape)


def map_array(path: Path) -> Array:
    """Return the array of a file, mapped; its header is checked against the file.

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
    return mapped


def read_array(path: Path) -> Array:
    """Return the array of a file in memory; see ``map_array``."""
    return np.array(map_array(path))


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
