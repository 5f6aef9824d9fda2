"""Random networks in 1-D, 2-D and 3-D, run by PyTorch and described to ``convoxel.arithmetic``, one graph an axis.

``python -m tools.axes --networks 400 --layers 20000`` compares more of them than the suite does: receptive fields
with the support of the gradient, tiles with the whole, sizes with PyTorch's.

Weights and inputs are positive, so nothing cancels in a gradient; all pooling takes means, which depend on every
element.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from convoxel.arithmetic import (
    Crop,
    Graph,
    Join,
    Layer,
    Node,
    Pad,
    Resize,
    Transposed,
    Unpool,
    Window,
    solve_inputs,
    solve_tile,
)
from convoxel.arithmetic.tile import _inside
from convoxel.errors import ShapeError

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Net:
    """A network of one channel: the same nodes on every axis, with different numbers."""

    axes: tuple[Graph, ...]

    def run(self, x: Tensor) -> Tensor:
        """Return the output of ``x`` (1, 1, *spatial)."""
        values = [x]
        for place, nodes in enumerate(zip(*(graph.nodes for graph in self.axes), strict=True)):
            generator = torch.Generator().manual_seed(place)
            values.append(compute([node.layer for node in nodes], [values[v] for v in nodes[0].inputs], generator))
        return values[-1]

    def __repr__(self) -> str:
        return " | ".join(map(str, self.axes))


def compute(layers: list[Any], inputs: list[Tensor], generator: torch.Generator) -> Tensor:
    """Return PyTorch's output of one kind of layer, whose numbers differ by axis, for ``inputs``."""
    x, dims, first = inputs[0], len(layers), layers[0]

    def each(name: str) -> tuple[Any, ...]:
        return tuple(getattr(layer, name) for layer in layers)

    def weights() -> Tensor:
        drawn = torch.rand((1, 1, *each("k")), generator=generator, dtype=torch.float64) + 0.5
        return drawn.to(x.device, x.dtype)

    if isinstance(first, Window) and first.ceil:
        return getattr(functional, f"avg_pool{dims}d")(x, each("k"), each("s"), each("p"), ceil_mode=True)
    if isinstance(first, Window):
        x = pad(x, [layer.padding(i) for layer, i in zip(layers, x.shape[2:], strict=True)])
        return getattr(functional, f"conv{dims}d")(x, weights(), None, each("s"), 0, each("d"))
    if isinstance(first, Transposed):
        # PyTorch pads both sides alike: what differs is cut off behind it.
        y = getattr(functional, f"conv_transpose{dims}d")(x, weights(), None, each("s"), 0, 0, 1, each("d"))
        return pad(y, [(-layer.padding()[0][0], layer.padding()[1] - layer.padding()[0][1]) for layer in layers])
    if isinstance(first, Unpool):
        kernel = torch.ones(each("k"), dtype=x.dtype)
        for axis, layer in enumerate(layers):
            if layer.position is not None:
                there = torch.zeros(layer.k, dtype=x.dtype)
                there[layer.position] = 1
                kernel = kernel * there.reshape([-1 if n == axis else 1 for n in range(dims)])
        stride = tuple(layer.s or layer.k for layer in layers)
        return getattr(functional, f"conv_transpose{dims}d")(x, kernel[None, None], None, stride, each("p"))
    if isinstance(first, Pad):
        return pad(x, [(layer.before, layer.after) for layer in layers], first.mode)
    if isinstance(first, Resize):
        mode = LINEAR[dims] if first.mode == "linear" else first.mode
        options = {"align_corners": False} if first.mode == "linear" else {}
        return functional.interpolate(x, scale_factor=[float(layer.factor) for layer in layers], mode=mode, **options)
    if isinstance(first, Crop):
        for axis, (i, o) in enumerate(zip(x.shape[2:], inputs[1].shape[2:], strict=True), 2):
            x = x.narrow(axis, (i - o) // 2, o)
        return x
    assert isinstance(first, Join)
    return sum(inputs[1:], x)


def pad(x: Tensor, pairs: list[tuple[int, int]], mode: str = "zeros") -> Tensor:
    """Return ``x`` with positions added before and after along each axis; negative numbers crop."""
    flat = [number for pair in reversed(pairs) for number in pair]
    return functional.pad(x, flat, {"zeros": "constant"}.get(mode, mode))


# One kind of layer with the numbers of every axis: a list, an entry an axis.
Drawn = list[Layer]


def layers_of(dims: int, stride: int | None = None) -> st.SearchStrategy[Drawn]:
    """Draw a layer; with ``stride`` 1 one that keeps the stride."""

    def each(build: Callable[..., Layer], *numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Drawn]:
        return st.lists(st.builds(build, *numbers), min_size=dims, max_size=dims)

    small = st.integers(1, 3)
    strides = small if stride is None else st.just(stride)
    pads = st.tuples(st.integers(-2, 3), st.integers(-2, 3))
    factors = st.sampled_from([2, 3, Fraction(3, 2), Fraction(1, 2)])
    # In more than one axis an output that sees nothing along one of them sees nothing at all.
    holes = dims == 1
    found = [
        each(Window, st.integers(1, 4), strides, pads, small),
        each(Window, st.integers(1, 4), strides, st.sampled_from(["same", "half", "full", "causal", "none"]), small),
        each(Pad, st.integers(-2, 3), st.integers(-2, 3)),
    ]
    if stride is None:
        found += [
            each(lambda k, s: Window(k, s, k // 2, 1, True), small, small),
            each(lambda k, s, p, d: Transposed(k if holes else max(k, s), s, p, d if holes else 1),
                 st.integers(1, 4), small, pads, small),
            each(Unpool, small),
            each(lambda k, position: Unpool(k, k, 0, position % k if holes else None), small, small),
            each(lambda factor: Resize(factor, "nearest"), factors),
            each(lambda factor: Resize(factor, "linear"), factors),
        ]  # fmt: skip
    return st.one_of(found)


@st.composite
def networks(draw: st.DrawFn, dims: int | None = None, most: int = 3) -> Net:
    """Draw a network: blocks, each a layer or two branches of equal stride that are cropped and added."""
    dims = draw(st.integers(1, 3)) if dims is None else dims
    nodes: list[list[Node]] = [[] for _ in range(dims)]

    def put(layers: Drawn, *inputs: int) -> int:
        for own, layer in zip(nodes, layers, strict=True):
            own.append(Node(layer, inputs))
        return len(nodes[0])

    def chain(value: int, stride: int | None, most: int) -> int:
        for layers in draw(st.lists(layers_of(dims, stride), min_size=1, max_size=most)):
            value = put(layers, value)
        return value

    value = 0
    for branched in draw(st.lists(st.booleans(), min_size=1, max_size=most)):
        if not branched:
            value = chain(value, None, 1)
            continue
        # So much padding makes the first branch the longer one, whatever the second pads.
        left = put([Pad(12, 12)] * dims, value if draw(st.booleans()) else chain(value, 1, 1))
        right = chain(value, 1, 2)
        value = put([Join()] * dims, put([Crop()] * dims, left, right), right)
    return Net(tuple(Graph(tuple(own)) for own in nodes))


def require(condition: object) -> None:
    """Reject the draw unless ``condition`` holds."""
    if not condition:
        reject()


def fitting(net: Net) -> tuple[int, ...]:
    """Return input sizes with some outputs that see no border; rejects the draw if they would be large."""
    sizes = []
    limit = {1: 2000, 2: 160, 3: 40}[len(net.axes)]
    for graph in net.axes:
        size = 10
        while True:
            size = size * 5 // 4
            require(size <= limit)
            try:
                first, stop = _inside(graph, graph.sizes(size))
            except ShapeError:
                continue
            if stop - first >= min(graph.field(size).period, 3):
                break
        sizes.append(size)
    return tuple(sizes)


def check_field(net: Net) -> int:
    """Compare fields with the support of the gradient, at outputs that see no border; return their number."""
    sizes = fitting(net)
    along = list(zip(net.axes, sizes, strict=True))
    fields = [graph.field(i) for graph, i in along]
    if len(net.axes) > 1:
        require(all(bits for graph, i in along for field in graph.fields(i) for _, bits in field.seen))
    x = torch.rand((1, 1, *sizes), dtype=torch.float64, requires_grad=True)
    y = net.run(x)
    assert tuple(y.shape[2:]) == tuple(graph.size(i) for graph, i in along)
    ranges = [_inside(graph, graph.sizes(i)) for graph, i in along]
    count = min(4, *(stop - first for first, stop in ranges), 4)
    for step in range(count):
        place = [first + step for first, _ in ranges]
        (gradient,) = torch.autograd.grad(y[(0, 0, *place)], x, retain_graph=True)
        seen = torch.nonzero(gradient[0, 0])
        for axis, (field, position) in enumerate(zip(fields, place, strict=True)):
            assert tuple(sorted(set(seen[:, axis].tolist()))) == field.inputs(position), (net, sizes, place)
    return count


def check_tiles(net: Net) -> int:
    """Compare tiles, put together, with the whole; return their number, 0 for a network that has none."""
    (graph,) = net.axes
    known = solve_inputs(graph).sizes
    require(known.endless)
    size = next(i for i in known if i >= 24)
    try:
        try:
            tile = solve_tile(graph, size)
        except ShapeError as error:
            require("Use tiles of at least" in str(error))
            least = int(str(error).rsplit(" ", 1)[1].rstrip("."))
            require(least < 2000)
            tile = solve_tile(graph, least)
            smaller = least - tile.multiple
            assert smaller <= size or smaller not in known or not tiles(graph, smaller), f"{net}: not the least"
    except ShapeError:
        return 0
    whole = tile.size + 5 * tile.advance
    x = torch.rand((1, 1, whole), dtype=torch.float64)
    parts = tile.cover(whole)
    expected = net.run(x)
    found = [net.run(x[..., part.input[0] : part.input[1]])[..., part.crop[0] : part.crop[1]] for part in parts]
    assert [part.output[1] - part.output[0] for part in parts] == [each.shape[-1] for each in found]
    torch.testing.assert_close(torch.cat(found, -1), expected, rtol=1e-12, atol=1e-12)
    return len(parts)


def tiles(graph: Graph, size: int) -> bool:
    """Return True if ``graph`` can be computed in tiles of ``size``."""
    try:
        solve_tile(graph, size)
    except ShapeError:
        return False
    return True


def check_layer(draw: random.Random) -> str:
    """Draw one layer in 1-D, 2-D or 3-D and compare its size with that of PyTorch; return its kind."""
    dims = draw.randint(1, 3)
    kind = draw.choice(["conv", "same", "pool", "mean", "transposed", "pad", "resize", "unpool"])
    sizes = [draw.randint(1, 40) for _ in range(dims)]
    ceil = draw.random() < 0.5
    layers = [_layer(draw, kind, ceil, i) for i in sizes]
    try:
        expected = tuple(_torch_size(kind, torch.empty((1, 1, *sizes), device="meta"), layers))
    except RuntimeError:
        expected = ()
    if not all(size > 0 for size in expected):
        expected = ()  # PyTorch lets tensors without elements through
    try:
        found = tuple(layer.size(i) for layer, i in zip(layers, sizes, strict=True))
    except ShapeError:
        found = ()
    if kind == "mean" and dims == 3 and any(i < layer.k for layer, i in zip(layers, sizes, strict=True)):
        assert found == expected or not expected
        return "mean refused by PyTorch"  # in 3-D alone it wants inputs as large as the kernel, whatever the padding
    assert found == expected, f"{kind} {list(map(str, layers))} on {sizes}: {found}, PyTorch: {expected}"
    return f"{kind} {'fits' if found else 'refused'}"


def _layer(draw: random.Random, kind: str, ceil: bool, i: int) -> Any:
    k, s, d = draw.randint(1, 7), draw.randint(1, 4), draw.randint(1, 3)
    pair = (draw.randint(-3, 6), draw.randint(-3, 6))
    if kind == "conv":
        # A crop leaves something, or there is nothing for PyTorch to convolve.
        return Window(k, s, (max(pair[0], -(i // 2)), max(pair[1], -(i // 2))), d)
    if kind == "same":
        return Window(k, 1, "same", d)
    if kind in ("pool", "mean"):
        return Window(k, s, draw.randint(0, k // 2), d if kind == "pool" else 1, ceil)
    if kind == "transposed":
        return Transposed(k, s, draw.randint(0, 3), d, draw.randint(0, max(s, d) - 1))
    if kind == "pad":
        return Pad(*pair)
    if kind == "unpool":
        return Unpool(k, s, draw.randint(0, k // 2))
    return Resize(draw.choice([2, 3, Fraction(3, 2), Fraction(1, 2), Fraction(5, 4)]))


def _torch_size(kind: str, x: Tensor, layers: list[Any]) -> torch.Size:
    dims = len(layers)

    def each(name: str) -> tuple[Any, ...]:
        return tuple(getattr(layer, name) for layer in layers)

    if kind in ("same", "transposed"):
        w = torch.empty((1, 1, *each("k")), device="meta")
        if kind == "same":
            return getattr(functional, f"conv{dims}d")(x, w, padding="same", dilation=each("d")).shape[2:]
        convolve = getattr(functional, f"conv_transpose{dims}d")
        return convolve(x, w, None, each("s"), each("p"), each("a"), 1, each("d")).shape[2:]
    if kind == "pool":
        pool = getattr(functional, f"max_pool{dims}d")
        return pool(x, each("k"), each("s"), each("p"), each("d"), layers[0].ceil).shape[2:]
    if kind == "mean":
        return getattr(functional, f"avg_pool{dims}d")(x, each("k"), each("s"), each("p"), layers[0].ceil).shape[2:]
    if kind == "unpool":
        wanted = [layer.s * (i - 1) + layer.k - 2 * layer.p for layer, i in zip(layers, x.shape[2:], strict=True)]
        x = torch.zeros(x.shape)  # PyTorch computes this size in Python and then fills it
        index = torch.arange(x.numel()).reshape(x.shape)
        if min(wanted) < 1 or index.numel() > torch.Size(wanted).numel():
            return torch.Size([max(size, 0) for size in wanted])
        return getattr(functional, f"max_unpool{dims}d")(x, index, each("k"), each("s"), each("p")).shape[2:]
    return compute(layers, [x], torch.Generator()).shape[2:]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare random networks and layers with PyTorch.")
    parser.add_argument("--networks", type=int, default=400, help="number of networks (default 400)")
    parser.add_argument("--layers", type=int, default=20_000, help="number of layers (default 20000)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
    counts: Counter[str] = Counter()
    many = settings(
        max_examples=options.networks, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )

    @many
    @given(networks(most=4))
    def compare_fields(net: Net) -> None:
        counts["outputs"] += check_field(net)
        counts[f"networks in {len(net.axes)}-D"] += 1

    @many
    @given(networks(dims=1, most=4))
    def compare_tiles(net: Net) -> None:
        counts["tiles"] += check_tiles(net)

    compare_fields()
    compare_tiles()
    draw = random.Random(0)
    counts.update(check_layer(draw) for _ in range(options.layers))
    for what, count in sorted(counts.items()):
        print(f"{what:24s} {count:7d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
