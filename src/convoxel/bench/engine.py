"""The engines that run whole networks, each prepared and called as its users would.

A network lies in a folder: ``net.cvx`` for ours, ``net.onnx`` for those that read ONNX, ``x.npy`` the input. PyTorch
builds the network anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.bench.comparison import OURS
from convoxel.bench.network_list import Network
from convoxel.bench.peer import ONNX_ENGINES, call_pytorch

Floats = NDArray[np.float32]
Run = Callable[[], object]


@dataclass(frozen=True)
class Task:
    """A task for an engine: a network, the folder with its files, and the number of threads."""

    network: Network
    folder: Path
    threads: int

    @property
    def x(self) -> Floats:
        """The input."""
        return np.asarray(np.load(self.folder / "x.npy"))


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        prepare: returns a call that runs the task and returns the result of the network; see ``first_output``.
        needs: packages of the engine; they are imported before memory and time are counted.
        dims: numbers of spatial axes that it supports.
    """

    prepare: Callable[[Task], Run]
    needs: tuple[str, ...]
    dims: tuple[int, ...] = (1, 2, 3)


def first_output(y: object) -> object:
    """Return the first array or tensor of a network's result, which may be a list or a dictionary of them.

    >>> first_output({"mask": [1.5, 2.5], "edge": 3.5})
    1.5
    """
    while isinstance(y, (Mapping, list, tuple)):
        y = next(iter(y.values() if isinstance(y, Mapping) else y))
    return y


def _convoxel(task: Task) -> Run:
    from convoxel.graph.load import load

    program, x = load(task.folder / "net.cvx", task.threads), task.x
    return lambda: program(x)


def _pytorch(task: Task, channels_last: bool = False) -> Run:
    import torch

    torch.set_num_threads(task.threads)
    return call_pytorch(task.network.build(), task.x, channels_last)


def _torch_compile(task: Task) -> Run:
    import torch
    import torch._inductor.config

    torch.set_num_threads(task.threads)
    torch._inductor.config.freezing = True  # weights become constants: folded and packed beforehand
    model, x = torch.compile(task.network.build()), torch.from_numpy(task.x)
    return torch.no_grad()(lambda: model(x))


def _onnx(name: str, task: Task) -> Run:
    return functools.partial(ONNX_ENGINES[name](str(task.folder / "net.onnx"), task.threads), task.x)


ENGINES: Mapping[str, Engine] = {
    OURS: Engine(_convoxel, ("convoxel.graph.load",)),
    "pytorch": Engine(_pytorch, ("torch",)),
    "pytorch-cl": Engine(functools.partial(_pytorch, channels_last=True), ("torch",), (2, 3)),
    "torch.compile": Engine(_torch_compile, ("torch",)),
    **{name: Engine(functools.partial(_onnx, name), (name,)) for name in ONNX_ENGINES},
}
