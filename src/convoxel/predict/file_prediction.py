"""Prediction of image files: label maps with the images' affine, or a table of classes.

A folder may hold thousands of images. One that cannot be predicted fails by itself, what is done is kept by the hash of
all that decides it, and several processes may each take a part of the folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from convoxel.data.channel_files import describe_channels
from convoxel.errors import ConfigError, DataError, check_choice
from convoxel.files.folder import make_folder
from convoxel.predict.archive import Archive, ArchiveOptions, OnCase, Workers
from convoxel.predict.case_batch import Batch, Work
from convoxel.predict.case_files import Case, is_one, list_cases, take_part
from convoxel.predict.case_key import hash_recipe
from convoxel.predict.case_manifest import CaseRecord, Manifest, manifest_path
from convoxel.predict.case_prediction import LABEL_MAP, MapOptions
from convoxel.predict.inference import Predictor
from convoxel.predict.run_progress import OnProgress

_CLASSIFY_BATCH = 32
_ALL = ArchiveOptions()


def predict_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    on_progress: OnProgress | None = None,
    options: MapOptions = LABEL_MAP,
    ending: str | None = None,
    *,
    archive: ArchiveOptions = _ALL,
    on_case: OnCase | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    workers: Workers | None = None,
) -> list[Path]:
    """Predict the images of ``source``, write the results to ``target`` and return those that are there now.

    See :func:`convoxel.train.predict`, which does this with the networks of run folders.

    Args:
        predictor: trained network.
        source: image, or folder of images.
        target: file or folder to write.
        on_progress: called with what is done.
        options: outputs of an image, and the way in which its file is read.
        ending: that of label maps in a folder (default: by the image's format).
        archive: the way in which the images are gone through (default: all of them, up to the first error).
        on_case: called with the record of each case.
        on_note: called with what file names were taken to say, in words.
        workers: processes that compute (default: this one).
    """
    check_choice("on_error", archive.on_error, ("skip", "stop"))
    maps = predictor.run.config.task == "segment"
    cases, problems = list_cases(source, target, predictor.run.data, maps=maps, ending=ending)
    options.check(predictor)
    if maps:
        cases = _with_shares(cases, options, predictor.run.data.dims)
    strict = is_one(source) or archive.on_error == "stop"
    if strict and problems:
        raise DataError(problems[0].message)
    mine, wrong = take_part(cases, archive.part), take_part(problems, archive.part)
    told = describe_channels([case.image for case in mine])
    if told:
        on_note(told)
    if not mine and not wrong:
        return []
    first = cases[0].targets[0]
    # One image into one file is no archive, and gets no list beside it.
    single = target == first or not maps
    listed = archive.skip_existing or not is_one(source) or target != first
    where = manifest_path(first if single else target, folder=not single)
    work = Work(options, hash_recipe(predictor, options), strict)
    way = Archive(predictor, work, on_progress, on_case, Manifest(where) if listed else None)
    for problem in wrong:
        way.note(CaseRecord(problem.name, "", "failed", problem.message))
    waiting = way.survey(mine, archive.skip_existing)

    def finish(found: Mapping[tuple[str, str], CaseRecord]) -> None:
        if not maps:
            way.write_rows(first, cases, found)

    with make_folder(first.parent), way.kept(finish):
        way.compute(_batches(waiting, 1 if maps else _CLASSIFY_BATCH), workers)
    there = {record.file for record in way.records if record.state != "failed"}
    return [path for case in mine if case.name in there for path in case.targets] if maps else [first]


def _with_shares(cases: Sequence[Case], options: MapOptions, dims: int) -> list[Case]:
    """Return the cases with all files that are written; an image may be called as the shares of another one."""
    found = [replace(case, targets=options.targets(case.targets[0], dims)) for case in cases]
    images = {path.resolve() for case in cases for path in case.image.files}
    names = Counter(target.name.casefold() for case in found for target in case.targets)
    for target in (target for case in found for target in case.targets):
        if names[target.name.casefold()] > 1:
            raise ConfigError(f"input: two images would write {target.name}; expected other names. Rename one of them.")
        if target.resolve() in images:
            raise ConfigError(f"output: {target} is an input image. Give another --output.")
    return found


def _batches(cases: Sequence[Case], size: int) -> list[Batch]:
    return [cases[first : first + size] for first in range(0, len(cases), size)]
