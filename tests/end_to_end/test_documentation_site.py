"""The documentation as files: search answers without a server, nothing is asked of other machines, phones show all."""

from __future__ import annotations

from typing import Any

import pytest

from tools.docs.page import ROOT

SITE = ROOT / "build" / "docs"
PAGES = (
    "index.html",
    "lecture/convolution.html",
    "tasks/train.html",
    "reference/nn.functional.html",
    "benchmarks.html",
)


@pytest.fixture(scope="module", autouse=True)
def site() -> None:
    """Skip where the site has not been built."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built (make docs)")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 1360), ("light", 390)])
def test_pages_need_nothing_else_and_fit(browser: Any, scheme: str, width: int) -> None:
    page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in PAGES:
        page.goto((SITE / name).as_uri())
        page.wait_for_selector("h1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    page.context.close()


def test_search_answers_from_files(browser: Any) -> None:
    page = browser.new_page()
    page.goto((SITE / "lecture" / "convolution.html").as_uri())
    # The search listens to keys: a value that is set without any may come after its only look at the field.
    page.locator("input[name=query]").press_sequentially("receptive field")
    page.wait_for_selector(".md-search-result__item")
    assert "Receptive-field algebra" in page.inner_text(".md-search-result__list")
    page.close()
