"""Checks of an installed wheel, in an environment without a source tree; ``tools.wheel`` runs them.

``prepare`` writes networks and their results with the development environment; ``core`` and ``onnx`` then need what the
core and the extra bring, and nothing else; ``advice`` prints what a missing package is answered with.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ABSENT = ("torch", "onnx", "monai", "nibabel", "PIL", "starlette", "resvg_py", "h5py", "scipy")
# Commands that the core runs alone.
COMMANDS = (
    "--version", "--help", "info --json", "size output 224 k7s2p3 pool3s2p1 k3x4 --json",
    "draw conv --size 5x5 --kernel 3 --stride 2 --padding same --svg conv.svg",
    "draw pool --size 4x4 --kernel 2 --svg pool.svg",
    "draw channels --in 3 --out 5 --way plain --way depthwise_separable --svg channels.svg",
    "draw layout --channels 3 --size 2x3 --svg layout.svg",
    "run net.cvx --input x.npy --output out.npy --json", "describe net.cvx --shape 2,3,20,18 --json",
)  # fmt: skip
# Commands and expressions that need an extra, and say which.
LACKING = (
    "describe resnet18", "describe net.onnx --shape 2,3,20,18", "models", "compile resnet18", "explore",
    "train classify --data digits --output run", "predict run --input . --output maps",
    "draw conv --size 5x5 --kernel 3 --png conv.png", "draw resize --size 3x3 --to 6x6 --mode linear --svg resize.svg",
    "export resnet18 -o out.onnx", "serve net.cvx",
)  # fmt: skip
EXPRESSIONS = (
    "cx.load('net.onnx')", "cx.nn", "cx.models.build('unet')", "cx.train.load_model('run')", "cx.describe('resnet18')",
    "cx.load('net.cvx').to_onnx('out.onnx')", "cx.compile(None)", "cx.draw.conv(5, kernel=3).save('conv.png')",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """Write a program, its ONNX model, an input and the result that the development environment computes."""
    import torch
    from torch import nn

    import convoxel as cx

    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(16, 4, 3))
    x = np.random.default_rng(0).standard_normal((2, 3, 20, 18), np.float32)
    program = cx.compile(nn.Sequential(*layers).eval(), x)
    program.save(folder / "net.cvx")
    program.to_onnx(folder / "net.onnx")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", program(x))


def _check_results(load: Callable[[], Any]) -> None:
    np.testing.assert_allclose(load()(np.load("x.npy")), np.load("y.npy"), rtol=1e-5, atol=1e-5)


def core() -> int:
    """Check what the core does without any extra; return how many things were checked."""
    import convoxel as cx

    assert "site-packages" in str(cx.__file__), cx.__file__
    present = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert present == [], present
    _check_results(lambda: cx.load("net.cvx"))
    _check_results(lambda: cx.load(Path("net.cvx").read_bytes()))
    _check_results(lambda: cx.load(io.BytesIO(cx.load("net.cvx").to_bytes())))  # type: ignore[union-attr]
    x, w = np.arange(12.0, dtype=np.float32).reshape(1, 2, 6), np.array([[[1, 0, -1], [2, 1, 0]]], np.float32)
    expected = [[x[0, 0, i] - x[0, 0, i + 2] + 2 * x[0, 1, i] + x[0, 1, i + 1] for i in range(4)]]
    np.testing.assert_array_equal(cx.conv(x, w)[0], expected)
    done = 5
    for words in COMMANDS:
        code, said = _command(words)
        assert code == 0, f"convoxel {words}: {said}"
        if words.endswith("--json"):
            json.loads(said)
        if ".svg" in words:
            assert "<svg" in Path(words.split()[-1]).read_text(encoding="utf-8")
        done += 1
    np.testing.assert_allclose(np.load("out.npy"), np.load("y.npy"), rtol=1e-5, atol=1e-5)
    print(f"import convoxel: {1000 * _import_s():.0f} ms of processor time")
    return done + 2 + _check_advice()


MOST_IMPORT_S = 0.06
_IMPORT = "import time; begun = time.process_time(); import convoxel; print(time.process_time() - begun)"


def _import_s() -> float:
    """Return the processor time of the import, the least of five processes."""
    line = [sys.executable, "-I", "-c", _IMPORT]
    found = min(float(subprocess.run(line, capture_output=True, check=True).stdout) for _ in range(5))
    assert found <= MOST_IMPORT_S, f"import convoxel takes {found:.3f} s of processor time; at most {MOST_IMPORT_S}"
    return found


def _check_advice() -> int:
    """Check that whatever lacks a package names an extra that brings it; return the number of messages."""
    done = 0
    for words in LACKING:
        code, said = _command(words)
        assert code == 2 and said.count("\n") <= 1, f"convoxel {words} ended with {code}: {said}"
        done += _check_extra(words, said)
    for expression in EXPRESSIONS:
        try:
            eval(expression, {"cx": __import__("convoxel")})
        except Exception as error:
            done += _check_extra(expression, f"{type(error).__name__}: {error}")
        else:
            raise AssertionError(f"{expression} needs no extra")
    return done


def _check_extra(what: str, said: str) -> int:
    found = re.findall(r"pip install '?convoxel\[(\w+)\]'?", said)
    assert len(found) == 1, f"{what}: {said}"
    brought = {}
    for line in importlib.metadata.requires("convoxel") or ():
        extras = re.findall(r"extra == ['\"](\w+)['\"]", line)
        brought.setdefault(extras[0] if extras else "", set()).add(re.split(r"[<>=\[; ]", line)[0].lower())
    assert found[0] in brought, f"{what}: there is no extra {found[0]}"
    names = {"pil": "pillow", "resvg": "resvg-py", "yaml": "pyyaml"}
    words = {names.get(word, word) for word in re.findall(r"[\w-]+", said.lower())}
    assert words & brought[found[0]], f"{what}: {found[0]} brings none of what it says: {said}"
    return 1


def onnx() -> int:
    """Check what the extra ``onnx`` adds."""
    import convoxel as cx

    assert importlib.util.find_spec("torch") is None
    _check_results(lambda: cx.load("net.onnx"))
    _check_results(lambda: cx.load(Path("net.onnx").read_bytes()))
    summary = cx.describe("net.onnx", (2, 3, 20, 18)).to_dict()
    assert summary["total"]["params"] == 3 * 16 * 9 + 16 + 16 * 4 * 9 + 4, summary["total"]
    code, said = _command("describe net.onnx --shape 2,3,20,18 --json")
    assert code == 0 and json.loads(said)["total"]["params"] == summary["total"]["params"]
    cx.load("net.cvx").to_onnx("again.onnx")  # type: ignore[union-attr]
    _check_results(lambda: cx.load("again.onnx"))
    return 5


def advice() -> None:
    """Print what loading an ONNX file says where the package is missing."""
    print(_command("describe net.onnx --shape 2,3,20,18")[1])


def _command(words: str) -> tuple[int, str]:
    """Return the exit code of a command and what it prints; on failure, its message."""
    line = [sys.executable, "-I", "-m", "convoxel", *words.split()]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr if done.returncode else done.stdout


if __name__ == "__main__":
    part, where = sys.argv[1], Path(sys.argv[2])
    if part == "prepare":
        prepare(where)
    else:
        checked = {"core": core, "onnx": onnx, "advice": advice}[part]()
        if checked is not None:
            print(f"{checked} checks")
