"""Programs, files and runs as models that are served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.data import Sample
from convoxel.errors import ConfigError
from convoxel.graph.run.program import Program
from convoxel.predict.inference import build_predictor
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.serve.opening import OpeningOptions, of_predictor, of_program, open_models
from convoxel.train import TrainConfig
from convoxel.web.request import Refusal
from tests.support.onnx_model import model, node
from tests.support.server import Served, serving, tensor

Y = frozenset({"y"})


class Net(nn.Module):
    """Two results under names, one of them of whole numbers."""

    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        self.conv, self.mixes = nn.Conv2d(2, 3, 3, padding=1), mixes

    def forward(self, x: Any) -> dict[str, Any]:
        y = self.conv(x)
        y = y - y.mean(0, keepdim=True) if self.mixes else y
        return {"y": y, "label": y.argmax(1)}


def program(mixes: bool = False) -> Program:
    torch.manual_seed(0)
    return cx.compile(Net(mixes).eval(), torch.zeros(2, 2, 8, 8))


def test_a_program_is_a_model_of_its_own_tensors() -> None:
    compiled = program()
    found = of_program("net", compiled)
    assert [str(each) for each in (*found.inputs, *found.outputs)] == [
        "x FP32 [-1, 2, -1, -1]", "y FP32 [-1, 3, -1, -1]", "label INT64 [-1, -1, -1]",
    ]  # fmt: skip
    x = np.random.default_rng(0).standard_normal((3, 2, 9, 7), np.float32)
    results, expected = found.compute([x], frozenset({"y", "label"})), compiled(x)
    assert found.joins and found.apart([x])
    assert all(np.array_equal(results[name], expected[name]) for name in ("y", "label"))
    assert found.compute([x[:0]], Y)["y"].shape == (0, 3, 9, 7)
    assert not of_program("net", program(mixes=True)).apart([x])


def test_what_takes_too_much_memory_is_refused_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_program("net", program())
    monkeypatch.setattr("convoxel.serve.opening._ALWAYS_BYTES", 0)
    monkeypatch.setattr("convoxel.serve.opening.free_memory", lambda: 2**20)
    with pytest.raises(Refusal, match=r"net: inputs of shape \[1, 2, 300, 300\] take .*expected at most 50%") as caught:
        found.compute([np.zeros((1, 2, 300, 300), np.float32)], Y)
    assert caught.value.status == 413
    assert found.compute([np.zeros((1, 2, 8, 8), np.float32)], Y)["y"].shape == (1, 3, 8, 8)


def test_words_name_models(tmp_path: Path) -> None:
    program().save(tmp_path / "a net.cvx")
    (tmp_path / "other.onnx").write_bytes(model([node("Relu", "x", "scores")], outputs="scores").SerializeToString())
    found = open_models([f"{tmp_path}/a net.cvx", f"second={tmp_path}/other.onnx"])
    assert list(found) == ["a_net", "second"] and found["second"].outputs[0].name == "scores"
    (tmp_path / "a net.cvx").write_bytes(b"")  # its weights are in memory
    assert found["a_net"].compute([np.zeros((1, 2, 8, 8), np.float32)], Y)["y"].shape == (1, 3, 8, 8)
    for words, told in (
        ([], "nothing to serve"),
        ([f"{tmp_path}/other.onnx", f"other={tmp_path}/other.onnx"], "two models are named 'other'"),
        ([f"a/b={tmp_path}/other.onnx"], "names a model 'a/b'"),
        (["=x"], "names a model ''"),
        (["x="], "names a model"),
        (["resnet"], "resnet"),
    ):
        with pytest.raises(ConfigError, match=told):
            open_models(words)
    with pytest.raises(ConfigError, match=r"weights: .* given, but .*other.onnx has weights of its own"):
        open_models([f"{tmp_path}/other.onnx"], OpeningOptions(weights=tmp_path))


class Brightness(nn.Module):
    """Of each voxel, or of a whole image, twice its value for the second class."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3)) if self.whole else x
        return torch.cat([x * 0, x * 2], 1)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_a_run_takes_images_as_they_are_stored(task: str) -> None:
    config = TrainConfig.build(task=task, data="d", output="o")
    facts = DataFacts(("dark", "bright"), 2, 1, Normalisation("dataset", (100.0,), (50.0,)), (1.0, 2.0), "", "drawn")
    predictor = build_predictor(TrainedRun(Brightness(task == "classify").eval(), config, facts, 0), engine="convoxel")
    found = of_predictor("run", predictor)
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 12, 9)).astype(np.uint8)
    samples = [Sample(name="x", image=image.astype(np.float32)) for image in images]
    assert str(found.inputs[0]) == "image FP32 [-1, 1, -1, -1]" and "1" in found.notes["image"]
    with serving(found) as served:
        asked = {"inputs": [tensor(images, "image", "UINT8")]}
        results = {each["name"]: each for each in served.infer("run", asked).json["outputs"]}
        shares = np.reshape(results["probabilities"]["data"], results["probabilities"]["shape"])
        if task == "classify":
            assert np.array_equal(shares.astype(np.float32), predictor.shares(samples).astype(np.float32))
            asked["outputs"] = [{"name": "probabilities", "parameters": {"classification": 1}}]
            named = served.infer("run", asked).json["outputs"][0]["data"]
            best = np.argmax(shares, 1)
            assert [text.split(":")[1:] for text in named] == [[str(each), facts.classes[each]] for each in best]
        else:
            labels = np.reshape(results["labels"]["data"], results["labels"]["shape"])
            assert np.array_equal(labels, [predictor.label_map(sample) for sample in samples])
            assert np.array_equal(labels, images[:, 0] > 100) and np.array_equal(shares.argmax(1), labels)
        assert served.infer("run", {"inputs": [tensor(images[:0], "image", "UINT8")]}).status == 400


def started(path: Path, port: int = 0, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A process of ``convoxel serve``, and its port."""
    command = [sys.executable, "-m", "convoxel", "serve", str(path), "--port", str(port), *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:") and "x FP32 [-1, 2, -1, -1] → y FP32" in line and "float32" in line
    return process, int(line.split(":")[2].split("/")[0])


def test_a_process_that_is_killed_starts_again_at_its_port_and_ends_cleanly(tmp_path: Path) -> None:
    program().save(tmp_path / "net.cvx")
    asked = {"inputs": [tensor(np.ones((1, 2, 8, 8), np.float32))]}
    process, port = started(tmp_path / "net.cvx")
    ask = Served(port, None)  # type: ignore[arg-type]
    first = ask.infer("net", asked)
    assert first.status == 200
    process.kill()
    process.communicate()
    process, again = started(tmp_path / "net.cvx", port)
    assert again == port and ask.infer("net", asked).body == first.body
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert errors.strip() == "Ctrl-C or SIGTERM ends it after the requests that are there."
