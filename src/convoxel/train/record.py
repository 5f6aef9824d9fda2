"""The run folder's readable side: configuration, metrics, TensorBoard events, the closing files."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.atomic import write_bytes
from convoxel.train.config import TrainConfig

__all__ = ["Record"]


class Record:
    """Writes what people read of a run; checkpoints alone decide how it goes on.

    Args:
        run: the run folder.
        tensorboard: whether to write TensorBoard events.
        step: events from this step on are hidden; a resumed run writes them again.
    """

    def __init__(self, run: Path, *, tensorboard: bool = True, step: int = 0) -> None:
        self.run = run
        self._events: Any = _open_events(run / "tensorboard", step) if tensorboard else None

    def write_config(self, config: TrainConfig) -> None:
        write_bytes(self.run / "config.yaml", config.to_yaml().encode("utf-8"))

    def write_metrics(self, history: Sequence[dict[str, Any]]) -> None:
        """Write ``metrics.jsonl`` whole, so that it never holds half a line, and the newest line's events."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in history]
        write_bytes(self.run / "metrics.jsonl", "".join(lines).encode("utf-8"))
        if history and self._events is not None:
            self._add_events(history[-1])

    def write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_bytes(self.run / name, text.encode("utf-8"))

    def write_arrays(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.run / name, buffer.getvalue())

    def close(self) -> None:
        if self._events is not None:
            self._guard(self._events.close)
            self._events = None

    def _add_events(self, row: dict[str, Any]) -> None:
        step = row["step"]
        values = {
            "loss/train": row["train_loss"],
            "loss/validation": row["validation_loss"],
            "metric/mean": row["metric"],
            "learning_rate": row["learning_rate"],
            **{f"metric/{name}": value for name, value in row["per_class"].items()},
        }
        for name, value in values.items():
            if value is not None and self._events is not None:
                self._guard(self._events.add_scalar, name, value, step)
        if self._events is not None:
            self._guard(self._events.flush)

    def _guard(self, write: Any, *arguments: Any) -> None:
        """Events are a convenience: losing them must not cost the training, but is said."""
        try:
            write(*arguments)
        except OSError as error:
            self._events = None
            warnings.warn(f"tensorboard: no more events are written ({error}).", RuntimeWarning, stacklevel=2)


def _open_events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn("tensorboard: not installed, so no events are written: pip install tensorboard.",
                      RuntimeWarning, stacklevel=2)  # fmt: skip
        return None
    return SummaryWriter(str(folder), purge_step=step or None)
