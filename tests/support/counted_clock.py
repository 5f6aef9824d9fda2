"""A clock for runs limited by minutes that counts its readings, so that no test depends on the machine's speed."""

from __future__ import annotations

import itertools

import pytest

from convoxel.train import loop, pace, training_run


def count_time(monkeypatch: pytest.MonkeyPatch, tick_s: float = 0.02) -> None:
    """Let the clock of training advance by ``tick_s`` each time that it is read, some four times a step."""
    ticks = itertools.count()
    for module in (loop, pace, training_run):
        monkeypatch.setattr(module, "now", lambda: tick_s * next(ticks))
