"""Views in a notebook: the frame of a cell asks the kernel, and gets the numbers that the command line prints."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import convoxel.explorer.notebook as notebook
from convoxel.explorer.notebook import show

HARNESS = """async ([module, page]) => {
  const { default: widget } = await import(`data:text/javascript;base64,${btoa(module)}`);
  const heard = {};
  const model = {
    get: (name) => ({ page, height: 700 })[name],
    on: (name, hear) => (heard[name] = hear),
    off: () => {},
    send: async (message) => {
      const [answer, content] = await window.kernel(message);
      const bytes = content ? [new DataView(Uint8Array.from(atob(content), (each) => each.charCodeAt(0)).buffer)] : [];
      heard["msg:custom"](answer, bytes);
    },
  };
  const place = document.createElement("div");
  document.body.append(place);
  widget.render({ model, el: place });
}"""


def test_a_cell_shows_live_views(browser: Any, printed: Any) -> None:
    shown = show("resnet18", shape="1,3,64,64")
    context = browser.new_context(viewport={"width": 1000, "height": 760})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url[:5]))

    def kernel(message: Any) -> Any:
        asked = message["ask"]
        answer, content = shown.answer(asked["name"], asked["pairs"], asked["changes"])
        return {"id": asked["id"], **answer}, base64.b64encode(content).decode()

    page.expose_function("kernel", kernel)
    module = Path(notebook.__file__).parent / "static" / "library" / "notebook.js"
    page.evaluate(HARNESS, [module.read_text(), shown.page()])
    frame = page.frame_locator("iframe")
    frame.locator("body[data-asking='0'] [data-total='parameters'] dd").wait_for(timeout=90_000)
    told = printed("describe", "resnet18", "--shape", "1,3,64,64")
    assert frame.locator("[data-total='parameters'] dd").inner_text() == f"{told['total']['params']:,}"
    page.evaluate("document.querySelector('iframe').remove()")
    picture = show("resnet18", view="fields", image="pattern-2d", layer="conv1", heat="0")
    shown = picture
    page.evaluate(HARNESS, [module.read_text(), picture.page()])
    frame.locator("body[data-asking='0'] .box.exact").wait_for(timeout=90_000, state="attached")
    assert "conv1 sees rows" in frame.locator("#sees").inner_text()
    assert complaints == [] and set(requests) <= {"about", "data:", "blob:"}
    context.close()
