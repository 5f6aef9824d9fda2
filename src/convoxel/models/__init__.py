"""The zoo: networks for classification and segmentation, each written once for 1-D, 2-D and 3-D.

Every name of ``names()`` is also a function of this module: ``resnet50(dims=3)`` is ``build("resnet50", 3)``.

``backbone``  the common base: check of the input, published figures, sizes
``pyramid``   networks as a row of layers that know where each resolution ends
``layer_factory``  layers that share number of axes, normalisation and activation
``residual``  the block that MobileNet and EfficientNet share
``levels``    sizes and numbers of networks with several resolutions
``stage``     the parts of encoder–decoder networks
``alteration``  dilation, padding, dropout and shortcuts of any network, by one word or number
``registry``  the names
``weights``   weights from files, fitted to another number of channels, classes or axes
and one file for each family.

>>> net = build("unet", dims=3, in_channels=1, num_classes=3, levels=2, width=16)
>>> net.dims, net.input_multiple
(3, 4)
>>> resnet18(1, width=0.25).dims
1
"""

from __future__ import annotations

from convoxel.face import open_face
from convoxel.models.alexnet import AlexNet
from convoxel.models.backbone import Backbone, Network, Published
from convoxel.models.densenet import DenseNet
from convoxel.models.efficientnet import EfficientNet
from convoxel.models.googlenet import GoogLeNet
from convoxel.models.inception import InceptionV3
from convoxel.models.mobilenet import MobileNet
from convoxel.models.nnunet import NnUNet
from convoxel.models.pyramid import Pyramid
from convoxel.models.registry import Entry, Info, build, entry, info, names
from convoxel.models.resnet import ResNet
from convoxel.models.unet import UNet
from convoxel.models.unet_backbone import DenseUNet
from convoxel.models.vgg import VGG
from convoxel.models.weights import WeightReport, load_weights

__all__ = [
    "VGG",
    "AlexNet",
    "Backbone",
    "DenseNet",
    "DenseUNet",
    "EfficientNet",
    "Entry",
    "GoogLeNet",
    "InceptionV3",
    "Info",
    "MobileNet",
    "Network",
    "NnUNet",
    "Published",
    "Pyramid",
    "ResNet",
    "UNet",
    "WeightReport",
    "build",
    "entry",
    "info",
    "load_weights",
    "names",
]

# One list of names, so that a new row of the registry is a new function here. They come after the imports
# above: a file such as ``unet.py`` is an attribute too, and the function is what a caller means.
globals().update({name: entry(name).build for name in names()})
__all__ += names()

open_face(__name__)
