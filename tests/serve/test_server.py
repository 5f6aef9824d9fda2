"""Requests over HTTP: raw bytes on a socket, and the clients that others have written."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convoxel.serve.queue import QueueRule
from convoxel.serve.running import ServerOptions
from convoxel.web.request import Limits
from tests.serve.test_protocol import X, binary
from tests.support.explorer import Answer, parse, read_all
from tests.support.server import Served, double, serving, tensor

ASKED = {"inputs": [tensor(X)]}
SMALL = ServerOptions(limits=Limits(body_bytes=4096, body_s=1.0, head_s=1.0))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(double(), double("other"), options=SMALL) as found:
        yield found


@pytest.mark.smoke
def test_addresses_of_the_protocol(served: Served) -> None:
    assert served.ask("/v2").json["extensions"] == ["binary_tensor_data", "classification"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/double/ready", "/v2/models/other/versions/1/ready"):
        assert served.ask(path).status == 200
    facts = [{"name": name, "datatype": "FP32", "shape": [-1, 2]} for name in "xy"]
    for path in ("/v2/models/double", "/v2/models/double/versions/1"):
        found = served.ask(path).json
        assert (found["inputs"], found["outputs"], found["versions"]) == ([facts[0]], [facts[1]], ["1"])
    assert [row["name"] for row in served.ask("/v2/repository/index", {}).json] == ["double", "other"]
    for path, status in (
        ("/v2/models/none", 404), ("/v2/models/double/versions/2", 404), ("/v2/models/double/infer", 405), ("/v3", 404),
        ("/v2/models/../double", 404), ("/v2/", 404), ("/", 404), ("/v2/models/double%2fx", 404),
    ):  # fmt: skip
        found = served.ask(path)
        assert found.status == status and set(found.json) == {"error"}, path
    assert served.ask("/v2", method="DELETE").status == 405


def test_results_in_json_and_as_bytes(served: Served) -> None:
    assert served.infer("double", ASKED).json["outputs"][0]["data"] == [2.0, 4.0, 6.0, 9.0]
    body, length = binary(X, parameters={"binary_data_output": True})
    for content, more in ((body, {}), (gzip.compress(body), {"Content_Encoding": "gzip"})):
        found = served.infer("double", content, Inference_Header_Content_Length=length, **more)
        assert found.status == 200 and found.headers["content-type"] == "application/octet-stream"
        tail = found.body[int(found.headers["inference-header-content-length"]) :]
        assert np.array_equal(np.frombuffer(tail, np.float32), (X + X).ravel())
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:50], body[50:])) + b"0\r\n\r\n"
    how: dict[str, Any] = {"Content_Length": None, "Transfer_Encoding": "chunked"}
    assert served.infer("double", chunks, Inference_Header_Content_Length=length, **how).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (b"{", {}, 400, "no JSON"),
        (b"x" * 4097, {}, 413, "longer than 4096 bytes"),
        (b"", {"Content_Length": "99999999999"}, 413, "longer than 4096 bytes"),
        (b"", {"Content_Length": "10"}, 408, "did not come in time: 0 bytes"),
        (gzip.compress(b"x" * 10**6), {"Content_Encoding": "gzip"}, 413, "unpacks to more"),
        (b"{}", {"Inference_Header_Content_Length": "9"}, 400, "Inference-Header-Content-Length"),
        (b"{}", {"Inference_Header_Content_Length": "2\r\nInference-Header-Content-Length: 1"}, 400, "came twice"),
        (b"{}", {"Host": "evil.com"}, 403, "localhost"),
        (b"{}", {"Origin": "http://evil.com"}, 403, "another site"),
        (b"{}", {"X": "x" * 17_000}, 431, "headers"),
    ],
)
def test_bad_requests_get_the_error_of_the_protocol(
    served: Served, body: bytes, headers: dict[str, str], status: int, told: str
) -> None:
    found = served.infer("double", body, **headers)
    assert found.status == status and told in (found.json["error"] if status != 431 else found.body.decode())
    assert served.infer("double", ASKED).status == 200


def test_figures_are_those_of_the_requests(served: Served) -> None:
    def count(status: int) -> float:
        lines = served.ask("/metrics").body.decode().splitlines()
        name = f'convoxel_serve_requests_total{{model="other",status="{status}"}} '
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)

    assert served.infer("other", ASKED).status == 200 and served.infer("other", b"[").status == 400
    assert (count(200), count(400)) == (1, 1)
    lines = served.ask("/metrics").body.decode().splitlines()
    assert 'convoxel_serve_request_seconds_bucket{model="other",le="+Inf"} 2' in lines
    assert 'convoxel_serve_request_seconds_count{model="other"} 2' in lines
    assert "convoxel_serve_queue_length 0" in lines and "convoxel_serve_held_bytes 0" in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and all(line.startswith(("# ", *names)) for line in lines)


def test_a_token_opens_all_but_the_probes() -> None:
    with serving(double(), options=replace(SMALL, token="secret")) as found:
        assert found.ask("/v2/health/live").status == found.ask("/v2/health/ready").status == 200
        for path in ("/v2", "/metrics", "/v2/models/double"):
            assert found.ask(path).status == found.ask(path, Authorization="Bearer secreT").status == 401
            assert found.ask(path, Authorization="Bearer secret", Host="elsewhere").status == 200
        assert found.infer("double", ASKED).status == 401
        assert found.infer("double", ASKED, Authorization="Bearer secret").status == 200


def test_a_full_queue_and_clients_that_leave() -> None:
    busy, go = threading.Event(), threading.Event()
    seen = []

    def wait(x: Any) -> Any:
        seen.append(float(x[0, 0]))
        busy.set()
        assert go.wait(60)
        return x

    def ask(value: float, found: Served) -> socket.socket:
        body = json.dumps({"inputs": [tensor(np.full((1, 2), value, np.float32))]}).encode()
        client = found.connect()
        head = "POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return client

    options = replace(SMALL, rule=QueueRule(length=2))
    with serving(double("slow", compute=wait), options=options) as found:
        queue = found.server.service.queue
        try:
            first = ask(0, found)
            assert busy.wait(60)
            gone = ask(1, found)
            _until(lambda: len(queue) == 1)
            second = ask(2, found)
            _until(lambda: len(queue) == 2)
            full = _answer(ask(3, found))
            assert (
                full.status == 429 and int(full.headers["retry-after"]) >= 1 and "2 requests wait" in full.json["error"]
            )
            gone.close()
            _until(lambda: len(queue) == 1)
        finally:
            go.set()
        assert _answer(first).status == _answer(second).status == 200
        assert seen == [0, 2]  # whoever left is not computed


def _answer(client: socket.socket) -> Answer:
    """Read until the server closes."""
    with client:
        return parse(read_all(client))


def _until(true: Any) -> None:
    """Wait for a state, for half a minute at most."""
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def test_bodies_that_wait_are_bounded_together() -> None:
    with serving(double(), options=SMALL) as found:
        service = found.server.service
        service.held = service.held_bytes
        refused = found.infer("double", ASKED)
        assert refused.status == 429 and "retry-after" in refused.headers
        service.held = 0
        assert found.infer("double", ASKED).status == 200
        _until(lambda: service.held == 0)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    limits = Limits(body_bytes=4096, body_s=0.2, body_rate=1e12)
    model = double(compute=lambda x: np.zeros((8, 2**20), np.float32), joins=False)
    with serving(model, options=ServerOptions(limits=limits)) as found, found.connect() as client:
        body, length = binary(X, parameters={"binary_data_output": True})
        head = f"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body)
        service = found.server.service
        _until(lambda: service.held > 2**20)  # the answer waits, and counts
        _until(lambda: service.held == 0)
        assert len(read_all(client)) < 32 * 2**20


def test_bugs_are_told_without_details(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(x: Any) -> Any:
        raise RuntimeError("secret")

    with serving(double(compute=fail), options=SMALL) as found:
        answer = found.infer("double", ASKED)
    assert answer.status == 500 and "bug" in answer.json["error"] and b"secret" not in answer.body
    assert "secret" in capfd.readouterr().err


def test_the_end_answers_what_is_there_and_takes_no_more() -> None:
    busy, go = threading.Event(), threading.Event()

    def wait(x: Any) -> Any:
        busy.set()
        assert go.wait(60)
        return x

    with serving(double(compute=wait), options=SMALL) as found:
        answers: list[int] = []
        clients = [
            threading.Thread(target=lambda: answers.append(found.infer("double", ASKED).status)) for _ in range(5)
        ]
        try:
            clients[0].start()
            assert busy.wait(60)
            for client in clients[1:]:
                client.start()
            _until(lambda: len(found.server.service.queue) == 4)
            assert found.ask("/v2/health/ready").status == 200
            found.server.handle_exit(15, None)
            assert not found.server.service.ready
            _until(lambda: _is_refused(found))
        finally:
            go.set()
        for client in clients:
            client.join(60)
    assert answers == [200] * 5 and found.server.lost == 0


def _is_refused(found: Served) -> bool:
    try:
        found.connect().close()
    except ConnectionError:
        return True
    return False


def test_tritonclient_works_unchanged() -> None:
    http = pytest.importorskip("tritonclient.http")
    with serving(double(), options=SMALL) as found:
        client = http.InferenceServerClient(f"localhost:{found.port}")
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("double", "1")
        assert client.get_model_metadata("double")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert client.get_model_repository_index()[0]["name"] == "double"
        given = http.InferInput("x", [2, 2], "FP32")
        for by_bytes in (True, False):
            given.set_data_from_numpy(X, binary_data=by_bytes)
            for packed in (None, "gzip", "deflate"):
                wanted = [http.InferRequestedOutput("y", binary_data=by_bytes)]
                how = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
                result = client.infer("double", [given], outputs=wanted, request_id="7", timeout=10**7, **how)
                assert np.array_equal(result.as_numpy("y"), X + X) and result.get_response()["id"] == "7"
            wanted = [http.InferRequestedOutput("y", binary_data=by_bytes, class_count=1)]
            names = client.infer("double", [given], outputs=wanted).as_numpy("y").ravel().tolist()
            assert [name.decode() if by_bytes else name for name in names] == ["4.000000:1:dog", "9.000000:1:dog"]
        assert np.array_equal(client.infer("double", [given]).as_numpy("y"), X + X)
        given = http.InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(Exception, match=r"shape is \[1, 3\]; expected \[-1, 2\]"):
            client.infer("double", [given])
        client.close()
