"""Flips: a checkpoint, a program or the weights of a run with one bit flipped, or cut off, is never taken for whole."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools.faults.scene import Scene

BATCH = 50


def count(scene: Scene) -> int:
    """Return how many batches of damaged files there are."""
    return 80 if scene.full else 12


def check(scene: Scene, number: int) -> str:
    """Damage one file again and again and return what was not noticed."""
    from convoxel.errors import ConvoxelError

    rng = np.random.default_rng([scene.seed, number])
    name, read = list(_READERS.items())[number % len(_READERS)]
    with scene.room("flips") as room:
        for part in ("classifier", "net.cvx"):
            source = scene.path(part)
            shutil.copytree(source, room / part) if source.is_dir() else shutil.copy(source, room / part)
        if name.startswith("last"):  # with no other one to take its place
            for path in (room / "classifier" / "checkpoints").glob("previous*"):
                path.unlink()
        path = room / _FILES[name]
        whole = path.read_bytes()
        for turn in range(BATCH):
            damaged = bytearray(whole)
            if turn % 5 == 0:
                del damaged[int(rng.integers(0, len(whole))) :]
            else:
                damaged[int(rng.integers(0, len(whole)))] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(room)
            except ConvoxelError:
                continue
            return f"{name}: change {turn} of batch {number} is not noticed"
    return ""


def _load_last(room: Path) -> None:
    from convoxel.train.checkpoint import Store

    Store(room / "classifier").load()


def _load_best(room: Path) -> None:
    from convoxel.train.checkpoint import Store

    Store(room / "classifier").load_best()


def _load_program(room: Path) -> None:
    from convoxel.graph.load import load

    load(room / "net.cvx", threads=1)


def _load_weights(room: Path) -> None:
    import torch

    from convoxel import models

    with torch.random.fork_rng(devices=[]):
        model = models.build("course_vgg", 2, in_channels=3, num_classes=2, width=0.25)
    models.load_weights(model, room / "classifier")


_READERS: dict[str, Callable[[Path], None]] = {
    "last checkpoint": _load_last,
    "last manifest": _load_last,
    "best checkpoint": _load_best,
    "best manifest": _load_best,
    "program": _load_program,
    "weights of a run": _load_weights,
}
_FILES = {
    "last checkpoint": "classifier/checkpoints/last.safetensors",
    "last manifest": "classifier/checkpoints/last.json",
    "best checkpoint": "classifier/checkpoints/best.safetensors",
    "best manifest": "classifier/checkpoints/best.json",
    "program": "net.cvx",
    "weights of a run": "classifier/checkpoints/best.safetensors",
}
