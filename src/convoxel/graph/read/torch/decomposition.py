"""Operators that PyTorch says in terms of others: those without a rule are read as what they are made of.

PyTorch keeps such decompositions for its own compilers. One is taken where every operator in it has a rule, and where
it is the same for all sizes; it is recorded with the sizes of the exported program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

from convoxel.graph.read.torch.call import RULES

_ASKING = (
    "aten.sym_size",
    "aten.size",
    "aten.sym_numel",
    "aten._assert",
    "getitem",
    "<built-in function",
    "<function sym_",
)
_IGNORED = "ignored_backward_guard"  # PyTorch's count of what it took for granted of sizes after an export


@functools.cache
def _table() -> Mapping[Any, Callable[..., Any]]:
    """Return PyTorch's decompositions of operators that have no rule."""
    return {operator: function for operator, function in decomposition_table.items() if str(operator) not in RULES}


def _writes(node: torch.fx.Node) -> bool:
    return getattr(getattr(node.target, "_schema", None), "is_mutable", False)


def decompose(node: torch.fx.Node) -> tuple[torch.fx.GraphModule, list[torch.fx.Node]] | None:
    """Return the graph that a node of an exported program stands for, and the nodes that it reads in order.

    None if PyTorch knows none, if it depends on sizes that are open, or if some operator in it has no rule.
    """
    target: Any = node.target
    function = decomposition_table.get(target)
    if function is None and not (hasattr(target, "_can_decompose") and target._can_decompose()):
        return None
    meta = node.meta["val"]
    result = meta if isinstance(meta, torch.Tensor) else next(each for each in meta if isinstance(each, torch.Tensor))
    mode = getattr(result, "fake_mode", None)
    if mode is None:
        return None
    leaves, spec = torch.utils._pytree.tree_flatten((node.args, node.kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.fx.Node)]

    def run(*given: Any) -> Any:
        filled = list(leaves)
        for index, value in zip(places, given, strict=True):
            filled[index] = value
        args, kwargs = torch.utils._pytree.tree_unflatten(filled, spec)
        result = (function or target.decompose)(*args, **kwargs)
        return tuple(result) if isinstance(result, list | tuple) else result

    values = [leaves[index].meta.get("val") for index in places]
    counter = getattr(mode.shape_env, "counter", {})
    before = counter.get(_IGNORED, 0)
    try:
        with mode, torch.no_grad():
            graph = make_fx(run, _table())(*values)
            if any(
                getattr(each.target, "_schema", None) and each.target._schema.is_mutable for each in graph.graph.nodes
            ):
                graph = make_fx(torch.func.functionalize(graph, remove="mutations"), _table())(*values)
    except Exception:  # of many kinds, for whatever a decomposition does not take
        return None
    calls = [each for each in graph.graph.nodes if each.op == "call_function"]
    ruled = all(str(each.target) in RULES or str(each.target).startswith(_ASKING) for each in calls)
    if not ruled or counter.get(_IGNORED, 0) != before:
        return None
    for each in calls:
        each.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    return graph, [leaves[index] for index in places]
