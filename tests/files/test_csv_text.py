"""Tables of names from outside: nothing is lost, and no spreadsheet computes a name."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from convoxel.files.csv_text import csv_text
from convoxel.predict.case_table import write_case_table

NAMES = ["=1+1", "+x", "@y", "-z", "\tq", "-1", "+1e5", 'e"f', "c,d", "a\nb", "", "'=1", "none"]


def test_cells_come_back_and_none_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(csv_text([NAMES, [0.5, -1, None, True, *NAMES[4:]]]), newline="")))
    assert rows[0] == ["'=1+1", "'+x", "'@y", "'-z", "'\tq", *NAMES[5:]]
    assert rows[1] == ["0.5", "-1", "", "True", "'\tq", *NAMES[5:]]


def test_no_column_comes_twice(tmp_path: Path) -> None:
    def columns(*targets: str) -> list[str]:
        values: dict[str, Any] = {name: float(k) for k, name in enumerate(targets)}
        rows = [{"name": "a", "subject": "a", "truth": values, "predicted": values}]
        path = write_case_table(tmp_path / "a.csv", {"metric_name": "R²", "samples": rows})
        head, row = csv.reader(path.read_text().splitlines())
        assert [float(cell) for cell in row[2:]] == [float(k) for k in range(len(targets)) for _ in range(2)]
        return head

    assert columns("age") == ["image", "subject", "age", "predicted_age"]
    for targets in (("image",), ("subject", "age"), ("age", "predicted_age")):
        head = columns(*targets)
        assert len(set(head)) == len(head) == 2 + 2 * len(targets) and f"true_{targets[0]}" in head
