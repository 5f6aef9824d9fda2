"""Steps of training on 2 threads: our kernels in the step beside PyTorch's ways to compute it.

python -m bench.training_step [--networks nnunet,unet3d,…] [--contenders ours,torch,…] [--turns 5] [--json FILE]

Every contender trains the same network from the same weights on the same batch by SGD with Nesterov momentum, in a
process of its own. Contenders take turns; a turn is some steps. Printed: the median time of a step, and by how much the
losses of the first steps differ from those of PyTorch in float32. Ours runs as ``convoxel train`` runs it: PyTorch's
idle threads sleep, and freed memory is kept; names that end in "+kept" are PyTorch's ways with these settings. Wants an
idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Of each network: how it is built, and the shape of its batch.
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "nnunet": ({"name": "plain_conv_unet", "dims": 3, "levels": 3, "width": 32}, (9, 1, 40, 56, 40)),
    "resenc_m": ({"name": "residual_encoder_unet", "dims": 3, "levels": 3, "width": 32}, (9, 1, 40, 56, 40)),
    "unet3d": ({"name": "unet", "dims": 3, "levels": 3, "width": 16}, (2, 1, 48, 48, 48)),
    "unet2d": ({"name": "unet", "dims": 2, "levels": 4, "width": 32}, (4, 1, 128, 128)),
    "resnet18": ({"name": "resnet18", "dims": 2}, (16, 3, 96, 96)),
}
# Layout, precision, engine and compiler of each contender.
CONTENDERS: dict[str, tuple[bool, str, str, bool]] = {
    "ours": (True, "float32", "convoxel", False),
    "torch": (False, "float32", "torch", False),
    "torch-cl": (True, "float32", "torch", False),
    "torch-bf16": (True, "bfloat16", "torch", False),
    "torch.compile": (True, "float32", "torch", True),
}
_KEPT = "+kept"
_LOSSES = 5
_TURN_S = 2.0


def serve(network: str, contender: str, threads: int) -> None:
    """Take steps for one turn at each line of standard input, and answer with their times and the first losses."""
    import torch
    from torch import nn

    from convoxel import models
    from convoxel.predict.computation import Computation

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    options, shape = NETWORKS[network]
    given = {"in_channels": shape[1], "num_classes": 3, **options}
    model = models.build(given.pop("name"), **given).train()
    channels_last, precision, engine, compiled = CONTENDERS[contender.removesuffix(_KEPT)]
    computation = Computation(torch.device("cpu"), precision, channels_last, engine)
    dims = len(shape) - 2
    images = computation.move(torch.randn(shape))
    classify = network.startswith("resnet")
    targets = torch.randint(0, 3, (shape[0],) if classify else (shape[0], *shape[2:]))
    computation.arrange(model, dims)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        with computation.autocast():
            found = forward(images)
        loss = nn.functional.cross_entropy(found.float(), targets)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    with computation.settings(repeated=_is_ours(contender)):
        losses = [step() for _ in range(_LOSSES)]
        print(json.dumps({"losses": losses}), flush=True)
        for _ in sys.stdin:
            times: list[float] = []
            while not times or sum(times) < _TURN_S:
                begun = time.perf_counter()
                step()
                times.append(time.perf_counter() - begun)
            print(json.dumps({"times": times}), flush=True)


def _is_ours(contender: str) -> bool:
    """Return whether a contender has the settings of ``convoxel train``."""
    return contender == "ours" or contender.endswith(_KEPT)


class Contender:
    """A process that trains one network in one way."""

    def __init__(self, network: str, name: str, threads: int) -> None:
        self.name, self.times = name, list[float]()
        call = [sys.executable, "-m", "bench.training_step", "--serve", network, name, "--threads", str(threads)]
        # As the command line does: PyTorch's idle threads leave the cores to the engine's.
        environment = {**os.environ, "GOMP_SPINCOUNT": "10000"} if _is_ours(name) else None
        self._process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.losses: list[float] = self._answer()["losses"]

    def turn(self) -> None:
        """Take steps for one turn."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.times.append(statistics.median(self._answer()["times"]))

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(network: str, names: list[str], turns: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each contender: median time of a step in seconds, and how far its losses are from PyTorch's."""
    contenders = [Contender(network, name, threads) for name in names]
    try:
        for _ in range(turns):
            for contender in contenders:
                contender.turn()
    finally:
        for contender in contenders:
            contender.close()
    truth = next((c.losses for c in contenders if c.name == "torch"), contenders[0].losses)
    return [
        {
            "network": network, "contender": c.name, "step_s": statistics.median(c.times), "turns": c.times,
            "difference": max(abs(a - b) / abs(b) for a, b in zip(c.losses, truth, strict=True)),
        }
        for c in contenders
    ]  # fmt: skip


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve[0], given.serve[1], given.threads)
    rows: list[dict[str, Any]] = []
    print(f"load {os.getloadavg()[0]:.1f}\n{'network':12} {'contender':14} {'step ms':>9}  by ours  losses differ by")
    for network in given.networks.split(","):
        found = compare(network, given.contenders.split(","), given.turns, given.threads)
        ours = next((row["step_s"] for row in found if row["contender"] == "ours"), found[0]["step_s"])
        for row in found:
            step_ms, ratio = 1e3 * row["step_s"], row["step_s"] / ours
            print(
                f"{network:12} {row['contender']:14} {step_ms:9.1f}  {ratio:6.2f}×  {row['difference']:.1e}", flush=True
            )
        rows += found
    print(f"load {os.getloadavg()[0]:.1f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
