"""Signals: tables and recordings become (channels, samples) with the distance between samples in seconds."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel import data
from convoxel.data.image_file import read_header
from convoxel.data.label_file import read_label
from convoxel.errors import DataError
from tests.support.refusal import refused

pyedflib = pytest.importorskip("pyedflib")
RNG = np.random.default_rng(21)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


VALUES = [[0.5, -1.0], [2.5, 3e-2], [7.0, 4.0]]
TABLES = {
    "no names": ("a.csv", "0.5,-1\n2.5,3e-2\n7,4\n", None),
    "names": ("a.csv", "left,right\n0.5,-1\n2.5,3e-2\n7,4", None),
    "quotes and lines of Windows": ("a.csv", '"left","right"\r\n0.5,-1\r\n2.5,"0.03"\r\n7,4\r\n', None),
    "lines of old Macs": ("a.csv", "left,right\r0.5,-1\r2.5,0.03\r7,4\r", None),
    "tabs": ("a.tsv", "left\tright\n0.5\t-1\n2.5\t3e-2\n7\t4\n", None),
    "decimal commas": ("a.csv", "0,5;-1\n2,5;0,03\n7;4\n", None),
    "decimal commas below names": ("a.csv", "Zeit;time (ms);l;r\n1;0;0,5;-1\n1;2;2,5;0,03\n1;4;7;4\n", 0.002),
    "time": ("a.csv", "time,l,r\n0,0.5,-1\n0.25,2.5,3e-2\n0.5,7,4\n", 0.25),
    "time in milliseconds": ("a.csv", "l,Time [ms],r\n0.5,100,-1\n2.5,104,3e-2\n7,108,4\n", 0.004),
    "index of pandas": ("a.csv", ",t,l,r\n0,0,0.5,-1\n1,0.5,2.5,3e-2\n2,1,7,4\n", 0.5),
    "mark of the order of bytes": ("a.csv", "\ufeff0.5,-1\n2.5,3e-2\n7,4\n", None),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path: Path, kind: str) -> None:
    name, text, interval = TABLES[kind]
    sample = data.read_image(table(tmp_path / name, text))
    expected = np.float32(VALUES).T
    if kind == "decimal commas below names":  # a column that no rule knows stays
        expected = np.concatenate([[[1, 1, 1]], expected])
    np.testing.assert_array_equal(sample.image, expected.astype(np.float32))
    assert sample.spacing_mm is None if interval is None else np.allclose(sample.spacing_mm or (), interval)


def test_a_last_line_that_does_not_end_is_noted(tmp_path: Path) -> None:
    """A table that was cut within its last number cannot be told from a whole one otherwise."""
    for text, noted in (("1,2\n3,45\n", False), ("1,2\r\n3,45\r\n", False), ("1,2\n3,4", True)):
        assert ("was cut" in read_header(table(tmp_path / "a.csv", text)).note) == noted


FALSE_TABLES = {
    "words": ("the patient\nis well\n", "cannot be read"),
    "rows of unequal length": ("1,2\n3\n", "cannot be read"),
    "names alone": ("a,b\n", "without rows"),
    "points of thousands": ("a;b\n1.000;2,5\n", "points and commas"),
    "time that jumps": ("time,a\n0,1\n1,2\n5,3\n", "steps of 1.0 to 4.0"),
    "time that stands": ("time,a\n0,1\n0,2\n", "steps of 0.0"),
    "time alone": ("time\n0\n1\n", "the columns time"),
    "an empty cell": ("1,2\n,3\n", "cannot be read"),
    "a missing value": ("1,2\nnan,3\n", "NaN or infinite"),
    "too few names": ("a\n1,2\n", "1 names for 2 columns"),
    "zeros": ("\0\0\0", "no table"),
}


@pytest.mark.parametrize("kind", FALSE_TABLES)
@pytest.mark.filterwarnings("error")
def test_false_tables_are_refused(tmp_path: Path, kind: str) -> None:
    text, word = FALSE_TABLES[kind]
    path = table(tmp_path / "a.csv", text)
    refused(lambda: data.read_image(path), path)
    with pytest.raises(DataError, match=word):
        data.read_image(path)


def test_other_encodings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("1,2\n3,4\n".encode("utf-16"))
    refused(lambda: data.read_image(path), path, "UTF-8")


def record(path: Path, signals: Any, rate: float = 100.0, unit: str = "uV", **header: Any) -> Path:
    """Write a recording; the ending tells EDF or BDF."""
    bdf = path.suffix == ".bdf"
    most = 2**23 - 1 if bdf else 2**15 - 1
    kind = pyedflib.FILETYPE_BDFPLUS if bdf else pyedflib.FILETYPE_EDFPLUS
    rates = header.get("rates", [rate] * len(signals))
    with pyedflib.EdfWriter(str(path), len(signals), file_type=kind) as writer:
        writer.setPatientName("Nobody")
        writer.setStartdatetime(datetime.datetime(2020, 1, 1))
        for i, (signal, own) in enumerate(zip(signals, rates, strict=True)):
            low, high = float(np.floor(signal.min())) - 1, float(np.ceil(signal.max())) + 1
            writer.setSignalHeader(
                i,
                {
                    "label": f"C{i}",
                    "dimension": unit,
                    "sample_frequency": own,
                    "physical_min": low,
                    "physical_max": high,
                }
                | {"digital_min": -most - 1, "digital_max": most, "transducer": "", "prefilter": ""},
            )
        writer.writeSamples(list(signals))
    return path


@pytest.mark.parametrize("ending", [".edf", ".bdf"])
@pytest.mark.parametrize("rate", [1.0, 100.0, 256.0])
def test_recordings_are_read_as_pyedflib_reads_them(tmp_path: Path, ending: str, rate: float) -> None:
    signals = [RNG.standard_normal(int(5 * rate)) * 10 ** (i + 1) for i in range(3)]
    path = record(tmp_path / f"a{ending}", signals, rate)
    sample = data.read_image(path)
    with pyedflib.EdfReader(str(path)) as reader:
        expected = np.stack([reader.readSignal(i) for i in range(3)])
    assert sample.image.shape == expected.shape
    np.testing.assert_allclose(sample.image, expected, rtol=1e-6, atol=1e-4)
    assert np.allclose(sample.spacing_mm or (), 1 / rate) and np.abs(sample.image - signals).max() < 1


def test_voltages_come_in_one_unit(tmp_path: Path) -> None:
    signals = [RNG.standard_normal(200)]
    micro, milli = (data.read_image(record(tmp_path / f"{u}.edf", signals, unit=u)).image for u in ("uV", "mV"))
    np.testing.assert_allclose(milli, 1000 * micro, rtol=1e-5)


@pytest.mark.parametrize("rate", [32.0, 50.0, 64.0, 100.0, 128.0])
def test_channels_of_unequal_rates_come_at_one(tmp_path: Path, rate: float) -> None:
    """A sine below half the rate is the same sine at that rate; one above is gone, and a level stays to the ends."""
    rates, tones = (100, 50, 128, 1), (5.0, 3.0, 60.0, 0.0)
    times = [np.arange(8 * own) / own for own in rates]
    signals = [100 * np.sin(2 * np.pi * tone * t) + 1000 for tone, t in zip(tones, times, strict=True)]
    signals[3] = signals[3] + 50 * times[3]  # a line
    path = record(tmp_path / "a.edf", signals, rates=rates)
    refused(lambda: data.read_image(path), path, "--rate", "a.edf#256")
    sample = data.read_image(tmp_path / f"a.edf#{rate:g}")
    assert sample.name == "a" and sample.image.shape == (4, 8 * rate) and np.allclose(sample.spacing_mm or (), 1 / rate)
    t = np.arange(8 * rate) / rate
    inner = slice(int(rate), -int(rate))  # a filter sees beyond the ends
    for channel, tone in enumerate(tones[:3]):
        expected = 1000 + 100 * np.sin(2 * np.pi * tone * t) * (tone < rate / 2)
        np.testing.assert_allclose(sample.image[channel][inner], expected[inner], atol=1)
        assert np.abs(sample.image[channel] - 1000).max() < 130
    np.testing.assert_allclose(sample.image[3][: -int(rate)], 1000 + 50 * t[: -int(rate)], atol=3)
    whole = record(tmp_path / "b.edf", signals[:1])
    same = data.read_image(whole.with_name("b.edf#100"))
    assert np.array_equal(same.image, data.read_image(whole).image)


def test_a_set_of_recordings_of_unequal_rates(tmp_path: Path) -> None:
    for kind in "ab":
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(3):
            signals = [RNG.standard_normal(400), RNG.standard_normal(200)]
            record(tmp_path / "set" / kind / f"{number}.edf", signals, rates=[100, 50] if number else [50, 25])
    assert "--rate" in data.check(tmp_path / "set", "classify")[0].message
    assert data.check(tmp_path / "set", "classify", rate=64) == []
    found = data.load(tmp_path / "set", "classify", rate=64)
    shapes = {sample.image.shape for sample in found.split("all")}
    assert shapes == {(2, 256), (2, 512)} and found.fingerprint
    for rate, word in (("0", "0"), ("fast", "fast"), ("1e9", "1e9"), ("1e-3", "0.001 Hz"), ("99.98765", "ratio")):
        path = tmp_path / "set" / "a" / f"1.edf#{rate}"
        refused(lambda path=path: data.read_image(path), path, word)  # type: ignore[misc]


def test_recordings_that_are_refused(tmp_path: Path) -> None:
    signals = [RNG.standard_normal(500), RNG.standard_normal(250)]
    path = record(tmp_path / "rates.edf", signals, rates=[100, 50])
    refused(lambda: data.read_image(path), path, "unequal rates", "C0 100, C1 50")
    whole = record(tmp_path / "a.edf", signals[:1]).read_bytes()
    path = tmp_path / "b.edf"
    for content, word in (
        (whole[:300], "a header of"),
        (whole[:-2], "records of"),
        (whole[:192] + b"EDF+D" + whole[197:], "gaps"),
        (whole[:236] + b"99999999" + whole[244:], "99999999 records"),
        (whole[:236] + b"nan     " + whole[244:], "records: b'nan     '"),
        (whole[:252] + b"9999" + whole[256:], "9999 channels"),
        (b"1" + whole[1:], "no EDF or BDF"),
        (whole[:244] + b"1_0     " + whole[252:], "duration: b'1_0     '"),
        (whole[:244] + b"1e-99999" + whole[252:], "seconds between two values"),
        (whole[:244] + b"1e308   " + whole[252:], "records of b'1e308   ' seconds"),
    ):
        path.write_bytes(content)
        refused(lambda: data.read_image(path), path, word)
    path.write_bytes(whole[:236] + b"-1      " + whole[244:])  # as written while a recording goes on
    assert data.read_image(path).image.shape == (1, 500)


def test_tables_are_signals_where_a_folder_holds_no_other_image(tmp_path: Path) -> None:
    for name in ("calm", "wild"):
        (tmp_path / name).mkdir()
        for i in range(4):
            rows = "\n".join(f"{i / 10},{v:.4f}" for i, v in enumerate(RNG.standard_normal(30)))
            table(tmp_path / name / f"{i}.csv", f"time,ecg\n{rows}\n")
        table(tmp_path / name / "notes.txt", "what was seen")
    found = data.load(tmp_path, "classify")
    assert (found.dims, found.channels, found.classes) == (1, 1, ("calm", "wild"))
    assert found.train[0].image.shape == (1, 30) and np.allclose(found.spacing_mm or (), 0.1)
    for name in ("calm", "wild"):
        for i in range(4):
            np.save(tmp_path / name / f"{i}.npy", RNG.standard_normal(20))
    assert data.load(tmp_path, "classify").train[0].image.shape == (1, 20)  # the tables are notes now


def test_labels_of_samples(tmp_path: Path) -> None:
    numbers = RNG.integers(0, 3, 40)
    path = table(tmp_path / "a.csv", "class\n" + "\n".join(map(str, numbers)))
    np.testing.assert_array_equal(read_label(path)[1], numbers)
    recording = record(tmp_path / "a.edf", [RNG.standard_normal(100)])
    refused(lambda: read_label(recording), recording, "a label stored as EDF")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(record(tmp_path / "a.edf", [rng.standard_normal(100)] * 2).read_bytes())
    for place in rng.integers(0, 1024, rng.integers(1, 6)):
        content[place] = rng.integers(256)
    path = tmp_path / "b.edf"
    path.write_bytes(content)
    try:
        assert data.read_image(path).image.ndim == 2
    except DataError as error:
        assert str(path) in str(error)
