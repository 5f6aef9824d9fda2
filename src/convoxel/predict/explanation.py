"""Explanations of a trained network's answer: maps of what its score depends on, on the image's own grid.

The score is one number (``explained_score``); MONAI and captum compute the maps (``attribution``) of the image as the
run normalises it, in the part of it that the score reads (``explained_image``). Nothing here is random: on the CPU
equal calls give equal maps, bit for bit, with the same number of threads.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.image_format import split_ending
from convoxel.data.image_output import write_image
from convoxel.errors import ConfigError
from convoxel.files.fault import few
from convoxel.files.values import JsonObject
from convoxel.fork import cached_property
from convoxel.inspect.effective_receptive_field import effective_field
from convoxel.predict.attribution import Windows, grad_cam, images_at_once, integrated_gradients, occlusion_drop, settle
from convoxel.predict.computation import Computation
from convoxel.predict.device import explain_memory
from convoxel.predict.explained_image import Array, ExplainedImage, Part, Span
from convoxel.predict.explained_score import Score, Target, Where, layer_sizes
from convoxel.predict.explanation_method import METHODS
from convoxel.predict.inference import build_predictor
from convoxel.predict.sliding_window import cut
from convoxel.predict.trained_run import AnyRun

_MOST_STEPS = 10_000  # points of a quadrature; what it misses is told, and is nothing long before
_LISTED = 12  # layers that a message names


@dataclass(frozen=True)
class Question:
    """The number to be explained, and the methods; :func:`convoxel.train.explain` describes the entries."""

    methods: Sequence[str] = tuple(METHODS)
    target: str | None = None
    layer: str | None = None
    at: Sequence[int] | None = None
    box: Sequence[Span] | None = None
    window: Sequence[int] | None = None
    steps: int = 50

    def check(self, run: AnyRun) -> None:
        """Raise ConfigError for what no image of this run could answer."""
        if not self.methods:
            raise ConfigError(f"methods: got none; expected some of {', '.join(METHODS)}.")
        for word in self.methods:
            if word not in METHODS:
                near = difflib.get_close_matches(str(word), METHODS, n=1, cutoff=0.4)
                mean = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"methods: got {word!r}; expected some of {', '.join(METHODS)}.{mean}")
        task = run.config.task
        if self.target is not None and self.target not in run.data.outputs:
            what = "values" if task == "regress" else "classes"
            raise ConfigError(
                f"target: the run predicts no {self.target!r}; expected one of its {what}: "
                f"{', '.join(run.data.outputs)}."
            )
        if self.box is not None and task != "segment":
            raise ConfigError(f"box: the run has the task {task!r}, whose answer is of the whole image; leave box out.")
        if self.box is not None and self.at is not None:
            raise ConfigError("box: given together with at; expected one of them. Leave the other out.")
        if self.layer is not None and not {"gradcam++", "field"} & set(self.methods):
            raise ConfigError(
                f"layer: got {self.layer!r}, but {', '.join(self.methods)} look at no layer. Leave layer out, or add "
                "gradcam++ or field to the methods."
            )
        if not 1 <= self.steps <= _MOST_STEPS:
            raise ConfigError(
                f"steps: got {self.steps}; expected a number of points of the quadrature from 1 to {_MOST_STEPS}. "
                "50 is usual."
            )
        for name, entries in (("at", self.at), ("box", self.box), ("window", self.window)):
            if entries is not None and len(entries) != run.data.dims:
                raise ConfigError(
                    f"{name}: got {len(entries)} entries; expected {run.data.dims}, one for each axis of the image."
                )
        if self.window is not None and min(self.window) < 1:
            raise ConfigError(f"window: got {tuple(self.window)}; expected at least 1 pixel along each axis.")

    def place(self, size: Sequence[int]) -> tuple[Span, ...] | None:
        """Return the first and last voxel of the box, or the voxel, along each axis; ConfigError outside the image."""
        if self.at is not None:
            found = tuple((int(p), int(p)) for p in self.at)
        elif self.box is not None:
            found = tuple((int(low), int(high) - 1) for low, high in self.box)
        else:
            return None
        if not all(0 <= low <= high < side for (low, high), side in zip(found, size, strict=True)):
            name, given = ("at", tuple(self.at)) if self.at is not None else ("box", tuple(map(tuple, self.box or ())))
            last = ", ".join(f"0 … {side - 1}" for side in size)
            raise ConfigError(
                f"{name}: got {given}; the image has the positions {last} along its axes. Give some of it."
            )
        return found


class Cost(NamedTuple):
    """The work of a method: images that pass the network forwards and backwards, and the size of each."""

    method: str
    forward: int
    backward: int
    size: tuple[int, ...]

    def __str__(self) -> str:
        """Return the work in words."""
        back = f" and {self.backward} backward" if self.backward else ""
        passes = "pass" if (self.backward or self.forward) == 1 else "passes"
        return f"{self.method}: {self.forward} forward{back} {passes} of {' × '.join(map(str, self.size))}"


@dataclass(frozen=True, eq=False)
class Attribution:
    """The map of one method on the image's own grid.

    Attributes:
        method: word of ``METHODS``.
        values: (*spatial) float32.
        signed: whether values below 0 mean evidence against the score; else 0 is the least.
        unit: unit of the values.
        facts: what else the method found, such as by how much integrated gradients miss their sum.
    """

    method: str
    values: Array = field(repr=False)
    signed: bool
    unit: str
    facts: JsonObject = field(default_factory=dict)

    @cached_property
    def strongest(self) -> tuple[int, ...]:
        """The voxel of the largest magnitude."""
        found = np.unravel_index(int(np.abs(self.values).argmax()), self.values.shape)
        return tuple(int(place) for place in found)


@dataclass(frozen=True, eq=False)
class UnitField:
    """The field of one unit of a layer: the exact one, and the extent of its measured influence.

    Attributes:
        layer: name of the layer; "" for the network's output.
        unit: the unit's position in the layer's map, in the part of the input that was computed.
        box: first and last edge of the exact field along each axis of the own grid, which may lie outside the image;
            None where it is not known.
        size: inputs of the exact field along each axis of the network's grid; () where it is not known.
        effective_size: extent of the inputs whose influence is above 4.55 % of the largest.
        whole: whether a step, such as a normalisation of the image or global pooling, lets it see everything beside.
    """

    layer: str
    unit: tuple[int, ...]
    box: tuple[tuple[float, float], ...] | None
    size: tuple[int, ...]
    effective_size: tuple[int, ...]
    whole: bool

    def __str__(self) -> str:
        """Return both fields in one line."""
        where = f"unit {self.unit if len(self.unit) > 1 else self.unit[0]} of {self.layer or 'the output'}"
        exact = f"exact field {'×'.join(map(str, self.size))}" if self.size else "exact field not known"
        more = ", and the whole image beside" if self.whole else ""
        return f"{where}: {exact}{more}; effective {'×'.join(map(str, self.effective_size))}"


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of a network's answer for one image.

    Attributes:
        sample: the image as stored.
        target: the number that is explained.
        maps: the map of each method, on the image's own grid.
        unit: receptive fields of one unit, where the method "field" was asked for.
        layer: layer of Grad-CAM++; "" where it was not asked for.
        region: (*spatial) bool, voxels of the target on the own grid; None of a whole image.
        asked: voxel that was asked for, or the middle of the box; None without either.
        costs: work of each method.
        notes: what a reader must know of how the maps came about, in sentences.
    """

    sample: Sample
    target: Target
    maps: dict[str, Attribution]
    unit: UnitField | None
    layer: str
    region: NDArray[np.bool_] | None
    asked: tuple[int, ...] | None
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    def save_maps(self, folder: str | Path, stem: str | None = None) -> list[Path]:
        """Write each map as a file beside others and return the paths: NIfTI of volumes and NIfTI images, else .npy.

        Args:
            folder: folder to write to, which exists.
            stem: beginning of the names (default: the image's).
        """
        name = self.sample.source or Path(self.sample.name)
        nifti = self.sample.image.ndim == 4 or split_ending(name)[1].startswith(".nii")
        ending = ".nii.gz" if nifti and self.sample.image.ndim > 2 else ".npy"
        return [
            write_image(
                Path(folder) / f"{stem or self.sample.name}_{method}{ending}", found.values[None], like=self.sample
            )
            for method, found in self.maps.items()
        ]

    def to_dict(self) -> JsonObject:
        """Return everything but the arrays."""
        seen = self.unit and {**vars(self.unit), "words": str(self.unit)}
        maps = {
            method: {
                "unit": found.unit,
                "signed": found.signed,
                "least": float(found.values.min()),
                "largest": float(found.values.max()),
                "strongest": found.strongest,
                **found.facts,
            }
            for method, found in self.maps.items()
        }
        return {
            "image": str(self.sample.source or self.sample.name),
            "target": self.target.to_dict(),
            "layer": self.layer,
            "maps": maps,
            "field": seen,
            "passes": [cost._asdict() for cost in self.costs],
            "notes": self.notes,
        }


def explain_sample(
    run: AnyRun,
    sample: Sample,
    question: Question,
    computation: Computation,
    on_plan: Callable[[Sequence[Cost]], None] = lambda costs: None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Explanation:
    """Return the explanation of a network's answer for one image; see :func:`convoxel.train.explain`.

    Args:
        run: trained network, which stays as it is.
        sample: image as stored.
        question: what is to be explained.
        computation: where and how PyTorch computes.
        on_plan: called with the work of each method before the first one.
        on_progress: called with the number of images that have passed the network, of how many, and the method.

    Raises:
        ConfigError: the question does not fit the run or the image.
    """
    question.check(run)
    asked = question.place(sample.image.shape[1:])
    network = settle(copy.deepcopy(run.network))
    computation = replace(computation, channels_last=False)  # MONAI's views need channels first
    image = ExplainedImage.of(replace(run, source=computation.arrange(network, run.data.dims)), sample)

    def doing() -> str:
        return f"explain: a pass of an input of {' × '.join(map(str, image.input_size))}"

    def mend() -> str:
        return "Use device=cpu, or methods without gradients (occlusion)."

    with explain_memory(computation.device, doing, mend), computation.settings(deterministic=True):
        return _Study(image, question, asked, computation, on_plan, on_progress).explanation()


class _Study:
    """One image, one question: what is settled on the way to its answer."""

    def __init__(
        self,
        image: ExplainedImage,
        question: Question,
        asked: tuple[Span, ...] | None,
        computation: Computation,
        on_plan: Callable[[Sequence[Cost]], None],
        on_progress: Callable[[int, int, str], None],
    ) -> None:
        self.image, self.question, self.asked, self.computation = image, question, asked, computation
        self.on_plan, self.on_progress = on_plan, on_progress
        self.run, self.notes = image.run, list[str]()
        self.number = None if question.target is None else self.run.data.outputs.index(question.target)
        self.mask = self._target_voxels() if image.segments else None
        self.centre = self._centre()
        box = None if self.mask is None else image.reads("", self._output_box(self.mask))
        centre = tuple(place + before for place, before in zip(self.centre, image.before, strict=True))
        self.near, self.wide = image.plan(box, centre), image.plan(box, centre, wide=True)
        if not self.near.exact:
            self._note_tile()

    def _note_tile(self) -> None:
        assert self.mask is not None
        size, all_voxels = " × ".join(map(str, self.near.size)), int(self.mask.sum())
        kept = int(self._part_voxels(self.near).sum())
        text = f"The score reads more than fits one pass, so it is computed on a tile of {size} around the target"
        text += f", which holds {kept} of its {all_voxels} voxels" if kept < all_voxels else ""
        self.notes.append(f"{text}; nothing is shown outside.")

    # The voxels that are explained, in places of the image on the run's grid.

    def _target_voxels(self) -> NDArray[np.bool_]:
        size = self.image.image.shape[1:]
        if self.asked is not None:
            mask = np.zeros(size, bool)
            mask[tuple(slice(low, high + 1) for low, high in self.image.inwards(self.asked))] = True
            return mask
        sample = self.run.data.rule.sample(self.image.sample)
        predictor = build_predictor(self.run, engine="torch", computation=self.computation)
        labels: NDArray[np.uint8] = np.asarray(predictor.label_map(sample))
        facts = self.run.data
        found: list[NDArray[np.bool_]] = [labels == number for number in range(len(facts.outputs))]
        if facts.regions is not None:
            found = list(facts.regions.masks(labels))
        counts = [int(mask.sum()) for mask in found]
        if self.number is None:
            first = self._first_foreground
            self.number = first + int(np.argmax(counts[first:])) if counts[first:] else 0
        if counts[self.number] == 0:
            there = [f"{name} ({count})" for name, count in zip(facts.outputs, counts, strict=True) if count]
            raise ConfigError(
                f"target: the network predicts no voxel of {self.image.sample.name} as {facts.outputs[self.number]}; "
                f"it predicts {', '.join(there) or 'none of its classes'}. Give one of these, at, or box."
            )
        return found[self.number]

    @property
    def _first_foreground(self) -> int:
        """The number of the first output that is no background; regions have none."""
        return 1 if self.run.data.regions is None else 0

    def _centre(self) -> tuple[int, ...]:
        """Return the place of the image that stands for the target: the voxel that is nearest to the middle of all."""
        if self.mask is None:
            box = self.asked or tuple((n // 2, n // 2) for n in self.image.sample.image.shape[1:])
            return tuple((low + high) // 2 for low, high in self.image.inwards(box))
        places = np.argwhere(self.mask)
        nearest = np.square(places - places.mean(axis=0)).sum(axis=1).argmin()
        return tuple(int(p) for p in places[nearest])

    def _output_box(self, mask: NDArray[np.bool_]) -> tuple[Span, ...]:
        """Return the box of voxels of the image among positions of the whole output."""
        ends = []
        for places, before, edge in zip(mask.nonzero(), self.image.before, self._edges, strict=True):
            ends.append((int(places.min()) + before - edge, int(places.max()) + before - edge))
        return tuple(ends)

    @property
    def _edges(self) -> tuple[int, ...]:
        return self.image.sizes.border or (0,) * len(self.image.before)

    def _part_voxels(self, part: Part) -> NDArray[np.bool_]:
        assert self.mask is not None
        corner = [s - b + e for s, b, e in zip(part.start, self.image.before, self._edges, strict=True)]
        return cut(self.mask, corner, self.image.sizes.inner(part.size))

    # Passes.

    def _tensor(self, part: Part) -> torch.Tensor:
        return self.computation.move(torch.from_numpy(np.ascontiguousarray(self.image.cut(part))))

    def _score(self, part: Part, number: int, on_pass: Callable[[int], None] = lambda count: None) -> Score:
        voxels = None if self.mask is None else torch.from_numpy(self._part_voxels(part))
        scale = self.run.data.targets
        unit = (scale.mean[number], scale.std[number]) if scale is not None else (0.0, 1.0)
        return Score(self.run.network, number, voxels, unit, on_pass).eval().to(self.computation.device)

    def explanation(self) -> Explanation:
        """Return the answer."""
        with layer_sizes(self.run.network, self.run.data.dims) as layers, torch.no_grad():
            logits = self.run.network(self._tensor(self.wide)).float().cpu().numpy()[0].astype(np.float64)
        target = self._target(logits)
        methods = [word for word in METHODS if word in self.question.methods]
        layer = self._layer(layers) if "gradcam++" in methods or self._asks_layer_of_field(methods) else ""
        costs = [self._cost(method) for method in methods]
        self.on_plan(costs)
        total, done = sum(cost.forward for cost in costs), 0
        found: dict[str, Attribution] = {}
        unit: UnitField | None = None
        for method, cost in zip(methods, costs, strict=True):
            passed = 0

            def count(images: int, method: str = method, before: int = done) -> None:
                nonlocal passed
                self.on_progress(min(before + passed, total), total, method)
                passed += images

            if method == "field":
                count(1)
                unit, found[method] = self._field(layer, layers, self._point(found), target.number)
            else:
                found[method] = self._map(method, target, layer, count)
            done += cost.forward
        self.on_progress(total, total, "")
        point = None if self.asked is None else tuple((low + high) // 2 for low, high in self.asked)
        region = None if self.mask is None else self._spread_mask()
        shown = layer if "gradcam++" in methods else ""
        return Explanation(
            self.image.sample, target, found, unit, shown, region, point, tuple(costs), tuple(self.notes)
        )

    def _spread_mask(self) -> NDArray[np.bool_]:
        """Return the target's voxels on the own grid: those asked for as they are, predicted ones on their way back."""
        if self.asked is not None:
            region = np.zeros(self.image.sample.image.shape[1:], bool)
            region[tuple(slice(low, high + 1) for low, high in self.asked)] = True
            return region
        assert self.mask is not None
        part = Part(self.image.before, self.mask.shape)
        found: NDArray[np.bool_] = self.image.spread(part, self.mask.astype(np.float32)) > 0.5
        return found

    def _target(self, logits: NDArray[np.float64]) -> Target:
        """Return what is explained; its class is the likeliest one where none was named."""
        facts, regress = self.run.data, self.run.config.task == "regress"
        where: Where = "image"
        voxels = 0
        if self.mask is not None:
            inside = logits[:, self._part_voxels(self.wide)]
            voxels = inside.shape[1]
            where = "region" if self.asked is None else "voxel" if self.question.at is not None else "box"
            if self.number is None:
                chosen = inside > 0 if facts.regions else inside == inside.max(axis=0)
                counts, first = chosen.sum(axis=1), self._first_foreground
                self.number = first + int(counts[first:].argmax()) if counts[first:].any() else int(counts.argmax())
            logits = inside.sum(axis=1)
        elif self.number is None:
            self.number = 0 if regress else int(logits.argmax())
        score, share = float(logits[self.number]), None
        if regress:
            scale = self.run.data.targets
            assert scale is not None
            score = score * scale.std[self.number] + scale.mean[self.number]
        elif where in ("image", "voxel"):
            if facts.several:
                share = float(np.exp(-np.logaddexp(0.0, -score)))
            else:
                powers = np.exp(logits - logits.max())
                share = float(powers[self.number] / powers.sum())
        unit = "value" if regress else "logit" if where in ("image", "voxel") else "logits"
        return Target(self.number, facts.outputs[self.number], where, self.asked or (), voxels, score, share, unit)

    # Layers.

    def _asks_layer_of_field(self, methods: Sequence[str]) -> bool:
        return "field" in methods and (not self.image.segments or self.question.layer is not None)

    def _layer(self, layers: Mapping[str, tuple[int, ...]]) -> str:
        """Return the layer asked for, or the last of the coarsest feature maps."""
        if not layers:
            raise ConfigError(
                "layer: no layer of the network returns a map of more than one position for this image, so there is "
                "nothing for gradcam++ and field to show. Use occlusion or integrated-gradients."
            )
        asked = self.question.layer
        if asked is None:
            coarsest = min(math.prod(size) for size in layers.values())
            return [name for name, size in layers.items() if math.prod(size) == coarsest][-1]
        if asked not in layers:
            raise ConfigError(self._unknown_layer(asked, layers))
        return asked

    def _unknown_layer(self, asked: str, layers: Mapping[str, tuple[int, ...]]) -> str:
        there = asked in dict(self.run.network.named_modules())
        what = "returns no map of the image, or runs more than once" if there else "is not there"
        near = difflib.get_close_matches(asked, layers, n=3, cutoff=0.5)
        top = [name for name in layers if name.count(".") == min(n.count(".") for n in layers)]
        names = list(dict.fromkeys([*near, *top, *layers]))
        return f"layer: {asked!r} {what}; expected one of {few(names, _LISTED)}."

    # Methods.

    def _cost(self, method: str) -> Cost:
        near = self.near.size
        if method == "integrated-gradients":
            return Cost(method, self.question.steps + 2, self.question.steps, near)
        if method == "occlusion":
            return Cost(method, self._windows().count(near) + 1, 0, near)
        return Cost(method, 1, 1, self.wide.size if method == "gradcam++" else near)

    def _windows(self) -> Windows:
        window = self.question.window
        if window is not None:  # of the own grid, in the input's axes and spacing
            edges = self.image.inwards(tuple((0, side - 1) for side in window))
            window = tuple(high - low + 1 for low, high in edges)
        return Windows.over(self.near.size, window)

    def _map(self, method: str, target: Target, layer: str, count: Callable[[int], None]) -> Attribution:
        part = self.wide if method == "gradcam++" else self.near
        score, images = self._score(part, target.number, count), self._tensor(part)
        facts: JsonObject = {}
        if method == "gradcam++":
            values = grad_cam(score, images, layer, self._whole_positions(layer, part))
            values = values / values.max().clamp_min(torch.finfo(values.dtype).tiny)
            facts = {"layer": layer}
            if not values.any():
                self.notes.append(f"No feature of {layer} speaks for {target.name}: the map of gradcam++ is 0.")
        elif method == "occlusion":
            windows = self._windows()
            at_once = images_at_once(part.size, self.image.most)
            values = occlusion_drop(score, images, windows, at_once)
            facts = {"window": windows.window, "stride": windows.stride}
        else:
            at_once = images_at_once(part.size, self.image.most)
            values, missing = integrated_gradients(score, images, self.question.steps, at_once)
            facts = {"sum": float(values.double().sum()), "missing": missing, "steps": self.question.steps}
        spread = self.image.spread(part, values.float().cpu().numpy())
        return Attribution(method, spread, method != "gradcam++", _UNITS[method].format(target.unit), facts)

    def _whole_positions(self, layer: str, part: Part) -> torch.Tensor | None:
        """Return where a layer's values in a part are those of the whole image, (*map) bool; None: everywhere."""
        if part == self.image.whole() or not part.exact:
            return None
        seen = self.image.map_of(layer, part.size)
        if seen is None:
            return None
        mask = torch.ones((), dtype=torch.bool)
        sides = zip(seen.fields, seen.size, part.start, part.size, self.image.input_size, strict=True)
        for receptive, count, start, side, total in sides:
            ends = [receptive.at(position) or (0, 0) for position in range(count)]
            fits = [(low >= 0 or start == 0) and (high < side or start + side == total) for low, high in ends]
            mask = mask[..., None] & torch.tensor(fits)
        return mask

    def _point(self, found: Mapping[str, Attribution]) -> tuple[int, ...]:
        """Return the place of the input at which a unit is looked at: the target's, or where a map is strongest."""
        place = self.centre
        if self.asked is None and self.mask is None and found:
            strongest = next(iter(found.values())).strongest
            place = tuple(low for low, _ in self.image.inwards(tuple((p, p) for p in strongest)))
        return tuple(p + before for p, before in zip(place, self.image.before, strict=True))

    def _field(
        self, layer: str, layers: Mapping[str, tuple[int, ...]], point: tuple[int, ...], number: int
    ) -> tuple[UnitField, Attribution]:
        """Return the fields of a unit near a point: of the class in the output of a segmentation, else of the layer."""
        image = self.image
        layer = layer if self._asks_layer_of_field(["field"]) else ""
        seen = image.map_of(layer, image.input_size)
        part = image.whole()
        if seen is not None:
            unit = seen.nearest(point)
            part = image.plan(image.reads(layer, tuple((p, p) for p in unit)), point)
        on_part = image.map_of(layer, part.size)
        inner = tuple(p - start for p, start in zip(point, part.start, strict=True))
        if on_part is not None and (layers.get(layer) is None or part != self.wide or layers[layer] == on_part.size):
            unit = on_part.nearest(inner)
        else:
            size = layers.get(layer, image.sizes.inner(part.size))
            unit = tuple(min(p * n // side, n - 1) for p, n, side in zip(inner, size, part.size, strict=True))
            on_part = None
        channel = None if layer else number
        found = effective_field(self.run.network, self._tensor(part), layer=layer, position=unit, channel=channel)
        ends = None if on_part is None else on_part.box(unit)
        box = None
        if ends is not None:
            shift = zip(ends, part.start, image.before, strict=True)
            box = image.outwards(tuple((low + s - b, high + s - b) for (low, high), s, b in shift))
        size = () if ends is None else tuple(high - low + 1 for low, high in ends)
        whole = on_part is not None and on_part.whole
        values = image.spread(part, found.array.astype(np.float32))
        facts: JsonObject = {"layer": layer, "effective_size": found.size, "exact_size": size}
        told = UnitField(layer, unit, box, size, found.size, whole)
        return told, Attribution("field", values, False, "share of the largest", facts)


_UNITS = {"gradcam++": "share of the largest", "occlusion": "{}", "integrated-gradients": "{} a pixel"}
