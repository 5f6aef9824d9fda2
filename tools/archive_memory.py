"""Peak memory of predictions from file to file: whole processes, for volumes of 256³ and 768³ voxels, under a limit.

Run by hand; every prediction of 768³ voxels takes minutes::

    .venv/bin/python -m tools.archive_memory make --work FOLDER
    .venv/bin/python -m tools.archive_memory run --work FOLDER
    .venv/bin/python -m tools.archive_memory run --work FOLDER --only 256-u1.nii-blended 768-i2.nii.gz-exact
    .venv/bin/python -m tools.archive_memory table --work FOLDER

``make`` writes volumes of uint8 and int16, as ``.nii`` and ``.nii.gz``, and trains a network of 4 channels for some
steps. ``run`` predicts each of them by ``convoxel predict``, blended and with ``--exact``, within an address space of
3 GiB, and adds a line to ``figures.jsonl``. Results of ``--exact`` are compared with those of a crop of the volume that
the network sees at once; blended ones with those of the other file of the same values. ``table`` prints the newest line
of each. The peak is the process's own high-water mark, as the kernel counts it (``VmHWM``).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_SIDES = (256, 768)
_TYPES = ("u1", "i2")
_ENDINGS = (".nii", ".nii.gz")
_WAYS = ("blended", "exact")
_PERIOD = 128  # voxels after which a volume repeats itself
_LIMIT_MIB = 3072
_CONVOXEL = (sys.executable, "-c", "import sys; from convoxel.cli import main; sys.exit(main())")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "run", "table"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sides", type=int, nargs="+", default=list(_SIDES))
    parser.add_argument("--only", nargs="+", help="names such as 768-i2.nii.gz-exact")
    parser.add_argument("--limit", type=int, default=_LIMIT_MIB, help="address space in MiB, 0 for none")
    given = parser.parse_args()
    names = [
        f"{side}-{kind}{end}-{way}" for way in _WAYS for end in _ENDINGS for kind in _TYPES for side in given.sides
    ]
    if given.action == "make":
        make(given.work, given.sides)
    elif given.action == "run":
        for name in given.only or names:
            figure = predict(given.work, name, given.limit)
            with (given.work / "figures.jsonl").open("a") as file:
                file.write(json.dumps(figure) + "\n")
            print(json.dumps(figure), flush=True)
    else:
        table(given.work)
    return 0


# ---- what is predicted -------------------------------------------------------------------------------------


def make(work: Path, sides: list[int]) -> None:
    """Write volumes, and train a network on small ones like them."""
    import nibabel
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)

    def draw(side: int) -> tuple[Any, Any]:
        field = gaussian_filter(rng.normal(size=(side,) * 3).astype(np.float32), 3, mode="wrap")
        label = field > 0.8 * field.std()
        noisy = 100 + 60 * label + 15 * rng.normal(size=label.shape)
        return noisy.clip(0, 255).astype(np.uint8), label.astype(np.uint8)

    def save(values: Any, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)  # type: ignore[attr-defined]

    for number in range(6):
        for kind, values in zip(("images", "labels"), draw(48), strict=True):
            save(values, work / "set" / kind / f"{number}.nii.gz")
    for side in sides:
        repeats = (-(-side // _PERIOD),) * 3
        values = np.tile(draw(_PERIOD)[0], repeats)[:side, :side, :side]
        for kind in _TYPES:
            path = work / f"{side}-{kind}.nii"
            save(values if kind == "u1" else values.astype(np.int16) - 100, path)
            with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", 1) as packed:
                shutil.copyfileobj(plain, packed, 1 << 20)
    words = ["train", "segment", "--data", work / "set", "--output", work / "run", "--levels", "1", "--epochs", "1"]
    options = ["width=4", "steps_per_epoch=32", "patch=[40,40,40]", "overlap=0.25"]
    subprocess.run(
        [*_CONVOXEL, *map(str, words), *(word for option in options for word in ("--set", option))], check=True
    )
    # The first prediction compiles, in more memory, and keeps the program.
    words = ["predict", work / "run", "--input", work / "set" / "images" / "0.nii.gz", "--output", work / "0.nii.gz"]
    subprocess.run([*_CONVOXEL, *map(str, words)], check=True)


# ---- figures -----------------------------------------------------------------------------------------------


def predict(work: Path, name: str, limit_mib: int) -> dict[str, Any]:
    """Return peak, time and agreement of one prediction."""
    file, _, way = name.rpartition("-")
    target = work / "out" / f"{name}.nii.gz"
    target.parent.mkdir(exist_ok=True)
    words = ["predict", work / "run", "--input", work / file, "--output", target, "--json"]
    command = [*_CONVOXEL, *map(str, words), *(["--exact"] if way == "exact" else [])]
    peak, wall, cpu = watched(command, limit_mib)
    return {
        "name": name, "peak_mib": round(peak, 1), "wall_s": round(wall), "cpu_s": round(cpu), "limit_mib": limit_mib,
        **compare(work, file, way, target),
    }  # fmt: skip


def watched(command: list[str], limit_mib: int) -> tuple[float, float, float]:
    """Return peak memory in MiB, wall time and CPU time of a command, which must end well."""

    def confine() -> None:
        if limit_mib:
            resource.setrlimit(resource.RLIMIT_AS, (limit_mib << 20, limit_mib << 20))

    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, preexec_fn=confine, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, high_water_mib(process.pid))
        time.sleep(0.02)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[3:])} ended with {process.returncode}")
    return peak, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def high_water_mib(pid: int) -> float:
    """Return the most memory that a process has had so far; ``ru_maxrss`` would count that of its parent too."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def compare(work: Path, file: str, way: str, target: Path) -> dict[str, Any]:
    """Return what a label map agrees with."""
    import nibabel

    found = nibabel.load(target).dataobj  # type: ignore[attr-defined]
    if way == "exact":
        return {"crop_equal": crop_is_equal(work, file, found)}
    digest = hashlib.sha256()
    for first in range(0, found.shape[2], 16):
        digest.update(np.asarray(found[:, :, first : first + 16]).tobytes())
    return {"sha256": digest.hexdigest()[:16]}


def crop_is_equal(work: Path, file: str, found: Any) -> bool:
    """Return whether a label map is that of the network on a crop at once, where the crop holds what it sees."""
    from convoxel.data.image_file import map_image
    from convoxel.train.run_folder import load_predictor

    (member,) = load_predictor(work / "run", exact=True).members
    assert member.exact is not None
    image: Any = map_image(work / file, 3, 1).image
    statistics = member.run.data.normalisation.statistics(image)
    side = image.shape[1]
    ends = [(3 * side // 8 // 16 * 16, 3 * side // 8 // 16 * 16 + 96), (side // 2, side // 2 + 96), (side - 96, side)]
    box = tuple(slice(*each) for each in ends)
    scores = member.exact.direct(statistics.normalise(image[(slice(None), *box)])[None])[0]
    inside = (slice(24, -24), slice(24, -24), slice(24, 96))  # the last axis ends with the volume
    expected = scores.argmax(0)[inside]
    same = np.array_equal(np.asarray(found[box])[inside], expected)
    return bool(same and 0.02 < expected.mean() < 0.98)  # a map of one class would prove nothing


def table(work: Path) -> None:
    """Print the newest figure of each prediction, and the ratio of the peaks of both sizes."""
    lines = (work / "figures.jsonl").read_text().splitlines()
    newest: dict[str, dict[str, Any]] = {each["name"]: each for each in map(json.loads, lines)}
    for kind in sorted({name.partition("-")[2] for name in newest}):
        row = {int(name.partition("-")[0]): each for name, each in newest.items() if name.partition("-")[2] == kind}
        peaks = ", ".join(f"{side}³ {row[side]['peak_mib']:.0f} MiB" for side in sorted(row))
        ratio = row[max(row)]["peak_mib"] / row[min(row)]["peak_mib"]
        agree = ", ".join(str(row[side].get("crop_equal", row[side].get("sha256"))) for side in sorted(row))
        print(f"{kind:20} {peaks}; ratio {ratio:.3f}; {agree}")


if __name__ == "__main__":
    sys.exit(main())
