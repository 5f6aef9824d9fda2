"""The course's own recipe for its prostate volumes, as the peer of ``convoxel train segment``.

A 3-D U-Net of 32 to 512 channels that sees every second voxel of raw intensities, soft Dice loss of each volume,
Adam with learning rate 1e-4, batches of 4 (UCL module MPHY0041, tutorial "segmentation"); written anew on our U-Net,
whose layers are the same, with PyTorch's own starting weights. The last volumes by name are judged, as by default in
``convoxel train``: each is predicted on every second voxel, and each answer counts for the two voxels a side that it
stands for.

    python -m tools.course_recipe ../shared/data/promise12 --minutes 20
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.models import UNet

_BATCH, _RATE, _EPSILON = 4, 1e-4, 1e-6


def build_network() -> UNet:
    """Return the course's network with PyTorch's default weights; it gives one logit a voxel."""
    network = UNet(3, in_channels=1, num_classes=1, levels=4, width=32)
    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
            layer.reset_parameters()
    return network


def dice_loss(shares: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return 1 − soft Dice, the mean over volumes; both (n, 1, *spatial)."""
    axes = (2, 3, 4)
    overlap, sizes = (shares * truth).sum(axes), shares.sum(axes) + truth.sum(axes)
    return (1 - 2 * overlap / (sizes + _EPSILON)).mean()


def read_volumes(folder: Path, kind: str) -> list[NDArray[np.float32]]:
    """Return the training part's ``image`` or ``label`` volumes (d, h, w) by number."""
    return [np.load(path).astype(np.float32) for path in sorted(folder.glob(f"{kind}_train*.npy"))]


def thin(volume: NDArray[np.float32]) -> torch.Tensor:
    """Return every second voxel, (1, d, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(volume[::2, ::2, ::2]))[None]


def judge(network: UNet, image: NDArray[np.float32], label: NDArray[np.float32]) -> float:
    """Return the Dice of one volume on its own grid."""
    with torch.inference_mode():
        found = network(thin(image)[None])[0, 0].numpy() > 0
    for axis in range(3):
        found = found.repeat(2, axis)
    found, truth = found[tuple(map(slice, label.shape))], label > 0
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def main() -> None:
    """Train for some minutes and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes in which every thread computes")
    parser.add_argument("--judged", type=int, default=8, help="volumes to judge, the last by name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    order = np.random.default_rng(chosen.seed)
    images, labels = (read_volumes(chosen.folder, kind) for kind in ("image", "label"))
    training = len(images) - chosen.judged
    inputs, targets = ([thin(volume) for volume in volumes[:training]] for volumes in (images, labels))
    network = build_network().train()
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
    # The processor's time, so that other programs on the machine take nothing from the recipe.
    begun, limit, steps, losses = time.process_time(), 60 * chosen.minutes * chosen.threads, 0, []
    while time.process_time() - begun < limit:
        places = order.permutation(training)
        for first in range(0, training, _BATCH):
            batch = places[first : first + _BATCH]
            shares = torch.sigmoid(network(torch.stack([inputs[i] for i in batch])))
            loss = dice_loss(shares, torch.stack([targets[i] for i in batch]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps, losses = steps + 1, [*losses[-99:], loss.item()]
            if time.process_time() - begun >= limit:
                break
    seconds = (time.process_time() - begun) / chosen.threads
    network.eval()
    dice = [judge(network, image, label) for image, label in zip(images[training:], labels[training:], strict=True)]
    record = {"steps": steps, "seconds": round(seconds, 1), "loss": round(float(np.mean(losses)), 4),
              "dice": [round(value, 4) for value in dice], "mean_dice": round(float(np.mean(dice)), 4)}  # fmt: skip
    print(json.dumps(record))


if __name__ == "__main__":
    main()
