"""Figures of a server as Prometheus reads them: counters, gauges and histograms as text (exposition format 0.0.4)."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convoxel import __version__

KIND = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metric:
    """A counter, or a histogram where it has ``bounds``: one series for each combination of labels.

    Args:
        name: its name, without ``convoxel_serve_``.
        text: sentence that says what it counts.
        labels: names of its labels.
        bounds: upper bounds of a histogram's buckets; () for a counter.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = ()) -> None:
        self.name, self.text, self.labels, self.bounds = f"convoxel_serve_{name}", text, tuple(labels), tuple(bounds)
        self._lock = threading.Lock()
        # Of a histogram: its buckets, the last of which has no bound, and the sum.
        self._series: dict[tuple[str, ...], list[float]] = {}

    def add(self, value: float, *labels: str) -> None:
        """Count ``value`` more, or one value that was observed."""
        with self._lock:
            series = self._series.setdefault(labels, [0.0] * (len(self.bounds) + 2 if self.bounds else 1))
            series[-1] += value
            if self.bounds:
                series[bisect_left(self.bounds, value)] += 1

    def mean(self, *labels: str) -> float:
        """Return the mean of the values that a histogram observed; 0 if there are none."""
        with self._lock:
            *buckets, total = self._series.get(labels, [0.0, 0.0])
        return total / sum(buckets) if sum(buckets) else 0.0

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text."""
        yield from _head(self.name, self.text, "histogram" if self.bounds else "counter")
        with self._lock:
            found = {labels: list(series) for labels, series in self._series.items()}
        for labels, series in sorted(found.items()):
            pairs = list(zip(self.labels, labels, strict=True))
            if not self.bounds:
                yield _line(self.name, pairs, series[0])
                continue
            *buckets, total = series
            count = 0.0
            for bound, inside in zip((*map(str, self.bounds), "+Inf"), buckets, strict=True):
                count += inside
                yield _line(f"{self.name}_bucket", [*pairs, ("le", bound)], count)
            yield _line(f"{self.name}_sum", pairs, total)
            yield _line(f"{self.name}_count", pairs, count)


class Metrics:
    """All figures of one server.

    Attributes:
        requests: answers by model and status.
        images: images that were computed.
        seconds: time of a request from its first byte to its answer.
        waited: time of a request in the queue.
        computed: time of a batch in the engine.
        batches: images of a batch.
        gauges: functions for the figures of the moment, by name: a sentence, and series of labels and value.
    """

    def __init__(self) -> None:
        model = ("model",)
        self.requests = Metric("requests_total", "Answers to inference requests.", ("model", "status"))
        self.images = Metric("images_total", "Images that were computed.", model)
        self.seconds = Metric("request_seconds", "Time from the head of a request to its answer.", model, _SECONDS)
        self.waited = Metric("queue_seconds", "Time of a request in the queue.", model, _SECONDS)
        self.computed = Metric("compute_seconds", "Time of a batch in the engine.", model, _SECONDS)
        self.batches = Metric("batch_images", "Images of a batch.", model, _IMAGES)
        self.gauges: dict[str, tuple[str, Callable[[], list[tuple[list[tuple[str, str]], float]]]]] = {}

    def text(self) -> str:
        """Return all figures."""
        lines: list[str] = []
        for metric in (self.requests, self.images, self.seconds, self.waited, self.computed, self.batches):
            lines += metric.lines()
        for name, (text, read) in self.gauges.items():
            lines += _head(f"convoxel_serve_{name}", text, "gauge")
            lines += [_line(f"convoxel_serve_{name}", labels, value) for labels, value in read()]
        lines += _head("convoxel_build_info", "Version of Convoxel.", "gauge")
        lines.append(_line("convoxel_build_info", [("version", __version__)], 1))
        lines += _head("process_cpu_seconds_total", "Processor time of this process.", "counter")
        lines.append(_line("process_cpu_seconds_total", [], time.process_time()))
        if (resident := _resident()) is not None:
            lines += _head("process_resident_memory_bytes", "Resident memory of this process.", "gauge")
            lines.append(_line("process_resident_memory_bytes", [], resident))
        return "\n".join([*lines, ""])


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Sequence[tuple[str, str]], value: float) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    told = ",".join(f'{label}="{escaped(text)}"' for label, text in labels)
    number = f"{value:.0f}" if value == int(value) else repr(value)
    return f"{name}{{{told}}} {number}" if told else f"{name} {number}"


def _resident() -> int | None:
    """Return the resident bytes of this process; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
