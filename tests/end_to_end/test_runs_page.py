"""Runs in a browser: live curves, mistakes, comparisons, and commands that are started and stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from convoxel.explorer.session import Session
from convoxel.files.lock import hold_lock
from tests.end_to_end.conftest import Window
from tests.support.explorer import running


def one(run: Path, more: str = "") -> str:
    return f"/runs?run={quote(str(run))}{more}"


def figures(page: Any) -> dict[str, list[str]]:
    """Return the table of a comparison."""
    rows = page.locator("#figures tbody tr").all()
    return {row.get_attribute("data-figure"): row.locator("td").all_text_contents() for row in rows}


def test_runs_are_listed_with_their_metric(window: Any, runs: Path, printed: Any) -> None:
    page = window.open("/runs")
    rows = page.locator(".runs-list li").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["digits", "levels-1", "levels-2"]
    metric = json.loads((runs / "levels-2" / "evaluation.json").read_text())["metric"]
    assert f"mean Dice {metric:.3f}" in rows[2] and "finished" in rows[2]


def test_a_run_opens_by_its_name(window: Any, runs: Path) -> None:
    page = window.open("/runs")
    page.get_by_role("button", name="levels-2", exact=True).click()
    window.settle()
    assert quote(str(runs / "levels-2"), safe="") in page.url and page.inner_text(".title") == "levels-2"
    page.go_back()
    window.settle()
    assert page.inner_text(".title") == "Trainings"


def test_figures_equal_the_files(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2"))
    found = json.loads((runs / "levels-2" / "evaluation.json").read_text())
    cards = page.locator(".cards div").all_inner_texts()
    assert f"{found['metric']:.3f}" in cards[0]
    rows = page.locator(".case ~ *, .viewer tbody tr").all_inner_texts()
    assert len(rows) == found["count"]
    dice = sorted(sample["metric"] for sample in found["samples"])
    assert [row.split()[1] for row in rows] == [f"{value:.3f}" for value in dice]


def test_curves_have_a_point_for_every_validation(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2"))
    count = len((runs / "levels-2" / "metrics.jsonl").read_text().splitlines())
    assert page.locator("#charts .figure >> nth=0").locator("circle").count() == count + 1  # and one in the key
    assert page.locator("#charts svg text", has_text="training time").count() > 0
    page.select_option("select[aria-label='horizontal axis']", "step")
    window.settle()
    assert page.locator("#charts svg text", has_text="optimiser steps").count() > 0 and "over=step" in page.url


def test_an_image_is_predicted_and_shown_in_layers(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2"))
    page.locator(".viewer tbody tr").first.click()
    page.wait_for_selector(".slice img[data-layer='prediction']")
    window.settle()
    opacity = "e => e.style.opacity"
    assert page.locator(".slice img").count() == 4
    assert page.locator(".slice img[data-layer='prediction']").evaluate(opacity) == "0.75"
    assert page.locator(".slice img[data-layer='difference']").evaluate(opacity) == "0"
    page.keyboard.press("d")
    page.keyboard.press("m")
    assert page.locator(".slice img[data-layer='difference']").evaluate(opacity) == "0.75"
    assert page.locator(".slice img[data-layer='prediction']").evaluate(opacity) == "0"
    page.get_by_label("opacity").fill("20")
    assert page.locator(".slice img[data-layer='difference']").evaluate(opacity) == "0.2" and "opacity=20" in page.url


def test_slices_move_by_slider_wheel_and_key(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2", "&case=v5"))
    page.wait_for_selector(".slice img")
    slider = page.locator(".case input[aria-label='slice']")
    worst = int(slider.input_value())
    before = page.locator(".slice img").first.get_attribute("src")
    page.keyboard.press("ArrowRight")
    window.settle()
    assert int(slider.input_value()) == worst + 1 and f"slice={worst + 1}" in page.url
    assert page.locator(".slice img").first.get_attribute("src") != before
    page.locator(".slice").hover()
    page.mouse.wheel(0, -100)
    window.settle()
    assert int(slider.input_value()) == worst
    page.select_option("select[aria-label='plane']", "sagittal")
    window.settle()
    assert "of 20" in page.inner_text(".case output")
    slider.fill("0")
    window.settle()
    assert "slice 0" in page.inner_text(".case output")
    page.keyboard.press("Tab")
    page.locator(".slice").click()
    page.keyboard.press("w")
    window.settle()
    assert "slice=" not in page.url


def test_the_window_of_grey_values_is_set_by_level_and_width(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2", "&case=v5"))
    page.wait_for_selector(".slice img")
    window.settle()
    image, usual = page.locator(".slice img").first, page.get_by_role("button", name="usual window")
    before = image.get_attribute("src")
    assert usual.is_disabled()
    page.get_by_label("width", exact=True).focus()
    page.keyboard.press("Home")  # no width: black below the level, white above
    window.settle()
    assert image.get_attribute("src") != before and "low=" in page.url and "high=" in page.url
    usual.click()
    window.settle()
    assert image.get_attribute("src") == before and "low=" not in page.url


def test_keys_go_through_the_images(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "digits"))
    names = page.locator(".viewer tbody tr th").all_text_contents()
    page.keyboard.press("n")
    window.settle()
    page.keyboard.press("n")
    window.settle()
    assert page.locator("tr.chosen th").inner_text() == names[1]
    page.keyboard.press("p")
    window.settle()
    assert page.locator("tr.chosen th").inner_text() == names[0] and f"case={names[0]}" in page.url


def test_a_cell_of_the_confusion_shows_its_images(window: Any, runs: Path) -> None:
    found = json.loads((runs / "digits" / "evaluation.json").read_text())
    matrix = found["confusion"]
    row, column = max(((r, c) for r in range(10) for c in range(10)), key=lambda cell: matrix[cell[0]][cell[1]])
    page = window.open(one(runs / "digits"))
    page.locator(f"[data-cell='{row},{column}']").click()
    window.settle()
    assert page.locator(".viewer tbody tr").count() == matrix[row][column]
    classes = page.locator("table.confusion tbody th").all_text_contents()
    told = page.locator(".viewer tbody tr >> nth=0").locator("td").all_text_contents()
    assert told[:2] == [classes[row], classes[column]] and f"cell={row}%2C{column}" in page.url
    assert (
        page.locator(".slice img").count() == 1
        and page.locator(f"[data-cell='{row},{column}'][aria-pressed=true]").count() == 1
    )
    page.locator(f"[data-cell='{row},{column}']").click()
    window.settle()
    assert page.locator(".viewer tbody tr").count() == found["count"]


def test_a_cell_of_voxels_orders_the_volumes(window: Any, runs: Path) -> None:
    found = json.loads((runs / "levels-2" / "evaluation.json").read_text())
    row, column = next((r, c) for r in range(3) for c in range(3) if r != c and found["confusion"][r][c])
    page = window.open(one(runs / "levels-2", f"&cell={row},{column}"))
    counts = [
        int(text.replace(",", "")) for text in page.locator(".viewer tbody tr > :nth-child(2)").all_text_contents()
    ]
    told = sorted((sample["confusion"][row][column] for sample in found["samples"]), reverse=True)
    assert counts == [count for count in told if count]


def test_examples_are_shown_and_lead_to_their_image(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2"))
    assert page.locator(".gallery button").count() > 1
    page.locator(".gallery button").first.click()
    window.settle()
    assert "case=v" in page.url and page.locator(".slice img").count() == 4


def test_two_runs_side_by_side_say_what_was_changed(window: Any, runs: Path, printed: Any) -> None:
    page = window.open("/runs")
    page.get_by_label("compare levels-1").check()
    page.get_by_label("compare levels-2").check()
    window.settle()
    told = printed("compare", "networks", str(runs / "levels-1"), str(runs / "levels-2"), "--no-time")["networks"]
    table = figures(page)
    assert table["Dice"] == [f"{row['metric']:.3f}" for row in told]
    best = next(index for index, row in enumerate(told) if row["best"])
    difference = told[1 - best]["difference"]["mean"]
    shown = table["difference to the best, same images"]
    assert shown[best] == "the best" and shown[1 - best].startswith(f"{difference:+.3f}".replace("-", "−"))
    assert table["receptive field"][0] != table["receptive field"][1]
    changed = page.locator("section[aria-label='What was changed'] tbody tr").all_inner_texts()
    assert [row.split() for row in changed] == [["levels", "1", "2"]]
    assert page.locator("#charts .figure").count() == 3


def test_times_of_one_run_are_measured(window: Any, runs: Path) -> None:
    page = window.open(f"{one(runs / 'levels-1')}&run={quote(str(runs / 'levels-2'))}")
    page.get_by_role("button", name="Measure the time of one run").click()
    page.wait_for_selector("tr[data-figure^='time of one run']", timeout=120_000)
    assert all(
        cell.endswith(" ms") for cell in page.locator("tr[data-figure^='time of one run'] td").all_text_contents()
    )


def test_copies_are_the_commands(window: Any, runs: Path) -> None:
    page = window.open(one(runs / "levels-2"))
    page.keyboard.press("c")
    told = page.locator("#copy-list pre").all_inner_texts()
    assert any(text.startswith("convoxel evaluate ") for text in told) and any("read_run" in text for text in told)


# ---- what lives ---------------------------------------------------------------------------------------------


@pytest.fixture
def own(browser: Any, runs: Path, tmp_path: Path) -> Iterator[tuple[Window, Path]]:
    """A window on an explorer of a folder of its own, with one run that has not finished, and data."""
    run = tmp_path / "<i>live"
    shutil.copytree(runs / "levels-2", run)
    for name in ("evaluation.json", "examples.npz", "report.html"):
        (run / name).unlink()
    last = json.loads((run / "checkpoints" / "last.json").read_text())
    last["body"]["fraction"] = 0.5
    (run / "checkpoints" / "last.json").write_text(json.dumps(last))
    shutil.copytree(runs.parent / "volumes", tmp_path / "volumes")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    session = Session.of([str(tmp_path)])
    try:
        with running(session) as explorer:
            window = Window(context.new_page(), explorer)
            yield window, run
            assert window.complaints == [] and window.hosts == {"127.0.0.1"}
            context.close()
    finally:
        session.jobs.close()


def test_curves_grow_while_training_writes(own: tuple[Window, Path]) -> None:
    window, run = own
    with hold_lock(run):
        page = window.open(one(run))
        assert page.locator(".bar .badge").first.inner_text() == "running" and page.locator(".title i").count() == 0
        points = page.locator("#charts .figure >> nth=0").locator("circle")
        before = points.count()
        rows = (run / "metrics.jsonl").read_text()
        newest = json.loads(rows.splitlines()[-1])
        (run / "metrics.jsonl").write_text(
            rows + json.dumps({**newest, "step": 99, "time_s": 99.0, "metric": 0.987}) + "\n"
        )
        circles = "document.querySelector('#charts .figure').shadowRoot.querySelectorAll('circle').length"
        page.wait_for_function(f"() => {circles} === {before + 1}")
        page.wait_for_selector(".runs-list >> text=0.987")
    page.wait_for_selector(".bar .badge.stopped")
    assert page.get_by_role("button", name="Go on training").is_visible()


def test_a_training_is_started_followed_and_stopped(own: tuple[Window, Path]) -> None:
    window, run = own
    page = window.open("/runs")
    form = page.get_by_role("form", name="Train")
    form.get_by_label("or epochs").fill("500")
    form.get_by_label("name").fill("from the page")
    form.get_by_label("settings").fill("levels=1\nwidth=4\npatch=[16,16,16]\nsteps_per_epoch=2\nthreads=1")
    window.settle()
    command = form.locator("pre.command").inner_text()
    assert command.startswith("convoxel train segment --data=") and "--epochs=500" in command
    form.get_by_role("button", name="Start training").click()
    page.wait_for_selector(".job .badge.running")
    page.wait_for_selector(".job .soft:has-text('training')", timeout=120_000)
    page.get_by_role("button", name="from the page").click()
    page.wait_for_selector("#charts .figure", timeout=120_000)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".job .badge.stopped", timeout=120_000)
    page.wait_for_selector(".bar > .badge.stopped")
    assert (run.parent / "from the page" / "checkpoints" / "last.json").exists()


def test_a_mistake_is_told_where_it_is_typed(own: tuple[Window, Path]) -> None:
    window, _ = own
    page = window.open("/runs")
    form = page.get_by_role("form", name="Train")
    form.get_by_label("data").fill("/etc")
    window.settle()
    assert "not in a folder" in form.get_by_role("status").inner_text()
    window.complaints.clear()  # browsers report the refusal
    form.get_by_label("data").fill("volumes")
    form.get_by_label("name").fill("<i>live")
    window.settle()
    assert "expected 1 to 80 letters" in form.get_by_role("status").inner_text()


def test_the_exercise_trains_two_and_shows_both(own: tuple[Window, Path]) -> None:
    window, run = own
    page = window.open("/runs")
    form = page.get_by_role("form", name="Exercise")
    assert form.get_by_label("word to change").input_value() == "levels"
    form.get_by_label("first").fill("1")
    form.get_by_label("second").fill("2")
    form.get_by_label("or epochs").fill("1")
    form.get_by_label("other settings").fill("width=2\npatch=[16,16,16]\nsteps_per_epoch=2\nthreads=1")
    form.get_by_role("button", name="Train both").click()
    page.wait_for_selector(".title:has-text('2 runs side by side')")
    page.wait_for_selector("#figures", timeout=180_000)
    page.wait_for_function("() => !document.querySelector('.job')", timeout=180_000)
    window.settle()
    assert all(float(cell) >= 0 for cell in figures(page)["Dice"])
    assert page.locator("section[aria-label='What was changed'] tbody tr").all_inner_texts() == ["levels\t1\t2"]
    assert {each.name for each in run.parent.iterdir()} >= {"exercise-1", "exercise-2"}


def test_readonly_starts_nothing(browser: Any, runs: Path) -> None:
    context = browser.new_context()
    with running(Session.of([str(runs.parent)], readonly=True)) as explorer:
        window = Window(context.new_page(), explorer)
        page = window.open("/runs")
        assert page.locator("main form").count() == 0 and "--readonly" in page.inner_text("#page")
        page = window.open(one(runs / "levels-2", "&case=v5"))
        assert page.locator(".slice img").count() == 4  # looking is allowed
        assert page.get_by_role("button", name="Predict", exact=True).count() == 0
        context.close()
    assert window.complaints == []
