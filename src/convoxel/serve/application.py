"""The addresses of the server: the Open Inference Protocol, and figures for Prometheus.

``/v2`` and below are the protocol's; ``/metrics`` are the figures. Every error is JSON with the one field ``error``.
``Door`` sees a request before anything else: who may ask, and from where.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from convoxel import __version__
from convoxel.serve.metrics import KIND, Metrics
from convoxel.serve.model import ServedModel
from convoxel.serve.protocol import LENGTH, read_request, unpack, write_answer
from convoxel.serve.queue import BUG, Job, Queue, Results
from convoxel.web.request import (
    LOOPBACK,
    App,
    ClientGone,
    Limits,
    Receive,
    Refusal,
    Scope,
    Send,
    discard_body,
    read_body,
    read_headers,
    same_secret,
)

#: The only version of every model.
VERSION = "1"
#: Headers of every answer.
HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
_EXTENSIONS = ["binary_tensor_data", "classification"]
_METHODS = {"GET", "HEAD", "POST"}
_OPEN = {"/v2/health/live", "/v2/health/ready"}  # for probes, which know no token
_BY_THREAD = (
    256 * 1024
)  # bytes beyond which JSON is read and written in a thread, so that others are answered meanwhile


@dataclass
class Service:
    """Everything that answers need.

    Attributes:
        models: by name.
        queue: the requests that wait.
        metrics: figures.
        limits: of requests.
        held_bytes: the most bytes of bodies and answers that are held at once.
        ready: whether new requests are welcome.
        held: bytes of bodies and answers that are held now.
    """

    models: Mapping[str, ServedModel]
    queue: Queue
    metrics: Metrics
    limits: Limits
    held_bytes: int
    ready: bool = True
    held: int = 0

    def __post_init__(self) -> None:
        """Show the figures of the moment."""
        self.metrics.gauges |= {
            "queue_length": ("Requests that wait.", lambda: [([], float(len(self.queue)))]),
            "held_bytes": ("Bytes of bodies and answers that are held.", lambda: [([], float(self.held))]),
            "ready": ("1 while new requests are welcome.", lambda: [([], float(self.ready))]),
        }


class Holding:
    """The bytes that one request holds, in its body and its answer."""

    def __init__(self, service: Service) -> None:
        self._service, self._size = service, 0

    def add(self, size: int) -> None:
        """Hold more bytes; raises ``Refusal`` if all requests together would hold too many."""
        service = self._service
        if service.held + size > service.held_bytes:
            raise Refusal(429, f"Requests hold {service.held} bytes, as many as they may; send it again later.")
        self._size += size
        service.held += size

    def release(self) -> None:
        """Hold nothing any more."""
        self._service.held -= self._size
        self._size = 0


class _Answer(Response):
    """An answer that is held until its client has read it, but for what fits into the buffers of the connection."""

    def __init__(self, content: bytes, headers: Mapping[str, str], holding: Holding) -> None:
        super().__init__(content, headers=dict(headers))
        self._holding = holding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the end waits until the rest is small."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._holding.release()


def build_app(service: Service) -> Starlette:
    """Return the application; it belongs behind a ``Door``."""
    model = "/v2/models/{name}"

    def route(path: str, answer: Callable[[Request, Service], Awaitable[Response]], method: str = "GET") -> Route:
        return Route(path, partial(_answered, answer=answer, service=service), methods=[method])

    routes = [
        route("/v2", _server),
        route("/v2/health/live", _live),
        route("/v2/health/ready", _ready),
        route("/v2/repository/index", _index, "POST"),
        route("/metrics", _metrics),
    ]
    for prefix in (model, f"{model}/versions/{{version}}"):
        routes += [
            route(prefix, _metadata),
            route(f"{prefix}/ready", _model_ready),
            route(f"{prefix}/infer", _infer, "POST"),
        ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _missing})
    app.router.redirect_slashes = False  # everything has one address
    return app


class Door:
    """The application ``inner`` behind the checks of who asks.

    Args:
        inner: the application.
        limits: of requests.
        token: secret that requests must bring; empty for none.
        local: whether the server answers to this machine alone. Then other names of hosts are refused, by which pages
            of the internet would reach it through a browser here.
    """

    def __init__(self, inner: App, limits: Limits, token: str = "", local: bool = True) -> None:
        self.inner, self.limits, self.token, self.local = inner, limits, token, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            headers: dict[str, str] = {}
            try:
                scope["known_headers"] = headers = read_headers(scope, self.limits, _METHODS)
                self._check(scope["path"], headers)
            except Refusal as refusal:
                if "content-length" in headers or "transfer-encoding" in headers:
                    await discard_body(headers, receive, self.limits.body_bytes)
                return await _refused(refusal)(scope, receive, send)
        await self.inner(scope, receive, send)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not self.token and not LOOPBACK.fullmatch(host):
            raise Refusal(403, "The server answers at localhost and 127.0.0.1 alone.")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, "The request comes from a page of another site.")
        if self.token and path not in _OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not same_secret(self.token, given.strip()):
                raise Refusal(401, "The token is missing or wrong; expected the header Authorization: Bearer TOKEN.")


async def _answered(
    request: Request, answer: Callable[[Request, Service], Awaitable[Response]], service: Service
) -> Response:
    """Return an answer, or the error that became of it."""
    try:
        return await answer(request, service)
    except Refusal as refusal:
        return _refused(refusal)
    except ClientGone:
        return Response(status_code=400)  # nobody reads it
    except Exception as error:
        traceback.print_exception(error, file=sys.stderr)
        return _refused(Refusal(500, BUG))


def _refused(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    # The rest of a body that is not read would be taken for the next request.
    unread = {"connection": "close"} if refusal.status in (401, 403, 405, 408, 413, 414, 431) else {}
    more = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    return _json({"error": refusal.reason}, refusal.status, {**unread, **more, **(headers or {})})


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, {**HEADERS, **(headers or {})}, "application/json")


async def _missing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    reason = "The address is asked in another way." if status == 405 else "There is nothing at this address; see /v2."
    return _json({"error": reason}, status)


async def _server(request: Request, service: Service) -> Response:
    return _json({"name": "convoxel", "version": __version__, "extensions": _EXTENSIONS})


async def _live(request: Request, service: Service) -> Response:
    return _json({"live": True})


async def _ready(request: Request, service: Service) -> Response:
    return _json({"ready": service.ready}, 200 if service.ready else 503)


async def _index(request: Request, service: Service) -> Response:
    await read_body(request.scope["known_headers"], request.receive, service.limits)
    states = [{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in service.models]
    return _json(states)


async def _metrics(request: Request, service: Service) -> Response:
    return Response(service.metrics.text(), headers=HEADERS, media_type=KIND)


def _model(request: Request, service: Service) -> ServedModel:
    name, version = request.path_params["name"], request.path_params.get("version", VERSION)
    if name not in service.models:
        raise Refusal(404, f"There is no model {name[:100]!r}; expected one of {', '.join(service.models)}.")
    if version != VERSION:
        raise Refusal(404, f"Model {name!r} has no version {version[:100]!r}; expected {VERSION}.")
    return service.models[name]


async def _metadata(request: Request, service: Service) -> Response:
    model = _model(request, service)
    inputs, outputs = ([each.to_dict() for each in tensors] for tensors in (model.inputs, model.outputs))
    return _json(
        {"name": model.name, "versions": [VERSION], "platform": model.platform, "inputs": inputs, "outputs": outputs}
    )


async def _model_ready(request: Request, service: Service) -> Response:
    return _json({"name": _model(request, service).name, "ready": service.ready}, 200 if service.ready else 503)


async def _infer(request: Request, service: Service) -> Response:
    """Compute what a request asks for."""
    begun = time.monotonic()
    model = _model(request, service)
    status = 500
    try:
        answer = await _inferred(request, service, model)
        status = answer.status_code
        return answer
    except Refusal as refusal:
        status = refusal.status
        if refusal.unread:
            await discard_body(request.scope["known_headers"], request.receive, service.limits.body_bytes)
        wait = {"retry-after": str(service.queue.patience_s(model))} if status in (429, 503) else {}
        return _refused(refusal, wait)
    except ClientGone:
        status = 499  # as elsewhere: the client closed the request
        raise
    finally:
        service.metrics.requests.add(1, model.name, str(status))
        service.metrics.seconds.add(time.monotonic() - begun, model.name)


async def _inferred(request: Request, service: Service, model: ServedModel) -> Response:
    headers: Mapping[str, str] = request.scope["known_headers"]
    holding = Holding(service)
    try:
        body = await read_body(headers, request.receive, service.limits, holding.add)
        if encoding := headers.get("content-encoding", "").strip().lower():
            body = await _in_turn(len(body), unpack, body, encoding, service.limits.body_bytes)
            holding.add(len(body))
        stated = headers.get(LENGTH)
        length = int(stated) if stated and stated.isdecimal() else len(body)
        asked = await _in_turn(length, read_request, model, body, stated)
        wanted = frozenset(each.facts.name for each in asked.wanted)
        job = service.queue.submit(model, asked.arrays, wanted, asked.timeout_s)
        results = await _result(job, service.queue, request.receive)
        size = sum(results[each.facts.name].nbytes for each in asked.wanted if each.classes or not each.binary)
        content, kinds = await _in_turn(size, write_answer, model, asked, results, VERSION)
        holding.add(len(content))
    except BaseException:
        holding.release()
        raise
    return _Answer(content, {**HEADERS, **kinds}, holding)


async def _in_turn(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, which runs in a thread if it is about many bytes."""
    if size > _BY_THREAD:
        return await run_in_threadpool(function, *arguments)
    return function(*arguments)


def _forget(future: asyncio.Future[Any]) -> None:
    """Look at an error that nobody may wait for any more, of which asyncio would tell."""
    if not future.cancelled():
        future.exception()


async def _result(job: Job, queue: Queue, receive: Receive) -> Results:
    """Wait for the results of a job, as long as its client does."""
    results = asyncio.wrap_future(job.future)
    results.add_done_callback(_forget)

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(leave())
    both: set[asyncio.Future[Any]] = {results, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not results.done():
            raise ClientGone
        return await results
    finally:
        gone.cancel()
        queue.withdraw(job)
