"""The whole job, file to file: our prediction beside MONAI's sliding window around PyTorch, torch.compile and OpenVINO.

python -m bench.whole_job [RUN] [--sizes 36x50x36,256x256x256] [--engines ours,torch,…] [--rounds 5] [--json FILE]

Every contender reads the same NIfTI file, normalises it in the same way, computes the same tiles with the same overlap
and Gaussian weights, one at a time, and writes a compressed label map. A whole process begins with nothing loaded; a
warm one has predicted the image once before. Contenders take turns. Label maps are compared with PyTorch's. Without
RUN, a small 3-D U-Net is trained on drawn images first. Wants an idle machine, and `monai`, `openvino`, `onnx`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENGINES = ("ours", "torch", "torch.compile", "openvino-f32", "openvino")


# ---- what a peer does ------------------------------------------------------------------------------------------


def build_peer(engine: str, folder: Path) -> Callable[[str, str], None]:
    """Return the function (image, label map) of a peer, its network loaded."""
    import nibabel
    import numpy as np
    import torch
    from monai.inferers import SlidingWindowInferer

    spec = json.loads((folder / "spec.json").read_text())
    if engine.startswith("openvino"):
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32"} if engine == "openvino-f32" else {}
        compiled = openvino.Core().compile_model(str(folder / "net.onnx"), "CPU", hints)

        def network(tile: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(compiled(tile.numpy())[0])
    else:
        from safetensors.torch import load_file

        from convoxel import models

        model = models.build(**spec["model"]).eval()
        model.load_state_dict(load_file(folder / "net.safetensors"))
        model = model.to(memory_format=torch.channels_last_3d)
        network = torch.compile(model) if engine == "torch.compile" else model

    def predict(source: str, target: str) -> None:
        volume = nibabel.load(source)
        values = np.asarray(volume.dataobj, np.float32)
        body = values[values > values.min()].astype(np.float64)
        image = torch.from_numpy((values - np.float32(body.mean())) / np.float32(body.std()))[None, None]
        way = {"mode": "gaussian", "sigma_scale": 0.125, "cval": float(image.min())}
        tiles = SlidingWindowInferer(spec["tile"], 1, spec["overlap"], **way)
        with torch.inference_mode():
            label = tiles(image, network).argmax(dim=1)[0].to(torch.uint8)
        nibabel.save(nibabel.Nifti1Image(label.numpy(), volume.affine), target)

    return predict


def build_ours(run: str) -> Callable[[str, str], None]:
    """Return our function (image, label map), its network loaded."""
    from convoxel.predict.case_prediction import predict_case
    from convoxel.train.run_folder import load_predictor

    predictor = load_predictor(run)

    def predict(source: str, target: str) -> None:
        predict_case(predictor, [Path(source)], [Path(target)])

    return predict


def serve(engine: str, run: str, folder: str) -> None:
    """Predict each image that a line on standard input names, and answer with the seconds."""
    predict = build_ours(run) if engine == "ours" else build_peer(engine, Path(folder))
    for line in sys.stdin:
        begun = time.perf_counter()
        predict(*line.rstrip("\n").split("\t"))
        print(f"seconds\t{time.perf_counter() - begun}", flush=True)


# ---- what is measured ------------------------------------------------------------------------------------------


# A small process starts the one that is measured: Linux counts the memory of who starts a process as the process's own.
_MEASURED = """
import resource, subprocess, sys, time
begun = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


class Contender:
    """An engine that predicts one image: in whole processes, and in one that stays."""

    def __init__(self, engine: str, run: Path, folder: Path, source: Path) -> None:
        self.engine, self.run, self.source = engine, run, source
        self.target = folder / f"{engine}.nii.gz"
        self._serve = [sys.executable, "-m", "bench.whole_job", "--serve", engine, str(run), str(folder)]
        self._warm: subprocess.Popen[str] | None = None
        self.whole_s: list[float] = []
        self.warm_s: list[float] = []
        self.peak_bytes: list[int] = []

    def run_whole(self) -> None:
        """Measure a process from its start to its end."""
        call = [sys.executable, "-c", "import sys; from convoxel.cli import main; sys.exit(main(sys.argv[1:]))"]
        call += ["predict", str(self.run), "--input", str(self.source), "--output", str(self.target), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *(call if self.engine == "ours" else self._serve)],
            input="" if self.engine == "ours" else f"{self.source}\t{self.target}\n",
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{self.engine} ended with exit code {done.returncode}")
        seconds, peak = done.stdout.split()
        self.whole_s.append(float(seconds))
        self.peak_bytes.append(int(peak))

    def run_warm(self) -> None:
        """Measure a prediction in the process that stays; the first one is not counted."""
        if self._warm is None:
            self._warm = subprocess.Popen(self._serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._ask()
        self.warm_s.append(self._ask())

    def _ask(self) -> float:
        assert self._warm is not None and self._warm.stdin is not None and self._warm.stdout is not None
        self._warm.stdin.write(f"{self.source}\t{self.target}\n")
        self._warm.stdin.flush()
        for line in self._warm.stdout:
            if line.startswith("seconds\t"):
                return float(line.split("\t")[1])
        raise RuntimeError(f"{self.engine} ended with exit code {self._warm.wait()}")

    def close(self) -> None:
        """End the process that stays."""
        if self._warm is not None and self._warm.stdin is not None:
            self._warm.stdin.close()
            self._warm.wait()


def draw_volume(path: Path, size: tuple[int, ...], seed: int = 0, label: Path | None = None) -> None:
    """Write an image of blobs in noise, int16, and where asked its label map."""
    import nibabel
    import numpy as np
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    field = gaussian_filter(random.standard_normal(size, np.float32), 4)
    inside = field > 0.8 * field.std()
    values = (300 + 200 * inside + 60 * random.standard_normal(size, np.float32)).clip(1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    if label is not None:
        nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)), label)


def train_run(folder: Path, width: int) -> Path:
    """Return a run that was trained for one epoch on drawn images."""
    from convoxel.train import fit
    from convoxel.train.config import TrainConfig

    for part in ("images", "labels"):
        (folder / "data" / part).mkdir(parents=True)
    for number in range(5):
        name = f"{number}.nii.gz"
        draw_volume(folder / "data/images" / name, (48, 48, 48), number, folder / "data/labels" / name)
    stated = {"task": "segment", "epochs": 1, "levels": 3, "width": width, "overlap": 0.25}
    fit(TrainConfig.build(data=str(folder / "data"), output=str(folder / "run"), **stated))
    return folder / "run"


def write_network(run: Path, folder: Path, size: tuple[int, ...]) -> None:
    """Write what peers need: the network's weights, its ONNX file for the tile of this image, the way of tiling."""
    import torch
    from safetensors.torch import save_file

    from convoxel.predict.inference import build_predictor
    from convoxel.train.run_folder import load_members

    (trained,) = load_members(run).values()
    (member,) = build_predictor(trained).members
    config, tile = trained.config, member.tile(size)
    options = {**config.model_options, **{n: v for n in ("levels", "width") if (v := getattr(config, n)) is not None}}
    if isinstance(options.get("width"), float) and options["width"].is_integer():
        options["width"] = int(options["width"])
    model = {"name": config.model or "unet", "dims": 3, "in_channels": 1, "num_classes": len(trained.data.classes)}
    (folder / "spec.json").write_text(
        json.dumps({"model": {**model, **options}, "tile": tile, "overlap": member.overlap})
    )
    save_file({name: value.contiguous() for name, value in trained.network.state_dict().items()},
              folder / "net.safetensors")  # fmt: skip
    warnings.simplefilter("ignore")  # of the exporter, about itself
    torch.onnx.export(trained.network, (torch.zeros(1, 1, *tile),), folder / "net.onnx", dynamo=False, opset_version=17)


def dice_of_maps(found: Path, wanted: Path) -> float:
    """Return the least Dice over the classes of two label maps, the background included."""
    import nibabel
    import numpy as np

    a, b = (np.asarray(nibabel.load(path).dataobj) for path in (found, wanted))
    return min(
        float(2 * ((a == c) & (b == c)).sum() / max(1, (a == c).sum() + (b == c).sum())) for c in np.union1d(a, b)
    )


def measure(run: Path, size: tuple[int, ...], engines: list[str], rounds: int, folder: Path) -> dict[str, Any]:
    """Return the figures of all engines for one size."""
    source = folder / "image.nii.gz"
    draw_volume(source, size, 7)
    write_network(run, folder, size)
    contenders = [Contender(engine, run, folder, source) for engine in engines]
    lost: dict[str, str] = {}
    for number in range(rounds):
        for contender in contenders[:: 1 if number % 2 == 0 else -1]:
            try:
                if contender.engine not in lost:
                    contender.run_whole()
                    contender.run_warm()
            except RuntimeError as error:
                lost[contender.engine] = str(error)
    ended = [contender for contender in contenders if contender.engine not in lost]
    judges = {contender.engine: contender.target for contender in ended}
    judge = next((judges[engine] for engine in ("torch", "ours", *judges) if engine in judges), source)
    rows = {}
    for contender in contenders:
        contender.close()
    for contender in ended:
        rows[contender.engine] = {
            "whole_s": statistics.median(contender.whole_s), "warm_s": statistics.median(contender.warm_s),
            "all_whole_s": contender.whole_s, "all_warm_s": contender.warm_s,
            "peak_bytes": max(contender.peak_bytes),
            "dice": dice_of_maps(contender.target, judge),
        }  # fmt: skip
    return {"size": size, "rows": rows, "lost": lost}


def show(found: dict[str, Any]) -> None:
    """Print a table: seconds, and how many times as long as ours."""
    ours = found["rows"].get("ours")
    print(f"\n{' x '.join(map(str, found['size']))}")
    print(
        f"{'engine':<15}{'process s':>11}{'ratio':>7}{'warm s':>9}{'ratio':>7}{'peak MiB':>10}{'ratio':>7}{'Dice':>9}"
    )
    for name, row in found["rows"].items():
        whole, warm, peak = (row[key] / ours[key] if ours else float("nan")
                             for key in ("whole_s", "warm_s", "peak_bytes"))  # fmt: skip
        print(f"{name:<15}{row['whole_s']:>11.2f}{whole:>7.2f}{row['warm_s']:>9.3f}{warm:>7.2f}"
              f"{row['peak_bytes'] / 2**20:>10.0f}{peak:>7.2f}{row['dice']:>9.5f}")  # fmt: skip
    for name, reason in found["lost"].items():
        print(f"{name}: {reason}")


def main() -> None:
    """Measure what the command line says."""
    if sys.argv[1:2] == ["--serve"]:
        return serve(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a 3-D run with one channel (default: trained now)")
    parser.add_argument("--sizes", default="36x50x36,256x256x256", help="sizes of images")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each engine")
    parser.add_argument("--width", type=int, default=8, help="channels of the network that is trained")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="convoxel-") as place:
        run = given.run or train_run(Path(place), given.width)
        for text in given.sizes.split(","):
            folder = Path(place, text)
            folder.mkdir()
            size = tuple(map(int, text.split("x")))
            results.append(measure(run.resolve(), size, given.engines.split(","), given.rounds, folder))
            show(results[-1])
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
