"""Published networks as chains of layers along one axis.

Araujo, Norris & Sim 2019, Table 1, with the layouts of TF-slim: a unit of ResNet v1 is represented by its 3-wide
kernel, and the last unit of a block has the stride. A block of Inception is represented by its widest branch.
"""

from __future__ import annotations

__all__ = ["SLIM"]

SLIM = {
    "alexnet_v2": "k11s4 pool3s2 k5p2 pool3s2 k3p1x3 pool3s2",
    "vgg_a": "k3p1 pool2 k3p1 pool2 k3p1x2 pool2 k3p1x2 pool2 k3p1x2 pool2",
    "vgg_16": "k3p1x2 pool2 k3p1x2 pool2 k3p1x3 pool2 k3p1x3 pool2 k3p1x3 pool2",
    "mobilenet_v1": "k3s2p1 k3p1 k3s2p1 k3p1 k3s2p1 k3p1 k3s2p1 k3p1x5 k3s2p1 k3p1",
    "resnet_v1_50": "k7s2 pool3s2 k3x2 k3s2 k3x3 k3s2 k3x5 k3s2 k3x3",
    "resnet_v1_101": "k7s2 pool3s2 k3x2 k3s2 k3x3 k3s2 k3x22 k3s2 k3x3",
    "resnet_v1_152": "k7s2 pool3s2 k3x2 k3s2 k3x7 k3s2 k3x35 k3s2 k3x3",
    "inception_v2": "k7s2 pool3s2 k3 pool3s2 k3x4 k3 k3s2 k3x8 k3 k3s2 k3x4",
    "inception_v3": "k3s2 k3 k3p1 pool3s2 k3 pool3s2 k5x3 k3 k3s2 k7x8 k7 k3s2 k3x4",
}
