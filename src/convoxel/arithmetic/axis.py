"""A network along one axis: a graph of layers, with its sizes and receptive fields.

An N-D network is one graph for each axis. Layers that change no size and read one position (activations,
normalisations, 1-wide kernels) may be left out. Nothing here inverts these functions: that is ``solve``.
"""

from __future__ import annotations

from dataclasses import dataclass

from convoxel.arithmetic.field import Field, join, through
from convoxel.arithmetic.layer import Layer
from convoxel.arithmetic.size_set import PeriodicAffine
from convoxel.errors import ShapeError


@dataclass(frozen=True)
class Node:
    """A layer and the values that it takes: 0 is the network's input, j the output of node j − 1."""

    layer: Layer
    inputs: tuple[int, ...]
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.layer)


@dataclass(frozen=True)
class Graph:
    """The layers of a network along one axis, in running order; the last one makes the output.

    A residual block whose branch has no padding, so that its shortcut is cropped:

    >>> from convoxel.arithmetic.layer import Crop, Join, Window
    >>> block = Graph((Node(Window(3), (0,)), Node(Window(3), (1,)), Node(Crop(), (0, 2)), Node(Join(), (2, 3))))
    >>> block.sizes(10), block.field(10).size
    ((10, 8, 6, 6, 6), 5)
    """

    nodes: tuple[Node, ...]

    @classmethod
    def chain(cls, *layers: Layer) -> Graph:
        """Return the graph of ``layers`` in sequence.

        >>> from convoxel.arithmetic.layer import Window
        >>> print(Graph.chain(Window(7, 2, 3), Window(3, 2, 1)))
        k7s2p3 k3s2p1
        """
        return cls(tuple(Node(layer, (place,)) for place, layer in enumerate(layers)))

    def then(self, *more: Graph) -> Graph:
        """Return this graph followed by ``more`` in sequence.

        >>> from convoxel.arithmetic.layer import Window
        >>> print(Graph.chain(Window(3)).then(Graph.chain(Window(2, 2))))
        k3 k2s2
        """
        nodes = list(self.nodes)
        for graph in more:
            end = len(nodes)
            nodes += [Node(node.layer, tuple(end + value for value in node.inputs), node.name) for node in graph.nodes]
        return Graph(tuple(nodes))

    def sizes(self, i: int) -> tuple[int, ...]:
        """Return the size of every value for the input size ``i``; the last is the output's.

        Raises:
            ShapeError: a layer does not take its size; the message names it.
        """
        if i < 1:
            raise ShapeError(f"the input size is {i}, but it must be at least 1.")
        sizes = [i]
        for place, node in enumerate(self.nodes):
            try:
                size = node.layer.size(*(sizes[value] for value in node.inputs))
            except ShapeError as error:
                raise ShapeError(f"layer {place + 1} ({node}), input size {i}: {error}") from None
            sizes.append(size)
        return tuple(sizes)

    def size(self, i: int) -> int:
        """Return the output size for the input size ``i``.

        Raises:
            ShapeError: a layer does not take its size.
        """
        return self.sizes(i)[-1]

    def size_functions(self) -> tuple[tuple[PeriodicAffine, ...], list[PeriodicAffine], list[PeriodicAffine]]:
        """Return the size of every value as a function of the input size, and the conditions under which it holds.

        The functions hold where all of the first list are at least 1 and all of the second are 0; elsewhere some
        layer refuses its input.
        """
        functions = [PeriodicAffine.identity()]
        positive: list[PeriodicAffine] = [functions[0]]
        zero: list[PeriodicAffine] = []
        for node in self.nodes:
            given = [functions[value] for value in node.inputs]
            more, equal = node.layer.conditions(*given)
            functions.append(node.layer.size_function(*given))
            positive += [functions[-1], *more]
            zero += equal
        return tuple(functions), positive, zero

    def fields(self, i: int) -> tuple[Field, ...]:
        """Return the receptive field of every value for the input size ``i``.

        The size matters for layers whose windows depend on it: "same" with a stride, resizes to a size, adaptive
        pooling.

        Raises:
            ShapeError: a layer does not take its size.
        """
        sizes = self.sizes(i)
        fields = [Field.window()]
        for node, o in zip(self.nodes, sizes[1:], strict=True):
            taps = node.layer.taps(*(sizes[value] for value in node.inputs))
            seen = [through(fields[v], read) for v, read in zip(node.inputs, taps, strict=True) if read]
            fields.append(seen[0] if len(seen) == 1 else join(*seen, size=o))
        return tuple(fields)

    def field(self, i: int) -> Field:
        """Return the receptive field of the output for the input size ``i``.

        Raises:
            ShapeError: a layer does not take its size.
        """
        return self.fields(i)[-1]

    def __str__(self) -> str:
        return " ".join(map(str, self.nodes))
