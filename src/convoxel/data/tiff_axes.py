"""Pages of a TIFF as depth and channels, and the size of a pixel, as ImageJ, OME and tifffile write them.

Without such a description the pages of a file are the slices of a volume. A time series of flat images is read like a
volume; one of volumes is refused, and so is an OME data set of several files or several images.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Spacing
from convoxel.data.length_unit import unit_in_mm
from convoxel.data.tiff_page import TiffPage
from convoxel.files.fault import brief, fault, shown
from convoxel.files.stream import file_size

_MOST_XML = 8 * 2**20
_KNOWN = "CTZQI"  # axes of pages: channels, time, depth, and two names for unknown


@dataclass(frozen=True)
class Stack:
    """The pages of an image.

    Attributes:
        planes: number of the page (channels, depth); beyond the file's pages, planes that follow the only one.
        spacing_mm: size of a pixel in mm along (depth,) height and width, or None.
        flat: True if the image has no axis of depth.
    """

    planes: NDArray[np.int64]
    spacing_mm: Spacing
    flat: bool


def arrange_pages(path: Path, pages: list[TiffPage]) -> Stack:
    """Return which page holds which channel and slice; DataError where the file's description contradicts it."""
    text = pages[0].description
    if text.startswith("ImageJ="):
        return _imagej(path, pages, text)
    if text.rstrip().endswith("OME>"):
        return _ome(path, pages, text)
    shown_pages = [number for number, page in enumerate(pages) if not page.reduced] or [0]
    in_plane = _in_plane(pages[0])
    axes = _tifffile_axes(path, text, len(shown_pages))
    return _arrange(path, axes, np.array(shown_pages), (None, *in_plane) if in_plane else None)


def _in_plane(page: TiffPage) -> tuple[float, float] | None:
    return None if page.per_mm is None else (1 / page.per_mm[0], 1 / page.per_mm[1])


def _arrange(
    path: Path, axes: list[tuple[str, int]], numbers: NDArray[np.int64], sizes: tuple[float | None, ...] | None
) -> Stack:
    """Return the stack of pages ``numbers`` along ``axes``, the last one fastest; sizes in mm of (z, y, x)."""
    long = [(name, size) for name, size in axes if size > 1]
    deep = [name for name, _ in long if name != "C"]
    if len(deep) > 1 or len(long) - len(deep) > 1:
        told = ", ".join(f"{name} {size}" for name, size in axes)
        mend = "Save one file a time point, or name the axes (tifffile: metadata={'axes': 'ZCYX'})"
        raise fault(path, f"pages along the axes {told}", "one of depth or time, and one of channels (C)", mend)
    if math.prod(size for _, size in axes) != len(numbers):
        told = " × ".join(str(size) for _, size in axes)
        mend = "The file is truncated, or its description is false: save it again"
        raise fault(path, f"the description declares {told} pages", f"{len(numbers)}, as the file has", mend)
    grid = numbers.reshape([size for _, size in long] or [1, 1])
    if len(long) == 1:
        grid = grid[:, None] if long[0][0] == "C" else grid[None]
    elif len(long) == 2 and long[1][0] == "C":
        grid = grid.T
    spacing: Spacing = None
    if sizes is not None:
        depth = (sizes[0] if deep == ["Z"] else None,) if deep else ()
        known = [size for size in (*depth, *sizes[1:]) if size is not None and math.isfinite(size) and size > 0]
        spacing = tuple(known) if len(known) == len(depth) + 2 else None
    return Stack(grid, spacing, flat=not deep)


def _number(path: Path, text: object, name: str, default: int = 1) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"0*[1-9]\d{0,8}", str(text).strip()):
        raise fault(path, f"{name} is {brief(text)} in the description", "a whole number from 1 on", "Save it again")
    return int(str(text))


def _imagej(path: Path, pages: list[TiffPage], text: str) -> Stack:
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    images = _number(path, fields.get("images"), "images")
    shape = [_number(path, fields.get(name), name) for name in ("frames", "slices", "channels")]
    if math.prod(shape) == 1:
        shape[1] = images
    one = len(pages) == 1 and images > 1  # large stacks have one list of tags, and the other planes follow the first
    if one and images * pages[0].decoded_bytes > file_size(path):
        came = f"the description declares {images} planes, beyond the end of the file"
        raise fault(path, came, "as many bytes as declared", "The file is truncated: copy it again")
    numbers = np.arange(images if one else len(pages))
    scale = unit_in_mm(fields.get("unit", ""))
    sizes: tuple[float | None, ...] | None = None
    if scale is not None and pages[0].resolution is not None:
        try:
            depth = abs(float(fields["spacing"])) * scale if "spacing" in fields else None
        except ValueError:
            depth = None
        sizes = (depth, scale / pages[0].resolution[0], scale / pages[0].resolution[1])
    return _arrange(path, list(zip("TZC", shape, strict=True)), numbers, sizes)


def _tifffile_axes(path: Path, text: str, count: int) -> list[tuple[str, int]]:
    """Return the axes of pages by what tifffile writes as JSON, or one of depth."""
    if not text.startswith('{"shape":') or len(text) > _MOST_XML:
        return [("Z", count)]
    try:
        fields: Any = json.loads(text)
        shape, axes = fields["shape"], fields.get("axes", "")
        shape = [_number(path, size, "shape") for size in shape]
    except (ValueError, TypeError, KeyError, RecursionError):
        return [("Z", count)]
    if not isinstance(axes, str) or len(axes) != len(shape) or "Y" not in axes:
        # Without names, the first axes whose sizes make the number of pages are theirs.
        first = next((n for n in range(len(shape) + 1) if math.prod(shape[:n]) == count), None)
        return [("Z", count)] if first is None else [("Q", size) for size in shape[:first]] or [("Z", 1)]
    found = [(name, size) for name, size in zip(axes, shape, strict=True) if name not in "YXS"]
    wrong = [name for name, size in found if name not in _KNOWN and size > 1]
    if wrong:
        raise fault(path, f"an axis {shown(wrong[0])} of pages", "depth Z, time T or channels C", "Save them apart")
    if math.prod(size for _, size in found) == count * max(dict(found).get("C", 1), 1):
        found = [(name, size) for name, size in found if name != "C"]  # the channels are the samples of a pixel
    return found or [("Z", 1)]


def _ome(path: Path, pages: list[TiffPage], text: str) -> Stack:
    if len(text) > _MOST_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise fault(path, "an OME description with entities or of excessive length", "plain OME-XML", "Save it again")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise fault(path, f"the OME description is damaged ({error})", "OME-XML", "Save it again") from None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    images = root.findall("Image")
    pixels = images[0].find("Pixels") if len(images) == 1 else None
    if pixels is None:
        mend = "Save one image a file (a pyramid's levels in SubIFDs)"
        raise fault(path, f"{len(images)} images in one OME-TIFF", "one, with its pixels", mend)
    own = root.get("UUID")
    for element in pixels.iter("UUID"):
        name = element.get("FileName")
        if (element.text or "").strip() != own and name not in (None, path.name):
            mend = "Save the image as one file"
            raise fault(path, f"planes in other files, such as {brief(name)}", "all planes in this file", mend)
    order = str(pixels.get("DimensionOrder", "XYCZT"))
    if sorted(order) != sorted("XYCZT") or order[:2] != "XY":
        raise fault(path, f"DimensionOrder is {brief(order)}", "XY and then C, Z and T", "Save the file again")
    sizes = {name: _number(path, pixels.get(f"Size{name}"), f"Size{name}") for name in "CZT"}
    samples = pages[0].samples
    sizes["C"] = sizes["C"] // samples if sizes["C"] % samples == 0 else sizes["C"]
    axes = [(name, sizes[name]) for name in reversed(order[2:])]
    spacing = [_physical(pixels, name) for name in "ZYX"]
    return _arrange(path, axes, _ome_planes(path, pixels, axes, len(pages)), tuple(spacing))


def _ome_planes(path: Path, pixels: ElementTree.Element, axes: list[tuple[str, int]], count: int) -> NDArray[np.int64]:
    """Return the page of each plane, in the order of ``axes``, by the elements TiffData."""
    shape = [size for _, size in axes]
    total = math.prod(shape)
    found = np.full(min(total, count + 1), -1, np.int64)
    if total != len(found):
        came = f"the description declares {' × '.join(map(str, shape))} planes"
        raise fault(path, came, f"at most {count}, the file's pages", "The file is truncated: copy it again")
    blocks = pixels.findall("TiffData")
    for block in blocks or [ElementTree.Element("TiffData")]:
        values = {key: _start(path, block.get(key), key) for key in ("IFD", "FirstC", "FirstZ", "FirstT")}
        place = int(np.ravel_multi_index([values[f"First{name}"] for name, _ in axes], shape, mode="clip"))
        default = 1 if block.get("IFD") is not None and len(blocks) > 1 else total
        for step in range(min(_number(path, block.get("PlaneCount"), "PlaneCount", default), total - place)):
            found[place + step] = values["IFD"] + step
    if found.min() < 0 or found.max() >= count:
        came = "the OME description leaves out planes, or names pages that the file does not have"
        raise fault(path, came, f"a page of {count} for each plane", "Save the file again")
    return found


def _start(path: Path, text: str | None, name: str) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise fault(path, f"{name} is {brief(text)} in the OME description", "a whole number", "Save the file again")
    return int(text)


def _physical(pixels: ElementTree.Element, axis: str) -> float | None:
    scale = unit_in_mm(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        return float(pixels.get(f"PhysicalSize{axis}", "nan")) * scale if scale is not None else None
    except ValueError:
        return None
