"""A study of weight sharing: a convolution, a locally and a fully connected layer trained on the same few samples.

A convolution is a fully connected layer with an infinitely strong prior (Goodfellow et al. 2016, §9.4): its weights are
zero outside a window and equal at every position of the window. The locally connected layer has the first half of the
prior, the fully connected one none. All three map the same inputs to the same outputs, so only the prior differs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convoxel.arithmetic import conv_matrix, conv_sizes
from convoxel.arithmetic.argument import whole
from convoxel.data.data_set import Split
from convoxel.errors import ConfigError, DataError
from convoxel.files.values import JsonObject
from convoxel.nn.functional import pad, project_to_convolution
from convoxel.nn.locally_connected import LocallyConnected
from convoxel.nn.torch_layers import conv, max_pool

SHARING = ("convolution", "locally connected", "fully connected")

Labelled = Sequence[NDArray[Any]]  # images and their class numbers
Part = tuple[Tensor, Tensor]  # images, class numbers

_MOST_WEIGHTS = 20_000_000  # of the fully connected layer: 80 MB, and as much again for its gradient
_MOST_STEPS = 100_000  # of each layer over all starts: minutes; a study is of few samples, which are learned sooner
_LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Sharing:
    """One layer of :func:`study_sharing`.

    Attributes:
        kind: a word of ``SHARING``.
        params: number of weights, without constants.
        nonzeros: entries of the layer's matrix that are not zero.
        multiplications: multiplications for one image, one for each entry that is not zero.
        size_bytes: size of the weights: of the kernel, the matrix in compressed rows, the dense matrix.
        train_accuracy, test_accuracy: means over the starts.
        test_deviation: standard deviation of the test accuracy over the starts.
        moved_accuracy: accuracy on test images moved by one pixel, in both directions along each axis.
        distance: ‖M − A‖ / ‖M‖ of the trained matrix M and the nearest convolution A; 0 for a convolution.
        matrix: block of M from the first input channel to the first output channel, of the first start.
        nearest: the same block of A.
    """

    kind: str
    params: int
    nonzeros: int
    multiplications: int
    size_bytes: int
    train_accuracy: float
    test_accuracy: float
    test_deviation: float
    moved_accuracy: float
    distance: float
    matrix: NDArray[np.float32]
    nearest: NDArray[np.float32]

    @property
    def gap(self) -> float:
        """Accuracy on the training samples minus accuracy on the others."""
        return self.train_accuracy - self.test_accuracy

    def to_dict(self) -> JsonObject:
        """Return the numbers as JSON holds them."""
        kept = {name: value for name, value in vars(self).items() if name not in ("matrix", "nearest")}
        return {**kept, "gap": self.gap}


@dataclass(frozen=True)
class SharingStudy:
    """Result of :func:`study_sharing`: a row for each kind, and what all have in common."""

    rows: tuple[Sharing, ...]
    samples: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: int

    def to_dict(self) -> JsonObject:
        """Return the numbers as JSON holds them."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}


def study_sharing(
    train: Labelled,
    test: Labelled,
    *,
    kernel: int = 3,
    channels: int = 8,
    steps: int = 100,
    starts: int = 3,
    seed: int = 0,
) -> SharingStudy:
    """Return a convolution, a locally and a fully connected layer trained on the same samples, side by side.

    The network is the layer, ReLU, max pooling of 2 pixels along each axis and a linear classifier; only the layer
    differs. Adam trains it on all samples at once.

    Args:
        train: images ``(n, c, *spatial)`` and their class numbers ``(n,)``; few, so that the prior matters.
        test: images and class numbers of other samples.
        kernel: kernel size along each axis (default 3).
        channels: output channels of the layer (default 8).
        steps: training steps (default 100).
        starts: random starts over which accuracies are averaged (default 3).
        seed: random seed of the first start (default 0).

    Raises:
        ConfigError: a number is out of range, there are more than 100 000 steps in all, or the images are too large
            for a fully connected layer.
        ShapeError: the kernel does not fit.

    >>> rng = np.random.default_rng(0)
    >>> some = rng.random((8, 1, 3, 3), np.float32), np.arange(8) % 2
    >>> found = study_sharing(some, some, kernel=2, channels=1, steps=1, starts=1)
    >>> [row.params for row in found.rows], [row.nonzeros for row in found.rows]
    ([4, 16, 36], [16, 16, 36])
    """
    kernel, channels = whole("kernel", kernel, 1), whole("channels", channels, 1)
    steps, starts = whole("steps", steps, 1), whole("starts", starts, 1)
    if steps * starts > _MOST_STEPS:
        raise ConfigError(
            f"steps is {steps} and starts is {starts}, which make {steps * starts:,} steps of each layer; expected at "
            f"most {_MOST_STEPS:,}. Give fewer."
        )
    for name, pair in (("train", train), ("test", test)):
        if len(pair) != 2:
            raise ConfigError(f"{name} has {len(pair)} entries; expected two, images and their class numbers.")
    images = train[0]
    size, window = images.shape[2:], (kernel,) * (images.ndim - 2)
    counts = conv_matrix(size, images.shape[1], channels, window)
    if counts.dense > _MOST_WEIGHTS:
        raise ConfigError(
            f"images of {size} need a fully connected layer of {counts.dense:,} weights; expected at most "
            f"{_MOST_WEIGHTS:,}. Give smaller images or fewer channels."
        )
    mean, spread = float(images.mean()), float(images.std()) or 1.0
    parts = [(torch.from_numpy((x - mean) / spread), torch.from_numpy(y)) for x, y in (train, test)]
    classes = int(max(train[1].max(), test[1].max())) + 1
    sizes = {
        "convolution": (counts.shared, counts.nonzeros, counts.shared_bytes()),
        "locally connected": (counts.nonzeros, counts.nonzeros, counts.sparse_bytes()),
        "fully connected": (counts.dense, counts.dense, counts.dense_bytes()),
    }
    rows = []
    for kind, (params, nonzeros, size_bytes) in sizes.items():
        runs = [_train(kind, parts, classes, window, channels, steps, seed + start) for start in range(starts)]
        learned = [_measure_prior(run.layer, images.shape[1:], window) for run in runs]
        known, new, moved = (statistics.fmean(getattr(run, part) for run in runs) for part in ("known", "new", "moved"))
        deviation, distance = statistics.pstdev(run.new for run in runs), statistics.fmean(row[0] for row in learned)
        costs, accuracies = (params, nonzeros, nonzeros, size_bytes), (known, new, deviation, moved)
        rows.append(Sharing(kind, *costs, *accuracies, distance, *learned[0][1:]))
    return SharingStudy(tuple(rows), len(images), tuple(size), window, channels)


def read_arrays(split: Split, samples: int | None = None, seed: int = 0) -> Labelled:
    """Return the images and classes of a split, all of them or ``samples`` drawn without repetition.

    Raises:
        DataError: images differ in size, or there are fewer than ``samples``.
    """
    if samples is not None and not 1 <= samples <= len(split):
        raise DataError(f"samples: got {samples}; the data set has {len(split)} for training. Give 1 to {len(split)}.")
    order = np.random.default_rng(seed).permutation(len(split))[:samples]
    chosen = [split[int(place)] for place in order]
    if not all(isinstance(sample.label, int) for sample in chosen):
        raise DataError("data: an image may have several classes; expected one class an image. Give other data.")
    sizes = {sample.image.shape for sample in chosen}
    if len(sizes) != 1:
        raise DataError(f"data: images of {len(sizes)} different sizes; expected one. Crop or resize them.")
    return np.stack([sample.image for sample in chosen]), np.array([sample.label for sample in chosen], np.int64)


class _Run(NamedTuple):
    """A trained layer and the accuracy of its network on training images, on test images, and on moved test images."""

    layer: nn.Module
    known: float
    new: float
    moved: float


def _layer(kind: str, shape: Sequence[int], window: Sequence[int], channels: int) -> nn.Module:
    dims = len(window)
    if kind == "convolution":
        return conv(dims, shape[0], channels, window, bias=False)
    if kind == "locally connected":
        return LocallyConnected(dims, shape[0], channels, shape[1:], window, bias=False)
    outputs = (channels, *conv_sizes(shape[1:], window))
    linear = nn.Linear(math.prod(shape), math.prod(outputs), bias=False)
    return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, outputs))


def _train(
    kind: str, parts: Sequence[Part], classes: int, window: Sequence[int], channels: int, steps: int, seed: int
) -> _Run:
    (images, labels), _ = parts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = _layer(kind, images.shape[1:], window, channels)
        output = conv_sizes(images.shape[2:], window)
        pools = tuple(min(2, size) for size in output)
        features = channels * math.prod(o // k for o, k in zip(output, pools, strict=True))
        net = nn.Sequential(layer, nn.ReLU(), max_pool(len(window), pools), nn.Flatten(), nn.Linear(features, classes))
        optimiser = torch.optim.Adam(net.parameters(), lr=_LEARNING_RATE)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimiser.step()
    with torch.no_grad():
        known, new = (_score(net, x, y) for x, y in parts)
        images, labels = parts[1]
        moved = statistics.fmean(_score(net, x, labels) for x in _moved(images))
    return _Run(layer, known, new, moved)


def _score(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((net(images).argmax(1) == labels).float().mean())


def _moved(images: Tensor) -> Iterator[Tensor]:
    """Yield the images moved by one pixel, in both directions along each axis, with repeated border pixels."""
    dims = images.dim() - 2
    for axis in range(dims):
        for pair in ((1, -1), (-1, 1)):
            yield pad(images, [pair if a == axis else (0, 0) for a in range(dims)], "replicate")


def _measure_prior(
    layer: nn.Module, shape: Sequence[int], window: Sequence[int]
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance of the layer's matrix to the nearest convolution, and both blocks (see ``Sharing``)."""
    inputs, pixels = math.prod(shape), math.prod(shape[1:])
    with torch.no_grad():
        # A column of the matrix is the response to one input that is 1.
        matrix = layer(torch.eye(inputs).reshape(inputs, *shape)).flatten(1).T.double()
        found = project_to_convolution(matrix, shape[1:], window)
        images = torch.eye(pixels, dtype=torch.float64).reshape(pixels, 1, *shape[1:])
        nearest = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[len(window) - 1](
            images, found.weight[:1, :1]
        )
        size = float(matrix.norm())
    positions = nearest[0].numel()
    first = matrix[:positions, :pixels].float().numpy()
    return float(found.distance) / size if size else 0.0, first, nearest.flatten(1).T.float().numpy()
