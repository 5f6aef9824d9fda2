"""A case in a process of its own: forked, so that nothing is imported again, and watched."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """The end of a forked process: what its function returned, its signal or exit code, its time and its memory.

    ``seconds`` are those of the processor, since a busy machine makes nothing wrong.
    """

    value: Any
    code: int
    seconds: float
    grown_bytes: int
    said: str = ""


def run_forked(work: Callable[[], Any], *, seconds: float = 600.0, log: Path | None = None) -> Ended:
    """Run ``work`` in a forked process and return how it ended.

    Args:
        work: what to run; its result goes through JSON.
        seconds: the process is killed after so long.
        log: file that takes what it prints.
    """
    reading, writing = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        _serve(work, writing, log)
    os.close(writing)
    content = b""
    while True:
        left = begun + seconds - time.perf_counter()
        ready = select.select([reading], [], [], max(left, 0.0))[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        content += piece
    os.close(reading)
    _, status, usage = os.wait4(child, 0)
    taken = usage.ru_utime + usage.ru_stime
    value: Any = None
    before = 0
    with contextlib.suppress(ValueError):
        before, value = json.loads(content)
    said = log.read_text(errors="replace") if log is not None and log.exists() else ""
    return Ended(value, os.waitstatus_to_exitcode(status), taken, max(usage.ru_maxrss * 1024 - before, 0), said)


def _serve(work: Callable[[], Any], writing: int, log: Path | None) -> None:
    code = 1
    try:
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        before = _resident()
        value = work()
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps((before, value)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
