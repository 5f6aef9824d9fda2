"""Agreement with nnU-Net: networks of its own classes, predicted by it and by ours, file to file.

Names that begin with ``v1_`` are networks of nnU-Net v1, which ``tools.generic_unet`` makes and predicts.

Run by hand, with nnunetv2 importable (``pip install --target DIR --no-deps nnunetv2 dynamic-network-architectures
acvl-utils batchgenerators batchgeneratorsv2`` and what these import: scikit-image, lazy-loader, networkx, imageio,
pandas, python-dateutil, pytz, six, tqdm, blosc2, ndindex, msgpack, py-cpuinfo, numexpr, requests, httpx, httpcore, h11,
anyio, sniffio, idna, certifi, timm, einops, seaborn, matplotlib; DIR is searched behind the own packages)::

    P="--packages DIR --work FOLDER"
    .venv/bin/python -m tools.nnunet_agreement make $P --images HIPPOCAMPUS/images --labels HIPPOCAMPUS/labels
    .venv/bin/python -m tools.nnunet_agreement compare $P                     Dice of both label maps, time, memory
    .venv/bin/python -m tools.nnunet_agreement compare $P --cases 30 --only 3d_fullres
    .venv/bin/python -m tools.nnunet_agreement compare $P --cases 30 --only resenc_m --precision bfloat16 --again

``make`` writes a raw data set, lets nnU-Net take its fingerprint and plan, and trains a network of each configuration
for some steps, in two folds; checkpoints are written by nnU-Net's trainer class. nnU-Net plans no cascade for images as
small as these, so ``make`` adds one to the plans: a first stage of coarse voxels, and a second one that sees its maps
(in training: the labels, moved by up to two voxels). With ``--only`` the data set and the plans of before are kept.
``compare`` imports each with ``convoxel import nnunet`` and predicts the same images with the same folds, mirrored axes
and steps, each side as a process of its own; with ``--again`` nnU-Net's maps of the last comparison are kept, and only
ours are computed, for their Dice and not for a ratio of times. The report is JSON; Dice is the mean over classes of an
image, 1 where a class is in neither map.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tools import generic_unet

DATASET = "Dataset004_Hippocampus"
PLANNERS = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}
NETWORKS = {
    "3d_fullres": ("nnUNetPlans", "3d_fullres"),
    "2d": ("nnUNetPlans", "2d"),
    "resenc_m": ("nnUNetResEncUNetMPlans", "3d_fullres"),
    "3d_lowres": ("nnUNetPlans", "3d_lowres"),
    "cascade": ("nnUNetPlans", "3d_cascade_fullres"),
}
PREVIOUS = {"cascade": "3d_lowres", "v1_cascade": "v1_3d_lowres"}
NAMES = (*NETWORKS, *generic_unet.NETWORKS)
FOLDS = (0, 1)


def environment(work: Path, packages: Path) -> dict[str, str]:
    """Return the variables by which nnU-Net finds its folders, and Python its packages."""
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    return {
        **os.environ,
        **generic_unet.environment(work),
        **folders,  # both versions call one of their folders nnUNet_preprocessed
        "NNUNET_PACKAGES": str(packages),
        "nnUNet_def_n_proc": "2",
        "nnUNet_n_proc_DA": "1",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "compare", "theirs"))
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="training steps of each network")
    parser.add_argument("--width", type=int, help="channels of networks of v1 at full resolution (default: as planned)")
    parser.add_argument("--train-cases", type=int, default=60)
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--folds", type=int, default=len(FOLDS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-mirror", action="store_true")
    parser.add_argument("--precision", default="float32", help="precision of our side")
    parser.add_argument("--again", action="store_true", help="keep nnU-Net's maps that are there")
    parser.add_argument("--rest", nargs=argparse.REMAINDER, default=[])
    given = parser.parse_args()
    os.environ.update(environment(given.work, given.packages))
    sys.path.append(str(given.packages))  # behind the own packages, which the compiled parts belong to
    if given.action == "theirs":
        first = given.rest[:1] == ["v1"]
        return generic_unet.predict(given.rest[1:]) if first else predict_theirs(given.rest)
    if given.action == "make":
        make(given)
        return 0
    report = {name: compare(name, given) for name in given.only or NAMES if folder(given.work, name).is_dir()}
    print(json.dumps(report, indent=1))
    return 0


def folder(work: Path, name: str) -> Path:
    if name in generic_unet.NETWORKS:
        return generic_unet.folder(work, name)
    plans, configuration = NETWORKS[name]
    return work / "results" / DATASET / f"nnUNetTrainer__{plans}__{configuration}"


# ---- networks ----------------------------------------------------------------------------------------------


def make(given: argparse.Namespace) -> None:
    """Write the raw data set, plan, and train."""
    first = [name for name in given.only or NAMES if name in generic_unet.NETWORKS]
    if first:
        generic_unet.make(given, first)
        os.environ.update(environment(given.work, given.packages))
    if given.only and len(first) == len(given.only):
        copy_tests(given)
        return
    if not (given.only and folder(given.work, "3d_fullres").is_dir()):
        plan(given)
    add_cascade(given.work / "preprocessed" / DATASET / "nnUNetPlans.json")
    for name in given.only or NETWORKS:
        train(name, given, json.loads((given.work / "raw" / DATASET / "dataset.json").read_text()))


def add_cascade(path: Path) -> None:
    """Add both stages of a cascade to the plans, as nnU-Net's planner does where images are large."""
    content = json.loads(path.read_text())
    stages = content["configurations"]
    low = json.loads(json.dumps(stages["3d_fullres"]))
    low.update(spacing=[1.5, 1.5, 1.5], patch_size=[24, 36, 24], data_identifier="nnUNetPlans_3d_lowres")
    numbers = low["architecture"]["arch_kwargs"]
    numbers.update(n_stages=3, features_per_stage=[16, 32, 64], n_conv_per_stage_decoder=[2, 2])
    numbers.update({name: numbers[name][:3] for name in ("kernel_sizes", "strides", "n_conv_per_stage")})
    stages["3d_lowres"] = {**low, "next_stage": "3d_cascade_fullres"}
    stages["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    path.write_text(json.dumps(content))


def plan(given: argparse.Namespace) -> None:
    """Write the raw data set, and let nnU-Net plan."""
    raw = given.work / "raw" / DATASET
    cases = sorted(given.images.glob("*.nii.gz"))
    for path in cases[: given.train_cases]:
        for kind, end, source in (("imagesTr", "_0000", given.images), ("labelsTr", "", given.labels)):
            target = raw / kind / path.name.replace(".nii.gz", f"{end}.nii.gz")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path.name, target)
    copy_tests(given)
    description = {
        "channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
        "numTraining": min(given.train_cases, len(cases)), "file_ending": ".nii.gz",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(description))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    extract_fingerprints([4], num_processes=1, show_progress_bar=False)
    for planner in PLANNERS:
        plan_experiments([4], planner)


def copy_tests(given: argparse.Namespace) -> None:
    """Copy the images that are predicted."""
    for path in sorted(given.images.glob("*.nii.gz"))[-given.cases :]:
        target = given.work / "raw" / DATASET / "imagesTs" / path.name.replace(".nii.gz", "_0000.nii.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def train(name: str, given: argparse.Namespace, description: dict[str, Any]) -> None:
    """Train a network by nnU-Net's class for some steps on its own patches; the next fold goes on from there."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    plans, configuration = NETWORKS[name]
    plan = json.loads((given.work / "preprocessed" / DATASET / f"{plans}.json").read_text())
    samples: list[Any] = []
    state = None
    for fold in FOLDS:
        trainer = nnUNetTrainer(
            {**plan, "continue_training": False}, configuration, fold, description, torch.device("cpu")
        )
        # The class looks for preprocessed cases, of which this training needs none.
        place = Path(trainer.preprocessed_dataset_folder)
        place.mkdir(exist_ok=True)
        (place / "none.b2nd").touch()
        trainer.initialize()
        trainer.inference_allowed_mirroring_axes = tuple(range(len(trainer.configuration_manager.patch_size)))
        samples = samples or preprocessed(trainer, given, description)
        if state is not None:
            trainer.network.load_state_dict(state)
        steps = given.steps if state is None else given.steps // 4
        optimise(trainer, samples, steps, fold)
        state = trainer.network.state_dict()
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for file, content in (("plans.json", plan), ("dataset.json", description)):
        (folder(given.work, name) / file).write_text(json.dumps(content))


def preprocessed(trainer: Any, given: argparse.Namespace, description: dict[str, Any]) -> list[Any]:
    preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
    raw, found = given.work / "raw" / DATASET, []
    for path in sorted((raw / "imagesTr").iterdir())[:24]:
        label = raw / "labelsTr" / path.name.replace("_0000", "")
        image, seg, _ = preprocessor.run_case(
            [str(path)], str(label), trainer.plans_manager, trainer.configuration_manager, description
        )
        image, seg = np.asarray(image, np.float32), np.asarray(seg)
        if trainer.is_cascaded:
            moved = np.roll(seg[0], np.random.default_rng(len(found)).integers(-2, 3, 3), (0, 1, 2))
            image = np.concatenate([image, np.stack([moved == value for value in (1, 2)]).astype(np.float32)])
        found.append((image, seg))
    return found


def optimise(trainer: Any, samples: list[Any], steps: int, seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    patch = tuple(trainer.configuration_manager.patch_size)
    optimiser = torch.optim.Adam(trainer.network.parameters(), 1e-3)
    trainer.network.train()
    loss_of = torch.nn.CrossEntropyLoss()
    for step in range(steps):
        images, labels = zip(*(cut(*samples[rng.integers(len(samples))], patch, rng) for _ in range(2)), strict=True)
        logits = trainer.network(torch.from_numpy(np.stack(images)))
        logits = logits[0] if isinstance(logits, list) else logits
        target = torch.from_numpy(np.stack(labels)).long()
        shares = logits.softmax(1)
        dice = torch.zeros(())
        for number in range(1, logits.shape[1]):
            mask = (target == number).float()
            dice = dice - 2 * (shares[:, number] * mask).sum() / (shares[:, number].sum() + mask.sum() + 1)
        loss = loss_of(logits, target) + dice
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            print(f"fold {seed} step {step} loss {float(loss):.3f}", flush=True)


def cut(image: Any, seg: Any, patch: tuple[int, ...], rng: Any) -> tuple[Any, Any]:
    """Return a random patch of an image and its label, padded with zeros."""
    if len(patch) < image.ndim - 1:  # a random slice
        at = int(rng.integers(image.shape[1]))
        image, seg = image[:, at], seg[:, at]
    sides = image.shape[1:]
    starts = [
        int(rng.integers(-max(want - have, 0), max(have - want, 0) + 1))
        for have, want in zip(sides, patch, strict=True)
    ]
    found = []
    for values in (image, np.maximum(seg, 0)):
        out = np.zeros((values.shape[0], *patch), values.dtype)
        inside = tuple(slice(max(s, 0), min(s + p, n)) for s, p, n in zip(starts, patch, sides, strict=True))
        place = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, starts, strict=True))
        out[(slice(None), *place)] = values[(slice(None), *inside)]
        found.append(out)
    return found[0], found[1][0]


# ---- comparison --------------------------------------------------------------------------------------------


def predict_theirs(words: list[str]) -> int:
    """Run ``nnUNetv2_predict_from_modelfolder`` with these words."""
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder

    sys.argv = ["nnUNetv2_predict_from_modelfolder", *words]
    predict_entry_point_modelfolder()
    return 0


def timed(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return wall time, CPU time and peak memory of a command and the processes that it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    watch = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while watch.poll() is None:
        peak = max(peak, sum(map(resident, family(watch.pid))))
        time.sleep(0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if watch.returncode:
        raise SystemExit(f"{command[:6]} … ended with {watch.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - start, "cpu_s": cpu, "peak_mib": peak / 2**20}


def family(pid: int) -> list[int]:
    """Return a process and all that come from it."""
    found = [pid]
    for each in found:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def resident(pid: int) -> int:
    """Return the memory of a process alone: pages that it shares count for as many parts as there are sharers."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def compare(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return Dice, time and memory of one network."""
    source, scratch = folder(given.work, name), given.work / "compared" / name
    inputs, theirs, ours = scratch / "images", scratch / "theirs", scratch / "ours"
    kept = given.again and theirs.is_dir()
    for old in (ours, scratch / "run") if kept else (scratch,):
        shutil.rmtree(old, ignore_errors=True)
    inputs.mkdir(parents=True, exist_ok=True)
    for path in sorted((given.work / "raw" / DATASET / "imagesTs").iterdir())[: given.cases]:
        shutil.copyfile(path, inputs / path.name)
    variables = {
        **environment(given.work, given.packages),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CONVOXEL_THREADS"), str(given.threads)),
    }
    numbers = list(map(str, FOLDS[: given.folds]))
    python = [sys.executable]
    shared = ["--packages", str(given.packages), "--work", str(given.work)]
    their_command = [*python, "-m", "tools.nnunet_agreement", "theirs", *shared, "--rest"]

    def their_words(model: Path, maps: Path, before: Path | None = None) -> list[str]:
        if name in generic_unet.NETWORKS:
            words = ["v1", model, inputs, maps, before or "-", "single" if given.no_mirror else "mirror", *numbers]
            return [*their_command, *map(str, words)]
        found = ["-i", inputs, "-o", maps, "-m", model, "-f", *numbers, "-device", "cpu", "-npp", 1, "-nps", 1]
        stage = [] if before is None else ["-prev_stage_predictions", before]
        return [*their_command, *map(str, [*found, *stage]), *(["--disable_tta"] if given.no_mirror else [])]

    first = None
    if not kept:
        before = scratch / "theirs_before" if name in PREVIOUS else None
        steps = [their_words(source, theirs, before)]
        if before is not None:
            steps.insert(0, their_words(folder(given.work, PREVIOUS[name]), before))
        taken = [timed(step, variables) for step in steps]
        first = {key: (max if key == "peak_mib" else sum)(each[key] for each in taken) for key in taken[0]}
    convoxel = [*python, "-c", "import sys; from convoxel.cli import main; sys.exit(main())"]
    imported = timed(
        [*convoxel, "import", "nnunet", str(source), "--output", str(scratch / "run"), "--folds", ",".join(numbers)],
        variables,
    )
    mirror = ["--mirror", "none"] if given.no_mirror else []
    second = timed(
        [
            *convoxel,
            "predict",
            str(scratch / "run"),
            "--input",
            str(inputs),
            "--output",
            str(ours),
            "--precision",
            given.precision,
            *mirror,
        ],
        variables,
    )
    dice = agreement(theirs, ours)
    ratios = {} if first is None else {
        "faster_wall": first["wall_s"] / second["wall_s"], "faster_cpu": first["cpu_s"] / second["cpu_s"],
        "memory_share": second["peak_mib"] / first["peak_mib"],
    }  # fmt: skip
    return {
        "cases": len(dice), "dice_mean": float(np.mean(dice)), "dice_least": float(np.min(dice)),
        "precision": given.precision, "foreground": foreground(theirs), "nnunet": first, "convoxel": second,
        "import": imported, **ratios,
    }  # fmt: skip


def read(path: Path) -> Any:
    import nibabel

    return np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def agreement(theirs: Path, ours: Path) -> list[float]:
    """Return the Dice of two label maps for each image, its classes' mean."""
    found = []
    for path in sorted(theirs.glob("*.nii.gz")):
        one = read(path)
        other = read(
            next(p for p in (ours / path.name, ours / path.name.replace(".nii.gz", "_0000.nii.gz")) if p.exists())
        )
        classes = sorted(({*np.unique(one)} | {*np.unique(other)}) - {0})
        scores = [2 * ((one == c) & (other == c)).sum() / ((one == c).sum() + (other == c).sum()) for c in classes]
        found.append(float(np.mean(scores)) if scores else 1.0)
    return found


def foreground(maps: Path) -> float:
    """Return the share of voxels that some class is found in: that of noise would be high, that of nothing 0."""
    return float(np.mean([(read(path) > 0).mean() for path in sorted(maps.glob("*.nii.gz"))]))


if __name__ == "__main__":
    sys.exit(main())
