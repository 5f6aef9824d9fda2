"""Checks that need a GPU: training and prediction there beside the CPU, one JSON line for each check.

    python -m tools.device_check [--device cuda] [--quick] [--only parity,resume]

Each line has the name of the check, ``ok``, and what was measured; the exit code is 1 if one failed. Data are made up,
so nothing is downloaded. ``--quick`` takes small networks: with ``--device cpu`` it tries the program itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoxel.errors import ConvoxelError
from convoxel.predict.computation import Computation
from convoxel.predict.device import choose_device, describe_device
from convoxel.predict.inference import build_predictor, place_run
from convoxel.train import Progress, RunPlan, TrainConfig, evaluate, fit, load_model
from convoxel.train.checkpoint import Store
from convoxel.train.run_folder import load_data

# After a few steps the sums of float32, made in another order, still agree to this share of the loss.
_FLOAT32 = 2e-3
_REDUCED = 0.1
_WORDS = {"cpu": ("float32", "bfloat16", "float16"), "cuda": ("float32", "tf32", "bfloat16", "float16")}


@dataclass
class Run:
    """A training and what was seen of it."""

    folder: Path
    losses: list[float] = field(default_factory=list)
    samples_per_s: float = 0.0
    peak_gib: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, bytes]:
        """Return the bytes of the last checkpoint's tensors."""
        return {name: value.contiguous().numpy().tobytes() for name, value in Store(self.folder).load().tensors.items()}

    def plan(self) -> str:
        """Return what the plan says of the device."""
        plan = RunPlan.read(self.folder)
        return "" if plan is None else dict(plan.choices)["device"]


class Checks:
    """The checks; each returns what it measured, with ``ok``."""

    def __init__(self, device: str, quick: bool, folder: Path) -> None:
        self.device, self.quick, self.folder = choose_device(device), quick, folder
        self.count = 0
        sides = {2: 64 if quick else 256, 3: 16 if quick else 64}
        self.data = {dims: _write_data(folder / f"data{dims}.npz", dims, side) for dims, side in sides.items()}
        self.sides = sides

    def machine(self) -> dict[str, object]:
        """Return what computes."""
        found: dict[str, object] = {"ok": True, "torch": str(torch.__version__), "cuda": torch.version.cuda}
        found["device"] = describe_device(self.device)
        if self.device.type == "cuda":
            found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(self.device)))
            found["cudnn"] = torch.backends.cudnn.version()
        return found

    def products(self) -> dict[str, object]:
        """Convolve and multiply: the error of float32 is float32's, and TF32 is used only where it is asked for."""
        found: dict[str, object] = {"ok": True}
        rng = torch.Generator().manual_seed(0)
        x, w = (torch.randn(2, 64, 32, 32, generator=rng), torch.randn(64, 64, 3, 3, generator=rng))
        a = torch.randn(512, 512, generator=rng)
        exact = torch.conv2d(x.double(), w.double()), a.double() @ a.double()
        for word in ("float32", "tf32"):
            with Computation(self.device, word).settings():
                came = torch.conv2d(x.to(self.device), w.to(self.device)), a.to(self.device) @ a.to(self.device)
            errors = [float((y.cpu() - z).abs().max() / z.abs().max()) for y, z in zip(came, exact, strict=True)]
            found[word] = errors
            found["ok"] = found["ok"] and max(errors) < (2e-6 if word == "float32" else 2e-3)
        return found

    def parity(self) -> dict[str, object]:
        """Train on the CPU and on the device from one seed: the losses agree as far as float32 does."""
        found: dict[str, object] = {}
        for dims in (2, 3):
            small = {"precision": "float32", "batch_size": 2, "width": 8, "levels": 2, "steps": 8}
            runs = [self.train(dims, device=device, **small) for device in ("cpu", str(self.device))]
            found[f"{dims}d"] = worst = _difference(*(run.losses for run in runs))
            found["ok"] = found.get("ok", True) and worst < _FLOAT32
        return found

    def precisions(self) -> dict[str, object]:
        """Train in each precision: finite losses near float32's, samples a second, memory, the scale of the loss."""
        found: dict[str, object] = {"ok": True}
        for dims in (2, 3):
            first: list[float] = []
            for word in _WORDS.get(self.device.type, ("float32",)):
                run = self.train(dims, precision=word, compile=False)
                first = first or run.losses
                worst = _difference(first, run.losses)
                found[f"{dims}d {word}"] = {
                    "loss": run.losses[-1], "difference": worst, "samples_per_s": run.samples_per_s,
                    "peak_gib": run.peak_gib, "device": run.plan(),
                    "scaler": Store(run.folder).load().body.get("scaler"),
                }  # fmt: skip
                found["ok"] = found["ok"] and worst < _REDUCED and bool(np.isfinite(run.losses).all())
        return found

    def resume(self) -> dict[str, object]:
        """Train twice, and once with an interruption, deterministically: the same bits."""
        found: dict[str, object] = {"ok": True}
        for dims in (2, 3):
            for word in ("float32", "float16" if self.device.type != "mps" else "bfloat16"):
                small = {"precision": word, "batch_size": 2, "width": 8, "deterministic": True, "steps": 6}
                whole, again = self.train(dims, **small), self.train(dims, **small)
                broken = self.train(dims, stop=3, **small)
                self.train(dims, resume=broken, **small)
                equal = [run.tensors() == whole.tensors() for run in (again, broken)]
                found[f"{dims}d {word}"] = {"again": equal[0], "resumed": equal[1], "warnings": whole.warnings}
                found["ok"] = found["ok"] and all(equal)
        return found

    def moves(self) -> dict[str, object]:
        """Begin on the device, go on on the CPU, end on the device: the losses are those of a run that stays."""
        small = {"precision": "float32", "batch_size": 2, "width": 8, "levels": 2, "steps": 9}
        stays = self.train(3, **small)
        moved = self.train(3, stop=3, **small)
        losses = list(moved.losses)
        for device, stop in (("cpu", 6), (str(self.device), None)):
            part = self.train(3, resume=moved, stop=stop, **{**small, "device": device})
            losses += part.losses
        worst = _difference(stays.losses, losses)
        return {"ok": worst < _FLOAT32, "difference": worst, "device": moved.plan()}

    def compiler(self) -> dict[str, object]:
        """Train compiled: the losses are the same; and what the choice by measured steps says."""
        found: dict[str, object] = {"ok": True}
        for dims, word in ((2, "bfloat16"), (3, "bfloat16"), (3, "float32")):
            plain = self.train(dims, precision=word, compile=False)
            made = self.train(dims, precision=word, compile=True)
            worst = _difference(plain.losses, made.losses)
            found[f"{dims}d {word}"] = {
                "difference": worst, "samples_per_s": [plain.samples_per_s, made.samples_per_s],
                "peak_gib": [plain.peak_gib, made.peak_gib],
            }  # fmt: skip
            found["ok"] = found["ok"] and worst < (_FLOAT32 if word == "float32" else _REDUCED)
        chosen = self.train(3, compile="auto")
        found["auto"] = chosen.plan()
        return found

    def workers(self) -> dict[str, object]:
        """Prepare samples between steps, and ahead of them in threads."""
        rates = {str(count): self.train(3, num_workers=count, compile=False).samples_per_s for count in (0, 1, 4, 8)}
        return {"ok": True, "samples_per_s": rates}

    def prediction(self) -> dict[str, object]:
        """Predict a whole image on the CPU and on the device."""
        found: dict[str, object] = {"ok": True}
        for dims in (2, 3):
            trained = self.train(dims, precision="float32", steps=4)
            run = load_model(trained.folder)
            image = load_data(run.config).validation[0].image
            logits, times = [], []
            for device in ("cpu", str(self.device)):
                predictor = build_predictor(run, engine="torch", computation=place_run(run, "torch", device))
                predictor.logits(image)
                begun = time.perf_counter()
                logits.append(predictor.logits(image))
                times.append(time.perf_counter() - begun)
            worst = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
            metrics = [evaluate(trained.folder, engine="torch", device=word)["metric"] for word in ("cpu", "auto")]
            found[f"{dims}d"] = {"difference": worst, "seconds": times, "dice": metrics}
            found["ok"] = found["ok"] and worst < 1e-4 and abs(metrics[0] - metrics[1]) < 1e-3
        return found

    def memory(self) -> dict[str, object]:
        """Ask for more memory than there is: words, not PyTorch's error."""
        if self.device.type == "cpu":
            return {"ok": True, "skipped": "a machine that runs out of memory ends the program"}
        try:
            self.train(3, batch_size=2048, width=64, steps=1, compile=False, channels_last=True)
        except ConvoxelError as error:
            return {"ok": "batch_size=1024" in str(error), "told": str(error)}
        return {"ok": False, "told": "nothing: the step fitted"}

    def train(
        self, dims: int, *, steps: int | None = None, stop: int | None = None, resume: Run | None = None, **entries: Any
    ) -> Run:
        """Train a U-Net for some steps; ``stop`` interrupts after that step of the run, ``resume`` goes on with one."""
        steps = steps or (4 if self.quick else 40)
        self.count += 1
        run = Run(self.folder / f"run{self.count}") if resume is None else Run(resume.folder)
        usual: dict[str, Any] = {
            "task": "segment", "data": str(self.data[dims]), "output": str(run.folder), "device": str(self.device),
            "patch": (self.sides[dims],) * dims, "batch_size": 2 if self.quick else {2: 16, 3: 4}[dims],
            "width": 4 if self.quick else 32, "levels": 2 if self.quick else 3, "epochs": steps, "steps_per_epoch": 1,
            "validate_every": steps, "tensorboard": False, "seed": 1,
        }  # fmt: skip
        config = TrainConfig.build(**{**usual, **entries})
        sums, before, moments = [0.0], 0, []

        def watch(progress: Progress) -> None:
            nonlocal before
            if progress.phase != "train" or progress.step == before or progress.loss is None:
                return
            before = progress.step
            moments.append(time.perf_counter())
            sums.append(progress.loss * len(sums) if resume is None else progress.loss * progress.step)
            if progress.step == stop:
                os.kill(os.getpid(), signal.SIGINT)

        if resume is not None:
            body = Store(resume.folder).load().body
            sums = [float(body["loss_sum"])]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(config, resume=resume is not None, on_progress=watch)
        run.losses = [float(after - sooner) for sooner, after in pairwise(sums)]
        run.warnings = sorted({str(warning.message).partition("\n")[0][:160] for warning in caught})
        if len(moments) > 1:  # the median leaves out what a compiler or cuDNN's search takes
            run.samples_per_s = round((config.batch_size or 1) / float(np.median(np.diff(moments))), 2)
        if self.device.type == "cuda":
            run.peak_gib = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        return run


def _difference(first: list[float], second: list[float]) -> float:
    """Return the largest difference of two courses of the loss, as a share of the loss."""
    assert len(first) == len(second) > 0, (first, second)
    return max(abs(a - b) / abs(a) for a, b in zip(first, second, strict=True))


def _write_data(path: Path, dims: int, side: int) -> Path:
    """Write images of noise with a bright and a dark ball."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * dims, indexing="ij"), axis=-1)
    arrays = {}
    for part, count in (("train", 16), ("val", 2)):
        images = rng.normal(100, 5, (count, *[side] * dims)).astype(np.float32)
        labels = np.zeros(images.shape, np.uint8)
        for image, label in zip(images, labels, strict=True):
            for number, shift in ((1, 25.0), (2, -25.0)):
                ball = ((grid - rng.uniform(side / 4, 3 * side / 4, dims)) ** 2).sum(axis=-1) < (side / 6) ** 2
                image[ball] += shift
                label[ball] = number
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(path, **arrays)
    return path


_NAMES = (
    "machine",
    "products",
    "parity",
    "resume",
    "moves",
    "precisions",
    "prediction",
    "workers",
    "memory",
    "compiler",
)


def main() -> int:
    """Run the checks that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(description="Checks of training on a device; one JSON line each.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(_NAMES), help="Names, separated by commas.")
    parsed = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(parsed.device, parsed.quick, Path(folder))
        for name in parsed.only.split(","):
            check: Callable[[], dict[str, object]] = getattr(checks, name)
            begun = time.perf_counter()
            try:
                found = check()
            except Exception as error:  # the others are still worth their answers
                found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
            failed += not found["ok"]
            print(json.dumps({"check": name, **found, "seconds": round(time.perf_counter() - begun, 1)}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
