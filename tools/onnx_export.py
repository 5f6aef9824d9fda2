"""Round trips through ONNX: networks that ``Program.to_onnx`` writes, in ONNX Runtime and read again by ``cx.load``.

Every network of the zoo in 1-D, 2-D and 3-D, at two sizes and batches of one and two::

    .venv/bin/python -m tools.onnx_export                      everything (needs onnxruntime)
    .venv/bin/python -m tools.onnx_export 'unet*' --dims 3     a part of it

The suite runs a sample of it with ONNX's own reference in the place of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import convoxel as cx
from convoxel import models
from convoxel.graph.ir.pytree import Branch, Fixed, Leaf, Structure
from tools.zoo import CHANNELS, build, smallest, trained

TOLERANCE = 2e-4  # of the root mean square of a result

Arrays = list[NDArray[Any]]
Engine = Callable[[bytes], Callable[[Sequence[NDArray[Any]]], Arrays]]


def onnx_runtime(content: bytes) -> Callable[[Sequence[NDArray[Any]]], Arrays]:
    """Return ONNX Runtime's function of a model."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda arrays: list(session.run(None, dict(zip(names, arrays, strict=True))))


def reference(content: bytes) -> Callable[[Sequence[NDArray[Any]]], Arrays]:
    """Return the function of a model that ONNX's own evaluator computes."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    names = evaluator.input_names
    return lambda arrays: list(evaluator.run(None, dict(zip(names, arrays, strict=True))))


def leaves(results: Any, structure: Structure) -> Arrays:
    """Return the arrays among results, in the order of the graph's outputs."""
    found: dict[int, NDArray[Any]] = {}

    def collect(value: Any, part: Structure) -> None:
        if isinstance(part, Leaf):
            found[part.index] = np.asarray(value)
        elif isinstance(part, Branch):
            values = value.values() if isinstance(value, dict) else value
            for each, child in zip(values, part.children, strict=True):
                collect(each, child)
        else:
            assert isinstance(part, Fixed)

    collect(results, structure)
    return [found[index] for index in sorted(found)]


def compare(actual: Arrays, expected: Arrays, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference in units of the root mean square; raise if it is beyond ``tolerance``."""
    largest = 0.0
    for ours, truth in zip(actual, expected, strict=True):
        assert ours.shape == truth.shape and ours.dtype == truth.dtype, f"{ours.dtype}{ours.shape}, not {truth.shape}"
        assert np.isfinite(ours).all(), "a result is not finite"
        if truth.dtype.kind != "f":
            np.testing.assert_array_equal(ours, truth)
            continue
        scale = float(np.sqrt(np.mean(np.square(truth, dtype=np.float64)))) or 1.0
        worst = float(np.abs(ours.astype(np.float64) - truth).max(initial=0)) / scale
        assert worst <= tolerance, f"apart by {worst:.1e} of the root mean square"
        largest = max(largest, worst)
    return largest


def written(program: cx.Program) -> bytes:
    """Return the bytes of a program's ONNX model, which ONNX's checker accepts with all shapes inferred."""
    buffer = io.BytesIO()
    program.to_onnx(buffer)
    onnx.checker.check_model(buffer.getvalue(), full_check=True)
    return buffer.getvalue()


def check(
    program: cx.Program, inputs: Sequence[Sequence[NDArray[Any]]], engine: Engine, tolerance: float = TOLERANCE
) -> float:
    """Compare a program with its ONNX model in another engine, and with the program read from it."""
    content = written(program)
    run, again = engine(content), cx.load(content)
    largest = 0.0
    for arrays in inputs:
        expected = leaves(program(*arrays), program.structure)
        read = again(*arrays)
        results = [np.asarray(each) for each in (read if isinstance(read, tuple) else (read,))]
        largest = max(largest, compare(run(arrays), expected, tolerance), compare(results, expected, tolerance))
    return largest


def check_zoo(name: str, dims: int, engine: Engine = onnx_runtime) -> str:
    """Check a network of the zoo at two sizes."""
    model: Any = trained(build(name, dims))
    # Three positions in the deepest layers: of two, an instance normalisation makes ±1 of any difference, and rounding
    # alone sets engines apart by more than the tolerance.
    least = max(3 * smallest(model), {1: 96, 2: 64, 3: 32}[dims])
    sizes = [model.nearest_sizes(size)[-1] for size in (least, least * 3 // 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = cx.compile(model, torch.zeros(1, CHANNELS, *(sizes[0],) * dims))
    generator = np.random.default_rng(1)
    shapes = [(2, CHANNELS, *(sizes[0],) * dims), (1, CHANNELS, *(sizes[1],) * dims)]
    inputs = [[generator.standard_normal(shape, np.float32)] for shape in shapes]
    return f"{check(program, inputs, engine):.1e}"


def main() -> int:
    """Check what the words name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="patterns of names, with * and ? (default: all)")
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    options = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    failures = 0
    for name in dict.fromkeys(name for pattern in options.patterns for name in models.names(pattern)):
        for dims in options.dims:
            start = time.perf_counter()
            try:
                told = check_zoo(name, dims)
            except Exception as error:  # every failure is shown, of whatever kind
                failures += 1
                told = f"FAILED {type(error).__name__}: {' '.join(str(error).split())[:400]}"
            print(f"{name:24} {dims}-D  {time.perf_counter() - start:5.1f} s  {told}", flush=True)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
