"""Whole networks beside other engines: the list, the engines and their processes, measurements, and the command."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import convoxel as cx
from convoxel import ConfigError, models
from convoxel.bench import engine, network_bench, network_list, network_run, worker
from convoxel.bench.clock import time_turn
from convoxel.bench.engine import ENGINES, Engine, Task, choose_engines, first_output
from convoxel.bench.network_bench import Measurement, NetworkResult, compare, measure_network
from convoxel.bench.network_files import NetworkFiles
from convoxel.bench.network_list import NETWORKS, Network, select_networks
from convoxel.bench.network_run import Plan, measure_networks
from convoxel.bench.network_table import write_tables
from convoxel.bench.plot import plot_results
from convoxel.bench.summary_table import geometric_means
from convoxel.bench.worker import Worker, WorkerFailed
from convoxel.cli import main
from tools import packages

SMALL = Network("tiny", "unet", 1, (16, 16), {"levels": 1, "width": 4, "num_classes": 2}, quick=True)


MACHINE = {"processor": "P", "instruction_set": "i", "bandwidth_bytes_per_s": 1e9, "versions": {"numpy": "2"}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> NetworkFiles:
    made = NetworkFiles(SMALL, 1, 1, tmp_path_factory.mktemp("files"))
    made.prepare()
    return made


@pytest.fixture
def task(files: NetworkFiles) -> Task:
    return files.task


# ---- the list --------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_networks_are_the_zoos() -> None:
    assert len({net.name for net in NETWORKS}) == len(NETWORKS) and {net.dims for net in NETWORKS} == {1, 2, 3}
    for net in NETWORKS:
        assert net.model in models.names()
        assert net.shape(8) == (8, net.channels, *net.size)
    assert str(NETWORKS[0]) == "alexnet 2-D 3x224"


def test_a_network_has_the_same_weights_every_time() -> None:
    first, second = SMALL.build(), SMALL.build()
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_network_may_be_built_by_any_function() -> None:
    net = Network("pool", "torch.nn:MaxPool2d", 3, (8, 8), {"kernel_size": 2})
    module = net.build()
    assert isinstance(module, torch.nn.MaxPool2d) and module.kernel_size == 2 and not module.training
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"):
        replace(net, model="nowhere:build").build()


def test_networks_are_chosen() -> None:
    names = [net.name for net in select_networks()]
    assert names == [net.name for net in NETWORKS if net.quick] and {"resnet50", "unet2d"} <= set(names)
    assert len(select_networks(every=True)) == len(NETWORKS)
    assert [net.name for net in select_networks(["unet*", "vgg16"])] == ["vgg16", "unet2d", "unet3d"]
    assert {net.dims for net in select_networks(dims=[1, 3])} == {1}, "no quick one has three"
    assert {net.name for net in select_networks(dims=[3])} == {"unet3d", "resnet18_3d"}
    with pytest.raises(ConfigError, match=r"networks: got 'vgg17'; expected some of alexnet, vgg16"):
        select_networks(["vgg17"])
    with pytest.raises(ConfigError, match="dims: got 3; these networks have 2"):
        select_networks(["vgg16"], [3])


# ---- engines and processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ENGINES if not name.startswith("torch.compile")])
def test_every_engine_computes_the_network(name: str, files: NetworkFiles) -> None:
    """torch.compile calls a C++ compiler for half a minute; its worker is the same."""
    for package in network_bench._needs(name):
        pytest.importorskip(package)
    chosen, threads = ENGINES[name], torch.get_num_threads()
    try:
        if name.startswith("convoxel"):
            found = files.compile(chosen.precision)
            assert found.compile_s > 0 and found.macs > 0
        elif chosen.file:
            files.write(chosen.file)
        y = worker._array(first_output(chosen.prepare(files.task)()))
    finally:
        torch.set_num_threads(threads)
    limit = {"float32": 1e-5, "high": 1e-4, "bfloat16": 0.05, "int8": 0.1}[chosen.precision]
    assert y.dtype == np.float32 and network_bench._distance(y, files.prepare()) < limit


def test_normalisations_have_seen_data_and_files_are_kept(tmp_path: Path) -> None:
    net = Network("plain", "resnet18", 3, (32,), {"width": 0.125})
    files = NetworkFiles(net, 2, 1, tmp_path)
    exact = files.prepare()
    model, x = files.task.build(), files.task.x
    seen, new = (dict(each.named_buffers()) for each in (model, net.build()))
    means = [name for name in new if name.endswith("running_mean")]
    assert means and all(not torch.equal(seen[name], new[name]) for name in means) and not model.training
    with torch.inference_mode():
        np.testing.assert_allclose(model(torch.from_numpy(x)).numpy(), exact, atol=1e-4)
    assert exact.dtype == np.float64 and x.shape == (2, 3, 32) and 0.01 < exact.std() < 100
    np.save(files.folder / "exact.npy", exact + 1)
    np.testing.assert_array_equal(NetworkFiles(net, 2, 1, tmp_path).prepare(), exact + 1)
    assert NetworkFiles(net, 1, 1, tmp_path).folder != files.folder


def test_engines_are_chosen() -> None:
    assert choose_engines(["float32"]) == [
        "convoxel", "pytorch-cl", "onnxruntime", "openvino", "openvino-installed",
    ]  # fmt: skip
    assert choose_engines(["bfloat16", "high"], []) == ["convoxel-high", "convoxel-bfloat16"]
    assert {"pytorch-bf16", "openvino-installed"} < set(choose_engines(["bfloat16"]))
    assert "openvino" not in choose_engines(["bfloat16"]) and "openvino-int8" in choose_engines(["int8"])
    everything = choose_engines(["float32", "high", "bfloat16", "int8"], ["all"])
    assert everything == list(ENGINES)
    with pytest.raises(ConfigError, match=r"precisions is 'low'"):
        choose_engines(["low"])
    with pytest.raises(ConfigError, match=r"peers is 'ort', but it can be 'all', 'pytorch'"):
        choose_engines(["high"], ["ort"])


def test_a_turn_is_made_of_back_to_back_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    calls = []

    def run() -> None:
        calls.append(now[0])
        now[0] += 0.03

    assert time_turn(run, 0.4) == pytest.approx(0.03)
    assert len(calls) == 4 + 14, "a tenth of a second untimed, then 0.4 s"
    calls.clear()
    assert time_turn(run, 0.001) == pytest.approx(0.03) and len(calls) == 2


def test_a_worker_answers_in_lines(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def prepare(given: Task) -> Any:
        assert given == task
        return lambda: calls.append(1) or np.ones(3, np.float32)

    monkeypatch.setattr(worker, "ENGINES", {"mine": Engine(prepare, ("json",))})
    words = {"engine": "mine", "network": asdict(SMALL), "folder": str(task.folder), "threads": 1}
    answers = io.StringIO()
    worker.serve(io.StringIO("\n".join(map(json.dumps, [words, {"turn_s": 1e-9}, "memory"])) + "\n"), answers)
    ready, sample, memory = map(json.loads, answers.getvalue().splitlines())
    assert ready["ready_s"] > 0 and sample["time_s"] > 0 and "peak_bytes" in memory
    assert len(calls) == 3, "the first result, an untimed run, a timed one"
    assert np.load(task.folder / "mine.npy").shape == (3,)

    monkeypatch.setattr(worker, "ENGINES", {"mine": Engine(lambda _: 1 / 0, ())})
    answers = io.StringIO()
    worker.serve(io.StringIO(json.dumps(words) + "\n"), answers)
    assert json.loads(answers.getvalue()) == {"error": "ZeroDivisionError: division by zero"}


def test_a_process_runs_times_and_measures_memory(tmp_path: Path) -> None:
    """The real thing, with our engine and a network of no list."""
    net = Network("conv", "torch.nn:Conv1d", 12, (64,), {"in_channels": 12, "out_channels": 4, "kernel_size": 3})
    made = Task(net, tmp_path, 1)
    program = cx.compile(net.build(), torch.zeros(1, 12, 64))
    program.save(tmp_path / "float32.cvx")
    x = np.ones((1, 12, 64), np.float32)
    np.save(tmp_path / "x.npy", x)
    started = Worker("convoxel", made)
    try:
        assert 0 < started(0.01) < 5 and 0 < started.ready_s < 60 and started.peak_bytes() > 0
        np.testing.assert_array_equal(np.load(tmp_path / "convoxel.npy"), program(x))
        theirs = Worker("pytorch", made)
        theirs.close()
        np.testing.assert_allclose(np.load(tmp_path / "pytorch.npy"), program(x), atol=1e-5)
    finally:
        started.close()
    assert started._process.returncode is not None
    (tmp_path / "float32.cvx").unlink()
    with pytest.raises(WorkerFailed, match=r"GraphError: .*float32\.cvx"):
        Worker("convoxel", made)
    with pytest.raises(WorkerFailed, match="no answer within 0 s"):
        Worker("convoxel", made, limit_s=0.01)


def test_a_process_finds_a_function_where_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And several results: the first is compared."""
    (tmp_path / "invented.py").write_text(
        "import torch\n\nclass Two(torch.nn.Module):\n    def forward(self, x):\n"
        "        return {'sum': [x + 1, x], 'twice': 2 * x}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    x = np.ones((1, 2, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    Worker("pytorch", Task(Network("two", "invented:Two", 2, (3,)), tmp_path, 1)).close()
    np.testing.assert_array_equal(np.load(tmp_path / "pytorch.npy"), x + 1)


def test_the_first_output_is_found() -> None:
    assert first_output(3) == 3 and first_output(([4, 5], 6)) == 4 and first_output({"b": (7,), "a": 8}) == 7


def test_a_process_that_dies_leaves_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; print('Killed by a bug', file=sys.stderr); sys.exit(3)"
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **more: real([sys.executable, "-c", code], **more))
    with pytest.raises(WorkerFailed, match="its process ended with 3: Killed by a bug"):
        Worker("convoxel", Task(SMALL, tmp_path, 1))


# ---- one network --------------------------------------------------------------------------------------------


class Fake:
    """A worker without a process: every engine takes its own time; some fail at once, late, or compute nonsense."""

    TIMES: ClassVar = {"convoxel": 1.0, "pytorch": 4.0, "onnxruntime": 2.0, "pytorch-cl": 0.1, "openvino": 3.0,
             "openvino-installed": 0.5, "convoxel-bfloat16": 0.25, "pytorch-bf16": 1.0}  # fmt: skip

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.ready_s, self.samples = name, 0.5, 0
        if name == "torch.compile":
            raise WorkerFailed("no compiler")
        started.append(name)
        y = np.load(task.folder / "exact.npy")
        wrong = {"openvino": 1.0, "openvino-installed": 1e-2}.get(name, 0)
        np.save(task.folder / f"{name}.npy", y * (1 + wrong))

    def __call__(self, turn_s: float) -> float:
        self.samples += 1
        if self.name == "pytorch-cl" and self.samples > 1:
            raise WorkerFailed("out of memory")
        return self.TIMES[self.name] * self.samples

    def peak_bytes(self) -> int:
        return {"convoxel": 3, "pytorch": 9}.get(self.name, 5) << 20

    def close(self) -> None:
        closed.append(self.name)


started: list[str] = []
closed: list[str] = []
ENOUGH = ["convoxel", "pytorch", "pytorch-cl", "torch.compile", "onnxruntime", "openvino", "openvino-installed"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_bench, "Worker", Fake)
    monkeypatch.setattr(network_bench, "lacking", lambda needs: ())
    monkeypatch.setattr(NetworkFiles, "write", lambda self, file: None)
    started.clear()
    closed.clear()


def test_failures_are_named_and_the_others_go_on(fake: None) -> None:
    steps: list[str] = []
    [found] = measure_network(SMALL, 2, 1, engines=ENOUGH, rounds=3, on_step=steps.append)
    assert steps[0] == "computing the exact result" and steps[-1] == "measuring" and "preparing openvino" in steps
    assert set(found.times) == {"convoxel", "pytorch", "onnxruntime"} and found.peers == ("pytorch", "onnxruntime")
    assert found.best_peer == "onnxruntime" and found.ratio == 2
    assert found.default_ratio == 0.5, "what users get, of whatever precision"
    assert found.measured["openvino-installed"].precision == "bfloat16"
    assert found.times["convoxel"] == {"median_s": 2.0, "min_s": 1.0, "max_s": 3.0} and found.own.spread == 1
    assert found.failed["torch.compile"] == "no compiler" and found.failed["pytorch-cl"] == "out of memory"
    assert "its result is off by 1.0e+00" in found.failed["openvino"] and len(found.failed) == 3
    assert set(closed) == set(ENOUGH) - {"torch.compile"}
    assert found.own.macs > 0 and found.flops == pytest.approx(found.own.macs) and found.own.compile_s > 0
    assert (found.group, found.label) == ("float32, batch 2, 1 thread", "tiny 2-D 1x16")
    row = json.loads(json.dumps(found.to_dict()))
    assert row["ms"] == {"convoxel": 2000, "pytorch": 8000, "onnxruntime": 4000} and row["ratio"] == 2
    assert row["peak_bytes"]["convoxel"] == 3 << 20 and row["shape"] == [2, 1, 16, 16]
    assert row["l2_errors"]["openvino"] == pytest.approx(1) and row["l2_errors"]["convoxel"] < 1e-6


def test_a_precision_is_compared_with_peers_of_its_class(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = ["convoxel", "convoxel-bfloat16", "pytorch", "pytorch-bf16", "openvino-installed"]
    float32, bfloat16 = measure_network(SMALL, 1, 1, precisions=["float32", "bfloat16"], engines=engines, rounds=1)
    assert float32.peers == ("pytorch",) and bfloat16.peers == ("pytorch-bf16", "openvino-installed")
    assert (float32.ratio, bfloat16.ratio) == (4, 2) and (float32.default_ratio, bfloat16.default_ratio) == (0.5, 2)
    assert bfloat16.own_peak_bytes == 5 << 20 and float32.least_peak_bytes == 9 << 20
    monkeypatch.setattr(network_bench, "_FLOAT32", 1.0)
    _, bfloat16 = measure_network(SMALL, 1, 1, precisions=["float32", "bfloat16"], engines=engines, rounds=1)
    assert bfloat16.peers == ("pytorch-bf16",), "a processor without bfloat16, where OpenVINO stays in float32"


def test_a_network_has_its_own_tolerance(fake: None) -> None:
    engines = ["convoxel", "openvino"]  # the latter is off by one
    [strict] = measure_network(SMALL, 1, 1, rounds=1, engines=engines)
    [loose] = measure_network(replace(SMALL, tolerance=1e3), 1, 1, rounds=1, engines=engines)
    assert "openvino" in strict.failed and "openvino" in loose.times and not loose.failed


def test_what_cannot_be_compiled_is_named(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: NetworkFiles, precision: str, **settings: Any) -> None:
        raise cx.UnsupportedError("no\nsuch layer")

    monkeypatch.setattr(NetworkFiles, "compile", refuse)
    [found] = measure_network(SMALL, 1, 1, rounds=1, engines=["convoxel", "pytorch"])
    assert not found.ran and found.failed == {"convoxel": "no such layer"} and found.ratio is None


def made_result(net: Network, times: dict[str, float], precision: str = "float32", **more: Any) -> NetworkResult:
    failed = more.pop("failed", {})
    settings: dict[str, Any] = {"network": net.name, "batch": 1, "threads": 1, "ceiling": 1e9, "macs": 10, **more}
    settings = {"l2_error": 1e-6, "compile_s": 1.0, "peak_bytes": 1 << 20, "load": (0.5, 1.5), **settings}
    measured = [
        Measurement(engine=name, precision=ENGINES[name].precision, turns_s=(time_s,), **settings)
        for name, time_s in times.items()
    ]
    measured += [
        Measurement(engine=name, precision=ENGINES[name].precision, failed=reason, **settings)
        for name, reason in failed.items()
    ]
    [found] = compare(net, measured, [precision])
    return found


def comparison(name: str, ratio: float, batch: int = 1, ran: bool = True, threads: int = 2) -> NetworkResult:
    net = next(net for net in NETWORKS if net.name == name)
    times = {"convoxel": 1.0, "openvino": ratio} if ran else {"openvino": ratio}
    failed = {} if ran else {"convoxel": "a bug"}
    return made_result(net, times, batch=batch, threads=threads, failed=failed)


def test_means_leave_out_what_we_could_not_run() -> None:
    results = [
        comparison("vgg16", 2.0),
        comparison("unet3d", 8.0),
        comparison("vgg16", 0.5, 8),
        comparison("unet2d", 9, ran=False),
    ]
    means = geometric_means([(each.group, each) for each in results])
    assert [(mean.name, mean.ratio, mean.count) for mean in means] == [
        ("float32, batch 1, 2 threads", pytest.approx(4), 2),
        ("float32, batch 8, 2 threads", 0.5, 1),
    ]
    assert results[3].ratio is None and results[3].to_dict()["gflops"] is None


def test_tables_name_means_and_the_least_row() -> None:
    results = [comparison("vgg16", 2.0), comparison("unet3d", 8.0), comparison("unet2d", 9, ran=False)]
    text = write_tables([*results, comparison("vgg16", 1.5, threads=1)], MACHINE)
    tables = [part.splitlines() for part in text.split("\n\n")]
    assert tables[0][0].startswith("Milliseconds of one input, batch 1, 2 threads; speed by")
    assert tables[1] == [
        "| network | convoxel | openvino | float32 / float32 peers | float32 / installed |",
        "| --- | --- | --- | --- | --- |",
        "| vgg16 | 1e+03 | 2e+03 | 2.00× | – |",
        "| unet3d | 1e+03 | 8e+03 | 8.00× | – |",
        "| unet2d | – | 9e+03 | – | – |",
        "| geometric mean |  |  | 4.00× | – |",
        "| least |  |  | 2.00× (vgg16) | – |",
    ]
    assert tables[3][2] == "| vgg16 | 1e-06; 1 | 1e-06; 1 |" and tables[3][4].startswith("| unet2d | 1e-06 |")
    assert "| vgg16, batch 1, 2 | 50 % | 38 % |" in text
    assert "ceiling of fused multiply-adds in float32 1 to 1 GFLOP/s" in text and "load 0.5 to 1.5" in text
    assert text.endswith("Not counted: unet2d, convoxel: a bug.\n")


# ---- many networks -------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_stopped(fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan([SMALL], batches=(1, 2), peers=["pytorch"], rounds=2)
    first = next(iter(measure_networks(plan, tmp_path)))
    assert started == ["convoxel", "pytorch"]
    steps: list[tuple[int, int]] = []
    found = list(measure_networks(plan, tmp_path, lambda done, total, text: steps.append((done, total))))
    assert started == ["convoxel", "pytorch"] * 2 and found[0] == first and found[1][0].batch == 2
    assert set(steps) == {(1, 2)}
    list(measure_networks(replace(plan, peers=["pytorch", "onnxruntime"]), tmp_path))
    assert started[4:] == ["onnxruntime"] * 2, "only what is new"
    list(measure_networks(replace(plan, rounds=1), tmp_path))
    assert started[6:] == ["convoxel", "pytorch"] * 2, "figures of other settings are not comparable"
    list(measure_networks(replace(plan, rounds=1)))
    assert len(started) == 14, "nothing is kept without a folder"
    lines = tmp_path / "measurements.jsonl"
    assert len(lines.read_text().splitlines()) == 10 and json.loads(lines.read_text().splitlines()[0])["time"]
    lines.write_text(lines.read_text() + '{"time": 1}\n')
    with pytest.raises(cx.DataError, match=r"measurements\.jsonl: line 11 is no measurement"):
        list(measure_networks(plan, tmp_path))


def test_versions_and_limits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_run, "_onednn_of_openvino", lambda: "3.9")
    found = network_run.describe_run(1)
    assert found["versions"]["oneDNN"]["openvino"] == "3.9" and found["versions"]["oneDNN"]["torch"].count(".") >= 1
    assert found["versions"]["numpy"] == np.__version__ and found["bandwidth_bytes_per_s"] > 0
    json.dumps(found)


def test_a_picture_shows_every_network(tmp_path: Path) -> None:
    plot_results([comparison("vgg16", 2.0), comparison("unet3d", 8.0)], tmp_path / "a.svg", "Networks")
    text = (tmp_path / "a.svg").read_text()
    assert "unet3d 3-D 1x64" in text and "float32, batch 1, 2 threads   4.00×" in text


# ---- the command -----------------------------------------------------------------------------------------


def test_bench_networks_measures_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: None
) -> None:
    monkeypatch.setattr(network_list, "NETWORKS", (SMALL,))
    monkeypatch.setattr(network_run, "describe_run", lambda threads: MACHINE)
    words = ["bench", "networks", "tiny", "--batch", "1,2", "--threads", "1", "--rounds", "1", "--work", str(tmp_path)]
    words += ["--precisions", "float32,bfloat16", "--peers", "pytorch,torch.compile,pytorch-bf16"]
    outputs = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md"), "--plot"]
    assert main([*words, *outputs, str(tmp_path / "a.svg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["network", "precision", "batch", "threads"]
    assert (
        lines[1].startswith("tiny 2-D 1x16             float32") and "4.00x" in lines[1] and "torch 4e+03" in lines[1]
    )
    assert lines[2].startswith("tiny 2-D 1x16             bfloat16") and "16.00x" in lines[2]
    assert "  compiled failed: no compiler" in lines
    assert any(line.startswith("float32, batch 1, 1 thread") and "4.00×" in line for line in lines)
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["batch"] for row in written["rows"]] == [1, 1, 2, 2] and written["machine"]["processor"]
    assert (tmp_path / "a.svg").exists() and "| tiny | 1e+03 |" in (tmp_path / "a.md").read_text()


def test_bench_networks_shows_when_ours_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = made_result(SMALL, {"pytorch": 1.0}, failed={"convoxel": "a bug"})
    monkeypatch.setattr(network_run, "measure_networks", lambda *_: iter([[failed]]))
    monkeypatch.setattr(network_run, "describe_run", lambda threads: MACHINE)
    monkeypatch.setattr(network_list, "NETWORKS", (SMALL,))
    assert main(["bench", "networks"]) == 0
    shown = capsys.readouterr().out
    assert "failed" in shown.splitlines()[1] and "  ours failed: a bug" in shown


def test_bench_networks_refuses_before_it_measures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(network_run, "measure_networks", never)
    cases = {
        ("vgg17",): "networks: got 'vgg17'; expected some of",
        ("--dims", "4"): "dims: got '4'; expected whole numbers from 1 to 3",
        ("--batch", "0"): "batch: got '0'; expected whole numbers from 1 on",
        ("--batch", ","): "batch: got ','; expected whole numbers",
        ("--threads", "two"): "threads: got 'two'; expected whole numbers",
        ("--precisions", "half"): "precisions is 'half', but it can be",
        ("--peers", "ort"): "peers is 'ort', but it can be",
        ("--markdown", str(tmp_path / "no" / "a.md")): "there is no folder",
        ("--plot", str(tmp_path / "a.pdf")): "ends in .png or .svg",
        ("--json", str(tmp_path / "no" / "a.json")): "there is no folder",
    }
    for words, part in cases.items():
        assert main(["bench", "networks", *words]) == 2
        line = capsys.readouterr().err
        assert part in line and line.count("\n") == 1, line


def test_absent_engines_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        network_bench, "lacking", lambda needs: tuple(name for name in needs if name in ("openvino", "onnx"))
    )
    assert network_bench.missing_engines() == ["onnx", "openvino"]
    assert network_bench.missing_engines(["convoxel", "pytorch"]) == []


def test_the_script_is_the_command() -> None:
    script = Path(__file__).resolve().parents[2] / "bench" / "networks.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "Example: convoxel bench networks" in done.stdout
    assert engine.ENGINES.keys() >= {"convoxel", "torch.compile"}


# ---- networks of other packages --------------------------------------------------------------------------


def test_the_sample_is_of_the_lists() -> None:
    names = {f"timm/{entry.partition(':')[0]}" for entry in packages.TIMM}
    names |= {f"monai/{name}" for name in packages.MONAI}
    names |= {f"smp/{kind.lower()}-{encoder}" for kind, encoders in packages.SMP.items() for encoder in encoders}
    assert names > packages.SAMPLE
    counts = [sum(name.startswith(f"{package}/") for name in packages.SAMPLE) for package in packages.PACKAGES]
    assert counts == [40, 10, 8]


def test_a_network_of_a_package_is_built_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    case = packages.Case("mine/conv", lambda: torch.nn.Conv2d(3, 4, 3))
    monkeypatch.setitem(packages.PACKAGES, "mine", lambda: iter([case]))
    net = Network("mine/conv", "tools.packages:build", 3, (8, 8), {"name": "mine/conv"})
    first, second = net.build(), net.build()
    assert not first.training and torch.equal(first.weight, second.weight)


def test_speed_is_kept_after_every_network(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = {"timm/a": 2.0, "timm/b": 0.5, "smp/c": 3.0}
    measured = []

    def measure(net: Network, batch: int, threads: int, **settings: Any) -> list[NetworkResult]:
        measured.append(net.name)
        assert (net.model, net.options, net.size, batch) == ("tools.packages:build", {"name": net.name}, (224, 224), 1)
        assert settings["rounds"] == 5 and settings["engines"][1:] == ["openvino"]
        if net.name == "smp/stop":
            raise KeyboardInterrupt
        if net.name not in ratios:
            raise ValueError("no\nsuch layer")
        times = {settings["engines"][0]: 1.0, "openvino": ratios[net.name]}
        failed = {"onnxruntime": "no export"}
        return [made_result(net, times, *settings["precisions"], threads=2, failed=failed)]

    monkeypatch.setattr(packages, "measure_network", measure)
    cases = [packages.Case(name, torch.nn.Identity) for name in (*ratios, "timm/odd")]
    settings = packages.Settings(["convoxel", "openvino"], "float32", 2, 5)
    path = tmp_path / "a.json"
    packages.keep({"name": "timm/b", "state": "ok"}, path)
    assert packages.measure_all(cases[:2], settings, path) == 0
    assert packages.measure_all(cases, settings, path) == 1
    assert measured == ["timm/a", "timm/b", "smp/c", "timm/odd"], "none of them twice"
    rows = packages.read(path)
    assert list(rows) == ["timm/b", "timm/a", "smp/c"] and rows["timm/b"]["state"] == "ok"
    assert rows["smp/c"]["speed"]["ratio"] == 3 and json.loads(path.read_text())["machine"]["processor"]
    lines = capsys.readouterr().out.splitlines()[-17:]
    assert "2.00x  openvino" in lines[0] and lines[0].endswith("(from the file)")
    assert lines[1].strip() == "onnxruntime failed: no export" and "0.50x! openvino" in lines[2]
    assert "timm/odd" in lines[6] and lines[6].endswith("not measured: ValueError: no such layer")
    assert [line.split() for line in lines[9:12]] == [
        ["all", "1.44x", "0.50x", "3"], ["timm", "1.00x", "0.50x", "2"], ["smp", "3.00x", "3.00x", "1"],
    ]  # fmt: skip
    assert lines[-1].split() == ["3.00x", "smp/c", "(openvino)"]
    stopping = [packages.Case(name, torch.nn.Identity) for name in ("timm/a", "smp/stop", "smp/c")]
    assert packages.measure_all(stopping, settings, path) == 1
    shown = capsys.readouterr().out
    assert "smp/stop" in shown and "interrupted" in shown and "smp/c" not in shown and "geometric mean" in shown
    other = packages.Settings(["convoxel-high", "openvino"], "high", 2, 5)
    packages.measure_all(cases[:1], other, path)
    assert measured[-1] == "timm/a" and packages.read(path)["timm/a"]["speed"]["settings"]["precision"] == "high"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--speed --peers ort", "got ort; expected some of pytorch"),
        ("--speed --precision low", "invalid choice: 'low'"),
        ("--speed --rounds 0", "got --rounds 0 and --threads 3; expected 1 or more"),
        ("nothing*", "no network is called nothing*; --list shows"),
        ("--json {}/no/a.json", "there is no folder"),
        ("--json {}/list.json", "does not hold figures that --json wrote"),
    ],
)
def test_wrong_options_are_refused(
    words: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.setattr(packages, "PACKAGES", {"mine": lambda: iter([packages.Case("mine/a", torch.nn.Identity)])})
    monkeypatch.setattr(sys, "argv", ["packages.py", "--threads", "3", *words.format(tmp_path).split()])
    with pytest.raises(SystemExit, match="2"):
        packages.main()
    assert part in capsys.readouterr().err


def test_peers_are_chosen() -> None:
    assert packages.find_engines("high", packages.parse_peers("openvino,torch.compile")) == [
        "convoxel-high", "torch.compile", "openvino",
    ]  # fmt: skip
    assert {"pytorch", "pytorch-cl", "openvino"} < set(packages.find_engines("float32", None))
