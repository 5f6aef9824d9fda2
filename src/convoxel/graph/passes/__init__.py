"""Functions from graph to graph, each with what must hold after it; every graph in between is verified.

``PASSES`` is the order in which ``optimise`` runs them:

1. ``remove_dead``: what nothing reads goes.
2. ``sink_transposes``: transposes move behind what does not mind them, and vanish where they meet their opposite.
3. ``fold_constants``: what depends on constants alone is computed.
4. ``use_native``: native steps compute what they can; this pass alone chooses between an operator's implementations.
5. ``simplify_reshapes``: one reshaping instead of several.
6. ``order_blocks``: pixel shuffles move runs of channels, in another order.
7. ``simplify_chains``: chains of scalings and cut-offs get short, and become the activations that they spell.
8. ``fold_padding``: zero padding moves into the convolution behind it.
9. ``fuse_flatten``: a flattening before a linear layer disappears into it.
10. ``fold_batch_norm``: batch normalisation and other per-channel scalings move into the weights before them.
11. ``fold_forward``: what is left of them moves into the weights behind them.
12. ``compose_linear``: two convolutions with nothing between become one, where that is less work.
13. ``fuse_residual``: an addition moves into the convolution that makes one of its terms.
14. ``fuse_difference``: the sum with a negative becomes a difference.
15. ``fuse_activation``: an activation moves into what makes its operand.
16. ``fold_permutations``: another order of channels moves into the weights before it.
17. ``fuse_gate``: a squeeze-and-excite scaling moves into the 1×1 convolution behind it.
18. ``join_depthwise``: a depthwise convolution and the 1×1 convolutions around it become one step.
19. ``merge_branches``: 1×1 convolutions of one input become one.
20. ``round_constants``: what was folded in double precision becomes float32.
21. ``assign_layouts``: conversions appear where channels-last meets channels-first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph
from convoxel.graph.operators.table import verify
from convoxel.graph.passes import (
    block,
    branch,
    chain,
    compose,
    constant,
    fold,
    forward,
    fuse,
    layout,
    native,
    permutation,
    reshape,
    transpose,
)
from convoxel.graph.passes.layout import check_layouts

__all__ = ["PASSES", "Pass", "check_layouts", "optimise", "run_pass"]


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph and the condition that its result meets."""

    run: Callable[[Graph], Graph]
    ensures: Callable[[Graph], None] | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__


PASSES = (
    Pass(fold.remove_dead, fold.check_no_dead),
    Pass(transpose.sink_transposes, transpose.check_no_opposites),
    Pass(constant.fold_constants),
    Pass(native.use_native),
    Pass(reshape.simplify_reshapes, reshape.check_no_reshape_chain),
    Pass(permutation.order_blocks, permutation.check_no_outside),
    Pass(chain.simplify_chains),
    Pass(fold.remove_dead, fold.check_no_dead),
    Pass(fold.fold_padding),
    Pass(fuse.fuse_flatten),
    Pass(fold.fold_batch_norm, fold.check_no_batch_norm),
    Pass(forward.fold_forward),
    Pass(compose.compose_linear),
    Pass(fuse.fuse_residual),
    Pass(fuse.fuse_difference),
    Pass(fuse.fuse_activation),
    Pass(permutation.fold_permutations),
    Pass(fuse.fuse_gate),
    Pass(block.join_depthwise, block.check_no_neighbours),
    Pass(branch.merge_branches),
    Pass(fold.remove_dead, fold.check_no_dead),
    Pass(fold.round_constants),
    Pass(layout.assign_layouts, layout.check_layouts),
)


def run_pass(step: Pass, graph: Graph) -> Graph:
    """Return ``step``'s result, verified; a graph that is wrong is refused with the name of the pass."""
    result = step.run(graph)
    try:
        if [(v.name, v.shape) for v in result.inputs] != [(v.name, v.shape) for v in graph.inputs]:
            raise GraphError("the inputs changed")
        if len(result.outputs) != len(graph.outputs):
            raise GraphError("the number of outputs changed")
        verify(result)
        if step.ensures:
            step.ensures(result)
    except GraphError as error:
        raise GraphError(f"after {step.name}: {error}") from None
    return result


def optimise(graph: Graph) -> Graph:
    """Return ``graph`` after all passes."""
    verify(graph)
    for step in PASSES:
        graph = run_pass(step, graph)
    return graph
