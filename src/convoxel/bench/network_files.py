"""The files of a network that engines read: input and exact result, samples, ONNX models, and our programs.

Files of PyTorch and of the peers are kept in a folder and used again; our programs are compiled anew every time,
because the compiler is what is measured. Statistics of normalisations come from the samples, as in a network that was
trained: with those of a new network, values grow from layer to layer, and an error of the result tells nothing.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convoxel.bench.engine import Floats, Task, first_output
from convoxel.bench.network_list import Network
from convoxel.files.atomic import open_atomic, write_bytes

if TYPE_CHECKING:
    from torch import nn

_SAMPLES = 4


@dataclass(frozen=True)
class Program:
    """Figures of the compilation of a program.

    Attributes:
        compile_s: seconds from the PyTorch module to the program, of int8 without the choice of its layers.
        macs: multiply-accumulates of one run by direct convolution.
    """

    compile_s: float
    macs: int


class NetworkFiles:
    """The files of one network at one batch.

    Args:
        network: the network.
        batch: number of images in the input.
        threads: number of CPU threads that compute what is written.
        root: folder in which each network and batch has a folder of its own.
    """

    def __init__(self, network: Network, batch: int, threads: int, root: Path) -> None:
        words = json.dumps([asdict(network), batch, importlib.metadata.version("torch")], default=str)
        name = f"{network.name.replace('/', '-')}-{batch}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
        self.folder = root / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.task = Task(network, self.folder, threads)
        self.batch = batch

    def prepare(self) -> Floats:
        """Write input, samples and statistics where they are missing, and return the exact result."""
        exact = self.folder / "exact.npy"
        if not exact.exists():
            shape = self.task.network.shape(self.batch)
            _save(self.folder / "x.npy", np.random.default_rng(0).standard_normal(shape, np.float32))
            samples = np.random.default_rng(1).standard_normal((_SAMPLES, *shape[1:]), np.float32)
            _save(self.folder / "samples.npy", samples)
            _write_statistics(self.task, samples)
            _save(exact, _exact_result(self._module, self.task.x))
        return np.asarray(np.load(exact))

    def write(self, file: str) -> None:
        """Write a file that an engine reads, unless it is there; the names are those of ``_WRITERS``."""
        path = self.folder / file
        if not path.exists():
            _WRITERS[file](self)

    def compile(self, precision: str, **settings: Any) -> Program:
        """Compile our program at a precision and save it; return what it took."""
        import torch

        from convoxel.graph.compile import compile as compile_model
        from convoxel.graph.quantise import quantise

        x, tensor = self.task.x, torch.from_numpy(self.task.x)
        begun = time.perf_counter()
        program = compile_model(
            self._module, tensor, threads=self.task.threads,
            precision="float32" if precision == "int8" else precision, **settings,
        )  # fmt: skip
        compile_s = time.perf_counter() - begun
        if precision == "int8":
            program = quantise(program, list(self._samples), max_loss=1.0)
        program.save(self.folder / f"{precision}.cvx")
        return Program(compile_s, sum(row["macs"] for row in program.profile(x)))

    @cached_property
    def _module(self) -> nn.Module:
        import torch

        torch.set_num_threads(self.task.threads)
        return self.task.build()

    @property
    def _samples(self) -> Floats:
        """Samples, each of the input's shape."""
        single = np.load(self.folder / "samples.npy")
        return np.repeat(single[:, None], self.batch, axis=1)

    def write_onnx(self) -> None:
        """Write the ONNX model in float32."""
        import torch

        partial = self.folder / "partial.onnx"
        with _quietly():
            torch.onnx.export(self._module, (torch.from_numpy(self.task.x),), partial, dynamo=False, opset_version=17)
        partial.replace(self.folder / "net.onnx")

    def write_onnx_int8(self) -> None:
        """Write ONNX Runtime's static quantisation: per channel, on our samples."""
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.write("net.onnx")
        partial, folded = self.folder / "partial.onnx", self.folder / "folded.onnx"
        with _quietly():
            quant_pre_process(str(self.folder / "net.onnx"), str(folded))
            quantization.quantize_static(
                str(folded), str(partial), _reader(folded, self._samples), per_channel=True,
                quant_format=quantization.QuantFormat.QDQ, activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
        folded.unlink()
        partial.replace(self.folder / "net-int8.onnx")

    def write_openvino_int8(self) -> None:
        """Write OpenVINO's quantisation by NNCF, on our samples."""
        import nncf
        import openvino

        self.write("net.onnx")
        with _quietly():
            nncf.set_log_level(logging.ERROR)
            model = openvino.Core().read_model(str(self.folder / "net.onnx"))
            quantised = nncf.quantize(model, nncf.Dataset(list(self._samples)), subset_size=_SAMPLES)
            openvino.save_model(quantised, str(self.folder / "net-int8.partial.xml"), compress_to_fp16=False)
        for ending in (".bin", ".xml"):  # the last one tells that both are there
            (self.folder / f"net-int8.partial{ending}").replace(self.folder / f"net-int8{ending}")


_WRITERS: dict[str, Callable[[NetworkFiles], None]] = {
    "net.onnx": NetworkFiles.write_onnx,
    "net-int8.onnx": NetworkFiles.write_onnx_int8,
    "net-int8.xml": NetworkFiles.write_openvino_int8,
}


def _save(path: Path, array: Floats) -> None:
    with open_atomic(path) as file:
        np.save(file, array)


def _write_statistics(task: Task, samples: Floats) -> None:
    """Write the statistics of batch normalisations, and nothing for a network without or of another package."""
    import torch
    from safetensors.torch import save

    module = task.network.build()
    norms = [norm for norm in module.modules() if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm)]
    if ":" in task.network.model or not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean over all samples
    with torch.no_grad():
        module(torch.from_numpy(samples))
    changed = {id(buffer) for norm in norms for buffer in norm.buffers()}
    kept = {name: buffer for name, buffer in module.named_buffers() if id(buffer) in changed}
    write_bytes(task.folder / "statistics.safetensors", save(kept))


def _exact_result(module: nn.Module, x: Floats) -> Floats:
    """Return the result in float64; in float32 if parts of the network know no other type."""
    import torch

    with torch.inference_mode():
        try:
            y = first_output(copy.deepcopy(module).double()(torch.from_numpy(x).double()))
        except (RuntimeError, TypeError):
            y = first_output(module(torch.from_numpy(x)))
    return np.asarray(y, np.float64)


def _reader(path: Path, samples: Floats) -> Any:
    """Return the samples as ONNX Runtime's quantisation reads them."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader

    name = onnxruntime.InferenceSession(str(path)).get_inputs()[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._left: Iterator[Floats] = iter(samples)

        def get_next(self) -> dict[str, Floats] | None:
            sample = next(self._left, None)
            return None if sample is None else {name: sample}

    return Reader()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep warnings and notes of exporters off the screen."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
