"""Fifty pages that look on while a training writes: how soon they are answered, and what they cost the training.

    python -m tools.explorer_load --clients 50 --seconds 60

One training runs all the while. Clients poll the explorer of its folder every two seconds, as a page of that run does,
in stretches of some seconds; between them nobody asks. The training's speed with and without clients is compared
stretch by stretch, so that whatever else the machine does meets both. An otherwise idle machine is wanted. It takes
twice the seconds, and some twenty more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

_PERIOD_S = 2.0
_STRETCH_S = 10.0  # with clients, and as long without: two checkpoints each
_PATIENCE_S = 120.0  # for the first steps of a training


def main() -> None:
    """Measure, and print a line of figures, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="time with clients, in all (default 60)")
    parser.add_argument("--data", default="digits", help="data to classify (default: digits)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = measure(args.clients, args.seconds, args.data)
    if args.json:
        print(json.dumps(found))
        return
    p50, p99, longest = (1e3 * found[name] for name in ("p50_s", "p99_s", "longest_s"))
    single = ", ".join(f"{100 * each:+.1f}" for each in found["slowdowns"])
    print(
        f"{found['clients']} clients for {found['seconds']:g} s, {found['answers']} answers: "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.0f} ms\n"
        f"training: {found['steps_per_s']:.1f} steps/s alone, slower by {100 * found['slowdown']:.1f} % with clients "
        f"({single} in single stretches)"
    )


def measure(clients: int, seconds: float, data: str = "digits") -> dict[str, Any]:
    """Return answer times, and the share by which the training was slower while clients asked."""
    stretches = max(1, round(seconds / _STRETCH_S))
    length = seconds / stretches
    answers: list[float] = []
    alone, watched = [], []
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        with train(run, data) as pace, serve(place) as address:
            pace.wait()
            for _ in range(stretches):
                alone.append(pace.over(length))
                with watch(address, run, clients) as times:
                    watched.append(pace.over(length))
                answers += times
    found = np.array(answers)
    return {
        "clients": clients, "seconds": seconds, "answers": len(found), "p50_s": float(np.median(found)),
        "p99_s": float(np.quantile(found, 0.99)), "longest_s": float(found.max()),
        "steps_per_s": sum(alone) / stretches, "slowdown": 1 - sum(watched) / sum(alone),
        "slowdowns": [1 - slow / fast for slow, fast in zip(watched, alone, strict=True)],
    }  # fmt: skip


class Pace:
    """The speed of a training, read from the file in which it writes its metrics."""

    def __init__(self, run: Path, process: subprocess.Popen[bytes]) -> None:
        self._file, self._process = run / "metrics.jsonl", process

    def wait(self) -> None:
        """Wait until the training has made some steps."""
        over = time.monotonic() + _PATIENCE_S
        while self._last()[0] < 30:
            if self._process.poll() is not None or time.monotonic() > over:
                raise SystemExit("The training made no steps.")
            time.sleep(0.1)

    def over(self, seconds: float) -> float:
        """Return the steps a second in the next ``seconds``, between the first and the last line written in them.

        On a machine so busy that there are no two, it takes longer.
        """
        over = time.monotonic() + seconds
        seen = [self._last()]
        while time.monotonic() < over or len(seen) < 3:
            time.sleep(0.05)
            if (last := self._last()) != seen[-1]:
                seen.append(last)
            if self._process.poll() is not None:
                raise SystemExit("The training ended early.")
        (first, begun), (last_step, ended) = seen[1], seen[-1]
        return (last_step - first) / (ended - begun)

    def _last(self) -> tuple[int, float]:
        """Return the newest step that was written, and the training's time at it; zeros before the first one."""
        with suppress(FileNotFoundError):
            for line in reversed(self._file.read_bytes().splitlines()):
                row = json.loads(line)
                return row["step"], row["time_s"]
        return 0, 0.0


@contextmanager
def train(run: Path, data: str) -> Iterator[Pace]:
    """Train with a validation every tenth step until the end of the block; yields the training's pace."""
    words = ["--epochs", "1000000", "--set", "steps_per_epoch=10", "--set", "validate_every=1", "--set", "width=0.5",
             "--set", "checkpoint_seconds=5", "--set", "validation=100"]  # fmt: skip
    command = [sys.executable, "-m", "convoxel", "train", "classify", "--data", data, "--output", str(run), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Pace(run, process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Address:
    """A running explorer.

    Attributes:
        port: its port.
        name, value: its cookie.
        process: number of its process.
    """

    port: int
    name: str
    value: str
    process: int

    def ask(self, path: str) -> bytes:
        """Return the body of an answer."""
        return request(self.port, path, f"{self.name}={self.value}")[1]


@contextmanager
def serve(*words: str) -> Iterator[Address]:
    """Run an explorer of some words in a process of its own."""
    command = [sys.executable, "-u", "-m", "convoxel", "explore", *words, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            place = process.stdout.readline().strip()
            port, token = int(place.split(":")[2].split("/")[0]), place.partition("token=")[2]
            head, _ = request(port, f"/?token={token}", "")
            cookie = next(line.split(": ")[1] for line in head.splitlines() if line.startswith("set-cookie"))
            name, _, value = cookie.split(";")[0].partition("=")
            address = Address(port, name, value, process.pid)
            for path in ("/api/runs/catalogue", "/runs"):  # the first answers wait for imports
                address.ask(path)
            yield address
        finally:
            os.kill(process.pid, signal.SIGTERM)


@contextmanager
def watch(address: Address, run: Path, clients: int) -> Iterator[list[float]]:
    """Let clients poll until the end; yields the list that their answer times, in seconds, are added to."""
    times: list[float] = []
    over = threading.Event()
    threads = [threading.Thread(target=_poll, args=(address, run, index / clients, over, times), daemon=True)
               for index in range(clients)]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        yield times
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _poll(address: Address, run: Path, phase: float, over: threading.Event, times: list[float]) -> None:
    """Ask as a page does: the list of runs, and the run with the version that is shown."""
    version, number = "", 0
    over.wait(phase * _PERIOD_S)
    while not over.is_set():
        begun = time.perf_counter()
        number += 1
        if number % 3 == 1:
            address.ask("/api/runs/catalogue")
            times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        body = address.ask(f"/api/runs/show?run={quote(str(run))}&over=time&version={version}")
        times.append(time.perf_counter() - begun)
        version = json.loads(body).get("version", "")
        over.wait(max(0.0, _PERIOD_S - (time.perf_counter() - begun)))


def request(port: int, path: str, cookie: str) -> tuple[str, bytes]:
    """Return head and body of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        parts = []
        while part := client.recv(1 << 16):
            parts.append(part)
    found, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return found.decode("latin-1"), body


if __name__ == "__main__":
    main()
