"""Training on images: configuration, the loop, checkpoints, prediction and evaluation.

Read the files in this order: ``config`` (what the user states), ``plan`` (the rest, from the data) →
``intensity``, ``patch``, ``augment``, ``batch`` (samples become batches) → ``task``, ``score`` (losses and figures),
``schedule``, ``norm`` → ``lock``, ``checkpoint``, ``state`` (what survives a crash), ``record`` (what people read) →
``interrupt``, ``progress``, ``setup``, ``loop``.
With a trained network: ``network`` (a run folder becomes a model again), ``window``, ``inference``; then
``prediction``, ``evaluation`` and ``examples``. A study of its own: ``sharing`` (what shared weights buy).

Invariant: everything random is a function of the seed and the number of the sample or step, never of
what happened before; so a run that was cut off continues bit for bit.

The names below load on first use, so reading a configuration does not import PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convoxel.errors import UnsupportedError

if TYPE_CHECKING:
    from convoxel.train.config import TrainConfig
    from convoxel.train.evaluation import evaluate
    from convoxel.train.loop import RunResult, fit
    from convoxel.train.network import load_model
    from convoxel.train.prediction import predict
    from convoxel.train.progress import Progress
    from convoxel.train.sharing import study_sharing
    from convoxel.train.window import sliding_window

__all__ = [
    "Progress",
    "RunResult",
    "TrainConfig",
    "evaluate",
    "fit",
    "load_model",
    "predict",
    "sliding_window",
    "study_sharing",
]

_HOME = {
    "Progress": "progress",
    "RunResult": "loop",
    "TrainConfig": "config",
    "evaluate": "evaluation",
    "fit": "loop",
    "load_model": "network",
    "predict": "prediction",
    "sliding_window": "window",
    "study_sharing": "sharing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convoxel.train' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"convoxel.train.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("convoxel"):
            raise
        raise UnsupportedError(f"Training needs {error.name}: pip install 'convoxel[train]'.") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
