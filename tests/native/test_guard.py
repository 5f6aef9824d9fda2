"""No step touches memory outside of its tensors: each buffer lies beside a page that may not be touched.

Every buffer holds exactly the floats that its view spans. It ends where such a page begins ("end") or begins where one
ends ("begin"); the rest of its pages is NaN. Reading or writing the page ends the process. So the cases run in a
process of their own, which prints the name of each case before it runs:

    python -m tests.native.test_guard ISA … [--memory heap end begin]

With "heap" alone the buffers come from the allocator, whose blocks the sanitizers know. This file does not check that
results are right (test_conformance.py does), only that they do not depend on where the buffers lie.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import mmap
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from convoxel import ShapeError, UnsupportedError
from convoxel.arithmetic.window import conv_size, transposed_size
from convoxel.native import ACTIVATIONS, Convolution, Plan, View
from tools.conformance import ALGORITHMS, INSTRUCTION_SETS, Problem, algorithms_of

PAGE = mmap.PAGESIZE
CHANNELS = (1, 3, 5, 8, 17, 33)
SIZES = (1, 2, 5, 7, 13)
KERNELS = (
    (1,), (2,), (3,), (5,), (7,),
    (1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 7), (3, 1), (2, 3), (15, 9),
    (1, 1, 1), (2, 2, 2), (3, 3, 3), (5, 5, 5), (7, 1, 7), (1, 3, 3), (3, 3, 1), (2, 3, 3), (5, 3, 3), (3, 5, 5),
)  # fmt: skip
FLAVOURS = ("padded", "cropped", "strided", "dilated", "grouped", "depthwise", "strided depthwise", "transposed")
MOST_MACS = 400_000  # of a problem: larger ones find no other faults
MOST_WEIGHTS = 20_000
MOST_FLOATS = 20_000  # of its output


class Heap:
    """Buffers of exactly the size asked for, full of NaN."""

    def __init__(self) -> None:
        self.taken: list[np.ndarray] = []

    def take(self, count: int) -> np.ndarray:
        self.taken.append(np.full(count, np.nan, np.float32))
        return self.taken[-1]

    def release(self) -> None:
        self.taken = []


class Guarded(Heap):
    """Buffers that end ("end") or begin ("begin") at a page that may be neither read nor written.

    Pages are kept and used again; between cases they are filled with NaN.
    """

    def __init__(self, place: str, pages: int = 64) -> None:
        super().__init__()
        self.place = place
        self.pages = pages
        self.regions: list[np.ndarray] = []

    def _new_region(self) -> np.ndarray:
        memory = mmap.mmap(-1, (self.pages + 2) * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (start, start + (self.pages + 1) * PAGE):
            if protect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        return np.frombuffer(memory, np.float32)[PAGE // 4 : -PAGE // 4]

    def take(self, count: int) -> np.ndarray:
        if len(self.taken) == len(self.regions):
            self.regions.append(self._new_region())
        region = self.regions[len(self.taken)]
        assert 0 < count <= region.size, f"{count} floats do not fit {self.pages} pages"
        region.fill(np.nan)
        self.taken.append(region)
        return region[-count:] if self.place == "end" else region[:count]


@dataclass(frozen=True)
class Case:
    """Steps over the buffers 1 …, which write all floats that the view of the last one spans, and no others."""

    name: str
    views: tuple[View, ...]
    add: Callable[..., None]  # (plan, *views)
    threads: int = 2
    arena: int = 0  # floats


def dense(*shapes: tuple[int, ...]) -> tuple[View, ...]:
    return tuple(View.dense(number, 0, shape) for number, shape in enumerate(shapes, start=1))


def slices(*shapes: tuple[int, ...]) -> tuple[View, ...]:
    """Views of the first channels of wider tensors, as in a concatenation, with gaps between lines, too."""
    wide = dense(*((n, d, h, w + 1, c + 3) for n, d, h, w, c in shapes))
    return tuple(view._replace(shape=shape) for view, shape in zip(wide, shapes, strict=True))


def span(view: View) -> int:
    """Return the number of floats from the first to the last that a view reaches."""
    return sum((size - 1) * stride for size, stride in zip(view.shape, (*view.strides, 1), strict=True)) + 1


def array_of(view: View, buffer: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(buffer, view.shape, [4 * stride for stride in (*view.strides, 1)])


def run(case: Case, isa: str, memory: Heap) -> np.ndarray:
    """Return what the case leaves in its last buffer; raise AssertionError if it read or wrote anything else."""
    plan = Plan(
        case.arena, len(case.views), case.threads, isa=isa, precision="bfloat16"
    )  # which allows every algorithm
    case.add(plan, *case.views)
    buffers = [memory.take(span(view)) for view in case.views]
    *sources, target = memory.taken
    rng = np.random.default_rng(1)
    for view, buffer in zip(case.views[:-1], buffers, strict=False):
        array_of(view, buffer)[...] = rng.integers(-4, 5, view.shape)
    before = [source.copy() for source in sources]
    plan.run(buffers, arena=memory.take(case.arena) if case.arena else None)
    written = array_of(case.views[-1], buffers[-1])
    result = written.copy()
    written[...] = np.nan
    for number, (was, now) in enumerate(zip(before, sources, strict=True), start=1):
        assert np.array_equal(was, now, equal_nan=True), f"it wrote into buffer {number}, which it only reads"
    assert np.isnan(target).all(), "it wrote beside its output"
    assert not np.isnan(result).any(), "its output holds what is not in its input"
    memory.release()
    return result


def layer(problem: Problem, memory: Heap) -> Convolution:
    """Return the problem's convolution, with weights and bias in this memory."""
    first, second = problem.out_channels, problem.in_channels
    if problem.transposed:
        first, second = second, first
    rng = np.random.default_rng(2)
    shape = (first, second // problem.groups, *triple(problem.kernel, 1))
    w, bias = memory.take(math.prod(shape)), memory.take(problem.out_channels)
    w[...], bias[...] = rng.integers(-4, 5, w.shape), rng.integers(-4, 5, bias.shape)
    made = Convolution(
        w.reshape(shape),
        bias,
        stride=triple(problem.stride, 1),
        padding_low=triple([low for low, _ in problem.pads], 0),
        dilation=triple(problem.dilation, 1),
        groups=problem.groups,
        transposed=problem.transposed,
    )
    memory.release()
    return made


def triple(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    d, h, w = (*(fill,) * (3 - len(values)), *values)
    return d, h, w


def out_size(problem: Problem) -> tuple[int, ...]:
    axes = zip(problem.size, problem.kernel, problem.stride, problem.pads, problem.dilation, strict=True)
    if problem.transposed:
        return tuple(
            transposed_size(i, k, s, p, d, extra)
            for (i, k, s, p, d), extra in zip(axes, problem.output_padding, strict=True)
        )
    return tuple(conv_size(i, k, s, p, d) for i, k, s, p, d in axes)


def draw_problem(rng: random.Random, kernel: tuple[int, ...], flavour: str) -> Problem:
    """Draw a small problem of this kernel and flavour, again until it fits."""
    strides = (1, 2, 3) if "strided" in flavour or flavour == "transposed" else (1,)
    dilations = (1, 2) if flavour == "dilated" else (1,)
    low = -2 if flavour == "cropped" else 0
    while True:
        groups = rng.choice((2, 3)) if flavour == "grouped" else 1
        channels, columns = rng.choice(CHANNELS) * groups, rng.choice(CHANNELS) * groups
        if "depthwise" in flavour:
            groups = columns = channels
        stride = tuple(rng.choice(strides) for _ in kernel)
        problem = Problem(
            batch=rng.choice((1, 2)),
            groups=groups,
            in_channels=channels,
            out_channels=columns,
            size=tuple(rng.choice(SIZES) for _ in kernel),
            kernel=kernel,
            stride=stride,
            pads=tuple((rng.randint(low, k - 1), rng.randint(low, k)) for k in kernel),
            dilation=tuple(rng.choice(dilations) for _ in kernel),
            transposed=flavour == "transposed",
            output_padding=tuple(rng.randrange(s) for s in stride) if flavour == "transposed" else (),
        )
        weights = math.prod(kernel) * channels * columns // groups
        try:
            out = out_size(problem)
        except ShapeError:
            continue
        pixels = problem.batch * math.prod(problem.size if problem.transposed else out)
        floats = problem.batch * math.prod(out) * columns
        if weights <= MOST_WEIGHTS and weights * pixels <= MOST_MACS and floats <= MOST_FLOATS:
            return problem


def problems() -> Iterator[Problem]:
    rng = random.Random(5)
    for kernel in KERNELS:
        for flavour in FLAVOURS:
            yield draw_problem(rng, kernel, flavour)


def convolution_cases(algorithm: str, number: int, problem: Problem, made: Convolution) -> Iterator[Case]:
    """Yield a problem dense; between slices, with residual and activation; with a gate; and in the arena."""
    src = (problem.batch, *triple(problem.size, 1), problem.in_channels)
    dst = (problem.batch, *triple(out_size(problem), 1), problem.out_channels)
    gate = (problem.batch, 1, 1, 1, problem.in_channels)
    activation = ACTIVATIONS[number % len(ACTIVATIONS)]
    name = f"{algorithm}, {problem}"

    def alone(plan: Plan, x: View, y: View) -> None:
        plan.convolve(made, x, y, algorithm=algorithm)

    def fused(plan: Plan, x: View, residual: View, y: View) -> None:
        plan.convolve(made, x, y, residual, activation, 0.1, algorithm)

    def gated(plan: Plan, x: View, factors: View, y: View) -> None:
        plan.convolve(made, x, y, gate=factors, algorithm=algorithm)

    def inside(plan: Plan, x: View, y: View) -> None:
        inner, outer = View.dense(0, 0, src), View.dense(0, math.prod(src), dst)
        plan.import_channels_first(x.buffer, inner)
        plan.convolve(made, inner, outer, algorithm=algorithm)
        plan.export_channels_first(outer, y.buffer)

    yield Case(f"{name}, dense", dense(src, dst), alone, threads=1)
    yield Case(f"{name}, slices, residual, {activation}", slices(src, dst, dst), fused)
    yield Case(f"{name}, slices, gate", slices(src, gate, dst), gated)
    flat = [(n, c, d, h, w) for n, d, h, w, c in (src, dst)]
    yield Case(f"{name}, in the arena", dense(*flat), inside, arena=math.prod(src) + math.prod(dst))


def block_cases(number: int, problem: Problem, made: Convolution) -> Iterator[Case]:
    """Yield a depthwise convolution with a 1×1 convolution in front, behind, or both, by each algorithm."""
    rng = np.random.default_rng(3)
    few, columns = CHANNELS[(number + 1) % len(CHANNELS)], CHANNELS[number % len(CHANNELS)]
    front = rng.integers(-4, 5, (problem.in_channels, few, 1, 1, 1)).astype(np.float32)
    behind = rng.integers(-4, 5, (columns, problem.out_channels, 1, 1, 1)).astype(np.float32)
    expand, project = Convolution(front, front[:, 0, 0, 0, 0]), Convolution(behind, behind[:, 0, 0, 0, 0])
    for chain, algorithms in (
        ((made, project), ("blocked", "staged")),
        ((expand, made), ("banded", "staged")),
        ((expand, made, project), ("banded", "blocked", "staged")),
    ):
        src = (problem.batch, *triple(problem.size, 1), chain[0].in_channels)
        dst = (problem.batch, *triple(out_size(problem), 1), chain[-1].out_channels)
        activations = [("gelu", 0.0), ("relu", 0.0), ("relu", 0.0)][-len(chain) :]
        for algorithm in algorithms:
            name = f"{algorithm}, {len(chain)} of a block, {columns} columns, {problem}"

            def add(
                plan: Plan,
                x: View,
                residual: View,
                y: View,
                chain: Sequence[Convolution] = chain,
                activations: Sequence[tuple[str, float]] = activations,
                how: str = algorithm,
            ) -> None:
                plan.convolve_block(chain, chain.index(made), x, y, residual, activations, how)

            yield Case(name, slices(src, dst, dst), add)


def step_cases() -> Iterator[Case]:
    """Yield the other steps for each number of channels, dense and between slices."""
    for channels in CHANNELS:
        shape = (2, 5, 2, 7, channels)
        for name, others, add in steps(shape):
            for views in (dense, slices):
                yield Case(f"{name}, {channels} channels, {views.__name__}", views(shape, *others), add)
        flat = dense((2, channels, 5, 2, 7))
        view = slices(shape)[0]
        yield Case(
            f"import, {channels} channels",
            (*flat, view._replace(buffer=2)),
            lambda p, x, y: p.import_channels_first(1, y),
        )
        yield Case(
            f"export, {channels} channels",
            (view, flat[0]._replace(buffer=2)),
            lambda p, x, y: p.export_channels_first(x, 2),
        )


def steps(shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[tuple[int, ...], ...], Callable[..., None]]]:
    """Yield the name of each step, the shapes of its other buffers, and the function that adds it."""
    n, *size, c = shape
    window = ((3, 1, 2), (2, 1, 3), (1, 1, 2), (1, 0, 1))
    pooled = (conv_size(i, k, s, p, e) for i, k, s, e, p in zip(size, *window, strict=True))
    yield "max_pool", ((n, *pooled, c),), lambda plan, x, y: plan.max_pool(x, y, *window)
    mean = [(np.arange(i)[None], np.full((1, i), 1 / i)) for i in size]
    yield "global average", ((n, 1, 1, 1, c),), lambda plan, x, y: plan.resample(x, y, mean)
    double = [linear_taps(i) for i in size]
    yield "resize", ((n, *(2 * i for i in size), c),), lambda plan, x, y: plan.resample(x, y, double)
    for other in (shape, (1, 1, 1, 1, c), (n, 1, 1, 1, 1)):
        yield f"add {other}", (other, shape), lambda plan, a, b, y: plan.combine("add", a, b, y, "silu")
        yield f"subtract from {other}", (other, shape), lambda plan, a, b, y: plan.combine("subtract", b, a, y)
    for op in ("mean", "max", "sum"):
        for out in ((1, 1, 1, c), (*size, 1), (1, 1, 1, 1), (size[0], 1, size[2], c)):
            yield f"{op} {out}", ((n, *out),), lambda plan, x, y, op=op: plan.reduce(op, x, y)
    one = np.ones(c, np.float32)
    turned = list(range(c))[::-1]
    more: dict[str, Callable[..., None]] = {
        "affine": lambda plan, x, y: plan.affine(x, y, one, one, "gelu"),
        "prelu": lambda plan, x, y: plan.prelu(x, y, one),
        "normalise, 1 group": lambda plan, x, y: plan.normalise(x, y, 1, one, one, 1e-5, "relu"),
        "normalise, each channel": lambda plan, x, y: plan.normalise(x, y, c, one, one, 1e-5),
        "softmax": lambda plan, x, y: plan.softmax(x, y),
        "log_softmax": lambda plan, x, y: plan.softmax(x, y, log=True),
        "permute_channels": lambda plan, x, y: plan.permute_channels(x, y, turned),
        "local_response_norm": lambda plan, x, y: plan.local_response_norm(x, y, 5),
    }
    for name, add in more.items():
        yield name, (shape,), add


def linear_taps(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return index and weight of a linear resize to twice the size, without taps beyond the ends."""
    first = (np.arange(2 * size) + 1) // 2 - 1
    index = np.stack([first, np.where(first + 1 < size, first + 1, -1)], axis=1)
    weight = np.where(np.arange(2 * size) % 2, 0.75, 0.25)
    return index, np.stack([weight, 1 - weight], axis=1)


def all_cases(memories: Sequence[Heap]) -> Iterator[tuple[str, Case]]:
    """Yield each case with the name that it is counted under: the algorithm, "pair" or "step"."""
    for case in step_cases():
        yield "step", case
    for number, problem in enumerate(problems()):
        for memory in memories:
            made = layer(problem, memory)
        for algorithm in ALGORITHMS:
            for case in convolution_cases(algorithm, number, problem, made):
                yield algorithm, case
        if problem.groups == problem.in_channels == problem.out_channels and not problem.transposed:
            for case in block_cases(number, problem, made):
                yield "pair", case


def check(case: Case, isa: str, memories: dict[str, Heap]) -> bool:
    """Run a case in each memory and compare; return False if its algorithm does not support it."""
    results = []
    for place, memory in memories.items():
        print(f"{isa}, {place}: {case.name}", flush=True)
        try:
            results.append(run(case, isa, memory))
        except UnsupportedError:
            return False
    for result in results[1:]:
        assert np.array_equal(result, results[0]), "its output depends on where its buffers lie"
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every step between pages that may not be touched.")
    parser.add_argument("isa", nargs="+", choices=[*INSTRUCTION_SETS, "all"])
    parser.add_argument("--memory", nargs="+", default=["heap", "end", "begin"], choices=["heap", "end", "begin"])
    options = parser.parse_args()
    memories = {place: Heap() if place == "heap" else Guarded(place) for place in options.memory}
    counts: Counter[str] = Counter()
    failures = 0
    for isa in INSTRUCTION_SETS if "all" in options.isa else options.isa:
        for kind, case in all_cases(list(memories.values())):
            try:
                counts[kind] += check(case, isa, memories)
            except AssertionError as error:
                failures += 1
                print(f"FAILED {isa}: {case.name}: {error}", flush=True)
                for memory in memories.values():
                    memory.release()
    for kind, count in counts.items():
        print(f"ran {count} of {kind}")
    return 1 if failures else 0


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.native.test_guard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verdict(done: subprocess.CompletedProcess[str]) -> str:
    """Return the cases that failed, or the one in which the process ended, or ""."""
    if done.returncode < 0:
        return f"{signal.Signals(-done.returncode).name} in {done.stdout.splitlines()[-1]}"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return "\n".join(failed[:20]) or (done.stderr if done.returncode else "")


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_nothing_is_touched_outside_of_the_buffers(isa: str) -> None:
    done = start(isa)
    assert verdict(done) == ""
    ran = {line.split(" of ")[1]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ran")}
    assert ran.keys() == {"step", "pair", *ALGORITHMS}
    assert min(ran[name] for name in ("step", "pair", *algorithms_of(isa))) >= 20, ran


@pytest.mark.parametrize("access", ["one[0]", "one.__setitem__(0, 1)"])
@pytest.mark.parametrize(("place", "address"), [("end", "data + buffer.nbytes"), ("begin", "data - 4")])
def test_the_page_beside_a_buffer_ends_the_process(place: str, address: str, access: str) -> None:
    code = f"""
import ctypes, resource
from tests.native import test_guard
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
buffer = test_guard.Guarded({place!r}).take(5)
data = buffer.ctypes.data
one = (ctypes.c_float * 1).from_address({address})
print("a case", flush=True)
{access}
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict(done) == "SIGSEGV in a case", done.stderr


class TestTheRunnerItself:
    """The runner must refuse what a faulty step would do."""

    line, part = (1, 1, 1, 4, 3), (1, 1, 1, 3, 3)

    def refuse(self, message: str, views: tuple[View, ...], add: Callable[..., None]) -> None:
        memories = {"heap": Heap(), "end": Guarded("end")}
        with pytest.raises(AssertionError, match=message):
            check(Case("a case", views, add), INSTRUCTION_SETS[0], memories)

    def test_writing_between_the_lines_of_the_output(self) -> None:
        def add(plan: Plan, x: View, y: View) -> None:
            x = x._replace(shape=self.part)
            plan.combine("add", x, x, y._replace(shape=self.part, offset=1))

        self.refuse("beside its output", slices(self.line, self.line), add)

    def test_writing_into_a_source(self) -> None:
        def add(plan: Plan, x: View, y: View) -> None:
            plan.combine("add", x, x, x)
            plan.combine("add", x, x, y)

        self.refuse("wrote into buffer 1", slices(self.line, self.line), add)

    def test_reading_between_the_lines_of_a_source(self) -> None:
        def add(plan: Plan, x: View, y: View) -> None:
            plan.combine("add", x._replace(shape=self.part, offset=1), x._replace(shape=self.part), y)

        views = (slices(self.line)[0], slices(self.line, self.part)[1])
        self.refuse("what is not in its input", views, add)

    def test_a_result_that_depends_on_the_place(self) -> None:
        ones = iter((1.0, 2.0))

        def add(plan: Plan, x: View, y: View) -> None:
            plan.affine(x, y, np.full(3, next(ones)), np.zeros(3))

        self.refuse("where its buffers lie", dense(self.line, self.line), add)


if __name__ == "__main__":
    sys.exit(main())
