"""Checks of every network of the zoo in 1-D, 2-D and 3-D: built, trained one step, exported, compiled.

Each must also refuse inputs below its smallest size.

Run by hand and by ``make conformance``::

    .venv/bin/python -m tools.zoo                          everything
    .venv/bin/python -m tools.zoo 'resnet*' --dims 3       a part of it
    .venv/bin/python -m tools.zoo --checks train export    some of the checks

The suite runs a sample of it. Except in ``build``, networks are narrow, so that volumes fit into memory; nothing else
depends on the width.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ShapeError

WIDTH = 0.125
CHANNELS, CLASSES = 2, 3
TOLERANCE = 1e-4  # of the root mean square of the output


def build(name: str, dims: int, width: float = WIDTH, **options: Any) -> nn.Module:
    """Return the network with few channels: a small factor, or a number where its ``width`` counts channels."""
    usual = models.entry(name).options.get("width")
    if usual is not None:
        options.setdefault("width", max(4, int(usual * width)) if isinstance(usual, int) else width)
    torch.manual_seed(0)
    return models.build(name, dims, in_channels=CHANNELS, num_classes=CLASSES, **options)


def smallest(model: Any) -> int:
    """Return the smallest size that the network states, of an axis and of all axes at once."""
    return max(model.nearest_sizes(1)[-1], model.input_minimum)


def image(model: Any, size: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, CHANNELS, *(size,) * model.dims, generator=generator)


def trained(model: nn.Module) -> nn.Module:
    """Return the model in eval mode with statistics and scales as after training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or ("weight" in name and tensor.ndim == 1):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif "running_mean" in name or ("bias" in name and tensor.ndim == 1):
            tensor.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def outputs(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def check_close(actual: Any, expected: Any) -> None:
    for ours, truth in zip(outputs(actual), outputs(expected), strict=True):
        assert ours.shape == truth.shape, f"shape {tuple(ours.shape)}, expected {tuple(truth.shape)}"
        assert bool(ours.isfinite().all()), "the result is not finite"
        worst = float((ours - truth).abs().max() / truth.square().mean().sqrt())
        assert worst <= TOLERANCE, f"apart by {worst:.1e} of the root mean square"


def agreeing(model: nn.Module, *shapes: tuple[int, ...], threads: int = 2) -> cx.Program:
    """Return the network compiled for the first shape, after comparing its results with PyTorch's for every shape."""
    program = cx.compile(trained(model), torch.zeros(shapes[0]), threads=threads)
    for shape in shapes:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            check_close(program(x), model(x))
    return program


def check_build(name: str, dims: int) -> str:
    """Build the network at full width without memory; return the time in words."""
    start = time.perf_counter()
    with torch.device("meta"):
        models.build(name, dims)
    return f"{1000 * (time.perf_counter() - start):.0f} ms"


def check_train(name: str, dims: int, **options: Any) -> str:
    """Run forward and backward at the smallest size; every parameter gets a finite gradient."""
    model = build(name, dims, **options)
    size = smallest(model)
    result = outputs(model(image(model, size)))
    loss = sum((y.square().mean() for y in result), torch.zeros(()))
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert bool(parameter.grad.isfinite().all()), f"the gradient of {key} is not finite"
    return f"{size} px"


def check_refuse(name: str, dims: int, **options: Any) -> str:
    """Check that one pixel below the smallest size raises a ShapeError that names that size."""
    model: Any = build(name, dims, **options)
    size = smallest(model)
    if size == 1:
        return "any size"
    try:
        model(image(model, size - 1))
    except ShapeError as error:
        assert str(size) in str(error), f"the message does not name {size}: {error}"
        return f"below {size}"
    raise AssertionError(f"a size of {size - 1} was accepted")


def roomy(model: Any) -> tuple[int, int]:
    """Return two valid sizes with several positions in the deepest layers; PyTorch treats a size of 1 as fixed."""
    least = smallest(model)
    return model.nearest_sizes(max(2 * least, 96))[-1], model.nearest_sizes(max(3 * least, 160))[-1]


def check_export(name: str, dims: int) -> str:
    """Export by PyTorch with open sizes; the result computes the same at another size and batch.

    PyTorch's own 1-D max pooling fixes the length when it is exported, so there only the batch stays open.
    """
    model = trained(build(name, dims))
    size, other = roomy(model)
    fixed = any(isinstance(layer, nn.MaxPool1d) for layer in model.modules())
    if fixed:
        other = size
    auto = dict.fromkeys((0,) if fixed else (0, *range(2, dims + 2)), torch.export.Dim.AUTO)
    exported = torch.export.export(model, (image(model, size),), dynamic_shapes=(auto,)).module()
    with torch.no_grad():
        x = image(model, other, batch=3)
        check_close(exported(x), model(x))
    return f"{size}, {other} px"


def check_compile(name: str, dims: int) -> str:
    """Compile by the engine; results are equal at the example's size and at another."""
    model: Any = build(name, dims)
    least = smallest(model)
    size, larger = model.nearest_sizes(least + 1)[-1], model.nearest_sizes(max(2 * least, 64))[-1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agreeing(model, (1, CHANNELS, *(size,) * dims), (2, CHANNELS, *(larger,) * dims))
    return "; ".join(str(entry.message) for entry in caught) or "all native"


CHECKS: dict[str, Callable[..., str]] = {
    "build": check_build,
    "train": check_train,
    "refuse": check_refuse,
    "export": check_export,
    "compile": check_compile,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="patterns of names, with * and ? (default: all)")
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--checks", nargs="+", default=list(CHECKS), choices=CHECKS)
    options = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)  # the solver of sizes reports what it cannot simplify
    failures = 0
    for name in dict.fromkeys(name for pattern in options.patterns for name in models.names(pattern)):
        for dims in options.dims:
            words = []
            start = time.perf_counter()
            for check in options.checks:
                try:
                    words.append(f"{check} {CHECKS[check](name, dims)}")
                except Exception as error:  # a matrix shows every failure, of whatever kind
                    failures += 1
                    words.append(f"{check} FAILED {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            print(f"{name:24} {dims}-D  {time.perf_counter() - start:5.1f} s  {' | '.join(words)}", flush=True)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
