"""``convoxel run``: a saved program or an ONNX model on arrays, with NumPy alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from convoxel.cli.screen import console, duration, emit, say
from convoxel.errors import ConfigError, DataError

__all__ = ["run_program"]


def run_program(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A .cvx file of `convoxel compile`, or .onnx.")],
    input: Annotated[list[Path], typer.Option("--input", "-i", help="A .npy file, one for each input, in order.")],
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="A .npy file, one for each result, in order.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Run a compiled network on arrays; PyTorch is not needed."""
    import numpy as np

    from convoxel.graph.load import load

    begun = time.perf_counter()
    loaded = load(program, threads)
    arrays = [_array(path) for path in input]
    loaded.prepare(*arrays)
    ready = time.perf_counter()
    results = _flat(loaded(*arrays))
    seconds = time.perf_counter() - ready
    if output and len(output) != len(results):
        raise ConfigError(f"output: {len(output)} files are named, but the network has {len(results)} results")
    for path, result in zip(output or [], results, strict=False):
        _write(path, result)
    shapes = [list(np.shape(result)) for result in results]
    if json:
        emit({"program": program, "load_s": ready - begun, "run_s": seconds, "outputs": output or [], "shapes": shapes})
        return
    screen = console()
    say(screen, f"{program}: loaded in {duration(ready - begun)}, ran in {1e3 * seconds:.1f} ms", "bold")
    for number, shape in enumerate(shapes):
        where = f" → {output[number]}" if output else ""
        say(screen, f"result {number}: {'×'.join(map(str, shape)) or 'a number'}{where}")


def _array(path: Path) -> Any:
    """Return an array of a file; its header is read, and checked against the file, before memory is asked for."""
    import numpy as np

    try:
        # A map takes no memory, and its length is checked against the file's; nothing in it can run code.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        why = getattr(reason, "strerror", None) or reason
        raise DataError(f"{path}: it cannot be read ({why}); expected a .npy file. Write it with numpy.save.") from None
    if not isinstance(mapped, np.memmap):
        raise DataError(f"{path}: it holds several arrays; expected a .npy file. Write one array with numpy.save.")
    return np.array(mapped)


def _flat(results: Any) -> list[Any]:
    if isinstance(results, dict):
        return [leaf for value in results.values() for leaf in _flat(value)]
    if isinstance(results, list | tuple):
        return [leaf for value in results for leaf in _flat(value)]
    return [results]


def _write(path: Path, result: Any) -> None:
    import io

    import numpy as np

    from convoxel.files.atomic import write_bytes

    buffer = io.BytesIO()
    np.save(buffer, result, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
