from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray

import convoxel.native.plan

class Convolution:
    def __init__(
        self,
        weight: Annotated[
            NDArray[numpy.float32], dict(shape=(None, None, None, None, None), device="cpu", writable=False)
        ],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)] | None,
        stride: Sequence[int],
        padding_low: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        transposed: bool,
        from_file: bool,
        turned: bool,
    ) -> None: ...
    @property
    def window(
        self,
    ) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], int, bool]: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...

class QuantisedConvolution:
    def __init__(
        self,
        weight: Annotated[
            NDArray[numpy.int16], dict(shape=(None, None, None, None, None), order="C", device="cpu", writable=False)
        ],
        scale: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)] | None,
        zero: int,
        stride: Sequence[int],
        padding_low: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        transposed: bool,
    ) -> None: ...
    @property
    def window(
        self,
    ) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], int, bool]: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...

class Plan:
    def __init__(
        self,
        arena_size: int,
        buffers: int,
        threads: int,
        isa: str,
        digits: int = 24,
        chosen: Mapping[str, str] = {},
        once: bool = False,
    ) -> None: ...
    def candidates(
        self,
        convolution: Convolution,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        algorithm: str = "auto",
        gated: bool = False,
    ) -> list[tuple[str, float]]: ...
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
    def steps(self) -> list: ...
    def __len__(self) -> int: ...
    def run_steps(
        self,
        buffers: Sequence[Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)]],
        arena: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)] | None,
        first: int,
        last: int,
        timed: bool,
    ) -> list[float]: ...
    def convolve(
        self,
        convolution: Convolution,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        residual: convoxel.native.plan.View | None = None,
        activation: str = "none",
        slope: float | tuple[float, float] = 0.0,
        algorithm: str = "auto",
        gate: convoxel.native.plan.View | None = None,
        padding_low: Sequence[int] | None = None,
        chosen: str = "",
        name: str = "",
    ) -> None: ...
    def convolve_block(
        self,
        convolutions: Sequence[Convolution],
        depthwise: int,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        residual: convoxel.native.plan.View | None = None,
        activations: Sequence[tuple[str, float | tuple[float, float]]] = (),
        algorithm: str = "auto",
        padding_low: Sequence[int] | None = None,
        parts: Sequence[str] = (),
        name: str = "",
    ) -> None: ...
    def weight_gradient(
        self,
        src: convoxel.native.plan.View,
        gradient: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        stride: Sequence[int] = (1, 1, 1),
        dilation: Sequence[int] = (1, 1, 1),
        padding_low: Sequence[int] = (0, 0, 0),
        algorithm: str = "auto",
        name: str = "",
    ) -> None: ...
    def convolve_quantised(
        self,
        convolution: QuantisedConvolution,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        residual: convoxel.native.plan.View | None = None,
        activation: str = "none",
        slope: float | tuple[float, float] = 0.0,
        result: tuple[float, int] | None = None,
        residual_levels: tuple[float, int] | None = None,
        padding_low: Sequence[int] | None = None,
        unit: str = "",
        name: str = "",
    ) -> None: ...
    def quantise(
        self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, levels: tuple[float, int], name: str = ""
    ) -> None: ...
    def dequantise(
        self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, levels: tuple[float, int], name: str = ""
    ) -> None: ...
    def max_pool_levels(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int] = (1, 1, 1),
        padding_low: Sequence[int] = (0, 0, 0),
        name: str = "",
    ) -> None: ...
    def copy(self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, name: str = "") -> None: ...
    def max_pool(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int] = (1, 1, 1),
        padding_low: Sequence[int] = (0, 0, 0),
        name: str = "",
    ) -> None: ...
    def resample(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        axes: Sequence[
            tuple[
                Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
                Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
            ]
            | tuple[Sequence[str], Sequence[int], Sequence[float]]
        ],
        name: str = "",
    ) -> None: ...
    def combine(
        self,
        op: str,
        a: convoxel.native.plan.View,
        b: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        activation: str = "none",
        slope: float | tuple[float, float] = 0.0,
        name: str = "",
    ) -> None: ...
    def reduce(
        self, op: str, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, name: str = ""
    ) -> None: ...
    def softmax(
        self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, log: bool = False, name: str = ""
    ) -> None: ...
    def permute_channels(
        self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, index: Sequence[int], name: str = ""
    ) -> None: ...
    def local_response_norm(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        size: int,
        alpha: float = 0.0001,
        beta: float = 0.75,
        bias: float = 1.0,
        name: str = "",
    ) -> None: ...
    def prelu(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        slope: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        name: str = "",
    ) -> None: ...
    def affine(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        scale: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        shift: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        activation: str = "none",
        slope: float | tuple[float, float] = 0.0,
        name: str = "",
    ) -> None: ...
    def convert(
        self, src: convoxel.native.plan.View, dst: convoxel.native.plan.View, name: str = ""
    ) -> None: ...
    def normalise(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        groups: int,
        weight: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        eps: float,
        activation: str = "none",
        slope: float | tuple[float, float] = 0.0,
        name: str = "",
    ) -> None: ...
    def statistics(
        self,
        src: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        eps: float,
        name: str = "",
    ) -> None: ...
    def normalise_by(
        self,
        src: convoxel.native.plan.View,
        statistics: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        weight: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        name: str = "",
    ) -> None: ...
    def normalise_gradient(
        self,
        src: convoxel.native.plan.View,
        gradient: convoxel.native.plan.View,
        statistics: convoxel.native.plan.View,
        dst: convoxel.native.plan.View,
        sums: convoxel.native.plan.View,
        weight: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        bias: Annotated[NDArray[numpy.float32], dict(order="C", device="cpu", writable=False)],
        slope: float,
        name: str = "",
    ) -> None: ...
    def import_channels_first(self, buffer: int, dst: convoxel.native.plan.View, name: str = "") -> None: ...
    def export_channels_first(self, src: convoxel.native.plan.View, buffer: int, name: str = "") -> None: ...

def list_algorithms() -> list: ...
def step_parameters() -> dict: ...
def problem_text(
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding_low: Sequence[int],
    groups: int,
    transposed: bool,
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    activation: str,
    residual: bool,
    gated: bool,
    in_element: str,
    out_element: str,
) -> str: ...
def place_blocks(blocks: Sequence[Sequence[int]]) -> tuple[list[int], int]: ...
def index_table(
    words: Sequence[str], numbers: Sequence[int], fractions: Sequence[float], size: int, out: int
) -> tuple[
    int,
    Annotated[NDArray[numpy.int32], dict(shape=(None,))],
    Annotated[NDArray[numpy.float32], dict(shape=(None,))],
]: ...
def checksum(
    arrays: Sequence[Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)]],
    threads: int,
) -> int: ...
def measure_ceiling(isa: str, threads: int, rounds: int) -> float: ...
def measure_reading(threads: int, bytes: int, trials: int) -> list[float]: ...
def l2_bytes() -> int: ...
def set_rates(cache: float, memory: float) -> None: ...
def rates() -> tuple[float, float]: ...
def reference_machines() -> list: ...
def most_integer_products() -> int: ...
def integer_units(isa: str) -> list: ...
def instruction_sets() -> list: ...

compiler: str = "GNU 12.2.0"

activations: tuple = ...
