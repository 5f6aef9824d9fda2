"""The typed face of the C++ core: single convolutions on NumPy arrays, and plans of many steps.

NumPy only: nothing here knows PyTorch or graphs. Read ``machine`` (threads and instruction sets), ``plan``
(steps over views), then ``convolve`` (one convolution as a plan of one step).
"""

from convoxel.native.convolve import conv, conv_transpose
from convoxel.native.machine import algorithms, build_info, default_threads, instruction_set, measure_ceiling
from convoxel.native.plan import ACTIVATIONS, Convolution, Plan, View

__all__ = [
    "ACTIVATIONS",
    "Convolution",
    "Plan",
    "View",
    "algorithms",
    "build_info",
    "conv",
    "conv_transpose",
    "default_threads",
    "instruction_set",
    "measure_ceiling",
]
