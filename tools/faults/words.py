"""Words: odd options, files, folders and rights at every command; none of them is a bug of Convoxel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tools.faults.scene import Scene, complaint, run_command
from tools.faults.worker import run_forked

BATCH = 20
_ODD = (
    *("", " ", "-1", "0", "1", "1.5", "1e400", "nan", "inf", "9" * 40, "2001-99-99", "2001-01-01", "null", "[]", "{}"),
    *(
        "a,b",
        "1,3",
        "1,3,8,8",
        "1,3,0,8",
        "1x1",
        "x",
        "é\udcff",
        "\0",
        "../..",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "@",
    ),
    *("{folder}", "{secret}", "{pipe}", "{link}", "{empty}", "{text}", "{net.onnx}", "{net.cvx}", "{classifier}", "*"),
    *("{x.npy}", "0x1", "unet", "resnet18", "none", "same", "a=b", "seed=0x" + "f" * 5000, "seed=[", "width=nan"),
    *("model_options.z=2001-01-01", "patch=" + "9," * 30, "levels=1e9", "clip=.inf"),
)
_OPTIONS = ("--set", "--shape", "--output", "--threads", "--seed", "--svg", "--png", "--json")
_BASES: Sequence[Sequence[str]] = (
    ("describe", "{net.onnx}", "--shape", "1,3,8,8"),
    ("describe", "unet", "--set", "levels=1", "--set", "width=4", "--shape", "1,1,16,16"),
    ("compile", "{net.onnx}", "--shape", "1,3,8,8"),
    ("run", "{net.cvx}", "--input", "{x.npy}", "--output", "{out}/y.npy"),
    ("predict", "{classifier}", "--input", "{grey}", "--output", "{out}/p"),
    ("evaluate", "{classifier}", "--data", "{images}"),
    ("draw", "conv", "--size", "5x5", "--kernel", "3", "--svg", "{out}/a.svg"),
    ("draw", "network", "{net.onnx}", "--shape", "1,3,8,8", "--svg", "{out}/a.svg"),
    ("size", "layer", "--size", "9", "--kernel", "3"),
    ("size", "network", "{net.onnx}", "--shape", "1,3,8,8"),
    ("data", "check", "{images}", "--task", "classify"),
    ("data", "show", "{images}"),
    ("models", "unet"),
    ("scale", "mobilenet_v2", "--width", "0.1"),
    ("train", "--config", "{text}", "--output", "{out}/run"),
    ("train", "--resume", "{classifier}"),
    ("train", "classify", "--data", "{text}", "--output", "{out}/run", "--epochs", "1"),
    ("compare", "networks", "{net.onnx}", "{net.cvx}", "--shape", "1,3,8,8"),
    ("compare", "runs", "{classifier}", "{classifier}"),
)


def count(scene: Scene) -> int:
    """Return how many batches of command lines there are."""
    return 250 if scene.full else 20


def check(scene: Scene, number: int) -> str:
    """Run a batch of odd command lines and return what is wrong."""
    rng = np.random.default_rng([scene.seed, number])
    lines = [_line(rng) for _ in range(BATCH)]
    for line in lines:
        with scene.room("words") as room:
            places = _prepare(room)
            words = [_filled(scene, word, places, room) for word in line]
            ended = run_forked(lambda words=words, room=room: _run(words, room), seconds=60.0)  # type: ignore[misc]
            if ended.value is None:
                if ended.code != -9 or line[0] != "train":  # a training that begins is none of this sweep's business
                    return f"{line}: ended with {ended.code} after {ended.seconds:.0f} s"
            elif found := complaint(*ended.value):
                return f"{line}: {found}"
    return ""


def _run(words: list[str], room: Path) -> tuple[int, str]:
    os.chdir(room)  # names without a folder mean this one
    return run_command(words)


def _line(rng: np.random.Generator) -> list[str]:
    words = list(_BASES[int(rng.integers(len(_BASES)))])
    for _ in range(int(rng.integers(1, 3))):
        odd = _ODD[int(rng.integers(len(_ODD)))]
        kind = rng.random()
        if kind < 0.6:
            words[int(rng.integers(1, len(words)))] = odd
        elif kind < 0.8:
            words += [_OPTIONS[int(rng.integers(len(_OPTIONS)))], odd]
        else:
            words.insert(int(rng.integers(1, len(words) + 1)), odd)
    return words


def _prepare(room: Path) -> dict[str, str]:
    """Make odd places and return them by name."""
    places = {name: room / name for name in ("folder", "secret", "pipe", "link", "empty", "text", "out")}
    for name in ("folder", "out"):
        places[name].mkdir()
    places["secret"].write_text("secret")
    places["secret"].chmod(0)
    os.mkfifo(places["pipe"])
    places["link"].symlink_to(places["link"])
    places["empty"].touch()
    places["text"].write_text("a: b\n")
    return {name: str(path) for name, path in places.items()}


def _filled(scene: Scene, word: str, places: dict[str, str], room: Path) -> str:
    for name, place in places.items():
        word = word.replace(f"{{{name}}}", place)
    return scene.words([word], room)[0]
