"""The lecture in a browser: keys, frames, controls, links; its numbers are those of the command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from convoxel.explorer.lecture_steps import STEPS, find_step


def words(page: Any) -> list[str]:
    """The texts of the picture that are seen."""
    seen = "all => all.filter(e => !e.closest('[visibility=hidden]')).map(e => e.textContent)"
    return page.eval_on_selector_all("#picture text", seen)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "query",
    [
        "signal", "image&kernel=2", "matrix", "translation&layer=stride", "sharing", "pooling&kind=average",
        "interpolation&mode=cubic", "unpooling&mode=fixed", "transposed&view=gather", "overlap&stride=3",
        "connections&size=7", "stack&chain=k3d2%20k3d2", "dilated", "separable", "depthwise&out_channels=8", "padding",
    ],
)  # fmt: skip
def test_pictures_are_those_of_the_command_line(
    window: Any, printed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.chdir(tmp_path)
    page = window.open(f"/lecture?step={query}")
    page.keyboard.press("c")
    command = page.locator("#copy-list pre").first.text_content()
    told = printed(*shlex.split(command)[1:])
    page.keyboard.press("Escape")
    assert page.get_attribute("#picture", "aria-label") == f"{told['title']}. {told['text']}"
    assert page.locator("#seek").get_attribute("max") == str(told["frames"] - 1)
    assert told["title"] in words(page)


def test_the_lectures_numbers_are_seen(window: Any) -> None:
    page = window.open("/lecture?step=pooling&frame=4")
    assert {"20", "30", "112", "37"} <= set(words(page))
    page = window.open("/lecture?step=depthwise")
    assert any("135 weights" in word for word in words(page)) and any("42 weights" in word for word in words(page))
    page = window.open("/lecture?step=matrix")
    assert "y₁ = x₁k₁ + x₂k₂ + x₄k₃ + x₅k₄" in words(page)


def test_arrow_keys_lead_through_all_steps(window: Any) -> None:
    page = window.open("/lecture")
    assert page.inner_text("#number") == f"1 / {len(STEPS)}" and page.is_disabled("#before")
    for step in STEPS[1:4]:
        page.keyboard.press("ArrowRight")
        window.settle()
        assert page.inner_text("#title") == step.title and f"step={step.name}" in page.url
        assert page.inner_text('#path a[aria-current="step"]') == step.title
    page.keyboard.press("ArrowLeft")
    window.settle()
    assert page.inner_text("#title") == STEPS[2].title
    page.keyboard.press("PageDown")
    window.settle()
    assert page.inner_text("#title") == STEPS[3].title
    page.go_back()
    window.settle()
    assert page.inner_text("#title") == STEPS[2].title
    page.keyboard.press("End")
    window.settle()
    assert page.inner_text("#title") == STEPS[-1].title and page.is_disabled("#after")


def test_frames_move_and_stand_in_the_address(window: Any) -> None:
    page = window.open("/lecture?step=image&frame=1")
    place = "document.querySelector('#picture [data-part=window]').style.transform"
    first = page.evaluate(place)
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#frame") == "frame 2 of 9" and page.evaluate(place) != first and "frame=2" in page.url
    assert any(word.startswith("step 2 of 9") for word in words(page))
    assert not any(word.startswith("step 1 of 9") for word in words(page))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # around
    assert page.inner_text("#frame") == "frame 9 of 9"
    page.goto(page.url)
    window.settle()
    assert page.inner_text("#frame") == "frame 9 of 9"
    page.keyboard.press(" ")
    page.wait_for_timeout(1500)  # the policy of the page forbids conditions that are evaluated in it
    page.keyboard.press(" ")
    assert page.inner_text("#frame") != "frame 9 of 9"
    at = page.inner_text("#frame")
    page.wait_for_timeout(1200)
    assert page.inner_text("#frame") == at and page.get_attribute("#play", "aria-label") == "Play"


def test_controls_change_the_picture_and_the_address(window: Any) -> None:
    page = window.open("/lecture?step=signal")
    page.locator("#controls input[name=kernel]").fill("2")
    window.settle()
    assert "kernel=2" in page.url and any("kernel 2" in word for word in words(page))
    page.select_option("#controls select[name=kind]", "correlation")
    window.settle()
    assert any(word.startswith("Correlation") for word in words(page))
    page.locator("#picture").focus()
    page.keyboard.press("+")
    window.settle()
    assert "size=9" in page.url
    page.keyboard.press("ArrowRight")
    window.settle()
    assert "size=" not in page.url and page.inner_text("#title") == STEPS[1].title


def test_links_show_the_same_layer_in_the_bench(window: Any) -> None:
    page = window.open("/lecture?step=padding&padding=full&size=6")
    page.click("#link")
    window.settle()
    assert page.inner_text("#sizes") == "6 × 6 → 8 × 8"


def test_what_does_not_fit_is_told(window: Any) -> None:
    page = window.open("/lecture?step=dilated&kernel=5")
    assert page.is_visible("#error") and "kernel" in page.inner_text("#error")
    page.locator("#controls input[name=kernel]").fill("3") if page.locator("#controls input").count() else page.goto(
        f"{window.base}/lecture?step=dilated"
    )
    window.settle()
    assert not page.is_visible("#error")


def test_projection_hides_the_rest(window: Any) -> None:
    page = window.open("/lecture?step=pooling")
    small = page.evaluate("parseFloat(getComputedStyle(document.querySelector('#title')).fontSize)")
    page.keyboard.press("f")
    assert not page.is_visible(".top") and not page.is_visible("#path")
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('#title')).fontSize)") > small
    page.keyboard.press("ArrowRight")
    window.settle()
    assert page.inner_text("#title") == find_step("trio").title
    page.keyboard.press("Escape")
    assert page.is_visible(".top")


def test_dark_pictures_have_dark_colours(window: Any) -> None:
    page = window.open("/lecture?step=pooling")
    ink = "getComputedStyle(document.querySelector('#picture text')).fill"
    light = page.evaluate(ink)
    page.keyboard.press("t")
    assert page.evaluate(ink) != light


@pytest.mark.parametrize("step", ["signal", "matrix", "depthwise", "resnet"])
def test_phones_show_every_step(window: Any, step: str) -> None:
    window.page.set_viewport_size({"width": 390, "height": 844})
    page = window.open(f"/lecture?step={step}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#picture svg").bounding_box()["width"] > 100


def test_every_control_is_reached_without_a_mouse(window: Any) -> None:
    page = window.open("/lecture?step=interpolation")
    page.locator("#controls [name='to']").focus()
    page.keyboard.press("ArrowRight")
    window.settle()
    assert "to=7" in page.url and "step=interpolation" in page.url
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    window.settle()
    assert "step=interpolation-matrix" in page.url
