"""An explorer on a free port, and requests to it as raw bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from convoxel.explorer.gate import Key
from convoxel.explorer.pages import VIEWS
from convoxel.explorer.serving import build_server
from convoxel.explorer.session import Session
from convoxel.explorer.view import View
from convoxel.web.request import Limits
from convoxel.web.server import bind


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Explorer:
    """A running explorer."""

    port: int
    key: Key

    def send(self, request: bytes) -> Answer:
        """Send bytes, and read until the server closes."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):  # refused before all of it was read
                client.sendall(request)
            return parse(read_all(client))

    def connect(self) -> socket.socket:
        """Return a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(
        self, path: str, method: str = "GET", headers: dict[str, str | None] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request with host and cookie; ``headers`` replaces them, or leaves out those that are None."""
        known: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}", "Cookie": f"{self.key.cookie}={self.key.token}", "Connection": "close",
            **({"Content-Length": str(len(body))} if body or method == "POST" else {}), **(headers or {}),
        }  # fmt: skip
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in known.items() if value is not None),
        ]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def answer(self, function: str, /, *more: tuple[str, str], **words: object) -> Any:
        """Return what a function of a view answers."""
        found = self.ask(f"/api/{function}?{urlencode([*words.items(), *more])}")
        assert found.status == 200 and "error" not in found.json, found.body
        return found.json


def read_all(client: socket.socket) -> bytes:
    """Return everything until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def parse(answer: bytes) -> Answer:
    """Return the parts of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
    return Answer(int(first.split()[1]), headers, body)


@contextlib.contextmanager
def running(session: Session, limits: Limits | None = None, views: tuple[View, ...] = VIEWS) -> Iterator[Explorer]:
    """Run an explorer in a thread of its own."""
    key = Key()
    with bind(0, 0) as listener:
        server = build_server(session, key, limits, views)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Explorer(listener.getsockname()[1], key)
        finally:
            server.should_exit = True
            thread.join()
