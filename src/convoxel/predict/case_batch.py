"""Cases that are computed together: each is done, or fails by itself."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from convoxel.data import Sample
from convoxel.errors import CheckpointError, ConfigError, ConvoxelError, DataError, UnsupportedError, WriteError
from convoxel.files.content import hash_file
from convoxel.files.fault import fault, shown
from convoxel.predict.case_files import Case
from convoxel.predict.case_key import case_key, stamp
from convoxel.predict.case_manifest import CaseRecord
from convoxel.predict.case_prediction import MapOptions, predict_case, read_case
from convoxel.predict.inference import Predictor
from convoxel.predict.prediction_table import predict_rows

# Errors that say nothing of one image: the next case would fail alike.
_FATAL = (ConfigError, CheckpointError, UnsupportedError, WriteError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

OnTile = Callable[[int, int], None]


@dataclass(frozen=True)
class Work:
    """All that is done alike with every case.

    Attributes:
        options: outputs of an image, and the way in which its file is read.
        recipe: hash of all that decides results beside the image.
        strict: whether an error that is none of ours is raised, and not noted as the case's.
    """

    options: MapOptions
    recipe: str
    strict: bool = False


def predict_batch(
    predictor: Predictor, cases: Sequence[Case], work: Work, on_tile: OnTile | None = None
) -> list[CaseRecord]:
    """Return the records of cases that are computed now; what is wrong with an image is in its record.

    Args:
        predictor: trained network.
        cases: images; of a table they are one batch of the network.
        work: what is done with them.
        on_tile: called with the number of exact tiles of an image done and of all.

    Raises:
        ConvoxelError: something is wrong that is wrong with every case: an option, the run, the disk.
    """
    if predictor.run.config.task == "segment":
        return [_predict_map(predictor, case, work, on_tile) for case in cases]
    return _predict_rows(predictor, cases, work)


def failed(case: Case, error: Exception, work: Work, seconds: float = 0.0) -> CaseRecord:
    """Return the record of a case that failed by ``error``, or raise it where it is not the case's own."""
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or isinstance(error, _FATAL) or (work.strict and not isinstance(error, ConvoxelError)):
        raise error
    own = error if isinstance(error, ConvoxelError) else DataError(f"{shown(case.path)}: {_words(error)}")
    reason = " ".join(str(own).split())
    return CaseRecord(case.path.name, case.targets[0].name, "failed", reason, seconds=seconds, error=own)


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "memory is used up; expected an image that fits. Close other programs, or cut the image."
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); expected a readable file. Check the disk."
    return f"this is a bug in Convoxel: {type(error).__name__}: {error} (predict the image alone with --traceback)."


def _predict_map(predictor: Predictor, case: Case, work: Work, on_tile: OnTile | None) -> CaseRecord:
    begun = time.perf_counter()
    try:
        before, key = stamp(case), case_key(case, work.recipe)
        result = predict_case(predictor, case.path, case.targets, work.options, on_tile)
        _check_same(case, before)
        outputs = {path.name: hash_file(path) for path in result.outputs}
    except Exception as error:
        return failed(case, error, work, time.perf_counter() - begun)
    done = CaseRecord(case.path.name, case.targets[0].name, "done", key=key, recipe=work.recipe, outputs=outputs)
    tiling = "" if result.tiling is None else str(result.tiling)
    stages = {name: round(value, 4) for name, value in result.stages.items()}
    cleaned = {name: asdict(change) for name, change in result.changes.items()}
    return replace(done, seconds=time.perf_counter() - begun, stages=stages, tiling=tiling, cleaned=cleaned)


def _check_same(case: Case, before: object) -> None:
    if stamp(case) != before:
        mend = "Predict it again once it is complete"
        raise fault(case.path, "it changed while it was predicted", "a file that stays while it is used", mend)


def _predict_rows(predictor: Predictor, cases: Sequence[Case], work: Work) -> list[CaseRecord]:
    begun = time.perf_counter()
    records: list[CaseRecord | None] = []
    samples: list[Sample] = []
    keys: list[str] = []
    for case in cases:
        try:
            before, key = stamp(case), case_key(case, work.recipe)
            sample = read_case(predictor, case.path, work.options)
            _check_same(case, before)
        except Exception as error:
            records.append(failed(case, error, work))
            continue
        records.append(None)
        keys.append(key)
        samples.append(sample)
    whole = [case for case, record in zip(cases, records, strict=True) if record is None]
    try:
        rows = iter(predict_rows(predictor, [case.path.name for case in whole], samples) if whole else [])
    except Exception as error:
        if len(cases) > 1:  # one of them may be the reason
            return [record for case in cases for record in _predict_rows(predictor, [case], work)]
        return [failed(cases[0], error, work, time.perf_counter() - begun)]
    seconds = (time.perf_counter() - begun) / len(cases)
    found = iter(keys)
    return [
        record
        or CaseRecord(
            case.path.name, case.targets[0].name, "done",
            key=next(found), recipe=work.recipe, row=next(rows), seconds=seconds,
        )
        for case, record in zip(cases, records, strict=True)
    ]  # fmt: skip
