"""Training on images: configuration, the loop, checkpoints, and trained networks from run folders.

Read the files in this order: ``config`` (what the user states), ``defaults`` (the rest, from the data) →
``training_patch``, ``augment``, ``training_batch`` (samples become batches) → ``loss``, ``schedule``,
``optimisation``, ``batch_norm`` → ``checkpoint``, ``run_network``, ``training_state`` (what survives a crash),
``run_record`` (what people read) → ``interrupt``, ``training_run``, ``loop``. With a run folder: ``run_folder`` (load,
evaluate, predict) and ``run_separation``. Studies of their own: ``sharing_study`` and ``scaling_study``.

Invariant: everything random is a function of the seed and the number of the sample or step, and of nothing that
happened before, so a run that was interrupted continues bit for bit.

The names below load on first use, so reading a configuration does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convoxel.errors import UnsupportedError

if TYPE_CHECKING:
    from convoxel.predict.run_progress import Progress
    from convoxel.predict.sliding_window import sliding_window
    from convoxel.predict.trained_run import TrainedRun
    from convoxel.train.config import TrainConfig
    from convoxel.train.loop import RunResult, fit
    from convoxel.train.run_folder import evaluate, load_model, predict
    from convoxel.train.run_settings import configure_run, started_from
    from convoxel.train.scaling_study import study_scaling
    from convoxel.train.sharing_study import study_sharing

__all__ = [
    "Progress",
    "RunResult",
    "TrainConfig",
    "TrainedRun",
    "configure_run",
    "evaluate",
    "fit",
    "load_model",
    "predict",
    "sliding_window",
    "started_from",
    "study_scaling",
    "study_sharing",
]

_HOME = {
    "Progress": "predict.run_progress",
    "RunResult": "train.loop",
    "TrainConfig": "train.config",
    "TrainedRun": "predict.trained_run",
    "configure_run": "train.run_settings",
    "evaluate": "train.run_folder",
    "fit": "train.loop",
    "load_model": "train.run_folder",
    "predict": "train.run_folder",
    "sliding_window": "predict.sliding_window",
    "started_from": "train.run_settings",
    "study_scaling": "train.scaling_study",
    "study_sharing": "train.sharing_study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convoxel.train' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"convoxel.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("convoxel"):
            raise
        raise UnsupportedError(f"Training needs {error.name}: pip install 'convoxel[train]'.") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
