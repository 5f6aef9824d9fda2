"""Kills: a training that dies by SIGKILL at a random instant, once or several times, and is resumed, ends bit-equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tools.faults import shim
from tools.faults.scene import CLASSIFY, Scene, run_command
from tools.faults.worker import run_forked

_WORDS = (*CLASSIFY[: CLASSIFY.index("--epochs")], "--epochs", "3", "--threads", "1", "--set", "steps_per_epoch=4",
          "--set", "checkpoint_seconds=0.0001", "--set", "tensorboard=false", "--set", "validate_every=1")  # fmt: skip
_MOST_KILLS = 3


def count(scene: Scene) -> int:
    """Return how many runs are killed."""
    return 200 if scene.full else 20


def check(scene: Scene, number: int) -> str:
    """Kill a run at random instants until it is done, and compare it with the unbroken one."""
    seconds, expected = _unbroken(scene)
    rng = np.random.default_rng([scene.seed, number])
    with scene.room("kills") as room:
        run, kills = room / "run", 0
        instants = rng.uniform(0, 1.1 * seconds, int(rng.integers(1, _MOST_KILLS + 1)))
        for instant in [*instants, None]:
            words = (
                ["train", "--resume", str(run)] if (run / "checkpoints" / "last.json").exists() else _begin(scene, run)
            )
            ended = run_forked(lambda words=words, instant=instant: _run(words, instant))  # type: ignore[misc]
            if ended.code == -9 and instant is not None:
                kills += 1
                continue
            if ended.value is None or ended.value[0]:
                said = "" if ended.value is None else " ".join(ended.value[1].split())[-300:]
                return f"after {kills} kills the run ends with {ended.code}: {said}"
        if found := _difference(_essence(run), expected):
            return f"after {kills} kills at {np.round(instants, 3).tolist()} s: {found}"
        left = [path.name for path in run.rglob(".*")]
        return f"after {kills} kills {left} are left" if left else ""


def _run(words: list[str], kill_after_s: float | None) -> tuple[int, str]:
    if kill_after_s is not None:
        shim.kill_after(kill_after_s)
    return run_command(words)


def _begin(scene: Scene, run: Path) -> list[str]:
    return scene.words((*_WORDS, "--output", "{out}"), run)


def _unbroken(scene: Scene) -> tuple[float, dict[str, Any]]:
    """Return the seconds and the essence of the run that nobody kills."""
    run = scene.path("unbroken")
    if not (scene.path("unbroken.json")).exists():
        shutil.rmtree(run, ignore_errors=True)
        ended = run_forked(lambda: run_command(_begin(scene, run)))
        if ended.value is None or ended.value[0]:
            raise RuntimeError(f"the run that nobody kills fails: {ended}")
        scene.path("unbroken.json").write_text(json.dumps(ended.seconds))
    return json.loads(scene.path("unbroken.json").read_text()), _essence(run)


def _essence(run: Path) -> dict[str, Any]:
    """Return all that must be equal bit for bit: weights, buffers, optimiser; and the metrics without times."""
    from convoxel.train.checkpoint import Store

    found, best = Store(run).load(), Store(run).load_best()
    tensors = {f"{kind} {name}": value.contiguous().numpy().tobytes()
               for kind, held in (("last", found), ("best", best)) for name, value in held.tensors.items()}  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timeless = [{key: value for key, value in row.items() if key not in ("time_s", "samples_per_s")} for row in rows]
    return {**tensors, "metrics.jsonl": timeless, "step": found.body["step"]}


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    wrong = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return f"{', '.join(wrong[:4])} differ" if wrong else ""
