"""Prediction of a folder of images as an array of SLURM jobs, each of which takes a part.

Run it where jobs are submitted, on a file system that all machines see:

    pip install 'convoxel[cluster,train]'
    python examples/slurm_prediction.py RUN --input SCANS --output LABELS --parts 16 --partition cpu

A job that is stopped or dies is begun again by the same command: what is done is left out. Without submitit the same is

    sbatch --array=1-16 --cpus-per-task=8 --wrap \
        'convoxel predict RUN --input SCANS --output LABELS --part $SLURM_ARRAY_TASK_ID/16 --skip-existing'
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import submitit


def predict_part(run: str, source: str, target: str, number: int, count: int, threads: int) -> dict[str, int]:
    """Predict one part of the images and return the number of images by state; it runs on the machine of a job."""
    from convoxel.graph.threads import limit_threads
    from convoxel.train import predict

    states: Counter[str] = Counter()
    with limit_threads(threads):
        predict(
            run,
            source,
            target,
            part=(number, count),
            on_error="skip",
            skip_existing=True,
            on_case=lambda record: states.update([record.state]),
        )
    return dict(states)


def submit(
    run: Path, source: Path, target: Path, *, parts: int, cpus: int, hours: float, cluster: str, log: Path, **slurm: str
) -> list[submitit.Job[dict[str, int]]]:
    """Submit a job for each part and return the jobs.

    Args:
        run, source, target: run folder, folder of images, folder of results.
        parts: number of jobs.
        cpus: cores of each.
        hours: wall time of each.
        cluster: "slurm", "local" (processes of this machine) or "debug" (this process).
        log: folder for the jobs' output.
        slurm: further options of SLURM, such as ``slurm_partition``.
    """
    executor = submitit.AutoExecutor(folder=log, cluster=cluster)
    executor.update_parameters(
        name="convoxel-predict", cpus_per_task=cpus, timeout_min=max(1, round(60 * hours)), **slurm
    )
    fixed = [str(path.absolute()) for path in (run, source, target)]
    with executor.batch():
        return [executor.submit(predict_part, *fixed, number, parts, cpus) for number in range(1, parts + 1)]


def main() -> None:
    """Submit the jobs, wait for them and print how many images are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--cpus", type=int, default=8)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--cluster", default="slurm", choices=("slurm", "local", "debug"))
    parser.add_argument("--partition", default=None)
    parser.add_argument("--log", type=Path, default=Path("slurm-log"))
    given = parser.parse_args()
    slurm = {} if given.partition is None else {"slurm_partition": given.partition}
    jobs = submit(
        given.run, given.input, given.output, parts=given.parts, cpus=given.cpus, hours=given.hours,
        cluster=given.cluster, log=given.log, **slurm,
    )  # fmt: skip
    states: Counter[str] = Counter()
    for job in jobs:
        states.update(job.result())
    print(f"{states['done']} predicted, {states['skipped']} done before, {states['failed']} failed")
    raise SystemExit(3 if states["failed"] else 0)


if __name__ == "__main__":
    main()
