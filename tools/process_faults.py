"""Process faults: exits, signals, forks and imports at random moments while programs run, compile, save and tune.

Run by hand::

    .venv/bin/python -m tools.process_faults                    every situation ten times
    .venv/bin/python -m tools.process_faults 'fork*' --times 3  some of them
    .venv/bin/python -m tools.process_faults --times 100 --json FILE   the whole; what went well is not repeated

A situation runs in a process of its own, forked from this one, and ends as a Python program ends. It is right if it
ends, with the exit code that Python gives without Convoxel, and says nothing on stderr that Python would not say. The
table shows what was wrong; the exit code is 1 if anything was.
"""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import contextlib
import faulthandler
import fnmatch
import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

import convoxel as cx
from convoxel.files import atomic
from convoxel.fork import cached_property

__all__ = ["SITUATIONS", "Situation", "Stage", "prepare"]

_HANGS_S = 300  # without any processor time; on a busy machine, the next comes late
_SPINS_S = 300  # processor time of a situation, which takes seconds
_MOMENT_S = 0.15  # the latest moment at which something happens


class Stage:
    """The things that a situation finds: programs from files, inputs, and the moment at which it is to act."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.rng = random.Random(seed)
        self.moment_s = self.rng.uniform(0, _MOMENT_S)
        self.x = np.random.default_rng(seed).standard_normal((1, 3, 40, 40), np.float32)

    @cached_property
    def program(self) -> cx.Program:
        """A network of native steps on two threads."""
        return self.load("native.cvx")

    @cached_property
    def mixed(self) -> cx.Program:
        """A network whose native steps alternate with NumPy's."""
        return self.load("mixed.cvx")

    def load(self, name: str) -> cx.Program:
        """Return the program in a file of the folder."""
        program = cx.load(self.folder / name, threads=2)
        assert isinstance(program, cx.Program)
        return program

    def wait(self) -> None:
        """Sleep until the moment."""
        time.sleep(self.moment_s)

    def forever(self, call: Callable[[], object], threads: int = 1) -> None:
        """Call again and again in daemon threads, until the process ends."""

        def loop() -> None:
            while True:
                call()

        for _ in range(threads):
            threading.Thread(target=loop, daemon=True).start()

    def until(self, call: Callable[[], object], done: threading.Event) -> threading.Thread:
        """Call again and again in a thread, until the event."""

        def loop() -> None:
            while not done.is_set():
                call()

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    def kill(self, number: int) -> None:
        """Send this process a signal, at the moment, from another thread."""

        def send() -> None:
            self.wait()
            os.kill(os.getpid(), number)

        threading.Thread(target=send, daemon=True).start()

    def new_size(self) -> None:
        """Run the program on a size that is probably not planned yet."""
        self.program(np.zeros((1, 3, self.rng.randint(8, 64), self.rng.randint(8, 64)), np.float32))

    def save(self) -> None:
        """Write the program to a file of this thread."""
        self.program.save(self.folder / f"{os.getpid()}-{threading.get_ident()}.cvx")

    def tune(self) -> None:
        """Measure algorithms; nothing is remembered, so that every call measures."""
        os.environ["CONVOXEL_CACHE"] = ""
        self.program.tuned(self.x)

    def mistake(self) -> None:
        """Make mistakes that the engine and the package refuse."""
        for call in (
            lambda: cx.conv(self.x, np.ones((4, 3, 3, 3), np.float32), algorithm="winograd(9)"),
            lambda: cx.native.Plan(-1, 1),
            lambda: self.program(self.x[0]),
        ):
            with contextlib.suppress(cx.ConvoxelError):
                call()

    def conv(self) -> None:
        """Convolve."""
        cx.conv(self.x, np.ones((4, 3, 3, 3), np.float32), threads=2)

    def in_child(self, work: Callable[[], object]) -> None:
        """Fork; the child works and exits, the parent waits for it and checks its exit code."""
        child = os.fork()
        if child == 0:
            work()
            raise SystemExit(0)  # the way out of Python, not os._exit
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"a child ended with {os.waitstatus_to_exitcode(status)}"

    def right(self, program: cx.Program | None = None) -> None:
        """Run a program, with threads and without, and compare."""
        program = program or self.program
        assert (program(self.x) == program.replace(threads=1)(self.x)).all(), "threads differ"


class Situation(NamedTuple):
    """A course of events in a process, the exit code that it shall have, and whether it needs PyTorch."""

    name: str
    run: Callable[[Stage], object]
    code: int = 0
    torch: bool = False


SITUATIONS: list[Situation] = []


def situation(code: int = 0, torch: bool = False) -> Callable[[Callable[[Stage], object]], Callable[[Stage], object]]:
    """Put a function into the list of situations, under its name."""

    def add(function: Callable[[Stage], object]) -> Callable[[Stage], object]:
        SITUATIONS.append(Situation(function.__name__, function, code, torch))
        return function

    return add


# ---- exit --------------------------------------------------------------------------------------------------


def _exit_beside(name: str, work: Callable[[Stage], Callable[[], object]], threads: int = 1) -> None:
    """Add the situation that the main thread ends at the moment while daemon threads work."""

    def run(stage: Stage) -> None:
        stage.forever(work(stage), threads)
        stage.wait()

    SITUATIONS.append(Situation(f"exit_beside_{name}", run))


_exit_beside("runs", lambda stage: functools.partial(stage.program, stage.x))
_exit_beside("runs_of_many_threads", lambda stage: functools.partial(stage.program, stage.x), 6)
_exit_beside("runs_with_numpy", lambda stage: functools.partial(stage.mixed, stage.x), 3)
_exit_beside("convolutions", lambda stage: stage.conv, 3)
_exit_beside("profiles", lambda stage: functools.partial(stage.program.profile, stage.x), 2)
_exit_beside("planning", lambda stage: stage.new_size, 2)
_exit_beside("loads", lambda stage: lambda: stage.load("native.cvx"), 2)
_exit_beside("saves", lambda stage: stage.save)
_exit_beside("tuning", lambda stage: stage.tune)
_exit_beside("mistakes", lambda stage: stage.mistake, 2)


@situation()
def exit_beside_the_first_load(stage: Stage) -> None:
    """A daemon thread opens a file, and imports what it needs for that, as the main thread ends."""
    stage.forever(lambda: stage.load("native.cvx"))
    time.sleep(stage.moment_s / 10)


@situation(7)
def exit_with_a_code(stage: Stage) -> NoReturn:
    """The main thread leaves by sys.exit."""
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.wait()
    sys.exit(7)


@situation(5)
def exit_at_once(stage: Stage) -> NoReturn:
    """The main thread leaves by os._exit."""
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.wait()
    os._exit(5)


@situation(1)
def exit_by_an_exception(stage: Stage) -> NoReturn:
    """The main thread ends with an exception that nobody catches."""
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.wait()
    raise RuntimeError("meant")


@situation()
def exit_of_a_thread(stage: Stage) -> None:
    """A thread leaves by sys.exit, which ends it alone."""
    stage.forever(lambda: stage.program(stage.x))
    thread = threading.Thread(target=lambda: (stage.program(stage.x), sys.exit(3)))
    thread.start()
    stage.wait()
    thread.join()
    stage.right()


@situation()
def exit_with_handlers(stage: Stage) -> None:
    """Exit handlers run programs beside daemon threads that do."""
    stage.forever(lambda: stage.program(stage.x), 2)
    atexit.register(stage.right)
    atexit.register(stage.right, stage.mixed)
    stage.wait()


@situation()
def exit_with_a_finaliser(stage: Stage) -> None:
    """An object whose __del__ runs a program lives until the interpreter ends."""

    class Owner:
        program, x = stage.program, stage.x

        def __del__(self) -> None:
            self.program(self.x)

    sys.modules["__main__"].owner = Owner()  # type: ignore[attr-defined]
    stage.forever(lambda: stage.program(stage.x))
    stage.wait()


@situation()
def exit_with_an_executor(stage: Stage) -> None:
    """An executor is full of work when the main thread ends; Python waits for it."""
    pool = concurrent.futures.ThreadPoolExecutor(3)
    for _ in range(30):
        pool.submit(stage.program, stage.x)
    stage.wait()


@situation()
def exit_at_the_first_use(stage: Stage) -> None:
    """A daemon thread uses the package for the first time as the main thread ends."""
    code = (
        "import threading, time, sys\n"
        "def work():\n"
        "    import numpy as np, convoxel as cx\n"
        "    while True: cx.conv(np.ones((1, 3, 32, 32), np.float32), np.ones((4, 3, 3, 3), np.float32))\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        f"time.sleep({stage.moment_s * 4})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-300:]}"


# ---- signals -----------------------------------------------------------------------------------------------


@situation(-signal.SIGINT)
def interrupt(stage: Stage) -> None:
    """Control-C in a run ends the process as it ends any Python program."""
    stage.program(stage.x)
    stage.kill(signal.SIGINT)
    while True:
        stage.program(stage.x)


@situation()
def interrupt_that_is_caught(stage: Stage) -> None:
    """After a KeyboardInterrupt the program works as before."""
    programs, began = (stage.program, stage.mixed), threading.Event()

    def send() -> None:
        began.wait()
        stage.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()
    try:
        began.set()
        while True:
            for program in programs:
                program(stage.x)
    except KeyboardInterrupt:
        pass
    for program in programs:
        stage.right(program)


@situation(-signal.SIGTERM)
def terminate(stage: Stage) -> None:
    """SIGTERM without a handler ends the process at once."""
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.kill(signal.SIGTERM)
    while True:
        stage.program(stage.x)


@situation(143)
def terminate_with_a_handler(stage: Stage) -> None:
    """A handler of SIGTERM that leaves by sys.exit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.kill(signal.SIGTERM)
    while True:
        stage.program(stage.x)


@situation()
def alarms_that_run_programs(stage: Stage) -> None:
    """A handler that runs the program while it runs."""
    expected, rung = stage.program(stage.x), []
    small = np.ascontiguousarray(stage.x[:, :, :16, :16])

    def ring(*_: object) -> None:
        rung.append(stage.program(small))
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # only now, since alarms within handlers would nest for ever

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    begun = time.monotonic()
    while len(rung) < 5 or time.monotonic() < begun + stage.moment_s:
        assert (stage.program(stage.x) == expected).all()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


@situation()
def profiling_signals(stage: Stage) -> None:
    """A thousand SIGPROF a second, as sampling profilers send them, change no result."""
    expected, seen = stage.program(stage.x), []
    signal.signal(signal.SIGPROF, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    begun = time.monotonic()
    while not seen or time.monotonic() < begun + stage.moment_s:
        assert (stage.program(stage.x) == expected).all()
    signal.setitimer(signal.ITIMER_PROF, 0)


@situation()
def children_that_end(stage: Stage) -> None:
    """SIGCHLD from children that end while programs run."""
    ended: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: ended.append(1))
    stage.forever(lambda: stage.program(stage.x))
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    while child.poll() is None:
        stage.right()
    assert child.returncode == 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@situation()
def stopped_and_continued(stage: Stage) -> None:
    """The process is stopped and continued."""
    expected = stage.program(stage.x)
    me = os.getpid()
    helper = os.fork()
    if helper == 0:
        stage.wait()
        os.kill(me, signal.SIGSTOP)
        stage.wait()
        os.kill(me, signal.SIGCONT)
        os._exit(0)
    while os.waitpid(helper, os.WNOHANG) == (0, 0):
        assert (stage.program(stage.x) == expected).all()


# ---- fork --------------------------------------------------------------------------------------------------


def _fork_beside(name: str, work: Callable[[Stage], Callable[[], object]], threads: int = 3) -> None:
    """Add the situation that the main thread forks twice while daemon threads work; the children work too."""

    def run(stage: Stage) -> None:
        stage.forever(work(stage), threads)
        for _ in range(2):
            time.sleep(stage.moment_s / 2)
            stage.in_child(lambda: (stage.right(), stage.right(stage.mixed), stage.new_size(), stage.conv()))

    SITUATIONS.append(Situation(f"fork_beside_{name}", run))


_fork_beside("runs", lambda stage: functools.partial(stage.program, stage.x))
_fork_beside("runs_with_numpy", lambda stage: functools.partial(stage.mixed, stage.x))
_fork_beside("planning", lambda stage: stage.new_size)
_fork_beside("loads", lambda stage: lambda: stage.load("native.cvx")(stage.x))
_fork_beside("saves", lambda stage: stage.save)
_fork_beside("tuning", lambda stage: stage.tune, 1)
_fork_beside("mistakes", lambda stage: stage.mistake)


@situation()
def fork_during_the_first_use(stage: Stage) -> None:
    """A thread uses the engine and a module of the package for the first time while another one forks."""
    code = (
        "import os, sys, threading, time, numpy as np, convoxel as cx\n"
        "x, w = np.ones((1, 3, 32, 32), np.float32), np.ones((4, 3, 3, 3), np.float32)\n"
        "threading.Thread(target=lambda: cx.conv(x, w)).start()\n"
        f"time.sleep({stage.moment_s})\n"
        "child = os.fork()\n"
        "cx.conv(x, w)\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-300:]}"


@situation()
def fork_from_a_thread(stage: Stage) -> None:
    """Not the main thread forks; in the child it is the only one."""
    stage.forever(lambda: stage.program(stage.x), 2)
    failed: list[BaseException] = []

    def fork() -> None:
        try:
            stage.wait()
            child = os.fork()
            if child == 0:
                stage.right()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=fork) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


@situation()
def fork_in_a_forked_child(stage: Stage) -> None:
    """Children of children, each beside threads of its own."""

    def again(depth: int) -> None:
        stage.right()
        if depth:
            stage.forever(lambda: stage.program(stage.x), 2)
            time.sleep(stage.moment_s / 3)
            stage.in_child(lambda: again(depth - 1))

    again(3)


@situation()
def fork_and_exit_of_the_child_beside_runs(stage: Stage) -> None:
    """The child starts daemon threads of its own, and ends."""
    stage.forever(lambda: stage.program(stage.x), 2)

    def work() -> None:
        stage.forever(lambda: stage.program(stage.x), 2)
        stage.wait()

    stage.in_child(work)


@situation()
def fork_in_a_signal_handler(stage: Stage) -> None:
    """A handler forks while the main thread is in a run; the child goes on with the run."""
    expected, children = stage.program(stage.x), []

    def fork(*_: object) -> None:
        children.append(os.fork())

    signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not children:
        assert (stage.program(stage.x) == expected).all()
    stage.right()
    if children[0]:
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


@situation()
def other_programs_are_started(stage: Stage) -> None:
    """subprocess, with and without a function that runs in the child."""
    stage.forever(lambda: stage.program(stage.x), 3)
    stage.wait()
    subprocess.run(["true"], check=True)
    subprocess.run(["true"], check=True, preexec_fn=os.setpgrp)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)


def _total(job: tuple[Path, int]) -> float:
    stage = Stage(*job)
    return float(stage.program(stage.x).sum())


def _pool(stage: Stage, method: str) -> None:
    stage.forever(lambda: stage.program(stage.x), 2)
    stage.wait()
    jobs = [(stage.folder, seed) for seed in range(4)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_total, jobs) == [_total(job) for job in jobs]


@situation()
def multiprocessing_by_fork(stage: Stage) -> None:
    """A pool of forked processes."""
    _pool(stage, "fork")


@situation()
def multiprocessing_by_spawn(stage: Stage) -> None:
    """A pool of fresh processes."""
    _pool(stage, "spawn")


@situation()
def multiprocessing_by_a_server(stage: Stage) -> None:
    """A pool of processes that a server forks."""
    _pool(stage, "forkserver")


# ---- imports, and PyTorch ----------------------------------------------------------------------------------


@situation()
def imports_beside_runs(stage: Stage) -> None:
    """Libraries are loaded while programs run."""
    code = (
        "import sys, threading, time\n"
        "import numpy as np, convoxel as cx\n"
        f"program, x = cx.load({str(stage.folder / 'native.cvx')!r}), np.ones((1, 3, 40, 40), np.float32)\n"
        "expected, done, wrong = program(x), [], []\n"
        "def work():\n"
        "    while not done: wrong.extend([1] if (program(x) != expected).any() else [])\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "[thread.start() for thread in threads]\n"
        f"time.sleep({stage.moment_s})\n"
        "import sqlite3, ssl, ctypes, decimal, lzma, PIL.Image, safetensors, convoxel.arithmetic, convoxel.graph.load\n"
        "done.append(1); [thread.join() for thread in threads]; sys.exit(len(wrong))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-300:]}"


@situation()
def first_import_beside_pytorch_s(stage: Stage) -> None:
    """One thread imports PyTorch, another one convoxel, and runs."""
    code = (
        "import sys, threading, time\n"
        "def work():\n"
        f"    time.sleep({stage.moment_s * 10})\n"
        "    import numpy as np, convoxel as cx\n"
        f"    cx.load({str(stage.folder / 'native.cvx')!r})(np.ones((1, 3, 40, 40), np.float32))\n"
        "thread = threading.Thread(target=work); thread.start()\n"
        "import torch\n"
        "thread.join()\n"
        "import convoxel as cx\n"
        "cx.compile(torch.nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8))(torch.zeros(1, 3, 8, 8))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-300:]}"


def _network() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()


def _compile(network: Any = None) -> cx.Program:
    return cx.compile(network or _network(), np.zeros((1, 3, 12, 12), np.float32), threads=2)


@situation(torch=True)
def exit_beside_compilation(stage: Stage) -> None:
    """The main thread ends while another one compiles a network; making one aborts in PyTorch, without us."""
    stage.forever(functools.partial(_compile, _network()))
    stage.wait()


@situation(torch=True)
def exit_beside_runs_on_tensors(stage: Stage) -> None:
    """The main thread ends while others run a program on tensors."""
    import torch

    x = torch.from_numpy(stage.x)
    stage.forever(lambda: stage.program(x), 3)
    stage.wait()


@situation(torch=True)
def fork_beside_compilation(stage: Stage) -> None:
    """The main thread forks while others compile; the child compiles too."""
    for _ in range(2):
        stage.forever(functools.partial(_compile, _network()))
    stage.wait()
    stage.in_child(lambda: stage.right(_compile()))


@situation(torch=True)
def fork_beside_the_first_compilation(stage: Stage) -> None:
    """As before, with the moment within the imports of the first compilation."""
    stage.forever(functools.partial(_compile, _network()))
    time.sleep(stage.moment_s * 10)
    stage.in_child(lambda: stage.right(_compile()))


@situation(torch=True)
def workers_of_a_data_loader(stage: Stage) -> None:
    """Forked workers of PyTorch's DataLoader run a program that the parent has used."""
    import torch

    class Samples(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.from_numpy(stage.program(stage.x + np.float32(index))[0])

    stage.forever(lambda: stage.program(stage.x))
    stage.wait()
    loaded = torch.cat(list(torch.utils.data.DataLoader(Samples(), num_workers=2)))
    assert (loaded.numpy() == np.concatenate([stage.program(stage.x + np.float32(i)) for i in range(6)])).all()


@situation(torch=True)
def threads_of_all_kinds(stage: Stage) -> None:
    """Threads compile, save, load, tune and run beside each other; every result is right."""
    done, expected, failed = threading.Event(), stage.program(stage.x), []

    def checked(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except BaseException as error:
                failed.append(error)
                done.set()

        return run

    def run() -> None:
        assert (stage.program(stage.x) == expected).all()

    works = (run, run, stage.save, stage.tune, stage.new_size, lambda: stage.right(_compile()), stage.mistake)
    threads = [stage.until(checked(work), done) for work in works]
    stage.wait()
    done.set()
    for thread in threads:
        thread.join()
    assert not failed, failed


# ---- running them ------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Write the programs that situations load."""
    import torch
    from torch import nn

    class Mixed(nn.Module):
        """Convolutions with a sum along an axis between them, which NumPy computes."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.cumsum(torch.relu(self.first(x)), 2))

    torch.manual_seed(0)
    native = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 4, 1),
    )  # fmt: skip
    x = torch.zeros(1, 3, 40, 40)
    cx.compile(native.eval(), x).save(folder / "native.cvx")
    cx.compile(Mixed().eval(), x).save(folder / "mixed.cvx")


def run_once(case: Situation, folder: Path, seed: int) -> str:
    """Run a situation in a forked process and return what was wrong, "" if nothing."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.setpgid(0, 0)  # so that its own children die with it where it hangs
            faulthandler.enable()
            faulthandler.register(signal.SIGUSR2)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            case.run(Stage(folder, seed))
            raise SystemExit(0)
        status = _wait(child)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if status is None:
        return f"seed {seed} hangs: {_first(text)}"
    code = os.waitstatus_to_exitcode(status)
    if code != case.code:
        return f"seed {seed} ends with {code}, not {case.code}: {_first(text)}"
    return f"seed {seed} says {_first(text)}" if text.strip() and code in (0, 7) else ""


def _wait(child: int) -> int | None:
    """Return the status with which a process ends, None if neither it nor its children compute any more."""
    seen, since, tick = -1, time.monotonic(), 0
    while time.monotonic() < since + _HANGS_S:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.005 if tick < 100 else 0.02)
        tick += 1
        if tick % 100 == 0 and (now := _ticks(child)) != seen and now < _SPINS_S * os.sysconf("SC_CLK_TCK"):
            seen, since = now, time.monotonic()
    os.killpg(child, signal.SIGUSR2)  # where it hangs
    time.sleep(1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _ticks(group: int) -> int:
    """Return the processor time that the processes of a group have taken."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:13])) if int(fields[2]) == group else 0
    return total


def _first(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-4:])[-400:] or "nothing"


def _new_programs() -> Path:
    """Return a new folder with the programs, which a child makes, so that it alone loads PyTorch."""
    folder = Path(tempfile.mkdtemp())  # not TemporaryDirectory, which every situation would remove as it ends
    child = os.fork()
    if child == 0:
        prepare(folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the programs could not be made"
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Run situations and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], help="situations, as patterns")
    parser.add_argument("--times", type=int, default=10, help="runs of each situation (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first moment (default 0)")
    parser.add_argument("--folder", type=Path, help="folder with the programs (default: they are made)")
    parser.add_argument("--json", type=Path, help="file of results; what went well is not repeated")
    options = parser.parse_args(arguments)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    wanted = [s for s in SITUATIONS if any(fnmatch.fnmatchcase(s.name, name) for name in options.names)]
    folder, failed = options.folder or _new_programs(), False
    for case in sorted(wanted, key=lambda case: case.torch):
        if case.torch:
            import torch  # noqa: F401, here, so that no other situation has it
        right, wrong = set(known.get(case.name, ())), []
        for seed in range(options.seed, options.seed + options.times):
            if seed not in right:
                reason = run_once(case, folder, seed)
                wrong += [reason] if reason else []
                right |= set() if reason else {seed}
        if options.json:
            known[case.name] = sorted(right)
            atomic.write_json(options.json, known)
        failed |= bool(wrong)
        print(f"{options.times - len(wrong):4} of {options.times}  {case.name}", flush=True)
        print(*(f"       {reason}\n" for reason in wrong[:3]), sep="", end="", flush=True)
    if options.folder is None:
        shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which are the subject
    main()
