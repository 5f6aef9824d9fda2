"""Programs in processes that exit, fork and get signals: a sample of ``tools.process_faults``, and its mechanisms."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convoxel as cx
from convoxel import fork
from convoxel.fork import cached_property, forks_wait, renewed_lock
from tools.process_faults import prepare

ROOT = Path(__file__).parents[1]
SAMPLE = [
    "exit_beside_runs", "exit_beside_mistakes", "exit_beside_the_first_load", "interrupt_that_is_caught",
    "alarms_that_run_programs",
    "fork_beside_planning", "fork_beside_loads", "fork_in_a_signal_handler",
]  # fmt: skip


def test_exits_signals_and_forks_at_any_moment(tmp_path: Path) -> None:
    prepare(tmp_path)
    command = [sys.executable, "-m", "tools.process_faults", "--folder", str(tmp_path), "--times", "1", *SAMPLE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 of 1") == len(SAMPLE)


def in_child(work: object) -> int:
    """Return the exit code of a forked child: 0 where ``work()`` is true."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)  # type: ignore[operator]
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestForks:
    def test_a_lock_that_another_thread_holds_is_free_in_the_child(self) -> None:
        lock, held, done = renewed_lock(), threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        assert in_child(lambda: lock.acquire(blocking=False)) == 0
        assert not lock.acquire(blocking=False)
        done.set()
        thread.join()

    def test_a_child_goes_on_with_the_blocks_of_the_thread_that_forked(self) -> None:
        """As a handler of a signal may fork in the midst of one; the lock is free behind it, for other threads too."""
        lock, taken = renewed_lock(), []

        def leave() -> bool:
            lock.release()
            thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
            thread.start()
            thread.join()
            return taken == [True]

        lock.acquire()
        assert in_child(leave) == 0
        lock.release()

    def test_a_fork_waits_for_the_work_of_other_threads(self) -> None:
        begun, order = threading.Event(), []

        def work() -> None:
            with forks_wait(), forks_wait():
                begun.set()
                for _ in range(1000):
                    order.append(len(order))
                order.append("whole")

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        assert in_child(lambda: order[-1] == "whole") == 0
        thread.join()
        with forks_wait():  # its own work lets no thread wait for itself
            assert in_child(lambda: True) == 0

    def test_an_import_in_the_midst_of_a_fork_finds_its_lock_free(self) -> None:
        """Other hooks of the same fork, or threads beside it, may import this package for the first time."""
        code = (
            "import os, logging, concurrent.futures.thread\n"  # whose own hooks fail when they are imported so
            "os.register_at_fork(before=lambda: __import__('convoxel.fork'))\n"
            "child = os.fork()\n"
            "from convoxel.fork import forks_wait\n"
            "with forks_wait():\n"
            "    grandchild = os.fork()\n"
            "if grandchild == 0:\n"
            "    os._exit(0)\n"
            "assert os.waitpid(grandchild, 0)[1] == 0\n"
            "if child == 0:\n"
            "    os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    def test_threads_that_work_in_turns_do_not_keep_a_fork_waiting(self) -> None:
        """Each ends its work once the other has begun, or cannot begin."""
        done, changed, begun, within = threading.Event(), threading.Condition(), [0, 0], set()

        def work(me: int) -> None:
            while not done.is_set():
                with forks_wait(), changed:
                    within.add(me)
                    begun[me] += 1
                    changed.notify()
                    changed.wait_for(lambda before=begun[1 - me]: begun[1 - me] > before, timeout=0.3)  # type: ignore[misc]
                    within.discard(me)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(2)]
        for thread in threads:
            thread.start()
        assert [in_child(lambda: not within) for _ in range(3)] == [0] * 3
        done.set()
        for thread in threads:
            thread.join()

    def test_a_value_is_computed_once_for_an_instance_and_without_a_lock(self) -> None:
        class Counted:
            calls = 0

            @cached_property
            def value(self) -> int:
                """A number."""
                self.calls += 1
                return self.calls

        counted = Counted()
        assert (counted.value, counted.value, counted.calls) == (1, 1, 1)
        assert Counted.value.__doc__ == "A number."


def test_a_daemon_thread_stays_at_the_end_of_a_block_that_the_exit_waited_for() -> None:
    """Libraries in C++, which may be called next, abort the process where Python ends a thread within them."""
    code = (
        "import os, threading, time\n"
        "from convoxel.fork import forks_wait\n"
        "begun = threading.Event()\n"
        "def work():\n"
        "    with forks_wait():\n"
        "        begun.set()\n"
        "        time.sleep(0.3)\n"
        "        os.write(1, b'whole')\n"
        "    os.write(1, b', and went on')\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "begun.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "whole"


def test_a_compilation_uses_pytorch_within_blocks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the exit waits for it; PyTorch aborts where a thread comes back to an exiting interpreter."""
    from convoxel.graph import verification
    from convoxel.graph.read.torch import torch_call

    me, within = threading.get_ident(), []

    class Rolled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            within.append(me in fork._working)
            return torch.roll(x, 1, 3)

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            within.append(me in fork._working)
            return function(*arguments, **named)

        return call

    for holder, name in ((torch.Tensor, "detach"), (torch.Tensor, "cpu"), (verification, "check_program")):
        monkeypatch.setattr(holder, name, noted(getattr(holder, name)))
    monkeypatch.setattr(torch_call, "map_nested", noted(torch_call.map_nested))
    program = cx.compile(Rolled(), np.zeros((1, 1, 4, 4), np.float32), verify=True)
    program(torch.zeros(1, 1, 4, 4))
    assert len(within) > 4 and all(within)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux alone")
def test_threads_of_the_engine_take_no_signals() -> None:
    """Every thread that Python did not start blocks them, so that handlers run in the threads of the program."""
    code = (
        "import threading, time, numpy as np, convoxel as cx\n"
        "from pathlib import Path\n"
        "cx.conv(np.ones((1, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32), threads=3)\n"
        "others = {t.name for t in Path('/proc/self/task').iterdir()} - {str(threading.get_native_id())}\n"
        "def mask(thread):\n"
        "    lines = Path(f'/proc/self/task/{thread}/status').read_text().splitlines()\n"
        "    return int(next(line.split()[1] for line in lines if 'SigBlk' in line), 16)\n"
        "for _ in range(1000):  # a thread that is starting blocks all signals\n"
        "    masks = [mask(thread) for thread in others]\n"
        "    if not any(m >> 10 & 1 for m in masks): break\n"
        "    time.sleep(0.01)\n"
        "print(*map(hex, masks))\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    masks = [int(mask, 16) for mask in done.stdout.split()]
    assert len(masks) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF):
        assert all(mask >> (number - 1) & 1 for mask in masks), number
    assert not any(mask >> (signal.SIGSEGV - 1) & 1 for mask in masks)


def test_paths() -> None:
    program = cx.native.Plan(0, 1)  # any object that is no path
    for path in (1, None, 1.5, np.array(1), program, "a\0.onnx", ["a.onnx"]):
        with pytest.raises(cx.ConfigError, match="path"):
            cx.load(path)  # type: ignore[arg-type]
