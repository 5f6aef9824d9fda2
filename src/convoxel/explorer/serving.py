"""The explorer's server: the loopback alone, the address that opens it, and a clean end."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from importlib import import_module

import uvicorn

from convoxel.errors import ConvoxelError
from convoxel.explorer.gate import HEADERS, Gate, Key
from convoxel.explorer.opened_network import open_network
from convoxel.explorer.pages import VIEWS, build_app
from convoxel.explorer.session import Session
from convoxel.explorer.view import Query, View
from convoxel.web.request import Limits
from convoxel.web.server import LOOPBACK_HOST, bind, configure

_USUAL_PORT = 8321
_PATIENCE_S = 2  # for answers under way, at the end


def explore(
    *networks: str,
    port: int | None = None,
    readonly: bool = False,
    browser: bool = True,
    say: Callable[[str], object] = print,
) -> None:
    """Serve the explorer at 127.0.0.1 until Ctrl-C.

    Args:
        *networks: networks of the zoo, runs, ``.onnx`` and ``.cvx`` files, and folders that may be looked through.
        port: number of the port; 0 takes any free one (default: 8321, or any free one if that is taken).
        readonly: whether to start, measure and write nothing (default False).
        browser: whether to open the page in the browser (default True).
        say: function that gets the address (default: print it).

    Raises:
        ConfigError: a network or folder does not exist, or the port is taken.
    """
    session = Session.of(networks, readonly)
    key = Key()
    with bind(port, _USUAL_PORT) as listener:
        place = f"http://{LOOPBACK_HOST}:{listener.getsockname()[1]}/?token="
        server = build_server(session, key)
        say(f"{place}{key.token}")
        if browser and _has_browser():
            address = place + key.once()
            threading.Timer(0.3, webbrowser.open, [address]).start()
        threading.Thread(target=prepare, args=(session,), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            session.jobs.close(lambda text: print(text, file=sys.stderr))


def prepare(session: Session) -> None:
    """Load what the first network that is opened would wait for, and read the one that the page shows first."""
    import_module("convoxel.models")  # brings PyTorch
    # What is loaded by now stays; without this, the collector of garbage looks through all of it again and again.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ConvoxelError, OSError):  # the page tells of it
        open_network(session, Query(())).summary.totals()


def build_server(
    session: Session, key: Key, limits: Limits | None = None, views: tuple[View, ...] = VIEWS
) -> uvicorn.Server:
    """Return the server of a session; it runs on a socket that ``bind`` returns."""
    known = limits or Limits()
    gate = Gate(build_app(session, views), key, known)
    return uvicorn.Server(configure(gate, known, HEADERS, _PATIENCE_S))


def _has_browser() -> bool:
    """Return True where a browser opens in a window: one in the terminal would take it over."""
    shown = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return bool(shown and "SSH_CONNECTION" not in os.environ)
