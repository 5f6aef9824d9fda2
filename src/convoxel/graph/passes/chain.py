"""The pass that finds known functions in chains of simple ones: scalings, clips, exponentials, and products with x.

Exporters write a hard swish as ``x * relu6(x + 3) / 6``, a GELU with ``erf``, a SiLU as ``x * sigmoid(x)``. A chain is
brought to a normal form: clips move behind scalings (so that a scaling can still be folded into what comes before),
neighbours of one kind become one, and what then spells a known activation becomes that activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from convoxel.graph.ir.graph import Graph, Node, Value, follow, rename
from convoxel.graph.operators.elementwise import clipping
from convoxel.graph.operators.rewriter import add_constant
from convoxel.graph.operators.table import make_node


class _Function(NamedTuple):
    """A function of one number: ``affine`` (x · a + b), ``clip`` (from a to b), or an activation with slope a."""

    kind: str
    a: float = 0.0
    b: float = 0.0


_Chain = tuple[_Function, ...]
_LAST_DIGIT = 2.0**-23  # of 1 as a float32
_CLIPS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
_SELU = (_Function("elu", 1.6732632423543772), _Function("affine", 1.0507009873554805))
_MOST_IN_GATE = 3  # functions that spell a gate
_FARTHEST = (
    8  # functions that a scaling moves before: with no end to it, long chains would take the square of their length
)
_HARD_SIGMOID = (_Function("affine", 1 / 6, 0.5), _Function("clip", 0.0, 1.0))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)  # numbers of a file are float32; nothing is as good as zero but zero


def _same(one: Sequence[_Function], other: Sequence[_Function]) -> bool:
    return len(one) == len(other) and all(
        p.kind == q.kind and _close(p.a, q.a) and _close(p.b, q.b) for p, q in zip(one, other, strict=True)
    )


# ---- the normal form -------------------------------------------------------------------------------------


def _reduced(chain: Sequence[_Function]) -> _Chain:
    """Return the shortest chain that this file knows for the same function."""
    done: list[_Function] = []
    for function in chain:
        _push(done, function)
    return _named([function for function in done if not _changes_nothing(function)])


def _changes_nothing(function: _Function) -> bool:
    """Return whether a scaling is by one, as far as float32 tells, and shifts by nothing at all."""
    return function.kind == "affine" and function.b == 0 and abs(function.a - 1) <= _LAST_DIGIT


def _push(done: list[_Function], function: _Function) -> None:
    """Apply ``function`` behind ``done``; a scaling moves before clips and leaky functions."""
    kind, a, b = function
    passed: list[_Function] = []
    while kind == "affine" and done and len(passed) < _FARTHEST:
        before = done[-1]
        if before.kind == "clip" and a != 0:
            passed.append(_Function("clip", *sorted((before.a * a + b, before.b * a + b))))
        elif before.kind == "leaky_relu" and a > 0 and b == 0:
            passed.append(before)
        else:
            break
        done.pop()
    _join(done, function)
    for after in reversed(passed):
        _join(done, after)


def _join(done: list[_Function], function: _Function) -> None:
    """Append ``function``, or make one of it and the last one of ``done``."""
    before = done[-1] if done else _Function("none")
    kind, a, b = function
    if kind == "affine" and before.kind == "affine":
        done[-1] = _Function("affine", before.a * a, before.b * a + b)
    elif kind == "clip" and before.kind == "clip":
        done[-1] = _Function("clip", *(min(max(end, a), b) for end in before[1:]))
    else:
        done.append(function)


def _named(chain: Sequence[_Function]) -> _Chain:
    """Return the chain with known spellings replaced by their activations."""
    at, named = 0, list[_Function]()
    while at < len(chain):
        rest = chain[at : at + 3]
        if _same(rest[:2], _HARD_SIGMOID):
            named.append(_Function("hard_sigmoid"))
            at += 2
        elif _same(rest[:2], _SELU):
            named.append(_Function("selu"))
            at += 2
        elif [f.kind for f in rest] == ["affine", "elu", "affine"] and _is_celu(*rest):
            named.append(_Function("celu", rest[2].a))
            at += 3
        else:
            named.append(rest[0])
            at += 1
    return tuple(named)


def _is_celu(before: _Function, curve: _Function, behind: _Function) -> bool:
    return behind.a > 0 and before.b == behind.b == 0 and _close(before.a * behind.a, 1.0) and _close(curve.a, 1.0)


# ---- between chains and nodes ----------------------------------------------------------------------------


def _functions(graph: Graph, node: Node | None) -> _Chain | None:
    """Return what a node does to each number, None if that is not known or not the same for all."""
    if node is None:
        return None
    if node.operator == "erf":
        return (_Function("erf"),)
    scaling: _Chain = ()
    if node.operator == "affine":
        numbers = [graph.constants[name] for name in node.inputs[1:]]
        if any(array.size != 1 for array in numbers):
            return None
        scaling = (_Function("affine", *(float(array.reshape(-1)[0]) for array in numbers)),)
    elif node.operator != "activation":
        return None
    kind, slope = node["activation"], node["slope"]
    if kind == "none":
        return scaling
    if kind == "clip" or kind in _CLIPS:
        return (*scaling, _Function("clip", *(slope if kind == "clip" else _CLIPS[kind])))
    return (*scaling, _Function(kind, float(slope)))


def _nodes(chain: _Chain, source: str, last: Node, constants: dict[str, np.ndarray]) -> list[Node]:
    """Return nodes that apply ``chain``, which is not empty, to ``source`` and make what ``last`` made."""
    nodes: list[Node] = []
    for index, (kind, a, b) in enumerate(chain):
        whole = index == len(chain) - 1
        name = last.name if whole else f"{last.name}.{index}"
        outputs = last.outputs if whole else (Value(name, last.output.shape),)
        if kind == "affine":
            names = [add_constant(constants, f"{name}.{part}", np.array([number], np.float64))
                     for part, number in (("scale", a), ("shift", b))]  # fmt: skip
            nodes.append(make_node("affine", name, (source, *names), outputs))
        elif kind == "erf":
            nodes.append(make_node("erf", name, (source,), outputs))
        else:
            activation, slope = clipping(a, b) if kind == "clip" else (kind, a)
            nodes.append(make_node("activation", name, (source,), outputs, activation=activation, slope=slope))
        source = nodes[-1].output.name
    return nodes


def _replace(graph: Graph, find: Callable[[Node], tuple[str, _Chain, set[str]] | None]) -> Graph:
    """Return the graph with nodes for which ``find`` returns (source, chain, names of nodes that go) rewritten."""
    constants, renamed, gone = dict(graph.constants), dict[str, str](), set[str]()
    made: dict[str, list[Node]] = {}
    for node in graph.nodes:
        found = find(node)
        if found is None or node.name in gone:
            continue
        source, chain, dead = found
        gone |= dead
        if chain:
            made[node.name] = _nodes(chain, source, node, constants)
        else:
            gone.add(node.name)
            renamed[node.output.name] = source
    kept = [new for node in graph.nodes if node.name not in gone for new in made.get(node.name, [node])]
    outputs = tuple(map(follow(renamed), graph.outputs))
    return graph.replace(nodes=rename(kept, renamed), outputs=outputs, constants=constants)


# ---- chains and gates ------------------------------------------------------------------------------------


def _makers(graph: Graph, name: str) -> Iterator[tuple[Node, _Chain]]:
    """Yield the nodes behind ``name`` that nobody else reads and what each does to a number, the last one first."""
    while graph.only_user(name) is not None:
        maker = graph.producers.get(name)
        functions = _functions(graph, maker)
        if maker is None or functions is None:
            return
        yield maker, functions
        name = maker.inputs[0]


def _back(graph: Graph, name: str) -> list[tuple[str, _Chain, set[str]]]:
    """Return the ways to see ``name`` as a chain on a source: the chain, and the nodes that nobody else reads."""
    ways: list[tuple[str, _Chain, set[str]]] = [(name, (), set())]
    for maker, functions in islice(_makers(graph, name), _MOST_IN_GATE):
        _, chain, nodes = ways[-1]
        ways.append((maker.inputs[0], (*functions, *chain), nodes | {maker.name}))
    return ways


def _longest(graph: Graph, node: Node) -> tuple[str, _Chain, set[str]] | None:
    """Return the source of the chain that ends with ``node`` and its normal form, None if it is that already."""
    own = _functions(graph, node)
    following = graph.only_user(node.outputs[0].name)
    if own is None or _functions(graph, following) is not None:
        return None
    before = list(_makers(graph, node.inputs[0]))
    whole = (*(function for _, functions in reversed(before) for function in functions), *own)
    reduced = _reduced(whole)
    source = before[-1][0].inputs[0] if before else node.inputs[0]
    return None if reduced == whole else (source, reduced, {maker.name for maker, _ in before})


def _known_product(gate: _Chain) -> _Chain | None:
    """Return the chain that computes x · gate(x), if there is an activation for it."""
    kinds = [function.kind for function in gate]
    if kinds == ["sigmoid"]:
        return (_Function("silu"),)
    if kinds == ["softplus", "tanh"]:
        return (_Function("mish"),)
    if kinds == ["hard_sigmoid"]:
        return (_Function("hard_swish"),)
    if kinds == ["affine", "clip"]:
        (_, scale, shift), (_, low, high) = gate
        if low == 0 and 0 < high < math.inf and _close(scale / high, 1 / 6) and _close(shift / high, 0.5):
            return (_Function("hard_swish"), _Function("affine", high))
    if kinds == ["affine", "erf", "affine"] and _close(gate[0].a, math.sqrt(0.5)) and gate[0].b == 0:
        half = gate[2].a  # half · (1 + erf(x / √2)) is twice half the normal distribution
        if _close(half, gate[2].b):
            return (_Function("gelu"), _Function("affine", 2 * half))
    return None


def _gate(graph: Graph, node: Node) -> tuple[str, _Chain, set[str]] | None:
    """Return a product of x with a function of x as a chain on x."""
    if not node.runs("multiply") or node["activation"] != "none" or node.inputs[0] == node.inputs[1]:
        return None
    ways = [_back(graph, name) for name in node.inputs[:2]]
    for plain, curved in (ways, ways[::-1]):
        for source, scaling, ours in plain:
            for other, gate, theirs in curved:
                product = _known_product(gate) if source == other and source in graph.values else None
                linear = not scaling or (len(scaling) == 1 and scaling[0].kind == "affine" and scaling[0].b == 0)
                if product is not None and linear and graph.values[source].shape == node.output.shape:
                    return source, (*product, *scaling), ours | theirs
    return None


def simplify_chains(graph: Graph) -> Graph:
    """Return the graph with chains of functions of one number in normal form, and gates of x by x as activations."""
    for find in (_longest, _gate, _longest):
        graph = _replace(graph, lambda node, find=find, graph=graph: find(graph, node))  # type: ignore[misc]
    return graph
