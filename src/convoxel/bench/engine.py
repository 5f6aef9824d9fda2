"""The engines that run whole networks, each as its users would: how it is given one, and how it is called.

A network lies in a folder: ``net.cvx`` for ours, ``net.onnx`` for those that read ONNX, ``x.npy`` the input. PyTorch
builds the network anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.bench.comparison import OURS
from convoxel.bench.network import Network
from convoxel.bench.peer import open_onnxruntime, open_openvino

__all__ = ["ENGINES", "Engine", "Task", "first_output"]

Floats = NDArray[np.float32]
Run = Callable[[], Any]


@dataclass(frozen=True)
class Task:
    """What an engine is to run: a network, the folder with its files, and on how many threads."""

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
        prepare: returns a call that runs the task and returns what the network does: see ``first_output``.
        needs: the packages that it is made of; they are imported before memory and time are counted.
        dims: the numbers of spatial axes that it knows.
    """

    prepare: Callable[[Task], Run]
    needs: tuple[str, ...]
    dims: tuple[int, ...] = (1, 2, 3)


def first_output(y: Any) -> Any:
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


def _pytorch(task: Task) -> Run:
    import torch

    torch.set_num_threads(task.threads)
    model, x = task.network.build(), torch.from_numpy(task.x)
    return torch.inference_mode()(lambda: model(x))


def _pytorch_channels_last(task: Task) -> Run:
    import torch

    torch.set_num_threads(task.threads)
    layout: Any = torch.channels_last if task.network.dims == 2 else torch.channels_last_3d
    model = task.network.build().to(memory_format=layout)
    x = torch.from_numpy(task.x).contiguous(memory_format=layout)
    return torch.inference_mode()(lambda: model(x))


def _torch_compile(task: Task) -> Run:
    import torch
    import torch._inductor.config

    torch.set_num_threads(task.threads)
    torch._inductor.config.freezing = True  # weights become constants: folded and packed beforehand
    model, x = torch.compile(task.network.build()), torch.from_numpy(task.x)
    return torch.no_grad()(lambda: model(x))  # type: ignore[no-untyped-call]


def _onnxruntime(task: Task) -> Run:
    session, x = open_onnxruntime(str(task.folder / "net.onnx"), task.threads), task.x
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def _openvino(task: Task) -> Run:
    infer, x = open_openvino(str(task.folder / "net.onnx"), task.threads), task.x
    return lambda: infer(x)[0]


ENGINES: Mapping[str, Engine] = {
    OURS: Engine(_convoxel, ("convoxel.graph.load",)),
    "pytorch": Engine(_pytorch, ("torch",)),
    "pytorch-cl": Engine(_pytorch_channels_last, ("torch",), (2, 3)),
    "torch.compile": Engine(_torch_compile, ("torch",)),
    "onnxruntime": Engine(_onnxruntime, ("onnxruntime",)),
    "openvino": Engine(_openvino, ("openvino",)),
}
