"""Prediction of archives: bad files, what is done already, parts, processes that die, disks that are full."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from convoxel import data
from convoxel.errors import CheckpointError, ConfigError, DataError, WriteError
from convoxel.files.journal import hold_journal
from convoxel.predict.archive import ArchiveOptions
from convoxel.predict.case_files import list_cases, take_part
from convoxel.predict.case_manifest import CaseRecord, Manifest, manifest_path
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor
from convoxel.predict.ray_workers import RayWorkers, parse_place
from convoxel.predict.run_progress import Progress

SKIP = ArchiveOptions("skip")
AGAIN = ArchiveOptions("skip", skip_existing=True)


class Bright:
    """A predictor whose label map is 1 where an image is above a threshold; it counts what it computes."""

    def __init__(self, task: str = "segment", threshold: int = 100, on_image: Any = None) -> None:
        names = ("dark", "bright")
        facts = SimpleNamespace(
            painted=False, dims=2, channels=1, multi_label=False, classes=names, value_names=names, channel_files=False
        )
        facts.warn_of_geometry = lambda lying: None
        self.run = SimpleNamespace(config=SimpleNamespace(task=task, axes=None, rate=None), data=facts)
        self.exact, self.classes, self.recipe = None, ("dark", "bright"), {"threshold": threshold}
        self.seen: list[str] = []
        self.on_image = on_image

    def _see(self, sample: data.Sample) -> None:
        self.seen.append(sample.name)
        if self.on_image is not None:
            self.on_image(sample.name)

    def prepare(self, sample: data.Sample) -> list[Any]:
        return []

    def label_map(self, sample: data.Sample, *_: Any) -> Any:
        self._see(sample)
        return (np.asarray(sample.image[0]) > self.recipe["threshold"]).astype(np.uint8)

    def shares(self, samples: list[data.Sample]) -> Any:
        for sample in samples:
            self._see(sample)
        bright = [float(np.mean(np.asarray(sample.image) > self.recipe["threshold"])) for sample in samples]
        return np.array([[1 - share, share] for share in bright])


def bright(**options: Any) -> Predictor:
    return cast(Predictor, Bright(**options))


def seen(predictor: Predictor) -> list[str]:
    return sorted(cast(Any, predictor).seen)


def images(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        values = np.random.default_rng(index).integers(0, 200, (6, 5 + index)).astype(np.float32)
        np.save(folder / f"i{index}.npy", values)
    return folder


def states(folder: Path) -> dict[str, str]:
    path = next(folder.glob("*.manifest.jsonl"), manifest_path(folder, folder=True))  # of a table in it, or of maps
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({(line.get("target"), line["file"]) for line in lines}) == len(lines)  # one line of each
    return {line["file"]: line["state"] for line in lines}


def maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_a_bad_file_is_skipped_and_listed(tmp_path: Path) -> None:
    folder = images(tmp_path / "in")
    (folder / "i1.npy").write_bytes(b"none")
    np.save(folder / "i3.npy", np.zeros((3, 4, 5, 6), np.float32))
    (folder / "odd.xyz").write_bytes(b"?")
    (folder / "out").mkdir()  # a folder of results is no image that is wrong
    records: list[CaseRecord] = []
    files = predict_files(bright(), folder, folder / "out", archive=SKIP, on_case=records.append)
    assert [path.name for path in files] == ["i0.png", "i2.png"] and all(path.is_file() for path in files)
    assert states(folder / "out") == {
        "i0.npy": "done", "i1.npy": "failed", "i2.npy": "done", "i3.npy": "failed", "odd.xyz": "failed",
    }  # fmt: skip
    assert Counter(record.state for record in records) == {"done": 2, "failed": 3}
    assert all(record.file in record.reason for record in records if record.state == "failed")
    with pytest.raises(DataError, match=r"odd\.xyz"):
        predict_files(bright(), folder, tmp_path / "strict")
    with pytest.raises(ConfigError, match=r"on_error is 'go', but it can be 'skip' or 'stop'"):
        predict_files(bright(), folder, tmp_path / "strict", archive=ArchiveOptions("go"))


def test_a_single_image_is_refused_and_gets_no_list(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", 1)
    assert predict_files(bright(), folder / "i0.npy", tmp_path / "a.png", archive=SKIP) == [tmp_path / "a.png"]
    (folder / "i0.npy").write_bytes(b"none")
    with pytest.raises(DataError, match=r"i0\.npy"):
        predict_files(bright(), folder / "i0.npy", tmp_path / "b.png", archive=SKIP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "in"]


@pytest.mark.parametrize("change", ["input", "output", "cut", "gone", "recipe", "manifest", "nothing"])
def test_only_what_changed_is_computed_again(tmp_path: Path, change: str) -> None:
    folder, out = images(tmp_path / "in"), tmp_path / "out"
    predict_files(bright(), folder, out, archive=SKIP)
    before, again = maps(out), bright(threshold=101 if change == "recipe" else 100)
    if change == "input":
        status = (folder / "i2.npy").stat()
        np.save(folder / "i2.npy", np.full((6, 7), 150, np.float32))  # the size and the time stay
        os.utime(folder / "i2.npy", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change in ("output", "cut"):
        (out / "i2.png").write_bytes(before["i2.png"][: None if change == "output" else 30] + b"x" * (change[0] == "o"))
    elif change == "gone":
        (out / "i2.png").unlink()
    elif change == "manifest":
        lines = manifest_path(out, folder=True).read_text().splitlines()
        manifest_path(out, folder=True).write_text(
            "\n".join([*lines[:2], lines[2][:50], "[]", '{"state": "done", "file": 3}', lines[3]])
        )
    predict_files(again, folder, out, archive=AGAIN)
    expected = {"recipe": ["i0", "i1", "i2", "i3"], "nothing": []}.get(change, ["i2"])
    assert seen(again) == expected
    assert Counter(states(out).values()) == Counter(done=len(expected), skipped=4 - len(expected))
    if change not in ("input", "recipe"):
        assert maps(out) == before
    last = bright(threshold=101 if change == "recipe" else 100)
    predict_files(last, folder, out, archive=AGAIN)
    assert seen(last) == []  # what was skipped is known still


def test_results_of_another_kind_of_processor_count_and_are_not_taken_for_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digits depend on its instructions: one key means one processor, one table those of all."""
    folder, table = images(tmp_path / "in"), tmp_path / "t.csv"
    predict_files(bright(task="classify"), folder, table, archive=ArchiveOptions(part=(1, 2)))
    monkeypatch.setattr("convoxel.predict.case_key.instruction_set", lambda: "another")
    predict_files(bright(task="classify"), folder, table, archive=ArchiveOptions(part=(2, 2)))
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == [f"i{n}.npy" for n in range(4)]
    again = bright(task="classify")
    predict_files(again, folder, table, archive=AGAIN)
    assert seen(again) == ["i0", "i2"]


def test_a_file_that_changes_or_goes_while_it_is_predicted_fails(tmp_path: Path) -> None:
    folder, out = images(tmp_path / "in"), tmp_path / "out"

    def disturb(name: str) -> None:
        if name == "i0":
            (folder / "i1.npy").unlink()
        if name == "i2":
            np.save(folder / "i2.npy", np.zeros((9, 9), np.float32))

    predict_files(bright(on_image=disturb), folder, out, archive=SKIP)
    assert states(out) == {"i0.npy": "done", "i1.npy": "failed", "i2.npy": "failed", "i3.npy": "done"}
    again = bright()
    predict_files(again, folder, out, archive=AGAIN)
    assert seen(again) == ["i2"]


def test_what_an_interrupt_leaves_is_gone_on_with(tmp_path: Path) -> None:
    folder, out = images(tmp_path / "in"), tmp_path / "out"

    def interrupt(name: str) -> None:
        if name == "i2":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            predict_files(bright(on_image=interrupt), folder, out, archive=SKIP)
    finally:
        signal.signal(signal.SIGINT, before)
    assert states(out) == {"i0.npy": "done", "i1.npy": "done"}
    again = bright()
    predict_files(again, folder, out, archive=AGAIN)
    assert seen(again) == ["i2", "i3"]


def test_a_disk_that_is_full_ends_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = images(tmp_path / "in"), tmp_path / "out"
    sync, count = os.fsync, [0]

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] > 6:  # each image: the map, its name in the folder, the line in the manifest
            raise OSError(28, "No space left on device")
        sync(descriptor)

    predictor = bright()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"No space left .* [01] of 4 images .*skip_existing"):
        predict_files(predictor, folder, out, archive=SKIP)
    monkeypatch.setattr(os, "fsync", sync)
    done = [
        line for line in manifest_path(out, folder=True).read_text().splitlines() if json.loads(line)["state"] == "done"
    ]
    again = bright()
    predict_files(again, folder, out, archive=AGAIN)
    assert len(seen(again)) == 4 - len(done) and len(seen(predictor)) < 4
    assert states(out).keys() == {"i0.npy", "i1.npy", "i2.npy", "i3.npy"}


def test_an_error_of_every_image_ends_the_archive(tmp_path: Path) -> None:
    folder = images(tmp_path / "in")
    for kind in (ConfigError, CheckpointError):

        def refuse(name: str, kind: type[Exception] = kind) -> None:
            raise kind("tile: too small")

        with pytest.raises(kind, match="tile: too small"):
            predict_files(bright(on_image=refuse), folder, tmp_path / "out", archive=SKIP)

    def fail(name: str) -> None:
        if name == "i1":
            raise MemoryError
        if name == "i2":
            raise ZeroDivisionError("division by zero")

    records: list[CaseRecord] = []
    predict_files(bright(on_image=fail), folder, tmp_path / "out", archive=SKIP, on_case=records.append)
    reasons = {record.file: record.reason for record in records if record.state == "failed"}
    assert "memory is used up" in reasons["i1.npy"] and "a bug in Convoxel: ZeroDivisionError" in reasons["i2.npy"]
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback where nothing goes on
        predict_files(bright(on_image=fail), folder / "i2.npy", tmp_path / "out")


@pytest.mark.parametrize("table", ["out", "out/t.json"])
def test_tables_lack_bad_files_and_are_gone_on_with(tmp_path: Path, table: str) -> None:
    folder, target = images(tmp_path / "in", 5), tmp_path / table
    whole, again = bright(task="classify"), bright(task="classify")
    (expected,) = predict_files(whole, folder, tmp_path / "whole" / ("t.json" if "." in table else ""))
    content = (folder / "i1.npy").read_bytes()
    (folder / "i1.npy").write_bytes(content[:-4])

    def fail(name: str) -> None:
        if name == "i3":
            raise DataError("i3 cannot be computed")

    (path,) = predict_files(bright(task="classify", on_image=fail), folder, target, archive=SKIP)
    kept = path.read_text()
    assert "i0.npy" in kept and "i4.npy" in kept and "i1.npy" not in kept and "i3.npy" not in kept
    assert Counter(states(path.parent).values()) == {"done": 3, "failed": 2}
    (folder / "i1.npy").write_bytes(content)
    path.write_text("edited")
    predict_files(again, folder, target, archive=AGAIN)
    assert seen(again) == ["i1", "i3"] and path.read_text() == expected.read_text()


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_parts_at_once_are_together_the_whole(tmp_path: Path, task: str) -> None:
    folder, out = images(tmp_path / "in", 7), tmp_path / "out"
    (folder / "i5.npy").write_bytes(b"none")
    predict_files(bright(task=task), folder, tmp_path / "whole", archive=SKIP)
    predictors = [bright(task=task) for _ in range(9)]

    def part(number: int) -> None:
        predict_files(predictors[number], folder, out, archive=ArchiveOptions("skip", part=(number + 1, 9)))

    threads = [threading.Thread(target=part, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for each in predictors for name in seen(each)) == [f"i{n}" for n in (0, 1, 2, 3, 4, 6)]
    assert all(len(seen(each)) <= 1 for each in predictors)
    assert states(out) == states(tmp_path / "whole") and maps(out) == maps(tmp_path / "whole")
    if task == "classify":
        assert (out / "predictions.csv").read_text() == (tmp_path / "whole/predictions.csv").read_text()


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    cases, _ = list_cases(images(tmp_path / "in", 5), tmp_path / "out", bright().run.data, maps=True)
    for count in (1, 2, 3, 5, 16):
        parts = [take_part(cases, (number, count)) for number in range(1, count + 1)]
        assert sorted((case for part in parts for case in part), key=lambda case: case.path) == cases
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(ConfigError, match=r"part: got .*expected a number from 1"):
            take_part(cases, wrong)
    assert predict_files(bright(), tmp_path / "in", tmp_path / "none", archive=ArchiveOptions(part=(16, 16))) == []
    assert not (tmp_path / "none").exists()


def test_the_time_left_follows_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index, length in enumerate((10, 30, 60)):
        np.save(folder / f"{index}.npy", np.zeros((10, length), np.float32))
    clock = [0.0]
    monkeypatch.setattr("convoxel.predict.archive.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def work(name: str) -> None:
        clock[0] += {"0": 50.0, "1": 3.0, "2": 6.0}[name]  # the first comes with what happens once

    moments: list[Progress] = []
    predict_files(bright(on_image=work), folder, tmp_path / "out", moments.append)
    found = [(m.step, m.fraction, m.time_left_s) for m in moments if m.phase == "predict"]
    # an image is done once it is written, meanwhile the next one is computed
    assert found == [(1, pytest.approx(0.4), pytest.approx(6.0)), (2, 1.0, 0.0), (3, 1.0, 0.0)]


def test_a_line_that_was_cut_stays_alone(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "list.jsonl")
    manifest.add([CaseRecord("a", "a.png", "done", key="1")])
    with manifest.path.open("ab") as file:
        file.write(b'{"file": "b", "state": "do')  # a process was killed here
    manifest.add([CaseRecord("c", "c.png", "failed", "wrong")])
    assert {record.file: record.state for record in manifest.read().values()} == {"a": "done", "c": "failed"}
    with hold_journal(manifest.path) as journal:
        journal.replace(["x"])
    with hold_journal(manifest.path) as journal:
        journal.append(["y"])
        assert list(journal.lines()) == [b"x\n", b"y\n"]
    assert not any(
        CaseRecord.from_json(line) for line in (b"[" * 100_000, b"3", b'{"state": "done", "row": {"a": []}}')
    )


def test_places_in_words() -> None:
    for wrong in ("slurm", "ray:", "rays", ""):
        with pytest.raises(ConfigError, match="on: got"):
            parse_place(wrong)


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:  # bound and not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no Ray cluster answers at {address}"):
            workers = RayWorkers(cast(Any, Bright), address)
            predict_files(bright(), images(tmp_path / "in"), tmp_path / "out", workers=workers)
    with pytest.raises(ConfigError, match="workers: got 0; expected at least 1"):
        RayWorkers(cast(Any, Bright), count=0)


class Deadly(Bright):
    """A predictor whose process dies at one image the first time, and at another every time."""

    def label_map(self, sample: data.Sample, *_: Any) -> Any:
        mark = Path(str(sample.source)).parent / f"{sample.name}.txt"
        if (sample.name == "i0" and not mark.exists()) or sample.name == "i1":
            mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
            os.kill(os.getpid(), 9)
        return super().label_map(sample)


def test_a_worker_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that a worker has begun beside a deadly one are computed alone; three processes in all."""
    pytest.importorskip("ray")
    monkeypatch.setattr("convoxel.predict.ray_workers._TRIES", 2)  # each takes a new process
    folder, out = images(tmp_path / "in", 6), tmp_path / "out"
    (folder / "i4.npy").write_bytes(b"none")
    records: list[CaseRecord] = []
    workers = RayWorkers(cast(Any, Deadly), count=2)
    predict_files(bright(), folder, out, archive=SKIP, on_case=records.append, workers=workers)
    assert states(out) == {
        "i0.npy": "done", "i1.npy": "failed", "i2.npy": "done", "i3.npy": "done", "i4.npy": "failed", "i5.npy": "done",
    }  # fmt: skip
    assert (folder / "i0.txt").read_text() == "x" and (folder / "i1.txt").read_text() == "x"
    assert "worker died 2 times" in next(record.reason for record in records if record.file == "i1.npy")
    predict_files(bright(), folder, tmp_path / "serial", archive=SKIP)
    assert maps(out) == {name: content for name, content in maps(tmp_path / "serial").items() if name != "i1.png"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # submitit leaves its logs open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_example_of_slurm_computes_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs run in this process, with a function in the place of the networks."""
    pytest.importorskip("submitit")
    path = Path(__file__).parents[2] / "examples" / "slurm_prediction.py"
    spec = importlib.util.spec_from_file_location("slurm_prediction", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    def compute(run: str, source: str, target: str, **options: Any) -> list[Path]:
        part, on_case = options.pop("part"), options.pop("on_case")
        assert options == {"on_error": "skip", "skip_existing": True} and run == str(tmp_path / "run")
        archive = ArchiveOptions(**options, part=part)
        return predict_files(bright(), Path(source), Path(target), archive=archive, on_case=on_case)

    monkeypatch.setattr("convoxel.train.predict", compute)
    where = tmp_path / "run", images(tmp_path / "in", 5), tmp_path / "out"
    jobs = example.submit(*where, parts=2, cpus=1, hours=0.1, cluster="debug", log=tmp_path / "log")
    assert [job.result() for job in jobs] == [{"done": 3}, {"done": 2}] and len(maps(tmp_path / "out")) == 5


def test_a_manifest_lies_beside_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In them only where it would be lost outside, as where a container's folder is mounted."""
    assert manifest_path(tmp_path / "a/labels", folder=True) == tmp_path / "a/labels.manifest.jsonl"
    assert manifest_path(tmp_path / "scan.nii.gz", folder=False) == tmp_path / "scan.manifest.jsonl"
    monkeypatch.chdir(tmp_path)
    assert manifest_path(Path(), folder=True) == tmp_path.with_name(tmp_path.name + ".manifest.jsonl")
    assert manifest_path(Path("/"), folder=True) == Path("/manifest.jsonl")
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    assert manifest_path(Path(), folder=True) == tmp_path / "manifest.jsonl"
