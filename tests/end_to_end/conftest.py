"""A browser, and an explorer for it to look at; without playwright or Chromium these tests are skipped.

``CHROMIUM`` names the browser (default: the one on the path). With ``BROWSER=required`` nothing is skipped: the tests
fail without a browser.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from convoxel.cli import main
from convoxel.explorer.session import Session
from tests.support.explorer import Explorer, running

Printed = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    required = os.environ.get("BROWSER") == "required"
    playwright = import_module("playwright.sync_api") if required else pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        stop = pytest.fail if required else pytest.skip
        stop("Chromium is not installed (bash tools/chromium.sh, or CHROMIUM=/path)")
    with playwright.sync_playwright() as started:
        # In a container there is no sandbox for the root user; the pages are ours.
        found = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small compiled network in a folder."""
    import torch
    from torch import nn

    import convoxel as cx

    file = tmp_path_factory.mktemp("nets") / "<i>small.cvx"
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    cx.compile(layers, torch.zeros(1, 1, 16, 16)).save(file)
    return file


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which a Python package brings along."""
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not here (pip install axe-playwright-python)")
    return Path(found.origin).with_name("axe.min.js").read_text()


@pytest.fixture(scope="session")
def runs(program: Path) -> Path:
    """Two small runs that differ in one word and one of a classification, in a folder of the explorer's."""
    folder = program.parent
    draw_volumes(folder / "volumes")
    kinds = {
        "levels-1": ("segment", "volumes", ["levels=1", "width=4", "patch=[16,16,16]", "steps_per_epoch=8"]),
        "levels-2": ("segment", "volumes", ["levels=2", "width=4", "patch=[16,16,16]", "steps_per_epoch=8"]),
        "digits": ("classify", "digits", ["width=0.25", "steps_per_epoch=6", "validation=100"]),
    }
    for name, (task, data, settings) in kinds.items():
        where = data if task == "classify" else str(folder / data)
        words = ["train", task, "--data", where, "--epochs", "2", "--output", str(folder / "runs" / name)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main([*words, *(f"--set={each}" for each in (*settings, "validate_every=1", "threads=1"))]) == 0
    return folder / "runs"


def draw_volumes(folder: Path) -> None:
    """Write six volumes of a ball of two halves, with their labels."""
    import nibabel

    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("background\nfront\nback\n")
    rng = np.random.default_rng(0)
    for number in range(6):
        grid = np.indices((20, 24, 16)).astype(np.float64)
        centre = rng.uniform(6, 11, 3)
        ball = np.linalg.norm(grid - centre[:, None, None, None], axis=0) < 6
        label = (ball * (1 + (grid[0] > centre[0]))).astype(np.uint8)
        image = (40 * label + rng.normal(0, 10, label.shape)).astype(np.int16)
        for kind, array in (("images", image), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / kind / f"v{number}.nii.gz")


@pytest.fixture(scope="session")
def explorer(program: Path, runs: Path) -> Iterator[Explorer]:
    """An explorer of the zoo and of a folder with runs."""
    with running(Session.of([str(program.parent)])) as found:
        yield found


class Window:
    """A page of the browser, and everything that it complained about or asked for."""

    def __init__(self, page: Any, explorer: Explorer) -> None:
        self.page, self.base = page, f"http://127.0.0.1:{explorer.port}"
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.on(
            "console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text)
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or "no host"))
        page.goto(f"{self.base}/?token={explorer.key.token}")

    def open(self, path: str) -> Any:
        """Show a page, and wait until it has all its answers."""
        self.page.goto(self.base + path)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until nothing is asked any more, and the page is not busy."""
        self.page.wait_for_timeout(300)  # fields wait a quarter of a second for more letters
        for _ in range(2):  # an answer may lead to another question
            self.page.wait_for_selector("body[data-asking='0']", state="attached")
            self.page.wait_for_timeout(50)


@pytest.fixture
def window(browser: Any, explorer: Explorer) -> Iterator[Window]:
    """A fresh window; nothing may have gone wrong in it, and nothing may have left the machine."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(30_000)
    found = Window(context.new_page(), explorer)
    yield found
    context.close()
    assert found.hosts == {"127.0.0.1"}
    assert found.complaints == []


@pytest.fixture(scope="session")
def printed() -> Printed:
    """A function that returns the JSON object that a command prints."""

    def run(*words: str) -> Any:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert main([*words, "--json"]) == 0
        return json.loads(output.getvalue())

    return run
