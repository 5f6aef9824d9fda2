"""Requests wait, are joined, split and refused; no time is measured, the engine waits for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convoxel.errors import ShapeError
from convoxel.files.values import Array
from convoxel.serve.metrics import Metrics
from convoxel.serve.model import ServedModel
from convoxel.serve.queue import Job, Queue, QueueRule
from convoxel.web.request import Refusal
from tests.support.server import double

Y = frozenset("y")


class Engine:
    """Twice as much, once the test lets it go on; the batches that it saw."""

    def __init__(self, fail: Callable[[Array], None] = lambda x: None) -> None:
        self.seen: list[list[float]] = []
        self.busy, self.go, self.fail = threading.Event(), threading.Event(), fail

    def __call__(self, x: Array) -> Array:
        self.busy.set()
        assert self.go.wait(60)
        self.seen.append(x[:, 0].tolist())
        self.fail(x)
        return x + x

    def model(self, **more: Any) -> ServedModel:
        return double(compute=self, **more)


def one(value: float, images: int = 1, size: int = 2) -> list[Array]:
    return [np.full((images, size), value, np.float32)]


def started(
    engine: Engine, rule: QueueRule | None = None, metrics: Metrics | None = None, **more: Any
) -> tuple[Queue, Job]:
    """A queue whose engine computes a first request until it is let go on."""
    queue = Queue(rule or QueueRule(), metrics or Metrics())
    first = queue.submit(engine.model(**more), one(0), Y, None)
    assert engine.busy.wait(60)
    return queue, first


def test_requests_that_wait_are_joined_and_split() -> None:
    engine, metrics = Engine(), Metrics()
    queue, first = started(engine, metrics=metrics)
    jobs = [queue.submit(engine.model(), one(value), Y, None) for value in (1, 2, 3, 4, 5, 6, 7)]
    engine.go.set()
    for value, job in enumerate([first, *jobs]):
        assert job.future.result(60)["y"].tolist() == [[2 * value] * 2]
    assert engine.seen == [[0], [1, 2, 3, 4], [5, 6], [7]]  # so few plans serve all
    assert 'convoxel_serve_batch_images_bucket{model="double",le="2"} 3' in metrics.text()
    assert 'convoxel_serve_images_total{model="double"} 8' in metrics.text()


def test_other_shapes_and_models_are_not_joined_and_the_oldest_comes_first() -> None:
    engine = Engine()
    queue, _ = started(engine, QueueRule(max_batch=4))
    other = engine.model(name="other")
    plan = [(engine.model(), 1, 2), (other, 2, 2), (engine.model(), 3, 3), (engine.model(), 4, 2), (other, 5, 2)]
    jobs = [queue.submit(model, one(value, size=size), Y, None) for model, value, size in plan]
    engine.go.set()
    for (_, value, size), job in zip(plan, jobs, strict=True):
        assert job.future.result(60)["y"].tolist() == [[2 * value] * size]
    assert engine.seen == [[0], [1, 4], [2, 5], [3]]


def test_images_of_a_request_stay_together_within_the_largest_batch() -> None:
    engine = Engine()
    queue, _ = started(engine, QueueRule(max_batch=4))
    jobs = [
        queue.submit(engine.model(), one(value, images), Y, None) for value, images in ((1, 3), (2, 1), (3, 9), (4, 1))
    ]
    engine.go.set()
    assert [len(job.future.result(60)["y"]) for job in jobs] == [3, 1, 9, 1]
    assert engine.seen[1:] == [[1, 1, 1, 2], [3] * 9, [4]]


def test_a_request_waits_for_others_where_a_delay_is_stated() -> None:
    engine = Engine()
    engine.go.set()
    queue = Queue(QueueRule(max_batch=2, max_delay_s=3600.0), Metrics())
    first = queue.submit(engine.model(), one(1), Y, None)
    assert not engine.busy.wait(0.05)
    assert queue.submit(engine.model(), one(2), Y, None).future.result(60)["y"].tolist() == [[4, 4]]
    assert first.future.done() and engine.seen == [[1, 2]]
    last = queue.submit(engine.model(), one(3), Y, None)
    queue.stop()  # nothing will come
    assert last.future.result(60)["y"].tolist() == [[6, 6]]


def test_images_that_are_not_apart_are_computed_alone() -> None:
    engine = Engine()
    asked = []
    queue, _ = started(engine, apart=lambda arrays: asked.append(len(arrays[0])))
    jobs = [
        queue.submit(engine.model(apart=lambda arrays: asked.append(len(arrays[0]))), one(v), Y, None)
        for v in (1, 2, 3)
    ]
    engine.go.set()
    assert [job.future.result(60)["y"][0, 0] for job in jobs] == [2, 4, 6]
    assert engine.seen == [[0], [1], [2], [3]] and asked == [2]


def test_a_failure_is_that_of_one_request() -> None:
    def fail(x: Array) -> None:
        if 2 in x:
            raise ShapeError("two")
        if 3 in x:
            raise MemoryError
        if 4 in x:
            raise ZeroDivisionError

    engine = Engine(fail)
    queue, _ = started(engine)
    jobs = [queue.submit(engine.model(), one(value), Y, None) for value in (1, 2, 3, 4)]
    engine.go.set()
    assert jobs[0].future.result(60)["y"].tolist() == [[2, 2]]
    for job, status, told in ((jobs[1], 400, "two"), (jobs[2], 503, "memory"), (jobs[3], 500, "bug")):
        with pytest.raises(Refusal, match=told) as caught:
            job.future.result(60)
        assert caught.value.status == status
    assert queue.submit(engine.model(), one(9), Y, None).future.result(60)["y"][0, 0] == 18


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    engine = Engine()
    queue, _ = started(engine, QueueRule(length=2))
    jobs = [queue.submit(engine.model(), one(value), Y, None) for value in (1, 2)]
    with pytest.raises(Refusal, match="2 requests wait, the most that may") as caught:
        queue.submit(engine.model(), one(3), Y, None)
    assert caught.value.status == 429 and queue.patience_s(engine.model()) >= 1
    queue.withdraw(jobs[0])
    assert len(queue) == 1
    jobs[0] = queue.submit(engine.model(), one(3), Y, None)
    engine.go.set()
    assert [job.future.result(60)["y"][0, 0] for job in jobs] == [6, 4]


def test_requests_that_waited_too_long_or_whose_clients_left_are_not_computed() -> None:
    engine = Engine()
    queue, _ = started(engine)
    late = queue.submit(engine.model(), one(1), Y, 1e-9)
    gone = queue.submit(engine.model(), one(2), Y, None)
    last = queue.submit(engine.model(), one(3), Y, None)
    queue.withdraw(gone)
    engine.go.set()
    assert last.future.result(60)["y"][0, 0] == 6
    with pytest.raises(Refusal, match="waited") as caught:
        late.future.result(60)
    assert caught.value.status == 504 and engine.seen == [[0], [3]]


def test_a_stopped_queue_finishes_what_waits() -> None:
    engine = Engine()
    queue, first = started(engine)
    second = queue.submit(engine.model(), one(1), Y, None)
    queue.stop()
    with pytest.raises(Refusal, match="ends"):
        queue.submit(engine.model(), one(2), Y, None)
    engine.go.set()
    assert first.future.result(60)["y"][0, 0] == 0 and second.future.result(60)["y"][0, 0] == 2
