"""Readers of figures: elements with their places on the page, in any groups and animations."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import NamedTuple

from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width

SVG = "{http://www.w3.org/2000/svg}"


class Placed(NamedTuple):
    """An element and its translation by the groups around it."""

    element: ElementTree.Element
    dx: float
    dy: float

    def data(self, key: str) -> str | None:
        return self.element.get(f"data-{key}")

    @property
    def spot(self) -> tuple[float, float]:
        """Return the upper left corner of a rectangle."""
        x, y = float(self.element.get("x", 0)), float(self.element.get("y", 0))
        return round(self.dx + x, 2), round(self.dy + y, 2)


def elements(root: ElementTree.Element, dx: float = 0.0, dy: float = 0.0) -> Iterator[Placed]:
    """Yield every element below ``root`` with the sum of the translations above it."""
    for child in root:
        found = re.fullmatch(r"translate\(([-\d.]+) ([-\d.]+)\)", child.get("transform", "translate(0 0)"))
        assert found, child.get("transform")
        x, y = dx + float(found[1]), dy + float(found[2])
        yield Placed(child, x, y)
        yield from elements(child, x, y)


def parsed(figure: Figure) -> ElementTree.Element:
    """Return the figure's SVG, which must be well-formed and self-contained."""
    text = figure.svg()
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title") is not None and root.find(f"{SVG}desc") is not None
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|<script|url\(", text)
    return root


def check_texts(figure: Figure) -> int:
    """Check that no text leaves the page, in the font of the pictures; return the number of texts."""
    root = parsed(figure.still())
    style = root.findtext(f"{SVG}style") or ""
    count = 0
    for placed in elements(root):
        if placed.element.tag != f"{SVG}text":
            continue
        name = (placed.element.get("class") or "").split()[0]
        rule = " ".join(re.findall(rf"\.{name}{{([^}}]*)}}", style))
        size = float(re.findall(r"font-size:([\d.]+)px", rule)[0])
        bold, align = "font-weight" in rule, (re.findall(r"text-anchor:(\w+)", rule) or ["start"])[0]
        text = placed.element.text or ""
        width = text_width(text, size, bold)
        x, y = placed.spot
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[align] * width
        assert left >= 0 and left + width <= figure.width, f"{text!r} is cut at the side"
        assert y - 0.75 * size >= 0 and y + 0.25 * size <= figure.height, f"{text!r} is cut above or below"
        count += 1
    return count
