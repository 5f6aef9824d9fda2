"""The process of a server: its socket, the lines that it prints, and its end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

import uvicorn

from convoxel.errors import ConfigError
from convoxel.files.memory import free_memory
from convoxel.graph.threads import limit_threads
from convoxel.serve.application import HEADERS, Door, Service, build_app
from convoxel.serve.metrics import Metrics
from convoxel.serve.model import ServedModel
from convoxel.serve.opening import OpeningOptions, open_models
from convoxel.serve.queue import Queue, QueueRule
from convoxel.web.request import Limits
from convoxel.web.server import LOOPBACK_HOST, bind, configure

Say = Callable[[str, Mapping[str, ServedModel]], object]

USUAL_PORT = 8000  # where clients of the protocol look
_SWITCH_S = 0.001  # so long the thread that computes waits for Python while requests are read; Python's own is 5 ms
_HELD_SHARE, _LEAST_HELD = 0.25, 4  # of the free memory for bodies; and bodies of the largest size that fit at least


@dataclass(frozen=True)
class ServerOptions:
    """The way in which models are served.

    Attributes:
        host: address to listen at; 127.0.0.1 answers to this machine alone.
        port: its port; 0 takes any free one, None 8000 or any free one.
        token: secret that requests must bring as ``Authorization: Bearer TOKEN``; empty for none.
        limits: of requests and connections.
        rule: of the queue.
        drain_s: seconds that requests have at the end.
    """

    host: str = LOOPBACK_HOST
    port: int | None = None
    token: str = ""
    limits: Limits = field(default_factory=lambda: Limits(body_bytes=64 * 2**20, idle_s=75.0))
    rule: QueueRule = field(default_factory=QueueRule)
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, value, least in (
            ("max-batch", self.rule.max_batch, 1),
            ("max-delay-ms", self.rule.max_delay_s, 0),
            ("max-queue", self.rule.length, 1),
            ("max-body-mib", self.limits.body_bytes, 1),
            ("timeout-s", self.rule.timeout_s, 0.001),
            ("drain-s", self.drain_s, 0),
        ):
            if not least <= value < 1e12:
                raise ConfigError(f"{name}: got {value:g}; expected a number of at least {least:g}.")
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise ConfigError("token: it holds spaces or characters beyond ASCII; expected letters, digits and signs.")


def serve(
    *networks: str,
    opening: OpeningOptions | None = None,
    options: ServerOptions | None = None,
    say: Say = lambda address, models: print(address),
) -> int:
    """Serve networks until SIGTERM or Ctrl-C; then finish the requests that are there.

    Args:
        *networks: networks of the zoo, runs, ``.onnx`` and ``.cvx`` files, each as WORD or NAME=WORD.
        opening: choices that they are opened with.
        options: the way in which they are served.
        say: called with the address and the models once requests are welcome (default: print the address).

    Returns:
        0 if all requests were answered, 1 if some were not within ``drain_s``.

    Raises:
        ConfigError: there is no such network, or the address cannot be had.
    """
    way, choices = options or ServerOptions(), opening or OpeningOptions()
    with bind(way.port, USUAL_PORT, way.host) as listener, limit_threads(choices.threads):
        return run_server(open_models(networks, choices), listener, way, say)


def run_server(models: Mapping[str, ServedModel], listener: socket.socket, options: ServerOptions, say: Say) -> int:
    """Serve models on a socket that ``bind`` returned; arguments and result as of :func:`serve`."""
    server = build_server(models, options)
    sys.setswitchinterval(_SWITCH_S)
    say(address_of(options.host, listener.getsockname()[1]), models)
    server.run(sockets=[listener])
    return int(server.lost > 0)


def build_server(models: Mapping[str, ServedModel], options: ServerOptions | None = None) -> Server:
    """Return the server of models; it runs on a socket that ``bind`` returns."""
    way, metrics = options or ServerOptions(), Metrics()
    least = _LEAST_HELD * way.limits.body_bytes
    held = max(least, int(_HELD_SHARE * (free_memory() or 0)))
    service = Service(models, Queue(way.rule, metrics), metrics, way.limits, held)
    local = way.host in (LOOPBACK_HOST, "localhost", "::1")
    door = Door(build_app(service), way.limits, way.token, local)
    return Server(configure(door, way.limits, HEADERS, way.drain_s), service)


class Server(uvicorn.Server):
    """A server that ends with the requests that it has taken: the first signal drains it, a second one ends it at once.

    Attributes:
        service: what it serves.
        lost: requests that were not answered when it ended.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service, self.lost = service, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        if self.should_exit:
            os._exit(128 + sig)  # also while the engine computes
        self.service.ready = False
        self.should_exit = True

    async def shutdown(self, sockets: Sequence[object] | None = None) -> None:
        """Take no more connections, and answer what has been asked."""
        self.service.ready = False
        await super().shutdown(sockets)  # type: ignore[arg-type]
        self.lost = len(self.server_state.tasks)
        self.service.queue.stop()


def address_of(host: str, port: int) -> str:
    """Return the address of a server as clients write it.

    >>> address_of("127.0.0.1", 8000), address_of("::1", 80)
    ('http://127.0.0.1:8000', 'http://[::1]:80')
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
