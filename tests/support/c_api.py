"""The C interface (``csrc/capi/include/convoxel.h``), called in this process: the engine's module holds it as well."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.native import _core

OK, ARGUMENT, FILE, SHAPE, UNSUPPORTED, MEMORY, INTERNAL = range(7)
MOST_AXES = 8

Floats = NDArray[np.float32]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("axes", ctypes.c_int),
        ("shape", ctypes.c_int64 * MOST_AXES),
    ]


def library(path: str | None = None) -> ctypes.CDLL:
    """Return the interface: of a shared library, or of the engine's module."""
    found = ctypes.CDLL(path or _core.__file__)
    for name in ("version", "instruction_set", "last_error", "input_name", "result_name"):
        getattr(found, f"convoxel_{name}").restype = ctypes.c_char_p
    for name in ("input_count", "result_count"):
        getattr(found, f"convoxel_{name}").restype = ctypes.c_size_t
        getattr(found, f"convoxel_{name}").argtypes = [ctypes.c_void_p]
    for name in ("input_name", "result_name"):
        getattr(found, f"convoxel_{name}").argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    pointer = ctypes.POINTER(Tensor)
    for name in ("input", "result"):
        getattr(found, f"convoxel_{name}").argtypes = [ctypes.c_void_p, ctypes.c_size_t, pointer]
    found.convoxel_load_bytes.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    found.convoxel_load_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    found.convoxel_free.argtypes = [ctypes.c_void_p]
    found.convoxel_set_threads.argtypes = [ctypes.c_void_p, ctypes.c_int]
    for name in ("prepare", "run"):
        how = [ctypes.c_void_p, pointer, ctypes.c_size_t, pointer, ctypes.c_size_t]
        getattr(found, f"convoxel_{name}").argtypes = how
    return found


class CError(Exception):
    """A call that failed: its status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason


class Network:
    """A program of the C interface."""

    def __init__(self, source: Path | bytes, api: ctypes.CDLL | None = None) -> None:
        self.api = api or library()
        self.pointer = ctypes.c_void_p()
        where = ctypes.byref(self.pointer)
        if isinstance(source, bytes):
            self._check(self.api.convoxel_load_bytes(source, len(source), where))
        else:
            self._check(self.api.convoxel_load_file(str(source).encode(), where))

    def __del__(self) -> None:
        self.api.convoxel_free(self.pointer)

    def _check(self, status: int) -> None:
        if status != OK:
            raise CError(status, self.api.convoxel_last_error().decode())

    def ports(self, kind: str) -> list[tuple[str, tuple[int, ...]]]:
        """Return names and shapes of the inputs, or the results; −1 is an open length."""
        found = []
        for index in range(getattr(self.api, f"convoxel_{kind}_count")(self.pointer)):
            tensor = Tensor()
            self._check(getattr(self.api, f"convoxel_{kind}")(self.pointer, index, ctypes.byref(tensor)))
            found.append((tensor.name.decode(), tuple(tensor.shape[: tensor.axes])))
        return found

    def set_threads(self, threads: int) -> None:
        self._check(self.api.convoxel_set_threads(self.pointer, threads))

    def prepare(self, *shapes: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the shapes of the results."""
        inputs = [described(None, shape) for shape in shapes]
        results = (Tensor * self.api.convoxel_result_count(self.pointer))()
        given = (Tensor * len(inputs))(*inputs)
        self._check(self.api.convoxel_prepare(self.pointer, given, len(given), results, len(results)))
        return [tuple(tensor.shape[: tensor.axes]) for tensor in results]

    def __call__(self, *arrays: Floats) -> list[Floats]:
        results = [np.full(shape, np.nan, np.float32) for shape in self.prepare(*(array.shape for array in arrays))]
        given = (Tensor * len(arrays))(*(described(array, array.shape) for array in arrays))
        wanted = (Tensor * len(results))(*(described(array, ()) for array in results))
        self._check(self.api.convoxel_run(self.pointer, given, len(given), wanted, len(wanted)))
        return results


def described(array: Floats | None, shape: Sequence[int], name: str | None = None) -> Tensor:
    """Return an array as the interface takes it."""
    tensor = Tensor(name.encode() if name else None, None, 0, len(shape))
    if array is not None:
        tensor.data, tensor.count = array.ctypes.data, array.size
    tensor.shape[: len(shape)] = tuple(shape)
    return tensor
