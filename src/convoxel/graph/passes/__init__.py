"""Functions from graph to graph, each with what must hold after it; every graph in between is verified.

``PASSES`` is the order in which ``optimise`` runs them:

1. ``remove_dead``: remove nodes and constants that nothing reads.
2. ``join_levels``: make layers of whole numbers of those whose operands are dequantised.
3. ``split_sums``: turn the sum over a stacked axis into additions of what was stacked.
4. ``sink_transposes``: push transposes past operators that commute with them, and cancel opposite ones.
5. ``fold_constants``: compute what depends on constants alone.
6. ``use_native``: choose native steps wherever they compute the same; no other pass chooses an implementation.
7. ``simplify_reshapes``: merge successive reshapes.
8. ``order_blocks``: reorder the channels of pixel shuffles so that they move runs of channels.
9. ``simplify_chains``: shorten chains of scalings and clips, and recognise activations spelt by them.
10. ``fold_padding``: fold zero padding into the convolution that reads it.
11. ``fuse_flatten``: let a linear layer flatten its operand itself.
12. ``fold_batch_norm``: fold batch normalisations and other per-channel scalings into the weights before them.
13. ``fold_forward``: fold the remaining ones into the weights behind them.
14. ``compose_linear``: make one convolution of two with nothing between them, where that is less work.
15. ``fuse_residual``: fuse an addition into the convolution that makes one of its terms.
16. ``fuse_difference``: turn the sum with a negative into a difference.
17. ``fuse_activation``: fuse an activation into the operator that makes its operand.
18. ``fold_permutations``: fold a new order of channels into the weights before it.
19. ``fuse_gate``: fuse a squeeze-and-excite scaling into the 1×1 convolution behind it.
20. ``join_depthwise``: join a depthwise convolution and the 1×1 convolutions around it.
21. ``merge_branches``: merge 1×1 convolutions of one input.
22. ``carry_levels``: hand levels from layer to layer where nobody needs the floats.
23. ``round_constants``: round what was folded in double precision to float32.
24. ``assign_layouts``: insert conversions where channels-last meets channels-first.
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
    levels,
    native,
    parts,
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
    Pass(levels.join_levels),
    Pass(parts.split_sums, parts.check_no_summed_stack),
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
    Pass(levels.carry_levels),
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
        verify(result, known=graph)
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
