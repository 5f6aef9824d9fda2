"""Agreement of descriptions: a network's module, its ONNX file and its compiled program are described alike.

Run by hand::

    .venv/bin/python -m tools.agreement                       the zoo, single functions and drawn modules
    .venv/bin/python -m tools.agreement 'resnet*' glu stack   some of them
    .venv/bin/python -m tools.agreement --drawn 300           300 drawn modules instead of 30
    .venv/bin/python -m tools.agreement --packages            and networks of other packages, if installed
    .venv/bin/python -m tools.agreement --json FILE           keep the results in FILE; what agreed is not repeated

For each network three summaries are compared: shapes of the outputs, parameters, MACs, the receptive field, the input
sizes that work, and the peak of memory. A table shows what differs; the exit code is 1 if anything does.

Three figures may rightly differ. A module's own Python may refuse sizes that its operators take, or choose other
operators for them, where a file or a program has one graph: sizes on which sources disagree are run, and each source
has to tell what it takes itself. A module counts parameters that no step uses, which its graphs do not have, and a file
does not say which single numbers were trained. A file's graph may also come to another program: the peak of memory is
compared where the operators are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import io
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import convoxel as cx
from convoxel import models
from convoxel.files import atomic
from convoxel.inspect import Summary
from convoxel.inspect.memory import MemoryPlan
from convoxel.inspect.record import open_source
from convoxel.inspect.valid_sizes import ValidSizes
from tools.drawn_networks import SIZE, DrawnNetwork

__all__ = ["FUNCTIONS", "Subject", "compare", "drawn", "functions", "zoo"]

FIGURES = ("output_shapes", "params", "macs", "field", "sizes", "peak_bytes")
_TRIED = 6  # sizes on which sources disagree that are run, the smallest first


class Subject(NamedTuple):
    """A network, by name, and the shape that it is described for."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


class Applied(nn.Module):
    """A convolution and a function of its result."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(2, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of the convolution."""
        return self.function(self.conv(x))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "glu": lambda x: functional.glu(x, 1),
    "clamp": lambda x: x.clamp(min=0.1),
    "stack": lambda x: torch.stack([x, x], 1).sum(1),
    "unbind": lambda x: sum(x.unbind(1)).unsqueeze(1),  # type: ignore[union-attr]
    "roll": lambda x: torch.roll(functional.pad(x, (0, 0, 1, 1)), 1, 2),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "einsum": lambda x: torch.einsum("nchw,nchw->nhw", x, x).unsqueeze(1),
    "group_norm": lambda x: functional.group_norm(x, 2),
    "attention": lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).softmax(-1),
    "squeeze": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "resize": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
}
"""Functions of (n, 4, h, w) whose operators are read in different ways."""


def functions() -> Iterator[Subject]:
    """Yield a module for each of ``FUNCTIONS``."""
    for name, function in FUNCTIONS.items():
        yield Subject(name, lambda function=function: Applied(function), (1, 2, 16, 16))  # type: ignore[misc]


def zoo(width: float = 0.25) -> Iterator[Subject]:
    """Yield every network of the zoo in 2-D, narrower by the factor ``width``."""
    for name in models.names():
        entry = models.entry(name)
        usual = entry.options.get("width")
        options = (
            {"width": max(4, int(usual * width)) if isinstance(usual, int) else width} if usual is not None else {}
        )
        channels = entry.default("in_channels")

        def build(name: str = name, options: dict[str, float] = options) -> nn.Module:
            return models.build(name, **options)

        yield Subject(name, build, (1, channels, *(entry.size[1],) * 2))


def drawn(count: int) -> Iterator[Subject]:
    """Yield ``count`` random modules in 1-D, 2-D and 3-D in turn."""
    for seed in range(count):
        dims = 1 + seed % 3

        def build(seed: int = seed, dims: int = dims) -> nn.Module:
            return DrawnNetwork(seed, dims)

        yield Subject(f"drawn-{seed}", build, (1, 2, *(SIZE,) * dims))


def packages() -> Iterator[Subject]:
    """Yield the networks of the sample of ``tools.packages``, one of each family."""
    from tools import packages as others

    for case in others.cases():
        if case.name in others.SAMPLE:
            yield Subject(case.name, case.make, case.shape(others.SMALL[case.dims]))


def export(net: nn.Module, shape: tuple[int, ...], path: Path, axes: dict[int, str]) -> None:
    """Write an ONNX file whose norms stay what they are."""
    torch.onnx.export(
        net,
        (torch.zeros(shape),),
        str(path),
        input_names=["x"],
        dynamic_axes={"x": axes},
        dynamo=False,
        opset_version=18,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )


def open_all(net: nn.Module, shape: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """Return a module, its ONNX file and its program."""
    path = folder / "net.onnx"
    axes = {0: "n", **{axis: "dhw"[axis - len(shape)] for axis in range(2, len(shape))}}
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # the exporter speaks of its successor
        try:
            export(net, shape, path, axes)
        except torch.onnx.errors.OnnxExporterError:  # adaptive pooling of open sizes
            export(net, shape, path, {0: "n"})
        program = cx.compile(net, torch.zeros(shape))
    return {"module": net, "onnx": path, "program": program}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter, whose failures print whole graphs from C++, from writing to the terminal."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def compare(subject: Subject) -> list[str]:
    """Return what differs between the descriptions of a network, a line for each figure; empty where all agree."""
    torch.manual_seed(0)
    net = subject.build().eval()
    for tensor in net.state_dict().values():  # exporters write equal weights once
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    with tempfile.TemporaryDirectory() as folder:
        sources = open_all(net, subject.shape, Path(folder))
        told = {name: cx.describe(source, subject.shape) for name, source in sources.items()}
        return [line for figure in FIGURES for line in differences(figure, sources, told, subject.shape)]


def differences(
    figure: str, sources: Mapping[str, Any], summaries: Mapping[str, Summary], shape: tuple[int, ...]
) -> list[str]:
    """Return how the sources differ in a figure, where they should not."""
    told = {name: getattr(summary, figure) for name, summary in summaries.items()}
    if all(value == told["module"] for value in told.values()):
        return []
    if figure == "sizes" and all(told.values()):
        return differing_sizes(sources, told, shape)
    if figure == "params":
        told = {name: sum(row.params for row in summary.rows) for name, summary in summaries.items()}
        single = sum(parameter.numel() == 1 for parameter in sources["module"].parameters())
        if told["program"] == told["module"] and 0 <= told["module"] - told["onnx"] <= single:
            return []
    if figure == "peak_bytes":
        operators = {name: used_operators(source, shape) for name, source in sources.items()}
        told = {name: value for name, value in told.items() if operators[name] == operators["module"]}
        if len(set(told.values())) == 1:
            return []
    return [f"{figure}: " + ", ".join(f"{name} {value}" for name, value in told.items())]


def differing_sizes(sources: Mapping[str, Any], told: dict[str, ValidSizes], shape: tuple[int, ...]) -> list[str]:
    """Return the sizes that a source takes and does not tell, or tells and does not take, and outputs that differ."""
    if not any(sizes.endless for sizes in told["onnx"].sizes):
        told = {name: sizes for name, sizes in told.items() if name != "onnx"}  # exported for one size
    dims, lines = len(shape) - 2, []
    answers = {
        size: {name: sizes.admits((size,) * dims) for name, sizes in told.items()}
        for size in range(1, 2 * max(shape[2:]))
    }
    for size in [size for size, answer in answers.items() if len(set(answer.values())) > 1][:_TRIED]:
        x = torch.zeros(*shape[:2], *(size,) * dims)
        for name, answer in answers[size].items():
            if answer != runs(sources[name], x):
                lines.append(f"sizes: {name} says {told[name]}, but {size} {'fails' if answer else 'runs'}")
    for size in [size for size, answer in answers.items() if all(answer.values())][:_TRIED]:
        made = {name: [climb.at(size) for climb in sizes.outputs if climb] for name, sizes in told.items()}
        if len({tuple(sizes) for sizes in made.values() if sizes}) > 1:
            lines.append(f"sizes: of {size} come {made}")
    return lines


def runs(source: Any, x: Tensor) -> bool:
    """Return whether a source takes an input."""
    call = cx.load(source) if isinstance(source, Path) else source
    try:
        with torch.no_grad():
            call(x)
    except Exception:  # of the module's own Python, of any kind
        return False
    return True


def used_operators(source: Any, shape: tuple[int, ...]) -> Counter[str]:
    """Return how often each operator is in the program that a source is or comes to."""
    return Counter(node.operator for node in MemoryPlan(open_source(source).record([shape])).graph.nodes)


def judge(subject: Subject) -> list[str]:
    """Return what differs; an error of any kind counts as well."""
    try:
        return compare(subject)
    except Exception as error:
        return [f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the networks that were asked for; return 1 if any description differs."""
    parser = argparse.ArgumentParser(description="Compare descriptions of modules, ONNX files and compiled programs.")
    parser.add_argument("names", nargs="*", default=["*"], help="names or patterns of networks (default: all)")
    parser.add_argument("--drawn", type=int, default=30, metavar="N", help="number of random modules (default 30)")
    parser.add_argument("--packages", action="store_true", help="also compare networks of other packages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results are kept in FILE; what agreed stays")
    given = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    results: dict[str, list[str]] = {}
    if given.json is not None and given.json.exists():
        results = json.loads(given.json.read_text())
    judged: list[bool] = []
    for subject in (*functions(), *drawn(given.drawn), *zoo(), *(packages() if given.packages else ())):
        if not any(fnmatch.fnmatch(subject.name, pattern) for pattern in given.names):
            continue
        begun = time.perf_counter()
        if results.get(subject.name) != []:
            results[subject.name] = judge(subject)
            if given.json is not None:
                atomic.write_json(given.json, results)
        lines = results[subject.name]
        judged.append(not lines)
        state = "differs" if lines else "agrees"
        print(f"{subject.name:38} {state:8} {time.perf_counter() - begun:6.1f} s", *lines, sep="\n    ", flush=True)
    print(f"{len(judged)} compared, {judged.count(True)} agree, {judged.count(False)} differ")
    return 0 if all(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
