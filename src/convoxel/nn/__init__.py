"""PyTorch layers written once for 1, 2 and 3 spatial axes, with no tie to the graph or the engine.

Read in this order:

``documentation``         descriptions of arguments that mean the same everywhere
``torch_layers``          layers of ``torch.nn`` chosen by ``dims``; state-dict names stay as they are there
``functional``            the operators as functions
``initialisation``        initial weights that keep the variance of activations
``padded_convolution``    PyTorch's convolutions with every padding
``conv_blocks``           separable, depthwise-separable and 2.5-D convolutions, squeeze-and-excitation
``adaptive_convolution``  convolutions whose kernel depends on the input
``locally_connected``     a convolution that shares no weights
``pooling_layers``        pooling with every padding, blur pooling, un-pooling
``upsampling``            resizing, up-sampling by word, pixel shuffle
``kind``                  layers that have kernels, and the axes of a kernel that belong to one output unit
``weight_constraint``     bounds on kernels, held after every step or added to the loss
``conversion``            linear layers as convolutions, images as volumes, one memory layout as another
``separation``            a trained network with smaller convolutions, where they are faster
"""

from __future__ import annotations

from convoxel.face import open_face
from convoxel.nn import functional
from convoxel.nn.adaptive_convolution import DeformConv, DynamicConv
from convoxel.nn.conv_blocks import DepthwiseSeparableConv, InflatedConv, SeparableConv, SliceStack, SqueezeExcite
from convoxel.nn.conversion import (
    LAYOUTS,
    FullyConvolutional,
    change_layout,
    conv_to_linear,
    fully_convolutional,
    inflate,
    inflate_kernel,
    linear_to_conv,
)
from convoxel.nn.documentation import LAYERS, complete_docstring
from convoxel.nn.initialisation import start_network, start_weights
from convoxel.nn.kind import KINDS
from convoxel.nn.locally_connected import LocallyConnected
from convoxel.nn.padded_convolution import (
    BORDERS,
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from convoxel.nn.pooling_layers import AvgPool, BlurPool, MaxPool, Unpool
from convoxel.nn.separation import Separation, restore_separated, separate, time_torch
from convoxel.nn.torch_layers import (
    ACTIVATIONS,
    LEAKY_SLOPE,
    NORMS,
    activation,
    adaptive_average_pool,
    average_pool,
    batch_norm,
    check_dims,
    conv,
    conv_transpose,
    global_average_pool,
    group_norm,
    instance_norm,
    max_pool,
    norm,
    resize,
    sizes_of,
)
from convoxel.nn.upsampling import Norm, PixelShuffle, Resize, Upsample, upsamplers
from convoxel.nn.weight_constraint import (
    Constraint,
    MaxNorm,
    NonNegative,
    UnitNorm,
    constrain,
    decay_groups,
    l2_penalty,
)

__all__ = [
    "ACTIVATIONS",
    "BORDERS",
    "KINDS",
    "LAYOUTS",
    "LEAKY_SLOPE",
    "NORMS",
    "AvgPool",
    "BlurPool",
    "Constraint",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeformConv",
    "DepthwiseSeparableConv",
    "DynamicConv",
    "FullyConvolutional",
    "InflatedConv",
    "LocallyConnected",
    "MaxNorm",
    "MaxPool",
    "NonNegative",
    "Norm",
    "PixelShuffle",
    "Resize",
    "SeparableConv",
    "Separation",
    "SliceStack",
    "SqueezeExcite",
    "UnitNorm",
    "Unpool",
    "Upsample",
    "activation",
    "adaptive_average_pool",
    "average_pool",
    "batch_norm",
    "change_layout",
    "check_dims",
    "constrain",
    "conv",
    "conv_to_linear",
    "conv_transpose",
    "decay_groups",
    "fully_convolutional",
    "functional",
    "global_average_pool",
    "group_norm",
    "inflate",
    "inflate_kernel",
    "instance_norm",
    "l2_penalty",
    "linear_to_conv",
    "max_pool",
    "norm",
    "resize",
    "restore_separated",
    "separate",
    "sizes_of",
    "start_network",
    "start_weights",
    "time_torch",
    "upsamplers",
]

for _name in __all__:
    complete_docstring(globals()[_name], LAYERS)

open_face(__name__, early=True, plainly=True)
