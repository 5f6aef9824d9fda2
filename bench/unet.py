"""Whole U-Nets: Convoxel against PyTorch eager (both memory formats), in turn in one process.

python bench/unet.py [NAME …] [--threads N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

# PyTorch's threads spin for 200 ms after each operator by default, on the processors that the next contender needs.
os.environ.setdefault("KMP_BLOCKTIME", "5")
import torch

import convoxel as cx
from convoxel import native
from convoxel.bench.clock import interleave, write_json

# name: (dims, input channels, classes, levels, width, spatial size)
NETS = {
    "demo": (3, 1, 3, 2, 16, (48, 48, 48)),
    "unet3d": (3, 1, 1, 4, 32, (64, 64, 64)),
    "unet2d": (2, 1, 1, 4, 32, (256, 256)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETS), help=f"of {', '.join(NETS)}")
    parser.add_argument("--threads", type=int, default=native.default_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.names:
        dims, channels, classes, levels, width, size = NETS[name]
        torch.manual_seed(0)
        net = cx.models.build(
            "unet", dims=dims, in_channels=channels, num_classes=classes, levels=levels, width=width
        ).eval()
        x = np.random.default_rng(0).standard_normal((1, channels, *size)).astype(np.float32)
        program = cx.compile(net, torch.from_numpy(x), threads=options.threads)
        last = torch.channels_last if dims == 2 else torch.channels_last_3d
        as_last = cx.models.build(
            "unet", dims=dims, in_channels=channels, num_classes=classes, levels=levels, width=width
        ).eval()
        as_last.load_state_dict(net.state_dict())
        as_last = as_last.to(memory_format=last)
        tensor, tensor_last = torch.from_numpy(x), torch.from_numpy(x).contiguous(memory_format=last)
        with torch.inference_mode():
            expected = net(tensor).numpy()
            difference = float(np.abs(program(x) - expected).max() / np.sqrt((expected**2).mean()))
            times = interleave(
                {
                    "convoxel": lambda p=program, a=x: p(a),
                    "pytorch": lambda m=net, a=tensor: m(a),
                    "pytorch channels-last": lambda m=as_last, a=tensor_last: m(a),
                },
                options.rounds,
            )
        ours = times["convoxel"]["median_s"]
        row = {
            "net": name,
            "input": x.shape,
            "threads": options.threads,
            "difference_of_rms": difference,
            "ceiling_gflops": native.measure_ceiling(options.threads) / 1e9,
            "times": times,
            "ratio": {peer: t["median_s"] / ours for peer, t in times.items() if peer != "convoxel"},
        }
        rows.append(row)
        shown = ", ".join(f"{peer} {1e3 * t['median_s']:.1f} ms" for peer, t in times.items())
        ratios = ", ".join(f"{r:.2f}x {peer}" for peer, r in row["ratio"].items())
        print(f"{name} {x.shape}: {shown}; {ratios}; max difference {difference:.1e} of the RMS")
    if options.json is not None:
        write_json(rows, options.json)


if __name__ == "__main__":
    main()
