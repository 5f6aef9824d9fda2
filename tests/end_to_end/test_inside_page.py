"""The inside of a network in a browser: feature maps, one number, kernels, samplings, shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convoxel.explorer import inside_view
from convoxel.explorer.session import Session
from convoxel.explorer.view import Query
from tests.end_to_end.conftest import Window
from tests.support.explorer import Explorer

NET = "net=unet&set=levels=1&set=width=6&image=pattern-2d"
WORDS = (("net", "unet"), ("set", "levels=1"), ("set", "width=6"), ("image", "pattern-2d"))


def told(function: Any, *more: tuple[str, str]) -> Any:
    """Return what Python answers, without a page."""
    return function(Session(), Query((*WORDS, *more)))


def test_the_maps_stand_in_the_page(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv2")
    found = told(inside_view.maps, ("layer", "encoder.0.conv2"))
    assert page.inner_text("#layer-text") == found["text"]
    size = page.evaluate(
        "[document.querySelector('#sheet canvas').width, document.querySelector('#sheet canvas').height]"
    )
    assert min(size) > 90
    assert f"{found['largest'][0]:.3g}"[:4] in page.inner_text("#ends")


def test_a_click_fills_the_formula_in(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv2")
    page.locator("#sheet canvas").click(position={"x": 60, "y": 40})
    window.settle()
    assert "at=r40%2C60" in page.url or "at=r" in page.url
    at = [int(each.input_value()) for each in page.locator("[aria-label='position in the map'] input").all()]
    found = told(inside_view.number, ("layer", "encoder.0.conv2"), ("channel", "0"), ("at", ",".join(map(str, at))))
    assert page.inner_text("#panel .formula") == found["text"]
    cells = page.locator("#panel .grids figure").nth(2).locator("td").all_text_contents()
    products = [float(cell.replace("−", "-")) for cell in cells]
    assert products == pytest.approx([term["product"] for term in found["terms"]], rel=0.01, abs=1e-6)
    assert page.locator(".box.exact").count() == 1  # what the output sees, over the image


def test_arrow_keys_slide_the_kernel(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1")
    page.locator("#sheet").focus()
    page.keyboard.press("ArrowRight")
    window.settle()
    first = page.inner_text("#panel .formula")
    page.keyboard.press("ArrowDown")
    window.settle()
    assert page.inner_text("#panel .formula") != first and first.startswith("y[0; 112, 113]")
    assert page.inner_text("#told") == page.inner_text("#panel .formula")


def test_channels_and_layers_by_keys(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1")
    page.keyboard.press("]")
    window.settle()
    assert page.locator("#channel").input_value() == "1" and page.inner_text("#panel .formula").startswith("y[1;")
    page.keyboard.press("l")
    window.settle()
    assert "layer=encoder.0.norm1" in page.url


def test_input_channels_say_what_they_add(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv2&at=50,60")
    found = told(inside_view.number, ("layer", "encoder.0.conv2"), ("at", "50,60"))
    assert page.locator(".bars > div").count() == len(found["channels"])
    page.locator(".bars button").nth(2).click()
    window.settle()
    assert page.locator(".bars button").nth(2).get_attribute("aria-pressed") == "true" and "inner=" in page.url


def test_ranks_and_approximations(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv2&tab=kernel")
    found = told(inside_view.kernel, ("layer", "encoder.0.conv2"))
    assert page.inner_text("#panel p >> nth=0") == found["text"]
    page.get_by_role("slider", name="rank").fill("3")
    window.settle()
    assert "misses 0.0%" in page.inner_text("#panel p >> nth=0")


def test_pooling_and_un_pooling(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.act1&tab=pooling")
    found = told(inside_view.pooling, ("layer", "encoder.0.act1"))
    assert page.locator("#panel td.pick").count() == len(found["places"]) == 16
    largest = page.locator("#panel figure").nth(1).locator("td").all_text_contents()
    values = np.array(found["grids"][0]["values"]).ravel()
    assert [float(cell.replace("−", "-")) for cell in largest] == pytest.approx(values, rel=0.01, abs=1e-6)


def test_ways_of_up_sampling(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1&tab=upsampling")
    assert "uneven" in page.inner_text('tr[data-layer="transposed, kernel 3"]')
    assert "uneven" not in page.inner_text('tr[data-layer="transposed, kernel 4"]')


def test_offsets_of_a_deformable_kernel(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1&tab=deformable&bend=shifted&amount=100")
    found = told(inside_view.deformable, ("layer", "encoder.0.conv1"), ("bend", "shifted"), ("amount", "100"))
    shown = page.locator("circle[data-sample]").evaluate_all("all => all.map(each => each.dataset.sample)")
    assert shown == [",".join(f"{place:g}" for place in sample) for sample in found["samples"]]


def test_shifted_inputs(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=pools.0&tab=shift")
    assert "not a shifted copy" in page.inner_text("#panel p >> nth=0")
    page.get_by_label("shift of the input").fill("2")
    window.settle()
    assert "only rounding" in page.inner_text("#panel p >> nth=0")
    page.wait_for_selector("#panel canvas")


def test_a_network_without_a_run_is_explained_by_occlusion(window: Any) -> None:
    page = window.open(f"/inside?{NET.replace('pattern-2d', 'pattern-1d')}&tab=explain")
    page.wait_for_selector("#panel select[aria-label='method']")
    assert page.locator("#panel select[aria-label='method'] option").all_inner_texts() == ["occlusion"]
    assert "predicted as it" in page.inner_text("#panel p >> nth=0")


def test_tabs_by_keys(window: Any) -> None:
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1")
    page.get_by_role("tab", name="One number").focus()
    page.keyboard.press("ArrowRight")
    window.settle()
    assert page.get_by_role("tab", name="Kernel and rank").get_attribute("aria-selected") == "true"


def test_signals_and_volumes(window: Any) -> None:
    page = window.open("/inside?net=unet&set=levels=1&set=width=4&image=pattern-1d&layer=encoder.0.conv1")
    assert page.inner_text("#panel .formula").startswith("y[0; 512]")
    page = window.open("/inside?net=unet&set=levels=1&set=width=4&image=pattern-3d&layer=encoder.0.conv1")
    assert page.is_visible("#slice-row") and page.inner_text("#panel .formula").startswith("y[0; 32, 32, 32]")
    page.locator("#slice").fill("10")
    window.settle()
    assert "index=10" in page.url and page.inner_text("#slice-number") == "10 of 63"


def test_dark_and_phone(browser: Any, explorer: Explorer) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    window = Window(context.new_page(), explorer)
    page = window.open(f"/inside?{NET}&layer=encoder.0.conv1&tab=pooling")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and window.complaints == []
    context.close()
