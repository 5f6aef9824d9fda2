"""YAML texts from outside: plain values only, and aliases that cannot make much of little."""

from __future__ import annotations

import yaml

_MOST_NODES = 10_000  # values in a configuration


def load_yaml(text: str) -> object:
    """Return what YAML text says; aliases may not make more of it than ``_MOST_NODES`` values.

    Raises yaml.YAMLError, ValueError (such as a day that does not exist), RecursionError.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _count_nodes(root, {}) > _MOST_NODES:
            raise ValueError(f"its aliases stand for more than {_MOST_NODES} values")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for, all aliases written out."""
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1  # what an alias inside of itself stands for
        value = node.value
        inner = (each for item in value for each in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_count_nodes(each, known) for each in inner if isinstance(each, yaml.Node))
    return known[id(node)]
