"""The program of a trained network, kept with the run: a later prediction starts without PyTorch.

To record and compile a network takes seconds and half a gigabyte, to read its program from a file a tenth of a second.
A program lies in the folder ``compiled`` of its run, one file for each checkpoint, precision and kind of processor; of
runs that cannot be written to, in the user's cache folder. Its notes say what it was compiled from, and one that was
compiled from anything else, or is damaged, counts as missing and is replaced. What is kept is what would be compiled
again, bit for bit. Where nothing can be kept (a full disk), every process compiles. A file is as large
as the best checkpoint: normalisations are folded into its weights, so they are not the checkpoint's. The folder can be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoxel import __version__
from convoxel.errors import ConvoxelError
from convoxel.files.cache import cache_folder
from convoxel.graph.compile import matmul_precision
from convoxel.graph.run.program import Program
from convoxel.graph.store.cvx import read_program
from convoxel.native.machine import instruction_set
from convoxel.predict.tile_size import InputSizes
from convoxel.predict.trained_run import AnyRun, StoredNetwork

_FOLDER = "compiled"
_MOST_CACHED = 16  # programs in the cache folder; the oldest ones go


@dataclass(frozen=True)
class CompiledNetwork:
    """A run's network as native steps.

    Attributes:
        program: the network.
        sizes: the sizes of inputs that the network takes.
    """

    program: Program
    sizes: InputSizes


def compile_run(run: AnyRun, precision: str | None = None) -> CompiledNetwork:
    """Return a run's network as a program: the one that is kept with the run, else a new one, which is kept then.

    Args:
        run: trained network; only of those that come from a folder is a program kept.
        precision: digits of the products, as of :func:`convoxel.compile` (default: PyTorch's setting).
    """
    digits = precision or matmul_precision()
    notes = {
        "identity": run.identity,
        "patch": str(run.config.patch),
        "precision": digits,
        "processor": instruction_set(),
        "convoxel": __version__,
    }
    places = list(_places(run, f"{digits}-{instruction_set()}.cvx"))
    for place in places:
        found = _kept(place, notes)
        if found is not None:
            return found
    made = _compile(run, digits)
    for place in places:
        if _keep(place, made, notes):
            break
    return made


def _places(run: AnyRun, name: str) -> Iterator[Path]:
    """Yield the files in which the program may lie, the best one first."""
    if not isinstance(run.source, StoredNetwork) or not run.identity:
        return
    yield run.source.folder / _FOLDER / f"{run.source.which}-{name}"
    cache = cache_folder()
    if cache is not None:
        yield cache / _FOLDER / f"{run.identity[:32]}-{name}"


def _kept(place: Path, notes: dict[str, str]) -> CompiledNetwork | None:
    """Return the network in a file; None unless the file is whole and has these notes."""
    if not place.is_file():
        return None
    try:
        program = Program(**vars(read_program(place)))
        multiple, least, border = (_tupled(entry) for entry in json.loads(program.notes["sizes"]))
        sizes = InputSizes(multiple, least, border)
    except (ConvoxelError, LookupError, TypeError, ValueError):
        return None
    return CompiledNetwork(program, sizes) if program.notes == {**notes, "sizes": _text(sizes)} else None


def _keep(place: Path, made: CompiledNetwork, notes: dict[str, str]) -> bool:
    """Write a network into a file and return whether that worked."""
    try:
        place.parent.mkdir(exist_ok=True, parents=True)
        made.program.replace(notes={**notes, "sizes": _text(made.sizes)}).save(place)
    except (ConvoxelError, OSError):  # no space, no right, or parts of it run in PyTorch
        return False
    if place.parent.parent == cache_folder():
        _drop_oldest(place.parent)
    return True


def _drop_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process was faster
        programs = sorted(folder.glob("*.cvx"), key=lambda path: path.stat().st_mtime_ns)
        for path in programs[:-_MOST_CACHED]:
            path.unlink()


def _text(sizes: InputSizes) -> str:
    return json.dumps(list(sizes))


def _tupled(entry: Any) -> Any:
    return tuple(map(int, entry)) if isinstance(entry, list) else int(entry)


def _compile(run: AnyRun, precision: str) -> CompiledNetwork:
    """Compile a run's network with an input as training's patches are; one of slices with an input of some of them."""
    from convoxel.models.slice_network import SliceNetwork
    from convoxel.predict.torch_network import compiled, input_sizes

    sizes = input_sizes(run.network)
    steps = [sizes.of(axis) for axis in range(run.data.dims)]
    size = tuple(least + 3 * multiple for least, multiple in steps)
    if run.config.patch and not isinstance(run.network, SliceNetwork):  # whose patch is one slice: no size is open
        size = run.config.patch
    return CompiledNetwork(compiled(run.network, (1, run.data.channels, *size), precision), sizes)
