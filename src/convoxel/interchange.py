"""Networks for other engines: a name of the zoo, a run or a file, written as an ONNX model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.errors import ConfigError, GraphError
from convoxel.files.source import check_target
from convoxel.lookup import find_network, is_file, is_run

if TYPE_CHECKING:
    from convoxel.files.values import JsonObject, Options
    from convoxel.graph.ir.size import Shape
    from convoxel.graph.run.program import Program
    from convoxel.predict.trained_run import TrainedRun
    from convoxel.train.config import TrainConfig


@dataclass(frozen=True)
class ExportedNetwork:
    """A network that was written as an ONNX model.

    Attributes:
        name: the network.
        path: the file.
        size_bytes: bytes of the file.
        opset: the operator set that an engine must know.
        nodes: number of the model's nodes.
        inputs: shape of each input by its name; an open size is a name, or an expression of names.
        outputs: the same of each output.
        metadata: texts by name that the model keeps.
    """

    name: str
    path: Path
    size_bytes: int
    opset: int
    nodes: int
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]
    metadata: Mapping[str, str]


def export_network(
    word: str,
    output: str | Path,
    shapes: Sequence[Shape] = (),
    options: Options | None = None,
    *,
    weights: str | Path | None = None,
    which: str = "best",
) -> ExportedNetwork:
    """Write a network as an ONNX model with open batch and spatial sizes.

    Args:
        word: name, run folder or file, as of :func:`convoxel.lookup.find_network`. A run is one network, whose metadata
            say what its inputs and outputs mean (:func:`run_metadata`).
        output: ``.onnx`` file.
        shapes: shape of each input that the network is recorded with (default: a usual one, or that of the run).
        options: options of a network of the zoo.
        weights: file of weights for a network of the zoo (default none: those that training starts from).
        which: checkpoint of a run, "best" or "last".

    Raises:
        ConfigError: the word is no network, or an option does not fit it. UnsupportedError: ONNX cannot say what some
            nodes do. GraphError: the file cannot be written.
    """
    path = check_target("export", output, ".onnx", GraphError)
    metadata: dict[str, str] = {}
    if is_file(word):
        if options or weights is not None or shapes:
            raise ConfigError(f"shape, set, weights: they do not go with {Path(word).suffix} files. Leave them out.")
        name, program = Path(word).name, _from_file(word)
    else:
        name, program = _from_module(word, shapes, options, weights, which, metadata)
    program.to_onnx(path, metadata)
    return _written(name, path)


def _from_file(word: str) -> Program:
    from convoxel.graph.load import load
    from convoxel.graph.run.program import Program

    program = load(word)
    if not isinstance(program, Program):
        raise ConfigError(f"network: sizes of {word} depend on the values of an input, so it has no model of its own.")
    return program


def _from_module(
    word: str,
    shapes: Sequence[Shape],
    options: Options | None,
    weights: str | Path | None,
    which: str,
    metadata: dict[str, str],
) -> tuple[str, Program]:
    import torch

    from convoxel.graph.compile import compile as compile_model

    if is_run(word) and not options and weights is None:
        from convoxel.train import load_model

        run = load_model(word, which)
        module, name = run.network, f"{run.config.model} of {word}"
        given: Sequence[Shape] = shapes or (run.input_shape,)
        metadata.update(run_metadata(run))
    else:
        found = find_network(word, shapes, options, weights=True, weights_from=weights)
        module, name, given = found.module, found.name, found.shapes
    return name, compile_model(module, *(torch.zeros(shape) for shape in given), precision="float32")


# Facts of a run's data that say how its network is to be used.
_FACTS = (
    "classes", "channels", "channel_files", "spacing_mm", "geometry", "normalisation", "multi_label", "regions",
    "targets", "previous_values",
)  # fmt: skip


def run_metadata(run: TrainedRun[TrainConfig]) -> dict[str, str]:
    """Return what a run's inputs and outputs mean, as JSON texts by name.

    ``task`` and ``model``; ``patch``, the size of an input in training; ``classes``, in the order of label values, and
    ``outputs``, in that of the output's channels, which are logits; ``spacing_mm``, ``geometry`` and ``normalisation``,
    by which images come onto the network's grid; and other facts of the data that it was trained on.
    """
    known: JsonObject = {"task": run.config.task, "model": run.config.model, "patch": run.input_shape[2:]}
    known |= {"outputs": run.data.outputs, **{name: getattr(run.data, name) for name in _FACTS}}
    return {f"convoxel.{name}": json.dumps(_plain(value), ensure_ascii=False) for name, value in known.items()}


def _plain(value: object) -> object:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _written(name: str, path: Path) -> ExportedNetwork:
    """Return what a file holds."""
    import onnx

    model = onnx.load(path)

    def shapes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[int | str, ...]]:
        return {
            value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in values
        }

    return ExportedNetwork(
        name,
        path,
        path.stat().st_size,
        model.opset_import[0].version,
        len(model.graph.node),
        shapes(model.graph.input),
        shapes(model.graph.output),
        {entry.key: entry.value for entry in model.metadata_props},
    )
