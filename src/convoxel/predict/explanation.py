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
from convoxel.predict.inference import build_predictor, join_predictors
from convoxel.predict.member import check_members
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
        members: names of the networks whose mean is explained; () of one network.
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
    members: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The number that is explained, in words."""
        return f"{self.target}{f', mean over {len(self.members)} networks' if self.members else ''}"

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
            "members": self.members,
            "target": self.target.to_dict(),
            "layer": self.layer,
            "maps": maps,
            "field": seen,
            "passes": [cost._asdict() for cost in self.costs],
            "notes": self.notes,
        }


def explain_sample(
    runs: Mapping[str, AnyRun],
    sample: Sample,
    question: Question,
    computation: Computation,
    on_plan: Callable[[Sequence[Cost]], None] = lambda costs: None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Explanation:
    """Return the explanation of a network's answer for one image; see :func:`convoxel.train.explain`.

    Of an ensemble the mean of the members' scores is explained, and maps are means over members.

    Args:
        runs: trained networks by name, which stay as they are.
        sample: image as stored.
        question: what is to be explained.
        computation: where and how PyTorch computes.
        on_plan: called with the work of each method before the first one.
        on_progress: called with the number of images that have passed the networks, of how many, and the method.

    Raises:
        ConfigError: the question does not fit the runs or the image; members of an ensemble see or tell different
            things.
    """
    check_members(runs)
    (named, first), *others = runs.items()
    question.check(first)
    for name, run in others:
        if run.data.rule != first.data.rule:
            raise ConfigError(
                f"run: {name} brings images onto another grid than {named}; expected members of one geometry. Explain "
                "each of them alone."
            )
    asked = question.place(sample.image.shape[1:])
    computation = replace(computation, channels_last=False)  # MONAI's views need channels first
    images = []
    for run in runs.values():
        network = settle(copy.deepcopy(run.network))
        images.append(ExplainedImage.of(replace(run, source=computation.arrange(network, run.data.dims)), sample))

    def doing() -> str:
        return f"explain: a pass of an input of {' × '.join(map(str, images[0].input_size))}"

    def mend() -> str:
        return "Use device=cpu, or methods without gradients (occlusion)."

    with explain_memory(computation.device, doing, mend), computation.settings(deterministic=True):
        voxels = _target_voxels(dict(zip(runs, images, strict=True)), question, asked, computation)
        studies = [_Study(image, question, asked, computation, voxels) for image in images]
        number = voxels.number if voxels.number is not None else _likeliest(studies)
        found = _explain(studies, number, on_plan, on_progress)
    return replace(found, members=tuple(runs) if others else ())


class _Voxels(NamedTuple):
    """The voxels that are explained, in places of the image on the run's grid (None: of a whole image), and the class.

    Its number is None where the likeliest class at the voxels is to be explained.
    """

    mask: NDArray[np.bool_] | None
    number: int | None


def _target_voxels(
    images: Mapping[str, ExplainedImage], question: Question, asked: tuple[Span, ...] | None, computation: Computation
) -> _Voxels:
    image = next(iter(images.values()))
    facts = image.run.data
    number = None if question.target is None else facts.outputs.index(question.target)
    if not image.segments:
        return _Voxels(None, number)
    if asked is not None:
        mask = np.zeros(image.image.shape[1:], bool)
        mask[tuple(slice(low, high + 1) for low, high in image.inwards(asked))] = True
        return _Voxels(mask, number)
    predictor = join_predictors(
        {name: build_predictor(each.run, engine="torch", computation=computation) for name, each in images.items()}
    )
    labels: NDArray[np.uint8] = np.asarray(predictor.label_map(facts.rule.sample(image.sample)))
    found: list[NDArray[np.bool_]] = [labels == value for value in range(len(facts.outputs))]
    if facts.regions is not None:
        found = list(facts.regions.masks(labels))
    counts = [int(mask.sum()) for mask in found]
    if number is None:
        first = _first_foreground(image.run)
        number = first + int(np.argmax(counts[first:])) if counts[first:] else 0
    if counts[number] == 0:
        there = [f"{name} ({count})" for name, count in zip(facts.outputs, counts, strict=True) if count]
        raise ConfigError(
            f"target: the network predicts no voxel of {image.sample.name} as {facts.outputs[number]}; "
            f"it predicts {', '.join(there) or 'none of its classes'}. Give one of these, at, or box."
        )
    return _Voxels(found[number], number)


def _first_foreground(run: AnyRun) -> int:
    """Return the number of the first output that is no background; regions have none."""
    return 1 if run.data.regions is None else 0


def _likeliest(studies: Sequence[_Study]) -> int:
    """Return the class that the mean logits of the members speak for, or the first value of a regression."""
    run = studies[0].run
    if run.config.task == "regress":
        return 0
    logits = np.mean([study.logits for study in studies], axis=0)
    if not studies[0].image.segments:
        return int(logits.argmax())
    chosen = logits > 0 if run.data.regions else logits == logits.max(axis=0)
    counts, first = chosen.sum(axis=1), _first_foreground(run)
    return first + int(counts[first:].argmax()) if counts[first:].any() else int(counts.argmax())


def _explain(
    studies: Sequence[_Study],
    number: int,
    on_plan: Callable[[Sequence[Cost]], None],
    on_progress: Callable[[int, int, str], None],
) -> Explanation:
    """Return the explanation of one number, the mean over the members' studies."""
    costs = [study.costs() for study in studies]
    several = len(studies)
    together = [each[0]._replace(forward=sum(c.forward for c in each), backward=sum(c.backward for c in each))
                for each in zip(*costs, strict=True)]  # fmt: skip
    on_plan(together)
    total, done = sum(cost.forward for cost in together), 0
    found = []
    for study, parts in zip(studies, costs, strict=True):
        begun = done

        def count(passed: int, method: str, begun: int = begun) -> None:
            on_progress(min(begun + passed, total), total, method)

        found.append(study.explanation(number, count))
        done += sum(cost.forward for cost in parts)
    on_progress(total, total, "")
    if several == 1:
        return found[0]
    shares = [each.target.share for each in found]
    target = replace(
        found[0].target,
        score=float(np.mean([each.target.score for each in found])),
        share=None if None in shares else float(np.mean([share for share in shares if share is not None])),
    )
    maps = {method: _mean_map([each.maps[method] for each in found]) for method in found[0].maps}
    notes = tuple(dict.fromkeys(note for each in found for note in each.notes))
    unit = found[0].unit
    if unit is not None:
        sizes = zip(*(each.unit.effective_size for each in found if each.unit is not None), strict=True)
        unit = replace(unit, effective_size=tuple(round(float(np.mean(size))) for size in sizes))
    return replace(found[0], target=target, maps=maps, unit=unit, costs=tuple(together), notes=notes)


def _mean_map(found: Sequence[Attribution]) -> Attribution:
    """Return the mean of one method's maps of several members; shares of the largest are scaled to 1 again."""
    values: NDArray[np.float64] = np.mean([each.values for each in found], axis=0, dtype=np.float64)
    if not found[0].signed and values.max() > 0:
        values /= values.max()
    facts = dict(found[0].facts)
    for name in ("sum", "missing"):
        if name in facts:
            facts[name] = float(np.mean([each.facts[name] for each in found]))
    return replace(found[0], values=np.asarray(values, np.float32), facts=facts)


class _Study:
    """One image, one question: what is settled on the way to its answer."""

    def __init__(
        self,
        image: ExplainedImage,
        question: Question,
        asked: tuple[Span, ...] | None,
        computation: Computation,
        voxels: _Voxels,
    ) -> None:
        self.image, self.question, self.asked, self.computation = image, question, asked, computation
        self.run, self.notes = image.run, list[str]()
        self.mask = voxels.mask
        self.centre = self._centre()
        box = None if self.mask is None else image.reads("", self._output_box(self.mask))
        centre = tuple(place + before for place, before in zip(self.centre, image.before, strict=True))
        self.near, self.wide = image.plan(box, centre), image.plan(box, centre, wide=True)
        if not self.near.exact:
            self._note_tile()
        with layer_sizes(self.run.network, self.run.data.dims) as self.layers, torch.no_grad():
            logits = self.run.network(self._tensor(self.wide)).float().cpu().numpy()[0].astype(np.float64)
        # (outputs,) of an image, (outputs, voxels) of those that are explained.
        self.logits = logits if self.mask is None else logits[:, self._part_voxels(self.wide)]
        methods = [word for word in METHODS if word in question.methods]
        asks = "gradcam++" in methods or self._asks_layer_of_field(methods)
        self.methods, self.layer = methods, self._layer(self.layers) if asks else ""

    def _note_tile(self) -> None:
        assert self.mask is not None
        size, all_voxels = " × ".join(map(str, self.near.size)), int(self.mask.sum())
        kept = int(self._part_voxels(self.near).sum())
        text = f"The score reads more than fits one pass, so it is computed on a tile of {size} around the target"
        text += f", which holds {kept} of its {all_voxels} voxels" if kept < all_voxels else ""
        self.notes.append(f"{text}; nothing is shown outside.")

    # Places.

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

    def costs(self) -> list[Cost]:
        """Return the work of each method."""
        return [self._cost(method) for method in self.methods]

    def explanation(self, number: int, on_pass: Callable[[int, str], None]) -> Explanation:
        """Return the answer; ``on_pass`` gets the number of images that passed before each pass, and the method."""
        target, layer, done = self._target(number), self.layer, 0
        costs = self.costs()
        found: dict[str, Attribution] = {}
        unit: UnitField | None = None
        for method, cost in zip(self.methods, costs, strict=True):
            passed = 0

            def count(images: int, method: str = method, before: int = done) -> None:
                nonlocal passed
                on_pass(before + passed, method)
                passed += images

            if method == "field":
                count(1)
                unit, found[method] = self._field(layer, self.layers, self._point(found), target.number)
            else:
                found[method] = self._map(method, target, layer, count)
            done += cost.forward
        point = None if self.asked is None else tuple((low + high) // 2 for low, high in self.asked)
        region = None if self.mask is None else self._spread_mask()
        shown = layer if "gradcam++" in self.methods else ""
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

    def _target(self, number: int) -> Target:
        """Return what is explained."""
        facts, logits = self.run.data, self.logits
        where: Where = "image"
        voxels = 0
        if self.mask is not None:
            voxels = logits.shape[1]
            where = "region" if self.asked is None else "voxel" if self.question.at is not None else "box"
            logits = logits.sum(axis=1)
        score, share = float(logits[number]), None
        if self.run.config.task == "regress":
            scale = self.run.data.targets
            assert scale is not None
            score = score * scale.std[number] + scale.mean[number]
        elif where in ("image", "voxel"):
            if facts.several:
                share = float(np.exp(-np.logaddexp(0.0, -score)))
            else:
                powers = np.exp(logits - logits.max())
                share = float(powers[number] / powers.sum())
        regress = self.run.config.task == "regress"
        unit = "value" if regress else "logit" if where in ("image", "voxel") else "logits"
        return Target(number, facts.outputs[number], where, self.asked or (), voxels, score, share, unit)

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
        if not found.array.any():
            where = f"Unit {', '.join(map(str, unit))} of {layer or 'the output'}"
            self.notes.append(f"{where} does not change with the image here, so its field is 0: ask for another voxel.")
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
