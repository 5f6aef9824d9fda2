"""The animations of Dumoulin & Visin 2016 (arXiv 1603.07285) by their names, and those that they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from convoxel.draw.figure import Figure
from convoxel.draw.sliding_kernel import conv
from convoxel.errors import ConfigError, check_choice
from convoxel.files.atomic import write_bytes

_T: dict[str, Any] = {"kind": "transposed"}
ENTRIES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "no_padding_no_strides": ("No padding, no strides (figure 2.1)", {"size": (4, 4), "kernel": 3}),
    "arbitrary_padding_no_strides": ("Arbitrary padding (2.2)", {"size": (5, 5), "kernel": 4, "padding": 2}),
    "same_padding_no_strides": ("Half padding: the size stays (2.3)", {"size": (5, 5), "kernel": 3, "padding": "half"}),
    "full_padding_no_strides": ("Full padding (2.4)", {"size": (5, 5), "kernel": 3, "padding": "full"}),
    "no_padding_strides": ("Strides (2.5)", {"size": (5, 5), "kernel": 3, "stride": 2}),
    "padding_strides": ("Padding and strides (2.6)", {"size": (5, 5), "kernel": 3, "stride": 2, "padding": 1}),
    "padding_strides_odd": ("A row is never read (2.7)", {"size": (6, 6), "kernel": 3, "stride": 2, "padding": 1}),
    "no_padding_no_strides_transposed": ("Transposed (4.1)", {"size": (2, 2), "kernel": 3, **_T}),
    "arbitrary_padding_no_strides_transposed": (
        "Transposed, padding (4.2)", {"size": (6, 6), "kernel": 4, "padding": 2, **_T}),
    "same_padding_no_strides_transposed": (
        "Transposed, half padding (4.3)", {"size": (5, 5), "kernel": 3, "padding": "half", **_T}),
    "full_padding_no_strides_transposed": (
        "Transposed, full padding (4.4)", {"size": (7, 7), "kernel": 3, "padding": "full", **_T}),
    "no_padding_strides_transposed": ("Transposed, strides (4.5)", {"size": (2, 2), "kernel": 3, "stride": 2, **_T}),
    "padding_strides_transposed": (
        "Transposed, padding and strides (4.6)", {"size": (3, 3), "kernel": 3, "stride": 2, "padding": 1, **_T}),
    "padding_strides_odd_transposed": (
        "Transposed, a row added (4.7)",
        {"size": (3, 3), "kernel": 3, "stride": 2, "padding": 1, "output_padding": 1, **_T}),
    "dilation": ("Dilation (5.1)", {"size": (7, 7), "kernel": 3, "dilation": 2}),
    "causal": ("Causal padding of a signal", {"size": 8, "kernel": 3, "padding": "causal"}),
    "causal_dilated": ("Causal and dilated", {"size": 10, "kernel": 3, "padding": "causal", "dilation": 2}),
    "asymmetric": ("More padding behind than before", {"size": (5, 5), "kernel": 3, "padding": ((0, 2), (0, 2))}),
    "reflect": ("Reflected border", {"size": (5, 5), "kernel": 3, "padding": 1, "border": "reflect"}),
    "circular": ("Circular border", {"size": (5, 5), "kernel": 3, "padding": 1, "border": "circular"}),
    "scatter": (
        "Transposed: each input adds its kernel", {"size": (3, 3), "kernel": 3, "stride": 2, "view": "scatter", **_T}),
    "volume": ("A volume", {"size": (4, 4, 4), "kernel": 2, "stride": 2}),
}  # fmt: skip


def gallery(name: str) -> Figure:
    """Return an animation of the guide to convolution arithmetic by its name.

    Args:
        name: one of ``draw.gallery_names()``, such as "padding_strides" or "no_padding_strides_transposed".

    Raises:
        ConfigError: the name is not known.

    >>> gallery("padding_strides").title
    'Correlation, kernel 3 × 3, stride 2, padding 1'
    """
    check_choice("name", name, tuple(ENTRIES))
    return conv(**ENTRIES[name][1])


def gallery_names() -> tuple[str, ...]:
    """Return the names of all animations.

    >>> len(gallery_names()) > 15
    True
    """
    return tuple(ENTRIES)


def save_gallery(folder: str | Path, theme: str = "auto") -> list[Path]:
    """Write every animation as SVG into a folder, and a page that shows all; return the files.

    Raises:
        ConfigError: the folder cannot be written, or the theme is not known.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"folder: {place} cannot be made ({error.strerror}). Give another folder.") from None
    written, parts = [], []
    for name, (said, options) in ENTRIES.items():
        written.append(conv(**options).save(place / f"{name}.svg", theme))
        parts.append(
            f'<figure><img src="{name}.svg" alt="{escape(said)}"><figcaption>{escape(said)}</figcaption></figure>'
        )
    page = _PAGE.format(parts="\n".join(parts))
    return [write_bytes(place / "index.html", page.encode(), ConfigError), *written]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Convolution arithmetic</title>
<style>:root{{color-scheme:light dark}}body{{font:15px system-ui,sans-serif;margin:24px}}main{{display:grid;gap:20px;
grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));align-items:end}}figure{{margin:0}}img{{max-width:100%}}
</style></head><body><h1>Convolution arithmetic</h1>
<p>After Dumoulin &amp; Visin 2016 (arXiv 1603.07285); numbers of figures are theirs.</p><main>
{parts}
</main></body></html>
"""
