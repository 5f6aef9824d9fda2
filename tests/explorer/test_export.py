"""Pages as files: their answers are those of the explorer, and they name no other machine."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from convoxel.errors import ConfigError
from convoxel.explorer.export import export
from convoxel.explorer.network_view import VIEW as NETWORK
from convoxel.explorer.session import Session
from convoxel.explorer.view import KeptPage, Query, View, plain


def answers(page: str) -> dict[str, Any]:
    """Return the answers in a page, by their question."""
    kept = json.loads(re.findall(r'<script type="application/json" id="answers">(.*)</script>', page)[0])
    return {key: kept["values"][index] for key, index in kept["indices"].items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "site"
    assert export(folder, "unet", views=(NETWORK,)) == [folder / "index.html", folder / "network-unet.html"]
    return folder


def test_kept_answers_are_those_of_the_explorer(site: Path) -> None:
    kept = answers((site / "network-unet.html").read_text())
    session = Session.of(["unet"])
    for function, pairs in (
        ("graph", [("net", "unet"), ("depth", "1")]),
        ("describe", [("net", "unet"), ("set", "levels=2")]),
    ):
        words = sorted(f"{name}={value}" for name, value in pairs)
        live = plain(NETWORK.answers[function](session, Query(tuple(pairs))))
        assert kept[json.dumps([f"network/{function}", *words], separators=(",", ":"))] == json.loads(json.dumps(live))
    assert kept['["network/catalogue"]']["opened"] == ["unet"]


def test_pages_ask_nobody(site: Path) -> None:
    for file in site.iterdir():
        page = file.read_text()
        modules = re.findall(r"data:text/javascript;base64,([^\"]+)", page)
        text = page + "".join(base64.b64decode(module).decode() for module in modules)
        assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert "default-src 'none'" in page and not re.search(r'(src|href)="(?!data:|[\w.-]+\.html|#main)', page)
        assert not re.search(r'from\s+"[./]', text)  # every module is found by its bare name


def test_nothing_in_an_answer_ends_the_script(tmp_path: Path) -> None:
    def name(session: Session, query: Query) -> dict[str, object]:
        return {"text": "</script><b>"}

    page = KeptPage("layer", "<i>Layer", 'x="', [("layer/name", [("a", "b")])])
    view = View("layer", "Layer", "", {"name": name}, kept=lambda session: [page])
    text = export(tmp_path / "site", views=(view,))[1].read_text()
    assert answers(text) == {'["layer/name","a=b"]': {"text": "</script><b>"}} and "</script><b>" not in text
    assert "&lt;i&gt;Layer" in (tmp_path / "site" / "index.html").read_text()


def test_folders_that_are_there_stay(site: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in site.iterdir()}
    with pytest.raises(ConfigError, match="not empty"):
        export(site, "unet", views=(NETWORK,))
    with pytest.raises(ConfigError, match="two pages"):
        page = KeptPage("a", "A", "", [])
        export(site.parent / "twice", views=(View("layer", "", "", kept=lambda session: [page, page]),))
    assert {file.name: file.stat().st_mtime_ns for file in site.iterdir()} == before
