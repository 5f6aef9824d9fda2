"""From a PyTorch module to a program, in one call."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError
from convoxel.files.values import Array
from convoxel.fork import forks_wait
from convoxel.graph.run.program import Program
from convoxel.graph.store.record import check_settings

if TYPE_CHECKING:
    import torch

    from convoxel.graph.read.torch import Imported


def compile(
    model: torch.nn.Module | torch.export.ExportedProgram,
    *example_inputs: torch.Tensor | Array,
    threads: int | None = None,
    tune: bool = False,
    algorithm: str = "auto",
    precision: str | None = None,
    verify: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Program:
    """Return ``model`` as a program of native steps, in evaluation mode and with its present weights.

    The model is recorded by ``torch.export`` on the examples with batch and spatial sizes left open, its
    batch normalisations, activations and additions are folded into the convolutions, and concatenations
    become views. What the engine does not know runs in PyTorch and is named in one warning.

    Args:
        model: a ``torch.nn.Module`` of float32 on the CPU. It is not changed, and not needed afterwards. Or what
            ``torch.export.export`` returned for one in evaluation mode: its program takes the sizes that were left open
            then, and its tensors in the order of the arguments. An argument that the model writes to stays as it is.
        example_inputs: arrays or tensors on which the model runs: float32, (n, c, w), (n, c, h, w) or (n, c, d, h, w),
            or whole numbers (indices). Their values do not matter; a spatial size of 1, and that of a tensor with one
            axis alone, is taken for fixed. Those of an exported model are known.
        threads: how many threads a call uses; all that the process may use by default.
        tune: for every convolution of the example's sizes, measure the three algorithms of least expected cost and
            keep the fastest; remembered in the cache folder (``CONVOXEL_CACHE``), so that the next time is free.
        algorithm: ``"auto"``, the one of least expected cost; ``"direct"``, no more rounding than direct sums; or one
            of ``convoxel.algorithms()`` for every convolution.
        precision: the fewest digits of the numbers that convolutions and linear layers multiply; sums and all other
            steps are float32's. ``"float32"``: 24 binary digits. ``"high"``: 16, relative errors of some 1e-5 instead
            of 1e-6, where the processor has a matrix unit (AMX). ``"bfloat16"``: 8, relative errors of some 5e-3, there
            or where it multiplies bfloat16 in vectors (AVX512-BF16). An algorithm of more digits runs where that is
            faster, and everywhere else. By default what ``torch.set_float32_matmul_precision`` says: highest, high and
            medium are these three.
        verify: run program and model on random input of the example's sizes and compare; the figures are then in
            ``program.verification``. Takes a few runs of the model, in float64 where that is affordable.
        on_progress: for ``tune``: called with (convolutions done, convolutions to measure, the next one).

    Raises:
        GraphError: the model is no module, or ``torch.export`` cannot record it.
        ShapeError: an example holds fractions of another type than float32, or has an axis of size 0 besides the batch.
        ConfigError: ``threads`` is below 1, there is no such ``precision``, or ``tune`` and ``algorithm`` contradict
            each other.
        UnsupportedError: the forced ``algorithm`` cannot run some convolution, a size depends on values, the model
            writes its buffers or parameters, or an example is sparse.
        AccuracyError: with ``verify``: program and model differ by more than rounding explains.

    >>> import numpy as np, torch
    >>> program = compile(torch.nn.Conv2d(3, 8, 3, padding=1), np.zeros((1, 3, 16, 16), np.float32))
    >>> program(np.ones((2, 3, 24, 32), np.float32)).shape
    (2, 8, 24, 32)
    """
    with forks_wait():
        import torch
    # What registers hooks of forks comes alone: if a fork waited meanwhile, as for the long imports, half would run.
    with forks_wait(), suppress(ImportError):
        import torch.utils._filelock
    check_settings("compile", threads, precision, algorithm)
    if tune and algorithm != "auto":
        raise ConfigError(
            f"compile: tune=True chooses algorithms, but algorithm={algorithm!r} forces one; give one of both"
        )
    if not isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        raise GraphError(
            f"compile: model is a {type(model).__name__}, expected a torch.nn.Module; wrap a function in a module"
        )
    imported, examples, arrays = _read(model, example_inputs)
    _warn(imported.without_rule, imported.exported.assigned)
    program = Program.from_graph(
        imported.graph,
        imported.structure,
        threads=threads,
        algorithm=algorithm,
        precision=precision or matmul_precision(),
    )
    program.prepare(*arrays)  # sizes that do not fit are refused here, not at the first call
    program = program.tuned(*arrays, on_progress=on_progress) if tune else program.settled(*arrays)
    if verify:
        with forks_wait():
            from convoxel.graph.verification import check_program

            program = program.replace(verification=check_program(program, model, examples))
    return program


def _read(
    model: torch.nn.Module | torch.export.ExportedProgram, example_inputs: Sequence[object]
) -> tuple[Imported, list[torch.Tensor], list[Array]]:
    """Return the graph of a model, and its examples as tensors and as arrays.

    All that PyTorch does is within one block: a thread that comes back from its C++ to an exiting interpreter aborts.
    """
    with forks_wait():
        import torch

        from convoxel.graph.read.torch import read

        if isinstance(model, torch.export.ExportedProgram) and not example_inputs and model.example_inputs is not None:
            known = torch.utils._pytree.tree_leaves(model.example_inputs)
            example_inputs = tuple(x for x in known if isinstance(x, torch.Tensor))
        examples = [_as_tensor(example, index) for index, example in enumerate(example_inputs)]
        if not examples:
            raise GraphError("compile: there is no example input; give arrays that model(*example_inputs) accepts")
        try:
            imported = read(model, examples)
            # Their shapes and types count; nobody writes to this memory, so the system gives none.
            return imported, examples, [np.empty(x.shape, str(x.dtype).removeprefix("torch.")) for x in examples]
        except GraphError as error:
            advice = _advice(model, examples) if isinstance(model, torch.nn.Module) else ""
            if advice:
                raise ShapeError(f"{error} {advice}") from error
            raise


def matmul_precision() -> str:
    """Return the precision of float32 products that PyTorch is set to; nobody has set it where it is not imported."""
    torch = sys.modules.get("torch")
    setting = "highest" if torch is None else torch.get_float32_matmul_precision()
    return {"highest": "float32", "high": "high", "medium": "bfloat16"}[setting]


def _advice(model: torch.nn.Module, examples: Sequence[torch.Tensor]) -> str:
    """Return a sentence that names example shapes that the model would accept; "" if none was found."""
    from convoxel.graph.read.module_reader import ModuleReader

    if not all(example.is_floating_point() for example in examples):
        return ""
    shapes = [tuple(example.shape) for example in examples]
    try:
        reader = ModuleReader(model)
        return "" if reader.accepts(shapes) else reader.explain(shapes)
    except GraphError:
        return ""


def _as_tensor(example: object, index: int) -> torch.Tensor:
    import torch

    where = f"compile: example_inputs[{index}]"
    if isinstance(example, np.ndarray):
        example = torch.from_numpy(np.array(example))
    if not isinstance(example, torch.Tensor):
        raise GraphError(f"{where} is a {type(example).__name__}, expected a tensor or array")
    if example.layout is not torch.strided:
        raise UnsupportedError(f"{where} has the layout {example.layout}; expected a dense tensor: pass x.to_dense()")
    example = example.detach().cpu()
    if example.dtype not in (torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool):
        raise ShapeError(f"{where} is {example.dtype}, expected float32; convert it (x.float())")
    if 0 in example.shape[1:]:
        raise ShapeError(
            f"{where} has shape {tuple(example.shape)}, expected (n, c, …) with no axis of size 0 behind the batch"
        )
    return example


def _warn(without_rule: dict[str, str], assigned: frozenset[str]) -> None:
    if assigned:
        warnings.warn(
            f"compile: the model assigns {', '.join(sorted(assigned))} while it runs; the program assigns nothing, and "
            "repeats what the model's next call would compute",
            UserWarning,
            stacklevel=3,
        )
    if without_rule:
        listed: Sequence[str] = [f"{name} ({reason})" for name, reason in sorted(without_rule.items())]
        warnings.warn(
            f"compile: {len(without_rule)} operator{'s' if len(without_rule) > 1 else ''} will run in PyTorch: "
            f"{', '.join(listed)}",
            UserWarning,
            stacklevel=3,
        )
