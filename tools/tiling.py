"""Random networks on tiles: the joined results must have the bits of the whole image's.

``python -m tools.tiling --networks 300`` draws networks of 1 to 3 axes (strides, dilation, groups, kinds of padding,
pooling, transposed convolutions, resizes, pixel shuffles, skips, results of two sizes), sizes, tiles and algorithms.
``CONVOXEL_ISA=avx2 python -m tools.tiling`` runs another instruction set. A seed decides everything.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import convoxel as cx
from convoxel.errors import ConfigError, ConvoxelError, UnsupportedError
from tools.drawn_networks import Function

__all__ = ["Case", "TiledNetwork", "compare", "draw_case"]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_SIZES = {1: (60, 900), 2: (24, 90), 3: (14, 40)}
_ALGORITHMS = ("auto", "auto", "auto", "direct", "winograd")
_FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    functional.relu,
    functional.silu,
    functional.gelu,
    torch.sigmoid,
    torch.exp,
    lambda x: functional.leaky_relu(x, 0.1),
    lambda x: x.clamp(0.1, 2.0),
    lambda x: torch.softmax(x, 1),
)


class _LayerNorm(nn.Module):
    """Layer normalisation over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class _Skip(nn.Module):
    """Down, a body, up to the size of the skipped tensor, and both together, as in a U-Net."""

    def __init__(self, down: nn.Module, body: nn.Module, up: nn.Module, joint: str, mode: str) -> None:
        super().__init__()
        self.down, self.body, self.up, self.joint, self.mode = down, body, up, joint, mode

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.body(self.down(x)))
        size = x.shape[2:]
        if self.mode == "crop":
            size = torch.Size(map(min, x.shape[2:], y.shape[2:]))
            x, y = (each[(slice(None), slice(None), *map(slice, size))] for each in (x, y))
        else:
            corners = None if self.mode.startswith("nearest") else self.joint == "corners"
            y = functional.interpolate(y, size=size, mode=self.mode, align_corners=corners)
        return torch.cat((x, y), 1)


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, joint: str) -> None:
        super().__init__()
        self.body, self.joint = body, joint

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x * y if self.joint == "multiply" else x + y


class _Results(nn.Module):
    """The results of the body, and of a coarser head of it."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return y, self.head(y)


class TiledNetwork(nn.Module):
    """A network without steps that see the whole image, decided by ``seed``."""

    def __init__(self, seed: int, dims: int, in_channels: int, layers: int = 7) -> None:
        super().__init__()
        self._random, self.dims, self.channels = random.Random(seed), dims, in_channels
        self.body: nn.Module = nn.Sequential(*(self._layer(2) for _ in range(self._random.randint(2, layers))))
        if self._random.random() < 0.2:
            head = self._of("Conv")(self.channels, 3, 3, self._random.choice((2, 4)), 1)
            self.body = _Results(self.body, head)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the result, or both."""
        y: Tensor | tuple[Tensor, Tensor] = self.body(x)
        return y

    def _of(self, kind: str) -> Callable[..., nn.Module]:
        found: Callable[..., nn.Module] = getattr(nn, f"{kind}{self.dims}d")
        return found

    def _each(self, *values: int) -> tuple[int, ...]:
        return tuple(self._random.choice(values) for _ in range(self.dims))

    def _layer(self, depth: int) -> nn.Module:
        drawn = [self._convolution, self._convolution, self._depthwise, self._function, self._pool, self._norm]
        drawn += [self._resize, self._transposed, self._pad, self._shuffle, self._separable]
        if depth:
            drawn += [lambda: self._skip(depth - 1), lambda: self._residual(depth - 1)] * 2
        return self._random.choice(drawn)()

    def _convolution(self, stride: Sequence[int] | None = None) -> nn.Module:
        choose = self._random.choice
        kernel = self._each(3) if choose((0, 1)) else self._each(1, 2, 3, 5)
        dilation = self._each(1) if choose((0, 0, 1)) else self._each(1, 2, 3)
        stride = (self._each(1) if choose((0, 1)) else self._each(1, 2, 3)) if stride is None else stride
        padding = tuple((k - 1) * d // 2 if choose((0, 1, 1)) else choose((0, 1)) for k, d in zip(kernel, dilation))  # noqa: B905
        groups = 2 if self.channels % 2 == 0 and choose((0, 0, 1)) else 1
        channels = choose((4, 8, 16, 24, 32))
        mode = choose(("zeros", "zeros", "zeros", "reflect", "replicate", "circular"))
        if mode == "circular":
            mode = "zeros" if self._random.random() < 0.8 else mode
        made = self._of("Conv")(
            self.channels, channels, kernel, stride, padding, dilation, groups, bool(choose((0, 1))), mode
        )
        self.channels = channels
        return made

    def _depthwise(self) -> nn.Module:
        kernel = self._random.choice((3, 3, 5, 7))
        stride, dilation = self._each(1, 1, 2), self._random.choice((1, 1, 2))
        padding = (kernel - 1) * dilation // 2
        return self._of("Conv")(self.channels, self.channels, kernel, stride, padding, dilation, self.channels)

    def _separable(self) -> nn.Module:
        inner, channels, stride = 2 * self.channels, self._random.choice((8, 16, 24)), self._random.choice((1, 1, 2))
        parts = [
            self._of("Conv")(self.channels, inner, 1, bias=False), self._of("BatchNorm")(inner), nn.ReLU6(),
            self._of("Conv")(inner, inner, 3, stride, 1, groups=inner, bias=False), self._of("BatchNorm")(inner),
            nn.ReLU6(), self._of("Conv")(inner, channels, 1), self._of("BatchNorm")(channels),
        ]  # fmt: skip
        self.channels = channels
        return nn.Sequential(*parts)

    def _function(self) -> nn.Module:
        return Function(self._random.choice(_FUNCTIONS))

    def _norm(self) -> nn.Module:
        if self._random.random() < 0.3:
            return _LayerNorm(self.channels)
        made = self._of("BatchNorm")(self.channels)
        made.running_mean.normal_()  # type: ignore[union-attr, operator]
        made.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        return made

    def _pool(self) -> nn.Module:
        choose = self._random.choice
        kernel, stride = choose((2, 3)), choose((1, 2, 2))
        how = {"padding": choose((0, kernel // 2)), "ceil_mode": bool(choose((0, 1)))}
        if choose((0, 1)):
            return self._of("MaxPool")(kernel, stride, **how)
        return self._of("AvgPool")(kernel, stride, count_include_pad=bool(choose((0, 1))), **how)

    def _resize(self) -> nn.Module:
        mode = self._random.choice(("nearest", "nearest-exact", _LINEAR[self.dims]))
        corners = None if "nearest" in mode else bool(self._random.choice((0, 1)))
        factor = self._random.choice((2, 2, 1.5, 0.5, 3))
        return nn.Upsample(scale_factor=factor, mode=mode, align_corners=corners)

    def _transposed(self) -> nn.Module:
        choose = self._random.choice
        kernel, stride = choose((2, 3, 4)), choose((1, 2, 2, 3))
        padding, added = choose((0, 1)), choose((0, 1)) if stride > 1 else 0
        groups = 2 if self.channels % 2 == 0 and choose((0, 0, 1)) else 1
        channels = choose((4, 8, 16))
        made = self._of("ConvTranspose")(self.channels, channels, kernel, stride, padding, added, groups)
        self.channels = channels
        return made

    def _pad(self) -> nn.Module:
        mode = self._random.choice(("constant", "reflect", "replicate"))
        sides = [self._random.choice((0, 1, 2)) for _ in range(2 * self.dims)]
        return Function(lambda x: functional.pad(x, sides, mode=mode))

    def _shuffle(self) -> nn.Module:
        if self.dims != 2:
            return nn.Identity()
        if self.channels % 4 == 0 and self._random.random() < 0.5:
            self.channels //= 4
            return nn.PixelShuffle(2)
        channels = self.channels
        self.channels *= 4
        if self.channels > 64:
            self.channels = channels
            return nn.Identity()
        even = Function(lambda x: x[(slice(None), slice(None), *(slice(0, n // 2 * 2) for n in x.shape[2:]))])
        return nn.Sequential(even, nn.PixelUnshuffle(2))

    def _residual(self, depth: int) -> nn.Module:
        channels = self.channels
        first = self._of("Conv")(channels, channels, 3, padding=1)
        body = nn.Sequential(first, self._function(), self._of("Conv")(channels, channels, 3, padding=1))
        return _Residual(body, self._random.choice(("add", "multiply", "add")))

    def _skip(self, depth: int) -> nn.Module:
        outer = self.channels
        down = self._of("MaxPool")(2) if self._random.random() < 0.5 else self._convolution(self._each(2))
        body = nn.Sequential(*(self._layer(depth) for _ in range(self._random.randint(1, 2))))
        up = self._of("ConvTranspose")(self.channels, 8, 2, 2) if self._random.random() < 0.5 else nn.Identity()
        inner = 8 if not isinstance(up, nn.Identity) else self.channels
        self.channels = outer + inner
        mode = self._random.choice(("crop", "nearest", _LINEAR[self.dims]))
        return _Skip(down, body, up, self._random.choice(("corners", "none")), mode)


@dataclass(frozen=True)
class Case:
    """A network, an image and how it is cut.

    Attributes:
        seed: decides everything.
        shape: of the image.
        network: the network.
        algorithm, threads: as of ``convoxel.compile``.
        share: size of a tile as a share of what lies between the least tile and the image.
    """

    seed: int
    shape: tuple[int, ...]
    network: nn.Module
    algorithm: str
    threads: int
    share: float


def draw_case(seed: int) -> Case:
    """Return the case of a seed."""
    torch.manual_seed(seed)
    chosen = random.Random(seed)
    dims = chosen.choice((1, 2, 2, 3))
    channels = chosen.choice((1, 3, 8, 16))
    shape = (chosen.choice((1, 1, 2)), channels, *(chosen.randint(*_SIZES[dims]) for _ in range(dims)))
    network = TiledNetwork(seed, dims, channels, 7 if dims < 3 else 4).eval()
    share = chosen.choice((0.0, 0.1, 0.3))
    return Case(seed, shape, network, chosen.choice(_ALGORITHMS), chosen.choice((1, 2)), share)


def compare(case: Case) -> str:
    """Return what a case shows: "equal", or why it says nothing; raise AssertionError if a bit differs."""
    x = np.random.default_rng(case.seed).standard_normal(case.shape, np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad():
                case.network(torch.from_numpy(x))
            program = cx.compile(case.network, x, threads=case.threads)
    except (RuntimeError, ConvoxelError):  # a size that PyTorch refuses, too
        return "refused as a whole"
    if case.algorithm == "direct":
        program = program.replace(algorithm="direct")
    if case.algorithm == "winograd":
        program = program.replace(precision="high")
    whole = _results(program(x))
    try:
        least = _least(program, x)
        tile = [low + int(case.share * (size - low)) for low, size in zip(least, case.shape[2:], strict=True)]
        tiling = program.tiling(x, tile=tile)
    except UnsupportedError as error:
        return f"not tiled: {str(error).split(': ', 1)[1]}"
    if tiling.direct:
        whole = _results(program.replace(algorithm="direct")(x))
    found = _results(program.replace(threads=3 - case.threads).tiled(x, tile=tile))
    for number, (a, b) in enumerate(zip(whole, found, strict=True)):
        if a.tobytes() != b.tobytes():
            where = np.argwhere(a != b)
            raise AssertionError(f"seed {case.seed}: result {number} {a.shape} differs at {len(where)}: {tiling}")
    return "equal" if tiling.count > 1 else "equal, one tile"


def _least(program: cx.Program, x: np.ndarray) -> list[int]:
    """Return the least tile along each axis, which the error names."""
    sizes = list(x.shape[2:])
    for _ in range(8):
        try:
            program.tiling(x, tile=1 if sizes == list(x.shape[2:]) else sizes)
            return sizes
        except ConfigError as error:
            words = str(error).split("halo need ")[1].split(" where ")[0].split(";")[0]
            found = [int(word) for word in words.split(" x ")]
            if found == sizes:
                return found
            sizes = found
    raise AssertionError("the least tile is refused")


def _results(results: object) -> list[np.ndarray]:
    return [np.asarray(each) for each in results] if isinstance(results, (tuple, list)) else [np.asarray(results)]


def main() -> None:
    """Compare as many networks as asked for; print what they showed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=int, default=300, help="how many (default 300)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default 0)")
    asked = parser.parse_args()
    shown: Counter[str] = Counter()
    wrong = 0
    for seed in range(asked.first, asked.first + asked.networks):
        case = draw_case(seed)
        try:
            found = compare(case)
        except AssertionError as error:
            print(error, flush=True)
            wrong += 1
            continue
        shown[found.split(":")[0] if found.startswith("not tiled") else found] += 1
        if found.startswith("not tiled"):
            print(f"seed {seed}: {found}", flush=True)
    print(f"{cx.build_info()['instruction_set']}: {dict(shown)}, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
