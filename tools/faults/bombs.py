"""Bombs: small files that ask for much. Refusals take little time and memory; what is accepted stays in proportion."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools.faults import mutations, scientific_files
from tools.faults.scene import Scene
from tools.faults.worker import run_forked

MOST_SECONDS, MOST_BYTES = 5.0, 256 * 2**20
_DECODED = 1536 * 2**20  # what 256 MiB of decoded pixels take as numbers, beside the decoder's own


def count(scene: Scene) -> int:
    """Return how many bombs there are."""
    return len(BOMBS)


def check(scene: Scene, number: int) -> str:
    """Read one bomb in a process of its own and return what is wrong."""
    name, (file, make, read) = list(BOMBS.items())[number]
    with scene.room("bombs") as room:
        path = room / file
        path.write_bytes(make())
        size = path.stat().st_size

        def work() -> str:
            from convoxel.errors import ConvoxelError

            try:
                read(path)
            except ConvoxelError as error:
                return f"refused: {error}"
            return "read"

        ended = run_forked(work, seconds=60.0)
        grown = f"{size} bytes took {ended.seconds:.1f} s and {ended.grown_bytes / 2**20:.0f} MiB"
        if ended.value is None:
            return f"{name}: ended with {ended.code}; {grown}"
        refused = ended.value.startswith("refused")
        if ended.seconds > (MOST_SECONDS if refused else 6 * MOST_SECONDS):
            return f"{name}: {grown} ({ended.value[:100]})"
        if ended.grown_bytes > (MOST_BYTES if refused else _DECODED):
            return f"{name}: {grown} ({ended.value[:100]})"
    return ""


def png(width: int, height: int, samples: int, bits: int = 8) -> bytes:
    """Return a PNG of zeros, compressed as far as deflate can."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width * samples * bits + 7) // 8)
    pixels = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(size: int, scans: int) -> bytes:
    """Return a picture of ``size`` by ``size`` whose last scan comes ``scans`` times; each covers all of it."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (size, size)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + content[-2:]


def tiff(tags: int, pages: int) -> bytes:
    """Return pages whose lists of tags share their bytes: ``pages`` times ``tags`` in about as many bytes."""
    content = bytearray(8 + 14 * pages + 12 * tags)
    content[:8] = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        begin = 8 + 14 * page
        content[begin : begin + 2] = struct.pack("<H", tags)
        end = begin + 2 + 12 * tags
        content[end : end + 4] = struct.pack("<I", begin + 14)
    return bytes(content)


def _volume(shape: tuple[int, ...], type_code: int, size: int, data: bytes) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<hh", head, 70, type_code, 8 * size)
    struct.pack_into("<8f", head, 76, *(1.0,) * 8)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return gzip.compress(bytes(head) + data, 9)


def _text_header(lines: list[str], data: bytes) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode() + data


def _meta_image(size: int, data: bytes) -> bytes:
    sizes = " ".join([str(size)] * 3)
    lines = ["NDims = 3", f"DimSize = {sizes}", "ElementType = MET_UCHAR", "CompressedData = True"]
    return _text_header([*lines, "ElementDataFile = LOCAL"], data)


def _nrrd(size: int, data: bytes) -> bytes:
    sizes = " ".join([str(size)] * 3)
    lines = ["NRRD0004", "type: uchar", "dimension: 3", f"sizes: {sizes}", "encoding: gzip", ""]
    return _text_header(lines, data)


def _dicom(rows: int, rest: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    """Return a DICOM file of ``rows`` by ``rows`` pixels of 16 bits, with further elements behind them."""
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    numbers = ((0x10, rows), (0x11, rows), (0x100, 16), (0x101, 16), (0x102, 15), (0x103, 0))
    kind = b"MONOCHROME2 "
    content = struct.pack("<HH2sHH", 0x28, 2, b"US", 2, 1) + struct.pack("<HH2sH", 0x28, 4, b"CS", len(kind)) + kind
    content += b"".join(struct.pack("<HH2sHH", 0x28, tag, b"US", 2, value) for tag, value in numbers)
    if syntax.endswith(b"99"):  # deflated
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        content, rest = packer.compress(content + rest), packer.flush()
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + content + rest


def _frame(side: int, stream: bytes, syntax: bytes) -> bytes:
    """Return a DICOM file of ``side`` by ``side`` pixels with one compressed frame."""
    stream += bytes(len(stream) % 2)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)) + stream
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2**32 - 1) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return _dicom(side, pixels, syntax)


def _jpeg_ls(side: int, more: int) -> bytes:
    """Return a DICOM file whose JPEG-LS stream claims as many pixels as the header, and has ``more`` bytes of noise."""
    import imagecodecs

    stream = imagecodecs.jpegls_encode(np.zeros((64, 64), np.uint16))
    place = stream.index(b"\xff\xf7") + 5
    noise = np.random.default_rng(0).integers(0, 127, more).astype(np.uint8).tobytes()
    stream = stream[:place] + struct.pack(">HH", side, side) + stream[place + 4 : -2] + noise + b"\xff\xd9"
    return _frame(side, stream, b"1.2.840.10008.1.2.4.80")


def _cut_jpeg(side: int) -> bytes:
    """Return a DICOM file whose lossless JPEG of noise was cut after two thirds and closed again."""
    import imagecodecs

    noise = np.random.default_rng(0).integers(0, 4096, (side, side)).astype(np.uint16)
    stream = bytes(imagecodecs.ljpeg_encode(noise, bitspersample=16))
    return _frame(side, stream[: 2 * len(stream) // 3] + b"\xff\xd9", b"1.2.840.10008.1.2.4.70")


def _cut_rle(side: int) -> bytes:
    """Return a DICOM file whose RLE frame of literal runs ends a million bytes too early."""
    runs = (b"\x7f" + bytes(range(128))) * (side * side // 128)
    second = 64 + len(runs)
    head = struct.pack("<16I", 2, 64, second, *(0,) * 13)
    return _frame(side, head + runs + runs[:-1_000_000], b"1.2.840.10008.1.2.5\0")


def _items(count: int) -> bytes:
    head = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 8 * count)
    return head + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count


def _archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def _header(shape: tuple[int, ...], kind: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _plain(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _set(shape: tuple[int, ...], kind: str, data: bytes) -> bytes:
    images = _plain(np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    members = {"images.npy": images, "labels.npy": _plain(np.arange(4) % 2), "classes.npy": _header(shape, kind) + data}
    return _archive(members)


def _aliases() -> bytes:
    levels = [f"{b}: &{b} [{', '.join(['*' + a] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    return ("task: segment\ndata: x\noutput: y\nmodel_options: {a: &a [1, 1], " + ", ".join(levels) + "}").encode()


def _onnx(kind: str, size: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    constants, shape, outputs, make = [], [1, 4, 4, 4], ["y"], helper.make_node
    if kind == "chain":
        names = ["x", *(f"v{i}" for i in range(size - 1)), "y"]
        nodes = [make("Relu", [names[i]], [names[i + 1]]) for i in range(size)]
    elif kind == "split":
        shape, outputs = [1, size, 2, 2], [f"v{i}" for i in range(size)]
        nodes = [make("Split", ["x"], outputs, axis=1, num_outputs=size)]
    else:
        constants = [numpy_helper.from_array(np.ones(4, np.float32), "v0")]
        nodes = [make("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(size)]
        nodes += [make("ReduceSum", [f"v{size}"], ["s"], keepdims=0), make("Add", ["x", "s"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "net", [x], results, constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )


def _load(path: Path) -> None:
    from convoxel.graph.load import load

    load(path, threads=1)


_image, _label, _read_set, _config = (
    mutations._read_image, mutations._read_label, mutations._read_set, mutations._read_config,
)  # fmt: skip
_page = scientific_files.tiff_page
_Bomb = tuple[str, Callable[[], bytes], Callable[[Path], None]]
BOMBS: dict[str, _Bomb] = {
    "picture of 356 MB": ("a.png", lambda: png(8900, 10000, 4), _image),
    "picture of 255 MB": ("a.png", lambda: png(9000, 9400, 3), _image),
    "picture of one bit": ("a.png", lambda: png(8900, 9900, 1, 1), _image),
    "picture of 16 bits": ("a.png", lambda: png(8900, 9900, 2, 16), _image),
    "label of 356 MB": ("a.png", lambda: png(8900, 10000, 4), _label),
    "picture of 100 000 squared": ("a.png", lambda: png(2, 2, 1)[:16] + struct.pack(">II", 100_000, 100_000)
                                   + png(2, 2, 1)[24:], _image),
    "JPEG of 5000 scans": ("a.jpg", lambda: jpeg(2000, 5000), _image),
    "TIFF of overlapping tags": ("a.tif", lambda: tiff(60_000, 20_000), _image),
    "TIFF of one strip many times": ("a.tif", lambda: _page(40_000, 40_000, 8, zlib.compress(bytes(10**6)), 100),
                                     _image),
    "TIFF whose strip inflates": ("a.tif", lambda: _page(16, 16, 8, zlib.compress(bytes(2**28), 9)), _image),
    "TIFF of a large JPEG": ("a.tif", lambda: _page(16, 16, 7, jpeg(8000, 0)), _image),
    "TIFF of planes in words": ("a.tif", lambda: _page(16, 16, 1, bytes(256), 1, b"ImageJ=1\nimages=999999999"),
                                _image),
    "TIFF of entities": ("a.tif", lambda: _page(16, 16, 1, bytes(256), 1, b"<!DOCTYPE a [<!ENTITY b 'c'>]><OME/>OME>"),
                         _image),
    "TIFF of elements": ("a.tif", lambda: _page(16, 16, 1, bytes(256), 1, b"<OME>" + b"<a/>" * 10**7 + b"</OME>"),
                         _image),
    "HDF5 chunk that inflates": ("a.h5", scientific_files.hdf5_chunk, _image),
    "table of commas": ("a.csv", lambda: b"," * 30_000_000, _image),
    "table of one quote": ("a.csv", lambda: b'1,2\n"' + b"\n" * 10_000_000, _image),
    "volume of 1 GiB": ("a.nii.gz", lambda: _volume((1024, 1024, 1024), 2, 1, bytes(2**20)), _image),
    "volume of 300 MB": ("a.nii.gz", lambda: _volume((1000, 1000, 300), 2, 1, bytes(300 * 10**6)), _image),
    "members without content": ("a.nii.gz", lambda: gzip.compress(b"", mtime=0) * 500_000, _image),
    "members of one byte": ("a.nii.gz", lambda: gzip.compress(b"\0", mtime=0) * 400_000, _image),
    "MetaImage of 1 GiB": ("a.mha", lambda: _meta_image(1024, zlib.compress(bytes(2**30), 9)), _image),
    "MetaImage of 64 GiB": ("a.mha", lambda: _meta_image(4096, bytes(2**20)), _image),
    "NRRD of 1 GiB": ("a.nrrd", lambda: _nrrd(1024, gzip.compress(bytes(2**30), 9)), _image),
    "NRRD of fields": ("a.nrrd", lambda: b"NRRD0004\n" + b"".join(b"a%d: 1\n" % i for i in range(10**6)), _image),
    "DICOM of 65 535 squared": ("a.dcm", lambda: _dicom(65_535, bytes(100)), _image),
    "DICOM of 3 million items": ("a.dcm", lambda: _dicom(1, _items(3_000_000)), _image),
    "DICOM of 3 million elements": ("a.dcm", lambda: _dicom(
        1, struct.pack("<HH2sH", 0x5000, 0x10, b"LO", 0) * 3_000_000), _image),
    "deflated DICOM of 1 GiB": ("a.dcm", lambda: _dicom(
        16_000, struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 2**30) + bytes(2**30), b"1.2.840.10008.1.2.1.99"),
        _image),
    "JPEG-LS of 618 MiB": ("a.dcm", lambda: _jpeg_ls(18_000, 3_600_000), _image),
    "JPEG-LS of 62 MiB in 2 kB": ("a.dcm", lambda: _jpeg_ls(5700, 2000), _image),
    "JPEG-LS of 240 MiB of noise": ("a.dcm", lambda: _jpeg_ls(11_200, 5_200_000), _image),
    "lossless JPEG of 61 MiB cut": ("a.dcm", lambda: _cut_jpeg(5664), _image),
    "RLE of 61 MiB cut": ("a.dcm", lambda: _cut_rle(5664), _image),
    "texts of no letter": ("a.npz", lambda: _set((2**40,), "<U0", b""), _read_set),
    "texts of 60 million letters": ("a.npz", lambda: _set((1,), "<U60000000", bytes(240_000_000)), _read_set),
    "array of 1 GB": ("a.npz", lambda: _archive({"image.npy": _header((10**9,), "|u1") + bytes(10**9)}), _image),
    "array of 4 TiB": ("a.npy", lambda: _header((2**40,), "<f4") + bytes(100), _image),
    "aliases": ("a.yaml", _aliases, _config),
    "nested YAML": ("a.yaml", lambda: b"model_options: " + b"[" * 100_000, _config),
    "keys of YAML": ("a.yaml", lambda: b"model_options: {" + b"? {" * 2000, _config),
    "chain of 30 000": ("a.onnx", lambda: _onnx("chain", 30_000), _load),
    "split into 20 000": ("a.onnx", lambda: _onnx("split", 20_000), _load),
    "constant doubled 60 times": ("a.onnx", lambda: _onnx("concat", 60), _load),
    "program's header nested": ("a.cvx", lambda: struct.pack("<Q", 200_000) + b"[" * 200_000, _load),
    "header of a program of 4 GiB": ("a.cvx", lambda: struct.pack("<Q", 2**32) + b"{}", _load),
    "names of classes nested": ("dataset.json", lambda: b'{"labels":' + b"[" * 500_000, lambda path: _names(path)),
    "number of a million digits": ("dataset.json", lambda: b'{"labels": {"a": ' + b"9" * 1_000_000 + b"}}",
                                   lambda path: _names(path)),
    "manifest unsigned": ("last.json", lambda: b'{"sha256":"' + b"0" * 64 + b'","body":{"a":' + b"[" * 10**7 + b"}}\n",
                          lambda path: _manifest(path)),
    "weights inflated": ("a.pth", lambda: _archive({"archive/data.pkl": b"", "archive/data/0": bytes(10**9)}),
                         mutations._read_weights),
}  # fmt: skip


def _names(path: Path) -> None:
    from convoxel.data.label_file import class_names

    class_names(path.parent)


def _manifest(path: Path) -> None:
    from convoxel.files.manifest import read_manifest

    if read_manifest(path.parent, "last", []) is not None:
        raise AssertionError(json.dumps("an unsigned manifest is read"))
