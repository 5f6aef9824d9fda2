"""Networks of any kind quantised with inputs from a file, which may tell what is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convoxel.data.numpy_file import open_archive, read_array, read_member
from convoxel.errors import ConfigError, GraphError
from convoxel.files.fault import fault
from convoxel.files.source import check_target
from convoxel.files.values import Array
from convoxel.graph.quantise import Measure, Progress, quantise
from convoxel.graph.run.program import Program
from convoxel.lookup import find_network, is_file

_KNOWN = "x, the inputs (n, c, …), and perhaps y, the class of each, or of each of its positions"
_BATCH = 16  # inputs that are computed together to measure


def quantise_network(
    word: str,
    data: str | Path,
    output: Path,
    *,
    images: int = 8,
    max_loss: float = 0.005,
    method: str = "auto",
    only_faster: bool = True,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Program:
    """Quantise a network with inputs from a file, save it and return it.

    Args:
        word: name, run folder or file, as of :func:`convoxel.lookup.find_network`.
        data: ``.npy`` file of inputs (n, c, …), or ``.npz`` with them as x and perhaps y, their classes (n,) or maps of
            classes (n, …): then the loss is that of the accuracy.
        output: ``.cvx`` file to save the program in.
        images: number of inputs that ranges are taken from (default 8).
        max_loss, method, only_faster, threads, on_progress: as of :func:`convoxel.quantise`.

    Raises:
        DataError: the file cannot be read or does not hold inputs. ConfigError: ``images`` is below 1.
        AccuracyError: the loss stays above ``max_loss``.
    """
    check_target("save", output, ".cvx", GraphError)
    if images < 1:
        raise ConfigError(f"images: got {images}; expected at least 1.")
    x, classes = _read(Path(data))
    places = np.unique(np.linspace(0, len(x) - 1, min(images, len(x))).round().astype(int))
    program = quantise(
        _program(word, x[:1], threads),
        [x[place : place + 1] for place in places],
        measure=None if classes is None else _accuracy(x, classes),
        metric="" if classes is None else "accuracy",
        max_loss=max_loss,
        method=method,
        only_faster=only_faster,
        on_progress=on_progress,
    )
    program.save(output)
    return program


def _read(path: Path) -> tuple[Array, Array | None]:
    if path.suffix != ".npz":
        x, classes = read_array(path), None
    else:
        names = open_archive(path)
        if "x" not in names:
            raise fault(path, f"it holds {', '.join(sorted(names))}", _KNOWN, "Store the inputs as x")
        x, classes = read_member(path, "x"), read_member(path, "y") if "y" in names else None
    if x.ndim < 2 or len(x) == 0 or x.dtype.kind not in "fiu":
        raise fault(path, f"the inputs are {x.dtype} of shape {x.shape}", "numbers of shape (n, c, …)", "Store them so")
    if classes is not None and (len(classes) != len(x) or classes.dtype.kind not in "iu"):
        came = f"y is {classes.dtype} of shape {classes.shape} beside {len(x)} inputs"
        raise fault(path, came, "whole numbers, one for each input or each of its positions", "Store them so")
    return np.ascontiguousarray(x, np.float32), classes


def _program(word: str, example: Array, threads: int | None) -> Program:
    if is_file(word):
        from convoxel.graph.load import load

        program = load(word, threads)
        if not isinstance(program, Program) or len(program.graph.inputs) != 1:
            raise ConfigError(f"network: {word} takes several inputs; expected one. Use convoxel.quantise in Python.")
        return program
    from convoxel.graph.compile import compile as compile_model

    module = find_network(word, [example.shape], weights=True).module
    return compile_model(module, example, threads=threads, precision="float32")


def _accuracy(x: Array, classes: Array) -> Measure:
    """Return the function from a program to the share of classes that it finds."""

    def accuracy(program: Program) -> float:
        right = count = 0
        for first in range(0, len(x), _BATCH):
            found, wanted = program(x[first : first + _BATCH]), classes[first : first + _BATCH]
            right += int((found.argmax(axis=1) == wanted).sum())
            count += wanted.size
        return right / count

    return accuracy
