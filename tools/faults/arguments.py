"""Arguments: an odd value in place of one argument of a public function is refused in words, or has a result."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.faults.face import Example, Site, changed, examples, run, sites
from tools.faults.more_examples import MORE_EXAMPLES
from tools.faults.odd_values import odd_relatives, odd_values
from tools.faults.scene import Scene
from tools.faults.worker import run_forked

_PROCESSOR_S = 20  # of one call
_PATIENCE_S = 300  # a call that waits for what never comes; a busy machine takes long
_MEMORY = 3 << 30  # beyond what the process has
_SAMPLE = 4  # odd values of each argument in the sample


def count(scene: Scene) -> int:
    """Return how many examples there are."""
    return len(examples(MORE_EXAMPLES))


def check(scene: Scene, number: int) -> str:
    """Run an example again and again, each time with one argument changed, and return what was wrong."""
    example = examples(MORE_EXAMPLES)[number]
    rng = np.random.default_rng([scene.seed, number])
    return " ; ".join(find(scene, example, None if scene.full else rng)[:4])


def find(scene: Scene, example: Example, rng: np.random.Generator | None) -> list[str]:
    """Return all that is wrong; with a generator, a few values of each argument are drawn."""
    wrong: list[str] = []
    seed = None if rng is None else int(rng.integers(1 << 30))
    with scene.room("arguments") as room:
        begun, told = room / "begun", room / "told"
        begun.touch(), told.touch()  # type: ignore[func-returns-value]
        while True:
            done = len(begun.read_text().splitlines())
            ended = run_forked(
                lambda done=done: _vary(scene, example, room, seed, done), seconds=3600, log=room / "log"
            )  # type: ignore[misc]
            if ended.value is not None:
                break
            lines = begun.read_text().splitlines()
            last = lines[-1] if lines else example.name
            if not (ended.code == -signal.SIGVTALRM and "=torch huge" in last):  # PyTorch may sum 10**12 numbers
                wrong.append(f"{last}: the process ended with {ended.code}")
            if len(lines) <= done:
                break
        return wrong + told.read_text().splitlines()


def _vary(scene: Scene, example: Example, room: Path, seed: int | None, done: int) -> int:
    os.chdir(room)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rng = None if seed is None else np.random.default_rng(seed)
    number = 0
    with (room / "begun").open("a") as begun, (room / "told").open("a") as told:
        if not done and (reason := _failure(example, scene)):
            print(f"{example.name}: the example itself fails: {reason}", file=told)
            return 0
        for statement, names, site, title, make in _trials(example, scene, rng):
            number += 1
            if number <= done:
                continue
            line = f"{site.function}({site.name}={title})"
            print(line.encode("ascii", "backslashreplace").decode(), file=begun, flush=True)
            if found := _try(changed(statement, site), {**names}, make):
                print(f"{line}: {found}".encode("ascii", "backslashreplace").decode(), file=told, flush=True)
    return number


_Trial = tuple[ast.stmt, dict[str, Any], Site, str, Callable[[], Any]]


def _failure(example: Example, scene: Scene) -> str:
    """Return why an example fails as it is written, empty if it does not."""
    try:
        names = {**example.names(), "scene": scene}
        with contextlib.redirect_stdout(io.StringIO()):
            for statement in ast.parse(example.source).body:
                run(statement, names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def _trials(example: Example, scene: Scene, rng: np.random.Generator | None) -> Iterator[_Trial]:
    names = {**example.names(), "scene": scene}
    for statement in ast.parse(example.source).body:
        for site in sites(statement, names):
            values = {**odd_values(), **odd_relatives(site.value)}
            chosen = list(values) if rng is None else rng.choice(list(values), _SAMPLE, replace=False).tolist()
            for title in chosen:
                yield statement, names, site, title, values[title]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run(statement, names)
        except Exception:  # odd values that were taken have changed what the next statements use
            return


def _try(statement: ast.stmt, names: dict[str, Any], make: Callable[[], Any]) -> str:
    """Run a statement with an odd value and return what is wrong, empty if nothing is."""
    from convoxel.errors import ConvoxelError

    try:
        names["odd"] = make()
    except Exception:  # no such relative
        return ""
    signal.setitimer(signal.ITIMER_VIRTUAL, _PROCESSOR_S)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run(statement, names)
    except ConvoxelError as error:
        return "" if str(error).strip() else "an error without words"
    except BaseException as error:
        own = callable(names["odd"]) and isinstance(error, TypeError)  # a function that takes other arguments
        return "" if own else _leak(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _leak(error: BaseException) -> str:
    trace, where = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "convoxel" in code.co_filename:
            where = f"{Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    if not where:
        return ""  # the example's own words around the call
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:100]}"
