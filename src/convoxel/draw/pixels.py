"""SVG text as pixels, rendered by resvg: for PNG and GIF files, and for pages that show no SVG.

Letters come from the font beside this file, so a picture is the same on every machine. Only a text with letters that
this font lacks is completed from the fonts of the system.
"""

from __future__ import annotations

from collections.abc import Callable

from convoxel.draw.letter import FONT_FILES, is_covered
from convoxel.errors import ConfigError


def load_renderer() -> Callable[..., bytes]:
    """Return resvg's function from SVG text to the bytes of a PNG file.

    Raises:
        ConfigError: resvg is not installed.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise ConfigError("png: needs resvg, which is not installed; pip install 'convoxel[train]'.") from None
    function: Callable[..., bytes] = svg_to_bytes  # untyped where resvg is not installed
    return function


def render(svg: str, scale: float) -> bytes:
    """Return a still figure's SVG text as a PNG file of ``scale`` pixels a unit.

    Raises:
        ConfigError: resvg is not installed.
    """
    return load_renderer()(
        svg_string=svg,
        zoom=scale,
        font_files=list(FONT_FILES),
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
        skip_system_fonts=is_covered(svg),
    )
