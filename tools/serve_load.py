"""Clients that ask ``convoxel serve`` as fast as it answers, and ONNX Runtime behind the same server.

    python -m tools.serve_load resnet50 --engines high,bfloat16,onnxruntime --seconds 45
    python -m tools.serve_load resnet50 --engines float32 --kill 10 --seconds 40

Every engine has a server in a process of its own, with the same queue and the same joining of requests. They take turns
of some seconds, so that whatever else the machine does meets all of them. Each client has a connection, and one of a
few images, which it sends as bytes again and again; every answer is compared with that of a single request, bit by bit.
A request that fails, or that nobody answers within a minute, is lost. With ``--kill`` a server is killed with SIGKILL
every so many seconds, and started again at the same port; then clients ask again, and what counts is that every one
gets right answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.bench.network_list import select_networks

_IMAGES = 4  # different ones, so that an answer that went to another client is found out
_TURN_S = 5.0
_PATIENCE_S = 60.0
ENGINES = ("float32", "high", "bfloat16", "onnxruntime")


def main() -> None:
    """Measure, and print a line for each engine, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="a name of the list of `convoxel bench networks`, such as resnet50 or unet2d")
    parser.add_argument("--engines", default="high,bfloat16,onnxruntime", help=f"some of {', '.join(ENGINES)}")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="time under load, of each engine (default 60)")
    parser.add_argument("--max-batch", type=int, default=8, help="most images that are joined (default 8)")
    parser.add_argument("--kill", type=float, default=0.0, help="seconds between two SIGKILLs (default: none)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", help=argparse.SUPPRESS)  # the file that a child serves in ONNX Runtime
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        raise SystemExit(_serve_onnxruntime(Path(args.serve), args.port, args.max_batch))
    engines = args.engines.split(",")
    if unknown := set(engines) - set(ENGINES):
        parser.error(f"--engines: got {', '.join(sorted(unknown))}; expected some of {', '.join(ENGINES)}")
    found = measure(args.network, engines, args.clients, args.seconds, args.max_batch, args.kill)
    if args.json:
        print(json.dumps(found))
        return
    for engine, row in found.items():
        print(
            f"{args.network} {engine}: {row['per_s']:.1f} requests/s, p50 {1e3 * row['p50_s']:.0f} ms, "
            f"p99 {1e3 * row['p99_s']:.0f} ms, longest {1e3 * row['longest_s']:.0f} ms; {row['answers']} answers to "
            f"{args.clients} clients, {row['lost']} lost, {row['differ']} not those of single requests, "
            f"{row['batch']:.1f} images a batch" + (f", {row['kills']} kills" if args.kill else "")
        )
    peer = found.get("onnxruntime")
    for engine, row in found.items():
        if peer and row is not peer:
            print(f"{engine}: {row['per_s'] / peer['per_s']:.2f} × ONNX Runtime's requests/s")


def measure(
    name: str, engines: Sequence[str], clients: int, seconds: float, max_batch: int = 8, kill_s: float = 0.0
) -> dict[str, dict[str, float]]:
    """Return figures of each engine under load."""
    network = select_networks([name])[0]
    turns = 1 if kill_s else max(1, round(seconds / _TURN_S))
    loads = {engine: Load(clients) for engine in engines}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "net.onnx"
        _write(network, path)
        images = np.random.default_rng(0).standard_normal((_IMAGES, *network.shape(1)), np.float32)
        servers = {engine: stack.enter_context(Server(engine, path, max_batch)) for engine in engines}
        for engine in engines:
            loads[engine].prepare(servers[engine], images)
        for _ in range(turns):
            for engine in engines:
                loads[engine].run(servers[engine], seconds / turns, kill_s)
        return {engine: {**loads[engine].figures(), **servers[engine].figures()} for engine in engines}


def _write(network: Any, path: Path) -> None:
    import torch

    import convoxel as cx

    cx.compile(network.build(), torch.zeros(network.shape(1))).to_onnx(path)


class Server:
    """A server in a process of its own."""

    def __init__(self, engine: str, path: Path, max_batch: int) -> None:
        words = ["--max-batch", str(max_batch), "--port"]
        self._command = [sys.executable, "-u", "-m", "convoxel", "serve", str(path), "--precision", engine, *words]
        if engine == "onnxruntime":
            self._command = [sys.executable, "-u", "-m", "tools.serve_load", "-", "--serve", str(path), *words]
        self.port, self.kills, self._process = 0, 0, None

    def __enter__(self) -> Server:
        self._start()
        return self

    def _start(self) -> None:
        command = [*self._command, str(self.port)]
        self._process: Any = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self._process.stdout.readline()
        if not line.startswith("http://"):
            raise SystemExit(f"{' '.join(command)}: it did not start.")
        self.port = int(line.split(":")[2].split("/")[0])

    def restart(self) -> None:
        """Kill the process, and start another one at the same port."""
        self._process.kill()
        self._process.communicate()
        self.kills += 1
        self._start()

    def figures(self) -> dict[str, float]:
        """Return the mean batch and the number of kills."""
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            lines = dict(line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if line[0] != "#")
        total, count = (float(lines[f'convoxel_serve_batch_images_{each}{{model="net"}}']) for each in ("sum", "count"))
        return {"batch": total / count, "kills": self.kills}

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate()


@dataclass
class Load:
    """Clients, and what they were answered.

    Attributes:
        clients: number of clients.
        times: seconds of each answer.
        seconds: time under load.
        lost: requests without an answer.
        differ: answers that were not those of single requests.
    """

    clients: int
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0
    differ: int = 0
    requests: list[bytes] = field(default_factory=list)
    expected: list[bytes] = field(default_factory=list)

    def prepare(self, server: Server, images: Any) -> None:
        """Ask once for each image, alone; its answer is the right one."""
        for image in images:
            given = {"name": _input_name(server.port), "shape": list(image.shape), "datatype": "FP32"}
            given["parameters"] = {"binary_data_size": image.nbytes}
            head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
            sizes = f"Content-Length: {len(head) + image.nbytes}\r\nInference-Header-Content-Length: {len(head)}"
            lines = f"POST /v2/models/net/infer HTTP/1.1\r\nHost: localhost\r\n{sizes}\r\n\r\n"
            self.requests.append(lines.encode() + head + image.tobytes())
            with _connected(server.port) as client:
                for _ in range(2):
                    status, body = _ask(client, self.requests[-1])
                    assert status == 200, body
            self.expected.append(body)

    def run(self, server: Server, seconds: float, kill_s: float) -> None:
        """Let all clients ask for some seconds."""
        over, begun = time.monotonic() + seconds, time.monotonic()
        threads = [
            threading.Thread(target=self._client, args=(server, number % len(self.requests), over, bool(kill_s)))
            for number in range(self.clients)
        ]
        for thread in threads:
            thread.start()
        while kill_s and time.monotonic() + kill_s < over:
            time.sleep(kill_s)
            server.restart()
        for thread in threads:
            thread.join()
        self.seconds += time.monotonic() - begun

    def _client(self, server: Server, number: int, over: float, again: bool) -> None:
        client = None
        while time.monotonic() < over:
            begun = time.monotonic()
            try:
                client = client or _connected(server.port)
                status, body = _ask(client, self.requests[number])
            except OSError:
                if client is not None:
                    client.close()
                client = None
                if again:
                    time.sleep(0.05)
                else:
                    self.lost += 1
                continue
            self.times.append(time.monotonic() - begun)
            self.lost += status != 200
            self.differ += status == 200 and body != self.expected[number]
        if client is not None:
            client.close()

    def figures(self) -> dict[str, float]:
        """Return answers a second, their times, and what went wrong."""
        times = np.array(self.times)
        return {
            "answers": len(times), "per_s": len(times) / self.seconds, "p50_s": float(np.median(times)),
            "p99_s": float(np.quantile(times, 0.99)), "longest_s": float(times.max()), "lost": self.lost,
            "differ": self.differ,
        }  # fmt: skip


def _input_name(port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/net") as reply:
        return str(json.load(reply)["inputs"][0]["name"])


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _ask(client: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    client.sendall(request)
    found = b""
    while b"\r\n\r\n" not in found:
        part = client.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed the connection")
        found += part
    head, _, first = found.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    size = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
    body = bytearray(first)
    while len(body) < size:
        part = client.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        body += part
    return int(lines[0].split()[1]), bytes(body)


def _serve_onnxruntime(path: Path, port: int, max_batch: int) -> int:
    """Serve a file of ONNX as the model ``net``, computed by ONNX Runtime with all threads."""
    import onnxruntime

    from convoxel.native.machine import default_threads
    from convoxel.serve.model import ServedModel, TensorFacts
    from convoxel.serve.queue import QueueRule
    from convoxel.serve.running import ServerOptions, run_server
    from convoxel.web.server import bind

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = default_threads(), 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def facts(values: Any) -> tuple[TensorFacts, ...]:
        return tuple(TensorFacts.of(value.name, "float32", value.shape) for value in values)

    def compute(arrays: Sequence[Any], wanted: frozenset[str]) -> Mapping[str, Any]:
        names = [each.name for each in inputs]
        return dict(zip(wanted, session.run(list(wanted), dict(zip(names, arrays, strict=True))), strict=True))

    inputs = facts(session.get_inputs())
    model = ServedModel("net", inputs, facts(session.get_outputs()), compute, "onnxruntime", joins=True)
    with bind(port, 0) as listener:
        say = lambda address, models: print(f"{address}/v2/models/net", flush=True)  # noqa: E731
        return run_server({"net": model}, listener, ServerOptions(rule=QueueRule(max_batch)), say)


if __name__ == "__main__":
    main()
