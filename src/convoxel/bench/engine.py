"""The engines that run whole networks, each prepared and called as its users would.

A network lies in a folder with the files that ``network_files`` names: a program for each precision of ours, ONNX
models for those that read them. PyTorch builds the network anew. Every engine has the class of precision that it is
compared in, and the task tells the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.bench.comparison import OURS
from convoxel.bench.network_list import Network
from convoxel.bench.peer import (
    OPENVINO_FLOAT32,
    Infer,
    call_pytorch,
    compile_openvino,
    infer_openvino,
    open_onnxruntime,
)
from convoxel.errors import check_choice

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]
Run = Callable[[], object]

PRECISIONS = ("float32", "high", "bfloat16", "int8")
_IN_FLIGHT = 4  # inputs that a stream computes in one call, so that the end of the call costs little


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

    def build(self) -> nn.Module:
        """Return the network with the statistics of its normalisations that the folder holds."""
        import torch
        from safetensors import safe_open

        module = self.network.build()
        path = self.folder / "statistics.safetensors"
        if path.exists():
            buffers = dict(module.named_buffers())
            with safe_open(path, framework="pt") as stored, torch.no_grad():
                for name in stored.keys():  # noqa: SIM118 (it is no dictionary)
                    buffers[name].copy_(stored.get_tensor(name))
        return module


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        prepare: returns a call that runs the task and returns the result of the network; see ``first_output``.
        needs: packages of the engine; they are imported before memory and time are counted.
        precision: class of precision that it computes in; of an engine that decides itself, the one it usually takes.
        file: what it reads, as ``network_files`` knows it ("" for none).
        dims: numbers of spatial axes that it supports.
        usual: whether it takes part unless engines are named.
        installed: whether this is what users get who set nothing but the number of threads.
        inputs: inputs of one call, from the number of threads.
    """

    prepare: Callable[[Task], Run]
    needs: tuple[str, ...]
    precision: str = "float32"
    file: str = ""
    dims: tuple[int, ...] = (1, 2, 3)
    usual: bool = False
    installed: bool = False
    inputs: Callable[[int], int] = lambda threads: 1


def first_output(y: object) -> object:
    """Return the first array or tensor of a network's result, which may be a list or a dictionary of them.

    >>> first_output({"mask": [1.5, 2.5], "edge": 3.5})
    1.5
    """
    while isinstance(y, (Mapping, list, tuple)):
        y = next(iter(y.values() if isinstance(y, Mapping) else y))
    return y


def ours(precision: str) -> str:
    """Return the name of our engine at a precision.

    >>> ours("float32"), ours("high")
    ('convoxel', 'convoxel-high')
    """
    return OURS if precision == "float32" else f"{OURS}-{precision}"


def peer_class(precision: str) -> str:
    """Return the class of the peers of our ``precision``: no peer has 16 binary digits, so float32 stands for it."""
    return "float32" if precision == "high" else precision


def choose_engines(precisions: Sequence[str], peers: Sequence[str] | None = None) -> list[str]:
    """Return the names of ours and of the peers to measure, in the order of ``ENGINES``.

    Args:
        precisions: precisions of ours.
        peers: names of peers, or "all" (default: the usual ones of the same classes, and those that users get).

    Raises:
        ConfigError: a name is not known.

    >>> choose_engines(["high"], ["onnxruntime"])
    ['convoxel-high', 'onnxruntime']
    """
    for precision in precisions:
        check_choice("precisions", precision, PRECISIONS)
    known = [name for name in ENGINES if not name.startswith(OURS)]
    for name in peers or ():
        check_choice("peers", name, ("all", *known))
    classes = {peer_class(precision) for precision in precisions}
    if peers is None:
        usual = [name for name in known if ENGINES[name].usual]
        chosen = {name for name in usual if ENGINES[name].installed or ENGINES[name].precision in classes}
    else:
        chosen = set(known) if "all" in peers else set(peers)
    chosen |= {ours(precision) for precision in precisions}
    return [name for name in ENGINES if name in chosen]


def _convoxel(file: str, task: Task) -> Run:
    from convoxel.graph.load import load

    program, x = load(task.folder / file, task.threads), task.x
    return lambda: program(x)


def _pytorch(task: Task, channels_last: bool = False, bfloat16: bool = False) -> Run:
    import torch

    torch.set_num_threads(task.threads)
    return call_pytorch(task.build(), task.x, channels_last and task.network.dims > 1, bfloat16)


def _torch_compile(task: Task, bfloat16: bool = False) -> Run:
    import torch
    import torch._inductor.config

    torch.set_num_threads(task.threads)
    torch._inductor.config.freezing = True  # weights become constants: folded and packed beforehand
    model, x = task.build(), torch.from_numpy(task.x)
    if bfloat16:
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    compiled = torch.compile(model)
    return torch.no_grad()(lambda: compiled(x))


def _onnxruntime(file: str, task: Task) -> Run:
    return functools.partial(open_onnxruntime(str(task.folder / file), task.threads), task.x)


def _openvino(file: str, settings: Mapping[str, str], task: Task) -> Run:
    infer: Infer = infer_openvino(compile_openvino(str(task.folder / file), task.threads, settings))
    return functools.partial(infer, task.x)


def _openvino_streams(settings: Mapping[str, str], task: Task) -> Run:
    """Return a call that computes several inputs, each by one thread."""
    import openvino

    given = {**settings, "NUM_STREAMS": str(task.threads)}
    queue = openvino.AsyncInferQueue(
        compile_openvino(str(task.folder / "net.onnx"), task.threads, given), jobs=task.threads
    )
    results: dict[int, object] = {}
    queue.set_callback(lambda request, number: results.update({number: request.get_output_tensor(0).data}))
    x = task.x

    def run() -> object:
        for number in range(_in_flight(task.threads)):
            queue.start_async({0: x}, number, share_inputs=True)
        queue.wait_all()
        return results[0]

    return run


def _in_flight(threads: int) -> int:
    return _IN_FLIGHT * threads


_TORCH, _OPENVINO = ("torch",), ("openvino",)

ENGINES: Mapping[str, Engine] = {
    **{
        ours(precision): Engine(
            functools.partial(_convoxel, f"{precision}.cvx"), ("convoxel.graph.load",), precision, f"{precision}.cvx"
        )
        for precision in PRECISIONS
    },
    "pytorch": Engine(_pytorch, _TORCH, installed=True),
    "pytorch-cl": Engine(functools.partial(_pytorch, channels_last=True), _TORCH, dims=(2, 3), usual=True),
    "pytorch-bf16": Engine(
        functools.partial(_pytorch, channels_last=True, bfloat16=True), _TORCH, "bfloat16", usual=True
    ),
    "torch.compile": Engine(_torch_compile, _TORCH, installed=True),
    "torch.compile-bf16": Engine(functools.partial(_torch_compile, bfloat16=True), _TORCH, "bfloat16"),
    "onnxruntime": Engine(
        functools.partial(_onnxruntime, "net.onnx"), ("onnxruntime",), file="net.onnx", usual=True, installed=True
    ),
    "onnxruntime-int8": Engine(
        functools.partial(_onnxruntime, "net-int8.onnx"), ("onnxruntime",), "int8", "net-int8.onnx", usual=True
    ),
    "openvino": Engine(
        functools.partial(_openvino, "net.onnx", OPENVINO_FLOAT32), _OPENVINO, file="net.onnx", usual=True
    ),
    "openvino-installed": Engine(
        functools.partial(_openvino, "net.onnx", {}), _OPENVINO, "bfloat16", "net.onnx", usual=True, installed=True
    ),
    "openvino-streams": Engine(
        functools.partial(_openvino_streams, OPENVINO_FLOAT32), _OPENVINO, file="net.onnx", inputs=_in_flight
    ),
    "openvino-installed-streams": Engine(
        functools.partial(_openvino_streams, {}), _OPENVINO, "bfloat16", "net.onnx", inputs=_in_flight
    ),
    "openvino-int8": Engine(
        functools.partial(_openvino, "net-int8.xml", {}), _OPENVINO, "int8", "net-int8.xml", usual=True
    ),
}
