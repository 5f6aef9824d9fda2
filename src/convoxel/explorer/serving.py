"""The server: a socket on the loopback alone, the address that opens it, and a clean end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from importlib import import_module
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from convoxel.errors import ConfigError
from convoxel.explorer.gate import HEADERS, Gate, Key, Limits
from convoxel.explorer.pages import VIEWS, build_app
from convoxel.explorer.session import Session
from convoxel.explorer.view import View

_HOST = "127.0.0.1"
# Where it is free; a fixed one keeps bookmarks and tunnels alive.
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
    with bind(port) as listener:
        place = f"http://{_HOST}:{listener.getsockname()[1]}/?token="
        server = build_server(session, key)
        say(f"{place}{key.token}")
        if browser and _has_browser():
            address = place + key.once()
            threading.Timer(0.3, webbrowser.open, [address]).start()
        # The first network that is opened would wait for PyTorch.
        threading.Thread(target=import_module, args=("convoxel.models",), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            session.jobs.close(lambda text: print(text, file=sys.stderr))


def bind(port: int | None) -> socket.socket:
    """Return a socket on the loopback.

    Raises:
        ConfigError: the port is no such number, is taken, or may not be used.
    """
    if port is not None and not 0 <= port < 1 << 16:
        raise ConfigError(f"port: got {port}; expected 0 (any free port) to 65535.")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port that an explorer used a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
    try:
        listener.bind((_HOST, _USUAL_PORT if port is None else port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if port is None:
            return bind(0)
        reason = (
            "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        raise ConfigError(f"port: {port} {reason}. Give another one, or --port 0 for any free port.") from None
    return listener


def build_server(
    session: Session, key: Key, limits: Limits | None = None, views: tuple[View, ...] = VIEWS
) -> uvicorn.Server:
    """Return the server of a session; it runs on a socket that ``bind`` returns."""
    known = limits or Limits()
    config = uvicorn.Config(
        Gate(build_app(session, views), key, known),
        http=type("LimitedProtocol", (_Protocol,), {"limits": known}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=known.head_bytes,
        limit_concurrency=known.connections,
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    return uvicorn.Server(config)


class _Protocol(H11Protocol):
    """One connection, which is closed if the head of a request takes too long; refusals say why."""

    limits = Limits()
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, of which a part may be here already."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; a head that is too long has a status of its own."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        body = b"The headers are too long." if status == 431 else b"This is not a request of HTTP."
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        headers += [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Let the time run while the head of a request is under way, and only then."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self.deadline is None:
            self.deadline = self.loop.call_later(self.limits.head_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def _has_browser() -> bool:
    """Return True where a browser opens in a window: one in the terminal would take it over."""
    shown = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return bool(shown and "SSH_CONNECTION" not in os.environ)
