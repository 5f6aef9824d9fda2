"""Chains as text: what each word means, and where a mistake is marked."""

from __future__ import annotations

from fractions import Fraction

import pytest

from convoxel.arithmetic import (
    Adaptive,
    Exact,
    Layer,
    Pad,
    Resize,
    Transposed,
    Unpool,
    Window,
    parse_chain,
    parse_chains,
)
from convoxel.errors import ConfigError


@pytest.mark.parametrize("word, layer", [
    ("k3", Window(3)), ("k7s2p3", Window(7, 2, 3)), ("conv3d2", Window(3, d=2)), ("k3p1:2", Window(3, p=(1, 2))),
    ("k3p-1", Window(3, p=-1)), ("k3p-1:2", Window(3, p=(-1, 2))), ("k3s2psame", Window(3, 2, "same")),
    ("k5pcausald2", Window(5, 1, "causal", 2)), ("k5d2pcausal", Window(5, 1, "causal", 2)),
    ("pool2", Window(2, 2)), ("max3s2p1", Window(3, 2, 1)), ("pool3s2c", Window(3, 2, ceil=True)),
    ("t2s2", Transposed(2, 2)), ("t3s2p1a1", Transposed(3, 2, 1, a=1)), ("t4s2psame", Transposed(4, 2, "same")),
    ("unpool2", Unpool(2, 2)), ("unpool3s2p1", Unpool(3, 2, 1)), ("unpool2@0", Unpool(2, 2, 0, 0)),
    ("up2", Resize(Fraction(2))), ("up3/2:linear", Resize(Fraction(3, 2), "linear")),
    ("up1.5", Resize(Fraction(3, 2))), ("down2:cubic", Resize(Fraction(1, 2), "cubic")),
    ("pad1", Pad(1, 1)), ("pad1:-2", Pad(1, -2)), ("pad2:reflect", Pad(2, 2, "reflect")),
    ("adaptive7", Adaptive(7)), ("exact5", Exact(5)),
])  # fmt: skip
def test_words(word: str, layer: Layer) -> None:
    (node,) = parse_chain(word).nodes
    assert node.layer == layer
    assert node.name == word
    # What a layer prints is read as the same layer.
    (again,) = parse_chain(str(layer)).nodes
    assert again.layer == layer


def test_repeats_and_axes() -> None:
    assert str(parse_chain("k3x3 pool2")) == "k3 k3 k3 pool2"
    first, second = parse_chains(["k3,5p1,2", "pool2,1x2"], 2)
    assert [node.layer for node in first.nodes] == [Window(3, 1, 1), Window(2, 2), Window(2, 2)]
    assert [node.layer for node in second.nodes] == [Window(5, 1, 2), Window(1, 1), Window(1, 1)]
    assert [graph.size(16) for graph in parse_chains(["k3p1:0,2:2"], 2)] == [15, 18]


@pytest.mark.parametrize("text, marked, expected", [
    ("k7s2q3 pool3", "k7s2»q3« pool3", "one of 'p', 'd'"),
    ("k7 foo3", "k7 »foo«3", "a kind of layer: k, pool, t, "),
    ("pool", "pool»«", "a number after 'pool', such as pool2"),
    ("k7s", "k7»s«", "a number after 's'"),
    ("k7s2s3", "k7s2»s3«", "one of 'p', 'd'"),
    ("k3psme", "k3»psme«", "a number after 'p'"),
    ("adaptive7s2", "adaptive7»s2«", "nothing more"),
    ("k0", "»k0«", "kernel size k is 0"),
    ("k3s0", "»k3s0«", "stride s is 0"),
    ("down0", "»down0«", "a factor above 0"),
    ("unpool2@2", "»unpool2@2«", "position is 2, but a window of 2"),
    ("k3x0", "k3»x0«", "a repetition of x1 to x1024"),
    ("k3,3", "»k3,3«", "one number for the one axis; got 2"),
    ("k3 pool2x9999", "k3 pool2»x9999«", "a repetition of x1 to x1024"),
    ("k3s99999", "k3s»99999«", "a number of at most 65536"),
    ("3x3", "»3«x3", "a kind of layer"),
])  # fmt: skip
def test_mistakes_are_marked(text: str, marked: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_chain(text)
    message = str(caught.value)
    assert f"not understood at the mark: {marked}. Expected " in message, message
    assert expected in message.partition("Expected")[2]
