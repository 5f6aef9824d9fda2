"""Networks of nnU-Net v1 for ``tools.nnunet_agreement``: planned, trained for some steps and predicted by its classes.

It needs nnunet 1.7.1 (``pip install --target DIR --no-deps nnunet==1.7.1 batchgenerators==0.25 scikit-image lazy-loader
networkx imageio tqdm six``; medpy, which its evaluation alone asks for, may be an empty package of that name). That
version was written for older packages: files of PyTorch are read as it expects, and nothing else is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

TASK = "Task004_Hippocampus"
PLANS = "nnUNetPlansv2.1"
FOLDS = (0, 1)
# Configuration, trainer and stage of each network; the cascade adds a stage of coarse voxels to the plans.
NETWORKS = {
    "v1_3d_fullres": ("3d_fullres", "nnUNetTrainerV2", 0),
    "v1_2d": ("2d", "nnUNetTrainerV2", 0),
    "v1_3d_lowres": ("3d_lowres", "nnUNetTrainerV2", 0),
    "v1_cascade": ("3d_cascade_fullres", "nnUNetTrainerV2CascadeFullRes", 1),
}


def environment(work: Path) -> dict[str, str]:
    """Return the variables by which nnU-Net v1 finds its folders."""
    names = {"nnUNet_raw_data_base": "v1_raw", "nnUNet_preprocessed": "v1_preprocessed", "RESULTS_FOLDER": "v1_results"}
    return {name: str(work / folder) for name, folder in names.items()}


def folder(work: Path, name: str) -> Path:
    """Return the folder of the trained networks."""
    configuration, trainer, _ = NETWORKS[name]
    return work / "v1_results" / "nnUNet" / configuration / TASK / f"{trainer}__{PLANS}"


def make(given: argparse.Namespace, names: list[str]) -> None:
    """Write the raw data set, let nnU-Net plan, and train."""
    os.environ.update(environment(given.work))
    if not (given.work / "v1_preprocessed" / TASK / f"{PLANS}_plans_3D.pkl").is_file():
        plan(given)
    for name in names:
        train(name, given)


def plan(given: argparse.Namespace) -> None:
    """Write the raw data set, and let nnU-Net's planners look at it."""
    raw = given.work / "v1_raw" / "nnUNet_raw_data" / TASK
    cases = sorted(given.images.glob("*.nii.gz"))[: given.train_cases]
    for path in cases:
        for kind, end, source in (("imagesTr", "_0000", given.images), ("labelsTr", "", given.labels)):
            target = raw / kind / path.name.replace(".nii.gz", f"{end}.nii.gz")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path.name, target)
    listed = [{"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"} for path in cases]
    description = {
        "name": "Hippocampus", "modality": {"0": "MRI"}, "numTraining": len(cases), "training": listed, "test": [],
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "numTest": 0,
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(description))
    from nnunet.experiment_planning.DatasetAnalyzer import DatasetAnalyzer
    from nnunet.experiment_planning.experiment_planner_baseline_2DUNet_v21 import ExperimentPlanner2D_v21
    from nnunet.experiment_planning.experiment_planner_baseline_3DUNet_v21 import ExperimentPlanner3D_v21
    from nnunet.experiment_planning.utils import crop

    crop(TASK, False, 1)
    cropped = str(given.work / "v1_raw" / "nnUNet_cropped_data" / TASK)
    DatasetAnalyzer(cropped, overwrite=False, num_processes=1).analyze_dataset(False)
    target = given.work / "v1_preprocessed" / TASK
    target.mkdir(parents=True, exist_ok=True)
    for planner in (ExperimentPlanner3D_v21, ExperimentPlanner2D_v21):
        planner(cropped, str(target)).plan_experiment()


def plans_of(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the plans of a network, in which the cascade has both its stages."""
    from batchgenerators.utilities.file_and_folder_operations import load_pickle

    kind = "2D" if name == "v1_2d" else "3D"
    found: dict[str, Any] = load_pickle(str(given.work / "v1_preprocessed" / TASK / f"{PLANS}_plans_{kind}.pkl"))
    found["base_num_features"] = given.width or found["base_num_features"]
    if NETWORKS[name][0] in ("3d_lowres", "3d_cascade_fullres"):
        full = found["plans_per_stage"][0]
        low = {
            **full, "current_spacing": np.array([1.5, 1.5, 1.5]), "patch_size": np.array([24, 32, 24]),
            "pool_op_kernel_sizes": full["pool_op_kernel_sizes"][:2], "num_pool_per_axis": [2, 2, 2],
            "conv_kernel_sizes": full["conv_kernel_sizes"][:3],
        }  # fmt: skip
        found["plans_per_stage"] = {0: low, 1: full}
    return found


def train(name: str, given: argparse.Namespace) -> None:
    """Train a network by nnU-Net's class for some steps on its own patches; the next fold goes on from there."""
    import torch
    from batchgenerators.utilities.file_and_folder_operations import write_pickle
    from nnunet.training.network_training.nnUNetTrainerV2 import nnUNetTrainerV2
    from nnunet.training.network_training.nnUNetTrainerV2_CascadeFullRes import nnUNetTrainerV2CascadeFullRes

    from tools.nnunet_agreement import cut

    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    target, (_, kind, stage) = folder(given.work, name), NETWORKS[name]
    target.mkdir(parents=True, exist_ok=True)
    write_pickle(plans_of(name, given), str(target / "plans.pkl"))
    if kind.endswith("CascadeFullRes"):
        (folder(given.work, "v1_3d_lowres") / "pred_next_stage").mkdir(parents=True, exist_ok=True)
    state, samples = None, list[Any]()
    for fold in FOLDS:
        build = nnUNetTrainerV2CascadeFullRes if kind.endswith("CascadeFullRes") else nnUNetTrainerV2
        data = str(given.work / "v1_preprocessed" / TASK)
        trainer = build(str(target / "plans.pkl"), fold, str(target), data, True, stage)
        trainer.initialize(False)
        trainer.network.do_ds = False
        samples = samples or preprocessed(trainer, given)
        if state is not None:
            trainer.network.load_state_dict(state)
        steps, patch = given.steps if state is None else given.steps // 4, tuple(map(int, trainer.patch_size))
        rng, optimiser = np.random.default_rng(fold), torch.optim.Adam(trainer.network.parameters(), 1e-3)
        trainer.network.train()
        for step in range(steps):
            pairs = [cut(*samples[rng.integers(len(samples))], patch, rng) for _ in range(2)]
            images, labels = (np.stack(each) for each in zip(*pairs, strict=True))
            logits, wanted = trainer.network(torch.from_numpy(images)), torch.from_numpy(labels).long()
            shares = logits.softmax(1)
            loss = torch.nn.functional.cross_entropy(logits, wanted)
            for number in range(1, logits.shape[1]):
                mask = (wanted == number).float()
                loss = loss - 2 * (shares[:, number] * mask).sum() / (shares[:, number].sum() + mask.sum() + 1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % 10 == 0:
                print(f"{name} fold {fold} step {step} loss {float(loss.detach()):.3f}", flush=True)
        state = trainer.network.state_dict()
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "model_final_checkpoint.model"))


def preprocessed(trainer: Any, given: argparse.Namespace) -> list[Any]:
    """Return images and labels on the network's grid; of a cascade, with labels that are moved by up to two voxels."""
    from nnunet.preprocessing.preprocessing import GenericPreprocessor, PreprocessorFor2D

    kind = GenericPreprocessor if trainer.threeD else PreprocessorFor2D
    preprocessor = kind(
        trainer.normalization_schemes, trainer.use_mask_for_norm, trainer.transpose_forward,
        trainer.intensity_properties,
    )  # fmt: skip
    raw, found = given.work / "v1_raw" / "nnUNet_raw_data" / TASK, []
    for path in sorted((raw / "imagesTr").iterdir())[:24]:
        label = raw / "labelsTr" / path.name.replace("_0000", "")
        spacing = np.array(trainer.plans["plans_per_stage"][trainer.stage]["current_spacing"])
        image, seg, _ = preprocessor.preprocess_test_case([str(path)], spacing, str(label))
        if len(trainer.plans["plans_per_stage"]) > 1 and trainer.stage == 1:
            moved = np.roll(seg[0], np.random.default_rng(len(found)).integers(-2, 3, 3), (0, 1, 2))
            image = np.concatenate([image, np.stack([moved == value for value in (1, 2)]).astype(np.float32)])
        found.append((image, seg))
    return found


def predict(words: list[str]) -> int:
    """Predict a folder by ``predict_from_folder``: model, images, maps, maps before or "-", mirroring, folds."""
    import functools

    import torch

    torch.load = functools.partial(torch.load, weights_only=False)
    from nnunet.inference.predict import predict_from_folder

    model, images, maps, before, mirrored, *folds = words
    predict_from_folder(
        model, images, maps, list(map(int, folds)), False, 1, 1, None if before == "-" else before, 0, 1,
        mirrored == "mirror", mixed_precision=False, overwrite_existing=True, step_size=0.5,
    )  # fmt: skip
    return 0
