"""An archive of images on its way through a network: what is done already, what failed, how long the rest takes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from convoxel.data.image_header import Header, fit_channels
from convoxel.errors import ConvoxelError, DataError
from convoxel.files.fault import plural
from convoxel.predict.case_batch import Batch, Work, failed, predict_batches
from convoxel.predict.case_files import Case
from convoxel.predict.case_key import are_intact, case_key
from convoxel.predict.case_manifest import CaseRecord, Manifest
from convoxel.predict.case_prediction import read_case_header
from convoxel.predict.inference import Predictor
from convoxel.predict.prediction_table import columns, write_table
from convoxel.predict.run_progress import OnProgress, Progress

OnCase = Callable[[CaseRecord], None]


@dataclass(frozen=True)
class ArchiveOptions:
    """The way in which an archive of images is gone through.

    Attributes:
        on_error: "stop" raises the first error of an image, "skip" notes it and predicts the others.
        skip_existing: leave out what is done already, with the same network and options, and is intact.
        part: number of the part to predict, from 1, and number of parts.
    """

    on_error: str = "stop"
    skip_existing: bool = False
    part: Sequence[int] = (1, 1)


class Workers(Protocol):
    """Other processes that compute cases."""

    def run(self, batches: Sequence[Batch], work: Work) -> Generator[list[CaseRecord], None, None]:
        """Yield the records of each batch, in the order in which batches are done."""


class Pace:
    """The progress over an archive, in voxels, and the time that the rest will take."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._report = on_progress or (lambda moment: None)
        self._costs: Mapping[str, int] = {}
        self._computed: set[str] = set()
        self._done = self._images = 0
        self._first: tuple[float, int] | None = None

    def check(self, done: int, total: int) -> None:
        """Report how many images have been looked at."""
        self._report(Progress(phase="check", step=done, steps_total=total, fraction=done / total))

    def begin(self, costs: Mapping[str, int]) -> None:
        """Begin with images of so many voxels each, by name."""
        self._costs = costs

    def add(self, name: str) -> None:
        """Report an image as done."""
        self._count(name)
        self._images += 1
        self._show(self._done, self._images)

    def part(self, name: str, tile: int, tiles: int) -> None:
        """Report a tile of an image; after the last one it is computed, and done once its results are written."""
        if tile < tiles:
            self._show(self._done + self._costs[name] * tile / tiles, self._images)
        else:
            self._count(name)

    def _count(self, name: str) -> None:
        if name not in self._computed:
            self._computed.add(name)
            self._done += self._costs[name]
            self._first = self._first or (time.perf_counter(), self._done)

    def _show(self, done: float, images: int) -> None:
        total, left_s = sum(self._costs.values()), None
        if self._first is not None and done > self._first[1]:  # the first image came with what happens once
            left_s = (time.perf_counter() - self._first[0]) * (total - done) / (done - self._first[1])
        count = len(self._costs)
        self._report(
            Progress(
                phase="predict", epoch=1, step=images, steps_total=count, fraction=done / total, time_left_s=left_s
            )
        )


class Archive:
    """Images on their way through a network.

    Args:
        predictor: trained network.
        work: what is done with each image.
        on_progress: called with what is done.
        on_case: called with the record of each case.
        manifest: where records are kept; None keeps none.
    """

    def __init__(
        self,
        predictor: Predictor,
        work: Work,
        on_progress: OnProgress | None = None,
        on_case: OnCase | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.records: list[CaseRecord] = []
        self._predictor, self._work, self._manifest = predictor, work, manifest
        self._pace, self._on_case = Pace(on_progress), on_case or (lambda record: None)

    def survey(self, cases: Sequence[Case], skip_existing: bool) -> list[Case]:
        """Return the cases that are to be computed; the others are done or have failed, which is noted.

        Raises:
            DataError: an image is unreadable or does not fit the network, and work is strict.
        """
        known = self._manifest.read() if skip_existing and self._manifest else {}
        headers: dict[Case, Header] = {}
        for number, case in enumerate(cases, start=1):
            found = self._look_at(case, known.get((case.targets[0].name, case.name)))
            if isinstance(found, CaseRecord):
                self.note(found)
            else:
                headers[case] = found
            self._pace.check(number, len(cases))
        lying = [(str(case.path), h.stated_affine, h.spacing_mm) for case, h in headers.items()]
        self._predictor.run.data.warn_of_geometry(lying)
        self._pace.begin({case.name: max(1, math.prod(h.shape)) * h.channels for case, h in headers.items()})
        return list(headers)

    def _look_at(self, case: Case, before: CaseRecord | None) -> CaseRecord | Header:
        """Return the record of a case that need not or cannot be computed, else the header of its image."""
        try:
            if (
                before is not None
                and before.key
                and before.key == case_key(case, self._work.recipe)
                and (before.row is not None or are_intact(case.targets, before.outputs))
            ):
                return replace(before, state="skipped")
            header = read_case_header(self._predictor, case.image.files, self._work.options)
            fit_channels(case.path, header, self._predictor.run.data.channels)
            return header
        except Exception as error:
            record = failed(case, error, self._work)
            if self._work.strict and record.error is not None:
                raise record.error from None
            return record

    def note(self, record: CaseRecord) -> None:
        """Note the outcome of a case."""
        self.records.append(record)
        self._on_case(record)

    @contextlib.contextmanager
    def kept(self, finish: Callable[[Mapping[tuple[str, str], CaseRecord]], None]) -> Iterator[None]:
        """Keep the records of the block in the manifest; ``finish`` writes at the end what follows from all of them."""
        if self._manifest is None:
            yield
            finish({record.identity: record for record in self.records})
            return
        self._manifest.add(self.records)
        try:
            yield
        except BaseException:
            with contextlib.suppress(ConvoxelError):  # what ended the block is what matters
                self._manifest.finish(lambda found: None)
            raise
        self._manifest.finish(finish)

    def write_rows(self, target: Path, cases: Sequence[Case], found: Mapping[tuple[str, str], CaseRecord]) -> None:
        """Write the table of all cases that have a row by now, those of other parts included."""
        rows = [
            record.row
            for case in cases
            if (record := found.get((target.name, case.name)))
            and record.row is not None
            and record.recipe == self._work.recipe
        ]
        write_table(target, columns(self._predictor), rows)

    def compute(self, batches: Sequence[Batch], workers: Workers | None) -> None:
        """Compute cases, in this process or in others.

        Raises:
            DataError: an image cannot be predicted, and work is strict; or no result can be written.
        """
        done, total = 0, sum(map(len, batches))
        try:
            with contextlib.closing(
                predict_batches(self._predictor, batches, self._work, self._pace.part)
                if workers is None
                else workers.run(batches, self._work)
            ) as groups:
                for records in groups:
                    if self._manifest is not None:
                        self._manifest.add(records)
                    for record in records:
                        if self._work.strict and record.error is not None:
                            raise record.error
                        self.note(record)
                        self._pace.add(record.file)
                        done += 1
        except DataError as error:
            if done == 0:
                raise
            told = f"{done} of {plural(total, 'image')} {'is' if done == 1 else 'are'} done"
            raise type(error)(f"{error} {told}; skip_existing (--skip-existing) goes on from there.") from error
