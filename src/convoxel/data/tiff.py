"""TIFF: flat images, stacks of pages as volumes, channels and pixel sizes of ImageJ and OME.

tifffile and imagecodecs decode what ``tiff_page`` has checked. Pictures keep the scale 0…255 of every picture: whole
numbers of at most 8 bits are stretched to it, those of 9 to 16 bits are divided by 257 (which float32 represents
without loss); other numbers stay as stored. Images are read as they are shown (white is zero: inverted; palette: its
colours; transparent: on white), labels as they are written. Thumbnails and masks among the pages are skipped.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convoxel.data import picture
from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.data.tiff_axes import arrange_pages
from convoxel.data.tiff_page import PICTURES, TiffPage, is_tiff, read_pages
from convoxel.errors import DataError, UnsupportedError
from convoxel.files.atomic import write_bytes
from convoxel.files.fault import fault
from convoxel.files.file_array import FileArray, lies_in_file, new_array
from convoxel.files.memory import check_memory
from convoxel.files.stream import file_size, read_bytes
from convoxel.files.values import Array

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
# Values of a pixel that make its colour, by the photometric kind; Pillow's names of those that it converts.
_SAMPLES = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_NAMES = {_YCBCR: "YCbCr", _LAB: "LAB"}
_COPY = "Copy the file again from its source, or save it anew"
_STRIP = 2**20  # pixels that are converted at a time
_JPEG = (7, 33007, 34892)


def _tifffile() -> ModuleType:
    try:
        import imagecodecs  # noqa: F401  tifffile decodes through it
        import tifffile
    except ImportError as error:
        raise UnsupportedError("TIFF files need tifffile and imagecodecs: pip install 'convoxel[formats]'.") from error
    log = logging.getLogger("tifffile")  # what it says of odd tags would stand on stderr
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    module: ModuleType = tifffile
    return module


def read_header(path: Path) -> Header:
    """Return the checked header of a picture: shape (height, width) or (depth, height, width)."""
    return _open(path).header if is_tiff(read_bytes(path, 4)) else picture.read_header(path)


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32 for images, the class numbers as written for labels."""
    if not is_tiff(read_bytes(path, 4)):
        return picture.read_values(path, label)
    image = _open(path)
    pixels = image.planes.size * math.prod(image.pages[0].shape)
    pages = [page.decoded_bytes for page in image.pages if not lies_in_file(page.decoded_bytes)]
    check_memory(path, 4 * image.form.channels * pixels + 3 * max(pages, default=0))
    values = cast(Array, _gather(path, image, label, np.empty))
    return image.header, values.reshape(len(values), *image.header.shape)


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values that stay in the file where they lie there as they are.

    Others, which are compressed, tiled or need colours, are decoded into a temporary file, one strip or tile after the
    other; None where they are small.
    """
    if not is_tiff(read_bytes(path, 4)):
        return picture.map_values(path)
    image = _open(path)
    stored = _stored_view(path, image)
    if stored is not None and image.form.scale is not None:
        values = np.moveaxis(stored, 2, 1)  # channels of pages, samples, depth, height, width
        values = values.reshape(-1, *image.header.shape) if 1 in values.shape[:2] else values
        return image.header, MappedImage(FileArray.of(values), *image.form.scale)
    if not lies_in_file(4 * image.header.channels * math.prod(image.header.shape)):
        return None
    whole = MappedImage(_gather(path, image, False, new_array))
    return image.header, whole.view(lambda values: values.reshape(len(values), *image.header.shape))


def _gather(
    path: Path, image: _Image, label: bool, make: Callable[[tuple[int, ...], Any], Array | FileArray]
) -> Array | FileArray:
    """Return the values (channels, depth, height, width) in an array that ``make`` makes from its shape and type."""
    page, form = image.pages[0], image.form
    channels, rows = form.channels if not label else 1, max(_STRIP // page.shape[1], 1)
    values: Array | FileArray | None = None
    with _planes(path, image) as read:
        for channel, numbers in enumerate(image.planes):
            for slot, number in enumerate(numbers):
                stored = read(int(number))
                if values is None:
                    kind = stored.dtype.newbyteorder("=") if label else np.dtype(np.float32)
                    values = make((len(image.planes) * channels, image.planes.shape[1], *page.shape), kind)
                place = (slice(channel * channels, (channel + 1) * channels), slice(slot, slot + 1))
                if label:
                    values[place] = _class_numbers(path, page, np.asarray(stored))[:, None]
                    continue
                for top in range(0, page.shape[0], rows):  # conversions take several copies of what they are given
                    part = slice(top, top + rows)
                    values[place[0], place[1], part] = form.shown(stored[:, part])[:, None]
    assert values is not None
    return values


@dataclass(frozen=True)
class _Form:
    """The image that the values of a page (samples, height, width) give.

    Attributes:
        channels: of the image.
        colour: True for colours and grey, False for samples that mean something else.
        note: in words what is done to colours, "" for nothing.
        scale: slope and intercept, where nothing else happens to a value; None for colours that are computed.
        shown: stored values → float32 (channels, height, width).
    """

    channels: int
    colour: bool
    scale: tuple[float, float] | None
    shown: Callable[[Array], Array]
    note: str = ""


@dataclass(frozen=True)
class _Image:
    pages: list[TiffPage]
    planes: NDArray[np.int64]
    header: Header
    form: _Form


def _open(path: Path) -> _Image:
    """Return what the file declares, checked: its pages agree, and are of a kind that is read."""
    pages = read_pages(path)
    stack = arrange_pages(path, pages)
    first = int(stack.planes.flat[0])
    used = [pages[number] for number in stack.planes.ravel() if number < len(pages)]
    for number, page in enumerate(used):
        if page.form != used[0].form:
            came = f"pages that differ: {_told(used[0])}, and page {number + 1} is {_told(page)}"
            raise fault(path, came, "pages alike, as slices of a volume", "Save one image a file")
    form = _form(path, pages[first])
    channels = len(stack.planes)
    if channels > 1 and form.channels > 1:
        came = f"{channels} channels of pages with {form.channels} values a pixel"
        raise fault(path, came, "one kind of channels", "Save the channels as pages")
    shape = pages[first].shape if stack.flat else (stack.planes.shape[1], *pages[first].shape)
    header = Header(
        shape, channels * form.channels, stack.spacing_mm, colour=form.colour and channels == 1, note=form.note
    )
    image = _Image(used, stack.planes, header, form)
    if stack.planes.max() >= len(pages) and _stored_view(path, image) is None:
        came = f"a description of {stack.planes.size} planes behind one page that are not all there"
        raise fault(path, came, "the planes in one piece after the first", "The file is truncated: copy it again")
    return image


def _told(page: TiffPage) -> str:
    return f"{page.shape[1]} × {page.shape[0]} × {page.samples} of {page.bits} bits"


# ---- meaning -----------------------------------------------------------------------------------------------


def _form(path: Path, page: TiffPage) -> _Form:
    """Return how a page's values are shown; DataError for photometric kinds that have no plain meaning."""
    kind, colours = page.photometric, _SAMPLES.get(page.photometric, 0)
    if not 1 <= colours <= page.samples:
        expected = "grey (0, 1), RGB (2), palette (3), CMYK (5), YCbCr (6) or Lab (8)"
        raise fault(path, f"photometric kind {kind} of {page.samples} samples", expected, "Convert it to RGB or grey")
    further = page.samples - colours
    alpha = page.extra[0] if further == len(page.extra) == 1 else 0
    scale = _scale(page)
    if kind == _PALETTE:
        shown, note = _palette(path, page), "palette colours are read as RGB"
    elif kind == _CMYK:
        shown, note = (lambda stored: _rgb_of_inks(MappedImage(stored, *scale)[:,])), "CMYK is turned into RGB"
    elif kind == _LAB or (kind == _YCBCR and page.compression not in _JPEG):  # JPEG turns YCbCr into RGB itself
        shown, note = _by_pillow(path, page, _NAMES[kind]), f"{_NAMES[kind]} is turned into RGB"
    else:
        shown, note = (lambda stored: MappedImage(stored, *scale)[:,]), ""
    channels = 1 if kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) else 3
    if alpha in (1, 2) and page.dtype.kind == "u" and page.bits in (8, 16):
        opaque = 2**page.bits - 1

        def blended(stored: Array) -> Array:
            values, clear = shown(stored[:-1]), 1 - stored[-1:] / np.float32(opaque)
            on_white = values + 255 * clear if alpha == 1 else values + (255 - values) * clear
            rounded: Array = np.rint(on_white) if page.bits == 8 else on_white
            return rounded

        return _Form(channels, True, None, blended, "transparent pixels are blended with white")
    if not further:
        plain = kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR) and not note
        return _Form(channels, True, scale if plain else None, shown, note)
    if channels == 3 and further == 1 and not alpha:  # a value without a meaning that pads the pixel
        note = note or "the fourth value of a pixel, without a meaning, is left out"
        return _Form(3, True, None, lambda stored: shown(stored[:colours]), note)
    if kind not in (_BLACK_IS_ZERO, _RGB):
        raise fault(
            path, f"photometric kind {kind} of {page.samples} samples", f"{colours}", "Convert it to RGB or grey"
        )
    return _Form(page.samples, False, scale, shown)


def _scale(page: TiffPage) -> tuple[float, float]:
    """Return slope and intercept from stored numbers to those of an image."""
    if page.dtype.kind != "u" or page.bits > 16:
        return 1.0, 0.0
    slope = 255 / (2**page.bits - 1) if page.bits <= 8 else 1 / 257
    return (-slope, slope * (2**page.bits - 1)) if page.photometric == _WHITE_IS_ZERO else (slope, 0.0)


def _palette(path: Path, page: TiffPage) -> Callable[[Array], Array]:
    table = np.array(page.palette, np.float64).reshape(3, -1) if len(page.palette) == 3 << page.bits else None
    if table is None or page.dtype.kind != "u" or page.bits > 16:
        raise fault(path, "a palette that does not fit its pixels", "three colours for each value", _COPY)
    colours = (np.floor(table / 256) if table.max() > 255 else table).astype(np.float32)  # some writers store bytes
    return lambda stored: colours[:, stored[0]]


def _rgb_of_inks(inks: Array) -> Array:
    rgb: Array = (255 - inks[:3]) * (255 - inks[3:4]) / 255
    return rgb


def _by_pillow(path: Path, page: TiffPage, name: str) -> Callable[[Array], Array]:
    """Return the conversion of a colour space to RGB, which Pillow knows for bytes."""
    if page.dtype.itemsize != 1 or page.bits != 8 or page.compression in PICTURES:
        packing = PICTURES.get(page.compression, "no picture")
        came = f"{name} colours of {page.bits} bits, packed as {packing}"
        raise fault(path, came, "8 bits, packed by another method", "Convert it to RGB")

    def converted(stored: Array) -> Array:
        size = stored.shape[2], stored.shape[1]
        pixels = np.ascontiguousarray(np.moveaxis(stored, 0, -1)).tobytes()
        image = picture.pillow().frombytes(name, size, pixels, "raw", name)
        return np.moveaxis(np.asarray(image.convert("RGB"), np.float32), -1, 0)

    return converted


def _class_numbers(path: Path, page: TiffPage, stored: Array) -> Array:
    """Return the class numbers (1, height, width) of a label's page, as written."""
    if page.samples == 1:
        return stored
    colours = 3 if page.photometric == _RGB and page.samples >= 3 else 1
    same = (stored[1:colours] == stored[0]).all() and (stored[colours:] == stored[colours:, :1, :1]).all()
    if not same or page.photometric not in (_RGB, _BLACK_IS_ZERO):
        expected = "one class number (grey value or palette index) a pixel"
        raise fault(path, "a label picture in colours", expected, "Convert it to class numbers 0, 1, 2, …")
    return stored[:1]


# ---- values ------------------------------------------------------------------------------------------------


def _stored_view(path: Path, image: _Image) -> Array | None:
    """Return (channels of pages, depth, samples, height, width) in the file; None unless all of it is plain there."""
    page, planes = image.pages[0], image.planes
    if any(p.offset is None for p in image.pages) or (page.samples > 1 and page.planar != 1):
        return None
    size = page.samples * math.prod(page.shape) * page.dtype.itemsize
    places = np.array([p.offset for p in image.pages], np.int64)
    if planes.size > len(places):  # one list of tags: the other planes follow the first
        places = places[0] + size * planes.ravel()
    channels, depth = planes.shape
    first = int(places.flat[0])
    steps = [int(places.flat[depth]) - first if channels > 1 else 0, int(places.flat[1]) - first if depth > 1 else 0]
    regular = first + np.add.outer(steps[0] * np.arange(channels), steps[1] * np.arange(depth))
    if not np.array_equal(regular, places.reshape(planes.shape)) or places.max() + size > file_size(path):
        return None
    item, (height, width) = page.dtype.itemsize, page.shape
    pixel = page.samples * item
    view: Array = np.ndarray(
        (channels, depth, page.samples, height, width),
        page.dtype,
        np.memmap(path, np.uint8, "r"),
        first,
        (*steps, item, width * pixel, pixel),
    )
    return view


@contextmanager
def _planes(path: Path, image: _Image) -> Iterator[Callable[[int], Array | FileArray]]:
    """Yield the function that reads a plane's stored values (samples, height, width)."""
    stored = _stored_view(path, image)
    if stored is not None:
        places = {int(number): divmod(at, image.planes.shape[1]) for at, number in enumerate(image.planes.ravel())}
        yield lambda number: stored[places[number]]
        return
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            yield lambda number: _decode(path, file.pages[number], image.pages[0])
    except (DataError, UnsupportedError):
        raise
    except AssertionError:
        raise
    except Exception as error:  # tifffile and imagecodecs raise a dozen kinds for damaged content
        text = str(error).replace("\n", " ")
        raise fault(path, f"the picture cannot be decoded ({text})", "a whole TIFF", _COPY) from None


def _decode(path: Path, decoder: Any, page: TiffPage) -> Array | FileArray:
    """Return the stored values (samples, height, width) of a page."""
    shape = (page.samples if page.planar == 2 else 1, 1, *page.shape, page.samples if page.planar == 1 else 1)
    if decoder.shaped != shape or decoder.is_ndpi or decoder.is_stk:
        came = f"a page that another reader takes for {decoder.shaped}"
        raise fault(path, came, f"{shape} as its tags say", "Save it again as a plain TIFF")
    if lies_in_file(page.decoded_bytes):
        return _decode_parts(path, decoder, page)
    values = decoder.asarray(squeeze=False, maxworkers=1)
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    found: Array = values[:, 0, ..., 0] if page.planar == 2 else np.moveaxis(values[0, 0], -1, 0)
    return found


def _decode_parts(path: Path, decoder: Any, page: TiffPage) -> Array | FileArray:
    """Return the stored values of a large page, in a temporary file, decoded one strip or tile after the other."""
    check_memory(path, 3 * page.decoded_bytes // len(decoder.dataoffsets))
    kind = np.dtype(np.uint8) if decoder.dtype.kind == "b" else decoder.dtype
    found = new_array((page.samples, *page.shape), kind)
    for values, (plane, _, top, left, sample), (_, height, width, samples) in decoder.segments(maxworkers=1):
        part = np.full((1, height, width, samples), decoder.nodata, kind) if values is None else values
        first = plane if page.planar == 2 else sample
        height, width = min(height, page.shape[0] - top), min(width, page.shape[1] - left)  # tiles reach beyond
        place = (slice(first, first + samples), slice(top, top + height), slice(left, left + width))
        found[place] = np.moveaxis(part[0, :height, :width, :samples], -1, 0)
    return found


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a TIFF as ImageJ reads it, with the size of a pixel in mm.

    Class numbers and uint8 are stored as such, other numbers as float32.
    """
    tifffile = _tifffile()
    if header.dims not in (2, 3):
        raise fault(path, f"an image of {header.dims} axes", "2 or 3 for TIFF", "Write .npy")
    stored = values if values.dtype == np.uint8 else values.astype(np.float32)
    volume = stored.reshape(len(stored), *(1,) * (3 - header.dims), *header.shape)
    metadata: dict[str, object] = {"axes": "ZCYX"}
    resolution = None
    if header.spacing_mm is not None:
        *depth, down, across = header.spacing_mm
        resolution = (1 / across, 1 / down)
        metadata |= {"unit": "mm", **({"spacing": depth[0]} if depth else {})}
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, imagej=True) as writer:
        writer.write(
            np.ascontiguousarray(np.moveaxis(volume, 0, 1)),
            photometric="minisblack",
            compression="zlib" if label else None,
            resolution=resolution,
            metadata=metadata,
        )
    return stream.getvalue()


def write_pages(path: Path, values: Array | FileArray, header: Header, names: Sequence[str]) -> None:
    """Write planes (pages, height, width), compressed, each with its name, as ImageJ and tifffile read them.

    ImageJ takes stored numbers times the header's scale for values; beyond the 4 GiB that it can address the file is
    BigTIFF, without names. The file appears whole or not at all.
    """
    tifffile = _tifffile()
    large = values.nbytes >= 2**32 - 2**25
    unit = {"axes": "ZYX", "Labels": list(names), "cf": 0, "c0": 0.0, "c1": header.scale, "vunit": "share"}
    spacing = header.spacing_mm
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, imagej=not large, bigtiff=large) as writer:
        writer.write(
            (np.ascontiguousarray(values[page : page + 1])[0] for page in range(values.shape[0])),
            shape=values.shape,
            dtype=values.dtype,
            photometric="minisblack",
            compression="zlib",
            resolution=None if spacing is None else (1 / spacing[1], 1 / spacing[0]),
            metadata=None if large else unit | ({} if spacing is None else {"unit": "mm"}),
        )
    write_bytes(path, stream.getvalue())
