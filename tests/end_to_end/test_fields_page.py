"""Receptive fields in a browser: slices, cross-hair, units, boxes and measured influence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel
import numpy as np
import pytest

from convoxel.explorer.session import Session
from tests.end_to_end.conftest import Window
from tests.support.explorer import Explorer, running

SIZE = (24, 20, 16)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume whose voxels say where they lie."""
    found = tmp_path_factory.mktemp("scans") / "<b>scan.nii.gz"
    i, j, k = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    nibabel.save(nibabel.Nifti1Image((i * 10 + j * 3 + k).astype(np.int16), np.diag([-2.0, 1.0, 3.0, 1.0])), found)
    return found


@pytest.fixture(scope="module")
def explorer(scan: Path, program: Path) -> Iterator[Explorer]:
    """An explorer of the folders of a scan and of a program."""
    with running(Session.of([str(scan.parent), str(program.parent)])) as found:
        yield found


def measured(window: Window) -> Any:
    """Wait for the influence."""
    window.page.wait_for_selector("body[data-measuring='0']", state="attached", timeout=90_000)
    window.settle()
    return window.page


def field(scan: Path, **words: str) -> str:
    """Return the address of the page for a scan."""
    more = "".join(f"&{name}={quote(value)}" for name, value in words.items())
    return f"/fields?image={quote(str(scan))}{more}"


def covered(page: Any, plane: str) -> int:
    """Return how many pixels of a slice the heat covers."""
    return int(
        page.evaluate(
            """plane => {
              const canvas = document.querySelector(`[data-plane="${plane}"] .heat`);
              const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
              return pixels.filter((value, index) => index % 4 === 3 && value > 0).length; }""",
            plane,
        )
    )


def test_the_sentence_is_that_of_the_command(window: Any, scan: Path, printed: Any, tmp_path: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="layer1.0.conv2", at="3,2,1", heat="0"))
    told = printed(
        "draw", "field", "resnet18", "--shape", "1,1,24,20,16", "--layer", "layer1.0.conv2", "--at", "3,2,1", "--svg",
        str(tmp_path / "field.svg"),
    )  # fmt: skip
    assert page.inner_text("#sees") == told["text"]
    cells = page.locator("#axes tbody td").all_text_contents()
    assert cells[::5] == ["27", "27", "27"] and cells[1::5] == ["−1 to 25", "−5 to 21", "−9 to 17"]


def test_a_click_in_a_volume_shows_box_and_heat(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="maxpool"))
    box = page.locator('[data-plane="axial"]').bounding_box()
    # The axial picture shows x backwards along its columns and y backwards along its rows.
    page.mouse.click(box["x"] + box["width"] * (3.5 / 24), box["y"] + box["height"] * (4.5 / 20))
    window.settle()
    page = measured(window)
    assert "voxel=" in page.url and page.url.split("voxel=")[1].split("&")[0] in ("20%2C15%2C8", "3%2C15%2C8")
    assert page.locator(".box.exact").count() == 3
    assert all(covered(page, plane) > 0 for plane in ("axial", "coronal", "sagittal"))
    assert "Measured as the gradient" in page.inner_text("#influence")


def test_slices_move_together(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="conv1", heat="0"))
    page.get_by_label("coronal slice").fill("5")
    window.settle()
    assert page.url.split("voxel=")[1].split("&")[0].split("%2C")[1] == "5"
    box = page.locator('[data-plane="coronal"]').bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.wheel(0, 100)
    window.settle()
    assert page.get_by_label("coronal slice").input_value() == "6"
    assert "slice 6" in page.get_attribute('[data-plane="coronal"]', "aria-label")


def test_keys_move_the_cross_hair(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="conv1", voxel="12,10,8", heat="0"))
    page.locator('[data-plane="axial"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("PageUp")
    window.settle()
    moved = [int(place) for place in page.url.split("voxel=")[1].split("&")[0].split("%2C")]
    assert [abs(a - b) for a, b in zip(moved, (12, 10, 8), strict=True)] == [1, 1, 1] and moved[2] == 9
    assert page.inner_text("#told") == page.inner_text("#sees")


def test_layers_change_by_key_and_the_place_stays(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="conv1", voxel="12,10,8", heat="0"))
    page.keyboard.press("l")
    window.settle()
    assert "layer=maxpool" in page.url and "voxel=12%2C10%2C8" in page.url
    page.keyboard.press("k")
    window.settle()
    assert page.locator("#layer").input_value() == "conv1"


def test_a_unit_is_named_by_its_position(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="maxpool", heat="0"))
    page.get_by_label("axis 0").fill("1")
    window.settle()
    assert page.inner_text("#sees").startswith("Output (1, ") and "at=1%2C" in page.url


def test_letters_and_proportions(window: Any, scan: Path) -> None:
    page = window.open(field(scan, heat="0"))
    marks = {
        plane: page.locator(f'[data-plane="{plane}"] .mark').all_text_contents() for plane in ("axial", "sagittal")
    }
    assert marks == {"axial": ["A", "P", "R", "L"], "sagittal": ["S", "I", "A", "P"]}
    box = page.locator('[data-plane="axial"]').bounding_box()
    assert box["width"] / box["height"] == pytest.approx(24 * 2 / 20, rel=0.02)


def test_the_window_changes_the_shades(window: Any, scan: Path) -> None:
    page = window.open(field(scan, heat="0"))
    shades = """() => {
      const canvas = document.querySelector(".slice-image canvas");
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
      return [...pixels].reduce((sum, value) => sum + value); }"""
    before = page.evaluate(shades)
    page.get_by_label("value shown as white").fill("60")
    window.settle()
    assert page.evaluate(shades) > before and "high=60" in page.url
    page.get_by_role("button", name="usual").click()
    window.settle()
    assert page.evaluate(shades) == before


def test_a_picture_and_a_signal(window: Any) -> None:
    page = window.open("/fields?image=pattern-2d&net=resnet18&layer=layer1.0.conv1&heat=0")
    assert page.locator(".slice-image").count() == 1 and page.locator(".box.exact").count() == 1
    page = window.open("/fields?image=pattern-1d&net=unet&set=levels=2")
    page = measured(window)
    assert page.locator("path.signal").count() == 1 and page.locator("path.heat-area").count() == 1
    assert page.inner_text("#sees").startswith("Output 512 of head sees positions")


def test_a_file_has_boxes_alone(window: Any, program: Path) -> None:
    page = window.open(f"/fields?image=pattern-2d&net={quote(str(program))}")
    assert page.locator(".box.exact").count() == 1 and "no gradients" in page.inner_text("#influence")


def test_mistakes_are_told_on_the_page(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="unet", set="dims=2"))
    assert "dims" in page.inner_text("#error")


def test_files_elsewhere_stay_closed(browser: Any, explorer: Explorer) -> None:
    context = browser.new_context()
    window = Window(context.new_page(), explorer)
    page = window.open("/fields?image=/etc/passwd")
    assert "is not in a folder" in page.inner_text("#error")
    assert all("403" in text for text in window.complaints) and window.complaints  # the browser's own word for it
    context.close()


def test_names_of_files_are_texts(window: Any, scan: Path) -> None:
    page = window.open(field(scan, heat="0"))
    assert page.locator("option", has_text="<b>scan.nii.gz").count() == 1 and page.locator("#subject b").count() == 0


def test_copies(window: Any, scan: Path) -> None:
    page = window.open(field(scan, net="resnet18", layer="conv1", at="1,2,3", heat="0"))
    page.keyboard.press("c")
    text = page.inner_text("#copy-list")
    assert "convoxel draw field resnet18 --image" in text and "--at 1,2,3" in text and "cx.draw.field(" in text


def test_dark_and_phone(browser: Any, explorer: Explorer, scan: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    window = Window(context.new_page(), explorer)
    page = window.open(field(scan, heat="0"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 24)"
    tops = [page.locator(f'[data-plane="{plane}"]').bounding_box()["y"] for plane in ("axial", "coronal", "sagittal")]
    assert tops == sorted(tops) and len(set(tops)) == 3 and window.complaints == []
    context.close()
