"""A server of models on a free port, and requests to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoxel.files.values import Array
from convoxel.serve.model import ServedModel, TensorFacts
from convoxel.serve.running import Server, ServerOptions, build_server
from convoxel.web.server import bind
from tests.support.explorer import Answer, parse, read_all

JSON = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    server: Server

    def connect(self) -> socket.socket:
        """Return a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, request: bytes) -> Answer:
        """Send bytes, and read until the server closes."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):  # refused before all of it was read
                client.sendall(request)
            return parse(read_all(client))

    def ask(self, path: str, body: bytes | JSON | None = None, method: str = "", **headers: str | None) -> Answer:
        """Send a request; ``headers`` replaces those that are usual, or leaves out those that are None."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        known: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if body is not None:
            known["Content-Length"] = str(len(content))
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        first = f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1"
        lines = [first, *(f"{name}: {value}" for name, value in known.items() if value is not None), "", ""]
        return self.send("\r\n".join(lines).encode("latin-1") + content)

    def infer(self, model: str, body: JSON | bytes, **headers: str | None) -> Answer:
        """Ask a model."""
        return self.ask(f"/v2/models/{model}/infer", body, **headers)


@contextlib.contextmanager
def serving(*models: ServedModel, options: ServerOptions | None = None) -> Iterator[Served]:
    """Run a server of models in a thread of its own."""
    with bind(0, 0) as listener:
        server = build_server({model.name: model for model in models}, options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Served(listener.getsockname()[1], server)
        finally:
            server.should_exit = True
            thread.join()


def double(
    name: str = "double",
    shape: Sequence[int] = (-1, 2),
    dtype: str = "float32",
    compute: Callable[[Array], Array] = lambda x: x + x,
    **more: Any,
) -> ServedModel:
    """Return a model from ``x`` to ``y``, by default twice as much."""
    facts = [TensorFacts.of(word, dtype, [each if each >= 0 else "n" for each in shape]) for word in ("x", "y")]
    known: dict[str, Any] = {"joins": True, "labels": {"y": ("cat", "dog")}}
    return ServedModel(
        name, (facts[0],), (facts[1],), lambda arrays, wanted: {"y": compute(arrays[0])}, **{**known, **more}
    )


def tensor(array: Array, name: str = "x", kind: str = "FP32", **more: Any) -> dict[str, Any]:
    """Return an input in JSON."""
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": np.ravel(array).tolist(), **more}
