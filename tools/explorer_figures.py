"""Every figure that is asked of the explorer, measured and set beside its limit.

    python -m tools.explorer_figures

A real Chromium without a window paints on the processor (no graphics card is used); ``CHROMIUM`` names another one.
Measured are the first paint of each view, the answers to sliders, the opening of large networks and of a large
volume, frames while a large graph moves, and what fifty clients cost a training (``tools.explorer_load``). It takes
about three minutes; an otherwise idle machine is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from convoxel.explorer.pages import VIEWS
from tools.explorer_load import Address, measure, serve

# Networks, and how their graphs are opened as far as a page draws them.
LARGE = {"densenet201": "depth=2&open=features.denseblock3", "efficientnet_b7": "depth=9"}
_SIDE = 512
# Moves a slider to the next value; resolves with the milliseconds until what it shows was painted anew.
_SLIDE = """async ([selector, value]) => {
  const look = () => SEEN;
  const slider = document.querySelector(selector);
  const before = look(), begun = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (look() === before) {
    if (performance.now() - begun > 20000) throw new Error(`${selector} at ${value} changed nothing`);
    await new Promise(requestAnimationFrame);
  }
  return performance.now() - begun;
}"""
# Pans and zooms by turns; resolves with the milliseconds of each frame.
_MOVE = """async () => {
  const frame = document.querySelector(".graph svg"), times = [];
  const place = { clientX: 600, clientY: 500, cancelable: true };
  const keys = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"];
  let last = await new Promise(requestAnimationFrame);
  for (let count = 0; count < 120; count++) {
    if (count % 2) document.dispatchEvent(new KeyboardEvent("keydown", { key: keys[(count >> 1) % 4] }));
    else frame.dispatchEvent(new WheelEvent("wheel", { deltaY: count % 60 < 30 ? -20 : 20, ...place }));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}"""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: what was measured.
        value: the figure.
        limit: the largest that is asked for.
        unit: unit of both.
        note: how it was measured, and its spread.
    """

    name: str
    value: float
    limit: float
    unit: str
    note: str = ""

    def line(self) -> str:
        """Return a row of the table."""
        held = "yes" if self.value <= self.limit else "NO"
        return f"{self.name:<44} {self.value:>8.4g} ≤ {self.limit:<5g} {self.unit:<4} {held:<4} {self.note}"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="clients that look at a training (default 50)")
    parser.add_argument("--seconds", type=float, default=50.0, help="time with clients (default 50); 0 leaves it out")
    parser.add_argument("--json", type=Path, help="file for the same figures as JSON")
    args = parser.parse_args()
    found: list[Figure] = []
    for figure in measure_all(args.clients, args.seconds):
        print(figure.line(), flush=True)
        found.append(figure)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(figure) for figure in found], indent=1))


def measure_all(clients: int, seconds: float) -> Iterator[Figure]:
    """Yield every figure as soon as it is known."""
    with tempfile.TemporaryDirectory() as place:
        volume = write_volume(Path(place) / "large.nii")
        with serve(place) as address, open_browser() as browser:
            yield from measure_paints(browser, address)
            yield from measure_sliders(browser, address)
            for net in LARGE:
                yield from measure_graph(browser, address, net)
            yield from measure_volume(browser, address, volume)
    if seconds:
        yield from measure_load(clients, seconds)


def write_volume(file: Path) -> Path:
    """Write an uncompressed NIfTI file of 512³ int16, of which every slice differs from the next."""
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4))
    image.header.set_data_shape((_SIDE,) * 3)
    image.header.set_slope_inter(1, 0)
    with file.open("wb") as stream:
        stream.write(image.header.binaryblock + bytes(4))
        rows = np.arange(_SIDE * _SIDE, dtype=np.int64)
        for index in range(_SIDE):
            stream.write(((rows * 7 + index * 31) % 1000).astype("<i2").tobytes())
    return file


@contextmanager
def open_browser() -> Iterator[Any]:
    """Run Chromium without a window and without a graphics card."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def page_of(browser: Any, address: Address) -> Iterator[Any]:
    """Open a window with an empty cache that holds the explorer's key."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    context.add_cookies([{"name": address.name, "value": address.value, "url": base(address)}])
    yield context.new_page()
    context.close()


def slide(page: Any, selector: str, seen: str, values: Iterable[int]) -> list[float]:
    """Return the milliseconds after which each move of a slider changed what the script ``seen`` returns."""
    script = _SLIDE.replace("SEEN", seen)  # the pages allow no evaluation of texts
    return [page.evaluate(script, [selector, str(value)]) for value in values]


def wait(page: Any, script: str) -> float:
    """Wait until a script returns a number that is not zero, and return it."""
    over = time.monotonic() + 60
    while not (found := page.evaluate(script)):
        if time.monotonic() > over:
            raise SystemExit(f"Nothing came within a minute: {script}")
        time.sleep(0.005)
    return float(found)


def base(address: Address) -> str:
    """Return the address without a path."""
    return f"http://127.0.0.1:{address.port}"


def settle(page: Any) -> None:
    """Wait until nothing is asked any more."""
    for _ in range(2):
        page.wait_for_timeout(300)
        page.wait_for_selector("body[data-asking='0']", state="attached")


def measure_paints(browser: Any, address: Address) -> Iterator[Figure]:
    """Yield the slowest first paint of the views, each in a window that has seen nothing yet."""
    script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    times = {}
    for view in VIEWS:
        with page_of(browser, address) as page:
            page.goto(f"{base(address)}/{view.name}", wait_until="commit")
            times[view.name] = wait(page, script) / 1000
            settle(page)
    note = ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items())
    yield Figure("first paint, slowest view", max(times.values()), 1, "s", note)


def measure_sliders(browser: Any, address: Address) -> Iterator[Figure]:
    """Yield how soon sliders show what they change: the median, and the slowest in the note."""
    shown = "document.querySelector('{}').{}".format
    size, picture = shown("#sizes", "textContent"), shown("#picture", "ariaLabel")
    first = "#{} input[type=range]".format
    sliders = {
        "bench, size": ("/layer", first("fields"), size, range(8, 24)),
        "bench, size of a volume": ("/layer?size=5x5x5", first("fields"), size, range(6, 12)),
        "lecture, size": ("/lecture?step=image", first("controls"), picture, (6, 7, 6, 8, 7, 6)),
        "network, levels of a U-Net": (
            "/network?net=unet", "[type=range][aria-label=levels]", shown(".totals", "textContent"), (2, 3, 1, 2, 3, 1),
        ),
    }  # fmt: skip
    for name, (path, selector, seen, values) in sliders.items():
        with page_of(browser, address) as page:
            page.goto(base(address) + path)
            settle(page)
            yield answered(name, slide(page, selector, seen, values))


def answered(name: str, times: Sequence[float]) -> Figure:
    """Return the median of the times after which moves of a slider were answered."""
    note = f"slowest of {len(times)}: {max(times):.0f}"
    return Figure(f"slider: {name}", statistics.median(times), 100, "ms", note)


def measure_graph(browser: Any, address: Address, net: str) -> Iterator[Figure]:
    """Yield how soon a network is there, graph and table, and the frames in which its graph moves."""
    with page_of(browser, address) as page:
        begun = time.perf_counter()
        page.goto(f"{base(address)}/network?net={net}", wait_until="commit")
        page.wait_for_selector(".node", state="attached")
        drawn = time.perf_counter() - begun
        page.wait_for_selector(".panel tbody tr", state="attached")
        whole = time.perf_counter() - begun
        yield Figure(f"{net} opens", whole, 2, "s", f"for the first time; its graph after {drawn:.2f}")
        settle(page)
        page.goto(f"{base(address)}/network?net={net}&{LARGE[net]}")
        settle(page)
        nodes, edges = page.locator(".node").count(), page.locator("polyline.edge").count()
        times = page.evaluate(_MOVE)
        most = statistics.quantiles(times, n=20)[18]
        note = f"{nodes} parts and {edges} arrows, 95 of 100 within {most:.0f}; painted on the processor"
        yield Figure(f"{net}: frame of pan and zoom", statistics.median(times), 33, "ms", note)


def measure_volume(browser: Any, address: Address, volume: Path) -> Iterator[Figure]:
    """Yield how soon the slices of a large volume are there, how fast they change, and how the server grew."""
    pixels = "document.querySelector('.slice-image canvas')?.getContext('2d').getImageData(100, 100, 9, 1).data"
    with page_of(browser, address) as page:
        page.goto(f"{base(address)}/fields?net=resnet18&heat=0")  # what any image needs is loaded
        settle(page)
        before = resident(address.process)
        begun = time.perf_counter()
        page.goto(f"{base(address)}/fields?net=resnet18&heat=0&image={quote(str(volume))}", wait_until="commit")
        wait(page, f"{pixels}[3] ? 1 : 0")
        opened = time.perf_counter() - begun
        settle(page)
        note = "int16, not compressed, until its first slice is painted"
        yield Figure(f"volume of {_SIDE}³ opens", opened, 2, "s", note)
        yield answered(
            f"slices of {_SIDE}³", slide(page, ".slice input[type=range]", f"{pixels}.join()", range(100, 400, 25))
        )
        note = "pages of the mapped file included"
        yield Figure("memory of the server for it", resident(address.process) - before, 300, "MiB", note)


def resident(process: int) -> float:
    """Return the resident memory of a process in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def measure_load(clients: int, seconds: float) -> Iterator[Figure]:
    """Yield what clients that look at a training wait, and what they cost it."""
    found: Any = measure(clients, seconds)
    note = (
        f"{found['answers']} in {seconds:g} s; p50 {1e3 * found['p50_s']:.0f}, longest {1e3 * found['longest_s']:.0f}"
    )
    yield Figure(f"answers to {clients} clients, p99", 1e3 * found["p99_s"], 250, "ms", note)
    spread = ", ".join(f"{100 * each:+.1f}" for each in found["slowdowns"])
    yield Figure("training slowed down by them", 100 * found["slowdown"], 5, "%", f"single stretches: {spread}")


if __name__ == "__main__":
    main()
