"""A table of samples, labels.csv: the file of each image with its class, classes, values, or the file of its label map.

    file,class,split,subject          file,label,split,subject
    a/1.png,cat,train,p1              scans/1.nii.gz,masks/1.nii.gz,train,p1

    file,labels,split,subject         (several classes an image, or none)
    a/1.png,cat;dog,train,p1
    a/2.png,,train,p2

    file,value,split,subject          (a number to predict; several are value_age, value_weight …)
    a/1.png,71.5,train,p1

Paths are relative to the table's folder and stay inside it. ``split`` (train, validation, test) and ``subject`` may be
missing; other columns are ignored. Commas, semicolons or tabs separate the columns, semicolons or bars the names of
several classes (in quotes where semicolons separate the columns too). Beside semicolons, numbers may have decimal
commas.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convoxel.data.classification import ClassFile, check_distinct, class_name, open_class_files
from convoxel.data.collection import Collection
from convoxel.data.dataset_json import path_inside
from convoxel.data.folder_parts import part_of
from convoxel.data.opening import Opening
from convoxel.data.segmentation import Pair, open_pairs, without_labels
from convoxel.files.fault import ErrorCollector, brief, fault, plural, shown
from convoxel.files.stream import read_text

NAME = "labels.csv"
_MOST_BYTES = 64 * 2**20  # half a million lines
_VALUE = "value"
_LARGEST = 1e30  # squares of deviations stay finite in double precision, and values in float32
_ANSWERS = ("class", "label", "labels")
_COLUMNS = ("file", *_ANSWERS, "split", "subject")
_MEND = "Correct the table"


@dataclass(frozen=True)
class _Row:
    """One line of the table: its number, the fault's place, its cells by column, stripped, and what separates them."""

    line: int
    where: str
    cells: dict[str, str]
    separator: str

    def get(self, column: str) -> str:
        return self.cells.get(column, "")


def table_of(path: Path) -> Path | None:
    """Return the table that a source is, or that its folder holds; None where there is none.

    A labels.csv without a column ``file`` in a folder is somebody's note, such as a list of colours.
    """
    if path.is_dir():
        table = path / NAME
        return table if table.is_file() and "file" in _split_first(read_text(table, _MOST_BYTES))[0] else None
    return path if path.name.lower().endswith(".csv") and path.is_file() else None


def table_tasks(path: Path) -> tuple[str, ...]:
    """Return the task of a source's table, which its columns tell; none where it has no table."""
    table = table_of(path)
    if table is None:
        return ()
    columns = _read_columns(table, read_text(table, _MOST_BYTES))[0]
    if any(map(_is_value, columns)):
        return ("regress",)
    return ("segment",) if "label" in columns else ("classify",)


def open_table(path: Path, task: str, errors: Opening) -> Collection:
    """Return the samples of a table."""
    table = table_of(path) or path
    rows = list(_read_rows(table, errors))
    if not rows:
        raise fault(table, "the table has no lines below its first", "one line a sample", "Add the samples")
    folder = table.parent
    name = shown(folder.resolve().name if table.name == NAME else table.stem)
    sources = ((NAME, table),)
    if task == "regress":
        return _open_values(table, name, rows, errors)
    if task == "classify":
        several = "labels" in rows[0].cells
        named = {row.line: _names(row) if several else [row.get("class")] for row in rows}
        classes = list(errors.classes) or _sort_classes(
            {name for row in rows if _part(row) in ("", "train") for name in named[row.line]}
        )
        files, known = [], {class_name(each): number for number, each in enumerate(classes)}
        for row, place in _with_files(folder, rows, errors):
            with errors.collect(row.get("file")):
                numbers = [_find_class(row, each, known) for each in named[row.line]]
                if len(set(numbers)) < len(numbers):
                    raise fault(row.where, f"labels is {brief(row.get('labels'))}", "every class once", _MEND)
                label = frozenset(numbers) if several else numbers[0]
                files.append(ClassFile(_part(row), shown(row.get("file")), place, label, row.get("subject") or None))
        check_distinct(table, classes)
        least = 1 if several else 2
        if len(classes) < least:
            expected = "at least one" if several else "at least two"
            raise fault(table, f"{plural(len(classes), 'class', 'classes')} in training", expected, "Add samples")
        return open_class_files(table, name, files, classes, errors, sources, multi_label=several)
    pairs, unlabelled = [], []
    for row, place in _with_files(folder, rows, errors):
        if _part(row) == "test" and not row.get("label"):
            unlabelled.append(row.get("file"))
            continue
        with errors.collect(row.get("file")):
            label_file = path_inside(f"{row.where}, label", folder, row.get("label"))
            pair = Pair(_part(row), shown(row.get("file")), (place,), label_file, row.get("subject") or None)
            pairs.append(pair)
    notes = [without_labels(unlabelled)] if unlabelled else []
    return open_pairs(folder, pairs, errors, title=name, notes=notes, sources=sources)


def _is_value(column: str) -> bool:
    return column == _VALUE or column.startswith(f"{_VALUE}_")


def _open_values(table: Path, title: str, rows: list[_Row], errors: Opening) -> Collection:
    """Return samples with numbers to predict: of the columns value, or value_NAME for each of several."""
    columns = [column for column in rows[0].cells if _is_value(column)]
    targets = [column.removeprefix(f"{_VALUE}_") for column in columns]
    if errors.classes and tuple(targets) != errors.classes:
        raise fault(table, f"the targets {', '.join(targets)}", ", ".join(errors.classes), "Name the columns alike")
    files = []
    for row, place in _with_files(table.parent, rows, errors):
        with errors.collect(row.get("file")):
            values = tuple(_read_value(row, column) for column in columns)
            files.append(ClassFile(_part(row), shown(row.get("file")), place, values, row.get("subject") or None))
    return open_class_files(table, title, files, targets, errors, ((NAME, table),), task="regress")


def _read_value(row: _Row, column: str) -> float:
    text = row.get(column)
    try:  # beside semicolons, a comma stands before the decimals
        value = float(text.replace(",", ".") if row.separator == ";" else text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise fault(row.where, f"{column} is {brief(row.get(column))}", "a finite number, such as 71.5", _MEND)
    return value


def _names(row: _Row) -> list[str]:
    """Return the names of an image's classes, none of an empty cell."""
    return [name for each in re.split(r"[;|]", row.get("labels")) if (name := each.strip())]


def _find_class(row: _Row, name: str, known: dict[str, int]) -> int:
    number = known.get(class_name(name))
    if number is None:
        came = f"the class {brief(name)} does not occur in training"
        raise fault(row.where, came, ", ".join(list(known)[:8]), _MEND)
    return number


def _read_columns(table: Path, text: str) -> tuple[list[str], str]:
    """Return the names of the columns, in small letters, and the letter that separates them."""
    columns, separator = _split_first(text)
    where = f"{table}, line 1"
    values = [name for name in columns if _is_value(name)]
    twice = next((name for name in (*_COLUMNS, *values) if columns.count(name) > 1), None)
    if twice is not None:
        raise fault(where, f"two columns {twice}", "every column once", _MEND)
    if "file" not in columns or sum(name in columns for name in _ANSWERS) + bool(values) != 1:
        came = f"the columns {', '.join(map(shown, columns[:8]))}"
        expected = (
            "file, and one of class (its name), labels (names of several), value (a number; several are value_NAME) "
            "and label (the file of its label map)"
        )
        raise fault(where, came, expected, "Name the columns in the first line")
    return columns, separator


def _split_first(text: str) -> tuple[list[str], str]:
    """Return the cells of the first line, in small letters, and the letter that separates them."""
    first = next(io.StringIO(text, newline=None), "").strip("\n")
    separator = max(",;\t", key=first.count)
    return [cell.strip().strip('"').lower() for cell in first.split(separator)], separator


def _read_rows(table: Path, errors: ErrorCollector) -> Iterator[_Row]:
    """Yield the lines that name a file, a class or a label, and a known part; the others are reported."""
    text = read_text(table, _MOST_BYTES)
    columns, separator = _read_columns(table, text)
    answer = next(name for name in columns if name in _ANSWERS or _is_value(name))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: dict[str, int] = {}
    while True:
        line = reader.line_num + 1
        where = f"{table}, line {line}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            errors.note(f"line {line}", fault(where, f"this cannot be read ({error})", "cells of text", _MEND))
            continue
        if cells is None:
            return
        if line == 1 or not any(cell.strip() for cell in cells):
            continue
        row = _Row(line, where, dict(zip(columns, (cell.strip() for cell in cells), strict=False)), separator)
        with errors.collect(row.get("file") or f"line {line}"):
            if len(cells) != len(columns):
                raise fault(where, f"{plural(len(cells), 'cell')}", f"{len(columns)}, as in the first line", _MEND)
            part = row.get("split")
            if "split" in columns and part_of(part) is None:
                raise fault(where, f"split is {brief(part)}", "train, validation or test", _MEND)
            if not row.get(answer) and answer != "labels" and not (answer == "label" and _part(row) == "test"):
                raise fault(where, f"{answer} is empty", f"a {answer} for every image", _MEND)
            if "subject" in columns and not row.get("subject"):
                raise fault(
                    where, "subject is empty", "the subject of every image", f"{_MEND}, or leave the column out"
                )
            key = os.path.normpath(row.get("file"))
            if row.get("file") and key in lines:
                raise fault(where, f"{row.get('file')} is in line {lines[key]} already", "every file once", _MEND)
            lines[key] = line
            yield row


def _with_files(folder: Path, rows: list[_Row], errors: ErrorCollector) -> Iterator[tuple[_Row, Path]]:
    for row in rows:
        with errors.collect(row.get("file") or f"line {row.line}"):
            yield row, path_inside(f"{row.where}, file", folder, row.get("file"))


def _part(row: _Row) -> str:
    return part_of(row.get("split")) or ""


def _sort_classes(names: set[str]) -> list[str]:
    """Return class names in order: of numbers, if all are, else of letters."""
    whole = all(name.isascii() and name.isdigit() and len(name) < 10 for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if whole else None)
