"""Recordings in EDF, EDF+ and BDF: every channel in its physical unit, voltages in µV.

The header is text and what follows are whole numbers, so both are read here. Channels of annotations are left out;
recordings with gaps (EDF+D) are refused, and so are channels of unequal rates, unless a rate is asked for:
``night.edf#256`` is the recording at 256 Hz, its channels resampled without frequencies that the rate cannot hold. The
names of persons in the header are not read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from convoxel.data.image_header import Header
from convoxel.files.fault import brief, fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import file_size, read_bytes
from convoxel.files.values import Array

_MOST_CHANNELS = 4096
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # bytes of each field of a channel; all first fields come first
_LABEL, _UNIT, _LOW, _HIGH, _LEAST, _MOST, _COUNT = 0, 2, 3, 4, 5, 6, 8
_MICROVOLT = {"nv": 1e-3, "uv": 1.0, "µv": 1.0, "mv": 1e3, "v": 1e6}
_COPY = "Copy the file again from its source"
# Of the numbers whose ratio a channel is resampled by: the filter has ten times as many values on either side.
_MOST_FACTOR = 100_000
_MOST_RATE = 10_000_000  # Hz
_MOST_SECONDS = 1e9  # of a record


@dataclass(frozen=True)
class _Recording:
    """The layout of a recording, checked.

    Attributes:
        header: of the signal.
        begin: bytes of the text before the numbers.
        records: blocks of the file, each of which holds ``counts`` values of every channel.
        width: bytes of a value.
        counts: values of every channel in a record, annotations included.
        channels: positions of the channels that are no annotations.
        ratios: values that each of those channels gets for one that it has.
        slopes, intercepts: from stored numbers to physical ones, of those channels.
    """

    header: Header
    begin: int
    records: int
    width: int
    counts: tuple[int, ...]
    channels: tuple[int, ...]
    ratios: tuple[Fraction, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]


def read_header(path: Path) -> Header:
    """Return the header of a recording: its samples, channels, and the distance between samples in seconds."""
    return _open(path).header


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and float32 values (channels, samples) in physical units; a label is refused."""
    if label:
        raise fault(path, "a label stored as EDF", "class numbers in .npy or .csv", "Save the label as .npy")
    found = _open(path)
    row, size = sum(found.counts), found.header.shape[0]
    # a channel on its way is float64, several times
    check_memory(path, found.records * row * (found.width + 12) + (4 * len(found.channels) + 32) * size)
    file = split_rate(path)[0]
    stored = np.memmap(file, np.uint8, "r", found.begin, (found.records, row, found.width))
    begins = np.concatenate([[0], np.cumsum(found.counts)])
    values = np.empty((len(found.channels), *found.header.shape), np.float32)
    for to, channel in enumerate(found.channels):
        block = np.ascontiguousarray(stored[:, begins[channel] : begins[channel + 1]])
        physical = (_numbers(block) * found.slopes[to] + found.intercepts[to]).ravel()
        values[to] = _resample(physical, found.ratios[to], size)
    return found.header, values


def split_rate(path: Path) -> tuple[Path, str]:
    """Return the file, and the rate in Hz that ``FILE#RATE`` asks for; "" where it asks for none.

    >>> split_rate(Path("a/night.edf#256"))
    (PosixPath('a/night.edf'), '256')
    """
    found = re.fullmatch(r"(.+\.(?:edf|bdf))#(.+)", path.name, re.IGNORECASE | re.DOTALL)
    return (path, "") if found is None else (path.with_name(found[1]), found[2])


def at_rate(path: Path, rate: float) -> Path:
    """Return the name of a recording at a rate in Hz; one that has a rate keeps it."""
    return path if split_rate(path)[1] else path.with_name(f"{path.name}#{rate:.12g}")


def names_rate(path: Path) -> bool:
    """Return whether a path names a recording, which exists, at a rate."""
    file, rate = split_rate(path)
    return bool(rate) and file.is_file()


def list_parts(path: Path) -> list[Path]:
    """Return the file of a recording."""
    return [split_rate(path)[0]]


def _resample(values: Array, ratio: Fraction, size: int) -> Array:
    """Return the values of a channel at another rate, without frequencies that would alias."""
    if ratio == 1:
        return values
    from scipy.signal import resample_poly

    # what lies before and after is taken to go on along the line through both ends, not to be 0
    found: Array = resample_poly(values, ratio.numerator, ratio.denominator, padtype="line")
    return found[:size]


def _numbers(block: Array) -> Array:
    """Return whole numbers of 2 or 3 bytes, the least significant first."""
    if block.shape[-1] == 2:
        return block.view("<i2")[..., 0]
    wide = np.zeros((*block.shape[:-1], 4), np.uint8)
    wide[..., 1:] = block
    shifted: Array = wide.view("<i4")[..., 0] >> 8
    return shifted


def _open(path: Path) -> _Recording:
    file, wanted = split_rate(path)
    size = file_size(file)
    head = read_bytes(file, 256)
    if len(head) < 256 or head[:8] not in (b"0       ", b"\xffBIOSEMI"):
        raise fault(path, "this is no EDF or BDF file, or a truncated one", "a header of EDF or BDF", _COPY)
    width = 3 if head[:1] == b"\xff" else 2
    if head[192:197] in (b"EDF+D", b"BDF+D"):
        raise fault(path, "a recording with gaps (EDF+D)", "one without", "Cut it into continuous parts")
    begin, count = _whole(path, head[184:192], "the header's size"), _whole(path, head[252:256], "channels")
    if not 1 <= count <= _MOST_CHANNELS or begin != 256 * (count + 1) or begin >= size:
        came = f"{count} channels and a header of {begin} bytes in a file of {size}"
        raise fault(path, came, "a header of 256 bytes, and 256 for each channel", _COPY)
    fields = _fields(read_bytes(file, begin)[256:], count)
    counts = tuple(_whole(path, text, "samples in a record") for text in fields[_COUNT])
    row_bytes = width * sum(counts)
    if min(counts) < 1 or row_bytes > size - begin:
        raise fault(path, f"records of {row_bytes} bytes in a file of {size}", "at least one whole record", _COPY)
    records = _whole(path, head[236:244], "records")
    records = (size - begin) // row_bytes if records == -1 else records  # -1 while a recording goes on
    if records < 1 or records * row_bytes > size - begin:
        came = f"the header claims {records} records of {row_bytes} bytes but the file has {size}"
        raise fault(path, came, "at least as many bytes as claimed", "The file is truncated: copy it again")
    if not -_MOST_SECONDS <= _real(path, head[244:252], "duration") <= _MOST_SECONDS:
        came = f"records of {brief(head[244:252])} seconds"
        raise fault(path, came, f"at most {_MOST_SECONDS:g}", _COPY)
    seconds = Fraction(head[244:252].decode("ascii").strip().replace(",", "."))
    return _describe(path, fields, begin, records, width, counts, seconds, _rate(path, wanted))


def _rate(path: Path, text: str) -> Fraction | None:
    """Return the rate in Hz that a path asks for."""
    try:
        rate = Fraction(text if text.isascii() else "") if text else None
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate is not None and not 0 < rate <= _MOST_RATE:
        raise fault(path, f"a rate of {brief(text)} Hz", f"a number above 0, up to {_MOST_RATE}", "Name it as FILE#256")
    return rate


def _describe(
    path: Path,
    fields: list[list[bytes]],
    begin: int,
    records: int,
    width: int,
    counts: tuple[int, ...],
    seconds: Fraction,
    rate: Fraction | None,
) -> _Recording:
    labels = [shown(text.decode("latin-1").strip()) for text in fields[_LABEL]]
    channels = [i for i, label in enumerate(labels) if label not in ("EDF Annotations", "BDF Annotations")]
    if not channels:
        raise fault(path, "only annotations", "at least one channel", "Give a recording with signals")
    if len({counts[i] for i in channels}) > 1 and rate is None:
        told = ", ".join(f"{labels[i]} {counts[i]}" for i in channels[:6]) + (", …" if len(channels) > 6 else "")
        mend = f"Ask for one rate in Hz (--rate 256, or the name {shown(path.name)}#256)"
        raise fault(path, f"channels of unequal rates (values in a record: {told})", "the same rate", mend)
    slopes, intercepts = [], []
    for i in channels:
        low, high = (_real(path, fields[field][i], f"the range of {labels[i]}") for field in (_LOW, _HIGH))
        least, most = (_real(path, fields[field][i], f"the range of {labels[i]}") for field in (_LEAST, _MOST))
        if low == high or least >= most:
            came = f"the channel {labels[i]} maps {least:g} … {most:g} to {low:g} … {high:g}"
            raise fault(path, came, "two ranges that are not empty", "Write the header's ranges again")
        scale = _MICROVOLT.get(fields[_UNIT][i].decode("latin-1").strip().lower(), 1.0)
        slope = (high - low) / (most - least)
        slopes.append(slope * scale)
        intercepts.append((low - least * slope) * scale)
    if rate is None:
        size, step = records * counts[channels[0]], seconds / counts[channels[0]]
        ratios = (Fraction(1),) * len(channels)
    else:
        size, step, ratios = *_plan_rate(path, rate, records, seconds), _ratios(path, rate, seconds, counts, channels)
    if 0 < step < Fraction(1, _MOST_RATE):
        came = f"{float(step):.3g} seconds between two values"
        raise fault(path, came, f"at least {1 / _MOST_RATE:g}, or a duration of 0 where it is unknown", _COPY)
    header = Header((size,), len(channels), (float(step),) if step > 0 else None)
    return _Recording(header, begin, records, width, counts, tuple(channels), ratios, tuple(slopes), tuple(intercepts))


def _plan_rate(path: Path, rate: Fraction, records: int, seconds: Fraction) -> tuple[int, Fraction]:
    """Return the number of values of a recording at a rate, and the seconds between two."""
    size = int(records * seconds * rate)
    if size < 1:
        came = f"a recording of {float(records * seconds):g} s at {float(rate):g} Hz"
        raise fault(path, came, "at least one value", "Ask for a higher rate")
    return size, 1 / rate


def _ratios(
    path: Path, rate: Fraction, seconds: Fraction, counts: tuple[int, ...], channels: list[int]
) -> tuple[Fraction, ...]:
    """Return the factor by which the number of values of each channel grows."""
    ratios = tuple(rate * seconds / counts[channel] for channel in channels)
    for ratio in ratios:
        if max(ratio.numerator, ratio.denominator) > _MOST_FACTOR:
            came = f"a channel of {float(rate / ratio):g} Hz to be resampled to {float(rate):g} Hz"
            expected = f"rates whose ratio is one of numbers up to {_MOST_FACTOR}"
            raise fault(path, came, expected, "Ask for a rate that fits, such as a channel's own")
    return ratios


def _fields(text: bytes, count: int) -> list[list[bytes]]:
    """Return the fields of the channels: for each field, one text a channel."""
    found, at = [], 0
    for width in _WIDTHS:
        found.append([text[at + width * i : at + width * (i + 1)] for i in range(count)])
        at += width * count
    return found


def _whole(path: Path, text: bytes, noun: str) -> int:
    number = _real(path, text, noun)
    if number != int(number):
        raise fault(path, f"{noun}: {brief(text)}", "a whole number", _COPY)
    return int(number)


def _real(path: Path, text: bytes, noun: str) -> float:
    try:
        number = float(text.decode("ascii").strip().replace(",", ".").replace("_", "?"))  # Python alone reads 1_0
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise fault(path, f"{noun}: {brief(text)}", "a finite number", _COPY)
    return number
