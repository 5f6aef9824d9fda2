"""Programs from memory: bytes and open files give what their files give, and are refused for what their files are."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.errors import ConfigError, DataError, GraphError
from convoxel.files import memory
from tests.support.onnx_model import model, node, tensor

X = np.random.default_rng(0).standard_normal((2, 3, 20, 18), np.float32)


@pytest.fixture(scope="module")
def program() -> cx.Program:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 40))
    return cx.compile(nn.Sequential(*layers), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def saved(program: cx.Program) -> bytes:
    return program.to_bytes()


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return model([node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "y")], [tensor("w", 4, 3, 3, 3)])


class Stream:
    """A file of which nobody knows the length, which gives a few bytes at a time."""

    def __init__(self, content: bytes, most: int = 1 << 30) -> None:
        self.file, self.most = io.BytesIO(content), most

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, self.most))


HELD: list[Callable[[bytes], Any]] = [
    bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b)), io.BytesIO, Stream, lambda b: Stream(b, 1000),
    lambda b: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b, 1))),
]  # fmt: skip


@pytest.mark.parametrize("held", HELD)
def test_what_is_held_in_memory_is_the_program(
    program: cx.Program, saved: bytes, network: onnx.ModelProto, held: Callable[[bytes], Any]
) -> None:
    loaded: Any = cx.load(held(saved), threads=1)
    np.testing.assert_array_equal(loaded(X), program(X))
    assert loaded.threads == 1 and loaded.file is None and loaded.choices == program.choices
    assert loaded.to_bytes() == saved
    w = onnx.numpy_helper.to_array(network.graph.initializer[0])
    expected = np.maximum(cx.conv(X, w, padding=1), 0)
    np.testing.assert_array_equal(cx.load(held(network.SerializeToString()))(X), expected)


def test_files_are_read_from_where_they_are(program: cx.Program, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(b"head" + saved)
    with path.open("rb") as file:
        file.seek(4)
        loaded = cx.load(file)
        assert not file.closed and file.tell() == 4 + len(saved)
    path.unlink()
    np.testing.assert_array_equal(loaded(X), program(X))
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_from_where_they_are(program: cx.Program, saved: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO(b"head")
    buffer.seek(4)
    program.save(buffer)
    assert buffer.getvalue() == b"head" + saved

    class Slow(io.RawIOBase):
        written = b""

        def write(self, content: Any) -> int:
            self.written += bytes(content[:5000])
            return min(len(content), 5000)

    slow = Slow()
    program.save(slow)
    assert slow.written == saved
    program.save(tmp_path / "net.cvx")
    assert (tmp_path / "net.cvx").read_bytes() == saved


def test_weights_are_parts_of_the_bytes_unless_somebody_could_change_them(program: cx.Program, saved: bytes) -> None:
    def shared(source: bytes | bytearray | memoryview) -> set[bool]:
        constants = cx.load(source).graph.constants.values()  # type: ignore[union-attr]
        assert not any(array.flags.writeable for array in constants)
        return {np.shares_memory(array, np.frombuffer(source, np.uint8)) for array in constants if array.size > 1}

    assert shared(saved) == shared(memoryview(saved)) == {True}
    changed = bytearray(saved)
    loaded: Any = cx.load(changed)
    assert shared(changed) == shared(memoryview(changed).toreadonly()) == {False}
    changed[:] = bytes(len(changed))
    np.testing.assert_array_equal(loaded(X), program(X))
    np.testing.assert_array_equal(cx.load(memoryview(saved[::-1])[::-1])(X), program(X))


def _refusal(source: Any) -> str:
    with pytest.raises(GraphError, match=r"^load: ") as caught:
        cx.load(source)
    return str(caught.value)


def test_damage_is_found_wherever_it_is(saved: bytes, tmp_path: Path) -> None:
    """Bytes are refused wherever a file of them is; the header is checked here as safetensors checks that of a file."""
    header = 8 + int.from_bytes(saved[:8], "little")
    places = [*range(9), *np.linspace(9, header + 8, 60).astype(int).tolist(), len(saved) - 1]
    path = tmp_path / "<bytes>.cvx"
    for place in places:
        for damaged in (saved[:place] + bytes([saved[place] ^ 4]) + saved[place + 1 :], saved[:place]):
            path.write_bytes(damaged)
            _refusal(path)
            assert "<bytes>" in _refusal(damaged) and "<file>" in _refusal(io.BytesIO(damaged))
    assert "1 bytes belong to no tensor" in _refusal(saved + b"x")


def _with_header(saved: bytes, old: bytes, new: bytes) -> bytes:
    length = int.from_bytes(saved[:8], "little")
    text = saved[8 : 8 + length].replace(old, new, 1)
    assert text != saved[8 : 8 + length]
    return len(text).to_bytes(8, "little") + text + saved[8 + length :]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[64]', b'"shape":[65]'),
        (b'"shape":[64]', b'"shape":[-64]'),
        (b'"shape":[64]', b'"shape":[64.0]'),
        (b'"shape":[64]', b'"shape":[true,64]'),
        (b'"shape":[64]', b'"shape":[' + b"1," * 99 + b"64]"),
        (b'"shape":[64]', b'"shape":[4611686018427387904,4611686018427387904]'),
        (b'"dtype":"F32"', b'"dtype":"F33"'),
        (b'"dtype":"F32"', b'"dtype":["F32"]'),
        (b'"data_offsets":[0,', b'"data_offsets":[8,'),
        (b'"data_offsets":[0,', b'"data_offsets":[-1,'),
        (b'{"__metadata__":{', b'{"__metadata__":{"a":1,'),
        (b'{"__metadata__":{', b'{"__metadata__":[' + b"[" * 100_000),
        (b'"dtype"', b'"type"'),
    ],
)
def test_headers_that_lie_are_refused(saved: bytes, old: bytes, new: bytes) -> None:
    assert "<bytes> is broken or no saved program" in _refusal(_with_header(saved, old, new))


def test_what_is_no_network_is_refused(network: onnx.ModelProto) -> None:
    whole = network.SerializeToString()
    for content in (b"", b"\0" * 64, b"\x89PNG\r\n\x1a\n", b"net.onnx", b"\xff" * 20):
        assert "<bytes> begins with" in _refusal(content) or "<bytes> is no ONNX model" in _refusal(content)
    assert "<bytes> is no ONNX model" in _refusal(whole[:-7])
    assert "<bytes> holds no graph" in _refusal(whole[:2])
    for wrong in (3, None, ["net.cvx"]):
        with pytest.raises(ConfigError, match="expected a path, bytes, or a file that is open for reading in binary"):
            cx.load(wrong)  # type: ignore[arg-type]


def test_external_data_need_a_path(network: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(network, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    cx.load(tmp_path / "net.onnx")
    with pytest.raises(GraphError, match=r"external data of tensor 'w' is in 'w\.bin', but the model did not"):
        cx.load((tmp_path / "net.onnx").read_bytes())


def test_files_that_cannot_be_read_or_written(program: cx.Program, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.cvx"
    path.write_bytes(saved)
    with (
        path.open("r", encoding="latin-1") as text,
        pytest.raises(ConfigError, match=r"net\.cvx gives texts, expected"),
    ):
        cx.load(text)  # type: ignore[arg-type]
    with path.open("r+", encoding="latin-1") as text, pytest.raises(ConfigError, match=r"net\.cvx takes no bytes"):
        program.save(text)  # type: ignore[arg-type]
    with path.open("ab") as writer, pytest.raises(GraphError, match=r"net\.cvx cannot be read \(not open for that"):
        cx.load(writer)  # type: ignore[arg-type]
    with path.open("rb") as reader, pytest.raises(GraphError, match=r"net\.cvx could not be written \(not open"):
        program.save(reader)
    with pytest.raises(GraphError, match=r"net\.cvx cannot be read \(.*closed file"):
        cx.load(reader)
    with path.open("wb") as writer:
        pass
    with pytest.raises(GraphError, match=r"net\.cvx could not be written \(.*closed file"):
        program.save(writer)
    ends = os.pipe()
    os.close(ends[0])
    with pytest.raises(GraphError, match=r"could not be written \(Broken pipe\)"), os.fdopen(ends[1], "wb", 0) as pipe:
        program.save(pipe)


def test_a_stream_without_end_is_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return bytes(size)

    class Lying(io.BytesIO):
        def seek(self, place: int, whence: int = 0) -> int:
            return 1 << 50 if whence else super().seek(place)

    monkeypatch.setattr(memory, "free_memory", lambda: 256 * 2**20)
    stream = Endless()
    for source in (stream, Lying(b"12345678{")):
        with pytest.raises(DataError, match=r"<file>: it takes .* give the path of the file, which is mapped"):
            cx.load(source)
    assert stream.given <= 128 * 2**20
