"""The manifest of a prediction: the state of every case, one line of JSON each, beside the results.

Processes that predict parts of one archive share it. A case gets a line when it is done, skipped or failed, and the
newest counts; at the end of a run one line of each is left. A line that is damaged, or none of ours, counts as none,
so that its case is computed again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from convoxel.data.image_format import split_ending
from convoxel.errors import ConvoxelError, WriteError
from convoxel.files.journal import Journal, hold_journal, read_lines
from convoxel.files.values import JsonObject

_ENDING = "manifest.jsonl"
STATES = ("done", "skipped", "failed")


@dataclass(frozen=True)
class CaseRecord:
    """The outcome of one case.

    Attributes:
        file: name of the image.
        target: name of its label map, or of the table that has its row.
        state: "done", "skipped" (it was done before, and nothing has changed since) or "failed".
        reason: what was wrong with a case that failed.
        key: SHA-256 of all that decides the result: content of the image, networks, options; empty if it failed.
        recipe: SHA-256 of the same without the image.
        outputs: SHA-256 of each file that was written, by name.
        row: the case's row of the table; None for label maps.
        seconds: time of the work on the case, which overlaps that on others.
        stages: its parts by the names of ``stage_clock.STAGES``, in seconds, and what the network waited beside them.
        tiling: exact tiles in words; empty where tiles are blended.
        cleaned: components that the clean-up removed and holes that it filled, by class, and their voxels.
        error: the exception of a case that failed; it is not written.
    """

    file: str
    target: str
    state: str
    reason: str = ""
    key: str = ""
    recipe: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    row: Mapping[str, str | float] | None = None
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    tiling: str = ""
    cleaned: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    error: ConvoxelError | None = field(default=None, compare=False, repr=False)

    @property
    def identity(self) -> tuple[str, str]:
        """The case: a record counts until there is a newer one of the same."""
        return self.target, self.file

    def to_json(self) -> str:
        """Return the record as a line of JSON, without entries that are empty."""
        entries = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "error"}
        return json.dumps({name: value for name, value in entries.items() if value not in ("", {}, None)})

    @classmethod
    def from_json(cls, line: bytes) -> CaseRecord | None:
        """Return the record of a line, or None where it is none of ours."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("state") not in STATES:
            return None
        return cls._checked(found)

    @classmethod
    def _checked(cls, found: JsonObject) -> CaseRecord | None:
        texts = ("file", "target", "state", "reason", "key", "recipe", "tiling")
        entries = {name: found.get(name, "") for name in texts}
        outputs, row, seconds = found.get("outputs", {}), found.get("row"), found.get("seconds", 0.0)
        stages, cleaned = found.get("stages", {}), found.get("cleaned", {})
        known = (
            all(isinstance(value, str) for value in entries.values())
            and isinstance(outputs, dict)
            and isinstance(cleaned, dict)
            and all(isinstance(value, str) for value in outputs.values())
            and (row is None or isinstance(row, dict))
            and (row is None or all(type(value) in (str, int, float) for value in row.values()))
            and isinstance(stages, dict)
            and all(type(value) in (int, float) for value in (seconds, *stages.values()))
        )
        rest = {"outputs": outputs, "row": row, "seconds": seconds, "stages": stages, "cleaned": cleaned}
        return cls(**entries, **rest) if known else None


def manifest_path(results: Path, *, folder: bool) -> Path:
    """Return where the manifest of results lies: ``labels.manifest.jsonl`` beside ``labels``.

    A folder thus holds results alone, and whoever reads all of it meets nothing else. Where a folder is mounted, as in
    containers, or the one above it cannot be written, the manifest lies in it, since it would be lost outside.

    Args:
        results: folder of label maps, or the one file of results.
        folder: whether it is the folder.
    """
    results = results.resolve()
    if not folder:
        return results.with_name(f"{split_ending(results)[0]}.{_ENDING}")
    above = next(place for place in results.parents if place.exists()) if results.name else results
    if not results.name or results.is_mount() or not os.access(above, os.W_OK):
        return results / _ENDING
    return results.with_name(f"{results.name}.{_ENDING}")


class Manifest:
    """The manifest of an archive of results, in the file that :func:`manifest_path` names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[tuple[str, str], CaseRecord]:
        """Return the newest record of each case.

        Raises:
            WriteError: it is there and cannot be read.
        """
        return _newest(read_lines(self.path))

    def add(self, records: Iterable[CaseRecord]) -> None:
        """Add records, which reach the disk.

        Raises:
            WriteError: they cannot be written.
        """
        with hold_journal(self.path) as journal:
            journal.append(record.to_json() for record in records)

    def finish(self, write: Callable[[Mapping[tuple[str, str], CaseRecord]], None]) -> None:
        """Leave one line of each case, and let ``write`` write what follows from all of them, meanwhile nobody else.

        Of several processes that end at the same time, the last one thus sees the records of all.

        Raises:
            WriteError: ``write`` could not.
        """
        with hold_journal(self.path) as journal:
            found = _newest(journal.lines())
            write(found)
            _shorten(journal, found)


def _shorten(journal: Journal, found: Mapping[tuple[str, str], CaseRecord]) -> None:
    with contextlib.suppress(WriteError):  # a full disk, or a system that replaces no open file: the long one will do
        journal.replace(found[case].to_json() for case in sorted(found))


def _newest(lines: Iterable[bytes]) -> dict[tuple[str, str], CaseRecord]:
    records = (CaseRecord.from_json(line) for line in lines)
    return {record.identity: record for record in records if record is not None}
