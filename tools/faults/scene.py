"""The files on which all cases work: small data sets, networks and trained runs, made once for each seed."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.faults.worker import run_forked

SHORT = ("--epochs", "1", "--threads", "1", "--set", "steps_per_epoch=2", "--set", "tensorboard=false")
CLASSIFY = ("train", "classify", "--data", "{images}", "--model", "course_vgg", "--width", "0.25", "--batch-size", "8",
            "--learning-rate", "0.001", *SHORT)  # fmt: skip
SEGMENT = ("train", "segment", "--data", "{volumes}", "--levels", "1", "--width", "4", "--patch", "8,8,8",
           "--batch-size", "1", "--validation", "1", *SHORT)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The folder of the files, the seed of everything drawn, and whether the whole is run."""

    folder: Path
    seed: int
    full: bool

    def path(self, name: str) -> Path:
        """Return where a file or folder of the scene lies; a run is trained when it is first asked for."""
        path = self.folder / name
        if name in _RUNS and not (path / "report.html").exists():
            shutil.rmtree(path, ignore_errors=True)
            words = self.words((*_RUNS[name], "--output", "{out}"), path)
            ended = run_forked(lambda: run_command(words))
            if ended.value is None or ended.value[0]:
                raise RuntimeError(f"the run {name} of the scene cannot be trained: {ended}")
        return path

    def words(self, words: Sequence[str], output: Path) -> list[str]:
        """Return the words of a command with the names of the scene's files and of its output filled in."""
        return [self._filled(word.replace("{out}", str(output))) for word in words]

    def _filled(self, word: str) -> str:
        for name in _NAMES:
            if f"{{{name}}}" in word:
                word = word.replace(f"{{{name}}}", str(self.path(name)))
        return word

    def warm(self) -> None:
        """Run some commands here, so that what they import is not imported again in every forked process."""
        with self.room("warm") as room:
            for words in (
                (*CLASSIFY, "--output", "{out}/run"),
                ("predict", "{out}/run", "--input", "{grey}", "--output", "{out}/p"),
                ("describe", "{net.onnx}", "--shape", "1,3,8,8", "--html", "{out}/a.html"),
                ("draw", "conv", "--size", "5x5", "--kernel", "3", "--png", "{out}/a.png"),
            ):
                code, said = run_command(self.words(words, room))
                if code:
                    raise RuntimeError(f"{' '.join(words)} fails without any fault: {said}")

    @contextlib.contextmanager
    def room(self, name: str) -> Iterator[Path]:
        """Yield a fresh folder for a case, which goes at the end."""
        folder = self.folder / "rooms" / f"{name}-{os.getpid()}"  # sweeps may run side by side
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_RUNS = {"classifier": CLASSIFY, "segmenter": SEGMENT}
_NAMES = ("images", "volumes", "grey", "net.onnx", "net.cvx", "x.npy", "classifier", "segmenter")


def build_scene(folder: Path, seed: int, *, full: bool) -> Scene:
    """Return the scene in ``folder``, whose files are made if they are not there."""
    scene = Scene(folder, seed, full)
    if (folder / "complete").exists():
        return scene
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    _write_images(scene, rng)
    _write_networks(scene, rng)
    (folder / "complete").touch()
    return scene


def _write_images(scene: Scene, rng: np.random.Generator) -> None:
    from convoxel import data

    for kind in ("a", "b"):
        (scene.path("images") / kind).mkdir(parents=True)
        for number in range(8):
            image = rng.integers(0, 255, (3, 8, 8)) // (1 + (kind == "b"))
            data.write_image(scene.path("images") / kind / f"{number}.png", image.astype(np.uint8))
    scene.path("grey").mkdir()
    for number in range(3):
        data.write_image(scene.path("grey") / f"{number}.png", rng.integers(0, 255, (3, 8, 8)).astype(np.uint8))
    for part in ("images", "labels"):
        (scene.path("volumes") / part).mkdir(parents=True)
    for number in range(3):
        label = np.zeros((12, 12, 12), np.uint8)
        label[3:8, 3:8, 3:8] = 1
        image = (label * 100 + rng.normal(0, 5, label.shape)).astype(np.float32)
        data.write_image(scene.path("volumes") / "images" / f"{number}.nii.gz", image[None])
        data.write_label(scene.path("volumes") / "labels" / f"{number}.nii.gz", label)


def _write_networks(scene: Scene, rng: np.random.Generator) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from convoxel.graph.load import load

    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((8, 3, 3, 3), (5, 8))]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("GlobalAveragePool", ["r"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("Gemm", ["f", "v"], ["y"], transB=1)]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, name) for array, name in zip(weights, "wv", strict=True)]
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), scene.path("net.onnx")
    )
    load(scene.path("net.onnx"), threads=1).save(scene.path("net.cvx"))
    np.save(scene.path("x.npy"), rng.standard_normal((1, 3, 16, 16)).astype(np.float32))


def run_command(words: Sequence[str]) -> tuple[int, str]:
    """Run a command line in this process and return its exit code and what it printed."""
    from convoxel.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(list(words))
    return code, said.getvalue()


def complaint(code: int, said: str) -> str:
    """Return what is wrong with how a command ended; empty if it succeeded or refused in words."""
    if "this is a bug in Convoxel" in said or "Traceback (most recent call last)" in said:
        return f"exit code {code}: {' '.join(said.split())[-300:]}"
    if code not in (0, 2, 3, 130, 141, 143):
        return f"exit code {code}: {' '.join(said.split())[-200:]}"
    return ""
