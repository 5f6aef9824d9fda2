"""Pages as files, opened from the disk: they show what the explorer shows, and move without it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from convoxel.errors import ConfigError
from convoxel.explorer import layer_view, lecture_view
from convoxel.explorer.export import export
from convoxel.explorer.view import KeptPage, View


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the bench, and one of a network."""
    folder = tmp_path_factory.mktemp("exported") / "site"
    export(folder, "unet")
    return folder


@pytest.fixture
def disk(browser: Any) -> Iterator[Any]:
    """A window without a server; nothing may go wrong in it, and nothing but files may be asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    yield page
    context.close()
    assert complaints == []


def test_a_network_is_shown_from_the_disk(disk: Any, site: Path, printed: Any) -> None:
    disk.goto((site / "network-unet.html").as_uri())
    disk.wait_for_selector(".panel tbody tr")
    told = printed("describe", "unet")
    assert disk.inner_text('.panel [data-total="parameters"] dd') == f"{told['total']['params']:,}"
    count = disk.locator(".node").count()
    disk.select_option(".panel select[aria-label='depth of the graph']", "3")
    disk.wait_for_function(f"() => document.querySelectorAll('.node').length !== {count}")
    disk.get_by_role("radio", name="MACs").check(force=True)
    assert float(disk.locator(".node").nth(2).get_attribute("data-heat")) > 0


def test_an_edit_that_was_kept_changes_it_and_others_say_so(disk: Any, site: Path, printed: Any) -> None:
    disk.goto((site / "network-unet.html").as_uri())
    disk.wait_for_selector("#levels")
    disk.fill("#levels", "2")
    told = printed("describe", "unet", "--set", "levels=2")
    disk.wait_for_selector(f'.panel [data-total="parameters"] dd:has-text("{told["total"]["params"]:,}")')
    disk.fill("#width", "12")
    disk.wait_for_selector("#error:visible")
    assert "convoxel explore unet" in disk.inner_text("#error")


def test_the_bench_moves_from_the_disk(disk: Any, site: Path, printed: Any) -> None:
    disk.goto((site / "layer.html").as_uri())
    disk.wait_for_selector("#stage svg")
    disk.fill("input[name='stride']", "2")
    disk.wait_for_function("() => document.querySelector('#sizes').innerText.includes('3')")
    disk.locator("#forth").click()
    assert disk.locator("#stage .now").count() == 1 and disk.locator("#matrix *").count() > 0
    disk.keyboard.press("t")
    assert disk.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_list_leads_to_all(disk: Any, site: Path) -> None:
    disk.goto((site / "index.html").as_uri())
    names = disk.locator("main a").all_text_contents()
    assert "Convolution arithmetic" in names and len(names) == len(list(site.glob("*.html"))) - 1
    disk.get_by_role("link", name="Convolution arithmetic").click()
    disk.wait_for_selector("#stage svg")
    assert disk.locator("nav a[aria-current]").inner_text() == "Convolution arithmetic"


def test_the_lecture_is_given_from_the_disk(disk: Any, site: Path) -> None:
    disk.goto((site / "lecture.html").as_uri())
    disk.wait_for_selector("#picture svg")
    first = disk.inner_text("#title")
    disk.keyboard.press("ArrowRight")
    disk.wait_for_function(f"() => document.querySelector('#title').innerText !== {first!r}")
    assert disk.inner_text("#number").startswith("2 / ") and disk.locator("#picture svg *").count() > 3


def without_answers(view: View) -> View:
    """Return a view whose page keeps next to nothing, so that Python answers."""
    page = KeptPage(view.name, view.title, "", [("lecture/path", [])] if view.name == "lecture" else [])
    return replace(view, kept=lambda session: [page])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a site with Python for browsers, on a server of files."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which gets Pyodide, is not installed")
    folder = tmp_path_factory.mktemp("live") / "site"
    try:
        export(folder, views=tuple(map(without_answers, (layer_view.VIEW, lecture_view.VIEW))), live=True)
    except ConfigError as error:  # a machine without a network
        pytest.skip(str(error))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_sliders_are_live_where_the_site_comes_from_a_server(
    browser: Any, served: str, printed: Any, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on(
        "request", lambda request: request.url.startswith((served, "data:", "blob:")) or complaints.append(request.url)
    )
    page.goto(f"{served}/layer.html")
    page.wait_for_selector("#stage svg", timeout=120_000)
    page.fill("input[name='size']", "11x9")
    page.wait_for_selector("#sizes:has-text('11 × 9 → 9 × 7')", timeout=120_000)
    page.fill("#want", "5")
    page.wait_for_selector("#inverse .chip")
    page.goto(f"{served}/lecture.html?step=image&size=6&kernel=2")
    page.wait_for_selector("#picture svg[aria-label*='6 × 6']", timeout=120_000)
    told = printed("draw", "conv", "--size", "6x6", "--kernel", "2", "--numbers", "--svg", str(tmp_path / "a.svg"))
    assert page.get_attribute("#picture", "aria-label") == f"{told['title']}. {told['text']}"
    context.close()
    assert complaints == []


def test_python_stays_away_from_pages_of_a_disk(disk: Any, site: Path) -> None:
    disk.goto((site / "layer.html").as_uri())
    disk.wait_for_selector("#stage svg")
    assert disk.locator("#python").count() == 0
