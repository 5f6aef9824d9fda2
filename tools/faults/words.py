"""Words: odd options, files, folders and rights at every command; none of them is a bug of Convoxel."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
# A line of every command that works; what works long refuses, or is ended.
_BASES: Sequence[Sequence[str]] = (
    ("demo", "--output", "{text}"),
    ("train", "--config", "{text}", "--output", "{out}/run"),
    ("train", "--resume", "{classifier}"),
    ("plan", "classify", "--data", "{images}", "--epochs", "1", "--output", "{out}/plan.yaml"),
    ("train", "classify", "--data", "{text}", "--output", "{out}/run", "--epochs", "1"),
    ("evaluate", "{classifier}", "--data", "{images}"),
    ("predict", "{classifier}", "--input", "{grey}", "--output", "{out}/p"),
    ("explain", "{classifier}", "--input", "{grey}/0.png", "--method", "field", "--output", "{out}/e.png"),
    ("import", "nnunet", "{text}", "--output", "{out}/run"),
    ("import", "monai", "{text}", "--output", "{out}/run"),
    ("separate", "{classifier}", "--max-error", "0.5", "--output", "{out}/s"),
    ("models", "unet"),
    ("describe", "{net.onnx}", "--shape", "1,3,8,8"),
    ("describe", "unet", "--set", "levels=1", "--set", "width=4", "--shape", "1,1,16,16"),
    ("scale", "mobilenet_v2", "--width", "0.1"),
    ("search", "unet", "--shape", "1,1,16,16", "--vary", "levels=1", "--most", "2"),
    ("compile", "{net.onnx}", "--shape", "1,3,8,8"),
    ("export", "{net.cvx}", "--output", "{out}/y.onnx"),
    ("quantise", "{net.onnx}", "--data", "{x.npy}", "--output", "{out}/q.cvx"),
    ("run", "{net.cvx}", "--input", "{x.npy}", "--output", "{out}/y.npy"),
    ("info",),
    ("serve", "{net.onnx}", "--port", "0"),
    ("explore", "{net.onnx}", "--no-browser", "--port", "0"),
    ("size", "output", "9", "k3"),
    ("size", "inputs", "9", "k3s2"),
    ("size", "layers", "9", "4", "--kernel", "1..3", "--stride", "2"),
    ("size", "sources", "9", "--kernel", "3"),
    ("size", "depth", "24", "k3p1x2", "pool2"),
    ("size", "tiles", "64", "k3p1x4", "pool2", "--image", "150"),
    ("size", "align", "k1", "k3d2 k3"),
    ("compare", "networks", "unet", "--levels", "1", "--set", "width=4", "--shape", "1,1,16,16"),
    ("compare", "upsampling", "--dims", "1", "--channels", "2", "--size", "8", "--starts", "1", "--no-time"),
    ("compare", "sharing", "--samples", "8", "--steps", "1", "--starts", "1"),
    ("data", "check", "{images}", "--task", "classify"),
    ("data", "list", "{images}"),
    ("data", "stats", "{images}"),
    ("data", "view", "{images}", "--output", "{out}/sheet.png"),
    ("draw", "conv", "--size", "5x5", "--kernel", "3", "--svg", "{out}/a.svg"),
    ("draw", "pool", "--x", "1 2; 3 4", "--svg", "{out}/a.svg"),
    ("draw", "unpool", "--mode", "indices", "--svg", "{out}/a.svg"),
    ("draw", "resize", "--size", "3x3", "--to", "6x6", "--svg", "{out}/a.svg"),
    ("draw", "shuffle", "--size", "2x3", "--factor", "2", "--svg", "{out}/a.svg"),
    ("draw", "deform", "--size", "6x6", "--offset", "0.8", "--svg", "{out}/a.svg"),
    ("draw", "dynamic", "--size", "5x5", "--svg", "{out}/a.svg"),
    ("draw", "linearity", "--operator", "max_pool", "--svg", "{out}/a.svg"),
    ("draw", "channels", "--in", "3", "--out", "5", "--svg", "{out}/a.svg"),
    ("draw", "separable", "--w", "1 0 -1; 2 0 -2; 1 0 -1", "--svg", "{out}/a.svg"),
    ("draw", "prior", "--size", "3x3", "--kernel", "2", "--svg", "{out}/a.svg"),
    ("draw", "layout", "--channels", "3", "--size", "2x3", "--svg", "{out}/a.svg"),
    ("draw", "norm", "--w", "2 1; 0 2", "--bound", "2", "--svg", "{out}/a.svg"),
    ("draw", "translation", "--size", "8", "--layer", "max_pool", "--svg", "{out}/a.svg"),
    ("draw", "shifts", "--model", "resnet18", "--shape", "1,3,32,32", "--svg", "{out}/a.svg"),
    ("draw", "connections", "--size", "9", "--kernel", "3", "--svg", "{out}/a.svg"),
    ("draw", "features", "{grey}/0.png", "--w", "1 0 -1; 2 0 -2; 1 0 -1", "--svg", "{out}/a.svg"),
    ("draw", "neurons", "--model", "resnet18", "--svg", "{out}/a.svg"),
    ("draw", "block", "inception", "--svg", "{out}/a.svg"),
    ("draw", "animation", "padding_strides", "--svg", "{out}/a.svg"),
    ("draw", "gallery", "--output", "{out}/gallery"),
    ("draw", "matrix", "--size", "3x3", "--kernel", "2", "--svg", "{out}/a.svg"),
    ("draw", "overlap", "--kernel", "3,4", "--stride", "2", "--svg", "{out}/a.svg"),
    ("draw", "network", "{net.onnx}", "--shape", "1,3,8,8", "--svg", "{out}/a.svg"),
    ("draw", "field", "{net.onnx}", "--shape", "1,3,8,8", "--svg", "{out}/a.svg"),
    ("draw", "funnel", "{net.onnx}", "--shape", "1,3,8,8", "--svg", "{out}/a.svg"),
    ("draw", "memory", "{net.onnx}", "--shape", "1,3,8,8", "--svg", "{out}/a.svg"),
    ("bench", "layers", "nothing"),
    ("bench", "networks", "nothing"),
    ("bench", "tile", "--rounds", "1"),
)
# Commands that may be asked for more work than a sweep waits for.
_LONG = ("demo", "train", "plan", "separate", "scale", "search", "compare", "bench", "explore", "serve", "quantise")


@functools.cache
def commands() -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the options of every command.

    Raises:
        RuntimeError: a command has no line that works here.
    """
    import typer

    from convoxel.cli.application import app

    def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        inner = getattr(command, "commands", {})
        for name, one in inner.items():
            yield from leaves(one, (*path, name))
        if not inner:
            yield path, tuple(word for option in command.params for word in option.opts if word.startswith("-"))

    found = dict(leaves(typer.main.get_command(app), ()))
    if missing := [path for path in found if not any(path == tuple(base[: len(path)]) for base in _BASES)]:
        raise RuntimeError(f"no line that works for the commands {missing}")
    return found


def count(scene: Scene) -> int:
    """Return how many batches of command lines there are."""
    return 1000 if scene.full else 30


def check(scene: Scene, number: int) -> str:
    """Run a batch of odd command lines and return what is wrong."""
    rng = np.random.default_rng([scene.seed, number])
    lines = [_line(rng) for _ in range(BATCH)]
    for line in lines:
        with scene.room("words") as room:
            places = _prepare(room)
            words = [_filled(scene, word, places, room) for word in line]
            ended = run_forked(  # type: ignore[misc]
                lambda words=words, room=room: _run(words, room), seconds=30.0 if line[0] in _LONG else 300.0
            )
            if ended.value is None:
                if ended.code != -9 or line[0] not in _LONG:
                    return f"{line}: ended with {ended.code} after {ended.seconds:.0f} s"
            elif found := complaint(*ended.value):
                return f"{line}: {found}"
    return ""


def _run(words: list[str], room: Path) -> tuple[int, str]:
    os.chdir(room)  # names without a folder mean this one
    return run_command(words)


def _line(rng: np.random.Generator) -> list[str]:
    words = list(_BASES[int(rng.integers(len(_BASES)))])
    path = next(path for path in commands() if path == tuple(words[: len(path)]))
    options = commands()[path]
    for _ in range(int(rng.integers(1, 3))):
        odd = _ODD[int(rng.integers(len(_ODD)))]
        kind = rng.random()
        if kind < 0.4:
            words[int(rng.integers(1, len(words))) if len(words) > 1 else 0] = odd
        elif kind < 0.85:
            words += [options[int(rng.integers(len(options)))], odd]
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
