"""The program of a run: compiled once and kept, equal bit for bit to a new one, and never that of another network."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoxel as cx
from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.graph.compile import compile as compile_model
from convoxel.graph.quantise import Quantisation
from convoxel.interchange import export_network
from convoxel.predict import compiled_network, torch_network
from convoxel.train import TrainConfig, fit, load_model, run_quantisation
from convoxel.train.checkpoint import Store
from convoxel.train.run_folder import load_members, load_predictor
from convoxel.train.run_quantisation import quantise_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(3):
        label = np.zeros((9, 10, 7), np.uint8)
        label[:, : 3 + index] = 1
        image = label * 100 + np.random.default_rng(index).normal(0, 3, label.shape)
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"images/v{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / f"labels/v{index}.nii.gz")
    config = TrainConfig.build(
        task="segment", data=str(folder), output=str(folder / "run"), levels=1, width=4, patch=(8, 8, 8), epochs=2,
        steps_per_epoch=2, validation=1, threads=1, tensorboard=False,
    )  # fmt: skip
    fit(config)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.rmtree(trained / "compiled", ignore_errors=True)
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The precisions that networks were compiled with."""
    made: list[str | None] = []
    compiled = torch_network.compiled

    def counted(model: object, shape: tuple[int, ...], precision: str | None = None) -> object:
        made.append(precision)
        return compiled(model, shape, precision)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_network, "compiled", counted)
    return made


TILES = np.random.default_rng(5).normal(0, 1, (2, 1, 8, 12, 8)).astype(np.float32)


def scores(run: Path, precision: str = "float32", which: str = "best") -> bytes:
    """The bits of the network's logits, in a process that has just loaded it."""
    return load_predictor(run, precision=precision, which=which).members[0].call(TILES).tobytes()


def programs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.cvx"))


def test_a_program_is_compiled_once_and_stays_the_same(run: Path, compilations: list[str | None]) -> None:
    first = scores(run)
    assert [scores(run), scores(run)] == [first, first] and compilations == ["float32"]
    assert [path.parent for path in programs(run)] == [run / "compiled"]
    # Another precision and another checkpoint have programs of their own, which leave this one alone.
    scores(run, "bfloat16")
    scores(run, which="last")
    assert compilations == ["float32", "bfloat16", "float32"] and len(programs(run)) == 3
    assert scores(run) == first and len(compilations) == 3


def test_a_kept_program_does_not_load_the_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(run)
    (member,) = load_members(run).values()
    sizes = compiled_network.compile_run(load_model(run)).sizes
    monkeypatch.setattr(type(member.source), "network", property(lambda self: pytest.fail("the network was loaded")))
    assert compiled_network.compile_run(member).sizes == sizes


def test_a_program_of_another_network_is_not_used(run: Path, compilations: list[str | None]) -> None:
    other = scores(run)
    store = Store(run)
    before = store.load_best()
    store.save_best({name: tensor * 2 for name, tensor in before.tensors.items()}, before.body)  # training went on
    found = scores(run)
    assert len(compilations) == 2 and found != other and found == scores(run)
    assert len(programs(run)) == 1  # in place of the one before
    store.save_best(before.tensors, before.body)
    assert scores(run) == other


@pytest.mark.parametrize("content", [b"", b"{}", b"torn"])
def test_a_damaged_program_is_made_anew(run: Path, content: bytes, compilations: list[str | None]) -> None:
    first = scores(run)
    (path,) = programs(run)
    whole = path.read_bytes()
    if content == b"torn":
        content = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    path.write_bytes(content)
    assert scores(run) == first and len(compilations) == 2
    assert path.read_bytes() == whole  # and what is written twice is equal, whoever comes last


def test_where_a_run_cannot_be_written_the_cache_folder_keeps_its_programs(
    run: Path, tmp_path: Path, compilations: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "compiled").write_text("a file where the folder would be")
    first = scores(run)
    assert scores(run) == first and len(compilations) == 2  # without a cache folder nothing is kept
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled_network, "_MOST_CACHED", 1)
    assert [scores(run), scores(run)] == [first, first] and len(compilations) == 3
    scores(run, "bfloat16")
    assert [path.name.split("-")[1] for path in programs(tmp_path / "cache")] == ["bfloat16"]  # the oldest one is gone


def test_a_full_disk_does_not_stop_a_prediction(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ConvoxelError("no space left")

    monkeypatch.setattr("convoxel.graph.run.program.write_program", full)
    assert scores(run) == scores(run) and programs(run) == []


def test_networks_without_a_run_keep_nothing(run: Path, compilations: list[str | None]) -> None:
    model = load_model(run)
    changed = dataclasses.replace(model, source=model.network)  # its weights may be any by now
    for _ in range(2):
        compiled_network.compile_run(changed)
    assert len(compilations) == 2 and programs(run) == []


PREDICT = """
import sys
from convoxel.cli import main
for number, (run, image, output) in enumerate(zip(*[iter(sys.argv[1:])] * 3)):
    assert main(["predict", run, "--input", image, "--output", output, "--json"]) in (0, None), run
slow = {"torch", "sympy", "sklearn", "scipy.ndimage", "monai", "matplotlib", "pandas", "ray", "onnx", "h5py"}
sys.exit(f"imported: {sorted(slow & set(sys.modules))}" if slow & set(sys.modules) else 0)
"""


def test_a_prediction_with_a_kept_program_imports_no_large_library(run: Path, tmp_path: Path) -> None:
    """To segment a volume, and to classify a picture, of a size that the network has not seen."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 12), np.uint8)
    for index, plane in enumerate(pixels):
        (tmp_path / f"set/{'ab'[index % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(plane // (1 + index % 2)).save(tmp_path / f"set/{'ab'[index % 2]}/{index}.png")
    fit(TrainConfig.build(
        task="classify", data=str(tmp_path / "set"), output=str(tmp_path / "classifier"), width=0.1, epochs=1,
        threads=1, batch_size=4, validation=0.25, tensorboard=False,
    ))  # fmt: skip
    Image.fromarray(np.tile(pixels[0], (3, 4))).save(tmp_path / "large.png")
    calls = []
    for network, image, output in (
        (run, run.parent / "v.nii.gz", "v_labels.nii.gz"),
        (tmp_path / "classifier", tmp_path / "large.png", "classes.csv"),
    ):
        load_predictor(network)
        calls += [str(network), str(image), str(tmp_path / output)]
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 10, 7), np.float32), np.eye(4)), run.parent / "v.nii.gz")
    done = subprocess.run([sys.executable, "-c", PREDICT, *calls], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "v_labels.nii.gz").is_file() and "large.png" in (tmp_path / "classes.csv").read_text()


def test_a_quantised_program_is_kept_and_used_where_it_is_asked_for(run: Path) -> None:
    with pytest.raises(ConfigError, match="convoxel quantise"):
        load_predictor(run, precision="int8")
    wanted = np.frombuffer(scores(run), np.float32)
    program, kept = quantise_run(run, only_faster=False, max_loss=1, images=2, output=run / "net.cvx")
    record = Quantisation.of(program)
    assert record is not None and record.metric == "mean Dice" and len(record.layers) == record.count > 2
    assert 0 <= record.before <= 1 and kept == next((run / "compiled").glob("best-int8-*.cvx"))
    found = np.frombuffer(scores(run, "int8"), np.float32)
    assert 0 < np.linalg.norm(found - wanted) <= 0.5 * np.linalg.norm(wanted)  # of noise, unlike the images
    assert scores(run) == wanted.tobytes() and (run / "net.cvx").is_file()
    predictor = load_predictor(run, precision="int8")
    assert predictor.precision.startswith("int8 ") and predictor.recipe != load_predictor(run).recipe
    with pytest.raises(ConfigError, match="engine='torch'"):
        load_predictor(run, precision="int8", engine="torch")
    with pytest.raises(ConfigError, match="images: got 0"):
        quantise_run(run, images=0)


def test_the_command_prints_the_loss_and_refuses_what_exceeds_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["quantise", str(run), "--all", "--max-loss", "1", "--images", "1", "--method", "minmax"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "mean Dice" in told and "a loss of" in told and "best-int8-" in told
    figures = iter([0.9, *[0.1] * 99])
    fall = lambda *given: SimpleNamespace(metrics=lambda: {"metric": next(figures)})  # noqa: E731
    monkeypatch.setattr(run_quantisation, "evaluate_samples", fall)
    assert main([*command[:3], "--max-loss", "0.2"]) == 2
    assert "0.9000 to 0.1000" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["inputs", "classes"])
def test_other_networks_are_quantised_with_inputs_from_a_file(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(8).standard_normal((3, 1, 16, 16)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    program = compile_model(net, x)
    program.save(tmp_path / "net.cvx")
    if case == "inputs":
        np.save(tmp_path / "data.npy", x)
    else:
        np.savez(tmp_path / "data.npz", x=x, y=program(x).argmax(axis=1))
    data = next(tmp_path.glob("data.*"))
    words = [str(tmp_path / "net.cvx"), "--data", str(data), "--output", str(tmp_path / "q.cvx")]
    assert main(["quantise", *words, "--all", "--max-loss", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metric"] == ("accuracy" if case == "classes" else "agreement with float32")
    assert told["before"] == 1 and len(told["layers"]) == 2
    assert main(["run", str(tmp_path / "q.cvx"), "--input", str(tmp_path / "x.npy")]) == 2
    assert main(["quantise", words[0], "--output", words[-1]]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_run_is_exported_with_what_its_numbers_mean(trained: Path, tmp_path: Path) -> None:
    found = export_network(str(trained), tmp_path / "net.onnx")
    model = load_model(trained)
    assert found.inputs == {"x": ("n", 1, "d", "h", "w")} and found.outputs == {"output": ("n", 2, "d", "h", "w")}
    told = {name.removeprefix("convoxel."): json.loads(text) for name, text in found.metadata.items()}
    assert told["task"] == "segment" and told["patch"] == [8, 8, 8] and told["spacing_mm"] == [1.0, 1.0, 1.0]
    assert told["classes"] == told["outputs"] == list(model.data.classes) and told["channels"] == 1
    assert told["normalisation"] == json.loads(json.dumps(dataclasses.asdict(model.data.normalisation)))
    run: Any = cx.load(tmp_path / "net.onnx")
    with torch.no_grad():
        expected = model.network(torch.from_numpy(TILES)).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(run(TILES), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match=r"export: net\.cvx ends in '\.cvx'; expected \.onnx"):
        export_network(str(trained), "net.cvx")


def test_a_new_program_is_held_once_as_one_that_was_kept(run: Path) -> None:
    members = load_members(run)
    source = next(iter(members.values())).source
    first = compiled_network.compile_run(next(iter(members.values())))
    assert first.program.notes["weights"] == "compact", "it should be that of the file, whose weights are mapped"
    assert not source.is_loaded, "the PyTorch network should be given back"
    held = load_model(run)
    shutil.rmtree(run / "compiled")
    network = held.network
    compiled_network.compile_run(held)
    assert held.network is network, "a network that the caller holds stays as it is"
