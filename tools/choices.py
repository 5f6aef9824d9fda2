"""Results of networks that must not depend on choices: threads, batch, calibration, process.

Run by hand::

    .venv/bin/python -m tools.choices                    everything; exit code 1 if some result differs
    .venv/bin/python -m tools.choices 'unet*' -i avx2    a part of it, on one instruction set

Each network is compiled in turn, for each precision, with calibrations forged before and after, run with 1, 2, 3 and 7
threads on a batch of four images and on parts of it, saved, loaded and compiled again by other processes that believe
in yet other calibrations. All results must be equal bit for bit. The suite runs a sample of it.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import itertools
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import convoxel as cx
from convoxel.files.values import Array
from convoxel.native import _core, instruction_sets
from convoxel.native.calibration import calibrate
from convoxel.native.precision import PRECISIONS
from tools import packages, zoo

CALIBRATIONS = ((0.25, 0.25), (4.0, 4.0), (0.25, 4.0), (4.0, 0.25))
THREADS = (1, 2, 3, 7)
PARTS = (slice(0, 1), slice(3, 4), slice(1, 3), slice(0, 4))  # of the batch


class Separable(nn.Module):
    """Blocks as of MobileNet, with squeeze and excitation, large kernels and few pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 32, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(32, 96, 1), nn.SiLU(),
                nn.Conv2d(96, 96, k, padding=k // 2, groups=96), nn.SiLU(), nn.Conv2d(96, 32, 1),
            ) for k in (3, 5, 7, 13)
        )  # fmt: skip
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 8 * 8, 300), nn.ReLU(), nn.Linear(300, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = x * torch.sigmoid(self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 8))


class Attending(nn.Module):
    """Patches, attention and layer norms, as of a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 48, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, activation="gelu")
        self.head = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(x.mean(1))


def upsampling() -> nn.Module:
    """Deconvolutions, instance and group norms, and resizes, in three dimensions."""
    return nn.Sequential(
        nn.Conv3d(2, 16, 3, padding=1), nn.InstanceNorm3d(16, affine=True), nn.LeakyReLU(),
        nn.Conv3d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32), nn.GELU(),
        nn.ConvTranspose3d(32, 16, 2, stride=2), nn.Upsample(scale_factor=2, mode="trilinear"), nn.Conv3d(16, 3, 1),
    )  # fmt: skip


def grouped() -> nn.Module:
    """Grouped and one-dimensional convolutions, with long kernels."""
    return nn.Sequential(
        nn.Conv1d(2, 24, 7, padding=3), nn.ReLU(), nn.Conv1d(24, 48, 5, padding=2, groups=3), nn.ReLU6(),
        nn.Conv1d(48, 48, 31, padding=15, groups=48), nn.Conv1d(48, 48, 3, dilation=2), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(192, 600), nn.Hardswish(), nn.Linear(600, 7),
    )  # fmt: skip


def _of_zoo(name: str, dims: int, size: int) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    return lambda: zoo.build(name, dims), (4, zoo.CHANNELS, *(size,) * dims)


# The network, and the shape of its four images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{
        f"{name}-{dims}d": _of_zoo(name, dims, size)
        for name, dims, size in (
            ("alexnet", 2, 96), ("vgg11_bn", 2, 64), ("googlenet", 2, 64), ("inception_v3", 2, 96), ("resnet18", 2, 64),
            ("resnet18", 3, 32), ("resnet50", 2, 64), ("resnext50_32x4d", 2, 64), ("densenet121", 2, 64),
            ("mobilenet_v1", 2, 64), ("mobilenet_v2", 2, 64), ("mobilenet_v2", 1, 64), ("mobilenet_v3_small", 2, 64),
            ("efficientnet_b0", 2, 64), ("unet", 2, 64), ("unet", 3, 32), ("unet_cicek", 3, 32),
            ("unet_resnet18", 2, 64), ("unet_mobilenet_v2", 2, 64),
        )
    },
    "separable": (Separable, (4, 2, 48, 48)),
    "attending": (Attending, (4, 2, 32, 32)),
    "upsampling": (upsampling, (4, 2, 12, 12, 12)),
    "grouped": (grouped, (4, 2, 100)),
}  # fmt: skip


# Networks of other packages, as tools/packages.py names them: those of packages that are installed.
PACKAGED = (
    "timm/convnext_atto", "timm/efficientvit_b0", "timm/poolformer_s12", "monai/unet-3d", "monai/dynunet-2d",
    "monai/attentionunet-2d", "monai/segresnet-2d", "smp/unet-resnet18",
)  # fmt: skip


def packaged() -> dict[str, packages.Case]:
    return {case.name: case for case in packages.cases() if case.name in PACKAGED}


def forge(rates: tuple[float, float]) -> None:
    """Make the engine believe that this machine was calibrated so."""
    calibrate()  # else the next plan would, and set this machine's
    _core.set_rates(*rates)


def model_and_images(name: str) -> tuple[nn.Module, Array]:
    if name in NETWORKS:
        make, shape = NETWORKS[name]
        torch.manual_seed(0)
        model = zoo.trained(make())
    else:
        model, case = packages.build(name), packaged()[name]
        shape = case.shape(packages.SMALL[case.dims], batch=4)
    return model, np.random.default_rng(0).standard_normal(shape, np.float32)


def results(program: cx.Program, x: Array) -> list[Array]:
    return [np.asarray(array) for array in torch.utils._pytree.tree_leaves(program(x))]


def digest(arrays: Sequence[Array]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def compiled(model: nn.Module, x: Array, precision: str, threads: int = 1) -> cx.Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cx.compile(model, x, precision=precision, threads=threads)


def differences(
    name: str,
    precision: str,
    threads: Sequence[int] = THREADS,
    calibrations: Sequence[tuple[float, float]] = CALIBRATIONS,
    folder: Path | None = None,
) -> Iterator[str]:
    """Yield, in words, each way in which a network's results depend on a choice.

    folder: where to save the program, for another process to load (default: none does).
    """
    model, x = model_and_images(name)
    forge(calibrations[0])
    program = compiled(model, x[:1], precision)
    right = results(program, x)

    def check(found: list[Array], part: slice, what: str) -> Iterator[str]:
        if any((a != b[part]).any() for a, b in zip(found, right, strict=True)):
            yield f"{name}, {precision}: {what}"

    ways = list(itertools.product(threads, calibrations))
    for place, (count, rates) in enumerate(ways):
        forge(rates)
        other = program.replace(threads=count)  # with plans of its own
        part = PARTS[place % len(PARTS)]
        yield from check(results(other, x[part]), part, f"{count} threads, rates {rates}, images {part} of a program")
    for place, rates in enumerate(calibrations):
        forge(rates)
        some = PARTS[place % len(PARTS)]
        again = compiled(model, x[some], precision, threads[place % len(threads)])
        yield from check(results(again, x), slice(None), f"compiled for images {some} with rates {rates}")
    if folder is not None:
        path = folder / f"{name.replace('/', '-')}-{precision}.cvx"
        program.save(path)
        for place in range(2):
            found = elsewhere(name, precision, path, place)
            if found != [digest(right)] * 2:
                yield f"{name}, {precision}: another process, loaded and compiled: {found}, not {digest(right)}"


def elsewhere(name: str, precision: str, path: Path, place: int) -> list[str]:
    """Return the digests of a process that loads the program, and of one that compiles the network."""
    code = f"from tools.choices import answer; answer({name!r}, {precision!r}, {str(path)!r}, {place})"
    environment = {**os.environ, "CONVOXEL_CACHE": "", "CONVOXEL_THREADS": str(2 + place)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def answer(name: str, precision: str, path: str, place: int) -> None:
    """Print the digests of the loaded program's results, and of those of one that is compiled here."""
    model, x = model_and_images(name)
    forge(CALIBRATIONS[(place + 1) % len(CALIBRATIONS)])
    print(digest(results(_loaded(path), x)), digest(results(compiled(model, x[:2], precision), x)))


def _loaded(path: str) -> cx.Program:
    program: Any = cx.load(path)
    assert isinstance(program, cx.Program)
    return program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of networks, such as 'unet*'")
    parser.add_argument("-q", "--quick", action="store_true", help="fewer threads and calibrations, no other processes")
    parser.add_argument("-i", "--isa", choices=instruction_sets(), help="one instruction set (default: each in turn)")
    options = parser.parse_args()
    if options.isa is None:  # the set belongs to a process
        return max(
            subprocess.run(
                [sys.executable, "-m", "tools.choices", *options.patterns, "-i", isa, *["-q"] * options.quick],
                env={**os.environ, "CONVOXEL_ISA": isa}, check=False,
            ).returncode
            for isa in instruction_sets()
        )  # fmt: skip
    os.environ["CONVOXEL_ISA"] = options.isa
    names = [*NETWORKS, *packaged()]
    chosen = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, precision in itertools.product(chosen, PRECISIONS):
            few = (THREADS[::2], CALIBRATIONS[:2]) if options.quick else (THREADS, CALIBRATIONS, Path(folder))
            found = list(differences(name, precision, *few))
            wrong += len(found)
            print(
                f"{'equal ' if not found else 'DIFFER'} {options.isa} {name} {precision}",
                *found,
                sep="\n  ",
                flush=True,
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
