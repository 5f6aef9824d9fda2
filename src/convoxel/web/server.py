"""The socket, and the server whose connections may not be slow."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from convoxel.errors import ConfigError
from convoxel.web.request import App, Limits

LOOPBACK_HOST = "127.0.0.1"


def bind(port: int | None, usual: int, host: str = LOOPBACK_HOST) -> socket.socket:
    """Return a socket that listens.

    Args:
        port: number of the port; 0 takes any free one (default: ``usual``, or any free one if that is taken).
        usual: port where it is free; a fixed one keeps bookmarks and tunnels alive.
        host: address of this machine, or a name of it (default: the loopback alone).

    Raises:
        ConfigError: the port is no such number, is taken, or may not be used; or the host is no address of this
            machine.
    """
    if port is not None and not 0 <= port < 1 << 16:
        raise ConfigError(f"port: got {port}; expected 0 (any free port) to 65535.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError(_elsewhere(host)) from None
    # Named, the protocol lets asyncio switch Nagle's algorithm off: else the second part of each answer waits 40 ms.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    # A port that was used a moment ago is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
    try:
        listener.bind((address[0], usual if port is None else port, *address[2:]))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            raise ConfigError(
                f"host: {host!r} is no address of this machine; expected 127.0.0.1, or 0.0.0.0."
            ) from None
        if port is None:
            return bind(0, usual, host)
        reason = (
            "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        raise ConfigError(f"port: {port} {reason}. Give another one, or --port 0 for any free port.") from None
    return listener


def _elsewhere(host: str) -> str:
    return f"host: {host[:100]!r} is no address of this machine; expected 127.0.0.1, or 0.0.0.0 for all of them."


def configure(app: App, limits: Limits, headers: Mapping[str, str], patience_s: float) -> uvicorn.Config:
    """Return the settings of a server that keeps within ``limits``.

    Args:
        app: the application.
        limits: of requests and connections.
        headers: headers of answers to what is no request.
        patience_s: seconds that answers under way have at the end.
    """
    return uvicorn.Config(
        app,
        http=type("LimitedProtocol", (_Protocol,), {"limits": limits, "headers_of_refusals": headers}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head_bytes,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]  # seconds with fractions serve as well
        timeout_graceful_shutdown=patience_s,  # type: ignore[arg-type]  # seconds with fractions serve as well
    )


class _Protocol(H11Protocol):
    """One connection, closed if a request's head takes too long, or its answer is not read; refusals say why."""

    limits = Limits()
    headers_of_refusals: Mapping[str, str] = {}
    deadline: asyncio.TimerHandle | None = None
    cut_off: asyncio.TimerHandle | None = None

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
        self._stop_cutting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client time to read what waits for it, as much as a body of this size has."""
        super().pause_writing()
        patience_s = self.limits.body_s + self.transport.get_write_buffer_size() / self.limits.body_rate
        self.cut_off = self.cut_off or self.loop.call_later(patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_cutting()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of the next request, if a part of it is here already."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.trailing_data[0]:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; a head that is too long has a status of its own."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        body = b"The headers are too long." if status == 431 else b"This is not a request of HTTP."
        headers = [(name.encode(), value.encode()) for name, value in self.headers_of_refusals.items()]
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

    def _stop_cutting(self) -> None:
        if self.cut_off is not None:
            self.cut_off.cancel()
            self.cut_off = None

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
