"""
The C++ core of Convoxel. Use convoxel.native, which checks and documents.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray

class Convolution:
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...

def make_convolution(
    weight: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None, None, None, None), order="C", device="cpu", writable=False)
    ],
    bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)] | None,
    stride: Sequence[int],
    padding_low: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
    from_file: bool,
) -> Convolution: ...

class Plan:
    def __init__(self, arena_size: int, buffers: int, threads: int, isa: str) -> None: ...
    def convolve(
        self,
        convolution: Convolution,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        residual: tuple[int, int, Sequence[int], Sequence[int]] | None,
        gate: tuple[int, int, Sequence[int], Sequence[int]] | None,
        activation: str,
        slope: Sequence[float],
        algorithm: str,
        name: str,
    ) -> None: ...
    def convolve_block(
        self,
        convolutions: Sequence[Convolution],
        depthwise: int,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        residual: tuple[int, int, Sequence[int], Sequence[int]] | None,
        activations: Sequence[tuple[str, Sequence[float]]],
        algorithm: str,
        name: str,
    ) -> None: ...
    def candidates(
        self,
        convolution: Convolution,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        gated: bool,
        algorithm: str,
    ) -> list[tuple[str, float]]: ...
    def max_pool(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        padding_low: Sequence[int],
        name: str,
    ) -> None: ...
    def resample(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        axes: Sequence[
            tuple[
                Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
                Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
            ]
        ],
        name: str,
    ) -> None: ...
    def combine(
        self,
        op: str,
        a: tuple[int, int, Sequence[int], Sequence[int]],
        b: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        activation: str,
        slope: Sequence[float],
        name: str,
    ) -> None: ...
    def reduce(
        self,
        op: str,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        name: str,
    ) -> None: ...
    def softmax(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        log: bool,
        name: str,
    ) -> None: ...
    def permute_channels(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        index: Sequence[int],
        name: str,
    ) -> None: ...
    def local_response_norm(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        size: int,
        alpha: float,
        beta: float,
        bias: float,
        name: str,
    ) -> None: ...
    def prelu(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        slope: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        name: str,
    ) -> None: ...
    def affine(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        scale: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        shift: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        activation: str,
        slope: Sequence[float],
        name: str,
    ) -> None: ...
    def normalise(
        self,
        src: tuple[int, int, Sequence[int], Sequence[int]],
        dst: tuple[int, int, Sequence[int], Sequence[int]],
        groups: int,
        weight: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        eps: float,
        activation: str,
        slope: Sequence[float],
        name: str,
    ) -> None: ...
    def import_channels_first(
        self, buffer: int, dst: tuple[int, int, Sequence[int], Sequence[int]], name: str
    ) -> None: ...
    def export_channels_first(
        self, src: tuple[int, int, Sequence[int], Sequence[int]], buffer: int, name: str
    ) -> None: ...
    @property
    def arena_size(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def written(self) -> list[bool]: ...
    @property
    def needed(self) -> list[int]: ...
    @property
    def steps(self) -> list: ...
    def run(
        self,
        buffers: Sequence[Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)]],
        arena: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)] | None,
        first: int,
        last: int,
        timed: bool,
    ) -> list[float]: ...

def list_algorithms() -> list: ...
def measure_ceiling(isa: str, threads: int, rounds: int) -> float: ...
def measure_reading(threads: int, bytes: int) -> float: ...
def l2_bytes() -> int: ...
def set_rates(near: float, far: float) -> None: ...
def rates() -> tuple[float, float]: ...
def instruction_sets() -> list: ...

compiler: str = "GNU 12.2.0"

activations: tuple = ...
