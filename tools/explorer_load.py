"""Fifty pages that look on while a training writes: how soon they are answered, and what they cost the training.

    python -m tools.explorer_load --clients 50 --seconds 60

A training of a fixed number of steps runs alone, and again while clients poll the explorer of its folder every two
seconds, as a page of that run does; both take turns, so that whatever else the machine does meets both. Printed: median
and largest answer times, p99, and by how much the training was slower. An otherwise idle machine is wanted.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np

_PERIOD_S = 2.0


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="about as long as a training takes")
    parser.add_argument("--turns", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--data", default="digits", help="data to classify (default: digits)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        steps = measure_steps(folder, args.data, args.seconds)
        alone, watched, answers = [], [], []
        for turn in range(args.turns):
            alone.append(train(folder / f"alone-{turn}", args.data, steps))
            with (
                serve(folder) as (port, cookie),
                watch(port, cookie, folder / f"watched-{turn}", args.clients) as times,
            ):
                watched.append(train(folder / f"watched-{turn}", args.data, steps))
            answers += times
    found = np.array(answers)
    slower = min(watched) / min(alone) - 1
    print(json.dumps({
        "clients": args.clients, "answers": len(found), "steps": steps,
        "median_s": float(np.median(found)), "p99_s": float(np.quantile(found, 0.99)), "largest_s": float(found.max()),
        "alone_s": alone, "watched_s": watched, "slower": slower,
    }))  # fmt: skip


def train(run: Path, data: str, steps: int) -> float:
    """Train a number of steps with a validation every tenth, and return the seconds that the steps took."""
    every = max(1, steps // 20)
    words = ["--epochs", str(-(-steps // every)), "--set", f"steps_per_epoch={every}", "--set", "validate_every=1",
             "--set", "width=0.5", "--set", "checkpoint_seconds=5", "--set", "validation=100"]  # fmt: skip
    command = [sys.executable, "-m", "convoxel", "train", "classify", "--data", data, "--output", str(run), *words]
    subprocess.run(command, check=True, capture_output=True)
    rows = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(rows[-1])["time_s"])


def measure_steps(folder: Path, data: str, seconds: float) -> int:
    """Return how many steps take about so many seconds."""
    few = 100
    return max(few, round(few * seconds / train(folder / "trial", data, few)))


@contextmanager
def serve(folder: Path) -> Iterator[tuple[int, str]]:
    """Run an explorer of a folder in a process of its own; yields its port and a cookie."""
    command = [sys.executable, "-u", "-m", "convoxel", "explore", str(folder), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        port, token = int(address.split(":")[2].split("/")[0]), address.partition("token=")[2]
        head, _ = request(port, f"/?token={token}", "")
        cookie = next(line.split(": ")[1].split(";")[0] for line in head.splitlines() if line.startswith("set-cookie"))
        for path in ("/api/runs/catalogue", "/runs"):  # the first answers wait for imports
            request(port, path, cookie)
        yield port, cookie
    finally:
        process.terminate()
        process.wait()


@contextmanager
def watch(port: int, cookie: str, run: Path, clients: int) -> Iterator[list[float]]:
    """Let clients poll until the end; yields the list that their answer times, in seconds, are added to."""
    times: list[float] = []
    over = threading.Event()
    threads = [threading.Thread(target=_poll, args=(port, cookie, run, index / clients, over, times))
               for index in range(clients)]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        yield times
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _poll(port: int, cookie: str, run: Path, phase: float, over: threading.Event, times: list[float]) -> None:
    """Ask as a page does: the list of runs, and the run with the version that is shown."""
    version, number = "", 0
    over.wait(phase * _PERIOD_S)
    while not over.is_set():
        begun = time.perf_counter()
        number += 1
        if number % 3 == 1:
            request(port, "/api/runs/catalogue", cookie)
            times.append(time.perf_counter() - begun)
        if (run / "checkpoints").is_dir():
            begun = time.perf_counter()
            _, body = request(port, f"/api/runs/show?run={quote(str(run))}&over=time&version={version}", cookie)
            times.append(time.perf_counter() - begun)
            version = json.loads(body).get("version", "")
        over.wait(_PERIOD_S - (time.perf_counter() - begun))


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
