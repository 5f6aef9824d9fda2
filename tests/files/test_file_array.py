"""Arrays in files: parts as of arrays in memory, few and bounded reads, faults with a name; gzip in pieces."""

import gzip
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoxel.errors import DataError
from convoxel.files import file_array, gzip_stream
from convoxel.files.file_array import FileArray, inflate_array, new_array
from convoxel.files.gzip_stream import gzip_pieces


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 0)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    data=st.data(),
    dtype=st.sampled_from(["u1", "<i2", ">f4"]),
    span=st.sampled_from([8, 100, 1 << 24]),
    gap=st.sampled_from([1, 20, 8192]),
)
def test_parts_and_views_equal_those_of_an_array(shape: list[int], data: Any, dtype: str, span: int, gap: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_array, "MOST_IN_MEMORY", 0)
        patch.setattr(file_array, "_SPAN", span)
        patch.setattr(file_array, "_GAP", gap)
        axes = range(len(shape))
        found = new_array(shape, dtype, data.draw(st.permutations(axes)))
        assert isinstance(found, FileArray)
        wanted = np.zeros(shape, dtype)
        values = np.random.default_rng(0).integers(0, 100, (4, *shape))

        def box(sizes: tuple[int, ...]) -> tuple[slice, ...]:
            ends = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in sizes]
            return tuple(slice(*end) for end in ends)

        for each in values:
            place = box(wanted.shape)
            found[place] = each[place]
            wanted[place] = each[place]
        turn = data.draw(st.permutations(axes))
        back = tuple(data.draw(st.sets(st.sampled_from(list(axes)))))
        for array, other in (
            (found, wanted),
            (found.view(lambda a: np.flip(a.transpose(turn), back)), np.flip(wanted.transpose(turn), back)),
        ):
            place = box(other.shape)
            assert array.shape == other.shape and array[place].dtype == other.dtype
            np.testing.assert_array_equal(array[place], other[place])
        np.testing.assert_array_equal(np.asarray(found), wanted)


@pytest.mark.usefixtures("in_files")
def test_a_box_is_read_in_few_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of a volume costs a read a slice; a whole volume comes in pieces of ``_SPAN``."""
    volume = new_array((64, 64, 64), np.int16)
    assert isinstance(volume, FileArray)
    reads: list[int] = []
    read = file_array.OpenFile.read
    monkeypatch.setattr(file_array.OpenFile, "read", lambda self, at, n: (reads.append(n), read(self, at, n))[1])
    volume[8:40, 8:40, 8:40]
    assert len(reads) == 1 and reads[0] < volume.nbytes
    monkeypatch.setattr(file_array, "_GAP", 1024)
    reads.clear()
    volume[8:40, 8:40, 8:40]
    assert len(reads) == 32 and max(reads) <= 64 * 64 * 2
    monkeypatch.setattr(file_array, "_SPAN", 64 * 64 * 2 * 16)
    reads.clear()
    volume[:,]
    assert len(reads) == 4 and sum(reads) == volume.nbytes


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    np.arange(100, dtype=np.int16).tofile(path)
    array = FileArray.open(path, np.dtype("i2"), 0, 100)
    with path.open("r+b") as file:
        file.truncate(150)
    np.testing.assert_array_equal(array[10:20], np.arange(10, 20))
    with pytest.raises(DataError, match=r"a\.raw: it ends 50 bytes too early.*; expected a file that stays as it is"):
        array[:,]


@pytest.mark.usefixtures("in_files")
def test_a_disk_without_room_is_found_before_work_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_array.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20))
    with pytest.raises(DataError, match=r"no room for 20 MiB of temporary data, and 10 are free; .*TMPDIR"):
        new_array((20, 2**20), np.uint8)
    monkeypatch.undo()
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 0)
    with pytest.raises(DataError, match=r"no room for .* MiB of temporary data.*; .*TMPDIR"):
        new_array((2**60,), np.uint8)


@pytest.mark.usefixtures("in_files")
def test_temporary_files_have_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = new_array((1000,), np.uint8)
    assert isinstance(array, FileArray) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_streams_inflate_into_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", most)
    values = np.random.default_rng(0).integers(0, 9, 300_000).astype(">i2")
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"head" + values.tobytes()))
    found = inflate_array(path, 4, values.size, values.dtype)
    assert isinstance(found, FileArray) is (most == 0) and found.dtype == values.dtype
    np.testing.assert_array_equal(found[5:290_000], values[5:290_000])
    path.write_bytes(gzip.compress(b"head" + values[:-1].tobytes()))
    with pytest.raises(DataError, match=r"a\.gz: it is truncated: it inflates to 600002 bytes; expected the 600004"):
        inflate_array(path, 4, values.size, values.dtype)


def test_gzip_bytes_depend_on_the_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(0).integers(0, 4, 3_000_000, np.uint8).tobytes()
    packed = b"".join(gzip_pieces([content]))
    assert gzip.decompress(packed) == content
    cut = [content[:7], b"", content[7:1_500_000], content[1_500_000:]]
    monkeypatch.setattr(gzip_stream, "_MOST_THREADS", 1)
    assert b"".join(gzip_pieces(cut)) == packed
    assert gzip.decompress(b"".join(gzip_pieces([]))) == b""
