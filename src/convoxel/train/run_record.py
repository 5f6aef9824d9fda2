"""The metrics of a run for people: ``metrics.jsonl``, TensorBoard events, and trackers (``tracking``)."""

from __future__ import annotations

import io
import json
import os
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.files.atomic import write_text
from convoxel.files.values import JsonObject
from convoxel.train.tracking import TrackerThread
from convoxel.train.training_state import ValidationRow

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class RunRecord:
    """The metrics of a run as people read them; a resumed run is restored from checkpoints alone.

    Args:
        run: the run folder.
        tensorboard: write TensorBoard events (default True).
        step: TensorBoard hides older events from this step on; a resumed run writes them again (default 0).
        track: trackers that record the run too, "mlflow" or "wandb" (default none).
        config: configuration that they show.
    """

    def __init__(
        self,
        run: Path,
        *,
        tensorboard: bool = True,
        step: int = 0,
        track: Sequence[str] = (),
        config: JsonObject | None = None,
    ) -> None:
        self.run, self._step, self.whole = run, step, False
        self._trackers = [TrackerThread(name, run, config or {}) for name in track if name != "tensorboard"]
        self._events = _open_events(run / "tensorboard", step) if tensorboard else None

    def write_metrics(self, history: Sequence[ValidationRow]) -> None:
        """Write the whole ``metrics.jsonl``, so that it never holds half a line, and the newest line's events."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in history]
        write_text(self.run / "metrics.jsonl", "".join(lines))
        if not history:
            return
        values = _figures(history[-1])
        if self._events is not None:
            self._add_events(self._events, values, history[-1]["step"])
        if history[-1]["step"] > self._step:  # a resumed run has told it before
            for tracker in self._trackers:
                tracker.add(history[-1]["step"], values)

    def add_step(self, step: int, loss: float, rate: float) -> None:
        """Give the loss and the learning rate of a step to the trackers."""
        for tracker in self._trackers:
            tracker.add(step, {"loss/step": loss, "learning_rate/step": rate})

    def close(self) -> None:
        """Close events and trackers; ``whole`` says to these whether the run is complete."""
        for tracker in self._trackers:
            tracker.close(self.whole)
        self._trackers = []
        self._close_events()

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _add_events(self, events: _Events, values: Mapping[str, float], step: int) -> None:
        try:
            events.add(values, step)
        except OSError as error:
            # Events are a convenience: their loss is reported but must not end the training.
            self._close_events()
            warnings.warn(
                f"tensorboard: no more events are written ({error.strerror or error}).", RuntimeWarning, stacklevel=3
            )


def _figures(row: ValidationRow) -> dict[str, float]:
    """Return the figures of a validation by the names that TensorBoard and trackers group."""
    values = {
        "loss/train": row["train_loss"],
        "loss/validation": row["validation_loss"],
        "metric/mean": row["metric"],
        "learning_rate": row["learning_rate"],
        **{f"metric/{name}": value for name, value in row["per_class"].items()},
    }
    return {name: value for name, value in values.items() if value is not None}


class _Events:
    """A TensorBoard event file, written without delay and in this thread, so that a full disk raises OSError here.

    Args:
        folder: folder of the file; made if it is missing.
        step: TensorBoard hides older events from this step on; 0 hides none.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file = (folder / name).open("xb", buffering=0)
        self._size = 0
        try:
            self._write(Event(wall_time=now, file_version="brain.Event:2"))
            if step:
                self._write(Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START)))
        except OSError:
            self.close()
            raise

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Append one event that holds all ``values`` of a step."""
        rows = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=rows)))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        RecordWriter(buffer).write(event.SerializeToString())
        content = buffer.getvalue()
        try:
            rest = memoryview(content)
            while rest:  # a write may take only a part of what it is given
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            self._file.truncate(self._size)  # no half event
            raise
        self._size += len(content)


def _open_events(folder: Path, step: int) -> _Events | None:
    try:
        return _Events(folder, step)
    except ImportError:
        reason = "not installed, so no events are written: pip install tensorboard."
    except OSError as error:
        reason = f"no events are written ({error.strerror or error})."
    warnings.warn(f"tensorboard: {reason}", RuntimeWarning, stacklevel=3)
    return None
