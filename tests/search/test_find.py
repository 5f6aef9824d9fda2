"""Networks inside every budget: found, ranked, timed, and refused where there is none; scales by rule."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from convoxel.cli import main
from convoxel.errors import ConfigError, ShapeError
from convoxel.lookup import describe
from convoxel.models import build, entry
from convoxel.search import Budget, Candidate, Findings, Scale, Space, compound, find, measure, scales, usual_options
from convoxel.search.pareto_front import front
from tests.support.refusal import refused_command

SMALL = {"levels": (1, 2, 3), "width": (4, 8, 16), "blocks": (1, 2)}


def costs(params: int, macs: int, field: int) -> Candidate:
    return Candidate(
        network="unet", options={"width": params}, fixed={}, shape=(1, 1, 8, 8), params=params, macs=macs,
        memory_bytes=10 * params, field=(field, field),
    )  # fmt: skip


def by_hand(dims: int, budget: Budget) -> set[str]:
    """The names of all networks of ``SMALL`` inside a budget, one by one."""
    found = set()
    for levels in SMALL["levels"]:
        for width in SMALL["width"]:
            for blocks in SMALL["blocks"]:
                options = {"levels": levels, "width": width, "blocks": blocks}
                with torch.device("meta"):
                    net = build("unet", dims, 1, **options)
                summary = describe(net, (1, 1, *(16,) * dims))
                fits = (
                    summary.params <= (budget.max_params or summary.params)
                    and summary.macs <= (budget.max_macs or summary.macs)
                    and summary.peak_bytes + 4 * summary.params <= (budget.max_bytes or 1e30)
                    and min(summary.field.size) >= (budget.min_field or 0)
                )
                if fits:
                    found.add(" ".join(f"{key}={value}" for key, value in options.items()))
    return found


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D14_what_is_found_lies_inside_every_budget(dims: int) -> None:
    whole = find("unet", (1, 1, *(16,) * dims), vary=SMALL)
    middle = sorted(whole.inside, key=lambda each: each.macs)[9]
    budget = Budget(
        max_params=1.5 * middle.params, max_macs=1.2 * middle.macs, max_bytes=1.5 * middle.memory_bytes, min_field=25
    )
    found = find("unet", (1, 1, *(16,) * dims), vary=SMALL, budget=budget)
    assert {each.name for each in found.inside} == by_hand(dims, budget)
    assert 0 < len(found.inside) < 18 and found.complete and found.measured == 18
    net = found.best.build()
    assert sum(p.numel() for p in net.parameters()) == found.best.params <= budget.max_params
    assert net(torch.zeros(found.best.shape)).shape[2:] == (16,) * dims


def test_D14_front_is_what_nobody_beats() -> None:
    found = find("unet", (1, 1, 32, 32), vary=SMALL, goals={"macs": "low", "field": "high"})
    for each in found.inside:
        beaten = any(
            o.macs <= each.macs and o.reach >= each.reach and (o.macs, o.reach) != (each.macs, each.reach)
            for o in found.inside
        )
        assert beaten == (each not in found.front), each.name
    assert found.inside[: len(found.front)] == found.front
    assert found.best == max(found.front, key=lambda each: each.params)


def test_front_keeps_one_of_equal_networks() -> None:
    a, b, twin, beaten = costs(5, 10, 9), costs(9, 20, 9), costs(5, 10, 9), costs(4, 11, 9)
    assert front([beaten, a, b, twin]) == [a, b]
    assert front([a, b], {"memory": "low"}) == [a]


def test_D14_budgets_of_time_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is too slow leaves the front, and those that it alone had beaten take its place."""
    timed: list[int] = []

    def clock(module: torch.nn.Module, shape: tuple[int, ...]) -> float:
        timed.append(sum(p.numel() for p in module.parameters()))
        return 1e-8 * timed[-1]

    monkeypatch.setattr(importlib.import_module("convoxel.search.find"), "time_engine", clock)
    arguments = {"vary": SMALL, "goals": {"params": "high"}}
    largest = find("unet", (1, 1, 16, 16), **arguments)
    assert len(largest.front) == 1 and timed == [] and largest.best.time_s is None
    limit = 0.5e-8 * largest.best.params
    found = find("unet", (1, 1, 16, 16), **arguments, budget=Budget(max_time_s=limit))
    fast = [each.params for each in largest.inside if 1e-8 * each.params <= limit]
    assert found.best.params == max(fast) and found.best.time_s <= limit and found.inside == found.front
    assert timed == sorted(timed, reverse=True) and len(timed) < 18
    with pytest.raises(ConfigError, match=r"nearest, unet levels=1 width=4 blocks=1, breaks time .* ms, where .* ms"):
        find("unet", (1, 1, 16, 16), **arguments, budget=Budget(max_time_s=1e-9))


def test_time_is_that_of_the_engine() -> None:
    found = find("unet", (1, 1, 16, 16), vary={"levels": (1,)}, fixed={"width": 4}, timed=True)
    assert found.best.time_s > 0 and found.space.fixed == {"width": 4}


def test_D14_large_spaces_are_sampled_by_seed() -> None:
    vary = {"levels": (1, 2, 3, 4), "width": (4, 6, 8, 12, 16), "blocks": (1, 2, 3), "kernels": (3, 5)}
    budget, shape = Budget(max_macs=3e6, min_field=60), (1, 1, 16, 16)
    seen: list[str] = []
    runs = [
        find(
            "unet",
            shape,
            vary=vary,
            budget=budget,
            most=48,
            seed=seed,
            on_progress=lambda w, d, t, what: seen.append(what),
        )
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] and runs[0].front and not runs[0].complete
    assert len(set(seen[:48])) == 48 and seen[:48] == seen[48:96] != seen[96:]
    assert all(not budget.excess(each) for run in runs for each in run.inside)
    # Descendants of what fits fit more often than what is drawn blindly.
    assert runs[0].measured + runs[0].refused == 48
    fits = [not budget.excess(measure("unet", shape, dict(_parse(name)))) for name in seen[:48]]
    assert sum(fits[24:]) > sum(fits[:24]) > 0


def _parse(name: str) -> list[tuple[str, int]]:
    return [(key, int(value)) for key, _, value in (word.partition("=") for word in name.split())]


def test_combinations_that_are_no_network_are_counted() -> None:
    found = find("unet", (1, 1, 24, 24), vary={"levels": (2, 3, 4)}, fixed={"width": 4})
    assert (found.measured, found.refused, found.complete) == (2, 1, True)
    with pytest.raises(ConfigError, match="none of 1 combinations is a network; the first: UNet: x has spatial size"):
        find("unet", (1, 1, 24, 24), vary={"levels": (4,)})
    with pytest.raises(ShapeError):
        measure("unet", (1, 1, 24, 24), {"levels": 4})


def test_image_sizes_are_varied_like_options() -> None:
    found = find("mobilenet_v1", (1, 3, 64, 64), vary={"size": (32, 64)}, fixed={"width": 0.25})
    assert sorted(each.shape for each in found.inside) == [(1, 3, 32, 32), (1, 3, 64, 64)]


@pytest.mark.parametrize("name", ["unet", "resnet18", "vgg11", "unet_ronneberger", "course_vgg", "unet_resnet18"])
def test_usual_options_are_those_of_the_network(name: str) -> None:
    usual = usual_options(name)
    assert usual and set(usual) <= set(entry(name).options)


def test_refusals_name_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        find("unet", (1, 1, 16, 16), vary=SMALL, budget=Budget(max_params=700, min_field=20))
    assert str(caught.value).startswith(
        "budget: none of 18 networks lies inside parameters ≤ 700, receptive field ≥ 20 pixels. "
        "The nearest, unet levels=1 width=4 blocks=1, breaks parameters 1,"
    )
    assert str(caught.value).endswith("Allow more, or vary other options.")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"vary": {"colour": (1,)}}, "vary: unet has no option 'colour'; it has .* Choose of these."),
        ({"vary": {"levels": ()}}, "vary: levels has the values .*; expected at least one, each once."),
        ({"vary": {"levels": (1, 1)}}, "each once"),
        ({"vary": {"levels": (1,)}, "fixed": {"levels": 2}}, "vary: levels is fixed to 2 as well. Give it once."),
        ({"vary": {"size": (1.5,)}}, "vary: size is 1.5; expected whole numbers of pixels"),
        ({"shape": (1, 1)}, r"shape: \(1, 1\) has 2 axes; expected"),
        ({"goals": {"beauty": "high"}}, "goals: got .*; expected at least one of params, macs"),
        ({"most": 0}, "most: got 0; expected at least 1"),
    ],
)
def test_malformed_searches_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find("unet", **{"shape": (1, 1, 16, 16), **arguments})


def test_limits_are_above_zero() -> None:
    with pytest.raises(ConfigError, match="max_macs: got 0; expected a number above 0"):
        Budget(max_macs=0)


def test_space_numbers_every_combination_once() -> None:
    space = Space(network="unet", shape=(1, 1, 16, 16), vary=SMALL)
    assert len({str(space.options(number)) for number in range(len(space))}) == len(space) == 18
    assert [space.number(space.places(number)) for number in range(18)] == list(range(18))


# ---- scaling -----------------------------------------------------------------------------------------------


def test_D13_published_scales() -> None:
    """MobileNet's width and resolution multipliers (Howard et al. 2017, Tables 6 and 7), in millions."""
    widths = scales("mobilenet_v1", factors=[Scale(width=width) for width in (1.0, 0.75, 0.5, 0.25)])
    assert [(round(row.params / 1e6, 1), round(row.macs / 1e6)) for row in widths] == [
        (4.2, 569), (2.6, 325), (1.3, 149), (0.5, 41),
    ]  # fmt: skip
    sizes = scales("mobilenet_v1", factors=[Scale(resolution=size / 224) for size in (192, 160, 128)])
    assert [row.macs // 10**6 for row in sizes] == [418, 290, 186] and {row.params for row in sizes} == {4_231_976}


@pytest.mark.parametrize("number, width, depth, size, params", [
    (0, 1.0, 1.0, 224, 5_288_548), (1, 1.0, 1.1, 240, 7_794_184), (2, 1.1, 1.2, 260, 9_109_994),
    (3, 1.2, 1.4, 300, 12_233_232), (4, 1.4, 1.8, 380, 19_341_616), (5, 1.6, 2.2, 456, 30_389_784),
    (6, 1.8, 2.6, 528, 43_040_704), (7, 2.0, 3.1, 600, 66_347_960),
])  # fmt: skip
def test_D13_efficientnets_are_scales_of_the_first(
    number: int, width: float, depth: float, size: int, params: int
) -> None:
    """B1 to B7 are B0 by the factors of the authors' code, and have the counts that are published."""
    row = scales("efficientnet_b0", factors=[Scale(width=width, depth=depth, resolution=size / 224)])[0]
    named = describe(f"efficientnet_b{number}", (1, 3, size, size))
    assert row.params == named.params == params and row.macs == named.macs and row.shape == (1, 3, size, size)


def test_D13_compound_scaling_doubles_the_cost() -> None:
    """α·β²·γ² = 1.92: one step of φ about doubles what a network in 2-D costs."""
    factor = compound(1)
    assert factor.depth * factor.width**2 * factor.resolution**2 == pytest.approx(2, rel=0.05)
    assert compound(0) == Scale()
    small, large = scales("efficientnet_b0", factors=[compound(0), compound(3)])
    assert 1.7**3 < large.macs / small.macs < 2.4**3
    with pytest.raises(ConfigError, match="compound: bases are 0"):
        compound(1, depth=0)


def test_scales_that_a_network_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match="depth: alexnet has no option for it"):
        scales("alexnet", factors=[Scale(depth=2.0)])
    with pytest.raises(ConfigError, match="factors: got none"):
        scales("alexnet")
    with pytest.raises(ConfigError, match="expected one size to scale along all axes"):
        scales("alexnet", (1, 3, 64, 96), [Scale(resolution=2.0)])
    assert scales("unet", (1, 1, 64, 64), [Scale(width=0.5, resolution=0.5)])[0].options == {"width": 16, "size": 32}


# ---- commands ----------------------------------------------------------------------------------------------

WORDS = ["search", "unet", "--shape", "1,1,16,16,16", "--vary", "levels=1,2", "--vary", "width=4,8"]


def test_D14_command_finds_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "front.png"
    limits = ["--max-parameters", "30k", "--max-macs", "20M", "--max-memory", "1MiB", "--min-field", "40"]
    assert main([*WORDS, *limits, "--max-ms", "10000", "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["front"] and found["best"] in found["front"] and found["complete"]
    for row in found["inside"]:
        assert row["params"] <= 30_000 and row["macs"] <= 20e6 and row["memory_bytes"] <= 2**20
        assert min(row["field"]) >= 40 and 0 < row["time_s"] <= 10
    with Image.open(picture) as drawn:
        assert drawn.width > 600
    assert main([*WORDS, "--high", "field", "--plot", str(picture.with_suffix(".svg"))]) == 0
    shown = capsys.readouterr().out
    assert "4 of 4 combinations counted: 4 inside no budget" in shown and "levels=2 width=4" in shown
    assert "convoxel describe unet --shape 1,1,16,16,16 --set=levels=2 --set=width=4" in shown
    assert "levels=1 width=8" in picture.with_suffix(".svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("words, message", [
    (["--max-parameters", "ten"], "max-parameters: got 'ten'; expected a number above 0, such as 500k"),
    (["--max-macs", "-5"], "max-macs: got '-5'"),
    (["--max-ms", "-5"], "max_time_s: got -0.005; expected a number above 0"),
    (["--vary", "width"], "vary: got 'width'; expected name=value,value"),
    (["--vary", "width=4,"], "vary: got 'width=4,'"),
    (["--vary", "width=16"], "vary: width came twice"),
    (["--set", "colour=1"], "vary: unet has no option 'colour'"),
    (["--low", "beauty"], "goals: got"),
    (["--plot", "front.tiff"], "plot: 'front.tiff' ends in '.tiff'; expected .svg, .png or .html."),
    (["--plot", "nowhere/front.svg"], "plot: the folder of nowhere/front.svg does not exist."),
    (["--max-parameters", "10"], "budget: none of 4 networks lies inside parameters ≤ 10. The nearest, unet"),
])  # fmt: skip
def test_search_refuses_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert message in refused_command(capsys, *WORDS, *words)


def test_D13_command_shows_what_each_scale_costs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scale", "mobilenet_v1", "--width", "0.25,1", "--depth", "0.5", "--resolution", "0.5", "--compound", "1"]
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["scales"]
    assert [row["params"] for row in rows[:2]] == [470_072, 4_231_976] and len(rows) == 5
    assert rows[3]["shape"] == [1, 3, 112, 112] and rows[4]["resolution"] == 1.15
    assert main(words) == 0
    assert "470,072" in capsys.readouterr().out
    assert main(["scale", "mobilenet_v1", "--width", "0.25", "--set", "num_classes=10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scales"][0]["params"] == 470_072 - 990 * 257


@pytest.mark.parametrize("words, message", [
    (["--width", "wide"], "width: got 'wide'; expected numbers, such as 0.25,0.5,1."),
    (["--width", "0"], "width: got 0; expected a factor above 0"),
    (["--plot", "scale.svg"], "plot: given without --data; expected both"),
    (["--data", "digits", "--resolution", "2"], "resolution: given with --data, whose images keep their size."),
    (["--data", "digits", "--shape", "1,1,8,8"], "shape: given with --data"),
])  # fmt: skip
def test_scale_refuses_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert message in refused_command(capsys, "scale", "mobilenet_v1", *words)


def test_findings_are_plain_data() -> None:
    found = find("unet", (1, 1, 16, 16), vary={"levels": (1, 2)}, fixed={"width": 4})
    assert isinstance(found, Findings)
    assert json.loads(json.dumps(found.to_dict()))["vary"] == {"levels": [1, 2]}
