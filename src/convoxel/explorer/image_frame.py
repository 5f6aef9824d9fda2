"""A network over an image: the input that the network gets of it, and the ways between voxels and places of that input.

A network of a run sees an image on its run's grid, padded or resized as in prediction. Any other network sees the
voxels as they are stored, from the first one on; an image of a size that it does not take is padded with zeros, or cut
in its middle where the network has one size alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoxel.cli.parsing import parse_options
from convoxel.draw.network_outline import Subject
from convoxel.errors import ConfigError
from convoxel.explorer.opened_image import OpenedImage, open_image
from convoxel.explorer.opened_network import network_words
from convoxel.fork import cached_property
from convoxel.inspect.receptive_field import trace_fields
from convoxel.lookup import NamedNetwork, find_network, fit_input, is_file, is_run

if TYPE_CHECKING:
    from torch import nn

    from convoxel.explorer.session import Session
    from convoxel.explorer.view import Query
    from convoxel.files.values import Array, Options
    from convoxel.predict.explained_image import ExplainedImage

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ImageFrame:
    """A network, an image, and the input that lies between them.

    Attributes:
        word: name or path of the network.
        options: options of a network of the zoo.
        subject: the network for this input, with receptive fields.
        image: the image.
        channels: channels of the input.
        modules: paths of its PyTorch modules; empty for a network of a file.
        before: places of the input before the image's first, along each axis; negative where the image is cut.
        explained: the image on the way to a run's network; None for other networks.
    """

    word: str
    options: Options
    subject: Subject
    image: OpenedImage
    channels: int
    modules: frozenset[str]
    before: tuple[int, ...]
    explained: ExplainedImage | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the input."""
        return self.subject.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return (1, self.channels, *self.size)

    @property
    def has_gradients(self) -> bool:
        """False for a network of a file."""
        return not is_file(self.word)

    @cached_property
    def module(self) -> nn.Module:
        """The network with weights: those of the run, or those that training starts from.

        Raises:
            ConfigError: it is that of a file.
        """
        if self.explained is not None:
            return self.explained.run.network
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same weights whenever the page asks
            return find_network(self.word, [self.shape], self.options, weights=True).module

    @property
    def named(self) -> NamedNetwork:
        """The network without weights."""
        return find_network(self.word, [self.shape], self.options)

    # ---- ways

    def place(self, voxel: Sequence[int]) -> tuple[int, ...]:
        """Return the place of the input at which a voxel of the image lies."""
        if self.explained is None:
            inner = tuple(voxel)
        else:
            inner = tuple(low for low, _ in self.explained.inwards([(place, place) for place in voxel]))
        return tuple(place + before for place, before in zip(inner, self.before, strict=True))

    def edges(self, box: Sequence[Span]) -> tuple[tuple[float, float], ...]:
        """Return the edges of a box of the input among the image's voxels; a voxel reaches half to each side."""
        inner = [(low - before, high - before) for (low, high), before in zip(box, self.before, strict=True)]
        if self.explained is not None:
            return self.explained.outwards(inner)
        return tuple((low - 0.5, high + 0.5) for low, high in inner)

    def cut(self, start: Sequence[int], size: Sequence[int]) -> Array:
        """Return a part of the input, (1, channels, *size)."""
        if self._loaded is not None:
            from convoxel.predict.explained_image import Part

            return self._loaded.cut(Part(tuple(start), tuple(size)))
        lows = [first - before for first, before in zip(start, self.before, strict=True)]
        ends = [(max(low, 0), min(low + side, full))
                for low, side, full in zip(lows, size, self.image.size, strict=True)]  # fmt: skip
        found = np.zeros((self.channels, *size), np.float32)
        if all(low < high for low, high in ends):
            every = (slice(None),)
            values = self.image.sample.image[every + tuple(slice(*span) for span in ends)]
            target = tuple(slice(span[0] - low, span[1] - low) for span, low in zip(ends, lows, strict=True))
            # Grey values of any unit; networks expect numbers around 0.
            low, high = self.image.window
            scaled = (np.asarray(values, np.float32) - (low + high) / 2) / ((high - low) / 2)
            found[every + target] = scaled if len(scaled) == self.channels else scaled[:1]
        return found[None]

    def spread(self, start: Sequence[int], values: Array) -> tuple[tuple[int, ...], Array]:
        """Return a map of a part of the input as one of a box of the image: its first voxel, and the values."""
        if self._loaded is not None:
            from convoxel.predict.explained_image import Part

            whole = self._loaded.spread(Part(tuple(start), values.shape), values)
            filled = [(int(places.min()), int(places.max()) + 1) for places in whole.nonzero() if places.size]
            filled = filled or [(0, 1)] * whole.ndim
            return tuple(low for low, _ in filled), whole[tuple(slice(*ends) for ends in filled)]
        lows = [first - before for first, before in zip(start, self.before, strict=True)]
        cut = tuple(slice(max(0, -low), max(0, full - low)) for low, full in zip(lows, self.image.size, strict=True))
        return tuple(max(low, 0) for low in lows), values[cut]

    @cached_property
    def _loaded(self) -> ExplainedImage | None:
        """The image of a run with its values."""
        if self.explained is None:
            return None
        sample = self.image.sample
        whole = replace(sample, image=np.asarray(sample.image[(slice(None),) * sample.image.ndim], np.float32))
        return type(self.explained).of(self.explained.run, whole)


def open_frame(session: Session, query: Query) -> ImageFrame:
    """Return the network and the image that the words of a page name: ``net``, any number of ``set``, and ``image``.

    Raises:
        ConfigError: the network takes another number of axes or channels than the image has.
    """
    image = open_image(session, query)
    word, _, assigned = network_words(session, query)

    def read() -> ImageFrame:
        options = parse_options(assigned)
        dims = options.get("dims", len(image.size))
        if dims != len(image.size):
            raise ConfigError(
                f"set: dims is {dims}, but {image.sample.name} has {len(image.size)} axes. Leave dims out, or choose "
                "another image."
            )
        return _frame_of_run(word, image) if not is_file(word) and is_run(word) else _frame(word, options, image)

    return session.keep(("frame", word, assigned, image.word), read)


def _frame(word: str, options: Options, image: OpenedImage) -> ImageFrame:
    channels = int(options.get("in_channels", image.channels))
    shape = (1, channels, *image.size)
    named = find_network(word, [shape], options)
    shape, before = fit_input(word, named)
    record = named.open().record([shape])
    subject = Subject(named.name, record, trace_fields(record)[0])
    modules = frozenset[str]() if isinstance(named.source, Path) else _paths(named.source)
    return ImageFrame(word, options, subject, image, shape[1], modules, before)


def _paths(module: nn.Module) -> frozenset[str]:
    return frozenset(name for name, _ in module.named_modules())


def _frame_of_run(word: str, image: OpenedImage) -> ImageFrame:
    from convoxel.predict.explained_image import ExplainedImage
    from convoxel.predict.normalisation import Statistics
    from convoxel.train import load_model

    run = load_model(word)
    if run.data.dims != len(image.size) or run.data.channels != image.channels:
        raise ConfigError(
            f"image: {image.sample.name} has {len(image.size)} axes and {image.channels} channels, but the run takes "
            f"{run.data.dims} and {run.data.channels}. Choose an image like those that it was trained on."
        )
    placement = run.data.rule.place_sample(image.sample)
    size = placement.shape if run.config.task == "segment" else run.config.patch or placement.shape
    # Only sizes are asked for until something is measured, so the values are not read.
    outline: Any = np.broadcast_to(np.float32(0), (image.channels, *size))
    nothing: Statistics = None  # type: ignore[assignment]
    explained = ExplainedImage(run, image.sample, placement, outline, nothing)
    found = explained.whole_record
    if found is None:
        raise ConfigError(f"net: {word} cannot be read on shapes alone, so its fields are not known. Choose another.")
    name = f"{run.config.model} of {word}"
    return ImageFrame(word, {}, Subject(name, *found), image, run.data.channels, _paths(run.network), explained.before,
                      explained)  # fmt: skip
