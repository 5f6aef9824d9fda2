"""Forks and exits beside other threads: locks that a forked child finds free, and work that both wait for.

A forked child has only the thread that forked. What another thread was doing at that moment never ends in the child: a
lock that it held stays locked, and whoever asks for it waits for ever. So either the lock is renewed in the child
(``renewed_lock``), which is right where every statement under it leaves things whole; or the fork waits
(``forks_wait``) for work that others would see half done, such as an import, which holds locks of the interpreter.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

__all__ = ["cached_property", "forks_wait", "renewed_lock"]

T = TypeVar("T")

# logging and concurrent.futures.thread are imported here since they register hooks for before and after a fork. If
# another thread imported them while a fork waits, only the latter would run, and fail.

# Work takes seconds, so new work waits for a fork that waits, lest threads that begin in turns keep it waiting for
# ever. After a longer wait, work that others do probably needs what waits here: a lock of the thread that forks, or of
# the one that would begin. Then new work begins first, since a fork in the midst of work leaves a child that may hang.
_PATIENCE_TO_BEGIN_S = 30.0
_PATIENCE_TO_FORK_S = 120.0

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_changed = threading.Condition()  # held during a fork, so that no thread begins work
_exiting = False
_working: dict[int, int] = {}  # how many blocks of ``forks_wait`` each thread is in
_forking: set[int] = set()  # threads that wait to fork


def renewed_lock() -> threading.RLock:
    """Return a lock that is free in every forked child, and for handlers of signals in the thread that holds it."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


@contextmanager
def forks_wait() -> Iterator[None]:
    """Let the forks of other threads, and the interpreter's exit, wait until the block has ended.

    Blocks do not exclude each other. None begins, but within another of its thread, while a fork waits. Once the
    interpreter exits, only its main thread begins any, and other threads stay at the end of theirs: what follows may
    call the libraries, too, and would race with the exit that waited for the block.
    """
    thread = threading.get_ident()
    with _changed:
        if thread not in _working:
            _changed.wait_for(lambda: not _forking - {thread}, _PATIENCE_TO_BEGIN_S)
            _stay_if_exiting()
        _working[thread] = _working.get(thread, 0) + 1
    try:
        yield
    finally:
        with _changed:
            _working[thread] -= 1
            if not _working[thread]:
                del _working[thread]
                _changed.notify_all()
                _stay_if_exiting()


def _stay_if_exiting() -> None:
    if _exiting and threading.current_thread() is not threading.main_thread():
        _changed.wait_for(lambda: False)  # until the process ends


def _wait_for_others() -> None:
    _changed.wait_for(lambda: not _working.keys() - {threading.get_ident()}, _PATIENCE_TO_FORK_S)


def _before() -> None:
    _changed.acquire()
    _forking.add(threading.get_ident())
    _wait_for_others()


def _is_early() -> bool:
    """Return whether this module was imported while another thread forked: what runs before forks has not run."""
    return threading.get_ident() not in _forking


def _after_in_parent() -> None:
    if _is_early():
        return
    _forking.discard(threading.get_ident())
    _changed.notify_all()
    _changed.release()


def _after_in_child() -> None:
    global _changed
    if _is_early():
        _changed = threading.Condition()  # another thread may hold the lock of the old one
        _changed.acquire()
    _forking.clear()
    me = threading.get_ident()
    for thread in _working.keys() - {me}:
        del _working[thread]
    for lock in list(_locks):
        if not lock._is_owned():  # a handler of a signal may fork in the midst of a block, which the child goes on with
            lock._at_fork_reinit()
    _changed.release()


class _Whole:
    """Something that may be weakly referred to."""


# What is registered last runs first. The first finalizer registers what runs all of them, such as those that take
# PyTorch's operators away; so it is made here, and work ends before operators do.
weakref.finalize(_Whole, _Whole).detach()


@atexit.register
def _at_exit() -> None:
    """Wait for what daemon threads have begun.

    Python ends a thread that comes back to an exiting interpreter by unwinding its stack. Libraries in Rust and C++,
    such as those that open files, answer that by aborting the process; so does whatever PyTorch computes.
    """
    global _exiting
    with _changed:
        _exiting = True
        _wait_for_others()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


class cached_property(Generic[T]):
    """A property that is computed on first use and kept in the instance's ``__dict__``.

    That of ``functools`` holds a lock while it computes (before Python 3.12), one for all instances: threads would wait
    for each other, and forked children for threads that they do not have. Here threads may each compute the value.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> cached_property[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
