"""The model card of a run: everything that its records tell, and questions where they tell nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from convoxel.cli import main
from convoxel.errors import CheckpointError
from convoxel.report import read_run, render_card, write_card
from tests.support.written_run import classified, segmented


def test_a_card_holds_the_records_of_its_run(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    assert main(["export", str(run), "--card", str(run / "card.md")]) == 0
    card = (run / "card.md").read_text(encoding="utf-8")
    head = card.split("---\n")[1]
    assert "library_name: convoxel" in head and "image-segmentation" in head and "  - 3d" in head
    assert "| parameters | 1,234 |" in card and "| receptive field | 44 × 44 × 44 |" in card
    assert f"| fingerprint | {'ab' * 32} |" in card and "| classes | background, grey and white |" in card
    assert re.search(r"^\| grey \| 0\.912 \|", card, re.MULTILINE), "a figure of a class"
    assert "Figure(" not in card and str(tmp_path) not in card
    assert card.count("Not recorded; to be filled in.") == 3


def test_of_classifications_and_of_runs_that_have_not_finished(tmp_path: Path) -> None:
    card = render_card(read_run(classified(tmp_path / "run", ["cat", "dog"])))
    assert "image-classification" in card and "cat and dog" in card
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text("task: segment\n")
    card = render_card(read_run(tmp_path / "new"))
    assert "has not finished its training" in card and "has not been evaluated" in card


def test_names_from_outside_are_no_markup(tmp_path: Path) -> None:
    names = ("<b>|x|</b>", "a*b*\n# c")
    card = render_card(read_run(segmented(tmp_path / "run", names)))
    assert "<b>" not in card.replace("\\<b\\>", "") and "\n# c" not in card
    rows = [line for line in card.splitlines() if line.startswith("| \\<b\\>")]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", rows[0])) for row in rows)


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError):
        write_card(tmp_path)
    run = segmented(tmp_path / "run")
    assert main(["export", str(run)]) == 2
    assert "--card" in capsys.readouterr().err
    assert main(["export", str(run), "--card", str(tmp_path / "card.md"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"card": str(tmp_path / "card.md")}
