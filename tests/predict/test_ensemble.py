"""Ensembles and mirrored copies, against the same written down with NumPy."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel.data import Sample
from convoxel.data.geometry import Geometry
from convoxel.errors import ConfigError
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import Predictor, build_predictor, join_predictors
from convoxel.predict.member import common_slabs, group_members
from convoxel.predict.mirror import mirrored_axes
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.target_scale import TargetScale
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train import TrainConfig

Floats = NDArray[np.float32]
CLASSES = ("background", "a", "b")


class Small(nn.Module):
    """A convolution, or with ``whole`` the means of what it gives."""

    def __init__(self, dims: int, seed: int, whole: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](1, 3, 3, padding=1)
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y.flatten(2).mean(2) if self.whole else 4 * y


def a_run(
    seed: int,
    dims: int = 3,
    task: str = "segment",
    geometry: Geometry | None = None,
    normalisation: Normalisation | None = None,
    facts: dict[str, Any] | None = None,
    **options: Any,
) -> TrainedRun[TrainConfig]:
    config = TrainConfig.build(task=task, data="d", output="o", **{"patch": (8,) * dims, **options})
    found = DataFacts(CLASSES, dims, 1, normalisation or Normalisation("sample"), None, "", "drawn", {}, geometry)
    network = Small(dims, seed, task != "segment").eval()
    return TrainedRun(network, config, dataclasses.replace(found, **(facts or {})), 0)


def with_rule(run: TrainedRun[TrainConfig], **rule: Any) -> TrainedRun[TrainConfig]:
    prediction = run.config.prediction.model_copy(update=rule)
    return dataclasses.replace(run, config=run.config.model_copy(update={"prediction": prediction}))


def join(*runs: TrainedRun[TrainConfig], **options: Any) -> Predictor:
    return join_predictors({f"r{number}": build_predictor(run, **options) for number, run in enumerate(runs)})


def softmax(logits: Any) -> NDArray[np.float64]:
    e = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return np.asarray(e / e.sum(axis=0))


def an_image(dims: int = 3, size: int = 21, seed: int = 0, **header: Any) -> Sample:
    shape = (1, size, *range(9, 8 + dims))
    return Sample("image", np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32), **header)


def members_of(kind: str) -> list[TrainedRun[TrainConfig]]:
    """Members that share all passes, or none, in slabs of other lengths."""
    if kind == "alike":
        return [a_run(seed) for seed in range(3)]
    return [
        a_run(0),
        a_run(1, patch=(12, 8, 8), prediction={"tile": "patch"}),
        a_run(2, normalisation=Normalisation("dataset", (0.1,), (2.0,)), prediction={"tile": "patch"}, overlap=0.25),
        a_run(3, geometry=Geometry("ras", (2.0, 1.0, 1.0)), prediction={"tile": "patch"}),
    ]


@pytest.mark.parametrize("engine", ["torch", "convoxel"])
@pytest.mark.parametrize("kind", ["alike", "different"])
@pytest.mark.parametrize("mean", ["shares", "logits"])
def test_scores_are_the_mean_of_the_members(engine: str, kind: str, mean: str) -> None:
    """The average is that of each member's own answer on the image's grid, however its slabs lie."""
    runs = [with_rule(run, mean=mean) for run in members_of(kind)]
    sample = an_image(affine=np.diag([1.0, -1.0, 1.5, 1.0]), spacing_mm=(1.0, 1.0, 1.5))
    predictor = join(*runs, engine=engine)
    assert len(group_members(predictor.members)) == (1 if kind == "alike" else 4)
    logits = [build_predictor(run, engine=engine).logits(sample) for run in runs]
    wanted = np.mean([softmax(each) if mean == "shares" else each for each in logits], axis=0)
    found = np.zeros_like(wanted)
    for part, slab in predictor.slabs(sample):
        found[(slice(None), *part)] += slab
    np.testing.assert_allclose(softmax(found), wanted if mean == "shares" else softmax(wanted), atol=2e-6)
    shares = np.zeros_like(wanted)
    for part, scores in predictor.scores(sample):
        shares[(slice(None), *part)] += predictor.shares_of(scores)
    np.testing.assert_allclose(shares, wanted if mean == "shares" else softmax(wanted), atol=2e-6)
    np.testing.assert_array_equal(predictor.label_map(sample), wanted.argmax(axis=0))


@pytest.mark.parametrize("backwards", [False, True])
def test_slabs_of_any_lengths_are_cut_in_common(backwards: bool) -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(2, 2, 3, 17)).astype(np.float32)

    def stream(values: Floats, cuts: list[int]) -> list[tuple[tuple[slice, ...], Floats]]:
        ends = list(itertools.pairwise([0, *cuts, 17]))
        every = slice(None)
        return [((every, slice(a, b)), values[..., a:b]) for a, b in (reversed(ends) if backwards else ends)]

    streams = [stream(whole[0], [5, 9]), stream(whole[1], [2, 5, 16])]
    found = np.zeros_like(whole)
    parts = []
    for part, slabs in common_slabs(streams, 1, backwards):
        parts.append((part[1].start, part[1].stop))
        for index, slab in enumerate(slabs):
            found[index][(slice(None), *part)] += slab
    np.testing.assert_array_equal(found, whole)
    cuts = [0, 2, 5, 9, 16, 17]
    assert parts == list(itertools.pairwise(cuts))[:: -1 if backwards else 1]


@pytest.mark.parametrize("engine", ["torch", "convoxel"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_mirrored_copies_are_averaged(engine: str, dims: int) -> None:
    """On one tile, by hand: the network's logits of every mirrored image, turned back."""
    sample, run = an_image(dims, 8), a_run(0, dims)
    image = run.data.normalisation.statistics(sample.image).normalise(sample.image)
    pad = [(0, 0), *((0, 0) for _ in range(dims))]
    total: Any = 0.0
    for count in range(dims + 1):
        for axes in itertools.combinations(range(1, dims + 1), count):
            with torch.inference_mode():
                given = torch.from_numpy(np.pad(np.flip(image, axes), pad).copy())[None]
                total = total + np.flip(run.network(given)[0].numpy(), axes)
    found = build_predictor(run, engine=engine, mirror="all").logits(sample)
    np.testing.assert_allclose(found, total / 2**dims, atol=1e-5)
    plain = build_predictor(run, engine=engine).logits(sample)
    assert np.abs(found - plain).max() > 0.1
    np.testing.assert_array_equal(build_predictor(run, engine=engine, mirror="none").logits(sample), plain)


@pytest.mark.parametrize(("task", "several"), [("classify", False), ("classify", True), ("regress", False)])
def test_whole_images_are_averaged(task: str, several: bool) -> None:
    scales = [TargetScale((1.0, 2.0, 3.0), (2.0, 1.0, 0.5)), TargetScale((1.5, 2.0, 2.0), (1.0, 3.0, 0.1))]
    runs = [
        a_run(seed, 2, task, facts={"multi_label": several, "targets": scales[seed] if task == "regress" else None})
        for seed in range(2)
    ]
    samples = [an_image(2, 8, seed) for seed in range(3)]
    predictor = join(*runs, mirror="0")
    alone = [build_predictor(run, mirror="none").class_logits for run in runs]
    flipped = [dataclasses.replace(each, image=np.flip(each.image, 1).copy()) for each in samples]
    logits = [(one(samples) + one(flipped)) / 2 for one in alone]
    if task == "regress":
        wanted = np.mean([s.restore(x.astype(np.float64)) for s, x in zip(scales, logits, strict=True)], axis=0)
        np.testing.assert_allclose(predictor.values(samples), wanted, atol=1e-5)
        return
    shares = [1 / (1 + np.exp(-x)) if several else softmax(x.T).T for x in logits]
    np.testing.assert_allclose(predictor.shares(samples), np.mean(shares, axis=0), atol=1e-6)
    tally = evaluate_samples(
        predictor, [dataclasses.replace(s, label=frozenset((1,)) if several else 1) for s in samples]
    )
    assert tally.metrics()["loss"] > 0


def test_words_for_axes() -> None:
    turned, stored = a_run(0, geometry=Geometry("ras"), flip_axes=(0, 2)), a_run(0)
    for word, axes in (
        ("none", ()),
        ("all", (0, 1, 2)),
        ("auto", (0, 2)),
        ("lr", (0,)),
        ("SI, 1", (1, 2)),
        ((2,), (2,)),
    ):
        assert mirrored_axes(word, turned) == axes
    assert mirrored_axes("lr", a_run(0, 2)) == (1,) and mirrored_axes("auto", stored) == ()
    assert mirrored_axes(None, stored) == () and mirrored_axes(None, with_rule(stored, mirror=(1,))) == (1,)
    for run, word, message in (
        (stored, "lr", r"mirror: got 'lr'; .* none, since its images lie as stored"),
        (turned, "x", r"expected auto, none, all or axes .* lr, pa, is"),
        (turned, "0,3", "axes from 0 to 2"),
        (stored, (-1,), "axes from 0 to 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            mirrored_axes(word, run)


def test_members_that_do_not_agree_are_refused() -> None:
    first = a_run(0)
    for other, words in (
        (a_run(1, 2), "r1 has number of axes 2, and r0 has 3"),
        (a_run(1, facts={"classes": ("background", "b", "a")}), "r1 has classes background, b, a, and r0 has"),
        (a_run(1, facts={"channels": 2}), "r1 has number of channels 2"),
        (with_rule(a_run(1), mean="logits"), "r1 has prediction.mean logits, and r0 has shares"),
        (a_run(1, task="classify"), "r1 has task classify"),
    ):
        with pytest.raises(ConfigError, match=words):
            join(first, other)


def test_exact_tiles_of_an_ensemble_have_the_bits_of_whole_images() -> None:
    runs = [a_run(seed, geometry=Geometry("ras")) for seed in range(3)]
    sample = an_image(affine=np.diag([1.0, -1.0, 1.0, 1.0]))
    cut = join(*runs, engine="convoxel", exact=True, tile=(9, 7, 8))
    counts: list[tuple[int, int]] = []
    found = cut.label_map(sample, lambda *each: counts.append(each))
    assert counts[-1][0] == counts[-1][1] == len(counts) > 4
    logits = []
    for member in cut.members:
        assert member.exact is not None
        image = np.ascontiguousarray(sample.image[:, :, ::-1])
        normalised = member.run.data.normalisation.statistics(image).normalise(image)
        logits.append(member.exact.program(normalised[None])[0][:, :, ::-1])
    wanted = np.mean([softmax(each) for each in logits], axis=0)
    np.testing.assert_array_equal(found, wanted.argmax(axis=0))
    whole = join(*runs, engine="convoxel", exact=True)
    ((_, scores),) = whole.scores(sample)
    for part, some in cut.scores(sample):
        np.testing.assert_array_equal(some, scores[(slice(None), *part)])
    other = join(runs[0], a_run(1), engine="convoxel", exact=True)
    with pytest.raises(ConfigError, match="exact: r1 needs other tiles than r0"):
        other.label_map(sample)
    with pytest.raises(ConfigError, match="exact: images are mirrored along axes 0, 1, 2"):
        build_predictor(runs[0], engine="convoxel", exact=True, mirror="all")


def test_precision_is_the_engine_s_and_part_of_the_recipe() -> None:
    run = a_run(0)
    usual, fewer = (build_predictor(run, engine="convoxel", precision=word) for word in (None, "bfloat16"))
    assert (usual.precision, fewer.precision) == ("float32", "bfloat16")
    assert usual.recipe != fewer.recipe and "precision" not in usual.recipe
    assert join_predictors({"a": fewer, "b": fewer}).precision == "bfloat16"
    with pytest.raises(ConfigError, match=r"precision: got 'bfloat16'.*engine='torch'.*engine='convoxel'"):
        build_predictor(run, engine="torch", precision="bfloat16")
    with pytest.raises(ConfigError, match="precision is 'int8', but no quantised program is kept"):
        build_predictor(run, engine="convoxel", precision="int8")
    assert build_predictor(run, engine="torch", precision="float32").precision == "float32"
