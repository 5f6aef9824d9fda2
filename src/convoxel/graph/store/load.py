"""From a file to a program, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convoxel.errors import ConfigError, GraphError
from convoxel.graph.passes import optimise
from convoxel.graph.read.reader import NeedsValue
from convoxel.graph.run.program import Program
from convoxel.graph.specialised import Specialised

__all__ = ["load"]


def load(path: str | Path, threads: int | None = None, algorithm: str = "auto") -> Program | Specialised:
    """Return the network in a file as a program of native steps.

    An ``.onnx`` file is read, rewritten and planned as ``compile`` does with a module; a ``.cvx`` file, which
    ``Program.save`` wrote, was rewritten before. Neither needs PyTorch, and neither can run code of its own.

    Args:
        path: ``.onnx`` (operator sets 6 and later; external data inside the file's folder) or ``.cvx``.
        threads: how many threads a call uses; all that the process may use by default.
        algorithm: of every convolution, as in ``compile``; ``"auto"`` for a ``.cvx`` file is what it was saved with.

    Returns:
        A program; where the values of some inputs decide sizes, one that makes a program for each value.

    Raises:
        GraphError: the file cannot be read, is damaged, or contradicts itself.
        UnsupportedError: nodes have no counterpart here; the message lists all of them.
        ShapeError: sizes within the network do not fit.
        ConfigError: ``threads`` is below 1, or the file has another ending.

    >>> load("net.txt")
    Traceback (most recent call last):
    convoxel.errors.ConfigError: load: net.txt ends in '.txt'; expected .onnx or .cvx
    """
    source = Path(path)
    if threads is not None and threads < 1:
        raise ConfigError(f"load: threads is {threads}, expected at least 1, or None for all")
    if source.suffix == ".cvx":
        from convoxel.graph.store.cvx import read_program

        return read_program(source, threads, algorithm)
    if source.suffix != ".onnx":
        raise ConfigError(f"load: {source} ends in {source.suffix!r}; expected .onnx or .cvx")
    return from_onnx(source, threads, algorithm)


def from_onnx(source: Any, threads: int | None = None, algorithm: str = "auto") -> Program | Specialised:
    """Return the program of an ONNX file (a path) or model (``onnx.ModelProto``)."""
    try:
        from convoxel.graph.read.onnx import explained, open_model, read
    except ImportError as reason:
        raise GraphError(f"load: reading ONNX needs the onnx package ({reason}); pip install convoxel[onnx]") from None
    model = open_model(source)

    def make(values: Mapping[str, NDArray[Any]]) -> Program:
        graph, structure = read(model, values)
        with explained(lambda: "the model"):
            return Program(optimise(graph), structure, threads=threads, algorithm=algorithm, source=str(graph))

    try:
        return make({})
    except NeedsValue as reason:
        decisive = reason.names
    fixed = {tensor.name for tensor in model.model.graph.initializer}
    names = [info.name for info in model.model.graph.input if info.name not in fixed]
    return Specialised(names, decisive, make)
