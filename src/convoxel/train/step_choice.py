"""The computation of a step on a GPU, chosen by measured steps: its layout in memory, and torch.compile or not.

Which of them is faster depends on the network, the precision and the libraries, so trial steps decide, once: the run
keeps the choice. Where runs must be bit-equal, nothing is measured, since two measurements may choose differently.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

from torch import nn

from convoxel.data import DataSet
from convoxel.predict.device import is_out_of_memory, synchronise
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import TrainConfig
from convoxel.train.optimisation import steps_total
from convoxel.train.pace import now
from convoxel.train.training_batch import Batches
from convoxel.train.training_step import (
    Forward,
    build_step_loss,
    compile_forward,
    compute_loss,
    plan_step,
    watch_memory,
)

_WARM, _TIMED = 3, 7
# torch.compile takes about a minute for a U-Net: shorter runs cannot win it back.
_LEAST_S = 600.0


def choose_step(
    config: TrainConfig, dataset: DataSet, facts: DataFacts, model: nn.Module
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the configuration with ``channels_last`` and ``compile`` chosen, and what was measured, in words.

    Args:
        config: planned configuration.
        dataset: data of the run.
        facts: facts of these data.
        model: network, on its device; trials take a copy.

    Raises:
        ConvoxelError: a step needs more memory than the device has.
    """
    chosen: dict[str, object] = {}
    if config.deterministic:
        # Channels last is what matrix units of reduced precision read.
        reduced = config.precision in ("bfloat16", "float16")
        chosen["channels_last"] = reduced if config.channels_last is None else config.channels_last
        chosen["compile"] = config.compile is True
    elif config.channels_last is None or config.compile in (None, "auto"):
        trial = _Trial(config, dataset, facts, model)
        with watch_memory(config):
            return trial.choose()
    settled = config.model_copy(update=chosen)
    return settled, ()


class _Trial:
    """Steps of a copy of a run's network."""

    def __init__(self, config: TrainConfig, dataset: DataSet, facts: DataFacts, model: nn.Module) -> None:
        self.config, self.dims = config, dataset.dims
        self.model = copy.deepcopy(model).train()
        self.criterion = build_step_loss(config, facts)
        self.batch = Batches(dataset.train, config, facts, plan_step(config)).batch(0)

    def choose(self) -> tuple[TrainConfig, tuple[str, ...]]:
        """Return the configuration of the fastest steps, and what was measured, in words."""
        stated = self.config.channels_last
        layouts = [stated] if stated is not None else [True, False] if self.dims > 1 else [False]
        times = {last: self._time(last) for last in layouts}
        last = min(times, key=lambda layout: times[layout])
        words = [", ".join(f"{_LAYOUT[layout]} {_ms(time_s)} a step" for layout, time_s in times.items())]
        config = self.config.model_copy(update={"channels_last": last})
        if config.compile in (None, "auto"):
            compiles, told = self._try_compile(last, times[last])
            config = config.model_copy(update={"compile": compiles})
            words.append(told)
        return config, tuple(words)

    def _try_compile(self, channels_last: bool, eager_s: float) -> tuple[bool, str]:
        """Return whether compiled steps do more in the time of the run, and why, in words."""
        steps = steps_total(self.config)
        run_s = 60.0 * (self.config.minutes or 0.0) if steps is None else steps * eager_s
        if run_s < _LEAST_S and self.config.compile is None:
            return False, f"torch.compile not tried in a run of less than {_LEAST_S / 60:g} min"
        begun = now()
        try:
            compiled_s = self._time(channels_last, compile_forward)
        except Exception as error:  # of the compiler, of the tools that it calls: training goes on without it
            if is_out_of_memory(error):
                raise
            return False, f"torch.compile fails here ({type(error.__cause__ or error).__name__})"
        spent_s = now() - begun
        wins = compiled_s * run_s < eager_s * (run_s - spent_s)
        return wins, f"compiled {_ms(compiled_s)} a step after {spent_s:.0f} s"

    def _time(self, channels_last: bool, prepare: Callable[[nn.Module], Forward] = lambda model: model) -> float:
        """Return the median time of a step in seconds."""
        computation = plan_step(self.config.model_copy(update={"channels_last": channels_last}))
        forward = prepare(computation.arrange(self.model, self.dims))
        batch, times = self.batch.moved(computation), []
        for _ in range(_WARM + _TIMED):
            synchronise(computation.device)
            begun = now()
            self.model.zero_grad(set_to_none=True)
            compute_loss(forward, batch, self.criterion, computation).backward()
            synchronise(computation.device)
            times.append(now() - begun)
        return statistics.median(times[_WARM:])


_LAYOUT = {True: "channels last", False: "channels first"}


def _ms(time_s: float) -> str:
    return f"{1e3 * time_s:.3g} ms"
