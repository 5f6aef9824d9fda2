"""Writing files: whole or not at all, whatever fails."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from convoxel.errors import ConfigError, DataError
from convoxel.files import atomic


def test_pieces_and_seeks_are_kept(tmp_path: Path) -> None:
    with atomic.open_atomic(tmp_path / "a.bin") as file:
        file.write(b"0000first")
        file.write(memoryview(b", second"))
        file.seek(0)
        file.write(b"size")
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
    assert (tmp_path / "a.bin").read_bytes() == b"sizefirst, second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_text_and_json(tmp_path: Path) -> None:
    assert atomic.write_text(tmp_path / "a.txt", "µm\n").read_bytes() == "µm\n".encode()
    path = atomic.write_json(tmp_path / "a.json", {"name": "µm", "values": [1, 2.5]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "µm", "values": [1, 2.5]}
    assert path.read_text(encoding="utf-8").startswith('{\n "name": "µm"') and path.read_bytes().endswith(b"}\n")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(bytes(content[:7]))

    monkeypatch.setattr(atomic.os, "fdopen", lambda descriptor, mode: io.BufferedWriter(Short(descriptor, "w"), 64))
    content = bytes(range(256))
    assert atomic.write_bytes(tmp_path / "a.bin", content).read_bytes() == content


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "a.bin", b"content")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic.open_atomic(tmp_path / "a.bin") as file:
        file.write(b"new")
        file.write(bytes([1 // 0]))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_file_and_folder_reach_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(atomic.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    atomic.write_bytes(tmp_path / "a.bin", b"content")
    assert calls == ["file", "rename", "folder"]


def test_the_callers_class_of_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b\.bin: its folder does not exist; expected an existing folder"):
        atomic.write_bytes(tmp_path / "a" / "b.bin", b"", ConfigError)
    with pytest.raises(DataError, match="this is a folder"):
        atomic.write_bytes(tmp_path, b"")


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".convoxel-0123456789abcdef.part").write_bytes(b"half")
    (tmp_path / "a.part").write_bytes(b"somebody's")
    atomic.remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.part"]
