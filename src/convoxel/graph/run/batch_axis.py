"""Images of a batch that have nothing to do with each other, so that several requests may be computed as one batch.

``has_open_batch`` looks at shapes alone. ``computes_images_apart`` follows the images through a plan, from operator to
operator: it answers True only where every operator's rule proves it, so a network that subtracts the mean of its batch
is found out although its shapes look innocent.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.ir.size import Shape, Size
from convoxel.graph.operators.reads import Aligned, Along, Applied, Regrouped
from convoxel.graph.operators.table import OPERATORS
from convoxel.graph.run.execution import Execution

# Operators without a rule, whole or where steps were fused, that compute the images along axis 0 of all their operands.
_BY_IMAGE = {
    "convolution", "transposed_convolution", "linear", "depthwise_block", "zeros", "resample", "max_unpool",
    "quantised_convolution", "quantised_transposed_convolution", "quantised_linear", "deformable_convolution",
    "grid_sample",
}  # fmt: skip
# Operators whose rules tell of image axes alone, while values of other images or the image's number have an influence.
_MIXING = {"batch_norm_training", "batch_normalise", "triangle"}


def has_open_batch(graph: Graph) -> bool:
    """Return True if the first axis of every input and every result is one open size, and no other axis depends on it.

    >>> from convoxel.graph.ir.graph import Value
    >>> image = Value("x", (Size("n"), 3, Size("h")))
    >>> has_open_batch(Graph("", (image,), ("x",), ())), has_open_batch(Graph("", (Value("x", (1, 3)),), ("x",), ()))
    (True, False)
    """
    results = [graph.values[name].shape if name in graph.values else () for name in graph.outputs]
    shapes = [*(value.shape for value in graph.inputs), *results]
    first = shapes[0][:1]
    if not first or not isinstance(first[0], Size) or not first[0].is_axis:
        return False
    others = [extent for shape in shapes for extent in shape[1:] if isinstance(extent, Size)]
    return all(shape[:1] == first for shape in shapes) and not any(first[0].names() & each.names() for each in others)


def computes_images_apart(execution: Execution) -> bool:
    """Return True if it is proven that each image's results depend on that image alone, in a plan of several images.

    Args:
        execution: plan of a graph that ``has_open_batch``, for two images or more.
    """
    graph, images = execution.graph, execution.shapes[execution.graph.inputs[0].name][0]
    batch = graph.inputs[0].shape[0]
    assert isinstance(batch, Size)
    # The axis of the images in every value that depends on them.
    axes: dict[str, int] = {value.name: 0 for value in graph.inputs}
    for node in graph.nodes:
        operands = [_shape(execution, name) for name in node.inputs]
        found = [axes.get(name) for name in node.inputs]
        if all(axis is None for axis in found):
            if node.operator not in ("fill", "expand") and _depends(node, batch.names()):
                return False  # such as the images' numbers
            continue
        resolved = node.resolved(execution.sizes)
        results = [execution.shapes[value.name] for value in node.outputs]
        axis = _follow(resolved, operands, results, found, images)
        if axis is None or any(axis >= len(shape) or shape[axis] != images for shape in results):
            return False
        axes.update((value.name, axis) for value in node.outputs)
    return all(axes.get(name) == 0 for name in graph.outputs)


def _shape(execution: Execution, name: str) -> Shape | None:
    if not name:
        return None
    return execution.shapes[name] if name in execution.shapes else tuple(execution.graph.constants[name].shape)


def _depends(node: Node, names: frozenset[str]) -> bool:
    """Return True if an attribute is computed from one of these sizes."""

    def speaks(value: object) -> bool:
        if isinstance(value, tuple | list):
            return any(map(speaks, value))
        if isinstance(value, Mapping):
            return any(map(speaks, value.values()))
        return isinstance(value, Size) and bool(value.names() & names)

    return speaks(node.attributes)


def _follow(
    node: Node, operands: Sequence[Shape | None], results: Sequence[Shape], found: Sequence[int | None], images: int
) -> int | None:
    """Return the axis of the images in a node's results; None where no rule proves that there is one.

    ``found`` is the axis of each operand that depends on images, and ``images`` their number.
    """
    if node.operator in _MIXING:
        return None
    reads = OPERATORS[node.operator].reads(Applied(node, operands, results))
    if node.operator in _BY_IMAGE and not isinstance(reads, Aligned):
        return 0 if all(axis in (None, 0) for axis in found) else None
    if isinstance(reads, Along):
        axis, *others = found
        alone = axis is not None and all(other is None for other in others)
        return axis if alone and axis not in reads.layers and axis not in reads.whole else None
    if isinstance(reads, Aligned):
        return _aligned(reads, found)
    if isinstance(reads, Regrouped):
        return 0 if found[0] == 0 and all(shape[:1] == (images,) for shape in results) else None
    return None


def _aligned(reads: Aligned, found: Sequence[int | None]) -> int | None:
    labels: set[Hashable] = set()
    for axis, names in zip(found, reads.operands, strict=False):
        if axis is not None:
            labels.add(names[axis])
    if len(found) > len(reads.operands) and any(axis is not None for axis in found[len(reads.operands) :]):
        return None
    if len(labels) != 1 or labels == {reads.mixed}:
        return None
    (label,) = labels
    return list(reads.result).index(label) if label in reads.result else None
