"""Cases computed by processes of a Ray cluster, each of which holds the networks; one that dies loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.errors import CheckpointError, ConfigError, ConvoxelError, DataError, UnsupportedError
from convoxel.files.fault import shown
from convoxel.graph.threads import VARIABLE, limit_threads
from convoxel.predict.case_batch import Batch, Work, failed, predict_batches
from convoxel.predict.case_key import hash_recipe
from convoxel.predict.case_manifest import CaseRecord
from convoxel.predict.inference import Predictor

# A case whose worker dies so often is the reason itself, mostly because it takes more memory than there is.
_TRIES = 3
# Batches that a worker gets at a time: reading and writing overlap within them, and the last are shared out evenly.
_MOST_AT_ONCE = 8
# Ray keeps results of a few kilobytes in shared memory; 80 MB is about the least that it takes.
_STORE_BYTES = 80 * 10**6
_PATIENCE_S = 10.0


class Worker:
    """A process that computes cases; it loads the networks when the first ones come.

    Args:
        build: returns the predictor.
        threads: threads of the process.
    """

    def __init__(self, build: Callable[[], Predictor], threads: int) -> None:
        self._build = build
        self._predictor: Predictor | None = None
        self._limit = contextlib.ExitStack()  # kept: what is collected is closed
        self._limit.enter_context(limit_threads(threads))

    def predict(self, batches: Sequence[Batch], work: Work) -> Iterator[list[CaseRecord]]:
        """Yield the records of batches of cases, whose steps overlap.

        Raises:
            CheckpointError: the networks are others than those that the archive began with.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the process that hands out the cases has warned
            predictor = self._predictor or self._build()
            if self._predictor is None:
                if hash_recipe(predictor, work.options) != work.recipe:
                    raise CheckpointError(
                        "run: a worker finds other networks, another device or another version of Convoxel than the "
                        "process that hands out the images; expected the same everywhere until all are done. "
                        "Leave the run as it is, name the --device, or start again."
                    )
                self._predictor = predictor
            yield from predict_batches(predictor, batches, work)


@dataclass(frozen=True)
class RayWorkers:
    """Workers on a Ray cluster.

    Attributes:
        build: returns the predictor; it is called in each worker.
        address: the cluster's ("auto", "HOST:PORT", "ray://HOST:PORT"); None starts one on this machine, which ends
            with the prediction.
        count: number of workers (default: one for each machine of the cluster).
    """

    build: Callable[[], Predictor]
    address: str | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse a number of workers below 1, and a machine without Ray."""
        if self.count is not None and self.count < 1:
            raise ConfigError(f"workers: got {self.count}; expected at least 1. Leave it out for one a machine.")
        _ray()

    def run(self, batches: Sequence[Batch], work: Work) -> Generator[list[CaseRecord], None, None]:
        """Yield the records of each batch, in the order in which batches are done.

        A worker that dies is replaced, and what it had begun is begun again.

        Raises:
            ConfigError: there is no such cluster.
            ConvoxelError: as :func:`convoxel.predict.case_batch.predict_batches`.
        """
        if not batches:
            return
        with _connected(self.address) as ray:
            yield from self._spread(ray, batches, work)

    def _spread(self, ray: Any, batches: Sequence[Batch], work: Work) -> Generator[list[CaseRecord], None, None]:
        count, threads = _share_out(ray, self.count, len(batches))
        actor = ray.remote(num_cpus=threads, max_restarts=0)(Worker)
        waiting = deque(range(len(batches)))
        running: dict[Any, tuple[deque[int], Any]] = {}  # numbers of batches without records so far, the worker
        tries: dict[int, int] = {}
        idle: list[Any] = []
        try:
            while waiting or running:
                while waiting and len(running) < count:
                    worker = idle.pop() if idle else actor.remote(self.build, threads)
                    numbers = _take(waiting, count, tries)
                    stream = worker.predict.options(num_returns="streaming")
                    running[stream.remote([list(batches[number]) for number in numbers], work)] = numbers, worker
                (ready,), _ = ray.wait(list(running), num_returns=1)
                numbers, worker = running[ready]
                try:
                    found = ray.get(next(ready))
                    numbers.popleft()
                    yield found
                except StopIteration:
                    del running[ready]
                    idle.append(worker)
                except ray.exceptions.RayTaskError as error:
                    raise _own(error) from None
                except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
                    del running[ready]
                    ray.kill(worker)
                    for number in reversed(numbers):  # one of them is the reason, maybe: each is alone the next time
                        tries[number] = tries.get(number, 0) + 1
                        if tries[number] < _TRIES:
                            waiting.appendleft(number)
                        else:
                            yield [failed(case, _death(case.path), work) for case in batches[number]]
        finally:
            for worker in (*idle, *(worker for _, worker in running.values())):
                ray.kill(worker)


def _take(waiting: deque[int], workers: int, tries: Mapping[int, int]) -> deque[int]:
    """Take numbers of batches for one worker; one with which a worker has died is alone."""
    share = -(-len(waiting) // (2 * workers))
    taken = deque([waiting.popleft()])
    while waiting and len(taken) < min(share, _MOST_AT_ONCE) and not tries.keys() & {taken[0], waiting[0]}:
        taken.append(waiting.popleft())
    return taken


def parse_place(on: str) -> str | None:
    """Return the address of ``ray`` or ``ray:ADDRESS``; None for the former.

    Raises:
        ConfigError: it is neither.

    >>> parse_place("ray"), parse_place("ray:10.0.0.1:6379"), parse_place("ray://head:10001")
    (None, '10.0.0.1:6379', 'ray://head:10001')
    """
    name, colon, address = on.partition(":")
    if name != "ray" or (colon and not address):
        raise ConfigError(f"on: got {on!r}; expected ray, or ray:ADDRESS such as ray:auto or ray:10.0.0.1:6379.")
    return (on if address.startswith("//") else address) or None


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else workers here wait for every other program
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError("on: ray is not installed. Get it: pip install 'convoxel[cluster]'.") from error
    return ray


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; one that was started here ends with the block."""
    ray = _ray()
    if ray.is_initialized():  # by the program that calls us, whose cluster it stays
        yield ray
        return
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if address is None:
        local["num_cpus"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    answer = signal.getsignal(signal.SIGTERM)
    try:
        _check_answer(address)
        ray.init(
            address="local" if address is None else address,
            log_to_driver=False,
            logging_level="ERROR",
            **(local if address is None else {}),
        )
    except (OSError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigError(f"on: no Ray cluster answers at {address or 'this machine'} ({told}).") from None
    if threading.current_thread() is threading.main_thread():  # Ray's own way to end by SIGTERM gives no exit code 143
        signal.signal(signal.SIGTERM, answer)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answer(address: str | None) -> None:
    """Raise OSError where nothing answers at HOST:PORT, for which Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isascii() and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()


def _share_out(ray: Any, count: int | None, most: int) -> tuple[int, int]:
    """Return the number of workers, no more than there are batches, and the threads of each."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    count = count or max(1, len(nodes))
    cores = int(ray.cluster_resources().get("CPU", 1))
    stated = os.environ.get(VARIABLE)
    threads = int(stated) if stated else max(1, cores // count)
    widest = max((int(node["Resources"].get("CPU", 1)) for node in nodes), default=1)
    return min(count, most), max(1, min(threads, widest))


def _own(error: Any) -> Exception:
    """Return the error that a worker raised."""
    cause = getattr(error, "cause", error)
    return cause if isinstance(cause, ConvoxelError) else error


def _death(path: object) -> DataError:
    return DataError(
        f"{shown(path)}: its worker died {_TRIES} times; expected one that can compute it. Free memory, or give fewer "
        "--workers, which have more of it."
    )
