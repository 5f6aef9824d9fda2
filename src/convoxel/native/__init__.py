"""The Python interface of the C++ engine: single convolutions on NumPy arrays, and plans of many steps.

It uses NumPy only and knows neither PyTorch nor graphs. Read ``machine`` (threads and instruction sets), ``plan``
(steps over views), ``convolve`` (one convolution as a plan of one step), then ``packing`` (smaller packed weights),
``calibration`` and ``tuning`` (measurements of this machine, kept on disk).
"""

from convoxel.face import open_face
from convoxel.files.cache import cache_folder
from convoxel.files.mapping import FileMemory
from convoxel.native.checksum import checksum
from convoxel.native.convolve import conv, conv_transpose
from convoxel.native.machine import (
    algorithms,
    build_info,
    caches,
    default_threads,
    instruction_set,
    instruction_sets,
    measure_bandwidth,
    measure_ceiling,
)
from convoxel.native.packing import choose_smaller_weights
from convoxel.native.plan import ACTIVATIONS, Convolution, Plan, Problem, View
from convoxel.native.tuning import known_winners, remembered_count, time_candidates, tune

__all__ = [
    "ACTIVATIONS",
    "Convolution",
    "FileMemory",
    "Plan",
    "Problem",
    "View",
    "algorithms",
    "build_info",
    "cache_folder",
    "caches",
    "checksum",
    "choose_smaller_weights",
    "conv",
    "conv_transpose",
    "default_threads",
    "instruction_set",
    "instruction_sets",
    "known_winners",
    "measure_bandwidth",
    "measure_ceiling",
    "remembered_count",
    "time_candidates",
    "tune",
]

open_face(__name__)
