"""From a file to a program, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError, GraphError
from convoxel.files.source import Content, Source, open_source
from convoxel.files.values import Array
from convoxel.fork import forks_wait
from convoxel.graph.read.reader import NeedsValue
from convoxel.graph.run.program import Program
from convoxel.graph.specialised import Specialised
from convoxel.graph.store.cvx import read_program
from convoxel.graph.store.record import check_settings
from convoxel.graph.store.tensor_file import is_tensor_file

if TYPE_CHECKING:
    import onnx


def load(
    source: Source, threads: int | None = None, algorithm: str = "auto", precision: str | None = None
) -> Program | Specialised:
    """Return the network in a file, or in its bytes, as a program of native steps.

    An ``.onnx`` file is read, rewritten and planned as ``compile`` does with a module; a ``.cvx`` file, which
    ``Program.save`` wrote, was rewritten before. Neither needs PyTorch, and neither can run code of its own.

    Args:
        source: path of an ``.onnx`` file (operator sets 6 and later; external data inside the file's folder) or of a
            ``.cvx`` file. Or the bytes of one: ``bytes``, ``bytearray``, ``memoryview``, or a file that is open for
            reading in binary mode, from where it is to its end. They are copied only if somebody could change them, and
            external data need a path.

            Large weights of a ``.cvx`` file with a path are read where they lie until they are packed, so it may be
            replaced or deleted, but not overwritten in place: before weights are read, a program looks whether its file
            is as it was, and raises ``GraphError`` if not. A file that is cut off in the very instant of reading ends
            the process, as with every mapped file; where others may do that, load a copy: ``copy.deepcopy(program)``
            holds its weights in memory, and so does a program of bytes.
        threads: how many threads a call uses; all that the process may use by default.
        algorithm: of every convolution, as in ``compile``; ``"auto"`` for a ``.cvx`` file is what it was saved with.
        precision: as in ``compile``; by default what a ``.cvx`` file was saved with, and ``"float32"`` for ``.onnx``.

    Returns:
        A program; where the values of some inputs decide sizes, one that makes a program for each value.

    Raises:
        GraphError: the file cannot be read, is damaged, or contradicts itself.
        UnsupportedError: nodes have no counterpart here; the message lists all of them.
        ShapeError: sizes within the network do not fit.
        ConfigError: ``threads`` is below 1, there is no such ``precision``, or the file has another ending.

    >>> load("net.txt")
    Traceback (most recent call last):
    convoxel.errors.ConfigError: load: net.txt ends in '.txt'; expected .onnx or .cvx
    """
    check_settings("load", threads, precision, algorithm)
    given = open_source("load", source, GraphError)
    kind = given.suffix if isinstance(given, Path) else _kind(given)
    if kind == ".cvx":
        saved = Program(**vars(read_program(given)), threads=threads)
        return saved.replace(
            algorithm=saved.algorithm if algorithm == "auto" else algorithm, precision=precision or saved.precision
        )
    if kind != ".onnx":
        raise ConfigError(f"load: {given} ends in {kind!r}; expected .onnx or .cvx")
    return from_onnx(given, threads, algorithm, precision or "float32")


def _kind(content: Content) -> str:
    """Return the ending of the file that bytes belong to.

    An ONNX model is a protocol buffer: a field's number and kind, which are never 0, begin it.
    """
    if is_tensor_file(content.data):
        return ".cvx"
    first = content.data[0] if content.data else 0
    if first >> 3 == 0 or first & 7 not in (0, 1, 2, 5):
        raise GraphError(
            f"load: {content.name} begins with {content.data[:16]!r}; expected the bytes of a .cvx or .onnx file. "
            "Read them in binary mode, from the beginning of the file."
        )
    return ".onnx"


def from_onnx(
    source: Path | Content | onnx.ModelProto,
    threads: int | None = None,
    algorithm: str = "auto",
    precision: str = "float32",
) -> Program | Specialised:
    """Return the program of an ONNX file, its bytes, or a model."""
    try:
        with forks_wait():
            from convoxel.graph.read.onnx import explained, open_model, read
    except ImportError as reason:
        raise GraphError(
            f"load: reading ONNX needs the onnx package ({reason}); pip install 'convoxel[onnx]'."
        ) from None
    model = open_model(source)

    def make(values: Mapping[str, Array]) -> Program:
        graph, structure = read(model, values)
        with explained(lambda: "the model"):
            return Program.from_graph(graph, structure, threads=threads, algorithm=algorithm, precision=precision)

    try:
        return make({})
    except NeedsValue as reason:
        decisive = reason.names
    fixed = {tensor.name for tensor in model.model.graph.initializer}
    names = [info.name for info in model.model.graph.input if info.name not in fixed]
    return Specialised(names, decisive, make)
