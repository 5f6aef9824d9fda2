"""One trained network on one labelled volume, by our engine and by PyTorch: whether they agree, and which is faster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.graph.compile import compile as compile_model
from convoxel.native.plan import Floats
from convoxel.predict.inference import build_predictor
from convoxel.predict.metrics import confusion, dice
from convoxel.predict.trained_run import AnyRun

_PASSES = 2

Call = Callable[[Floats], Floats]


@dataclass(frozen=True)
class VolumeResult:
    """A trained network on one volume, measured by :func:`measure_volume`.

    Attributes:
        dice: engine → class → Dice on the labelled volume.
        difference: largest |difference of logits|, divided by the root of their mean square.
        equal: share of voxels whose class is the same.
        seconds: engine → best time of a whole volume.
        tile: size of the windows.
        tiles: windows of one pass.
        compile_s: seconds to compile.
        threads: number of CPU threads of either engine.
        memory: bytes of the compiled network's arena, activations and weights, for one window.
        label_map: (*spatial) classes found by our engine.
    """

    dice: dict[str, dict[str, float]]
    difference: float
    equal: float
    seconds: dict[str, float]
    tile: tuple[int, ...]
    tiles: int
    compile_s: float
    threads: int
    memory: dict[str, int]
    label_map: NDArray[np.uint8] = dataclasses.field(repr=False)

    @property
    def speed_up(self) -> float:
        """The factor by which our engine was faster."""
        return self.seconds["torch"] / self.seconds["convoxel"]

    def to_dict(self) -> dict[str, object]:
        """Return every figure as JSON knows it, without the label map."""
        entries = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "label_map"}
        return {**entries, "tile": list(self.tile), "speed_up": self.speed_up}


def measure_volume(run: AnyRun, sample: Sample, tell: Callable[[str], None]) -> VolumeResult:
    """Return how our engine and PyTorch predict ``sample`` through the same sliding window.

    Either engine runs one window unmeasured, then the whole volume twice, alternating, on as many threads;
    the better time counts.

    Args:
        run: trained network.
        sample: an image with its label.
        tell: called with a line before each part.
    """
    sample = run.data.rule.sample(sample)  # the grid that the network sees
    reference = build_predictor(run, engine="torch")
    (member,) = reference.members
    tile = member.tile(sample.image.shape[1:])
    window = np.zeros((1, sample.image.shape[0], *tile), np.float32)
    tell("Compiling the network …")
    begun = time.perf_counter()
    program = compile_model(run.network, torch.from_numpy(window), threads=torch.get_num_threads())
    compile_s = time.perf_counter() - begun
    calls: dict[str, Call] = {"convoxel": program, "torch": member.call}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    logits: dict[str, Floats] = {}
    counted = 0
    for number in range(_PASSES):
        # Alternating order: whatever else the machine does meets both alike.
        for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
            tell(f"Predicting with {'our engine' if name == 'convoxel' else 'PyTorch'}, {number + 1} of {_PASSES} …")
            if number == 0:
                calls[name](window)
            counter = _Counter(calls[name])
            predictor = dataclasses.replace(reference, members=(dataclasses.replace(member, call=counter),))
            begun = time.perf_counter()
            logits[name] = predictor.logits(sample)
            seconds[name].append(time.perf_counter() - begun)
            counted = counter.count
    maps = {name: values.argmax(axis=0).astype(np.uint8) for name, values in logits.items()}
    rms = float(np.sqrt(np.mean(np.square(logits["torch"], dtype=np.float64))))
    return VolumeResult(
        dice={name: _dice(np.asarray(sample.label), found, run.data.classes) for name, found in maps.items()},
        difference=float(np.abs(logits["convoxel"] - logits["torch"]).max()) / rms,
        equal=float(np.mean(maps["convoxel"] == maps["torch"])),
        seconds={name: min(times) for name, times in seconds.items()},
        tile=tile,
        tiles=counted,
        compile_s=compile_s,
        threads=torch.get_num_threads(),
        memory=dataclasses.asdict(program.memory(window)),
        label_map=maps["convoxel"],
    )


class _Counter:
    """A call that counts the windows it was given."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0

    def __call__(self, windows: Floats) -> Floats:
        self.count += len(windows)
        return self.call(windows)


def _dice(label: NDArray[np.uint8], found: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    values = dice(confusion(label, found, len(classes)))
    return {name: float(value) for name, value in list(zip(classes, values, strict=True))[1:]}
