"""A trained network as a function of whole images: normalise, tile, blend; on our engine or PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel.errors import ConfigError
from convoxel.train.batch import resize
from convoxel.train.config import TrainConfig
from convoxel.train.defaults import Fit, input_fit, plan_tile
from convoxel.train.intensity import Intensity
from convoxel.train.network import load_model, torch_call
from convoxel.train.window import blend_slabs, label_map, sliding_window

__all__ = ["Predictor", "build_predictor", "load_predictor"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """Classes of whole images from a network that sees tiles.

    Attributes:
        call: tiles (n, channels, *tile) float32, normalised → logits; NumPy both ways.
        config: planned configuration of the run.
        intensity: the run's normalisation.
        classes, dims, channels: what the network was trained for.
        fit: the sizes of tiles that the network takes.
        overlap: least share of a tile that its neighbour covers too.
    """

    call: Callable[[Array], Array]
    config: TrainConfig
    intensity: Intensity
    classes: tuple[str, ...]
    dims: int
    channels: int
    fit: Fit
    overlap: float

    def slabs(self, image: Array) -> Iterator[tuple[int, Array]]:
        """Yield (first slice, logits (classes, slices, *rest)) of an image (channels, *spatial) as stored."""
        return blend_slabs(image=image, **self._tiling(image))

    def logits(self, image: Array) -> Array:
        """Return logits (classes, *spatial) of an image (channels, *spatial)."""
        return sliding_window(image=image, **self._tiling(image))

    def label_map(self, image: Array) -> NDArray[np.uint8]:
        """Return the class of each voxel, (*spatial) uint8; memory: one layer of tiles and the map."""
        return label_map(image=image, **self._tiling(image))

    def _tiling(self, image: Array) -> dict[str, Any]:
        statistics = self.intensity.statistics(image)

        def call(tiles: Array) -> Array:
            return self.call(np.stack([statistics.normalise(tile) for tile in tiles]))

        size = image.shape[1:]
        tile = plan_tile(size, self.config.patch or size, self.fit)
        inner, border = self.fit.inner(tile), self.fit.border
        return {"call": call, "patch": inner, "overlap": self.overlap, "fill": statistics.floor, "border": border}

    def class_logits(self, images: list[Array]) -> Array:
        """Return logits (n, classes) of images (channels, *spatial) to classify, one batch."""
        size = self.config.patch or images[0].shape[1:]
        prepared = [resize(self.intensity.statistics(image).normalise(image), size) for image in images]
        return self.call(np.stack(prepared))


def build_predictor(
    model: nn.Module,
    config: TrainConfig,
    meta: dict[str, Any],
    *,
    engine: str = "torch",
    precision: str | None = "float32",
    overlap: float | None = None,
) -> Predictor:
    """Return the predictor of a model in eval mode.

    Args:
        model: trained network.
        config: planned configuration.
        meta: what :func:`convoxel.train.load_model` returns about the data.
        engine: "convoxel" (compiled, our CPU engine) or "torch".
        precision: of PyTorch's products; "float32" or "bfloat16".
        overlap: of tiles; the configuration's unless given.

    Raises:
        ConfigError: the engine is unknown.
    """
    fit = input_fit(model)
    call = _compiled(model, config, meta, fit) if engine == "convoxel" else torch_call(model, precision)
    if engine not in ("convoxel", "torch"):
        raise ConfigError(f"engine: got {engine!r}; expected 'convoxel' or 'torch'.")
    return Predictor(
        call=call,
        config=config,
        intensity=Intensity.from_dict(meta["intensity"]),
        classes=tuple(meta["classes"]),
        dims=int(meta["dims"]),
        channels=int(meta["channels"]),
        fit=fit,
        overlap=config.overlap if overlap is None else overlap,
    )


def load_predictor(run_dir: str | Path, *, engine: str = "convoxel", which: str = "best") -> Predictor:
    """Return the predictor of a run folder; raises as :func:`convoxel.train.load_model`."""
    if engine not in ("convoxel", "torch"):
        raise ConfigError(f"engine: got {engine!r}; expected 'convoxel' or 'torch'.")
    model, config, meta = load_model(run_dir, which)
    return build_predictor(model, config, meta, engine=engine)


def _compiled(model: nn.Module, config: TrainConfig, meta: dict[str, Any], fit: Fit) -> Callable[[Array], Array]:
    from convoxel.graph.compile import compile as compile_model

    size = config.patch or (fit.least + 3 * fit.multiple,) * int(meta["dims"])
    example = torch.zeros(1, int(meta["channels"]), *size)
    program: Any = compile_model(model, example)

    def call(tiles: Array) -> Array:
        result: Array = program(np.ascontiguousarray(tiles))
        return result

    return call
