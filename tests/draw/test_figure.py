"""Figures as files: SVG, PNG, GIF, web pages; colours on both pages; widths of texts."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoxel import draw
from convoxel.draw.chart import power_ticks, ticks
from convoxel.draw.figure import Figure, beside
from convoxel.draw.letter import fit, text_width
from convoxel.draw.motion import changes
from convoxel.draw.pareto_chart import Entry, front, pareto
from convoxel.draw.scene import Bitmap, Box, Disc, Group, Line, Look, Squares, Words, arrow
from convoxel.draw.theme import DARK, LIGHT, colour, contrast, hexadecimal
from convoxel.errors import ConfigError
from tests.support.drawing import SVG, check_texts, elements, parsed

RED = Image.new("RGB", (2, 2), (250, 10, 10))
SAMPLE = Figure(
    "a <sample>", "One of each & more.", 100, 60,
    (
        Box(10, 10, 20, 10, look=Look(fill="c1"), note="a box"),
        Box(70, 35, 20, 20, 4, look=Look(stroke="c3", dash=(3, 2))),
        Disc(50, 15, 5, look=Look(fill="c7")),
        Squares(((60, 10), (66, 10)), 5, look=Look(fill="c5")),
        Group((Box(0, 0, 4, 4, look=Look(fill="c3")),), moves=((5, 50), (45, 50), (85, 50))),
        Box(40, 30, 10, 10, look=Look(fill="c6"), when=(1,)),
        Words(5, 40, "x < y", look=Look(fill="ink", size=8)),
        Bitmap(80, 5, 10, 10, RED),
        *arrow(((10, 30), (30, 30)), Look(stroke="ink")),
    ),
    frames=3, frame_s=0.5, rest=1,
)  # fmt: skip


def pixel(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    return tuple(np.asarray(picture)[int(2 * y), int(2 * x)])


def test_svg_escapes_and_names_itself() -> None:
    root = parsed(SAMPLE)
    assert root.findtext(f"{SVG}title") == "a <sample>" and root.findtext(f"{SVG}desc") == "One of each & more."
    assert root.get("role") == "img" and root.get("viewBox") == "0 0 100 60"
    told = (root.get("aria-labelledby") or "").split()
    assert told == [root.find(f"{SVG}{name}").get("id") for name in ("title", "desc")]  # type: ignore[union-attr]
    assert SAMPLE._repr_svg_() == SAMPLE.svg() and repr(SAMPLE) == "Figure('a <sample>', 100 × 60, 3 frames)"


@pytest.mark.parametrize("dark", [False, True])
def test_pixels_show_the_shapes_of_the_frame(dark: bool) -> None:
    theme = "dark" if dark else "light"
    for frame, seen in enumerate((5, 45, 85)):
        picture = SAMPLE.still(frame).picture(theme)
        assert picture.size == (200, 120)
        for x, y, role in ((15, 15, "c1"), (50, 15, "c7"), (62, 12, "c5"), (80, 45, "card"), (seen + 2, 52, "c3"),
                           (45, 35, "c6" if frame == 1 else "card"), (95, 30, "card")):  # fmt: skip
            assert pixel(picture, x, y) == colour(role, dark), (frame, role)
        assert pixel(picture, 85, 10) == (250, 10, 10)
        assert pixel(picture, 15, 30) == colour("ink", dark)


def test_files(tmp_path: Path) -> None:
    for name in ("a.svg", "a.png", "a.gif", "a.html"):
        assert SAMPLE.save(tmp_path / name) == tmp_path / name
    ElementTree.fromstring((tmp_path / "a.svg").read_text())
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.gif") as gif:
        assert png.size == gif.size == (200, 120) and getattr(gif, "n_frames", 1) == 3
        assert gif.info["duration"] == 500
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>") and page.count("<svg") == 1 and "a &lt;sample&gt;" in page
    assert "prefers-color-scheme" not in SAMPLE.svg("dark") and "#181c21" in SAMPLE.svg("dark")


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = SAMPLE.save(tmp_path / f"a.{ending}")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        SAMPLE.still(2).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("bold", [False, True])
def test_letters_are_painted_as_wide_as_they_were_taken_to_be(bold: bool) -> None:
    """With the font that comes along, whatever fonts the machine has."""
    for text in ("Größe 3 × 3, ½ ≤ ⌊x⌋ → k₁|", "|mmmmmmmmmmm iiiiiiii|", "|Ωμέγα, Кириллица|"):
        words = Words(5, 20, text, look=Look(fill="ink", size=12, bold=bold))
        ink = np.asarray(Figure("a", "", 300, 30, (words,)).picture("light", 4.0)).min(axis=2) < 128
        last = int(np.flatnonzero(ink.any(axis=0))[-1]) / 4 - 5
        assert 0 <= text_width(text, 12, bold) - last < 3, text


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.37])
def test_gif_paints_what_changes_and_shows_whole_frames(scale: float) -> None:
    """Frames made of the changed regions equal frames painted whole, but for the rounding of blurred edges."""
    for figure, share in ((SAMPLE, 0.5), (draw.conv((4, 5), 3, padding=1, stride=2), 0.2)):
        shown, painted = figure.still(0).picture("light", scale), 0.0
        for frame in range(1, figure.frames):
            for (left, top, right, bottom), shapes in changes(figure, frame, scale):
                part = Figure("", "", right - left, bottom - top, shapes).picture("light", scale)
                shown.paste(part, (round(left * scale), round(top * scale)))
                painted += (right - left) * (bottom - top)
            whole = np.asarray(figure.still(frame).picture("light", scale)).astype(int)
            assert np.abs(whole - np.asarray(shown)).max() <= 32
        if scale.is_integer():
            assert painted <= share * (figure.frames - 1) * figure.width * figure.height


def test_gif_keeps_the_colour_of_the_page() -> None:
    figure = draw.conv((4, 5), 3, padding=1)
    with Image.open(io.BytesIO(figure._pixels(".gif", "light", 1.0))) as gif:
        for frame in range(figure.frames):
            gif.seek(frame)
            shown, whole = np.asarray(gif.convert("RGB")), np.asarray(figure.still(frame).picture("light", 1.0))
            page = (whole == colour("card")).all(axis=2)
            assert page.mean() > 0.5 and (shown[page] == colour("card")).mean() > 0.999


def test_strips_and_rows_of_figures() -> None:
    strip = SAMPLE.strip([0, 2], columns=1)
    assert (strip.width, strip.height, strip.frames) == (100, 120, 1) and strip.text.endswith("Frames 1, 3 of 3.")
    moved = [p for p in elements(parsed(strip)) if (p.dx, p.dy) in ((5.0, 50.0), (85.0, 110.0))]
    assert len(moved) == 4  # the moving group and its box, in both frames
    both = beside([SAMPLE.still(), SAMPLE.still()], "two", gap=10)
    assert both.width == 210 and "a <sample>: One of each" in both.text
    with pytest.raises(ConfigError, match="each of one frame"):
        beside([SAMPLE], "moving")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in '.pdf'; a figure is saved as .svg, .png, .gif, .html"):
        SAMPLE.save(tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="theme is 'pink'"):
        SAMPLE.svg("pink")
    with pytest.raises(ConfigError, match="its folder does not exist"):
        SAMPLE.save(tmp_path / "none" / "a.svg")
    for scale in (0.0, float("nan"), 1e4):
        with pytest.raises(ConfigError, match="scale: got"):
            SAMPLE.picture(scale=scale)
    with pytest.raises(ConfigError, match="there is no role 'pink'"):
        colour("pink")


def test_colours_can_be_read_and_told_apart() -> None:
    assert LIGHT.keys() == DARK.keys()
    for dark in (False, True):
        card = colour("card", dark)
        assert all(contrast(colour(role, dark), card) >= 4.5 for role in ("ink", "soft", "faint"))
        assert all(contrast(colour(f"c{n}", dark), card) >= 3 for n in range(1, 8))
        ramp = [contrast(colour(f"ramp:{n / 20}", dark), (0, 0, 0)) for n in range(21)]
        assert ramp == sorted(ramp) and ramp[-1] / ramp[0] > 4  # brighter all the way: readable without hue
        for role in [*(f"c{n}" for n in range(1, 8)), *(f"ramp:{n / 20}" for n in range(21))]:
            assert contrast(colour(f"on:{role}", dark), colour(role, dark)) >= 3.5


def test_texts_are_cut_in_their_middle() -> None:
    assert fit("short", 100) == "short" and fit("anything", 1) == "…"
    for width in (40, 80, 160):
        short = fit("encoder.layer4.downsample.1.convolution", width)
        assert text_width(short) <= width and short[0] == "e" and "…" in short


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 97, 5) == (0, 20, 40, 60, 80, 100) and ticks(-1, 1, 4) == (-1, -0.5, 0, 0.5, 1)
    assert power_ticks(1e3, 1e12)[:2] == (1e3, 1e4)


def test_front_holds_what_nothing_beats() -> None:
    rng = np.random.default_rng(5)
    entries = [Entry(str(n), *map(float, rng.integers(0, 12, 2))) for n in range(60)]

    def beaten(e: Entry) -> bool:
        return any(o.x <= e.x and o.y >= e.y and (o.x, o.y) != (e.x, e.y) for o in entries)

    kept = front(entries)
    assert {(e.x, e.y) for e in kept} == {(e.x, e.y) for e in entries if not beaten(e)}
    mirrored = front([Entry(e.name, -e.x, -e.y) for e in entries], low_x=False, high_y=False)
    assert {(-e.x, -e.y) for e in mirrored} == {(e.x, e.y) for e in kept}


def test_pareto_places_points_by_their_numbers() -> None:
    entries = [
        Entry("a", 1e6, 0.5),
        Entry("b", 1e8, 0.7),
        Entry("c", 1e7, 0.6),
        Entry("a very long name " * 3, 1e8, 0.4),
    ]
    figure = pareto(entries, x="multiply–adds", y="accuracy")
    discs = {p.data("entry"): p.element for p in elements(parsed(figure)) if p.data("entry")}
    x = {name: float(disc.get("cx", 0)) for name, disc in discs.items()}
    y = {name: float(disc.get("cy", 0)) for name, disc in discs.items()}
    assert x["c"] - x["a"] == pytest.approx(x["b"] - x["c"], abs=0.05)  # a logarithmic axis
    assert y["a"] - y["c"] == pytest.approx(y["c"] - y["b"], abs=0.05) and y["a"] > y["c"]
    assert check_texts(figure) > 10 and "no other one beats" in figure.text
    for wrong in ([], [Entry("a", float("nan"), 1)]):
        with pytest.raises(ConfigError, match="at least one point, and finite"):
            pareto(wrong, x="x", y="y")
    with pytest.raises(ConfigError, match="no place on a logarithmic axis"):
        pareto([Entry("a", 0, 1), Entry("b", 1, 1)], x="x", y="y", logarithmic=True)


def test_public_names_are_documented() -> None:
    for name in draw.__all__:
        assert getattr(draw, name).__doc__, name


def test_lines_with_dashes_are_painted() -> None:
    line = Line(((5, 10), (95, 10)), look=Look(stroke="ink", weight=2, dash=(10, 10)))
    row = np.asarray(Figure("dashes", "", 100, 20, (line,)).picture())[20]
    dark = (row == colour("ink")).all(axis=1)
    assert 60 < dark.sum() < 140 and np.count_nonzero(np.diff(dark.astype(int)) == 1) in (4, 5)


def test_the_theme_of_a_page_follows_its_colour_scheme() -> None:
    shown = Figure("square", "One square.", 20, 20, (Box(5, 5, 10, 10, look=Look(fill="c1")),))
    light, dark = (hexadecimal(colour("c1", dark)) for dark in (False, True))
    text = shown.svg("page")
    assert f"fill:light-dark({light},{dark})" in text and "prefers-color-scheme" not in text
    assert f"light-dark({light}" not in shown.svg() and light in shown.svg("light") and dark in shown.svg("dark")
