"""Writing files: whole or not at all, whatever fails."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convoxel.errors import ConfigError, DataError
from convoxel.files import atomic
from convoxel.files.folder import whole_folder
from convoxel.files.lock import hold_lock


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


WRITER = """
import os, sys
from convoxel.files.atomic import open_atomic
with open_atomic(sys.argv[1]) as file:
    file.write(b"half"); file.flush()
    print(flush=True); sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    """And not before: as long as a process writes, nobody takes its file away."""
    words = [sys.executable, "-c", WRITER, str(tmp_path / "a.bin")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdout.readline()
        atomic.remove_unfinished(tmp_path)
        assert len(list(tmp_path.glob(".convoxel-*.part"))) == 1
        writer.stdin.write(b"\n")
        writer.stdin.close()
        writer.wait()
    assert len(list(tmp_path.glob(".convoxel-*.part"))) == 1
    atomic.write_bytes(tmp_path / "b.bin", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]


def test_a_lock_file_goes_with_the_lock(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").write_text("12345\n")  # of a process that was killed
    with hold_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result"
    with whole_folder(target) as part:
        atomic.write_bytes(part / "a.bin", b"content")
        assert not target.exists()
        atomic.remove_unfinished(target.parent)  # of another process: it is locked
    assert [path.name for path in target.parent.iterdir()] == ["result"] and (target / "a.bin").exists()
    with pytest.raises(ConfigError, match="not empty"), whole_folder(target):
        pass
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as part:
        atomic.write_bytes(part / "a.bin", b"content")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "other" / "result") as part:
        atomic.write_bytes(part / "a.bin", bytes([1 // 0]))
    assert not (tmp_path / "other").exists()
    killed = tmp_path / "new" / ".convoxel-0123456789abcdef.part"
    killed.mkdir()
    (killed / "a.bin").write_bytes(b"half")
    atomic.remove_unfinished(killed.parent)
    assert not killed.exists()


def test_links_are_followed_and_devices_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "a.bin")
    for content in (b"first", b"second"):
        atomic.write_bytes(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "a.bin").read_bytes() == content
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(DataError, match="this is a device or a pipe"):
            atomic.write_bytes(tmp_path / name, b"content")
    assert not Path(os.devnull).is_file() and (tmp_path / "pipe").is_fifo()
