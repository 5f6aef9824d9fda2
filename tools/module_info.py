"""PyTorch's own samples of modules and operators, exported and run by the engine.

``python -m tools.module_info [WORD…]`` runs the inputs of PyTorch's tests of its modules (ModuleInfo: all but losses,
recurrent networks and attention), ``--operators`` those of its convolutions, poolings and normalisations (OpInfo),
with weights as constants of the network. ``--every N`` takes one in N. It prints a table by module of the samples that
are right, right with a part that ran in PyTorch (named), refused (with the reason), or invalid (PyTorch itself
refuses); it fails if one is wrong. PyTorch's samples need the package expecttest.
"""

from __future__ import annotations

import argparse
import copy
import functools
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

KINDS = ("right", "fallback", "refused", "invalid", "wrong")
_NO_CNN = ("Loss", "RNN", "GRU", "LSTM", "Transformer", "Attention")
_OPERATORS = re.compile(r"nn\.functional\.\w*(conv|pool|norm)\w*$|native_\w+_norm$")
_DEVICE = {"device": "cpu", "dtype": torch.float32, "requires_grad": False}


class Sample(NamedTuple):
    """One module with the arguments of its call."""

    group: str
    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]


class Bound(torch.nn.Module):
    """A call in which some tensors are the network's inputs; the others are its constants."""

    def __init__(self, call: Callable[..., Any], leaves: list[Any], spec: Any, inputs: list[int]) -> None:
        super().__init__()
        self.call = call
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.spec, self.places = spec, inputs
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor) and index not in inputs:
                self.register_buffer(f"constant_{index}", leaf.detach().clone())

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = [getattr(self, f"constant_{index}", leaf) for index, leaf in enumerate(self.leaves)]
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.call(*args, **kwargs)


def bound(group: str, call: Callable[..., Any], args: Any, kwargs: Any, all_inputs: bool) -> Sample:
    leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    tensors = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    places = tensors if all_inputs else tensors[:1]
    inputs = tuple(leaves[place].detach().clone() for place in places)
    return Sample(group, Bound(call, leaves, spec, places).eval(), inputs)


def modules(wanted: Callable[[str], bool]) -> Iterator[Sample]:
    """PyTorch's ModuleInfo."""
    from torch.testing._internal.common_modules import module_db

    for info in module_db:
        if any(word in info.name for word in _NO_CNN) or not wanted(info.name):
            continue
        for given in info.module_inputs_func(info, training=False, **_DEVICE):
            made = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs)
            call = given.forward_input
            if "Lazy" in info.name:  # has its weights when it has seen an input
                made(*call.args, **call.kwargs)
            yield bound(info.name, made.eval().float(), call.args, call.kwargs, all_inputs=True)


def operators(wanted: Callable[[str], bool]) -> Iterator[Sample]:
    """PyTorch's OpInfo of convolutions, poolings and normalisations."""
    from torch.testing._internal.common_methods_invocations import op_db

    for info in op_db:
        named = _OPERATORS.match(info.name) and not info.variant_test_name and wanted(info.name)
        if not named or not info.supports_dtype(torch.float32, "cpu"):
            continue
        for sample in info.sample_inputs("cpu", torch.float32, requires_grad=False):
            yield bound(info.name, info.op, (sample.input, *sample.args), sample.kwargs, all_inputs=False)


def judge(sample: Sample) -> tuple[str, str]:
    """Return the outcome of one sample: one of ``KINDS``, and its description."""
    from convoxel.errors import ConvoxelError
    from convoxel.graph.compile import compile

    try:
        with torch.no_grad():
            expected = _results(sample.module(*(x.clone() for x in sample.inputs)))
    except RuntimeError as reason:
        return "invalid", f"PyTorch: {reason}".splitlines()[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            program = compile(sample.module, *sample.inputs, threads=1)
            results = _results(program(*sample.inputs))
        except ConvoxelError as reason:
            return "refused", f"{type(reason).__name__}: {reason}".splitlines()[0]
        except Exception as reason:
            return "wrong", f"{type(reason).__name__}: {reason}".splitlines()[0]
    foreign = [str(w.message) for w in caught if "will run in PyTorch" in str(w.message)]
    random = any("aten.rand" in text for text in foreign)  # some poolings choose their windows at random
    pairs = zip(results, expected, strict=True)
    wrong = next((text for a, b in pairs if (text := differs(a, b, random))), "")
    if wrong and not as_good(sample, results, expected):
        return "wrong", f"{wrong} {[tuple(x.shape) for x in sample.inputs]}"
    return ("fallback", foreign[0].split(": ", 2)[-1]) if foreign else ("right", "")


def as_good(sample: Sample, results: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Return True if the results are as near to float64's as PyTorch's, which may have lost digits by cancellation."""
    try:
        with torch.no_grad():
            exact = _results(copy.deepcopy(sample.module).double()(*(x.double() for x in sample.inputs)))
    except RuntimeError:  # whole numbers among the inputs, or a call that insists on a type
        return False
    for ours, theirs, truth in zip(results, expected, exact, strict=True):
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape or not bool(torch.isfinite(truth).all()):
            return False
        error, usual = ((x.double() - truth).abs().max() for x in (ours, theirs))
        if not bool(error <= usual):
            return False
    return True


def _results(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def differs(result: torch.Tensor, expected: torch.Tensor, random: bool = False) -> str:
    """Return the difference of a result from PyTorch's, or ""; of random numbers only type and shape count."""
    if result.dtype != expected.dtype or result.shape != expected.shape:
        return f"{result.dtype} {tuple(result.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    if random:
        return ""
    a, b = result.numpy(), expected.numpy()
    if not expected.is_floating_point():
        return "" if np.array_equal(a, b) else "other whole numbers"
    finite = b[np.isfinite(b)]
    scale = float(np.max(np.abs(finite))) if finite.size else 1.0
    if np.allclose(a, b, rtol=1e-4, atol=2e-6 * max(scale, 1e-3), equal_nan=True):
        return ""
    return f"differs by {np.nanmax(np.abs(a - b)):.3g} of {scale:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of module names (default: all modules)")
    parser.add_argument("--operators", action="store_true", help="samples of operators instead of modules")
    parser.add_argument("--every", type=int, default=1, help="run one sample in this many (default 1)")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[tuple[str, str, str]] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = operators if options.operators else modules
        chosen = samples(lambda name: not options.words or any(word in name for word in options.words))
        for number, sample in enumerate(chosen):
            if number % options.every == 0:
                torch.manual_seed(number)
                kind, detail = judge(sample)
                counts[sample.group][kind] += 1
                reasons[kind, sample.group, detail[:200]] += 1
    print(f"{'':42}" + "".join(f"{kind:>9}" for kind in KINDS))
    total = functools.reduce(lambda a, b: a + b, counts.values(), Counter())
    for group, row in (*counts.items(), (f"all {sum(total.values())}", total)):
        print(f"{group:42}" + "".join(f"{row[kind] or '-':>9}" for kind in KINDS))
    for (kind, group, detail), count in sorted(reasons.items()):
        if detail:
            print(f"{kind:8} {count:4} {group}: {detail}")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
