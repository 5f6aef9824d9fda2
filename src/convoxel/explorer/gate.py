"""Who is let in: the checks that every request passes before anything else sees it.

The explorer reads files of its user and computes for them, so it answers to nobody else: not to other users of the
machine (a key that only the printed address holds), not to pages of other sites in the same browser (``Host``,
``Origin``, ``Sec-Fetch-Site``; no CORS), not to pages that put it into a frame. Ports are free, since a tunnel through
ssh shows another port than ours, but ``Origin`` must name the very host and port that ``Host`` names.

Sizes are limited here, and where the head of a request is read (``web.server``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from convoxel.web.request import (
    LOOPBACK,
    App,
    ClientGone,
    Limits,
    Message,
    Receive,
    Refusal,
    Scope,
    Send,
    read_body,
    read_headers,
    same_secret,
)

_METHODS = {"GET", "HEAD", "POST", "OPTIONS"}
_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "font-src 'self'",
        "connect-src 'self'", "worker-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
    )
)  # fmt: skip
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",  # the first address holds the key
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Key:
    """The secret of one explorer: ``token`` opens it as often as wanted, ``once()`` makes tokens for a single use.

    A browser is started with a token for a single use, since other users of the machine can read its command line.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self.cookie = f"convoxel-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"
        self._single: set[str] = set()

    def once(self) -> str:
        """Return a new token that opens a single time."""
        token = secrets.token_urlsafe(32)
        self._single.add(token)
        return token

    def fits(self, given: str) -> bool:
        """Return True for the token itself; the time of the comparison tells nothing about it."""
        return same_secret(self.token, given)

    def opens(self, given: str) -> bool:
        """Return True for the token, or for one for a single use, which is used up by that."""
        single = next((known for known in self._single if given.isascii() and hmac.compare_digest(known, given)), None)
        self._single.discard(single or "")
        return single is not None or self.fits(given)


class Gate:
    """The application ``inner`` behind all checks."""

    def __init__(self, inner: App, key: Key, limits: Limits | None = None) -> None:
        self.inner, self.key, self.limits = inner, key, limits or Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self.inner(scope, receive, send)
        try:
            headers = read_headers(scope, self.limits, _METHODS)
            self._check_origin(scope, headers)
            entered = self._enter(scope, headers)
            if entered is not None:
                return await _answer(send, 303, "", {"location": "/", "set-cookie": entered})
            self._check_key(headers)
            if scope["method"] == "OPTIONS":
                return await _answer(send, 204, "", {"allow": ", ".join(sorted(_METHODS))})
            body = await read_body(headers, receive, self.limits)
        except Refusal as refusal:
            return await _refuse(scope, send, refusal)
        except ClientGone:
            return None
        await self.inner(scope, _replay(body, receive), _with_headers(send))

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if not LOOPBACK.fullmatch(host):
            raise Refusal(403, "The explorer answers at localhost and 127.0.0.1 alone.")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            raise Refusal(403, "The request comes from another page.")
        if scope["method"] == "POST" and origin is None and "cookie" in headers:
            raise Refusal(403, "A request that changes something must name its origin.")
        # A link may lead here from anywhere; another page's script, image or frame may not.
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site not in ("none", "same-origin") and not (mode == "navigate" and scope["method"] == "GET"):
            raise Refusal(403, "The request comes from another page.")

    def _enter(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """Return the cookie for whoever comes by the printed address; None for other addresses."""
        if scope["method"] not in ("GET", "HEAD") or scope["path"] != "/":
            return None
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        if given is None:
            return None
        if not self.key.opens(given):
            raise Refusal(401, "The key is wrong. Open the address that `convoxel explore` printed.")
        return f"{self.key.cookie}={self.key.token}; HttpOnly; SameSite=Lax; Path=/"

    def _check_key(self, headers: Mapping[str, str]) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            try:
                cookie = SimpleCookie(headers.get("cookie", "")).get(self.key.cookie)
            except CookieError:
                cookie = None
            if cookie is None:
                raise Refusal(403, "The key is missing. Open the address that `convoxel explore` printed.")
            given = cookie.value
        if not self.key.fits(given.strip()):
            raise Refusal(401, "The key is wrong. Open the address that `convoxel explore` printed.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body at once, and then what ``receive`` gives."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sent


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer with the reason: as JSON to scripts, as a page to people."""
    # The rest of a body that is not read would be taken for the next request.
    more = {"connection": "close"} if scope["method"] == "POST" else {}
    if scope["path"].startswith("/api/"):
        return await _answer(send, refusal.status, f'{{"error": "{refusal.reason}"}}', more, "application/json")
    page = (
        f"<!doctype html><html lang=en><title>Convoxel</title><h1>{refusal.status}</h1><p>{escape(refusal.reason)}</p>"
    )
    await _answer(send, refusal.status, page, more, "text/html; charset=utf-8")


async def _answer(
    send: Send, status: int, text: str, headers: Mapping[str, str], kind: str = "text/plain; charset=utf-8"
) -> None:
    body = text.encode()
    known = {
        **HEADERS,
        **headers,
        **({} if status == 204 else {"content-length": str(len(body))}),
        "content-type": kind,
    }
    pairs = [(name.encode(), value.encode()) for name, value in known.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
