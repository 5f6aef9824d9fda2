"""Malformed models: every class is refused with the node and the reason, in two seconds of work and half a gigabyte.

The cases run once, in a process of their own with limited memory (``malformed_files``); each test reads its line.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel.errors import ConvoxelError, GraphError, UnsupportedError
from convoxel.graph.load import load
from tests.support import malformed_files
from tests.support.onnx_model import model, node, tensor

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


@pytest.mark.parametrize("shared", ["blobs", "blobs/of/others"])
def test_external_data_lies_beside_the_model_or_beside_what_its_name_leads_to(tmp_path: Path, shared: str) -> None:
    """Caches keep model and data side by side under names of their own; links out of that folder are refused."""
    good = malformed_files._external(tmp_path, "weights.bin")
    expected = load(good)(X)  # type: ignore[operator]
    store, snapshot = tmp_path / shared, tmp_path / "snapshots" / "a"
    store.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (good.parent / "net.onnx").rename(store / "m")
    (good.parent / "weights.bin").rename(store / "sha")
    (snapshot / "net.onnx").symlink_to(store / "m")
    (snapshot / "weights.bin").symlink_to(store / "sha")
    np.testing.assert_array_equal(load(snapshot / "net.onnx")(X), expected)  # type: ignore[operator]
    (snapshot / "weights.bin").unlink()
    (store / "sha").rename(tmp_path / "sha")
    (snapshot / "weights.bin").symlink_to(tmp_path / "sha")
    with pytest.raises(GraphError, match=r"external data of tensor 'w' .*no link that leads out"):
        load(snapshot / "net.onnx")


def _lines(path: Path) -> tuple[int, int]:
    """Return how many lines of Python run, and how many bytes are held at most, while a model is loaded and planned."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    tracemalloc.start()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        program = load(path, threads=1)
        program.prepare(np.ones(program.graph.inputs[0].shape, np.float32))  # type: ignore[union-attr]
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return count, peak


def _chain(operators: Sequence[str], count: int) -> Any:
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    return model(
        [node(operators[i % len(operators)], names[i], names[i + 1]) for i in range(count)], shape=(1, 4, 4, 4)
    )


def _split(count: int) -> Any:
    names = " ".join(f"v{i}" for i in range(count))
    split = node("Split", "x", names, axis=1, num_outputs=count)
    return model([split], shape=(1, count, 2, 2), opset=18, outputs=names)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(_chain, ["Relu"]), id="equal activations"),
        pytest.param(partial(_chain, ["Sigmoid", "Tanh"]), id="activations"),
        pytest.param(partial(_chain, ["Identity"]), id="copies"),
        pytest.param(_split, id="results"),
    ],
)
def test_work_and_memory_grow_with_the_nodes(tmp_path: Path, make: Any) -> None:
    """Twice the nodes take twice the work: a model of a megabyte cannot take minutes."""
    found = []
    for count in (50, 50, 100, 200):  # the first time modules are imported, and tables made
        (tmp_path / "net.onnx").write_bytes(make(count).SerializeToString())
        found.append(_lines(tmp_path / "net.onnx"))
    for less, more in pairwise(found[1:]):
        assert more[0] < 2.1 * less[0] and more[1] < 2.2 * less[1], found


def test_computed_constants_are_counted_together(tmp_path: Path) -> None:
    """No single one is large, but a constant that is joined with itself again and again doubles each time."""
    nodes = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(60)]
    nodes += [node("ReduceSum", "v60", "s", keepdims=0), node("Add", "x s", "y")]
    path = tmp_path / "net.onnx"
    path.write_bytes(model(nodes, [tensor("v0", 4)]).SerializeToString())
    tracemalloc.start()
    with pytest.raises(UnsupportedError, match=r"Concat .*a constant of shape"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    tracemalloc.stop()
