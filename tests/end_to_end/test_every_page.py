"""Rules that hold on every page: no one without the key, dark and light, narrow, readable by machines."""

from __future__ import annotations

from typing import Any

import pytest

from convoxel.explorer.pages import VIEWS
from tests.support.explorer import Explorer

PAGES = {
    "layer": "/layer?numbers=1&want=3",
    "layer, transposed": "/layer?kind=transposed&size=3x3&stride=2&numbers=1",
    "layer, pooling in 3-D": "/layer?kind=max_pool&size=4x4x4&kernel=2",
    "network": "/network?net=unet&shape=1,1,64,64&set=levels%3D3&heat=macs",
    "trainings": "/runs",
    "run": "/runs?run=runs/levels-2&case=v5&difference=1",
    "classification": "/runs?run=runs/digits&cell=1,1",
    "runs side by side": "/runs?run=runs/levels-1&run=runs/levels-2",
    "two networks": "/network?net=resnet18&shape=1,3,64,64&b.net=resnet34&b.shape=1,3,64,64",
    "lecture": "/lecture?step=pooling",
    "lecture, a matrix": "/lecture?step=matrix",
}


# A view that is not in the list is tried as it opens.
_LISTED = {path[1:].partition("?")[0] for path in PAGES.values()}
PAGES |= {view.title: f"/{view.name}" for view in VIEWS if view.name not in _LISTED}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(window: Any, axe: str, name: str, scheme: str) -> None:
    window.page.emulate_media(color_scheme=scheme)
    page = window.open(PAGES[name])
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    serious = [(each["id"], each["nodes"][0]["html"][:200], each["nodes"][0]["failureSummary"][:300])
               for each in found if each["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_narrow_pages_do_not_scroll_sideways(window: Any, name: str) -> None:
    for width in (390, 768, 1280):
        window.page.set_viewport_size({"width": width, "height": 844})
        page = window.open(PAGES[name])
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_follows_the_system_and_the_choice(window: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    window.page.emulate_media(color_scheme="dark")
    page = window.open("/layer")
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    light = page.evaluate(ground)
    assert dark != light
    page.goto(page.url)
    assert page.evaluate(ground) == light  # the choice is kept
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_every_control_has_a_name_and_is_reached_by_tab(window: Any) -> None:
    page = window.open("/layer")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.tagName")
        )
    assert {"size", "kernel", "play", "seek", "stage", "transpose", "want", "theme", "copy"} <= seen


def test_nobody_without_the_key(browser: Any, explorer: Explorer) -> None:
    context = browser.new_context()
    page = context.new_page()
    for path in ("/", "/layer", "/network", "/api/layer/describe", "/?token=wrong"):
        assert page.goto(f"http://127.0.0.1:{explorer.port}{path}").status in (401, 403)
    context.close()


def test_no_page_frames_it_and_no_script_of_others_reads_it(browser: Any, explorer: Explorer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{explorer.port}/?token={explorer.key.token}")
    page.goto("about:blank")
    page.set_content(f'<iframe src="http://127.0.0.1:{explorer.port}/layer"></iframe>')
    page.wait_for_timeout(500)
    assert page.frames[1].evaluate("document.querySelector('#fields') === null")
    address = f"http://127.0.0.1:{explorer.port}/api/layer/describe"
    assert (
        page.evaluate(f"fetch('{address}', {{credentials: 'include'}}).then(() => 'read', () => 'refused')")
        == "refused"
    )
    context.close()


def test_nothing_runs_but_what_the_server_sends(window: Any) -> None:
    page = window.open("/layer")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in window.complaints)
    window.complaints.clear()
