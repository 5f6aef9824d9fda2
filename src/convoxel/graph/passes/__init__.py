"""Functions from graph to graph, each with what must hold after it; every graph in between is verified.

``PASSES`` is the order in which ``optimise`` runs them:

1. ``remove_dead``: what nothing reads goes.
2. ``sink_transposes``: transposes move behind what does not mind them, and vanish where they meet their opposite.
3. ``fold_padding``: zero padding moves into the convolution behind it.
4. ``fuse_flatten``: a flattening before a linear layer disappears into it.
5. ``fold_batch_norm``: batch normalisation and other per-channel scalings move into the weights before them.
6. ``fuse_residual``: an addition moves into the convolution that makes one of its terms.
7. ``fuse_activation``: an activation moves into what makes its operand.
8. ``fuse_gate``: a squeeze-and-excite scaling moves into the 1×1 convolution behind it.
9. ``merge_branches``: 1×1 convolutions of one input become one.
10. ``round_constants``: what was folded in double precision becomes float32.
11. ``assign_layouts``: conversions appear where channels-last meets channels-first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convoxel.errors import GraphError
from convoxel.graph.ir import Graph
from convoxel.graph.opset import verify
from convoxel.graph.passes import branch, fold, fuse, layout, transpose
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
    Pass(fold.remove_dead, fold.check_no_dead),
    Pass(fold.fold_padding),
    Pass(fuse.fuse_flatten),
    Pass(fold.fold_batch_norm, fold.check_no_batch_norm),
    Pass(fuse.fuse_residual),
    Pass(fuse.fuse_activation),
    Pass(fuse.fuse_gate),
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
