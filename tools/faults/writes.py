"""Write faults: every command that writes, with an error or a death at every call that changes a file.

Files are whole afterwards, each either as it was or new; the exit code says so; and the next run succeeds,
removing what a dead one has left.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.faults import shim
from tools.faults.scene import CLASSIFY, SEGMENT, Scene, complaint, run_command
from tools.faults.worker import Ended, run_forked

_FAULTS = (
    ("no space from then on", errno.ENOSPC, True, False),
    ("one input/output error", errno.EIO, False, False),
    ("read-only from then on", errno.EROFS, True, False),
    ("death", 0, False, True),
)


@dataclass(frozen=True)
class _Command:
    """Words that write under {out}, and those that wrote there before, if they differ."""

    name: str
    words: Sequence[str]
    before: Sequence[str] = ()


_DRAW = ("draw", "conv", "--size", "9x9", "--kernel", "3")
COMMANDS = (
    _Command("draw conv", (*_DRAW, "--svg", "{out}/a.svg", "--png", "{out}/a.png", "--html", "{out}/a.html"),
             ("draw", "conv", "--size", "5x5", "--kernel", "3", "--svg", "{out}/a.svg", "--png", "{out}/a.png",
              "--html", "{out}/a.html")),
    _Command("describe", ("describe", "{net.onnx}", "--shape", "1,3,32,32", "--csv", "{out}/a.csv", "--html",
                          "{out}/a.html"),
             ("describe", "{net.onnx}", "--shape", "1,3,16,16", "--csv", "{out}/a.csv", "--html", "{out}/a.html")),
    _Command("compile", ("compile", "{net.onnx}", "--shape", "1,3,16,16", "--output", "{out}/net.cvx")),
    _Command("run", ("run", "{net.cvx}", "--input", "{x.npy}", "--output", "{out}/y.npy")),
    _Command("predict classes", ("predict", "{classifier}", "--input", "{grey}", "--output", "{out}/classes.csv")),
    _Command("predict labels", ("predict", "{segmenter}", "--input", "{volumes}/images", "--output", "{out}/labels")),
    _Command("train classify", (*CLASSIFY, "--output", "{out}/run")),
    _Command("train segment", (*SEGMENT, "--output", "{out}/run")),
    _Command("resume", ("train", "--resume", "{out}/run", "--force", "--epochs", "2"),
             (*CLASSIFY, "--output", "{out}/run")),
    _Command(
        "search",
        ("search", "unet", "--vary", "levels=1,2", "--set", "width=4", "--max-parameters", "20k", "--shape",
         "1,1,16,16", "--plot", "{out}/front.svg"),
    ),
    _Command("draw network", ("draw", "network", "{net.onnx}", "--shape", "1,3,16,16", "--svg", "{out}/a.svg")),
)  # fmt: skip


def count(scene: Scene) -> int:
    """Return how many injections there are: all, or a sample of three for each command."""
    return sum(len(_FAULTS) * _calls(scene, command) for command in COMMANDS) if scene.full else 3 * len(COMMANDS)


def check(scene: Scene, number: int) -> str:
    """Inject one fault and return what is wrong afterwards."""
    command, position = _position(scene, number)
    kind, error, lasting, deadly = _FAULTS[position % len(_FAULTS)]
    at = position // len(_FAULTS) + 1
    with scene.room("writes") as room:
        output = _prepared(scene, command, room)
        old = _contents(output)
        ended = _run(scene, command, output, at, error, lasting=lasting, deadly=deadly)
        found = _wrong(output, old, ended, deadly=deadly)
        if not found:
            found = _again(scene, command, output)
        return found and f"{command.name}, {kind} at call {at} of {_calls(scene, command)}: {found}"


def _position(scene: Scene, number: int) -> tuple[_Command, int]:
    """Return the command of a case, and which of its calls fails in which way: in order, or drawn."""
    if not scene.full:
        command = COMMANDS[number % len(COMMANDS)]
        return command, int(np.random.default_rng([scene.seed, number]).integers(len(_FAULTS) * _calls(scene, command)))
    for command in COMMANDS:
        if number < (cases := len(_FAULTS) * _calls(scene, command)):
            return command, number
        number -= cases
    raise IndexError(number)


def _calls(scene: Scene, command: _Command) -> int:
    """Return how many calls a command makes, counted once."""
    path = scene.path("calls.json")
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    if command.name not in known:
        with scene.room("calls") as room:
            ended = _run(scene, command, _prepared(scene, command, room), shim.NEVER, 0)
        if ended.code or ended.value[0]:
            raise RuntimeError(f"{command.name} fails without any fault: {ended}")
        known[command.name] = ended.value[2]
        path.write_text(json.dumps(known))
    return known[command.name]


def _prepared(scene: Scene, command: _Command, room: Path) -> Path:
    """Return a folder with what an earlier run of the command left there."""
    kept = scene.path("before") / command.name.replace(" ", "-")
    if command.before and not kept.exists():
        kept.mkdir(parents=True)
        ended = run_forked(lambda: run_command(scene.words(command.before, kept)))
        if ended.value is None or ended.value[0]:
            shutil.rmtree(kept)
            raise RuntimeError(f"{command.name} cannot be prepared: {ended}")
    output = room / "out"
    if command.before:
        shutil.copytree(kept, output)
    else:
        output.mkdir()
    return output


def _run(
    scene: Scene, command: _Command, output: Path, at: int, error: int, *, lasting: bool = False, deadly: bool = False
) -> Ended:
    words = scene.words(command.words, output)

    def work() -> tuple[int, str, int]:
        shim.arm(output, at, error, lasting=lasting, deadly=deadly)
        code, said = run_command(words)
        return code, said, shim.calls()

    return run_forked(work)


def _contents(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def _wrong(output: Path, old: dict[str, bytes], ended: Ended, *, deadly: bool) -> str:
    """Return what is wrong right after the fault: with the exit code, or with a file."""
    if deadly:
        if ended.code != -9:
            return f"ended with {ended.code}, not by the signal"
    elif ended.value is None:
        return f"ended with {ended.code} and no word"
    elif found := complaint(ended.value[0], ended.value[1]):
        return found
    now = _contents(output)
    lost = [name for name in old if name not in now and _is_result(name)]
    if lost:
        return f"lost {lost}"
    for name, content in now.items():
        if name.endswith(".part"):
            if not deadly:
                return f"{name} is left"
        elif content != old.get(name) and _is_result(name) and not _is_whole(name, content):
            return f"{name} is not whole ({len(content)} bytes)"
    return ""


def _again(scene: Scene, command: _Command, output: Path) -> str:
    """Return what is wrong with the next run, which finds what the fault has left."""
    words = scene.words(command.words, output)
    ended = run_forked(lambda: run_command(words))
    if ended.value is None:
        return f"the next run ended with {ended.code}"
    code, said = ended.value
    taken = code == 2 and "exists and is not empty" in said and "--resume" in said
    if taken:  # the fault came after the first checkpoint: the run goes on
        ended = run_forked(lambda: run_command(["train", "--resume", str(output / "run")]))
        code, said = ended.value or (ended.code, "")
    if code:
        return f"the next run ends with {code}: {' '.join(said.split())[-200:]}"
    left = [name for name in _contents(output) if name.endswith((".part", ".lock"))]
    if left:
        return f"the next run leaves {left}"
    broken = [name for name, content in _contents(output).items() if _is_result(name) and not _is_whole(name, content)]
    return f"after the next run {broken} are not whole" if broken else ""


def _is_result(name: str) -> bool:
    """Return whether a file is one of those that appear whole: not the lock, not the events of TensorBoard."""
    unpaired = name.startswith(("run/checkpoints/next", "run/checkpoints/best-next"))
    return not (name.endswith((".lock", ".part")) or "tensorboard/" in name or unpaired)


def _is_whole(name: str, content: bytes) -> bool:
    try:
        return _CHECKS[name[name.rindex(".") :]](content)
    except Exception:  # whatever its reader says, it is not whole
        return False


def _is_picture(content: bytes) -> bool:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG", "GIF"]) as image:
        image.load()
    return True


def _is_tensors(content: bytes) -> bool:
    import safetensors.numpy

    return bool(safetensors.numpy.load(content))


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    ".svg": lambda content: content.rstrip().endswith(b"</svg>"),
    ".html": lambda content: content.rstrip().endswith(b"</html>"),
    ".png": _is_picture,
    ".gif": _is_picture,
    ".csv": lambda content: (
        content.endswith(b"\n") and len(set(map(len, csv.reader(content.decode().splitlines())))) == 1
    ),
    ".json": lambda content: json.loads(content) is not None,
    ".jsonl": lambda content: all(json.loads(line) for line in content.splitlines()) and content[-1:] in (b"", b"\n"),
    ".yaml": lambda content: content.endswith(b"\n") and b"task:" in content and b"tensorboard:" in content,
    ".npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False).size > 0,
    ".npz": lambda content: len(np.load(io.BytesIO(content), allow_pickle=False).files) > 0,
    ".cvx": _is_tensors,
    ".safetensors": _is_tensors,
    ".gz": lambda content: len(__import__("gzip").decompress(content)) > 352,
}
