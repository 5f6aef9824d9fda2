"""Comparison of the zoo with torchvision: state-dict names and shapes, and outputs.

Run by hand and by ``make conformance``::

    .venv/bin/python -m tools.identity            compare with torchvision, if it is installed, and with the record
    .venv/bin/python -m tools.identity --record   compare, and rewrite tools/identity.json

The record holds, for every network, a digest of the names and shapes in its state dict and a fingerprint: some
logits for weights and an input that depend on names and shapes only (see ``fill``). So the suite checks the networks
without torchvision, which only this command needs: ``pip install --no-deps torchvision``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convoxel import models

RECORD = Path(__file__).with_name("identity.json")

# Name in our zoo → spatial size of the input that is compared; sizes are small, where the network allows it.
SIZES = {
    "alexnet": 96, "vgg11": 64, "vgg13": 64, "vgg16": 64, "vgg16_bn": 64, "vgg19": 64, "googlenet": 96,
    "inception_v3": 128, "resnet18": 96, "resnet34": 96, "resnet50": 96, "resnet101": 96, "resnet152": 96,
    "resnext50_32x4d": 96, "wide_resnet50_2": 96, "densenet121": 96, "densenet161": 96, "densenet169": 96,
    "densenet201": 96, "mobilenet_v2": 96, "mobilenet_v3_large": 96, "mobilenet_v3_small": 96,
    "efficientnet_b0": 96, "efficientnet_b2": 96, "efficientnet_b4": 96, "efficientnet_b7": 96,
}  # fmt: skip
LOGITS = 8
# Different processors sum in different orders; a wrong layer changes every digit.
TOLERANCE = 1e-3


def build(name: str) -> nn.Module:
    """Return our network in eval mode, with auxiliary heads where torchvision's checkpoints have them."""
    with torch.device("meta"):
        model = models.build(name, **({"auxiliary": True} if "auxiliary" in models.entry(name).options else {}))
    return model.to_empty(device="cpu").eval()


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the lines ``name shape``, sorted."""
    lines = sorted(f"{name} {tuple(tensor.shape)}\n" for name, tensor in state.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return numbers in [−1, 1): the upper 24 bits of a Philox generator keyed by the CRC-32 of ``name``."""
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return torch.from_numpy((raw >> np.uint64(40)).astype(np.float32) / 2**23 - 1).reshape(shape)


def fill(model: nn.Module) -> nn.Module:
    """Fill every tensor with numbers that depend only on its name and shape.

    Kernels and matrices have the variance 2 / inputs; scales and variances lie in 0.5 … 1.5, shifts and means in
    −0.1 … 0.1.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()  # num_batches_tracked
            continue
        numbers = uniform(name, tuple(tensor.shape))
        if tensor.dim() > 1:
            numbers *= (6 / tensor[0].numel()) ** 0.5
        elif name.endswith((".weight", "running_var")):
            numbers = 1 + numbers / 2
        else:
            numbers /= 10
        tensor.copy_(numbers)
    return model


def logits(model: nn.Module, name: str) -> Tensor:
    with torch.inference_mode():
        return model(uniform("input", (1, 3, SIZES[name], SIZES[name])))[0]


def fingerprint(values: Tensor) -> list[float]:
    """Return the first logits and the root of the mean square of all."""
    return [float(f"{value:.6g}") for value in (*values[:LOGITS], values.square().mean().sqrt())]


def misfit(found: list[float], recorded: list[float]) -> float:
    """Return the largest difference in units of the root mean square; infinity if anything is not finite."""
    worst = float(np.abs(np.array(found) - recorded).max() / recorded[-1])
    return worst if np.isfinite(worst) else float("inf")


def torchvision() -> Any:
    """Return torchvision's models, or None; operators that its import requires and lacks are declared, not computed."""
    for _ in range(2):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module("torchvision.models")
        except ImportError:
            return None
        except RuntimeError:  # its compiled operators belong to another build of PyTorch
            torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
            torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return None


def compare(name: str, theirs: Any) -> float:
    """Load weights in both directions with ``strict=True``; return the largest relative difference of the outputs."""
    ours = fill(build(name))
    options = {"transform_input": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    other = getattr(theirs, name)(weights=None, **options, **({"aux_logits": True} if options else {})).eval()
    other.load_state_dict(ours.state_dict(), strict=True)
    expected = logits(other, name)
    fresh = build(name)
    fresh.load_state_dict(other.state_dict(), strict=True)
    difference = (logits(fresh, name) - expected).abs().max() / expected.abs().max()
    return float(difference)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of networks (default: all)")
    parser.add_argument("--record", action="store_true", help="rewrite tools/identity.json")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    theirs = torchvision()
    if theirs is None:
        print("torchvision is not installed: the record alone is compared (pip install --no-deps torchvision).")
    failures = 0
    for name in options.names or SIZES:
        start = time.perf_counter()
        model = fill(build(name))
        found = {"digest": digest(model.state_dict()), "logits": fingerprint(logits(model, name))}
        apart = compare(name, theirs) if theirs is not None else 0.0
        if options.record:
            record[name] = found
        same = record[name]["digest"] == found["digest"]
        off = misfit(found["logits"], record[name]["logits"])
        good = same and off <= TOLERANCE and apart <= 1e-5
        failures += not good
        seconds = time.perf_counter() - start
        print(
            f"{'ok  ' if good else 'FAIL'} {name:20} names and shapes {'as recorded' if same else 'DIFFER'}, "
            f"record {off:.1e}, torchvision {apart if theirs else float('nan'):.1e}, {seconds:.1f} s",
            flush=True,
        )
    if options.record:
        RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
