"""Two networks as one outline: what both have, what the second changed, what it added, and what it left out.

Parts are the same where they have the same path, in the same order. A part that has moved is left out in one place
and added in another, so that the joint outline never has a cycle.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import SequenceMatcher

from convoxel.draw.network_outline import Node, Outline, Subject, outline, usual_depth
from convoxel.draw.quantity import listed, sizes

#: States of a part and of an edge.
STATES = ("same", "changed", "added", "removed")


@dataclass(frozen=True)
class Difference:
    """The joint outline of two networks.

    Attributes:
        outline: the parts of both in running order.
        states: a word of ``STATES`` for each part; a part that is removed is that of the first network.
        before: for each part that is changed, what differed before, in words; "" for others.
        edges: a word of ``STATES`` for each edge.
    """

    outline: Outline
    states: tuple[str, ...]
    before: tuple[str, ...]
    edges: tuple[str, ...]

    def count(self, state: str) -> int:
        """Return how many parts are in a state."""
        return self.states.count(state)

    def told(self) -> str:
        """Return the number of parts in each state in words."""
        words = [f"{self.count(state)} {state}" for state in ("added", "removed", "changed") if self.count(state)]
        return listed(words) if words else "no difference"


def difference(
    first: Subject,
    second: Subject,
    depth: int | None = None,
    opened: Collection[str] = (),
    closed: Collection[str] = (),
) -> Difference:
    """Return the joint outline of two networks; arguments as of :func:`convoxel.draw.network_outline.outline`.

    ``depth`` is by default the one of the network that needs the smaller one for few parts.
    """
    level = min(usual_depth(first), usual_depth(second)) if depth is None else depth
    a, b = (outline(of, level, opened, closed) for of in (first, second))
    place_a, place_b = dict[int, int](), dict[int, int]()
    nodes: list[Node] = []
    states: list[str] = []
    before: list[str] = []
    # Joins have no path of their own; their numbers depend on how many come before.
    old_names, new_names = ([node.name.partition(":")[0] for node in found.nodes] for found in (a, b))
    for word, a0, a1, b0, b1 in SequenceMatcher(a=old_names, b=new_names, autojunk=False).get_opcodes():
        if word == "equal":
            for i, j in zip(range(a0, a1), range(b0, b1), strict=True):
                place_a[i] = place_b[j] = len(nodes)
                said = _changes(a.nodes[i], b.nodes[j])
                nodes.append(b.nodes[j])
                states.append("changed" if said else "same")
                before.append(said)
            continue
        for found, places, ends, state in ((a, place_a, (a0, a1), "removed"), (b, place_b, (b0, b1), "added")):
            for index in range(*ends):
                places[index] = len(nodes)
                nodes.append(found.nodes[index])
                states.append(state)
                before.append("")
    old, new = ({(places[i], places[j]) for i, j in found.edges} for found, places in ((a, place_a), (b, place_b)))
    edges = sorted(old | new)
    kinds = ["same" if edge in old and edge in new else "added" if edge in new else "removed" for edge in edges]
    joint = Outline(f"{first.name} → {second.name}", tuple(nodes), tuple(edges))
    return Difference(joint, tuple(states), tuple(before), tuple(kinds))


def _changes(old: Node, new: Node) -> str:
    """Return what an old part was where the new one differs; "" where they are alike."""
    pairs = [
        (old.what(), new.what()),
        (sizes(old.shape[1:]), sizes(new.shape[1:])),
        (f"{old.params:,} params".replace(",", "\u202f"), f"{new.params:,} params".replace(",", "\u202f")),
        (old.sees(), new.sees()),
    ]
    return ", ".join(was for was, now in pairs if was != now and was)
