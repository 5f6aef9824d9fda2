"""Small files of the formats of microscopes and recorders, whole and as bombs."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tools.faults.scene import Scene


def tiff_stack(scene: Scene, room: Path) -> bytes:
    """Return a stack in tiles with an OME description."""
    import tifffile

    stream = io.BytesIO()
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2}
    with tifffile.TiffWriter(stream, ome=True) as file:
        file.write(
            _values(2, 2, 20, 24), tile=(16, 16), compression="zlib", photometric="minisblack", metadata=metadata
        )
    return stream.getvalue()


def tiff_jpeg(scene: Scene, room: Path) -> bytes:
    """Return a picture in tiles that are JPEGs."""
    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(_values(20, 24, 3), tile=(16, 16), compression="jpeg", photometric="rgb")
    return stream.getvalue()


def hdf5(scene: Scene, room: Path) -> bytes:
    """Return a file with one packed data set."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("entry/data", data=_values(6, 20, 24), chunks=(2, 9, 9), compression="gzip", shuffle=True)
    return stream.getvalue()


def edf(scene: Scene, room: Path) -> bytes:
    """Return a recording of two channels."""
    fields = ((16, "C"), (80, ""), (8, "uV"), (8, "-100"), (8, "100"), (8, "-32768"), (8, "32767"), (80, ""), (8, "50"),
              (32, ""))  # fmt: skip
    head = f"{'0':8}{'':160}{'01.01.2020.00.00':16}{768:<8}{'':44}{4:<8}{1:<8}{2:<4}"
    text = head + "".join(f"{value:{width}}" * 2 for width, value in fields)
    return text.encode("ascii") + np.arange(400, dtype="<i2").tobytes()


def table(scene: Scene, room: Path) -> bytes:
    """Return a signal with a column of time."""
    return ("time,a,b\n" + "".join(f"{i / 10},{i % 7},{-i}\n" for i in range(40))).encode()


def zarr_metadata(scene: Scene, room: Path) -> bytes:
    """Return the metadata of an array, whose chunks it writes."""
    for name in ("0.0", "0.1"):
        (room / "a.zarr" / name).write_bytes(zlib.compress(_values(8, 8).tobytes()))
    return json.dumps(_ZARR).encode()


def zarr_chunk(scene: Scene, room: Path) -> bytes:
    """Return a chunk of an array, whose metadata it writes."""
    (room / "b.zarr").mkdir(parents=True, exist_ok=True)
    (room / "b.zarr" / ".zarray").write_text(json.dumps(_ZARR))
    return zlib.compress(_values(8, 8).tobytes())


def read_folder(path: Path) -> None:
    """Read the image in the folder of a file."""
    from convoxel import data

    data.read_image(path.parent)


def tiff_page(width: int, height: int, compression: int, packed: bytes, strips: int = 1, text: bytes = b"") -> bytes:
    """Return a grey page whose strips are all the same ``packed`` bytes."""

    def page(at: int) -> bytes:
        tags: list[tuple[int, int, Any]] = [
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [8]),
            (259, 3, [compression]),
        ]
        tags += [(262, 3, [1])] + ([(270, 2, text + b"\0")] if text else [])
        tags += [
            (273, 4, [at] * strips),
            (277, 3, [1]),
            (278, 4, [-(-height // strips)]),
            (279, 4, [len(packed)] * strips),
        ]
        place = 8 + 2 + 12 * len(tags) + 4
        entries, beyond = b"", b""
        for tag, kind, values in tags:
            raw = values if kind == 2 else struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
            short = len(raw) <= 4
            entries += struct.pack("<HHI", tag, kind, len(values))
            entries += raw.ljust(4, b"\0") if short else struct.pack("<I", place + len(beyond))
            beyond += b"" if short else raw
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beyond

    return page(len(page(0))) + packed


def hdf5_chunk() -> bytes:
    """Return a data set of 4 KiB whose only chunk inflates to 4 MB."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        made = file.create_dataset("a", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(4 * 10**6), 9))
    return stream.getvalue()


def _values(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


_ZARR = {"zarr_format": 2, "shape": [8, 16], "chunks": [8, 8], "dtype": "|u1", "fill_value": 0, "order": "C",
         "compressor": {"id": "zlib"}, "filters": None}  # fmt: skip
