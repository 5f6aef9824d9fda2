"""Keys of results: equal keys mean equal bits, so that what is there need not be computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from convoxel import __version__
from convoxel.errors import DataError
from convoxel.files.content import hash_file, hash_json
from convoxel.files.fault import fault
from convoxel.native.machine import instruction_set
from convoxel.predict.case_files import Case
from convoxel.predict.case_prediction import MapOptions
from convoxel.predict.inference import Predictor


def hash_recipe(predictor: Predictor, options: MapOptions) -> str:
    """Return the hash of what somebody asks for: networks, options, and this version.

    Parts of one archive that are computed on several kinds of processors have one recipe.
    """
    return hash_json(["convoxel prediction 1", __version__, predictor.recipe, asdict(options)])


def case_key(case: Case, recipe: str) -> str:
    """Return the key of a case: names and contents of the image's files, names of its outputs, and the recipe.

    The last digits of a result depend on the instructions that compute it, so those are part of the key: what a machine
    of another kind has computed is computed anew.

    Raises:
        DataError: a file of the image cannot be read.
    """
    parts = [(part.name, hash_file(part)) for part in case.parts]
    return hash_json([recipe, instruction_set(), case.name, parts, [target.name for target in case.targets]])


def stamp(case: Case) -> tuple[tuple[int, int], ...]:
    """Return size and time of change of each file of a case's image.

    Raises:
        DataError: one of them is missing.
    """
    try:
        found = [part.stat() for part in case.parts]
    except OSError as error:
        came = f"cannot be read ({error.strerror or error})"
        raise fault(case.path, came, "a file that stays while it is used", "Check the path and its rights") from None
    return tuple((status.st_size, status.st_mtime_ns) for status in found)


def are_intact(targets: Sequence[Path], hashes: Mapping[str, str]) -> bool:
    """Return whether all outputs of a case are there as they were written."""
    try:
        return all(hash_file(target) == hashes.get(target.name) for target in targets)
    except DataError:
        return False
