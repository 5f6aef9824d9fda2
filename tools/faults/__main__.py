"""Run the sweeps, or those that are named, with a line of progress, and print a table at the end."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch

from tools.faults import arguments, bombs, flips, kills, mutations, shim, words, writes
from tools.faults.scene import Scene, build_scene
from tools.faults.sweep import Sweep

Known = dict[tuple[str, int], str]  # what earlier runs found
SWEEPS = (
    Sweep("writes", "files are whole or as they were, and the next run succeeds", writes.count, writes.check),
    Sweep("kills", "a killed and resumed training ends bit-equal", kills.count, kills.check),
    Sweep("flips", f"changed bits and cut files are noticed (batches of {flips.BATCH})", flips.count, flips.check),
    Sweep("mutations", f"damaged files are refused in words or read (batches of {mutations.BATCH})", mutations.count,
          mutations.check),
    Sweep("bombs", "small files take little time and memory", bombs.count, bombs.check),
    Sweep("arguments", "odd arguments of public functions are refused in words (an example each)", arguments.count,
          arguments.check),
    Sweep("words", f"odd command lines are refused in words (batches of {words.BATCH})", words.count, words.check),
)  # fmt: skip


def main() -> int:
    """Run what the command line asks for; 1 if any promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [sweep.name for sweep in SWEEPS]
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--full", action="store_true", default=bool(os.environ.get("FULL")), help="run the whole")
    parser.add_argument("--seed", type=int, default=0, help="random seed of everything drawn (default 0)")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/faults"), help="scene and results (default build/faults)"
    )
    parser.add_argument("--cases", type=int, default=10**9, help="the first so many of each sweep (default all)")
    parser.add_argument("--again", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    if unknown := set(options.sweeps) - set(names):
        parser.error(f"no sweep is called {', '.join(sorted(unknown))}; expected of {', '.join(names)}")
    shim.start_with_shim(options.folder)
    warnings.simplefilter("ignore")
    os.environ.update(
        CONVOXEL_CACHE=str(options.folder.resolve() / "cache"), CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"
    )
    folder = options.folder.resolve() / f"seed{options.seed}"  # cases change the working folder
    torch.set_num_threads(1)  # threads must not start before the cases are forked
    scene = build_scene(folder, options.seed, full=options.full)
    scene.warm()
    results = folder / ("full.jsonl" if options.full else "sample.jsonl")
    if options.again:
        results.unlink(missing_ok=True)
    known = _known(results)
    rows = []
    for sweep in SWEEPS:
        if options.sweeps and sweep.name not in options.sweeps:
            continue
        rows.append(_run(sweep, scene, min(sweep.count(scene), options.cases), known, results))
    print(f"\n{'sweep':<12}{'cases':>8}{'wrong':>8}{'minutes':>9}  promise")
    for name, cases, wrong, minutes, promise in rows:
        print(f"{name:<12}{cases:>8}{wrong:>8}{minutes:>9.1f}  {promise}")
    return int(any(wrong for _, _, wrong, *_ in rows))


def _run(sweep: Sweep, scene: Scene, total: int, known: Known, results: Path) -> tuple[str, int, int, float, str]:
    """Return the row of the table: name, cases, how many are wrong, minutes, and the promise."""
    begun, wrong = time.perf_counter(), 0
    for number in range(total):
        found = known.get((sweep.name, number))
        if found != "":  # what was wrong is tried again
            try:
                found = sweep.check(scene, number)
            except Exception as error:  # the sweep itself, which must be mended too
                found = f"the case cannot be run: {type(error).__name__}: {error}"
            with results.open("a") as file:
                file.write(json.dumps([sweep.name, number, found]) + "\n")
        if found:
            wrong += 1
            print(f"\r{sweep.name} {number}: {found}", flush=True)
        print(f"\r{sweep.name}: {number + 1} of {total}, {wrong} wrong", end="", flush=True)
    print()
    return sweep.name, total, wrong, (time.perf_counter() - begun) / 60, sweep.promise


def _known(results: Path) -> Known:
    if not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text().splitlines() if line.endswith("]")]
    return {(name, number): found for name, number, found in rows}


if __name__ == "__main__":
    sys.exit(main())
