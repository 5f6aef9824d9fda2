"""The same network from Python and from C through libconvoxel: first run, steady state, memory, and a new size.

python -m bench.library [--model resnet50] [--size 224] [--seconds 3] [--rounds 5] [--library FOLDER]

Each is a process of its own, and they take turns. ``--library`` is the output of ``tools/library.sh`` (default
build/library, which is made if it is not there). Results must have equal bits. Wants an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def run_here(path: Path, source: Path, seconds: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the figures of a program that this process loads (``bench/library.c`` says which)."""
    import numpy as np

    import convoxel as cx

    x = np.fromfile(source, np.float32).reshape(shape)
    start = time.perf_counter()
    program = cx.load(path)
    y = np.asarray(program(x))
    first = fastest = time.perf_counter() - start
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        y = np.asarray(program(x))
        fastest = min(fastest, time.perf_counter() - begin)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    bits = 0
    for word in y.reshape(-1).view(np.uint32).tolist():
        bits = (bits * 31 + word) % 2**64
    begin = time.perf_counter()
    program.prepare(np.zeros((*shape[:2], shape[2] // 2, *shape[3:]), np.float32))
    planned = time.perf_counter() - begin
    return {
        "first_s": first, "steady_s": fastest, "plan_s": planned, "resident_bytes": resident, "bits": f"{bits:016x}"
    }  # fmt: skip


def build(library: Path, folder: Path) -> Path:
    """Return the C program, linked with the shared library."""
    if not (library / "lib").exists():
        subprocess.run(["bash", ROOT / "tools/library.sh", "", library], check=True, stdout=subprocess.DEVNULL)
    program, lib = folder / "library", library.resolve() / "lib"
    words = ["cc", "-O2", ROOT / "bench/library.c", "-o", program, f"-I{library / 'include'}", f"-L{lib}"]
    subprocess.run([*words, "-lconvoxel", f"-Wl,-rpath,{lib}"], check=True)
    return program


def save(model: str, shape: tuple[int, ...], folder: Path) -> None:
    """Write the program and an input."""
    import numpy as np
    import torch

    import convoxel as cx

    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    x.tofile(folder / "x.bin")
    cx.compile(cx.models.build(model, dims=2, in_channels=shape[1], num_classes=1000).eval(), x).save(
        folder / "net.cvx"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="A network from Python and from C.")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--library", type=Path, default=ROOT / "build/library")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (1, 3, options.size, options.size)
    if options.here:
        print(json.dumps(run_here(options.here / "net.cvx", options.here / "x.bin", options.seconds, shape)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(options.library, folder)
        same = ["--size", str(options.size), "--seconds", str(options.seconds)]
        # Python's process must not hold what compiling needs.
        subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path; from bench.library import save; "
             f"save({options.model!r}, {shape!r}, Path({name!r}))"], check=True, cwd=ROOT,
        )  # fmt: skip
        contenders: dict[str, list[Any]] = {
            "Python": [sys.executable, "-m", "bench.library", "--here", folder, *same],
            "C": [program, folder / "net.cvx", folder / "x.bin", str(options.seconds), *map(str, shape)],
        }
        rows: dict[str, list[dict[str, Any]]] = {who: [] for who in contenders}
        for turn in range(options.rounds):
            for who in list(contenders)[:: 1 if turn % 2 else -1]:
                done = subprocess.run(contenders[who], check=True, capture_output=True, text=True, cwd=ROOT)
                rows[who].append(json.loads(done.stdout))
    if len({row["bits"] for each in rows.values() for row in each}) != 1:
        print("the results differ", file=sys.stderr)
        return 1
    for who, each in rows.items():
        best = {key: min(row[key] for row in each) for key in ("first_s", "steady_s", "plan_s")}
        memory = statistics.median(row["resident_bytes"] for row in each) / 2**20
        print(
            f"{who:7} load + first run {best['first_s']:.3f} s, steady {1e3 * best['steady_s']:.2f} ms, "
            f"new size planned {1e3 * best['plan_s']:.2f} ms, resident {memory:.1f} MiB"
        )
    steady = [min(row["steady_s"] for row in each) for each in rows.values()]
    print(f"C / Python steady: {steady[1] / steady[0]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
