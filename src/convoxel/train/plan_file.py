"""A planned run as a YAML file that people edit: what was stated, what was chosen with the reason, and the rest.

``convoxel train --config FILE`` reads it. What suits a machine and not the data (threads, device, layout) is left out,
unless it was stated.
"""

from __future__ import annotations

import math
import textwrap
from contextlib import ExitStack
from dataclasses import dataclass

import yaml

from convoxel.train.config import TrainConfig
from convoxel.train.defaults import Reasons
from convoxel.train.loop import keep_machine
from convoxel.train.run_plan import RunPlan
from convoxel.train.training_run import plan_training

_WIDE = 110
_MACHINE = frozenset({"output", "threads", "num_workers", "device", "precision", "channels_last", "compile", "engine"})


@dataclass(frozen=True)
class PlanFile:
    """A planned run: its configuration, all choices in words, and the text of a YAML file that holds both.

    Attributes:
        config: complete configuration.
        plan: its choices, in words.
        reasons: why its entries are as they are, by their names.
        text: the same as YAML; every chosen entry has its reason above it.
    """

    config: TrainConfig
    plan: RunPlan
    reasons: Reasons
    text: str


def plan_file(config: TrainConfig) -> PlanFile:
    """Return what training would choose for ``config``, without training; no file is written.

    The data are read, and where minutes limit the run, steps are measured, as :func:`convoxel.train.fit` does.

    Args:
        config: configuration of the run; its ``output`` is not used.

    Raises:
        ConfigError: the configuration does not fit the data, or the device is not here.
        DataError: a sample is broken.
    """
    with keep_machine(config), ExitStack() as stack:
        planned = plan_training(config, stack)
    stated = config.stated()
    entries = planned.config.to_dict()
    lines = ["# Written by `convoxel plan`. Edit it, then: convoxel train --config FILE --output RUN", ""]
    left: list[str] = []
    for name in TrainConfig.model_fields:
        value = entries[name]
        chosen = name not in stated and TrainConfig.model_fields[name].default is None and value is not None
        if name in stated or name in planned.reasons or (chosen and name not in _MACHINE):
            if name != "output":
                why = "stated" if name in stated else planned.reasons.get(name, "")
                lines += [f"# {line}" for line in textwrap.wrap(why, _WIDE)] + [_entry(name, value)]
        elif name not in _MACHINE:
            left.append("# " + _entry(name, value).replace("\n", "\n# "))
    told = [f"# {line}" for line in textwrap.wrap(f"Memory: {planned.reasons['memory']}.", _WIDE)]
    text = "\n".join([*lines, "", *told, "", "# Entries at their defaults:", *left]) + "\n"
    return PlanFile(planned.config, planned.plan, planned.reasons, text)


def _entry(name: str, value: object) -> str:
    """Return an entry as a line of YAML; lists of numbers in brackets."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=math.inf)
    return f"{name}: {text.removesuffix(chr(10)).removesuffix(chr(10) + '...')}"
