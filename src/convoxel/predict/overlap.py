"""Steps of consecutive items that overlap: one is computed while the next is read and the one before is written.

There is one reader and one writer, each a thread that is at most one item ahead or behind, so that three items are held
at a time, however many there are. What is computed stays in the caller's thread, which interrupts reach.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Result = TypeVar("Result")

#: Raises what the writer has raised, so that nobody computes for long what cannot be written.
Check = Callable[[], None]


def overlap(
    items: Sequence[Item],
    read: Callable[[Item], Loaded],
    compute: Callable[[Loaded, Check], Computed],
    write: Callable[[Computed, float], Result],
) -> Generator[Result, None, None]:
    """Yield the result of each item, in order; one item alone is computed without threads.

    Before an error or an interrupt goes on, what is being written is finished, and its result is yielded. An interrupt
    does not wait for the reader, which ends with its item: what it reads leaves nothing behind.

    Args:
        items: what is worked on.
        read: first step, in the reader's thread.
        compute: second step, in the caller's thread; it may call its second argument from time to time.
        write: last step, in the writer's thread; its second argument is how many seconds the computation waited for
            the reader to bring the item, and for the writer to take it.

    >>> list(overlap("abc", str.upper, lambda item, check: item * 2, lambda item, waited: item + "!"))
    ['AA!', 'BB!', 'CC!']
    """
    if len(items) == 1:
        yield write(compute(read(items[0]), lambda: None), 0.0)
        return
    coming: _Task[Loaded] | None = None
    going: _Task[Result] | None = None
    try:
        for number, item in enumerate(items):
            coming = coming or _Task(read, item)
            waited, loaded = _timed(coming.result)
            coming = _Task(read, items[number + 1]) if number + 1 < len(items) else None
            computed = compute(loaded, going.check if going else lambda: None)
            del loaded  # the reader has taken its place
            before = going
            if before is None:
                going = _Task(write, computed, waited)
                continue
            more, result = _timed(before.result)
            going = _Task(write, computed, waited + more)
            del computed
            yield result
        if going is not None:
            last, going = going.result(), None
            yield last
    except GeneratorExit:
        raise
    except BaseException as error:
        if not isinstance(error, Exception):
            coming = None
        if going is not None:
            going.join()
            if going.error is None:
                yield going.value
        raise
    finally:
        if coming is not None:
            coming.join()
        if going is not None:
            going.join()


def _timed(call: Callable[[], Result]) -> tuple[float, Result]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


class _Task(threading.Thread, Generic[Result]):
    """A call in a thread of its own, in the caller's context; the end of the program does not wait for it.

    Attributes:
        value: its result, once it has ended without an error.
        error: the exception that ended it.
    """

    value: Result

    def __init__(self, call: Callable[..., Result], *given: object) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        context = contextvars.copy_context()
        self._call: Callable[[], Result] | None = lambda: context.run(call, *given)
        self.start()

    def run(self) -> None:
        """Call, and keep what comes."""
        call, self._call = self._call, None  # what it was given is held no longer than it is needed
        assert call is not None
        try:
            self.value = call()
        except BaseException as error:
            self.error = error

    def result(self) -> Result:
        """Wait for the result; what the call raised is raised here."""
        self.join()
        self.check()
        return self.value

    def check(self) -> None:
        """Raise what the call has raised so far."""
        if self.error is not None:
            raise self.error
