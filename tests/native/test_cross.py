"""libconvoxel for other processors and systems, under emulators: where ``tools/cross.sh`` has built it.

CI builds it and runs these; a machine without the compilers skips them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convoxel as cx

ROOT = Path(__file__).parents[2]
PROBLEMS = """
1d n1 g1 ic32 oc32 i100 o103 k2 s1 pl2 pr2 d1
1d n2 g1 ic3 oc20 i61 o30 k5 s2 pl2 pr1 d1
2d n1 g1 ic3 oc64 i23,31 o12,16 k3,3 s2,2 pl1,1 pr1,1 d1,1
2d n2 g1 ic24 oc40 i9,11 o9,11 k3,3 s1,1 pl1,1 pr1,1 d1,1
2d n1 g1 ic17 oc33 i9,11 o9,11 k1,1 s1,1 pl0,0 pr0,0 d1,1
2d n1 g32 ic32 oc32 i19,14 o19,14 k3,3 s1,1 pl1,1 pr1,1 d1,1
2d n1 g4 ic32 oc64 i9,9 o9,9 k3,3 s1,1 pl2,2 pr2,2 d2,2
2d n1 g1 ic8 oc8 i16,16 o10,10 k7,7 s1,1 pl0,0 pr0,0 d1,1
2d n1 g1 ic512 oc24 i3,3 o1,1 k3,3 s1,1 pl0,0 pr0,0 d1,1
3d n1 g1 ic4 oc12 i6,7,8 o6,7,8 k3,3,3 s1,1,1 pl1,1,1 pr1,1,1 d1,1,1
3d n1 g1 ic1 oc9 i8,8,8 o4,4,4 k3,3,3 s2,2,2 pl1,1,1 pr0,0,0 d1,1,1
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["aarch64", "windows"])
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(target: str) -> Run:
    """Run a program of the target's folder; CONVOXEL_AARCH64 and CONVOXEL_WINDOWS name other ones than build/TARGET."""
    folder = Path(os.environ.get(f"CONVOXEL_{target.upper()}", ROOT / "build" / target))
    if not (folder / "run").exists():
        pytest.skip(f"tools/cross.sh {target} has not built it")

    def run(program: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        name = f"{program}.exe" if target == "windows" else program
        # Wine sees the file system as a drive.
        given = [f"Z:{word}" if target == "windows" and isinstance(word, Path) else str(word) for word in words]
        return subprocess.run(
            [folder / "run", folder / name, *given],
            capture_output=True,
            text=True,
            env={**os.environ, "CONVOXEL_THREADS": "2", **environment},
        )

    return run


def test_problems_are_solved(run: Run, target: str, tmp_path: Path) -> None:
    """By every algorithm of every instruction set."""
    (tmp_path / "problems.txt").write_text(PROBLEMS)
    done = run("bin/convoxel_conformance", tmp_path / "problems.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    *rows, last = done.stdout.splitlines()
    assert last == "11 problems, 0 wrong"
    assert f"indirect {'neon' if target == 'aarch64' else 'portable'} 11" in rows


def test_examples_answer_as_python(run: Run, target: str, tmp_path: Path) -> None:
    """Bit for bit where the instruction set is the same."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.AvgPool2d(3, 2, 1),
        nn.Upsample(9),
    )
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    (tmp_path / "picture.ppm").write_bytes(b"P6\n52 40\n255\n" + pixels.tobytes())
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
    program = cx.compile(net, x[:, :, :32, :32])
    program.save(tmp_path / "net.cvx", sizes=[{}])
    isa = {} if target == "aarch64" else {"CONVOXEL_ISA": cx.build_info()["instruction_set"]}
    done = run("examples/classify", tmp_path / "net.cvx", tmp_path / "picture.ppm", **isa)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:5]
    scores = program(x)[0]
    order = np.argsort(-scores)[:5]
    assert [int(line.split()[0]) for line in lines] == order.tolist()
    theirs = np.array([np.float32(line.split()[1]) for line in lines])
    if target == "windows":
        assert theirs.tolist() == scores[order].tolist()
    np.testing.assert_allclose(theirs, scores[order], rtol=1e-5, atol=1e-6)


def test_volumes_are_segmented(run: Run, target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 3, padding=1))
    x = np.random.default_rng(0).standard_normal((1, 1, 6, 10, 14), np.float32)
    program = cx.compile(net, x[..., :8])
    program.save(tmp_path / "net.cvx")
    (tmp_path / "volume.raw").write_bytes(x.tobytes())
    files = tmp_path / "net.cvx", tmp_path / "volume.raw"
    done = run("examples/segment", *files, "6", "10", "14", tmp_path / "labels.raw")
    assert done.returncode == 0, done.stderr
    labels = np.frombuffer((tmp_path / "labels.raw").read_bytes(), np.uint8)
    assert np.array_equal(labels, program(x).argmax(1).reshape(-1))
    refused = run("examples/segment", *files, "6", "10", "15", tmp_path / "labels.raw")
    assert refused.returncode == 2 and "volume" in refused.stderr
