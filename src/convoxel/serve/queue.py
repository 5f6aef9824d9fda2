"""Requests that wait for the engine: bounded, joined where they are alike, each with its deadline.

One thread computes, a batch at a time, with all the threads that the engine has: more of them would share the same
cores. It takes the oldest request, and with it others of the same model and the same shapes. Batches have 1, 2, 4, 8 …
images, so that few plans serve them all. What a batch gives is split again, and a request's results have the bits that
it would get alone: models say whether their images are computed apart. A batch that fails is computed request by
request, so that nobody pays for another's mistake. Requests whose client has gone, or whose time is over, are left out.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from convoxel.errors import ConvoxelError
from convoxel.files.values import Array
from convoxel.serve.metrics import Metrics
from convoxel.serve.model import ServedModel
from convoxel.web.request import Refusal

Results = Mapping[str, Array]
BUG = "this is a bug in Convoxel; the server's standard error shows where. Please report it."


@dataclass(frozen=True)
class QueueRule:
    """The rule by which requests wait.

    Attributes:
        max_batch: the most images of joined requests.
        max_delay_s: seconds that a request waits for others to be joined with, while the engine has nothing to do.
        length: the most requests that wait.
        timeout_s: seconds after which a request is not computed any more.
    """

    max_batch: int = 8
    max_delay_s: float = 0.0
    length: int = 256
    timeout_s: float = 60.0


@dataclass(eq=False)
class Job:
    """A request that waits.

    Attributes:
        model: the model that is asked.
        arrays: its inputs.
        wanted: names of the outputs that are asked for.
        deadline: time after which it is not computed any more.
        future: gets the results, or a ``Refusal``.
        arrived: time at which it came.
    """

    model: ServedModel
    arrays: Sequence[Array]
    wanted: frozenset[str]
    deadline: float
    future: Future[Results] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def images(self) -> int:
        """Number of images; 1 where the first axis does not count them."""
        return self.arrays[0].shape[0] if self.model.joins else 1

    @property
    def key(self) -> Hashable:
        """Requests of equal keys can be joined."""
        return (self.model.name, *(array.shape[1:] for array in self.arrays)) if self.model.joins else id(self)


class Queue:
    """The requests of all models, and the thread that computes them.

    Args:
        rule: as of :class:`QueueRule`.
        metrics: figures that it counts.
    """

    def __init__(self, rule: QueueRule, metrics: Metrics) -> None:
        self.rule, self.metrics = rule, metrics
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._count, self._stopped = 0, False
        self._mixing: set[Hashable] = set()  # keys whose images are not proven to be apart
        self._thread = threading.Thread(target=self._work, name="convoxel-serve", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._count

    def submit(
        self, model: ServedModel, arrays: Sequence[Array], wanted: frozenset[str], timeout_s: float | None
    ) -> Job:
        """Return a new job that waits.

        Raises:
            Refusal: too many wait, or the queue is stopped.
        """
        limit = min(self.rule.timeout_s, timeout_s or math.inf)
        job = Job(model, arrays, wanted, time.monotonic() + limit)
        with self._changed:
            if self._stopped:
                raise Refusal(503, "The server ends; send the request to another one.")
            if self._count >= self.rule.length:
                raise Refusal(429, f"{self._count} requests wait, the most that may; send it again later.")
            self._waiting.setdefault(job.key, deque()).append(job)
            self._count += 1
            self._changed.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Forget a job whose client has gone, unless it is being computed."""
        if not job.future.cancel():
            return
        with self._changed:
            jobs = self._waiting.get(job.key)
            if jobs is not None and job in jobs:
                jobs.remove(job)
                self._count -= 1
                if not jobs:
                    del self._waiting[job.key]

    def patience_s(self, model: ServedModel) -> int:
        """Return the whole seconds after which there will probably be room again."""
        share = self.metrics.computed.mean(model.name) / max(1.0, self.metrics.batches.mean(model.name))
        return max(1, math.ceil(share * self._count / 2))

    def stop(self) -> None:
        """Take no more requests; those that wait are computed."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    # ---- the thread

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            begun = time.monotonic()
            due = []
            for job in jobs:
                if not job.future.set_running_or_notify_cancel():
                    continue  # its client has gone
                self.metrics.waited.add(begun - job.arrived, job.model.name)
                if begun > job.deadline:
                    waited = begun - job.arrived
                    job.future.set_exception(Refusal(504, f"The request waited {waited:.3f} s, longer than it may."))
                else:
                    due.append(job)
            if due:
                self._compute(due)

    def _next(self) -> list[Job] | None:
        """Return the jobs of the next batch, which no longer wait; None once the queue is stopped and empty."""
        with self._changed:
            while True:
                now, sooner = time.monotonic(), math.inf
                chosen: Hashable = None
                oldest = math.inf
                for key, jobs in self._waiting.items():
                    head = jobs[0]
                    left = head.arrived + self.rule.max_delay_s - now
                    alone = not head.model.joins or key in self._mixing or self._stopped
                    if alone or left <= 0 or sum(job.images for job in jobs) >= self.rule.max_batch:
                        if head.arrived < oldest:
                            chosen, oldest = key, head.arrived
                    else:
                        sooner = min(sooner, left)
                if oldest < math.inf:
                    return self._take(chosen)
                if self._stopped and not self._waiting:
                    return None
                self._changed.wait(None if sooner == math.inf else sooner)

    def _take(self, key: Hashable) -> list[Job]:
        jobs = self._waiting[key]
        taken = [jobs.popleft()]
        if key not in self._mixing:
            images = np.cumsum([taken[0].images, *(job.images for job in jobs)])
            fitting = int(np.searchsorted(images, self.rule.max_batch, side="right"))
            if fitting > 1 and images[fitting - 1] < self.rule.max_batch:
                fitting = 1 << (fitting.bit_length() - 1)
            taken += [jobs.popleft() for _ in range(fitting - 1)]
        if not jobs:
            del self._waiting[key]
        self._count -= len(taken)
        return taken

    def _compute(self, jobs: Sequence[Job]) -> None:
        model, key = jobs[0].model, jobs[0].key
        if len(jobs) > 1:
            try:
                arrays = [np.concatenate(parts) for parts in zip(*(job.arrays for job in jobs), strict=True)]
                if model.apart(arrays):
                    results = self._run(model, arrays, frozenset().union(*(job.wanted for job in jobs)))
                    for job, part in zip(jobs, _split(results, [job.images for job in jobs]), strict=True):
                        job.future.set_result(part)
                    return
                self._mixing.add(key)
            except Exception:  # each gets its own answer
                pass
        for job in jobs:
            try:
                job.future.set_result(self._run(model, job.arrays, job.wanted))
            except Exception as error:
                job.future.set_exception(_explained(error))

    def _run(self, model: ServedModel, arrays: Sequence[Array], wanted: frozenset[str]) -> Results:
        begun = time.monotonic()
        results = model.compute(arrays, wanted)
        images = arrays[0].shape[0] if model.joins else 1
        self.metrics.computed.add(time.monotonic() - begun, model.name)
        self.metrics.batches.add(images, model.name)
        self.metrics.images.add(images, model.name)
        return results


def _split(results: Results, counts: Sequence[int]) -> list[Results]:
    ends = np.cumsum(counts)[:-1]
    parts = {name: np.split(array, ends) for name, array in results.items()}
    return [{name: split[number] for name, split in parts.items()} for number in range(len(counts))]


def _explained(error: Exception) -> Refusal:
    """Return what a client is told of an error."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ConvoxelError):
        return Refusal(400, str(error))
    if isinstance(error, MemoryError):
        return Refusal(503, "The memory of the server is used up; send smaller inputs, or send them later.")
    traceback.print_exception(error, file=sys.stderr)
    return Refusal(500, BUG)
