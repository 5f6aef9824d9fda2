"""Nobody is let in without the key, from another page, or with a request that is too large: raw bytes on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from convoxel.errors import ConfigError
from convoxel.explorer.gate import Gate, Key
from convoxel.explorer.pages import SHARED, VIEWS, build_app
from convoxel.explorer.session import ForbiddenPath, Session
from convoxel.explorer.view import Query, View
from convoxel.files.values import JsonObject
from convoxel.web.request import Limits
from convoxel.web.server import bind
from tests.support.explorer import Explorer, parse, read_all, running

LAYER = "/api/layer/describe?size=5x5"
ENTRIES = "/api/session/entries?path="


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "seen").mkdir()
    (root / "seen" / "<b>x.txt").write_text("1")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.txt").write_text("1")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").mkdir()
    (root / "way_out").symlink_to(outside)
    (root / "inside").symlink_to(root / "seen")
    return root


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[Explorer]:
    with running(Session.of([str(folder)])) as found:
        yield found


@pytest.mark.smoke
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("port", ["", ":1", ":65535"])
def test_names_of_the_loopback_with_any_port_are_let_in(explorer: Explorer, host: str, port: str) -> None:
    assert explorer.ask(LAYER, headers={"Host": host + port}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.com", "127.0.0.1.evil.com", "localhost.evil.com:80", "", "127.0.0.1:x", "127.0.0.2", "a@localhost"]
)
def test_other_hosts_are_refused(explorer: Explorer, host: str) -> None:
    assert explorer.ask(LAYER, headers={"Host": host}).status in (400, 403)
    assert explorer.ask(f"/?token={explorer.key.token}", headers={"Host": host}).status in (400, 403)


def test_a_host_must_come_once(explorer: Explorer) -> None:
    assert explorer.ask(LAYER, headers={"Host": None}).status == 400
    twice = f"127.0.0.1\r\nHost: 127.0.0.1:{explorer.port}"
    assert explorer.ask(LAYER, headers={"Host": twice}).status == 400
    old = f"GET {LAYER} HTTP/1.0\r\nCookie: {explorer.key.cookie}={explorer.key.token}\r\n\r\n"
    assert explorer.send(old.encode()).status == 403


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_origins_are_refused(explorer: Explorer, origin: str, method: str) -> None:
    assert explorer.ask(LAYER, method, {"Origin": origin}).status == 403


def test_its_own_origin_is_let_in(explorer: Explorer) -> None:
    host = "localhost:9999"  # through a tunnel
    assert explorer.ask(LAYER, headers={"Host": host, "Origin": f"http://{host}"}).status == 200


def test_a_change_by_cookie_must_name_its_origin(explorer: Explorer) -> None:
    assert explorer.ask(LAYER, "POST").status == 403


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_other_pages_may_link_but_not_embed(explorer: Explorer, site: str, mode: str, status: int) -> None:
    assert explorer.ask("/layer", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}).status == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/layer", LAYER, "/static/style.css", "/nothing"])
def test_without_the_key_nothing_is_shown(explorer: Explorer, method: str, path: str) -> None:
    assert explorer.ask(path, method, {"Cookie": None}).status == 403
    assert explorer.ask(path, method, {"Cookie": "other=1"}).status == 403


ANSWERS = [f"/api/{view.name}/{name}" for view in (*VIEWS, *SHARED) for name in view.answers]
ACTIONS = [f"/api/{view.name}/{name}" for view in (*VIEWS, *SHARED) for name in view.actions]
PAGES = ["/", *(f"/{view.name}" for view in VIEWS)]


def test_every_address_is_known() -> None:
    routes = {route.path for route in build_app(Session()).routes}
    assert routes == {*ANSWERS, *ACTIONS, *PAGES, "/static/{name:path}"} and len(ANSWERS) > 40 and len(ACTIONS) > 5


@pytest.mark.parametrize("address", [*ANSWERS, *ACTIONS, *PAGES, "/static/style.css"])
def test_every_address_is_guarded(explorer: Explorer, address: str) -> None:
    method = "POST" if address in ACTIONS else "GET"
    own = {"Origin": f"http://127.0.0.1:{explorer.port}"}
    assert explorer.ask(address, method, {**own, "Cookie": None}).status == 403
    assert explorer.ask(address, method, {**own, "Cookie": f"{explorer.key.cookie}=wrong"}).status == 401
    assert explorer.ask(address, method, {**own, "Host": "evil.com"}).status in (400, 403)
    assert explorer.ask(address, method, {"Origin": "http://evil.com"}).status == 403
    assert (
        explorer.ask(address, method, {**own, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status == 403
    )
    assert explorer.ask(address, "DELETE", own).status == 405
    assert explorer.ask(address, method, {**own, "Content-Length": str(1 << 30)}).status == 413
    if address in ACTIONS:
        assert explorer.ask(address, "POST").status == 403 and explorer.ask(address).status == 405
    else:
        assert explorer.ask(address, "POST", own, b"[]").status == 405


FILES = {"network": ("net",), "fields": ("net", "image"), "inside": ("net", "image"), "image": ("image",),
         "runs": ("run",), "session": ("path",)}  # fmt: skip
# They take no file, or say so before they look at one: what is started has other words (tests of runs).
WITHOUT = {"network/catalogue", "image/list", *(f"runs/{name}" for name in (
    "catalogue", "settings", "plan", "start", "stop", "choose"))}  # fmt: skip


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "way_out/secret", ".hidden/a.txt"])
def test_no_function_reads_elsewhere(folder: Path, path: str) -> None:
    session, asked = Session.of([str(folder)]), 0
    for view in (*VIEWS, *SHARED):
        for name, function in {**view.answers, **view.actions}.items():
            for word in FILES.get(view.name, ()) if f"{view.name}/{name}" not in WITHOUT else ():
                asked += 1
                with pytest.raises(ForbiddenPath):
                    function(session, Query(((word, path), (word, f"{path}2"))))
    assert asked > 40


def test_answers_leave_without_waiting_for_the_other_side() -> None:
    """The second part of an answer would wait 40 ms for word of the first."""

    async def accepted() -> int:
        found = asyncio.get_running_loop().create_future()
        with bind(0, 0) as listener:
            server = await asyncio.start_server(lambda _, writer: found.set_result(writer), sock=listener)
            async with server:
                _, client = await asyncio.open_connection(*listener.getsockname())
                writer = await found
                delays = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                for side in (client, writer):
                    side.close()
                    await side.wait_closed()
        return int(delays)

    assert asyncio.run(accepted())


def test_a_page_names_all_its_modules(explorer: Explorer) -> None:
    """A browser then loads them at once, and not level by level as one imports the next."""
    page = explorer.ask("/network").body.decode()
    named, seen = set(re.findall(r'rel="modulepreload" href="/static/([^"]+)"', page)), {"network.js"}
    for module in (waiting := ["network.js"]):
        text = explorer.ask(f"/static/{module}").body.decode()
        found = {each if each.startswith("library/") else f"library/{each}" for each in
                 re.findall(r'from "\./([^"]+)"', text)}  # fmt: skip
        waiting += sorted(found - seen)
        seen |= found
    assert named == seen - {"network.js"} and len(named) > 8


def test_a_wrong_key_is_refused(explorer: Explorer) -> None:
    for wrong in ("x", explorer.key.token[:-1], explorer.key.token + "x", "é"):
        host = f"http://127.0.0.1:{explorer.port}"
        assert explorer.ask(LAYER, headers={"Cookie": f'{explorer.key.cookie}="{wrong}"'}).status == 401
        assert explorer.ask(LAYER, "POST", {"Cookie": f"{explorer.key.cookie}=x", "Origin": host}).status == 401
        assert explorer.ask(LAYER, headers={"Authorization": f"Bearer {wrong}", "Cookie": None}).status == 401
    assert explorer.ask("/?token=wrong", headers={"Cookie": None}).status == 401
    assert explorer.ask(LAYER, headers={"Authorization": f"Bearer {explorer.key.token}", "Cookie": None}).status == 200


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("convoxel.explorer.gate.hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    key = Key("secret")
    assert key.fits("secret") and not key.fits("other") and key.opens("secret")
    assert len(compared) == 3 and len(Key().token) >= 43  # 256 bits


def test_the_printed_address_gives_a_cookie_and_hides_the_key(explorer: Explorer) -> None:
    found = explorer.ask(f"/?token={explorer.key.token}", headers={"Cookie": None})
    assert (found.status, found.headers["location"]) == (303, "/")
    cookie = found.headers["set-cookie"]
    assert cookie.startswith(f"{explorer.key.cookie}={explorer.key.token};")
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert found.headers["referrer-policy"] == "no-referrer"


def test_a_token_for_one_use_opens_once() -> None:
    key = Key()
    token = key.once()
    assert key.opens(token) and not key.opens(token) and key.opens(key.token) and not key.opens("")
    assert not key.fits(key.once())


@pytest.mark.parametrize("path", ["/layer", LAYER, "/static/style.css", "/nothing", "/api/layer/describe?size=x"])
def test_every_answer_has_the_policies(explorer: Explorer, path: str) -> None:
    headers = explorer.ask(path).headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in headers)


def test_no_cors(explorer: Explorer) -> None:
    host = f"http://127.0.0.1:{explorer.port}"
    found = explorer.ask(LAYER, "OPTIONS", {"Origin": host, "Access-Control-Request-Method": "POST"})
    assert found.status == 204 and not any(name.startswith("access-control") for name in found.headers)


def test_head_has_headers_alone(explorer: Explorer) -> None:
    found = explorer.ask("/layer", "HEAD")
    assert found.status == 200 and found.body == b"" and int(found.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(explorer: Explorer, method: str) -> None:
    assert explorer.ask(LAYER, method).status == 405


def test_only_post_changes_something_and_not_where_all_is_only_read() -> None:
    asked: list[str] = []

    def count(session: Session, query: Query) -> JsonObject:
        asked.append(query.text("word"))
        return {"count": len(asked)}

    views = (View("layer", "", "", {"look": lambda session, query: {}}, {"count": count}),)
    for readonly in (False, True):
        with running(Session(readonly=readonly), views=views) as found:
            host = {"Origin": f"http://127.0.0.1:{found.port}"}
            assert found.ask("/api/layer/count?word=no").status == 405
            assert found.ask("/api/layer/look", "POST", host).status == 405
            answer = found.ask("/api/layer/count", "POST", host, b'[["word", "yes"]]')
            assert answer.status == (403 if readonly else 200)
            assert readonly == ("readonly" in answer.json.get("error", ""))
            if not readonly:
                for wrong in (b"{", b'"x"', b"[1]", b"[" * 100_000, b"\xff"):
                    assert found.ask("/api/layer/count", "POST", host, wrong).status == 400
    assert asked == ["yes"]


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd", "/static/../pages.py", "/static/%2e%2e%2fpages.py", "/static/%252e%252e%252fpages.py",
        "/static/..%5cpages.py", "/static//etc/passwd", "//etc/passwd", "/static/%00style.css",
        "/static/;/../style.css", "/static/style.css/", "/static/.", "/static/", "/%ff", "/layer/", "/layer/..",
    ],
)  # fmt: skip
def test_ways_out_of_the_package_lead_nowhere(explorer: Explorer, path: str) -> None:
    assert explorer.ask(path).status in (400, 404)


def test_what_is_no_http_is_refused(explorer: Explorer) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ):
        found = explorer.send(junk)
        assert found.status == 400 and found.headers["x-content-type-options"] == "nosniff"


def test_paths_outside_of_the_folders_are_refused(explorer: Explorer, folder: Path) -> None:
    for path in (
        "/etc", "/etc/passwd", str(folder.parent), f"{folder}/..", f"{folder}/way_out", f"{folder}/way_out/secret",
        f"{folder}/.hidden", f"{folder}/.hidden/a.txt", f"{folder}/seen/../../..", f"{folder}/missing", "seen%00", "..",
        f"{folder}x",
    ):  # fmt: skip
        assert explorer.ask(ENTRIES + path).status == 403, path


def test_folders_show_what_may_be_read(explorer: Explorer, folder: Path) -> None:
    names = [entry["name"] for entry in explorer.answer("session/entries", path=folder)["entries"]]
    assert names == ["inside", "seen"]
    (entry,) = explorer.answer("session/entries", path="seen")["entries"]
    assert entry == {"path": str(folder / "seen" / "<b>x.txt"), "name": "<b>x.txt", "kind": "file"}
    (root,) = explorer.answer("session/entries")["entries"]
    assert root["path"] == str(folder)


def test_nothing_may_be_read_without_a_folder() -> None:
    session = Session.of(["resnet18"])
    assert session.entries() == [] and session.networks == ("resnet18",)
    with pytest.raises(ConfigError, match="does not exist"):
        Session.of(["/nowhere/net.onnx"])
    with pytest.raises(ConfigError, match="resnet50"):
        Session.of(["resnet"])


def test_large_requests_are_refused(explorer: Explorer) -> None:
    limits = Limits()
    assert explorer.ask(LAYER, headers={"X": "x" * 1_000_000}).status == 431
    # Also where it comes in one piece, which the parser takes.
    assert explorer.ask(LAYER, headers={"X": "x" * (limits.head_bytes - 100)}).status == 431
    assert explorer.ask(f"{LAYER}&x={'x' * limits.target_bytes}").status == 414
    assert explorer.ask(f"{LAYER}&{'&'.join('a=1' for _ in range(300))}").status == 400


def test_large_bodies_are_refused(explorer: Explorer) -> None:
    host = {"Origin": f"http://127.0.0.1:{explorer.port}"}
    limit = Limits().body_bytes
    assert explorer.ask(LAYER, "POST", host, b"x" * (limit + 1)).status == 413
    # Announced, but not sent.
    assert explorer.ask(LAYER, "POST", {**host, "Content-Length": str(10**15)}).status == 413
    chunk = b"%x\r\n" % (limit // 2) + b"x" * (limit // 2) + b"\r\n"
    chunked = {**host, "Transfer-Encoding": "chunked", "Content-Length": None}
    assert explorer.ask(LAYER, "POST", chunked, chunk * 3 + b"0\r\n\r\n").status == 413
    assert explorer.ask(LAYER, "GET", {"Content-Length": str(limit + 1)}).status == 413


def test_slow_connections_do_not_hold_it_up_and_are_closed(folder: Path) -> None:
    with running(Session(), Limits(head_s=1.0, body_s=1.0)) as found:
        slow = [found.connect() for _ in range(200)]
        for number, client in enumerate(slow):
            client.sendall(b"GET / HT" if number % 2 else b"")
        assert found.ask(LAYER).status == 200
        for client in slow:  # each ends by itself
            assert read_all(client) == b""
            client.close()
        with found.connect() as client:  # the head is there, the body never comes
            head = f"POST {LAYER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {found.key.token}\r\n"
            client.sendall(f"{head}Content-Length: 10\r\n\r\nx".encode())
            assert parse(read_all(client)).status == 408


def test_a_second_request_on_a_connection_may_not_be_slow_either() -> None:
    with running(Session(), Limits(head_s=1.0)) as found, found.connect() as client:
        head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {found.key.token}\r\n\r\n"
        client.sendall(f"HEAD /layer {head}GET /la".encode())
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_it_listens_on_the_loopback_alone() -> None:
    with bind(0, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port: {port} is taken by another program.*--port 0"):
            bind(port, 0)
    for wrong in (-1, 1 << 16):
        with pytest.raises(ConfigError, match="port"):
            bind(wrong, 0)


def test_it_ends_cleanly() -> None:
    # A shell that starts the suite in the background lets it ignore Ctrl-C.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from convoxel.cli import main; sys.exit(main(['explore', '--port', '0', '--no-browser']))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    port = int(address.split(":")[2].split("/")[0])
    token = address.partition("token=")[2]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert parse(read_all(client)).status == 303
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors.strip() == "Ctrl-C ends the explorer."


def test_bugs_are_told_without_details(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(session: Session, query: object) -> dict[str, object]:
        raise RuntimeError("secret")

    app = build_app(Session(), (View("layer", "", "", {"fail": fail}),))
    key = Key()
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/api/layer/fail", "raw_path": b"/api/layer/fail", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {key.token}".encode())],
    }  # fmt: skip
    with contextlib.suppress(RuntimeError):  # the server logs it once more
        asyncio.run(Gate(app, key)(scope, receive, send))
    assert sent[0]["status"] == 500 and b"secret" not in bytes(sent[1]["body"])  # type: ignore[arg-type]
    assert "secret" in capfd.readouterr().err


def test_threads_end_with_the_server() -> None:
    before = threading.active_count()
    with running(Session()) as found:
        assert found.ask(LAYER).status == 200
    assert threading.active_count() <= before + 1
