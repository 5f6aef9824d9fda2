"""One request: the types of its messages, its limits, and its head and body as far as they keep within them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Names by which this machine calls itself; ``[::1]`` is what browsers write for the loopback of IPv6.
LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
_ONCE = ("host", "origin", "authorization", "content-length", "content-encoding", "inference-header-content-length")

_DISCARD_S, _SILENCE_S = 2.0, 0.2  # so long a body is read to be forgotten, and so long its next part is waited for


@dataclass(frozen=True)
class Limits:
    """The largest request, and how long a slow one is waited for.

    Attributes:
        head_bytes: request line and headers.
        target_bytes: path and query.
        body_bytes: body.
        head_s: seconds until the head of a request must be there, once it has begun.
        idle_s: seconds that a connection may wait for its next request.
        body_s: seconds until its body must be there, beside the time that it takes at ``body_rate``.
        body_rate: bytes a second.
        connections: connections at once.
    """

    head_bytes: int = 16 * 1024
    target_bytes: int = 8 * 1024
    body_bytes: int = 1024 * 1024
    head_s: float = 10.0
    idle_s: float = 5.0
    body_s: float = 20.0
    body_rate: float = 64 * 1024
    connections: int = 512


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: status of the answer.
        reason: sentence that says why.
        unread: whether parts of its body are still to come.
    """

    def __init__(self, status: int, reason: str, unread: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.unread = status, reason, unread


def same_secret(known: str, given: str) -> bool:
    """Return True if two texts are equal; the time of the comparison tells nothing about them."""
    return hmac.compare_digest(known.encode(), given.encode("utf-8", "surrogatepass"))


def read_headers(scope: Scope, limits: Limits, methods: Collection[str]) -> dict[str, str]:
    """Return the headers, each once, after a check of the sizes.

    Raises:
        Refusal: headers or address are too long, the method is none of ``methods``, or a header that decides something
            came twice.
    """
    target = len(scope["raw_path"]) + 1 + len(scope["query_string"])
    if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > limits.head_bytes:
        raise Refusal(431, f"The headers are longer than {limits.head_bytes} bytes.")
    if target > limits.target_bytes:
        raise Refusal(414, f"The address is longer than {limits.target_bytes} bytes.")
    if scope["method"] not in methods:
        raise Refusal(405, f"The method {scope['method'][:20]} is unknown here; expected {', '.join(sorted(methods))}.")
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1")
        if text in _ONCE and text in headers:
            raise Refusal(400, f"The header {text} came twice.")
        # Browsers may send several cookie headers.
        joined = f"{headers[text]}; " if text == "cookie" and text in headers else ""
        headers[text] = joined + value.decode("latin-1")
    return headers


async def read_body(
    headers: Mapping[str, str], receive: Receive, limits: Limits, hold: Callable[[int], object] = lambda size: None
) -> bytes:
    """Return the whole body.

    Args:
        headers: as of :func:`read_headers`.
        receive: gives the parts of the body.
        limits: the most bytes and seconds.
        hold: called with the size of every part before the next one is waited for; it may raise.

    Raises:
        Refusal: the body is too large, or does not come soon enough.
    """
    most = limits.body_bytes
    refusal = Refusal(413, f"The body is longer than {most} bytes, the most that is taken.", unread=True)
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise refusal
    loop = asyncio.get_running_loop()
    parts, size, begun, more = [], 0, loop.time(), True
    while more:
        left = begun + limits.body_s + size / limits.body_rate - loop.time()
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.001))
        except asyncio.TimeoutError:
            raise Refusal(408, f"The body did not come in time: {size} bytes of it are here.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > most:
            raise refusal
        try:
            hold(len(part))
        except Refusal as error:
            error.unread = more
            raise
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


async def discard_body(headers: Mapping[str, str], receive: Receive, most: int) -> None:
    """Read on while something comes and forget it: many clients send all of a body before they look at an answer.

    Clients that ask before they send (``Expect: 100-continue``) are not waited for.
    """
    if "expect" in headers:
        return
    size, more, end = 0, True, asyncio.get_running_loop().time() + _DISCARD_S
    with contextlib.suppress(asyncio.TimeoutError):
        while more and size < most and asyncio.get_running_loop().time() < end:
            message = await asyncio.wait_for(receive(), _SILENCE_S)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
