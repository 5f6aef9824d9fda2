"""Malformed models: every class is refused with the node and the reason, in two seconds and half a gigabyte.

The cases run once, in a process of their own with limited memory (``malformed_files``); each test reads its line.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel.errors import ConvoxelError
from convoxel.graph.load import load
from tests.support import malformed_files

SECONDS = 2.0
X = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.malformed_files", str(tmp_path_factory.mktemp("malformed"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, rows[-1:], done.stderr[-2000:])
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("case", malformed_files.CASES)
def test_malformed_is_refused(outcomes: dict[str, Any], case: str) -> None:
    row, words = outcomes[case], malformed_files.CASES[case][1]
    assert row["kind"] == "refused", row
    assert re.search(words, row["said"], re.DOTALL), row
    assert "MemoryError" not in row["said"], row  # refused before memory is asked for, not because there is none
    assert row["seconds"] < SECONDS and row["bytes"] < malformed_files.MEMORY, row


def test_the_cases_are_malformed_by_one_thing(tmp_path: Path) -> None:
    """The files are valid before the cases change them."""
    program: Any = load(malformed_files.saved(tmp_path))
    expected = program(X)
    assert expected.shape == (1, 4, 1, 1) and np.isfinite(expected).all()
    malformed_files.forged(tmp_path / "net.cvx", lambda content: None)
    np.testing.assert_array_equal(load(tmp_path / "net.cvx")(X), expected)
    good = malformed_files._external(tmp_path, "sub/weights.bin", offset=0, length=432)
    assert np.isfinite(load(good)(X)).all()


def answered(path: Path) -> bool:
    """Return True if a damaged file still gives a program that runs; anything but an answer or a refusal fails."""
    try:
        program: Any = load(path, threads=1)
        program(X)
    except ConvoxelError:
        return False
    return True


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # weights that a flipped bit has made infinite
def test_flipped_bits_are_refused_or_run(tmp_path: Path) -> None:
    whole, random = malformed_files.valid(), np.random.default_rng(3)
    path, ran = tmp_path / "net.onnx", 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        ran += answered(path)
    assert 0 < ran < 400  # weights may change; what describes them may not


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every part of a tree of JSON is."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


ODD: list[Any] = [0, -1, 2, 7, 2**31, 2**63, 1e38, None, True, "", "x", "int64", "last", [], {}, {"size": "h*w - 9"}]
ODD += [{"number": "nan"}, {"number": "inf"}, 10**9]


def test_programs_that_make_no_sense_are_refused_or_run(tmp_path: Path) -> None:
    random, ran = np.random.default_rng(5), 0
    path = malformed_files.saved(tmp_path)
    whole = path.read_bytes()

    def change(content: Any) -> None:
        *way, last = (found := places(content))[int(random.integers(1, len(found)))]
        for key in way:
            content = content[key]
        if random.random() < 0.8:
            content[last] = ODD[int(random.integers(len(ODD)))]
        else:
            content.pop(last)

    for _ in range(200):
        path.write_bytes(whole)
        malformed_files.forged(path, change)
        ran += answered(path)
    assert 0 < ran < 200
