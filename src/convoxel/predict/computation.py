"""The way in which PyTorch computes a network: device, precision of its products, layout in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from convoxel.models.slice_network import SliceNetwork
from convoxel.predict.kept_memory import keep_memory

_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
_REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU = torch.device("cpu")
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True)
class Computation:
    """The way in which PyTorch computes a network.

    Attributes:
        device: where weights and images are (default the CPU).
        precision: precision of products: "float32"; "tf32", which rounds the factors of products to 11 binary digits
            on GPUs that can, and is float32 elsewhere; "bfloat16" or "float16", whose weights stay float32
            (default "float32").
        channels_last: whether channels are last in memory, in planes and volumes (default True).
        engine: "torch", or "convoxel" for training steps whose layers run on our engine where it is faster, on the CPU
            in float32 (default "torch").
    """

    device: torch.device = _CPU
    precision: str | None = "float32"
    channels_last: bool = True
    engine: str = "torch"

    def arrange(self, model: _Model, dims: int) -> _Model:
        """Return ``model`` itself, its weights moved to the device and laid out."""
        model.to(self.device)
        if isinstance(model, SliceNetwork):  # a network for planes within a network for volumes
            self.arrange(model.planar, 2)
        elif dims in _LAYOUTS:
            layout = _LAYOUTS[dims] if self.channels_last else torch.contiguous_format
            model.to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stub lacks it
        return model

    def move(self, images: torch.Tensor) -> torch.Tensor:
        """Return a batch (n, channels, *spatial) on the device, laid out; pinned memory is not waited for."""
        images = images.to(self.device, non_blocking=True)
        layout = _LAYOUTS.get(images.dim() - 2) if self.channels_last else None
        return images if layout is None else images.contiguous(memory_format=layout)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Run a network with products in the reduced precision, if it is one, or on the engine."""
        kind = _REDUCED.get(self.precision or "")
        if kind is None:
            with self._operators():
                yield
            return
        with torch.autocast(self.device.type, dtype=kind):
            if self.device.type == "cpu":
                with _SmallMaps():
                    yield
            else:
                yield

    def _operators(self) -> contextlib.AbstractContextManager[object]:
        if self.engine != "convoxel":
            return contextlib.nullcontext()
        from convoxel.predict.engine_operators import EngineOperators

        return EngineOperators()

    @contextlib.contextmanager
    def settings(self, *, deterministic: bool = False, repeated: bool = False) -> Iterator[None]:
        """Hold switches of the whole process: TF32, deterministic algorithms, the search for fast ones.

        What PyTorch computes on the CPU does not change from run to run. There, a process that repeats sizes keeps the
        memory that it frees (``keep_memory``).

        Args:
            deterministic: take deterministic algorithms, where there are some; PyTorch warns of operators that have
                none (default False).
            repeated: the same sizes come again and again, so that cuDNN's algorithms are worth a trial
                (default False).
        """
        if self.device.type != "cuda":
            with keep_memory() if repeated and self.device.type == "cpu" else contextlib.nullcontext():
                yield
            return
        cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
        ordered = deterministic or cudnn.deterministic  # of the run around a prediction
        strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        tf32 = self.precision == "tf32"
        if deterministic:  # cuBLAS reads it when it is first used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        try:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            if deterministic:
                torch.use_deterministic_algorithms(True, warn_only=True)
            with cudnn.flags(
                enabled=cudnn.enabled, benchmark=repeated and not ordered, deterministic=ordered, allow_tf32=tf32
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)
            if deterministic:
                torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])


class _SmallMaps(TorchFunctionMode):
    """Convolutions whose window is longer than the map run in float32.

    For them PyTorch 2.13 computes part of the weights' gradient in bfloat16 from memory that nothing has written: with
    a 3×3 kernel of stride 2 on a map one pixel wide the result is arbitrary, and usually not even finite.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func in _CONVOLUTIONS and _is_small(*args, **given):
            with torch.autocast("cpu", enabled=False):
                return func(*map(_as_float, args), **{name: _as_float(value) for name, value in given.items()})
        return func(*args, **given)


_CONVOLUTIONS: tuple[Callable[..., object], ...] = (
    torch.conv1d, torch.conv2d, torch.conv3d,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
)  # fmt: skip


def _is_small(input: object, weight: object, *more: object, **named: object) -> bool:
    assert isinstance(input, torch.Tensor) and isinstance(weight, torch.Tensor)
    return any(size < taps for size, taps in zip(input.shape[2:], weight.shape[2:], strict=True))


def _as_float(value: object) -> object:
    return value.float() if isinstance(value, torch.Tensor) else value
