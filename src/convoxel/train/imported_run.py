"""Run folders of networks that other tools trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from convoxel.files.atomic import write_text
from convoxel.files.values import JsonObject
from convoxel.predict.trained_run import DataFacts
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.run_network import tensor_names


class ImportedRun(NamedTuple):
    """A run that was made of a network of another tool.

    Attributes:
        fold: number of the fold, "all", or "" where there are none.
        path: its run folder.
        config: its configuration.
        data: facts of its data.
        parameters: number of its weights.
        notes: what prediction does otherwise than the tool, or has to be told, each without a full stop.
    """

    fold: str
    path: Path
    config: TrainConfig
    data: DataFacts
    parameters: int
    notes: tuple[str, ...] = ()


def count_weights(network: nn.Module) -> int:
    """Return the number of a network's weights; those that several layers share count once."""
    return sum(value.numel() for value in network.parameters())


def write_run(
    part: Path, config: TrainConfig, facts: DataFacts, tensors: dict[str, Tensor], source: JsonObject, step: int = 0
) -> None:
    """Write a run folder.

    Args:
        part: folder to write.
        config: complete configuration.
        facts: of the data.
        tensors: weights by the names that they have in the network.
        source: where they come from.
        step: optimiser steps that they have seen (default 0: unknown).
    """
    body = {
        "step": step,
        "metric": None,
        "config": config.to_dict(),
        "data": json.loads(json.dumps(asdict(facts))),
        "source": source,
    }
    part.mkdir(parents=True, exist_ok=True)
    write_text(part / "config.yaml", config.to_yaml())
    alone = {name: tensor.clone() for name, tensor in tensors.items()}  # files hold no tensor under two names
    Store(part).save(tensor_names(alone), body)
