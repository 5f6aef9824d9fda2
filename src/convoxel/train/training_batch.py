"""Training batches. Batch ``step`` is a function of (data, configuration, step) and nothing else.

No generator is kept from one batch to the next: the numbers of the k-th sample of a run come from a generator seeded
with (seed, k). A resumed run therefore continues with exactly the samples, patches and augmentations of one that was
never interrupted, and preparing samples in parallel changes nothing.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import Sample, Split
from convoxel.data.data_set import Answer
from convoxel.errors import DataError
from convoxel.predict.computation import Computation
from convoxel.predict.network_call import resize
from convoxel.predict.normalisation import Statistics
from convoxel.predict.sliding_window import cut
from convoxel.predict.trained_run import DataFacts
from convoxel.train.augment import Augmentation
from convoxel.train.config import TrainConfig
from convoxel.train.process_group import Processes
from convoxel.train.training_patch import draw_start, find_centres


@dataclass(frozen=True)
class Batch:
    """Images (batch, channels, *patch) float32, targets (batch,) or (batch, *patch) int64, sample names.

    Where an image may have several classes, targets are (batch, classes) float32, 0 or 1; to regress, standardised
    values (batch, targets) float32. Where images are mixed, ``mixture`` holds the targets of what was mixed in and its
    share.
    """

    images: torch.Tensor
    targets: torch.Tensor
    names: tuple[str, ...]
    mixture: tuple[torch.Tensor, float] | None = None

    def pinned(self) -> Batch:
        """Return the batch in memory that a GPU copies from while the CPU goes on."""
        return self._with(lambda tensor: tensor.pin_memory(), self.images.pin_memory())

    def moved(self, computation: Computation) -> Batch:
        """Return the batch where and how a network is computed."""
        return self._with(
            lambda tensor: tensor.to(computation.device, non_blocking=True), computation.move(self.images)
        )

    def _with(self, move: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Batch:
        mixture = None if self.mixture is None else (move(self.mixture[0]), self.mixture[1])
        return replace(self, images=images, targets=move(self.targets), mixture=mixture)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensors of the batch."""
        return (self.images, self.targets, *(() if self.mixture is None else self.mixture[:1]))


# Zhang et al. 2018 (arXiv 1710.09412), for ImageNet; Yun et al. 2019 (arXiv 1905.04899).
_ALPHA = {"mixup": 0.2, "cutmix": 1.0}


def mix(batch: Batch, others: Batch, how: str, share: float, rng: np.random.Generator) -> Batch:
    """Return a batch whose images are mixed with those of another.

    Args:
        batch: images (batch, channels, *spatial) and targets.
        others: the images that are mixed in, and their targets.
        how: ``"mixup"`` blends whole images, ``"cutmix"`` puts a box of the other image into each.
        share: share of the other images.
        rng: draws the place of the box.
    """
    other, images = others.images, batch.images
    if how == "mixup":
        images = torch.lerp(images, other, share)
    else:
        size = images.shape[2:]
        sides = [round(side * share ** (1 / len(size))) for side in size]
        starts = [int(rng.integers(side - inner + 1)) for side, inner in zip(size, sides, strict=True)]
        inside = (slice(start, start + inner) for start, inner in zip(starts, sides, strict=True))
        box = (slice(None), slice(None), *inside)
        images = images.clone()
        images[box] = other[box]
        share = math.prod(sides) / math.prod(size)
    return replace(batch, images=images, mixture=(others.targets, share))


_Prepared = tuple[NDArray[np.float32], NDArray[np.int64] | NDArray[np.float32], str]


class Batches:
    """The endless sequence of training batches of a run.

    Args:
        split: training samples.
        config: planned configuration.
        facts: facts of the data: normalisation, classes, spacing.
        computation: how the network is computed that takes them (default: on the CPU).
        processes: the processes that share every batch; this one prepares its own samples (default: one process).
    """

    def __init__(
        self,
        split: Sequence[Sample] | Split,
        config: TrainConfig,
        facts: DataFacts,
        computation: Computation | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.split, self.config, self.facts = split, config, facts
        self.computation, self.processes = computation or Computation(), processes or Processes()
        self._statistics: dict[int, Statistics] = {}
        self._centres: dict[int, list[NDArray[np.int32]]] = {}
        self._local = threading.local()

    def iterate(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches from number ``step`` on, where the network is; prepared ahead when the run has workers."""
        prepared = self._prepared(step)
        with contextlib.closing(prepared):
            if self.computation.device.type == "cuda":
                yield from _copied_ahead(prepared, self.computation)
            else:
                for batch in prepared:
                    yield batch.moved(self.computation)

    def _prepared(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches in the CPU's memory."""
        workers = self.config.num_workers or 0
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
        """Return this process's share of batch number ``step`` (from 0), in the CPU's memory."""
        size = self.config.batch_size or 1
        share = size // self.processes.count
        own = range(self.processes.rank * share, (self.processes.rank + 1) * share)
        samples = {place: self._sample(step * size + place) for place in own}
        found, how = _stack([samples[place] for place in own]), self.config.augment.mix
        if how != "none":
            rng = np.random.default_rng([self.config.seed, 4, step])
            part, order = float(rng.beta(_ALPHA[how], _ALPHA[how])), rng.permutation(size)
            others = [int(order[place]) for place in own]
            samples.update({place: self._sample(step * size + place) for place in {*others} - samples.keys()})
            found = mix(found, _stack([samples[place] for place in others]), how, part, rng)
        return found.pinned() if self.computation.device.type == "cuda" else found

    def _index(self, position: int) -> int:
        """Return the sample at ``position`` of one permutation of the training set after the other."""
        round_number, place = divmod(position, len(self.split))
        cached = getattr(self._local, "order", None)
        if cached is None or cached[0] != round_number:
            rng = np.random.default_rng([self.config.seed, 1, round_number])
            cached = self._local.order = (round_number, rng.permutation(len(self.split)))
        return int(cached[1][place])

    def _sample(self, position: int) -> _Prepared:
        index = self._index(position)
        sample = self.split[index]
        rng = np.random.default_rng([self.config.seed, 2, position])
        patch = self.config.patch or sample.image.shape[1:]
        statistics = self._measure(index, sample)
        label: NDArray[np.uint8] | None = None
        if self.config.task != "segment":
            image = resize(statistics.normalise(sample.image), patch)
        else:
            if not isinstance(sample.label, np.ndarray):
                raise DataError(f"data: {sample.name} has no label; training needs one for every image.")
            size = sample.image.shape[1:]
            if index not in self._centres:
                self._centres[index] = find_centres(sample.label, len(self.facts.value_names))
            inner, border = list(patch), [0] * len(patch)
            if self.config.slices is not None:  # the neighbours of a slice may lie outside
                axis, border[self.config.slice_axis or 0] = self.config.slice_axis or 0, self.config.slices // 2
                inner[axis] -= 2 * border[axis]
            start = draw_start(rng, size, inner, self._centres[index], self.config.foreground)
            start = tuple(first - edge for first, edge in zip(start, border, strict=True))
            image = statistics.normalise(cut(sample.image, start, patch, statistics.floor))
            label = cut(sample.label, start, patch)
        if self.config.augment.changes:
            image, label = self._augmentation()(image, label, int(rng.integers(2**32)))
        target = sample.label if label is None else label
        return image, self._as_target(target, sample.name), sample.name

    def _as_target(self, answer: Answer | NDArray[np.uint8], name: str) -> NDArray[np.int64] | NDArray[np.float32]:
        """Return what the network shall find, as the loss takes it."""
        if isinstance(answer, frozenset):
            return np.isin(np.arange(len(self.facts.classes)), list(answer)).astype(np.float32)
        if isinstance(answer, tuple) and self.facts.targets is not None:
            return self.facts.targets.standardise(answer).astype(np.float32)
        if answer is None:
            raise DataError(f"data: {name} has no class and no value; training needs one for every image.")
        return np.asarray(answer, np.int64)

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


def _stack(samples: Sequence[_Prepared]) -> Batch:
    """Return samples as a batch."""
    images, targets, names = zip(*samples, strict=True)
    return Batch(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)), tuple(names))


def _copied_ahead(batches: Iterator[Batch], computation: Computation) -> Iterator[Batch]:
    """Yield batches on a GPU, each copied there while the step before it is computed."""
    stream = torch.cuda.Stream(computation.device)

    def copy() -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return next(batches).moved(computation), stream.record_event()

    following = copy()
    while True:
        (batch, copied), following = following, copy()
        current = torch.cuda.current_stream(computation.device)
        current.wait_event(copied)
        for tensor in batch.tensors:  # its memory is free again when this stream has read it
            tensor.record_stream(current)
        yield batch
