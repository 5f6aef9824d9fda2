"""Training batches. Batch ``step`` is a function of (data, configuration, step) and nothing else.

No generator is kept from one batch to the next: the numbers of the k-th sample of a run come from a generator seeded
with (seed, k). A resumed run therefore continues with exactly the samples, patches and augmentations of one that was
never interrupted, and preparing samples in parallel changes nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import Sample, Split
from convoxel.errors import DataError
from convoxel.predict.network_call import resize
from convoxel.predict.normalisation import Statistics
from convoxel.predict.sliding_window import cut
from convoxel.predict.trained_run import DataFacts
from convoxel.train.augment import Augmentation
from convoxel.train.config import TrainConfig
from convoxel.train.training_patch import draw_start, find_centres


@dataclass(frozen=True)
class Batch:
    """Images (batch, channels, *patch) float32, targets (batch,) or (batch, *patch) int64, sample names."""

    images: torch.Tensor
    targets: torch.Tensor
    names: tuple[str, ...]


class Batches:
    """The endless sequence of training batches of a run.

    Args:
        split: training samples.
        config: planned configuration.
        facts: facts of the data: normalisation, classes, spacing.
    """

    def __init__(self, split: Sequence[Sample] | Split, config: TrainConfig, facts: DataFacts) -> None:
        self.split, self.config, self.facts = split, config, facts
        self._statistics: dict[int, Statistics] = {}
        self._centres: dict[int, list[NDArray[np.int32]]] = {}
        self._local = threading.local()

    def iterate(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches from number ``step`` on, prepared ahead when the run has workers."""
        workers = self.config.num_workers
        if workers == 0:
            while True:
                yield self.batch(step)
                step += 1
        with ThreadPoolExecutor(workers, thread_name_prefix="convoxel-sample") as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(waiting) <= workers:
                        waiting.append(pool.submit(self.batch, step + len(waiting)))
                    yield waiting.popleft().result()
                    step += 1
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """Return batch number ``step`` (from 0)."""
        size = self.config.batch_size or 1
        samples = [self._sample(position) for position in range(step * size, (step + 1) * size)]
        images, targets, names = zip(*samples, strict=True)
        stacked = np.stack([np.asarray(target, np.int64) for target in targets])
        return Batch(torch.from_numpy(np.stack(images)), torch.from_numpy(stacked), tuple(names))

    def _index(self, position: int) -> int:
        """Return the sample at ``position`` of one permutation of the training set after the other."""
        round_number, place = divmod(position, len(self.split))
        cached = getattr(self._local, "order", None)
        if cached is None or cached[0] != round_number:
            rng = np.random.default_rng([self.config.seed, 1, round_number])
            cached = self._local.order = (round_number, rng.permutation(len(self.split)))
        return int(cached[1][place])

    def _sample(self, position: int) -> tuple[NDArray[np.float32], int | NDArray[np.uint8], str]:
        index = self._index(position)
        sample = self.split[index]
        rng = np.random.default_rng([self.config.seed, 2, position])
        patch = self.config.patch or sample.image.shape[1:]
        statistics = self._measure(index, sample)
        label: NDArray[np.uint8] | None = None
        if self.config.task == "classify":
            image = resize(statistics.normalise(sample.image), patch)
        else:
            if not isinstance(sample.label, np.ndarray):
                raise DataError(f"data: {sample.name} has no label; training needs one for every image.")
            size = sample.image.shape[1:]
            if index not in self._centres:
                self._centres[index] = find_centres(sample.label, len(self.facts.classes))
            start = draw_start(rng, size, patch, self._centres[index], self.config.foreground)
            image = statistics.normalise(cut(sample.image, start, patch, statistics.floor))
            label = cut(sample.label, start, patch)
        if self.config.augment:
            image, label = self._augmentation()(image, label, int(rng.integers(2**32)))
        target = sample.label if label is None else label
        if target is None:
            raise DataError(f"data: {sample.name} has no class; training needs one for every image.")
        return image, target, sample.name

    def _measure(self, index: int, sample: Sample) -> Statistics:
        # Measuring a whole volume for every patch of it would cost more than the patch.
        found = self._statistics.get(index)
        if found is None:
            found = self._statistics[index] = self.facts.normalisation.statistics(sample.image)
        return found

    def _augmentation(self) -> Augmentation:
        # MONAI's transforms carry their random state, so every thread has its own.
        if not hasattr(self._local, "augmentation"):
            self._local.augmentation = Augmentation(self.config, self.facts.spacing_mm)
        augmentation: Augmentation = self._local.augmentation
        return augmentation
