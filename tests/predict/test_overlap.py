"""Steps that overlap: order, bounds, errors, interrupts."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from convoxel.predict.overlap import Check, overlap

_LONG_S = 60.0  # only a test that fails waits so long


class Steps:
    """Steps that note what they do; each can be made to fail or to wait."""

    def __init__(self, count: int = 4) -> None:
        self.items = range(count)
        self.was_read = [threading.Event() for _ in self.items]
        self.was_written = [threading.Event() for _ in self.items]
        self.threads: set[tuple[str, bool]] = set()
        self.waited: list[float] = []

    def note(self, step: str) -> None:
        self.threads.add((step, threading.current_thread() is threading.main_thread()))

    def read(self, item: int) -> int:
        self.note("read")
        self.was_read[item].set()
        return item

    def compute(self, item: int, check: Check) -> int:
        self.note("compute")
        return 10 * item

    def write(self, item: int, waited: float) -> int:
        self.note("write")
        self.waited.append(waited)
        self.was_written[item // 10].set()
        return item + 1

    def results(self) -> Generator[int, None, None]:
        return overlap(self.items, self.read, self.compute, self.write)


def test_an_item_is_computed_while_its_neighbours_are_read_and_written() -> None:
    class Waiting(Steps):
        def compute(self, item: int, check: Check) -> int:
            if 0 < item < 3:
                assert self.was_read[item + 1].wait(_LONG_S)
                assert self.was_written[item - 1].wait(_LONG_S)
            assert not any(event.is_set() for event in self.was_read[item + 2 :])  # no more than one ahead
            assert all(event.is_set() for event in self.was_written[: max(0, item - 1)])  # nor behind
            return super().compute(item, check)

    steps = Waiting()
    assert list(steps.results()) == [1, 11, 21, 31]
    assert steps.threads == {("read", False), ("compute", True), ("write", False)}
    assert len(steps.waited) == 4 and min(steps.waited) >= 0


def test_waiting_is_told() -> None:
    class Slow(Steps):
        def read(self, item: int) -> int:
            time.sleep(0.02 * (item == 2))
            return super().read(item)

        def write(self, item: int, waited: float) -> int:
            time.sleep(0.02 * (item == 20))
            return super().write(item, waited)

    steps = Slow()
    list(steps.results())
    assert steps.waited[2] > 0.01 and steps.waited[3] > 0.01


def test_one_item_and_none_need_no_threads() -> None:
    steps = Steps(1)
    assert list(steps.results()) == [1] and {main for _, main in steps.threads} == {True} and steps.waited == [0.0]
    assert list(Steps(0).results()) == []


@pytest.mark.parametrize("step", ["read", "compute", "write"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_the_results_before_it(step: str, kind: type[BaseException]) -> None:
    steps = Steps()
    plain = getattr(steps, step)

    def fail(item: int, *more: object) -> int:
        if item == (20 if step == "write" else 2):
            raise kind
        found: int = plain(item, *more)
        return found

    setattr(steps, step, fail)
    found = list[int]()
    with pytest.raises(kind):
        found += steps.results()
    assert found == [1, 11]
    for thread in reading():  # an interrupt leaves the reader alone
        thread.join()


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if type(thread).__name__ == "_Task"]


def test_an_interrupt_waits_for_the_writer_and_not_for_the_reader() -> None:
    class Slow(Steps):
        end = threading.Event()

        def read(self, item: int) -> int:
            self.was_read[item].set()
            assert item < 2 or self.end.wait(_LONG_S)
            return item

        def compute(self, item: int, check: Check) -> int:
            if item == 1:
                assert self.was_read[2].wait(_LONG_S)
                raise KeyboardInterrupt
            return super().compute(item, check)

        def write(self, item: int, waited: float) -> int:
            assert self.was_read[2].wait(_LONG_S)
            return super().write(item, waited)

    steps, found = Slow(), list[int]()
    with pytest.raises(KeyboardInterrupt):
        found += steps.results()
    assert found == [1] and len(reading()) == 1  # what was being written is written
    steps.end.set()
    for thread in reading():
        thread.join()


def test_results_that_nobody_takes_are_written() -> None:
    steps = Steps()
    results = steps.results()
    assert next(results) == 1
    results.close()
    assert steps.was_written[1].is_set() and not steps.was_read[3].is_set() and not reading()


def test_a_writer_that_fails_ends_the_computation() -> None:
    class Full(Steps):
        def write(self, item: int, waited: float) -> int:
            raise OSError(28, "full")

        def compute(self, item: int, check: Check) -> int:
            begun = time.monotonic()
            while item == 1:
                check()
                assert time.monotonic() - begun < _LONG_S
            return super().compute(item, check)

    with pytest.raises(OSError, match="full"):
        list(Full().results())
