"""Odd values: what a caller may give by mistake in place of a right argument, by the name that a report shows."""

from __future__ import annotations

import datetime
import decimal
import fractions
import os
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_HUGE = (10**6, 10**6)  # of a view: as many bytes as no machine has, should one copy it


class Refusing:
    """An object that refuses whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("it does not show itself")

    def __bool__(self) -> bool:
        raise RuntimeError("it is neither true nor false")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("it does not compare")

    __hash__ = object.__hash__


def _endless() -> list[Any]:
    """Return a list that holds itself."""
    values: list[Any] = []
    values.append(values)
    return values


_PLAIN: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 10**6, 10**12, -(10**12), 2**63, 10**30, 2**5000),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63), 2**64),
    *(0.0, -0.0, 0.5, 1.5, 2.0, -1.0, 1e-320, 1e30, float("nan"), float("inf"), -float("inf"), 1j),
    *(
        "",
        " ",
        "a",
        "a,b",
        "1",
        "-1",
        "1.5",
        "nan",
        "none",
        "é\udcff",
        "\0",
        "x" * 5000,
        "{0}",
        "%s",
        "*",
        "[",
        "(" * 300,
    ),
    *(b"", b"a", (), [], {}, (None,), (0,), (1,), (-1,), (1.5,), (10**12,), ("a",), (1, 2), (1, 2, 3)),
    *((1, 2, 3, 4), (1,) * 40, ((1, 1),), ((1, 2, 3),), [[]], [[1, [2]]], {"a": 1}, {1: None}, (float("nan"),)),
    *((True,), ("1", "2"), object, int, len, ..., NotImplemented, type(None)),
)
_MADE: dict[str, Callable[[], Any]] = {
    "a set": lambda: {1, 2},
    "a range": lambda: range(3),
    "an iterator": lambda: iter((1, 2)),
    "a generator": lambda: (i for i in (1, 2)),
    "an object": object,
    "an object that refuses": Refusing,
    "a class that refuses": lambda: Refusing,
    "a list in itself": _endless,
    "a date": lambda: datetime.date(2001, 1, 1),
    "a timedelta": lambda: datetime.timedelta(days=1),
    "Decimal('NaN')": lambda: decimal.Decimal("NaN"),
    "Decimal(3)": lambda: decimal.Decimal(3),
    "Fraction(1, 3)": lambda: fractions.Fraction(1, 3),
    "a namespace": lambda: types.SimpleNamespace(shape=(1, 3), ndim=2),
    "an exception": lambda: ValueError("a"),
    "a function": lambda: lambda *_, **__: None,
    "a path": lambda: Path("nothing"),
    "a path with NUL": lambda: Path("a\0b"),
    "a folder": lambda: Path(),
    "np.int64(2)": lambda: np.int64(2),
    "np.int8(-1)": lambda: np.int8(-1),
    "np.float32(2)": lambda: np.float32(2),
    "np.float32(nan)": lambda: np.float32("nan"),
    "np.bool(1)": lambda: np.bool_(True),
    "np.uint64(2**64 - 1)": lambda: np.uint64(2**64 - 1),
    "np.array(True)": lambda: np.array(True),
    "np.zeros(0, int)": lambda: np.zeros(0, np.int64),
    "np.array([[1, 2]])": lambda: np.array([[1, 2]]),
    "np.str_": lambda: np.str_("a"),
    "np.datetime64": lambda: np.datetime64("2001-01-01"),
    "np.array(1)": lambda: np.array(1),
    "np.array([1, 2])": lambda: np.array([1, 2]),
    "np.zeros(0)": lambda: np.zeros(0, np.float32),
    "np.zeros((2, 0, 3, 3))": lambda: np.zeros((2, 0, 3, 3), np.float32),
    "np.zeros((1,) * 20)": lambda: np.zeros((1,) * 20, np.float32),
    "np complex": lambda: np.zeros((1, 1, 4, 4), np.complex64),
    "np objects": lambda: np.array([None, "a"], object),
    "np strings": lambda: np.array(["a", "b"]),
    "np dates": lambda: np.zeros((1, 1, 4, 4), "datetime64[D]"),
    "np records": lambda: np.zeros(3, [("a", "f4"), ("b", "i8")]),
    "np masked": lambda: np.ma.masked_all((1, 1, 4, 4)),
    "np huge view": lambda: np.broadcast_to(np.float32(1), _HUGE),
    "np huge 4-D view": lambda: np.broadcast_to(np.float32(1), (1, 1, *_HUGE)),
    "torch scalar": lambda: torch.tensor(2),
    "torch int32 scalar": lambda: torch.tensor(2, dtype=torch.int32),
    "torch float scalar": lambda: torch.tensor(2.0),
    "torch bool scalar": lambda: torch.tensor(True),
    "torch.tensor([2])": lambda: torch.tensor([2]),
    "torch.tensor([1, 2])": lambda: torch.tensor([1, 2]),
    "torch nan": lambda: torch.tensor(float("nan")),
    "torch.zeros(0)": lambda: torch.zeros(0),
    "torch.zeros(2, 3)": lambda: torch.zeros(2, 3),
    "torch complex": lambda: torch.zeros(1, 1, 4, 4, dtype=torch.complex64),
    "torch meta": lambda: torch.zeros(1, 1, 4, 4, device="meta"),
    "torch sparse": lambda: torch.eye(3).to_sparse(),
    "torch grad": lambda: torch.zeros(1, 1, 4, 4, requires_grad=True),
    "torch huge view": lambda: torch.zeros(()).expand(_HUGE),
    "torch huge 4-D view": lambda: torch.zeros(()).expand(1, 1, *_HUGE),
    "torch dtype": lambda: torch.float64,
    "a module": lambda: torch.nn.Linear(2, 2),
    "a module without forward": torch.nn.Module,
}


def odd_values() -> dict[str, Callable[[], Any]]:
    """Return what may come in place of any argument: makers, since one value may be spent by its first use."""
    plain = {_shown(value): (lambda value=value: value) for value in _PLAIN}
    return {**plain, **_MADE}


def odd_relatives(value: Any) -> dict[str, Callable[[], Any]]:
    """Return values that resemble the right one ``value``, and are wrong, or right, by a little."""
    if isinstance(value, np.ndarray):
        return {f"it {name}": (lambda change=change: change(value)) for name, change in _ARRAYS.items()}
    if isinstance(value, torch.Tensor):
        return {f"it {name}": (lambda change=change: change(value)) for name, change in _TENSORS.items()}
    if isinstance(value, (tuple, list)) and value:
        kind = type(value) if type(value) in (tuple, list) else tuple
        first, *others = value
        changed = {f"it with {_shown(odd)} first": kind((odd, *others)) for odd in (None, -1, 0, 1.5, "a", 10**12, ())}
        changed |= {
            "it twice": kind((*value, *value)),
            "it without its last": kind(value[:-1]),
            "it in a tuple": (value,),
        }
        return {name: (lambda other=other: other) for name, other in changed.items()}
    if isinstance(value, Mapping) and value:
        first = next(iter(value))
        changed = {
            "it with None": {**value, first: None},
            "it with one more": {**value, "a": 1},
            "its keys": tuple(value),
        }
        return {name: (lambda other=other: other) for name, other in changed.items()}
    if isinstance(value, str):
        changed = {"it in upper case": value.upper(), "it with a": value + "a", "it as bytes": os.fsencode(value)}
        return {name: (lambda other=other: other) for name, other in changed.items()}
    return {}


_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "with an axis more": lambda a: a[None],
    "with an axis less": lambda a: a[0],
    "as list": lambda a: a.tolist(),
    "as int8": lambda a: a.astype(np.int8),
    "as float16": lambda a: a.astype(np.float16),
    "as bool": lambda a: a.astype(bool),
    "as complex": lambda a: a.astype(np.complex128),
    "as objects": lambda a: a.astype(object),
    "as text": lambda a: a.astype(str),
    "in the other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "without samples": lambda a: a[:0],
    "without the last axis": lambda a: a[..., :0],
    "backwards": lambda a: a[::-1],
    "of NaN": lambda a: np.full(a.shape, np.nan, np.float32),
    "of infinity": lambda a: np.full(a.shape, np.inf, np.float32),
    "read-only": lambda a: np.broadcast_to(a[:1], a.shape),
    "as a huge view": lambda a: np.broadcast_to(a[:1], (10**11, *a.shape[1:])),
    "as a huge view of its last axis": lambda a: np.broadcast_to(a[..., :1], (*a.shape[:-1], 10**11)),
    "as tensor": lambda a: torch.from_numpy(np.ascontiguousarray(a)),
}
_TENSORS: dict[str, Callable[[Any], Any]] = {
    "with an axis more": lambda t: t[None],
    "with an axis less": lambda t: t[0],
    "as list": lambda t: t.tolist(),
    "as array": lambda t: t.detach().numpy(),
    "as int8": lambda t: t.to(torch.int8),
    "as float64": lambda t: t.double(),
    "as bool": lambda t: t.bool(),
    "as complex": lambda t: t.to(torch.complex64),
    "without samples": lambda t: t[:0],
    "without the last axis": lambda t: t[..., :0],
    "of NaN": lambda t: torch.full_like(t, float("nan")),
    "on meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "as a huge view": lambda t: t[:1].expand(10**11, *t.shape[1:]),
    "as a huge view of its last axis": lambda t: t[..., :1].expand(*t.shape[:-1], 10**11),
}


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of many digits
        return "2 ** 5000"
    return text if len(text) < 40 else text[:40] + "..."
