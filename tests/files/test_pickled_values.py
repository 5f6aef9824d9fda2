"""Pickles as data: plain values come through, and nothing of a file is run, imported or grows without bound."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel.errors import DataError
from convoxel.files import pickled_values
from convoxel.files.pickled_values import read_pickled

VALUES: dict[str, Any] = {
    "numbers": [0, 1, 255, 70_000, -3, 2**40, -(2**62), 1.5, True, False, None],
    "texts": ["a", "Ω" * 300, b"raw"],
    "nested": OrderedDict({0: {"a": (1, 2)}, (1, 2): [[], {}, ()], None: "x"}),
    "scalars": [np.float32(0.5), np.float64(2.25), np.int64(-7), np.bool_(True), np.uint8(200)],
    "arrays": [np.arange(6).reshape(2, 3), np.ones((2, 0), np.float32), np.array([1.5, 2], ">f8"),
               np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3.0)],
}  # fmt: skip
PLAIN = {
    "numbers": VALUES["numbers"], "texts": VALUES["texts"],
    "nested": {0: {"a": [1, 2]}, (1, 2): [[], {}, []], None: "x"}, "scalars": [0.5, 2.25, -7, True, 200],
    "arrays": [[[0, 1, 2], [3, 4, 5]], [[], []], [1.5, 2.0], [[0, 1, 2], [3, 4, 5]], 3.0],
}  # fmt: skip


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_come_through(tmp_path: Path, protocol: int) -> None:
    shared = [1, 2]
    content = {**VALUES, "twice": [shared, shared]}
    found: Any = read_pickled(write(tmp_path / "x.pkl", pickle.dumps(content, protocol)))
    assert found == {**PLAIN, "twice": [shared, shared]}
    assert type(found["scalars"][3]) is bool and list(found["nested"]) == [0, (1, 2), None]


class Harmful:
    """An object whose pickle would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def billions() -> list[Any]:
    """A list of few bytes with 10¹⁰ numbers in it."""
    value: list[Any] = [0] * 10
    for _ in range(9):
        value = [value] * 10
    return value


def deep() -> bytes:
    return b"\x80\x04" + b"]" * 100 + b"a" * 99 + b"."


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


ARRAY = pickle.dumps(np.arange(3, dtype=np.int64), 4)


@pytest.mark.parametrize("content, words", [
    (pickle.dumps(pickle.Unpickler, 4), "_pickle.Unpickler"),
    (b"\x80\x04cposix\nsystem\n\x8c\x04true\x85R.", "posix.system"),
    (pickle.dumps(np.array(["a"]), 4), "type 'U1'"),
    (pickle.dumps(np.array([None]), 4), "type 'O8'"),
    (pickle.dumps(np.zeros(2, [("a", "f4")]), 4), "type 'V4'"),
    (pickle.dumps({frozenset(): 1}, 4), "EMPTY_SET|FROZENSET"),
    (pickle.dumps({((1,),): 1}, 4), "tuple as key"),
    (pickle.dumps(billions(), 4), "values"),
    (pickle.dumps(circle(), 4), "within each other"),
    (deep(), "within each other"),
    (pickle.dumps(2**70, 4), "number of 71 bits"),
    (pickle.dumps(np.float64, 4), "numpy.float64"),
    (pickle.dumps(np.dtype("f8"), 4), "in place of a value"),
    (ARRAY.replace(b"K\x03\x85", b"K\x04\x85"), "whole pickle"),
    (ARRAY.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"), "shape"),
    (b"\x80\x04N.\x80"[:3], "whole pickle"),
    (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a.", "whole pickle"),
    (b"I" + b"9" * 5000 + b"\n.", "whole pickle"),
    (b"\x80\x04e.", "whole pickle"), (b"\x80\x04h\x05.", "whole pickle"), (b"\x80\x04K\x01K\x02s.", "whole pickle"),
    (b"\x80\x04K\x01}b.", "attributes"), (b"\x80\x04K\x01)R.", "whole pickle"), (b"PK\x03\x04", "whole pickle"),
    (b"\x80\x04\x8c\x01a\x8c\x01b\x93.", "a.b"), (b"\x80\x02P1\n.", "PERSID"),
])  # fmt: skip
def test_other_objects_and_broken_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    monkeypatch.setattr(pickled_values, "_MOST_VALUES", 10_000)
    path = write(tmp_path / "x.pkl", content)
    with pytest.raises(DataError, match=words) as caught:
        read_pickled(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 500


def test_nothing_runs(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    with pytest.raises(DataError, match=r"pathlib\.Path"):
        read_pickled(write(tmp_path / "x.pkl", pickle.dumps([Harmful(mark)], 4)))
    assert not mark.exists()


def test_instructions_and_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_values, "_MOST_STEPS", 1000)
    with pytest.raises(DataError, match="more than 1000 instructions"):
        read_pickled(write(tmp_path / "x.pkl", b"\x80\x04" + b"]0" * 600 + b"N."))
    monkeypatch.setattr(pickled_values, "_MOST_BYTES", 2**20)
    with pytest.raises(DataError, match="at most 1 MiB"):
        read_pickled(write(tmp_path / "y.pkl", bytes(2**20 + 1)))
    with pytest.raises(DataError, match=r"cannot be opened"):
        read_pickled(tmp_path / "none.pkl")
