"""The zoo: networks for classification and segmentation, each written once for 1-D, 2-D and 3-D.

>>> net = build("unet", dims=3, in_channels=1, num_classes=3, levels=2, width=16)
>>> net.dims, net.input_multiple
(3, 4)
"""

from __future__ import annotations

from convoxel.models.network import Network
from convoxel.models.registry import Entry, build, entry, names
from convoxel.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
from convoxel.models.unet import UNet, unet
from convoxel.models.vgg import VGG, course_vgg

__all__ = [
    "VGG",
    "Entry",
    "Network",
    "ResNet",
    "UNet",
    "build",
    "course_vgg",
    "entry",
    "names",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "unet",
]
