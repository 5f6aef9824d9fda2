"""Networks, runs and files as models that are served, each under a name.

A program's inputs and outputs are its own tensors. A run is served as ``convoxel predict`` uses it: its input is an
image as it is stored, on the grid of the training images, and what comes out are label maps, probabilities or numbers;
normalisation, tiles and clean-up are those of the run.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convoxel.errors import ConfigError
from convoxel.files.fault import shown
from convoxel.files.memory import free_memory
from convoxel.files.values import Array
from convoxel.graph.ir.pytree import Branch, Leaf, name_leaves
from convoxel.graph.run.batch_axis import computes_images_apart, has_open_batch
from convoxel.graph.run.execution import Execution
from convoxel.graph.run.program import Program
from convoxel.graph.run.tiling import Arena
from convoxel.lookup import find_network, is_file, is_run
from convoxel.serve.model import ANY, ServedModel, TensorFacts
from convoxel.serve.tensor import TYPES
from convoxel.web.request import Refusal

if TYPE_CHECKING:
    from convoxel.predict.inference import Predictor

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHARE = 0.5  # of the free memory; the rest is for what comes meanwhile
_ALWAYS_BYTES = 64 * 2**20  # asking the system takes a share of the time of computing so little


@dataclass(frozen=True)
class OpeningOptions:
    """Choices that networks are opened with.

    Attributes:
        threads: threads of a call; None for all that the process may use.
        precision: digits of the products, as of :func:`convoxel.compile`; None for that of the file or run.
        weights: file of weights for the one network of the zoo; None for those that training starts from.
        which: checkpoint of runs, "best" or "last".
    """

    threads: int | None = None
    precision: str | None = None
    weights: Path | None = None
    which: str = "best"


def open_models(words: Sequence[str], options: OpeningOptions | None = None) -> dict[str, ServedModel]:
    """Return the models that words name, by name.

    Args:
        words: names of the zoo, run folders, ``.onnx`` and ``.cvx`` files; ``NAME=WORD`` serves one under another name
            than that of the network, folder or file.
        options: choices that they are opened with.

    Raises:
        ConfigError: there is no such network, two have one name, or an option does not fit.
    """
    found: dict[str, ServedModel] = {}
    arena = Arena()
    for word in words:
        name, place = _named(word)
        if name in found:
            raise ConfigError(
                f"serve: two models are named {name!r}; expected different names, such as {name}_2={place}."
            )
        found[name] = _opened(name, place, options or OpeningOptions(), arena)
    if not found:
        raise ConfigError("serve: nothing to serve; give a network, a run, or an .onnx or .cvx file.")
    return found


def _named(word: str) -> tuple[str, str]:
    """Return the name of a model, and the network's own word."""
    name, equals, place = word.partition("=")
    if not equals or Path(word).exists():
        place = word
        name = Path(word).stem if is_file(word) else Path(word).resolve().name if is_run(word) else word
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-") or "model"
    if not _NAME.fullmatch(name) or not place:
        raise ConfigError(
            f"serve: {shown(word)!r} names a model {shown(name)!r}; expected letters, digits and "
            "_ . -, such as net=net.onnx."
        )
    return name, place


def _opened(name: str, word: str, options: OpeningOptions, arena: Arena) -> ServedModel:
    if options.weights is not None and (is_run(word) or is_file(word)):
        raise ConfigError(f"weights: {options.weights} given, but {shown(word)} has weights of its own. Leave it out.")
    if is_run(word):
        return _of_run(name, word, options)
    return of_program(name, _program(word, options), arena)


def _program(word: str, options: OpeningOptions) -> Program:
    if options.precision == "int8":
        raise ConfigError(
            "precision: got 'int8', which runs have after `convoxel quantise`; give float32, high or bfloat16."
        )
    if is_file(word):
        from convoxel.graph.load import load

        program = load(word, threads=options.threads, precision=options.precision)
        if not isinstance(program, Program):
            raise ConfigError(
                f"serve: sizes of {shown(word)} depend on the values of an input. Export it with those values fixed."
            )
        return copy.deepcopy(program)  # whose weights no file holds that somebody may change
    import torch

    from convoxel.graph.compile import compile as compile_model

    found = find_network(word, weights=True, weights_from=options.weights)
    if options.weights is None:
        warnings.warn(
            f"serve: {found.name} has the weights that training starts from; --weights FILE gives it others.",
            RuntimeWarning,
            stacklevel=2,
        )
    examples = [torch.zeros(shape) for shape in found.shapes]
    return compile_model(found.module, *examples, precision=options.precision or "float32", threads=options.threads)


def of_program(name: str, program: Program, arena: Arena | None = None) -> ServedModel:
    """Return a program as a model; calls share the memory of ``arena``, one after the other."""
    graph, shared = program.graph, arena or Arena()
    names = _output_names(program)
    inputs = [_facts(name, value.name, value.dtype, value.shape) for value in graph.inputs]
    outputs = []
    for output, word in zip(graph.outputs, names, strict=True):
        made = graph.values.get(output) or graph.constants[output]
        outputs.append(_facts(name, word, str(made.dtype), made.shape))
    joins = has_open_batch(graph)

    def compute(arrays: Sequence[Array], wanted: frozenset[str]) -> Mapping[str, Array]:
        if any(0 in array.shape for array in arrays):  # no image, or one that the program refuses
            return dict(zip(names, _flat(program, arrays), strict=True))
        execution = program.planned(*arrays)
        _check_memory(name, arrays, execution, shared)
        return dict(zip(names, execution.run(arrays, arena=shared.of(execution)), strict=True))

    return ServedModel(
        name,
        tuple(inputs),
        tuple(outputs),
        compute,
        precision=program.precision,
        joins=joins,
        apart=lambda arrays: computes_images_apart(program.planned(*arrays)),
    )


def _facts(model: str, name: str, dtype: str, shape: Sequence[object]) -> TensorFacts:
    if np.dtype(dtype) not in TYPES.values():
        raise ConfigError(f"serve: {name} of {model} is {dtype}, which the protocol does not know.")
    return TensorFacts.of(name, dtype, shape)


def _flat(program: Program, arrays: Sequence[Array]) -> list[Array]:
    """Return a program's results in order, not nested."""
    flat = program.replace(structure=Branch("tuple", tuple(map(Leaf, range(len(program.graph.outputs))))))
    return list(flat(*arrays))


def _output_names(program: Program) -> list[str]:
    """Return a name for each output: that of its key, or ``output``; each once."""
    told = dict(name_leaves(program.structure))
    names: list[str] = []
    for index in range(len(program.graph.outputs)):
        stated = told.get(index) or f"output_{index}"
        same = sum(name == stated for name in names)
        names.append(f"{stated}_{same + 1}" if same else stated)
    return names


def _check_memory(name: str, arrays: Sequence[Array], execution: Execution, arena: Arena) -> None:
    """Refuse inputs whose computation would take more than half of the free memory."""
    known = execution.shapes
    results = sum(
        4 * int(np.prod(known[output], dtype=np.int64)) for output in execution.graph.outputs if output in known
    )
    _check_free(name, arrays, results + max(0, execution.memory.arena_bytes - arena.size_bytes))


def _check_free(name: str, arrays: Sequence[Array], needed: int) -> None:
    """Refuse inputs for which so many bytes are needed if they are more than half of the free memory."""
    free = free_memory() if needed > _ALWAYS_BYTES else None
    if free is not None and needed > _SHARE * free:
        shapes = ", ".join(str(list(array.shape)) for array in arrays)
        raise Refusal(
            413,
            f"{name}: inputs of shape {shapes} take {needed / 2**20:.0f} MiB more memory, and {free / 2**20:.0f} MiB "
            f"are free; expected at most {_SHARE:.0%} of it. Send smaller inputs.",
        )


def _of_run(name: str, word: str, options: OpeningOptions) -> ServedModel:
    from convoxel.train.run_folder import load_predictor

    return of_predictor(name, load_predictor(word, precision=options.precision, which=options.which))


def of_predictor(name: str, predictor: Predictor) -> ServedModel:
    """Return a trained network as a model of images as they are stored."""
    from convoxel.data.geometry import spacing_words

    data, task = predictor.run.data, predictor.run.config.task
    image = TensorFacts("image", "FP32", (ANY, data.channels, *[ANY] * data.dims))
    if task == "segment":
        outputs = [TensorFacts("labels", "UINT8", (ANY, *[ANY] * data.dims))]
        outputs.append(TensorFacts("probabilities", "FP32", (ANY, len(data.outputs), *[ANY] * data.dims)))
    elif task == "classify":
        outputs = [TensorFacts("probabilities", "FP32", (ANY, len(data.classes)))]
    else:
        outputs = [TensorFacts("values", "FP32", (ANY, len(data.classes)))]
    spacing = "" if data.spacing_mm is None else f" ({spacing_words(data.spacing_mm)})"
    grid = f"intensities as stored, on the grid and with the spacing of the training images{spacing}"
    return ServedModel(
        name,
        (image,),
        tuple(outputs),
        lambda arrays, wanted: _predicted(name, predictor, arrays[0], wanted),
        precision=predictor.precision.partition(" ")[0],
        joins=True,
        labels={"probabilities": data.classes} if task == "classify" else {},
        notes={"image": f"{grid}; the run's normalisation follows here"},
    )


def _predicted(name: str, predictor: Predictor, images: Array, wanted: frozenset[str]) -> dict[str, Array]:
    """Return what a run says of images (n, channels, *spatial)."""
    from convoxel.data import Sample

    if images.size == 0:
        raise Refusal(400, f"input 'image': shape is {list(images.shape)}; expected at least one image with pixels.")
    samples = [Sample(name=f"image {number}", image=image) for number, image in enumerate(images)]
    task = predictor.run.config.task
    if task == "regress":
        return {"values": predictor.values(samples).astype(np.float32)}
    if task == "classify":
        return {"probabilities": predictor.shares(samples).astype(np.float32)}
    size, outputs = images[:, 0].shape, len(predictor.run.data.outputs)
    _check_free(name, [images], int(np.prod(size, dtype=np.int64)) * (1 + 4 * outputs * ("probabilities" in wanted)))
    found: dict[str, Array] = {"labels": np.empty(size, np.uint8)}
    if "probabilities" in wanted:
        found["probabilities"] = np.empty((size[0], outputs, *size[1:]), np.float32)
    for number, sample in enumerate(samples):
        label = found["labels"][number]
        for part, scores in predictor.scores(sample):
            label[part] = predictor.decide(scores)
            if "probabilities" in wanted:
                place = (slice(None), *part)
                found["probabilities"][number][place] = predictor.shares_of(scores)
        predictor.finish(label, sample)
    return found
