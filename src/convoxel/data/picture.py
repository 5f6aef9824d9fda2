"""Pictures: PNG and JPEG, grey, palette or colour; the header is checked before Pillow decodes.

An image is what a viewer shows, on the scale 0…255 (16-bit values are divided by 257, which float32 represents without
loss): palette pictures and CMYK become RGB, transparent pixels are blended with white,
the orientation tag of photographs is applied. Of the pictures in a phone's JPEG (depth, gain map, second eye) the first
counts, which is the photograph. A label is what the file holds: grey values of any bit depth or palette indices as
stored. The first bytes tell the format: a JPEG named .png is read. Nothing is resized.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Header
from convoxel.data.jpeg_end import lengthen
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError, UnsupportedError
from convoxel.files.fault import fault
from convoxel.files.file_array import FileArray, lies_in_file, new_array
from convoxel.files.memory import check_memory
from convoxel.files.stream import MOST_DEFLATE_RATIO, check_ratio, read_bytes
from convoxel.files.values import Array

if TYPE_CHECKING:
    from PIL.Image import Image

Stored = TypeVar("Stored", Array, FileArray, Array | FileArray)

# Below Pillow's own limit (89 478 485), beyond which it warns.
MOST_PIXELS = 89_000_000
_MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
_STRIP = 2**20  # pixels that are converted at a time
_SMALL = 2**17  # pixels, of which a block of 16 x 16 is 0.2 % or more
_PIXEL_BYTES = {"I;16": 2, "I;16B": 2, "I;16L": 2, "I": 4}  # in other modes one for each band
_COPY = "Copy the picture again from its source, or save it anew as PNG"
_ORIENTATION = 0x0112
_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
# Eight colours that people with any colour vision can tell apart (Okabe and Ito 2008), black for the background.
_PALETTE = bytes.fromhex("000000e69f0056b4e9009e73f0e4420072b2d55e00cc79a7999999")


def pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise UnsupportedError("Pictures need Pillow: pip install 'convoxel[train]'.") from error
    return Image


def read_header(path: Path) -> Header:
    """Return the checked header of a picture: shape (height, width)."""
    with _open(path) as image:
        return _header(path, image)


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values: pixels as ``read_pixels``, or label values as ``read_indices``."""
    return read_indices(path) if label else read_pixels(path)


def read_pixels(path: Path) -> tuple[Header, NDArray[np.float32]]:
    """Return header and float32 pixels (1 or 3, *shape) on the scale 0…255."""
    fine = _has_fine_colours(read_bytes(path, 26))
    return _read(path, lambda image: _fine_colours(path) if fine else _grey_or_colour(image))


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values on the scale 0…255 that lie in a temporary file.

    None where they are small, or have 16 bits.
    """
    with _open(path) as image:
        header = _header(path, image)
        whole_numbers = not (image.mode.startswith("I") or _has_fine_colours(read_bytes(path, 26)))
    if not whole_numbers or not lies_in_file(4 * header.channels * math.prod(header.shape)):
        return None

    def colours(strip: Image) -> Array:
        return _strip_colours(strip, wide=False).astype(np.uint8)

    header, values = _read(path, lambda image: _by_strips(image, colours, new_array))
    return header, MappedImage(values)


def read_indices(path: Path) -> tuple[Header, Array]:
    """Return header and label values (1, *shape): grey values or palette indices as stored."""
    if read_bytes(path, 3) == b"\xff\xd8\xff":
        came, mend = "a label stored as JPEG, which changes values", "Save the label again from its source as PNG"
        raise fault(path, came, "a PNG, TIFF, NIfTI or .npy label", mend)
    header, values = _read(path, lambda image: _indices(path, image))
    return replace(header, channels=1), values


def _read(path: Path, convert: Callable[[Image], Stored]) -> tuple[Header, Stored]:
    with _open(path) as image:
        header = _header(path, image)
        try:
            whole = _is_whole(path, image)
            pixels = convert(_upright(image))
        except DataError:
            raise
        except Exception as error:  # Pillow raises a dozen kinds for damaged content
            raise fault(path, f"the picture cannot be decoded ({error})", "a whole PNG or JPEG", _COPY) from None
    if not whole:
        raise fault(path, "the picture ends too early: its last pixels are missing", "a whole JPEG", _COPY)
    if pixels.shape[1:] != header.shape:
        raise fault(path, f"the picture decodes to {pixels.shape[1:]}", f"{header.shape} as in the header", _COPY)
    return header, pixels


def _is_whole(path: Path, image: Image) -> bool:
    """Return whether a picture has all its pixels: a JPEG that was cut and closed again decodes, too.

    In one that was stored row by row, what is missing is grey, but for one block. Only where the last pixel is grey, in
    small pictures and in progressive ones does it take another decoding to know.
    """
    if image.format != "JPEG":
        return True
    image.load()
    width, height = image.size
    last = np.asarray(image.crop((width - 1, height - 1, width, height)))
    if width * height > _SMALL and not image.info.get("progressive") and not np.isin(last, (127, 128)).all():
        return True
    longer = lengthen(read_bytes(path))
    if longer is None:
        return False
    other = _opened("JPEG", longer)
    rows = max(_STRIP // width, 1)
    strips = ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))
    return all(image.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in strips)


def _open(path: Path) -> Image:
    """Return the opened, undecoded picture after its own claims were checked."""
    content = read_bytes(path)
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        kind, claims = "PNG", _png_claims(content)
    elif content[:3] == b"\xff\xd8\xff":
        kind, claims = "JPEG", jpeg_claims(content)
    else:
        raise fault(path, f"this is no PNG, JPEG or TIFF (it starts with {content[:8]!r})", "one of these", _COPY)
    if claims is None:
        raise fault(path, f"the {kind} header is damaged or truncated", "a whole header", _COPY)
    width, height, least = claims
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        came = f"the header claims {width} × {height} pixels"
        raise fault(path, came, f"1 to {MOST_PIXELS} pixels", "Cut it into tiles")
    if least > len(content):
        came = f"the header claims {width} × {height} pixels but the file has only {len(content)} bytes"
        mend = "The file is truncated or its header is false: " + _COPY[0].lower() + _COPY[1:]
        raise fault(path, came, f"at least {least} bytes", mend)
    try:
        image: Image = _opened(kind, content)
    except Exception as error:  # any failure to open an outside picture is a fault of the picture
        raise fault(path, f"the {kind} header cannot be read ({error})", "a valid picture", _COPY) from None
    fine = 2 if _has_fine_colours(content) else 1
    decoded = width * height * _PIXEL_BYTES.get(image.mode, len(image.getbands())) * fine
    check_ratio(path, len(content), decoded)
    check_memory(path, (1 + (kind == "JPEG")) * decoded + 4 * width * height * min(len(image.getbands()), 3))
    return image


def _opened(kind: str, content: bytes) -> Image:
    if kind != "JPEG":
        opened: Image = pillow().open(io.BytesIO(content), formats=[kind])
        return opened
    from PIL.JpegImagePlugin import JpegImageFile  # open() would count a phone's further pictures as frames

    return JpegImageFile(io.BytesIO(content))


def _png_claims(content: bytes) -> tuple[int, int, int] | None:
    """Return (width, height, fewest bytes of such a file) that a PNG claims; None for a damaged header."""
    if len(content) < 33 or content[12:16] != b"IHDR":
        return None
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour)
    if samples is None or bits not in (1, 2, 4, 8, 16):
        return None
    return width, height, height * (width * bits * samples // 8) // MOST_DEFLATE_RATIO


def jpeg_claims(content: bytes) -> tuple[int, int, int] | None:
    """Return the claims of a JPEG as of :func:`_png_claims`; an 8×8 block takes at least one bit, for its mean."""
    if content.count(b"\xff\xda") > _MOST_SCANS:  # each is decoded over the whole picture
        return None
    position = 2
    while position + 9 < len(content):
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            position += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[position + 5 : position + 9])
            return width, height, height * width // 512
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None


def _header(path: Path, image: Image) -> Header:
    try:
        width, height = image.size
        # JPEG only, and asked in this order: for a PNG, getexif would decode the pixels
        if image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
        frames = getattr(image, "n_frames", 1)
    except Exception as error:  # a damaged EXIF block or chain of frames
        raise fault(path, f"the picture's header cannot be read ({error})", "a valid picture", _COPY) from None
    if frames > 1:
        raise fault(path, f"an animation of {frames} frames", "one picture", "Save the frames as single pictures")
    return Header((height, width), 1 if image.mode in _GREY else 3, colour=True, note=_note(image))


def _note(image: Image) -> str:
    """Return in words what is done to a picture that is more than grey or RGB."""
    if image.mode in _ALPHA or "transparency" in image.info:
        return "transparent pixels are blended with white"
    if image.mode == "P":
        return "palette colours are read as RGB"
    return "CMYK is turned into RGB" if image.mode == "CMYK" else ""


def _upright(image: Image) -> Image:
    """Apply the orientation that a camera recorded (JPEG only: elsewhere converters have left an outdated tag)."""
    if image.format != "JPEG" or image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _by_strips(
    image: Image, convert: Callable[[Image], Array], make: Callable[[tuple[int, ...], Any], Stored]
) -> Stored:
    """Return what ``convert`` makes of a picture, strip by strip: it takes several copies of what it is given.

    ``make`` makes the array of a shape and type.
    """
    width, height = image.size
    rows = max(_STRIP // width, 1)
    result: Stored | None = None
    for top in range(0, height, rows):
        values = convert(image.crop((0, top, width, min(top + rows, height))))
        if result is None:
            result = make((len(values), height, width), values.dtype)
        result[:, top : top + rows] = values
    assert result is not None
    return result


def _grey_or_colour(image: Image) -> NDArray[np.float32]:
    """Return float32 (1 or 3, height, width), transparent pixels blended with white."""
    wide = image.mode.startswith("I")  # a PNG of 16 bits, "I" in older versions of Pillow
    return _by_strips(image, lambda strip: _strip_colours(strip, wide=wide), np.empty)


def _strip_colours(image: Image, *, wide: bool) -> NDArray[np.float32]:
    grey = image.mode in _GREY
    if wide:
        scaled: NDArray[np.float32] = np.asarray(image, np.float32) / np.float32(257)
        return scaled[None]
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow().alpha_composite(white, image)
    if grey:
        return np.asarray(image.convert("L"), np.float32)[None]
    return np.moveaxis(np.asarray(image.convert("RGB"), np.float32), -1, 0)


def _has_fine_colours(head: bytes) -> bool:
    """Return whether a picture's first bytes are those of a PNG with colours, or grey and alpha, of 16 bits."""
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10" and head[25] in (2, 4, 6)


def _fine_colours(path: Path) -> NDArray[np.float32]:
    """Return float32 (1 or 3, height, width) of such a PNG, of which Pillow keeps 8 bits."""
    try:
        import imagecodecs
    except ImportError as error:
        raise UnsupportedError("PNG of 16 bits need imagecodecs: pip install 'convoxel[formats]'.") from error
    stored = imagecodecs.png_decode(read_bytes(path))
    colours = stored.shape[2] - (stored.shape[2] in (2, 4))
    result = np.empty((colours, *stored.shape[:2]), np.float32)
    rows = max(_STRIP // stored.shape[1], 1)
    for top in range(0, len(stored), rows):
        strip = np.moveaxis(stored[top : top + rows] / np.float32(257), -1, 0)
        if len(strip) > colours:
            share = strip[colours:] / np.float32(255)
            strip = strip[:colours] * share + 255 * (1 - share)
        result[:, top : top + rows] = strip
    return result


def _indices(path: Path, image: Image) -> Array:
    """Return label values (1, height, width); DataError for colours that cannot be class numbers."""
    if image.mode == "L":
        grey = np.asarray(image)[None]
        return grey if (stretch := _stretch(path)) == 1 else grey // np.uint8(stretch)
    if image.mode == "P" or image.mode.startswith("I"):
        return np.asarray(image)[None]
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)[None]
    alpha = np.asarray(image.crop((0, 0, 1, 1)).convert("RGBA"))[0, 0, 3]

    def shades(strip: Image) -> Array:
        values = np.asarray(strip.convert("RGBA"))
        coloured = (values[..., :1] != values[..., 1:3]).any(axis=-1) | (values[..., 3] != alpha)
        if coloured.any():
            first = tuple(int(v) for v in values[coloured][0][: 3 + (alpha != 255)])
            came = f"a label picture in colours ({image.mode}, such as {first})"
            expected = "one class number (grey value or palette index) a pixel"
            mend = "Replace every colour by its class number 0, 1, 2, … and save the picture as grey PNG"
            raise fault(path, came, expected, mend)
        return values[None, ..., 0]

    return _by_strips(image, shades, np.empty)


def _stretch(path: Path) -> int:
    """Return the factor by which Pillow stretches grey values of 2 or 4 bits, which only PNG has here."""
    head = read_bytes(path, 26)
    bits = head[24] if head[:8] == b"\x89PNG\r\n\x1a\n" and head[25] == 0 else 8
    return 255 // (2**bits - 1) if bits < 8 else 1


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a PNG: class numbers as a palette picture, masks of 0 and 255 and images in shades."""
    if header.dims != 2:
        came = f"{header.dims} spatial axes (array of shape {values.shape[label:]})"
        raise fault(path, came, "2 for PNG", "Write one image a file, volumes as .nii.gz or .npy")
    if label:  # a mask of 0 and 255 is what paint programs make: grey
        painted = values.max(initial=0) == 255 and not ((values > 0) & (values < 255)).any()
        return pack_picture(values[0], palette=not painted)
    if len(values) not in (1, 3) or not (values.min() >= 0 and values.max() <= 255):
        came = f"an image of {len(values)} channels, values {values.min():g} to {values.max():g}"
        raise fault(path, came, "1 or 3 channels of values 0 to 255 for PNG", "Scale it, or write .nii.gz or .npy")
    pixels = np.moveaxis(np.rint(values).astype(np.uint8), 0, -1)
    return pack_picture(pixels[..., 0] if len(values) == 1 else np.ascontiguousarray(pixels), palette=False)


def pack_picture(array: NDArray[np.uint8], *, palette: bool) -> bytes:
    """Return the bytes of a PNG.

    Args:
        array: uint8 (height, width), or (height, width, 3) for colours.
        palette: store class numbers as indices of colours that are easy to tell apart; read as a label, the picture
            gives the class numbers back.
    """
    image = pillow().fromarray(array)
    if palette:
        image = image.convert("P") if image.mode != "L" else pillow().frombytes("P", image.size, image.tobytes())
        rest = bytes(v for i in range(9, 256) for v in ((37 * i) % 256, (91 * i) % 256, (151 * i) % 256))
        image.putpalette(_PALETTE + rest)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
