"""The arithmetic bench in a browser: its numbers, its moving kernel, keys, and links."""

from __future__ import annotations

from typing import Any

import pytest


def texts(page: Any, selector: str) -> list[str]:
    """Return the texts of all elements."""
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def facts(page: Any) -> dict[str, int]:
    """Return the figures that the page shows."""
    found = page.eval_on_selector_all("#facts div", "all => all.map(e => [e.dataset.fact, Number(e.dataset.value)])")
    return {name: int(value) for name, value in found}


def lit(page: Any, word: str) -> list[str]:
    """Return the inputs, outputs or weights that are marked."""
    keys = "e.dataset.input ?? e.dataset.output ?? e.dataset.weight ?? ''"
    return page.eval_on_selector_all(f"#stage .{word}", f"all => all.map(e => {keys})")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("query", "size", "word"),
    [
        ("size=7x7&stride=2&padding=same", "7x7", "k3s2psame"),
        ("size=9&kernel=4&dilation=2&padding=1:2", "9", "k4p1:2d2"),
        ("size=4x5x6&padding=half", "4x5x6", "k3phalf"),
        ("size=3x3&kind=transposed&stride=2&padding=1&output_padding=1", "3x3", "t3s2p1a1"),
        ("size=8x8&kind=max_pool&kernel=3&stride=2&ceil=1", "8x8", "pool3s2c"),
        ("size=8x8&kind=average_pool&kernel=2", "8x8", "pool2"),
        ("size=6x6&padding=full&kind=convolution", "6x6", "k3pfull"),
        ("size=6x6&padding=causal&kernel=2", "6x6", "k2pcausal"),
    ],
)
def test_sizes_equal_the_command_line(window: Any, printed: Any, query: str, size: str, word: str) -> None:
    page = window.open(f"/layer?{query}")
    told = printed("size", "output", size, word)
    shown = " → ".join(" × ".join(map(str, told[name])) for name in ("input", "output"))
    assert page.inner_text("#sizes") == shown
    assert str(told["output"][0]) in texts(page, "#equations li")[0]
    assert told["accepted"][0]["text"] in page.inner_text("#accepted")
    assert page.locator("#stage .out").count() == eval("*".join(map(str, told["output"])))


def test_costs_equal_the_libraries(window: Any) -> None:
    from convoxel.arithmetic import conv_macs, conv_matrix, conv_params

    page = window.open("/layer?size=8x8&kernel=3&stride=2&padding=1&in=4&out=8&groups=2")
    counts = conv_matrix((8, 8), 4, 8, (3, 3), 2, 1, 1, 2)
    assert facts(page) == {
        "input": 256, "output": 128, "parameters": conv_params(4, 8, (3, 3), 2),
        "MACs": conv_macs((4, 4), 4, 8, (3, 3), 2), "matrix": counts.dense, "not zero": counts.nonzeros,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("size=5x5&stride=2&padding=same", {"size": "5x5", "stride": "2", "padding": "same"}),
        ("size=7&kernel=3&dilation=2", {"size": "7", "dilation": "2"}),
        ("size=3x3&kind=transposed&stride=2", {"size": "3x3", "kind": "transposed", "stride": "2"}),
        ("size=4x4x4&kernel=2", {"size": "4x4x4", "kernel": "2"}),
    ],
)
def test_every_frame_lights_what_the_layer_reads(
    window: Any, printed: Any, tmp_path: Any, query: str, options: dict[str, str]
) -> None:
    from convoxel.explorer.layer_view import Bench
    from convoxel.explorer.view import Query

    page = window.open(f"/layer?{query}")
    scan = Bench.of(Query(tuple(options.items()))).scan
    words = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert printed("draw", "conv", *words, "--svg", str(tmp_path / "a.svg"))["steps"] == scan.steps()
    for output in scan.outputs():
        reads = scan.reads(output)
        assert lit(page, "now") == [",".join(map(str, output))]
        inputs = {",".join(map(str, source)) for _, source in reads}
        assert set(lit(page, "cell.read")) - {""} == inputs
        assert set(lit(page, "weight.read")) == {",".join(map(str, weight)) for weight, _ in reads}
        page.click("#forth")


def test_an_input_shows_the_outputs_that_see_it(window: Any) -> None:
    from convoxel.draw.scan import Scan

    page = window.open("/layer?size=6x6&stride=2&padding=1")
    scan = Scan.of((6, 6), 3, 2, 1)
    for place in ((0, 0), (2, 3), (5, 5)):
        page.click(f'#stage [data-input="{place[0]},{place[1]}"]')
        seers = {",".join(map(str, o)) for o in scan.outputs() if place in [source for _, source in scan.reads(o)]}
        assert set(lit(page, "out.sees")) == seers and lit(page, "asked") == [f"{place[0]},{place[1]}"]
        assert f"is read by {len(seers)} output" in page.inner_text("#reads")


def test_numbers_fill_the_formula_in(window: Any) -> None:
    page = window.open("/layer?size=3x3&kernel=2&numbers=1&x=1 2 3; 4 5 6; 7 8 9&w=1 0; 0 -1")
    assert page.inner_text("#reads") == "y[0, 0] = 1·1 + 2·0 + 4·0 + 5·−1 = −4"
    page.click('#stage [data-output="1,1"]')
    assert page.inner_text("#reads").endswith("= −4")
    page.fill("#own-w", "1 1 1 1")
    window.settle()
    assert page.inner_text("#reads").endswith("= 28")
    page.uncheck("#numbers")
    window.settle()
    assert page.locator("#stage .value").count() == 0


def test_the_lectures_pooling(window: Any) -> None:
    x = "12 20 30 0; 8 12 2 0; 34 70 37 4; 112 100 25 12"
    page = window.open(f"/layer?kind=max_pool&size=4x4&kernel=2&numbers=1&x={x}")
    assert texts(page, '[data-grid="output"] .value') == ["20", "30", "112", "37"]
    assert page.inner_text("#matrix-text").startswith("kind: max pooling is not linear")


def test_it_plays_and_pauses(window: Any) -> None:
    page = window.open("/layer?size=5x5")
    page.evaluate("document.querySelector('#speed').value = 20")
    page.click("#play")
    page.wait_for_selector('#stage .out.now[data-output="1,1"]', state="attached")
    page.click("#play")
    at = lit(page, "now")
    page.wait_for_timeout(300)
    assert lit(page, "now") == at and page.get_attribute("#play", "aria-label") == "Play"


def test_keys_do_everything(window: Any) -> None:
    page = window.open("/layer?size=5x5")
    page.keyboard.press("ArrowRight")
    assert lit(page, "now") == ["0,1"]
    page.keyboard.press("End")
    assert lit(page, "now") == ["2,2"]
    page.keyboard.press("ArrowRight")  # around
    assert lit(page, "now") == ["0,0"]
    page.focus("#stage")
    page.keyboard.press("ArrowDown")
    assert lit(page, "now") == ["1,0"]
    page.keyboard.press("i")
    page.keyboard.press("ArrowRight")
    assert lit(page, "asked") == ["0,1"]
    page.keyboard.press("n")
    window.settle()
    assert page.is_checked("#numbers") and page.locator("#stage .value").count() > 0
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_url("**/network")


def test_fields_and_sliders_change_the_layer_and_the_address(window: Any) -> None:
    page = window.open("/layer")
    page.fill("#fields input[name=size]", "9x9")
    page.fill("#fields input[name=stride]", "2")
    page.select_option("#fields select[name=padding]", "half")
    window.settle()
    assert page.inner_text("#sizes") == "9 × 9 → 5 × 5"
    assert "size=9x9" in page.url and "stride=2" in page.url and "padding=half" in page.url
    page.locator('#fields input[aria-label="kernel, all axes"]').fill("5")
    window.settle()
    assert page.input_value("#fields input[name=kernel]") == "5" and page.inner_text("#sizes") == "9 × 9 → 5 × 5"
    page.get_by_label("3-D").check(force=True)
    window.settle()
    assert page.inner_text("#sizes") == "9 × 9 × 9 → 5 × 5 × 5"
    page.get_by_label("1-D").check(force=True)
    window.settle()
    assert page.inner_text("#sizes") == "9 → 5"


def test_a_link_shows_the_same(window: Any) -> None:
    page = window.open("/layer?size=6x6&kernel=2&stride=2")
    page.click('#stage [data-output="1,2"]')
    page.goto(page.url)
    window.settle()
    assert lit(page, "now") == ["1,2"]


def test_a_mistake_is_told_and_mended(window: Any) -> None:
    page = window.open("/layer?kernel=9")
    assert "kernel" in page.inner_text("#error") and page.is_visible("#error")
    page.fill("#fields input[name=kernel]", "3")
    window.settle()
    assert not page.is_visible("#error") and page.inner_text("#sizes") == "7 × 7 → 5 × 5"


def test_the_matrix_is_linked(window: Any) -> None:
    page = window.open("/layer?size=3x3&kernel=2")
    assert page.inner_text("#matrix-text") == "4 × 9, 16 of 36 entries are not zero, 4 different."
    box = page.locator("#matrix canvas").bounding_box()
    cell = box["width"] / 9
    page.mouse.click(box["x"] + 4.5 * cell, box["y"] + 2.5 * cell)  # row 3: the third output
    assert lit(page, "now") == ["1,0"]
    page.mouse.click(box["x"] + 4.5 * cell, box["y"] + 2.5 * cell)  # once more: column 5, the input in the middle
    assert lit(page, "asked") == ["1,1"]
    page.mouse.move(box["x"] + 0.5 * cell, box["y"] + 0.5 * cell)
    assert page.inner_text("#entry") == "row 1 (y[0, 0]), column 1 (x[0, 0]): k1"
    page.check("#transpose")
    window.settle()
    turned = page.locator("#matrix canvas").bounding_box()
    assert turned["height"] > turned["width"]


def test_overlap_of_transposed_convolutions(window: Any) -> None:
    page = window.open("/layer?size=4&kernel=3&stride=2&kind=transposed")
    assert page.inner_text("#overlap-text").startswith("Uneven")
    counts = page.eval_on_selector_all("#overlap rect", "all => all.map(e => e.dataset.reached).join('')")
    assert counts == "112121211"
    page = window.open("/layer?size=4&kernel=4&stride=2&kind=transposed")
    assert page.inner_text("#overlap-text").startswith("Even")


def test_inverse_questions_are_applied(window: Any, printed: Any) -> None:
    page = window.open("/layer?size=224x224&kernel=7&stride=2&padding=3")
    page.fill("#want", "56")
    window.settle()
    told = printed("size", "inputs", "56x56", "k7s2p3")
    assert told["accepted"][0]["text"] in page.inner_text("#inverse-text")
    page.get_by_role("button", name="k4s4", exact=True).click()
    window.settle()
    assert page.inner_text("#sizes") == "224 × 224 → 56 × 56"
    assert page.input_value("#fields input[name=kernel]") == "4"
    assert page.is_disabled("#play") and "too many to watch" in page.inner_text("#stage")


def test_copies_are_commands_that_run(
    window: Any, printed: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    page = window.open("/layer?size=5x6&stride=2&padding=1:0")
    page.keyboard.press("c")
    for number, command in enumerate(texts(page, "#copy-list pre")):
        if command.startswith("convoxel"):
            printed(*shlex.split(command)[1:])
        else:
            exec(compile(command, "copied", "exec"), {})
        page.locator("#copy-list button").nth(number).click()
        assert page.evaluate("navigator.clipboard.readText()") == command
    assert (tmp_path / "conv.svg").exists()
