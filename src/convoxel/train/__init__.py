"""Training on images: configuration, the loop, checkpoints, and trained networks from run folders.

Read the files in this order: ``config`` (what the user states), ``level_plan``, ``intensity_plan``, ``defaults`` (the
rest, from the data), ``step_budget`` (as much as memory and minutes allow) → ``geometry_plan`` (the grid that the
network sees), ``label_survey``, ``mirroring`` (how samples may be mirrored) → ``training_patch``, ``change_strength``,
``augment``, ``training_batch`` (samples become batches) → ``loss``, ``optimisation``, ``batch_norm`` → ``checkpoint``,
``run_network``, ``training_state`` (what survives a crash), ``run_plan``, ``tracking``,
``run_record`` (what people read) → ``pace``,
``watch``, ``interrupt``, ``training_run``, ``loop``, ``plan_file``. With a run folder: ``run_list``, ``run_folder``
(load, predict), ``run_evaluation``, ``run_explanation`` and ``run_separation``. From nnU-Net: ``nnunet_plans``,
``nnunet_import``. Studies of their own: ``sharing_study`` and ``scaling_study``.

Invariant: everything random is a function of the seed and the number of the sample or step, and of nothing that
happened before, so a run that was interrupted continues bit for bit.

The names below load on first use, so reading a configuration does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoxel.lazy import lazy_names

if TYPE_CHECKING:
    from convoxel.predict.run_progress import Progress
    from convoxel.predict.sliding_window import sliding_window
    from convoxel.predict.trained_run import TrainedRun
    from convoxel.train.config import TrainConfig
    from convoxel.train.loop import RunResult, fit
    from convoxel.train.monai_import import import_monai
    from convoxel.train.nnunet_import import import_nnunet
    from convoxel.train.plan_file import PlanFile, plan_file
    from convoxel.train.run_evaluation import evaluate
    from convoxel.train.run_explanation import explain
    from convoxel.train.run_folder import load_model, predict
    from convoxel.train.run_plan import RunPlan
    from convoxel.train.run_settings import configure_run, has_run, started_from
    from convoxel.train.scaling_study import study_scaling
    from convoxel.train.sharing_study import study_sharing

__all__ = [
    "PlanFile",
    "Progress",
    "RunPlan",
    "RunResult",
    "TrainConfig",
    "TrainedRun",
    "configure_run",
    "evaluate",
    "explain",
    "fit",
    "has_run",
    "import_monai",
    "import_nnunet",
    "load_model",
    "plan_file",
    "predict",
    "sliding_window",
    "started_from",
    "study_scaling",
    "study_sharing",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "convoxel.predict.run_progress": "Progress",
        "convoxel.predict.sliding_window": "sliding_window",
        "convoxel.predict.trained_run": "TrainedRun",
        "convoxel.train.config": "TrainConfig",
        "convoxel.train.loop": "RunResult fit",
        "convoxel.train.monai_import": "import_monai",
        "convoxel.train.nnunet_import": "import_nnunet",
        "convoxel.train.plan_file": "PlanFile plan_file",
        "convoxel.train.run_evaluation": "evaluate",
        "convoxel.train.run_explanation": "explain",
        "convoxel.train.run_folder": "load_model predict",
        "convoxel.train.run_plan": "RunPlan",
        "convoxel.train.run_settings": "configure_run has_run started_from",
        "convoxel.train.scaling_study": "study_scaling",
        "convoxel.train.sharing_study": "study_sharing",
    },
    needs="Training needs",
    early=True,
)
