"""Cases that are computed together: each is done, or fails by itself."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from convoxel.data import Sample
from convoxel.errors import CheckpointError, ConfigError, ConvoxelError, DataError, UnsupportedError, WriteError
from convoxel.files.content import hash_file
from convoxel.files.fault import fault, shown
from convoxel.predict.case_files import Case
from convoxel.predict.case_key import case_key, stamp
from convoxel.predict.case_manifest import CaseRecord
from convoxel.predict.case_prediction import (
    ComputedCase,
    LoadedCase,
    MapOptions,
    compute_case,
    load_case,
    read_case,
    write_case,
)
from convoxel.predict.inference import Predictor
from convoxel.predict.overlap import Check, overlap
from convoxel.predict.prediction_table import Row, predict_rows
from convoxel.predict.stage_clock import STAGES, WAITING, measure_stages, stage

# Errors that say nothing of one image: the next case would fail alike.
_FATAL = (ConfigError, CheckpointError, UnsupportedError, WriteError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Batch = Sequence[Case]
OnPart = Callable[[str, int, int], None]


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


def predict_batches(
    predictor: Predictor, batches: Sequence[Batch], work: Work, on_part: OnPart | None = None
) -> Generator[list[CaseRecord], None, None]:
    """Yield the records of batches of cases, in order; what is wrong with an image is in its record.

    While a batch is computed, the next one is read and prepared, and the results of the one before are written. Three
    batches are held at a time, of which large arrays lie in temporary files (``files.file_array``).

    Args:
        predictor: trained network.
        batches: images; of a table, those of a batch are computed at once.
        work: what is done with them.
        on_part: called with the name of an image, and the number of its tiles done and of all.

    Raises:
        ConvoxelError: something is wrong that is wrong with every case: an option, the run, the disk.
    """
    kind = _Maps if predictor.run.config.task == "segment" else _Rows
    steps = kind(predictor, work, on_part or (lambda name, done, total: None))
    return overlap(batches, steps.read, steps.compute, steps.write)


def failed(case: Case, error: Exception, work: Work, seconds: float = 0.0) -> CaseRecord:
    """Return the record of a case that failed by ``error``, or raise it where it is not the case's own."""
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or isinstance(error, _FATAL) or (work.strict and not isinstance(error, ConvoxelError)):
        raise error
    own = error if isinstance(error, ConvoxelError) else DataError(f"{shown(case.path)}: {_words(error)}")
    reason = " ".join(str(own).split())
    return CaseRecord(case.name, case.targets[0].name, "failed", reason, seconds=seconds, error=own)


def _words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "memory is used up; expected an image that fits. Close other programs, or cut the image."
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); expected a readable file. Check the disk."
    return f"this is a bug in Convoxel: {type(error).__name__}: {error} (predict the image alone with --traceback)."


@dataclass
class _Entry:
    """A case on its way; one that has failed has its record already."""

    case: Case
    before: object = None
    key: str = ""
    loaded: LoadedCase | Sample | None = None
    found: ComputedCase | Row | None = None
    record: CaseRecord | None = None
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, seconds: float, stages: Mapping[str, float]) -> None:
        """Add the time of a step."""
        self.seconds += seconds
        for name, value in stages.items():
            self.stages[name] += value

    def done(self, work: Work, **entries: Any) -> CaseRecord:
        """Return the record of a case that is done."""
        stages = {name: round(value, 4) for name, value in self.stages.items()}
        names = self.case.name, self.case.targets[0].name
        return CaseRecord(
            *names, "done", key=self.key, recipe=work.recipe, seconds=self.seconds, stages=stages, **entries
        )


class _Steps:
    """The three steps of a batch: read, compute, write."""

    def __init__(self, predictor: Predictor, work: Work, on_part: OnPart) -> None:
        self._predictor, self._work, self._on_part = predictor, work, on_part

    def read(self, cases: Batch) -> list[_Entry]:
        """Read the images of a batch, and prepare them where the network sees tiles."""
        entries = [_Entry(case) for case in cases]
        for entry in entries:
            with self._step(entry):
                entry.before, entry.key = stamp(entry.case), case_key(entry.case, self._work.recipe)
                entry.loaded = self._load(entry.case)
        return entries

    def compute(self, entries: list[_Entry], check: Check) -> list[_Entry]:
        """Compute what is found in the images that could be read; ``check`` raises what the writer raised."""
        self._compute([entry for entry in entries if entry.record is None], check)
        for entry in entries:
            entry.loaded = None
            self._on_part(entry.case.name, 1, 1)
        return entries

    def write(self, entries: list[_Entry], waited: float) -> list[CaseRecord]:
        """Write what was found, and return the records."""
        for entry in entries:
            entry.add(0.0, {WAITING: waited / len(entries)})
            if entry.record is None:
                self._write(entry)
        return [entry.record for entry in entries if entry.record is not None]

    @contextlib.contextmanager
    def _step(self, entry: _Entry) -> Iterator[None]:
        """Time a step of a case; an error that is the case's own is its outcome."""
        begun = time.perf_counter()
        with measure_stages() as clock:
            try:
                yield
            except Exception as error:
                entry.record = failed(entry.case, error, self._work, entry.seconds + time.perf_counter() - begun)
        entry.add(time.perf_counter() - begun, clock.seconds)

    def _load(self, case: Case) -> LoadedCase | Sample:
        raise NotImplementedError

    def _compute(self, entries: list[_Entry], check: Check) -> None:
        raise NotImplementedError

    def _write(self, entry: _Entry) -> None:
        raise NotImplementedError


class _Maps(_Steps):
    """Label maps, each a file."""

    def _load(self, case: Case) -> LoadedCase:
        return load_case(self._predictor, case.image.files, self._work.options)

    def _compute(self, entries: list[_Entry], check: Check) -> None:
        for entry in entries:
            name = entry.case.name

            def tick(done: int, total: int, name: str = name) -> None:
                check()
                self._on_part(name, done, total)

            with self._step(entry):
                assert isinstance(entry.loaded, LoadedCase)
                targets, options = entry.case.targets, self._work.options
                entry.found = compute_case(self._predictor, entry.loaded, targets, options, tick)

    def _write(self, entry: _Entry) -> None:
        found, targets = entry.found, entry.case.targets
        outputs: dict[str, str] = {}
        assert isinstance(found, ComputedCase)
        with self._step(entry):
            write_case(self._predictor, found, targets, self._work.options)
            _check_same(entry.case, entry.before)
            outputs = {path.name: hash_file(path) for path in targets}
        tiling = "" if found.tiling is None else str(found.tiling)
        cleaned = {name: asdict(change) for name, change in found.changes.items()}
        entry.record = entry.record or entry.done(self._work, outputs=outputs, tiling=tiling, cleaned=cleaned)


class _Rows(_Steps):
    """Rows of a table, which is written once all are done."""

    def _load(self, case: Case) -> Sample:
        before = stamp(case)
        with stage("read"):
            sample = read_case(self._predictor, case.image.files, self._work.options)
        _check_same(case, before)
        return sample

    def _compute(self, entries: list[_Entry], check: Check) -> None:
        names = [entry.case.name for entry in entries]
        samples = [entry.loaded for entry in entries if isinstance(entry.loaded, Sample)]
        begun = time.perf_counter()
        try:
            rows = predict_rows(self._predictor, names, samples) if entries else []
        except Exception as error:
            if len(entries) > 1:  # one of them may be the reason
                for entry in entries:
                    self._compute([entry], check)
                return
            took = entries[0].seconds + time.perf_counter() - begun
            entries[0].record = failed(entries[0].case, error, self._work, took)
            return
        for entry, row in zip(entries, rows, strict=True):
            share = (time.perf_counter() - begun) / len(entries)
            entry.found = row
            entry.add(share, {"network": share})

    def _write(self, entry: _Entry) -> None:
        assert isinstance(entry.found, dict)
        entry.record = entry.done(self._work, row=entry.found)


def _check_same(case: Case, before: object) -> None:
    if stamp(case) != before:
        mend = "Predict it again once it is complete"
        raise fault(case.path, "it changed while it was predicted", "a file that stays while it is used", mend)
