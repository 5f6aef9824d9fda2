"""libconvoxel, linked from the objects of the usual build: the examples in C and C++ give Python's numbers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx
from tests.support.c_api import Network, library

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built examples; CONVOXEL_LIBRARY names the output of ``tools/library.sh`` if it is there."""
    known = os.environ.get("CONVOXEL_LIBRARY")
    if known:
        return Path(known) / "examples"
    if not any(ROOT.glob("build/cp*/CMakeFiles/engine.dir/csrc/*.o")):
        pytest.skip("there is no build of the engine to link (make setup makes it)")
    output = tmp_path_factory.mktemp("library")
    subprocess.run(["bash", ROOT / "tools/library.sh", "", output], check=True, capture_output=True)
    return output / "examples"


def answered(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_picture_is_classified_in_c(examples: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    (tmp_path / "picture.ppm").write_bytes(b"P6\n52 40\n255\n" + pixels.tobytes())
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
    program = cx.compile(net, x[:, :, :32, :32])
    program.save(tmp_path / "net.cvx")
    lines = answered(examples / "classify", tmp_path / "net.cvx", tmp_path / "picture.ppm").splitlines()
    scores = program(x)[0]
    order = np.argsort(-scores)[:5]
    assert [int(line.split()[0]) for line in lines] == order.tolist()
    assert [np.float32(line.split()[1]) for line in lines] == scores[order].tolist()


def test_a_volume_is_segmented_in_cpp(examples: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 3, padding=1))
    x = np.random.default_rng(0).standard_normal((1, 1, 6, 10, 14), np.float32)
    program = cx.compile(net, x[..., :8])
    program.save(tmp_path / "net.cvx")
    (tmp_path / "volume.raw").write_bytes(x.tobytes())
    sizes = ("6", "10", "14")
    answered(examples / "segment", tmp_path / "net.cvx", tmp_path / "volume.raw", *sizes, tmp_path / "labels.raw")
    labels = np.frombuffer((tmp_path / "labels.raw").read_bytes(), np.uint8)
    assert np.array_equal(labels, program(x).argmax(1).reshape(-1))
    refused = subprocess.run(
        [examples / "segment", tmp_path / "net.cvx", tmp_path / "volume.raw", "6", "10", "15", tmp_path / "labels.raw"],
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "does not hold 900 float32 numbers" in refused.stderr


def test_a_forked_child_opens_it(examples: Path, tmp_path: Path) -> None:
    """The parent's threads are not there; the child's library starts its own."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((1, 2, 64, 64), np.float32)
    program = cx.compile(nn.Conv2d(2, 32, 3), x)
    program.save(tmp_path / "net.cvx")
    expected = program(x).tobytes()
    (path,) = (examples.parent / "lib").glob("libconvoxel.so")
    child = os.fork()
    if child == 0:
        found = Network(tmp_path / "net.cvx", library(str(path)))(x)[0].tobytes() == expected
        os._exit(0 if found else 1)
    assert os.waitpid(child, 0)[1] == 0
