"""Networks in a browser: graph, table, edits, measured times, two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

SMALL = "/network?net=resnet18&shape=1,3,64,64"


def names(page: Any, of: str = ".panel") -> list[str]:
    """Return the names of the boxes."""
    return page.eval_on_selector_all(f"{of} .node", "all => all.map(e => e.dataset.node)")  # type: ignore[no-any-return]


def column(page: Any, number: int) -> list[str]:
    """Return a column of the table."""
    return [text.strip() for text in page.locator(f".panel tbody tr > :nth-child({number})").all_text_contents()]


def total(page: Any, name: str) -> str:
    """Return a total as it is shown."""
    return str(page.inner_text(f'.panel [data-total="{name}"] dd'))


def test_figures_equal_the_command_line(window: Any, printed: Any) -> None:
    page = window.open(SMALL)
    told = printed("describe", "resnet18", "--shape", "1,3,64,64")
    assert total(page, "parameters") == f"{told['total']['params']:,}"
    assert total(page, "multiply-accumulates").startswith(f"{told['total']['macs']:,}")
    assert total(page, "receptive field").startswith(f"{told['total']['field'][0]}/{told['total']['stride'][0]}")
    convolutions = [row["name"] for row in told["rows"] if row["operator"] == "convolution"]
    layers = column(page, 1)
    assert [name for name in layers if name in convolutions] == convolutions
    assert page.locator(".notes li").count() == len(told["warnings"]) + len(told["remarks"])


def test_parts_open_and_close(window: Any) -> None:
    page = window.open(f"{SMALL}&depth=1")
    assert names(page)[:4] == ["input", "conv1", "maxpool", "layer1"]
    page.locator('[data-node="layer1"] .knob').dispatch_event("click")
    window.settle()
    assert {"layer1.0", "layer1.1"} <= set(names(page)) and "layer1" not in names(page)
    assert "open=layer1" in page.url
    page.locator('[data-node="layer1.0"]').focus()
    page.keyboard.press("Enter")
    window.settle()
    assert {"layer1.0.conv1", "layer1.0.add"} <= set(names(page))
    page.locator('[data-node="layer1.0.conv1"]').focus()
    page.keyboard.press("Enter")  # a layer closes the part that holds it
    window.settle()
    assert "layer1.0" in names(page) and "layer1.0.conv1" not in names(page)
    page.select_option(".panel select[aria-label='depth of the graph']", "2")
    window.settle()
    assert "layer4.1" in names(page)


def test_shapes_stand_in_the_graph(window: Any) -> None:
    page = window.open(f"{SMALL}&depth=1")
    shapes = dict(zip(names(page), page.locator(".node .shape").all_text_contents(), strict=True))
    assert shapes["input"] == "3 × 64 × 64" and shapes["layer2"] == "128 × 8 × 8" and shapes["fc"] == "1000"


def test_the_table_sorts(window: Any) -> None:
    page = window.open(SMALL)
    from convoxel import describe

    order = column(page, 1)
    page.click('.panel thead button[data-name="params"]')
    rows = describe("resnet18", (1, 3, 64, 64)).folded()
    largest = max(rows, key=lambda row: row.params).name
    assert column(page, 1) == [row.name for row in sorted(rows, key=lambda row: -row.params)]
    assert page.get_attribute('.panel th:has(button[data-name="params"])', "aria-sort") == "descending"
    assert column(page, 1)[0] == largest
    page.keyboard.press("Enter")
    assert largest not in column(page, 1)[:5]
    page.keyboard.press("Enter")
    assert column(page, 1) == order


def test_table_and_graph_are_linked(window: Any) -> None:
    page = window.open(SMALL)
    page.get_by_role("rowheader", name="layer3.0.conv1").click()
    assert page.locator(".node.chosen").get_attribute("data-node") == "layer3.0"
    page.locator('[data-node="layer2.0"]').dispatch_event("click")
    chosen = page.locator("tr.chosen th").all_text_contents()
    assert chosen and all(name.startswith("layer2.0.") for name in chosen)


def test_search_finds_layers(window: Any) -> None:
    page = window.open(SMALL)
    page.keyboard.press("/")
    page.keyboard.type("layer3")
    visible = page.locator(".panel tbody tr:visible th").all_text_contents()
    assert visible and all(name.startswith("layer3") for name in visible)
    assert page.locator(".node:not(.dim)").count() == 2
    page.keyboard.press("Enter")
    assert page.locator(".node.chosen").count() == 1


def test_heat_is_the_share(window: Any, printed: Any) -> None:
    page = window.open(f"{SMALL}&depth=1&heat=params")
    told = printed("describe", "resnet18", "--shape", "1,3,64,64")
    layers = ["layer1", "layer2", "layer3", "layer4"]
    params = [sum(row["params"] for row in told["rows"] if row["name"].startswith(name)) for name in layers]
    heat = [float(page.get_attribute(f'[data-node="{name}"]', "data-heat")) for name in layers]
    assert heat == [count / max(params) for count in params]
    page.get_by_role("radio", name="plain").check(force=True)
    assert page.get_attribute('[data-node="layer4"] .heat', "fill-opacity") == "0"


def test_an_edit_shows_what_changes(window: Any, printed: Any) -> None:
    page = window.open("/network?net=unet&shape=1,1,64,64")
    before = total(page, "parameters")
    page.fill("#levels", "3")
    window.settle()
    told = printed("describe", "unet", "--shape", "1,1,64,64", "--set", "levels=3")
    text = total(page, "parameters")
    assert before in text and f"{told['total']['params']:,}" in text and "×" in text
    assert total(page, "input sizes").endswith("changed") and "multiples of 8" in total(page, "input sizes")
    assert page.locator("tr.changed, tr.new").count() > 0 and page.locator(".node.changed").count() > 0
    assert "set=levels%3D3" in page.url
    page.fill("#levels", "4")
    window.settle()
    assert total(page, "parameters") == before and page.locator(".node.changed").count() == 0


def test_a_mistake_keeps_the_page(window: Any) -> None:
    page = window.open("/network?net=unet&shape=1,1,64,64")
    page.get_by_label("input shape").fill("1,1,65,64")
    window.settle()
    assert "65" in page.inner_text("#error")
    page.get_by_label("input shape").fill("1,1,64,64")
    window.settle()
    assert not page.is_visible("#error")


def test_two_networks_side_by_side(window: Any, printed: Any) -> None:
    page = window.open("/network?net=unet&shape=1,1,64,64")
    page.keyboard.press("b")
    window.settle()
    assert page.locator(".panel").count() == 2
    page.fill('[id="b.levels"]', "2")
    window.settle()
    told = [printed("describe", "unet", "--shape", "1,1,64,64", "--set", f"levels={n}")["total"] for n in (4, 2)]
    rows = page.locator("#comparison tbody tr").all_text_contents()
    assert all(f"{each['params']:,}" in rows[0] for each in told)
    assert page.locator(".panel >> nth=0").locator(".node.changed").count() == 0
    page.keyboard.press("Escape")
    page.locator("#beside").click()
    window.settle()
    assert page.locator(".panel").count() == 1 and "b.net" not in page.url


def test_files_of_the_folder_are_offered_and_measured(window: Any, program: Path, printed: Any) -> None:
    page = window.open(f"/network?net={quote(str(program))}&shape=1,1,16,16")
    assert page.locator(".panel option", has_text="<i>small.cvx").count() == 1
    assert page.locator(".title").inner_text().startswith("<i>small.cvx") and page.locator(".title i").count() == 0
    told = printed("describe", str(program), "--shape", "1,1,16,16")
    assert total(page, "parameters") == f"{told['total']['params']:,}"
    page.get_by_role("button", name="Measure times").click()
    page.wait_for_selector('.panel thead button[data-name="algorithm"]', timeout=120_000)
    window.settle()
    times = [float(text) for text in page.locator(".panel tbody tr > :nth-last-child(2)").all_text_contents() if text]
    assert max(times) > 0 and "a run on this machine" in page.inner_text(".panel")
    assert page.get_by_role("radio", name="time").is_checked()
    largest = page.eval_on_selector_all(".node", "all => Math.max(...all.map(e => Number(e.dataset.heat ?? 0)))")
    assert largest == 1


def test_large_networks_stay_fluid(window: Any) -> None:
    """Panning asks Python for nothing, whatever the size of the network."""
    page = window.open("/network?net=efficientnet_b7&depth=9")
    assert page.locator(".node").count() > 300
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = page.get_attribute(".graph > svg > g", "transform")
    box = page.locator(".graph").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 120, steps=5)
    page.mouse.up()
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(600)  # it is painted anew when it rests
    assert page.get_attribute(".graph > svg > g", "transform") != before and asked == []
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert page.get_attribute(".graph > svg > g", "transform") == before


def test_errors_colour_the_graph_and_two_networks_become_one(window: Any) -> None:
    page = window.open("/network?net=resnet18&shape=1,3,32,32")
    page.click("button:has-text('Measure errors')")
    page.wait_for_selector(".node.hot", timeout=90_000)
    window.settle()
    assert page.inner_text(".panel p.soft").startswith("Errors of float32") and "heat=error" in page.url
    page = window.open("/network?net=unet&shape=1,1,64,64&set=levels%3D3&b.net=unet&b.shape=1,1,64,64&b.set=levels%3D2")
    page.check("#joint")
    page.wait_for_selector(".joint .node.removed")
    assert page.locator(".joint .node.added").count() == 0 and "joint=1" in page.url
