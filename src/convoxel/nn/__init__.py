"""PyTorch layers written once for 1, 2 and 3 spatial axes, with no tie to the graph or the engine.

Read in this order:

``layer``        the layers of ``torch.nn`` chosen by ``dims``; state-dict names stay as they are there
``functional``   the operators as functions
``initial``      starting weights that keep the variance of the activations
``convolution``  PyTorch's convolutions with every padding
``block``        separable, depthwise-separable and 2.5-D convolutions, squeeze-and-excite
``deform``       a convolution whose kernel moves with the input
``dynamic``      a convolution whose kernel is mixed for every sample
``pooling``      poolings with every padding, blur pooling, un-pooling
``sampling``     resizing, up-sampling by word, pixel shuffle
``local``        a convolution that shares no weights
``kind``         which layers have kernels, and which of their axes belong to one output unit
``constraint``   bounds on kernels, held after every step or added to the loss
``conversion``   linear as convolution, images as volumes, one memory layout as another
``separation``   a trained network with smaller convolutions, where they are faster
"""

from __future__ import annotations

from convoxel.nn import functional
from convoxel.nn.block import DepthwiseSeparableConv, InflatedConv, SeparableConv, SliceStack, SqueezeExcite
from convoxel.nn.constraint import Constraint, MaxNorm, NonNegative, UnitNorm, constrain, decay_groups, l2_penalty
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
from convoxel.nn.convolution import (
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
from convoxel.nn.deform import DeformConv
from convoxel.nn.dynamic import DynamicConv
from convoxel.nn.initial import start_network, start_weights
from convoxel.nn.kind import KINDS
from convoxel.nn.layer import (
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
from convoxel.nn.local import LocallyConnected
from convoxel.nn.pooling import AvgPool, BlurPool, MaxPool, Unpool
from convoxel.nn.sampling import Norm, PixelShuffle, Resize, Upsample, upsamplers
from convoxel.nn.separation import Separation, restore_separated, separate, time_torch

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
