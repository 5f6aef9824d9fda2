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
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.cache import cache_folder
from convoxel.graph.compile import matmul_precision
from convoxel.graph.quantise import NOTE
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
        precision: digits of the products, as of :func:`convoxel.compile` (default: PyTorch's setting), or "int8": the
            program that ``convoxel quantise`` kept.

    Raises:
        ConfigError: ``precision`` is "int8", and no such program is kept.
    """
    digits = precision or matmul_precision()
    notes, places = _notes(run, digits), list(_places(run, digits))
    for place in places:
        found = _kept(place, notes)
        if found is not None:
            return found
    if digits == "int8":
        raise ConfigError(
            f"precision is 'int8', but no quantised program is kept with the run for {instruction_set()}, this version "
            "and this checkpoint; expected one that samples were measured with. Make it: convoxel quantise RUN"
        )
    loaded = isinstance(run.source, StoredNetwork) and run.source.is_loaded
    made = _compile(run, digits)
    if isinstance(run.source, StoredNetwork) and not loaded:
        run.source.release()
    for place in places:
        if _keep(place, made, notes):
            # Weights of a file lie in memory once, as they are packed; those that were compiled lie there twice.
            return _kept(place, notes) or made
    return made


def keep_quantised(run: AnyRun, made: CompiledNetwork) -> Path | None:
    """Keep a run's quantised program, which ``compile_run`` then returns for the precision "int8".

    Returns the file, None where nothing can be kept.
    """
    notes = {**_notes(run, "int8"), NOTE: made.program.notes[NOTE]}
    return next((place for place in _places(run, "int8") if _keep(place, made, notes)), None)


def _notes(run: AnyRun, precision: str) -> dict[str, str]:
    """Return what a kept program must have been compiled from."""
    return {
        "identity": run.identity,
        "patch": str(run.config.patch),
        "precision": precision,
        "processor": instruction_set(),
        "convoxel": __version__,
        "weights": "compact",
    }


def _places(run: AnyRun, precision: str) -> Iterator[Path]:
    """Yield the files in which the program may lie, the best one first."""
    name = f"{precision}-{instruction_set()}.cvx"
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
    told = {name: text for name, text in program.notes.items() if name != NOTE}
    return CompiledNetwork(program, sizes) if told == {**notes, "sizes": _text(sizes)} else None


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
    return CompiledNetwork(compiled(run.network, (1, run.data.inputs, *size), precision), sizes)
