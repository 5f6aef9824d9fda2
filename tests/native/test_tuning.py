"""Algorithms chosen by measurement: what is measured and kept, and what happens if the cache is damaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from convoxel import native
from convoxel.files import cache
from convoxel.graph.compile import compile
from convoxel.native import Convolution, Plan, Problem, View, tuning

rng = np.random.default_rng(3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache folder of its own, which does not exist yet."""
    path = tmp_path / "deep" / "cache"
    monkeypatch.setenv("CONVOXEL_CACHE", str(path))
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """Return the problems that are measured, in order."""
    found: list[Problem] = []
    measure = tuning.time_candidates

    def count(problem: Problem, *arguments: object, **more: object) -> dict[str, float]:
        found.append(problem)
        return measure(problem, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "time_candidates", count)
    return found


def problem(size: int = 12, channels: int = 16, activation: str = "relu", residual: bool = False) -> Problem:
    """3 × 3 on a square map, which several algorithms can run."""
    shape = (1, 1, size, size, channels)
    return Problem((1, 3, 3), (1, 1, 1), (1, 1, 1), (0, 1, 1), 1, False, shape, shape, activation, residual)


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(4)]
    head = torch.nn.Conv2d(16, 8, 5, stride=2, groups=2)
    return torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())), head).eval()


@pytest.mark.smoke
def test_a_plan_tells_its_problems() -> None:
    layer = Convolution(
        rng.standard_normal((6, 4, 1, 2, 3)).astype(np.float32), stride=(1, 2, 1), padding_low=(0, 0, 1), groups=2
    )
    src, dst = View.dense(0, 0, (2, 1, 4, 5, 8)), View.dense(0, 512, (2, 1, 2, 5, 6))
    plan = Plan(1024, 0, 1)
    plan.convolve(layer, src, dst, dst, "relu6")
    (found,) = plan.problems
    assert found == Problem.of(layer, src, dst, "relu6", residual=True)
    assert str(found) == "conv 1x2x3 s1x2x1 p0x0x1 d1x1x1 g2 2x1x4x5x8 -> 2x1x2x5x6 relu6 residual"
    one, two = problem(), problem(residual=True)
    assert len({str(p) for p in (one, two, problem(13), problem(activation="none"))}) == 4


def test_the_candidates_of_least_cost_are_timed() -> None:
    asked = problem(size=16, channels=32)
    layer = Convolution(np.zeros((32, 32, 1, 3, 3), np.float32), padding_low=(0, 1, 1))
    src, dst = View.dense(1, 0, asked.in_shape), View.dense(2, 0, asked.out_shape)
    expected = [name for name, _ in Plan(0, 2).candidates(layer, src, dst)]
    assert len(expected) > 3
    times = native.time_candidates(asked, threads=1)
    assert list(times) == expected[:3] and all(0 < time < 1 for time in times.values())
    assert list(native.time_candidates(asked, threads=1, count=2)) == expected[:2]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_every_window_can_be_timed(residual: bool, transposed: bool) -> None:
    small, large = (2, 3, 4, 5, 8), (2, 6, 8, 10, 12)
    shapes = (small, large) if transposed else ((*large[:4], 8), (*small[:4], 12))
    asked = Problem((2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0), 4, transposed, *shapes, "leaky_relu", residual)
    assert native.time_candidates(asked, threads=1)


def test_hopeless_candidates_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"fast": 1.0, "close": 1.5, "slow": 9.0}
    runs: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def profile(self, buffers: object) -> list[dict[str, float]]:
            runs.append(self.name)
            return [{"time_s": taken[self.name] / runs.count(self.name)}]

    found = tuning._take_turns({name: Fake(name) for name in taken}, [])  # type: ignore[misc]
    assert runs.count("slow") == 1 and runs.count("fast") == runs.count("close") >= 3
    assert found["slow"] == 9 and found["fast"] == 1 / runs.count("fast")


def test_winners_are_remembered(folder: Path, measured: list[Problem]) -> None:
    asked = [problem(), problem(residual=True), problem()]
    told: list[tuple[int, int, str]] = []
    winners = native.tune(asked, threads=1, on_progress=lambda *moment: told.append(moment))
    assert measured == asked[:2] and set(winners) == {str(p) for p in asked}
    assert told == [(0, 2, str(asked[0])), (1, 2, str(asked[1])), (2, 2, "")]
    assert native.tune(asked, threads=1, on_progress=lambda *moment: told.append(moment)) == winners
    assert len(measured) == 2 and len(told) == 3, "nothing is left to measure"
    native.tune([problem(14)], threads=1)
    assert len(measured) == 3
    assert set(native.known_winners(1)) == {str(p) for p in (*asked, problem(14))}
    assert native.remembered_count() == 3
    assert [path.name for path in folder.iterdir()] == ["tuning.json"], "no temporary file stays"


def test_machines_do_not_share_winners(folder: Path, measured: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    native.tune([problem()], threads=1)
    assert native.known_winners(2) == {} and native.known_winners(1, isa="portable") != native.known_winners(1)
    monkeypatch.setattr(tuning, "_build", lambda: "another engine")
    assert native.known_winners(1) == {}
    native.tune([problem()], threads=1)
    monkeypatch.setattr(tuning, "processor", lambda: "another processor")
    native.tune([problem()], threads=1)
    assert len(measured) == 3 and native.remembered_count() == 3


def test_what_was_found_before_an_interruption_stays(folder: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        native.tune([problem(), problem(14)], threads=1, on_progress=stop)
    assert list(native.known_winners(1)) == [str(problem())]


def test_a_program_uses_winners_and_keeps_its_results(folder: Path, measured: list[Problem]) -> None:
    model, x = net(), torch.randn(2, 16, 24, 24)
    truth = model(x).detach()
    tuned = compile(model, x, tune=True)
    assert len(measured) == 2, "four equal layers and the head"
    torch.testing.assert_close(tuned(x), truth, rtol=1e-4, atol=1e-5)
    path = folder / "tuning.json"
    for forced in ("winograd(2)", "indirect"):  # the cache decides, whichever is faster
        content = json.loads(path.read_text())
        (machine,) = content["winners"]
        winners = {key: forced if " g1 " in key else name for key, name in content["winners"][machine].items()}
        path.write_text(json.dumps({"winners": {machine: winners}}))
        again = compile(model, x, tune=True)
        assert len(measured) == 2, "read, not measured"
        used = {row["algorithm"] for row in again.profile(x) if row["operator"] == "conv"}
        assert forced in used
        torch.testing.assert_close(again(x), truth, rtol=1e-4, atol=1e-5)
        other = torch.randn(1, 16, 31, 17)  # sizes that were never measured
        torch.testing.assert_close(again(other), model(other).detach(), rtol=1e-4, atol=1e-5)


def test_a_winner_that_cannot_run_is_passed_over() -> None:
    layer = Convolution(np.ones((8, 8, 1, 3, 3), np.float32), stride=(1, 2, 2))
    views = View.dense(1, 0, (1, 1, 9, 9, 8)), View.dense(2, 0, (1, 1, 4, 4, 8))
    key = str(Problem.of(layer, *views))
    usual = Plan(0, 2, 1)
    usual.convolve(layer, *views)
    for name in ("pointwise", "magic"):
        plan = Plan(0, 2, 1, chosen={key: name})
        plan.convolve(layer, *views)
        assert plan.steps[0]["algorithm"] == usual.steps[0]["algorithm"]
    plan = Plan(0, 2, 1, chosen={key: "indirect"})
    plan.convolve(layer, *views)
    assert plan.steps[0]["algorithm"] == "indirect"


def test_what_loses_accuracy_is_no_candidate() -> None:
    """Winograd F(6, 3) in 3-D has an infinite cost: it runs when asked for, and only then."""
    shape = (1, 8, 8, 8, 16)
    asked = Problem((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, False, shape, shape)
    layer = Convolution(np.zeros((16, 16, 3, 3, 3), np.float32), padding_low=(1, 1, 1))
    views = View.dense(1, 0, shape), View.dense(2, 0, shape)
    costs = dict(Plan(0, 2, 1).candidates(layer, *views))
    barred = [name for name, cost in costs.items() if not np.isfinite(cost)]
    assert "winograd(6)" in barred
    assert not set(barred) & set(native.time_candidates(asked, threads=1, count=99))
    plan = Plan(0, 2, 1, chosen={str(asked): "winograd(6)"})
    plan.convolve(layer, *views)
    plan.convolve(layer, *views, algorithm="winograd(6)")
    assert [step["algorithm"] == "winograd(6)" for step in plan.steps] == [False, True]


def test_the_cache_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_MOST_WINNERS", 5)
    for machine in ("old", "new"):
        tuning._remember(machine, {f"{machine} {i}": "indirect" for i in range(3)})
    assert tuning._read() == {
        "old": {"old 1": "indirect", "old 2": "indirect"},
        "new": {f"new {i}": "indirect" for i in range(3)},
    }
    tuning._remember("old", {f"old {i}": "pointwise" for i in range(4, 7)})
    assert list(tuning._read()["old"]) == ["old 1", "old 2", "old 4", "old 5", "old 6"]
    assert native.remembered_count() == 5


BROKEN = {
    "no JSON": b'{"winners": {"machine": {"pro',
    "no text": b"\xff\xfe\x00",
    "nested beyond reason": b"[" * 100_000,
    "no object": b"[1, 2]",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_told_once_and_replaced(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "tuning.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"tuning\.json cannot be read \(.+\); it counts as empty") as told:
        winners = native.tune([problem()], threads=1)
    assert len(told) == 1 and native.known_winners(1) == winners


def test_a_file_that_is_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_LARGEST_BYTES", 10)
    folder.mkdir(parents=True)
    (folder / "tuning.json").write_text('{"winners": {}}')
    with pytest.warns(UserWarning, match="more than 10 bytes"):
        assert native.known_winners(1) == {}


@pytest.mark.parametrize(
    "content", [{}, {"winners": 3}, {"winners": {"m": 3}}, {"winners": {"m": {"p": 3, "q": "magic"}}}]
)
def test_strange_content_counts_as_nothing(folder: Path, content: dict[str, object]) -> None:
    cache.write_cache("tuning.json", content)
    assert native.remembered_count() == 0


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(
        UserWarning, match=r"cannot be written .*; measurements will not be remembered\. Set CONVOXEL_CACHE"
    ):
        winners = native.tune([problem()], threads=1)
    assert set(winners) == {str(problem())}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        native.tune([problem()], threads=1)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[Problem]) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", "~/mine")
    assert native.cache_folder() == Path.home() / "mine"
    monkeypatch.setenv("CONVOXEL_CACHE", "")
    assert native.cache_folder() is None
    for _ in range(2):
        native.tune([problem()], threads=1)
    assert len(measured) == 2 and native.remembered_count() == 0, "nothing is kept"
    monkeypatch.delenv("CONVOXEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.cache_folder() == tmp_path / "convoxel"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert native.cache_folder() == Path.home() / ".cache" / "convoxel"
