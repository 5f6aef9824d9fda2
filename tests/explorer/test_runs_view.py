"""Runs in the explorer: what is listed, shown and compared, and what a page may start."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoxel.errors import ConfigError
from convoxel.explorer import run_launch, runs_view
from convoxel.explorer.jobs import Jobs
from convoxel.explorer.run_list import find_runs, open_run
from convoxel.explorer.session import ForbiddenPath, Session
from convoxel.explorer.view import Query
from convoxel.files.lock import LOCK, hold_lock
from tests.support.explorer import Explorer, running
from tests.support.written_run import classified, segmented


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    segmented(root / "<i>grey")
    segmented(root / "inner" / "other")
    classified(root / "digits", ["<b>0", "1", "2"])
    outside = tmp_path_factory.mktemp("outside")
    segmented(outside / "secret")
    (root / "way_out").symlink_to(outside)
    (root / ".hidden").mkdir()
    segmented(root / ".hidden" / "run")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    return root


@pytest.fixture
def session(folder: Path) -> Session:
    return Session.of([str(folder)])


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[Explorer]:
    with running(Session.of([str(folder)])) as found:
        yield found


def ask(function: Any, session: Session, *pairs: tuple[str, object]) -> Any:
    return function(session, Query(tuple((name, str(value)) for name, value in pairs)))


@pytest.mark.smoke
def test_runs_of_the_folders_are_found_and_no_others(session: Session, folder: Path) -> None:
    found = ask(runs_view.catalogue, session)
    assert [run["name"] for run in found["runs"]] == ["<i>grey", "digits", "other"]
    assert found["runs"][0]["metric"] == 0.912 and found["runs"][0]["state"] == "finished"
    assert found["folders"] == [str(folder)] and found["jobs"] == []
    assert find_runs(Session.of([str(folder / "digits")])) == [folder / "digits"]


def test_a_page_that_is_up_to_date_gets_a_few_bytes(session: Session, folder: Path) -> None:
    run = folder / "<i>grey"
    first = ask(runs_view.show, session, ("run", run))
    again = ask(runs_view.show, session, ("run", run), ("version", first["version"]))
    assert again["same"] and len(json.dumps(again)) < 200
    rows = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows + rows.splitlines()[-1].replace('"step": 50', '"step": 60') + "\n")
    newer = ask(runs_view.show, session, ("run", run), ("version", first["version"]))
    assert "same" not in newer and newer["version"] != first["version"]
    assert newer["charts"][0]["svg"].count("<circle") == first["charts"][0]["svg"].count("<circle") + 1
    (run / "metrics.jsonl").write_text(rows)


def test_figures_are_those_of_the_report(session: Session, folder: Path) -> None:
    found = ask(runs_view.show, session, ("run", folder / "<i>grey"))
    assert found["cards"][0]["value"] == "0.912"
    assert [row["cells"]["metric"] for row in found["cases"]["rows"]] == ["0.800", "0.850", "0.900"]
    assert found["confusion"]["rows"][0][1]["title"].startswith("background predicted as grey: 50 of 1,000")
    assert {"image", "label", "prediction", "difference"} <= found["examples"]["pictures"][0].keys()
    assert all("light-dark(" in chart["svg"] for chart in found["charts"])


def test_a_cell_shows_its_samples(session: Session, folder: Path) -> None:
    cell = ask(runs_view.cases, session, ("run", folder / "digits"), ("cell", "0,1"))
    assert [row["cells"]["name"] for row in cell["rows"]] == ["a"] and cell["told"] == "<b>0, predicted as 1"
    assert ask(runs_view.cases, session, ("run", folder / "digits"), ("cell", "2,2"))["rows"] == []
    old = ask(runs_view.cases, session, ("run", folder / "<i>grey"), ("cell", "1,0"))
    assert len(old["rows"]) == 3 and "does not say in which images" in old["told"]
    for wrong in ("9,9", "x", "1", "-1,0"):
        with pytest.raises(ConfigError):
            ask(runs_view.cases, session, ("run", folder / "digits"), ("cell", wrong))


def test_a_cell_of_voxels_puts_the_image_with_most_of_them_first(session: Session, tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    evaluation = json.loads((run / "evaluation.json").read_text())
    for sample, count in zip(evaluation["samples"], (3, 0, 40), strict=True):
        sample["confusion"] = [[900, 0, 0], [count, 10, 0], [0, 0, 5]]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    found = ask(runs_view.cases, Session.of([str(tmp_path)]), ("run", run), ("cell", "1,0"))
    assert [(row["cells"]["name"], row["cells"]["count"]) for row in found["rows"]] == [("case2", "40"), ("case0", "3")]


def test_runs_side_by_side_say_what_the_command_says(
    session: Session, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [folder / "<i>grey", folder / "inner" / "other"]
    config = (runs[1] / "config.yaml").read_text()
    (runs[1] / "config.yaml").write_text(config.replace("levels: 2", "levels: 3\nmodel_options: {norm: instance}"))
    evaluation = json.loads((runs[1] / "evaluation.json").read_text())
    for sample in evaluation["samples"]:
        sample["metric"] -= 0.25
    (runs[1] / "evaluation.json").write_text(json.dumps({**evaluation, "metric": 0.662}))
    found = ask(runs_view.compare, session, *(("run", run) for run in runs))
    table = {row["name"]: row["cells"] for row in found["rows"] if "cells" in row}
    assert table["Dice"] == ["0.912", "0.662"]
    assert table["difference to the best, same images"][0] == "the best"
    assert table["difference to the best, same images"][1].startswith("−0.250 (−0.250 … −0.250)")
    assert {row["name"]: row["cells"] for row in found["settings"]} == {
        "levels": ["2", "3"], "model_options.norm": ["–", "instance"]
    }  # fmt: skip
    assert found["charts"][0]["svg"].count("<polyline") > 2
    same = ask(runs_view.compare, session, *(("run", run) for run in runs), ("version", found["version"]))
    assert same["same"] and same["states"] == ["finished", "finished"]
    with pytest.raises(ConfigError, match="2 to 7"):
        ask(runs_view.compare, session, ("run", runs[0]), ("run", runs[0]))


def test_a_run_is_running_while_its_lock_is_held(session: Session, folder: Path) -> None:
    run = folder / "digits"
    with hold_lock(run):
        assert open_run(session, str(run)).state == "running"
        with hold_lock(folder / "images"):  # looking takes no lock
            assert open_run(session, str(run)).state == "running"
    assert open_run(session, str(run)).state == "finished"
    # A trainer that was killed leaves its file, and its number may be that of another process.
    for owner in (str(os.getpid()), "999999999", "no number", "9" * 40):
        (run / LOCK).write_text(owner)
        assert open_run(session, str(run)).state == "finished", owner
    (run / LOCK).unlink()


# ---- what a page may start ----------------------------------------------------------------------------------


def words(root: Path, **changes: str) -> list[tuple[str, object]]:
    base = {"task": "classify", "data": "digits", "folder": str(root), "name": "new", "minutes": "2"}
    return list({**base, **changes}.items())


def test_a_training_is_a_list_of_arguments(session: Session, folder: Path) -> None:
    more = [("set", "levels=2"), ("set", "model_options.norm= a b;--force")]
    made, target = run_launch.plan_training(session, Query((*words(folder), *more)))  # type: ignore[arg-type]
    assert target == folder / "new"
    assert made == [
        "train", "classify", "--data=digits", f"--output={folder / 'new'}", "--minutes=2", "--set=levels=2",
        "--set=model_options.norm=a b;--force",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"task": "dance"}, {"task": ""}, {"data": "/etc"}, {"data": "mni152"}, {"data": "way_out"}, {"data": ""},
        {"folder": "/tmp"}, {"folder": "digits"}, {"folder": "way_out"}, {"folder": ".hidden"}, {"folder": ""},
        {"name": "../x"}, {"name": "/x"}, {"name": ".x"}, {"name": "-x"}, {"name": "digits"}, {"name": ""},
        {"name": "x" * 81}, {"name": "a\nb"}, {"name": "a "}, {"minutes": "0"}, {"minutes": "-1"}, {"minutes": "1e9"},
        {"minutes": "2 --force"}, {"epochs": "0"}, {"epochs": "x"}, {"set": "output=/x"}, {"set": "weights=/etc/x"},
        {"set": "split=/x.json"}, {"set": "data=/etc"}, {"set": "prediction.previous=../x"}, {"set": "prediction=x"},
        {"set": "levels"}, {"set": "nothing=1"}, {"set": f"loss={'x' * 300}"},
    ],
)  # fmt: skip
def test_other_words_start_nothing(session: Session, folder: Path, change: dict[str, str]) -> None:
    with pytest.raises((ForbiddenPath, ConfigError)):
        ask(run_launch.start, session, *words(folder, **change))
    assert session.jobs.list() == []


def test_an_exercise_changes_one_word(session: Session, folder: Path) -> None:
    pair = [*words(folder, name="ex"), ("word", "model"), ("value", "course_vgg"), ("value", "resnet18")]
    commands = ask(run_launch.plan, session, *pair)["commands"]
    assert [command.split("--set=")[1] for command in commands] == ["model=course_vgg", "model=resnet18"]
    assert f"--output={folder / 'ex-resnet18'}" in commands[1] and session.jobs.list() == []
    for wrong in (
        [*pair[:-1]],
        [*pair[:-1], ("value", "course_vgg")],
        [*pair[:-2], ("value", "a b"), ("value", "a/b")],
    ):
        with pytest.raises(ConfigError, match="value"):
            ask(run_launch.plan, session, *wrong)


# ---- the wire -----------------------------------------------------------------------------------------------

ACTIONS = sorted(runs_view.VIEW.actions)
ANSWERS = sorted(runs_view.VIEW.answers)


def test_actions_need_the_key_the_origin_and_post(explorer: Explorer, folder: Path) -> None:
    body = json.dumps([["task", "classify"]]).encode()
    origin = {"Origin": f"http://127.0.0.1:{explorer.port}"}
    for name in ACTIONS:
        address = f"/api/runs/{name}"
        assert explorer.ask(address, "POST", {**origin, "Cookie": None}, body).status == 403
        assert explorer.ask(address, "POST", {**origin, "Cookie": f"{explorer.key.cookie}=wrong"}, body).status == 401
        assert explorer.ask(address, "POST", {}, body).status == 403
        for foreign in ("http://evil.com", "null", f"http://127.0.0.1:{explorer.port + 1}"):
            assert explorer.ask(address, "POST", {"Origin": foreign}, body).status == 403
        assert explorer.ask(address, "POST", {**origin, "Host": "evil.com"}, body).status == 403
        assert explorer.ask(address).status == 405  # GET changes nothing
        assert explorer.ask(address, "POST", origin, b"x" * (1 << 21)).status == 413
        for junk in (b"{", b"1", b'[["a"]]', b"[" * 10_000):
            assert explorer.ask(address, "POST", origin, junk).status == 400
        found = explorer.ask(address, "POST", origin, b"[]").json
        assert "error" in found or name == "choose", found


def test_actions_are_refused_with_readonly(folder: Path) -> None:
    with running(Session.of([str(folder)], readonly=True)) as found:
        origin = {"Origin": f"http://127.0.0.1:{found.port}"}
        for name in ACTIONS:
            assert found.ask(f"/api/runs/{name}", "POST", origin, b"[]").status == 403
        assert found.answer("runs/catalogue")["readonly"]


def test_paths_elsewhere_are_refused_by_every_function(explorer: Explorer, folder: Path) -> None:
    for path in ("/etc", f"{folder}/..", f"{folder}/way_out/secret", f"{folder}/.hidden/run", "", "%00"):
        for name in ("show", "cases", "case", "slice", *(["compare"] if path else [])):
            query = f"run={path}&run={folder}/digits&case=x" if name == "compare" else f"run={path}&case=x"
            assert explorer.ask(f"/api/runs/{name}?{query}").status == 403, (name, path)
        for name in ("resume", "predict"):
            body = json.dumps([["run", path]]).encode()
            origin = {"Origin": f"http://127.0.0.1:{explorer.port}"}
            assert explorer.ask(f"/api/runs/{name}", "POST", origin, body).status == 403, (name, path)


def test_every_answer_needs_the_key(explorer: Explorer) -> None:
    for name in ANSWERS:
        assert explorer.ask(f"/api/runs/{name}", headers={"Cookie": None}).status == 403
        assert explorer.ask(f"/api/runs/{name}", headers={"Host": "evil.com"}).status == 403
    assert explorer.ask("/runs", headers={"Cookie": None}).status == 403


def test_a_started_command_is_shown_and_stopped(folder: Path) -> None:
    seen: list[Sequence[str]] = []

    def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        seen.append(words)
        with log.open("wb") as output:
            code = "import sys; [sys.exit(130) for line in sys.stdin if line == 'stop\\n']"
            return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=output)

    root = Session.of([str(folder)])
    session = Session(root.networks, root.roots, jobs=Jobs(start))
    job = ask(run_launch.resume, session, ("run", folder / "digits"))["job"]
    assert (job["state"], list(seen[0])) == ("running", ["train", f"--resume={folder / 'digits'}"])
    assert ask(runs_view.show, session, ("run", folder / "digits"))["job"]["number"] == job["number"]
    begun = ask(run_launch.start, session, *words(folder, name="begun"))["runs"][0]  # its folder is not there yet
    assert ask(runs_view.show, session, ("run", begun))["pending"]
    pair = ask(runs_view.compare, session, ("run", begun), ("run", folder / "digits"))
    assert pair["names"] == ["digits"] and {each["name"] for each in pair["jobs"]} == {"digits", "begun"}
    again = ask(run_launch.predict, session, ("run", folder / "digits"), ("input", folder / "images"),
                ("folder", folder), ("name", "found"))["job"]  # fmt: skip
    assert again["state"] == "waiting" and again["command"].endswith(f"--output={folder / 'found'}")
    assert ask(run_launch.choose, session, ("leave", "1")) == {"leave": True}
    assert ask(run_launch.stop, session, ("number", again["number"]))["job"]["state"] == "stopped"
    assert ask(run_launch.stop, session, ("number", job["number"]))["job"]["state"] == "stopping"
    session.jobs.close()


def shades(drawn: dict[str, Any]) -> np.ndarray:
    """The grey values of an image's picture."""
    with Image.open(io.BytesIO(base64.b64decode(drawn["image"].partition(",")[2]))) as picture:
        return np.asarray(picture.convert("L"))


def test_slices_of_a_case_are_layers(monkeypatch: pytest.MonkeyPatch, session: Session, folder: Path) -> None:
    from convoxel.data import Sample
    from convoxel.explorer import run_cases

    label = np.zeros((6, 8, 5), np.uint8)
    label[1:3, 2:4, 1] = 1
    found = np.roll(label, 1, axis=0)
    image = np.random.default_rng(0).standard_normal((1, 6, 8, 5)).astype(np.float32)
    case = run_cases.Case(Sample("case0", image, label, np.diag([1.0, 1.0, 2.0, 1.0])), label, found, (-2.0, 2.0), "")
    monkeypatch.setattr(run_cases, "_predict", lambda *given: case)
    monkeypatch.setattr(runs_view, "open_case", lambda *given: case)
    told = ask(runs_view.case, session, ("run", folder / "<i>grey"), ("case", "case0"))
    assert {plane["name"]: (plane["count"], plane["worst"]) for plane in told["planes"]} == {
        "sagittal": (6, 1), "coronal": (8, 2), "axial": (5, 1)
    }  # fmt: skip
    drawn = ask(runs_view.slice_layers, session, ("run", folder / "<i>grey"), ("case", "case0"), ("slice", 1))
    assert drawn["image"].startswith("data:image/png;base64,") and drawn["marks"] == ("A", "P", "R", "L")
    assert told["ends"] == (image.min(), image.max()) and told["window"] == (-2.0, 2.0)
    words = ("run", folder / "<i>grey"), ("case", "case0"), ("slice", 1)
    narrow = ask(runs_view.slice_layers, session, *words, ("low", "-0.001"), ("high", "0.001"))
    usual, extreme = (np.isin(shades(each), (0, 255)).mean() for each in (drawn, narrow))
    bright = (image[0, ..., 1] > 0).mean()  # the picture enlarges every pixel alike, with shades between neighbours
    assert usual < 0.2 < extreme and abs((shades(narrow) > 127).mean() - bright) < 0.08
    with pytest.raises(ConfigError, match="slice"):
        ask(runs_view.slice_layers, session, ("run", folder / "<i>grey"), ("case", "case0"), ("slice", 5))
    with pytest.raises(ConfigError, match="low"):
        ask(runs_view.slice_layers, session, ("run", folder / "<i>grey"), ("case", "case0"), ("low", "black"))
